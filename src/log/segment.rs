//! A closed segment, and walking the batches of a segment file.
//!
//! Invariants: a closed segment's bytes never change; its index and file are held by the cache, not by it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::error::ReadError;
use super::file_cache::FileCache;
use super::index::{SegmentIndex, TimeEntry};
use crate::model::Offset;
use crate::model::number::to_u64;
use crate::record::batch::{MAGIC, PREFIX_BYTES};
use crate::record::{BatchHeader, HEADER_BYTES};
use crate::system::DiskFile;
use crate::system::disk::read_full;

/// Bytes read at a time while walking headers.
const WALK_BYTES: usize = 8 * 1024;
/// A batch cannot be larger: lengths above this are damage.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 30;

/// No batch begins at or past this: what says so is damage.
const OFFSET_MAX: Offset = 1 << 62;

/// A segment that is no longer written.
#[derive(Debug)]
pub(super) struct Segment {
    pub base_offset: Offset,
    pub path: PathBuf,
    pub bytes: u64,
    max_time: OnceLock<Option<TimeEntry>>,
    /// Set before other bytes take the place of the segment's files; then nothing may be written beside them.
    retired: Mutex<bool>,
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
    pub(super) fn new(base_offset: Offset, path: PathBuf, bytes: u64) -> Self {
        Self { base_offset, path, bytes, max_time: OnceLock::new(), retired: Mutex::new(false) }
    }

    /// The index, from the cache, its files, or rebuilt from the log.
    pub(super) fn index(&self, cache: &FileCache) -> Result<Arc<SegmentIndex>, ReadError> {
        cache.index(&self.path, || {
            let disk = &**cache.disk();
            if let Some(index) = SegmentIndex::load(disk, &self.path, self.base_offset, self.bytes) {
                return Ok(index);
            }
            tracing::warn!(segment = %self.path.display(), "index missing or damaged: rebuilding it");
            let mut index = self.rebuild(cache)?;
            let retired = self.retired.lock();
            if !*retired {
                index.save(disk, &self.path, true)?;
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
        cache.forget(&self.path);
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

    fn rebuild(&self, cache: &FileCache) -> Result<SegmentIndex, ReadError> {
        let file = cache.file(&self.path)?;
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

/// Bytes of the batch at `position`.
pub(super) fn batch_bytes_at(
    file: &dyn DiskFile,
    path: &Path,
    position: u64,
) -> Result<usize, ReadError> {
    let mut prefix = [0; PREFIX_BYTES];
    let corrupt = || ReadError::Corrupt { path: path.to_owned(), position };
    if read_full(file, &mut prefix, position)? < PREFIX_BYTES {
        return Err(corrupt());
    }
    let length = usize::try_from(crate::model::number::be32(&prefix, 8)).map_err(|_| corrupt())?;
    if length > BATCH_BYTES_MAX { Err(corrupt()) } else { Ok(length + PREFIX_BYTES) }
}
