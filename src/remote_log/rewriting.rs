//! Reads copied segments batch by batch, and writes what compaction leaves of them as new objects.
//!
//! Invariants: what is read was compared with its checksums; nothing is told to be written before it was read back; an old object
//! is not touched.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::encryption::{Piece, opened};
use super::error::RemoteError;
use super::manifest::{Manifest, RemoteSegment};
use super::partition::Tier;
use super::reader::told;
use super::sending::{PART_BYTES, Sending};
use super::trailer::{CHUNK_BYTES, Owner, Trailer};
use super::verifying::Source;
use crate::log::compaction::{Compaction, Kept};
use crate::log::{ProducerStates, SegmentIndex};
use crate::model::number::to_u64;
use crate::model::{LeaderEpoch, NO_TIMESTAMP, Offset, Timestamp};
use crate::record::batch::{checksum, crc32c};
use crate::record::{BatchHeader, next_batch};
use crate::system::clock::uptime_ms;

/// Chunks that are fetched at once.
const CHUNKS: usize = 8;

/// What a batch is read or written of.
pub(super) struct Work {
    pub tier: Arc<Tier>,
    pub manifest: Arc<Manifest>,
    pub index_interval_bytes: u64,
}

/// The batches of a segment that count.
struct Batches<'a> {
    work: &'a Work,
    object: String,
    segment: &'a RemoteSegment,
    trailer: Arc<Trailer>,
    next_chunk: usize,
    buffer: BytesMut,
}

impl Batches<'_> {
    async fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, RemoteError> {
        loop {
            let Some((header, bytes)) = next_batch(&self.buffer).map(|(h, b, _)| (h, b.len()))
            else {
                if self.next_chunk < self.segment.chunks() {
                    self.fetch().await?;
                    continue;
                }
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(self.damaged("what stands at its end is no batch"))
                };
            };
            let batch = self.buffer.split_to(bytes).freeze();
            if checksum(&batch) != Some(header.crc) {
                return Err(
                    self.damaged(&format!("the batch at {} is corrupt", header.base_offset))
                );
            }
            if header.last_offset() >= self.segment.end_offset {
                return Ok(None);
            }
            if header.last_offset() >= self.segment.base_offset {
                return Ok(Some((header, batch)));
            }
        }
    }

    async fn fetch(&mut self) -> Result<(), RemoteError> {
        let first = self.next_chunk;
        let end = (first + CHUNKS).min(self.segment.chunks());
        let range = self.segment.chunk_range(first).start..self.segment.chunk_range(end - 1).end;
        let throttle = &self.work.tier.copies;
        throttle.wait().await;
        throttle.note(uptime_ms(), (end - first) * CHUNK_BYTES);
        let got = self.work.tier.idle.get_range(&self.object, range).await;
        self.work.tier.counts.note_read(got.as_ref().map(|bytes| to_u64(bytes.len())).ok());
        let (mut got, key) = (got?, self.work.tier.keyring.key_of(self.segment)?);
        for chunk in first..end {
            let bytes = got.split_to(self.segment.stored_chunk_bytes().min(got.len()));
            let bytes = opened(key.as_ref(), (&self.object, Piece::Chunk(chunk)), bytes)?;
            self.trailer.verify(&self.object, chunk, &bytes)?;
            self.buffer.extend_from_slice(&bytes);
        }
        self.next_chunk = end;
        Ok(())
    }

    fn damaged(&self, reason: &str) -> RemoteError {
        RemoteError::Damaged { object: self.object.clone(), reason: reason.to_owned() }
    }
}

/// What becomes an object.
struct Output {
    sending: Sending,
    rest: Vec<u8>,
    index: SegmentIndex,
    /// The largest timestamp of batches that have records; -1 if there is none.
    newest: Timestamp,
}

impl Output {
    /// Bytes of records so far.
    fn bytes(&self) -> u64 {
        self.sending.log_bytes + to_u64(self.rest.len())
    }

    async fn push(&mut self, work: &Work, batch: &[u8]) -> Result<(), RemoteError> {
        if let Some(header) = BatchHeader::parse(batch) {
            self.index.note(&header, self.bytes(), work.index_interval_bytes);
            if header.count > 0 {
                self.newest = self.newest.max(header.max_timestamp);
            }
        }
        self.rest.extend_from_slice(batch);
        while self.rest.len() > PART_BYTES {
            let after = self.rest.split_off(PART_BYTES);
            let part = std::mem::replace(&mut self.rest, after);
            let crcs = part.chunks(CHUNK_BYTES).map(crc32c).collect();
            self.sending.part(part, crcs).await?;
        }
        Ok(())
    }
}

impl Work {
    async fn batches<'a>(&'a self, segment: &'a RemoteSegment) -> Result<Batches<'a>, RemoteError> {
        let object = self.manifest.object(segment);
        let trailer = self.tier.reader.trailer(&object, segment).await;
        let trailer = trailer.map_err(|error| told(&object, &error))?;
        let buffer = BytesMut::new();
        Ok(Batches { work: self, object, segment, trailer, next_chunk: 0, buffer })
    }

    /// Notes the keys of a segment.
    pub(super) async fn note(
        &self,
        segment: &RemoteSegment,
        compaction: &mut Compaction,
    ) -> Result<(), RemoteError> {
        let mut batches = self.batches(segment).await?;
        while let Some((header, batch)) = batches.next().await? {
            let noted = compaction.note(&header, &batch);
            noted.map_err(|error| batches.damaged(&error.to_string()))?;
        }
        Ok(())
    }

    /// Whether compaction takes anything of a segment away.
    pub(super) async fn would_change(
        &self,
        segment: &RemoteSegment,
        compaction: &Compaction,
    ) -> Result<bool, RemoteError> {
        let mut batches = self.batches(segment).await?;
        let mut held = batches.next().await?;
        while let Some((header, batch)) = held {
            held = batches.next().await?;
            let must_stay = held.is_none() || begins_epoch(&header, std::slice::from_ref(segment));
            let kept = compaction.keep(&header, &batch, must_stay);
            if kept.map_err(|error| batches.damaged(&error.to_string()))? != Kept::Whole {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes what is left of segments that lie one after the other as one; `None` if nothing is left at all.
    pub(super) async fn rewrite(
        &self,
        (segments, id): (&[RemoteSegment], Uuid),
        compaction: &Compaction,
        producers: Option<&ProducerStates>,
    ) -> Result<Option<RemoteSegment>, RemoteError> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(None);
        };
        let mut new = RemoteSegment {
            id,
            object_offset: first.base_offset,
            end_offset: last.end_offset,
            leader_epoch: self.manifest.leader_epoch,
            epochs: epochs_of(segments),
            is_compacted: true,
            counted_bytes: None,
            encryption: self.tier.keyring.new_key(id)?,
            ..first.clone()
        };
        let (store, throttle) = (self.tier.idle.clone(), Arc::clone(&self.tier.copies));
        let named = (self.manifest.object(&new), self.tier.keyring.key_of(&new)?);
        let sending = Sending::new(store, throttle, named);
        let index = SegmentIndex::new(new.object_offset);
        let mut output = Output { sending, rest: Vec::new(), index, newest: NO_TIMESTAMP };
        let written = self.write(segments, compaction, &mut output, &mut new, producers).await;
        let Ok(true) = written else {
            output.sending.give_up().await;
            return written.map(|_| None);
        };
        let object = self.manifest.object(&new);
        let Tier { idle, counts, keyring, .. } = &*self.tier;
        Source { store: idle, counts, keyring }
            .verify(&object, &new)
            .await
            .map_err(|error| RemoteError::Damaged { object, reason: error.to_string() })?;
        Ok(Some(new))
    }

    async fn write(
        &self,
        segments: &[RemoteSegment],
        compaction: &Compaction,
        output: &mut Output,
        new: &mut RemoteSegment,
        producers: Option<&ProducerStates>,
    ) -> Result<bool, RemoteError> {
        let mut newest = None;
        for (at, segment) in (1..).zip(segments) {
            let mut batches = self.batches(segment).await?;
            let mut held = batches.next().await?;
            while let Some((header, batch)) = held {
                held = batches.next().await?;
                let is_last = held.is_none() && at == segments.len();
                let must_stay = is_last || begins_epoch(&header, segments);
                let kept = compaction.keep(&header, &batch, must_stay);
                match kept.map_err(|error| batches.damaged(&error.to_string()))? {
                    Kept::Whole => output.push(self, &batch).await?,
                    Kept::Part(batch) => output.push(self, &batch).await?,
                    Kept::Nothing => {}
                }
            }
            newest = Some(batches.trailer);
        }
        let Some(newest) = newest.filter(|_| output.bytes() > 0) else { return Ok(false) };
        output.index.close();
        // What has no record left is as old as what it had.
        let before = segments.iter().map(|segment| segment.max_timestamp).max();
        let is_known = output.newest > NO_TIMESTAMP;
        new.max_timestamp = if is_known { output.newest } else { before.unwrap_or(NO_TIMESTAMP) };
        new.log_bytes = output.bytes();
        let rest = std::mem::take(&mut output.rest);
        let crcs = rest.chunks(CHUNK_BYTES).map(crc32c).collect();
        let Manifest { topic, topic_id, partition, .. } = &*self.manifest;
        let owner = Owner { topic, topic_id: *topic_id, partition: *partition };
        let (index, producers) = (&output.index, producers.unwrap_or(&newest.producers));
        let described = new.clone();
        let trailer = |crcs: &[u32]| Trailer::encode(owner, &described, crcs, (index, producers));
        new.object_bytes = output.sending.finish((rest, crcs), trailer).await?;
        Ok(true)
    }
}

fn begins_epoch(header: &BatchHeader, segments: &[RemoteSegment]) -> bool {
    let mut epochs = segments.iter().flat_map(|segment| &segment.epochs);
    epochs.any(|(_, start)| *start == header.base_offset)
}

/// Where each epoch begins in segments that lie one after the other.
fn epochs_of(segments: &[RemoteSegment]) -> Vec<(LeaderEpoch, Offset)> {
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for (epoch, start) in segments.iter().flat_map(|segment| &segment.epochs) {
        if epochs.last().is_none_or(|(last, _)| last < epoch) {
            epochs.push((*epoch, *start));
        }
    }
    epochs
}
