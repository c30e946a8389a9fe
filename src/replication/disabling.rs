//! Topics that are tiered no more: what they left in the bucket goes (KIP-950).
//!
//! Invariants: only where the topic's settings say that it is to go (`remote.log.delete.on.disable`); readers have their time
//! before objects are deleted, as they have with retention.

use super::partition::{Partition, PartitionHandle};
use super::replicas::Replicas;
use crate::remote_log::{RemoteError, RemotePartition};

impl Partition {
    /// Whether this leader's topic is tiered no more, and may have left something.
    pub(super) fn is_leaving(&self) -> bool {
        let state = self.lock();
        let goes = |log: &crate::log::Log| {
            !log.config().is_tiered && log.config().is_deleted_on_disable && !state.has_left
        };
        self.remote.is_some() && state.replica.is_leader() && state.log.as_ref().is_some_and(goes)
    }
}

impl Replicas {
    /// Takes out of the bucket what a partition left there, and at last its manifest.
    pub(super) async fn leave_tier(
        &self,
        partition: &PartitionHandle,
        remote: &RemotePartition,
    ) -> Result<(), RemoteError> {
        let (epoch, now_ms) = (partition.leading_epoch(), self.clock.now_ms());
        let delay_ms = partition.with_log(|log| log.config().file_delete_delay_ms).unwrap_or(0);
        if epoch < 0 || !self.local.lease.is_held() {
            return Ok(());
        }
        if remote.leave(epoch, delay_ms, now_ms).await? {
            tracing::info!(partition = %partition.name, "nothing is left in object storage: the topic is tiered no more");
            partition.lock().has_left = true;
        }
        Ok(())
    }
}
