//! How many bytes a second may pass somewhere, so that others keep the rest (KIP-73).
//!
//! Invariants: over a while no more than the rate passes, but for one answer; what is not throttled never waits here.

use std::sync::atomic::{AtomicI64, Ordering};

use super::clock::{millis, sleep, uptime_ms};
use crate::model::number::to_i64;

/// A second's worth may pass at once.
const BURST_US: i64 = 1_000_000;

/// See the file's header. Times are uptimes.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second.
    rate: AtomicI64,
    /// When all that passed would have passed at the rate, in microseconds.
    passed_us: AtomicI64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { rate: AtomicI64::new(i64::MAX), passed_us: AtomicI64::new(0) }
    }
}

impl Throttle {
    pub(crate) fn set_rate(&self, bytes_per_second: i64) {
        self.rate.store(bytes_per_second.max(1), Ordering::Relaxed);
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != i64::MAX
    }

    /// Bytes passed.
    pub(crate) fn note(&self, now_ms: i64, bytes: usize) {
        let rate = i128::from(self.rate.load(Ordering::Relaxed));
        let took_us = i128::from(to_i64(bytes)) * 1_000_000 / rate;
        let took_us = i64::try_from(took_us).unwrap_or(i64::MAX);
        let earliest_us = now_ms.saturating_mul(1_000) - BURST_US;
        let later = |passed_us: i64| Some(passed_us.max(earliest_us).saturating_add(took_us));
        let _ = self.passed_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Waits until more may pass.
    pub(crate) async fn wait(&self) {
        loop {
            match self.wait_ms(uptime_ms()) {
                0 => return,
                ms => sleep(millis(ms)).await,
            }
        }
    }

    /// How long nothing more may pass, in milliseconds; 0: it may.
    pub(crate) fn wait_ms(&self, now_ms: i64) -> i64 {
        let ahead_us = self.passed_us.load(Ordering::Relaxed) - now_ms.saturating_mul(1_000);
        if ahead_us <= 0 { 0 } else { ahead_us / 1_000 + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::Throttle;

    #[test]
    fn over_a_while_the_rate_passes_and_no_more() {
        let throttle = Throttle::default();
        throttle.set_rate(1_000);
        let (mut now_ms, mut passed) = (50_000, 0);
        while now_ms < 60_000 {
            if throttle.wait_ms(now_ms) == 0 {
                throttle.note(now_ms, 300);
                passed += 300;
            }
            now_ms += 10;
        }
        assert!((10_000..=11_500).contains(&passed), "{passed}");
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let throttle = Throttle::default();
        throttle.note(1_000, usize::MAX);
        assert_eq!(throttle.wait_ms(1_000), 0);
    }
}
