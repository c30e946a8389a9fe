//! One copy of a segment on its way into the bucket, and whether it arrived.
//!
//! Invariants: the work may be done by threads that get a processor only where nobody else wants it: nothing here takes a lock or a
//! cache that readers and producers use; only what was read back from the store and compared is told to be there.

use std::sync::Arc;

use bytes::Bytes;

use super::counts::TierCounts;
use super::error::RemoteError;
use super::manifest::RemoteSegment;
use super::trailer::{CHUNK_BYTES, Owner, Trailer};
use super::verifying::verify;
use crate::log::OpenSegment;
use crate::model::number::to_u64;
use crate::model::{PartitionId, TopicId};
use crate::objects::{Store, Upload};
use crate::record::batch::crc32c;
use crate::system::Throttle;
use crate::system::clock::uptime_ms;
use crate::system::disk::read_full;
use crate::system::tasks::blocking;

/// What is sent at a time; a smaller segment is one object put at once.
const PART_CHUNKS: usize = 8;

/// See the file's header.
pub(super) struct Copying {
    pub store: Store,
    pub counts: Arc<TierCounts>,
    pub throttle: Arc<Throttle>,
    pub topic: Arc<str>,
    pub owner: (TopicId, PartitionId),
    /// The name that it gets.
    pub object: String,
    pub opened: Arc<OpenSegment>,
}

impl Copying {
    /// Sends the segment and reads it back; returns the object's size.
    pub(super) async fn run(self, mut segment: RemoteSegment) -> Result<u64, RemoteError> {
        segment.object_bytes = self.send(&segment).await?;
        verify(&self.store, &self.counts, &self.object, &segment).await.map_err(|error| {
            RemoteError::Damaged { object: self.object.clone(), reason: error.to_string() }
        })?;
        Ok(segment.object_bytes)
    }

    /// Makes the object; returns its size.
    async fn send(&self, segment: &RemoteSegment) -> Result<u64, RemoteError> {
        let Self { store, topic, owner: (topic_id, partition), object, opened, .. } = self;
        let part_bytes = CHUNK_BYTES * PART_CHUNKS;
        let is_small = opened.bytes <= to_u64(part_bytes);
        let (mut upload, mut crcs, mut sent) = (None, Vec::new(), 0);
        if !is_small {
            upload = Some(store.upload(object).await?);
        }
        let mut at = 0;
        while at < opened.bytes {
            let wanted = usize::try_from(opened.bytes - at).unwrap_or(part_bytes).min(part_bytes);
            let read = read_part(opened, at, wanted).await;
            let (mut part, part_crcs) = match read {
                Ok(read) => read,
                Err(error) => return Err(give_up(upload, error).await),
            };
            crcs.extend(part_crcs);
            at += to_u64(wanted);
            if at >= opened.bytes {
                let owner = Owner { topic, topic_id: *topic_id, partition: *partition };
                let kept = (&*opened.index, &opened.producers);
                part.extend_from_slice(&Trailer::encode(owner, segment, &crcs, kept));
            }
            sent += to_u64(part.len());
            self.throttle.wait().await;
            self.throttle.note(uptime_ms(), part.len());
            let part = Bytes::from(part);
            let put = match &mut upload {
                Some(upload) => upload.part(part).await,
                None => store.create(object, part).await.map(drop),
            };
            if let Err(error) = put {
                return Err(give_up(upload, error.into()).await);
            }
        }
        if let Some(upload) = upload {
            upload.finish().await?;
        }
        Ok(sent)
    }
}

/// Reads a part of a segment, and the checksum of each of its chunks.
async fn read_part(
    opened: &Arc<OpenSegment>,
    at: u64,
    bytes: usize,
) -> Result<(Vec<u8>, Vec<u32>), RemoteError> {
    let opened = Arc::clone(opened);
    let read = blocking(move || {
        let mut buffer = vec![0; bytes];
        if read_full(&*opened.file, &mut buffer, at)? < bytes {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        let crcs: Vec<u32> = buffer.chunks(CHUNK_BYTES).map(crc32c).collect();
        Ok((buffer, crcs))
    });
    Ok(read.await.unwrap_or_else(|| Err(panicked()))?)
}

pub(super) fn panicked() -> std::io::Error {
    std::io::Error::other("reading a segment panicked")
}

async fn give_up(upload: Option<Upload>, error: RemoteError) -> RemoteError {
    if let Some(upload) = upload
        && let Err(error) = upload.abort().await
    {
        tracing::warn!(%error, "upload not aborted: its parts stay until the bucket's own rule removes them");
    }
    error
}
