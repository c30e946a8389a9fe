//! One partition on this broker: the lock, the log, the replica; carries effects out.
//!
//! Invariants: the log is only touched under the lock; the published high watermark is the replica's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::error::PartitionError;
use super::log_directory::LogDirectory;
use super::replica::{Effect, Replica};
use super::waiting::{AckWaiter, FetchWaiter, Waiting};
use crate::config::{TimestampType, TopicConfig};
use crate::log::{
    AppendError, Appended, FoundRecord, Log, LogSlice, NewBatch, Position, Searched, Stamp,
};
use crate::model::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use crate::record::batch::stamp_append_time;
use crate::record::{BatchHeader, BatchRules, HEADER_BYTES, validate};

pub(crate) type PartitionHandle = Arc<Partition>;

/// Where a directory holds much that is not durable, logs with this much of it are flushed at their next append.
const UNFLUSHED_WORTH_BYTES: u64 = 1 << 20;

/// A look-up goes on over segments that compaction emptied, and is repeated where segments changed meanwhile.
const LOOKUPS_MAX: usize = 10_000;

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Partition {
    pub name: TopicPartition,
    pub directory: Arc<LogDirectory>,
    high_watermark: AtomicI64,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// `None` when the partition could not be opened, failed, or is deleted.
    pub log: Option<Log>,
    pub replica: Replica,
    hw_position: Position,
    waiting: Waiting,
    /// Whether the partition stands in its directory's queue of logs to flush.
    pub flush_queued: bool,
    /// When the oldest unflushed record was appended, for `flush.ms`.
    pub unflushed_since_ms: Option<Timestamp>,
    flushed_records_to: Offset,
    deleted: bool,
}

/// A produced batch.
#[derive(Debug)]
pub(crate) struct AppendRequest<'a> {
    pub batch: &'a [u8],
    pub now_ms: Timestamp,
    /// Whoever waits for `acks=all`; `None` for the other acks.
    pub waiter: Option<&'a Arc<AckWaiter>>,
    /// From the broker itself (coordinators): no checks of its own batches.
    pub is_internal: bool,
}

/// What became of a produced batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appending {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// What the response says: the broker's stamp, or the first copy's time; -1 else.
    pub append_time_ms: Timestamp,
    pub log_start: Offset,
}

/// What a fetch finds.
#[derive(Debug)]
pub(crate) struct FetchRead {
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub slice: Option<LogSlice>,
}

impl Partition {
    pub(super) fn new(
        name: TopicPartition,
        directory: Arc<LogDirectory>,
        log: Option<Log>,
        epoch: LeaderEpoch,
    ) -> Self {
        let end = log.as_ref().map(Log::end).unwrap_or_default();
        let write_caching = log.as_ref().is_some_and(|log| log.config().write_caching);
        let state = State {
            log,
            replica: Replica::lead(epoch, end.offset, write_caching),
            hw_position: end,
            waiting: Waiting::default(),
            flush_queued: false,
            unflushed_since_ms: None,
            flushed_records_to: end.offset,
            deleted: false,
        };
        Self {
            name,
            directory,
            high_watermark: AtomicI64::new(end.offset),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire)
    }

    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.state.lock().replica.leader_epoch
    }

    pub(crate) fn is_online(&self) -> bool {
        self.state.lock().log.is_some()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.state.lock().deleted
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
        let state = self.state.lock();
        let config = match state.log() {
            Ok(log) => log.config().clone_rules(),
            Err(_) => return requests.iter().map(|_| Err(state.missing())).collect(),
        };
        drop(state);
        // Checksums and record checks need no lock: other batches may be appended meanwhile.
        let is_full = self.directory.is_full();
        let checked: Vec<Result<Checked, PartitionError>> = requests
            .iter()
            .map(|request| match check(request, &config) {
                Ok(_) if is_full && !request.is_internal => Err(PartitionError::NoRoom),
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
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut appended = self.append_checked(state, &batches, now_ms).into_iter();
        drop(batches);
        let log_start = state.log.as_ref().map_or(-1, Log::log_start);
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
            Ok(Appending { base_offset, last_offset, append_time_ms, log_start })
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
        let Some(log) = state.log.as_mut() else {
            return batches.iter().map(|_| Err(state.missing())).collect();
        };
        let unflushed = log.unflushed_bytes();
        let result = log.append_all(batches, stamp, &mut outcomes);
        let log_end = log.log_end();
        self.directory.add_unflushed(log.unflushed_bytes() - unflushed);
        let mut outcomes: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome.map_err(PartitionError::Sequence)).collect();
        match result {
            Ok(()) => {}
            Err(AppendError::NoRoom) => self.directory.set_full(true),
            Err(AppendError::Disk(error)) => {
                self.directory.fail(&error, &self.name);
                state.fail();
                // What the same call wrote before is not known to be readable.
                return batches.iter().map(|_| Err(PartitionError::Offline)).collect();
            }
            Err(AppendError::Sequence(_)) => unreachable!("sequences are outcomes"),
        }
        outcomes.resize_with(batches.len(), || Err(PartitionError::NoRoom));
        let effect = state.replica.appended(log_end);
        self.perform(state, effect);
        self.queue_flush_if_due(state, now_ms);
        outcomes
    }

    /// Finds what a fetch at `offset` may have. `waiter` is registered if there is nothing beyond
    /// `seen_high_watermark`.
    pub(crate) fn read(
        &self,
        offset: Offset,
        bytes_max: usize,
        first_whole: bool,
        epoch: LeaderEpoch,
    ) -> Result<FetchRead, PartitionError> {
        let mut past = None;
        // A look-up waits for the disk without the lock; where the cleaner or retention came between, it is repeated.
        for _ in 0..LOOKUPS_MAX {
            let (search, high_watermark, log_start) = {
                let state = self.state.lock();
                state.check_epoch(epoch)?;
                let log = state.log()?;
                if offset > log.log_end() || offset < log.log_start() {
                    return Err(PartitionError::OutOfRange { offset });
                }
                let search = log.search(offset, past, state.hw_position)?;
                (search, state.replica.high_watermark(), log.log_start())
            };
            let Some(search) = search else {
                return Ok(FetchRead { high_watermark, log_start, slice: None });
            };
            let searched = search.run(bytes_max, first_whole);
            if !self.state.lock().log()?.still_holds(&search) {
                past = None;
                continue;
            }
            match searched {
                Ok(Searched::Slice(slice)) => {
                    return Ok(FetchRead { high_watermark, log_start, slice });
                }
                Ok(Searched::Past(base_offset)) => past = Some(base_offset),
                Err(error) => {
                    tracing::error!(partition = %self.name, %error, "read failed");
                    return Err(error.into());
                }
            }
        }
        tracing::error!(partition = %self.name, offset, "the log changed at each look-up");
        Err(PartitionError::Offline)
    }

    /// Registers a fetch that found nothing new past `high_watermark`; `false` if there is news already.
    pub(crate) fn wait(&self, high_watermark: Offset, waiter: &Arc<FetchWaiter>) -> bool {
        let mut state = self.state.lock();
        if state.log.is_none() || state.replica.high_watermark() != high_watermark {
            return false;
        }
        state.waiting.add_fetch(waiter);
        true
    }

    /// How many fetches wait.
    #[cfg(test)]
    pub(crate) fn waiting_fetches(&self) -> usize {
        self.state.lock().waiting.fetches()
    }

    pub(crate) fn stop_waiting(&self, waiter: &Arc<FetchWaiter>) {
        self.state.lock().waiting.remove_fetch(waiter);
    }

    /// Log start, high watermark, and the newest epoch; checks the asker's epoch.
    pub(crate) fn bounds(
        &self,
        epoch: LeaderEpoch,
    ) -> Result<(Offset, Offset, LeaderEpoch), PartitionError> {
        let state = self.state.lock();
        state.check_epoch(epoch)?;
        Ok((state.log()?.log_start(), state.replica.high_watermark(), state.replica.leader_epoch))
    }

    /// The epoch that wrote `offset`; the current one where nothing was written.
    pub(crate) fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let state = self.state.lock();
        let known = state.log.as_ref().and_then(|log| log.epochs().epoch_at(offset));
        known.unwrap_or(state.replica.leader_epoch)
    }

    /// First record at or after a time, or the newest by time (`None`), below the high watermark.
    pub(crate) fn find_time(
        &self,
        timestamp: Option<Timestamp>,
    ) -> Result<Option<FoundRecord>, PartitionError> {
        for _ in 0..LOOKUPS_MAX {
            let search = {
                let state = self.state.lock();
                state.log()?.time_search(timestamp, state.replica.high_watermark())
            };
            let found = search.run(timestamp);
            if self.state.lock().log()?.still_holds_all(&search) {
                return found.map_err(Into::into);
            }
        }
        Err(PartitionError::Offline)
    }

    /// When the batch that holds `offset` was made, by its newest record; `None` if it can't be read.
    pub(crate) fn timestamp_at(&self, offset: Offset) -> Option<Timestamp> {
        let slice = self.read(offset, HEADER_BYTES, false, -1).ok()?.slice?;
        BatchHeader::parse(&slice.read().ok()?).map(|header| header.max_timestamp)
    }

    /// The largest epoch up to `asked` and its end (OffsetForLeaderEpoch).
    pub(crate) fn end_of_epoch(
        &self,
        asked: LeaderEpoch,
        current: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, PartitionError> {
        let state = self.state.lock();
        state.check_epoch(current)?;
        let log = state.log()?;
        let newest = state.replica.leader_epoch;
        if asked == newest {
            return Ok(Some((newest, log.log_end())));
        }
        Ok(log.epochs().end_of(asked, log.log_end()))
    }

    /// Moves the log's start (DeleteRecords); -1 means the high watermark. Returns the new start.
    pub(crate) fn trim(&self, offset: Offset) -> Result<Offset, PartitionError> {
        let mut state = self.state.lock();
        let high_watermark = state.replica.high_watermark();
        let to = if offset == -1 { high_watermark } else { offset };
        if to < 0 || to > high_watermark {
            return Err(PartitionError::OutOfRange { offset: to });
        }
        Ok(state.log_mut()?.trim(to))
    }

    /// Takes on a changed topic configuration.
    pub(crate) fn configure(self: &Arc<Self>, config: Arc<TopicConfig>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let write_caching = config.write_caching;
        let Some(log) = state.log.as_mut() else { return };
        log.set_config(config);
        let effect = state.replica.set_write_caching(write_caching);
        self.perform(state, effect);
        self.queue_flush(state);
    }

    /// Begins a leader epoch; the log notes it with the epoch's first record.
    pub(crate) fn lead(&self, epoch: LeaderEpoch) {
        let mut state = self.state.lock();
        state.replica.leader_epoch = state.replica.leader_epoch.max(epoch);
    }

    /// Looks at the log under the lock; `None` if it is offline.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> Option<T> {
        self.state.lock().log.as_ref().map(look)
    }

    /// Takes the partition offline: whoever waits is told.
    pub(super) fn take_offline(&self) -> Option<Log> {
        let mut state = self.state.lock();
        state.waiting.fail();
        let log = state.log.take();
        self.directory.take_unflushed(log.as_ref().map_or(0, Log::unflushed_bytes));
        log
    }

    /// Takes the log out to delete it.
    pub(super) fn take_deleted(&self) -> Option<Log> {
        self.state.lock().deleted = true;
        self.take_offline()
    }

    /// Notes what a flush made durable.
    pub(super) fn flushed(&self, end: Position) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(log) = state.log.as_mut() else { return };
        log.flushed(end.offset);
        state.flushed_records_to = end.offset;
        if state.replica.flushed(end.offset) != Effect::Nothing {
            state.hw_position = end;
            self.publish(state);
        }
    }

    /// Queues the log for flushing, whatever its settings say.
    pub(super) fn queue_flush(self: &Arc<Self>, state: &mut State) {
        if !state.flush_queued {
            state.flush_queued = true;
            self.directory.queue(self);
        }
    }

    fn queue_flush_if_due(self: &Arc<Self>, state: &mut State, now_ms: Timestamp) {
        if state.flush_queued {
            return;
        }
        let Some(log) = &state.log else { return };
        let config = log.config();
        let since = *state.unflushed_since_ms.get_or_insert(now_ms);
        let due = !config.write_caching
            || log.log_end() - state.flushed_records_to >= config.flush_messages
            || now_ms.saturating_sub(since) >= config.flush_ms
            || (self.directory.has_much_unflushed()
                && log.unflushed_bytes() >= UNFLUSHED_WORTH_BYTES);
        if due {
            self.queue_flush(state);
        }
    }

    fn perform(&self, state: &mut State, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::AdvanceHighWatermark { .. } => {
                if let Some(log) = &state.log {
                    state.hw_position = log.end();
                }
                self.publish(state);
            }
        }
    }

    fn publish(&self, state: &mut State) {
        let to = state.replica.high_watermark();
        let before = self.high_watermark.swap(to, Ordering::AcqRel);
        assert!(before <= to, "high watermark of {} moved back from {before} to {to}", self.name);
        state.waiting.advanced(to);
    }
}

impl State {
    fn log(&self) -> Result<&Log, PartitionError> {
        self.log.as_ref().ok_or_else(|| self.missing())
    }

    /// Why there is no log.
    fn missing(&self) -> PartitionError {
        if self.deleted { PartitionError::Deleted } else { PartitionError::Offline }
    }

    fn log_mut(&mut self) -> Result<&mut Log, PartitionError> {
        let missing = self.missing();
        self.log.as_mut().ok_or(missing)
    }

    fn fail(&mut self) {
        self.log = None;
        self.waiting.fail();
    }

    fn check_epoch(&self, asked: LeaderEpoch) -> Result<(), PartitionError> {
        let current = self.replica.leader_epoch;
        match asked {
            -1 => Ok(()),
            asked if asked < current => Err(PartitionError::FencedEpoch { asked, current }),
            asked if asked > current => Err(PartitionError::UnknownEpoch { asked, current }),
            _ => Ok(()),
        }
    }
}

/// A batch that passed its topic's checks.
struct Checked {
    header: BatchHeader,
    /// The batch to store instead, where the topic stamps or recompresses.
    rewritten: Option<Vec<u8>>,
    append_time_ms: Timestamp,
}

/// What the checks need of a topic's configuration, copied out of the lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppendRules {
    rules: BatchRules,
    min_insync_replicas: i32,
    stamps: bool,
    codec: Option<crate::record::Codec>,
}

impl TopicConfig {
    fn clone_rules(&self) -> AppendRules {
        let stamps = self.timestamp_type == TimestampType::LogAppendTime;
        AppendRules {
            rules: BatchRules {
                bytes_max: self.message_bytes_max,
                plain_bytes_max: self.plain_bytes_max,
                keys_required: self.is_compacted,
                timestamps: (!stamps).then_some(self.timestamps),
            },
            min_insync_replicas: self.min_insync_replicas,
            stamps,
            codec: self.codec,
        }
    }
}

fn check(request: &AppendRequest<'_>, config: &AppendRules) -> Result<Checked, PartitionError> {
    let batch = request.batch;
    let bytes_max = if request.is_internal { usize::MAX } else { config.rules.bytes_max };
    let header = validate::check_frame(batch, bytes_max)?;
    validate::check_header(&header, batch.len())?;
    if header.is_transactional() {
        return Err(PartitionError::Transactional);
    }
    if request.waiter.is_some() && config.min_insync_replicas > 1 && !request.is_internal {
        return Err(PartitionError::NotEnoughReplicas);
    }
    validate::check_records(&header, batch, &config.rules, request.now_ms)?;
    let mut rewritten = None;
    if let Some(codec) = config.codec.filter(|codec| codec.bits() != header.codec_bits()) {
        rewritten =
            Some(validate::recompress(&header, batch, codec, config.rules.plain_bytes_max)?);
    }
    if !config.stamps {
        let header = rewritten.as_deref().and_then(BatchHeader::parse).unwrap_or(header);
        return Ok(Checked { header, rewritten, append_time_ms: -1 });
    }
    let mut stamped = rewritten.unwrap_or_else(|| batch.to_vec());
    stamp_append_time(&mut stamped, request.now_ms);
    let header = BatchHeader::parse(&stamped).unwrap_or(header);
    Ok(Checked { header, rewritten: Some(stamped), append_time_ms: request.now_ms })
}
