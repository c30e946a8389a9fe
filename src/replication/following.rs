//! What passes between a leader and its followers: a fetch is also an acknowledgement.
//!
//! Invariants: a follower compares epochs before its first batch of a leader epoch and cuts by epoch, not by high
//! watermark (KIP-101, KIP-279, KIP-320, KIP-595); every batch's checksum is verified before it is appended; a fetch
//! says "I have everything before, durably", so a follower asks for more only after its flush.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::PartitionError;
use super::partition::{Partition, State};
use super::reading::ReadRules;
use super::waiting::{AckWaiter, FetchWaiter};
use crate::log::{AppendError, LeaderEpochs, Log, NewBatch, OpenError, ReadError};
use crate::model::{BrokerId, LeaderEpoch, Offset, Timestamp};
use crate::record::batch::checksum;
use crate::record::{BatchHeader, next_batch, validate};
use crate::remote_log::RestoredState;
use crate::system::disk::is_shortage;
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::{blocking, run_errand};

/// A follower's fetch, as its leader sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FollowerFetch {
    pub follower: BrokerId,
    pub broker_epoch: i64,
    pub offset: Offset,
    /// The epoch of the last batch in the follower's log; -1: it is empty.
    pub last_epoch: LeaderEpoch,
    /// The leader epoch that the follower knows.
    pub leader_epoch: LeaderEpoch,
}

/// Where a follower's log leaves the leader's: the largest epoch that both may have, and its end in the leader's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Diverging {
    pub epoch: LeaderEpoch,
    pub end: Offset,
}

/// Where a follower goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchPosition {
    pub offset: Offset,
    pub last_epoch: LeaderEpoch,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
}

/// What a leader answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchedBatches<'a> {
    pub leader_epoch: LeaderEpoch,
    pub bytes: &'a [u8],
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub now_ms: Timestamp,
}

impl Partition {
    /// Takes a follower's fetch as its acknowledgement, or says where its log leaves this one.
    pub(crate) fn fetched_by(
        &self,
        fetch: &FollowerFetch,
    ) -> Result<Option<Diverging>, PartitionError> {
        let mut state = self.lock();
        let state = &mut *state;
        let log = self.readable(state, ReadRules::leader(fetch.leader_epoch))?;
        if fetch.offset < log.log_start() {
            let offset = fetch.offset;
            let is_all_here = state.start()? == log.log_start();
            return Err(if is_all_here {
                PartitionError::OutOfRange { offset }
            } else {
                PartitionError::Tiered { offset }
            });
        }
        if fetch.last_epoch >= 0 && !is_planted(Bug::SkipDivergenceCheck) {
            let current = state.replica.leader_epoch;
            let (epoch, end) =
                log.epochs().end_for_leader(fetch.last_epoch, current, log.log_end());
            if epoch < fetch.last_epoch || end < fetch.offset {
                return Ok(Some(Diverging { epoch, end }));
            }
        }
        if fetch.offset > log.log_end() {
            return Err(PartitionError::OutOfRange { offset: fetch.offset });
        }
        let now_ms = self.local.awake.now_ms();
        let effects =
            state.replica.fetched(now_ms, fetch.follower, fetch.broker_epoch, fetch.offset);
        let suspect = effects.suspect;
        self.perform(state, effects);
        suspect.map_or(Ok(None), |offset| self.check_written(state, offset).map(|()| None))
    }

    /// Looks whether what stands at an offset is what was written. A log that is not goes offline, so that a replica
    /// with good bytes leads: a follower takes no batch whose checksum is wrong, and would wait for ever.
    fn check_written(&self, state: &mut State, offset: Offset) -> Result<(), PartitionError> {
        let log = state.log()?;
        let read = log.slice(offset, log.end(), 1, true);
        let bytes = read
            .and_then(|slice| slice.map(|slice| slice.read().map_err(ReadError::Disk)).transpose());
        if let Err(ReadError::Disk(error)) = &bytes
            && is_shortage(error)
        {
            // It could not be looked at: the follower asks again.
            self.directory.note_shortage(error);
            return Ok(());
        }
        let bytes = bytes.ok().flatten();
        let first = bytes.as_deref().and_then(next_batch);
        let is_good = first.is_some_and(|(header, batch, _)| checksum(batch) == Some(header.crc));
        if is_good {
            return Ok(());
        }
        tracing::error!(partition = %self.name, offset, "what stands in the log is not what was written: the replica is offline until a restart");
        state.fail();
        Err(PartitionError::Offline)
    }

    /// Whether this leader throttles a replica: it is listed, and not in sync (KIP-73).
    pub(crate) fn throttles(&self, follower: BrokerId) -> bool {
        let state = self.lock();
        let is_listed =
            |log: &Log| log.config().leader_throttled.has(self.name.partition, follower);
        !state.replica.has_in_sync(follower) && state.log.as_ref().is_some_and(is_listed)
    }

    /// Whether this follower is one that throttles itself while it is not in sync.
    pub(crate) fn is_throttled(&self) -> bool {
        let me = self.local.node_id;
        self.with_log(|log| log.config().follower_throttled.has(self.name.partition, me))
            .unwrap_or(false)
    }

    /// Registers a follower's fetch that found nothing past `log_end`; `false` if there is news already.
    pub(crate) fn wait_for_growth(&self, from: Offset, waiter: &Arc<FetchWaiter>) -> bool {
        let mut state = self.lock();
        if !state.replica.is_leader() || state.log.as_ref().is_none_or(|log| log.log_end() > from) {
            return false;
        }
        state.waiting.add_follower(waiter);
        true
    }

    /// Where this replica goes on fetching from `leader`; `None` if it follows somebody else, or can't, or has not
    /// flushed yet what it appended as a leader: a fetch would say that it has.
    pub(crate) fn fetch_position(self: &Arc<Self>, leader: BrokerId) -> Option<FetchPosition> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.replica.is_leader() || state.replica.leader() != leader {
            return None;
        }
        let log = state.log.as_ref()?;
        let waits = !log.config().write_caching && !is_planted(Bug::FollowerAcksBeforeFlush);
        if waits && log.recovery_point() < log.log_end() {
            self.queue_flush(state);
            return None;
        }
        Some(FetchPosition {
            offset: log.log_end(),
            last_epoch: last_epoch(log),
            leader_epoch: state.replica.leader_epoch,
            log_start: log.log_start(),
        })
    }

    /// Appends what the leader sent.
    pub(crate) fn append_fetched(
        self: &Arc<Self>,
        fetched: &FetchedBatches<'_>,
    ) -> Result<(), PartitionError> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.replica.is_leader() || state.replica.leader_epoch != fetched.leader_epoch {
            return Err(state.not_leader());
        }
        if state.is_beginning {
            return Err(PartitionError::Restoring);
        }
        let log = state.log_mut()?;
        let unflushed = log.unflushed_bytes();
        let result = self.directory.write(|| append_each(log, fetched));
        let (end, grown) = (log.end(), log.unflushed_bytes() - unflushed);
        if fetched.log_start > log.log_start() {
            log.trim(fetched.log_start);
        }
        self.directory.add_unflushed(grown);
        state.mark(end);
        let effects = state.replica.appended(end.offset);
        self.perform(state, effects);
        let effects = state.replica.told_high_watermark(fetched.high_watermark);
        self.perform(state, effects);
        match &result {
            Err(PartitionError::NoRoom) => self.directory.set_full(true),
            Err(error @ PartitionError::Shortage) => self.directory.note_shortage(error),
            Err(PartitionError::Offline) => {
                self.directory.fail(&std::io::Error::other("write failed"), &self.name);
                state.fail();
            }
            Ok(()) | Err(_) => {}
        }
        if grown > 0 {
            self.queue_flush_if_due(state, fetched.now_ms);
        }
        result
    }

    /// Waits, by `waiter`, until what was fetched is durable; at once where the topic does not ask for that.
    pub(crate) fn wait_flushed(self: &Arc<Self>, waiter: &Arc<AckWaiter>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(log) = &state.log else { return };
        let end = log.log_end();
        let is_eager = log.config().write_caching || is_planted(Bug::FollowerAcksBeforeFlush);
        if is_eager || log.recovery_point() >= end {
            return;
        }
        state.waiting.add_flush(end, waiter);
        self.queue_flush(state);
    }

    /// Cuts the log where it leaves the leader's. Blocks on the disk.
    pub(crate) fn cut_diverging(
        &self,
        leader_epoch: LeaderEpoch,
        diverging: Diverging,
    ) -> Result<(), PartitionError> {
        let to = {
            let state = self.lock();
            let log = state.log()?;
            let local = log.epochs().end_of(diverging.epoch, log.log_end());
            // What this log calls the end of the epoch may lie before the leader's.
            let end = local.map_or(diverging.end, |(_, end)| end.min(diverging.end));
            end.clamp(log.log_start(), log.log_end())
        };
        self.cut_to(leader_epoch, to, |log| log.truncate(to))
    }

    /// Forgets everything, and begins where the leader's local log does: what lies before is in object storage, which says
    /// what there is to know of it (KIP-405). Goes on by itself: a bucket that is slow keeps no other partition waiting.
    pub(crate) fn restart_tiered(self: &Arc<Self>, leader_epoch: LeaderEpoch, offset: Offset) {
        let Some(remote) = &self.remote else { return };
        if remote.restoring.swap(true, Ordering::AcqRel) {
            return;
        }
        let partition = Arc::clone(self);
        run_errand("beginning anew", async move {
            if let Err(error) = partition.restart_with_state(leader_epoch, offset).await {
                tracing::warn!(partition = %partition.name, offset, %error, "not begun at the leader's local start yet");
            }
            if let Some(remote) = &partition.remote {
                remote.restoring.store(false, Ordering::Release);
            }
        });
    }

    async fn restart_with_state(
        self: &Arc<Self>,
        leader_epoch: LeaderEpoch,
        offset: Offset,
    ) -> Result<(), PartitionError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let state = remote.state_at(offset).await;
        let state = state.map_err(|error| PartitionError::Remote(error.to_string()))?;
        self.begin_with(leader_epoch, offset, state).await
    }

    /// Lets the log begin where object storage goes up to, with what that knows of epochs and producers.
    pub(super) async fn begin_with(
        self: &Arc<Self>,
        leader_epoch: LeaderEpoch,
        offset: Offset,
        state: RestoredState,
    ) -> Result<(), PartitionError> {
        let partition = Arc::clone(self);
        let restarted = blocking(move || {
            if partition.with_log(|log| log.log_end() >= offset).unwrap_or(false) {
                // It was told twice: what came since must not be given up.
                return Ok(());
            }
            let has_producers = !state.producers.is_empty();
            let dir = partition.with_log(|log| log.dir.clone()).ok_or(PartitionError::Offline)?;
            let disk = partition.directory.disk();
            let written = Log::write_snapshot(&**disk, &dir, offset, &state.producers);
            partition.or_fail(written)?;
            let (epochs, begins) = (state.epochs.clone(), (offset, has_producers));
            let begun = partition.begin_anew(leader_epoch, begins, &epochs, |log| {
                log.restart_with(offset, state.epochs, state.producers)
            });
            if matches!(begun, Err(PartitionError::NotLeader { .. })) {
                // Nothing was changed, and the log may come there in another way. One that failed on the way needs the snapshot.
                partition.or_fail(Log::forget_snapshot(&**disk, &dir, offset))?;
            }
            begun
        });
        restarted.await.unwrap_or(Err(PartitionError::Offline))
    }

    /// Forgets everything: the leader's log begins past this one's end. Blocks on the disk. A log that has records at or past
    /// that offset is left alone, whatever the leader says: where it has too many, its epochs tell what is to be cut.
    pub(crate) fn restart_at(
        &self,
        leader_epoch: LeaderEpoch,
        offset: Offset,
    ) -> Result<(), PartitionError> {
        let goes_past = |log: &Log| offset <= log.log_end() && log.log_start() < log.log_end();
        if self.with_log(goes_past) == Some(true) {
            return Err(PartitionError::OutOfRange { offset });
        }
        let unknown = LeaderEpochs::default();
        self.begin_anew(leader_epoch, (offset, false), &unknown, |log| log.restart_at(offset))
    }

    /// Lets the log begin anew past its end. What is promised of it says so first: what it had is not lost, but given up.
    fn begin_anew(
        &self,
        leader_epoch: LeaderEpoch,
        (offset, has_producers): (Offset, bool),
        epochs: &LeaderEpochs,
        restart: impl FnOnce(&mut Log) -> Result<(), OpenError>,
    ) -> Result<(), PartitionError> {
        {
            let mut state = self.lock();
            if state.is_beginning || !state.may_cut(leader_epoch, Some(offset)) {
                return Err(state.not_leader());
            }
            // What was appended between the promise and the cut would be acknowledged, and given up by a crash.
            state.is_beginning = true;
        }
        let begun = self.begin_at((offset, has_producers), epochs, || {
            self.apply_cut(leader_epoch, Some(offset), restart)
        });
        self.lock().is_beginning = false;
        begun
    }

    fn begin_at(
        &self,
        (offset, has_producers): (Offset, bool),
        epochs: &LeaderEpochs,
        apply: impl FnOnce() -> Result<(), PartitionError>,
    ) -> Result<(), PartitionError> {
        let dir = self.with_log(|log| log.dir.clone()).ok_or(PartitionError::Offline)?;
        let disk = &**self.directory.disk();
        self.or_fail(Log::write_beginning(disk, &dir, offset, epochs))?;
        let begun = self
            .or_fail(self.directory.restart_point(&self.name, offset, has_producers))
            .and_then(|()| apply())
            .inspect_err(|_| {
                // The log is what it was: so is what is promised of it. Where that can't be said, a start would give up what it has.
                if let Err(why) = self.directory.write_points() {
                    self.directory.fail(&why, &self.name);
                }
            });
        if !self.directory.is_offline() {
            self.or_fail(Log::forget_beginning(disk, &dir))?;
        }
        begun
    }

    fn or_fail(&self, done: std::io::Result<()>) -> Result<(), PartitionError> {
        done.map_err(|error| {
            if is_shortage(&error) {
                // Nothing has been changed yet that could not stay as it is.
                self.directory.note_shortage(&error);
                return PartitionError::Shortage;
            }
            self.directory.fail(&error, &self.name);
            PartitionError::Offline
        })
    }

    fn cut_to(
        &self,
        leader_epoch: LeaderEpoch,
        to: Offset,
        cut: impl FnOnce(&mut Log) -> Result<(), OpenError>,
    ) -> Result<(), PartitionError> {
        // First the promise, then what it was about: a crash between them leaves a log longer than is promised.
        self.or_fail(self.directory.lower_point(&self.name, to))?;
        self.apply_cut(leader_epoch, None, cut)
    }

    fn apply_cut(
        &self,
        leader_epoch: LeaderEpoch,
        begin: Option<Offset>,
        cut: impl FnOnce(&mut Log) -> Result<(), OpenError>,
    ) -> Result<(), PartitionError> {
        let mut state = self.lock();
        let state = &mut *state;
        if !state.may_cut(leader_epoch, begin) {
            return Err(state.not_leader());
        }
        match cut(state.log_mut()?) {
            Ok(()) => {}
            Err(OpenError::Disk(error)) if is_shortage(&error) => {
                // What is on the disk is a log, which is longer than is promised: it is opened once there is what it takes.
                self.directory.note_shortage(&error);
                state.fail();
                self.local.unopened.lock().insert(self.name.clone());
                return Err(PartitionError::Shortage);
            }
            Err(error) => {
                self.directory.fail(&std::io::Error::other(error.to_string()), &self.name);
                state.fail();
                return Err(PartitionError::Offline);
            }
        }
        self.cut(state);
        Ok(())
    }
}

fn last_epoch(log: &Log) -> LeaderEpoch {
    if log.log_end() == log.log_start() { -1 } else { log.epochs().latest().unwrap_or(-1) }
}

/// Appends the whole batches of an answer; a part of one at its end is left for the next fetch. What stands before a
/// damaged one is taken.
fn append_each(log: &mut Log, fetched: &FetchedBatches<'_>) -> Result<(), PartitionError> {
    let (mut rest, mut next, mut verified) = (fetched.bytes, log.log_end(), Ok(()));
    let mut batches = Vec::new();
    while let Some((header, batch, after)) = next_batch(rest) {
        rest = after;
        if header.last_offset() < next {
            continue;
        }
        let is_first = batches.is_empty() && log.begins_in(&header);
        verified = verify(&header, batch, if is_first { header.base_offset } else { next });
        if verified.is_err() {
            break;
        }
        next = header.last_offset() + 1;
        batches.push(NewBatch { header, bytes: batch });
    }
    let appended = log.append_fetched(&batches, fetched.now_ms);
    appended.map_err(|error| match error {
        AppendError::NoRoom => PartitionError::NoRoom,
        AppendError::Shortage(_) => PartitionError::Shortage,
        AppendError::Disk(_) | AppendError::Sequence(_) => PartitionError::Offline,
    })?;
    verified
}

/// A corrupted replica must not infect others.
fn verify(header: &BatchHeader, batch: &[u8], log_end: Offset) -> Result<(), PartitionError> {
    validate::check_frame(batch, usize::MAX)?;
    let whole = header.last_offset_delta >= 0
        && header.base_offset >= log_end
        && checksum(batch) == Some(header.crc);
    if whole { Ok(()) } else { Err(PartitionError::Batch(crate::record::BatchError::Corrupt)) }
}
