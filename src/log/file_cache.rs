//! Open files and indexes of closed segments, bounded.
//!
//! Invariants: at most `files_max` descriptors and `indexes_max` indexes are held; the least recently used goes; what
//! was opened before its segment's files changed is not held after.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::index::SegmentIndex;
use crate::system::{OpenMode, SharedDisk, SharedFile};

/// Shared by all logs of a broker.
#[derive(Debug)]
pub(crate) struct FileCache {
    disk: SharedDisk,
    files: Mutex<Lru<SharedFile>>,
    indexes: Mutex<Lru<Arc<SegmentIndex>>>,
}

#[derive(Debug)]
struct Lru<V> {
    entries: HashMap<PathBuf, (V, u64)>,
    tick: u64,
    entries_max: usize,
    /// How often something was forgotten.
    forgotten: u64,
}

impl<V: Clone> Lru<V> {
    fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), tick: 0, entries_max, forgotten: 0 }
    }

    fn get(&mut self, path: &Path) -> Option<V> {
        self.tick += 1;
        let tick = self.tick;
        self.entries.get_mut(path).map(|(value, used)| {
            *used = tick;
            value.clone()
        })
    }

    fn forget(&mut self, path: &Path) {
        self.entries.remove(path);
        self.forgotten += 1;
    }

    /// Holds what was opened when `forgotten` was read.
    fn put(&mut self, path: &Path, value: V, forgotten: u64) {
        if self.forgotten != forgotten {
            return;
        }
        if self.entries.len() >= self.entries_max {
            let oldest = self
                .entries
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(path, _)| path.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.tick += 1;
        self.entries.insert(path.to_owned(), (value, self.tick));
    }
}

impl FileCache {
    pub(crate) fn new(disk: SharedDisk, files_max: usize, indexes_max: usize) -> Self {
        Self {
            disk,
            files: Mutex::new(Lru::new(files_max)),
            indexes: Mutex::new(Lru::new(indexes_max)),
        }
    }

    pub(crate) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// The open file of a closed segment.
    pub(crate) fn file(&self, path: &Path) -> io::Result<SharedFile> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(path) {
            return Ok(file);
        }
        let forgotten = files.forgotten;
        drop(files);
        let file = self.disk.open(path, OpenMode::Read)?;
        self.files.lock().put(path, Arc::clone(&file), forgotten);
        Ok(file)
    }

    /// The index of a closed segment, made by `load` if it is not held.
    pub(crate) fn index<E>(
        &self,
        path: &Path,
        load: impl FnOnce() -> Result<SegmentIndex, E>,
    ) -> Result<Arc<SegmentIndex>, E> {
        let mut indexes = self.indexes.lock();
        if let Some(index) = indexes.get(path) {
            return Ok(index);
        }
        let forgotten = indexes.forgotten;
        drop(indexes);
        let index = Arc::new(load()?);
        self.indexes.lock().put(path, Arc::clone(&index), forgotten);
        Ok(index)
    }

    /// Drops what is held of a segment whose files change or go.
    pub(crate) fn forget(&self, path: &Path) {
        self.files.lock().forget(path);
        self.indexes.lock().forget(path);
    }
}
