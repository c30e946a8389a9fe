//! What each command makes: records and an answer; pure functions of the image and the configuration.
//!
//! Invariants: a command that is refused makes no records.

use super::brokers;
use super::command::{Answer, Command};
use super::commands;
use super::configs;
use super::error::ControllerError;
use super::partitions::Partitions;
use super::state::ClusterState;
use crate::config::Config;
use crate::metadata::{Image, MetadataRecord};
use crate::model::BrokerId;

/// Producer ids that are taken from the metadata log at a time (KIP-730).
const PRODUCER_ID_BLOCK: i64 = 1000;

type Decided = Result<(Vec<MetadataRecord>, Answer), ControllerError>;

/// The records and the answer of one command.
pub(super) fn decide(state: &ClusterState, image: &Image, base: u64, command: &Command) -> Decided {
    let config: &Config = &state.config();
    let done = |records| Ok((records, Answer::Done));
    match command {
        Command::CreateTopic { topic, id, validate_only } => {
            let records = commands::create_topic(image, config, topic, *id)?;
            let replicas = commands::replicas_of(&records);
            let answer = Answer::Topic { id: *id, replicas };
            Ok((if *validate_only { Vec::new() } else { records }, answer))
        }
        Command::DeleteTopic { id } => {
            let topic = image.topic_by_id(*id).ok_or(ControllerError::UnknownTopicId)?;
            done(vec![MetadataRecord::RemoveTopic { id: topic.id }])
        }
        Command::CreatePartitions { wish, validate_only } => {
            let records = commands::create_partitions(image, config, wish)?;
            done(if *validate_only { Vec::new() } else { records })
        }
        Command::AlterConfigs { resource, changes, validate_only } => {
            let records = configs::alter(image, &state.started_with, resource, changes)?;
            let records = brokers::with_drains(image, config, records)?;
            done(if *validate_only { Vec::new() } else { records })
        }
        Command::ReplaceConfigs { resource, values, validate_only } => {
            let changes = configs::replacing(image, resource, values);
            let records = configs::alter(image, &state.started_with, resource, &changes)?;
            let records = brokers::with_drains(image, config, records)?;
            done(if *validate_only { Vec::new() } else { records })
        }
        Command::ProducerIds => {
            let is_first = image.next_producer_id == 0;
            let first = if is_first { state.first_producer_id } else { image.next_producer_id };
            let next = first + PRODUCER_ID_BLOCK;
            let record = MetadataRecord::ProducerIds { next };
            Ok((vec![record], Answer::ProducerIds { first, next }))
        }
        Command::AlterIsr { .. }
        | Command::Elect { .. }
        | Command::Reassign { .. }
        | Command::Avoid { .. }
        | Command::Balance => decide_partition(image, config, command),
        Command::Voter { id, directory } => {
            let is_known = image.voters.get(id) == Some(directory);
            let record = MetadataRecord::Voter { id: *id, directory: *directory };
            done(if is_known { Vec::new() } else { vec![record] })
        }
        Command::SetFeature { name, level, validate_only } => {
            let records = brokers::set_feature(image, name, *level)?;
            done(if *validate_only { Vec::new() } else { records })
        }
        Command::ForgetVoter { id } => {
            let is_known = image.voters.contains_key(id);
            done(if is_known { vec![MetadataRecord::RemoveVoter { id: *id }] } else { vec![] })
        }
        Command::Register(_)
        | Command::Heartbeat(_)
        | Command::DescribeQuorum
        | Command::AddVoter { .. }
        | Command::Observe { .. }
        | Command::RemoveVoter { .. }
        | Command::ReplicasOffline { .. }
        | Command::Unregister { .. }
        | Command::Drain { .. }
        | Command::Fence { .. }
        | Command::Capacity { .. }
        | Command::Unfence { .. } => decide_broker(image, config, base, command),
    }
}

/// The commands about leaders and replicas.
fn decide_partition(image: &Image, config: &Config, command: &Command) -> Decided {
    let done = |records| Ok((records, Answer::Done));
    let partitions = Partitions::new(image, config);
    match command {
        Command::AlterIsr { broker, epoch, changes } => {
            let known = image.brokers.get(broker);
            if known.is_none_or(|known| known.epoch != *epoch) {
                return Err(ControllerError::StaleBrokerEpoch);
            }
            let (mut records, mut results) = (Vec::new(), Vec::with_capacity(changes.len()));
            for change in changes {
                let altered = partitions.alter_isr(*broker, change);
                results.push(altered.map(|new| records.extend(new)));
            }
            Ok((records, Answer::Isr(results)))
        }
        Command::Elect { kind, topic, partition } => {
            done(partitions.elected(*kind, *topic, *partition)?)
        }
        Command::Reassign { topic, partition, replicas } => {
            done(partitions.reassigned(*topic, *partition, replicas.as_deref())?)
        }
        Command::Avoid { leader, by } => done(partitions.avoiding(*leader, by)),
        Command::Balance => done(partitions.balanced()),
        _ => done(Vec::new()),
    }
}

/// The commands about brokers.
fn decide_broker(image: &Image, config: &Config, base: u64, command: &Command) -> Decided {
    let epoch_of = |id: &BrokerId| image.brokers.get(id).map(|broker| broker.epoch);
    let records = match command {
        Command::Register(wish) => {
            let (records, epoch) = brokers::register(image, config, base, wish)?;
            return Ok((records, Answer::Registered { epoch }));
        }
        Command::ReplicasOffline { broker, epoch, partitions } => {
            if epoch_of(broker) != Some(*epoch) {
                return Err(ControllerError::StaleBrokerEpoch);
            }
            Partitions::new(image, config).offline(*broker, partitions)
        }
        Command::Unregister { broker } => brokers::unregister(image, config, *broker)?,
        Command::Drain { broker, is_draining } => {
            brokers::drain(image, config, *broker, *is_draining)?
        }
        Command::Fence { brokers } => {
            let same = brokers.iter().filter(|(id, epoch)| epoch_of(id) == Some(*epoch));
            let gone: Vec<BrokerId> = same.map(|(id, _)| *id).collect();
            brokers::fence(image, config, &gone)
        }
        Command::Capacity { broker, epoch, capacity } if epoch_of(broker) == Some(*epoch) => {
            brokers::can_hold(image, *broker, capacity)
        }
        Command::Unfence { broker, epoch } if epoch_of(broker) == Some(*epoch) => {
            brokers::unfence(image, config, *broker)
        }
        _ => Vec::new(),
    };
    Ok((records, Answer::Done))
}
