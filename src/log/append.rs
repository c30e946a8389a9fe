//! Appending a batch.
//!
//! Invariants: the record bytes are written as they came; only the 61-byte header is copied, to set base offset and
//! leader epoch; after a failed write the file is cut back to what was there.

use std::io::{ErrorKind, IoSlice};

use smallvec::SmallVec;

use super::error::AppendError;
use super::index::fits;
use super::local_log::Log;
use super::producer_state::{SentBatch, SequenceError};
use crate::model::number::to_u64;
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::record::batch::{add_sequence, patch_position};
use crate::record::{BatchHeader, HEADER_BYTES};
use crate::system::disk::is_shortage;

/// Batches of one write: two buffers each, of the 1,024 that the operating system takes.
const RUN_BATCHES_MAX: usize = 128;
/// A run of this size is written before more is added.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// Segments that grow past this have room reserved ahead of them …
pub(super) const RESERVE_FROM_BYTES: u64 = 1 << 20;
/// … by as much as they hold, and at most this.
const RESERVE_BYTES_MAX: u64 = 32 << 20;

/// What the leader gives a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub leader_epoch: LeaderEpoch,
    pub now_ms: Timestamp,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    New {
        base_offset: Offset,
        last_offset: Offset,
    },
    /// The producer had sent it before; these are the first copy's offsets and time.
    Copy {
        base_offset: Offset,
        last_offset: Offset,
        timestamp: Timestamp,
    },
}

/// A batch whose bytes passed their checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewBatch<'a> {
    pub header: BatchHeader,
    pub bytes: &'a [u8],
}

/// Batches that are written by one call; their headers say where they go.
#[derive(Debug, Default)]
struct Run<'a> {
    batches: SmallVec<[NewBatch<'a>; 2]>,
    bytes: u64,
}

impl Run<'_> {
    /// Whether the batch is the next of its producer, whose last one stands here.
    fn precedes(&self, header: &BatchHeader) -> Option<bool> {
        let last =
            self.batches.iter().rev().find(|b| b.header.producer_id == header.producer_id)?;
        Some(
            last.header.producer_epoch == header.producer_epoch
                && add_sequence(last.header.last_sequence(), 1) == header.base_sequence,
        )
    }
}

impl Log {
    /// Appends a checked batch at the log's end.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        stamp: Stamp,
    ) -> Result<Appended, AppendError> {
        let mut outcomes = Vec::with_capacity(1);
        self.append_all(&[NewBatch { header: *header, bytes: batch }], stamp, &mut outcomes)?;
        match outcomes.pop() {
            Some(outcome) => outcome.map_err(AppendError::Sequence),
            None => unreachable!("a batch without an outcome"),
        }
    }

    /// Appends checked batches at the log's end, in their order, by as few writes as it takes. An error stands for
    /// every batch that has no outcome.
    pub(crate) fn append_all(
        &mut self,
        batches: &[NewBatch<'_>],
        stamp: Stamp,
        outcomes: &mut Vec<Result<Appended, SequenceError>>,
    ) -> Result<(), AppendError> {
        let mut run = Run::default();
        self.load_age().map_err(disk_error)?;
        for batch in batches {
            if batch.header.has_producer() {
                let follows = run.precedes(&batch.header);
                if follows == Some(false) {
                    self.write(&mut run, stamp, outcomes)?;
                }
                if follows != Some(true)
                    && let Some(outcome) = self.judge(&batch.header)
                {
                    self.write(&mut run, stamp, outcomes)?;
                    outcomes.push(outcome);
                    continue;
                }
            }
            let mut placed = self.place(batch, &run, stamp);
            if self.must_roll(&placed, (run.batches.len(), run.bytes), stamp.now_ms) {
                self.write(&mut run, stamp, outcomes)?;
                placed = self.place(batch, &run, stamp);
                if self.must_roll(&placed, (0, 0), stamp.now_ms) {
                    self.roll().map_err(disk_error)?;
                }
            }
            run.bytes += to_u64(batch.bytes.len());
            run.batches.push(NewBatch { header: placed, bytes: batch.bytes });
        }
        self.write(&mut run, stamp, outcomes)
    }

    /// What becomes of a producer's batch by what the log knows; `None` if it is to be appended.
    fn judge(&self, header: &BatchHeader) -> Option<Result<Appended, SequenceError>> {
        let copy = self.producers.check(header).transpose()?;
        Some(copy.map(|copy| already(&copy)))
    }

    fn place(&self, batch: &NewBatch<'_>, run: &Run<'_>, stamp: Stamp) -> BatchHeader {
        let last = run.batches.last();
        let mut placed = batch.header;
        placed.base_offset = last.map_or(self.log_end, |last| last.header.last_offset() + 1);
        placed.leader_epoch = stamp.leader_epoch;
        placed
    }

    /// Writes a run and empties it.
    fn write(
        &mut self,
        run: &mut Run<'_>,
        stamp: Stamp,
        outcomes: &mut Vec<Result<Appended, SequenceError>>,
    ) -> Result<(), AppendError> {
        if run.batches.is_empty() {
            return Ok(());
        }
        self.begin_epoch(stamp.leader_epoch).map_err(disk_error)?;
        self.reserve(run.bytes);
        let mut heads: SmallVec<[[u8; HEADER_BYTES]; 2]> = SmallVec::new();
        for NewBatch { header, bytes } in &run.batches {
            let mut patched = [0; HEADER_BYTES];
            patched.iter_mut().zip(*bytes).for_each(|(to, from)| *to = *from);
            patch_position(&mut patched, header.base_offset, header.leader_epoch);
            heads.push(patched);
        }
        let bodies = run.batches.iter().map(|b| b.bytes.get(HEADER_BYTES..).unwrap_or_default());
        let slices: SmallVec<[IoSlice<'_>; 4]> = heads
            .iter()
            .zip(bodies)
            .flat_map(|(head, body)| [IoSlice::new(head), IoSlice::new(body)])
            .collect();
        self.write_slices(&slices)?;
        for NewBatch { header, .. } in std::mem::take(&mut run.batches) {
            self.note_appended(&header, stamp.now_ms, true);
            let (base_offset, last_offset) = (header.base_offset, header.last_offset());
            outcomes.push(Ok(Appended::New { base_offset, last_offset }));
        }
        run.bytes = 0;
        Ok(())
    }

    pub(super) fn write_slices(&mut self, slices: &[IoSlice<'_>]) -> Result<(), AppendError> {
        self.active.file.write_at(slices, self.active.bytes).map_err(|error| {
            // Whatever part was written must not look like a batch to a later recovery.
            match self.active.file.set_len(self.active.bytes) {
                Ok(()) => disk_error(error),
                Err(_) => AppendError::Disk(error),
            }
        })
    }

    /// Reserves room ahead of a segment that has shown that it grows: the file system then has less to decide at
    /// each write, and a flush less to record. Where the topic says `preallocate`, the first record reserves the whole segment.
    pub(super) fn reserve(&mut self, bytes: u64) {
        let active = &mut self.active;
        let end = active.bytes + bytes;
        let (is_whole, whole) =
            (self.parts.config.preallocate, self.parts.config.segment_bytes.max(end));
        if (active.bytes < RESERVE_FROM_BYTES && !is_whole) || end <= active.reserved {
            return;
        }
        let ahead = (end + active.bytes.min(RESERVE_BYTES_MAX)).min(whole);
        let to = if is_whole { whole } else { ahead };
        active.reserved = to;
        if let Err(error) = active.file.reserve(active.bytes, to - active.bytes) {
            tracing::debug!(partition = %self.partition, %error, "no room reserved");
        }
    }

    /// Notes a batch that was written: the leader's, or one that was fetched.
    pub(super) fn note_appended(
        &mut self,
        placed: &BatchHeader,
        now_ms: Timestamp,
        is_produced: bool,
    ) {
        let bytes = to_u64(placed.total_bytes());
        self.active.index.note(placed, self.active.bytes, self.parts.config.index_interval_bytes);
        self.active.age.note(placed, now_ms, is_produced);
        self.active.is_sound &= placed.count > 0;
        self.active.bytes += bytes;
        self.unflushed_bytes += bytes;
        self.producers.note(placed);
        self.log_end = placed.last_offset() + 1;
    }

    /// Whether the batch needs a new segment, or to begin another run; `run`: batches and bytes before it in its run.
    pub(super) fn must_roll(
        &self,
        placed: &BatchHeader,
        (run_batches, run_bytes): (usize, u64),
        now_ms: Timestamp,
    ) -> bool {
        let active = &self.active;
        let bytes = active.bytes + run_bytes;
        if bytes == 0 {
            return false;
        }
        let config = &self.parts.config;
        let too_large = bytes + to_u64(placed.total_bytes()) > config.segment_bytes;
        let index_full =
            active.index.offset_bytes() + 8 * (run_batches + 1) > config.segment_index_bytes;
        let run_full = run_batches >= RUN_BATCHES_MAX || run_bytes >= RUN_BYTES_MAX;
        too_large
            || index_full
            || run_full
            || (active.bytes > 0 && self.is_too_old_for(placed, now_ms))
            || !fits(active.base_offset, placed.last_offset())
    }
}

fn already(copy: &SentBatch) -> Appended {
    Appended::Copy {
        base_offset: copy.last_offset - i64::from(copy.offset_delta),
        last_offset: copy.last_offset,
        timestamp: copy.timestamp,
    }
}

pub(super) fn disk_error(error: std::io::Error) -> AppendError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => AppendError::NoRoom,
        _ if is_shortage(&error) => AppendError::Shortage(error),
        _ => AppendError::Disk(error),
    }
}
