//! Three nodes, each in a network and on a file system of its own, and one thing after the other goes wrong.
//!
//! Faults are real: processes killed and stopped, links down, routes cut in one direction, little bandwidth, power cut
//! (the file system is shut down by force) on one, two and all nodes, full disks. Needs root, network namespaces and loop
//! devices; where they are missing the story says so and is skipped. `CHAOS_MINUTES=60` makes it the standard run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::broker::folder;
use crate::cluster::{Cluster, Judge, Place};

const NODES: usize = 3;
/// The network for benchmarks (RFC 2544): nobody else's.
const NETWORK: &str = "198.18.0";
const CLIENT: usize = 9;
const SHORT_RUN: Duration = Duration::from_secs(80);
/// `FS_IOC_SHUTDOWN` with `NOLOGFLUSH`.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn sh(words: &str) -> Result<(), String> {
    let mut split = words.split_whitespace();
    let mut command = Command::new(split.next().unwrap_or_default());
    let output = command.args(split).output().map_err(|error| format!("{words}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Makes names differ where several stories run at once.
fn next() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Networks and file systems; all of it is gone when it is dropped.
struct Machines {
    tag: String,
    folder: PathBuf,
}

impl Machines {
    fn new(folder: &Path) -> Result<Self, String> {
        let machines = Self {
            tag: format!("s{}{}", std::process::id() % 10_000, next()),
            folder: folder.to_owned(),
        };
        let tag = &machines.tag;
        sh(&format!("ip netns add {tag}s"))?;
        sh(&format!("ip -n {tag}s link add br0 type bridge"))?;
        sh(&format!("ip -n {tag}s link set br0 up"))?;
        for node in (1..=NODES).chain([CLIENT]) {
            sh(&format!("ip netns add {tag}n{node}"))?;
            sh(&format!("ip -n {tag}n{node} link set lo up"))?;
            sh(&format!(
                "ip -n {tag}s link add p{node} type veth peer name eth0 netns {tag}n{node}"
            ))?;
            sh(&format!("ip -n {tag}s link set p{node} master br0 up"))?;
            sh(&format!("ip -n {tag}n{node} addr add {NETWORK}.{node}/24 dev eth0"))?;
            sh(&format!("ip -n {tag}n{node} link set eth0 up"))?;
        }
        for node in 1..=NODES {
            let (image, mount) = (machines.image(node), machines.mount(node));
            std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
            sh(&format!("truncate -s 2G {}", image.display()))?;
            sh(&format!("mkfs.ext4 -q {}", image.display()))?;
            machines.mount_disk(node)?;
        }
        Ok(machines)
    }

    fn image(&self, node: usize) -> PathBuf {
        self.folder.join(format!("image{node}"))
    }

    fn mount(&self, node: usize) -> PathBuf {
        self.folder.join(format!("disk{node}"))
    }

    fn mount_disk(&self, node: usize) -> Result<(), String> {
        sh(&format!("mount -o loop {} {}", self.image(node).display(), self.mount(node).display()))
    }

    fn prefix(&self, node: usize) -> Vec<String> {
        // Not `ip netns exec`: that would also keep a copy of the mounts, and a disk could not be taken away.
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}n{node}", self.tag)]
    }

    fn place(&self, node: usize) -> Place {
        Place {
            host: format!("{NETWORK}.{node}"),
            kafka: 9092,
            controller: 9093,
            data: self.mount(node).join("data"),
            prefix: self.prefix(node),
            settings: Vec::new(),
        }
    }

    fn cut_power(&self, node: usize) -> Result<(), String> {
        let mount = self.mount(node);
        let output = Command::new("python3").args(["-c", SHUT_DOWN]).arg(mount).status();
        output.map(drop).map_err(|error| error.to_string())
    }

    fn remount(&self, node: usize) -> Result<(), String> {
        sh(&format!("umount {}", self.mount(node).display()))?;
        self.mount_disk(node)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for node in (1..=NODES).chain([CLIENT]) {
            let _ = sh(&format!("ip netns del {}n{node}", self.tag));
        }
        let _ = sh(&format!("ip netns del {}s", self.tag));
        for node in 1..=NODES {
            let _ = sh(&format!("umount -l {}", self.mount(node).display()));
        }
    }
}

/// What goes wrong, by its number; the same order in each run, the nodes change.
const FAULTS: &[&str] = &[
    "kill -9",
    "SIGSTOP",
    "SIGTERM",
    "link down",
    "one-way cut",
    "power cut of one",
    "power cut of two",
    "power cut of all",
    "kill -9 of all",
    "little bandwidth",
    "full disk",
    "two nodes cut from each other",
    "flapping link",
];

/// Makes one fault, ends it, and starts whoever is gone.
fn hurt(what: &str, node: usize, machines: &Machines, cluster: &mut Cluster) -> Result<(), String> {
    match what {
        "kill -9" | "SIGSTOP" | "SIGTERM" => hurt_process(what, node, cluster),
        "link down"
        | "flapping link"
        | "one-way cut"
        | "two nodes cut from each other"
        | "little bandwidth" => hurt_network(what, node, &machines.tag)?,
        _ => hurt_disks(what, node, machines, cluster)?,
    }
    cluster.reap();
    cluster.start_missing();
    Ok(())
}

fn hold() {
    std::thread::sleep(Duration::from_millis(2_500));
}

fn hurt_process(what: &str, node: usize, cluster: &mut Cluster) {
    match what {
        "kill -9" => {
            cluster.kill(node - 1);
            hold();
        }
        "SIGSTOP" => {
            cluster.nodes[node - 1].as_ref().expect("running").pause(true);
            hold();
            cluster.nodes[node - 1].as_ref().expect("running").pause(false);
        }
        _ => drop(cluster.nodes[node - 1].take().expect("running").terminate()),
    }
}

fn hurt_network(what: &str, node: usize, tag: &str) -> Result<(), String> {
    let other = node % NODES + 1;
    let link = |state: &str| sh(&format!("ip -n {tag}s link set p{node} {state}"));
    let cut = |from: usize, to: usize, how: &str| {
        sh(&format!("ip -n {tag}n{from} route {how} blackhole {NETWORK}.{to}/32"))
    };
    match what {
        "link down" => {
            link("down")?;
            hold();
            link("up")
        }
        "flapping link" => (0..5).try_for_each(|_| {
            link("down")?;
            std::thread::sleep(Duration::from_millis(350));
            link("up")?;
            std::thread::sleep(Duration::from_millis(150));
            Ok(())
        }),
        "one-way cut" => {
            cut(node, other, "add")?;
            hold();
            cut(node, other, "del")
        }
        "two nodes cut from each other" => {
            cut(node, other, "add")?;
            cut(other, node, "add")?;
            hold();
            cut(node, other, "del")?;
            cut(other, node, "del")
        }
        _ => {
            let shape = "root tbf rate 2mbit burst 32kb latency 400ms";
            sh(&format!("tc -n {tag}n{node} qdisc add dev eth0 {shape}"))?;
            hold();
            sh(&format!("tc -n {tag}n{node} qdisc del dev eth0 root"))
        }
    }
}

fn hurt_disks(
    what: &str,
    node: usize,
    machines: &Machines,
    cluster: &mut Cluster,
) -> Result<(), String> {
    if what == "full disk" {
        let filler = machines.mount(node).join("filler");
        let _ = sh(&format!("dd if=/dev/zero of={} bs=1M", filler.display()));
        hold();
        return std::fs::remove_file(&filler).map_err(|error| error.to_string());
    }
    let nodes: Vec<usize> = match what {
        "power cut of one" => vec![node],
        "power cut of two" => vec![node, node % NODES + 1],
        _ => (1..=NODES).collect(),
    };
    let is_power = what != "kill -9 of all";
    if is_power {
        nodes.iter().try_for_each(|node| machines.cut_power(*node))?;
    }
    nodes.iter().for_each(|node| cluster.kill(*node - 1));
    if is_power {
        nodes.iter().try_for_each(|node| machines.remount(*node))?;
    }
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_networks_disks_and_processes() {
    let (folder, _) = folder();
    let machines = match Machines::new(folder.path()) {
        Ok(machines) => machines,
        Err(why) => {
            println!("skipped: no networks and file systems of our own on this machine: {why}");
            return;
        }
    };
    let minutes = std::env::var("CHAOS_MINUTES").ok().and_then(|m| m.parse::<u64>().ok());
    let length = minutes.map_or(SHORT_RUN, |minutes| Duration::from_secs(60 * minutes));
    let mut cluster = Cluster::start_at((1..=NODES).map(|node| machines.place(node)).collect());
    let bootstrap = cluster.bootstrap();
    let judge = Judge::start(&machines.prefix(CLIENT), &bootstrap, length.as_secs() + 5);
    std::thread::sleep(Duration::from_secs(4));
    let begun = Instant::now();
    let mut faults = 0;
    while begun.elapsed() + Duration::from_secs(6) < length {
        let what = FAULTS[faults % FAULTS.len()];
        let node = 1 + (faults + faults / FAULTS.len()) % NODES;
        println!("{:>5.1} s: {what}, node {node}", begun.elapsed().as_secs_f64());
        hurt(what, node, &machines, &mut cluster).expect("the fault is made");
        faults += 1;
        std::thread::sleep(Duration::from_secs(2));
    }
    let acked = judge.verdict();
    println!("{faults} faults of {} kinds, {acked} records acknowledged", FAULTS.len());
    cluster.wait_healthy();
    let different = cluster.stop_and_compare("all");
    assert!(different.is_empty(), "{different:#?}");
    assert!(acked > 5_000 && faults >= 10, "{acked} records, {faults} faults");
}

#[test]
fn the_power_cut_finds_what_was_acknowledged_before_it_was_flushed() {
    let (folder, _) = folder();
    let machines = match Machines::new(folder.path()) {
        Ok(machines) => machines,
        Err(why) => {
            println!("skipped: no networks and file systems of our own on this machine: {why}");
            return;
        }
    };
    // A run that can't fail shows nothing: what is acknowledged from caches must be missed here.
    let places = (1..=NODES).map(|node| machines.place(node)).collect();
    let mut cluster = Cluster::start_with(places, &["write.caching=true"]);
    let judge = Judge::start(&machines.prefix(CLIENT), &cluster.bootstrap(), 9);
    std::thread::sleep(Duration::from_secs(6));
    hurt("power cut of all", 1, &machines, &mut cluster).expect("the power is cut");
    let lost = judge.lost();
    println!("{lost} records lost that were acknowledged from caches");
    assert!(lost > 0);
}
