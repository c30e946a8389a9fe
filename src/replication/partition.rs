//! One partition on this broker: the lock, the log, the replica; carries effects out.
//!
//! Invariants: the log is only touched under the lock; the published high watermark is the replica's; a batch is
//! appended by the leader of the epoch that it is stamped with, and acknowledged by the leader of the same epoch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::checking::{AppendRules, Checked, check};
use super::error::PartitionError;
use super::lease::Lease;
use super::log_directory::LogDirectory;
use super::proposals::Proposals;
use super::replica::{Effects, Replica};
use super::roles::{Flags, Told};
use super::waiting::{AckWaiter, Waiting};
use crate::config::TopicConfig;
use crate::log::{AppendError, Appended, Log, NewBatch, Position, SequenceError, Stamp};
use crate::model::number::{to_u64, to_usize};
use crate::model::{BrokerId, LeaderEpoch, Offset, Timestamp, TopicId, TopicPartition};
use crate::remote_log::{Manifest, RemotePartition, Tier};
use crate::system::{Awake, Patient};

pub(crate) type PartitionHandle = Arc<Partition>;

/// Ends of appends that are remembered until the high watermark passes them.
const MARKS_MAX: usize = 4_096;

/// What the partitions of a broker share.
#[derive(Debug)]
pub(crate) struct Local {
    pub node_id: BrokerId,
    /// Partitions whose logs could not be opened, or cut, for want of descriptors, memory or room: they are to be opened again.
    pub unopened: Mutex<BTreeSet<TopicPartition>>,
    pub lease: Arc<Lease>,
    pub proposals: Arc<Proposals>,
    /// What others' silence is measured by.
    pub awake: Arc<Awake>,
    /// Committed records that unclean elections took back here.
    pub discarded: AtomicU64,
    /// Reads of records that came up short or failed.
    pub unread: AtomicU64,
    /// Object storage, where there is some.
    pub tier: OnceLock<Arc<Tier>>,
    /// That of other clusters, by its URL.
    pub mounts: OnceLock<BTreeMap<String, Arc<Tier>>>,
    /// Told when this broker leads another mounted partition.
    pub mount_wanted: Notify,
    /// Told when a deleted topic left something there.
    pub topic_deleted: Notify,
    /// Told when this broker leads another tiered partition.
    pub tier_wanted: Notify,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Partition {
    pub name: TopicPartition,
    pub directory: Arc<LogDirectory>,
    pub(super) local: Arc<Local>,
    /// Its segments in object storage, where there is some.
    pub(super) remote: Option<Arc<RemotePartition>>,
    /// What is checked of batches, for whoever asks before they are.
    pub(super) rules: RwLock<Option<AppendRules>>,
    high_watermark: AtomicI64,
    /// The leader epoch, where this replica leads; -1 where it does not.
    pub(super) leading: AtomicI32,
    /// Locked by `roles.rs` only.
    pub(super) state: Patient<State>,
    pub(super) told: Told,
    /// The end of the log when its newest file was last seen in its place.
    pub(super) looked_to: AtomicI64,
    /// The partition that took this one's place when its log was moved to another directory.
    pub(super) successor: OnceLock<PartitionHandle>,
    flags: Arc<Flags>,
}

#[derive(Debug)]
pub(super) struct State {
    /// `None` when the partition could not be opened, failed, or is deleted.
    pub log: Option<Log>,
    pub replica: Replica,
    /// Where readers of what is committed stop.
    pub hw_position: Position,
    /// Ends of appends past the high watermark, in order.
    marks: VecDeque<Position>,
    pub waiting: Waiting,
    /// Whether the partition stands in its directory's queue of logs to flush.
    pub flush_queued: bool,
    /// When the oldest unflushed record was appended, for `flush.ms`.
    pub unflushed_since_ms: Option<Timestamp>,
    pub flushed_records_to: Offset,
    /// Whether there is object storage.
    pub has_bucket: bool,
    /// What this leader knows to be in object storage.
    pub remote: Option<Arc<Manifest>>,
    /// Whether the log is about to begin anew: nothing is appended meanwhile.
    pub is_beginning: bool,
    /// Whether it is known that nothing is there, where the topic is tiered no more.
    pub has_left: bool,
    /// When it looks for orphans there.
    pub next_sweep_ms: Option<Timestamp>,
    flags: Arc<Flags>,
}

/// A produced batch.
#[derive(Debug)]
pub(crate) struct AppendRequest<'a> {
    pub batch: &'a [u8],
    pub now_ms: Timestamp,
    /// Whoever waits for `acks=all`; `None` for the other acks.
    pub waiter: Option<&'a Arc<AckWaiter>>,
    /// From the broker itself (coordinators), decided in this leader epoch: void in another.
    pub internal_epoch: Option<LeaderEpoch>,
}

/// What became of a produced batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appending {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// What the response says: the broker's stamp, or the first copy's time; -1 else.
    pub append_time_ms: Timestamp,
    pub log_start: Offset,
    pub leader_epoch: LeaderEpoch,
}

impl Partition {
    pub(super) fn new(
        (name, topic_id): (TopicPartition, TopicId),
        directory: Arc<LogDirectory>,
        local: Arc<Local>,
        log: Option<Log>,
        high_watermark: Offset,
    ) -> Self {
        let end = log.as_ref().map(Log::end).unwrap_or_default();
        let settings = log.as_ref().map_or((false, 1), |log| replica_settings(log.config()));
        let rules = RwLock::new(log.as_ref().map(|log| log.config().clone_rules()));
        let log_start = log.as_ref().map_or(0, Log::log_start);
        let remote = local.remote((&name, topic_id), log.as_ref().map(Log::config)).map(Arc::new);
        let replica = Replica::new(end.offset, high_watermark.max(log_start), settings);
        let high_watermark = replica.high_watermark();
        let flags = Arc::new(Flags::default());
        flags.is_offline.store(log.is_none(), Ordering::Release);
        let mut state = State {
            log,
            replica,
            hw_position: Position::default(),
            marks: VecDeque::new(),
            waiting: Waiting::default(),
            flush_queued: false,
            unflushed_since_ms: None,
            flushed_records_to: end.offset,
            has_bucket: remote.is_some(),
            remote: None,
            is_beginning: false,
            has_left: false,
            next_sweep_ms: None,
            flags: Arc::clone(&flags),
        };
        state.mark(end);
        state.place_high_watermark();
        Self {
            name,
            directory,
            local,
            remote,
            rules,
            high_watermark: AtomicI64::new(high_watermark),
            leading: AtomicI32::new(-1),
            state: Patient::new(state),
            told: Told::default(),
            looked_to: AtomicI64::new(-1),
            successor: OnceLock::new(),
            flags,
        }
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// The epoch in which this broker leads; -1 where it does not.
    pub(crate) fn leading_epoch(&self) -> LeaderEpoch {
        self.leading.load(Ordering::Acquire)
    }

    /// Whether this broker leads the partition, and may still believe so.
    pub(crate) fn is_leader(&self) -> bool {
        self.leading.load(Ordering::Acquire) >= 0 && self.local.lease.is_held()
    }

    /// Whether what was appended is acknowledged by the leader that appended it.
    pub(crate) fn is_committed(&self, appended: &Appending) -> bool {
        // In this order: the epoch that is still the same was the one of the high watermark before.
        self.high_watermark() > appended.last_offset
            && self.leading.load(Ordering::Acquire) == appended.leader_epoch
            && self.local.lease.is_held()
    }

    /// Why an append that was waited for is not acknowledged; `None` if it only takes too long.
    pub(crate) fn why_uncommitted(&self, appended: &Appending) -> Option<PartitionError> {
        let state = self.lock();
        if state.log.is_none() {
            return Some(state.missing());
        }
        let same = state.replica.is_leader() && state.replica.leader_epoch == appended.leader_epoch;
        if !same || !self.local.lease.is_held() {
            return Some(state.not_leader());
        }
        (!state.replica.has_enough_in_sync())
            .then_some(PartitionError::NotEnoughReplicasAfterAppend)
    }

    pub(crate) fn is_online(&self) -> bool {
        !self.flags.is_offline.load(Ordering::Acquire)
    }

    /// Whether the log was moved to another directory: the partition goes on as another one.
    pub(crate) fn has_moved(&self) -> bool {
        self.flags.is_moved.load(Ordering::Acquire)
    }

    /// The move has failed after the log was taken out: it is offline.
    pub(super) fn stay_offline(&self) {
        self.flags.is_deleted.store(false, Ordering::Release);
        self.flags.is_moved.store(false, Ordering::Release);
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.flags.is_deleted.load(Ordering::Acquire)
    }

    /// Checks and appends a batch. Its acknowledgement may leave at once, or when the waiter has passed.
    pub(crate) fn append(
        self: &Arc<Self>,
        request: &AppendRequest<'_>,
    ) -> Result<Appending, PartitionError> {
        let outcome = self.append_all(std::slice::from_ref(request)).pop();
        outcome.unwrap_or(Err(PartitionError::Offline))
    }

    /// Checks and appends batches in their order; one outcome each.
    pub(crate) fn append_all(
        self: &Arc<Self>,
        requests: &[AppendRequest<'_>],
    ) -> Vec<Result<Appending, PartitionError>> {
        let state = self.lock();
        let (config, has_enough) = match state.log_to_lead() {
            Ok(log) => (log.config().clone_rules(), state.replica.has_enough_in_sync()),
            Err(_) => return requests.iter().map(|_| Err(state.cannot_lead())).collect(),
        };
        drop(state);
        // Checksums and record checks need no lock: other batches may be appended meanwhile.
        let is_full = self.directory.is_full();
        let checked: Vec<Result<Checked, PartitionError>> = requests
            .iter()
            .map(|request| match check(request, &config) {
                Ok(_) if request.waiter.is_some() && !has_enough => {
                    Err(PartitionError::NotEnoughReplicas)
                }
                Ok(_) if is_full && request.internal_epoch.is_none() => Err(PartitionError::NoRoom),
                checked => checked,
            })
            .collect();
        let batches: SmallVec<[NewBatch<'_>; 2]> = requests
            .iter()
            .zip(&checked)
            .filter_map(|(request, checked)| {
                let Checked { header, rewritten, .. } = checked.as_ref().ok()?;
                let bytes = rewritten.as_deref().unwrap_or(request.batch);
                Some(NewBatch { header: *header, bytes })
            })
            .collect();
        let now_ms = requests.first().map_or(0, |request| request.now_ms);
        let mut state = self.lock();
        let state = &mut *state;
        let epoch = requests.first().and_then(|request| request.internal_epoch);
        let is_void = epoch.is_some_and(|epoch| epoch != state.replica.leader_epoch);
        let mut appended = if is_void {
            batches.iter().map(|_| Err(state.not_leader())).collect()
        } else {
            self.append_checked(state, &batches, now_ms)
        }
        .into_iter();
        drop(batches);
        let log_start = state.start().unwrap_or(-1);
        let leader_epoch = state.replica.leader_epoch;
        let settle = |(request, checked): (&AppendRequest<'_>, Result<Checked, _>)| {
            let Checked { append_time_ms, .. } = checked?;
            let (base_offset, last_offset, append_time_ms) =
                match appended.next().unwrap_or(Err(PartitionError::Offline))? {
                    Appended::New { base_offset, last_offset } => {
                        (base_offset, last_offset, append_time_ms)
                    }
                    Appended::Copy { base_offset, last_offset, timestamp } => {
                        (base_offset, last_offset, timestamp)
                    }
                };
            if let Some(waiter) = request.waiter
                && last_offset >= state.replica.high_watermark()
            {
                state.waiting.add_ack(last_offset + 1, waiter);
            }
            Ok(Appending { base_offset, last_offset, append_time_ms, log_start, leader_epoch })
        };
        requests.iter().zip(checked).map(settle).collect()
    }

    /// Appends to the log and carries out what follows from it.
    fn append_checked(
        self: &Arc<Self>,
        state: &mut State,
        batches: &[NewBatch<'_>],
        now_ms: Timestamp,
    ) -> Vec<Result<Appended, PartitionError>> {
        let stamp = Stamp { leader_epoch: state.replica.leader_epoch, now_ms };
        let mut outcomes = Vec::with_capacity(batches.len());
        if batches.is_empty() {
            return Vec::new();
        }
        if state.log_to_lead().is_err() || !self.local.lease.is_held() {
            return batches.iter().map(|_| Err(state.cannot_lead())).collect();
        }
        let Some(log) = state.log.as_mut() else { return Vec::new() };
        let unflushed = log.unflushed_bytes();
        let result = self.directory.write(|| log.append_all(batches, stamp, &mut outcomes));
        let end = log.end();
        self.directory.add_unflushed(log.unflushed_bytes() - unflushed);
        let committed = state.replica.high_watermark();
        let refusal = |error| match error {
            // Producers take this for an acknowledgement, so it may be told only of what is committed.
            SequenceError::Stored { before, .. } if before > committed => {
                PartitionError::NotEnoughReplicasAfterAppend
            }
            error => PartitionError::Sequence(error),
        };
        let mut outcomes: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome.map_err(refusal)).collect();
        let mut is_short = false;
        match result {
            Ok(()) => {}
            Err(AppendError::NoRoom) => self.directory.set_full(true),
            Err(AppendError::Shortage(error)) => {
                self.directory.note_shortage(&error);
                is_short = true;
            }
            Err(AppendError::Disk(error)) => {
                self.directory.fail(&error, &self.name);
                state.fail();
                // What the same call wrote before is not known to be readable.
                return batches.iter().map(|_| Err(PartitionError::Offline)).collect();
            }
            Err(AppendError::Sequence(_)) => unreachable!("sequences are outcomes"),
        }
        let refused =
            || Err(if is_short { PartitionError::Shortage } else { PartitionError::NoRoom });
        outcomes.resize_with(batches.len(), refused);
        state.mark(end);
        let effects = state.replica.appended(end.offset);
        self.perform(state, effects);
        state.waiting.wake_followers();
        self.queue_flush_if_due(state, now_ms);
        outcomes
    }

    /// Takes on a changed topic configuration.
    pub(crate) fn configure(self: &Arc<Self>, config: Arc<TopicConfig>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(log) = state.log.as_mut() else { return };
        let settings = replica_settings(&config);
        *self.rules.write() = Some(config.clone_rules());
        log.set_config(config);
        let effects = state.replica.configure(settings);
        self.perform(state, effects);
        self.queue_flush(state);
    }

    /// Looks after the ISR (`replica.lag.time.max.ms`).
    pub(super) fn tick_isr(&self, state: &mut State, lag_max_ms: i64) {
        let effects = state.replica.tick(self.local.awake.now_ms(), lag_max_ms);
        self.perform(state, effects);
    }

    /// The controller refused a proposal for good.
    pub(crate) fn refused(&self, leader_epoch: LeaderEpoch, partition_epoch: i32) {
        self.lock().replica.refused(leader_epoch, partition_epoch);
    }

    /// Looks at the log under the lock; `None` if it is offline.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> Option<T> {
        self.lock().log.as_ref().map(look)
    }

    /// Takes the partition offline: whoever waits is told.
    pub(super) fn take_offline(&self) -> Option<Log> {
        let mut state = self.lock();
        state.waiting.fail();
        let log = state.take_log();
        self.directory.take_unflushed(log.as_ref().map_or(0, Log::unflushed_bytes));
        log
    }

    /// Takes the log out to delete it.
    pub(super) fn take_deleted(&self) -> Option<Log> {
        self.flags.is_deleted.store(true, Ordering::Release);
        self.take_offline()
    }

    pub(super) fn perform(&self, state: &mut State, effects: Effects) {
        if effects.high_watermark_moved {
            state.place_high_watermark();
            let to = state.replica.high_watermark();
            let before = self.high_watermark.swap(to, Ordering::AcqRel);
            assert!(
                before <= to,
                "high_watermark_monotone: that of {} moved back from {before} to {to}",
                self.name
            );
            state.waiting.advanced(to);
        }
        if effects.too_few_in_sync {
            state.waiting.fail_acks();
        }
        if let Some(proposal) = effects.propose {
            self.local.proposals.add(&self.name, proposal);
        }
    }

    /// The log of a follower was cut, or a leader's began: what is published follows.
    pub(super) fn cut(&self, state: &mut State) {
        let Some(log) = &state.log else { return };
        let (end, durable) = (log.end(), log.recovery_point());
        state.hw_position = Position::default();
        state.marks.clear();
        state.marks.push_back(end);
        state.flushed_records_to = state.flushed_records_to.min(end.offset);
        let discarded = if state.replica.is_leader() {
            state.replica.went_on(end.offset);
            0
        } else {
            state.replica.truncated(end.offset, durable)
        };
        if discarded > 0 {
            self.local.discarded.fetch_add(to_u64(discarded), Ordering::Relaxed);
            tracing::error!(partition = %self.name, to = end.offset, discarded, "the log was cut below its high watermark: an unclean election");
        }
        state.place_high_watermark();
        self.high_watermark.store(state.replica.high_watermark(), Ordering::Release);
    }
}

impl State {
    /// Remembers a place between two batches, for the high watermark to come.
    pub(super) fn mark(&mut self, at: Position) {
        if self.marks.back().is_none_or(|last| last.offset < at.offset) {
            self.marks.push_back(at);
            if self.marks.len() > MARKS_MAX {
                self.marks.pop_front();
            }
        }
    }

    /// Notes the place of the high watermark in the log, where an append or a flush ended there.
    pub(super) fn place_high_watermark(&mut self) {
        let to = self.replica.high_watermark();
        while let Some(mark) = self.marks.front().copied().filter(|mark| mark.offset <= to) {
            self.hw_position = mark;
            self.marks.pop_front();
        }
        if self.hw_position.offset != to {
            self.hw_position = Position::at(to);
        }
    }

    /// The log, where this replica leads.
    fn log_to_lead(&self) -> Result<&Log, PartitionError> {
        let log = self.log()?;
        if log.config().mount.is_some() {
            return Err(PartitionError::Mounted);
        }
        if self.is_beginning || self.awaits_restore() {
            return Err(PartitionError::Restoring);
        }
        let may_append = self.replica.is_leader() && !self.replica.is_handing_over();
        if may_append { Ok(log) } else { Err(self.not_leader()) }
    }

    fn cannot_lead(&self) -> PartitionError {
        self.log_to_lead().err().unwrap_or_else(|| self.not_leader())
    }

    pub(super) fn not_leader(&self) -> PartitionError {
        PartitionError::NotLeader {
            leader: self.replica.leader(),
            epoch: self.replica.leader_epoch,
        }
    }

    pub(super) fn log(&self) -> Result<&Log, PartitionError> {
        self.log.as_ref().ok_or_else(|| self.missing())
    }

    /// Why there is no log.
    fn missing(&self) -> PartitionError {
        if self.flags.is_moved.load(Ordering::Acquire) {
            PartitionError::Moving
        } else if self.flags.is_deleted.load(Ordering::Acquire) {
            PartitionError::Deleted
        } else {
            PartitionError::Offline
        }
    }

    pub(super) fn log_mut(&mut self) -> Result<&mut Log, PartitionError> {
        let missing = self.missing();
        self.log.as_mut().ok_or(missing)
    }

    /// Takes the log out for good: it goes on in another directory.
    pub(super) fn retire(&mut self) -> Option<Log> {
        self.flags.is_moved.store(true, Ordering::Release);
        self.flags.is_deleted.store(true, Ordering::Release);
        self.waiting.fail();
        self.take_log()
    }

    fn take_log(&mut self) -> Option<Log> {
        self.flags.is_offline.store(true, Ordering::Release);
        self.log.take()
    }

    pub(super) fn fail(&mut self) {
        drop(self.take_log());
        self.waiting.fail();
    }

    pub(super) fn check_epoch(&self, asked: LeaderEpoch) -> Result<(), PartitionError> {
        let current = self.replica.leader_epoch;
        match asked {
            -1 => Ok(()),
            asked if asked < current => Err(PartitionError::FencedEpoch { asked, current }),
            asked if asked > current => Err(PartitionError::UnknownEpoch { asked, current }),
            _ => Ok(()),
        }
    }
}

/// What a replica's state machine needs of its topic's configuration.
fn replica_settings(config: &TopicConfig) -> (bool, usize) {
    (config.write_caching, to_usize(config.min_insync_replicas).max(1))
}
