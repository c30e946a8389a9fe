//! What can go wrong in a log, by operation.

use std::io;
use std::path::PathBuf;

use super::producer_state::SequenceError;
use crate::model::Offset;

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The file system has no room; nothing was kept of the batch, and the log goes on.
    #[error("no room on the file system")]
    NoRoom,
    /// Descriptors or memory ran out before anything was written; the log goes on.
    #[error("not written for now: {0}")]
    Shortage(io::Error),
    /// The disk failed; the log must not be written again.
    #[error("write failed: {0}")]
    Disk(io::Error),
}

/// Why bytes can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("offset {offset} is out of range {start}..={end}")]
    OutOfRange { offset: Offset, start: Offset, end: Offset },
    #[error("batch at {path}:{position} is corrupt")]
    Corrupt { path: PathBuf, position: u64 },
    #[error("read failed: {0}")]
    Disk(#[from] io::Error),
}

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Data that was durable is damaged: the partition stays offline, nothing is cut.
    #[error(
        "{path} is damaged at byte {position}, below its recovery point {recovery_point}: restore the file or the replica; nothing was changed"
    )]
    Damaged { path: PathBuf, position: u64, recovery_point: Offset },
    #[error(
        "{path}: log ends at {end}, before its recovery point {recovery_point}: data that was flushed is missing"
    )]
    Missing { path: PathBuf, end: Offset, recovery_point: Offset },
    #[error("{0}")]
    Disk(#[from] io::Error),
}
