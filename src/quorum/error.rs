//! What can go wrong with the quorum.

use crate::log::{AppendError, OpenError, ReadError};
use crate::model::{BrokerId, Offset};
use crate::system::disk::is_no_room;

/// Why the quorum's files can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("metadata log: {0}")]
    Open(#[from] OpenError),
    #[error("metadata log: {0}")]
    Read(#[from] ReadError),
    #[error("metadata log: {0}")]
    Append(#[from] AppendError),
    #[error("metadata log: {0}")]
    Disk(#[from] std::io::Error),
    #[error("metadata log: the entry at offset {offset} is not understood: {why}")]
    Entry { offset: Offset, why: String },
    #[error("metadata snapshot is not understood: {0}")]
    Snapshot(String),
    #[error("the quorum does not start: {0}")]
    Start(String),
}

impl StoreError {
    /// Whether it was only room that was missing.
    pub(super) fn is_no_room(&self) -> bool {
        match self {
            StoreError::Append(AppendError::NoRoom) => true,
            StoreError::Disk(error) | StoreError::Open(OpenError::Disk(error)) => is_no_room(error),
            _ => false,
        }
    }
}

/// Why a proposal is not known to stand in the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    #[error("this node does not lead the quorum; {leader:?} may")]
    NotLeader { leader: Option<BrokerId> },
    /// Other data came first: decide again.
    #[error("decided on an old image")]
    Stale,
    /// It may be committed later.
    #[error("no majority answered in time")]
    TimedOut,
    #[error("the quorum has stopped: {0}")]
    Stopped(String),
}
