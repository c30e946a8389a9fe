//! Time in which this node ran: what it learns of others, it learns then.
//!
//! Invariant: however long the process, the machine or the runtime stood still at a stretch, it counts for no more than
//! `AT_A_STRETCH_MS`. Whoever was silent meanwhile was perhaps not heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::clock::{millis, sleep, uptime_ms};
use super::tasks::keep_service;

const TICK_MS: i64 = 50;
/// A task that waits no longer than this for its turn has not waited.
const AT_A_STRETCH_MS: i64 = 200;

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Awake {
    /// The uptime that is counted already.
    looked_ms: AtomicI64,
    awake_ms: AtomicI64,
}

impl Awake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::from(uptime_ms()))
    }

    /// Counts from now on, whoever asks or does not, as long as the node lives whose task calls this.
    pub(crate) fn keep_counting(self: &Arc<Self>) {
        let awake = Arc::clone(self);
        keep_service("time awake", async move {
            loop {
                sleep(millis(TICK_MS)).await;
                awake.now_ms();
            }
        });
    }

    fn from(uptime_ms: i64) -> Self {
        Self { looked_ms: AtomicI64::new(uptime_ms), awake_ms: AtomicI64::new(uptime_ms) }
    }

    /// Milliseconds since some moment; never faster than the uptime.
    pub(crate) fn now_ms(&self) -> i64 {
        self.at(uptime_ms())
    }

    fn at(&self, uptime_ms: i64) -> i64 {
        // Each stretch is counted by the one who sees its end first.
        let passed_ms = uptime_ms - self.looked_ms.fetch_max(uptime_ms, Ordering::AcqRel);
        let counted_ms = passed_ms.clamp(0, AT_A_STRETCH_MS);
        self.awake_ms.fetch_add(counted_ms, Ordering::AcqRel) + counted_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stood_still_has_hardly_grown_older_and_one_that_ran_has() {
        let awake = Awake::from(1_000);
        let ran = (1_000..5_000).step_by(50).map(|now_ms| awake.at(now_ms)).last();
        assert_eq!(ran, Some(4_950));
        assert_eq!([awake.at(64_950), awake.at(64_940), awake.at(65_000)], [5_150, 5_150, 5_200]);
        // A busy machine, on which each task waits for a second.
        let slow = (66_000..76_000).step_by(1_000).map(|now_ms| awake.at(now_ms)).last();
        assert_eq!(slow, Some(7_200));
    }
}
