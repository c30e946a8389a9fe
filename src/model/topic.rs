//! Topic names and topic-partitions.
//!
//! Invariants: a name that passed `validate_topic_name` is safe as part of a folder name.

use std::fmt;
use std::sync::Arc;

use super::PartitionId;

/// Longest topic name, so that `name-partition` stays within a file name (Kafka's own limit).
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A partition of a named topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: PartitionId,
}

impl TopicPartition {
    pub(crate) fn new(topic: &str, partition: PartitionId) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Parses a log folder's name, `topic-partition`.
    pub(crate) fn from_folder(name: &str) -> Option<Self> {
        let (topic, partition) = name.rsplit_once('-')?;
        let partition: PartitionId = partition.parse().ok()?;
        validate_topic_name(topic).ok()?;
        (partition >= 0).then(|| Self::new(topic, partition))
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Why a topic name is refused; the text is the one that Kafka's clients show.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TopicNameError {
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(String),
    #[error("Topic name is invalid: the length of '{0}' is longer than the max allowed length 249")]
    TooLong(String),
    #[error(
        "Topic name is invalid: '{0}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Characters(String),
}

/// Checks a topic name by Kafka's rules.
pub(crate) fn validate_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots(name.to_owned()));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong(name.to_owned()));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(TopicNameError::Characters(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", ".", "..", "a/b", "a\0b", "ü", &"x".repeat(250)] {
            assert!(validate_topic_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(validate_topic_name("a.b_C-9"), Ok(()));
    }

    #[test]
    fn a_folder_name_gives_its_topic_and_partition_back() {
        let it = TopicPartition::new("a-b", 7);
        assert_eq!(TopicPartition::from_folder(&it.to_string()), Some(it));
        assert_eq!(TopicPartition::from_folder("a-b"), None);
    }
}
