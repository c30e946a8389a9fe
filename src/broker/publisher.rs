//! Makes this broker follow the metadata: partitions come, go and are configured.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use super::fetcher::Fetchers;
use super::settings;
use crate::config::{Config, TopicConfig};
use crate::coordinator::Groups;
use crate::metadata::{ConfigResource, Image, MetadataRecord, PartitionImage, Publisher};
use crate::model::{BrokerId, PartitionId, TopicId, TopicPartition};
use crate::network::ConnectionLimits;
use crate::replication::{PartitionSpec, PartitionState, Replicas};
use crate::system::Shares;
use crate::system::tasks::run_errand;

/// See the file's header.
pub(super) struct Follower {
    pub node_id: BrokerId,
    pub replicas: Arc<Replicas>,
    pub fetchers: Arc<Fetchers>,
    pub limits: Arc<ConnectionLimits>,
    pub groups: Weak<Groups>,
}

impl Publisher for Follower {
    fn publish(&self, records: &[MetadataRecord], image: &Image, config: &Config) {
        let mut configured: BTreeSet<&str> = BTreeSet::new();
        let mut all_configured = false;
        for record in records {
            match record {
                MetadataRecord::Partition { topic, partition, state } => {
                    self.take(image, config, (*topic, *partition), state);
                }
                MetadataRecord::RemoveTopic { id } => self.remove(*id),
                MetadataRecord::Config { resource: ConfigResource::Topic(name), .. } => {
                    configured.insert(name);
                }
                MetadataRecord::Config { resource: ConfigResource::Cluster, .. } => {
                    all_configured = true;
                }
                MetadataRecord::Config { resource: ConfigResource::Broker(id), .. } => {
                    all_configured |= *id == self.node_id;
                }
                MetadataRecord::Topic { .. }
                | MetadataRecord::Broker { .. }
                | MetadataRecord::RemoveBroker { .. }
                | MetadataRecord::Voter { .. }
                | MetadataRecord::RemoveVoter { .. }
                | MetadataRecord::ProducerIds { .. }
                | MetadataRecord::Feature { .. } => {}
            }
        }
        if all_configured {
            self.replicas.set_settings(settings::replicas(config));
            self.limits.set(limits(config));
            configured.extend(image.topics.keys().map(|name| &**name));
        }
        for name in configured {
            self.replicas.configure(name, &topic_config(image, config, name));
        }
    }
}

impl Follower {
    /// Takes a partition on, changes its role, or gives it up.
    fn take(
        &self,
        image: &Image,
        config: &Config,
        (topic, partition): (TopicId, PartitionId),
        found: &PartitionImage,
    ) {
        let Some(topic) = image.topic_by_id(topic) else { return };
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition };
        let handle = self.replicas.partition(&name);
        if !found.replicas.contains(&self.node_id) {
            if handle.is_some() {
                // Not by absence: this record says that the replica is elsewhere now.
                self.fetchers.follow(topic.id, &name, -1);
                self.replicas.delete_partition(&name);
                tell(&self.groups, &name);
            }
            return;
        }
        let state = state_of(found);
        if let Some(handle) = handle {
            let (groups, told) = (self.groups.clone(), name.clone());
            handle.take_state_then(&state, move || tell(&groups, &told));
        } else {
            let config = topic_config(image, config, &topic.name);
            let spec = PartitionSpec { name: name.clone(), topic_id: topic.id, state, config };
            self.replicas.create(&spec);
            tell(&self.groups, &name);
        }
        let leader = if found.leader == self.node_id { -1 } else { found.leader };
        self.fetchers.follow(topic.id, &name, leader);
    }

    fn remove(&self, id: TopicId) {
        let Some(topic) = self.replicas.topic_by_id(id) else { return };
        let delay_ms = topic
            .partitions()
            .first()
            .and_then(|partition| partition.with_log(|log| log.config().file_delete_delay_ms))
            .unwrap_or(0);
        for partition in topic.partitions() {
            self.fetchers.follow(topic.id, &partition.name, -1);
        }
        self.replicas.delete(&topic.name, delay_ms);
        let (groups, name) = (self.groups.upgrade(), Arc::clone(&topic.name));
        if let Some(groups) = groups {
            run_errand("forgetting a topic", async move { groups.forget_topic(&name).await });
        }
    }
}

/// Groups follow the partitions of their topic.
fn tell(groups: &Weak<Groups>, name: &TopicPartition) {
    if let Some(groups) = groups.upgrade() {
        groups.role_changed(name);
    }
}

/// A partition's state as its replicas take it.
pub(super) fn state_of(found: &PartitionImage) -> PartitionState {
    PartitionState {
        leader: found.leader,
        leader_epoch: found.leader_epoch,
        partition_epoch: found.partition_epoch,
        replicas: found.replicas.clone(),
        isr: found.isr.clone(),
        transfer_to: found.transfer_to,
    }
}

/// A topic's configuration in force.
pub(super) fn topic_config(image: &Image, config: &Config, name: &str) -> Arc<TopicConfig> {
    Arc::new(TopicConfig::resolve(config, &image.configs(&ConfigResource::Topic(name.to_owned()))))
}

/// Open connections, open connections of one address, new ones in a second.
pub(super) fn limits(config: &Config) -> (usize, usize, usize) {
    // The other half is for logs: a log that can't be opened would be taken for a failing disk.
    let open_max = config.size("max.connections").min(Shares::here().connections());
    (open_max, config.size("max.connections.per.ip"), config.size("max.connection.creation.rate"))
}
