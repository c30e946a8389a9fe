//! A bound on the memory that clients may take, over all connections: one for requests that are being received or in progress, and one
//! for what is kept of them afterwards.
//!
//! Invariants: where nothing is taken anything passes, so what is larger than the budget can't wait for ever; one address has at most
//! half of it; what is large leaves a quarter of either to what is small; bytes are given back when nothing keeps them any more.
//! Left to others: which budget, and what is refused where there is no room.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Telling;
use super::clock::{Instant, monotonic};

/// Up to this size something is small: clients that want nothing else go on while large ones take all that they can.
const SMALL_BYTES: usize = 64 << 10;
/// One address has at most one in so many of all bytes.
const ADDRESS_SHARE: usize = 2;
/// Of which what is large leaves one in so many to what is small.
const SMALL_SHARE: usize = 4;

/// A bound on bytes; `Grant`s give theirs back when they are dropped.
#[derive(Debug)]
pub(crate) struct Budget {
    all: Pool,
    limit: usize,
    waiting: AtomicUsize,
    freed: Notify,
    refusals: Telling,
}

/// The bounds of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Budgets {
    /// Of requests that are being received or in progress.
    pub requests: Arc<Budget>,
    /// Of what is kept for clients besides: members of groups, fetches that wait, fetch sessions, answers that are not taken.
    pub kept: Arc<Budget>,
}

/// What was taken of a bound, and since when somebody waits for more.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    used: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    since: Option<Instant>,
}

/// The budget as a connection sees it: all of it, and what its address has of it.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    peer: SocketAddr,
    address: Arc<Pool>,
}

/// Bytes taken from a budget.
#[derive(Debug)]
pub(crate) struct Grant {
    account: Arc<Account>,
    bytes: usize,
}

/// Bytes that are counted for as long as somebody keeps any of them.
struct Counted {
    bytes: Bytes,
    _grant: Grant,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budgets {
    /// So many bytes of either.
    pub(crate) fn new(requests: usize, kept: usize) -> Self {
        Self { requests: Budget::new(requests), kept: Budget::new(kept) }
    }
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Pool::default(),
            limit,
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            refusals: Telling::default(),
        })
    }

    pub(crate) fn used(&self) -> usize {
        self.all.used.load(Ordering::Relaxed)
    }

    /// The budget for a connection of `peer`, whose address has taken what `address` says.
    pub(crate) fn account(self: &Arc<Self>, peer: SocketAddr, address: Arc<Pool>) -> Arc<Account> {
        Arc::new(Account { budget: Arc::clone(self), peer, address })
    }
}

impl Pool {
    fn try_take(&self, bytes: usize, limit: usize) -> bool {
        let limit = if bytes > SMALL_BYTES { limit - limit / SMALL_SHARE } else { limit };
        let fits = |used: usize| (used == 0 || used + bytes <= limit).then_some(used + bytes);
        self.used.fetch_update(Ordering::SeqCst, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// For how long somebody has been waiting.
    fn pressed(&self) -> Option<Duration> {
        let since = self.waiting.lock().since?;
        Some(monotonic().saturating_duration_since(since))
    }
}

/// Somebody waits for bytes, until it is dropped.
struct Pressing<'a>(&'a Pool);

impl<'a> Pressing<'a> {
    fn begin(pool: &'a Pool) -> Self {
        let mut waiting = pool.waiting.lock();
        waiting.count += 1;
        waiting.since.get_or_insert_with(monotonic);
        Self(pool)
    }
}

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.count -= 1;
        if waiting.count == 0 {
            waiting.since = None;
        }
    }
}

/// Counts whoever waits, so that those who give back know.
struct Counting<'a>(&'a AtomicUsize);

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Account {
    /// Takes `bytes` if they fit now.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        self.take_now(bytes).ok()
    }

    /// The same for what is kept of a peer; the log says now and then who has too much.
    pub(crate) fn keep(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        let grant = self.try_take(bytes);
        if grant.is_none() {
            self.refuse(bytes);
        }
        grant
    }

    fn refuse(&self, bytes: usize) {
        let Some(untold) = self.budget.refusals.turn() else { return };
        let address_bytes = self.address.used.load(Ordering::Relaxed);
        let (all_bytes, max_bytes) = (self.budget.used(), self.budget.limit);
        tracing::warn!(peer = %self.peer, bytes, address_bytes, all_bytes, max_bytes, untold, "no memory to keep more for clients: look at what this one keeps, or raise client.memory.max.bytes");
    }

    fn take_now(self: &Arc<Self>, bytes: usize) -> Result<Grant, &Pool> {
        self.reserve(bytes).map(|()| Grant { account: Arc::clone(self), bytes })
    }

    fn reserve(&self, bytes: usize) -> Result<(), &Pool> {
        let budget = &*self.budget;
        if !self.address.try_take(bytes, budget.limit / ADDRESS_SHARE) {
            return Err(&self.address);
        }
        if !budget.all.try_take(bytes, budget.limit) {
            self.address.give_back(bytes);
            return Err(&budget.all);
        }
        Ok(())
    }

    /// Takes `bytes`, waiting until they fit.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize) -> Grant {
        self.budget.waiting.fetch_add(1, Ordering::SeqCst);
        let _counting = Counting(&self.budget.waiting);
        let mut pressing: Option<Pressing<'_>> = None;
        loop {
            let freed = self.budget.freed.notified();
            match self.take_now(bytes) {
                Ok(grant) => return grant,
                Err(pool) => {
                    if pressing.as_ref().is_none_or(|before| !std::ptr::eq(before.0, pool)) {
                        pressing = Some(Pressing::begin(pool));
                    }
                }
            }
            freed.await;
        }
    }

    /// For how long somebody has been waiting for what this connection may hold.
    pub(crate) fn pressed(&self) -> Option<Duration> {
        self.budget.all.pressed().max(self.address.pressed())
    }
}

impl Grant {
    /// Takes more, if it fits now.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.account.reserve(bytes).is_ok();
        if fits {
            self.bytes += bytes;
        } else {
            self.account.refuse(bytes);
        }
        fits
    }

    /// Waits for something that needs it, and gives it back.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> T {
        work.await
    }

    /// Takes a part of it out.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { account: Arc::clone(&self.account), bytes }
    }

    /// The same bytes, counted until the last of them is let go.
    pub(crate) fn count(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Counted { bytes, _grant: self })
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let budget = &self.account.budget;
        self.account.address.give_back(self.bytes);
        budget.all.give_back(self.bytes);
        if budget.waiting.load(Ordering::SeqCst) > 0 {
            budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::clock::timeout_at;
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    fn soon() -> Instant {
        monotonic() + Duration::from_millis(10)
    }

    #[tokio::test]
    async fn a_request_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(10);
        let account = budget.account(PEER, Arc::default());
        let large = account.try_take(50).expect("alone");
        assert!(account.try_take(1).is_none());
        assert!(timeout_at(soon(), account.take(1)).await.is_err());
        assert_eq!(account.pressed(), None, "nobody waits any more");
        let (grant, ()) = tokio::join!(account.take(1), async { drop(large) });
        assert_eq!(budget.used(), 1);
        drop(grant);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn one_address_leaves_room_to_others_and_large_requests_to_small_ones() {
        let budget = Budget::new(4 << 20);
        let (one, other) =
            (budget.account(PEER, Arc::default()), budget.account(PEER, Arc::default()));
        let large: Vec<Grant> = (0..15).filter_map(|_| one.try_take(100 << 10)).collect();
        assert_eq!(large.len(), 15);
        assert!(one.try_take(100 << 10).is_none(), "a quarter of its half is left to small ones");
        let small: Vec<Grant> = std::iter::from_fn(|| one.try_take(16 << 10)).collect();
        assert_eq!(small.len(), 34);
        assert!(other.try_take(1 << 20).is_some(), "another address has its own half");
        let waiting = one.take(16 << 10);
        tokio::pin!(waiting);
        assert!(timeout_at(soon(), waiting.as_mut()).await.is_err());
        assert!(one.pressed().is_some());
        assert_eq!(other.pressed(), None, "it is not what somebody waits for");
        drop(small);
        waiting.await;
    }

    #[test]
    fn bytes_are_counted_until_nobody_keeps_any_of_them() {
        let budget = Budget::new(1 << 20);
        let grant = budget.account(PEER, Arc::default()).try_take(1000).expect("room");
        let bytes = grant.count(Bytes::from(vec![7; 1000]));
        let kept = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(budget.used(), 1000);
        drop(kept);
        assert_eq!(budget.used(), 0);
    }
}
