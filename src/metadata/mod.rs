//! The cluster's metadata: records in a log, and the image that they make.
//!
//! Invariants: the image is a function of the records; the records of one command stand in one batch, so they are
//! applied all or none; nothing is published before it is durable.
//! Absent: decisions (`controller`), partitions' data (`replication`).

mod image;
mod record;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use image::{Image, PartitionImage, TopicImage};
pub(crate) use record::{ConfigResource, MetadataRecord};
pub(crate) use store::{MetadataStore, StoreError};

/// The folder of the metadata's log.
pub(crate) const METADATA_FOLDER: &str = "__cluster_metadata-0";

/// Whoever has to follow the metadata.
pub(crate) trait Publisher: Send + Sync {
    /// `records` turned the image into `image`.
    fn publish(&self, records: &[MetadataRecord], image: &Image);
}
