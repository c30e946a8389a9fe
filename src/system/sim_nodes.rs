//! Several machines in one runtime (tests only): a task belongs to the machine of the task that spawned it.
//!
//! Invariants: a machine that is killed runs none of its tasks any more; one that is paused runs none until it goes
//! on, while time passes for it like for all others (as SIGSTOP does).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;

use super::tasks::JoinHandle;

/// Finished tasks are forgotten when a machine has this many.
const HANDLES_KEPT: usize = 256;

#[derive(Default)]
struct Machine {
    tasks: Vec<AbortHandle>,
    is_paused: bool,
    wakers: Vec<Waker>,
}

thread_local! {
    static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
    static MACHINES: RefCell<BTreeMap<u32, Machine>> = const { RefCell::new(BTreeMap::new()) };
}

/// A future that runs on a machine.
pub(super) struct Scoped<F: Future> {
    machine: Option<u32>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Scoped<F> {
    /// On the machine of whoever spawns it.
    pub(super) fn inherit(future: F) -> Self {
        Self { machine: CURRENT.get(), inner: Box::pin(future) }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(machine) = self.machine else { return self.inner.as_mut().poll(context) };
        let is_paused = MACHINES.with_borrow_mut(|machines| {
            let machine = machines.entry(machine).or_default();
            if machine.is_paused {
                machine.wakers.push(context.waker().clone());
            }
            machine.is_paused
        });
        if is_paused {
            return Poll::Pending;
        }
        let before = CURRENT.replace(Some(machine));
        let polled = self.inner.as_mut().poll(context);
        CURRENT.set(before);
        polled
    }
}

/// Notes a task of the current machine.
pub(super) fn note(task: AbortHandle) {
    let Some(machine) = CURRENT.get() else { return };
    MACHINES.with_borrow_mut(|machines| {
        let tasks = &mut machines.entry(machine).or_default().tasks;
        if tasks.len() >= HANDLES_KEPT {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    });
}

/// Starts a task on a machine.
pub(crate) fn spawn_on<F>(machine: u32, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let before = CURRENT.replace(Some(machine));
    let task = super::tasks::spawn(future);
    CURRENT.set(before);
    task
}

/// Starts a task that belongs to no machine: the network's, or a client's.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn spawn_free<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    drop(tokio::spawn(future));
}

/// Ends every task of a machine.
pub(crate) fn kill(machine: u32) {
    let tasks = MACHINES.with_borrow_mut(|machines| machines.remove(&machine));
    tasks.iter().flat_map(|machine| &machine.tasks).for_each(AbortHandle::abort);
}

/// Stops a machine, or lets it go on.
pub(crate) fn pause(machine: u32, is_paused: bool) {
    let wakers = MACHINES.with_borrow_mut(|machines| {
        let machine = machines.entry(machine).or_default();
        machine.is_paused = is_paused;
        if is_paused { Vec::new() } else { std::mem::take(&mut machine.wakers) }
    });
    wakers.into_iter().for_each(Waker::wake);
}

/// Forgets all machines, before another run in this thread.
pub(crate) fn reset() {
    MACHINES.with_borrow_mut(BTreeMap::clear);
    CURRENT.set(None);
}
