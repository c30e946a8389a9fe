//! Checks a produced batch before the log sees it; no lock is held meanwhile.
//!
//! Invariants: what passes is stored as it came, but for what the topic asks to be rewritten and a false largest timestamp;
//! work that takes long is done away from the threads that run tasks, so much of it at a time as there are processors, in
//! bounded memory.
//! Left to others: the order of such work (`api/produce_aside.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::PartitionError;
use super::partition::{AppendRequest, Partition};
use crate::config::{TimestampType, TopicConfig};
use crate::model::Timestamp;
use crate::model::number::to_u32;
use crate::record::batch::{correct_max_timestamp, stamp_append_time};
use crate::record::{BatchHeader, BatchRules, Effort, effort, validate};
use crate::system::tasks::cores;

/// A batch that passed its topic's checks.
pub(super) struct Checked {
    pub header: BatchHeader,
    /// The batch to store instead, where the topic stamps or recompresses, or the largest timestamp was false.
    pub rewritten: Option<Vec<u8>>,
    pub append_time_ms: Timestamp,
}

/// What the checks need of a topic's configuration, copied out of the lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppendRules {
    rules: BatchRules,
    stamps: bool,
    codec: Option<crate::record::Codec>,
    levels: crate::record::Levels,
}

impl TopicConfig {
    pub(super) fn clone_rules(&self) -> AppendRules {
        let stamps = self.timestamp_type == TimestampType::LogAppendTime;
        AppendRules {
            rules: BatchRules {
                bytes_max: self.message_bytes_max,
                plain_bytes_max: self.plain_bytes_max,
                walks: self.walks_records,
                keys_required: self.is_compacted,
                timestamps: (!stamps).then_some(self.timestamps),
            },
            stamps,
            codec: self.codec,
            levels: self.levels,
        }
    }
}

pub(super) fn check(
    request: &AppendRequest<'_>,
    config: &AppendRules,
) -> Result<Checked, PartitionError> {
    let batch = request.batch;
    let is_internal = request.internal_epoch.is_some();
    let bytes_max = if is_internal { usize::MAX } else { config.rules.bytes_max };
    let header = validate::check_frame(batch, bytes_max)?;
    validate::check_header(&header, batch.len())?;
    if header.is_transactional() {
        return Err(PartitionError::Transactional);
    }
    let target = config.codec.filter(|codec| codec.bits() != header.codec_bits());
    let mut rules = config.rules;
    rules.walks |= target.is_some();
    let walked = validate::check_records(&header, batch, &rules, request.now_ms)?;
    let mut rewritten = None;
    if let (Some(codec), Some(walked)) = (target, &walked) {
        let how = (codec, config.levels);
        rewritten = Some(validate::recompress(&header, batch, walked.plain_bytes, how, bytes_max)?);
    }
    if config.stamps {
        let mut stamped = rewritten.unwrap_or_else(|| batch.to_vec());
        stamp_append_time(&mut stamped, request.now_ms);
        let header = BatchHeader::parse(&stamped).unwrap_or(header);
        return Ok(Checked { header, rewritten: Some(stamped), append_time_ms: request.now_ms });
    }
    let is_true =
        |max_timestamp| max_timestamp == header.max_timestamp && !header.is_log_append_time();
    // As Apache Kafka does: what is false would mislead whoever looks for a time.
    if let Some(walked) = walked.filter(|walked| !is_true(walked.max_timestamp)) {
        let batch = rewritten.get_or_insert_with(|| batch.to_vec());
        correct_max_timestamp(batch, walked.max_timestamp);
    }
    let header = rewritten.as_deref().and_then(BatchHeader::parse).unwrap_or(header);
    Ok(Checked { header, rewritten, append_time_ms: -1 })
}

impl Partition {
    /// What it will take to check a batch, as far as it is not the same for all.
    pub(crate) fn effort(&self, batch: &[u8], now_ms: Timestamp) -> Effort {
        let Some(config) = *self.rules.read() else { return Effort::default() };
        let target = config.codec.map(|codec| (codec, config.levels));
        effort(batch, &config.rules, target, now_ms)
    }
}

/// Work that takes longer is done elsewhere: for less, to hand it over costs more than others lose.
const SHORT: Duration = Duration::from_micros(200);
/// What such work may hold of memory at a time, in units.
const MEMORY_UNITS: u32 = 4096;
const MEMORY_UNIT_BYTES: usize = 64 << 10;

/// Whether work may be done on a thread that runs tasks.
pub(crate) fn is_short(effort: &Effort) -> bool {
    effort.time <= SHORT
}

/// Bounds how much is checked away from the threads that run tasks.
#[derive(Debug)]
pub(crate) struct Aside {
    threads: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    /// Bytes of requests that are carried out though their connections are gone.
    abandoned: Arc<Semaphore>,
}

/// So much is bounded by somebody else as long as its connection is there.
const ABANDONED_BYTES: usize = 64 << 20;

/// Held while such work is done.
#[derive(Debug)]
pub(crate) struct Place {
    _thread: Option<OwnedSemaphorePermit>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Default for Aside {
    fn default() -> Self {
        let processors = cores();
        Self {
            threads: Arc::new(Semaphore::new(processors)),
            memory: Arc::new(Semaphore::new(usize::try_from(MEMORY_UNITS).unwrap_or(1))),
            abandoned: Arc::new(Semaphore::new(ABANDONED_BYTES)),
        }
    }
}

impl Aside {
    /// Waits until there is a place, in the order of asking.
    pub(crate) async fn place(&self, effort: &Effort) -> Place {
        let units = to_u32(effort.memory.div_ceil(MEMORY_UNIT_BYTES)).clamp(1, MEMORY_UNITS);
        let memory = Arc::clone(&self.memory).acquire_many_owned(units).await.ok();
        let thread = Arc::clone(&self.threads).acquire_owned().await.ok();
        Place { _thread: thread, _memory: memory }
    }

    /// Takes over a request whose connection is gone, if there is room.
    pub(crate) fn adopt(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.abandoned).try_acquire_many_owned(to_u32(bytes)).ok()
    }
}
