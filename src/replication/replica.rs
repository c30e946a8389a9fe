//! The replica state machine: pure decisions about one partition.
//!
//! Invariants: the high watermark never moves back and never passes the log's end; with `write_caching` off it
//! never passes what is flushed.
//! Left to others: carrying effects out (`partition.rs`).

use crate::model::{LeaderEpoch, Offset};

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    AdvanceHighWatermark { to: Offset },
}

/// The leader's view of a partition with one replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replica {
    pub leader_epoch: LeaderEpoch,
    log_end: Offset,
    flushed: Offset,
    high_watermark: Offset,
    write_caching: bool,
}

impl Replica {
    /// A leader whose log was just opened: all of it is durable.
    pub(super) fn lead(leader_epoch: LeaderEpoch, log_end: Offset, write_caching: bool) -> Self {
        Self { leader_epoch, log_end, flushed: log_end, high_watermark: log_end, write_caching }
    }

    pub(super) fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The log grew to `log_end`.
    pub(super) fn appended(&mut self, log_end: Offset) -> Effect {
        assert!(log_end >= self.log_end, "a leader's log does not shrink");
        self.log_end = log_end;
        self.advance()
    }

    /// The log is durable up to `offset`.
    pub(super) fn flushed(&mut self, offset: Offset) -> Effect {
        assert!(offset <= self.log_end, "flushed past the log's end");
        self.flushed = self.flushed.max(offset);
        self.advance()
    }

    /// The topic's `write.caching` changed.
    pub(super) fn set_write_caching(&mut self, write_caching: bool) -> Effect {
        self.write_caching = write_caching;
        self.advance()
    }

    fn advance(&mut self) -> Effect {
        let to = if self.write_caching { self.log_end } else { self.flushed };
        if to <= self.high_watermark {
            return Effect::Nothing;
        }
        self.high_watermark = to;
        assert!(self.high_watermark <= self.log_end, "high watermark passed the log's end");
        Effect::AdvanceHighWatermark { to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `append N`, `flush N`, `caching on|off` and compares the high watermark after each.
    fn check(script: &[(&str, Offset, Offset)]) {
        let mut replica = Replica::lead(0, 0, false);
        for (step, offset, expected) in script {
            match *step {
                "append" => replica.appended(*offset),
                "flush" => replica.flushed(*offset),
                "caching" => replica.set_write_caching(*offset == 1),
                other => panic!("unknown step {other}"),
            };
            assert_eq!(replica.high_watermark(), *expected, "after {step} {offset}");
        }
    }

    #[test]
    fn the_high_watermark_follows_the_flush() {
        check(&[("append", 5, 0), ("flush", 3, 3), ("append", 9, 3), ("flush", 9, 9)]);
    }

    #[test]
    fn with_write_caching_it_follows_the_log_and_never_moves_back() {
        check(&[
            ("append", 5, 0),
            ("caching", 1, 5),
            ("append", 8, 8),
            ("caching", 0, 8),
            ("flush", 6, 8),
        ]);
    }

    #[test]
    #[should_panic(expected = "flushed past the log's end")]
    fn a_flush_past_the_end_is_our_bug() {
        check(&[("append", 5, 0), ("flush", 6, 6)]);
    }
}
