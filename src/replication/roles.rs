//! The lock of a partition, and the roles that the metadata gives it.
//!
//! Invariants: whoever gets the lock finds every role taken that was given before; what the metadata says of one partition
//! waits for no other one's disk. Left to others: what a role means (`replica.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::partition::{Partition, State};
use super::replica::PartitionState;
use crate::log::Log;
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::{blocking, run_errand};

/// The newest role that was given and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Told {
    newest: Mutex<Option<PartitionState>>,
    is_there: AtomicBool,
}

/// What can be asked without the lock: who holds it may wait for a disk, and the whole node must not.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub is_offline: AtomicBool,
    pub is_deleted: AtomicBool,
    /// Its log lies in another directory, or is about to: there is another partition of this name.
    pub is_moved: AtomicBool,
}

impl Partition {
    /// The lock, with whatever the metadata said taken on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.take_told(&mut state);
        state
    }

    /// The same, unless somebody holds it for long.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state.try_lock()?;
        self.take_told(&mut state);
        Some(state)
    }

    /// Takes on a role or a change of the ISR, as the metadata says, and then calls `taken`. Where the lock is held for long, whoever takes it next does so
    /// first, and from now on nothing is answered in the old role: what else the metadata says does not wait for one partition's disk.
    pub(crate) fn take_state_then(
        self: &Arc<Self>,
        wanted: &PartitionState,
        taken: impl FnOnce() + Send + 'static,
    ) {
        let age = |state: &PartitionState| (state.leader_epoch, state.partition_epoch);
        let mut told = self.told.newest.lock();
        if told.as_ref().is_none_or(|before| age(before) <= age(wanted)) {
            *told = Some(wanted.clone());
        }
        drop(told);
        self.told.is_there.store(true, Ordering::Release);
        if self.try_lock().is_some() {
            return taken();
        }
        let led = self.leading_epoch();
        if led >= 0 && wanted.leader_epoch > led {
            // Unless somebody has taken it meanwhile.
            let _ = self.leading.compare_exchange(led, -1, Ordering::AcqRel, Ordering::Acquire);
        }
        let partition = Arc::clone(self);
        run_errand("a role", async move {
            let _ = blocking(move || drop(partition.lock())).await;
            taken();
        });
    }

    /// The same, where nobody has to know when it is taken.
    pub(crate) fn take_state(self: &Arc<Self>, wanted: &PartitionState) {
        self.take_state_then(wanted, || {});
    }

    fn take_told(&self, state: &mut State) {
        // Most often there is nothing: then nothing is written, either.
        let is_there = &self.told.is_there;
        if !is_there.load(Ordering::Acquire) || !is_there.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(wanted) = self.told.newest.lock().take() {
            self.take_role(state, &wanted);
        }
    }

    fn take_role(&self, state: &mut State, wanted: &PartitionState) {
        let before = (state.replica.leader_epoch, state.replica.is_leader());
        let now_ms = self.local.awake.now_ms();
        let effects = state.replica.take_state(self.local.node_id, wanted, now_ms);
        let now = (state.replica.leader_epoch, state.replica.is_leader());
        if before != now {
            tracing::debug!(node = self.local.node_id, partition = %self.name, leader = wanted.leader, epoch = now.0, "role taken");
            self.leading.store(if now.1 { now.0 } else { -1 }, Ordering::Release);
            state.remote = None;
            // Whoever waits asked the leader of another epoch.
            state.waiting.fail();
            if is_planted(Bug::TruncateToHighWatermark) && !now.1 {
                let to = state.replica.high_watermark();
                let _ = state.log.as_mut().map(|log| log.truncate(to));
                self.cut(state);
            }
        }
        let config = state.log.as_ref().map(Log::config).filter(|config| config.is_tiered);
        if let Some(config) = config.filter(|_| before != now && now.1) {
            // What the bucket has it learns at once: before that it does not say where the log begins.
            let wanted = config.mount.as_ref().map(|_| &self.local.mount_wanted);
            wanted.unwrap_or(&self.local.tier_wanted).notify_one();
        }
        self.perform(state, effects);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, TopicConfig};
    use crate::model::TopicPartition;
    use crate::replication::tests::{led, open};
    use crate::replication::{PartitionHandle, PartitionSpec, Replicas};
    use crate::system::sim_disk::SimDisk;

    fn alone() -> (Arc<Replicas>, PartitionHandle) {
        let replicas = open(&SimDisk::default(), &["/a"]);
        let name = TopicPartition::new("t", 0);
        let config = Arc::new(TopicConfig::resolve(&Config::default(), &[].into()));
        let topic_id = uuid::Uuid::from_u128(7);
        replicas.create(&PartitionSpec { name: name.clone(), topic_id, state: led(0), config });
        let partition = replicas.partition(&name).expect("made");
        (replicas, partition)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_role_is_taken_before_anything_else_once_a_busy_disk_lets_go() {
        let (_replicas, partition) = alone();
        let (tell, told) = mpsc::channel();
        let busy = partition.lock();
        // Nobody waits here, but who asks without the lock learns that another epoch has begun.
        partition.take_state_then(&led(4), move || tell.send(()).expect("somebody listens"));
        assert_eq!((partition.leading_epoch(), partition.is_leader()), (-1, false));
        assert!(partition.try_lock().is_none() && partition.is_online());
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        drop(busy);
        let epoch = partition.lock().replica.leader_epoch;
        assert_eq!((epoch, partition.leading_epoch()), (4, 4));
        told.recv_timeout(Duration::from_secs(20)).expect("told");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_roles_the_newer_one_is_taken_in_whatever_order_they_come() {
        let (_replicas, partition) = alone();
        let busy = partition.lock();
        partition.take_state(&led(5));
        partition.take_state(&led(4));
        drop(busy);
        assert_eq!(partition.lock().replica.leader_epoch, 5);
        assert_eq!(partition.leading_epoch(), 5);
    }
}
