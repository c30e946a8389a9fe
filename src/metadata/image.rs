//! The metadata as it stands: an immutable value, shared by whoever reads it.
//!
//! Invariants: `names` and `topics` hold the same topics; partitions of a topic are numbered without gaps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::record::{ConfigResource, MetadataRecord};
use crate::model::{BrokerId, LeaderEpoch, PartitionId, ProducerId, TopicId};

/// A partition's assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionImage {
    pub leader: BrokerId,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub leader_epoch: LeaderEpoch,
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
    pub brokers: BTreeMap<BrokerId, i64>,
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
            MetadataRecord::Reset => *self = Self::default(),
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
            MetadataRecord::Partition { topic, partition, leader, replicas, isr, leader_epoch } => {
                let found = PartitionImage {
                    leader: *leader,
                    replicas: replicas.clone(),
                    isr: isr.clone(),
                    leader_epoch: *leader_epoch,
                };
                self.set_partition(*topic, *partition, found);
            }
            MetadataRecord::Config { resource, name, value } => {
                self.set_config(resource, name, value.as_ref());
            }
            MetadataRecord::Broker { id, epoch } => {
                self.brokers.insert(*id, *epoch);
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
            Some(slot) => *slot = found,
            None => partitions.push(found),
        }
    }

    /// The records that make this image from nothing.
    pub(crate) fn records(&self) -> Vec<MetadataRecord> {
        let mut records = vec![MetadataRecord::Reset];
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic { name: topic.name.to_string(), id: topic.id });
            for (partition, found) in (0..).zip(&topic.partitions) {
                records.push(MetadataRecord::Partition {
                    topic: topic.id,
                    partition,
                    leader: found.leader,
                    replicas: found.replicas.clone(),
                    isr: found.isr.clone(),
                    leader_epoch: found.leader_epoch,
                });
            }
        }
        for (resource, values) in &self.configs {
            for (name, value) in values.iter() {
                let (resource, name, value) = (resource.clone(), name.clone(), Some(value.clone()));
                records.push(MetadataRecord::Config { resource, name, value });
            }
        }
        records.extend(
            self.brokers
                .iter()
                .map(|(id, epoch)| MetadataRecord::Broker { id: *id, epoch: *epoch }),
        );
        records.push(MetadataRecord::ProducerIds { next: self.next_producer_id });
        let feature = |(name, level): (&String, &i16)| MetadataRecord::Feature {
            name: name.clone(),
            level: *level,
        };
        records.extend(self.features.iter().map(feature));
        records
    }
}
