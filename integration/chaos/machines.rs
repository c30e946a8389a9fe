//! Networks and file systems for the nodes, made here and gone when they are dropped.
//!
//! One node's disk stands on a device whose writes can be made to fail (nbdkit through a FUSE file and a loop device);
//! every node's wall clock can be set apart from the machine's (libfaketime), its monotonic one can't.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::cluster::Place;
use crate::devices::{Device, sh};
use crate::kit;

pub(super) const NODES: usize = 3;
/// The network for benchmarks (RFC 2544): nobody else's.
pub(super) const NETWORK: &str = "198.18.0";
pub(super) const CLIENT: usize = 9;
/// The node whose disk can be made to fail.
pub(super) const FRAIL: usize = 3;

/// Makes names differ where several stories run at once.
fn next() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Networks and file systems; all of it is gone when it is dropped.
pub(super) struct Machines {
    pub tag: String,
    folder: PathBuf,
    frail: Option<Device>,
    clocks: Option<PathBuf>,
}

impl Machines {
    pub(super) fn new(folder: &Path) -> Result<Self, String> {
        let mut machines = Self {
            tag: format!("s{}{}", std::process::id() % 10_000, next()),
            folder: folder.to_owned(),
            frail: None,
            clocks: None,
        };
        machines.make_networks()?;
        machines.clocks = kit::fake_clock_library();
        for node in 1..=NODES {
            let (image, mount) = (machines.image(node), machines.mount(node));
            std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
            sh(&format!("truncate -s 4G {}", image.display()))?;
            if node == FRAIL && kit::has_tools(&["nbdkit", "nbdfuse"]) {
                machines.frail = Some(machines.frail_device(&image)?);
            }
            sh(&format!("mkfs.ext4 -q -F {}", machines.device(node)))?;
            machines.mount_disk(node)?;
            machines.set_clock(node, 0)?;
        }
        Ok(machines)
    }

    fn make_networks(&self) -> Result<(), String> {
        let tag = &self.tag;
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
            // The way of a slow link: a switch in user space stands between these two.
            sh(&format!("ip -n {tag}s link add q{node} type veth peer name r{node}"))?;
            sh(&format!("ip -n {tag}s link set q{node} up"))?;
            sh(&format!("ip -n {tag}s link set r{node} master br0 up"))?;
            sh(&format!("ip -n {tag}n{node} addr add {NETWORK}.{node}/24 dev eth0"))?;
            sh(&format!("ip -n {tag}n{node} link set eth0 up"))?;
        }
        Ok(())
    }

    /// A device whose writes fail while a file exists.
    fn frail_device(&self, image: &Path) -> Result<Device, String> {
        let fails = format!("error-file={}", self.folder.join("fail-writes").display());
        let settings =
            ["error=EIO", "error-pwrite-rate=100%", "error-zero-rate=100%", fails.as_str()];
        Device::new(&self.folder.join("frail"), image, "error", &settings)
    }

    fn image(&self, node: usize) -> PathBuf {
        self.folder.join(format!("image{node}"))
    }

    pub(super) fn mount(&self, node: usize) -> PathBuf {
        self.folder.join(format!("disk{node}"))
    }

    fn device(&self, node: usize) -> String {
        match &self.frail {
            Some(frail) if node == FRAIL => frail.path.clone(),
            _ => self.image(node).display().to_string(),
        }
    }

    pub(super) fn has_frail_disk(&self) -> bool {
        self.frail.is_some()
    }

    pub(super) fn has_clocks(&self) -> bool {
        self.clocks.is_some()
    }

    fn mount_disk(&self, node: usize) -> Result<(), String> {
        let how = if node == FRAIL && self.frail.is_some() { "" } else { "-o loop" };
        sh(&format!("mount {how} {} {}", self.device(node), self.mount(node).display())).map(drop)
    }

    /// What stands before a program that runs in a node's network.
    pub(super) fn prefix(&self, node: usize) -> Vec<String> {
        // Not `ip netns exec`: that would also keep a copy of the mounts, and a disk could not be taken away.
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}n{node}", self.tag)]
    }

    pub(super) fn place(&self, node: usize) -> Place {
        let mut prefix = self.prefix(node);
        if let Some(library) = &self.clocks {
            prefix.extend([
                "env".to_owned(),
                format!("LD_PRELOAD={}", library.display()),
                format!("FAKETIME_TIMESTAMP_FILE={}", self.clock(node).display()),
                "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
                "FAKETIME_CACHE_DURATION=1".to_owned(),
            ]);
        }
        Place {
            host: format!("{NETWORK}.{node}"),
            kafka: 9092,
            controller: 9093,
            data: self.mount(node).join("data"),
            prefix,
            settings: Vec::new(),
            program: None,
        }
    }

    fn clock(&self, node: usize) -> PathBuf {
        self.folder.join(format!("clock{node}"))
    }

    /// Sets a node's wall clock apart from the machine's.
    pub(super) fn set_clock(&self, node: usize, apart_s: i64) -> Result<(), String> {
        std::fs::write(self.clock(node), format!("{apart_s:+}")).map_err(|error| error.to_string())
    }

    /// Whether writes to the frail disk fail from now on.
    pub(super) fn fail_writes(&self, fails: bool) -> Result<(), String> {
        let file = self.folder.join("fail-writes");
        let done = if fails { std::fs::write(&file, "") } else { std::fs::remove_file(&file) };
        done.map_err(|error| error.to_string())
    }

    /// The device below a node's file system, as `major:minor`.
    pub(super) fn device_number(&self, node: usize) -> Result<String, String> {
        sh(&format!("mountpoint -d {}", self.mount(node).display()))
    }

    pub(super) fn cut_power(&self, node: usize) -> Result<(), String> {
        let shut_down = kit::shut_down(&self.mount(node)).status();
        shut_down.map(drop).map_err(|error| error.to_string())
    }

    pub(super) fn remount(&self, node: usize) -> Result<(), String> {
        sh(&format!("umount {}", self.mount(node).display()))?;
        self.mount_disk(node)
    }

    /// A switch in user space between a node and the others, until it is killed.
    pub(super) fn slow_link(&self, node: usize, how: &[&str]) -> Result<Child, String> {
        let tag = &self.tag;
        sh(&format!("ip -n {tag}s link set p{node} nomaster"))?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/tools/slow_link.py");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{tag}s")).args(["python3", script]);
        command.args([format!("p{node}"), format!("q{node}")]).args(how);
        command.spawn().map_err(|error| error.to_string())
    }

    pub(super) fn end_slow_link(&self, node: usize, mut switch: Child) -> Result<(), String> {
        let _ = switch.kill();
        let _ = switch.wait();
        sh(&format!("ip -n {}s link set p{node} master br0", self.tag)).map(drop)
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
