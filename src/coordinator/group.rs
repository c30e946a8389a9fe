//! One classic group (KIP-62, KIP-345, KIP-394): its members, its generation, its offsets.
//!
//! Invariants: `awaiting_joins` counts the members whose join waits; `supported` counts members by protocol; the
//! leader, if there is one, is a member. Time comes in as an argument; waiting clients are told through senders.
//! Left to others: the log (`groups.rs`), the passage of time (`timers.rs`), rebalancing (`rebalance.rs`).

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::error::GroupError;
use super::member::{JoinRequest, JoinWaiter, Member, SyncRequest, SyncWaiter};
use super::records::{CommittedOffset, StoredGroup, StoredMember};
use crate::model::{Offset, Timestamp};
use crate::system::Grant;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl GroupState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// The answer to a join.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub error: Option<GroupError>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub member_id: String,
    pub skip_assignment: bool,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// The answer to a sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl Joined {
    pub(super) fn refused(error: GroupError, member_id: &str) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            member_id: member_id.to_owned(),
            ..Self::default()
        }
    }
}

/// Limits of all groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub initial_delay_ms: i64,
    pub size_max: usize,
}

/// What the driver has to write after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToStore {
    /// Write it; nobody waits.
    Note,
    /// Write it and say so with `stored`.
    Generation(i32),
}

/// What a group committed for a partition.
#[derive(Debug)]
pub(super) struct Commit {
    pub committed: CommittedOffset,
    /// Where the record is that says so.
    pub record_offset: Offset,
    /// Of what it takes in memory; `None`: nobody counts it, as after a restart.
    pub _kept: Option<Grant>,
}

/// A member that was told its id and is to come back with it.
#[derive(Debug)]
pub(super) struct Expected {
    pub deadline_ms: Timestamp,
    /// What it said, which counts what is kept for it.
    pub _protocols: Vec<(String, Bytes)>,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Group {
    pub id: String,
    pub state: GroupState,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: HashMap<String, Member>,
    pub statics: HashMap<String, String>,
    /// Ids that were given out and not used yet.
    pub pending: HashMap<String, Expected>,
    pub supported: HashMap<String, usize>,
    pub awaiting_joins: usize,
    /// When the join phase ends.
    pub rebalance_deadline_ms: Option<Timestamp>,
    /// What is left of the first join phase's time, while it lasts.
    pub initial_left_ms: Option<i64>,
    pub initial_delay_ms: i64,
    pub joined_in_delay: bool,
    pub next_sequence: u64,
    /// By wall clock, for expiry of offsets.
    pub state_since_ms: Timestamp,
    /// By topic and partition.
    pub offsets: BTreeMap<(String, i32), Commit>,
    /// Commits that are written but not yet durable, by key.
    pub pending_commits: BTreeMap<(String, i32), u32>,
    /// The earliest deadline since the timers last looked.
    pub wake_at_ms: Option<Timestamp>,
    /// What a timer is set for.
    pub timer_ms: Option<Timestamp>,
    pub to_store: Option<ToStore>,
}

impl Group {
    pub(super) fn new(id: &str, wall_ms: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: HashMap::new(),
            statics: HashMap::new(),
            pending: HashMap::new(),
            supported: HashMap::new(),
            awaiting_joins: 0,
            rebalance_deadline_ms: None,
            initial_left_ms: None,
            initial_delay_ms: 0,
            joined_in_delay: false,
            next_sequence: 0,
            state_since_ms: wall_ms,
            offsets: BTreeMap::new(),
            pending_commits: BTreeMap::new(),
            wake_at_ms: None,
            timer_ms: None,
            to_store: None,
        }
    }

    /// Takes on a stored generation, at load.
    pub(super) fn restore(&mut self, stored: StoredGroup, now_ms: Timestamp) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Self::new(&self.id, stored.state_since_ms);
        self.offsets = offsets;
        self.generation = stored.generation;
        self.protocol_type = Some(stored.protocol_type).filter(|kind| !kind.is_empty());
        self.protocol = stored.protocol;
        self.leader = stored.leader;
        for member in stored.members {
            let mut member = Member::stored(member, self.protocol.as_ref(), self.next_sequence);
            self.next_sequence += 1;
            member.heard(now_ms);
            self.insert(member);
        }
        if !self.members.is_empty() {
            self.state = GroupState::Stable;
        }
    }

    /// The generation as it is to be stored.
    pub(super) fn stored(&self) -> StoredGroup {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |member: &&Member| StoredMember {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        StoredGroup {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.in_order().iter().map(member).collect(),
        }
    }

    /// Members in the order in which they joined.
    pub(super) fn in_order(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members.values().collect();
        members.sort_unstable_by_key(|member| member.sequence);
        members
    }

    /// Whether it has neither members nor offsets, so that nothing is lost when it goes.
    pub(super) fn is_forgettable(&self) -> bool {
        self.state == GroupState::Empty && self.offsets.is_empty() && self.pending.is_empty()
    }

    /// Checks who asks; FencedInstance if the instance id now belongs to another member.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            return match self.statics.get(instance_id) {
                None => Err(GroupError::UnknownMember),
                Some(known) if known != member_id => Err(GroupError::FencedInstance),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    pub(super) fn heartbeat(
        &mut self,
        now_ms: Timestamp,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    /// Takes a join in; `waiter` is told now or when the join phase ends. `new_id` is used if the member needs one.
    pub(super) fn join(
        &mut self,
        now_ms: Timestamp,
        rules: Rules,
        request: &JoinRequest,
        new_id: String,
        waiter: JoinWaiter,
    ) {
        let refuse = |waiter: JoinWaiter, error: GroupError, member_id: &str| {
            // A client that has gone needs no answer.
            let _ = waiter.send(Joined::refused(error, member_id));
        };
        if !self.accepts(rules.size_max, &request.member_id) {
            return refuse(waiter, GroupError::GroupFull, &request.member_id);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return refuse(waiter, GroupError::InconsistentProtocol, &request.member_id);
        }
        if request.member_id.is_empty() {
            return self.join_unknown(now_ms, rules, request, new_id, waiter);
        }
        if self.pending.contains_key(&request.member_id) && request.instance_id.is_none() {
            return self.add(now_ms, rules, request, request.member_id.clone(), waiter);
        }
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref()) {
            return refuse(waiter, error, &request.member_id);
        }
        let is_same =
            self.members.get(&request.member_id).is_some_and(|m| m.protocols == request.protocols);
        let is_leader = self.leader.as_deref() == Some(&request.member_id);
        match self.state {
            GroupState::PreparingRebalance => self.rejoin(now_ms, rules, request, waiter),
            GroupState::CompletingRebalance if is_same => {
                self.tell_current(now_ms, &request.member_id, waiter);
            }
            GroupState::Stable if is_same && !is_leader => {
                self.tell_current(now_ms, &request.member_id, waiter);
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.rejoin(now_ms, rules, request, waiter);
            }
            GroupState::Empty | GroupState::Dead => {
                refuse(waiter, GroupError::UnknownMember, &request.member_id);
            }
        }
    }

    /// Takes a sync in; the leader's brings the assignment, which is told once it is stored.
    pub(super) fn sync(&mut self, now_ms: Timestamp, request: &SyncRequest, waiter: SyncWaiter) {
        if let Err(error) = self.check_sync(request) {
            let _ = waiter.send(Err(error));
            return;
        }
        let is_leader = self.leader.as_deref() == Some(&request.member_id);
        let Some(member) = self.members.get_mut(&request.member_id) else { return };
        member.heard(now_ms);
        match self.state {
            GroupState::Stable => {
                let assignment = member.assignment.clone();
                let _ = waiter.send(Ok(self.synced(assignment)));
            }
            GroupState::CompletingRebalance => {
                member.sync = Some(waiter);
                member.sync_deadline_ms = None;
                if is_leader && self.to_store.is_none() {
                    let mut given: HashMap<&str, &Bytes> = request
                        .assignments
                        .iter()
                        .map(|(id, bytes)| (id.as_str(), bytes))
                        .collect();
                    for (id, member) in &mut self.members {
                        member.assignment = given.remove(id.as_str()).cloned().unwrap_or_default();
                    }
                    self.to_store = Some(ToStore::Generation(self.generation));
                }
            }
            GroupState::PreparingRebalance => {
                drop(waiter.send(Err(GroupError::RebalanceInProgress)));
            }
            GroupState::Empty | GroupState::Dead => {
                drop(waiter.send(Err(GroupError::UnknownMember)));
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some((kind, name)) = &request.protocol
            && (*kind != self.protocol_type || *name != self.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    /// The assignment of `generation` is stored, or could not be.
    pub(super) fn generation_stored(
        &mut self,
        now_ms: Timestamp,
        generation: i32,
        is_stored: bool,
    ) {
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return;
        }
        if !is_stored {
            self.drop_assignments(GroupError::Unavailable);
            self.prepare_rebalance(now_ms, None);
            return;
        }
        self.state = GroupState::Stable;
        let (kind, name) = (self.protocol_type.clone(), self.protocol.clone());
        for member in self.members.values_mut() {
            if let Some(waiter) = member.sync.take() {
                member.heard(now_ms);
                let synced = Synced {
                    protocol_type: kind.clone(),
                    protocol: name.clone(),
                    assignment: member.assignment.clone(),
                };
                let _ = waiter.send(Ok(synced));
            }
        }
    }

    /// Removes a member by id or instance id.
    pub(super) fn leave(
        &mut self,
        now_ms: Timestamp,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::Unavailable);
        }
        let id = match instance_id {
            Some(instance_id) => {
                let known = self.statics.get(instance_id).ok_or(GroupError::UnknownMember)?;
                if !member_id.is_empty() && known != member_id {
                    return Err(GroupError::FencedInstance);
                }
                known.clone()
            }
            None if self.pending.remove(member_id).is_some() => {
                self.complete_join_if_all(now_ms);
                return Ok(());
            }
            None => member_id.to_owned(),
        };
        self.remove(&id).ok_or(GroupError::UnknownMember)?;
        self.after_removal(now_ms);
        Ok(())
    }

    /// Whether offsets may be committed by this member now.
    pub(super) fn check_commit(
        &mut self,
        now_ms: Timestamp,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
        }
        Ok(())
    }

    pub(super) fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    pub(super) fn insert(&mut self, member: Member) {
        for (name, _) in &member.protocols {
            *self.supported.entry(name.clone()).or_insert(0) += 1;
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member.id.clone());
        }
        self.wake_at(member.deadline_ms);
        self.awaiting_joins += usize::from(member.join.is_some());
        self.members.insert(member.id.clone(), member);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let mut member = self.members.remove(id)?;
        for (name, _) in &member.protocols {
            if let Some(count) = self.supported.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        self.awaiting_joins -= usize::from(member.join.is_some());
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.values().min_by_key(|m| m.sequence).map(|m| m.id.clone());
        }
        if let Some(waiter) = member.join.take() {
            let _ = waiter.send(Joined::refused(GroupError::UnknownMember, id));
        }
        if let Some(waiter) = member.sync.take() {
            let _ = waiter.send(Err(GroupError::UnknownMember));
        }
        Some(member)
    }

    pub(super) fn wake_at(&mut self, at_ms: Timestamp) {
        if at_ms < self.wake_at_ms.unwrap_or(Timestamp::MAX) {
            self.wake_at_ms = Some(at_ms);
        }
    }

    fn accepts(&self, size_max: usize, member_id: &str) -> bool {
        self.members.contains_key(member_id)
            || self.pending.contains_key(member_id)
            || self.members.len() < size_max
    }

    fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|(name, _)| self.supported.get(name) == Some(&self.members.len()))
    }
}
