//! Compaction of a local log.
//!
//! Invariants: the active segment is never touched; the last batch of a cleaned segment and the last batch of each live
//! producer stay, emptied if need be; a crash at any point leaves either the old segment or the new one.
//! Left to others: which records stay (`compaction.rs`), which log is next, and pauses (`replication`).

use std::io::IoSlice;
use std::sync::Arc;

use super::compaction::{Compaction, CompactionRules, Kept};
use super::error::ReadError;
use super::local_log::{Log, LogParts};
use super::segment::{Segment, Walk};
use crate::model::number::{to_f64, to_i64, to_u64};
use crate::model::{Offset, Timestamp};
use crate::record::BatchHeader;
use crate::system::{OpenMode, SharedFile};

/// What a pass needs, taken under the log's lock; the work itself holds none.
#[derive(Debug)]
pub(crate) struct CleanPlan {
    parts: LogParts,
    segments: Vec<Arc<Segment>>,
    cleaned_to: Offset,
    /// Last offset of each live producer's last batch.
    producer_ends: Vec<Offset>,
    /// Where leader epochs begin.
    epoch_starts: Vec<Offset>,
    now_ms: Timestamp,
    map_bytes_max: i64,
}

/// A pass's result, to be swapped in under the lock.
#[derive(Debug)]
pub(crate) struct Cleaned {
    replaced: Vec<(Arc<Segment>, u64)>,
    cleaned_to: Offset,
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
            segments.push(Arc::clone(segment));
        }
        let dirty = segments.iter().filter(|s| s.base_offset >= self.cleaned_to);
        let first_dirty = dirty.clone().next()?;
        let dirty_bytes: u64 = dirty.map(|s| s.bytes).sum();
        let all_bytes: u64 = segments.iter().map(|s| s.bytes).sum();
        let ratio = to_f64(to_i64(dirty_bytes)) / to_f64(to_i64(all_bytes.max(1)));
        let oldest =
            first_dirty.max_time(&self.parts.cache).ok()?.map_or(now_ms, |max| max.timestamp);
        let overdue = now_ms.saturating_sub(oldest) > config.max_compaction_lag_ms;
        (ratio > config.dirty_ratio_min
            || (ratio > 0.0 && config.dirty_ratio_min <= 0.0)
            || overdue)
            .then(|| CleanPlan {
                parts: self.parts.clone(),
                segments,
                cleaned_to: self.cleaned_to,
                producer_ends: self
                    .producers
                    .iter()
                    .filter_map(|(_, entry)| entry.last_offset())
                    .collect(),
                epoch_starts: self.epochs.starts().collect(),
                now_ms,
                map_bytes_max,
            })
    }

    /// Puts a pass's segments in place of the old ones; those deleted meanwhile stay deleted.
    pub(crate) fn swap_cleaned(&mut self, cleaned: Cleaned) -> std::io::Result<()> {
        let disk = Arc::clone(self.parts.cache.disk());
        for (old, bytes) in cleaned.replaced {
            let current =
                self.closed.get(&old.base_offset).is_some_and(|now| Arc::ptr_eq(now, &old));
            let path = old.path.with_extension("cleaned");
            if !current {
                disk.remove(&path)?;
                continue;
            }
            old.retire();
            // Indexes are hints: without them a reader rebuilds, with stale ones it would be led astray.
            for ending in ["index", "timeindex"] {
                let _ = disk.remove(&old.path.with_extension(ending));
            }
            disk.sync_dir(&self.dir)?;
            disk.rename(&path, &old.path)?;
            self.parts.cache.forget(&old.path);
            let segment = Arc::new(Segment::new(old.base_offset, old.path.clone(), bytes));
            self.closed.insert(old.base_offset, segment);
        }
        disk.sync_dir(&self.dir)?;
        self.cleaned_to = cleaned.cleaned_to;
        Ok(())
    }
}

impl CleanPlan {
    /// Reads, compacts and writes beside the old segments.
    /// `pace` is told of bytes moved, and may pause.
    pub(crate) fn run(&self, pace: &mut dyn FnMut(u64)) -> Result<Cleaned, ReadError> {
        let config = &self.parts.config;
        let rules = CompactionRules {
            now_ms: self.now_ms,
            delete_retention_ms: config.delete_retention_ms,
            plain_bytes_max: config.plain_bytes_max,
            // What is in object storage only is not seen here.
            keeps_tombstones: config.is_tiered,
        };
        let mut compaction = Compaction::new(rules, self.map_bytes_max);
        let mut cleaned = Cleaned {
            replaced: Vec::new(),
            cleaned_to: self.cleaned_to,
            bytes_read: 0,
            bytes_written: 0,
        };
        for segment in self.segments.iter().filter(|s| s.base_offset >= self.cleaned_to) {
            if compaction.is_full() {
                break;
            }
            cleaned.cleaned_to = self.note_keys(segment, &mut compaction, pace)?;
            cleaned.bytes_read += segment.bytes;
        }
        for segment in self.segments.iter().filter(|s| s.base_offset < cleaned.cleaned_to) {
            let bytes = self.rewrite(segment, &compaction, pace)?;
            cleaned.bytes_read += segment.bytes;
            cleaned.bytes_written += bytes;
            cleaned.replaced.push((Arc::clone(segment), bytes));
        }
        Ok(cleaned)
    }

    /// Notes a segment's keys; returns the offset after its last batch. A segment is taken whole even if the table fills up
    /// meanwhile: it is bounded by `segment.bytes`.
    fn note_keys(
        &self,
        segment: &Segment,
        compaction: &mut Compaction,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Offset, ReadError> {
        let mut next = segment.base_offset;
        self.each_batch(segment, |header, batch, _| {
            pace(to_u64(batch.len()));
            next = header.last_offset() + 1;
            compaction.note(header, batch).map_err(|_| corrupt(segment))
        })?;
        Ok(next)
    }

    fn rewrite(
        &self,
        segment: &Segment,
        compaction: &Compaction,
        pace: &mut dyn FnMut(u64),
    ) -> Result<u64, ReadError> {
        let path = segment.path.with_extension("cleaned");
        let file: SharedFile = self.parts.cache.disk().open(&path, OpenMode::Replace)?;
        let mut written = 0;
        self.each_batch(segment, |header, batch, is_last| {
            pace(to_u64(2 * batch.len()));
            let must_stay = is_last
                || self.producer_ends.contains(&header.last_offset())
                || self.epoch_starts.contains(&header.base_offset);
            let kept = compaction.keep(header, batch, must_stay).map_err(|_| corrupt(segment))?;
            let kept = match &kept {
                Kept::Whole => batch,
                Kept::Part(batch) => batch,
                Kept::Nothing => return Ok(()),
            };
            file.write_at(&[IoSlice::new(kept)], written)?;
            written += to_u64(kept.len());
            Ok(())
        })?;
        file.sync()?;
        Ok(written)
    }

    fn each_batch(
        &self,
        segment: &Segment,
        mut visit: impl FnMut(&BatchHeader, &[u8], bool) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let file = self.parts.cache.disk().open(&segment.path, OpenMode::Read)?;
        let mut walk = Walk::new(&*file, &segment.path, 0, segment.bytes);
        while let Some((header, position)) = walk.next_header()? {
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
