//! How much this broker can hold: partitions, as it tells the controller with its registration and its heartbeats, and memory for clients.
//!
//! Invariants: what the operator says counts as it is (`broker.partitions.max`); else it is what the scarcest resource of the machine gives.
//! Left to others: refusing what would be more (the controller), opening no more logs than there are descriptors for (the replicas).

use super::publisher::limits;
use crate::config::Config;
use crate::metadata::{Capacity, PARTITIONS_TRIED};
use crate::replication::Replicas;
use crate::system::{Shares, descriptors_max, memory_max};

/// Memory that a partition may need: an idle one takes 3 KiB here and as much in the kernel; this leaves room for one that is used.
const PARTITION_BYTES: u64 = 32 << 10;
/// The share of the memory that partitions may need in all; the rest is for requests, for what is read, and for the page cache.
const MEMORY_SHARE: u64 = 4;

/// The share of the memory that may be kept for clients besides their requests.
const KEPT_SHARE: u64 = 8;
/// What may be kept for them in any case.
const KEPT_BYTES_MIN: u64 = 32 << 20;

/// How many bytes may be kept for clients besides their requests (`client.memory.max.bytes`).
pub(super) fn kept_bytes_max(config: &Config) -> usize {
    let wanted = config.size("client.memory.max.bytes");
    if wanted > 0 {
        return wanted;
    }
    let share = memory_max().map_or(u64::MAX, |bytes| bytes / KEPT_SHARE);
    usize::try_from(share.max(KEPT_BYTES_MIN)).unwrap_or(usize::MAX)
}

/// What this broker can hold now.
pub(super) fn capacity(config: &Config, replicas: &Replicas) -> Capacity {
    let (connections, ..) = limits(config);
    let wanted = config.size("broker.partitions.max");
    let logs = (Shares::here().logs(connections), descriptors_max());
    let is_full = replicas.have_no_room();
    Capacity { is_full, ..by_resources(wanted, logs, memory_max()) }
}

fn by_resources(
    wanted: usize,
    (logs, descriptors): (usize, usize),
    memory: Option<u64>,
) -> Capacity {
    let capacity = |partitions: usize, by: String| Capacity {
        partitions: u32::try_from(partitions).unwrap_or(u32::MAX).max(1),
        by,
        is_full: false,
    };
    if wanted > 0 {
        return capacity(wanted, "broker.partitions.max".to_owned());
    }
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / MEMORY_SHARE / PARTITION_BYTES);
    let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
    if logs.min(by_memory) >= PARTITIONS_TRIED {
        return capacity(PARTITIONS_TRIED, "what was ever tried".to_owned());
    }
    if logs <= by_memory {
        return capacity(logs, format!("its {descriptors} descriptors (ulimit -n)"));
    }
    capacity(by_memory, format!("its {} MiB of memory", memory.unwrap_or(0) >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(wanted: usize, logs: usize, memory_mib: u64) -> (u32, String) {
        let told = by_resources(wanted, (logs, 1_024), Some(memory_mib << 20));
        (told.partitions, told.by)
    }

    #[test]
    fn the_scarcest_resource_says_how_many_and_the_operator_overrules_it() {
        assert_eq!(told(0, 320, 8_192), (320, "its 1024 descriptors (ulimit -n)".to_owned()));
        assert_eq!(told(0, 500_000, 512), (4_096, "its 512 MiB of memory".to_owned()));
        assert_eq!(told(0, 500_000, 65_536), (20_000, "what was ever tried".to_owned()));
        assert_eq!(told(30_000, 320, 512), (30_000, "broker.partitions.max".to_owned()));
        let unknown = by_resources(0, (usize::MAX, usize::MAX), None);
        assert_eq!(unknown.partitions, 20_000);
        assert_eq!(told(0, 0, 0).0, 1, "zero means that a broker does not say");
    }
}
