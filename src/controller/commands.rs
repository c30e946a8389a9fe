//! Decisions about topics and partitions: pure functions of the image.
//!
//! Invariants: records are only returned for a command that is allowed as a whole.

use std::collections::BTreeMap;

use super::command::{NewPartitions, NewTopic};
use super::error::ControllerError;
use super::placement::Placement;
use crate::config::{Config, MOUNT, MOUNT_EPOCH, RESTORE, canonical_override, check_topic};
use crate::metadata::{ConfigResource, Image, MetadataRecord, PARTITIONS_TRIED, PartitionImage};
use crate::model::number::to_i32;
use crate::model::{BrokerId, LeaderEpoch, PartitionId, TopicId, validate_topic_name};

/// More partitions than this for one topic are a mistake; Kafka's own limit for one request.
const PARTITIONS_MAX: i32 = 10_000;

/// As Apache Kafka says it.
fn too_many() -> ControllerError {
    ControllerError::Limit("Excessively large number of partitions per request.".to_owned())
}

/// A new topic's records.
pub(super) fn create_topic(
    image: &Image,
    config: &Config,
    topic: &NewTopic,
    id: TopicId,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    check_name(image, &topic.name)?;
    let first_epoch = first_epoch(image, topic, id)?;
    let replicas: Vec<Vec<BrokerId>> = if topic.assignments.is_empty() {
        let count = partitions_of(config, topic.partitions)?;
        let mut placement = Placement::new(image, config);
        let factor = replication_of(config, topic.replication_factor, placement.brokers())?;
        (0..count).map(|_| placement.choose(factor)).collect::<Result<_, _>>()?
    } else {
        assigned(topic, image)?
    };
    let mut records = vec![MetadataRecord::Topic { name: topic.name.clone(), id }];
    check_cluster(image, config, replicas.len())?;
    check_held(image, config, &replicas)?;
    for (partition, replicas) in (0..).zip(replicas) {
        records.push(new_partition(image, (id, first_epoch), partition, replicas)?);
    }
    let mut overrides = BTreeMap::new();
    for (name, value) in &topic.configs {
        let Some(value) = value else {
            return Err(ControllerError::Config(format!(
                "Null value not supported for topic configs: {name}"
            )));
        };
        let value = canonical_override(name, value).map_err(ControllerError::Config)?;
        overrides.insert(name.clone(), value.clone());
        records.push(MetadataRecord::Config {
            resource: ConfigResource::Topic(topic.name.clone()),
            name: name.clone(),
            value: Some(value),
        });
    }
    check_topic(&topic.name, config, &BTreeMap::new(), &overrides)
        .map_err(ControllerError::Config)?;
    Ok(records)
}

/// The leader epoch that partitions begin with: of a topic that is brought back, one that nobody had before.
fn first_epoch(
    image: &Image,
    topic: &NewTopic,
    id: TopicId,
) -> Result<LeaderEpoch, ControllerError> {
    if topic.is_mounted() {
        return Ok(MOUNT_EPOCH);
    }
    let Some(restore) = topic.restore()? else { return Ok(0) };
    if restore.topic_id != id {
        return Err(ControllerError::Request(format!(
            "the topic's id is {id}, and {RESTORE} says {restore}"
        )));
    }
    match image.topic_by_id(id) {
        Some(topic) => Err(ControllerError::TopicExists(format!("{} ({id})", topic.name))),
        None => Ok(restore.leader_epoch),
    }
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
        _ => Err(too_many()),
    }
}

/// Replicas of each partition. A default that there are too few brokers for means all of those that are registered.
fn replication_of(config: &Config, asked: i16, brokers: usize) -> Result<i16, ControllerError> {
    match asked {
        -1 => {
            let wanted = config.size("default.replication.factor").min(brokers.max(1));
            Ok(i16::try_from(wanted).unwrap_or(i16::MAX))
        }
        ..=0 => Err(ControllerError::ReplicationFactor(
            "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
        )),
        asked => Ok(asked),
    }
}

/// Checks a manual assignment, in Kafka's order, and returns its replicas in the order of partitions.
fn assigned(topic: &NewTopic, image: &Image) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
    for (is_set, what) in [
        (topic.replication_factor != -1, "replication factor"),
        (topic.partitions != -1, "numPartitions"),
    ] {
        if is_set {
            return Err(ControllerError::Request(format!(
                "A manual partition assignment was specified, but {what} was not set to -1."
            )));
        }
    }
    let (mut found, mut factor) = (BTreeMap::new(), None);
    for (partition, replicas) in &topic.assignments {
        if found.contains_key(partition) {
            return Err(ControllerError::Assignment(format!(
                "Found multiple manual partition assignments for partition {partition}"
            )));
        }
        check_replicas(image, replicas, factor)?;
        factor = Some(replicas.len());
        found.insert(*partition, replicas.clone());
    }
    if !found.keys().copied().eq(0..to_i32(found.len())) {
        return Err(ControllerError::Assignment(
            "partitions should be a consecutive 0-based integer sequence".into(),
        ));
    }
    Ok(found.into_values().collect())
}

/// Whether a partition may be on these brokers, of which there are to be `factor`.
pub(crate) fn check_replicas(
    image: &Image,
    replicas: &[BrokerId],
    factor: Option<usize>,
) -> Result<(), ControllerError> {
    let refused = |why: String| {
        Err(ControllerError::Assignment(format!("The manual partition assignment includes {why}.")))
    };
    if replicas.is_empty() {
        return refused("an empty replica list".to_owned());
    }
    // Kafka looks at them in this order, and tells the first fault.
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for id in sorted {
        if !image.brokers.contains_key(&id) {
            return refused(format!("broker {id}, but no such broker is registered"));
        }
        if before.replace(id) == Some(id) {
            return refused(format!("the broker {id} more than once"));
        }
    }
    match factor.filter(|factor| *factor != replicas.len()) {
        Some(factor) => refused(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have {factor} replica(s)",
            replicas.len()
        )),
        None => Ok(()),
    }
}

/// Most replicas that a broker is to have, and what says so: the setting, or else the broker itself.
pub(super) fn held_max(image: &Image, config: &Config, id: BrokerId) -> (usize, String) {
    let setting = "broker.partitions.max";
    let said = config.size(setting);
    let told = image.brokers.get(&id).and_then(|broker| broker.capacity.as_ref());
    match (said, told) {
        (0, Some(told)) => {
            (usize::try_from(told.partitions).unwrap_or(usize::MAX), told.by.clone())
        }
        (0, None) => (PARTITIONS_TRIED, "what was ever tried".to_owned()),
        (said, _) => (said, setting.to_owned()),
    }
}

/// Whether a broker says that it has no room for anything new.
pub(super) fn is_full(image: &Image, id: BrokerId) -> bool {
    let told = image.brokers.get(&id).and_then(|broker| broker.capacity.as_ref());
    told.is_some_and(|told| told.is_full)
}

/// Whether the cluster is to hold so many partitions more.
fn check_cluster(image: &Image, config: &Config, more: usize) -> Result<(), ControllerError> {
    let there: usize = image.topics.values().map(|topic| topic.partitions.len()).sum();
    let (all, all_max) = (there + more, config.size("cluster.partitions.max"));
    if all > all_max {
        return Err(ControllerError::Limit(format!(
            "the cluster would have {all} partitions: cluster.partitions.max is {all_max}"
        )));
    }
    Ok(())
}

/// Whether the brokers can hold these replicas besides what they have.
pub(super) fn check_held(
    image: &Image,
    config: &Config,
    more: &[Vec<BrokerId>],
) -> Result<(), ControllerError> {
    let mut held: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for id in more.iter().flatten() {
        *held.entry(*id).or_default() += 1;
    }
    let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    for id in partitions.flat_map(|partition| &partition.replicas) {
        if let Some(count) = held.get_mut(id) {
            *count += 1;
        }
    }
    for (id, count) in held {
        if is_full(image, id) {
            return Err(ControllerError::Storage(format!(
                "broker {id} has no room left in its log directories: delete topics or records, or give it more"
            )));
        }
        let (max, by) = held_max(image, config, id);
        if count > max {
            return Err(ControllerError::Limit(format!(
                "broker {id} would have {count} replicas, and can hold {max} by {by}: delete topics, add brokers, or give it more \
                 (broker.partitions.max overrules)"
            )));
        }
    }
    Ok(())
}

/// The records that give a topic more partitions.
pub(super) fn create_partitions(
    image: &Image,
    config: &Config,
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
        return Err(too_many());
    }
    let factor = topic.partitions.first().map_or(1, |first| first.replicas.len());
    let added: Vec<Vec<BrokerId>> = if let Some(assignments) = &wish.assignments {
        if to_i32(assignments.len()) != wish.count - current {
            return Err(ControllerError::Assignment(format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                wish.count - current,
                assignments.len()
            )));
        }
        let check = |replicas: &Vec<BrokerId>| check_replicas(image, replicas, Some(factor));
        assignments.iter().try_for_each(check)?;
        assignments.clone()
    } else {
        let factor = i16::try_from(factor).unwrap_or(i16::MAX);
        let mut placement = Placement::new(image, config);
        (current..wish.count).map(|_| placement.choose(factor)).collect::<Result<_, _>>()?
    };
    check_cluster(image, config, added.len())?;
    check_held(image, config, &added)?;
    let configs = image.configs(&ConfigResource::Topic(wish.topic.clone()));
    let epoch =
        if configs.get(MOUNT).is_some_and(|text| !text.is_empty()) { MOUNT_EPOCH } else { 0 };
    let new = |(partition, replicas)| new_partition(image, (topic.id, epoch), partition, replicas);
    (current..).zip(added).map(new).collect()
}

/// A partition begins with its live replicas in sync.
fn new_partition(
    image: &Image,
    (topic, leader_epoch): (TopicId, LeaderEpoch),
    partition: PartitionId,
    replicas: Vec<BrokerId>,
) -> Result<MetadataRecord, ControllerError> {
    let is_alive = |id: &BrokerId| image.brokers.get(id).is_some_and(|broker| !broker.is_fenced);
    let isr: Vec<BrokerId> = replicas.iter().copied().filter(is_alive).collect();
    let Some(leader) = isr.first().copied() else {
        return Err(ControllerError::Assignment(format!(
            "All brokers specified in the manual partition assignment for partition {partition} are fenced or in \
             controlled shutdown."
        )));
    };
    let state = PartitionImage { leader, replicas, isr, leader_epoch, ..PartitionImage::default() };
    Ok(MetadataRecord::Partition { topic, partition, state })
}

/// The replicas of the partitions that records make.
pub(super) fn replicas_of(records: &[MetadataRecord]) -> Vec<Vec<BrokerId>> {
    let replicas = |record: &MetadataRecord| match record {
        MetadataRecord::Partition { state, .. } => Some(state.replicas.clone()),
        _ => None,
    };
    records.iter().filter_map(replicas).collect()
}
