//! Which records of a batch compaction keeps (KIP-58, KIP-280's default order, KIP-534 horizons), wherever its bytes are.
//!
//! Invariants: of each key that was noted the newest record stays; every kept record keeps its offset; control batches stay; a
//! tombstone goes only after a time that an earlier pass wrote into its batch. The first batch of a leader epoch stays, if only
//! empty: a follower learns epochs from batches, and two replicas with different ones would be taken for an unclean election.

use super::offset_map::OffsetMap;
use crate::model::Timestamp;
use crate::record::{BatchBuilder, BatchHeader, Codec, RecordError, Records};

/// What does not depend on keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompactionRules {
    pub now_ms: Timestamp,
    pub delete_retention_ms: i64,
    pub plain_bytes_max: usize,
    /// Whether tombstones stay, because older records of their keys may be where this pass does not come.
    pub keeps_tombstones: bool,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Compaction {
    map: OffsetMap,
    pub rules: CompactionRules,
}

/// What stays of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Whole,
    Part(Vec<u8>),
    Nothing,
}

impl Compaction {
    /// An empty table of keys, of so many bytes at most.
    pub(crate) fn new(rules: CompactionRules, map_bytes_max: i64) -> Self {
        Self { map: OffsetMap::new(map_bytes_max), rules }
    }

    /// Whether no more segments are to be noted.
    pub(crate) fn is_full(&self) -> bool {
        self.map.is_full()
    }

    /// Notes the keys of a batch, which comes after those that were noted before.
    pub(crate) fn note(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), RecordError> {
        if header.is_control() || header.count == 0 {
            return Ok(());
        }
        for record in &Records::open(*header, batch, self.rules.plain_bytes_max)? {
            let record = record?;
            if let Some(key) = record.key {
                self.map.put(key, record.offset);
            }
        }
        Ok(())
    }

    /// What stays of a batch; one that must stay is emptied rather than dropped.
    pub(crate) fn keep(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        must_stay: bool,
    ) -> Result<Kept, RecordError> {
        if header.is_control() {
            return Ok(Kept::Whole);
        }
        if header.count == 0 {
            return Ok(without_records(header, must_stay));
        }
        let CompactionRules { now_ms, delete_retention_ms, plain_bytes_max, keeps_tombstones } =
            self.rules;
        let records = Records::open(*header, batch, plain_bytes_max)?;
        let horizon = header.delete_horizon_ms();
        let horizon_passed = !keeps_tombstones && horizon.is_some_and(|horizon| horizon < now_ms);
        let (mut kept, mut count, mut has_tombstone) = (Vec::new(), 0, false);
        for record in &records {
            let record = record?;
            let Some(key) = record.key else { continue };
            let newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
            if newest && !(record.value.is_none() && horizon_passed) {
                has_tombstone |= record.value.is_none();
                kept.push(record);
                count += 1;
            }
        }
        if count == 0 {
            return Ok(without_records(header, must_stay));
        }
        let wants_horizon = has_tombstone && horizon.is_none() && !keeps_tombstones;
        if count == header.count && !wants_horizon {
            return Ok(Kept::Whole);
        }
        let mut builder = BatchBuilder::like(header)
            .codec(Codec::from_bits(header.codec_bits()).unwrap_or(Codec::None));
        if wants_horizon {
            builder.delete_horizon(now_ms.saturating_add(delete_retention_ms));
        }
        for record in &kept {
            builder.keep(record);
        }
        builder.reach(header.last_offset());
        if header.is_log_append_time() {
            builder.max_timestamp(header.max_timestamp);
        }
        Ok(Kept::Part(builder.build()))
    }
}

/// What stays of a batch of which no record stays, or none was left.
fn without_records(header: &BatchHeader, must_stay: bool) -> Kept {
    if !must_stay {
        Kept::Nothing
    } else if header.count == 0 && !header.has_codec_without_records() {
        Kept::Whole
    } else {
        Kept::Part(BatchBuilder::emptied(header))
    }
}
