//! What can be said about the cluster, one fact a record.
//!
//! Invariants: a record is JSON with its kind as `type`, so that `log dump` shows it as it is; fields are only added.

use serde::{Deserialize, Serialize};

use super::image::{BrokerImage, PartitionImage};
use crate::model::{BrokerId, PartitionId, ProducerId, TopicId};

/// Whose configuration a value belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConfigResource {
    Topic(String),
    /// Every broker that does not say otherwise.
    Cluster,
    Broker(BrokerId),
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum MetadataRecord {
    Topic {
        name: String,
        id: TopicId,
    },
    RemoveTopic {
        id: TopicId,
    },
    Partition {
        topic: TopicId,
        partition: PartitionId,
        state: PartitionImage,
    },
    /// `None` takes the value away.
    Config {
        resource: ConfigResource,
        name: String,
        value: Option<String>,
    },
    /// A broker's registration as it stands now.
    Broker {
        id: BrokerId,
        state: BrokerImage,
    },
    RemoveBroker {
        id: BrokerId,
    },
    /// The disk that a voter votes from: one that lost it is another voter.
    Voter {
        id: BrokerId,
        directory: uuid::Uuid,
    },
    RemoveVoter {
        id: BrokerId,
    },
    /// Producer ids below `next` were given out.
    ProducerIds {
        next: ProducerId,
    },
    /// A finalized feature level (KIP-584).
    Feature {
        name: String,
        level: i16,
    },
}
