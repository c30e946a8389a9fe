//! The network between simulated machines: streams that can be slow, cut in one direction or both, or silent.
//!
//! Invariants: bytes of one stream keep their order; a cut holds bytes back and loses none, as TCP does; a machine
//! without power says nothing, not even that its connections are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use crate::network::{Dial, Dialing, Duplex};
use crate::system::Random;
use crate::system::clock::sleep;
use crate::system::sim_nodes::spawn_free;

/// Whoever takes connections at an address.
pub(super) type Accept = Arc<dyn Fn(DuplexStream) + Send + Sync>;

const HELD: Duration = Duration::from_millis(10);

struct State {
    listeners: BTreeMap<String, (u32, Accept)>,
    /// From and to.
    cuts: BTreeSet<(u32, u32)>,
    silent: BTreeSet<u32>,
    latency_us: u64,
    random: Random,
}

/// The network; clones share it.
#[derive(Clone)]
pub(super) struct SimNet(Arc<Mutex<State>>);

/// The network as one machine sees it.
#[derive(Clone)]
pub(super) struct SimDialer {
    pub net: SimNet,
    pub from: u32,
}

impl std::fmt::Debug for SimDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDialer({})", self.from)
    }
}

impl SimNet {
    pub(super) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            listeners: BTreeMap::new(),
            cuts: BTreeSet::new(),
            silent: BTreeSet::new(),
            latency_us: 200,
            random,
        })))
    }

    pub(super) fn listen(&self, address: &str, machine: u32, accept: Accept) {
        let mut state = self.0.lock();
        state.listeners.insert(address.to_owned(), (machine, accept));
    }

    /// A machine is on again.
    pub(super) fn back(&self, machine: u32) {
        self.0.lock().silent.remove(&machine);
    }

    /// A machine is gone; `silently`: without a word to those that are connected.
    pub(super) fn gone(&self, machine: u32, silently: bool) {
        let mut state = self.0.lock();
        state.listeners.retain(|_, (listening, _)| *listening != machine);
        if silently {
            state.silent.insert(machine);
        }
    }

    /// Forgets everybody: listeners hold their brokers, and those the network.
    pub(super) fn close(&self) {
        let listeners = std::mem::take(&mut self.0.lock().listeners);
        drop(listeners);
    }

    pub(super) fn cut(&self, from: u32, to: u32) {
        self.0.lock().cuts.insert((from, to));
    }

    pub(super) fn set_latency_us(&self, latency_us: u64) {
        self.0.lock().latency_us = latency_us;
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.cuts.clear();
        state.latency_us = 200;
    }

    fn is_held(&self, from: u32, to: u32) -> bool {
        let state = self.0.lock();
        state.cuts.contains(&(from, to))
            || state.silent.contains(&from)
            || state.silent.contains(&to)
    }

    fn delay(&self) -> Duration {
        let state = self.0.lock();
        Duration::from_micros(state.latency_us / 2 + state.random.below(state.latency_us + 1))
    }

    async fn pass(&self, from: u32, to: u32) {
        sleep(self.delay()).await;
        while self.is_held(from, to) {
            sleep(HELD).await;
        }
    }

    async fn pump(
        &self,
        (from, to): (u32, u32),
        mut source: ReadHalf<DuplexStream>,
        mut target: WriteHalf<DuplexStream>,
    ) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = source.read(&mut buffer).await.unwrap_or(0);
            self.pass(from, to).await;
            let written = target.write_all(buffer.get(..read).unwrap_or_default()).await;
            if read == 0 || written.is_err() {
                return;
            }
        }
    }
}

impl Dial for SimDialer {
    fn dial(&self, address: String) -> Dialing {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            sleep(net.delay()).await;
            let found = || net.0.lock().listeners.get(&address).cloned();
            let host = address.split(':').next().unwrap_or_default();
            let machine: u32 = host.trim_start_matches('n').parse().unwrap_or(0);
            while net.is_held(from, machine) || net.is_held(machine, from) {
                sleep(HELD).await;
            }
            let (to, accept) = found().ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, near) = tokio::io::duplex(64 << 10);
            let (far, theirs) = tokio::io::duplex(64 << 10);
            accept(theirs);
            let pumping = net.clone();
            // The network belongs to no machine.
            spawn_free(async move {
                let (near_read, near_write) = tokio::io::split(near);
                let (far_read, far_write) = tokio::io::split(far);
                // Either side's end is the end of both.
                tokio::select! {
                    biased;
                    () = pumping.pump((from, to), near_read, far_write) => {}
                    () = pumping.pump((to, from), far_read, near_write) => {}
                }
            });
            let stream: Box<dyn Duplex> = Box::new(ours);
            Ok(stream)
        })
    }
}
