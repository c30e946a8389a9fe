//! Writes beside the segments what topics are and what groups have committed, so that the bucket alone brings them back.
//!
//! Invariants: only who leads writes: a topic's note the leader of its first partition, offsets the coordinator that has them; a
//! bucket that does not answer holds up nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::RESTORE;
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::metadata::{ConfigResource, TopicImage};
use crate::model::number::to_i32;
use crate::model::{PartitionId, TopicId, TopicPartition};
use crate::remote_log::{GroupsNote, NotedOffset, RemoteError, Tier, TopicNote};
use crate::replication::Replicas;
use crate::system::clock::{millis, sleep};

/// See the file's header.
pub(super) struct Backup {
    tier: Arc<Tier>,
    controller: Arc<Controller>,
    groups: Arc<Groups>,
    replicas: Arc<Replicas>,
    /// What was written, and need not be again.
    topics: HashMap<TopicId, TopicNote>,
    offsets: BTreeMap<PartitionId, GroupsNote>,
}

impl Backup {
    pub(super) fn new(
        tier: Arc<Tier>,
        controller: &Arc<Controller>,
        groups: &Arc<Groups>,
        replicas: &Arc<Replicas>,
    ) -> Self {
        let (controller, groups) = (Arc::clone(controller), Arc::clone(groups));
        let replicas = Arc::clone(replicas);
        let (topics, offsets) = (HashMap::new(), BTreeMap::new());
        Self { tier, controller, groups, replicas, topics, offsets }
    }

    /// Writes what changed, over and over.
    pub(super) async fn run(mut self, interval_ms: i64) {
        loop {
            let written = self.write_topics().await;
            if let Err(error) = written.and(self.write_offsets().await) {
                tracing::warn!(%error, "topics and offsets not noted in object storage yet");
            }
            sleep(millis(interval_ms)).await;
        }
    }

    async fn write_topics(&mut self) -> Result<(), RemoteError> {
        let image = self.controller.image();
        self.topics.retain(|id, _| image.topic_by_id(*id).is_some());
        for topic in image.topics.values() {
            let Some(note) = self.note_of(topic) else { continue };
            if self.topics.get(&topic.id) == Some(&note) {
                continue;
            }
            match self.tier.note_topic(&note).await {
                // Whoever leads in a newer epoch writes it.
                Ok(()) | Err(RemoteError::Fenced { .. }) => {
                    self.topics.insert(topic.id, note);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is to be said of a topic; `None` where it is not tiered, or another broker says it.
    fn note_of(&self, topic: &TopicImage) -> Option<TopicNote> {
        let first = topic.partitions.first()?;
        let config = self.controller.topic_config(&topic.name);
        if first.leader != self.controller.node_id || !config.is_in_own_bucket() {
            return None;
        }
        // What is to come from the bucket is not to be found there because it was looked for.
        let partition = self.replicas.partition(&TopicPartition::new(&topic.name, 0))?;
        if partition.awaits_restore() {
            return None;
        }
        let configs =
            self.controller.image().configs(&ConfigResource::Topic(topic.name.to_string()));
        let mut note = TopicNote::new(&self.replicas.cluster_id, &topic.name, topic.id);
        note.leader_epoch = first.leader_epoch;
        note.partitions = to_i32(topic.partitions.len());
        note.replication_factor = i16::try_from(first.replicas.len()).unwrap_or(i16::MAX);
        note.configs = configs.as_ref().clone();
        note.configs.remove(RESTORE);
        Some(note)
    }

    async fn write_offsets(&mut self) -> Result<(), RemoteError> {
        for (partition, leader_epoch, groups) in self.groups.all_offsets() {
            let noted =
                |((topic, partition), committed): (_, crate::coordinator::CommittedOffset)| {
                    let (offset, metadata) = (committed.offset, committed.metadata);
                    NotedOffset { topic, partition, offset, metadata }
                };
            let groups =
                groups.into_iter().map(|(id, all)| (id, all.into_iter().map(noted).collect()));
            let note = GroupsNote::new(
                &self.replicas.cluster_id,
                (partition, leader_epoch),
                groups.collect(),
            );
            if self.offsets.get(&partition) == Some(&note) {
                continue;
            }
            match self.tier.note_groups(&note).await {
                Ok(()) | Err(RemoteError::Fenced { .. }) => {
                    self.offsets.insert(partition, note);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
