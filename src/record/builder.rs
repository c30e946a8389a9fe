//! Building batches: for internal topics, the cleaner, the command line and tests.
//!
//! Invariants: what `build` returns passes the broker's own validation; the base offset is the first record's
//! unless one is given.

use super::batch::{ATTRIBUTE_DELETE_HORIZON, HEADER_BYTES, MAGIC, PREFIX_BYTES, renew_checksum};
use super::compress::{Codec, compress};
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

    /// The finished batch.
    pub(crate) fn build(self) -> Vec<u8> {
        let body = match self.codec {
            Codec::None => self.body,
            codec => compress(codec, &self.body),
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        let base_timestamp = self.base_timestamp.unwrap_or(NO_TIMESTAMP);
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&to_i32(HEADER_BYTES - PREFIX_BYTES + body.len()).to_be_bytes());
        out.extend_from_slice(&self.leader_epoch.to_be_bytes());
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.attributes | self.codec.bits()).to_be_bytes());
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
    use crate::record::{Records, next_batch};

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
}
