//! One partition's local log: segments, indexes, producer state, leader epochs, recovery, retention, compaction.
//!
//! Invariants: offsets only grow; what lies below the recovery point is on stable storage; a batch is stored as it
//! came but for base offset and leader epoch; a failed write or flush is final for the log that saw it.
//! Absent: roles, high watermarks, clients, tasks (`replication` decides when to flush and who may read what).

mod age;
mod append;
mod beginning;
pub(crate) mod checkpoint;
pub(crate) mod cleaner;
#[cfg(test)]
mod cleaner_tests;
pub(crate) mod compaction;
mod copying;
pub(crate) mod dump;
mod error;
mod file_cache;
mod follow;
mod healing;
mod index;
mod leader_epochs;
mod local_log;
mod lookup;
mod offset_map;
mod producer_state;
mod recovery;
mod retention;
mod segment;
mod snapshots;
mod swapping;
#[cfg(test)]
mod tests;

pub(crate) use append::{Appended, NewBatch, Stamp};
pub(crate) use copying::{OpenSegment, SegmentSource};
pub(crate) use error::{AppendError, OpenError, ReadError};
pub(crate) use file_cache::FileCache;
pub(crate) use index::SegmentIndex;
pub(crate) use leader_epochs::LeaderEpochs;
pub(crate) use local_log::{FlushJob, Log, LogParts, Position};
pub(crate) use lookup::{FoundRecord, LogSlice, Searched, Wanted};
pub(crate) use producer_state::{ProducerEntry, ProducerStates, SequenceError};
pub(crate) use recovery::RecoveryPoint;
