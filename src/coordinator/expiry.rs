//! Offsets that nobody needs any more (KIP-211).
//!
//! Invariants: offsets of a group with members stay, but those of topics that a consumer group no longer subscribes
//! to; offsets of an empty group stay for the retention time after it became empty.

use std::sync::Arc;

use super::commits::{drop_offsets, forget, subscribed, tombstones};
use super::group::{Commit, Group, GroupState};
use super::groups::{Cell, Groups};
use crate::model::Timestamp;
use crate::system::clock::{millis, sleep};
use crate::system::tasks::keep_job;

impl Groups {
    /// Starts the loop that expires offsets.
    pub(crate) fn start_expiry(self: &Arc<Self>) {
        let groups = Arc::clone(self);
        keep_job("group expiry", async move {
            loop {
                sleep(millis(groups.settings.retention_check_ms)).await;
                groups.expire(groups.clock.now_ms()).await;
            }
        });
    }

    /// Deletes offsets that have expired, and groups of which nothing is left.
    pub(super) async fn expire(self: &Arc<Self>, now_ms: Timestamp) {
        for cell in self.cells() {
            let keys = {
                let group = cell.group.lock();
                expired(&group, now_ms, self.settings.retention_ms)
            };
            self.remove_and_forget(&cell, keys).await;
        }
    }

    /// Deletes the offsets of a topic that is gone.
    pub(crate) async fn forget_topic(self: &Arc<Self>, topic: &str) {
        for cell in self.cells() {
            let keys: Vec<_> = {
                let group = cell.group.lock();
                group.offsets.keys().filter(|(name, _)| name == topic).cloned().collect()
            };
            if !keys.is_empty() {
                self.remove_and_forget(&cell, keys).await;
            }
        }
    }

    async fn remove_and_forget(self: &Arc<Self>, cell: &Arc<Cell>, keys: Vec<(String, i32)>) {
        if !keys.is_empty() {
            let written = {
                let group = cell.group.lock();
                self.remove_offsets(cell, &group, &keys)
            };
            let Ok(written) = written else { return };
            if !written.is_durable().await {
                return;
            }
            let mut group = cell.group.lock();
            tracing::info!(group = group.id, offsets = keys.len(), "offsets expired");
            drop_offsets(&mut group, &keys, written.base_offset);
        }
        let id = {
            let mut group = cell.group.lock();
            let is_gone = group.is_forgettable() && group.pending_commits.is_empty();
            if !is_gone || self.write(cell, &tombstones(&group)).is_err() {
                return;
            }
            group.state = GroupState::Dead;
            group.id.clone()
        };
        forget(cell, &id);
    }
}

/// The keys of a group that have expired.
pub(super) fn expired(group: &Group, now_ms: Timestamp, retention_ms: i64) -> Vec<(String, i32)> {
    let is_old = |since_ms: Timestamp| now_ms.saturating_sub(since_ms) >= retention_ms;
    // What members committed is kept that long from when the last of them left.
    let has_left_lately = group.state == GroupState::Empty
        && group.protocol_type.is_some()
        && !is_old(group.state_since_ms);
    let kept = match group.state {
        GroupState::Empty => None,
        GroupState::Stable => match subscribed(group) {
            Ok(Some(topics)) => Some(topics),
            Ok(None) | Err(_) => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let is_expired = |((topic, _), Commit { committed, .. }): &(&(String, i32), &Commit)| {
        let is_kept = kept.as_ref().is_some_and(|topics| topics.contains(topic));
        let is_past = match committed.expire_ms {
            Some(at_ms) => at_ms <= now_ms,
            None => is_old(committed.commit_ms) && !has_left_lately,
        };
        !is_kept && is_past
    };
    let offsets = group.offsets.iter().filter(is_expired).map(|(key, _)| key);
    offsets.filter(|key| !group.pending_commits.contains_key(*key)).cloned().collect()
}
