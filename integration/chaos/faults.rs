//! What goes wrong: each fault is made, held, and ended; whoever is gone then is started again.

#![expect(
    clippy::unnecessary_wraps,
    reason = "faults have one signature, whether they can fail or not"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::machines::{FRAIL, Machines, NETWORK, NODES};
use crate::cluster::Cluster;
use crate::devices::sh;
use crate::kit;

/// What faults happen to.
pub(super) struct World<'a> {
    pub machines: &'a Machines,
    pub cluster: &'a mut Cluster,
}

type Make = fn(&mut World<'_>, usize) -> Result<(), String>;

/// Every kind, and what it needs beyond a Linux with network namespaces and loop devices.
pub(super) const FAULTS: &[(&str, &str, Make)] = &[
    ("kill -9", "", kill),
    ("SIGSTOP", "", pause),
    ("SIGTERM", "", terminate),
    ("link down", "", link_down),
    ("one-way cut", "", one_way_cut),
    ("power cut of one", "", |world, node| cut_power(world, &[node])),
    ("flush EIO", "frail disk", failing_writes),
    ("packet loss", "iptables", packet_loss),
    ("power cut of two", "", |world, node| cut_power(world, &[node, node % NODES + 1])),
    ("slow link", "", |world, node| slow_link(world, node, &["40", "0", "0"])),
    ("connections reset", "", reset_connections),
    ("power cut of all", "", |world, _| cut_power(world, &[1, 2, 3])),
    ("clock ahead", "clocks", |world, node| clock(world, node, 7_200)),
    ("kill -9 of all", "", kill_all),
    ("hung disk", "", hung_disk),
    ("little bandwidth", "", little_bandwidth),
    ("full disk", "", full_disk),
    ("two nodes cut from each other", "", two_way_cut),
    ("slow disk", "blkio", slow_disk),
    ("flapping link", "", flapping_link),
    ("link that reorders and doubles", "", |world, node| slow_link(world, node, &["1", "30", "5"])),
    ("clock back", "clocks", |world, node| clock(world, node, -1_500)),
    ("little CPU", "cpu", little_cpu),
    ("file system that shuts itself down", "", shut_down_file_system),
    ("kill -9 behind a cut", "", kill_behind_a_cut),
];

const BLKIO: &str = "/sys/fs/cgroup/blkio";
const CPU: &str = "/sys/fs/cgroup/cpu";

/// Why a kind can't be made here; `None` if it can.
pub(super) fn missing(needs: &str, machines: &Machines) -> Option<&'static str> {
    let is_there = match needs {
        "iptables" => kit::has_tools(&["iptables"]),
        "frail disk" => machines.has_frail_disk(),
        "clocks" => machines.has_clocks(),
        "blkio" => has_control_groups(BLKIO),
        "cpu" => has_control_groups(CPU),
        _ => true,
    };
    (!is_there).then_some("what it needs is not on this machine")
}

fn has_control_groups(root: &str) -> bool {
    Path::new(root).join("cgroup.procs").exists()
}

/// Makes one fault, ends it, and starts whoever is gone.
pub(super) fn hurt(make: Make, node: usize, world: &mut World<'_>) -> Result<(), String> {
    make(world, node)?;
    world.cluster.reap();
    world.cluster.start_missing();
    Ok(())
}

fn hold() {
    std::thread::sleep(Duration::from_millis(2_500));
}

fn kill(world: &mut World<'_>, node: usize) -> Result<(), String> {
    world.cluster.kill(node - 1);
    hold();
    Ok(())
}

fn kill_all(world: &mut World<'_>, _: usize) -> Result<(), String> {
    (0..NODES).for_each(|index| world.cluster.kill(index));
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

fn pause(world: &mut World<'_>, node: usize) -> Result<(), String> {
    world.cluster.node(node - 1).pause(true);
    hold();
    world.cluster.node(node - 1).pause(false);
    Ok(())
}

fn terminate(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let stopped = world.cluster.nodes[node - 1].take().expect("running").terminate();
    if !stopped.success() {
        println!("        its end was {stopped}");
    }
    Ok(())
}

fn link(world: &World<'_>, node: usize, state: &str) -> Result<(), String> {
    sh(&format!("ip -n {}s link set p{node} {state}", world.machines.tag)).map(drop)
}

fn link_down(world: &mut World<'_>, node: usize) -> Result<(), String> {
    link(world, node, "down")?;
    hold();
    link(world, node, "up")
}

fn flapping_link(world: &mut World<'_>, node: usize) -> Result<(), String> {
    (0..5).try_for_each(|_| {
        link(world, node, "down")?;
        std::thread::sleep(Duration::from_millis(350));
        link(world, node, "up")?;
        std::thread::sleep(Duration::from_millis(150));
        Ok(())
    })
}

/// Changes what a node sends to another.
fn route(world: &World<'_>, from: usize, to: usize, how: &str) -> Result<(), String> {
    let tag = &world.machines.tag;
    sh(&format!("ip -n {tag}n{from} route {how} blackhole {NETWORK}.{to}/32")).map(drop)
}

fn one_way_cut(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let other = node % NODES + 1;
    route(world, node, other, "add")?;
    hold();
    route(world, node, other, "del")
}

fn two_way_cut(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let other = node % NODES + 1;
    route(world, node, other, "add")?;
    route(world, other, node, "add")?;
    hold();
    route(world, node, other, "del")?;
    route(world, other, node, "del")
}

fn kill_behind_a_cut(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let other = node % NODES + 1;
    route(world, node, other, "add")?;
    std::thread::sleep(Duration::from_secs(1));
    world.cluster.kill(node - 1);
    std::thread::sleep(Duration::from_secs(1));
    route(world, node, other, "del")
}

fn little_bandwidth(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let shape = "root tbf rate 2mbit burst 32kb latency 400ms";
    let tag = &world.machines.tag;
    sh(&format!("tc -n {tag}n{node} qdisc add dev eth0 {shape}"))?;
    hold();
    sh(&format!("tc -n {tag}n{node} qdisc del dev eth0 root")).map(drop)
}

/// A command in a node's network.
fn inside(world: &World<'_>, node: usize, words: &str) -> Result<String, String> {
    sh(&format!("{} {words}", world.machines.prefix(node).join(" ")))
}

fn packet_loss(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let rule = "INPUT -m statistic --mode random --probability 0.15 -j DROP";
    inside(world, node, &format!("iptables -A {rule}"))?;
    hold();
    inside(world, node, &format!("iptables -D {rule}")).map(drop)
}

fn reset_connections(world: &mut World<'_>, node: usize) -> Result<(), String> {
    for _ in 0..5 {
        inside(world, node, &format!("ss -K dst {NETWORK}.0/24"))?;
        std::thread::sleep(Duration::from_millis(400));
    }
    Ok(())
}

fn slow_link(world: &mut World<'_>, node: usize, how: &[&str]) -> Result<(), String> {
    let switch = world.machines.slow_link(node, how)?;
    hold();
    hold();
    world.machines.end_slow_link(node, switch)
}

fn clock(world: &mut World<'_>, node: usize, apart_s: i64) -> Result<(), String> {
    world.machines.set_clock(node, apart_s)?;
    hold();
    // Whoever starts now starts with the wrong time.
    world.cluster.kill(node - 1);
    world.cluster.start_missing();
    hold();
    world.machines.set_clock(node, 0)
}

fn full_disk(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let mount = world.machines.mount(node);
    let filler = mount.join("filler");
    let free = sh(&format!("stat -f -c %a*%S {}", mount.display()))?;
    let (blocks, size) = free.split_once('*').ok_or("stat says nothing")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let mut rest = number(blocks)? * number(size)?;
    // The file system needs some of it to write down what was given to whom.
    while rest > 1 << 20 && sh(&format!("fallocate -l {rest} {}", filler.display())).is_err() {
        rest -= rest / 50;
    }
    let _ = sh(&format!("dd if=/dev/zero of={} bs=64k", mount.join("filler2").display()));
    hold();
    let files: [PathBuf; 2] = [filler, mount.join("filler2")];
    files.iter().try_for_each(|file| std::fs::remove_file(file).map_err(|error| error.to_string()))
}

fn cut_power(world: &mut World<'_>, nodes: &[usize]) -> Result<(), String> {
    nodes.iter().try_for_each(|node| world.machines.cut_power(*node))?;
    nodes.iter().for_each(|node| world.cluster.kill(*node - 1));
    nodes.iter().try_for_each(|node| world.machines.remount(*node))?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Writes fail in the kernel, so a flush does: the process has to end by itself, and the machine is started again.
fn failing_writes(world: &mut World<'_>, _: usize) -> Result<(), String> {
    world.machines.fail_writes(true)?;
    ends_by_itself(world, FRAIL)?;
    world.machines.fail_writes(false)?;
    world.machines.remount(FRAIL)
}

fn ends_by_itself(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let begun = Instant::now();
    while world.cluster.nodes[node - 1].is_some() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(format!("node {node} goes on, though its disk fails"));
        }
        std::thread::sleep(Duration::from_millis(50));
        world.cluster.reap();
    }
    Ok(())
}

/// As a file system does that found itself damaged: every write fails from now on, and the process has to end by itself.
fn shut_down_file_system(world: &mut World<'_>, node: usize) -> Result<(), String> {
    world.machines.cut_power(node)?;
    ends_by_itself(world, node)?;
    world.machines.remount(node)
}

fn hung_disk(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let mount = world.machines.mount(node).display().to_string();
    sh(&format!("fsfreeze -f {mount}"))?;
    hold();
    sh(&format!("fsfreeze -u {mount}")).map(drop)
}

/// Puts a node's process into a control group with a limit, and takes it out again.
fn squeezed(
    world: &World<'_>,
    node: usize,
    root: &str,
    limits: &[(&str, String)],
) -> Result<(), String> {
    let pid = world.cluster.node(node - 1).pid();
    let group = Path::new(root).join(format!("{}n{node}", world.machines.tag));
    let write = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(&group).map_err(|error| error.to_string())?;
    limits.iter().try_for_each(|(file, value)| write(group.join(file), value))?;
    write(group.join("cgroup.procs"), &pid.to_string())?;
    hold();
    hold();
    write(Path::new(root).join("cgroup.procs"), &pid.to_string())?;
    std::fs::remove_dir(&group).map_err(|error| error.to_string())
}

fn slow_disk(world: &mut World<'_>, node: usize) -> Result<(), String> {
    let device = world.machines.device_number(node)?;
    let limits = [
        ("blkio.throttle.write_bps_device", format!("{device} 200000")),
        ("blkio.throttle.write_iops_device", format!("{device} 30")),
    ];
    squeezed(world, node, BLKIO, &limits)
}

fn little_cpu(world: &mut World<'_>, node: usize) -> Result<(), String> {
    squeezed(world, node, CPU, &[("cpu.cfs_quota_us", "4000".to_owned())])
}
