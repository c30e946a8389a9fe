//! Leaders that know less than the bucket: their logs go on where it ends. The log of a topic that is brought back is empty; after an
//! unclean election, or where all replicas lost what was not flushed, it is too short.
//!
//! Invariants: the leader of a topic that is brought back takes and shows no records until it knows where its log begins; a leader
//! that has appended something in its epoch never begins anew: then its log is the truth.

use std::sync::Arc;

use super::partition::{Partition, State};
use crate::model::{LeaderEpoch, Offset};
use crate::remote_log::{Manifest, RemoteError, RemotePartition};

impl State {
    /// Whether this leads a topic that is brought back, and does not know yet where its log begins.
    pub(super) fn awaits_restore(&self) -> bool {
        let is_empty = |log: &crate::log::Log| log.config().is_restored && log.log_end() == 0;
        self.replica.is_leader() && self.remote.is_none() && self.log.as_ref().is_some_and(is_empty)
    }

    /// Whether the log may be cut, or begin anew: a follower's, and a leader's that only goes forward.
    pub(super) fn may_cut(&self, leader_epoch: LeaderEpoch, begin: Option<Offset>) -> bool {
        self.replica.leader_epoch == leader_epoch
            && (!self.replica.is_leader() || begin.is_some_and(|at| self.may_go_on_at(at)))
    }

    /// Whether a leader's log may go on at an offset: it is too short, and nothing of this leader's is in it.
    fn may_go_on_at(&self, offset: Offset) -> bool {
        self.log.as_ref().is_some_and(|log| {
            log.log_end() < offset && log.epochs().latest() != Some(self.replica.leader_epoch)
        })
    }
}

impl Partition {
    pub(super) fn awaits_restore(&self) -> bool {
        self.state.lock().awaits_restore()
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
        if start < first && start < log_end {
            remote.disclaim();
            let partition = self.name.to_string();
            return Err(RemoteError::Ahead { partition, first, end, start, log_end });
        }
        let gone_on = match remote.state_at(end).await {
            Ok(state) => self.begin_with(epoch, end, state).await,
            Err(error) => {
                remote.disclaim();
                return Err(error);
            }
        };
        if let Err(error) = gone_on {
            remote.disclaim();
            tracing::debug!(partition = %self.name, %error, "not gone on where the bucket ends");
            return Err(RemoteError::Unknown(self.name.to_string()));
        }
        tracing::warn!(partition = %self.name, log_end, end, "the bucket knew more than this log, which goes on where it ends");
        Ok(())
    }
}
