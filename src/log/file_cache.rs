//! Open files and indexes of closed segments, and how many logs may be open, bounded.
//!
//! Invariants: at most `files_max` descriptors and `indexes_max` indexes are held; the least recently used goes. What is held
//! belongs to one segment, not to a path: other files come under the same names (a topic that is made again, a replica that comes
//! back, a segment that compaction rewrote), but no segment has the id of another, and what is held of it goes with it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::index::SegmentIndex;
use crate::system::disk::out_of_descriptors;
use crate::system::planted::{Bug, is_planted};
use crate::system::{OpenMode, SharedDisk, SharedFile};

/// Which bytes a segment is: no other has the same while the process lives, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SegmentId(u64);

/// Shared by all logs of a broker.
#[derive(Debug)]
pub(crate) struct FileCache {
    disk: SharedDisk,
    ids: AtomicU64,
    files: Mutex<Lru<SharedFile>>,
    indexes: Mutex<Lru<Arc<SegmentIndex>>>,
    logs: Arc<AtomicUsize>,
    logs_max: usize,
}

/// Held by a log for as long as it is open.
#[derive(Debug)]
pub(super) struct OpenLog(Arc<AtomicUsize>);

impl Drop for OpenLog {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Lru<V> {
    entries: HashMap<SegmentId, (V, u64)>,
    tick: u64,
    entries_max: usize,
}

impl<V: Clone> Lru<V> {
    fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), tick: 0, entries_max }
    }

    fn get(&mut self, id: SegmentId) -> Option<V> {
        self.tick += 1;
        let tick = self.tick;
        self.entries.get_mut(&id).map(|(value, used)| {
            *used = tick;
            value.clone()
        })
    }

    fn put(&mut self, id: SegmentId, value: V) {
        if self.entries.len() >= self.entries_max {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.entries.remove(&oldest);
            }
        }
        self.tick += 1;
        self.entries.insert(id, (value, self.tick));
    }
}

impl FileCache {
    pub(crate) fn new(disk: SharedDisk, files_max: usize, indexes_max: usize) -> Self {
        Self {
            disk,
            ids: AtomicU64::new(0),
            files: Mutex::new(Lru::new(files_max)),
            indexes: Mutex::new(Lru::new(indexes_max)),
            logs: Arc::default(),
            logs_max: usize::MAX,
        }
    }

    /// The same where no more logs may be open: each of them holds a descriptor, and somebody else needs some too.
    #[must_use]
    pub(crate) fn with_logs_max(mut self, logs_max: usize) -> Self {
        self.logs_max = logs_max;
        self
    }

    /// Whether one more log may be open; the error is that of a system that has no descriptor left.
    pub(crate) fn check_logs(&self) -> io::Result<()> {
        let open = self.logs.load(Ordering::Relaxed);
        if open < self.logs_max { Ok(()) } else { Err(out_of_descriptors()) }
    }

    /// Counts a log that is about to be opened.
    pub(super) fn open_log(&self) -> io::Result<OpenLog> {
        let more = |open: usize| (open < self.logs_max).then_some(open + 1);
        let counted = self.logs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map_err(|_| out_of_descriptors())?;
        Ok(OpenLog(Arc::clone(&self.logs)))
    }

    pub(crate) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// An id that nothing had before, for the file at `path`.
    pub(super) fn new_id(&self, path: &Path) -> SegmentId {
        if is_planted(Bug::CacheByPath) {
            let bytes = path.as_os_str().as_encoded_bytes();
            return SegmentId(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes));
        }
        SegmentId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The open file of a closed segment, which lies at `path`.
    pub(super) fn file(&self, id: SegmentId, path: &Path) -> io::Result<SharedFile> {
        if let Some(file) = self.files.lock().get(id) {
            return Ok(file);
        }
        let file = self.disk.open(path, OpenMode::Read)?;
        self.files.lock().put(id, Arc::clone(&file));
        Ok(file)
    }

    /// The index of a closed segment, made by `load` if it is not held.
    pub(super) fn index<E>(
        &self,
        id: SegmentId,
        load: impl FnOnce() -> Result<SegmentIndex, E>,
    ) -> Result<Arc<SegmentIndex>, E> {
        if let Some(index) = self.indexes.lock().get(id) {
            return Ok(index);
        }
        let index = Arc::new(load()?);
        self.indexes.lock().put(id, Arc::clone(&index));
        Ok(index)
    }

    /// A segment's file and index, if both are held: what else it takes to read of it is its bytes.
    pub(super) fn held(&self, id: SegmentId) -> Option<(SharedFile, Arc<SegmentIndex>)> {
        Some((self.files.lock().get(id)?, self.indexes.lock().get(id)?))
    }

    /// Drops what is held of a segment.
    pub(super) fn forget(&self, id: SegmentId) {
        self.files.lock().entries.remove(&id);
        self.indexes.lock().entries.remove(&id);
    }

    /// How many files and indexes are held.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.files.lock().entries.len(), self.indexes.lock().entries.len())
    }
}
