//! Wall and monotonic time.
//!
//! Invariants: monotonic time is tokio's clock, so a paused runtime (simulation, tests) controls it; wall time of a
//! simulated clock moves with monotonic time from a fixed start, and can be made to jump.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::model::Timestamp;
use crate::model::number::to_i64;

/// A handle to the clock; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    #[cfg_attr(not(test), expect(dead_code, reason = "the simulated twin exists in tests only"))]
    Simulated {
        started: Instant,
        wall_at_start_ms: AtomicI64,
    },
}

impl Clock {
    /// The machine's clock.
    pub(crate) fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that follows the (paused) runtime's time, starting at `wall_ms`.
    #[cfg(test)]
    pub(crate) fn simulated(wall_ms: Timestamp) -> Self {
        let wall_at_start_ms = AtomicI64::new(wall_ms);
        Self(Arc::new(Source::Simulated { started: monotonic(), wall_at_start_ms }))
    }

    /// Wall time in milliseconds since 1970 (UTC).
    pub(crate) fn now_ms(&self) -> Timestamp {
        match &*self.0 {
            Source::System => system_ms(),
            Source::Simulated { started, wall_at_start_ms } => {
                wall_at_start_ms.load(Ordering::Relaxed) + to_i64(started.elapsed().as_millis())
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    static SIMULATED_START: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// Lets this thread's uptime begin now, so that it is the same in each run of a seed; `false`: no more.
#[cfg(test)]
pub(crate) fn simulate_uptime(is_simulated: bool) {
    SIMULATED_START.set(is_simulated.then(monotonic));
}

/// Milliseconds since the first call, by the monotonic clock.
pub(crate) fn uptime_ms() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    #[cfg(test)]
    if let Some(start) = SIMULATED_START.get() {
        return to_i64(monotonic().saturating_duration_since(start).as_millis());
    }
    to_i64(monotonic().saturating_duration_since(*START.get_or_init(monotonic)).as_millis())
}

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Holds up a thread that may block.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A duration from a setting in milliseconds; negative counts as zero.
pub(crate) fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.try_into().unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn system_ms() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    to_i64(since.as_millis())
}
