//! Bytes of requests in progress, over all connections.
//!
//! Invariants: at least one request always passes, so a request larger than the budget can't wait for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A bound on bytes; `Grant`s give theirs back when they are dropped.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

/// Bytes taken from a budget.
#[derive(Debug)]
pub(crate) struct Grant {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit, freed: Notify::new() })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they fit now.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        let fits = |used: usize| (used == 0 || used + bytes <= self.limit).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).ok()?;
        Some(Grant { budget: Arc::clone(self), bytes })
    }

    /// Takes `bytes` whether they fit or not: for a connection that must go on to free what it holds.
    pub(crate) fn force(self: &Arc<Self>, bytes: usize) -> Grant {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Grant { budget: Arc::clone(self), bytes }
    }

    /// Takes `bytes`, waiting until they fit.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize) -> Grant {
        loop {
            let freed = self.freed.notified();
            if let Some(grant) = self.try_take(bytes) {
                return grant;
            }
            freed.await;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let before = self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        if before + self.bytes > self.budget.limit || before >= self.budget.limit / 2 {
            self.budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(10);
        let large = budget.try_take(50).expect("alone");
        assert!(budget.try_take(1).is_none());
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), budget.take(1));
        assert!(waiting.await.is_err());
        let (grant, ()) = tokio::join!(budget.take(1), async { drop(large) });
        assert_eq!(budget.used(), 1);
        drop(grant);
        assert_eq!(budget.used(), 0);
    }
}
