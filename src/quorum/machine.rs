//! The committed log's reader: entries in order, snapshots of what they made.
//!
//! Invariants: an entry is handed over once; a proposal that was decided on other data is void on every node alike; a
//! snapshot is on the disk before what it replaces is purged.

use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, RaftSnapshotBuilder, StorageIOError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::error::StoreError;
use super::storage::QuorumStorage;
use super::types::{Entry, LogId, Membership, Outcome, SnapshotMeta, StorageError, TypeConfig};
use crate::log::checkpoint;
use crate::system::tasks::blocking;

const SNAPSHOT_FILE: &str = "metadata-snapshot";
const SNAPSHOT_KIND: &str = "strandline-metadata-snapshot";

/// Whoever makes something of the committed data.
pub(crate) trait StateMachine: Send + Sync + 'static {
    /// Takes committed data in, each with its index. May block.
    fn apply(&self, data: &[(u64, Arc<RawValue>)]);

    /// What all data so far made, as lines.
    fn snapshot(&self) -> Vec<String>;

    /// Replaces everything by a snapshot. May block.
    fn restore(&self, index: u64, lines: &[String]) -> Result<(), String>;
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId>,
    membership: Membership,
    /// The index of the newest data.
    data: u64,
}

/// See the file's header; clones share it.
#[derive(Clone)]
pub(crate) struct Machine {
    applied: Arc<Mutex<Applied>>,
    progress: Arc<watch::Sender<Progress>>,
    target: Arc<dyn StateMachine>,
    storage: QuorumStorage,
}

/// How far this node has applied the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Index after the newest applied entry.
    pub next: u64,
    /// The term of the newest applied entry.
    pub term: u64,
    /// The index of the newest data.
    pub data: u64,
}

impl Machine {
    /// Restores the newest snapshot, then what is known to be committed after it; also says whether the node is the
    /// only voter: then everything in its log is.
    pub(super) fn load(
        storage: QuorumStorage,
        target: Arc<dyn StateMachine>,
        begins_alone: bool,
    ) -> Result<(Self, bool), StoreError> {
        let machine = Self {
            applied: Arc::default(),
            progress: Arc::new(watch::channel(Progress::default()).0),
            target,
            storage,
        };
        if let Some((meta, applied, lines)) = machine.read_snapshot()? {
            machine.target.restore(applied.data, &lines).map_err(StoreError::Snapshot)?;
            let last = meta.last_log_id;
            *machine.applied.lock() = Applied { last, membership: meta.last_membership, ..applied };
        }
        let (last, known) = {
            let applied = machine.applied.lock();
            (applied.last, applied.membership.membership().clone())
        };
        let newest = machine.storage.newest_membership().unwrap_or(known);
        let is_alone = begins_alone && newest.voter_ids().count() <= 1;
        let committed = machine.storage.committed(is_alone);
        machine.take(machine.storage.between(last, committed));
        Ok((machine, is_alone))
    }

    /// Takes in what a voter handed out.
    pub(super) fn follow(
        &self,
        snapshot: Option<(SnapshotMeta, Vec<String>)>,
        entries: Vec<Entry>,
    ) -> Result<(), StoreError> {
        if let Some((meta, lines)) = snapshot {
            self.install(&meta, &lines)?;
        }
        let next = self.applied.lock().last.map_or(0, |id| id.index + 1);
        let new = entries.into_iter().skip_while(|entry| entry.log_id.index < next).collect();
        self.take(new);
        Ok(())
    }

    /// The newest snapshot as it travels.
    pub(super) fn newest_snapshot(
        &self,
    ) -> Result<Option<(SnapshotMeta, Vec<String>)>, StoreError> {
        Ok(self.read_snapshot()?.map(|(meta, applied, data)| {
            let mut lines = vec![applied.data.to_string()];
            lines.extend(data);
            (meta, lines)
        }))
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Applies entries; what became of each.
    fn take(&self, entries: Vec<Entry>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut data = Vec::new();
        let mut applied = self.applied.lock();
        for entry in entries {
            let mut is_applied = true;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    applied.membership = Membership::new(Some(entry.log_id), membership);
                }
                EntryPayload::Normal(proposal) => {
                    is_applied = proposal.base == applied.data;
                    if is_applied {
                        applied.data = entry.log_id.index;
                        data.push((entry.log_id.index, proposal.data));
                    }
                }
            }
            applied.last = Some(entry.log_id);
            outcomes.push(Outcome { is_applied });
        }
        if !data.is_empty() {
            self.target.apply(&data);
        }
        self.tell(&applied);
        outcomes
    }

    fn tell(&self, applied: &Applied) {
        self.progress.send_replace(Progress {
            next: applied.last.map_or(0, |id| id.index + 1),
            term: applied.last.map_or(0, |id| id.leader_id.term),
            data: applied.data,
        });
    }

    fn read_snapshot(&self) -> Result<Option<(SnapshotMeta, Applied, Vec<String>)>, StoreError> {
        let path = self.storage.folder().join(SNAPSHOT_FILE);
        let Some(mut lines) = checkpoint::read(&**self.storage.disk(), &path, SNAPSHOT_KIND, 1)?
        else {
            return Ok(None);
        };
        let data = lines.split_off(2.min(lines.len()));
        let [meta, applied] = lines.as_slice() else {
            return Err(StoreError::Snapshot("it has no head".to_owned()));
        };
        let wrong = |error: serde_json::Error| StoreError::Snapshot(error.to_string());
        let meta = serde_json::from_str(meta).map_err(wrong)?;
        Ok(Some((meta, serde_json::from_str(applied).map_err(wrong)?, data)))
    }

    fn write_snapshot(
        &self,
        meta: &SnapshotMeta,
        applied: &Applied,
        data: &[String],
    ) -> std::io::Result<()> {
        let mut lines = vec![serde_json::to_string(meta)?, serde_json::to_string(applied)?];
        lines.extend_from_slice(data);
        let path = self.storage.folder().join(SNAPSHOT_FILE);
        checkpoint::write(&**self.storage.disk(), &path, SNAPSHOT_KIND, 1, &lines)
    }

    fn build(&self) -> Result<Snapshot<TypeConfig>, StoreError> {
        let (applied, data) = {
            let applied = self.applied.lock();
            (applied.clone(), self.target.snapshot())
        };
        let index = applied.last.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
            snapshot_id: format!("{index}"),
        };
        self.write_snapshot(&meta, &applied, &data)?;
        // The first line of what travels is ours: which data is the newest.
        let mut lines = vec![applied.data.to_string()];
        lines.extend(data);
        Ok(Snapshot { meta, snapshot: Box::new(lines) })
    }

    fn install(&self, meta: &SnapshotMeta, lines: &[String]) -> Result<(), StoreError> {
        let (first, data) =
            lines.split_first().ok_or_else(|| StoreError::Snapshot("it is empty".to_owned()))?;
        let newest: u64 =
            first.parse().map_err(|_| StoreError::Snapshot("it has no head".to_owned()))?;
        let mut applied = self.applied.lock();
        let installed = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            data: newest,
        };
        self.write_snapshot(meta, &installed, data)?;
        self.target.restore(newest, data).map_err(StoreError::Snapshot)?;
        *applied = installed;
        self.tell(&applied);
        Ok(())
    }
}

fn failed(verb: ErrorVerb, error: impl std::error::Error + 'static) -> StorageError {
    tracing::error!(%error, "metadata not applied: this node leaves the quorum");
    StorageIOError::new(ErrorSubject::StateMachine, verb, openraft::AnyError::new(&error)).into()
}

fn panicked() -> StoreError {
    StoreError::Disk(std::io::Error::other("the state machine panicked"))
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let machine = self.clone();
        let built = self.storage.until_there_is_room(move |_| machine.build()).await;
        built.map_err(|error| failed(ErrorVerb::Write, error))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = self.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let machine = self.clone();
        let applied = blocking(move || machine.take(entries)).await;
        applied.ok_or_else(|| failed(ErrorVerb::Write, panicked()))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<String>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Vec<String>>,
    ) -> Result<(), StorageError> {
        let (machine, meta) = (self.clone(), meta.clone());
        let installed =
            self.storage.until_there_is_room(move |_| machine.install(&meta, &snapshot));
        installed.await.map_err(|error| failed(ErrorVerb::Write, error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let machine = self.clone();
        let read = blocking(move || machine.newest_snapshot()).await;
        let read = read.unwrap_or_else(|| Err(panicked()));
        let found = read.map_err(|error| failed(ErrorVerb::Read, error))?;
        Ok(found.map(|(meta, lines)| Snapshot { meta, snapshot: Box::new(lines) }))
    }
}
