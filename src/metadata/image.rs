//! The metadata as it stands: an immutable value, shared by whoever reads it.
//!
//! Invariants: `names` and `topics` hold the same topics; partitions of a topic are numbered without gaps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{ConfigResource, MetadataRecord};
use crate::model::{BrokerId, LeaderEpoch, PartitionId, ProducerId, TopicId};

/// A partition's assignment and who leads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionImage {
    /// -1: nobody who may lead is there.
    pub leader: BrokerId,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// Replicas that left the ISR while it was too small, and still have all that is committed (KIP-966).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// Grows with each change.
    #[serde(default)]
    pub partition_epoch: i32,
    /// Who is to lead next, once it has everything: the leader takes nothing more and says when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_to: Option<BrokerId>,
    /// Replicas that a reassignment adds, and those that it takes away once the others are in sync (KIP-455).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding: Vec<BrokerId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<BrokerId>,
}

/// Where a broker can be reached by those who use one of its listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BrokerEndpoint {
    pub listener: String,
    pub host: String,
    pub port: u16,
}

/// More partitions than this were never tried on one broker: nobody is told of more.
pub(crate) const PARTITIONS_TRIED: usize = 20_000;

/// How many partitions a broker can hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capacity {
    pub partitions: u32,
    /// What bounds it, in words.
    pub by: String,
    /// Whether none of its log directories has room for a new one.
    #[serde(default)]
    pub is_full: bool,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BrokerImage {
    /// Grows with each registration.
    pub epoch: i64,
    pub incarnation: Uuid,
    pub endpoints: Vec<BrokerEndpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The identities of its log directories.
    pub directories: Vec<Uuid>,
    /// Not heard of for too long, or not caught up yet: it leads nothing and is in no ISR.
    pub is_fenced: bool,
    /// It asked to stop or to be emptied: it gets nothing new to lead.
    #[serde(default)]
    pub is_draining: bool,
    /// The newest feature level that it knows.
    #[serde(default = "first_level")]
    pub level_max: i16,
    /// What it can hold; `None`: it is of a release that does not say, or one wrote the record. Whoever does not know it passes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// What brokers know that do not say it.
fn first_level() -> i16 {
    super::LEVEL_MIN
}

impl BrokerImage {
    /// Whether it may lead.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_fenced && !self.is_draining
    }

    pub(crate) fn endpoint(&self, listener: &str) -> Option<&BrokerEndpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicImage {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<PartitionImage>,
}

/// See the file's header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub topics: BTreeMap<Arc<str>, Arc<TopicImage>>,
    names: HashMap<TopicId, Arc<str>>,
    configs: BTreeMap<ConfigResource, Arc<BTreeMap<String, String>>>,
    pub brokers: BTreeMap<BrokerId, Arc<BrokerImage>>,
    /// The disks that voters vote from.
    pub voters: BTreeMap<BrokerId, Uuid>,
    pub next_producer_id: ProducerId,
    pub features: BTreeMap<String, i16>,
}

impl Image {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// The values that are set for a resource.
    pub(crate) fn configs(&self, resource: &ConfigResource) -> Arc<BTreeMap<String, String>> {
        self.configs.get(resource).cloned().unwrap_or_default()
    }

    /// The resources that have values.
    #[cfg(test)]
    pub(crate) fn configured(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.keys()
    }

    /// Takes a record in. One that names a topic that is gone changes nothing.
    pub(crate) fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic { name, id } => {
                let name: Arc<str> = name.as_str().into();
                self.names.insert(*id, Arc::clone(&name));
                let topic = TopicImage { name: Arc::clone(&name), id: *id, partitions: Vec::new() };
                self.topics.insert(name, Arc::new(topic));
            }
            MetadataRecord::RemoveTopic { id } => {
                if let Some(name) = self.names.remove(id) {
                    self.topics.remove(&name);
                    self.configs.remove(&ConfigResource::Topic(name.to_string()));
                }
            }
            MetadataRecord::Partition { topic, partition, state } => {
                self.set_partition(*topic, *partition, state.clone());
            }
            MetadataRecord::Config { resource, name, value } => {
                self.set_config(resource, name, value.as_ref());
            }
            MetadataRecord::Broker { id, state } => {
                self.brokers.insert(*id, Arc::new(state.clone()));
            }
            MetadataRecord::RemoveBroker { id } => {
                self.brokers.remove(id);
            }
            MetadataRecord::Voter { id, directory } => {
                self.voters.insert(*id, *directory);
            }
            MetadataRecord::RemoveVoter { id } => {
                self.voters.remove(id);
            }
            MetadataRecord::ProducerIds { next } => {
                self.next_producer_id = self.next_producer_id.max(*next);
            }
            MetadataRecord::Feature { name, level } => {
                self.features.insert(name.clone(), *level);
            }
        }
    }

    fn set_config(&mut self, resource: &ConfigResource, name: &str, value: Option<&String>) {
        let values = self.configs.entry(resource.clone()).or_default();
        let values = Arc::make_mut(values);
        match value {
            Some(value) => values.insert(name.to_owned(), value.clone()),
            None => values.remove(name),
        };
        if values.is_empty() {
            self.configs.remove(resource);
        }
    }

    fn set_partition(&mut self, topic: TopicId, partition: PartitionId, found: PartitionImage) {
        let Some(topic) = self.names.get(&topic).and_then(|name| self.topics.get_mut(name)) else {
            return;
        };
        let Ok(index) = usize::try_from(partition) else { return };
        let partitions = &mut Arc::make_mut(topic).partitions;
        match partitions.get_mut(index) {
            Some(slot) => {
                let grows = found.partition_epoch > slot.partition_epoch
                    && found.leader_epoch >= slot.leader_epoch;
                assert!(
                    grows || found == *slot,
                    "partition_epoch_grows: {slot:?} before {found:?}"
                );
                *slot = found;
            }
            None => partitions.push(found),
        }
    }

    /// The records that turn `self` into `to`, for whoever followed this image: what is gone, then all that is there.
    pub(crate) fn records_to(&self, to: &Image) -> Vec<MetadataRecord> {
        let gone = self.topics.values().filter(|topic| to.topic_by_id(topic.id).is_none());
        let mut records: Vec<_> =
            gone.map(|topic| MetadataRecord::RemoveTopic { id: topic.id }).collect();
        for (resource, values) in &self.configs {
            let now = to.configs(resource);
            for name in values.keys().filter(|name| !now.contains_key(*name)) {
                let (resource, name) = (resource.clone(), name.clone());
                records.push(MetadataRecord::Config { resource, name, value: None });
            }
        }
        records.extend(to.records());
        records
    }

    /// The records that make this image from nothing.
    pub(crate) fn records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic { name: topic.name.to_string(), id: topic.id });
            for (partition, found) in (0..).zip(&topic.partitions) {
                let (topic, state) = (topic.id, found.clone());
                records.push(MetadataRecord::Partition { topic, partition, state });
            }
        }
        for (resource, values) in &self.configs {
            for (name, value) in values.iter() {
                let (resource, name, value) = (resource.clone(), name.clone(), Some(value.clone()));
                records.push(MetadataRecord::Config { resource, name, value });
            }
        }
        let broker = |(id, state): (&BrokerId, &Arc<BrokerImage>)| MetadataRecord::Broker {
            id: *id,
            state: BrokerImage::clone(state),
        };
        records.extend(self.brokers.iter().map(broker));
        let voter = |(id, directory): (&BrokerId, &Uuid)| MetadataRecord::Voter {
            id: *id,
            directory: *directory,
        };
        records.extend(self.voters.iter().map(voter));
        records.push(MetadataRecord::ProducerIds { next: self.next_producer_id });
        let feature = |(name, level): (&String, &i16)| MetadataRecord::Feature {
            name: name.clone(),
            level: *level,
        };
        records.extend(self.features.iter().map(feature));
        records
    }
}
