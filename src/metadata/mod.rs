//! The cluster's metadata: records in a log, and the image that they make.
//!
//! Invariants: the image is a function of the records; the records of one command stand in one entry of the quorum's
//! log, so they are applied all or none; only committed records are applied.
//! Absent: decisions (`controller`), agreement (`quorum`), partitions' data (`replication`).

mod features;
mod image;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use features::{LEVEL_MIN, LEVEL_VOTERS, VERSION_FEATURE, know_one_less, level_max};
pub(crate) use image::{
    BrokerEndpoint, BrokerImage, Capacity, Image, PARTITIONS_TRIED, PartitionImage, TopicImage,
};
pub(crate) use record::{ConfigResource, MetadataRecord};

use crate::config::Config;

/// Whoever has to follow the metadata.
pub(crate) trait Publisher: Send + Sync {
    /// `records` turned the image into `image`; `config` is the broker's that follows from it.
    fn publish(&self, records: &[MetadataRecord], image: &Image, config: &Config);
}
