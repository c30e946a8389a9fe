//! Every replica on this broker.
//!
//! Invariants: a partition that is listed was opened, or is listed as offline; a deleted topic's folder is renamed
//! before its name may be used again.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::checking::Aside;
use super::error::StartError;
use super::lease::Lease;
use super::log_directory::{LogDirectory, read_meta};
use super::moving::{Interrupted, Moving, clean_up};
use super::partition::{Local, Partition};
use super::proposals::Proposals;
use super::replica::PartitionState;
use super::throttle::Throttles;
use crate::config::TopicConfig;
use crate::log::{FileCache, Log};
use crate::model::{BrokerId, Offset, PartitionId, TopicId, TopicPartition};
use crate::system::tasks::parallel;
use crate::system::{Awake, Clock, Random, SharedDisk, Shares};

/// Most indexes of closed segments that are kept.
const INDEXES_MAX: usize = 1_000;
const DELETED_ENDING: &str = "-delete";

/// What the replicas need from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaSettings {
    pub directories: Vec<PathBuf>,
    pub node_id: BrokerId,
    pub recovery_threads: usize,
    pub free_bytes_min: u64,
    pub retention_check_ms: i64,
    pub producer_expiration_ms: i64,
    /// `replica.lag.time.max.ms`.
    pub lag_max_ms: i64,
    /// Bytes a second that leaders here send to throttled replicas, that those here fetch, and that are copied between
    /// log directories.
    pub throttled_rates: (i64, i64, i64),
    /// Bytes a second that are copied to object storage, and that are read there.
    pub tier_rates: (i64, i64),
    pub cleaner_enabled: bool,
    pub cleaner_backoff_ms: i64,
    pub cleaner_buffer_bytes: i64,
    pub cleaner_bytes_per_second: f64,
}

/// A partition that this broker is to have.
#[derive(Debug, Clone)]
pub(crate) struct PartitionSpec {
    pub name: TopicPartition,
    pub topic_id: TopicId,
    pub state: PartitionState,
    pub config: Arc<TopicConfig>,
}

/// A log and the high watermark that was noted of it.
pub(super) type OpenedLog = (Option<Log>, Offset);
type Opened = (PartitionSpec, Arc<LogDirectory>, OpenedLog);

/// A topic's partitions on this broker, by index.
#[derive(Debug)]
pub(crate) struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    partitions: RwLock<Vec<Option<Arc<Partition>>>>,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Replicas {
    pub cluster_id: String,
    pub(super) directories: Vec<Arc<LogDirectory>>,
    pub(super) settings: Mutex<ReplicaSettings>,
    pub(super) clock: Clock,
    pub(super) local: Arc<Local>,
    pub throttles: Throttles,
    /// Where batches are checked that take long.
    pub aside: Aside,
    pub(super) moves: Mutex<BTreeMap<TopicPartition, Arc<Moving>>>,
    interrupted: Mutex<Vec<Interrupted>>,
    /// Held while partitions go, or a copy takes the place of one.
    pub(super) changing: Mutex<()>,
    random: Random,
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    ids: RwLock<HashMap<TopicId, Arc<str>>>,
}

impl Topic {
    pub(crate) fn partition(&self, index: PartitionId) -> Option<Arc<Partition>> {
        self.partitions.read().get(usize::try_from(index).ok()?)?.clone()
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().iter().flatten().cloned().collect()
    }
}

impl Drop for Replicas {
    /// Partitions and directories know each other: somebody has to let go.
    fn drop(&mut self) {
        for directory in &self.directories {
            directory.partitions.lock().clear();
            directory.queue.lock().clear();
        }
    }
}

impl Replicas {
    /// The cluster's id and the first log directory's, as the folders tell; nothing is locked or made.
    pub(crate) fn peek(
        disk: &SharedDisk,
        settings: &ReplicaSettings,
    ) -> Result<Option<(String, uuid::Uuid)>, StartError> {
        let mut found = None;
        for path in &settings.directories {
            let failed = |error| StartError::Disk { path: path.clone(), error };
            let meta = read_meta(disk, path).map_err(failed)?;
            found = found.or(meta.map(|meta| (meta.cluster_id, meta.directory_id)));
        }
        Ok(found)
    }

    /// Takes the log directories.
    pub(crate) fn open(
        disk: &SharedDisk,
        settings: ReplicaSettings,
        (clock, random): (Clock, Random),
        (lease, mut cluster_id): (Lease, Option<String>),
    ) -> Result<Arc<Self>, StartError> {
        let shares = Shares::here();
        let cache = FileCache::new(Arc::clone(disk), shares.closed_segments(), INDEXES_MAX);
        let cache = Arc::new(cache.with_logs_max(shares.logs_most()));
        // A folder that has an identity tells it to those that are new.
        for path in &settings.directories {
            if let Ok(Some(meta)) = read_meta(disk, path) {
                cluster_id.get_or_insert(meta.cluster_id);
            }
        }
        let mut directories = Vec::new();
        for path in &settings.directories {
            match LogDirectory::open(path, &cache, &mut cluster_id, settings.node_id, &random) {
                Ok(directory) => directories.push(directory),
                Err(StartError::Disk { path, error }) if settings.directories.len() > 1 => {
                    tracing::error!(path = %path.display(), %error, "log directory left out");
                }
                Err(error) => return Err(error),
            }
        }
        let cluster_id =
            cluster_id.filter(|_| !directories.is_empty()).ok_or(StartError::NoneLeft)?;
        let throttles = Throttles::default();
        throttles.set_rates(settings.throttled_rates);
        Ok(Arc::new(Self {
            cluster_id,
            directories,
            throttles,
            aside: Aside::default(),
            moves: Mutex::default(),
            interrupted: Mutex::default(),
            changing: Mutex::default(),
            local: Arc::new(Local {
                node_id: settings.node_id,
                unopened: Mutex::default(),
                lease: Arc::new(lease),
                proposals: Arc::default(),
                awake: Awake::new(),
                discarded: AtomicU64::new(0),
                unread: AtomicU64::new(0),
                tier: OnceLock::new(),
                mounts: OnceLock::new(),
                mount_wanted: Notify::new(),
                topic_deleted: Notify::new(),
                tier_wanted: Notify::new(),
            }),
            settings: Mutex::new(settings),
            clock,
            random,
            topics: RwLock::default(),
            ids: RwLock::default(),
        }))
    }

    pub(crate) fn directories(&self) -> &[Arc<LogDirectory>] {
        &self.directories
    }

    /// Whether no log directory can be used any more.
    pub(crate) fn have_all_failed(&self) -> bool {
        self.directories.iter().all(|directory| directory.is_offline())
    }

    /// Partitions whose log failed.
    pub(crate) fn failed(&self) -> Vec<TopicPartition> {
        let partitions = self.directories.iter().flat_map(|directory| directory.partitions());
        partitions.filter(|p| !p.is_online() && !p.is_deleted()).map(|p| p.name.clone()).collect()
    }

    /// How long this broker may act as a leader.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.local.lease
    }

    /// The time in which this node ran.
    pub(crate) fn awake(&self) -> &Arc<Awake> {
        &self.local.awake
    }

    /// Notes that records could not be read.
    pub(crate) fn note_unread(&self) {
        self.local.unread.fetch_add(1, Ordering::Relaxed);
    }

    /// How often records could not be read.
    pub(crate) fn unread(&self) -> u64 {
        self.local.unread.load(Ordering::Relaxed)
    }

    /// Committed records that unclean elections took back on this broker.
    pub(crate) fn discarded_records(&self) -> u64 {
        self.local.discarded.load(Ordering::Relaxed)
    }

    /// Changes of ISRs that leaders here ask for.
    pub(crate) fn proposals(&self) -> &Arc<Proposals> {
        &self.local.proposals
    }

    /// The directory that holds the metadata's log, in `folder`; the first one if there is none yet.
    pub(crate) fn metadata_directory(
        &self,
        folder: &str,
    ) -> Result<&Arc<LogDirectory>, StartError> {
        let holds = |d: &&Arc<LogDirectory>| d.disk().exists(&d.path.join(folder));
        match self.directories.iter().find(holds) {
            Some(directory) => Ok(directory),
            // A cluster that begins anew because a disk is not mounted would tell clients that nothing is there.
            None if self.is_incomplete() || self.has_partitions() => {
                Err(StartError::MetadataMissing)
            }
            None => self.directories.first().ok_or(StartError::NoneLeft),
        }
    }

    fn has_partitions(&self) -> bool {
        self.folders().keys().any(|name| TopicPartition::from_folder(name).is_some())
    }

    /// Whether a directory was left out when the node started.
    pub(crate) fn has_left_out(&self) -> bool {
        self.settings.lock().directories.len() > self.directories.len()
    }

    /// Whether a directory is missing, or may be: a new one may be the mount point of a disk that is not mounted.
    fn is_incomplete(&self) -> bool {
        let new = self.directories.iter().filter(|d| d.is_new).count();
        self.has_left_out() || (new > 0 && new < self.directories.len())
    }

    /// Takes the marks of the last stop away; returns the broker epoch in which it was clean.
    pub(crate) fn take_clean_marks(&self) -> Result<Option<i64>, StartError> {
        let mut clean_epochs = Vec::new();
        for directory in &self.directories {
            let failed = |error| StartError::Disk { path: directory.path.clone(), error };
            clean_epochs.push(directory.take_clean_mark().map_err(failed)?);
        }
        // One that was not closed whole spoils it for all.
        let first = clean_epochs.first().copied().flatten();
        Ok(first.filter(|first| clean_epochs.iter().all(|epoch| *epoch == Some(*first))))
    }

    /// Opens the partitions that the metadata lists, in parallel.
    pub(crate) fn start(self: &Arc<Self>, specs: &[PartitionSpec]) -> Result<(), StartError> {
        for directory in &self.directories {
            let failed = |error| StartError::Disk { path: directory.path.clone(), error };
            remove_deleted_folders(directory).map_err(failed)?;
        }
        *self.interrupted.lock() = clean_up(&self.directories).map_err(|error| {
            let path = self.directories.first().map(|directory| directory.path.clone());
            StartError::Disk { path: path.unwrap_or_default(), error }
        })?;
        let threads = self.settings.lock().recovery_threads;
        let opened: Mutex<Vec<Opened>> = Mutex::default();
        let folders = self.folders();
        let is_incomplete = self.is_incomplete();
        parallel(specs, threads, |spec| {
            let name = spec.name.to_string();
            // A crash at the end of a move leaves the promise of the directory that the log left.
            for other in &self.directories {
                if folders.get(&name).is_some_and(|folder| !Arc::ptr_eq(folder, other)) {
                    other.points.lock().0.remove(&name);
                }
            }
            let holds = |d: &&Arc<LogDirectory>| d.points.lock().0.contains_key(&name);
            let known = folders.get(&name).or_else(|| self.directories.iter().find(holds));
            let directory = known.map_or_else(|| self.roomiest(), Arc::clone);
            // An empty log in the place of one that is on another disk would be a loss that nobody notices.
            let log = if known.is_none() && is_incomplete {
                tracing::error!(
                    partition = name,
                    "partition is offline: its log directory is not there"
                );
                (None, 0)
            } else {
                self.open_log(spec, &directory)
            };
            opened.lock().push((spec.clone(), directory, log));
        });
        for (spec, directory, log) in opened.into_inner() {
            self.list(&spec, directory, log);
        }
        self.warn_of_strays(&folders);
        if let Some(tiered) = specs.iter().find(|spec| spec.config.is_in_own_bucket())
            && self.local.tier.get().is_none()
        {
            tracing::error!(partition = %tiered.name, "it is tiered, and remote.storage.url is not set here: nothing is copied, and what is in the bucket is not read");
        }
        for directory in &self.directories {
            let failed = |error| StartError::Disk { path: directory.path.clone(), error };
            directory.start_flusher().map_err(failed)?;
        }
        Ok(())
    }

    /// Moves between log directories that the end of the broker interrupted; told once.
    pub(crate) fn take_interrupted(&self) -> Vec<Interrupted> {
        std::mem::take(&mut *self.interrupted.lock())
    }

    /// Makes a new partition.
    pub(crate) fn create(&self, spec: &PartitionSpec) {
        let name = spec.name.to_string();
        let holds = |d: &&Arc<LogDirectory>| d.disk().exists(&d.path.join(&name));
        let known = self.directories.iter().find(holds).cloned();
        let directory = known.unwrap_or_else(|| self.roomiest());
        let log = self.open_log(spec, &directory);
        self.list(spec, directory, log);
    }

    /// Deletes a topic's partitions: their folders are renamed now and removed after `delay_ms`; returns how many.
    pub(crate) fn delete(&self, name: &str, delay_ms: i64) -> usize {
        let _changing = self.changing.lock();
        let Some(topic) = self.topics.write().remove(name) else { return 0 };
        self.ids.write().remove(&topic.id);
        self.forget_tiered(&topic);
        self.discard(&topic.partitions(), delay_ms)
    }

    /// Deletes one partition of a topic that this broker keeps others of, or no more of; returns how many folders go.
    pub(crate) fn delete_partition(&self, name: &TopicPartition) -> usize {
        let _changing = self.changing.lock();
        let Some(topic) = self.topic(&name.topic) else { return 0 };
        let taken = {
            let mut partitions = topic.partitions.write();
            let index = usize::try_from(name.partition).unwrap_or(usize::MAX);
            partitions.get_mut(index).and_then(Option::take)
        };
        self.discard(taken.as_slice(), 0)
    }

    /// Takes partitions' logs away; their folders get other names and are to be removed.
    fn discard(&self, partitions: &[Arc<Partition>], delay_ms: i64) -> usize {
        for directory in &self.directories {
            let here = partitions.iter().filter(|p| Arc::ptr_eq(&p.directory, directory));
            let names: Vec<TopicPartition> = here.map(|p| p.name.clone()).collect();
            {
                let mut listed = directory.partitions.lock();
                names.iter().for_each(|name| drop(listed.remove(name)));
            }
            if !names.is_empty()
                && let Err(error) = directory.forget_points(&names)
            {
                directory.note_unwritten(&error);
            }
        }
        let aside = |partition: &&Arc<Partition>| {
            let folder = self.move_aside(partition);
            folder
                .map(|folder| self.remove_later(&partition.directory, [folder], delay_ms))
                .is_some()
        };
        partitions.iter().filter(aside).count()
    }

    fn move_aside(&self, partition: &Partition) -> Option<PathBuf> {
        let directory = &partition.directory;
        let log = partition.take_deleted()?;
        if directory.is_offline() {
            // What is promised of the log may stand on the disk still: without its folder that would be a loss.
            return None;
        }
        let unique = self.random.uuid().simple().to_string();
        let to = directory.path.join(format!("{}.{unique}{DELETED_ENDING}", partition.name));
        match directory.disk().rename(&log.dir, &to) {
            Ok(()) => Some(to),
            Err(error) => {
                directory.fail(&error, &partition.name);
                None
            }
        }
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        let name = self.ids.read().get(&id).cloned()?;
        self.topic(&name).filter(|topic| topic.id == id)
    }

    pub(crate) fn partition(&self, name: &TopicPartition) -> Option<Arc<Partition>> {
        self.topic(&name.topic)?.partition(name.partition)
    }

    /// Gives a topic's partitions its changed configuration.
    pub(crate) fn configure(&self, name: &str, config: &Arc<TopicConfig>) {
        for partition in self.topic(name).map(|topic| topic.partitions()).unwrap_or_default() {
            partition.configure(Arc::clone(config));
        }
    }

    /// Closes every log: flushed, indexed, marked clean.
    pub(crate) fn stop(&self, broker_epoch: i64) {
        for directory in &self.directories {
            directory.stopping.store(true, Ordering::Release);
            directory.queued.notify_one();
            let _flushing = directory.flushing.lock();
            let partitions = directory.partitions();
            parallel(&partitions, self.settings.lock().recovery_threads, |partition| {
                let mut state = partition.lock();
                if let Some(Err(error)) = state.log.as_mut().map(Log::close) {
                    tracing::error!(partition = %partition.name, %error, "log not closed");
                    directory.fail(&std::io::Error::other(error.to_string()), &partition.name);
                }
            });
            let all_online = partitions.iter().all(|partition| partition.is_online());
            let written = directory.write_points();
            if written.is_ok()
                && all_online
                && !directory.is_offline()
                && let Err(error) = directory.mark_clean(broker_epoch)
            {
                tracing::error!(%error, "clean stop not marked");
            }
        }
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    pub(super) fn list(
        &self,
        spec: &PartitionSpec,
        directory: Arc<LogDirectory>,
        opened: OpenedLog,
    ) -> Arc<Partition> {
        let partition = Arc::new(Partition::new(
            (spec.name.clone(), spec.topic_id),
            Arc::clone(&directory),
            Arc::clone(&self.local),
            opened.0,
            opened.1,
        ));
        partition.take_state(&spec.state);
        directory.partitions.lock().insert(spec.name.clone(), Arc::clone(&partition));
        if directory.is_offline() {
            // It may have failed after the log was opened.
            drop(partition.take_offline());
        }
        directory.points_changed.store(true, Ordering::Release);
        let topic = {
            let mut topics = self.topics.write();
            let name = Arc::clone(&spec.name.topic);
            Arc::clone(topics.entry(Arc::clone(&name)).or_insert_with(|| {
                Arc::new(Topic { name, id: spec.topic_id, partitions: RwLock::default() })
            }))
        };
        self.ids.write().insert(topic.id, Arc::clone(&topic.name));
        let mut partitions = topic.partitions.write();
        let index = usize::try_from(spec.name.partition).unwrap_or(0);
        if partitions.len() <= index {
            partitions.resize(index + 1, None);
        }
        if let Some(slot) = partitions.get_mut(index) {
            *slot = Some(Arc::clone(&partition));
        }
        partition
    }

    /// The online directory with the fewest partitions; one that has too little room only where there is no other.
    fn roomiest(&self) -> Arc<LogDirectory> {
        let online = self.directories.iter().filter(|d| !d.is_offline());
        let fewest = online.min_by_key(|d| (d.is_full(), d.partitions.lock().len()));
        Arc::clone(fewest.unwrap_or_else(|| {
            self.directories.first().unwrap_or_else(|| unreachable!("no directory"))
        }))
    }

    /// Which directory holds which partition's folder.
    fn folders(&self) -> BTreeMap<String, Arc<LogDirectory>> {
        let mut folders = BTreeMap::new();
        for directory in &self.directories {
            for entry in directory.disk().list(&directory.path).unwrap_or_default() {
                if entry.is_dir {
                    folders.insert(entry.name, Arc::clone(directory));
                }
            }
        }
        folders
    }

    /// Folders of partitions that no metadata knows are left alone: only a deletion deletes.
    fn warn_of_strays(&self, folders: &BTreeMap<String, Arc<LogDirectory>>) {
        for (name, directory) in folders {
            let stray = TopicPartition::from_folder(name).filter(|p| self.partition(p).is_none());
            if stray.is_some() && !name.starts_with("__cluster_metadata-") {
                let path = directory.path.join(name);
                tracing::warn!(path = %path.display(), "folder of an unknown partition left alone");
            }
        }
    }
}

fn remove_deleted_folders(directory: &LogDirectory) -> std::io::Result<()> {
    for entry in directory.disk().list(&directory.path)? {
        if entry.is_dir && entry.name.ends_with(DELETED_ENDING) {
            directory.disk().remove_dir_all(&directory.path.join(&entry.name))?;
        }
    }
    Ok(())
}
