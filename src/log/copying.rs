//! What a copy of a segment in remote storage needs of the log (KIP-405).
//!
//! Invariants: only closed segments below the bound that the caller gives; what is found is read without the log's lock, and
//! counts only if compaction put nothing else in its place meanwhile. What is copied already is not copied again, and no byte
//! counts twice, wherever in a segment of this log the copies end.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::ReadError;
use super::index::SegmentIndex;
use super::local_log::{Log, LogParts};
use super::lookup::{Search, Searched, Wanted};
use super::producer_state::ProducerStates;
use super::segment::{Segment, Walk};
use crate::model::number::{to_i64, to_u64};
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::record::BatchHeader;
use crate::system::planted::{Bug, is_planted};
use crate::system::{DiskFile, SharedFile};

/// A segment to copy, found under the log's lock.
#[derive(Debug, Clone)]
pub(crate) struct SegmentSource {
    /// The first offset that is not copied yet, and the first one past the segment.
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
    /// Where in the file its first batch that is to be copied begins, and how many bytes follow from there on.
    pub start: u64,
    pub bytes: u64,
    /// How many of them are of offsets that are to be copied.
    pub counted_bytes: u64,
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

    /// Whether what a copy reads is still the log's: local retention, the cleaner or a cut may have taken it away meanwhile.
    pub(crate) fn still_has(&self, source: &SegmentSource) -> bool {
        source.segments.iter().all(|segment| self.holds(segment))
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
        let is_large = lag_bytes >= 0 && to_i64(self.whole_from(end)) >= lag_bytes;
        !is_old && !is_large
    }

    /// Bytes of the segments that begin at or past an offset.
    fn whole_from(&self, offset: Offset) -> u64 {
        let closed = self.closed.range(offset..).map(|(_, segment)| segment.bytes);
        let is_active = self.active.base_offset >= offset;
        closed.sum::<u64>() + if is_active { self.active.bytes } else { 0 }
    }

    /// Where to look how many bytes there are from an offset on.
    pub(crate) fn bytes_from(&self, offset: Offset) -> BytesFrom {
        let offset = offset.clamp(self.log_start, self.log_end);
        let begins = self.closed.contains_key(&offset) || self.active.base_offset == offset;
        let begins_before = self.closed.keys().next().is_some_and(|base| *base < offset)
            || self.active.base_offset < offset;
        let looks = begins_before && !begins;
        // At its end nothing of a log is left, and so nothing to count twice.
        if looks && offset < self.log_end && is_planted(Bug::CountCopiedTwice) {
            let held = self.closed.range(..offset).next_back().map(|(_, segment)| segment.bytes);
            let held = held.filter(|_| offset < self.active.base_offset);
            let whole = self.whole_from(offset) + held.unwrap_or(self.active.bytes);
            return BytesFrom { whole, rest: None };
        }
        let rest = looks.then(|| self.search(offset, None, self.end()).ok().flatten()).flatten();
        BytesFrom { whole: self.whole_from(offset), rest }
    }

    /// Where the active segment begins: what lies below is closed.
    pub(crate) fn active_base(&self) -> Offset {
        self.active.base_offset
    }
}

/// How many bytes of a log there are from an offset on: made under the log's lock, told without it, since that may wait for the disk.
#[derive(Debug)]
pub(crate) struct BytesFrom {
    /// Bytes of the segments that begin past the offset.
    whole: u64,
    /// Where to look in the segment that the offset lies in.
    rest: Option<Search>,
}

impl BytesFrom {
    /// Looks. What can't be read is not counted: whoever deletes by size then keeps more.
    pub(crate) fn run(&self) -> u64 {
        let found = self.rest.as_ref().map(|rest| rest.run(Wanted::Log, usize::MAX, false));
        let rest = match found {
            Some(Ok(Searched::Slice(Some(slice)))) => to_u64(slice.bytes),
            _ => 0,
        };
        self.whole + rest
    }
}

impl SegmentSource {
    /// Opens the segment's file and reads what belongs to it; `None` if compaction put another one in its place meanwhile.
    /// Blocks on the disk.
    pub(crate) fn open(&self) -> Result<Option<OpenSegment>, ReadError> {
        match self.open_now() {
            // Its file, or that of one before it, is there no more.
            Err(_) if self.segments.iter().any(|segment| segment.is_retired()) => Ok(None),
            opened => opened,
        }
    }

    fn open_now(&self) -> Result<Option<OpenSegment>, ReadError> {
        let segment = self.segments.last().ok_or(ReadError::OutOfRange {
            offset: self.from,
            start: self.from,
            end: self.end,
        })?;
        let cache = &self.parts.cache;
        let file = segment.file()?;
        let (mut start, mut counted_bytes) = (0, segment.bytes);
        let mut index = segment.index(cache)?;
        if self.from > segment.base_offset {
            let rest = self.rest_of(segment, &*file)?;
            (start, counted_bytes, index) = (rest.start, rest.counted_bytes, Arc::new(rest.index));
        }
        let max_timestamp = index.max_time().map_or(-1, |max| max.timestamp);
        let (bytes, producers) = (segment.bytes - start, self.producers()?);
        let opened =
            OpenSegment { file, start, bytes, counted_bytes, index, max_timestamp, producers };
        Ok((!segment.is_retired()).then_some(opened))
    }

    /// What is not copied yet of a segment that is copied in part, from the batch that holds the first offset on. Where compaction left
    /// none of them it is the last batch, which then stands for nothing: an object holds something.
    fn rest_of(&self, segment: &Segment, file: &dyn DiskFile) -> Result<Rest, ReadError> {
        let mut walk = Walk::new(file, &segment.path, 0, segment.bytes);
        // Where compaction left a gap the copy begins before its first batch.
        let base = |header: &BatchHeader| header.base_offset.min(self.from);
        let (mut rest, mut last) = (None, None);
        while let Some((header, position)) = walk.next_header()? {
            last = Some((header, position));
            if header.last_offset() >= self.from {
                let rest =
                    rest.get_or_insert_with(|| Rest::begin(segment, base(&header), position));
                rest.note(&header, position, self.parts.config.index_interval_bytes);
            }
        }
        let rest = rest.or_else(|| {
            let (header, position) = last?;
            let mut rest =
                Rest { counted_bytes: 0, ..Rest::begin(segment, base(&header), position) };
            rest.note(&header, position, self.parts.config.index_interval_bytes);
            Some(rest)
        });
        let corrupt = || ReadError::Corrupt { path: segment.path.clone(), position: 0 };
        let mut rest = rest.ok_or_else(corrupt)?;
        rest.index.close();
        Ok(rest)
    }

    /// Replays headers past the newest snapshot that helps.
    fn producers(&self) -> Result<ProducerStates, ReadError> {
        let base = self.segments.first().map_or(self.end, |segment| segment.base_offset);
        let snapshot = Log::load_producers(&self.parts, &self.dir, (base, self.end))?;
        let (from, mut states) = snapshot.unwrap_or_default();
        let first = self.segments.partition_point(|segment| segment.base_offset <= from);
        for segment in
            self.segments.iter().skip(first.saturating_sub(1)).filter(|_| from < self.end)
        {
            let file = segment.file()?;
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

/// The end of a segment, as if it were one.
struct Rest {
    start: u64,
    counted_bytes: u64,
    index: SegmentIndex,
}

impl Rest {
    fn begin(segment: &Segment, base_offset: Offset, start: u64) -> Self {
        let index = SegmentIndex::new(base_offset);
        Self { start, counted_bytes: segment.bytes - start, index }
    }

    fn note(&mut self, header: &BatchHeader, position: u64, interval_bytes: u64) {
        self.index.note(header, position - self.start, interval_bytes);
    }
}
