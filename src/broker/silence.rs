//! How long another broker has owed an answer.
//!
//! Invariant: only time counts in which something was asked and this process ran; a follower that is busy with its own disk, or
//! a machine that stood still, says nothing of the leader.

use std::sync::atomic::{AtomicI64, Ordering};

/// Nothing is asked.
const NOTHING: i64 = i64::MIN;

/// Since when an answer is owed (`Awake`, in ms), if one is.
#[derive(Debug)]
pub(super) struct Silence(AtomicI64);

impl Default for Silence {
    fn default() -> Self {
        Self(AtomicI64::new(NOTHING))
    }
}

impl Silence {
    /// Something is asked. What was asked before and never answered counts from then.
    pub(super) fn asked(&self, now_ms: i64) {
        let _ = self.0.compare_exchange(NOTHING, now_ms, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The answer came, or there is nothing to ask any more.
    pub(super) fn ended(&self) {
        self.0.store(NOTHING, Ordering::Release);
    }

    /// Whatever is owed counts from now on.
    pub(super) fn begin_anew(&self, now_ms: i64) {
        let newer = |since: i64| (since != NOTHING).then_some(now_ms.max(since));
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, newer);
    }

    /// How long an answer has been owed, in ms.
    pub(super) fn ms(&self, now_ms: i64) -> i64 {
        match self.0.load(Ordering::Acquire) {
            NOTHING => 0,
            since => now_ms - since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_and_not_answered_is_silence() {
        let silence = Silence::default();
        assert_eq!(silence.ms(5_000), 0);
        silence.asked(5_000);
        silence.asked(6_000);
        assert_eq!(silence.ms(7_000), 2_000);
        silence.ended();
        assert_eq!(silence.ms(60_000), 0);
        silence.asked(60_000);
        assert_eq!(silence.ms(60_001), 1);
    }

    #[test]
    fn what_is_owed_counts_from_when_somebody_begins_to_follow() {
        let silence = Silence::default();
        silence.begin_anew(1_000);
        assert_eq!(silence.ms(9_000), 0);
        silence.asked(2_000);
        silence.begin_anew(10_000);
        assert_eq!(silence.ms(10_500), 500);
    }
}
