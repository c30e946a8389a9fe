//! One node of the quorum: proposes, knows the leader and the voters.
//!
//! Invariants: a leader counts as one only once it has applied an entry of its own term, and while a majority answers
//! it; voters change one at a time, and a new one has everything before it counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;
use uuid::Uuid;

use super::elections::elect;
use super::error::{ProposeError, StoreError};
use super::machine::{Machine, Progress, StateMachine};
use super::observer::{Seen, follow};
use super::peers::{Identity, Peers};
use super::reserve::{Reserve, Room};
use super::storage::QuorumStorage;
use super::transport::{Transport, VoterDisks};
use super::types::{Entry, LogId, Proposal, Raft, SnapshotMeta, Vote};
use crate::model::number::to_u64;
use crate::model::{BrokerId, Offset};
use crate::system::Random;
use crate::system::clock::{monotonic, sleep, timeout_at, uptime_ms};
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::{blocking, keep_job, keep_service, part_of_node};

/// How long a new voter may take to get everything.
const CATCH_UP: Duration = Duration::from_secs(30);
/// A node that has heard of no leader for this long asks whether it is known.
const LEFT_ALONE_MS: i64 = 2_000;
/// How long the leader may take for what is passed on to it.
const PASS_ON: Duration = Duration::from_secs(5);
/// How often it is looked whether there is room for the reserve again.
const REFILL: Duration = Duration::from_secs(1);
/// Entries that are handed to an observer at a time.
const FOLLOWED_MAX: usize = 1_000;
/// Entries after which a snapshot is made, and those that stay for nodes that are a little behind.
const SNAPSHOT_ENTRIES: u64 = 10_000;
const KEPT_ENTRIES: u64 = 2_000;

/// How the quorum is made up.
#[derive(Debug, Clone)]
pub(crate) struct QuorumSettings {
    pub node: BrokerId,
    /// The voters that a new cluster begins with, and where their controller listeners are.
    pub voters: BTreeMap<BrokerId, String>,
    /// Where a node that does not vote finds those who do.
    pub known: Vec<String>,
    /// Where this node's own controller listener is; `None`: it never votes.
    pub address: Option<String>,
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
    pub(super) settings: QuorumSettings,
    pub(super) storage: QuorumStorage,
    pub(super) machine: Machine,
    progress: watch::Receiver<Progress>,
    pub(super) transport: Transport,
    pub(super) seat: Seat,
}

/// How a node takes part.
pub(super) enum Seat {
    Member(Member),
    /// It reads the committed log from those who vote.
    Observer(Mutex<Seen>),
}

/// A node that votes, or may be asked to.
pub(super) struct Member {
    pub raft: Raft,
    pub metrics: watch::Receiver<RaftMetrics<BrokerId, BasicNode>>,
    /// When a leader was heard of last (uptime).
    pub heard_ms: AtomicI64,
}

/// What an observer is told.
#[derive(Debug)]
pub(super) struct Followed {
    pub snapshot: Option<(SnapshotMeta, Vec<String>)>,
    pub entries: Vec<Entry>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How the quorum stands, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuorumStatus {
    pub leader: Option<BrokerId>,
    pub term: u64,
    pub voters: Vec<BrokerId>,
    /// Nodes that are told everything and may be made voters.
    pub observers: Vec<BrokerId>,
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
        let begins_alone = settings.voters.keys().eq([&settings.node]);
        let (machine, is_alone) = Machine::load(storage.clone(), target, begins_alone)?;
        if !is_alone && !is_planted(Bug::ResumeLeadership) {
            storage.resign(settings.node);
        }
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
        let transport = Transport { peers, disks, followed: Arc::default() };
        let progress = machine.progress();
        let is_voter = settings.voters.contains_key(&settings.node);
        let seat = if settings.address.is_some() || is_voter {
            let beginning = member(&settings, &transport, &storage, &machine);
            Seat::Member(part_of_node("quorum", beginning).await?)
        } else {
            Seat::Observer(Mutex::default())
        };
        if storage.reserve().is_some() {
            keep_job("reserve of the metadata", refill(storage.clone()));
        }
        let quorum = Arc::new(Quorum { settings, storage, machine, progress, transport, seat });
        match &quorum.seat {
            // A lone voter that nobody could reach stays alone.
            Seat::Member(_) if !quorum.settings.is_lonely() => {
                keep_service("elections", elect(Arc::clone(&quorum), random));
            }
            Seat::Member(_) => {}
            Seat::Observer(_) => keep_service("metadata reader", follow(Arc::clone(&quorum))),
        }
        Ok(quorum)
    }
}

/// Makes the reserve whole again once there is room.
async fn refill(storage: QuorumStorage) {
    loop {
        sleep(REFILL).await;
        let storage = storage.clone();
        blocking(move || storage.reserve().map(Reserve::refill)).await;
    }
}

impl QuorumSettings {
    /// Whether this node is the only one, and can't be reached by others.
    fn is_lonely(&self) -> bool {
        self.voters.iter().eq([(&self.node, &String::new())])
    }
}

/// Begins to run the consensus library.
async fn member(
    settings: &QuorumSettings,
    transport: &Transport,
    storage: &QuorumStorage,
    machine: &Machine,
) -> Result<Member, StoreError> {
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
    let is_new = storage.is_new();
    let raft =
        Raft::new(settings.node, config, transport.clone(), storage.clone(), machine.clone());
    let raft = raft.await.map_err(|error| failed(&error))?;
    let metrics = raft.metrics();
    if is_new && settings.voters.contains_key(&settings.node) {
        let voter = |(id, addr): (&BrokerId, &String)| (*id, BasicNode::new(addr));
        let voters: BTreeMap<_, _> = settings.voters.iter().map(voter).collect();
        raft.initialize(voters).await.map_err(|error| failed(&error))?;
    }
    Ok(Member { raft, metrics, heard_ms: AtomicI64::new(uptime_ms()) })
}

impl Quorum {
    pub(super) fn member(&self) -> Option<&Member> {
        match &self.seat {
            Seat::Member(member) => Some(member),
            Seat::Observer(_) => None,
        }
    }

    /// The voters as they are now, and where they are.
    pub(crate) fn voters(&self) -> BTreeMap<BrokerId, String> {
        let now = match &self.seat {
            Seat::Member(member) => member.voters(),
            Seat::Observer(seen) => seen.lock().voters.clone(),
        };
        if now.is_empty() { self.settings.voters.clone() } else { now }
    }

    /// Whether others have a say beside this node.
    pub(crate) fn has_others(&self) -> bool {
        let voters = self.voters();
        voters.len() > 1 || !voters.contains_key(&self.settings.node)
    }

    /// Passes a command on to the leader; `None` if there is none, or it does not answer.
    pub(crate) async fn ask_leader(&self, command: &Arc<RawValue>) -> Option<Arc<RawValue>> {
        let (leader, address) = self.leader()?;
        if leader == self.settings.node {
            return None;
        }
        let asked = self.transport.peers.command(&address, Arc::clone(command), PASS_ON);
        asked.await.ok()
    }

    /// Asks a node who it is.
    pub(crate) async fn hello(&self, address: &str, wait: Duration) -> std::io::Result<Identity> {
        self.transport.peers.hello(address, wait).await
    }

    pub(super) fn directory_of(&self, voter: BrokerId) -> Option<Uuid> {
        self.transport.disks.directory(voter)
    }

    /// A leader's message was taken.
    pub(super) fn heard_from_leader(&self, vote: &Vote) {
        let Some(member) = self.member() else { return };
        let current = member.metrics.borrow().vote;
        if *vote >= current {
            member.heard_ms.store(uptime_ms(), Ordering::Release);
        }
    }

    /// A node's connection ended: if it leads, it may be gone, and waiting out its time is not worth much.
    pub(super) fn lost(&self, node: BrokerId) {
        let Some(member) = self.member() else { return };
        if member.metrics.borrow().current_leader == Some(node) {
            let suspected = uptime_ms() - self.settings.election_timeout_ms * 3 / 4;
            member.heard_ms.fetch_min(suspected, Ordering::AcqRel);
        }
    }

    /// Whether this node would vote for one with this last entry.
    pub(super) fn would_vote(&self, last: Option<LogId>) -> bool {
        let Some(member) = self.member() else { return false };
        let silent_ms = uptime_ms() - member.heard_ms.load(Ordering::Acquire);
        let leads = member.is_leader() && self.has_majority(member);
        !leads && silent_ms >= self.settings.election_timeout_ms && last >= self.storage.last()
    }

    /// Whether a majority followed a short while ago, by the clock: a node that slept finds out here, before the
    /// library's own view of it is new.
    fn has_majority(&self, member: &Member) -> bool {
        let (term, voters) = {
            let metrics = member.metrics.borrow();
            let voters: Vec<BrokerId> =
                metrics.membership_config.membership().voter_ids().collect();
            (metrics.current_term, voters)
        };
        if voters.iter().eq([&self.settings.node]) {
            return true;
        }
        let from_ms = uptime_ms() - self.settings.election_timeout_ms;
        let others = self.transport.followed.since(term, from_ms);
        let count = others.iter().filter(|id| voters.contains(id)).count();
        (count + 1) * 2 > voters.len()
    }

    /// The term that this node leads in; `None` while it does not, or does not know everything yet.
    pub(crate) fn leading(&self) -> Option<u64> {
        let member = self.member()?;
        let term = member.metrics.borrow().current_term;
        let is_caught_up = self.progress.borrow().term == term;
        (member.is_leader() && is_caught_up && self.has_majority(member)).then_some(term)
    }

    /// Who leads, as far as is known here, and where.
    pub(crate) fn leader(&self) -> Option<(BrokerId, String)> {
        match &self.seat {
            Seat::Member(member) => {
                let metrics = member.metrics.borrow();
                let leader = metrics.current_leader?;
                let node = metrics.membership_config.membership().get_node(&leader);
                let first = || self.settings.voters.get(&leader);
                let address = node.map(|node| &node.addr).or_else(first);
                Some((leader, address.cloned().unwrap_or_default()))
            }
            Seat::Observer(seen) => seen.lock().leader.clone(),
        }
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
        let Some(member) = self.member() else {
            return Err(ProposeError::NotLeader { leader: self.leader().map(|(id, _)| id) });
        };
        let written = timeout_at(monotonic() + wait, member.raft.client_write(proposal)).await;
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

    /// This node, if it may change who votes: a leader that has just lost its own vote is about to be none, and changes
    /// nothing more.
    fn changer(&self) -> Result<&Member, ProposeError> {
        let member = self.member().ok_or(ProposeError::NotLeader { leader: None })?;
        if member.is_leader() && member.voters().contains_key(&self.settings.node) {
            Ok(member)
        } else {
            Err(ProposeError::NotLeader { leader: None })
        }
    }

    /// Makes a node a voter, once it has everything.
    pub(crate) async fn add_voter(&self, id: BrokerId, address: &str) -> Result<(), ProposeError> {
        let member = self.changer()?;
        let change = async {
            let node = BasicNode::new(address);
            member.raft.add_learner(id, node, true).await?;
            let added = ChangeMembers::AddVoterIds([id].into());
            member.raft.change_membership(added, true).await.map(drop)
        };
        changed(timeout_at(monotonic() + CATCH_UP, change).await)
    }

    /// Takes a node's vote away; `is_told`: what is decided is sent to it all the same.
    pub(crate) async fn remove_voter(
        &self,
        id: BrokerId,
        is_told: bool,
    ) -> Result<(), ProposeError> {
        let member = self.changer()?;
        let removed = ChangeMembers::RemoveVoters([id].into());
        let change = async { member.raft.change_membership(removed, is_told).await.map(drop) };
        changed(timeout_at(monotonic() + CATCH_UP, change).await)
    }

    /// A node that does not vote is told nothing any more.
    pub(crate) async fn forget(&self, id: BrokerId) -> Result<(), ProposeError> {
        let member = self.changer()?;
        let removed = ChangeMembers::RemoveNodes([id].into());
        let change = async { member.raft.change_membership(removed, true).await.map(drop) };
        changed(timeout_at(monotonic() + CATCH_UP, change).await)
    }

    /// Whether a node is told what is decided, as a voter or not.
    pub(crate) fn tells(&self, id: BrokerId) -> bool {
        self.member().is_some_and(|member| member.is_told(id))
    }

    /// Whether this node may vote but is told nothing: nobody knows it, or it comes with another disk.
    pub(crate) fn is_left_alone(&self) -> bool {
        let Some(member) = self.member() else { return false };
        let silent_ms = uptime_ms() - member.heard_ms.load(Ordering::Acquire);
        let is_silent = silent_ms > LEFT_ALONE_MS && !member.is_leader();
        is_silent || !member.is_told(self.settings.node)
    }

    /// Tells a node that may vote one day what is decided, from now on.
    pub(crate) async fn tell(&self, id: BrokerId, address: String) -> Result<(), ProposeError> {
        let member = self.member().ok_or(ProposeError::NotLeader { leader: None })?;
        let node = BasicNode::new(address);
        let told = async { member.raft.add_learner(id, node, false).await.map(drop) };
        changed(timeout_at(monotonic() + CATCH_UP, told).await)
    }

    /// What is committed from `next` on, as far as it is applied here.
    pub(super) fn committed_from(&self, next: u64) -> Result<Followed, StoreError> {
        let end = self.progress.borrow().next;
        if self.storage.has_from(next) {
            let entries = self.storage.range(next, end, FOLLOWED_MAX);
            return Ok(Followed { snapshot: None, entries });
        }
        Ok(Followed { snapshot: self.machine.newest_snapshot()?, entries: Vec::new() })
    }

    pub(crate) fn status(&self) -> QuorumStatus {
        let member = match &self.seat {
            Seat::Member(member) => member,
            Seat::Observer(seen) => return seen.lock().status(self.progress.borrow().next),
        };
        let metrics = member.metrics.borrow();
        let replicated = metrics.replication.as_ref().map(|all| {
            all.iter().map(|(id, last)| (*id, last.as_ref().map(|last| last.index))).collect()
        });
        QuorumStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: metrics.membership_config.membership().voter_ids().collect(),
            observers: metrics.membership_config.membership().learner_ids().collect(),
            log_end: self.storage.end(),
            applied: self.progress.borrow().next,
            replicated: replicated.unwrap_or_default(),
        }
    }

    /// Whether the library gave up (its disk failed).
    pub(crate) fn failure(&self) -> Option<String> {
        let member = self.member()?;
        member.metrics.borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// How much may still be written to the log here.
    pub(crate) fn room(&self) -> Room {
        self.storage.room()
    }

    /// Takes no part any more.
    pub(crate) async fn stop(&self) {
        self.storage.stop();
        let Some(member) = self.member() else { return };
        if let Err(error) = member.raft.shutdown().await {
            tracing::warn!(%error, "the quorum did not stop by itself");
        }
    }
}

impl Member {
    pub(super) fn is_leader(&self) -> bool {
        self.metrics.borrow().state == ServerState::Leader
    }

    /// The voters as the newest membership in the log says; empty before there is one.
    fn voters(&self) -> BTreeMap<BrokerId, String> {
        let metrics = self.metrics.borrow();
        let membership = metrics.membership_config.membership();
        let address = |id| Some((id, membership.get_node(&id)?.addr.clone()));
        membership.voter_ids().filter_map(address).collect()
    }

    /// Whether the leader tells this node what is decided.
    pub(super) fn is_told(&self, id: BrokerId) -> bool {
        self.metrics.borrow().membership_config.membership().get_node(&id).is_some()
    }
}

type Change = RaftError<BrokerId, ClientWriteError<BrokerId, BasicNode>>;

fn changed<E>(done: Result<Result<(), Change>, E>) -> Result<(), ProposeError> {
    match done {
        Err(_) => Err(ProposeError::TimedOut),
        Ok(Ok(())) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
            Err(ProposeError::NotLeader { leader: to.leader_id })
        }
        Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
    }
}
