//! Requests that wait for a partition.
//!
//! Invariants: a waiter is registered under the partition's lock, so nothing happens between looking and waiting;
//! waking costs nothing where nobody waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::model::Offset;

/// A produce request that waits for the high watermark on some partitions.
#[derive(Debug, Default)]
pub(crate) struct AckWaiter {
    left: AtomicUsize,
    done: Notify,
}

impl AckWaiter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Partitions that have not passed yet.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// Waits until every partition has passed or failed.
    pub(crate) async fn wait(&self) {
        loop {
            let done = self.done.notified();
            if self.left() == 0 {
                return;
            }
            done.await;
        }
    }

    fn add(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
    }

    /// The partition passed or failed; whoever waited asks it which.
    fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

/// A fetch that waits for news on some partitions.
#[derive(Debug, Default)]
pub(crate) struct FetchWaiter {
    woken: Notify,
}

impl FetchWaiter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) async fn wait(&self) {
        self.woken.notified().await;
    }
}

/// Who waits on one partition.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By the offset that the high watermark must reach; appends come in order, so this is sorted.
    acks: VecDeque<(Offset, Arc<AckWaiter>)>,
    fetches: Vec<Arc<FetchWaiter>>,
    /// Followers that wait for the log to grow.
    followers: Vec<Arc<FetchWaiter>>,
    /// By the offset that must be flushed, sorted.
    flushes: VecDeque<(Offset, Arc<AckWaiter>)>,
}

impl Waiting {
    pub(super) fn add_ack(&mut self, offset: Offset, waiter: &Arc<AckWaiter>) {
        waiter.add();
        self.acks.push_back((offset, Arc::clone(waiter)));
    }

    pub(super) fn add_fetch(&mut self, waiter: &Arc<FetchWaiter>) {
        self.fetches.push(Arc::clone(waiter));
    }

    #[cfg(test)]
    pub(super) fn fetches(&self) -> usize {
        self.fetches.len()
    }

    pub(super) fn remove_fetch(&mut self, waiter: &Arc<FetchWaiter>) {
        self.fetches.retain(|other| !Arc::ptr_eq(other, waiter));
        self.followers.retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// The high watermark reached `to`.
    pub(super) fn advanced(&mut self, to: Offset) {
        while self.acks.front().is_some_and(|(offset, _)| *offset <= to) {
            if let Some((_, waiter)) = self.acks.pop_front() {
                waiter.pass();
            }
        }
        self.wake_fetches();
    }

    pub(super) fn wake_fetches(&mut self) {
        for waiter in self.fetches.drain(..) {
            waiter.woken.notify_one();
        }
    }

    pub(super) fn add_follower(&mut self, waiter: &Arc<FetchWaiter>) {
        self.followers.push(Arc::clone(waiter));
    }

    /// The log grew.
    pub(super) fn wake_followers(&mut self) {
        for waiter in self.followers.drain(..) {
            waiter.woken.notify_one();
        }
    }

    pub(super) fn add_flush(&mut self, offset: Offset, waiter: &Arc<AckWaiter>) {
        waiter.add();
        let at = self.flushes.partition_point(|(other, _)| *other <= offset);
        self.flushes.insert(at, (offset, Arc::clone(waiter)));
    }

    /// The log is durable up to `to`.
    pub(super) fn flushed(&mut self, to: Offset) {
        while self.flushes.front().is_some_and(|(offset, _)| *offset <= to) {
            if let Some((_, waiter)) = self.flushes.pop_front() {
                waiter.pass();
            }
        }
    }

    /// Whoever waits for an acknowledgement is told to ask why there is none.
    pub(super) fn fail_acks(&mut self) {
        for (_, waiter) in self.acks.drain(..) {
            waiter.pass();
        }
    }

    /// The partition can't serve any more, or in another role.
    pub(super) fn fail(&mut self) {
        self.fail_acks();
        for (_, waiter) in self.flushes.drain(..) {
            waiter.pass();
        }
        self.wake_fetches();
        self.wake_followers();
    }
}
