//! The log of metadata records on this node's disk.
//!
//! Invariants: `append` returns after the flush; after a failed append nothing more is appended (what stands on the
//! disk is then not known); a snapshot replaces what came before it in one batch.
//! Left to the quorum, later: agreeing on the records with other nodes.

use std::path::Path;
use std::sync::Arc;

use super::METADATA_FOLDER;
use super::image::Image;
use super::record::MetadataRecord;
use crate::config::{Config, TopicConfig};
use crate::log::{
    AppendError, FileCache, Log, LogParts, OpenError, ReadError, RecoveryPoint, Stamp,
};
use crate::model::{Offset, Timestamp, TopicPartition};
use crate::record::{BatchBuilder, BatchHeader, Records, next_batch};
use crate::system::SharedDisk;

/// A log with more records than this beyond what the image needs is replaced by a snapshot at start.
const SUPERSEDED_RECORDS_MAX: usize = 10_000;
const READ_BYTES: usize = 1 << 20;

/// Why metadata can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("metadata log: {0}")]
    Open(#[from] OpenError),
    #[error("metadata log: {0}")]
    Read(#[from] ReadError),
    #[error("metadata log: {0}")]
    Append(#[from] AppendError),
    #[error("metadata log: {0}")]
    Disk(#[from] std::io::Error),
    #[error("metadata record at offset {offset} is not understood: {why}")]
    Record { offset: Offset, why: String },
    #[error("the metadata log failed before: restart the broker")]
    Failed,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct MetadataStore {
    log: Log,
    has_failed: bool,
}

impl MetadataStore {
    /// Opens the log below `directory` and reads the image out of it.
    pub(crate) fn open(
        disk: &SharedDisk,
        directory: &Path,
        now_ms: Timestamp,
    ) -> Result<(Self, Image), StoreError> {
        let cache = Arc::new(FileCache::new(Arc::clone(disk), 2, 2));
        let mut config =
            TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new());
        config.retention_ms = -1;
        config.retention_bytes = -1;
        config.message_bytes_max = usize::MAX;
        let parts = LogParts { cache, config: Arc::new(config) };
        let name = TopicPartition::new("__cluster_metadata", 0);
        let (log, _) =
            Log::open(name, directory.join(METADATA_FOLDER), parts, RecoveryPoint::default(), 0)?;
        let mut store = Self { log, has_failed: false };
        let mut image = Image::default();
        let read = store.replay(&mut image)?;
        let snapshot = image.records();
        if read > snapshot.len() + SUPERSEDED_RECORDS_MAX {
            store.append(&snapshot, now_ms)?;
        }
        Ok((store, image))
    }

    /// Makes the records durable, as one batch.
    pub(crate) fn append(
        &mut self,
        records: &[MetadataRecord],
        now_ms: Timestamp,
    ) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        let mut builder = BatchBuilder::new();
        for record in records {
            let value = serde_json::to_vec(record).map_err(std::io::Error::other)?;
            builder = builder.record(now_ms, None, Some(&value));
        }
        let batch = builder.build();
        let header = BatchHeader::parse(&batch)
            .ok_or_else(|| std::io::Error::other("built batch is cut"))?;
        let result = self.write(&header, &batch, now_ms);
        self.has_failed = result.is_err();
        result
    }

    /// Offset after the last record.
    pub(crate) fn end(&self) -> Offset {
        self.log.log_end()
    }

    fn write(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        now_ms: Timestamp,
    ) -> Result<(), StoreError> {
        self.log.append(header, batch, Stamp { leader_epoch: 1, now_ms })?;
        self.log.close()?;
        Ok(())
    }

    fn replay(&self, image: &mut Image) -> Result<usize, StoreError> {
        let mut count = 0;
        let mut offset = self.log.log_start();
        while let Some(slice) = self.log.slice(offset, self.log.end(), READ_BYTES, true)? {
            let bytes = slice.read()?;
            let mut rest = bytes.as_slice();
            while let Some((header, batch, after)) = next_batch(rest) {
                rest = after;
                count += replay_batch(&header, batch, image)?;
                offset = header.last_offset() + 1;
            }
        }
        Ok(count)
    }
}

fn replay_batch(
    header: &BatchHeader,
    batch: &[u8],
    image: &mut Image,
) -> Result<usize, StoreError> {
    let failed = |why: String| StoreError::Record { offset: header.base_offset, why };
    let records =
        Records::open(*header, batch, usize::MAX).map_err(|error| failed(error.to_string()))?;
    let mut count = 0;
    for record in &records {
        let record = record.map_err(|error| failed(error.to_string()))?;
        let fact = serde_json::from_slice(record.value.unwrap_or_default())
            .map_err(|e| failed(e.to_string()))?;
        image.apply(&fact);
        count += 1;
    }
    Ok(count)
}
