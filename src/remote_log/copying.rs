//! One copy of a segment on its way into the bucket, and whether it arrived.
//!
//! Invariants: the work may be done by threads that get a processor only where nobody else wants it: nothing here takes a lock or a
//! cache that readers and producers use; only what was read back from the store and compared is told to be there.

use std::sync::Arc;

use super::counts::TierCounts;
use super::encryption::Keyring;
use super::error::RemoteError;
use super::manifest::RemoteSegment;
use super::sending::{PART_BYTES, Sending};
use super::trailer::{CHUNK_BYTES, Owner, Trailer};
use super::verifying::Source;
use crate::log::OpenSegment;
use crate::model::number::to_u64;
use crate::model::{PartitionId, TopicId};
use crate::objects::Store;
use crate::record::batch::crc32c;
use crate::system::Throttle;
use crate::system::disk::read_full;
use crate::system::tasks::blocking;

/// See the file's header.
pub(super) struct Copying {
    pub store: Store,
    pub counts: Arc<TierCounts>,
    pub keyring: Arc<Keyring>,
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
        let source = Source { store: &self.store, counts: &self.counts, keyring: &self.keyring };
        source.verify(&self.object, &segment).await.map_err(|error| RemoteError::Damaged {
            object: self.object.clone(),
            reason: error.to_string(),
        })?;
        Ok(segment.object_bytes)
    }

    /// Makes the object; returns its size.
    async fn send(&self, segment: &RemoteSegment) -> Result<u64, RemoteError> {
        let (store, throttle) = (self.store.clone(), Arc::clone(&self.throttle));
        let named = (self.object.clone(), self.keyring.key_of(segment)?);
        let mut sending = Sending::new(store, throttle, named);
        let sent = self.send_through(&mut sending, segment).await;
        if sent.is_err() {
            sending.give_up().await;
        }
        sent
    }

    async fn send_through(
        &self,
        sending: &mut Sending,
        segment: &RemoteSegment,
    ) -> Result<u64, RemoteError> {
        let Self { topic, owner: (topic_id, partition), opened, .. } = self;
        loop {
            let left = opened.bytes - sending.log_bytes;
            let at = opened.start + sending.log_bytes;
            let bytes = usize::try_from(left).unwrap_or(PART_BYTES).min(PART_BYTES);
            let (part, crcs) = read_part(opened, at, bytes).await?;
            if to_u64(bytes) < left {
                sending.part(part, crcs).await?;
                continue;
            }
            let owner = Owner { topic, topic_id: *topic_id, partition: *partition };
            let kept = (&*opened.index, &opened.producers);
            let trailer = |crcs: &[u32]| Trailer::encode(owner, segment, crcs, kept);
            return sending.finish((part, crcs), trailer).await;
        }
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
