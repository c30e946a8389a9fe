//! What a bucket says of a cluster beside its segments: what each topic is, and what groups have committed. With it, topics can be
//! brought back from the bucket alone.
//!
//! Invariants: a note is changed by compare-and-swap, and never by a leader of an older epoch than wrote it; it is JSON, so that
//! whoever has the bucket can read it without this program.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::deleted::note_name;
use super::error::RemoteError;
use super::manifest::Manifest;
use super::partition::Tier;
use crate::model::{LeaderEpoch, Offset, PartitionId, TopicId};
use crate::objects::StoreError;

const FORMAT: u32 = 1;
const TOPIC_NOTE: &str = "topic.json";
const GROUPS: &str = "groups";

/// What a topic is, as the leader of its first partition tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicNote {
    format: u32,
    pub cluster_id: String,
    pub topic: String,
    pub topic_id: TopicId,
    pub leader_epoch: LeaderEpoch,
    pub partitions: i32,
    pub replication_factor: i16,
    pub configs: BTreeMap<String, String>,
}

/// Offsets that groups have committed, as the coordinator tells them that leads their partition of `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupsNote {
    format: u32,
    pub cluster_id: String,
    pub partition: PartitionId,
    pub leader_epoch: LeaderEpoch,
    pub groups: BTreeMap<String, Vec<NotedOffset>>,
}

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedOffset {
    pub topic: String,
    pub partition: PartitionId,
    pub offset: Offset,
    pub metadata: String,
}

impl TopicNote {
    pub(crate) fn new(cluster_id: &str, topic: &str, topic_id: TopicId) -> Self {
        Self {
            format: FORMAT,
            cluster_id: cluster_id.to_owned(),
            topic: topic.to_owned(),
            topic_id,
            leader_epoch: -1,
            partitions: 0,
            replication_factor: -1,
            configs: BTreeMap::new(),
        }
    }

    pub(super) fn read(object: &str, bytes: &[u8]) -> Result<Self, RemoteError> {
        Self::decode(object, bytes)
    }
}

impl GroupsNote {
    pub(crate) fn new(
        cluster_id: &str,
        (partition, leader_epoch): (PartitionId, LeaderEpoch),
        groups: BTreeMap<String, Vec<NotedOffset>>,
    ) -> Self {
        let cluster_id = cluster_id.to_owned();
        Self { format: FORMAT, cluster_id, partition, leader_epoch, groups }
    }
}

/// What stands in a bucket under a name that somebody leads.
trait Note: Serialize + DeserializeOwned + PartialEq + Sync {
    fn name(&self) -> String;
    /// Its format and the epoch of the leader that wrote it.
    fn head(&self) -> (u32, LeaderEpoch);
    /// Whether it says nothing, and need not be there.
    fn is_empty(&self) -> bool;

    fn decode(object: &str, bytes: &[u8]) -> Result<Self, RemoteError> {
        let damaged = |reason| RemoteError::Damaged { object: object.to_owned(), reason };
        let note: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        match note.head() {
            (FORMAT, _) => Ok(note),
            (format, _) => Err(damaged(format!("format {format} is not {FORMAT}"))),
        }
    }
}

impl Note for TopicNote {
    fn name(&self) -> String {
        topic_note(&self.topic, self.topic_id)
    }

    fn head(&self) -> (u32, LeaderEpoch) {
        (self.format, self.leader_epoch)
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Note for GroupsNote {
    fn name(&self) -> String {
        format!("{GROUPS}/{}/{}.json", self.cluster_id, self.partition)
    }

    fn head(&self) -> (u32, LeaderEpoch) {
        (self.format, self.leader_epoch)
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Whether an object says what a topic is.
pub(super) fn is_topic_note(object: &str) -> bool {
    object.rsplit('/').next() == Some(TOPIC_NOTE) && object.matches('/').count() == 1
}

/// The object that says what a topic is.
pub(super) fn topic_note(topic: &str, topic_id: TopicId) -> String {
    format!("{}/{TOPIC_NOTE}", Manifest::topic_folder(topic, topic_id))
}

impl Tier {
    /// Writes what a topic is.
    pub(crate) async fn note_topic(&self, note: &TopicNote) -> Result<(), RemoteError> {
        self.write_note(note).await
    }

    /// Writes what groups have committed.
    pub(crate) async fn note_groups(&self, note: &GroupsNote) -> Result<(), RemoteError> {
        self.write_note(note).await
    }

    async fn write_note<N: Note>(&self, note: &N) -> Result<(), RemoteError> {
        let name = note.name();
        let bytes = Bytes::from(serde_json::to_vec_pretty(note).unwrap_or_default());
        let (old, version) = match self.store.get(&name).await {
            Ok(found) => found,
            Err(StoreError::NotFound(_)) if note.is_empty() => return Ok(()),
            Err(StoreError::NotFound(_)) => {
                self.store.create(&name, bytes).await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let old = N::decode(&name, &old)?;
        let (_, leader_epoch) = old.head();
        if leader_epoch > note.head().1 {
            return Err(RemoteError::Fenced { partition: name, leader_epoch });
        }
        if old != *note {
            self.store.replace(&name, bytes, &version).await?;
        }
        Ok(())
    }

    /// What a topic is; `None` if the bucket does not say.
    pub(crate) async fn topic_note(
        &self,
        topic: &str,
        topic_id: TopicId,
    ) -> Result<Option<TopicNote>, RemoteError> {
        let name = topic_note(topic, topic_id);
        match self.store.get(&name).await {
            Ok((bytes, _)) => TopicNote::decode(&name, &bytes).map(Some),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a topic was deleted, so that what is left of it goes.
    pub(crate) async fn is_deleted(
        &self,
        topic: &str,
        topic_id: TopicId,
    ) -> Result<bool, RemoteError> {
        match self.store.get(&note_name(topic, topic_id)).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the groups of a cluster have committed.
    pub(crate) async fn noted_groups(
        self: &Arc<Self>,
        cluster_id: &str,
    ) -> Result<BTreeMap<String, Vec<NotedOffset>>, RemoteError> {
        let mut groups: BTreeMap<String, Vec<NotedOffset>> = BTreeMap::new();
        for listed in self.store.list(&format!("{GROUPS}/{cluster_id}")).await? {
            let (bytes, _) = self.store.get(&listed.name).await?;
            groups.extend(GroupsNote::decode(&listed.name, &bytes)?.groups);
        }
        Ok(groups)
    }
}

/// Reads any bytes as a note (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_note(bytes: &[u8]) {
    if let Ok(note) = TopicNote::decode("note", bytes) {
        assert!(is_topic_note(&note.name()) || note.topic.contains('/'), "{note:?}");
    }
    if let Ok(note) = GroupsNote::decode("note", bytes) {
        let _ = (note.name(), note.is_empty());
    }
}

/// A topic and groups, for the corpus.
#[cfg(test)]
pub(crate) fn sample_notes() -> [Vec<u8>; 2] {
    let mut topic = TopicNote::new("c", "t", TopicId::from_u128(7));
    topic.configs.insert("retention.ms".to_owned(), "5".to_owned());
    let at = NotedOffset { topic: "t".into(), partition: 0, offset: 5, metadata: String::new() };
    let groups = GroupsNote::new("c", (3, 4), [("g".to_owned(), vec![at])].into());
    [serde_json::to_vec(&topic), serde_json::to_vec(&groups)].map(Result::unwrap_or_default)
}
