//! Decisions about topics and partitions: pure functions of the image.
//!
//! Invariants: records are only returned for a command that is allowed as a whole.

use std::collections::BTreeMap;

use super::error::ControllerError;
use crate::config::{Config, check_topic_override};
use crate::metadata::{Image, MetadataRecord, TopicImage};
use crate::model::number::{to_i32, to_usize};
use crate::model::{BrokerId, PartitionId, TopicId, validate_topic_name};

/// More partitions than this for one topic are a mistake; Kafka's own limit for one request.
const PARTITIONS_MAX: i32 = 10_000;

/// A topic that somebody wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewTopic {
    pub name: String,
    /// -1: the broker's default.
    pub partitions: i32,
    /// -1: the broker's default.
    pub replication_factor: i16,
    /// Replicas by partition; empty: the controller chooses.
    pub assignments: Vec<(PartitionId, Vec<BrokerId>)>,
    pub configs: BTreeMap<String, Option<String>>,
}

/// Partitions that somebody wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewPartitions {
    pub topic: String,
    /// In all, with those that are there.
    pub count: i32,
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// A new topic's records.
pub(super) fn create_topic(
    image: &Image,
    config: &Config,
    node_id: BrokerId,
    topic: &NewTopic,
    id: TopicId,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    check_name(image, &topic.name)?;
    let count = if topic.assignments.is_empty() {
        partitions_of(config, topic.partitions)?
    } else {
        assigned(topic, node_id)?
    };
    if topic.assignments.is_empty() {
        check_replication(config, topic.replication_factor)?;
    }
    let mut records = vec![MetadataRecord::Topic { name: topic.name.clone(), id }];
    records.extend((0..count).map(|partition| new_partition(id, partition, node_id)));
    for (name, value) in &topic.configs {
        let Some(value) = value else {
            return Err(ControllerError::Config(format!(
                "Null value not supported for topic configs: {name}"
            )));
        };
        check_topic_override(name, value).map_err(ControllerError::Config)?;
        records.push(MetadataRecord::Config {
            resource: crate::metadata::ConfigResource::Topic(topic.name.clone()),
            name: name.clone(),
            value: Some(value.trim().to_owned()),
        });
    }
    Ok(records)
}

fn check_name(image: &Image, name: &str) -> Result<(), ControllerError> {
    validate_topic_name(name)?;
    if image.topic(name).is_some() {
        return Err(ControllerError::TopicExists(name.to_owned()));
    }
    // Metric names put '_' for '.', so two topics that differ only there can't be told apart.
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let folded = name.replace('.', "_");
    let other = image
        .topics
        .keys()
        .find(|other| other.len() == name.len() && other.replace('.', "_") == folded);
    match other {
        Some(existing) => Err(ControllerError::TopicCollides {
            name: name.to_owned(),
            existing: existing.to_string(),
        }),
        None => Ok(()),
    }
}

fn partitions_of(config: &Config, asked: i32) -> Result<i32, ControllerError> {
    match asked {
        -1 => Ok(config.int("num.partitions")),
        1..=PARTITIONS_MAX => Ok(asked),
        ..=0 => Err(ControllerError::Partitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        )),
        _ => Err(ControllerError::Partitions(format!(
            "Number of partitions is above {PARTITIONS_MAX}."
        ))),
    }
}

fn check_replication(config: &Config, asked: i16) -> Result<(), ControllerError> {
    let wanted = if asked == -1 { config.long("default.replication.factor") } else { asked.into() };
    match wanted {
        1 => Ok(()),
        ..=0 => Err(ControllerError::ReplicationFactor(
            "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
        )),
        _ => Err(ControllerError::ReplicationFactor(format!(
            "Unable to replicate the partition {wanted} time(s): The target replication factor of {wanted} \
             cannot be reached because only 1 broker(s) are registered."
        ))),
    }
}

/// Checks a manual assignment and returns its number of partitions.
fn assigned(topic: &NewTopic, node_id: BrokerId) -> Result<i32, ControllerError> {
    if topic.partitions != -1 || topic.replication_factor != -1 {
        return Err(ControllerError::Request(
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1."
                .to_owned(),
        ));
    }
    let mut indexes: Vec<PartitionId> = topic.assignments.iter().map(|(index, _)| *index).collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..to_i32(indexes.len())) {
        return Err(ControllerError::Assignment(
            "partitions should be a consecutive 0-based integer sequence".into(),
        ));
    }
    topic.assignments.iter().try_for_each(|(_, replicas)| check_replicas(replicas, node_id))?;
    Ok(to_i32(indexes.len()))
}

fn check_replicas(replicas: &[BrokerId], node_id: BrokerId) -> Result<(), ControllerError> {
    if replicas.is_empty() {
        return Err(ControllerError::Assignment(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        ));
    }
    if let Some(other) = replicas.iter().find(|replica| **replica != node_id) {
        return Err(ControllerError::Assignment(format!(
            "The manual partition assignment includes broker {other}, but no such broker is registered."
        )));
    }
    if replicas.len() > 1 {
        return Err(ControllerError::Assignment(format!(
            "The manual partition assignment includes the broker {node_id} more than once."
        )));
    }
    Ok(())
}

/// The records that give a topic more partitions.
pub(super) fn create_partitions(
    image: &Image,
    node_id: BrokerId,
    wish: &NewPartitions,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    let topic = image.topic(&wish.topic).ok_or(ControllerError::UnknownTopic)?;
    let current = to_i32(topic.partitions.len());
    if wish.count == current {
        return Err(ControllerError::Partitions(format!(
            "Topic already has {current} partition(s)."
        )));
    }
    if wish.count < current {
        return Err(ControllerError::Partitions(format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase.",
            wish.topic, wish.count
        )));
    }
    if wish.count > PARTITIONS_MAX {
        return Err(ControllerError::Partitions(format!(
            "Number of partitions is above {PARTITIONS_MAX}."
        )));
    }
    if let Some(assignments) = &wish.assignments {
        if to_i32(assignments.len()) != wish.count - current {
            return Err(ControllerError::Assignment(format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                wish.count - current,
                assignments.len()
            )));
        }
        assignments.iter().try_for_each(|replicas| check_replicas(replicas, node_id))?;
    }
    Ok((current..wish.count).map(|partition| new_partition(topic.id, partition, node_id)).collect())
}

/// Every partition again, one leader epoch further.
pub(super) fn next_leader_epochs(image: &Image) -> Vec<MetadataRecord> {
    let bump = |topic: &TopicImage| {
        let id = topic.id;
        let next = |(partition, found): (PartitionId, &crate::metadata::PartitionImage)| {
            MetadataRecord::Partition {
                topic: id,
                partition,
                leader: found.leader,
                replicas: found.replicas.clone(),
                isr: found.isr.clone(),
                leader_epoch: found.leader_epoch + 1,
            }
        };
        (0..).zip(&topic.partitions).map(next).collect::<Vec<_>>()
    };
    let mut records = Vec::with_capacity(to_usize(image.topics.len()));
    for topic in image.topics.values() {
        records.extend(bump(topic));
    }
    records
}

fn new_partition(topic: TopicId, partition: PartitionId, node_id: BrokerId) -> MetadataRecord {
    let (replicas, isr) = (vec![node_id], vec![node_id]);
    MetadataRecord::Partition { topic, partition, leader: node_id, replicas, isr, leader_epoch: 0 }
}
