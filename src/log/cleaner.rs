//! Compaction of a local log.
//!
//! Invariants: the active segment is never touched; the last batch of each new segment, the last batch of each live producer and
//! the first of each leader epoch stay, emptied if need be; a crash at any point leaves either the old segments or the new one; a
//! pass that fails or is overtaken leaves nothing.
//! Left to others: which records stay (`compaction.rs`), how new segments take their place (`swapping.rs`), which log is next,
//! and pauses (`replication`).

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::compaction::{Compaction, CompactionRules, Kept};
use super::error::ReadError;
use super::local_log::{Log, LogParts};
use super::segment::{Segment, Walk};
use super::swapping::NewSegment;
use crate::model::number::{to_f64, to_i64, to_u64};
use crate::model::{Offset, Timestamp};
use crate::record::{BatchBuilder, BatchHeader};
use crate::system::OpenMode;
use crate::system::tasks::is_interrupted;

/// What a pass needs, taken under the log's lock; the work itself holds none.
#[derive(Debug)]
pub(crate) struct CleanPlan {
    parts: LogParts,
    /// Each with the first offset past it.
    segments: Vec<(Arc<Segment>, Offset)>,
    cleaned_to: Offset,
    copied_to: Offset,
    /// Last offset of each live producer's last batch.
    producer_ends: HashSet<Offset>,
    /// Where leader epochs begin.
    epoch_starts: HashSet<Offset>,
    now_ms: Timestamp,
    map_bytes_max: i64,
    /// How often the log had been cut.
    cuts: u64,
}

/// A pass's result, to be swapped in under the lock.
#[derive(Debug)]
pub(crate) struct Cleaned {
    parts: LogParts,
    pub(super) segments: Vec<NewSegment>,
    cleaned_to: Offset,
    cuts: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

impl Log {
    /// What there is to clean up to `bound` (the high watermark); `None` if it is not worth a pass.
    pub(crate) fn clean_plan(
        &self,
        now_ms: Timestamp,
        bound: Offset,
        map_bytes_max: i64,
    ) -> Option<CleanPlan> {
        let config = &self.parts.config;
        if !config.is_compacted {
            return None;
        }
        let lag = config.min_compaction_lag_ms;
        let limit = bound.min(self.recovery_point);
        let mut segments = Vec::new();
        let ends = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        for (segment, end) in self.closed.values().zip(ends) {
            let newest = segment.max_time(&self.parts.cache).ok()?.map(|max| max.timestamp);
            let fresh = lag > 0 && newest.is_some_and(|newest| now_ms.saturating_sub(newest) < lag);
            if end > limit || fresh {
                break;
            }
            segments.push((Arc::clone(segment), end));
        }
        let all = segments.iter().map(|(segment, _)| segment);
        let dirty = all.clone().filter(|s| s.base_offset >= self.cleaned_to);
        dirty.clone().next()?;
        // As in Apache Kafka: by the first batch of each segment, which need not be the oldest record.
        let began = dirty.clone().filter_map(|s| s.first_time().ok()).filter(|first| *first > 0);
        let overdue = began
            .min()
            .is_some_and(|oldest| now_ms.saturating_sub(oldest) > config.max_compaction_lag_ms);
        let dirty_bytes: u64 = dirty.map(|s| s.bytes).sum();
        let all_bytes: u64 = all.map(|s| s.bytes).sum();
        let ratio = to_f64(to_i64(dirty_bytes)) / to_f64(to_i64(all_bytes.max(1)));
        (ratio > config.dirty_ratio_min
            || (ratio > 0.0 && config.dirty_ratio_min <= 0.0)
            || overdue)
            .then(|| CleanPlan {
                parts: self.parts.clone(),
                segments,
                cleaned_to: self.cleaned_to,
                copied_to: self.copied_to,
                producer_ends: self
                    .producers
                    .iter()
                    .filter_map(|(_, entry)| entry.last_offset())
                    .collect(),
                epoch_starts: self.epochs.starts().collect(),
                now_ms,
                map_bytes_max,
                cuts: self.cuts,
            })
    }

    /// Puts a pass's segments in place of the old ones; those deleted meanwhile stay deleted.
    pub(crate) fn swap_cleaned(&mut self, cleaned: Cleaned) -> io::Result<()> {
        let Cleaned { segments, cleaned_to, cuts, .. } = cleaned;
        let stale_from = self.swap_in(segments)?;
        if self.cuts == cuts {
            let done_to = stale_from.map_or(cleaned_to, |stale| stale.min(cleaned_to));
            self.cleaned_to = self.cleaned_to.max(done_to);
        }
        Ok(())
    }
}

impl Cleaned {
    /// Removes what was written: there is no log any more that it could be put into.
    pub(crate) fn discard(&self) {
        self.segments.iter().for_each(|new| new.discard(&**self.parts.cache.disk()));
    }
}

impl CleanPlan {
    /// Reads, compacts and writes beside the old segments.
    /// `pace` is told of bytes moved, and may pause.
    pub(crate) fn run(&self, pace: &mut dyn FnMut(u64)) -> Result<Cleaned, ReadError> {
        let mut cleaned = Cleaned {
            parts: self.parts.clone(),
            segments: Vec::new(),
            cleaned_to: self.cleaned_to,
            cuts: self.cuts,
            bytes_read: 0,
            bytes_written: 0,
        };
        match self.run_into(&mut cleaned, pace) {
            Ok(()) => Ok(cleaned),
            Err(error) => {
                cleaned.discard();
                Err(error)
            }
        }
    }

    /// Whether segments that the pass reads were deleted, or others took their place: then it fails, and nothing is wrong.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.segments.iter().any(|(segment, _)| segment.is_retired())
    }

    fn run_into(&self, cleaned: &mut Cleaned, pace: &mut dyn FnMut(u64)) -> Result<(), ReadError> {
        let config = &self.parts.config;
        let rules = CompactionRules {
            now_ms: self.now_ms,
            delete_retention_ms: config.delete_retention_ms,
            plain_bytes_max: config.plain_bytes_max,
            // What is in object storage only is not seen here.
            keeps_tombstones: config.is_tiered,
        };
        let mut compaction = Compaction::new(rules, self.map_bytes_max);
        for (segment, end) in self.segments.iter().filter(|(s, _)| s.base_offset >= self.cleaned_to)
        {
            // One that was begun is noted whole even if the table fills up meanwhile: it is bounded by `segment.bytes`.
            if compaction.is_full() {
                break;
            }
            self.note_keys(segment, &mut compaction, pace)?;
            cleaned.cleaned_to = *end;
            cleaned.bytes_read += segment.bytes;
        }
        let cleaned_to = cleaned.cleaned_to;
        for (segment, end) in self.segments.iter().filter(|(s, _)| s.base_offset < cleaned_to) {
            let fits = cleaned.segments.last().is_some_and(|new| self.is_part(new, segment, *end));
            if !fits {
                self.finish_last(cleaned)?;
                cleaned.segments.push(NewSegment::begin(&self.parts, segment)?);
            }
            if let Some(new) = cleaned.segments.last_mut() {
                self.rewrite((segment, *end), &compaction, new, pace)?;
            }
            cleaned.bytes_read += segment.bytes;
        }
        self.finish_last(cleaned)
    }

    /// Whether a segment becomes a part of the new one that its predecessor became. What is in object storage already stays by
    /// itself: it may go sooner, and is not to be copied again.
    fn is_part(&self, new: &NewSegment, segment: &Segment, end: Offset) -> bool {
        let is_copied = |base: Offset| base < self.copied_to;
        new.has_room_for(segment, end, &self.parts.config)
            && new
                .old
                .iter()
                .all(|old| is_copied(old.base_offset) == is_copied(segment.base_offset))
    }

    fn finish_last(&self, cleaned: &mut Cleaned) -> Result<(), ReadError> {
        let disk = &**self.parts.cache.disk();
        let Some(new) = cleaned.segments.last_mut() else { return Ok(()) };
        if new.is_needless() {
            new.old.iter().for_each(|old| old.note_sound(0, new.sound_to()));
            new.discard(disk);
            cleaned.segments.pop();
            return Ok(());
        }
        new.finish(disk, self.parts.config.index_interval_bytes)?;
        cleaned.bytes_written += new.bytes;
        Ok(())
    }

    fn note_keys(
        &self,
        segment: &Segment,
        compaction: &mut Compaction,
        pace: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        self.each_batch(segment, |header, batch, _| {
            pace(to_u64(batch.len()));
            compaction.note(header, batch).map_err(|_| corrupt(segment))
        })
    }

    fn rewrite(
        &self,
        (segment, end): (&Arc<Segment>, Offset),
        compaction: &Compaction,
        new: &mut NewSegment,
        pace: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        let interval_bytes = self.parts.config.index_interval_bytes;
        self.each_batch(segment, |header, batch, is_last| {
            pace(to_u64(2 * batch.len()));
            let must_stay = self.producer_ends.contains(&header.last_offset())
                || self.epoch_starts.contains(&header.base_offset);
            let kept = compaction.keep(header, batch, must_stay).map_err(|_| corrupt(segment))?;
            match &kept {
                Kept::Whole => return Ok(new.push(batch, interval_bytes)?),
                Kept::Part(part) => new.push(part, interval_bytes)?,
                Kept::Nothing if is_last => {
                    let last = BatchBuilder::emptied(header);
                    new.is_changed |= last != batch;
                    new.hold_last(last);
                    return Ok(());
                }
                Kept::Nothing => {}
            }
            new.is_changed = true;
            Ok(())
        })?;
        new.old.push(Arc::clone(segment));
        new.end = end;
        Ok(())
    }

    fn each_batch(
        &self,
        segment: &Segment,
        mut visit: impl FnMut(&BatchHeader, &[u8], bool) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let file = self.parts.cache.disk().open(&segment.path, OpenMode::Read)?;
        let mut walk = Walk::new(&*file, &segment.path, 0, segment.bytes);
        while let Some((header, position)) = walk.next_header()? {
            if is_interrupted() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            let batch = walk.batch(&header, position)?;
            if crate::record::batch::checksum(&batch) != Some(header.crc) {
                return Err(ReadError::Corrupt { path: segment.path.clone(), position });
            }
            visit(&header, &batch, position + to_u64(batch.len()) >= segment.bytes)?;
        }
        Ok(())
    }
}

fn corrupt(segment: &Segment) -> ReadError {
    ReadError::Corrupt { path: segment.path.clone(), position: 0 }
}
