//! Checks a produced batch before the log sees it; no lock is held meanwhile.
//!
//! Invariants: what passes is stored as it came, but for what the topic asks to be rewritten.

use super::error::PartitionError;
use super::partition::AppendRequest;
use crate::config::{TimestampType, TopicConfig};
use crate::model::Timestamp;
use crate::record::batch::stamp_append_time;
use crate::record::{BatchHeader, BatchRules, validate};

/// A batch that passed its topic's checks.
pub(super) struct Checked {
    pub header: BatchHeader,
    /// The batch to store instead, where the topic stamps or recompresses.
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
    validate::check_records(&header, batch, &config.rules, request.now_ms)?;
    let mut rewritten = None;
    if let Some(codec) = config.codec.filter(|codec| codec.bits() != header.codec_bits()) {
        let how = (codec, config.levels);
        rewritten = Some(validate::recompress(&header, batch, how, config.rules.plain_bytes_max)?);
    }
    if !config.stamps {
        let header = rewritten.as_deref().and_then(BatchHeader::parse).unwrap_or(header);
        return Ok(Checked { header, rewritten, append_time_ms: -1 });
    }
    let mut stamped = rewritten.unwrap_or_else(|| batch.to_vec());
    stamp_append_time(&mut stamped, request.now_ms);
    let header = BatchHeader::parse(&stamped).unwrap_or(header);
    Ok(Checked { header, rewritten: Some(stamped), append_time_ms: request.now_ms })
}
