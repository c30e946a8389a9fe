//! Sparse offset and time index of one segment, and their files (Kafka's formats: 8 and 12 bytes an entry).
//!
//! Invariants: offsets, positions and timestamps grow from entry to entry; an index is a hint that recovery can
//! rebuild, so a damaged file is dropped, not trusted.

use std::io::{self, IoSlice};
use std::path::Path;

use crate::model::number::{be32, be64, to_i32, to_u32, to_u64};
use crate::model::{NO_TIMESTAMP, Offset, Timestamp};
use crate::record::BatchHeader;
use crate::system::disk::{is_no_room, read_file};
use crate::system::{Disk, OpenMode};

const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 12;

/// A batch that an index entry points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Last offset of the batch, relative to the segment's base.
    pub last_offset: u32,
    /// Where the batch begins in the file.
    pub position: u32,
}

/// The largest timestamp up to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub timestamp: Timestamp,
    /// Last offset of the batch that holds it, relative to the segment's base.
    pub offset: u32,
}

/// Both indexes of a segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentIndex {
    pub base_offset: Offset,
    offsets: Vec<IndexEntry>,
    times: Vec<TimeEntry>,
    /// Largest timestamp seen, and the last offset of its batch.
    max_time: Option<TimeEntry>,
    bytes_since_entry: u64,
    offsets_saved: usize,
    times_saved: usize,
}

impl SegmentIndex {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self { base_offset, ..Self::default() }
    }

    /// Notes an appended batch; an entry is made when `interval_bytes` passed since the last one.
    pub(crate) fn note(&mut self, header: &BatchHeader, position: u64, interval_bytes: u64) {
        let last_offset = to_u32(header.last_offset().saturating_sub(self.base_offset));
        if header.max_timestamp > self.max_time.map_or(NO_TIMESTAMP, |t| t.timestamp) {
            self.max_time =
                Some(TimeEntry { timestamp: header.max_timestamp, offset: last_offset });
        }
        if self.bytes_since_entry > interval_bytes {
            self.offsets.push(IndexEntry { last_offset, position: to_u32(position) });
            self.push_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += to_u64(header.total_bytes());
    }

    /// Largest timestamp in the segment.
    pub(crate) fn max_time(&self) -> Option<TimeEntry> {
        self.max_time
    }

    /// Bytes of the offset index's file.
    pub(crate) fn offset_bytes(&self) -> usize {
        self.offsets.len() * OFFSET_ENTRY_BYTES
    }

    pub(crate) fn last(&self) -> Option<IndexEntry> {
        self.offsets.last().copied()
    }

    /// Where to start looking for `offset`: the last entry whose batch begins at or before it for sure.
    pub(crate) fn floor(&self, offset: Offset) -> u64 {
        let relative = to_u32(offset.saturating_sub(self.base_offset));
        // The entry's batch may begin after the offset unless the batch's last offset lies below it.
        let at = self.offsets.partition_point(|entry| entry.last_offset < relative);
        at.checked_sub(1).and_then(|i| self.offsets.get(i)).map_or(0, |entry| entry.position.into())
    }

    /// Where to start looking for a record at or after `timestamp`.
    pub(crate) fn floor_of_time(&self, timestamp: Timestamp) -> u64 {
        let at = self.times.partition_point(|entry| entry.timestamp < timestamp);
        match at.checked_sub(1).and_then(|i| self.times.get(i)) {
            Some(entry) => self.floor(self.base_offset + i64::from(entry.offset)),
            None => 0,
        }
    }

    /// Drops entries that reach `offset` or lie at or past `position`.
    pub(crate) fn truncate(&mut self, offset: Offset, position: u64) {
        let relative = to_u32(offset.saturating_sub(self.base_offset));
        self.offsets.retain(|e| e.last_offset < relative && u64::from(e.position) < position);
        self.times.retain(|e| e.offset < relative);
        self.max_time = self.times.last().copied();
        self.offsets_saved = self.offsets_saved.min(self.offsets.len());
        self.times_saved = self.times_saved.min(self.times.len());
        self.bytes_since_entry = 0;
    }

    /// Appends what is new to the files; with `close` the largest timestamp becomes the last entry.
    pub(crate) fn save(&mut self, disk: &dyn Disk, log_path: &Path, close: bool) -> io::Result<()> {
        if close {
            self.push_time();
        }
        let (offsets, times) = self.encode(self.offsets_saved, self.times_saved);
        append(
            disk,
            &log_path.with_extension("index"),
            self.offsets_saved * OFFSET_ENTRY_BYTES,
            &offsets,
            close,
        )?;
        append(
            disk,
            &log_path.with_extension("timeindex"),
            self.times_saved * TIME_ENTRY_BYTES,
            &times,
            close,
        )?;
        self.offsets_saved = self.offsets.len();
        self.times_saved = self.times.len();
        Ok(())
    }

    /// The bytes of both files, from these entries on.
    pub(crate) fn encode(&self, from_offset: usize, from_time: usize) -> (Vec<u8>, Vec<u8>) {
        let entries = self.offsets.get(from_offset..).unwrap_or_default();
        let mut offsets = Vec::with_capacity(entries.len() * OFFSET_ENTRY_BYTES);
        for entry in entries {
            offsets.extend_from_slice(&entry.last_offset.to_be_bytes());
            offsets.extend_from_slice(&entry.position.to_be_bytes());
        }
        let entries = self.times.get(from_time..).unwrap_or_default();
        let mut times = Vec::with_capacity(entries.len() * TIME_ENTRY_BYTES);
        for entry in entries {
            times.extend_from_slice(&entry.timestamp.to_be_bytes());
            times.extend_from_slice(&entry.offset.to_be_bytes());
        }
        (offsets, times)
    }

    /// Saves the index of a closed segment; where there is no room none is kept, and it is made again from the log.
    pub(super) fn save_if_room(&mut self, disk: &dyn Disk, log_path: &Path) -> io::Result<()> {
        match self.save(disk, log_path, true) {
            Err(error) if is_no_room(&error) => {
                Self::remove(disk, log_path);
                Ok(())
            }
            saved => saved,
        }
    }

    /// Removes its files.
    pub(super) fn remove(disk: &dyn Disk, log_path: &Path) {
        let _ = disk.remove(&log_path.with_extension("index"));
        let _ = disk.remove(&log_path.with_extension("timeindex"));
    }

    /// Reads the files; `None` if they are missing or can't belong to a segment of `log_bytes`.
    pub(crate) fn load(
        disk: &dyn Disk,
        log_path: &Path,
        base_offset: Offset,
        log_bytes: u64,
    ) -> Option<Self> {
        let offsets = read_file(disk, &log_path.with_extension("index")).ok()?;
        let times = read_file(disk, &log_path.with_extension("timeindex")).ok()?;
        Self::decode(&offsets, &times, base_offset, log_bytes)
    }

    /// Checks and reads the bytes of both files.
    pub(crate) fn decode(
        offsets: &[u8],
        times: &[u8],
        base_offset: Offset,
        log_bytes: u64,
    ) -> Option<Self> {
        if !offsets.len().is_multiple_of(OFFSET_ENTRY_BYTES)
            || !times.len().is_multiple_of(TIME_ENTRY_BYTES)
        {
            return None;
        }
        let entry = |b: &[u8]| IndexEntry {
            last_offset: be32(b, 0).cast_unsigned(),
            position: be32(b, 4).cast_unsigned(),
        };
        let time =
            |b: &[u8]| TimeEntry { timestamp: be64(b, 0), offset: be32(b, 8).cast_unsigned() };
        let offsets: Vec<_> = offsets.chunks_exact(OFFSET_ENTRY_BYTES).map(entry).collect();
        let times: Vec<_> = times.chunks_exact(TIME_ENTRY_BYTES).map(time).collect();
        let in_order = offsets
            .is_sorted_by(|a, b| a.last_offset < b.last_offset && a.position < b.position)
            && times.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.offset <= b.offset)
            && offsets.last().is_none_or(|e| u64::from(e.position) < log_bytes)
            && offsets.iter().all(|e| i32::try_from(e.last_offset).is_ok());
        in_order.then(|| Self {
            base_offset,
            max_time: times.last().copied(),
            offsets_saved: offsets.len(),
            times_saved: times.len(),
            offsets,
            times,
            bytes_since_entry: 0,
        })
    }

    /// Nothing more is noted: makes the largest timestamp the last entry.
    pub(crate) fn close(&mut self) {
        self.push_time();
    }

    fn push_time(&mut self) {
        if let Some(max) = self.max_time
            && self.times.last().is_none_or(|last| last.timestamp < max.timestamp)
        {
            self.times.push(max);
        }
    }
}

fn append(disk: &dyn Disk, path: &Path, at: usize, bytes: &[u8], close: bool) -> io::Result<()> {
    if bytes.is_empty() && !(close && at == 0) {
        return Ok(());
    }
    let file = disk.open(path, OpenMode::Write)?;
    file.set_len(to_u64(at))?;
    file.write_at(&[IoSlice::new(bytes)], to_u64(at))
}

/// Segments hold at most this many offsets, since indexes store them in 31 bits.
pub(crate) fn fits(base_offset: Offset, last_offset: Offset) -> bool {
    to_i32(last_offset.saturating_sub(base_offset)) < i32::MAX
}
