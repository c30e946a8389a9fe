//! Tasks, threads and blocking work.
//!
//! Invariants: every task of the server is spawned here; blocking work runs on tokio's blocking pool, except in a
//! runtime with paused time (simulation), where it runs in place so that one seed gives one trace.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
pub(crate) use tokio::task::JoinHandle;

/// A future whose type nobody needs to know.
pub(crate) type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// Makes `blocking` run in place from now on in this process (simulation only).
#[cfg(test)]
pub(crate) fn run_blocking_in_place() {
    IN_PLACE.store(true, Ordering::Relaxed);
}

/// Starts a task.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
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

/// Runs work that blocks (flush, cold read, recovery) away from the tasks; `None` if it panicked.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if IN_PLACE.load(Ordering::Relaxed) {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
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

/// Runs a future on a thread of its own (it may block), or as a task where blocking work runs in place.
pub(crate) fn dedicated(
    name: &str,
    future: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    if IN_PLACE.load(Ordering::Relaxed) {
        drop(spawn(future));
        return Ok(());
    }
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(future))
        .map(|_| ())
}

/// How much less than others threads get of a processor that both want (nice, 0 to 19), where somebody waits for what they do.
const NICENESS: i32 = 10;

/// How much others are let in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yielding {
    /// A smaller share of the processors.
    Nice,
    /// Only what nobody else wants, and it is given up at once (SCHED_IDLE): no lock may be held there that others wait for.
    Idle,
}

/// Threads for work that is not to hold up others.
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

    /// Starts a task there.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.0.as_ref().and_then(|threads| threads.0.as_ref()) {
            Some(runtime) => runtime.spawn(future),
            None => spawn(future),
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
        Yielding::Nice => {
            let _ = rustix::process::setpriority_process(None, NICENESS);
        }
        Yielding::Idle => {
            let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
        }
    }
}
