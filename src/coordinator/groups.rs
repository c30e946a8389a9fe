//! All groups of this broker: finds them, runs their steps, writes what they want written.
//!
//! Invariants: a group's records are appended under its lock, so their order is that of its steps; offsets are
//! visible only when their records are below the high watermark; locks of two groups are never held at once; a broker whose
//! lease is over answers for no group.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;

use super::error::GroupError;
use super::group::{Group, GroupState, Joined, Rules, Synced, ToStore};
use super::member::{JoinRequest, SyncRequest};
use super::records::GroupRecord;
use super::timers::Timers;
use crate::controller::{Controller, ControllerError, NewTopic};
use crate::model::number::{to_i32, to_usize};
use crate::model::{BrokerId, LeaderEpoch, OFFSETS_TOPIC, Offset, PartitionId, TopicPartition};
use crate::record::BatchBuilder;
use crate::replication::{
    AckWaiter, AppendRequest, Appending, PartitionError, PartitionHandle, Replicas, follow_move,
};
use crate::system::clock::monotonic;
use crate::system::tasks::spawn;
use crate::system::{Clock, Grant, Patient, Random};

/// How long a record waits for the last step of a move of its partition between directories.
const MOVE_WAIT: Duration = Duration::from_mins(1);

/// Settings of groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupSettings {
    pub initial_delay_ms: i64,
    pub session_timeout_ms: (i32, i32),
    pub size_max: usize,
    pub metadata_bytes_max: usize,
    pub retention_ms: i64,
    pub retention_check_ms: i64,
    pub topic_partitions: i32,
    pub topic_segment_bytes: i64,
}

/// Offsets to commit.
#[derive(Debug, Default)]
pub(crate) struct CommitRequest {
    pub group: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    /// How long they are kept, whatever the broker's time is (OffsetCommit 2 to 4).
    pub retention_ms: Option<i64>,
    /// Topic, partition, offset, leader epoch, metadata.
    pub offsets: Vec<(String, i32, Offset, i32, String)>,
    /// Of what they take in memory (`commit_bytes`); `None`: it is not counted.
    pub kept: Option<Grant>,
}

/// What a commit takes in memory: a topic's name twice, a note, and the places where they are.
pub(crate) fn commit_bytes(topic: &str, metadata: &str) -> usize {
    256 + 2 * topic.len() + metadata.len()
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedGroup {
    pub id: String,
    pub protocol_type: String,
    pub state: GroupState,
}

/// A group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedGroup {
    pub state: GroupState,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

/// A member in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: bytes::Bytes,
    pub assignment: bytes::Bytes,
}

/// A group and where it is kept.
#[derive(Debug)]
pub(super) struct Cell {
    pub shard: Arc<Shard>,
    pub group: Patient<Group>,
}

/// The groups of one partition of the topic, while this broker leads it in one epoch.
#[derive(Debug)]
pub(super) struct Shard {
    pub partition: PartitionHandle,
    pub leader_epoch: LeaderEpoch,
    pub groups: Mutex<HashMap<String, Arc<Cell>>>,
    pub is_loaded: AtomicBool,
    /// It could not be read, and the log says so.
    pub has_failed: AtomicBool,
    /// Another broker, or another epoch, has the groups now.
    pub is_over: AtomicBool,
}

impl Shard {
    /// Whether this broker may still believe that it keeps these groups.
    pub(super) fn is_current(&self) -> bool {
        self.partition.leading_epoch() == self.leader_epoch && self.partition.is_leader()
    }
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(super) settings: GroupSettings,
    pub(super) replicas: Arc<Replicas>,
    controller: Arc<Controller>,
    pub(super) clock: Clock,
    random: Random,
    /// By partition; those that this broker leads.
    pub(super) shards: RwLock<BTreeMap<PartitionId, Arc<Shard>>>,
    pub(super) timers: Timers,
}

impl Groups {
    pub(crate) fn new(
        settings: GroupSettings,
        replicas: Arc<Replicas>,
        controller: Arc<Controller>,
        clock: Clock,
        random: Random,
    ) -> Arc<Self> {
        let timers = Timers::default();
        Arc::new(Self {
            settings,
            replicas,
            controller,
            clock,
            random,
            shards: RwLock::default(),
            timers,
        })
    }

    /// Whether every group that this broker keeps can be asked.
    pub(crate) fn is_ready(&self) -> bool {
        self.shards.read().values().all(|shard| shard.is_loaded.load(Ordering::Acquire))
    }

    /// Whether the topic was never made, so that there can be no group.
    pub(crate) fn is_new(&self) -> bool {
        self.controller.image().topic(OFFSETS_TOPIC).is_none()
    }

    /// Whether what this broker knows may be told as what is.
    pub(crate) fn may_answer(&self) -> bool {
        self.replicas.lease().is_held()
    }

    /// Whether a group is still kept here: asked after waiting, before an answer.
    pub(crate) fn still_keeps(&self, group: &str) -> Result<(), GroupError> {
        self.find(group, false).map(drop)
    }

    /// Makes the topic if it is missing, and waits until what this broker leads of it is loaded.
    pub(crate) async fn prepare(self: &Arc<Self>) {
        match self.controller.create_topic(&self.offsets_topic(), false).await {
            Ok(_) | Err(ControllerError::TopicExists(_)) => self.load_all().await,
            Err(error) => tracing::error!(%error, "{OFFSETS_TOPIC} can't be made"),
        }
    }

    /// Who keeps a group: the leader of its partition; `None` while there is none.
    pub(crate) fn coordinator_of(&self, group: &str) -> Option<BrokerId> {
        let image = self.controller.image();
        let topic = image.topic(OFFSETS_TOPIC)?;
        let partition = topic.partitions.get(partition_of(group, topic.partitions.len()))?;
        let is_known = partition.leader != self.controller.node_id || self.may_answer();
        (partition.leader >= 0 && is_known).then_some(partition.leader)
    }

    /// How the topic is made.
    pub(crate) fn offsets_topic(&self) -> NewTopic {
        let config = |name: &str, value: String| (name.to_owned(), Some(value));
        NewTopic {
            name: OFFSETS_TOPIC.to_owned(),
            partitions: self.settings.topic_partitions,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: [
                config("cleanup.policy", "compact".to_owned()),
                config("compression.type", "producer".to_owned()),
                config("segment.bytes", self.settings.topic_segment_bytes.max(1 << 20).to_string()),
            ]
            .into(),
        }
    }

    pub(crate) fn join(
        self: &Arc<Self>,
        request: &JoinRequest,
    ) -> Result<oneshot::Receiver<Joined>, GroupError> {
        // As Apache Kafka asks: first whether there is a group, then what of it.
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let (low, high) = self.settings.session_timeout_ms;
        if !(low..=high).contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        // A group is made by its first member, not by one that believes to be in it.
        let may_make = request.member_id.is_empty();
        let (sender, receiver) = oneshot::channel();
        let prefix = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let new_id = format!("{prefix}-{}", self.random.uuid());
        let rules = Rules {
            initial_delay_ms: self.settings.initial_delay_ms,
            size_max: self.settings.size_max,
        };
        let cell = self.find(&request.group, may_make)?.ok_or(GroupError::UnknownMember)?;
        self.step(&cell, |group, now_ms| group.join(now_ms, rules, request, new_id, sender))?;
        Ok(receiver)
    }

    pub(crate) fn sync(
        self: &Arc<Self>,
        request: &SyncRequest,
    ) -> Result<oneshot::Receiver<Result<Synced, GroupError>>, GroupError> {
        let (sender, receiver) = oneshot::channel();
        let cell = self.find(&request.group, false)?.ok_or(GroupError::UnknownMember)?;
        self.step(&cell, |group, now_ms| group.sync(now_ms, request, sender))?;
        Ok(receiver)
    }

    pub(crate) fn heartbeat(
        self: &Arc<Self>,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let cell = self.find(group, false)?.ok_or(GroupError::UnknownMember)?;
        self.step(&cell, |group, now_ms| {
            group.heartbeat(now_ms, member_id, instance_id, generation)
        })?
    }

    pub(crate) fn leave(
        self: &Arc<Self>,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        let cell = self.find(group, false)?.ok_or(GroupError::UnknownMember)?;
        self.step(&cell, |group, now_ms| group.leave(now_ms, member_id, instance_id))?
    }

    /// Every group.
    pub(crate) fn list(&self) -> Result<Vec<ListedGroup>, GroupError> {
        if !self.may_answer() {
            return Err(GroupError::Unavailable);
        }
        let is_loading = |shard: &Shard| {
            let is_done = shard.is_loaded.load(Ordering::Acquire);
            shard.is_current() && !is_done && !shard.has_failed.load(Ordering::Acquire)
        };
        if self.shards.read().values().any(|shard| is_loading(shard)) {
            return Err(GroupError::Loading);
        }
        let mut listed = Vec::new();
        for cell in self.cells() {
            let group = cell.group.lock();
            if group.state != GroupState::Dead && !(group.is_forgettable() && group.generation == 0)
            {
                let protocol_type = group.protocol_type.clone().unwrap_or_default();
                listed.push(ListedGroup {
                    id: group.id.clone(),
                    protocol_type,
                    state: group.state,
                });
            }
        }
        listed.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(listed)
    }

    /// A group in detail; `None` if there is none.
    pub(crate) fn describe(&self, id: &str) -> Result<Option<DescribedGroup>, GroupError> {
        let Some(cell) = self.find(id, false)? else { return Ok(None) };
        let group = cell.group.lock();
        // Kafka shows bytes of members only of a generation that is complete.
        let protocol = match group.state {
            GroupState::Stable => group.protocol.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let member = |m: &&super::member::Member| DescribedMember {
            id: m.id.clone(),
            instance_id: m.instance_id.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: m.metadata(&protocol),
            assignment: m.assignment.clone(),
        };
        Ok(Some(DescribedGroup {
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            members: group.in_order().iter().map(member).collect(),
            protocol,
        }))
    }

    /// Every group's committed offsets: group, topic, partition, offset.
    pub(crate) fn committed(&self) -> Vec<(String, String, i32, Offset)> {
        let mut all = Vec::new();
        for cell in self.cells() {
            let group = cell.group.lock();
            all.extend(group.offsets.iter().map(|((topic, partition), commit)| {
                (group.id.clone(), topic.clone(), *partition, commit.committed.offset)
            }));
        }
        all
    }

    /// Every group and how many members it has.
    pub(crate) fn sizes(&self) -> Vec<(String, usize)> {
        let size = |cell: &Arc<Cell>| {
            let group = cell.group.lock();
            (group.id.clone(), group.members.len())
        };
        self.cells().iter().map(size).collect()
    }

    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        let shards: Vec<Arc<Shard>> = self.shards.read().values().cloned().collect();
        shards
            .iter()
            .filter(|shard| shard.is_current())
            .flat_map(|shard| shard.groups.lock().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// The group's cell; made if it is missing and `may_make`.
    pub(super) fn find(&self, id: &str, may_make: bool) -> Result<Option<Arc<Cell>>, GroupError> {
        if id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let count = self.controller.image().topic(OFFSETS_TOPIC).map(|t| t.partitions.len());
        let index = to_i32(partition_of(id, count.ok_or(GroupError::Unavailable)?));
        let shard = self.shards.read().get(&index).cloned().ok_or(GroupError::NotCoordinator)?;
        if !shard.is_current() {
            return Err(GroupError::NotCoordinator);
        }
        if !shard.is_loaded.load(Ordering::Acquire) {
            return Err(GroupError::Loading);
        }
        if !shard.partition.is_online() {
            return Err(GroupError::Unavailable);
        }
        let mut groups = shard.groups.lock();
        if let Some(cell) = groups.get(id) {
            return Ok(Some(Arc::clone(cell)));
        }
        if !may_make {
            return Ok(None);
        }
        let group = Patient::new(Group::new(id, self.clock.now_ms()));
        let cell = Arc::new(Cell { shard: Arc::clone(&shard), group });
        groups.insert(id.to_owned(), Arc::clone(&cell));
        Ok(Some(cell))
    }

    /// Runs one step of a group and carries out what it asks for.
    pub(super) fn step<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        step: impl FnOnce(&mut Group, i64) -> T,
    ) -> Result<T, GroupError> {
        let mut group = cell.group.lock();
        if cell.shard.is_over.load(Ordering::Acquire) {
            return Err(GroupError::NotCoordinator);
        }
        if group.state == GroupState::Dead {
            // Deleted a moment ago: the client looks again.
            return Err(GroupError::Unavailable);
        }
        let before = group.state;
        let result = step(&mut group, self.replicas.awake().now_ms());
        self.follow_up(cell, group, before);
        Ok(result)
    }

    /// After a step: stamps a new state, writes the generation, sets the timer.
    fn follow_up(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        mut group: MutexGuard<'_, Group>,
        before: GroupState,
    ) {
        if group.state != before {
            tracing::debug!(
                group = group.id,
                from = before.name(),
                to = group.state.name(),
                generation = group.generation,
                "group"
            );
            group.state_since_ms = self.clock.now_ms();
        }
        if let Some(to_store) = group.to_store.take() {
            let record =
                GroupRecord::Group { group: group.id.clone(), value: Some(group.stored()) };
            let written = self.write(cell, &[record]);
            if let ToStore::Generation(generation) = to_store {
                self.tell_when_stored(cell, generation, written);
            }
        }
        if let Some(at_ms) = group.wake_at_ms.take()
            && group.timer_ms.is_none_or(|timer| at_ms < timer)
        {
            group.timer_ms = Some(at_ms);
            self.timers.set(at_ms, cell);
        }
    }

    fn tell_when_stored(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        generation: i32,
        written: Result<Written, GroupError>,
    ) {
        let (groups, cell) = (Arc::clone(self), Arc::clone(cell));
        spawn(async move {
            let is_stored = match written {
                Ok(written) => written.is_durable().await,
                Err(_) => false,
            };
            let _ = groups.step(&cell, |group, now_ms| {
                group.generation_stored(now_ms, generation, is_stored);
            });
        });
    }

    /// Appends records of one group as one batch; the caller holds the group's lock.
    pub(super) fn write(
        &self,
        cell: &Cell,
        records: &[GroupRecord],
    ) -> Result<Written, GroupError> {
        let now_ms = self.clock.now_ms();
        let mut builder = BatchBuilder::new();
        for record in records {
            let (key, value) = record.encode();
            builder = builder.record(now_ms, Some(&key), value.as_deref());
        }
        let batch = builder.build();
        let waiter = AckWaiter::new();
        let request = AppendRequest {
            batch: &batch,
            now_ms,
            waiter: Some(&waiter),
            // What was decided in an older epoch must not be written in a newer one.
            internal_epoch: Some(cell.shard.leader_epoch),
        };
        match cell.shard.partition.append(&request) {
            Ok(done) => {
                let partition = Arc::clone(&cell.shard.partition);
                Ok(Written { base_offset: done.base_offset, done, partition, waiter })
            }
            Err(PartitionError::NotLeader { .. }) => Err(GroupError::NotCoordinator),
            Err(error) => {
                log_failure(&cell.shard.partition.name, &error);
                Err(GroupError::Unavailable)
            }
        }
    }
}

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Written {
    pub base_offset: Offset,
    done: Appending,
    partition: PartitionHandle,
    waiter: Arc<AckWaiter>,
}

impl Written {
    /// Waits until the records are below the high watermark; `false` if they will not be.
    pub(super) async fn is_durable(&self) -> bool {
        self.waiter.wait().await;
        let until = monotonic() + MOVE_WAIT;
        follow_move(Arc::clone(&self.partition), &self.done, until).await.is_committed(&self.done)
    }
}

fn log_failure(partition: &TopicPartition, error: &PartitionError) {
    // What passes by itself, or shows in the number of partitions below their minimum, is the client's to try again.
    let passes = matches!(
        error,
        PartitionError::NotEnoughReplicas
            | PartitionError::NotEnoughReplicasAfterAppend
            | PartitionError::Moving
            | PartitionError::NotLeader { .. }
    );
    if passes {
        tracing::debug!(%partition, %error, "group record not written");
    } else {
        tracing::error!(%partition, %error, "group record not written");
    }
}

/// Which partition keeps a group: Java's `String.hashCode`, as Kafka does.
pub(super) fn partition_of(group: &str, partitions: usize) -> usize {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    to_usize(hash & i32::MAX) % partitions.max(1)
}
