//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::Pool;
use crate::system::clock::{Instant, monotonic};

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

/// Connections of one address, and what they have taken of the budget for requests.
#[derive(Debug, Default)]
struct Address {
    open: usize,
    taken: Arc<Pool>,
}

/// A counted connection; uncounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    taken: Arc<Pool>,
}

impl Counted {
    /// What all connections of the same address have taken of the budget for requests.
    pub(crate) fn taken(&self) -> Arc<Pool> {
        Arc::clone(&self.taken)
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
        let from = state.by_address.entry(address).or_default();
        if from.open >= state.per_address_max {
            return Err("max.connections.per.ip");
        }
        from.open += 1;
        let taken = Arc::clone(&from.taken);
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
        let mut state = self.limits.state.lock();
        state.open -= 1;
        if let Some(from) = state.by_address.get_mut(&self.address) {
            from.open -= 1;
            if from.open == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}
