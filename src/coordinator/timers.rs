//! When groups have to be looked at because time has passed.
//!
//! Invariants: one task for all groups, asleep until the earliest deadline; a heartbeat sets no timer (the group is
//! looked at when its old deadline comes, and then the new one is found).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::groups::{Cell, Groups};
use crate::model::Timestamp;
use crate::system::clock::{millis, monotonic, timeout_at};
use crate::system::tasks::keep_service;

/// Deadlines of groups, by the time in which this node ran: members of a coordinator that stood still did nothing wrong.
#[derive(Debug, Default)]
pub(super) struct Timers {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    deadlines: BTreeMap<(Timestamp, u64), Weak<Cell>>,
}

impl Timers {
    pub(super) fn set(&self, at_ms: Timestamp, cell: &Arc<Cell>) {
        let mut state = self.state.lock();
        state.next += 1;
        let key = (at_ms, state.next);
        let is_first = state.deadlines.first_key_value().is_none_or(|(first, _)| key < *first);
        state.deadlines.insert(key, Arc::downgrade(cell));
        if is_first {
            self.changed.notify_one();
        }
    }

    fn take_due(&self, now_ms: Timestamp) -> Vec<(Timestamp, Arc<Cell>)> {
        let mut state = self.state.lock();
        let later = state.deadlines.split_off(&(now_ms + 1, 0));
        let due = std::mem::replace(&mut state.deadlines, later);
        due.into_iter().filter_map(|((at_ms, _), cell)| Some((at_ms, cell.upgrade()?))).collect()
    }

    fn first(&self) -> Option<Timestamp> {
        self.state.lock().deadlines.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }
}

impl Groups {
    /// Starts the task that watches deadlines.
    pub(crate) fn start_timers(self: &Arc<Self>) {
        let groups = Arc::clone(self);
        keep_service("group timers", async move {
            loop {
                let now_ms = groups.replicas.awake().now_ms();
                let left_ms =
                    groups.timers.first().map_or(3_600_000, |at_ms| (at_ms - now_ms).max(0));
                let _ = timeout_at(monotonic() + millis(left_ms), groups.timers.changed.notified())
                    .await;
                groups.fire(groups.replicas.awake().now_ms());
            }
        });
    }

    /// Looks at every group whose deadline has come.
    pub(super) fn fire(self: &Arc<Self>, now_ms: Timestamp) {
        for (at_ms, cell) in self.timers.take_due(now_ms) {
            let _ = self.step(&cell, |group, _| {
                if group.timer_ms == Some(at_ms) {
                    group.timer_ms = None;
                    group.wake_at_ms = group.tick(now_ms).map(|next_ms| next_ms.max(now_ms + 1));
                }
            });
        }
    }
}
