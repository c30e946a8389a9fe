//! Runs commands one after the other: decide, write, apply, publish.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::commands::{self, NewPartitions, NewTopic};
use super::configs::{self, ConfigChange};
use super::error::ControllerError;
use crate::config::{Config, TopicConfig};
use crate::metadata::{
    ConfigResource, Image, MetadataRecord, MetadataStore, Publisher, TopicImage,
};
use crate::model::{BrokerId, Offset, ProducerId, TopicId};
use crate::system::{Clock, Random};

/// Producer ids that are taken from the metadata log at a time (KIP-730).
const PRODUCER_ID_BLOCK: i64 = 1000;

/// See the file's header.
pub(crate) struct Controller {
    pub node_id: BrokerId,
    store: Mutex<MetadataStore>,
    image: ArcSwap<Image>,
    /// The configuration that the process was started with.
    started_with: Config,
    config: ArcSwap<Config>,
    publisher: OnceLock<Arc<dyn Publisher>>,
    producer_ids: Mutex<std::ops::Range<ProducerId>>,
    clock: Clock,
    random: Random,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Controller {
    pub(crate) fn new(
        store: MetadataStore,
        image: Image,
        config: Config,
        clock: Clock,
        random: Random,
    ) -> Self {
        let node_id = config.int("node.id");
        let dynamic = configs::in_force(&config, &image, node_id);
        Self {
            node_id,
            store: Mutex::new(store),
            image: ArcSwap::from_pointee(image),
            started_with: config,
            config: ArcSwap::from_pointee(dynamic),
            publisher: OnceLock::new(),
            producer_ids: Mutex::new(0..0),
            clock,
            random,
        }
    }

    /// Names whoever follows the metadata from now on.
    pub(crate) fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        let _ = self.publisher.set(publisher);
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// The broker's configuration with its dynamic values.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// A topic's configuration in force.
    pub(crate) fn topic_config(&self, name: &str) -> TopicConfig {
        let image = self.image.load();
        TopicConfig::resolve(
            &self.config.load(),
            &image.configs(&ConfigResource::Topic(name.to_owned())),
        )
    }

    /// Makes a topic, or only says whether it could be made.
    pub(crate) fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<Arc<TopicImage>, ControllerError> {
        let id = self.random.uuid();
        self.commit(validate_only, |image| {
            let records =
                commands::create_topic(image, &self.config.load(), self.node_id, topic, id)?;
            let mut after = Image::default();
            records.iter().for_each(|record| after.apply(record));
            let made = after.topic(&topic.name).cloned().ok_or(ControllerError::UnknownTopic)?;
            Ok((records, made))
        })
    }

    pub(crate) fn delete_topic(&self, id: TopicId) -> Result<(), ControllerError> {
        self.commit(false, |image| {
            let topic = image.topic_by_id(id).ok_or(ControllerError::UnknownTopicId)?;
            Ok((vec![MetadataRecord::RemoveTopic { id: topic.id }], ()))
        })
    }

    pub(crate) fn create_partitions(
        &self,
        wish: &NewPartitions,
        validate_only: bool,
    ) -> Result<(), ControllerError> {
        self.commit(validate_only, |image| {
            Ok((commands::create_partitions(image, self.node_id, wish)?, ()))
        })
    }

    /// Changes one resource's settings, all or none.
    pub(crate) fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ControllerError> {
        self.commit(validate_only, |image| {
            Ok((configs::alter(image, &self.started_with, self.node_id, resource, changes)?, ()))
        })
    }

    /// Replaces one resource's settings (the older AlterConfigs).
    pub(crate) fn replace_configs(
        &self,
        resource: &ConfigResource,
        values: &[(String, Option<String>)],
        validate_only: bool,
    ) -> Result<(), ControllerError> {
        self.commit(validate_only, |image| {
            let changes = configs::replacing(image, resource, values);
            Ok((configs::alter(image, &self.started_with, self.node_id, resource, &changes)?, ()))
        })
    }

    /// A producer id that was never given out before.
    pub(crate) fn next_producer_id(&self) -> Result<ProducerId, ControllerError> {
        let mut ids = self.producer_ids.lock();
        if ids.is_empty() {
            *ids = self.commit(false, |image| {
                let first = image.next_producer_id;
                let next = first + PRODUCER_ID_BLOCK;
                Ok((vec![MetadataRecord::ProducerIds { next }], first..next))
            })?;
        }
        ids.next().ok_or(ControllerError::UnknownTopic)
    }

    /// Notes a new incarnation of this broker; after an unclean stop every partition begins a new leader epoch.
    pub(crate) fn register_broker(&self, was_clean: bool) -> Result<i64, ControllerError> {
        self.commit(false, |image| {
            let epoch = image.brokers.get(&self.node_id).map_or(1, |epoch| epoch + 1);
            let mut records = vec![MetadataRecord::Broker { id: self.node_id, epoch }];
            if !was_clean {
                records.extend(commands::next_leader_epochs(image));
            }
            Ok((records, epoch))
        })
    }

    /// Offset after the last metadata record.
    pub(crate) fn metadata_end(&self) -> Offset {
        self.store.lock().end()
    }

    fn commit<T>(
        &self,
        validate_only: bool,
        decide: impl FnOnce(&Image) -> Result<(Vec<MetadataRecord>, T), ControllerError>,
    ) -> Result<T, ControllerError> {
        let mut store = self.store.lock();
        let image = self.image.load_full();
        let (records, answer) = decide(&image)?;
        if validate_only || records.is_empty() {
            return Ok(answer);
        }
        store.append(&records, self.clock.now_ms())?;
        let mut image = Image::clone(&image);
        records.iter().for_each(|record| image.apply(record));
        self.config.store(Arc::new(configs::in_force(&self.started_with, &image, self.node_id)));
        // Replicas exist before anyone is told of them.
        if let Some(publisher) = self.publisher.get() {
            publisher.publish(&records, &image);
        }
        self.image.store(Arc::new(image));
        Ok(answer)
    }
}
