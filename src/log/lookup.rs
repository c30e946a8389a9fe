//! Finding bytes by offset and records by time.
//!
//! Invariants: a slice begins at a batch and never passes the bound that the caller gives; bytes are not read here
//! but for headers.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::ReadError;
use super::index::TimeEntry;
use super::local_log::{Log, Position};
use super::segment::{Segment, Walk, batch_bytes_at};
use crate::model::number::{to_u64, to_usize};
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::record::Records;
use crate::system::{DiskFile, SharedFile};

/// A range of a segment's file that holds whole batches but perhaps the last.
#[derive(Debug, Clone)]
pub(crate) struct LogSlice {
    pub file: SharedFile,
    pub byte: u64,
    pub bytes: usize,
    /// Whether the range lies in the active segment.
    pub is_active: bool,
}

impl LogSlice {
    /// Reads the range.
    pub(crate) fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; self.bytes];
        let read = crate::system::disk::read_full(&*self.file, &mut buffer, self.byte)?;
        buffer.truncate(read);
        Ok(buffer)
    }
}

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundRecord {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub leader_epoch: LeaderEpoch,
}

/// One segment, closed or active, as readers see it.
struct View {
    base_offset: Offset,
    path: PathBuf,
    file: SharedFile,
    bytes: u64,
    is_active: bool,
}

impl Log {
    /// The bytes from the batch that holds `offset` up to `end` (exclusive), at most `bytes_max`, but the first
    /// batch whole if `first_whole`. Empty at `end`.
    pub(crate) fn slice(
        &self,
        offset: Offset,
        end: Position,
        bytes_max: usize,
        first_whole: bool,
    ) -> Result<Option<LogSlice>, ReadError> {
        if offset < self.log_start || offset > self.log_end {
            return Err(ReadError::OutOfRange { offset, start: self.log_start, end: self.log_end });
        }
        if offset >= end.offset {
            return Ok(None);
        }
        let Some((view, byte)) = self.position_of(offset)? else { return Ok(None) };
        let limit = if view.base_offset == end.segment { end.byte } else { view.bytes };
        let available = limit.saturating_sub(byte);
        if available == 0 {
            return Ok(None);
        }
        let mut bytes = to_usize(available.min(to_u64(bytes_max)));
        if to_u64(bytes) < available && first_whole {
            bytes = bytes.max(batch_bytes_at(&*view.file, &view.path, byte)?);
        }
        Ok((bytes > 0).then_some(LogSlice {
            file: view.file,
            byte,
            bytes,
            is_active: view.is_active,
        }))
    }

    /// The first record at or after `timestamp` below `end`.
    pub(crate) fn find_time(
        &self,
        timestamp: Timestamp,
        end: Offset,
    ) -> Result<Option<FoundRecord>, ReadError> {
        for segment in self.closed.values() {
            if segment.max_time(&self.parts.cache)?.is_none_or(|max| max.timestamp < timestamp) {
                continue;
            }
            let from = segment.index(&self.parts.cache)?.floor_of_time(timestamp);
            if let Some(found) = self.scan_time(&self.view_of(segment)?, from, timestamp, end)? {
                return Ok(Some(found));
            }
        }
        let from = self.active.index.floor_of_time(timestamp);
        self.scan_time(&self.active_view(), from, timestamp, end)
    }

    /// The record with the largest timestamp (the first of them).
    pub(crate) fn find_max_time(&self) -> Result<Option<FoundRecord>, ReadError> {
        let mut best: Option<TimeEntry> = None;
        for segment in self.closed.values() {
            let max = segment.max_time(&self.parts.cache)?;
            best = max.filter(|max| best.is_none_or(|b| max.timestamp > b.timestamp)).or(best);
        }
        let max = self.active.index.max_time();
        best = max.filter(|max| best.is_none_or(|b| max.timestamp > b.timestamp)).or(best);
        match best {
            Some(best) => self.find_time(best.timestamp, self.log_end),
            None => Ok(None),
        }
    }

    fn scan_time(
        &self,
        view: &View,
        from: u64,
        at: Timestamp,
        end: Offset,
    ) -> Result<Option<FoundRecord>, ReadError> {
        let mut walk = Walk::new(&*view.file, &view.path, from, view.bytes);
        while let Some((header, position)) = walk.next_header()? {
            if header.base_offset >= end {
                return Ok(None);
            }
            if header.max_timestamp < at || header.last_offset() < self.log_start {
                continue;
            }
            let batch = walk.batch(&header, position)?;
            let corrupt = || ReadError::Corrupt { path: view.path.clone(), position };
            let records = Records::open(header, &batch, self.parts.config.plain_bytes_max)
                .map_err(|_| corrupt())?;
            for record in &records {
                let record = record.map_err(|_| corrupt())?;
                if record.timestamp >= at && record.offset >= self.log_start && record.offset < end
                {
                    let leader_epoch = header.leader_epoch;
                    return Ok(Some(FoundRecord {
                        offset: record.offset,
                        timestamp: record.timestamp,
                        leader_epoch,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The segment and byte of the first batch whose last offset is at least `offset`.
    fn position_of(&self, offset: Offset) -> Result<Option<(View, u64)>, ReadError> {
        if offset >= self.active.base_offset {
            let from = self.active.index.floor(offset);
            let view = self.active_view();
            return Ok(find_batch(&view, from, offset)?.map(|byte| (view, byte)));
        }
        let first = self.closed.range(..=offset).next_back().map_or(offset, |(base, _)| *base);
        for segment in self.closed.range(first..).map(|(_, segment)| segment) {
            let from = segment.index(&self.parts.cache)?.floor(offset);
            let view = self.view_of(segment)?;
            if let Some(byte) = find_batch(&view, from, offset)? {
                return Ok(Some((view, byte)));
            }
        }
        let view = self.active_view();
        Ok(find_batch(&view, 0, offset)?.map(|byte| (view, byte)))
    }

    fn active_view(&self) -> View {
        View {
            base_offset: self.active.base_offset,
            path: self.active.path.clone(),
            file: Arc::clone(&self.active.file),
            bytes: self.active.bytes,
            is_active: true,
        }
    }

    fn view_of(&self, segment: &Segment) -> Result<View, ReadError> {
        Ok(View {
            base_offset: segment.base_offset,
            path: segment.path.clone(),
            file: self.parts.cache.file(&segment.path)?,
            bytes: segment.bytes,
            is_active: false,
        })
    }
}

fn find_batch(view: &View, from: u64, offset: Offset) -> Result<Option<u64>, ReadError> {
    let file: &dyn DiskFile = &*view.file;
    let mut walk = Walk::new(file, &view.path, from, view.bytes);
    while let Some((header, position)) = walk.next_header()? {
        if header.last_offset() >= offset {
            return Ok(Some(position));
        }
    }
    Ok(None)
}
