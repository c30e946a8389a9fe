//! Pieces of segments on a local disk, as the bucket has them, for readers that come back to what no longer fits into memory.
//!
//! Invariants: what is read here is checked like what comes from the bucket, and one that is wrong is fetched anew; a disk that is
//! full, slow or broken costs requests, never an answer; nothing waits for a write. A file's name says all that there is to know of
//! it, so the cache outlives the process.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::encryption::Piece;
use super::error::RemoteError;
use super::manifest::RemoteSegment;
use super::reader::Reader;
use crate::model::number::to_u64;
use crate::system::SharedDisk;
use crate::system::disk::{OpenMode, read_file};
use crate::system::tasks::{Background, blocking};

/// What is to be written at the same time; beyond it pieces are not kept.
const WRITES: usize = 16;
/// Weights are in this many bytes: a cache may be larger than 4 GiB.
const UNIT_BYTES: u64 = 4_096;
const UNFINISHED: &str = "tmp";

/// See the file's header.
#[derive(Debug)]
pub(crate) struct DiskCache {
    disk: SharedDisk,
    dir: PathBuf,
    /// What is there, by the names of files, and how many bytes each has.
    entries: Cache<String, u64>,
    writes: Arc<Semaphore>,
}

impl DiskCache {
    /// Opens a folder, which is the cache's alone, and takes on what it finds there. Blocks on the disk.
    pub(crate) fn open(
        disk: &SharedDisk,
        (dir, bytes_max): (&Path, u64),
        background: &Background,
    ) -> std::io::Result<Arc<Self>> {
        disk.create_dir_all(dir)?;
        let (evicted_from, folder) = (Arc::clone(disk), dir.to_owned());
        let entries = Cache::builder()
            .max_capacity(bytes_max / UNIT_BYTES)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, bytes: &u64| u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX))
            .eviction_listener(move |name: Arc<String>, _, cause| {
                if cause.was_evicted() {
                    let _ = evicted_from.remove(&folder.join(&*name));
                }
            })
            .build();
        let (known, rest): (Vec<_>, Vec<_>) =
            disk.list(dir)?.into_iter().partition(|entry| is_name(&entry.name));
        for entry in rest.iter().filter(|entry| is_unfinished(&entry.name)) {
            disk.remove(&dir.join(&entry.name))?;
        }
        let (disk, writes) = (Arc::clone(disk), Arc::new(Semaphore::new(WRITES)));
        let cache = Arc::new(Self { disk, dir: dir.to_owned(), entries, writes });
        let adopting = Arc::clone(&cache);
        background.spawn(async move {
            for entry in known {
                adopting.entries.insert(entry.name, entry.bytes).await;
            }
            adopting.entries.run_pending_tasks().await;
        });
        Ok(cache)
    }

    async fn get(&self, name: String, bytes: u64) -> Option<Bytes> {
        self.entries.get(&name).await.filter(|known| *known == bytes)?;
        let (disk, path) = (Arc::clone(&self.disk), self.dir.join(&name));
        let read = blocking(move || read_file(&*disk, &path)).await?;
        match read {
            Ok(read) if to_u64(read.len()) == bytes => Some(Bytes::from(read)),
            _ => {
                self.forget(&name).await;
                None
            }
        }
    }

    async fn forget(&self, name: &str) {
        self.entries.invalidate(name).await;
        let (disk, path) = (Arc::clone(&self.disk), self.dir.join(name));
        let _ = blocking(move || disk.remove(&path)).await;
    }

    /// Writes a piece, if not too many others are being written; nobody waits for it.
    fn keep(self: &Arc<Self>, name: String, bytes: Bytes, background: &Background) {
        let Ok(permit) = Arc::clone(&self.writes).try_acquire_owned() else { return };
        let cache = Arc::clone(self);
        background.spawn(async move {
            let _permit = permit;
            let length = to_u64(bytes.len());
            let (disk, path) = (Arc::clone(&cache.disk), cache.dir.join(&name));
            let written = blocking(move || {
                let tmp = path.with_extension(UNFINISHED);
                let file = disk.open(&tmp, OpenMode::Replace)?;
                // Not flushed: what a power cut spoils is noticed when it is read.
                let written = file.write_at(&[IoSlice::new(&bytes)], 0);
                written.and_then(|()| disk.rename(&tmp, &path)).inspect_err(|_| {
                    let _ = disk.remove(&tmp);
                })
            });
            match written.await {
                Some(Ok(())) => {
                    cache.entries.insert(name, length).await;
                    // At once: files that the cache drops some time later are room that nobody meant to give it.
                    cache.entries.run_pending_tasks().await;
                }
                Some(Err(error)) => tracing::debug!(%error, "not kept on the disk"),
                None => {}
            }
        });
    }
}

fn name(segment: Uuid, piece: Piece) -> String {
    match piece {
        Piece::Chunk(chunk) => format!("{}-{chunk}", segment.simple()),
        Piece::Trailer => format!("{}-trailer", segment.simple()),
    }
}

/// Whether a file is one of the cache's.
fn is_name(text: &str) -> bool {
    let parts = text.split_once('-');
    parts.is_some_and(|(id, piece)| {
        Uuid::try_parse(id).is_ok() && (piece == "trailer" || piece.parse::<usize>().is_ok())
    })
}

/// Whether a file is one that was being written.
fn is_unfinished(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|ending| ending == UNFINISHED)
}

/// A piece as the bucket has it, and whether it comes from the disk.
pub(super) struct Stored {
    bytes: Bytes,
    is_cached: bool,
}

impl Reader {
    /// A piece from the disk, or from the bucket.
    pub(super) async fn stored(
        &self,
        (object, segment): (&str, &RemoteSegment),
        piece: Piece,
    ) -> Result<Stored, RemoteError> {
        let range = segment.range_of(piece);
        if let Some(cache) = self.disk_cache() {
            let bytes = range.end.saturating_sub(range.start);
            if let Some(bytes) = cache.get(name(segment.id, piece), bytes).await {
                return Ok(Stored { bytes, is_cached: true });
            }
        }
        Ok(Stored { bytes: self.get(object, range).await?, is_cached: false })
    }

    /// What a piece holds, as `check` reads it; one from the disk that is wrong is fetched anew.
    pub(super) async fn settle<T>(
        &self,
        (object, segment): (&str, &RemoteSegment),
        (piece, stored): (Piece, Stored),
        check: impl Fn(Bytes) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let Some(cache) = self.disk_cache() else { return check(stored.bytes) };
        let name = name(segment.id, piece);
        let mut bytes = stored.bytes;
        if stored.is_cached {
            match check(bytes) {
                Ok(found) => {
                    self.counts.disk_cache_hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(found);
                }
                Err(error) => {
                    tracing::warn!(%error, "a piece on the disk is wrong, and is fetched anew");
                    cache.forget(&name).await;
                }
            }
            bytes = self.get(object, segment.range_of(piece)).await?;
        }
        let found = check(bytes.clone())?;
        cache.keep(name, bytes, self.store.background());
        Ok(found)
    }
}
