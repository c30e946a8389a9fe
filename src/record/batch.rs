//! The 61-byte header of a record batch (KIP-98), and walking over batches.
//!
//! Invariants: a `BatchHeader` only says what the bytes say; `total_bytes` includes the 12 bytes before the length.

use crate::model::number::{be16, be32, be64, to_usize};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Bytes before the records.
pub(crate) const HEADER_BYTES: usize = 61;
/// Base offset and length: what must be read to know a batch's size.
pub(crate) const PREFIX_BYTES: usize = 12;
/// Where the bytes that the CRC covers begin.
pub(crate) const CRC_START: usize = 21;
/// The only format that is stored.
pub(crate) const MAGIC: i8 = 2;

const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;
pub(crate) const ATTRIBUTE_DELETE_HORIZON: i16 = 1 << 6;

/// A batch's header, copied out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    pub length: i32,
    pub leader_epoch: LeaderEpoch,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: Timestamp,
    pub max_timestamp: Timestamp,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header; `None` if there are fewer than 61 bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        Some(Self {
            base_offset: be64(bytes, 0),
            length: be32(bytes, 8),
            leader_epoch: be32(bytes, 12),
            magic: i8::from_be_bytes([*bytes.get(16)?]),
            crc: u32::from_be_bytes(bytes.get(17..21)?.try_into().ok()?),
            attributes: be16(bytes, 21),
            last_offset_delta: be32(bytes, 23),
            base_timestamp: be64(bytes, 27),
            max_timestamp: be64(bytes, 35),
            producer_id: be64(bytes, 43),
            producer_epoch: be16(bytes, 51),
            base_sequence: be32(bytes, 53),
            count: be32(bytes, 57),
        })
    }

    /// Bytes of the whole batch.
    pub fn total_bytes(&self) -> usize {
        to_usize(self.length) + PREFIX_BYTES
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(self.last_offset_delta.into())
    }

    /// The low three attribute bits: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec_bits(&self) -> i16 {
        self.attributes & 7
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// When tombstones of this batch may go (KIP-534): then the base timestamp is the horizon.
    pub fn delete_horizon_ms(&self) -> Option<Timestamp> {
        (self.attributes & ATTRIBUTE_DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether there is a codec, but nothing in it. Earlier releases left such batches behind when they compacted; many
    /// clients fail on them, so they are never sent.
    pub(crate) fn has_codec_without_records(&self) -> bool {
        self.count == 0 && (self.codec_bits() != 0 || self.total_bytes() != HEADER_BYTES)
    }

    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Sequence of the last record; sequences wrap from 2^31-1 to 0 (KIP-98).
    pub fn last_sequence(&self) -> i32 {
        add_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// `sequence + delta`, wrapping from 2^31-1 to 0.
pub(crate) fn add_sequence(sequence: i32, delta: i32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(delta)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).unwrap_or(0)
}

/// CRC-32C of what the batch's checksum covers; `None` if the batch is too short.
pub(crate) fn checksum(batch: &[u8]) -> Option<u32> {
    Some(crc32c(batch.get(CRC_START..)?))
}

/// CRC-32C (Castagnoli), as record batches and our own files use it.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The same of bytes that come in pieces.
pub(crate) struct Crc32c(crc_fast::Digest);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of what came, and begins anew.
    pub(crate) fn take(&mut self) -> u32 {
        u32::try_from(self.0.finalize_reset()).unwrap_or(u32::MAX)
    }
}

/// Splits the first whole batch off `bytes`; `None` if it is cut, too short or not of format v2.
pub(crate) fn next_batch(bytes: &[u8]) -> Option<(BatchHeader, &[u8], &[u8])> {
    let header = BatchHeader::parse(bytes)?;
    if header.magic != MAGIC || to_usize(header.length) < HEADER_BYTES - PREFIX_BYTES {
        return None;
    }
    let (batch, rest) = bytes.split_at_checked(header.total_bytes())?;
    Some((header, batch, rest))
}

/// Sets base offset and leader epoch in a header: both lie before the CRC's range.
pub(crate) fn patch_position(header: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    put(header, 0, &base_offset.to_be_bytes());
    put(header, 12, &leader_epoch.to_be_bytes());
}

/// Marks a batch as stamped by the broker (`message.timestamp.type=LogAppendTime`) and renews its CRC.
pub(crate) fn stamp_append_time(batch: &mut [u8], now_ms: Timestamp) {
    let attributes = be16(batch, 21) | ATTRIBUTE_LOG_APPEND_TIME;
    put(batch, 21, &attributes.to_be_bytes());
    put(batch, 35, &now_ms.to_be_bytes());
    renew_checksum(batch);
}

/// Corrects the largest timestamp of a batch that its producer stamped, and renews its CRC.
pub(crate) fn correct_max_timestamp(batch: &mut [u8], max_ms: Timestamp) {
    let attributes = be16(batch, 21) & !ATTRIBUTE_LOG_APPEND_TIME;
    put(batch, 21, &attributes.to_be_bytes());
    put(batch, 35, &max_ms.to_be_bytes());
    renew_checksum(batch);
}

/// Writes the CRC that belongs to the bytes.
pub(crate) fn renew_checksum(batch: &mut [u8]) {
    if let Some(crc) = checksum(batch) {
        put(batch, 17, &crc.to_be_bytes());
    }
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(target) = bytes.get_mut(at..at + value.len()) {
        target.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    #[test]
    fn a_cut_batch_is_not_a_batch() {
        let batch = BatchBuilder::new().record(1000, Some(b"k"), Some(b"v")).build();
        assert!(next_batch(&batch).is_some());
        for cut in 0..batch.len() {
            assert!(next_batch(&batch[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn patching_the_position_keeps_the_checksum_true() {
        let mut batch = BatchBuilder::new().record(1000, Some(b"k"), Some(b"v")).build();
        patch_position(&mut batch, 77, 5);
        let (header, bytes, rest) = next_batch(&batch).expect("a whole batch");
        assert_eq!((header.base_offset, header.leader_epoch), (77, 5));
        assert_eq!(checksum(bytes), Some(header.crc));
        assert!(rest.is_empty());
    }

    #[test]
    fn a_sequence_wraps_to_zero() {
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(add_sequence(5, 3), 8);
    }

    #[test]
    fn an_append_time_changes_the_maximum_and_keeps_the_first_timestamp() {
        let mut batch = BatchBuilder::new().record(1000, None, Some(b"v")).build();
        stamp_append_time(&mut batch, 9000);
        let header = BatchHeader::parse(&batch).expect("header");
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 9000));
        assert!(header.is_log_append_time());
        assert_eq!(checksum(&batch), Some(header.crc));
    }
}
