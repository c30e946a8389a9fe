//! The life of a node: the tasks that it is made of, and how they end.
//!
//! Invariants: a task that a node can't do without ends the node when it ends, whether by a panic or by itself; a panic in what
//! belongs to one connection or one request ends nothing else; a stop waits for every task and for the blocking work that they
//! began, so that nothing touches a log that is being closed. What a task starts belongs to the same node.
//! Left to others: what ends when (`broker/start.rs`), and ending the process (`cli/serve.rs`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::{Instant, timeout_at};

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// What is done in the background is broken off.
    Leaving,
    /// Nothing new is taken; what was asked is answered.
    Draining,
    /// Nobody waits for anything any more.
    Closing,
}

/// What a task is to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Others wait for what it does: it works until the last request is answered.
    Service,
    /// Takes what is new.
    Listener,
    /// Work in the background, over and over.
    Job,
    /// Work in the background that has an end.
    Errand,
}

impl Kind {
    /// When it is broken off.
    fn ends_at(self) -> Phase {
        match self {
            Kind::Service => Phase::Closing,
            Kind::Listener => Phase::Draining,
            Kind::Job | Kind::Errand => Phase::Leaving,
        }
    }
}

/// See the file's header.
#[derive(Debug, Clone)]
pub(crate) struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<Phase>,
    /// Told to whoever serves connections.
    stopping: watch::Sender<bool>,
    failure: watch::Sender<Option<String>>,
    /// What is at work, by a number of its own.
    busy: watch::Sender<BTreeMap<u64, (&'static str, Kind)>>,
    count: Mutex<u64>,
    /// The task that is to panic.
    #[cfg(test)]
    struck: watch::Sender<Option<&'static str>>,
}

/// Whose work it is that runs here.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    life: Life,
    name: &'static str,
    /// `None`: one connection's or one request's, or what is done before the node serves.
    kind: Option<Kind>,
}

tokio::task_local! {
    static OWNER: Owner;
}

thread_local! {
    /// What the last panic of this thread said, and where it was.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl Life {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            phase: watch::channel(Phase::Running).0,
            stopping: watch::channel(false).0,
            failure: watch::channel(None).0,
            busy: watch::channel(BTreeMap::new()).0,
            count: Mutex::new(0),
            #[cfg(test)]
            struck: watch::channel(None).0,
        }))
    }

    /// Does something of which all that it starts belongs to this node.
    pub(crate) async fn scope<F: Future>(&self, future: F) -> F::Output {
        let owner = Owner { life: self.clone(), name: "start", kind: None };
        OWNER.scope(owner, future).await
    }

    /// Turns true once nothing new is taken any more.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }

    /// Waits until a task has ended that the node can't do without; says which, and why.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failure = self.0.failure.subscribe();
        let life = self.clone();
        async move {
            let told = failure.wait_for(Option::is_some).await;
            let why = told.ok().and_then(|told| told.clone()).unwrap_or_default();
            drop(life);
            why
        }
    }

    /// Goes on to a phase of the stop.
    pub(crate) fn enter(&self, phase: Phase) {
        self.0.phase.send_replace(phase);
        if phase >= Phase::Draining {
            self.0.stopping.send_replace(true);
        }
    }

    /// Waits until everything has ended that the phase breaks off; `Err` names what has not in time.
    pub(crate) async fn ended(&self, deadline: Instant) -> Result<(), String> {
        let mut busy = self.0.busy.subscribe();
        let phase = *self.0.phase.borrow();
        let is_over = |(_, kind): &(&'static str, Kind)| kind.ends_at() <= phase;
        let all = busy.wait_for(|busy| !busy.values().any(is_over));
        if timeout_at(deadline, all).await.is_ok() {
            return Ok(());
        }
        let mut left: Vec<_> = self.names().into_iter().filter(is_over).map(|(n, _)| n).collect();
        left.dedup();
        Err(left.join(", "))
    }

    /// What is at work, by name.
    fn names(&self) -> Vec<(&'static str, Kind)> {
        let mut names: Vec<_> = self.0.busy.borrow().values().copied().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        names
    }

    /// The tasks that the node can't do without.
    #[cfg(test)]
    pub(crate) fn critical(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.names().into_iter().map(|(name, _)| name).collect();
        names.dedup();
        names
    }

    /// Lets the tasks of a name panic.
    #[cfg(test)]
    pub(crate) fn strike(&self, name: &'static str) {
        self.0.struck.send_replace(Some(name));
    }

    fn fail(&self, why: String) {
        self.0.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert(why);
            is_first
        });
    }
}

impl Owner {
    /// Whose work it is that runs here; `None`: nobody's who watches over it.
    pub(super) fn here() -> Option<Self> {
        OWNER.try_with(Clone::clone).ok()
    }

    /// The same node, another task.
    pub(super) fn named(self, name: &'static str, kind: Option<Kind>) -> Self {
        Self { name, kind, ..self }
    }

    /// Runs a future as this owner's.
    pub(super) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        OWNER.scope(self, future)
    }

    /// The same; the node ends if it panics, but for what belongs to one connection.
    pub(super) fn guarded<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        let guard = self.guard();
        self.scope(async move {
            let _guard = guard;
            future.await
        })
    }

    /// Runs work that blocks as this owner's.
    pub(super) fn work<T>(self, work: impl FnOnce() -> T) -> T {
        OWNER.sync_scope(self, work)
    }

    /// Notes that it is at work until what is returned is dropped; `None` where nobody waits for it.
    pub(super) fn begin(&self) -> Option<Busy> {
        let kind = self.kind?;
        let number = {
            let mut count = self.life.0.count.lock();
            *count += 1;
            *count
        };
        self.life.0.busy.send_modify(|busy| _ = busy.insert(number, (self.name, kind)));
        Some(Busy { guard: self.guard()?, kind, number, may_end: false })
    }

    /// Ends the node if the task panics that it is given to; `None` where a panic ends nothing else.
    fn guard(&self) -> Option<Guard> {
        self.kind.map(|_| Guard { life: self.life.clone(), name: self.name })
    }

    /// Runs a task to its end, or until the stop breaks it off.
    pub(super) async fn keep(self, busy: Option<Busy>, future: impl Future<Output = ()>) {
        let mut busy = busy;
        let Some(kind) = self.kind else { return self.scope(future).await };
        let life = self.life.clone();
        let mut phase = life.0.phase.subscribe();
        #[cfg(test)]
        let future = struck(life.clone(), self.name, future);
        tokio::select! {
            biased;
            () = self.scope(future) => {
                if let Some(busy) = &mut busy {
                    busy.may_end = kind == Kind::Errand;
                }
            }
            _ = phase.wait_for(|phase| *phase >= kind.ends_at()) => {}
        }
    }
}

/// Panics when it is told to.
#[cfg(test)]
async fn struck(life: Life, name: &'static str, future: impl Future<Output = ()>) {
    let mut told = life.0.struck.subscribe();
    tokio::select! {
        biased;
        () = future => {}
        _ = told.wait_for(|told| *told == Some(name)) => panic!("struck"),
    }
}

/// See `Owner::guard`.
#[derive(Debug)]
pub(super) struct Guard {
    life: Life,
    name: &'static str,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let how = LAST_PANIC.take().unwrap_or_default();
            self.life.fail(format!("the task '{}' panicked{how}", self.name));
        }
    }
}

/// Something of a node that is at work.
#[derive(Debug)]
pub(super) struct Busy {
    guard: Guard,
    kind: Kind,
    number: u64,
    may_end: bool,
}

impl Busy {
    /// What blocks may end at any time.
    pub(super) fn of_work(mut self) -> Self {
        self.may_end = true;
        self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Guard { life, name } = &self.guard;
        let is_over = *life.0.phase.borrow() >= self.kind.ends_at();
        let may_end = self.may_end || is_over || self.kind == Kind::Errand;
        // The guard says so if it panicked.
        if !may_end && !std::thread::panicking() {
            life.fail(format!("the task '{name}' ended, which it never should"));
        }
        life.0.busy.send_modify(|busy| _ = busy.remove(&self.number));
    }
}

/// Whether the stop wants the work of this thread or task to be broken off: what takes long asks it now and then.
pub(crate) fn is_interrupted() -> bool {
    let is_over = |owner: &Owner| {
        let kind = owner.kind?;
        Some(*owner.life.0.phase.borrow() >= kind.ends_at())
    };
    OWNER.try_with(is_over).ok().flatten().unwrap_or(false)
}

/// From now on a panic is a line in the log: which task, where, and what it said.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied();
        let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("(no text)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let task = OWNER.try_with(|owner| owner.name).unwrap_or("-");
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::force_capture();
        let thread = thread.name().unwrap_or("-");
        tracing::error!(task, thread, place, said, "panic\n{backtrace}");
        LAST_PANIC.set(Some(format!(" at {place}: {said}")));
    }));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::system::clock::{monotonic, sleep};
    use crate::system::tasks::{
        blocking, dedicated, keep, keep_job, keep_service, nap, run_errand, spawn, spawn_connection,
    };

    /// What ends a node within so many seconds, if anything does. A panic first prints where it comes from.
    async fn failure(life: &Life, seconds: u64) -> Option<String> {
        timeout_at(monotonic() + Duration::from_secs(seconds), life.failed()).await.ok()
    }

    async fn soon(life: &Life) -> Result<(), String> {
        life.ended(monotonic() + Duration::from_secs(2)).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_ends_with_a_task_that_panics_or_ends_however_it_runs() {
        type Start = fn();
        let ends: [(&str, Start); 6] = [
            ("'one' panicked", || keep_service("one", async { panic!("p") })),
            ("'two' ended", || keep_job("two", async {})),
            ("'three' panicked", || run_errand("three", async { panic!("p") })),
            ("'four' panicked", || dedicated("four", async { panic!("p") }).expect("a thread")),
            ("'five' panicked", || {
                keep_service("five", async {
                    let _: Option<()> = blocking(|| panic!("p")).await;
                    std::future::pending::<()>().await;
                });
            }),
            ("'six' ended", || {
                keep(Kind::Service, "six", std::future::pending()).abort();
            }),
        ];
        for (expected, start) in ends {
            let life = Life::new();
            life.scope(async { start() }).await;
            let why = failure(&life, 60).await.unwrap_or_default();
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_belongs_to_one_connection_ends_nothing_else() {
        let life = Life::new();
        life.scope(async {
            spawn_connection(async { panic!("a connection") });
            spawn_connection(async {
                let _: Option<()> = blocking(|| panic!("a request")).await;
                drop(spawn(async { panic!("a read") }).await);
            });
            run_errand("an errand", async {});
        })
        .await;
        assert_eq!(failure(&life, 2).await, None);
        assert_eq!(soon(&life).await, Ok(()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_breaks_jobs_off_then_services_and_waits_for_the_blocking_work_that_they_began()
    {
        let life = Life::new();
        let (told, work) = std::sync::mpsc::channel();
        life.scope(async {
            keep_service("service", std::future::pending());
            keep_job("sleeper", async { sleep(Duration::from_hours(1)).await });
            keep_job("worker", async move {
                blocking(move || {
                    nap(Duration::from_hours(1));
                    std::thread::sleep(Duration::from_millis(100));
                    told.send(is_interrupted()).expect("heard");
                })
                .await;
            });
        })
        .await;
        sleep(Duration::from_millis(50)).await;
        life.enter(Phase::Leaving);
        assert_eq!(soon(&life).await, Ok(()));
        assert_eq!(work.try_recv(), Ok(true), "it was waited for");
        assert_eq!(life.critical(), ["service"]);
        life.enter(Phase::Closing);
        assert_eq!(soon(&life).await, Ok(()));
        assert_eq!(failure(&life, 2).await, None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_does_not_end_in_time_is_named() {
        let life = Life::new();
        life.scope(async {
            keep_job("stubborn", async {
                blocking(|| std::thread::sleep(Duration::from_millis(500))).await;
            });
        })
        .await;
        sleep(Duration::from_millis(50)).await;
        life.enter(Phase::Leaving);
        let left = life.ended(monotonic() + Duration::from_millis(50)).await;
        assert_eq!(left, Err("stubborn".to_owned()));
        assert_eq!(soon(&life).await, Ok(()));
    }
}
