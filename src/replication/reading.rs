//! Reading a partition: what is committed, where it lies, by offset (`by_time.rs` has the rest).
//!
//! Invariants: a consumer sees only what is below the high watermark; a look-up waits for the disk without the
//! partition's lock; a leader whose lease is over answers nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::PartitionError;
use super::partition::{Partition, PartitionHandle, State};
use super::waiting::{AckWaiter, FetchWaiter};
use crate::log::{Log, LogSlice, Searched, Wanted};
use crate::model::{BrokerId, LeaderEpoch, Offset, Timestamp};
use crate::record::{BatchHeader, HEADER_BYTES};
use crate::remote_log::{ANSWER_BYTES, Manifest, RemoteBatches, RemotePartition};
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::blocking;

/// A look-up goes on over segments that compaction emptied, and is repeated where segments changed meanwhile.
pub(super) const LOOKUPS_MAX: usize = 10_000;

/// How old what a follower knows of the bucket may be.
const FOLLOWER_MANIFEST_AGE: Duration = Duration::from_secs(10);

/// Who may read what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadRules {
    /// The leader epoch that the asker knows; -1: none.
    pub epoch: LeaderEpoch,
    /// Whether a follower may answer (KIP-392).
    pub from_follower: bool,
    /// Whether what is not committed is read too: by the partition's followers.
    pub up_to_log_end: bool,
    /// Whether the asker's thread may wait for the disk.
    pub may_block: bool,
}

impl ReadRules {
    /// What is committed, from the leader.
    pub(crate) fn leader(epoch: LeaderEpoch) -> Self {
        Self { epoch, from_follower: false, up_to_log_end: false, may_block: true }
    }
}

/// What a fetch finds.
#[derive(Debug)]
pub(crate) struct FetchRead {
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub log_end: Offset,
    pub slice: Option<LogSlice>,
    /// Where the records are, if they are here no more.
    pub remote: Option<RemoteRead>,
    /// Nobody has looked: it takes the disk, for which the asker may not wait.
    pub is_cold: bool,
}

/// A read of object storage, to be carried out by whoever may wait for it.
#[derive(Debug, Clone)]
pub(crate) struct RemoteRead {
    remote: Arc<RemotePartition>,
    /// What a leader knows; a follower has to read it, and may have read one that counts no more.
    manifest: Option<Arc<Manifest>>,
    offset: Offset,
    /// What it brings at most, but for the first batch if that is wanted whole.
    pub bytes_max: usize,
    pub first_whole: bool,
    /// What was committed when it was asked for: a bucket may know more than a new leader.
    high_watermark: Offset,
    rules: ReadRules,
}

impl RemoteRead {
    /// A read that brings at most so much; `None` where nothing is allowed.
    fn within(
        (bytes_max, first_whole): (usize, bool),
        (remote, manifest): (Arc<RemotePartition>, Option<Arc<Manifest>>),
        offset: Offset,
        (high_watermark, rules): (Offset, ReadRules),
    ) -> Option<Self> {
        let bytes_max = bytes_max.min(ANSWER_BYTES);
        (bytes_max > 0 || first_whole).then_some(Self {
            remote,
            manifest,
            offset,
            bytes_max,
            first_whole,
            high_watermark,
            rules,
        })
    }

    /// Whole batches from the first one on that has records at or past the offset, wherever it is: simple clients do not get past
    /// an answer without records. Only where there is none the offsets are all there is to tell.
    /// `None` if the first batch is larger than what is allowed.
    pub(crate) async fn run(
        &self,
        partition: PartitionHandle,
    ) -> Result<Option<Bytes>, PartitionError> {
        let Some(found) = self.find().await? else { return Ok(None) };
        let rules = ReadRules { may_block: true, ..self.rules };
        let (from, bytes_max, first_whole) = (found.next, self.bytes_max, self.first_whole);
        if found.has_records || from >= self.high_watermark {
            return Ok(Some(found.bytes));
        }
        let here = blocking(move || {
            let slice = partition.read(from, bytes_max, first_whole, rules).ok()?.slice?;
            slice.read().ok().filter(|_| !slice.is_bare)
        });
        Ok(Some(here.await.flatten().map_or(found.bytes, Bytes::from)))
    }

    async fn find(&self) -> Result<Option<RemoteBatches>, PartitionError> {
        if let Some(manifest) = &self.manifest {
            let read = self.read(manifest).await;
            return read.inspect_err(|error| self.tell(manifest, error));
        }
        let mut age = FOLLOWER_MANIFEST_AGE;
        loop {
            let manifest = self.remote.not_older(age).await;
            let manifest = manifest.map_err(|error| PartitionError::Remote(error.to_string()))?;
            let is_there =
                manifest.log_start <= self.offset && manifest.find(self.offset).is_some();
            let read = if is_there {
                self.read(&manifest).await
            } else {
                Err(PartitionError::OutOfRange { offset: self.offset })
            };
            if read.is_ok() || age.is_zero() {
                return read.inspect_err(|error| self.tell(&manifest, error));
            }
            // What is known may be old: the leader has put other objects in the place of those that it names.
            age = Duration::ZERO;
        }
    }

    async fn read(&self, manifest: &Manifest) -> Result<Option<RemoteBatches>, PartitionError> {
        let limit = (self.bytes_max, self.first_whole);
        let (offset, end) = (self.offset, self.high_watermark);
        let read = self.remote.reader().read_records(manifest, offset, limit, end);
        read.await.map_err(|error| PartitionError::Remote(error.to_string()))
    }

    /// Tells of what somebody has to look after.
    fn tell(&self, manifest: &Manifest, error: &PartitionError) {
        if let PartitionError::Remote(error) = error {
            let topic = &manifest.topic;
            tracing::warn!(%topic, partition = manifest.partition, offset = self.offset, %error, "object storage not read");
        }
    }
}

impl Partition {
    /// The log, if the asker may read it.
    pub(super) fn readable<'a>(
        &self,
        state: &'a State,
        rules: ReadRules,
    ) -> Result<&'a Log, PartitionError> {
        let log = state.log()?;
        state.check_epoch(rules.epoch)?;
        if state.awaits_restore() {
            return Err(PartitionError::Restoring);
        }
        let leads = state.replica.is_leader() && self.local.lease.is_held();
        if leads || (rules.from_follower && !state.replica.is_leader()) {
            Ok(log)
        } else {
            Err(state.not_leader())
        }
    }

    /// Finds what a fetch at `offset` may have.
    pub(crate) fn read(
        &self,
        offset: Offset,
        bytes_max: usize,
        first_whole: bool,
        rules: ReadRules,
    ) -> Result<FetchRead, PartitionError> {
        let mut past = None;
        let takes_any = rules.up_to_log_end || is_planted(Bug::AnswerWithoutRecords);
        let mut wanted = if takes_any { Wanted::Log } else { Wanted::Records };
        // A look-up waits for the disk without the lock; where the cleaner or retention came between, it is repeated.
        for _ in 0..LOOKUPS_MAX {
            let (search, high_watermark, log_start, log_end) = {
                let state = self.lock();
                let log = self.readable(&state, rules)?;
                if offset > log.log_end() {
                    return Err(PartitionError::OutOfRange { offset });
                }
                if offset < log.log_start() {
                    return self.read_remote(&state, offset, (bytes_max, first_whole), rules);
                }
                let is_all = rules.up_to_log_end || is_planted(Bug::ServeUncommitted);
                let end = if is_all { log.end() } else { state.hw_position };
                let search = log.search(offset, past, end)?;
                let start = state.start().unwrap_or(-1);
                (search, state.replica.high_watermark(), start, log.log_end())
            };
            let found = |slice, is_cold| {
                let remote = None;
                Ok(FetchRead { high_watermark, log_start, log_end, slice, remote, is_cold })
            };
            let Some(search) = search else { return found(None, false) };
            if !rules.may_block && !search.is_warm() {
                return found(None, true);
            }
            let searched = search.run(wanted, bytes_max, first_whole);
            if !self.lock().log()?.still_holds(&search) {
                past = None;
                continue;
            }
            match searched {
                Ok(Searched::Slice(None)) if wanted == Wanted::Records && bytes_max > 0 => {
                    // Nothing but what compaction emptied is left below the end: whoever reads has to get past it.
                    (wanted, past) = (Wanted::Any, None);
                }
                Ok(Searched::Slice(mut slice)) => {
                    if let Some(slice) = &mut slice {
                        slice.is_bare = wanted != Wanted::Records && !rules.up_to_log_end;
                    }
                    return found(slice, false);
                }
                Ok(Searched::Past(base_offset)) => past = Some(base_offset),
                Err(error) => {
                    tracing::error!(partition = %self.name, offset, %error, "read failed");
                    return Err(error.into());
                }
            }
        }
        tracing::error!(partition = %self.name, offset, "the log changed at each look-up");
        Err(PartitionError::Offline)
    }

    /// What is below the local log's start: in object storage, or nowhere any more.
    fn read_remote(
        &self,
        state: &State,
        offset: Offset,
        limit: (usize, bool),
        rules: ReadRules,
    ) -> Result<FetchRead, PartitionError> {
        if !state.replica.is_leader() {
            return self.read_remote_here(state, offset, limit, rules);
        }
        let log_start = state.start()?;
        if offset < log_start {
            return Err(PartitionError::OutOfRange { offset });
        }
        if rules.up_to_log_end {
            return Err(PartitionError::Tiered { offset });
        }
        let (Some(remote), Some(manifest)) = (&self.remote, &state.remote) else {
            return Err(PartitionError::OutOfRange { offset });
        };
        let (remote, manifest) = (Arc::clone(remote), Some(Arc::clone(manifest)));
        let high_watermark = state.replica.high_watermark();
        let asked = (high_watermark, rules);
        Ok(FetchRead {
            high_watermark,
            log_start,
            log_end: state.log()?.log_end(),
            slice: None,
            remote: RemoteRead::within(limit, (remote, manifest), offset, asked),
            is_cold: false,
        })
    }

    /// The same by a follower (KIP-392), which finds out what is there when it reads.
    fn read_remote_here(
        &self,
        state: &State,
        offset: Offset,
        limit: (usize, bool),
        rules: ReadRules,
    ) -> Result<FetchRead, PartitionError> {
        let log = state.log()?;
        let Some(remote) = self.remote.as_ref().filter(|_| log.config().is_tiered) else {
            return Err(PartitionError::OutOfRange { offset });
        };
        let (remote, high_watermark) = (Arc::clone(remote), state.replica.high_watermark());
        let log_start = remote.manifest().map_or(-1, |manifest| manifest.log_start);
        Ok(FetchRead {
            high_watermark,
            log_start,
            log_end: log.log_end(),
            slice: None,
            remote: RemoteRead::within(limit, (remote, None), offset, (high_watermark, rules)),
            is_cold: false,
        })
    }

    /// Registers a fetch that found nothing new past `high_watermark`; `false` if there is news already.
    pub(crate) fn wait(&self, high_watermark: Offset, waiter: &Arc<FetchWaiter>) -> bool {
        let mut state = self.lock();
        if state.log.is_none() || state.replica.high_watermark() != high_watermark {
            return false;
        }
        state.waiting.add_fetch(waiter);
        true
    }

    /// Registers whoever asks what the log holds, if there is something that only this leader's own flush holds back: a producer
    /// may have been told of it (`acks=1`).
    pub(crate) fn wait_own_flush(self: &Arc<Self>, waiter: &Arc<AckWaiter>) {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(to) = state.replica.held_back_by_flush().filter(|_| state.log.is_some()) {
            state.waiting.add_flush(to, waiter);
            self.queue_flush(state);
        }
    }

    /// How many fetches wait.
    #[cfg(test)]
    pub(crate) fn waiting_fetches(&self) -> usize {
        self.lock().waiting.fetches()
    }

    pub(crate) fn stop_waiting(&self, waiter: &Arc<FetchWaiter>) {
        self.lock().waiting.remove_fetch(waiter);
    }

    /// Log start, high watermark, and the newest epoch, of a leader; checks the asker's epoch.
    pub(crate) fn bounds(
        &self,
        epoch: LeaderEpoch,
    ) -> Result<(Offset, Offset, LeaderEpoch), PartitionError> {
        let state = self.lock();
        self.readable(&state, ReadRules::leader(epoch))?;
        if !state.replica.is_settled() {
            return Err(PartitionError::Unsettled);
        }
        Ok((state.start()?, state.replica.high_watermark(), state.replica.leader_epoch))
    }

    /// Followers in sync that have everything before `offset`.
    pub(crate) fn followers_with(&self, offset: Offset) -> Vec<BrokerId> {
        self.lock().replica.followers_with(offset)
    }

    /// Where the log begins on this disk; -1 if there is none.
    pub(crate) fn local_start(&self) -> Offset {
        self.with_log(Log::log_start).unwrap_or(-1)
    }

    /// Who leads, and in which epoch.
    pub(crate) fn leader(&self) -> (BrokerId, LeaderEpoch) {
        let state = self.lock();
        (state.replica.leader(), state.replica.leader_epoch)
    }

    /// The epoch that wrote `offset`; the current one where nothing was written.
    pub(crate) fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let state = self.lock();
        let known = state.log.as_ref().and_then(|log| log.epochs().epoch_at(offset));
        known.unwrap_or(state.replica.leader_epoch)
    }

    /// When the batch that holds `offset` was made, by its newest record, and where it is in object storage only, by its segment's newest
    /// one: that costs no request. `None` if it can't be read.
    pub(crate) fn timestamp_at(&self, offset: Offset) -> Option<Timestamp> {
        let read = self.read(offset, HEADER_BYTES, true, ReadRules::leader(-1)).ok()?;
        if let Some(manifest) = read.remote.and_then(|remote| remote.manifest) {
            return manifest.find(offset).map(|segment| segment.max_timestamp);
        }
        let mut slice = read.slice?;
        slice.bytes = slice.bytes.min(HEADER_BYTES);
        BatchHeader::parse(&slice.read().ok()?).map(|header| header.max_timestamp)
    }

    /// The largest epoch up to `asked` and its end (OffsetForLeaderEpoch).
    pub(crate) fn end_of_epoch(
        &self,
        asked: LeaderEpoch,
        current: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, PartitionError> {
        let state = self.lock();
        let log = self.readable(&state, ReadRules::leader(current))?;
        let newest = state.replica.leader_epoch;
        if asked < 0 || asked > newest {
            return Ok(None);
        }
        Ok(Some(log.epochs().end_for_leader(asked, newest, log.log_end())))
    }
}
