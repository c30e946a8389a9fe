//! How much memory the process may use.
//!
//! Invariant: the smallest of what the machine has and of what the process's control groups allow.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const CGROUPS: &str = "/sys/fs/cgroup";

/// In bytes; `None` where the system does not say.
pub(crate) fn memory_max() -> Option<u64> {
    static MAX: OnceLock<Option<u64>> = OnceLock::new();
    *MAX.get_or_init(|| {
        let machine = read("/proc/meminfo").and_then(|text| of_machine(&text));
        let groups = read("/proc/self/cgroup").unwrap_or_default();
        let limits = limit_files(&groups).into_iter().filter_map(|path| of_group(&read(path)?));
        machine.into_iter().chain(limits).min()
    })
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn of_machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1_024)
}

/// `max`, or a number that no machine has, means that there is no limit.
fn of_group(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes > 0)
}

/// Where the limits of a process stand, by its `/proc/self/cgroup`: those of its group and of all that are around it, of either version.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = if kinds.is_empty() {
            (PathBuf::from(CGROUPS), "memory.max")
        } else if kinds.split(',').any(|kind| kind == "memory") {
            (Path::new(CGROUPS).join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let inside = Path::new(path.trim_start_matches('/'));
        files.extend(inside.ancestors().map(|group| root.join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_both_versions_of_control_groups_are_understood() {
        let meminfo = "MemTotal:        8000000 kB\nMemFree:          1 kB\n";
        assert_eq!(of_machine(meminfo), Some(8_192_000_000));
        assert_eq!(of_group("536870912\n"), Some(536_870_912));
        assert_eq!(of_group("max\n"), None);
        let files = limit_files("0::/kubepods/pod7\n4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n");
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/kubepods/pod7/memory.max",
                "/sys/fs/cgroup/kubepods/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
    }

    #[test]
    fn this_machine_says_how_much_it_has() {
        assert!(memory_max().is_some_and(|bytes| bytes > 1 << 26));
    }
}
