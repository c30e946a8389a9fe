//! What a copy of a segment in remote storage needs of the log (KIP-405).
//!
//! Invariants: only closed segments below the bound that the caller gives; what is found is read without the log's lock, and
//! counts only if compaction put nothing else in its place meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::ReadError;
use super::index::SegmentIndex;
use super::local_log::{Log, LogParts};
use super::producer_state::ProducerStates;
use super::segment::{Segment, Walk};
use crate::model::number::to_i64;
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::system::SharedFile;

/// A segment to copy, found under the log's lock.
#[derive(Debug)]
pub(crate) struct SegmentSource {
    /// The segment's base offset, the first offset that is not copied yet, and the first one past the segment.
    pub base_offset: Offset,
    pub from: Offset,
    pub end: Offset,
    /// Closed segments that come after it.
    pub after: usize,
    /// Where each epoch begins that has records in the range.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    pub is_compacted: bool,
    /// The log's closed segments up to this one, which is the last.
    segments: Vec<Arc<Segment>>,
    parts: LogParts,
    dir: PathBuf,
}

/// What is read of it.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub file: SharedFile,
    pub bytes: u64,
    pub index: Arc<SegmentIndex>,
    pub max_timestamp: Timestamp,
    /// What the log knew of its producers at the segment's end.
    pub producers: ProducerStates,
}

impl Log {
    /// The first closed segment that holds something at or past `from` and ends at or below `bound`, if it is time to copy it.
    pub(crate) fn segment_to_copy(
        &self,
        (from, bound): (Offset, Offset),
        now_ms: Timestamp,
    ) -> Option<SegmentSource> {
        let bound = bound.min(self.recovery_point);
        let ends = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        let (at, ((_, segment), end)) =
            self.closed.iter().zip(ends).enumerate().find(|(_, (_, end))| *end > from)?;
        if end > bound || segment.bytes == 0 || self.is_early(segment, end, now_ms) {
            return None;
        }
        let from = from.max(segment.base_offset);
        Some(SegmentSource {
            base_offset: segment.base_offset,
            from,
            end,
            after: self.closed.len() - at - 1,
            epochs: self.epochs.between(from, end),
            is_compacted: self.parts.config.is_compacted,
            segments: self.closed.values().take(at + 1).cloned().collect(),
            parts: self.parts.clone(),
            dir: self.dir.clone(),
        })
    }

    /// Whether a segment waits for its age, or for what is to come after it (KIP-1241).
    fn is_early(&self, segment: &Segment, end: Offset, now_ms: Timestamp) -> bool {
        let config = &self.parts.config;
        let (lag_ms, lag_bytes) = (config.copy_lag_ms, config.copy_lag_bytes);
        if lag_ms == 0 {
            return false;
        }
        // What can't be read is found out when it is copied.
        let newest = segment.max_time(&self.parts.cache).ok().flatten();
        let is_old = lag_ms > 0
            && newest.is_none_or(|newest| now_ms.saturating_sub(newest.timestamp) >= lag_ms);
        let is_large = lag_bytes >= 0 && to_i64(self.bytes_from(end)) >= lag_bytes;
        !is_old && !is_large
    }

    /// Bytes of the segments that hold something at or past an offset.
    pub(crate) fn bytes_from(&self, offset: Offset) -> u64 {
        let ends = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        let closed = self.closed.values().zip(ends).filter(|(_, end)| *end > offset);
        closed.map(|(segment, _)| segment.bytes).sum::<u64>() + self.active.bytes
    }

    /// Where the active segment begins: what lies below is closed.
    pub(crate) fn active_base(&self) -> Offset {
        self.active.base_offset
    }
}

impl SegmentSource {
    /// Opens the segment's file and reads what belongs to it; `None` if compaction put another one in its place meanwhile.
    /// Blocks on the disk.
    pub(crate) fn open(&self) -> Result<Option<OpenSegment>, ReadError> {
        let segment = self.segments.last().ok_or(ReadError::OutOfRange {
            offset: self.from,
            start: self.from,
            end: self.end,
        })?;
        let cache = &self.parts.cache;
        let index = segment.index(cache)?;
        let max_timestamp = segment.max_time(cache)?.map_or(-1, |max| max.timestamp);
        let file = cache.file(&segment.path)?;
        let producers = self.producers()?;
        let opened = OpenSegment { file, bytes: segment.bytes, index, max_timestamp, producers };
        Ok((!segment.is_retired()).then_some(opened))
    }

    /// Replays headers past the newest snapshot that helps.
    fn producers(&self) -> Result<ProducerStates, ReadError> {
        let snapshot = Log::load_producers(&self.parts, &self.dir, self.end)?;
        let (from, mut states) = snapshot.unwrap_or_default();
        let first = self.segments.partition_point(|segment| segment.base_offset <= from);
        for segment in
            self.segments.iter().skip(first.saturating_sub(1)).filter(|_| from < self.end)
        {
            let file = self.parts.cache.file(&segment.path)?;
            let mut walk = Walk::new(&*file, &segment.path, 0, segment.bytes);
            while let Some((header, _)) = walk.next_header()? {
                if header.base_offset >= from {
                    states.note(&header);
                }
            }
        }
        Ok(states)
    }
}
