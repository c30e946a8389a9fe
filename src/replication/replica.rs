//! The replica state machine: pure decisions about one partition, as its leader or a follower.
//!
//! Invariants, asserted by name: `high_watermark_monotone`, the high watermark never moves back within a leader epoch;
//! `high_watermark_within_log`, it never passes the log's end; `high_watermark_on_stable_storage`, with `write_caching`
//! off it never passes what every member of the maximal ISR (current and proposed, KIP-966) has flushed, and never
//! moves while the ISR is smaller than `min.insync.replicas`; `followers_of_this_epoch`, it counts only followers that
//! fetched in this leader epoch (KIP-320).
//! Left to others: carrying effects out (`partition.rs`).

use std::collections::BTreeMap;

use crate::model::{BrokerId, LeaderEpoch, Offset};
use crate::system::planted::{Bug, is_planted};

/// A planned change of the leader is given up after this long, so that producers are not held up for longer.
const HAND_OVER_MAX_MS: i64 = 1_000;

/// A follower that asks for the same this often may be refusing what it gets.
const REPEATS_SUSPECT: u32 = 8;

/// A partition as the metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionState {
    /// -1: none.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// Who is to lead next, once it has everything.
    pub transfer_to: Option<BrokerId>,
}

impl PartitionState {
    /// Nothing is known yet: nobody leads.
    pub(crate) fn unknown() -> Self {
        let (replicas, isr) = (Vec::new(), Vec::new());
        Self { leader: -1, leader_epoch: -1, partition_epoch: -1, replicas, isr, transfer_to: None }
    }
}

/// A change of the ISR that the leader asks the controller for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IsrProposal {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    /// Each member with the broker epoch it was last heard with; -1: the leader itself, or not known.
    pub isr: Vec<(BrokerId, i64)>,
    /// Who has everything and leads from now on; -1: whoever was to lead does not get there.
    pub hand_over: Option<BrokerId>,
}

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct Effects {
    pub high_watermark_moved: bool,
    /// Whoever waits for acknowledgements waits in vain: too few replicas are in sync.
    pub too_few_in_sync: bool,
    pub propose: Option<IsrProposal>,
    /// A follower asks for what comes at this offset again and again: it may not be what was written.
    pub suspect: Option<Offset>,
}

/// What a leader knows of another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follower {
    /// Up to where it has everything, durably; `None` before its first fetch in this leader epoch.
    end: Option<Offset>,
    broker_epoch: i64,
    /// When it last had all that there was.
    caught_up_ms: i64,
    fetched_ms: i64,
    /// The leader's log end at its last fetch.
    log_end_then: Offset,
    /// How often it asked for the same again, though there was something.
    repeats: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Leader {
    me: BrokerId,
    /// Where this leader's epoch begins.
    epoch_start: Offset,
    followers: BTreeMap<BrokerId, Follower>,
    isr: Vec<BrokerId>,
    partition_epoch: i32,
    proposed: Option<Vec<BrokerId>>,
    /// Who is to lead next, and since when nothing is appended for that.
    transfer: Option<(BrokerId, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Leader(Leader),
    Follower { leader: BrokerId },
}

/// One replica of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    pub leader_epoch: LeaderEpoch,
    role: Role,
    log_end: Offset,
    flushed: Offset,
    high_watermark: Offset,
    write_caching: bool,
    min_insync: usize,
}

impl Replica {
    /// A replica whose log was just opened (all of it is durable) and that has no role yet.
    pub(super) fn new(log_end: Offset, high_watermark: Offset, settings: (bool, usize)) -> Self {
        Self {
            leader_epoch: -1,
            role: Role::Follower { leader: -1 },
            log_end,
            flushed: log_end,
            high_watermark: high_watermark.min(log_end),
            write_caching: settings.0,
            min_insync: settings.1,
        }
    }

    pub(super) fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Who leads; -1 if nobody does.
    pub(super) fn leader(&self) -> BrokerId {
        match &self.role {
            Role::Leader(leader) => leader.me,
            Role::Follower { leader } => *leader,
        }
    }

    /// Whether the high watermark may be told: a new leader's may lag what was acknowledged before (KIP-207).
    pub(super) fn is_settled(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.high_watermark >= leader.epoch_start,
            Role::Follower { .. } => true,
        }
    }

    /// Followers in sync that have everything before `offset`.
    pub(super) fn followers_with(&self, offset: Offset) -> Vec<BrokerId> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        let has = |(id, follower): &(&BrokerId, &Follower)| {
            leader.isr.contains(id) && follower.end.is_some_and(|end| end >= offset)
        };
        leader.followers.iter().filter(has).map(|(id, _)| *id).collect()
    }

    /// Whether a replica is in the ISR of this leader.
    pub(super) fn has_in_sync(&self, id: BrokerId) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.isr.contains(&id))
    }

    /// Whether `acks=all` can be promised.
    pub(super) fn has_enough_in_sync(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.isr.len() >= self.insync_needed(leader),
            Role::Follower { .. } => false,
        }
    }

    /// Takes on what the metadata says. A leader of the same epoch keeps what it knows of its followers.
    pub(super) fn take_state(
        &mut self,
        me: BrokerId,
        state: &PartitionState,
        now_ms: i64,
    ) -> Effects {
        if state.leader_epoch < self.leader_epoch {
            return Effects::default();
        }
        let is_new_epoch = state.leader_epoch > self.leader_epoch;
        self.leader_epoch = state.leader_epoch;
        if state.leader != me {
            self.role = Role::Follower { leader: state.leader };
            return Effects::default();
        }
        let others = state.replicas.iter().copied().filter(|id| *id != me);
        match &mut self.role {
            Role::Leader(leader) if !is_new_epoch => {
                if state.partition_epoch <= leader.partition_epoch {
                    return Effects::default();
                }
                leader.isr.clone_from(&state.isr);
                leader.partition_epoch = state.partition_epoch;
                leader.proposed = None;
                let since = leader.transfer.map_or(now_ms, |(_, since)| since);
                leader.transfer = state.transfer_to.map(|to| (to, since));
                let known = std::mem::take(&mut leader.followers);
                leader.followers = others
                    .map(|id| {
                        (id, known.get(&id).copied().unwrap_or_else(|| Follower::new(now_ms)))
                    })
                    .collect();
            }
            Role::Leader(_) | Role::Follower { .. } => {
                self.role = Role::Leader(Leader {
                    me,
                    epoch_start: self.log_end,
                    followers: others.map(|id| (id, Follower::new(now_ms))).collect(),
                    isr: state.isr.clone(),
                    partition_epoch: state.partition_epoch,
                    proposed: None,
                    transfer: state.transfer_to.map(|to| (to, now_ms)),
                });
            }
        }
        let mut effects = self.advance();
        effects.too_few_in_sync = !self.has_enough_in_sync();
        effects.propose = self.hand_over(now_ms);
        effects
    }

    /// The log grew to `log_end`.
    pub(super) fn appended(&mut self, log_end: Offset) -> Effects {
        assert!(log_end >= self.log_end, "log_grows: an append made the log shorter");
        self.log_end = log_end;
        self.advance()
    }

    /// The log is durable up to `offset`.
    pub(super) fn flushed(&mut self, offset: Offset) -> Effects {
        assert!(offset <= self.log_end, "flushed_within_log: flushed past the log's end");
        self.flushed = self.flushed.max(offset);
        self.advance()
    }

    /// A follower's log was cut, or began anew past its end, and is durable up to there; returns how many records below its high
    /// watermark that took back.
    pub(super) fn truncated(&mut self, log_end: Offset, durable: Offset) -> i64 {
        assert!(!self.is_leader(), "leaders_never_truncate: a leader cut its log");
        self.log_end = log_end;
        self.flushed = durable.min(log_end);
        let taken_back = (self.high_watermark - log_end).max(0);
        self.high_watermark = self.high_watermark.min(log_end);
        taken_back
    }

    /// A leader's log goes on at `offset`, before it appended anything: what lies before is in object storage, and was committed.
    pub(super) fn went_on(&mut self, offset: Offset) {
        assert!(self.log_end <= offset, "leaders_never_truncate: a leader's log began anew");
        (self.log_end, self.flushed, self.high_watermark) = (offset, offset, offset);
        if let Role::Leader(leader) = &mut self.role {
            leader.epoch_start = offset;
        }
    }

    /// The leader told its high watermark.
    pub(super) fn told_high_watermark(&mut self, told: Offset) -> Effects {
        let to = told.min(self.log_end);
        if self.is_leader() || to <= self.high_watermark {
            return Effects::default();
        }
        self.high_watermark = to;
        Effects { high_watermark_moved: true, ..Effects::default() }
    }

    /// A follower asked for what comes at `offset`: it has everything before, durably.
    pub(super) fn fetched(
        &mut self,
        now_ms: i64,
        follower: BrokerId,
        broker_epoch: i64,
        offset: Offset,
    ) -> Effects {
        let log_end = self.log_end;
        let Role::Leader(leader) = &mut self.role else { return Effects::default() };
        let Some(known) = leader.followers.get_mut(&follower) else { return Effects::default() };
        let repeats = known.note(now_ms, broker_epoch, offset.min(log_end), log_end);
        let mut effects = self.advance();
        effects.suspect = (repeats > 0 && repeats % REPEATS_SUSPECT == 0).then_some(offset);
        effects.propose = self.hand_over(now_ms).or_else(|| self.expand(follower));
        effects
    }

    /// Looks whether a member of the ISR fell behind for longer than `lag_max_ms` (`replica.lag.time.max.ms`), or
    /// whether a proposal has to be made again.
    pub(super) fn tick(&mut self, now_ms: i64, lag_max_ms: i64) -> Effects {
        let log_end = self.log_end;
        if let Some(proposal) = self.hand_over(now_ms) {
            return Effects { propose: Some(proposal), ..Effects::default() };
        }
        let Role::Leader(leader) = &mut self.role else { return Effects::default() };
        if leader.proposed.is_some() {
            return Effects { propose: leader.proposal(self.leader_epoch), ..Effects::default() };
        }
        let lags = |id: &BrokerId| {
            leader.followers.get(id).is_some_and(|follower| {
                follower.end != Some(log_end) && now_ms - follower.caught_up_ms > lag_max_ms
            })
        };
        let left: Vec<BrokerId> = leader.isr.iter().copied().filter(|id| !lags(id)).collect();
        if left.len() == leader.isr.len() {
            return Effects::default();
        }
        leader.proposed = Some(left);
        Effects { propose: leader.proposal(self.leader_epoch), ..Effects::default() }
    }

    /// The controller refused a proposal for good.
    pub(super) fn refused(&mut self, leader_epoch: LeaderEpoch, partition_epoch: i32) {
        if let Role::Leader(leader) = &mut self.role
            && self.leader_epoch == leader_epoch
            && leader.partition_epoch == partition_epoch
        {
            leader.proposed = None;
        }
    }

    /// The topic's `write.caching` or `min.insync.replicas` changed.
    pub(super) fn configure(&mut self, (write_caching, min_insync): (bool, usize)) -> Effects {
        self.write_caching = write_caching;
        self.min_insync = min_insync;
        self.advance()
    }

    /// Whether nothing is appended any more, so that the next leader gets everything.
    pub(super) fn is_handing_over(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_some())
    }

    /// Tells that the next leader has everything, also what nobody waited for (`acks=1`); or that it takes too long.
    fn hand_over(&self, now_ms: i64) -> Option<IsrProposal> {
        let Role::Leader(leader) = &self.role else { return None };
        let (to, since_ms) = leader.transfer?;
        let has_all = leader.isr.contains(&to)
            && leader.followers.get(&to).is_some_and(|f| f.end == Some(self.log_end));
        let hand_over = match has_all {
            true => Some(to),
            false if now_ms - since_ms > HAND_OVER_MAX_MS => Some(-1),
            false => return None,
        };
        let isr = leader.isr.iter().map(|id| (*id, -1)).collect();
        let (leader_epoch, partition_epoch) = (self.leader_epoch, leader.partition_epoch);
        Some(IsrProposal { leader_epoch, partition_epoch, isr, hand_over })
    }

    /// Proposes a follower that has caught up for the ISR.
    fn expand(&mut self, follower: BrokerId) -> Option<IsrProposal> {
        let Role::Leader(leader) = &mut self.role else { return None };
        if leader.proposed.is_some() || leader.isr.contains(&follower) {
            return None;
        }
        let end = leader.followers.get(&follower)?.end?;
        let is_behind = end < self.high_watermark || end < leader.epoch_start;
        if is_behind && !is_planted(Bug::JoinIsrEarly) {
            return None;
        }
        let mut isr = leader.isr.clone();
        isr.push(follower);
        leader.proposed = Some(isr);
        leader.proposal(self.leader_epoch)
    }

    fn insync_needed(&self, leader: &Leader) -> usize {
        // As Kafka: a topic with fewer replicas than the setting needs them all.
        self.min_insync.min(leader.followers.len() + 1)
    }

    /// Up to where everything is committed if this leader has `own`; `None` where that can't be told, or may not move.
    fn committed_with(&self, own: Offset) -> Option<Offset> {
        let Role::Leader(leader) = &self.role else { return None };
        if leader.isr.len() < self.insync_needed(leader) && !is_planted(Bug::IgnoreMinInsync) {
            return None;
        }
        let is_eager = self.write_caching || is_planted(Bug::AckBeforeFlush);
        let mut to = if is_eager { self.log_end } else { own };
        let counts_proposed = !is_planted(Bug::IgnoreProposedIsr);
        let proposed = leader.proposed.iter().flatten().filter(|_| counts_proposed);
        for id in leader.isr.iter().chain(proposed).filter(|id| **id != leader.me) {
            match leader.followers.get(id).map(|follower| follower.end) {
                Some(Some(end)) => to = to.min(end),
                // followers_of_this_epoch: nothing is known of it yet.
                Some(None) => return None,
                None => {}
            }
        }
        Some(to)
    }

    /// Where the high watermark will be once this leader has flushed, if that is all that holds it back.
    pub(super) fn held_back_by_flush(&self) -> Option<Offset> {
        self.committed_with(self.log_end).filter(|to| *to > self.high_watermark)
    }

    fn advance(&mut self) -> Effects {
        let Some(to) = self.committed_with(self.flushed) else { return Effects::default() };
        if to <= self.high_watermark {
            return Effects::default();
        }
        assert!(to <= self.log_end, "high_watermark_within_log: {to} is past {}", self.log_end);
        self.high_watermark = to;
        Effects { high_watermark_moved: true, ..Effects::default() }
    }
}

impl Leader {
    fn proposal(&self, leader_epoch: LeaderEpoch) -> Option<IsrProposal> {
        let epoch_of = |id: &BrokerId| self.followers.get(id).map_or(-1, |f| f.broker_epoch);
        let isr = self.proposed.as_ref()?.iter().map(|id| (*id, epoch_of(id))).collect();
        let partition_epoch = self.partition_epoch;
        Some(IsrProposal { leader_epoch, partition_epoch, isr, hand_over: None })
    }
}

impl Follower {
    fn new(now_ms: i64) -> Self {
        Self {
            end: None,
            broker_epoch: -1,
            caught_up_ms: now_ms,
            fetched_ms: now_ms,
            log_end_then: -1,
            repeats: 0,
        }
    }

    /// Notes a fetch; how often the follower has asked for the same.
    fn note(&mut self, now_ms: i64, broker_epoch: i64, offset: Offset, log_end: Offset) -> u32 {
        let is_same = self.end == Some(offset) && offset < self.log_end_then;
        self.repeats = if is_same { self.repeats.saturating_add(1) } else { 0 };
        if offset >= log_end {
            self.caught_up_ms = now_ms;
        } else if self.log_end_then >= 0 && offset >= self.log_end_then {
            self.caught_up_ms = self.caught_up_ms.max(self.fetched_ms);
        }
        self.end = Some(offset);
        self.broker_epoch = broker_epoch;
        self.fetched_ms = now_ms;
        self.log_end_then = log_end;
        self.repeats
    }
}
