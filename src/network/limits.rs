//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::system::Pool;
use crate::system::clock::{Instant, monotonic};

/// Addresses without a connection that are looked through for those of which nothing is kept.
const GONE_MAX: usize = 64;

/// Counts connections, in all and by address, and new ones in a second.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open_max: usize,
    per_address_max: usize,
    rate_max: usize,
    open: usize,
    by_address: HashMap<IpAddr, Address>,
    second: Instant,
    in_second: usize,
}

/// What all connections of one address have taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub requests: Arc<Pool>,
    /// What is kept for them also when they are gone.
    pub kept: Arc<Pool>,
}

/// Connections of one address.
#[derive(Debug, Default)]
struct Address {
    open: usize,
    taken: Taken,
}

impl Address {
    fn is_forgotten(&self) -> bool {
        self.open == 0 && Arc::strong_count(&self.taken.kept) == 1
    }
}

/// A counted connection; uncounted when it is dropped, which is to be the last that is left of it.
#[derive(Debug)]
pub(crate) struct Counted {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    taken: Taken,
}

impl Counted {
    /// What all connections of the same address have taken.
    pub(crate) fn taken(&self) -> &Taken {
        &self.taken
    }
}

impl ConnectionLimits {
    pub(crate) fn new(open_max: usize, per_address_max: usize, rate_max: usize) -> Arc<Self> {
        let state = State {
            open_max,
            per_address_max,
            rate_max,
            open: 0,
            by_address: HashMap::new(),
            second: monotonic(),
            in_second: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Changes the limits: in all, by address, new ones in a second. Open connections stay.
    pub(crate) fn set(&self, (open_max, per_address_max, rate_max): (usize, usize, usize)) {
        let mut state = self.state.lock();
        (state.open_max, state.per_address_max, state.rate_max) =
            (open_max, per_address_max, rate_max);
    }

    /// Counts a new connection, or says which limit it meets.
    pub(crate) fn count(self: &Arc<Self>, address: IpAddr) -> Result<Counted, &'static str> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now = monotonic();
        if now.duration_since(state.second).as_millis() >= 1000 {
            state.second = now;
            state.in_second = 0;
        }
        if state.open >= state.open_max {
            return Err("max.connections");
        }
        if state.in_second >= state.rate_max {
            return Err("max.connection.creation.rate");
        }
        // Addresses whose connections are gone stay for as long as something is kept for them.
        if state.by_address.len() > 2 * state.open + GONE_MAX {
            state.by_address.retain(|_, from| !from.is_forgotten());
        }
        let from = state.by_address.entry(address).or_default();
        if from.open >= state.per_address_max {
            return Err("max.connections.per.ip");
        }
        from.open += 1;
        let taken = from.taken.clone();
        state.open += 1;
        state.in_second += 1;
        Ok(Counted { limits: Arc::clone(self), address, taken })
    }

    pub(crate) fn open(&self) -> usize {
        self.state.lock().open
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.taken = Taken::default();
        let mut state = self.limits.state.lock();
        state.open -= 1;
        if let Some(from) = state.by_address.get_mut(&self.address) {
            from.open -= 1;
            if from.is_forgotten() {
                state.by_address.remove(&self.address);
            }
        }
    }
}
