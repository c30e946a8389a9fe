//! Decisions about leaders and ISRs: pure functions of the image.
//!
//! Invariants, of the formal models (KIP-966): `isr_and_elr_are_disjoint`; an ISR that is large enough leaves no ELR; a
//! fenced broker is in no ISR; a leader comes from the ISR, then from the ELR, and from neither only where the topic
//! allows unclean elections; each change of the leader is a new leader epoch, each change at all a new partition epoch.

use super::command::{ElectionKind, IsrChange};
use super::commands::{check_held, check_replicas};
use super::error::ControllerError;
use crate::config::{Config, TopicConfig};
use crate::metadata::{ConfigResource, Image, MetadataRecord, PartitionImage, TopicImage};
use crate::model::number::to_usize;
use crate::model::{BrokerId, PartitionId, TopicId};
use crate::system::planted::{Bug, is_planted};

/// What decisions need to know of a topic's settings.
#[derive(Debug, Clone, Copy)]
struct Rules {
    min_insync: usize,
    unclean: bool,
    write_caching: bool,
}

/// Decides about the partitions of an image.
#[derive(Debug)]
pub(super) struct Partitions<'a> {
    image: &'a Image,
    config: &'a Config,
}

impl<'a> Partitions<'a> {
    pub(super) fn new(image: &'a Image, config: &'a Config) -> Self {
        Self { image, config }
    }

    fn rules(&self, topic: &TopicImage) -> Rules {
        let values = self.image.configs(&ConfigResource::Topic(topic.name.to_string()));
        let config = TopicConfig::resolve(self.config, &values);
        Rules {
            min_insync: to_usize(config.min_insync_replicas).max(1),
            unclean: config.unclean_leader_election,
            write_caching: config.write_caching,
        }
    }

    /// Changes every partition that `touches`; the records of those that are another afterwards.
    fn each(
        &self,
        touches: impl Fn(&PartitionImage) -> bool,
        mut change: impl FnMut(&mut PartitionImage, Rules),
    ) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for topic in self.image.topics.values() {
            let mut rules = None;
            for (partition, before) in (0..).zip(&topic.partitions) {
                if !touches(before) {
                    continue;
                }
                let rules = *rules.get_or_insert_with(|| self.rules(topic));
                let mut after = before.clone();
                change(&mut after, rules);
                records.extend(record(topic.id, partition, before, after));
            }
        }
        records
    }

    /// Takes brokers out of every ISR and gives what they led to others.
    pub(super) fn without(&self, gone: &[BrokerId]) -> Vec<MetadataRecord> {
        let is_alive = |id: BrokerId| !gone.contains(&id) && self.is_alive(id);
        let touches = |p: &PartitionImage| {
            gone.contains(&p.leader) || p.isr.iter().any(|id| gone.contains(id))
        };
        self.each(touches, |partition, rules| {
            let left: Vec<BrokerId> =
                partition.isr.iter().copied().filter(|id| !gone.contains(id)).collect();
            set_isr(partition, left, rules);
            if gone.contains(&partition.leader) {
                elect(partition, rules, is_alive, |id| is_alive(id) && self.may_lead(id));
            }
        })
    }

    /// Takes a broker's replicas on a disk that failed out of their ISRs, and gives what they led to others.
    pub(super) fn offline(
        &self,
        broker: BrokerId,
        partitions: &[(TopicId, PartitionId)],
    ) -> Vec<MetadataRecord> {
        let is_alive = |id: BrokerId| id != broker && self.is_alive(id);
        let mut records = Vec::new();
        for (topic, partition) in partitions {
            let Ok((image, before)) = self.find(*topic, *partition) else { continue };
            if before.leader != broker && !before.isr.contains(&broker) {
                continue;
            }
            let (mut after, rules) = (before.clone(), self.rules(image));
            let left = after.isr.iter().copied().filter(|id| *id != broker).collect();
            set_isr(&mut after, left, rules);
            if after.leader == broker {
                elect(&mut after, rules, is_alive, |id| is_alive(id) && self.may_lead(id));
            }
            records.extend(record(*topic, *partition, before, after));
        }
        records
    }

    /// A broker came back without knowing that it has what it had: where that is not on stable storage anyway, or a
    /// disk is another, it must catch up before it counts (KIP-966). What nobody else has stays its own where nothing can have
    /// taken its place: all of its disks are there, or it begins nothing anew until they are.
    pub(super) fn unclean_return(
        &self,
        broker: BrokerId,
        has_all_disks: bool,
        begins_nothing: bool,
    ) -> Vec<MetadataRecord> {
        let touches = |p: &PartitionImage| p.isr.contains(&broker) || p.elr.contains(&broker);
        self.each(touches, |partition, rules| {
            let others = partition.isr.iter().chain(&partition.elr).any(|id| *id != broker);
            let is_suspect = !has_all_disks || rules.write_caching;
            if !is_suspect || (!others && (has_all_disks || begins_nothing)) {
                return;
            }
            partition.isr.retain(|id| *id != broker);
            partition.elr.retain(|id| *id != broker);
            if partition.leader == broker {
                let is_alive = |id| id != broker && self.is_alive(id);
                elect(partition, rules, is_alive, |id| is_alive(id) && self.may_lead(id));
            }
        })
    }

    /// A broker may lead again: partitions without a leader get one.
    pub(super) fn with(&self, broker: BrokerId) -> Vec<MetadataRecord> {
        let is_alive = |id| id == broker || self.is_alive(id);
        let touches = |p: &PartitionImage| p.leader == -1 && p.replicas.contains(&broker);
        self.each(touches, |partition, rules| elect(partition, rules, is_alive, is_alive))
    }

    /// Gives what a broker leads to others in the ISR; what nobody else can lead stays.
    pub(super) fn drained(&self, broker: BrokerId) -> Vec<MetadataRecord> {
        self.each(
            |p| p.leader == broker && p.isr.len() > 1,
            |partition, _| {
                let may =
                    |id: &&BrokerId| **id != broker && self.is_alive(**id) && self.may_lead(**id);
                let in_isr = |id: &&BrokerId| partition.isr.contains(id);
                let next = partition.replicas.iter().filter(in_isr).find(may).copied();
                partition.transfer_to = next.or(partition.transfer_to);
            },
        )
    }

    /// A leader that none of its followers in sync reaches can't commit anything: one of them leads.
    pub(super) fn avoiding(&self, leader: BrokerId, by: &[BrokerId]) -> Vec<MetadataRecord> {
        let others = |p: &PartitionImage| -> Vec<BrokerId> {
            p.isr.iter().copied().filter(|id| *id != leader && self.is_alive(*id)).collect()
        };
        let is_cut = |p: &PartitionImage| {
            let others = others(p);
            // One follower alone may itself be what is cut off.
            p.leader == leader && others.len() > 1 && others.iter().all(|id| by.contains(id))
        };
        self.each(is_cut, |partition, _| {
            let among = others(partition);
            let next = partition.replicas.iter().copied().find(|id| among.contains(id));
            if let Some(next) = next {
                tracing::warn!(leader, next, "no follower reaches the leader: another one leads");
                lead(partition, next);
            }
        })
    }

    /// Gives partitions back to the first of their replicas, where that is in sync.
    pub(super) fn balanced(&self) -> Vec<MetadataRecord> {
        let may = |p: &PartitionImage| {
            p.replicas.first().is_some_and(|first| {
                p.leader != *first
                    && p.isr.contains(first)
                    && self.is_alive(*first)
                    && self.may_lead(*first)
            })
        };
        self.each(may, |partition, _| transfer(partition, partition.replicas.first().copied()))
    }

    /// One leader's wish for an ISR.
    pub(super) fn alter_isr(
        &self,
        broker: BrokerId,
        change: &IsrChange,
    ) -> Result<Vec<MetadataRecord>, ControllerError> {
        let (topic, before) = self.find(change.topic, change.partition)?;
        if change.leader_epoch < before.leader_epoch || before.leader != broker {
            return Err(ControllerError::FencedLeaderEpoch);
        }
        if change.leader_epoch > before.leader_epoch {
            return Err(ControllerError::NotController);
        }
        if change.partition_epoch != before.partition_epoch {
            return Err(ControllerError::InvalidUpdateVersion);
        }
        let isr: Vec<BrokerId> = change.isr.iter().map(|(id, _)| *id).collect();
        if !isr.contains(&broker) {
            return Err(ControllerError::Request("the leader is not in the ISR".to_owned()));
        }
        for (id, epoch) in &change.isr {
            let known = self.image.brokers.get(id);
            // The member that was heard may be dead, and another one alive under its id (KIP-903).
            let is_same = *epoch == -1 || known.is_some_and(|known| known.epoch == *epoch);
            let is_eligible = known.is_some_and(|known| {
                !known.is_fenced && (!known.is_draining || before.isr.contains(id))
            });
            if !before.replicas.contains(id) || !is_same || !is_eligible {
                return Err(ControllerError::IneligibleReplica(*id));
            }
        }
        let mut after = before.clone();
        match change.hand_over {
            Some(to) if to >= 0 => {
                if before.transfer_to != Some(to) || !before.isr.contains(&to) || !self.is_alive(to)
                {
                    return Err(ControllerError::IneligibleReplica(to));
                }
                lead(&mut after, to);
            }
            // Whoever drains or is taken away does not keep it: then it goes without everything.
            Some(_) if !self.may_lead(broker) || before.removing.contains(&broker) => {
                let next = before.transfer_to.filter(|to| before.isr.contains(to));
                lead(&mut after, next.unwrap_or(broker));
            }
            Some(_) => after.transfer_to = None,
            None => set_isr(&mut after, isr, self.rules(topic)),
        }
        self.finish_move(&mut after);
        Ok(record(change.topic, change.partition, before, after).into_iter().collect())
    }

    /// An election that somebody asked for (KIP-460).
    pub(super) fn elected(
        &self,
        kind: ElectionKind,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<Vec<MetadataRecord>, ControllerError> {
        let (image, before) = self.find(topic, partition)?;
        let mut after = before.clone();
        match kind {
            ElectionKind::Preferred => {
                let first = before.replicas.first().copied().unwrap_or(-1);
                if before.leader == first {
                    return Err(ControllerError::ElectionNotNeeded);
                }
                if !before.isr.contains(&first) || !self.is_alive(first) || !self.may_lead(first) {
                    return Err(ControllerError::PreferredLeaderNotAvailable);
                }
                transfer(&mut after, Some(first));
            }
            ElectionKind::Unclean => {
                if before.leader != -1 {
                    return Err(ControllerError::ElectionNotNeeded);
                }
                let rules = Rules { unclean: true, ..self.rules(image) };
                elect(&mut after, rules, |id| self.is_alive(id), |id| self.is_alive(id));
                if after.leader == -1 {
                    return Err(ControllerError::EligibleLeadersNotAvailable);
                }
            }
        }
        Ok(record(topic, partition, before, after).into_iter().collect())
    }

    /// Begins to move a partition, or takes a move back (KIP-455).
    pub(super) fn reassigned(
        &self,
        topic: TopicId,
        partition: PartitionId,
        target: Option<&[BrokerId]>,
    ) -> Result<Vec<MetadataRecord>, ControllerError> {
        let (image, before) = self.find(topic, partition)?;
        let mut after = before.clone();
        // What the partition had before a move that is under way.
        let original: Vec<BrokerId> =
            before.replicas.iter().copied().filter(|id| !before.adding.contains(id)).collect();
        let Some(target) = target else {
            if before.adding.is_empty() && before.removing.is_empty() {
                return Err(ControllerError::NoReassignment);
            }
            after.replicas = original;
            after.adding.clear();
            after.removing.clear();
            self.let_go(&mut after, self.rules(image))?;
            return Ok(record(topic, partition, before, after).into_iter().collect());
        };
        check_replicas(self.image, target, None)?;
        let new: Vec<BrokerId> =
            target.iter().copied().filter(|id| !before.replicas.contains(id)).collect();
        check_held(self.image, self.config, &[new])?;
        after.adding = target.iter().copied().filter(|id| !original.contains(id)).collect();
        after.removing = original.iter().copied().filter(|id| !target.contains(id)).collect();
        after.replicas = target.to_vec();
        after.replicas.extend(&after.removing);
        self.let_go(&mut after, self.rules(image))?;
        self.finish_move(&mut after);
        Ok(record(topic, partition, before, after).into_iter().collect())
    }

    /// Takes whoever is a replica no more out of the ISR and the ELR: the leader too, which another one follows. Refused where nobody who is
    /// left has everything.
    fn let_go(&self, partition: &mut PartitionImage, rules: Rules) -> Result<(), ControllerError> {
        let PartitionImage { replicas, isr, elr, .. } = partition;
        isr.retain(|id| replicas.contains(id));
        elr.retain(|id| replicas.contains(id));
        if isr.is_empty() && elr.is_empty() && !rules.unclean {
            let text = "Without the replicas that were being added nobody has everything.";
            return Err(ControllerError::Assignment(text.to_owned()));
        }
        if !replicas.contains(&partition.leader) {
            elect(partition, rules, |id| self.is_alive(id), |id| self.is_alive(id));
        }
        Ok(())
    }

    /// Ends a move whose new replicas are all in sync.
    fn finish_move(&self, partition: &mut PartitionImage) {
        if partition.adding.is_empty() && partition.removing.is_empty() {
            return;
        }
        if !partition.adding.iter().all(|id| partition.isr.contains(id)) {
            return;
        }
        let stays = |id: &BrokerId| !partition.removing.contains(id);
        let isr: Vec<BrokerId> = partition.isr.iter().copied().filter(stays).collect();
        // Not before somebody who stays has everything.
        if isr.is_empty() {
            return;
        }
        if partition.removing.contains(&partition.leader) && self.is_alive(partition.leader) {
            let may =
                |id: &&BrokerId| isr.contains(id) && self.is_alive(**id) && self.may_lead(**id);
            let next = partition.replicas.iter().find(may).copied();
            if next.is_some() {
                // The rest follows once the next leader has everything.
                transfer(partition, next);
                return;
            }
        }
        partition.replicas = partition.replicas.iter().copied().filter(stays).collect();
        partition.elr = partition.elr.iter().copied().filter(stays).collect();
        partition.isr = isr;
        partition.adding.clear();
        partition.removing.clear();
        if !partition.replicas.contains(&partition.leader) {
            let in_isr = |id: &&BrokerId| partition.isr.contains(id);
            let may = |id: &&BrokerId| self.is_alive(**id) && self.may_lead(**id);
            let next = partition.replicas.iter().filter(in_isr).find(may);
            let next = next.or_else(|| partition.replicas.iter().find(in_isr)).copied();
            if let Some(next) = next {
                lead(partition, next);
            }
        }
    }

    fn find(
        &self,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<(&'a TopicImage, &'a PartitionImage), ControllerError> {
        let topic = self.image.topic_by_id(topic).ok_or(ControllerError::UnknownTopicId)?;
        let found = usize::try_from(partition).ok().and_then(|at| topic.partitions.get(at));
        Ok((topic, found.ok_or(ControllerError::UnknownTopic)?))
    }

    fn is_alive(&self, id: BrokerId) -> bool {
        self.image.brokers.get(&id).is_some_and(|broker| !broker.is_fenced)
    }

    fn may_lead(&self, id: BrokerId) -> bool {
        self.image.brokers.get(&id).is_some_and(|broker| broker.is_active())
    }

    /// How many partitions each broker leads, and how many more it could give to others.
    pub(super) fn led_by(&self, broker: BrokerId) -> usize {
        let movable = |p: &&PartitionImage| {
            p.leader == broker
                && p.isr.iter().any(|id| *id != broker && self.is_alive(*id) && self.may_lead(*id))
        };
        self.image.topics.values().flat_map(|topic| &topic.partitions).filter(movable).count()
    }
}

/// The record of a changed partition.
fn record(
    topic: TopicId,
    partition: PartitionId,
    before: &PartitionImage,
    mut after: PartitionImage,
) -> Option<MetadataRecord> {
    if after == *before {
        return None;
    }
    after.partition_epoch = before.partition_epoch + 1;
    if after.leader != before.leader && after.leader_epoch == before.leader_epoch {
        after.leader_epoch += 1;
    }
    let shared = after.isr.iter().find(|id| after.elr.contains(id));
    assert!(shared.is_none(), "isr_and_elr_are_disjoint: {after:?}");
    Some(MetadataRecord::Partition { topic, partition, state: after })
}

fn needed(partition: &PartitionImage, rules: Rules) -> usize {
    rules.min_insync.min(partition.replicas.len())
}

/// Sets the ISR; who leaves it while it is too small keeps what is committed, and is noted as eligible to lead.
fn set_isr(partition: &mut PartitionImage, isr: Vec<BrokerId>, rules: Rules) {
    let left: Vec<BrokerId> =
        partition.isr.iter().copied().filter(|id| !isr.contains(id)).collect();
    partition.elr.retain(|id| !isr.contains(id));
    partition.transfer_to = partition.transfer_to.filter(|to| isr.contains(to));
    partition.isr = isr;
    if partition.isr.len() >= needed(partition, rules) {
        partition.elr.clear();
    } else {
        partition.elr.extend(left);
    }
}

fn lead(partition: &mut PartitionImage, leader: BrokerId) {
    partition.leader = leader;
    partition.leader_epoch += 1;
    partition.transfer_to = None;
}

/// Asks the leader to hand over.
fn transfer(partition: &mut PartitionImage, to: Option<BrokerId>) {
    if partition.transfer_to.is_none() {
        partition.transfer_to = to.filter(|to| *to != partition.leader);
    }
}

/// Chooses a leader: of the ISR, of the ELR, or, where that is allowed, of all that are alive; none if there is none.
fn elect(
    partition: &mut PartitionImage,
    rules: Rules,
    is_alive: impl Fn(BrokerId) -> bool,
    may_lead: impl Fn(BrokerId) -> bool,
) {
    let among = |ids: &[BrokerId], good: &dyn Fn(BrokerId) -> bool| {
        partition.replicas.iter().copied().find(|id| ids.contains(id) && good(*id))
    };
    let in_sync = among(&partition.isr, &may_lead).or_else(|| among(&partition.isr, &is_alive));
    if let Some(leader) = in_sync {
        if leader != partition.leader {
            lead(partition, leader);
        }
        return;
    }
    if let Some(leader) = among(&partition.elr, &is_alive) {
        partition.elr.retain(|id| *id != leader);
        partition.elr.extend(std::mem::take(&mut partition.isr));
        partition.isr = vec![leader];
        if partition.isr.len() >= needed(partition, rules) {
            partition.elr.clear();
        }
        lead(partition, leader);
        return;
    }
    let unclean = among(&partition.replicas, &is_alive)
        .filter(|_| rules.unclean || is_planted(Bug::ElectAnyReplica));
    if let Some(leader) = unclean {
        tracing::error!(leader, "unclean leader election: what only others have is lost");
        partition.isr = vec![leader];
        partition.elr.clear();
        lead(partition, leader);
    } else if partition.leader != -1 {
        lead(partition, -1);
    }
}
