//! Decisions about settings (KIP-226, KIP-339): pure functions of the image.
//!
//! Invariants: a value that is stored passed the check of its row; a setting that is not dynamic is never stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ControllerError;
use crate::config::{
    BROKER_ROWS, Config, MOUNT, Origin, RESTORE, check_topic, check_topic_override, edit_list,
    effective,
};
use crate::metadata::{ConfigResource, Image, MetadataRecord};
use crate::model::BrokerId;

/// What is to happen to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConfigOperation {
    Set,
    Delete,
    Append,
    Subtract,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigChange {
    pub name: String,
    pub operation: ConfigOperation,
    pub value: Option<String>,
}

/// The configuration of this broker: what it was started with, the cluster's dynamic values, its own.
pub(super) fn in_force(started_with: &Config, image: &Image, node_id: BrokerId) -> Config {
    let mut values = image.configs(&ConfigResource::Cluster).as_ref().clone();
    values.extend(
        image.configs(&ConfigResource::Broker(node_id)).iter().map(|(k, v)| (k.clone(), v.clone())),
    );
    started_with.with_dynamic(&values)
}

/// The records of a change.
pub(super) fn alter(
    image: &Image,
    started_with: &Config,
    resource: &ConfigResource,
    changes: &[ConfigChange],
) -> Result<Vec<MetadataRecord>, ControllerError> {
    match resource {
        ConfigResource::Topic(name) if image.topic(name).is_none() => {
            return Err(ControllerError::UnknownTopic);
        }
        ConfigResource::Broker(id) if !image.brokers.contains_key(id) => {
            return Err(ControllerError::UnknownBroker(*id));
        }
        ConfigResource::Topic(_) | ConfigResource::Cluster | ConfigResource::Broker(_) => {}
    }
    let node_id = if let ConfigResource::Broker(id) = resource { *id } else { -1 };
    let broker = in_force(started_with, image, node_id);
    let current = image.configs(resource);
    let mut records = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let name = &change.name;
        if changes.iter().take(index).any(|other| other.name == *name) {
            return Err(ControllerError::Request(format!(
                "Error due to duplicate config keys : {name}"
            )));
        }
        let given = match (&change.value, change.operation) {
            (_, ConfigOperation::Delete) => None,
            (Some(value), _) => Some(value.as_str()),
            (None, _) => {
                return Err(ControllerError::Request(format!(
                    "Null value not supported for : {name}"
                )));
            }
        };
        let before = || match resource {
            ConfigResource::Topic(_) => effective(&broker, &current, name),
            ConfigResource::Cluster | ConfigResource::Broker(_) if broker_row(name).is_none() => {
                String::new()
            }
            ConfigResource::Cluster | ConfigResource::Broker(_) => broker.text(name).to_owned(),
        };
        let value = match (given, change.operation) {
            (None, _) => None,
            (Some(given), ConfigOperation::Append | ConfigOperation::Subtract) => {
                let add = change.operation == ConfigOperation::Append;
                check_known(resource, name)?;
                Some(edit_list(name, &before(), given, add).map_err(ControllerError::Config)?)
            }
            (Some(given), ConfigOperation::Set | ConfigOperation::Delete) => {
                Some(given.trim().to_owned())
            }
        };
        // What is not known is not set: taking it away is done (kafka-reassign-partitions takes away its throttles).
        if change.operation != ConfigOperation::Delete || current.contains_key(name) {
            check(resource, name, value.as_deref())?;
        }
        if current.get(name) != value.as_ref() {
            records.push(MetadataRecord::Config {
                resource: resource.clone(),
                name: name.clone(),
                value,
            });
        }
    }
    if let ConfigResource::Topic(topic) = resource {
        let overrides = after(&current, &records)?;
        check_topic(topic, &broker, &current, &overrides).map_err(ControllerError::Config)?;
    }
    Ok(records)
}

/// A topic's settings after a change.
fn after(
    current: &BTreeMap<String, String>,
    records: &[MetadataRecord],
) -> Result<BTreeMap<String, String>, ControllerError> {
    let mut overrides = current.clone();
    for record in records {
        let MetadataRecord::Config { name, value, .. } = record else { continue };
        match value {
            _ if name == MOUNT => {
                return Err(ControllerError::Config(format!(
                    "{name} says whose records a topic shows, and never changes: delete the topic, which leaves them alone"
                )));
            }
            Some(_) if name == RESTORE => {
                return Err(ControllerError::Config(format!(
                    "{name} says where a topic comes from: it is set only where one is made"
                )));
            }
            Some(value) => drop(overrides.insert(name.clone(), value.clone())),
            None => drop(overrides.remove(name)),
        }
    }
    Ok(overrides)
}

/// The changes that make `values` all that is set.
pub(super) fn replacing(
    image: &Image,
    resource: &ConfigResource,
    values: &[(String, Option<String>)],
) -> Vec<ConfigChange> {
    let set = |(name, value): &(String, Option<String>)| ConfigChange {
        name: name.clone(),
        operation: ConfigOperation::Set,
        value: value.clone(),
    };
    let mut changes: Vec<ConfigChange> = values.iter().map(set).collect();
    for name in image.configs(resource).keys() {
        if !values.iter().any(|(other, _)| other == name) {
            changes.push(ConfigChange {
                name: name.clone(),
                operation: ConfigOperation::Delete,
                value: None,
            });
        }
    }
    changes
}

fn broker_row(name: &str) -> Option<&'static crate::config::Row> {
    BROKER_ROWS.iter().find(|row| row.name == name)
}

fn check_known(resource: &ConfigResource, name: &str) -> Result<(), ControllerError> {
    let topic = matches!(resource, ConfigResource::Topic(_));
    let known = crate::config::TOPIC_ROWS.iter().any(|row| row.name == name);
    if topic && !known {
        return Err(ControllerError::Config(format!("Unknown topic config name: {name}")));
    }
    Ok(())
}

fn check(
    resource: &ConfigResource,
    name: &str,
    value: Option<&str>,
) -> Result<(), ControllerError> {
    match resource {
        ConfigResource::Topic(_) => {
            check_known(resource, name)?;
            value.map_or(Ok(()), |value| {
                check_topic_override(name, value).map_err(ControllerError::Config)
            })
        }
        ConfigResource::Cluster | ConfigResource::Broker(_) => {
            let dynamic = broker_row(name).map(|row| row.dynamic);
            match dynamic {
                Some(true) => {}
                Some(false) => {
                    return Err(ControllerError::Request(format!(
                        "Cannot update these configs dynamically: Set({name})"
                    )));
                }
                None => {
                    return Err(ControllerError::Config(format!(
                        "Unknown broker config name: {name}"
                    )));
                }
            }
            match value {
                Some(value) => Ok(Config::default().set(name, value, Origin::Dynamic)?),
                None => Ok(()),
            }
        }
    }
}
