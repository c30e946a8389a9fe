//! The nouns that every module shares, and the checked conversions between widths of numbers.
//!
//! Invariants: a type here has no behaviour beyond its own value.
//! Left to others: everything that knows what the values are for.

pub(crate) mod number;
mod topic;
mod turn;

pub(crate) use topic::{TopicNameError, TopicPartition, validate_topic_name};
pub(crate) use turn::Turn;

/// Position of a record in its partition; 0 is the first record ever written.
pub(crate) type Offset = i64;
/// Number of a leadership of one partition (KIP-101); it never goes back.
pub(crate) type LeaderEpoch = i32;
/// Identity of a topic's incarnation (KIP-516); the nil value means "none".
pub(crate) type TopicId = uuid::Uuid;
/// Index of a partition in its topic.
pub(crate) type PartitionId = i32;
/// `node.id` of a broker.
pub(crate) type BrokerId = i32;
/// Identity of an idempotent producer (KIP-98).
pub(crate) type ProducerId = i64;
/// Generation of a producer id.
pub(crate) type ProducerEpoch = i16;
/// Milliseconds since 1970-01-01 UTC.
pub(crate) type Timestamp = i64;

/// The topic that holds committed offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The timestamp that stands for "none" on the wire.
pub(crate) const NO_TIMESTAMP: Timestamp = -1;
