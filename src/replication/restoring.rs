//! Topics that come back from a bucket: a leader's empty log begins where the bucket ends.
//!
//! Invariants: until it knows where that is, such a leader takes and shows no records; a log that holds something never begins
//! anew.

use std::sync::Arc;

use super::partition::{Partition, State};
use crate::model::LeaderEpoch;
use crate::remote_log::{Manifest, RemoteError, RemotePartition};

impl State {
    /// Whether this leads a topic that is brought back, and does not know yet where its log begins.
    pub(super) fn awaits_restore(&self) -> bool {
        let is_empty = |log: &crate::log::Log| log.config().is_restored && log.log_end() == 0;
        self.replica.is_leader() && self.remote.is_none() && self.log.as_ref().is_some_and(is_empty)
    }
}

impl Partition {
    pub(super) fn awaits_restore(&self) -> bool {
        self.state.lock().awaits_restore()
    }

    /// Lets the log begin where the claimed manifest ends.
    pub(super) async fn restore(
        self: &Arc<Self>,
        remote: &RemotePartition,
        epoch: LeaderEpoch,
        manifest: &Manifest,
    ) -> Result<(), RemoteError> {
        let from = manifest.end().unwrap_or(manifest.log_start);
        if from > 0 {
            let state = remote.state_at(from).await?;
            let begun = self.begin_with(epoch, from, state).await;
            begun.map_err(|error| RemoteError::Disk(std::io::Error::other(error.to_string())))?;
        }
        tracing::info!(partition = %self.name, start = manifest.log_start, end = from, "brought back from object storage");
        Ok(())
    }
}
