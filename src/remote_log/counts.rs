//! What passes between this broker and the bucket, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the broker started.
#[derive(Debug, Default)]
pub(crate) struct TierCounts {
    pub copied_bytes: AtomicU64,
    pub read_bytes: AtomicU64,
    pub reads: AtomicU64,
    pub failures: AtomicU64,
    /// Chunks that somebody wanted and that were there.
    pub cache_hits: AtomicU64,
    /// Pieces that were on the local disk.
    pub disk_cache_hits: AtomicU64,
    /// Objects removed that no manifest named.
    pub orphans: AtomicU64,
}

impl TierCounts {
    /// A request for bytes was answered; `None`: it failed.
    pub(super) fn note_read(&self, bytes: Option<u64>) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match bytes {
            Some(bytes) => drop(self.read_bytes.fetch_add(bytes, Ordering::Relaxed)),
            None => self.failed(),
        }
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
