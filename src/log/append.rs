//! Appending a batch.
//!
//! Invariants: the record bytes are written as they came; only the 61-byte header is copied, to set base offset and
//! leader epoch; after a failed write the file is cut back to what was there.

use std::io::{ErrorKind, IoSlice};

use super::error::AppendError;
use super::index::fits;
use super::local_log::Log;
use super::producer_state::SentBatch;
use crate::model::number::to_u64;
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::record::batch::patch_position;
use crate::record::{BatchHeader, HEADER_BYTES};

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

impl Log {
    /// Appends a checked batch at the log's end.
    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        stamp: Stamp,
    ) -> Result<Appended, AppendError> {
        if header.has_producer()
            && let Some(copy) = self.producers.check(header)?
        {
            return Ok(already(&copy));
        }
        let mut placed = *header;
        placed.base_offset = self.log_end;
        placed.leader_epoch = stamp.leader_epoch;
        if self.must_roll(&placed, batch.len(), stamp.now_ms) {
            self.roll().map_err(disk_error)?;
        }
        self.begin_epoch(stamp.leader_epoch).map_err(disk_error)?;
        self.write(&placed, batch)?;
        self.note_appended(&placed, stamp.now_ms);
        Ok(Appended::New { base_offset: placed.base_offset, last_offset: placed.last_offset() })
    }

    fn write(&mut self, placed: &BatchHeader, batch: &[u8]) -> Result<(), AppendError> {
        let (head, body) = batch.split_at(HEADER_BYTES.min(batch.len()));
        let mut patched = [0; HEADER_BYTES];
        patched.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
        patch_position(&mut patched, placed.base_offset, placed.leader_epoch);
        let slices = [IoSlice::new(&patched), IoSlice::new(body)];
        self.active.file.write_at(&slices, self.active.bytes).map_err(|error| {
            // Whatever part was written must not look like a batch to a later recovery.
            match (error.kind(), self.active.file.set_len(self.active.bytes)) {
                (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, Ok(())) => AppendError::NoRoom,
                _ => AppendError::Disk(error),
            }
        })
    }

    fn note_appended(&mut self, placed: &BatchHeader, now_ms: Timestamp) {
        let bytes = to_u64(placed.total_bytes());
        self.active.index.note(placed, self.active.bytes, self.parts.config.index_interval_bytes);
        self.active.first_append_ms.get_or_insert(now_ms);
        self.active.bytes += bytes;
        self.unflushed_bytes += bytes;
        self.producers.note(placed);
        self.log_end = placed.last_offset() + 1;
    }

    fn must_roll(&self, placed: &BatchHeader, bytes: usize, now_ms: Timestamp) -> bool {
        let active = &self.active;
        if active.bytes == 0 {
            return false;
        }
        let config = &self.parts.config;
        let too_large = active.bytes + to_u64(bytes) > config.segment_bytes;
        let index_full = active.index.offset_bytes() + 8 > config.segment_index_bytes;
        too_large
            || index_full
            || self.is_old(now_ms)
            || !fits(active.base_offset, placed.last_offset())
    }

    /// Whether the active segment has passed `segment.ms`.
    pub(super) fn is_old(&self, now_ms: Timestamp) -> bool {
        let limit = self.parts.config.segment_ms.saturating_sub(self.roll_jitter_ms).max(1);
        self.active.first_append_ms.is_some_and(|first| now_ms.saturating_sub(first) >= limit)
    }
}

fn already(copy: &SentBatch) -> Appended {
    Appended::Copy {
        base_offset: copy.last_offset - i64::from(copy.offset_delta),
        last_offset: copy.last_offset,
        timestamp: copy.timestamp,
    }
}

fn disk_error(error: std::io::Error) -> AppendError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => AppendError::NoRoom,
        _ => AppendError::Disk(error),
    }
}
