//! Reading groups back from the log.
//!
//! Invariants: the groups after a load are those that the records below the high watermark make; a shard answers
//! "loading" until all of it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::group::{Commit, Group};
use super::groups::{Cell, Groups, Shard};
use super::records::GroupRecord;
use crate::model::{OFFSETS_TOPIC, Offset, TopicPartition};
use crate::record::{Records, next_batch};
use crate::replication::{PartitionError, ReadRules};
use crate::system::Patient;
use crate::system::clock::{monotonic, sleep};
use crate::system::tasks::{blocking, is_interrupted, run_errand};

const READ_BYTES: usize = 1 << 20;
/// How long whoever makes the topic waits for its groups.
const LOAD_WAIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(5);
const FAILED_RETRY: Duration = Duration::from_secs(1);
/// Batches here are the broker's own; this only bounds what a damaged one could claim.
const PLAIN_BYTES_MAX: usize = 256 << 20;

impl Shard {
    fn forget(&self) {
        self.is_over.store(true, Ordering::Release);
        // Whoever waits in a group here is told by its end.
        self.groups.lock().clear();
    }
}

impl Groups {
    /// A partition of the groups' topic has another leader, or another epoch: what this broker leads now is loaded,
    /// what it leads no more is forgotten.
    pub(crate) fn role_changed(self: &Arc<Self>, name: &TopicPartition) {
        if &*name.topic != OFFSETS_TOPIC {
            return;
        }
        let Some(shard) = self.change_shard(name) else { return };
        let groups = Arc::clone(self);
        run_errand("group loading", async move { groups.load(shard).await });
    }

    /// Forgets all groups, as if others led them now: members that wait for one another are told to look for their coordinator.
    pub(crate) fn forget(&self) {
        for shard in std::mem::take(&mut *self.shards.write()).into_values() {
            shard.forget();
        }
    }

    /// The shard that has to be loaded, if there is one.
    fn change_shard(&self, name: &TopicPartition) -> Option<Arc<Shard>> {
        let partition = self.replicas.partition(name);
        let leading = partition.as_ref().map_or(-1, |partition| partition.leading_epoch());
        let mut shards = self.shards.write();
        if shards.get(&name.partition).is_some_and(|shard| shard.leader_epoch == leading) {
            return None;
        }
        if let Some(old) = shards.remove(&name.partition) {
            old.forget();
        }
        let partition = partition.filter(|_| leading >= 0)?;
        let shard = Arc::new(Shard {
            partition,
            leader_epoch: leading,
            groups: Mutex::default(),
            is_loaded: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        shards.insert(name.partition, Arc::clone(&shard));
        Some(shard)
    }

    /// Begins to load what this broker leads. Nobody waits for it: it may need followers, and they this broker's listener.
    pub(crate) fn begin_loading(self: &Arc<Self>) {
        let Some(topic) = self.replicas.topic(OFFSETS_TOPIC) else { return };
        topic.partitions().iter().for_each(|partition| self.role_changed(&partition.name));
    }

    /// Loads what this broker leads and waits for it.
    pub(crate) async fn load_all(self: &Arc<Self>) {
        let Some(topic) = self.replicas.topic(OFFSETS_TOPIC) else { return };
        for partition in topic.partitions() {
            if let Some(shard) = self.change_shard(&partition.name) {
                self.load(shard).await;
            }
        }
        let wait = monotonic() + LOAD_WAIT;
        while !self.is_ready() && monotonic() < wait {
            sleep(RETRY).await;
        }
    }

    /// Loads a shard; again and again, until it is loaded or somebody else's.
    async fn load(self: &Arc<Self>, shard: Arc<Shard>) {
        let mut failures = 0;
        while !shard.is_over.load(Ordering::Acquire) {
            let (groups, loading) = (Arc::clone(self), Arc::clone(&shard));
            match blocking(move || groups.load_shard(&loading)).await {
                Some(Ok(())) => return shard.is_loaded.store(true, Ordering::Release),
                // A new leader first learns what is committed; one whose lease is over may get it back.
                Some(Err(PartitionError::Unsettled | PartitionError::NotLeader { .. })) => {
                    sleep(RETRY).await;
                }
                Some(Err(error)) => {
                    failures += 1;
                    shard.has_failed.store(true, Ordering::Release);
                    if failures == 1 {
                        tracing::error!(partition = %shard.partition.name, %error, "groups not loaded: they stay unavailable");
                    }
                    sleep(FAILED_RETRY).await;
                }
                None => return,
            }
        }
    }

    fn load_shard(self: &Arc<Self>, shard: &Arc<Shard>) -> Result<(), PartitionError> {
        shard.groups.lock().clear();
        let (mut offset, ..) = shard.partition.bounds(shard.leader_epoch)?;
        let rules = ReadRules::leader(shard.leader_epoch);
        while let Some(slice) = shard.partition.read(offset, READ_BYTES, true, rules)?.slice {
            let bytes = slice.read().map_err(|_| PartitionError::Offline)?;
            let mut rest = bytes.as_slice();
            let before = offset;
            while let Some((header, batch, after)) = next_batch(rest) {
                rest = after;
                offset = header.last_offset() + 1;
                let records = Records::open(header, batch, PLAIN_BYTES_MAX)
                    .map_err(|_| PartitionError::Offline)?;
                for record in &records {
                    let record = record.map_err(|_| PartitionError::Offline)?;
                    self.replay(shard, record.offset, record.key.unwrap_or_default(), record.value);
                }
            }
            if offset == before || is_interrupted() {
                return Err(PartitionError::Offline);
            }
        }
        self.start_loaded(shard);
        Ok(())
    }

    /// Takes one record in.
    pub(super) fn replay(
        &self,
        shard: &Arc<Shard>,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
    ) {
        let Some(record) = GroupRecord::decode(key, value) else {
            tracing::warn!(partition = %shard.partition.name, offset, "record of an unknown kind skipped");
            return;
        };
        let mut groups = shard.groups.lock();
        let mut cell = |id: &str| {
            let new = || {
                let group = Patient::new(Group::new(id, self.clock.now_ms()));
                Arc::new(Cell { shard: Arc::clone(shard), group })
            };
            Arc::clone(groups.entry(id.to_owned()).or_insert_with(new))
        };
        match record {
            GroupRecord::Offset { group, topic, partition, value } => {
                let cell = cell(&group);
                let mut group = cell.group.lock();
                match value {
                    Some(committed) => {
                        let commit = Commit { committed, record_offset: offset, _kept: None };
                        drop(group.offsets.insert((topic, partition), commit));
                    }
                    None => drop(group.offsets.remove(&(topic, partition))),
                }
            }
            GroupRecord::Group { group, value: Some(stored) } => {
                cell(&group).group.lock().restore(stored, self.replicas.awake().now_ms());
            }
            GroupRecord::Group { group, value: None } => {
                let cell = cell(&group);
                let mut group = cell.group.lock();
                let offsets = std::mem::take(&mut group.offsets);
                *group = Group::new(&group.id, self.clock.now_ms());
                group.offsets = offsets;
            }
        }
    }

    /// Drops groups of which nothing is left, and gives the members of the others their full session from now.
    fn start_loaded(self: &Arc<Self>, shard: &Arc<Shard>) {
        let cells: Vec<Arc<Cell>> = {
            let mut groups = shard.groups.lock();
            groups.retain(|_, cell| {
                let group = cell.group.lock();
                !(group.is_forgettable() && group.generation == 0)
            });
            groups.values().cloned().collect()
        };
        for cell in cells {
            let _ = self.step(&cell, |group, now_ms| {
                for member in group.members.values_mut() {
                    member.heard(now_ms);
                }
                group.wake_at_ms = group.members.values().map(|member| member.deadline_ms).min();
            });
        }
    }
}
