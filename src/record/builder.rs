//! Building batches: for internal topics, the cleaner, the command line and tests.
//!
//! Invariants: what `build` returns passes the broker's own validation; the base offset is the first record's
//! unless one is given; a batch without records has no codec and no body, as Apache Kafka writes it: some clients
//! can't decompress nothing.

use super::batch::{ATTRIBUTE_DELETE_HORIZON, HEADER_BYTES, MAGIC, PREFIX_BYTES, renew_checksum};
use super::compress::{Codec, Levels, compress};
use super::reader::Record;
use super::varint::put_varlong;
use crate::model::number::{to_i32, to_i64};
use crate::model::{LeaderEpoch, NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Collects records into one batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchBuilder {
    base_offset: Offset,
    base_timestamp: Option<Timestamp>,
    max_timestamp: Timestamp,
    last_offset_delta: i32,
    leader_epoch: LeaderEpoch,
    producer: (ProducerId, ProducerEpoch, i32),
    attributes: i16,
    codec: Codec,
    count: i32,
    body: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    pub(crate) fn new() -> Self {
        Self {
            base_offset: 0,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            last_offset_delta: -1,
            leader_epoch: -1,
            producer: (-1, -1, -1),
            attributes: 0,
            codec: Codec::None,
            count: 0,
            body: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    #[must_use]
    #[cfg(test)]
    pub(crate) fn producer(
        mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Adds a record at the next offset.
    #[must_use]
    pub(crate) fn record(
        mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        self.add(timestamp, key, value, &[]);
        self
    }

    /// Adds a record with headers at the next offset.
    pub(crate) fn add(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(String, Option<Vec<u8>>)],
    ) {
        let mut encoded = Vec::new();
        put_varlong(&mut encoded, to_i64(headers.len()));
        for (name, value) in headers {
            put_bytes(&mut encoded, Some(name.as_bytes()));
            put_bytes(&mut encoded, value.as_deref());
        }
        self.push(self.last_offset_delta + 1, timestamp, key, value, &encoded);
    }

    /// Starts a batch that keeps another one's place (cleaner): same offsets, producer, attributes but the codec's.
    pub(crate) fn like(header: &super::BatchHeader) -> Self {
        let mut builder = Self::new();
        builder.base_offset = header.base_offset;
        builder.leader_epoch = header.leader_epoch;
        builder.producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        builder.attributes = header.attributes & !7;
        builder.base_timestamp = Some(header.base_timestamp);
        builder
    }

    /// What is left of a batch whose records compaction took away: where it was, who sent it, and its largest timestamp,
    /// which says how old it is.
    pub(crate) fn emptied(header: &super::BatchHeader) -> Vec<u8> {
        let mut builder = Self::like(header);
        builder.base_timestamp = None;
        builder.max_timestamp = header.max_timestamp;
        builder.reach(header.last_offset());
        builder.build()
    }

    /// A batch without records in place of offsets that compaction took away.
    pub(crate) fn gap(offsets: &std::ops::Range<Offset>, leader_epoch: LeaderEpoch) -> Vec<u8> {
        let mut builder = Self::new();
        (builder.base_offset, builder.leader_epoch) = (offsets.start, leader_epoch);
        builder.reach(offsets.end - 1);
        builder.build()
    }

    /// Adds a record of another batch at its own offset.
    pub(crate) fn keep(&mut self, record: &Record<'_>) {
        let delta = to_i32(record.offset.saturating_sub(self.base_offset));
        self.push(delta, record.timestamp, record.key, record.value, record.headers);
    }

    /// Makes the batch reach to `last_offset` even if its last record lies before it.
    pub(crate) fn reach(&mut self, last_offset: Offset) {
        self.last_offset_delta = to_i32(last_offset.saturating_sub(self.base_offset));
    }

    /// Marks that tombstones may go after `horizon_ms`: it takes the base timestamp's place (KIP-534). Must come
    /// before the records.
    pub(crate) fn delete_horizon(&mut self, horizon_ms: Timestamp) {
        self.attributes |= ATTRIBUTE_DELETE_HORIZON;
        self.base_timestamp = Some(horizon_ms);
    }

    /// Sets the maximum timestamp whatever the records say (LogAppendTime batches).
    pub(crate) fn max_timestamp(&mut self, timestamp: Timestamp) {
        self.max_timestamp = timestamp;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    pub(crate) fn count(&self) -> i32 {
        self.count
    }

    /// Bytes of the records so far, uncompressed.
    pub(crate) fn plain_bytes(&self) -> usize {
        self.body.len()
    }

    /// A batch as earlier releases left it: a codec, and nothing in it.
    #[cfg(test)]
    pub(crate) fn ill(codec: Codec, offsets: std::ops::Range<i64>) -> Vec<u8> {
        let mut bytes = Self::gap(&offsets, 0);
        bytes.extend_from_slice(&compress(codec, Levels::default(), &[]));
        bytes[22] |= u8::try_from(codec.bits()).expect("small");
        let length = i32::try_from(bytes.len() - 12).expect("small");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        renew_checksum(&mut bytes);
        assert!(
            crate::record::BatchHeader::parse(&bytes)
                .expect("a header")
                .has_codec_without_records()
        );
        bytes
    }

    /// The finished batch.
    pub(crate) fn build(self) -> Vec<u8> {
        let (attributes, body) = match self.codec {
            _ if self.count == 0 => (self.attributes & !ATTRIBUTE_DELETE_HORIZON, Vec::new()),
            Codec::None => (self.attributes, self.body),
            codec => {
                (self.attributes | codec.bits(), compress(codec, Levels::default(), &self.body))
            }
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        let base_timestamp = self.base_timestamp.unwrap_or(NO_TIMESTAMP);
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&to_i32(HEADER_BYTES - PREFIX_BYTES + body.len()).to_be_bytes());
        out.extend_from_slice(&self.leader_epoch.to_be_bytes());
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&attributes.to_be_bytes());
        out.extend_from_slice(&self.last_offset_delta.max(0).to_be_bytes());
        out.extend_from_slice(&base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&self.producer.0.to_be_bytes());
        out.extend_from_slice(&self.producer.1.to_be_bytes());
        out.extend_from_slice(&self.producer.2.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&body);
        renew_checksum(&mut out);
        out
    }

    fn push(
        &mut self,
        delta: i32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
    ) {
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let mut record = vec![0];
        // Deltas wrap, as they do in Kafka: readers add them the same way.
        put_varlong(&mut record, timestamp.wrapping_sub(base));
        put_varlong(&mut record, delta.into());
        put_bytes(&mut record, key);
        put_bytes(&mut record, value);
        record.extend_from_slice(headers);
        put_varlong(&mut self.body, to_i64(record.len()));
        self.body.extend_from_slice(&record);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset_delta = delta;
        self.count += 1;
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, to_i64(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchHeader, Records, next_batch};

    #[test]
    fn records_come_back_with_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new().codec(codec).record(5, Some(b"k"), None);
            let twice = vec![("h".to_owned(), Some(b"1".to_vec())), ("h".to_owned(), None)];
            builder.add(9, None, Some(&[7; 5000]), &twice);
            let batch = builder.build();
            let (header, bytes, _) = next_batch(&batch).expect("whole");
            let records = Records::open(header, bytes, 1 << 20).expect("open");
            let all: Vec<_> = records.iter().map(|r| r.expect("record")).collect();
            assert_eq!(all.len(), 2, "{codec:?}");
            assert_eq!(
                (all[0].offset, all[0].timestamp, all[0].key, all[0].value),
                (0, 5, Some(&b"k"[..]), None)
            );
            assert_eq!(
                (all[1].offset, all[1].timestamp, all[1].value),
                (1, 9, Some(&[7_u8; 5000][..]))
            );
            assert_eq!(crate::record::reader::headers(&all[1]), twice);
        }
    }

    #[test]
    fn a_batch_without_records_is_a_bare_header_whatever_it_was_before() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new().codec(codec).producer(7, 2, 40);
            builder.delete_horizon(9_000);
            let mut batch =
                builder.record(500, Some(b"k"), None).record(700, Some(b"l"), None).build();
            crate::record::batch::stamp_append_time(&mut batch, 800);
            crate::record::batch::patch_position(&mut batch, 30, 4);
            let (before, ..) = next_batch(&batch).expect("whole");
            let empty = BatchBuilder::emptied(&before);
            let (after, bytes, rest) = next_batch(&empty).expect("whole");
            assert_eq!((bytes.len(), rest.len()), (HEADER_BYTES, 0), "{codec:?}");
            let expected = BatchHeader {
                length: after.length,
                crc: after.crc,
                attributes: 1 << 3,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: 800,
                count: 0,
                ..before
            };
            assert_eq!(after, expected, "{codec:?}");
            assert_eq!((after.last_offset(), after.last_sequence()), (31, 41));
            let nothing = BatchBuilder::new().codec(codec).build();
            assert_eq!(nothing.len(), HEADER_BYTES, "{codec:?}");
            assert!(!BatchHeader::parse(&nothing).expect("a header").has_codec_without_records());
        }
    }
}
