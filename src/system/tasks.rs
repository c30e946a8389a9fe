//! Tasks, threads and blocking work.
//!
//! Invariants: every task of the server is spawned here, and belongs to the node whose task spawned it (`life.rs`); blocking work
//! runs on tokio's blocking pool, except in a runtime with paused time (simulation), where it runs in place so that one seed gives
//! one trace.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
pub(crate) use tokio::task::JoinHandle;

use super::clock::pause;
use super::life::{Busy, Owner};
pub(crate) use super::life::{Kind, is_interrupted};

/// A future whose type nobody needs to know.
pub(crate) type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// Makes `blocking` run in place from now on in this process (simulation only).
#[cfg(test)]
pub(crate) fn run_blocking_in_place() {
    IN_PLACE.store(true, Ordering::Relaxed);
}

/// Starts a task of whoever starts it, to whom it is what it is to them.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match Owner::here() {
        Some(owner) => spawn_bare(owner.guarded(future)),
        None => spawn_bare(future),
    }
}

/// Does something by a name of its own: what it starts is the node's, which ends if any of that panics.
pub(crate) async fn part_of_node<F: Future>(name: &'static str, future: F) -> F::Output {
    match Owner::here() {
        Some(owner) => owner.named(name, Some(Kind::Service)).scope(future).await,
        None => future.await,
    }
}

/// Starts a task of one connection.
pub(crate) fn spawn_connection(future: impl Future<Output = ()> + Send + 'static) {
    drop(match Owner::here() {
        Some(owner) => spawn_bare(owner.named("connection", None).scope(future)),
        None => spawn_bare(future),
    });
}

/// Starts a task that its node can't do without, by a name that an operator is told: the node ends with it, and waits for it.
pub(crate) fn keep(
    kind: Kind,
    name: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    match Owner::here() {
        Some(owner) => {
            let owner = owner.named(name, Some(kind));
            let busy = owner.begin();
            spawn_bare(owner.keep(busy, future))
        }
        None => spawn_bare(future),
    }
}

/// Starts work in the background that is done over and over.
pub(crate) fn keep_job(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    drop(keep(Kind::Job, name, future));
}

/// Starts what others wait for.
pub(crate) fn keep_service(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    drop(keep(Kind::Service, name, future));
}

/// Starts work in the background that has an end.
pub(crate) fn run_errand(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    drop(keep(Kind::Errand, name, future));
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn spawn_bare<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[cfg(test)]
    {
        let task = tokio::spawn(super::sim_nodes::Scoped::inherit(future));
        super::sim_nodes::note(task.abort_handle());
        task
    }
    #[cfg(not(test))]
    tokio::spawn(future)
}

/// Runs work that blocks (flush, cold read, recovery) away from the tasks; `None` if it panicked. A stop waits for it where it
/// waits for the task that began it, even if that waits no more.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if IN_PLACE.load(Ordering::Relaxed) {
        return Some(work());
    }
    let Some(owner) = Owner::here() else {
        return tokio::task::spawn_blocking(work).await.ok();
    };
    let busy = owner.begin().map(Busy::of_work);
    let work = move || {
        let _busy = busy;
        owner.work(work)
    };
    tokio::task::spawn_blocking(work).await.ok()
}

/// How long a thread that may block is held up before it looks whether it is interrupted.
const NAP: Duration = Duration::from_millis(50);

/// Holds up a thread that may block, for as long as it is not interrupted.
pub(crate) fn nap(duration: Duration) {
    let mut left = duration;
    while !left.is_zero() && !is_interrupted() {
        let nap = left.min(NAP);
        pause(nap);
        left -= nap;
    }
}

/// Runs `work` for every item on up to `threads` scoped threads, for start-up work before any task runs.
pub(crate) fn parallel<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    if threads <= 1 || items.len() < 2 || IN_PLACE.load(Ordering::Relaxed) {
        items.iter().for_each(work);
        return;
    }
    let chunk = items.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for part in items.chunks(chunk) {
            scope.spawn(|| part.iter().for_each(&work));
        }
    });
}

/// Runs what others wait for on a thread of its own (it may block), or as a task where blocking work runs in place.
pub(crate) fn dedicated(
    name: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    if IN_PLACE.load(Ordering::Relaxed) {
        keep_service(name, future);
        return Ok(());
    }
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let Some(owner) = Owner::here() else {
        return thread.spawn(move || runtime.block_on(future)).map(drop);
    };
    let owner = owner.named(name, Some(Kind::Service));
    let busy = owner.begin();
    thread.spawn(move || runtime.block_on(owner.keep(busy, future))).map(drop)
}

/// How much less than others threads get of a processor that both want (nice, 0 to 19), where somebody waits for what they do.
const NICENESS: i32 = 10;

/// How much others are let in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yielding {
    /// Not at all: threads like others.
    Nothing,
    /// A smaller share of the processors.
    Nice,
    /// Only what nobody else wants, and it is given up at once (SCHED_IDLE): no lock may be held there that others wait for.
    Idle,
}

/// Threads that can run at a time.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Threads for work that is not to hold up others, nor to be held up by them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Background(Option<Arc<Threads>>);

#[derive(Debug)]
struct Threads(Option<tokio::runtime::Runtime>);

impl Background {
    /// Starts threads; in a simulation there are none.
    pub(crate) fn start(name: &str, threads: usize, how: Yielding) -> std::io::Result<Self> {
        if IN_PLACE.load(Ordering::Relaxed) {
            return Ok(Self::none());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .on_thread_start(move || step_back(how))
            .enable_all()
            .build()?;
        Ok(Self(Some(Arc::new(Threads(Some(runtime))))))
    }

    /// No threads of its own: work is done wherever it is asked for.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The runtime of its threads, for libraries that bring their own tasks.
    pub(crate) fn handle(&self) -> Option<tokio::runtime::Handle> {
        let threads = self.0.as_ref()?;
        threads.0.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// Does something here whose tasks and sockets belong there.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let handle = self.handle();
        let _there = handle.as_ref().map(tokio::runtime::Handle::enter);
        work()
    }

    /// Starts a task there.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let Some(runtime) = self.0.as_ref().and_then(|threads| threads.0.as_ref()) else {
            return spawn(future);
        };
        match Owner::here() {
            Some(owner) => runtime.spawn(owner.guarded(future)),
            None => runtime.spawn(future),
        }
    }

    /// Does something there, and waits for it; `None` if it panicked.
    pub(crate) async fn run<F>(&self, future: F) -> Option<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if self.0.is_none() {
            return Some(future.await);
        }
        self.spawn(future).await.ok()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A task may be the last that knows of it, and may not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Tells the scheduler about this thread. Where the system does not allow it, it is a thread like others.
fn step_back(how: Yielding) {
    match how {
        Yielding::Nothing => {}
        Yielding::Nice => {
            let _ = rustix::process::setpriority_process(None, NICENESS);
        }
        Yielding::Idle => {
            let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
        }
    }
}
