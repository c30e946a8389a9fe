//! Why the controller refuses a command; the texts are the ones that Kafka's clients show.

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::model::{BrokerId, TopicNameError};

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum ControllerError {
    #[error("{0}")]
    TopicName(String),
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    TopicCollides { name: String, existing: String },
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    #[error("{0}")]
    Partitions(String),
    /// More than the cluster or a broker is to hold.
    #[error("{0}")]
    Limit(String),
    #[error("{0}")]
    ReplicationFactor(String),
    #[error("{0}")]
    Assignment(String),
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Request(String),
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    /// Another process with this id is alive, or was a moment ago.
    #[error(
        "broker {0} is registered by another process that is still alive: give this one another node.id"
    )]
    DuplicateBroker(BrokerId),
    #[error("the broker epoch is not the one of the newest registration")]
    StaleBrokerEpoch,
    #[error("the leader epoch is older than the partition's")]
    FencedLeaderEpoch,
    #[error("the partition changed meanwhile")]
    InvalidUpdateVersion,
    #[error("broker {0} may not be in the ISR")]
    IneligibleReplica(BrokerId),
    #[error("The preferred leader was not available")]
    PreferredLeaderNotAvailable,
    #[error("None of the eligible replicas can lead the partition")]
    EligibleLeadersNotAvailable,
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    #[error("No partition reassignment is in progress.")]
    NoReassignment,
    /// A feature level is not known to everybody, or what is asked needs a newer one.
    #[error("{0}")]
    Feature(String),
    #[error("node {0} is a voter already")]
    DuplicateVoter(BrokerId),
    #[error("node {0} is not a voter, or votes from another disk")]
    UnknownVoter(BrokerId),
    /// What was said of the new voter is not what it says of itself.
    #[error("{0}")]
    Voter(String),
    /// What would be decided can't be written down, or a broker has no room for it.
    #[error("{0}")]
    Storage(String),
    /// Another node leads the quorum, or none does.
    #[error("this node is not the controller")]
    NotController,
    /// It may have been carried out.
    #[error("the controller did not answer in time: {0}")]
    Unavailable(String),
}

impl From<ConfigError> for ControllerError {
    fn from(error: ConfigError) -> Self {
        ControllerError::Config(error.to_string())
    }
}

impl From<TopicNameError> for ControllerError {
    fn from(error: TopicNameError) -> Self {
        ControllerError::TopicName(error.to_string())
    }
}
