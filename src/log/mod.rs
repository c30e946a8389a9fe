//! One partition's local log: segments, indexes, producer state, leader epochs, recovery, retention, compaction.
//!
//! Invariants: offsets only grow; what lies below the recovery point is on stable storage; a batch is stored as it
//! came but for base offset and leader epoch; a failed write or flush is final for the log that saw it.
//! Absent: roles, high watermarks, clients, tasks (`replication` decides when to flush and who may read what).

mod append;
pub mod checkpoint;
pub mod cleaner;
pub mod dump;
mod error;
mod file_cache;
mod index;
mod leader_epochs;
mod log;
mod lookup;
mod offset_map;
mod producer_state;
mod recovery;
mod retention;
mod segment;
#[cfg(test)]
mod tests;

pub use append::{Appended, Stamp};
pub use error::{AppendError, OpenError, ReadError};
pub use file_cache::FileCache;
pub use leader_epochs::LeaderEpochs;
pub use log::{FlushJob, Log, LogParts, Position};
pub use lookup::{FoundRecord, LogSlice};
pub use producer_state::{ProducerEntry, SequenceError};
pub use recovery::{RecoveryPoint, Recovered};
pub use retention::DeletedSegment;
