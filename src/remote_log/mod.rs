//! Tiering: closed segments in object storage (KIP-405).
//!
//! Invariants: for each offset one copy counts, the manifest's; what is not in a manifest that was read is not there; an object
//! is never written twice. Absent: when to copy and what local copies may go (`replication`), who may read (`api`).

mod backup;
mod compacting;
#[cfg(test)]
mod compacting_tests;
mod copying;
mod counts;
mod deleted;
mod disk_cache;
#[cfg(test)]
mod disk_cache_tests;
mod encryption;
#[cfg(test)]
mod encryption_tests;
mod error;
mod inspect;
mod manifest;
mod partition;
mod reader;
mod rewriting;
mod sending;
#[cfg(test)]
mod sizes_tests;
#[cfg(test)]
mod tests;
mod trailer;
mod verifying;

#[cfg(any(test, feature = "internals"))]
pub(crate) use backup::read_note;
#[cfg(test)]
pub(crate) use backup::sample_notes;
pub(crate) use backup::{GroupsNote, NotedOffset, TopicNote};
pub(crate) use compacting::CompactionSettings;
pub(crate) use counts::TierCounts;
pub(crate) use disk_cache::DiskCache;
pub(crate) use encryption::Keys;
pub(crate) use error::RemoteError;
pub(crate) use inspect::Inventory;
pub(crate) use manifest::Manifest;
#[cfg(any(test, feature = "internals"))]
pub(crate) use manifest::read_manifest;
#[cfg(test)]
pub(crate) use manifest::sample as sample_manifest;
pub(crate) use partition::{RemotePartition, RestoredState, Tier};
pub(crate) use reader::{ANSWER_BYTES, RemoteBatches};
pub(crate) use sending::requests_to_copy;
#[cfg(any(test, feature = "internals"))]
pub(crate) use trailer::read_trailer;
#[cfg(test)]
pub(crate) use trailer::sample_trailer;
