//! Deleting old segments and trimming the log's start.
//!
//! Invariants: only closed segments go, oldest first; the start never passes the bound that the caller gives (the
//! high watermark); files are renamed at once and removed later, so a reader that has one open finishes.

use std::path::PathBuf;

use super::error::ReadError;
use super::local_log::Log;
use super::segment::Segment;
use crate::config::TopicConfig;
use crate::model::number::to_i64;
use crate::model::{Offset, Timestamp};

/// Segments that one call deletes: the caller holds the log's lock.
const DELETED_AT_ONCE: usize = 8;

/// Files to remove after `file.delete.delay.ms`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeletedSegment {
    pub files: Vec<PathBuf>,
}

/// How old, and how large, what is on local disk may be; -1: no limit.
fn limits(config: &TopicConfig) -> (i64, i64) {
    if config.is_tiered {
        (config.local_retention_ms, config.local_retention_bytes)
    } else {
        (config.retention_ms, config.retention_bytes)
    }
}

impl Log {
    /// Deletes what retention no longer wants below `bound`, a few segments; to be called again until there are none.
    pub(crate) fn apply_retention(
        &mut self,
        now_ms: Timestamp,
        bound: Offset,
    ) -> Result<Vec<DeletedSegment>, ReadError> {
        let config = self.parts.config.clone();
        // Recovery relies on this: what is missing past the recovery point was lost, not deleted. The caller's bound is not
        // past the one that is written.
        let bound = bound.min(self.recovery_point);
        self.snapshots.committed = bound;
        let with_snapshot = if self.producers.is_empty() {
            Offset::MAX
        } else {
            self.snapshots.last_durable(bound)
        };
        let (retention_ms, _) = limits(&config);
        // What is in object storage may go here whatever becomes of it there.
        let is_limited = config.is_deleted || config.is_tiered;
        let mut deleted = Vec::new();
        if is_limited
            && retention_ms >= 0
            && self.closed.is_empty()
            && self.is_expired_active(now_ms)
        {
            self.roll()?;
        }
        while deleted.len() < DELETED_AT_ONCE
            && let Some(segment) = self.closed.values().next().cloned()
        {
            let next = self.closed.keys().nth(1).copied().unwrap_or(self.active.base_offset);
            if next > bound {
                break;
            }
            let below_start = next <= self.log_start;
            let expired = is_limited && self.is_expired(&segment, now_ms)?;
            // What is wanted still goes only once it is known to be in remote storage.
            let is_safe = !config.is_tiered || next <= self.copied_to;
            let goes = below_start || (expired && is_safe);
            if !goes {
                break;
            }
            if next > with_snapshot {
                // What producers sent is known from here only, until a snapshot that says so is on the disk.
                self.retention_waits = true;
                break;
            }
            segment.retire();
            self.closed.remove(&segment.base_offset);
            self.log_start = self.log_start.max(next);
            deleted.push(self.rename_deleted(&segment));
        }
        Ok(deleted)
    }

    /// Whether the oldest segment is too old, or the log too large with it.
    fn is_expired(&self, segment: &Segment, now_ms: Timestamp) -> Result<bool, ReadError> {
        let (retention_ms, size_limit) = limits(&self.parts.config);
        if size_limit >= 0 && to_i64(self.bytes() - segment.bytes) >= size_limit {
            return Ok(true);
        }
        if retention_ms < 0 {
            return Ok(false);
        }
        let newest = self.newest_since(segment)?;
        Ok(newest.is_some_and(|newest| now_ms.saturating_sub(newest) > retention_ms))
    }

    /// The largest timestamp of a segment. One that has none (compaction took its records, and an earlier release their time) is
    /// no younger than what was written after it.
    fn newest_since(&self, segment: &Segment) -> Result<Option<Timestamp>, ReadError> {
        for (_, later) in self.closed.range(segment.base_offset..) {
            if let Some(max) = later.max_time(&self.parts.cache)? {
                return Ok(Some(max.timestamp));
            }
        }
        Ok(self.active.index.max_time().map(|max| max.timestamp))
    }

    /// Notes up to where the log is known to be in remote storage.
    pub(crate) fn set_copied_to(&mut self, offset: Offset) {
        self.copied_to = offset;
    }

    /// Whether local retention waits for nothing but to know that a segment is in remote storage.
    pub(crate) fn waits_for_copy(&self, now_ms: Timestamp) -> bool {
        let config = &self.parts.config;
        let Some(first) = self.closed.values().next().filter(|_| config.is_tiered) else {
            return false;
        };
        let next = self.closed.keys().nth(1).copied().unwrap_or(self.active.base_offset);
        next > self.copied_to && self.is_expired(first, now_ms).unwrap_or(false)
    }

    /// Moves the log's start up to `offset` (DeleteRecords); returns the new start.
    pub(crate) fn trim(&mut self, offset: Offset) -> Offset {
        self.log_start = self.log_start.max(offset.min(self.log_end));
        self.log_start
    }

    fn is_expired_active(&self, now_ms: Timestamp) -> bool {
        let newest = self.active.index.max_time().map(|max| max.timestamp);
        let (retention_ms, _) = limits(&self.parts.config);
        newest.is_some_and(|newest| now_ms.saturating_sub(newest) > retention_ms)
    }

    fn rename_deleted(&mut self, segment: &Segment) -> DeletedSegment {
        let (base_offset, path) = (segment.base_offset, &segment.path);
        tracing::info!(partition = %self.partition, base_offset, "segment deleted");
        self.dir_changed = true;
        let disk = self.parts.cache.disk();
        let mut files = Vec::new();
        for ending in ["log", "index", "timeindex", "txnindex"] {
            let from = path.with_extension(ending);
            let to = path.with_extension(format!("{ending}.deleted"));
            if disk.rename(&from, &to).is_ok() {
                files.push(to);
            }
        }
        DeletedSegment { files }
    }
}
