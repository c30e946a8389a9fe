//! What follows the records in a segment's object: a line of JSON that says what the object is, then the offset index, the time
//! index and the producers' snapshot, in the formats of their files, then the CRC-32C of all of it.
//!
//! Invariants: an object explains itself, so that a bucket can be read without its manifests; every chunk of the records has its
//! checksum here, and nothing is used before it was compared.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::RemoteError;
use super::manifest::RemoteSegment;
use crate::log::{ProducerStates, SegmentIndex};
use crate::model::number::{be32, to_u64};
use crate::model::{Offset, PartitionId, TopicId};
use crate::record::batch::crc32c;

/// Records are read from a store, cached and checked in pieces of this size.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
const CRC_BYTES: usize = 4;

/// The line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    topic: String,
    topic_id: TopicId,
    partition: PartitionId,
    segment: RemoteSegment,
    chunk_bytes: usize,
    chunk_crc32c: Vec<u32>,
    offset_index_bytes: usize,
    time_index_bytes: usize,
    producers_bytes: usize,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Trailer {
    pub index: SegmentIndex,
    pub producers: ProducerStates,
    /// Where the segment ended when it was copied: what the producers' snapshot is of.
    pub end_offset: Offset,
    chunk_bytes: usize,
    chunk_crc32c: Vec<u32>,
    /// How much memory it takes, about.
    pub bytes: usize,
}

/// Whose object it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub topic: &'a str,
    pub topic_id: TopicId,
    pub partition: PartitionId,
}

impl Trailer {
    pub(crate) fn encode(
        owner: Owner<'_>,
        segment: &RemoteSegment,
        chunk_crc32c: &[u32],
        (index, producers): (&SegmentIndex, &ProducerStates),
    ) -> Vec<u8> {
        let (offsets, times) = index.encode(0, 0);
        let producers = producers.lines().join("\n");
        let head = Head {
            topic: owner.topic.to_owned(),
            topic_id: owner.topic_id,
            partition: owner.partition,
            segment: segment.clone(),
            chunk_bytes: CHUNK_BYTES,
            chunk_crc32c: chunk_crc32c.to_vec(),
            offset_index_bytes: offsets.len(),
            time_index_bytes: times.len(),
            producers_bytes: producers.len(),
        };
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&offsets);
        bytes.extend_from_slice(&times);
        bytes.extend_from_slice(producers.as_bytes());
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads and checks what stands after the records of `segment`.
    pub(crate) fn decode(
        object: &str,
        bytes: &Bytes,
        segment: &RemoteSegment,
    ) -> Result<Self, RemoteError> {
        let damaged = |reason: &str| RemoteError::Damaged {
            object: object.to_owned(),
            reason: reason.to_owned(),
        };
        let (body, crc) = bytes
            .len()
            .checked_sub(CRC_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or_else(|| damaged("the trailer is cut"))?;
        if crc32c(body) != be32(crc, 0).cast_unsigned() {
            return Err(damaged("the trailer's checksum is wrong"));
        }
        let line = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
        let (line, rest) = body.split_at_checked(line).unwrap_or((body, &[]));
        let head: Head =
            serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))?;
        let same = head.segment.id == segment.id
            && head.segment.log_bytes == segment.log_bytes
            && head.segment.object_offset == segment.object_offset;
        let chunks = segment.log_bytes.div_ceil(to_u64(head.chunk_bytes.max(1)));
        if !same || head.chunk_bytes != CHUNK_BYTES || to_u64(head.chunk_crc32c.len()) != chunks {
            return Err(damaged("the trailer is another object's"));
        }
        let mut rest = rest.get(1..).unwrap_or_default();
        let mut take = |bytes: usize| {
            let (taken, left) = rest.split_at_checked(bytes)?;
            rest = left;
            Some(taken)
        };
        let parts = take(head.offset_index_bytes)
            .and_then(|offsets| Some((offsets, take(head.time_index_bytes)?)))
            .and_then(|(offsets, times)| Some((offsets, times, take(head.producers_bytes)?)));
        let (offsets, times, producers) = parts.ok_or_else(|| damaged("the trailer is cut"))?;
        let index = SegmentIndex::decode(offsets, times, segment.object_offset, segment.log_bytes)
            .ok_or_else(|| damaged("the index is not in order"))?;
        let lines: Vec<String> =
            String::from_utf8_lossy(producers).lines().map(ToOwned::to_owned).collect();
        let producers = ProducerStates::parse(&lines)
            .ok_or_else(|| damaged("the producers are not readable"))?;
        Ok(Self {
            index,
            producers,
            end_offset: head.segment.end_offset,
            chunk_bytes: head.chunk_bytes,
            chunk_crc32c: head.chunk_crc32c,
            bytes: bytes.len() * 2,
        })
    }

    /// Compares a chunk of the records with its checksum.
    pub(crate) fn verify(
        &self,
        object: &str,
        chunk: usize,
        bytes: &[u8],
    ) -> Result<(), RemoteError> {
        debug_assert!(bytes.len() <= self.chunk_bytes);
        self.compare(object, chunk, crc32c(bytes))
    }

    /// The same for whoever has summed up a chunk.
    pub(crate) fn compare(
        &self,
        object: &str,
        chunk: usize,
        crc32c: u32,
    ) -> Result<(), RemoteError> {
        if self.chunk_crc32c.get(chunk) == Some(&crc32c) {
            return Ok(());
        }
        let reason = format!("the checksum of chunk {chunk} is wrong");
        Err(RemoteError::Damaged { object: object.to_owned(), reason })
    }
}

/// Reads any bytes as a trailer, as they are and with a right checksum (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_trailer(bytes: &[u8]) {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head: Option<Head> = serde_json::from_slice(line).ok();
    let Some(head) = head else { return };
    let signed = [bytes, &crc32c(bytes).to_be_bytes()].concat();
    for bytes in [bytes.to_vec(), signed] {
        if let Ok(trailer) = Trailer::decode("object", &Bytes::from(bytes), &head.segment) {
            let _ = trailer.verify("object", 0, b"records");
        }
    }
}

/// A trailer without its checksum, for the corpus.
#[cfg(test)]
pub(crate) fn sample_trailer() -> Vec<u8> {
    let segment = super::manifest::sample().segments.remove(0);
    let owner = Owner { topic: "t", topic_id: TopicId::from_u128(7), partition: 0 };
    let kept = (&SegmentIndex::new(0), &ProducerStates::default());
    let mut bytes = Trailer::encode(owner, &segment, &[1], kept);
    bytes.truncate(bytes.len() - CRC_BYTES);
    bytes
}
