//! Waiting for a disk, or for whoever waits for one, without holding up the tasks of others.
//!
//! Invariant: no thread that runs tasks stands still for long on account of a disk or of a [`Patient`] lock: what it has to do
//! besides is taken over by another thread first.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Most locks are held for less than this; then it costs less to wait than to hand this thread's tasks to another.
const SHORT: Duration = Duration::from_micros(200);

/// Does something that may wait for a disk, right here; this thread's other tasks go on elsewhere meanwhile.
pub(crate) fn wait_here<T>(work: impl FnOnce() -> T) -> T {
    // Elsewhere, as in a simulation, there is no other thread to take over.
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        return tokio::task::block_in_place(work);
    }
    work()
}

/// A lock whose holder may wait for a disk.
#[derive(Debug, Default)]
pub(crate) struct Patient<T>(Mutex<T>);

impl<T> Patient<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock. If that takes long, only the caller waits.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.try_lock().unwrap_or_else(|| wait_here(|| self.0.lock()))
    }

    /// Takes the lock, unless that takes long.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().or_else(|| self.0.try_lock_for(SHORT))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;
    use crate::system::clock::pause;

    /// One thread runs tasks; `wait` makes it wait. Whether another task is done meanwhile.
    #[expect(clippy::disallowed_methods, reason = "the holder belongs to no runtime")]
    fn goes_on_while(wait: impl FnOnce(Arc<Patient<u8>>) + Send + 'static) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let lock = Arc::new(Patient::new(0));
        let lent = Arc::clone(&lock);
        let (release, released) = mpsc::channel::<()>();
        let (taken, is_taken) = mpsc::channel();
        let holder = std::thread::spawn(move || {
            let _guard = lent.lock();
            let _ = taken.send(());
            let _ = released.recv_timeout(Duration::from_secs(10));
        });
        is_taken.recv().expect("taken");
        let waiting = runtime.spawn(async move { wait(lock) });
        pause(Duration::from_millis(50));
        let (done, is_done) = mpsc::channel();
        drop(runtime.spawn(async move { done.send(()) }));
        let goes_on = is_done.recv_timeout(Duration::from_secs(2)).is_ok();
        let _ = release.send(());
        holder.join().expect("ends");
        runtime.block_on(waiting).expect("ends");
        goes_on
    }

    #[test]
    fn tasks_go_on_while_one_waits_for_a_lock_that_is_held_for_long() {
        assert!(goes_on_while(|lock| *lock.lock() += 1));
        // The same with an ordinary lock, or this test shows nothing.
        assert!(!goes_on_while(|lock| *lock.0.lock() += 1));
    }

    #[test]
    fn tasks_go_on_while_one_does_what_may_wait() {
        assert!(goes_on_while(|lock| wait_here(|| *lock.0.lock() += 1)));
    }

    #[test]
    fn outside_of_a_runtime_and_in_one_of_a_single_thread_it_just_waits() {
        assert_eq!(wait_here(|| 7), 7);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(async { wait_here(|| 8) }), 8);
    }
}
