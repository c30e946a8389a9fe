//! Rebalancing a group: the join phase, its end, the next generation, and time running out.
//!
//! Invariants: the join phase ends when everyone has joined or its time is over; dynamic members that did not join
//! are dropped, static ones kept; the leader is the member that joined first.

use std::collections::HashMap;

use super::error::GroupError;
use super::group::{Expected, Group, GroupState, Joined, JoinedMember, Rules, ToStore};
use super::member::{JoinRequest, JoinWaiter, Member};
use crate::model::Timestamp;

/// A new member's join may wait this long even if its session is shorter (KIP-62's coordinator does the same).
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 300_000;

impl Group {
    /// A join without a member id.
    pub(super) fn join_unknown(
        &mut self,
        now_ms: Timestamp,
        rules: Rules,
        request: &JoinRequest,
        new_id: String,
        waiter: JoinWaiter,
    ) {
        let is_known = request.instance_id.as_ref().is_some_and(|id| self.statics.contains_key(id));
        if is_known {
            return self.replace_static(now_ms, rules, request, new_id, waiter);
        }
        if request.id_required && request.instance_id.is_none() {
            let deadline_ms = now_ms + i64::from(request.session_timeout_ms);
            let expected = Expected { deadline_ms, _protocols: request.protocols.clone() };
            self.pending.insert(new_id.clone(), expected);
            self.wake_at(deadline_ms);
            let _ = waiter.send(Joined::refused(GroupError::MemberIdRequired, &new_id));
            return;
        }
        self.add(now_ms, rules, request, new_id, waiter);
    }

    /// Adds a member and rebalances.
    pub(super) fn add(
        &mut self,
        now_ms: Timestamp,
        rules: Rules,
        request: &JoinRequest,
        id: String,
        waiter: JoinWaiter,
    ) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        let mut member = Member::new(id.clone(), request, self.next_sequence);
        self.next_sequence += 1;
        member.join = Some(waiter);
        member.deadline_ms =
            now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS.max(request.session_timeout_ms.into());
        self.leader.get_or_insert(id);
        self.insert(member);
        self.joined_in_delay = true;
        self.prepare_rebalance(now_ms, Some(rules));
        self.complete_join_if_all(now_ms);
    }

    /// A known member joins again, perhaps with other protocols.
    pub(super) fn rejoin(
        &mut self,
        now_ms: Timestamp,
        rules: Rules,
        request: &JoinRequest,
        waiter: JoinWaiter,
    ) {
        let Some(mut member) = self.members.remove(&request.member_id) else { return };
        // Counted anew by `insert`.
        for (name, _) in &member.protocols {
            if let Some(count) = self.supported.get_mut(name) {
                *count -= 1;
            }
        }
        self.supported.retain(|_, count| *count > 0);
        self.awaiting_joins -= usize::from(member.join.is_some());
        member.protocols.clone_from(&request.protocols);
        member.session_timeout_ms = request.session_timeout_ms;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.join = Some(waiter);
        member.heard(now_ms);
        self.insert(member);
        self.prepare_rebalance(now_ms, Some(rules));
        self.complete_join_if_all(now_ms);
    }

    /// Answers with the generation that is current.
    pub(super) fn tell_current(&mut self, now_ms: Timestamp, id: &str, waiter: JoinWaiter) {
        if let Some(member) = self.members.get_mut(id) {
            member.heard(now_ms);
        }
        let _ = waiter.send(self.joined(id, &self.member_list()));
    }

    /// A static member is back with a new id (KIP-345): the old id is fenced, and if nothing that matters changed
    /// there is no rebalance.
    fn replace_static(
        &mut self,
        now_ms: Timestamp,
        rules: Rules,
        request: &JoinRequest,
        new_id: String,
        waiter: JoinWaiter,
    ) {
        let Some(old_id) = request.instance_id.as_ref().and_then(|id| self.statics.get(id)) else {
            return;
        };
        let old_id = &old_id.clone();
        let was_leader = self.leader.as_ref() == Some(old_id);
        let Some(member) = self.members.get_mut(old_id) else { return };
        let (join, sync) = (member.join.take(), member.sync.take());
        self.awaiting_joins -= usize::from(join.is_some());
        if let Some(waiter) = join {
            let _ = waiter.send(Joined::refused(GroupError::FencedInstance, old_id));
        }
        if let Some(waiter) = sync {
            let _ = waiter.send(Err(GroupError::FencedInstance));
        }
        let Some(mut member) = self.remove(old_id) else { return };
        member.id.clone_from(&new_id);
        member.protocols.clone_from(&request.protocols);
        member.session_timeout_ms = request.session_timeout_ms;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.heard(now_ms);
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        self.insert(member);
        let keeps_protocol =
            self.state == GroupState::Stable && self.select_protocol() == self.protocol;
        if keeps_protocol {
            self.to_store.get_or_insert(ToStore::Note);
            let members = self.member_list();
            let mut joined = self.joined(&new_id, &members);
            joined.skip_assignment = was_leader && request.can_skip_assignment;
            if was_leader && !request.can_skip_assignment {
                // An old client must not believe it leads, or it would send an assignment that nobody awaits.
                joined.leader.clone_from(old_id);
                joined.members.clear();
            }
            let _ = waiter.send(joined);
            return;
        }
        if let Some(member) = self.members.get_mut(&new_id) {
            member.join = Some(waiter);
            self.awaiting_joins += 1;
        }
        self.prepare_rebalance(now_ms, Some(rules));
        self.complete_join_if_all(now_ms);
    }

    /// Begins the join phase if the group is not in it. `rules` gives the first one of an empty group its delay.
    pub(super) fn prepare_rebalance(&mut self, now_ms: Timestamp, rules: Option<Rules>) {
        match self.state {
            GroupState::PreparingRebalance | GroupState::Dead => return,
            GroupState::Empty => {
                let delay_ms = rules.map_or(0, |rules| rules.initial_delay_ms);
                let timeout_ms = self.rebalance_timeout_ms();
                self.initial_delay_ms = delay_ms;
                self.initial_left_ms = Some((timeout_ms - delay_ms).max(0));
                self.joined_in_delay = false;
                self.set_rebalance_deadline(now_ms + delay_ms);
            }
            GroupState::CompletingRebalance => {
                self.drop_assignments(GroupError::RebalanceInProgress);
                self.set_rebalance_deadline(now_ms + self.rebalance_timeout_ms());
            }
            GroupState::Stable => self.set_rebalance_deadline(now_ms + self.rebalance_timeout_ms()),
        }
        for member in self.members.values_mut() {
            member.sync_deadline_ms = None;
        }
        self.state = GroupState::PreparingRebalance;
    }

    /// Ends the join phase if everyone is there; the first one of a group lasts its delay.
    pub(super) fn complete_join_if_all(&mut self, now_ms: Timestamp) {
        let all = self.awaiting_joins == self.members.len() && self.pending.is_empty();
        let in_delay = self.initial_left_ms.is_some()
            && self.rebalance_deadline_ms.is_some_and(|at| at > now_ms);
        if self.state == GroupState::PreparingRebalance && all && !in_delay {
            self.complete_join(now_ms);
        }
    }

    /// What follows when a member has gone.
    pub(super) fn after_removal(&mut self, now_ms: Timestamp) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(now_ms, None);
                self.complete_join_if_all(now_ms);
            }
            GroupState::PreparingRebalance => self.complete_join_if_all(now_ms),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Time has passed: members that were not heard of go, phases end. Returns when to look again.
    pub(super) fn tick(&mut self, now_ms: Timestamp) -> Option<Timestamp> {
        self.pending.retain(|_, expected| expected.deadline_ms > now_ms);
        let is_late = |member: &Member| {
            let silent = member.deadline_ms <= now_ms && member.sync.is_none();
            silent || member.sync_deadline_ms.is_some_and(|deadline| deadline <= now_ms)
        };
        // A member that waits for the join phase to end is alive, unless nobody ever came for it.
        let late: Vec<String> = self
            .members
            .values()
            .filter(|m| is_late(m) && (m.join.is_none() || is_abandoned(m)))
            .map(|m| m.id.clone())
            .collect();
        for id in &late {
            tracing::info!(group = self.id, member = id, "member lost");
            self.remove(id);
        }
        if !late.is_empty() {
            self.after_removal(now_ms);
        }
        if self.state == GroupState::PreparingRebalance {
            self.end_join_phase_if_due(now_ms);
        }
        self.next_deadline()
    }

    fn end_join_phase_if_due(&mut self, now_ms: Timestamp) {
        if self.rebalance_deadline_ms.is_none_or(|deadline| deadline > now_ms) {
            self.complete_join_if_all(now_ms);
            return;
        }
        // New members in the delay prolong it, up to the rebalance timeout.
        if let Some(left_ms) = self.initial_left_ms.filter(|left| *left > 0 && self.joined_in_delay)
        {
            let delay_ms = left_ms.min(self.initial_delay_ms);
            self.joined_in_delay = false;
            self.initial_left_ms = Some(left_ms - delay_ms);
            self.set_rebalance_deadline(now_ms + delay_ms);
            return;
        }
        self.complete_join(now_ms);
    }

    fn complete_join(&mut self, now_ms: Timestamp) {
        let absent: Vec<String> = self
            .members
            .values()
            .filter(|m| m.join.is_none() && !m.is_static())
            .map(|m| m.id.clone())
            .collect();
        for id in absent {
            self.remove(&id);
        }
        if self.awaiting_joins == 0 && !self.members.is_empty() {
            // Only static members are left, and none has come back yet.
            self.set_rebalance_deadline(now_ms + self.rebalance_timeout_ms());
            return;
        }
        self.rebalance_deadline_ms = None;
        self.initial_left_ms = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.state = GroupState::Empty;
            self.to_store = Some(ToStore::Note);
            return;
        }
        self.elect_leader();
        self.protocol = self.select_protocol();
        self.state = GroupState::CompletingRebalance;
        self.to_store = None;
        self.tell_joined(now_ms);
    }

    /// A leader that did not come back gives its place to the first that did.
    fn elect_leader(&mut self) {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        if leader.is_none_or(|leader| leader.join.is_none()) {
            let joined = self.members.values().filter(|m| m.join.is_some());
            self.leader = joined.min_by_key(|m| m.sequence).map(|m| m.id.clone());
        }
    }

    fn tell_joined(&mut self, now_ms: Timestamp) {
        let ids: Vec<String> =
            self.members.values().filter(|m| m.join.is_some()).map(|m| m.id.clone()).collect();
        let members = self.member_list();
        for id in ids {
            let joined = self.joined(&id, &members);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.heard(now_ms);
            let sync_deadline = now_ms + i64::from(member.rebalance_timeout_ms);
            member.sync_deadline_ms = Some(sync_deadline);
            let earliest = member.deadline_ms.min(sync_deadline);
            if let Some(waiter) = member.join.take() {
                let _ = waiter.send(joined);
            }
            self.wake_at(earliest);
        }
        self.awaiting_joins = 0;
    }

    fn member_list(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |m: &&Member| JoinedMember {
            id: m.id.clone(),
            instance_id: m.instance_id.clone(),
            metadata: m.metadata(protocol),
        };
        self.in_order().iter().map(member).collect()
    }

    fn joined(&self, id: &str, members: &[JoinedMember]) -> Joined {
        let is_leader = self.leader.as_deref() == Some(id);
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            skip_assignment: false,
            members: if is_leader { members.to_vec() } else { Vec::new() },
        }
    }

    /// Of the protocols that everyone supports, the one that most members like best.
    fn select_protocol(&self) -> Option<String> {
        let everyone = self.members.len();
        let is_common = |name: &str| self.supported.get(name) == Some(&everyone);
        let mut votes: HashMap<&str, usize> = HashMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| is_common(name)) {
                *votes.entry(name).or_insert(0) += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(name, count)| (*count, std::cmp::Reverse(*name)))
            .map(|(name, _)| name.to_owned())
    }

    /// Forgets the assignment in the making and tells whoever waits for it.
    pub(super) fn drop_assignments(&mut self, error: GroupError) {
        self.to_store = None;
        for member in self.members.values_mut() {
            member.assignment.clear();
            if let Some(waiter) = member.sync.take() {
                let _ = waiter.send(Err(error));
            }
        }
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| i64::from(m.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    fn set_rebalance_deadline(&mut self, at_ms: Timestamp) {
        self.rebalance_deadline_ms = Some(at_ms);
        self.wake_at(at_ms);
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let member = |m: &Member| match m.join {
            // Looked at again when the phase ends.
            Some(_) => m.deadline_ms.max(self.rebalance_deadline_ms.unwrap_or(m.deadline_ms)),
            None => m.deadline_ms.min(m.sync_deadline_ms.unwrap_or(Timestamp::MAX)),
        };
        let members = self.members.values().filter(|m| m.sync.is_none()).map(member);
        let expected = self.pending.values().map(|expected| expected.deadline_ms);
        members.chain(expected).chain(self.rebalance_deadline_ms).min()
    }
}

/// Whether nobody waits any more for the answer to a member's join.
fn is_abandoned(member: &Member) -> bool {
    member.join.as_ref().is_some_and(tokio::sync::oneshot::Sender::is_closed)
}
