//! The quorum's log and vote on this node's disk.
//!
//! Invariants: an entry's index is its offset in a log of ours (checksummed batches, one entry each); `append` says
//! "flushed" only after the flush; a vote is on the disk before it is given; below what was committed nothing is cut
//! at start: damage there is an error, not a shorter log.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{BasicNode, EntryPayload, ErrorSubject, ErrorVerb, RaftLogReader, StorageIOError};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::reserve::{Reserve, Room};
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::config::{Config, TopicConfig};
use crate::log::{FileCache, FlushJob, Log, LogParts, NewBatch, RecoveryPoint, Stamp, checkpoint};
use crate::model::number::{to_i32, to_i64};
use crate::model::{BrokerId, Offset, TopicPartition};
use crate::record::{BatchBuilder, BatchHeader, Records, next_batch};
use crate::system::clock::{monotonic, sleep};
use crate::system::disk::{is_named, not_named};
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::blocking;
use crate::system::{Patient, SharedDisk};

/// The folder of the quorum's log.
pub(crate) const METADATA_FOLDER: &str = "__cluster_metadata-0";
const STATE_FILE: &str = "quorum-state";
const STATE_KIND: &str = "strandline-quorum-state";
const READ_BYTES: usize = 1 << 20;
/// What is known to be committed is noted once it grew by this much; at start the rest is learned from the leader.
const COMMITTED_STEP: u64 = 1_000;
/// Pause before it is tried again to write what finds no room, and how often somebody is told of that.
const ROOM_PAUSE: Duration = Duration::from_millis(200);
const TELL: Duration = Duration::from_secs(10);

/// What is kept beside the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

#[derive(Debug)]
struct State {
    log: Log,
    entries: BTreeMap<u64, Entry>,
    kept: Kept,
}

/// See the file's header; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct QuorumStorage {
    state: Arc<Patient<State>>,
    disk: SharedDisk,
    folder: PathBuf,
    reserve: Arc<OnceLock<Reserve>>,
    /// Whether nobody waits for room any more.
    is_stopping: Arc<AtomicBool>,
}

impl QuorumStorage {
    /// Opens the log below `directory`, or makes it.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn open(disk: &SharedDisk, directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(disk, directory, 0)
    }

    /// The same, where so much room is kept for what has to be written when nobody finds any.
    pub(crate) fn open_with(
        disk: &SharedDisk,
        directory: &Path,
        reserve_bytes: u64,
    ) -> Result<Self, StoreError> {
        let folder = directory.join(METADATA_FOLDER);
        let reserve = OnceLock::new();
        // A log that is there may need some of it to be opened; the folder of a new one is made with it.
        keep_reserve(&reserve, (disk, &folder), reserve_bytes);
        let kept = read_kept(disk, &folder)?;
        let cache = Arc::new(FileCache::new(Arc::clone(disk), 2, 2));
        let mut config = TopicConfig::resolve(&Config::default(), &BTreeMap::new());
        config.retention_ms = -1;
        config.retention_bytes = -1;
        config.message_bytes_max = usize::MAX;
        let parts = LogParts { cache, config: Arc::new(config) };
        let name = TopicPartition::new("__cluster_metadata", 0);
        let after = |id: &Option<LogId>| id.as_ref().map_or(0, |id| offset(id.index) + 1);
        let log_start = after(&kept.purged);
        let point = RecoveryPoint {
            offset: after(&kept.committed).max(log_start),
            log_start,
            has_producers: false,
        };
        let open = || Ok(Log::open(name.clone(), folder.clone(), parts.clone(), point, 0)?);
        let (log, _) = match reserve.get() {
            Some(reserve) => reserve.lend(StoreError::is_no_room, open)?,
            None => open()?,
        };
        keep_reserve(&reserve, (disk, &folder), reserve_bytes);
        let entries = read_entries(&log)?;
        let state = State { log, entries, kept };
        Ok(Self {
            state: Arc::new(Patient::new(state)),
            disk: Arc::clone(disk),
            folder,
            reserve: Arc::new(reserve),
            is_stopping: Arc::default(),
        })
    }

    pub(super) fn reserve(&self) -> Option<&Reserve> {
        self.reserve.get()
    }

    /// How much may still be written.
    pub(super) fn room(&self) -> Room {
        self.reserve().map_or(Room::Plenty, Reserve::room)
    }

    /// Writes something; if it finds no room, once more with room from the reserve.
    fn lend<T>(&self, mut write: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.reserve() {
            Some(reserve) => reserve.lend(StoreError::is_no_room, write),
            None => write(),
        }
    }

    /// Whoever waits for room gives up.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Does what may find no room on a thread that may block, until there is some: nothing is lost meanwhile, and a node that left the
    /// quorum for it would need a restart.
    pub(super) async fn until_there_is_room<T: Send + 'static>(
        &self,
        work: impl Fn(&Self) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let work = Arc::new(work);
        let mut tell_at = monotonic();
        loop {
            let (storage, work) = (self.clone(), Arc::clone(&work));
            let done = blocking(move || work(&storage)).await;
            let done = done.unwrap_or_else(|| Err(std::io::Error::other("it panicked").into()));
            match done {
                Err(error) if error.is_no_room() && !self.is_stopping.load(Ordering::Acquire) => {
                    if monotonic() >= tell_at {
                        tracing::error!(%error, "the metadata waits for room");
                        tell_at = monotonic() + TELL;
                    }
                    sleep(ROOM_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// Whether nothing was ever written here.
    pub(super) fn is_new(&self) -> bool {
        let state = self.state.lock();
        state.kept == Kept::default() && state.entries.is_empty()
    }

    /// The vote that was given last.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.state.lock().kept.vote
    }

    /// This node led before it stopped. It may have sent entries that its own disk lost, so it must not go on in the
    /// same term, where others would have the same indexes and terms: it is one who only voted for itself.
    pub(super) fn resign(&self, node: BrokerId) {
        if let Some(vote) = &mut self.state.lock().kept.vote
            && vote.leader_id.node_id == node
        {
            vote.committed = false;
        }
    }

    /// What is known to be committed; `all`: everything, since no other node could have another opinion.
    pub(super) fn committed(&self, all: bool) -> Option<LogId> {
        let state = self.state.lock();
        let last = state.entries.last_key_value().map(|(_, entry)| entry.log_id);
        if all { last.or(state.kept.committed) } else { state.kept.committed }
    }

    /// Entries after one and up to another.
    pub(super) fn between(&self, after: Option<LogId>, to: Option<LogId>) -> Vec<Entry> {
        let from = after.map_or(0, |id| id.index + 1);
        let Some(to) = to.filter(|to| to.index >= from) else { return Vec::new() };
        self.state.lock().entries.range(from..=to.index).map(|(_, entry)| entry.clone()).collect()
    }

    /// Whether entries from an index on are here, and not only in a snapshot.
    pub(super) fn has_from(&self, index: u64) -> bool {
        self.state.lock().kept.purged.is_none_or(|purged| purged.index < index)
    }

    /// Some entries from one index up to before another.
    pub(super) fn range(&self, from: u64, to: u64, max: usize) -> Vec<Entry> {
        let range = from..to.max(from);
        self.state.lock().entries.range(range).take(max).map(|(_, entry)| entry.clone()).collect()
    }

    /// The newest membership in the log, committed or not.
    pub(super) fn newest_membership(&self) -> Option<openraft::Membership<BrokerId, BasicNode>> {
        let state = self.state.lock();
        state.entries.values().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        })
    }

    /// Offset after the newest entry.
    pub(super) fn end(&self) -> Offset {
        self.state.lock().log.log_end()
    }

    /// The newest entry.
    pub(super) fn last(&self) -> Option<LogId> {
        let state = self.state.lock();
        state.entries.last_key_value().map(|(_, entry)| entry.log_id).or(state.kept.purged)
    }

    fn keep(&self, change: impl FnOnce(&mut Kept)) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut kept = state.kept.clone();
        change(&mut kept);
        let lines = [serde_json::to_string(&kept).map_err(std::io::Error::from)?];
        if !is_planted(Bug::VoteBeforeFlush) {
            let path = self.folder.join(STATE_FILE);
            self.lend(|| Ok(checkpoint::write(&*self.disk, &path, STATE_KIND, 1, &lines)?))?;
        }
        state.kept = kept;
        Ok(())
    }

    /// Appends what is not there yet: it may be tried again.
    fn write(&self, entries: &[Entry]) -> Result<Option<FlushJob>, StoreError> {
        let mut state = self.state.lock();
        for entry in entries {
            let known = state.entries.get(&entry.log_id.index);
            if known.is_some_and(|known| known.log_id == entry.log_id) {
                continue;
            }
            let value = serde_json::to_vec(entry).map_err(std::io::Error::other)?;
            let batch = BatchBuilder::new().record(0, None, Some(&value)).build();
            let header = BatchHeader::parse(&batch)
                .ok_or_else(|| std::io::Error::other("built batch is cut"))?;
            let index = offset(entry.log_id.index);
            if index > state.log.log_end() && state.entries.is_empty() {
                // What a snapshot holds is not in the log: it goes on after it.
                state.log.restart_at(index)?;
            }
            assert!(index == state.log.log_end(), "quorum_log_has_no_gaps: {index}");
            let term = to_i32(entry.log_id.leader_id.term);
            let (stamp, new) =
                (Stamp { leader_epoch: term, now_ms: 0 }, [NewBatch { header, bytes: &batch }]);
            self.lend(|| Ok(state.log.append_all(&new, stamp, &mut Vec::new())?))?;
            state.entries.insert(entry.log_id.index, entry.clone());
        }
        Ok(state.log.flush_job())
    }

    fn flush(&self, job: Option<FlushJob>) -> std::io::Result<()> {
        let Some(job) = job else { return Ok(()) };
        job.files.iter().try_for_each(|file| file.sync())?;
        let (path, file) = self.state.lock().log.active_file();
        if !is_named(&*self.disk, &path, &*file)? {
            return Err(not_named(&path));
        }
        if let Some(dir) = &job.dir {
            self.disk.sync_dir(dir)?;
        }
        self.state.lock().log.flushed(&job);
        Ok(())
    }

    fn cut(&self, from: u64) -> Result<(), StoreError> {
        let committed = self.state.lock().kept.committed;
        // committed_is_final: what a majority has is never taken back.
        assert!(committed.is_none_or(|id| id.index < from), "committed_is_final: cut at {from}");
        let mut state = self.state.lock();
        state.log.truncate(offset(from))?;
        state.entries.split_off(&from);
        Ok(())
    }

    fn purge_to(&self, to: LogId) -> Result<(), StoreError> {
        self.keep(|kept| {
            kept.purged = Some(to);
            kept.committed = kept.committed.max(Some(to));
        })?;
        let mut state = self.state.lock();
        let start = offset(to.index) + 1;
        if start > state.log.log_end() {
            state.log.restart_at(start)?;
        }
        state.entries = state.entries.split_off(&(to.index + 1));
        state.log.trim(start);
        for path in state.log.apply_retention(0, start)?.iter().flat_map(|deleted| &deleted.files) {
            let _ = self.disk.remove(path);
        }
        Ok(())
    }
}

/// Keeps so much room from now on, if there is a folder for it.
fn keep_reserve(kept: &OnceLock<Reserve>, (disk, folder): (&SharedDisk, &Path), bytes: u64) {
    if bytes == 0 || kept.get().is_some() || !disk.exists(folder) {
        return;
    }
    match Reserve::open(disk, folder, bytes) {
        Ok(reserve) => drop(kept.set(reserve)),
        Err(error) => tracing::error!(%error, "no reserve is kept for the metadata"),
    }
}

/// An index as an offset.
fn offset(index: u64) -> Offset {
    to_i64(index)
}

fn read_kept(disk: &SharedDisk, folder: &Path) -> Result<Kept, StoreError> {
    let lines = checkpoint::read(&**disk, &folder.join(STATE_FILE), STATE_KIND, 1)?;
    let Some(line) = lines.as_ref().and_then(|lines| lines.first()) else {
        return Ok(Kept::default());
    };
    serde_json::from_str(line).map_err(|error| {
        StoreError::Disk(std::io::Error::other(format!("{STATE_FILE} is not understood: {error}")))
    })
}

fn read_entries(log: &Log) -> Result<BTreeMap<u64, Entry>, StoreError> {
    let mut entries = BTreeMap::new();
    let mut at = log.log_start();
    while let Some(slice) = log.slice(at, log.end(), READ_BYTES, true)? {
        let bytes = slice.read()?;
        let (mut rest, before) = (bytes.as_slice(), at);
        while let Some((header, batch, after)) = next_batch(rest) {
            rest = after;
            let entry = read_entry(&header, batch)?;
            at = header.last_offset() + 1;
            if header.base_offset >= log.log_start() {
                entries.insert(entry.log_id.index, entry);
            }
        }
        if at == before {
            break;
        }
    }
    Ok(entries)
}

fn read_entry(header: &BatchHeader, batch: &[u8]) -> Result<Entry, StoreError> {
    let failed = |why: String| StoreError::Entry { offset: header.base_offset, why };
    let records =
        Records::open(*header, batch, usize::MAX).map_err(|error| failed(error.to_string()))?;
    let first = records.iter().next().ok_or_else(|| failed("it is empty".to_owned()))?;
    let value = first.map_err(|error| failed(error.to_string()))?.value.unwrap_or_default();
    let entry: Entry = serde_json::from_slice(value).map_err(|error| failed(error.to_string()))?;
    if offset(entry.log_id.index) != header.base_offset {
        return Err(failed(format!("it says that it is entry {}", entry.log_id.index)));
    }
    Ok(entry)
}

fn failed(verb: ErrorVerb, error: impl std::error::Error + 'static) -> StorageError {
    StorageIOError::new(ErrorSubject::Logs, verb, openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<TypeConfig> for QuorumStorage {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + std::fmt::Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let start: Bound<u64> = range.start_bound().cloned();
        let end: Bound<u64> = range.end_bound().cloned();
        let state = self.state.lock();
        Ok(state.entries.range((start, end)).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for QuorumStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id = self.state.lock().kept.purged;
        Ok(LogState { last_purged_log_id, last_log_id: self.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let saved =
            self.until_there_is_room(move |storage| storage.keep(|kept| kept.vote = Some(vote)));
        saved.await.map_err(|error| failed(ErrorVerb::Write, error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        let known = self.state.lock().kept.committed;
        if index(&committed) < index(&known) + COMMITTED_STEP {
            return Ok(());
        }
        let saved = self
            .until_there_is_room(move |storage| storage.keep(|kept| kept.committed = committed));
        saved.await.map_err(|error| failed(ErrorVerb::Write, error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.state.lock().kept.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let written = self.until_there_is_room(move |storage| storage.write(&entries)).await;
        let written = match written {
            Ok(job) => {
                let job = job.filter(|_| !is_planted(Bug::QuorumAcksBeforeFlush));
                let storage = self.clone();
                // What a flush may have lost is not written again by another one.
                let flushed = blocking(move || storage.flush(job)).await;
                let panicked = || Err(std::io::Error::other("the writer panicked"));
                flushed.unwrap_or_else(panicked).map_err(StoreError::from)
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "metadata log not written: this node leaves the quorum");
                Err(failed(ErrorVerb::Write, error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let storage = self.clone();
        let cut = blocking(move || storage.cut(log_id.index)).await;
        cut.unwrap_or_else(|| Err(std::io::Error::other("the writer panicked").into()))
            .map_err(|error| failed(ErrorVerb::Delete, error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purged = self.until_there_is_room(move |storage| storage.purge_to(log_id)).await;
        purged.map_err(|error| failed(ErrorVerb::Delete, error))
    }
}
