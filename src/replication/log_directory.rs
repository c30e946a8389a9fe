//! One folder of logs: its lock, its identity, its state, its queue of logs to flush.
//!
//! Invariants: two processes never have the same folder; after the first write or flush error the folder is offline
//! until the broker is started again, and so it is once its path names another folder or none: what is written to files
//! that nobody can find again is lost.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::checkpoints::Points;
use super::error::StartError;
use super::pace::Pace;
use super::partition::Partition;
use super::removing::Rubbish;
use crate::log::{FileCache, checkpoint};
use crate::model::{BrokerId, TopicPartition};
use crate::system::clock::uptime_ms;
use crate::system::disk::{ROOM_MIN, is_named, is_shortage, not_named};
use crate::system::{Random, SharedDisk, SharedFile, Space, Telling, wait_here};

const META_FILE: &str = "meta.properties";
const META_KIND: &str = "strandline-meta";
#[cfg(any(test, feature = "internals"))]
pub(super) const META: (&str, &str) = (META_FILE, META_KIND);
const LOCK_FILE: &str = ".lock";
/// For how long it is taken for granted that the path names the folder.
const LOOK_MS: i64 = 1_000;
/// Where logs are not flushed for acknowledgements (`write.caching`), they are in the background once a directory holds
/// this much that is not durable: it is what a recovery has to read again.
const UNFLUSHED_BYTES_MAX: u64 = 512 << 20;

/// See the file's header.
#[derive(Debug)]
pub(crate) struct LogDirectory {
    pub path: PathBuf,
    pub id: Uuid,
    /// Whether it was nobody's until now.
    pub is_new: bool,
    pub(super) cache: Arc<FileCache>,
    pub(super) points: Mutex<Points>,
    pub(super) partitions: Mutex<BTreeMap<TopicPartition, Arc<Partition>>>,
    /// Logs to flush, and whoever flushes them.
    pub(super) queue: Mutex<Vec<Arc<Partition>>>,
    pub(super) queued: Notify,
    /// Held while a flush is under way: what it took out of a log to flush, nobody else flushes, so nobody else may say
    /// that it is durable.
    pub(super) flushing: Mutex<()>,
    unflushed_bytes: AtomicU64,
    pub(super) stopping: AtomicBool,
    /// What is to be removed.
    pub(super) rubbish: Mutex<Rubbish>,
    /// Whether something durable moved since the checkpoint was written.
    pub(super) points_changed: AtomicBool,
    offline: AtomicBool,
    full: AtomicBool,
    /// Whether there is no room for a new log.
    no_room: AtomicBool,
    pace: Pace,
    lock: SharedFile,
    /// Who was told that something ran out.
    shortages: Telling,
    /// When it was last seen that the path names this folder.
    seen_ms: AtomicI64,
}

/// What a folder says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub directory_id: Uuid,
}

impl LogDirectory {
    /// Takes the folder, makes it if it is missing, checks whose it is. `cluster_id` is `None` if no folder has
    /// told it yet; then it is made up.
    pub(super) fn open(
        path: &Path,
        cache: &Arc<FileCache>,
        cluster_id: &mut Option<String>,
        node_id: BrokerId,
        random: &Random,
    ) -> Result<Arc<Self>, StartError> {
        let disk = cache.disk();
        let failed = |error: io::Error| StartError::Disk { path: path.to_owned(), error };
        disk.create_dir_all(path).map_err(failed)?;
        let lock = disk.lock(&path.join(LOCK_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StartError::InUse { path: path.to_owned() },
            _ => failed(error),
        })?;
        let known = read_meta(disk, path).map_err(failed)?;
        let is_new = known.is_none();
        let meta = if let Some(meta) = known {
            meta
        } else {
            let directory_id = random.uuid();
            let cluster_id = cluster_id.clone().unwrap_or_else(|| new_cluster_id(random));
            let meta = Meta { cluster_id, node_id, directory_id };
            write_meta(disk, path, &meta).map_err(failed)?;
            meta
        };
        let foreign = |what, found: String, expected: String| {
            Err(StartError::Foreign { path: path.to_owned(), what, found, expected })
        };
        if meta.node_id != node_id {
            return foreign("node", meta.node_id.to_string(), node_id.to_string());
        }
        if let Some(expected) = cluster_id.as_ref().filter(|id| **id != meta.cluster_id) {
            return foreign("cluster", meta.cluster_id, expected.clone());
        }
        *cluster_id = Some(meta.cluster_id);
        let points = Points::load(&**disk, path).map_err(failed)?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            id: meta.directory_id,
            is_new,
            cache: Arc::clone(cache),
            points: Mutex::new(points),
            partitions: Mutex::default(),
            queue: Mutex::default(),
            queued: Notify::new(),
            flushing: Mutex::default(),
            unflushed_bytes: AtomicU64::new(0),
            rubbish: Mutex::default(),
            stopping: AtomicBool::new(false),
            points_changed: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            full: AtomicBool::new(false),
            no_room: AtomicBool::new(false),
            pace: Pace::default(),
            lock,
            shortages: Telling::default(),
            seen_ms: AtomicI64::new(uptime_ms()),
        }))
    }

    pub(crate) fn disk(&self) -> &SharedDisk {
        self.cache.disk()
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether there is no room for a new log.
    pub(super) fn has_no_room(&self) -> bool {
        self.no_room.load(Ordering::Relaxed)
    }

    /// Notes how much room there is.
    pub(super) fn note_room(&self, usable: u64) {
        self.no_room.store(usable < ROOM_MIN, Ordering::Relaxed);
    }

    pub(crate) fn space(&self) -> Option<Space> {
        self.disk().space(&self.path).ok()
    }

    /// Partitions and their sizes, for DescribeLogDirs.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.lock().values().cloned().collect()
    }

    /// Writes something to a log here. Where the disk has shown that it is slow, nobody else's task waits for it: a write into the page
    /// cache is quick until the file system waits for one of its own.
    pub(super) fn write<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.pace.is_slow() { wait_here(work) } else { work() }
    }

    /// Notes how long a flush took.
    pub(super) fn note_flush(&self, took: Duration) {
        self.pace.note(took);
    }

    /// Notes whether producers are refused for want of room.
    pub(super) fn set_full(&self, full: bool) {
        if self.full.swap(full, Ordering::Relaxed) != full {
            let directory = self.path.display();
            if full {
                tracing::error!(%directory, "too little room: producers are refused until some is freed");
            } else {
                tracing::info!(%directory, "there is room again: producers are served");
            }
        }
    }

    /// The disk failed: nothing is written here any more. The flusher tells the partitions.
    pub(super) fn fail(&self, error: &io::Error, partition: &TopicPartition) {
        self.fail_for(error, Some(partition));
    }

    fn fail_for(&self, error: &io::Error, partition: Option<&TopicPartition>) {
        if !self.offline.swap(true, Ordering::AcqRel) {
            let directory = self.path.display();
            let partition = partition.map(tracing::field::display);
            tracing::error!(%directory, partition, %error, "disk error: the log directory is offline until a restart");
        }
        self.queued.notify_one();
    }

    /// Notes that something was not done for want of descriptors, memory or room, and will be tried again. Said from time to time only.
    pub(super) fn note_shortage(&self, error: &dyn std::fmt::Display) {
        if let Some(untold) = self.shortages.turn() {
            let directory = self.path.display();
            tracing::error!(%directory, %error, untold, "requests are refused for want of resources: raise the limit (ulimit -n) or have fewer partitions and connections");
        }
    }

    /// A checkpoint that finds no room or no descriptor is written later: the one before holds. Any other error is the disk's.
    pub(super) fn note_unwritten(&self, error: &io::Error) {
        if is_shortage(error) {
            self.note_shortage(error);
            self.points_changed.store(true, Ordering::Release);
        } else {
            self.fail_for(error, None);
        }
    }

    /// Looks whether the path still names this folder, as its lock file shows; if not, it is offline.
    pub(super) fn look(&self) -> io::Result<()> {
        let path = self.path.join(LOCK_FILE);
        let looked_ms = uptime_ms();
        match is_named(&**self.disk(), &path, &*self.lock) {
            Ok(true) => {
                self.seen_ms.store(looked_ms, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if is_shortage(&error) => Err(error),
            lost => {
                let error = lost.err().unwrap_or_else(|| not_named(&path));
                self.fail_for(&error, None);
                Err(error)
            }
        }
    }

    /// The same where nobody has looked for a second: whoever is about to acknowledge something.
    pub(super) fn look_again(&self) -> io::Result<()> {
        let is_recent = uptime_ms() - self.seen_ms.load(Ordering::Relaxed) < LOOK_MS;
        if is_recent { Ok(()) } else { self.look() }
    }

    /// Notes appended bytes.
    pub(super) fn add_unflushed(&self, bytes: u64) {
        self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that bytes are being flushed, or that their log is gone.
    pub(super) fn take_unflushed(&self, bytes: u64) {
        self.unflushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_much_unflushed(&self) -> bool {
        self.unflushed_bytes.load(Ordering::Relaxed) >= UNFLUSHED_BYTES_MAX
    }

    /// Queues a log for flushing; its state says that it is queued.
    pub(super) fn queue(&self, partition: &Arc<Partition>) {
        let mut queue = self.queue.lock();
        queue.push(Arc::clone(partition));
        if queue.len() == 1 {
            self.queued.notify_one();
        }
    }
}

/// A cluster id as Kafka makes them: 22 characters of URL-safe base64.
fn new_cluster_id(random: &Random) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = || {
        LETTERS.get(usize::try_from(random.below(64)).unwrap_or(0)).map_or('A', |b| char::from(*b))
    };
    // The first letter is never '-', which command lines take for a flag.
    std::iter::once('S').chain(std::iter::repeat_with(letter).take(20)).chain(['A']).collect()
}

/// Reads whose folder this is; `None` if nobody's yet.
pub(super) fn read_meta(disk: &SharedDisk, path: &Path) -> io::Result<Option<Meta>> {
    let Some(lines) = checkpoint::read(&**disk, &path.join(META_FILE), META_KIND, 1)? else {
        return Ok(None);
    };
    let value = |key: &str| {
        lines.iter().find_map(|l| l.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
    };
    let parsed = || {
        Some(Meta {
            cluster_id: value("cluster.id")?,
            node_id: value("node.id")?.parse().ok()?,
            directory_id: directory_id(&value("directory.id")?)?,
        })
    };
    parsed().map(Some).ok_or_else(|| {
        io::Error::other("meta.properties lacks cluster.id, node.id or directory.id")
    })
}

/// A directory's id as Kafka writes it, in URL-safe base64, or as earlier releases of ours did.
fn directory_id(text: &str) -> Option<Uuid> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok());
    bytes.or_else(|| text.parse().ok())
}

/// Kafka's tools read this file too (`kafka-metadata-quorum add-controller`): the header is a key of no meaning to them.
fn write_meta(disk: &SharedDisk, path: &Path, meta: &Meta) -> io::Result<()> {
    let lines = [
        "version=1".to_owned(),
        format!("cluster.id={}", meta.cluster_id),
        format!("node.id={}", meta.node_id),
        format!("directory.id={}", URL_SAFE_NO_PAD.encode(meta.directory_id)),
    ];
    checkpoint::write(&**disk, &path.join(META_FILE), META_KIND, 1, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_by_either_form_of_its_id() {
        let id = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        assert_eq!(directory_id("AQIDBAUGBwgJCgsMDQ4PEA"), Some(id));
        assert_eq!(directory_id(&id.to_string()), Some(id));
        assert_eq!(directory_id("AQID"), None);
    }
}
