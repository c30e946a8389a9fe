//! Finding bytes by offset and records by time.
//!
//! Invariants: a slice begins at a batch and never passes the bound that the caller gives; bytes are not read here
//! but for headers.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::ReadError;
use super::file_cache::FileCache;
use super::index::TimeEntry;
use super::local_log::{Log, Position};
use super::segment::{Segment, Walk, batch_bytes_at};
use crate::model::number::{to_u64, to_usize};
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::record::{BatchHeader, RecordError, Records};
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

impl FoundRecord {
    /// The first record of a batch at or after a time, among these offsets.
    pub(crate) fn first_since(
        header: &BatchHeader,
        batch: &[u8],
        timestamp: Timestamp,
        offsets: &std::ops::Range<Offset>,
        plain_bytes_max: usize,
    ) -> Result<Option<Self>, RecordError> {
        let records = Records::open(*header, batch, plain_bytes_max)?;
        for record in &records {
            let record = record?;
            if record.timestamp >= timestamp && offsets.contains(&record.offset) {
                let (offset, timestamp) = (record.offset, record.timestamp);
                return Ok(Some(Self { offset, timestamp, leader_epoch: header.leader_epoch }));
            }
        }
        Ok(None)
    }
}

/// One segment as readers see it.
#[derive(Debug)]
struct View {
    base_offset: Offset,
    path: PathBuf,
    file: SharedFile,
    bytes: u64,
}

/// A segment that may hold what is looked for.
#[derive(Debug)]
enum Candidate {
    Closed(Arc<Segment>),
    /// With the byte to look from.
    Active(View, u64),
}

/// A look-up by offset: made under the log's lock, carried out without it, since it may wait for the disk. What it
/// finds holds if `Log::still_holds` says so afterwards.
#[derive(Debug)]
pub(crate) struct Search {
    candidate: Candidate,
    offset: Offset,
    end: Position,
    cache: Arc<FileCache>,
}

/// What a search of one segment finds.
#[derive(Debug)]
pub(crate) enum Searched {
    /// `None`: nothing below the end.
    Slice(Option<LogSlice>),
    /// Compaction left nothing at or past the offset in this segment; look past this base offset.
    Past(Offset),
}

/// A look-up by time: as `Search`, over all segments.
#[derive(Debug)]
pub(crate) struct TimeSearch {
    closed: Vec<Arc<Segment>>,
    active: View,
    active_from: u64,
    active_max: Option<TimeEntry>,
    bounds: std::ops::Range<Offset>,
    plain_bytes_max: usize,
    cache: Arc<FileCache>,
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
        let mut past = None;
        while let Some(search) = self.search(offset, past, end)? {
            match search.run(bytes_max, first_whole)? {
                Searched::Slice(slice) => return Ok(slice),
                Searched::Past(base_offset) => past = Some(base_offset),
            }
        }
        Ok(None)
    }

    /// Where to look for `offset`; `None` where nothing lies between it and `end`. `past`: the segment that a search
    /// before this one found empty.
    pub(crate) fn search(
        &self,
        offset: Offset,
        past: Option<Offset>,
        end: Position,
    ) -> Result<Option<Search>, ReadError> {
        if offset < self.log_start || offset > self.log_end {
            return Err(ReadError::OutOfRange { offset, start: self.log_start, end: self.log_end });
        }
        if offset >= end.offset {
            return Ok(None);
        }
        let closed = match past {
            _ if offset >= self.active.base_offset => None,
            Some(base) => self.closed.range((Bound::Excluded(base), Bound::Unbounded)).next(),
            None => {
                let holding = self.closed.range(..=offset).next_back();
                holding.or_else(|| self.closed.range(offset..).next())
            }
        };
        let candidate = match closed {
            Some((_, segment)) => Candidate::Closed(Arc::clone(segment)),
            None => Candidate::Active(self.active_view(), self.active.index.floor(offset)),
        };
        let cache = Arc::clone(&self.parts.cache);
        Ok(Some(Search { candidate, offset, end, cache }))
    }

    /// The place of the first batch that ends past `offset`, or of the log's end.
    pub(crate) fn position_of(&self, offset: Offset) -> Result<Position, ReadError> {
        if offset >= self.log_end {
            return Ok(self.end());
        }
        let holding = self.closed.range(..=offset).next_back().map(|(_, segment)| segment);
        let active = &self.active;
        let closed = holding.filter(|_| offset < active.base_offset);
        let (file, path, from, end, segment) = if let Some(segment) = closed {
            let from = segment.index(&self.parts.cache)?.floor(offset);
            let file = self.parts.cache.file(&segment.path)?;
            (file, &segment.path, from, segment.bytes, segment.base_offset)
        } else {
            let file = Arc::clone(&active.file);
            (file, &active.path, active.index.floor(offset), active.bytes, active.base_offset)
        };
        let mut walk = Walk::new(&*file, path, from, end);
        let mut byte = end;
        while let Some((header, position)) = walk.next_header()? {
            if header.last_offset() >= offset {
                byte = position;
                break;
            }
        }
        Ok(Position { offset, segment, byte })
    }

    /// Whether the bytes that a search looked at are still the log's.
    pub(crate) fn still_holds(&self, search: &Search) -> bool {
        match &search.candidate {
            Candidate::Closed(segment) => self.holds(segment),
            Candidate::Active(..) => true,
        }
    }

    fn holds(&self, segment: &Arc<Segment>) -> bool {
        self.closed.get(&segment.base_offset).is_some_and(|now| Arc::ptr_eq(now, segment))
    }

    /// The first record at or after a time, below `end`; without a time the first of those with the largest.
    #[cfg(test)]
    pub(crate) fn find_time(
        &self,
        timestamp: Option<Timestamp>,
        end: Offset,
    ) -> Result<Option<FoundRecord>, ReadError> {
        self.time_search(timestamp, end).run(timestamp)
    }

    /// Where to look for a record by time.
    pub(crate) fn time_search(&self, timestamp: Option<Timestamp>, end: Offset) -> TimeSearch {
        let index = &self.active.index;
        let from = timestamp.or_else(|| index.max_time().map(|max| max.timestamp));
        TimeSearch {
            closed: self.closed.values().cloned().collect(),
            active: self.active_view(),
            active_from: from.map_or(0, |from| index.floor_of_time(from)),
            active_max: index.max_time(),
            bounds: self.log_start..end,
            plain_bytes_max: self.parts.config.plain_bytes_max,
            cache: Arc::clone(&self.parts.cache),
        }
    }

    /// Whether the segments that a search looked at are still the log's.
    pub(crate) fn still_holds_all(&self, search: &TimeSearch) -> bool {
        search.closed.iter().all(|segment| self.holds(segment))
    }

    fn active_view(&self) -> View {
        View {
            base_offset: self.active.base_offset,
            path: self.active.path.clone(),
            file: Arc::clone(&self.active.file),
            bytes: self.active.bytes,
        }
    }
}

impl Search {
    /// Looks; may wait for the disk.
    pub(crate) fn run(&self, bytes_max: usize, first_whole: bool) -> Result<Searched, ReadError> {
        let opened;
        let (view, from, is_active) = match &self.candidate {
            Candidate::Active(view, from) => (view, *from, true),
            Candidate::Closed(segment) => {
                let from = segment.index(&self.cache)?.floor(self.offset);
                opened = view_of(segment, &self.cache)?;
                (&opened, from, false)
            }
        };
        let Some(byte) = find_batch(view, from, self.offset)? else {
            return Ok(if is_active {
                Searched::Slice(None)
            } else {
                Searched::Past(view.base_offset)
            });
        };
        let limit = if view.base_offset == self.end.segment { self.end.byte } else { view.bytes };
        let available = limit.saturating_sub(byte);
        if available == 0 {
            return Ok(Searched::Slice(None));
        }
        let mut bytes = to_usize(available.min(to_u64(bytes_max)));
        if to_u64(bytes) < available && first_whole {
            bytes = bytes.max(batch_bytes_at(&*view.file, &view.path, byte)?);
        }
        let file = Arc::clone(&view.file);
        Ok(Searched::Slice((bytes > 0).then_some(LogSlice { file, byte, bytes, is_active })))
    }
}

impl TimeSearch {
    /// The first record at or after `timestamp`; without one the first of those with the largest. May wait for the
    /// disk.
    pub(crate) fn run(
        &self,
        timestamp: Option<Timestamp>,
    ) -> Result<Option<FoundRecord>, ReadError> {
        let Some(timestamp) = timestamp.map_or_else(|| self.max_time(), |at| Ok(Some(at)))? else {
            return Ok(None);
        };
        for segment in &self.closed {
            if segment.max_time(&self.cache)?.is_none_or(|max| max.timestamp < timestamp) {
                continue;
            }
            let from = segment.index(&self.cache)?.floor_of_time(timestamp);
            let found = self.scan(&view_of(segment, &self.cache)?, from, timestamp)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        self.scan(&self.active, self.active_from, timestamp)
    }

    fn max_time(&self) -> Result<Option<Timestamp>, ReadError> {
        let mut best = self.active_max.map(|max| max.timestamp);
        for segment in &self.closed {
            best = best.max(segment.max_time(&self.cache)?.map(|max| max.timestamp));
        }
        Ok(best)
    }

    fn scan(
        &self,
        view: &View,
        from: u64,
        at: Timestamp,
    ) -> Result<Option<FoundRecord>, ReadError> {
        let mut walk = Walk::new(&*view.file, &view.path, from, view.bytes);
        while let Some((header, position)) = walk.next_header()? {
            if header.base_offset >= self.bounds.end {
                return Ok(None);
            }
            if header.max_timestamp < at || header.last_offset() < self.bounds.start {
                continue;
            }
            let batch = walk.batch(&header, position)?;
            let found =
                FoundRecord::first_since(&header, &batch, at, &self.bounds, self.plain_bytes_max);
            let corrupt = |_| ReadError::Corrupt { path: view.path.clone(), position };
            if let Some(found) = found.map_err(corrupt)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn view_of(segment: &Segment, cache: &FileCache) -> Result<View, ReadError> {
    Ok(View {
        base_offset: segment.base_offset,
        path: segment.path.clone(),
        file: cache.file(&segment.path)?,
        bytes: segment.bytes,
    })
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
