//! Decisions about settings (KIP-226, KIP-339): pure functions of the image.
//!
//! Invariants: a value that is stored passed the check of its row; a setting that is not dynamic is never stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ControllerError;
use crate::config::{
    BROKER_ROWS, Config, MOUNT, Origin, RESTORE, canonical_override, check_broker, check_topic,
    edit_list, effective, is_kafkas, is_without_effect,
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
    let cluster = image.configs(&ConfigResource::Cluster);
    let own = image.configs(&ConfigResource::Broker(node_id));
    started_with
        .with_dynamic(&cluster, Origin::DynamicCluster)
        .with_dynamic(&own, Origin::DynamicBroker)
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
            return Err(ControllerError::Request("Error due to duplicate config keys".to_owned()));
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
        let value = match (given, change.operation) {
            (None, _) => None,
            (Some(given), ConfigOperation::Append | ConfigOperation::Subtract) => {
                let add = change.operation == ConfigOperation::Append;
                Some(edited(resource, &broker, &current, (name, given, add))?)
            }
            (Some(given), ConfigOperation::Set | ConfigOperation::Delete) => Some(given.to_owned()),
        };
        // What is not known is not set: taking it away is done (kafka-reassign-partitions takes away its throttles).
        let value = match value {
            Some(value) => Some(checked(resource, name, &value)?),
            None => None,
        };
        if current.get(name) != value.as_ref() {
            records.push(MetadataRecord::Config {
                resource: resource.clone(),
                name: name.clone(),
                value,
            });
        }
    }
    check_together(image, started_with, resource, &records)?;
    Ok(records)
}

/// Settings of brokers that depend on each other.
const TOGETHER: &[&str] = &["log.retention.ms", "log.local.retention.ms", "log.remote.copy.lag.ms"];

/// Checks what the settings are together after a change.
fn check_together(
    image: &Image,
    started_with: &Config,
    resource: &ConfigResource,
    records: &[MetadataRecord],
) -> Result<(), ControllerError> {
    let current = image.configs(resource);
    let cluster = image.configs(&ConfigResource::Cluster);
    let config = match resource {
        ConfigResource::Topic(topic) => {
            let overrides = after(&current, records)?;
            let broker = in_force(started_with, image, -1);
            return check_topic(topic, &broker, &current, &overrides)
                .map_err(ControllerError::Config);
        }
        ConfigResource::Cluster => {
            started_with.with_dynamic(&with(&current, records), Origin::DynamicCluster)
        }
        ConfigResource::Broker(_) => started_with
            .with_dynamic(&cluster, Origin::DynamicCluster)
            .with_dynamic(&with(&current, records), Origin::DynamicBroker),
    };
    let is_concerned = |record: &MetadataRecord| matches!(record, MetadataRecord::Config { name, .. } if TOGETHER.contains(&name.as_str()));
    if records.iter().any(is_concerned) {
        check_broker(&config).map_err(ControllerError::Request)?;
    }
    Ok(())
}

/// Settings with records on top.
fn with(
    current: &BTreeMap<String, String>,
    records: &[MetadataRecord],
) -> BTreeMap<String, String> {
    let mut values = current.clone();
    for record in records {
        match record {
            MetadataRecord::Config { name, value: Some(value), .. } => {
                values.insert(name.clone(), value.clone());
            }
            MetadataRecord::Config { name, value: None, .. } => {
                values.remove(name);
            }
            _ => {}
        }
    }
    values
}

/// A topic's settings after a change.
fn after(
    current: &BTreeMap<String, String>,
    records: &[MetadataRecord],
) -> Result<BTreeMap<String, String>, ControllerError> {
    for record in records {
        let MetadataRecord::Config { name, value, .. } = record else { continue };
        if name == MOUNT {
            return Err(ControllerError::Config(format!(
                "{name} says whose records a topic shows, and never changes: delete the topic, which leaves them alone"
            )));
        }
        if name == RESTORE && value.is_some() {
            return Err(ControllerError::Config(format!(
                "{name} says where a topic comes from: it is set only where one is made"
            )));
        }
    }
    Ok(with(current, records))
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

/// A list after APPEND or SUBTRACT.
fn edited(
    resource: &ConfigResource,
    broker: &Config,
    current: &BTreeMap<String, String>,
    (name, change, add): (&str, &str, bool),
) -> Result<String, ControllerError> {
    let verb = if add { "append" } else { "subtract" };
    let is_topic = matches!(resource, ConfigResource::Topic(_));
    let before = match broker_row(name) {
        _ if is_topic => effective(broker, current, name),
        Some(_) => current.get(name).map_or_else(|| broker.text(name), String::as_str).to_owned(),
        None => return Err(ControllerError::Config(format!("Unknown config name: {name}"))),
    };
    edit_list(name, &before, change, add).map_err(|error| {
        ControllerError::Config(if is_topic {
            error
        } else {
            format!("Config value {verb} is not allowed for config key: {name}")
        })
    })
}

/// The value as it is kept, if it may be set.
fn checked(resource: &ConfigResource, name: &str, value: &str) -> Result<String, ControllerError> {
    if let ConfigResource::Topic(_) = resource {
        return canonical_override(name, value).map_err(ControllerError::Config);
    }
    match broker_row(name) {
        Some(row) if row.dynamic => {
            let mut config = Config::default();
            config
                .set(name, value, Origin::DynamicBroker)
                .map_err(|error| ControllerError::Request(error.to_string()))?;
            Ok(config.text(name).to_owned())
        }
        // Whoever sets it for one broker reads it again, as from Apache Kafka; it acts there on as little as here.
        None if is_without_effect(name) => match resource {
            ConfigResource::Broker(_) => Ok(value.to_owned()),
            _ => Err(ControllerError::Request(format!(
                "Cannot update these configs at default cluster level, broker id must be specified: [{name}]"
            ))),
        },
        None if !is_kafkas(name) => Ok(value.to_owned()),
        _ => Err(ControllerError::Request(format!(
            "Cannot update these configs dynamically: [{name}]"
        ))),
    }
}
