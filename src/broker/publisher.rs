//! Makes this broker follow the metadata: partitions come, go and are configured.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, Weak};

use super::settings;
use crate::config::{Config, TopicConfig};
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::metadata::{ConfigResource, Image, MetadataRecord, Publisher};
use crate::model::{BrokerId, TopicId, TopicPartition};
use crate::network::ConnectionLimits;
use crate::replication::{PartitionSpec, Replicas};
use crate::system::clock::{millis, sleep};
use crate::system::descriptors_max;
use crate::system::tasks::{blocking, spawn};

/// See the file's header.
pub(super) struct Follower {
    pub node_id: BrokerId,
    pub replicas: Arc<Replicas>,
    pub controller: Weak<Controller>,
    pub limits: Arc<ConnectionLimits>,
    pub groups: OnceLock<Weak<Groups>>,
}

impl Publisher for Follower {
    fn publish(&self, records: &[MetadataRecord], image: &Image) {
        let Some(controller) = self.controller.upgrade() else { return };
        let config = controller.config();
        let mut configured: BTreeSet<&str> = BTreeSet::new();
        let mut all_configured = false;
        for record in records {
            match record {
                MetadataRecord::Partition { topic, partition, leader_epoch, .. } => {
                    self.lead(image, &config, *topic, *partition, *leader_epoch);
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
                MetadataRecord::Reset
                | MetadataRecord::Topic { .. }
                | MetadataRecord::Broker { .. }
                | MetadataRecord::ProducerIds { .. }
                | MetadataRecord::Feature { .. } => {}
            }
        }
        if all_configured {
            self.replicas.set_settings(settings::replicas(&config));
            self.limits.set(limits(&config));
            configured.extend(image.topics.keys().map(|name| &**name));
        }
        for name in configured {
            self.replicas.configure(name, &topic_config(image, &config, name));
        }
    }
}

impl Follower {
    fn lead(
        &self,
        image: &Image,
        config: &Config,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
    ) {
        let Some(topic) = image.topic_by_id(topic) else { return };
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition };
        if let Some(handle) = self.replicas.partition(&name) {
            handle.lead(leader_epoch);
        } else {
            let config = topic_config(image, config, &topic.name);
            self.replicas.create(&PartitionSpec { name, topic_id: topic.id, leader_epoch, config });
        }
    }

    fn remove(&self, id: TopicId) {
        let Some(topic) = self.replicas.topic_by_id(id) else { return };
        let delay_ms = topic
            .partitions()
            .first()
            .and_then(|partition| partition.with_log(|log| log.config().file_delete_delay_ms))
            .unwrap_or(0);
        let folders = self.replicas.delete(&topic.name);
        let (groups, name) = (self.groups.get().and_then(Weak::upgrade), Arc::clone(&topic.name));
        spawn(async move {
            if let Some(groups) = groups {
                groups.forget_topic(&name).await;
            }
            sleep(millis(delay_ms)).await;
            blocking(move || {
                for (disk, path) in folders {
                    if let Err(error) = disk.remove_dir_all(&path) {
                        tracing::warn!(path = %path.display(), %error, "folder of a deleted partition not removed");
                    }
                }
            })
            .await;
        });
    }
}

/// A topic's configuration in force.
pub(super) fn topic_config(image: &Image, config: &Config, name: &str) -> Arc<TopicConfig> {
    Arc::new(TopicConfig::resolve(config, &image.configs(&ConfigResource::Topic(name.to_owned()))))
}

/// Open connections, open connections of one address, new ones in a second.
pub(super) fn limits(config: &Config) -> (usize, usize, usize) {
    // The other half is for logs: a log that can't be opened would be taken for a failing disk.
    let open_max = config.size("max.connections").min(descriptors_max() / 2);
    (open_max, config.size("max.connections.per.ip"), config.size("max.connection.creation.rate"))
}
