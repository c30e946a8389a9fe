//! A closed segment, and walking the batches of a segment file.
//!
//! Invariants: a closed segment's bytes never change: what takes their place is another segment, with another id. Its index and
//! file are held by the cache for as long as it lives, not by it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::error::ReadError;
use super::file_cache::{FileCache, SegmentId};
use super::index::{SegmentIndex, TimeEntry};
use crate::model::number::to_u64;
use crate::model::{NO_TIMESTAMP, Offset, Timestamp};
use crate::record::batch::MAGIC;
use crate::record::{BatchHeader, HEADER_BYTES};
use crate::system::disk::read_full;
use crate::system::planted::{Bug, is_planted};
use crate::system::{DiskFile, SharedFile};

/// Bytes read at a time while walking headers.
const WALK_BYTES: usize = 8 * 1024;
/// A batch cannot be larger: lengths above this are damage.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 30;

/// No batch begins at or past this: what says so is damage.
const OFFSET_MAX: Offset = 1 << 62;

/// A segment that is no longer written.
#[derive(Debug)]
pub(super) struct Segment {
    pub id: SegmentId,
    pub base_offset: Offset,
    pub path: PathBuf,
    pub bytes: u64,
    max_time: OnceLock<Option<TimeEntry>>,
    first_time: OnceLock<Timestamp>,
    /// Up to where no batch has a codec and no records (`healing.rs`).
    sound_to: AtomicU64,
    /// Set before other bytes take the place of the segment's files; then nothing may be written beside them.
    retired: Mutex<bool>,
    cache: Arc<FileCache>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !is_planted(Bug::CacheByPath) {
            self.cache.forget(self.id);
        }
    }
}

/// The file name of a segment's log.
pub(super) fn log_name(base_offset: Offset) -> String {
    format!("{base_offset:020}.log")
}

/// The base offset in a file name with this ending.
pub(super) fn base_of(name: &str, ending: &str) -> Option<Offset> {
    let digits = name.strip_suffix(ending)?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

impl Segment {
    /// A segment that nobody had open.
    pub(super) fn new(
        cache: &Arc<FileCache>,
        base_offset: Offset,
        path: PathBuf,
        bytes: u64,
    ) -> Self {
        let id = cache.new_id(&path);
        Self::with_id(cache, id, base_offset, (path, bytes))
    }

    /// The same bytes as were written under an id before.
    pub(super) fn with_id(
        cache: &Arc<FileCache>,
        id: SegmentId,
        base_offset: Offset,
        (path, bytes): (PathBuf, u64),
    ) -> Self {
        let cache = Arc::clone(cache);
        let (max_time, retired) = (OnceLock::new(), Mutex::new(false));
        let (first_time, sound_to) = (OnceLock::new(), AtomicU64::new(0));
        Self { id, base_offset, path, bytes, max_time, first_time, sound_to, retired, cache }
    }

    /// The open file. Whoever reads it has to ask afterwards whether the segment is still the log's (`Log::still_holds`): another
    /// file may have come under its name before it was opened.
    pub(super) fn file(&self) -> std::io::Result<SharedFile> {
        self.cache.file(self.id, &self.path)
    }

    /// Whether a look-up of `offset` waits for no disk (a hint): file and index are open, and the page cache has the batches.
    pub(super) fn is_warm(&self, offset: Offset) -> bool {
        let held = self.cache.held(self.id);
        held.is_some_and(|(file, index)| file.is_cached(index.floor(offset), 1))
    }

    /// Whether a range is known to hold no batch that has to be healed.
    pub(super) fn is_sound(&self, end: u64) -> bool {
        self.sound_to.load(Ordering::Relaxed) >= end
    }

    /// Notes that a range holds none.
    pub(super) fn note_sound(&self, from: u64, end: u64) {
        if self.sound_to.load(Ordering::Relaxed) >= from {
            self.sound_to.fetch_max(end, Ordering::Relaxed);
        }
    }

    /// The index, from the cache, its files, or rebuilt from the log.
    pub(super) fn index(&self, cache: &FileCache) -> Result<Arc<SegmentIndex>, ReadError> {
        cache.index(self.id, || {
            let disk = &**cache.disk();
            let loaded = SegmentIndex::load(disk, &self.path, self.base_offset, self.bytes);
            if let Some(index) = loaded.filter(|index| self.confirms(index)) {
                return Ok(index);
            }
            // Nothing to act on: a stop between a log and its index leaves it so.
            tracing::info!(segment = %self.path.display(), "index missing or damaged: rebuilding it");
            let mut index = self.rebuild()?;
            let retired = self.retired.lock();
            if !*retired {
                index.save_if_room(disk, &self.path)?;
            }
            Ok(index)
        })
    }

    /// The largest timestamp; `None` if no batch has one.
    pub(super) fn max_time(&self, cache: &FileCache) -> Result<Option<TimeEntry>, ReadError> {
        if let Some(known) = self.max_time.get() {
            return Ok(*known);
        }
        let found = self.index(cache)?.max_time();
        Ok(*self.max_time.get_or_init(|| found))
    }

    /// The largest timestamp of the first batch; -1 if it has none.
    pub(super) fn first_time(&self) -> Result<Timestamp, ReadError> {
        if let Some(known) = self.first_time.get() {
            return Ok(*known);
        }
        let header = Walk::new(&*self.file()?, &self.path, 0, self.bytes).next_header()?;
        let found = header.map_or(NO_TIMESTAMP, |(header, _)| header.max_timestamp);
        Ok(*self.first_time.get_or_init(|| found))
    }

    /// The segment's files are about to change or go.
    pub(super) fn retire(&self) {
        *self.retired.lock() = true;
    }

    pub(super) fn is_retired(&self) -> bool {
        *self.retired.lock()
    }

    /// Removes the segment's files.
    pub(super) fn delete_files(&self, cache: &FileCache) {
        self.retire();
        cache.forget(self.id);
        for ending in ["log", "index", "timeindex", "txnindex"] {
            let path = self.path.with_extension(ending);
            match cache.disk().remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "segment file not deleted");
                }
                _ => {}
            }
        }
    }

    /// Whether the batch of the last entry is where that says: what a power failure tears is the end.
    fn confirms(&self, index: &SegmentIndex) -> bool {
        let Some(last) = index.last() else { return true };
        let Ok(file) = self.file() else { return true };
        let mut walk = Walk::new(&*file, &self.path, last.position.into(), self.bytes);
        let said = self.base_offset + i64::from(last.last_offset);
        matches!(walk.next_header(), Ok(Some((header, _))) if header.last_offset() == said)
    }

    fn rebuild(&self) -> Result<SegmentIndex, ReadError> {
        let file = self.file()?;
        let mut index = SegmentIndex::new(self.base_offset);
        let mut walk = Walk::new(&*file, &self.path, 0, self.bytes);
        while let Some((header, position)) = walk.next_header()? {
            index.note(&header, position, 4096);
        }
        Ok(index)
    }
}

/// Walks batch headers of a file range, reading little.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, path: &'a Path, position: u64, end: u64) -> Self {
        Self { file, path, position, end, buffer: Vec::new(), buffer_start: position }
    }

    /// The next header and where its batch begins; `None` at the end.
    pub(super) fn next_header(&mut self) -> Result<Option<(BatchHeader, u64)>, ReadError> {
        let position = self.position;
        if position >= self.end {
            return Ok(None);
        }
        let header = self.header_at(position)?.ok_or_else(|| self.corrupt(position))?;
        let bytes = header.total_bytes();
        let fits = header.magic == MAGIC
            && (0..OFFSET_MAX).contains(&header.base_offset)
            && header.last_offset_delta >= 0
            && (HEADER_BYTES..=BATCH_BYTES_MAX).contains(&bytes)
            && position + to_u64(bytes) <= self.end;
        if !fits {
            return Err(self.corrupt(position));
        }
        self.position = position + to_u64(bytes);
        Ok(Some((header, position)))
    }

    /// Reads a whole batch that `next_header` returned.
    pub(super) fn batch(&self, header: &BatchHeader, position: u64) -> Result<Vec<u8>, ReadError> {
        let mut batch = Vec::new();
        self.batch_into(header, position, &mut batch)?;
        Ok(batch)
    }

    /// The same, into a buffer that is used again and again.
    pub(super) fn batch_into(
        &self,
        header: &BatchHeader,
        position: u64,
        batch: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        batch.resize(header.total_bytes(), 0);
        if read_full(self.file, batch, position)? < batch.len() {
            return Err(self.corrupt(position));
        }
        Ok(())
    }

    fn header_at(&mut self, position: u64) -> Result<Option<BatchHeader>, ReadError> {
        let held = |s: &Self| {
            let start = usize::try_from(position.checked_sub(s.buffer_start)?).ok()?;
            s.buffer.get(start..start + HEADER_BYTES).and_then(BatchHeader::parse)
        };
        if let Some(header) = held(self) {
            return Ok(Some(header));
        }
        self.buffer.resize(WALK_BYTES, 0);
        let read = read_full(self.file, &mut self.buffer, position)?;
        self.buffer.truncate(read);
        self.buffer_start = position;
        Ok(held(self))
    }

    fn corrupt(&self, position: u64) -> ReadError {
        ReadError::Corrupt { path: self.path.to_owned(), position }
    }
}
