//! What can go wrong with a partition.

use std::io;
use std::path::PathBuf;

use crate::log::{AppendError, ReadError, SequenceError};
use crate::model::{BrokerId, LeaderEpoch, Offset};
use crate::record::BatchError;
use crate::system::disk::is_shortage;

/// Why a partition refuses a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartitionError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error("offset {offset} is out of range")]
    OutOfRange { offset: Offset },
    #[error("the log directory of this partition is offline")]
    Offline,
    #[error("the file system of the log directory has too little room")]
    NoRoom,
    #[error("nothing was done for want of descriptors or memory: it is to be tried again")]
    Shortage,
    #[error("leader epoch {asked} is older than {current}")]
    FencedEpoch { asked: LeaderEpoch, current: LeaderEpoch },
    #[error("leader epoch {asked} is newer than {current}")]
    UnknownEpoch { asked: LeaderEpoch, current: LeaderEpoch },
    #[error("fewer in-sync replicas than min.insync.replicas")]
    NotEnoughReplicas,
    #[error("appended, but fewer in-sync replicas than min.insync.replicas have it")]
    NotEnoughReplicasAfterAppend,
    #[error("broker {leader} leads the partition in epoch {epoch}")]
    NotLeader { leader: BrokerId, epoch: LeaderEpoch },
    /// A new leader's high watermark may lag what was acknowledged before (KIP-207).
    #[error("the new leader does not know yet what is committed")]
    Unsettled,
    /// The leader of a topic that is brought back does not know yet what the bucket has.
    #[error("the log has not begun yet where the bucket ends")]
    Restoring,
    /// Transactions are not served: a transactional batch has no transaction to belong to.
    #[error("transactions are not supported")]
    Transactional,
    #[error("the partition was deleted")]
    Deleted,
    #[error("the replica is on its last step to another log directory")]
    Moving,
    /// A follower has to begin where the leader's local log does (KIP-405).
    #[error("offset {offset} is in object storage only")]
    Tiered { offset: Offset },
    /// Its records are another cluster's.
    #[error("the topic is mounted from another cluster's bucket: it is read only")]
    Mounted,
    #[error("object storage: {0}")]
    Remote(String),
}

impl From<AppendError> for PartitionError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Sequence(error) => PartitionError::Sequence(error),
            AppendError::NoRoom => PartitionError::NoRoom,
            AppendError::Shortage(_) => PartitionError::Shortage,
            AppendError::Disk(_) => PartitionError::Offline,
        }
    }
}

impl From<ReadError> for PartitionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { offset, .. } => PartitionError::OutOfRange { offset },
            ReadError::Disk(error) if is_shortage(&error) => PartitionError::Shortage,
            ReadError::Corrupt { .. } | ReadError::Disk(_) => PartitionError::Offline,
        }
    }
}

/// Why the log directories can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(
        "log directory {path} is in use by another process: stop it, or give this one another log.dirs"
    )]
    InUse { path: PathBuf },
    #[error("log directory {path}: {error}")]
    Disk { path: PathBuf, error: io::Error },
    #[error(
        "log directory {path} belongs to {what} {found}, this broker is {expected}: check log.dirs and node.id"
    )]
    Foreign { path: PathBuf, what: &'static str, found: String, expected: String },
    #[error("no log directory can be used")]
    NoneLeft,
    #[error(
        "the metadata is in a log directory that is not there: mount it, or name in log.dirs where it is now"
    )]
    MetadataMissing,
}
