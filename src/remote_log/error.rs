//! How remote storage fails.
//!
//! Invariants: an error says whether the same can work later; what is not known is never told as if it were.

use crate::log::ReadError;
use crate::objects::StoreError;

/// Why something of a remote log could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{object}: {reason}")]
    Damaged { object: String, reason: String },
    #[error("another leader, of epoch {leader_epoch}, has the manifest of {partition}")]
    Fenced { partition: String, leader_epoch: i32 },
    /// The bucket knows more than the leader's log, but not all that the log knows.
    #[error(
        "{partition} is in object storage from {first} to {end}, and on disk from {start} to {log_end}: nothing is copied. \
         DeleteRecords up to {first} gives up what is before, and the rest goes on"
    )]
    Ahead { partition: String, first: i64, end: i64, start: i64, log_end: i64 },
    /// A topic that is to come out of this bucket.
    #[error("the bucket has nothing of {partition}: is it the one that the topic is to come from?")]
    NotThere { partition: String },
    #[error(
        "it is encrypted with the key {key_id}, which is not among remote.storage.encryption.keys"
    )]
    NoKey { key_id: String },
    #[error("the key {key_id} is not the one that it was encrypted with")]
    WrongKey { key_id: String },
    #[error("the manifest of {0} is not read yet")]
    Unknown(String),
    #[error("segments of {0} were changed meanwhile: it is looked at again")]
    Changed(String),
    #[error("offset {0} is not in remote storage")]
    OutOfRange(i64),
    #[error("segment not readable: {0}")]
    Local(#[from] ReadError),
    #[error("segment not readable: {0}")]
    Disk(#[from] std::io::Error),
}

impl RemoteError {
    /// Whether nothing is wrong: others changed something, and the next look knows it.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Fenced { .. }
                | Self::Unknown(_)
                | Self::Changed(_)
                | Self::Store(StoreError::Changed(_))
        )
    }

    /// Whether only what is here could not be read: the bucket may be used all the same.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Disk(_) | Self::Changed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_the_next_leader_has_changed_is_nothing_to_act_on() {
        let changed = || StoreError::Changed("manifest.json".to_owned());
        assert!(RemoteError::from(changed()).is_passing());
        assert!(!RemoteError::from(changed()).is_local());
    }
}
