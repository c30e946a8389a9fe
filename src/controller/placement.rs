//! Which brokers get the replicas of new partitions: spread over racks, balanced by what they have.
//!
//! Invariants: replicas of one partition are on different brokers, and on as many racks as there are; the first replica
//! leads, and first places are spread like the others; one that can hold no more is only chosen where nobody else is left.

use std::collections::BTreeMap;

use super::commands::{held_max, is_full};
use super::error::ControllerError;
use crate::config::Config;
use crate::metadata::{BrokerImage, Image};
use crate::model::BrokerId;
use crate::model::number::to_usize;

/// What a broker has.
#[derive(Debug, Clone, Default)]
struct Load {
    rack: Option<String>,
    /// Fenced, or about to stop or to be emptied: it gets what the others are too few for.
    is_last: bool,
    /// How many replicas it can hold.
    replicas_max: usize,
    replicas: usize,
    first: usize,
}

/// Chooses replicas for partitions, one after the other.
#[derive(Debug)]
pub(super) struct Placement {
    loads: BTreeMap<BrokerId, Load>,
}

impl Placement {
    /// Counts what the brokers have. One that is down for a moment counts too: a topic that is made meanwhile would have
    /// too few replicas for ever.
    pub(super) fn new(image: &Image, config: &Config) -> Self {
        let load = |id: BrokerId, broker: &BrokerImage| Load {
            rack: broker.rack.clone(),
            is_last: !broker.is_active(),
            replicas_max: if is_full(image, id) { 0 } else { held_max(image, config, id).0 },
            ..Load::default()
        };
        let mut loads: BTreeMap<BrokerId, Load> =
            image.brokers.iter().map(|(id, broker)| (*id, load(*id, broker))).collect();
        for partition in image.topics.values().flat_map(|topic| &topic.partitions) {
            for (place, id) in partition.replicas.iter().enumerate() {
                if let Some(load) = loads.get_mut(id) {
                    load.replicas += 1;
                    load.first += usize::from(place == 0);
                }
            }
        }
        Self { loads }
    }

    pub(super) fn brokers(&self) -> usize {
        self.loads.len()
    }

    /// The replicas of the next partition.
    pub(super) fn choose(&mut self, count: i16) -> Result<Vec<BrokerId>, ControllerError> {
        let wanted = to_usize(count);
        if wanted > self.loads.len() {
            return Err(ControllerError::ReplicationFactor(format!(
                "Unable to replicate the partition {wanted} time(s): The target replication factor of {wanted} \
                 cannot be reached because only {} broker(s) are registered.",
                self.loads.len()
            )));
        }
        let mut chosen: Vec<BrokerId> = Vec::with_capacity(wanted);
        while chosen.len() < wanted {
            let used = |rack: &Option<String>| {
                chosen
                    .iter()
                    .filter(|id| self.loads.get(id).is_some_and(|l| l.rack == *rack))
                    .count()
            };
            let cost = |(id, load): (&BrokerId, &Load)| {
                let first = if chosen.is_empty() { load.first } else { 0 };
                let used = load.rack.as_ref().map_or(0, |_| used(&load.rack));
                let is_full = load.replicas >= load.replicas_max;
                (is_full, load.is_last, used, first, load.replicas, *id)
            };
            let free = self.loads.iter().filter(|(id, _)| !chosen.contains(id));
            let Some((.., best)) = free.map(cost).min() else { break };
            chosen.push(best);
        }
        for (place, id) in chosen.iter().enumerate() {
            if let Some(load) = self.loads.get_mut(id) {
                load.replicas += 1;
                load.first += usize::from(place == 0);
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Capacity, MetadataRecord};

    fn broker(id: BrokerId, partitions: u32, is_full: bool) -> MetadataRecord {
        let capacity = Capacity { partitions, by: "its memory".to_owned(), is_full };
        let state = BrokerImage {
            epoch: 1,
            incarnation: uuid::Uuid::nil(),
            endpoints: Vec::new(),
            rack: None,
            directories: Vec::new(),
            is_fenced: false,
            is_draining: false,
            level_max: 1,
            capacity: Some(capacity),
        };
        MetadataRecord::Broker { id, state }
    }

    #[test]
    fn a_broker_that_can_hold_no_more_is_chosen_only_where_nobody_else_is_left() {
        let mut image = Image::default();
        for (id, partitions, is_full) in [(1, 2, false), (2, 100, false), (3, 100, true)] {
            image.apply(&broker(id, partitions, is_full));
        }
        let mut placement = Placement::new(&image, &Config::default());
        let chosen: Vec<BrokerId> =
            (0..8).flat_map(|_| placement.choose(1).expect("chosen")).collect();
        let count = |id| chosen.iter().filter(|other| **other == id).count();
        assert_eq!((count(1), count(2), count(3)), (2, 6, 0));
        let all = placement.choose(3).expect("there are three");
        assert_eq!(all.first(), Some(&2));
        assert_eq!(all.len(), 3);
    }
}
