//! What a batch must be to be appended, as Apache Kafka 4 checks it.
//!
//! Invariants: a batch that passes is whole, of format v2, with a true CRC and consistent counts; its records are walked
//! (`walk.rs`), but where a topic leaves that out (`record.validation=headers`) and nothing else needs them.
//! Left to others: sequences (`log/producer_state.rs`), and mapping the errors to codes (`api/errors.rs`).

use super::batch::{
    BatchHeader, HEADER_BYTES, MAGIC, PREFIX_BYTES, checksum, next_batch, put, renew_checksum,
};
use super::compress::{Codec, Levels};
use super::plain::repack;
use super::reader::RecordError;
use super::walk::{Walked, walk};
use crate::model::number::{to_i32, to_i64};
use crate::model::{NO_TIMESTAMP, Timestamp};

/// How far a record's timestamp may lie from the broker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimestampRules {
    pub before_max_ms: i64,
    pub after_max_ms: i64,
}

/// What a topic asks of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchRules {
    pub bytes_max: usize,
    pub plain_bytes_max: usize,
    /// Whether records are walked whatever the other rules say (`record.validation`).
    pub walks: bool,
    pub keys_required: bool,
    /// `None` on topics that stamp batches themselves.
    pub timestamps: Option<TimestampRules>,
}

/// Why a batch is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    /// Not one whole batch of format v2.
    #[error("{0}")]
    Invalid(&'static str),
    /// The header contradicts itself or the rules for clients.
    #[error("{0}")]
    Header(&'static str),
    #[error("Record batch is corrupt: the computed checksum differs from the stored one")]
    Corrupt,
    #[error(
        "The record batch size is {bytes} bytes, which exceeds the maximum configured value of {limit}"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error("{0}")]
    Records(#[from] RecordError),
    /// So many records, among them those at these indexes, have no key though the topic is compacted.
    #[error("Compacted topic cannot accept message without key")]
    KeyMissing { indexes: Vec<i32>, count: usize },
    #[error("Timestamp {timestamp} of message with offset {index} is out of range")]
    TimestampOutOfRange { index: i32, timestamp: Timestamp },
}

/// Checks framing, header and CRC: the work that every produce pays.
pub(crate) fn check_frame(bytes: &[u8], bytes_max: usize) -> Result<BatchHeader, BatchError> {
    let Some(first) = BatchHeader::parse(bytes) else {
        return Err(BatchError::Invalid("Record batch is missing or cut"));
    };
    if first.magic != MAGIC {
        return Err(BatchError::Invalid("Record batch is not of format v2"));
    }
    let Some((header, batch, rest)) = next_batch(bytes) else {
        return Err(BatchError::Invalid("Record batch is cut"));
    };
    if !rest.is_empty() {
        return Err(BatchError::Invalid(
            "Produce requests with version 3 or above may hold exactly one record batch",
        ));
    }
    if batch.len() > bytes_max {
        return Err(BatchError::TooLarge { bytes: batch.len(), limit: bytes_max });
    }
    if checksum(batch) != Some(header.crc) {
        return Err(BatchError::Corrupt);
    }
    Ok(header)
}

/// Checks the header's own claims.
pub(crate) fn check_header(header: &BatchHeader, batch_bytes: usize) -> Result<(), BatchError> {
    let smallest_records = to_i64(batch_bytes.saturating_sub(HEADER_BYTES)) / 7;
    if header.base_offset != 0 {
        return Err(BatchError::Header("Record batch has a base offset other than 0"));
    }
    if header.count <= 0 || i64::from(header.last_offset_delta) + 1 != i64::from(header.count) {
        return Err(BatchError::Header("Record count does not match the last offset delta"));
    }
    if header.codec_bits() == 0 && i64::from(header.count) > smallest_records {
        return Err(BatchError::Header("Record batch is too short for its record count"));
    }
    if header.is_control() {
        return Err(BatchError::Header("Clients are not allowed to write control records"));
    }
    if header.has_producer() && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return Err(BatchError::Header("Record batch has a producer id but no epoch or sequence"));
    }
    match Codec::from_bits(header.codec_bits()) {
        Ok(_) => Ok(()),
        Err(error) => Err(BatchError::Records(error.into())),
    }
}

/// Walks the records where the topic's rules need it; what was found, if so.
pub(crate) fn check_records(
    header: &BatchHeader,
    batch: &[u8],
    rules: &BatchRules,
    now_ms: Timestamp,
) -> Result<Option<Walked>, BatchError> {
    if !has_walk(header, rules, now_ms) {
        return Ok(None);
    }
    walk(header, batch, rules, now_ms).map(Some)
}

/// Whether the records have to be looked at.
pub(super) fn has_walk(header: &BatchHeader, rules: &BatchRules, now_ms: Timestamp) -> bool {
    let timestamps_suspect = || {
        rules.timestamps.is_some_and(|t| {
            is_outside(header.max_timestamp, t, now_ms)
                || is_outside(header.base_timestamp, t, now_ms)
        })
    };
    rules.walks || rules.keys_required || timestamps_suspect()
}

/// The same records under another codec (`compression.type` other than `producer`), after a walk.
pub(crate) fn recompress(
    header: &BatchHeader,
    batch: &[u8],
    plain_bytes: usize,
    (codec, levels): (Codec, Levels),
    bytes_max: usize,
) -> Result<Vec<u8>, BatchError> {
    let (head, body) = batch.split_at_checked(HEADER_BYTES).unwrap_or_default();
    let from = Codec::from_bits(header.codec_bits()).map_err(RecordError::from)?;
    let limit = bytes_max.saturating_sub(HEADER_BYTES);
    let packed = repack((from, body), plain_bytes, (codec, levels), limit)
        .map_err(RecordError::from)?
        .ok_or(BatchError::TooLarge { bytes: plain_bytes, limit: bytes_max })?;
    let mut out = [head, &packed].concat();
    let attributes = (header.attributes & !7) | codec.bits();
    let length = to_i32(out.len() - PREFIX_BYTES);
    put(&mut out, 8, &length.to_be_bytes());
    put(&mut out, 21, &attributes.to_be_bytes());
    renew_checksum(&mut out);
    Ok(out)
}

/// Whether a timestamp lies too far from the clock, or where no difference can be told.
pub(super) fn is_outside(timestamp: Timestamp, rules: TimestampRules, now_ms: Timestamp) -> bool {
    let is_far = |age: i64| age > rules.before_max_ms || age.saturating_neg() > rules.after_max_ms;
    timestamp != NO_TIMESTAMP && now_ms.checked_sub(timestamp).is_none_or(is_far)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{BatchBuilder, Records};

    fn batch() -> Vec<u8> {
        BatchBuilder::new()
            .record(1000, Some(b"k"), Some(b"v"))
            .record(2000, None, Some(b"w"))
            .build()
    }

    fn refused(change: impl Fn(&mut Vec<u8>)) -> BatchError {
        let mut bytes = batch();
        change(&mut bytes);
        match check_frame(&bytes, 1000).and_then(|header| check_header(&header, bytes.len())) {
            Err(error) => error,
            Ok(()) => panic!("a damaged batch passed"),
        }
    }

    fn renew(bytes: &mut [u8]) {
        renew_checksum(bytes);
    }

    #[test]
    fn each_damage_has_its_own_refusal() {
        assert!(matches!(refused(|b| b[70] ^= 1), BatchError::Corrupt));
        assert!(matches!(refused(|b| b.truncate(70)), BatchError::Invalid(t) if t.contains("cut")));
        assert!(
            matches!(refused(|b| b.extend(batch())), BatchError::Invalid(t) if t.contains("exactly one"))
        );
        assert!(
            matches!(refused(|b| b[16] = 1), BatchError::Invalid(t) if t.contains("format v2"))
        );
        assert!(
            matches!(refused(|b| b[7] = 9), BatchError::Header(t) if t.contains("base offset"))
        );
        let count = refused(|b| {
            b[60] = 9;
            renew(b);
        });
        assert!(matches!(count, BatchError::Header(t) if t.contains("count")));
        let control = refused(|b| {
            b[22] |= 0x20;
            renew(b);
        });
        assert!(matches!(control, BatchError::Header(t) if t.contains("control")));
        assert!(matches!(check_frame(&batch(), 50), Err(BatchError::TooLarge { limit: 50, .. })));
    }

    #[test]
    fn a_compacted_topic_names_the_records_without_a_key() {
        let bytes = batch();
        let header = check_frame(&bytes, 1000).expect("frame");
        let mut rules = BatchRules {
            bytes_max: 1000,
            plain_bytes_max: 1000,
            walks: false,
            keys_required: true,
            timestamps: None,
        };
        let refused = check_records(&header, &bytes, &rules, 0);
        assert!(
            matches!(refused, Err(BatchError::KeyMissing { indexes, count: 1 }) if indexes == [1])
        );
        rules.keys_required = false;
        assert_eq!(check_records(&header, &bytes, &rules, 0).expect("passes"), None);
    }

    #[test]
    fn a_timestamp_past_the_bound_is_named() {
        let bytes = batch();
        let header = check_frame(&bytes, 1000).expect("frame");
        let timestamps = Some(TimestampRules { before_max_ms: i64::MAX, after_max_ms: 500 });
        let rules = BatchRules {
            bytes_max: 1000,
            plain_bytes_max: 1000,
            walks: false,
            keys_required: false,
            timestamps,
        };
        let refused = check_records(&header, &bytes, &rules, 1000);
        assert!(matches!(
            refused,
            Err(BatchError::TimestampOutOfRange { index: 1, timestamp: 2000 })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn no_damage_to_a_batch_makes_the_checks_panic_or_yields_more_than_allowed(
            codec in 0_i16..6,
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            is_signed in any::<bool>(),
        ) {
            let known = Codec::from_bits(codec).unwrap_or(Codec::None);
            let mut builder = BatchBuilder::new().codec(known);
            for n in 0..5 {
                builder = builder.record(n, Some(b"key"), Some(&[7; 100]));
            }
            let mut bytes = builder.build();
            for (at, value) in damages {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if is_signed {
                // Damage that the checksum does not see.
                renew(&mut bytes);
            }
            let Ok(header) = check_frame(&bytes, 10_000) else { return Ok(()) };
            let _ = check_header(&header, bytes.len());
            let rules = BatchRules {
                bytes_max: 10_000,
                plain_bytes_max: 4_000,
                walks: true,
                keys_required: true,
                timestamps: Some(TimestampRules { before_max_ms: 1, after_max_ms: 1 }),
            };
            let _ = check_records(&header, &bytes, &rules, 0);
            if let Ok(records) = Records::open(header, &bytes, 4_000) {
                prop_assert!(records.plain_bytes() <= 10_000);
                for record in records.iter().flatten() {
                    let _ = crate::record::reader::headers(&record);
                }
            }
        }
    }
}
