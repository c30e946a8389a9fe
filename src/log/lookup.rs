//! Finding bytes by offset and records by time.
//!
//! Invariants: a slice begins at a batch and never passes the bound that the caller gives; bytes are not read here
//! but for headers.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::ReadError;
use super::file_cache::{FileCache, SegmentId};
use super::healing::heal;
use super::index::TimeEntry;
use super::local_log::{Log, Position};
use super::segment::{Segment, Walk};
use crate::model::number::{to_u64, to_usize};
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::record::reader::{ends_before, may_end_before};
use crate::record::{BatchHeader, RecordError, Records};
use crate::system::planted::{Bug, is_planted};
use crate::system::{DiskFile, SharedFile, wait_here};

/// What was written last is taken to be in the page cache without a look.
const RECENT_BYTES: u64 = 1 << 20;

/// A range of a segment's file that holds whole batches but perhaps the last.
#[derive(Debug, Clone)]
pub(crate) struct LogSlice {
    pub file: SharedFile,
    pub byte: u64,
    pub bytes: usize,
    /// Whether the range lies in the active segment.
    pub is_active: bool,
    /// Whether there is nothing in it but batches that compaction emptied, and nothing after it that may be read.
    pub is_bare: bool,
    /// What is read in place of the range: a batch that may not be sent as it lies there (`healing.rs`).
    pub(super) healed: Option<Arc<[u8]>>,
}

impl LogSlice {
    /// Reads the range; `UnexpectedEof` if the file ends before it does.
    pub(crate) fn read(&self) -> std::io::Result<Vec<u8>> {
        if let Some(healed) = &self.healed {
            return Ok(healed.to_vec());
        }
        let mut buffer = vec![0; self.bytes];
        let read = crate::system::disk::read_full(&*self.file, &mut buffer, self.byte)?;
        if read < self.bytes { Err(self.is_short(self.byte + to_u64(read))) } else { Ok(buffer) }
    }

    /// Whether the file holds the whole range, for whoever leaves the reading to the kernel; `UnexpectedEof` if it does not.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        let there = self.file.bytes()?;
        if there < self.byte + to_u64(self.bytes) { Err(self.is_short(there)) } else { Ok(()) }
    }

    fn is_short(&self, there: u64) -> std::io::Error {
        let (from, to) = (self.byte, self.byte + to_u64(self.bytes));
        let text = format!("the file ends at byte {there}, within {from}..{to}");
        std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text)
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
pub(super) struct View {
    id: SegmentId,
    base_offset: Offset,
    pub path: PathBuf,
    pub file: SharedFile,
    pub bytes: u64,
}

/// Which batch a reader goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Whichever holds the offset or comes after it, and all that follows, for a replica.
    Log,
    /// The same for a client.
    Any,
    /// The first of those that has records at or past the offset: simple clients do not get past an answer that has none.
    Records,
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
    /// Where the next segment begins, or the log ends.
    candidate_end: Offset,
    offset: Offset,
    end: Position,
    /// Whether there may be batches that have to be healed.
    is_suspect: bool,
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
    /// batch whole if `first_whole`; else nothing where it does not fit. Empty at `end`.
    pub(crate) fn slice(
        &self,
        offset: Offset,
        end: Position,
        bytes_max: usize,
        first_whole: bool,
    ) -> Result<Option<LogSlice>, ReadError> {
        let mut past = None;
        while let Some(search) = self.search(offset, past, end)? {
            match search.run(Wanted::Log, bytes_max, first_whole)? {
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
        let is_compacted = self.parts.config.is_compacted || self.was_compacted;
        let (candidate, candidate_end, is_suspect) = if let Some((base, segment)) = closed {
            let next = self.closed.range((Bound::Excluded(base), Bound::Unbounded)).next();
            let end = next.map_or(self.active.base_offset, |(base, _)| *base);
            (Candidate::Closed(Arc::clone(segment)), end, is_compacted)
        } else {
            let from = self.active.index.floor(offset);
            let is_suspect = is_compacted && !self.active.is_sound;
            (Candidate::Active(self.active_view(), from), self.log_end, is_suspect)
        };
        let cache = Arc::clone(&self.parts.cache);
        Ok(Some(Search { candidate, candidate_end, offset, end, is_suspect, cache }))
    }

    /// Whether the bytes that a search looked at are still the log's.
    pub(crate) fn still_holds(&self, search: &Search) -> bool {
        match &search.candidate {
            Candidate::Closed(segment) => self.holds(segment),
            Candidate::Active(..) => true,
        }
    }

    pub(super) fn holds(&self, segment: &Arc<Segment>) -> bool {
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
            id: self.active.id,
            base_offset: self.active.base_offset,
            path: self.active.path.clone(),
            file: Arc::clone(&self.active.file),
            bytes: self.active.bytes,
        }
    }
}

impl Search {
    /// Whether it waits for no disk (a hint). What was written just now is in the page cache.
    pub(crate) fn is_warm(&self) -> bool {
        match &self.candidate {
            Candidate::Active(view, from) => {
                view.bytes.saturating_sub(*from) <= RECENT_BYTES || view.file.is_cached(*from, 1)
            }
            Candidate::Closed(segment) => segment.is_warm(self.offset),
        }
    }

    /// The byte where the segment is read up to. What is known of the end's place counts only for the very file it was noted in:
    /// rolls, cuts and compaction may have put another one there since.
    fn limit(&self, view: &View, from: u64) -> Result<u64, ReadError> {
        let is_stale = is_planted(Bug::StalePlaceOfHighWatermark);
        if let Some((_, byte)) = self.end.place
            && is_stale
            && self.candidate_end >= self.end.offset
        {
            return Ok(byte);
        }
        if self.candidate_end <= self.end.offset {
            return Ok(view.bytes);
        }
        match self.end.place {
            Some((id, byte)) if id == view.id => {
                assert!(byte <= view.bytes, "a place past the end of {}", view.path.display());
                Ok(byte)
            }
            _ => {
                let found = find_batch(view, from, self.end.offset, Wanted::Any)?;
                Ok(found.map_or(view.bytes, |(byte, _)| byte))
            }
        }
    }

    /// Looks; may wait for the disk.
    pub(crate) fn run(
        &self,
        wanted: Wanted,
        bytes_max: usize,
        first_whole: bool,
    ) -> Result<Searched, ReadError> {
        let (opened, index);
        let (view, from, end_from, closed) = match &self.candidate {
            Candidate::Active(view, from) => (view, *from, *from, None),
            Candidate::Closed(segment) => {
                index = segment.index(&self.cache)?;
                opened = view_of(segment)?;
                (&opened, index.floor(self.offset), index.floor(self.end.offset), Some(segment))
            }
        };
        let Some((byte, batch_bytes)) = find_batch(view, from, self.offset, wanted)? else {
            return Ok(if closed.is_none() {
                Searched::Slice(None)
            } else {
                Searched::Past(view.base_offset)
            });
        };
        let available = self.limit(view, end_from)?.saturating_sub(byte);
        if available == 0 {
            return Ok(Searched::Slice(None));
        }
        let mut bytes = to_usize(available.min(to_u64(bytes_max)));
        if bytes < batch_bytes {
            if !first_whole || available < to_u64(batch_bytes) {
                // A part of a batch is nothing that a client can read, and some take it for an error.
                return Ok(Searched::Slice(None));
            }
            bytes = batch_bytes;
        }
        let (file, is_active) = (Arc::clone(&view.file), closed.is_none());
        let mut slice = LogSlice { file, byte, bytes, is_active, is_bare: false, healed: None };
        let end = byte + to_u64(bytes);
        if self.is_suspect && closed.is_none_or(|segment| !segment.is_sound(end)) {
            let sound_to = heal(view, &mut slice, wanted != Wanted::Log)?;
            if let Some(segment) = closed {
                segment.note_sound(byte, sound_to);
            }
        }
        Ok(Searched::Slice(Some(slice)))
    }
}

impl TimeSearch {
    /// The first record at or after `timestamp`; without one the first of those with the largest. May wait for the
    /// disk.
    pub(crate) fn run(
        &self,
        timestamp: Option<Timestamp>,
    ) -> Result<Option<FoundRecord>, ReadError> {
        match timestamp {
            Some(timestamp) => self.first_since(timestamp, self.active_from),
            None => self.newest(),
        }
    }

    /// The first of those records that have the largest timestamp.
    fn newest(&self) -> Result<Option<FoundRecord>, ReadError> {
        let Some(largest) = self.max_time()? else { return Ok(None) };
        let found = self.first_since(largest, self.active_from)?;
        if found.is_some() {
            return Ok(found);
        }
        // What compaction emptied keeps its timestamp, and what is not committed has one too.
        let mut largest = None;
        for segment in &self.closed {
            largest = largest.max(self.max_of_records(&view_of(segment)?)?);
        }
        let largest = largest.max(self.max_of_records(&self.active)?);
        largest.map_or(Ok(None), |largest| self.first_since(largest, 0))
    }

    /// The largest timestamp of batches that have records, among those that are looked at.
    fn max_of_records(&self, view: &View) -> Result<Option<Timestamp>, ReadError> {
        let (mut largest, mut walk) = (None, Walk::new(&*view.file, &view.path, 0, view.bytes));
        while let Some((header, _)) = walk.next_header()? {
            if header.base_offset >= self.bounds.end {
                break;
            }
            if header.count > 0 && header.last_offset() >= self.bounds.start {
                largest = largest.max(Some(header.max_timestamp));
            }
        }
        Ok(largest)
    }

    fn first_since(
        &self,
        timestamp: Timestamp,
        active_from: u64,
    ) -> Result<Option<FoundRecord>, ReadError> {
        for segment in &self.closed {
            if segment.max_time(&self.cache)?.is_none_or(|max| max.timestamp < timestamp) {
                continue;
            }
            let from = segment.index(&self.cache)?.floor_of_time(timestamp);
            let found = self.scan(&view_of(segment)?, from, timestamp)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        self.scan(&self.active, active_from, timestamp)
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

fn view_of(segment: &Segment) -> Result<View, ReadError> {
    Ok(View {
        id: segment.id,
        base_offset: segment.base_offset,
        path: segment.path.clone(),
        file: segment.file()?,
        bytes: segment.bytes,
    })
}

/// Where the first batch that ends past an offset begins, and how many bytes it has.
fn find_batch(
    view: &View,
    from: u64,
    offset: Offset,
    wanted: Wanted,
) -> Result<Option<(u64, usize)>, ReadError> {
    let file: &dyn DiskFile = &*view.file;
    let mut walk = Walk::new(file, &view.path, from, view.bytes);
    while let Some((header, position)) = walk.next_header()? {
        if header.last_offset() < offset || (header.count == 0 && wanted == Wanted::Records) {
            continue;
        }
        if wanted == Wanted::Records && may_end_before(&header, offset) {
            let batch = walk.batch(&header, position)?;
            if wait_here(|| ends_before(&header, &batch, offset)) {
                continue;
            }
        }
        return Ok(Some((position, header.total_bytes())));
    }
    Ok(None)
}
