//! How long this broker may believe that it leads what it led.
//!
//! Invariants: the lease ends before the controller may have given this broker's partitions to others: it counts from
//! when a heartbeat was sent, by the monotonic clock; a broker that slept finds it over. Whoever answers for a leader
//! looks after the flush and before the answer.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::system::clock::uptime_ms;
use crate::system::planted::{Bug, is_planted};

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Lease {
    until_ms: AtomicI64,
}

impl Lease {
    /// A lease that never ends: nobody else can be elected.
    pub(crate) fn endless() -> Self {
        Self { until_ms: AtomicI64::new(i64::MAX) }
    }

    /// A lease that has not begun.
    pub(crate) fn none() -> Self {
        Self { until_ms: AtomicI64::new(0) }
    }

    pub(crate) fn is_held(&self) -> bool {
        match self.until_ms.load(Ordering::Acquire) {
            i64::MAX => true,
            until_ms => uptime_ms() < until_ms || is_planted(Bug::IgnoreLease),
        }
    }

    /// A heartbeat that was sent at `sent_ms` (uptime) was answered: it holds for `length_ms` from then.
    pub(crate) fn extend(&self, sent_ms: i64, length_ms: i64) {
        self.until_ms.fetch_max(sent_ms.saturating_add(length_ms), Ordering::AcqRel);
    }
}
