//! Leaders that know less than the bucket: their logs go on where it ends. The log of a topic that is brought back is empty, as is one
//! whose disk was lost; after an unclean election, or where all replicas lost what was not flushed, it is too short.
//!
//! Invariants: a leader whose empty log may not be the truth takes and shows no records until it has asked the bucket; a leader
//! that has appended something in its epoch never begins anew: then its log is the truth.

use std::sync::Arc;

use super::partition::{Partition, State};
use crate::model::{LeaderEpoch, Offset};
use crate::remote_log::{Manifest, RemoteError, RemotePartition};

impl State {
    /// Whether this leader's log is empty and ought not to be believed before the bucket was asked: that of a topic that is brought
    /// back, or of a tiered one that was led before: maybe its disk was lost.
    pub(super) fn awaits_restore(&self) -> bool {
        let is_doubtful = |log: &crate::log::Log| {
            let config = log.config();
            let was_led = config.is_tiered && self.has_bucket && self.replica.leader_epoch > 0;
            // What another cluster writes may be ahead of any log here.
            config.mount.is_some() || log.log_end() == 0 && (config.is_restored || was_led)
        };
        self.replica.is_leader()
            && self.remote.is_none()
            && self.log.as_ref().is_some_and(is_doubtful)
    }

    /// Whether the log may be cut, or begin anew: a follower's, and a leader's that only goes forward.
    pub(super) fn may_cut(&self, leader_epoch: LeaderEpoch, begin: Option<Offset>) -> bool {
        self.replica.leader_epoch == leader_epoch
            && (!self.replica.is_leader() || begin.is_some_and(|at| self.may_go_on_at(at)))
    }

    /// Whether a leader's log may go on at an offset: it is too short, and nothing of this leader's is in it.
    fn may_go_on_at(&self, offset: Offset) -> bool {
        self.log.as_ref().is_some_and(|log| {
            let has_own = log.epochs().latest() == Some(self.replica.leader_epoch);
            log.log_end() < offset && !has_own
        })
    }
}

impl Partition {
    pub(crate) fn awaits_restore(&self) -> bool {
        self.lock().awaits_restore()
    }

    /// Lets the log go on where the claimed manifest ends, if that is past its own end. Where this leader appended something
    /// meanwhile its claim is void: the next one tells the bucket the truth.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        remote: &RemotePartition,
        epoch: LeaderEpoch,
        manifest: &Manifest,
    ) -> Result<(), RemoteError> {
        let end = manifest.end().unwrap_or(manifest.log_start);
        let bounds = self.with_log(|log| (log.log_start(), log.log_end()));
        let Some((start, log_end)) = bounds.filter(|(_, log_end)| *log_end < end) else {
            return Ok(());
        };
        let first = manifest.segments.first().map_or(end, |segment| segment.base_offset);
        let gone_on = if start < first && start < log_end {
            let partition = self.name.to_string();
            Err(RemoteError::Ahead { partition, first, end, start, log_end })
        } else {
            self.begin_at_end(remote, epoch, end).await
        };
        if gone_on.is_err() {
            remote.disclaim();
            return gone_on;
        }
        tracing::warn!(partition = %self.name, log_end, end, "the bucket knew more than this log, which goes on where it ends");
        Ok(())
    }

    /// Lets the log begin at an offset up to which everything is in the bucket.
    pub(super) async fn begin_at_end(
        self: &Arc<Self>,
        remote: &RemotePartition,
        epoch: LeaderEpoch,
        end: Offset,
    ) -> Result<(), RemoteError> {
        let state = remote.state_at(end).await?;
        self.begin_with(epoch, end, state).await.map_err(|error| {
            tracing::debug!(partition = %self.name, %error, "not gone on where the bucket ends");
            RemoteError::Unknown(self.name.to_string())
        })
    }
}
