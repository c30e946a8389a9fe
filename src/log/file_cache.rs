//! Open files and indexes of closed segments, bounded.
//!
//! Invariants: at most `files_max` descriptors and `indexes_max` indexes are held; the least recently used goes.

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
}

impl<V: Clone> Lru<V> {
    fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), tick: 0, entries_max }
    }

    fn get(&mut self, path: &Path) -> Option<V> {
        self.tick += 1;
        let tick = self.tick;
        self.entries.get_mut(path).map(|(value, used)| {
            *used = tick;
            value.clone()
        })
    }

    fn put(&mut self, path: &Path, value: V) {
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
        if let Some(file) = self.files.lock().get(path) {
            return Ok(file);
        }
        let file = self.disk.open(path, OpenMode::Read)?;
        self.files.lock().put(path, Arc::clone(&file));
        Ok(file)
    }

    /// The index of a closed segment, made by `load` if it is not held.
    pub(crate) fn index<E>(
        &self,
        path: &Path,
        load: impl FnOnce() -> Result<SegmentIndex, E>,
    ) -> Result<Arc<SegmentIndex>, E> {
        if let Some(index) = self.indexes.lock().get(path) {
            return Ok(index);
        }
        let index = Arc::new(load()?);
        self.indexes.lock().put(path, Arc::clone(&index));
        Ok(index)
    }

    /// Drops what is held of a segment whose files change or go.
    pub(crate) fn forget(&self, path: &Path) {
        self.files.lock().entries.remove(path);
        self.indexes.lock().entries.remove(path);
    }
}
