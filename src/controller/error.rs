//! Why the controller refuses a command; the texts are the ones that Kafka's clients show.

use crate::config::ConfigError;
use crate::metadata::StoreError;
use crate::model::{BrokerId, TopicNameError};

/// See the file's header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
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
    #[error("{0}")]
    ReplicationFactor(String),
    #[error("{0}")]
    Assignment(String),
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Request(String),
    #[error("Unexpected broker id, expected {expected} or empty string, but received {asked}")]
    WrongBroker { expected: BrokerId, asked: String },
    #[error("metadata could not be made durable: {0}")]
    Store(#[from] StoreError),
}

impl From<ConfigError> for ControllerError {
    fn from(error: ConfigError) -> Self {
        ControllerError::Config(error.to_string())
    }
}
