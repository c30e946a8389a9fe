//! Whether a log directory's disk is slow, by its flushes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A flush that takes longer is slow: a write may then wait as long, for what the file system has in flight.
const SLOW: Duration = Duration::from_millis(20);
/// After a slow one so many have to be quick, or the disk still counts as slow.
const QUICK_FLUSHES: u32 = 1_000;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many quick flushes are missing.
    missing: AtomicU32,
}

impl Pace {
    pub(super) fn is_slow(&self) -> bool {
        self.missing.load(Ordering::Relaxed) > 0
    }

    /// One flusher notes them all.
    pub(super) fn note(&self, took: Duration) {
        let missing = self.missing.load(Ordering::Relaxed);
        let now = if took >= SLOW { QUICK_FLUSHES } else { missing.saturating_sub(1) };
        if now != missing {
            self.missing.store(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_from_a_slow_flush_until_many_were_quick() {
        let pace = Pace::default();
        pace.note(SLOW / 2);
        assert!(!pace.is_slow());
        pace.note(SLOW);
        for _ in 1..QUICK_FLUSHES {
            pace.note(SLOW / 2);
            assert!(pace.is_slow());
        }
        pace.note(SLOW / 2);
        assert!(!pace.is_slow());
    }
}
