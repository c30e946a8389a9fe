//! The metadata as this node follows it: the committed log's image, the configuration that follows from it.
//!
//! Invariants: the image is published to the broker's parts before anybody else sees it; one entry is applied whole.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::configs;
use crate::config::Config;
use crate::metadata::{Image, MetadataRecord, Publisher};
use crate::model::number::to_u64;
use crate::model::{BrokerId, PartitionId, ProducerId, TopicId};
use crate::quorum::{StateMachine, VoterDisks};
use crate::system::Random;

/// Where a cluster's first producer id is.
const PRODUCER_IDS_FROM: std::ops::Range<i64> = 1 << 33..1 << 61;

/// See the file's header.
pub(crate) struct ClusterState {
    pub node_id: BrokerId,
    image: ArcSwap<Image>,
    /// The configuration that the process was started with.
    pub(super) started_with: Config,
    config: ArcSwap<Config>,
    publisher: OnceLock<Arc<dyn Publisher>>,
    /// Where a new cluster begins to number producers: what is brought back from a bucket knows those of another cluster, and
    /// must not take a new one for one of them.
    pub(super) first_producer_id: ProducerId,
    /// Held while an entry is applied.
    applying: Mutex<()>,
}

impl std::fmt::Debug for ClusterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterState").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl ClusterState {
    pub(crate) fn new(started_with: Config, random: &Random) -> Arc<Self> {
        let drawn = i64::try_from(random.below(to_u64(PRODUCER_IDS_FROM.end))).unwrap_or(0);
        Arc::new(Self {
            first_producer_id: drawn.max(PRODUCER_IDS_FROM.start),
            node_id: started_with.int("node.id"),
            image: ArcSwap::from_pointee(Image::default()),
            config: ArcSwap::from_pointee(started_with.clone()),
            started_with,
            publisher: OnceLock::new(),
            applying: Mutex::default(),
        })
    }

    /// Names whoever follows the metadata from now on, and shows it what there is.
    pub(crate) fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        let _applying = self.applying.lock();
        let image = self.image.load_full();
        publisher.publish(&image.records(), &image, &self.config.load());
        let _ = self.publisher.set(publisher);
    }

    /// Shows a partition as it is once more, to a replica that lies elsewhere now.
    pub(super) fn show_again(&self, topic: TopicId, partition: PartitionId) {
        let _applying = self.applying.lock();
        let image = self.image.load_full();
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let found = image.topic_by_id(topic).and_then(|topic| topic.partitions.get(index));
        if let (Some(state), Some(publisher)) = (found.cloned(), self.publisher.get()) {
            let record = MetadataRecord::Partition { topic, partition, state };
            publisher.publish(&[record], &image, &self.config.load());
        }
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// The broker's configuration with its dynamic values.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    fn take(&self, records: &[MetadataRecord]) {
        let mut image = Image::clone(&self.image.load());
        records.iter().for_each(|record| image.apply(record));
        self.replace(records, image);
    }

    fn replace(&self, records: &[MetadataRecord], image: Image) {
        let is_config = |record: &MetadataRecord| matches!(record, MetadataRecord::Config { .. });
        if records.iter().any(is_config) {
            let config = configs::in_force(&self.started_with, &image, self.node_id);
            self.config.store(Arc::new(config));
        }
        if let Some(publisher) = self.publisher.get() {
            publisher.publish(records, &image, &self.config.load());
        }
        self.image.store(Arc::new(image));
    }
}

impl StateMachine for ClusterState {
    fn apply(&self, data: &[(u64, Arc<RawValue>)]) {
        let _applying = self.applying.lock();
        for (index, data) in data {
            match serde_json::from_str::<Vec<MetadataRecord>>(data.get()) {
                Ok(records) => self.take(&records),
                // Going on without it would be another cluster's metadata.
                Err(error) => panic!("metadata entry {index} is not understood: {error}"),
            }
        }
    }

    fn snapshot(&self) -> Vec<String> {
        let line = |record: &MetadataRecord| serde_json::to_string(record).unwrap_or_default();
        self.image.load().records().iter().map(line).collect()
    }

    fn restore(&self, _index: u64, lines: &[String]) -> Result<(), String> {
        let _applying = self.applying.lock();
        let mut image = Image::default();
        for line in lines {
            let record = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            image.apply(&record);
        }
        let records = self.image.load().records_to(&image);
        self.replace(&records, image);
        Ok(())
    }
}

impl VoterDisks for ClusterState {
    fn directory(&self, voter: BrokerId) -> Option<Uuid> {
        self.image.load().voters.get(&voter).copied()
    }
}
