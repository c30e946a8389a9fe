//! Decisions about brokers: registration, fencing, draining; pure functions of the image.
//!
//! Invariants: a broker epoch is used once; a new process under a known id is let in when the old one is fenced, or
//! when it holds all of its log directories, whose locks prove that the old one is gone.

use std::sync::Arc;

use super::command::Registration;
use super::error::ControllerError;
use super::partitions::Partitions;
use crate::config::Config;
use crate::metadata::{
    BrokerImage, Capacity, ConfigResource, Image, LEVEL_MIN, MetadataRecord, VERSION_FEATURE,
    level_max as level_known,
};
use crate::model::BrokerId;
use crate::model::number::to_i64;

/// Applies records to a copy, to decide further on what they make.
pub(super) fn after(image: &Image, records: &[MetadataRecord]) -> Image {
    let mut image = Image::clone(image);
    records.iter().for_each(|record| image.apply(record));
    image
}

fn changed(
    image: &Image,
    id: BrokerId,
    change: impl FnOnce(&mut BrokerImage),
) -> Option<MetadataRecord> {
    let before: &Arc<BrokerImage> = image.brokers.get(&id)?;
    let mut state = BrokerImage::clone(before);
    change(&mut state);
    (state != **before).then_some(MetadataRecord::Broker { id, state })
}

/// A broker starts.
pub(super) fn register(
    image: &Image,
    config: &Config,
    base: u64,
    wish: &Registration,
) -> Result<(Vec<MetadataRecord>, i64), ControllerError> {
    let known = image.brokers.get(&wish.broker);
    if let Some(same) = known.filter(|known| known.incarnation == wish.incarnation) {
        return Ok((Vec::new(), same.epoch));
    }
    let has_them = |known: &Arc<BrokerImage>| {
        known.directories.iter().all(|directory| wish.directories.contains(directory))
    };
    let has_all = known.is_none_or(has_them);
    if known.is_some_and(|known| !known.is_fenced) && !has_all {
        return Err(ControllerError::DuplicateBroker(wish.broker));
    }
    let level_max = wish.level_max.max(LEVEL_MIN);
    if image.level() > level_max {
        return Err(ControllerError::Feature(format!(
            "the cluster is at {VERSION_FEATURE} {}, and this node knows only {level_max}: start a newer release of it",
            image.level()
        )));
    }
    let epoch = known.map_or(0, |known| known.epoch + 1).max(to_i64(base) + 1);
    let mut records = Vec::new();
    let is_new = image.brokers.is_empty() && image.topics.is_empty();
    if is_new && !image.features.contains_key(VERSION_FEATURE) {
        // A cluster begins with what its first two nodes know.
        let (name, level) = (VERSION_FEATURE.to_owned(), level_max.min(level_known()));
        records.push(MetadataRecord::Feature { name, level });
    }
    if known.is_some_and(|known| !known.is_fenced) {
        records.extend(fence(image, config, &[wish.broker]));
    }
    let was_clean = known.is_some_and(|known| wish.clean_epoch == Some(known.epoch));
    if known.is_some() && !was_clean {
        let fenced = after(image, &records);
        let partitions = Partitions::new(&fenced, config);
        records.extend(partitions.unclean_return(wish.broker, has_all, wish.is_incomplete));
    }
    let mut directories = wish.directories.clone();
    if let Some(known) = known.filter(|_| wish.is_incomplete) {
        // What is not there now is expected back: what comes instead may be empty.
        let missing = known.directories.iter().filter(|known| !wish.directories.contains(known));
        directories.extend(missing);
    }
    let state = BrokerImage {
        epoch,
        incarnation: wish.incarnation,
        endpoints: wish.endpoints.clone(),
        rack: wish.rack.clone(),
        directories,
        is_fenced: true,
        is_draining: is_to_drain(image, wish.broker),
        level_max,
        capacity: wish.capacity.clone(),
    };
    records.push(MetadataRecord::Broker { id: wish.broker, state });
    Ok((records, epoch))
}

/// These brokers are not there any more.
pub(super) fn fence(image: &Image, config: &Config, gone: &[BrokerId]) -> Vec<MetadataRecord> {
    let mut records: Vec<_> = gone
        .iter()
        .filter_map(|id| changed(image, *id, |broker| broker.is_fenced = true))
        .collect();
    let fenced = after(image, &records);
    records.extend(Partitions::new(&fenced, config).without(gone));
    records
}

/// This broker may lead again.
pub(super) fn unfence(image: &Image, config: &Config, id: BrokerId) -> Vec<MetadataRecord> {
    let mut records: Vec<_> =
        changed(image, id, |broker| broker.is_fenced = false).into_iter().collect();
    let unfenced = after(image, &records);
    records.extend(Partitions::new(&unfenced, config).with(id));
    records
}

/// What this broker can hold is another number now, or the release before left it out when it wrote the broker's record.
pub(super) fn can_hold(image: &Image, id: BrokerId, capacity: &Capacity) -> Vec<MetadataRecord> {
    changed(image, id, |broker| broker.capacity = Some(capacity.clone())).into_iter().collect()
}

const DRAIN: &str = "broker.drain";

fn is_to_drain(image: &Image, id: BrokerId) -> bool {
    let values = image.configs(&ConfigResource::Broker(id));
    values.get(DRAIN).is_some_and(|value| value == "true")
}

/// Adds what follows from changes of `broker.drain`.
pub(super) fn with_drains(
    image: &Image,
    config: &Config,
    mut records: Vec<MetadataRecord>,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    let mut drains = Vec::new();
    for record in &records {
        let MetadataRecord::Config { resource, name, value } = record else { continue };
        if name != DRAIN {
            continue;
        }
        let ConfigResource::Broker(id) = resource else {
            let why = "broker.drain is set for one broker, not for all".to_owned();
            return Err(ControllerError::Config(why));
        };
        drains.extend(drain(image, config, *id, value.as_deref() == Some("true"))?);
    }
    records.extend(drains);
    Ok(records)
}

/// This broker gives away what it leads, or takes part again.
pub(super) fn drain(
    image: &Image,
    config: &Config,
    id: BrokerId,
    is_draining: bool,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    if !image.brokers.contains_key(&id) {
        return Err(ControllerError::UnknownBroker(id));
    }
    let mut records: Vec<_> =
        changed(image, id, |broker| broker.is_draining = is_draining).into_iter().collect();
    if is_draining {
        let draining = after(image, &records);
        records.extend(Partitions::new(&draining, config).drained(id));
    }
    Ok(records)
}

/// Finalizes a feature level, if every registered broker knows it.
pub(super) fn set_feature(
    image: &Image,
    name: &str,
    level: i16,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    let refused = |why: String| Err(ControllerError::Feature(why));
    if name != VERSION_FEATURE {
        return refused(format!(
            "Invalid update version {level} for feature {name}. Local controller does not support this feature."
        ));
    }
    let (now, known) = (image.level(), level_known());
    if !(LEVEL_MIN..=known).contains(&level) {
        return refused(format!(
            "Invalid update version {level} for feature {name}. Local controller only supports versions {LEVEL_MIN}-{known}"
        ));
    }
    if level < now {
        return refused(format!(
            "Invalid update version {level} for feature {name}: it is {now}, and a level is never taken back"
        ));
    }
    let older = image.brokers.iter().find(|(_, broker)| broker.level_max < level);
    if let Some((id, broker)) = older {
        return refused(format!(
            "Invalid update version {level} for feature {name}. Broker {id} only supports versions {LEVEL_MIN}-{}:              upgrade it first",
            broker.level_max
        ));
    }
    let record = MetadataRecord::Feature { name: name.to_owned(), level };
    Ok(if level == now { Vec::new() } else { vec![record] })
}

/// Forgets a broker that is gone for good.
pub(super) fn unregister(
    image: &Image,
    config: &Config,
    id: BrokerId,
) -> Result<Vec<MetadataRecord>, ControllerError> {
    if !image.brokers.contains_key(&id) {
        return Err(ControllerError::UnknownBroker(id));
    }
    let mut records = fence(image, config, &[id]);
    records.push(MetadataRecord::RemoveBroker { id });
    Ok(records)
}
