//! One node of the quorum: proposes, knows the leader, starts elections.
//!
//! Invariants: an election begins only when a majority has not heard of a leader for the election timeout (pre-vote),
//! so a node that comes and goes deposes nobody; a leader counts as one only once it has applied an entry of its own
//! term, and while a majority answers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, RaftMetrics, ServerState, SnapshotPolicy};
use serde_json::value::RawValue;
use tokio::sync::watch;
use uuid::Uuid;

use super::error::{ProposeError, StoreError};
use super::machine::{Machine, Progress, StateMachine};
use super::peers::{PeerReply, PeerRequest, Peers};
use super::storage::QuorumStorage;
use super::transport::{Transport, VoterDisks};
use super::types::{LogId, Proposal, Raft, Vote};
use crate::model::number::{to_i64, to_u64};
use crate::model::{BrokerId, Offset};
use crate::system::Random;
use crate::system::clock::{millis, monotonic, sleep, timeout_at, uptime_ms};
use crate::system::tasks::spawn;

const TICK_MS: i64 = 25;
const ASK_WAIT_MS: i64 = 250;
/// Entries after which a snapshot is made, and those that stay for nodes that are a little behind.
const SNAPSHOT_ENTRIES: u64 = 10_000;
const KEPT_ENTRIES: u64 = 2_000;

/// How the quorum is made up.
#[derive(Debug, Clone)]
pub(crate) struct QuorumSettings {
    pub node: BrokerId,
    /// Every voter and where its controller listener is.
    pub voters: BTreeMap<BrokerId, String>,
    /// After this long without a leader a node asks for an election.
    pub election_timeout_ms: i64,
    pub heartbeat_ms: i64,
}

/// The log and what it made, before the node takes part.
pub(crate) struct LoadedQuorum {
    storage: QuorumStorage,
    machine: Machine,
    settings: QuorumSettings,
}

/// See the file's header.
pub(crate) struct Quorum {
    settings: QuorumSettings,
    raft: Raft,
    metrics: watch::Receiver<RaftMetrics<BrokerId, BasicNode>>,
    storage: QuorumStorage,
    progress: watch::Receiver<Progress>,
    transport: Transport,
    /// When a leader was heard of last (uptime).
    heard_ms: AtomicI64,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How the quorum stands, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuorumStatus {
    pub leader: Option<BrokerId>,
    pub term: u64,
    pub voters: Vec<BrokerId>,
    /// Offset after the newest entry here.
    pub log_end: Offset,
    /// Index after the newest applied entry here.
    pub applied: u64,
    /// Index of the newest entry that each voter has; known to the leader only.
    pub replicated: BTreeMap<BrokerId, Option<u64>>,
}

impl LoadedQuorum {
    /// Reads the log and hands what is committed to `target`.
    pub(crate) fn load(
        storage: QuorumStorage,
        target: Arc<dyn StateMachine>,
        settings: QuorumSettings,
    ) -> Result<Self, StoreError> {
        let is_alone = settings.voters.len() <= 1;
        let machine = Machine::load(storage.clone(), target, is_alone)?;
        Ok(Self { storage, machine, settings })
    }

    /// Takes part in the quorum from now on.
    pub(crate) async fn start(
        self,
        peers: Arc<Peers>,
        disks: Arc<dyn VoterDisks>,
        random: Random,
    ) -> Result<Arc<Quorum>, StoreError> {
        let Self { storage, machine, settings } = self;
        let failed = |error: &dyn std::fmt::Display| StoreError::Start(error.to_string());
        let heartbeat = to_u64(settings.heartbeat_ms);
        // Elections are begun by us; this only says for how long a voter is true to a leader that it heard.
        let lease = to_u64(settings.election_timeout_ms) / 2;
        let config = openraft::Config {
            cluster_name: "strandline".to_owned(),
            heartbeat_interval: heartbeat,
            election_timeout_min: lease.max(heartbeat + 1),
            election_timeout_max: lease.max(heartbeat + 1) + 1,
            enable_elect: false,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            replication_lag_threshold: KEPT_ENTRIES,
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().map_err(|error| failed(&error))?);
        let transport = Transport { peers, disks };
        let (is_new, progress) = (storage.is_new(), machine.progress());
        let raft = Raft::new(settings.node, config, transport.clone(), storage.clone(), machine);
        let raft = raft.await.map_err(|error| failed(&error))?;
        let metrics = raft.metrics();
        if is_new && settings.voters.contains_key(&settings.node) {
            let voter = |(id, addr): (&BrokerId, &String)| (*id, BasicNode::new(addr));
            let voters: BTreeMap<_, _> = settings.voters.iter().map(voter).collect();
            raft.initialize(voters).await.map_err(|error| failed(&error))?;
        }
        let heard_ms = AtomicI64::new(uptime_ms());
        let quorum =
            Arc::new(Quorum { settings, raft, metrics, storage, progress, transport, heard_ms });
        if quorum.settings.voters.len() > 1 {
            spawn(elect(Arc::clone(&quorum), random));
        }
        Ok(quorum)
    }
}

impl Quorum {
    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn directory_of(&self, voter: BrokerId) -> Option<Uuid> {
        self.transport.disks.directory(voter)
    }

    /// A leader's message was taken.
    pub(super) fn heard_from_leader(&self, vote: &Vote) {
        let current = self.metrics.borrow().vote;
        if *vote >= current {
            self.heard_ms.store(uptime_ms(), Ordering::Release);
        }
    }

    /// A node's connection ended: if it leads, it may be gone, and waiting out its time is not worth much.
    pub(super) fn lost(&self, node: BrokerId) {
        if self.metrics.borrow().current_leader == Some(node) {
            let suspected = uptime_ms() - self.settings.election_timeout_ms * 3 / 4;
            self.heard_ms.fetch_min(suspected, Ordering::AcqRel);
        }
    }

    /// Whether this node would vote for one with this last entry.
    pub(super) fn would_vote(&self, last: Option<LogId>) -> bool {
        let silent_ms = uptime_ms() - self.heard_ms.load(Ordering::Acquire);
        let leads = self.metrics.borrow().state == ServerState::Leader && self.has_majority();
        !leads && silent_ms >= self.settings.election_timeout_ms && last >= self.storage.last()
    }

    fn has_majority(&self) -> bool {
        let silent_ms = self.metrics.borrow().millis_since_quorum_ack;
        let bound = to_u64(self.settings.election_timeout_ms);
        self.settings.voters.len() <= 1 || silent_ms.is_some_and(|ms| ms < bound)
    }

    /// The term that this node leads in; `None` while it does not, or does not know everything yet.
    pub(crate) fn leading(&self) -> Option<u64> {
        let (state, term) = {
            let metrics = self.metrics.borrow();
            (metrics.state, metrics.current_term)
        };
        let is_caught_up = self.progress.borrow().term == term;
        (state == ServerState::Leader && is_caught_up && self.has_majority()).then_some(term)
    }

    /// Who leads, as far as is known here, and where.
    pub(crate) fn leader(&self) -> Option<(BrokerId, String)> {
        let leader = self.metrics.borrow().current_leader?;
        Some((leader, self.settings.voters.get(&leader).cloned().unwrap_or_default()))
    }

    pub(crate) fn settings(&self) -> &QuorumSettings {
        &self.settings
    }

    /// Follows what is applied here.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Makes data part of the log, if nothing else became part of it since `base`; the index of the data.
    pub(crate) async fn propose(
        &self,
        base: u64,
        data: Box<RawValue>,
        wait: Duration,
    ) -> Result<u64, ProposeError> {
        let proposal = Proposal { base, data: data.into() };
        let written = timeout_at(monotonic() + wait, self.raft.client_write(proposal)).await;
        match written {
            Err(_) => Err(ProposeError::TimedOut),
            Ok(Ok(response)) if response.data.is_applied => Ok(response.log_id.index),
            Ok(Ok(_)) => Err(ProposeError::Stale),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id })
            }
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    pub(crate) fn status(&self) -> QuorumStatus {
        let metrics = self.metrics.borrow();
        let replicated = metrics.replication.as_ref().map(|all| {
            all.iter().map(|(id, last)| (*id, last.as_ref().map(|last| last.index))).collect()
        });
        QuorumStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: metrics.membership_config.membership().voter_ids().collect(),
            log_end: self.storage.end(),
            applied: self.progress.borrow().next,
            replicated: replicated.unwrap_or_default(),
        }
    }

    /// Whether the library gave up (its disk failed).
    pub(crate) fn failure(&self) -> Option<String> {
        self.metrics.borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Takes no part any more.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the quorum did not stop by itself");
        }
    }

    /// Asks every other voter whether it would vote for this node; whether a majority would.
    async fn would_win(&self) -> bool {
        let last = self.storage.last();
        let mut asked = tokio::task::JoinSet::new();
        for (id, address) in &self.settings.voters {
            if *id == self.settings.node {
                continue;
            }
            let (transport, id, address) = (self.transport.clone(), *id, address.clone());
            let asking = async move {
                let request = PeerRequest::WouldVote { last };
                let answer = transport.ask(id, &address, &request, millis(ASK_WAIT_MS)).await;
                matches!(answer, Ok(PeerReply::WouldVote(true)))
            };
            asked.spawn(asking);
        }
        let needed = self.settings.voters.len() / 2;
        let mut granted = 0;
        while let Some(answer) = asked.join_next().await {
            granted += usize::from(answer.unwrap_or(false));
            if granted >= needed {
                return true;
            }
        }
        false
    }
}

/// Begins elections when there is no leader.
async fn elect(quorum: Arc<Quorum>, random: Random) {
    let timeout_ms = quorum.settings.election_timeout_ms;
    let is_voter = quorum.settings.voters.contains_key(&quorum.settings.node);
    let mut patience_ms = timeout_ms + to_i64(random.below(to_u64(timeout_ms) / 4 + 1));
    while is_voter && quorum.failure().is_none() {
        sleep(millis(TICK_MS)).await;
        let is_leader = quorum.metrics.borrow().state == ServerState::Leader;
        let silent_ms = uptime_ms() - quorum.heard_ms.load(Ordering::Acquire);
        if is_leader || silent_ms < patience_ms {
            continue;
        }
        if quorum.would_win().await {
            tracing::info!(node = quorum.settings.node, silent_ms, "no leader: election begun");
            let _ = quorum.raft.trigger().elect().await;
            // Others need time to answer; and if two began at once, one should be later the next time.
            sleep(millis(TICK_MS * 2 + to_i64(random.below(to_u64(timeout_ms) / 2 + 1)))).await;
        } else {
            sleep(millis(TICK_MS + to_i64(random.below(50)))).await;
        }
        patience_ms = timeout_ms + to_i64(random.below(to_u64(timeout_ms) / 4 + 1));
    }
}
