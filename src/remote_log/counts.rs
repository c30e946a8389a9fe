//! What passes between this broker and the bucket, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the broker started.
#[derive(Debug, Default)]
pub(crate) struct TierCounts {
    pub copied_bytes: AtomicU64,
    pub read_bytes: AtomicU64,
    pub reads: AtomicU64,
    pub failures: AtomicU64,
}

impl TierCounts {
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
