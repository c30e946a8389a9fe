//! What the consensus library is told about us: its types, its runtime.
//!
//! Invariants: every task of the library is spawned through our door, so that a simulation can kill a node whole.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::{AsyncRuntime, BasicNode, TokioInstant, TokioRuntime};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::BrokerId;
use crate::system::tasks::{JoinHandle, spawn};

openraft::declare_raft_types!(
    /// The library's types.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = BrokerId,
        Node = BasicNode,
        SnapshotData = Vec<String>,
        AsyncRuntime = Runtime,
);

pub(super) type Raft = openraft::Raft<TypeConfig>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<BrokerId>;
pub(super) type Vote = openraft::Vote<BrokerId>;
pub(super) type StorageError = openraft::StorageError<BrokerId>;
pub(super) type Membership = openraft::StoredMembership<BrokerId, BasicNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<BrokerId, BasicNode>;

/// What somebody wants to stand in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// The index of the newest data that it was decided on. It is void where other data came between, so that a
    /// decision on an old image changes nothing, whoever made it.
    pub base: u64,
    pub data: Arc<RawValue>,
}

/// What became of a proposal that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub is_applied: bool,
}

/// Tokio, with tasks spawned through `system::tasks`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

/// A task of the library.
pub(crate) struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

type Inner = TokioRuntime;

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = Task<T>;
    type Sleep = <Inner as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <Inner as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <Inner as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Inner as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: Send> = <Inner as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <Inner as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: Send> = <Inner as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        Task(spawn(future))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Inner::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Inner::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        // Only the library's own election timer draws from it, and that one is off.
        Inner::thread_rng()
    }

    fn oneshot<T: Send>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        Inner::oneshot()
    }
}
