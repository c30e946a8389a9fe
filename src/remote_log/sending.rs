//! One object on its way into the bucket, part after part.
//!
//! Invariants: it shows nothing before it is finished; one that is small is put at once; what is broken off leaves nothing behind
//! that the store lets us take away.

use std::sync::Arc;

use bytes::Bytes;

use super::encryption::SegmentKey;
use super::error::RemoteError;
use super::trailer::CHUNK_BYTES;
use crate::model::number::to_u64;
use crate::objects::{Store, Upload};
use crate::system::Throttle;
use crate::system::clock::uptime_ms;

/// What the names of notes of uploads in parts end with; they hold the store's id of the upload.
pub(super) const UPLOAD_ENDING: &str = ".upload";
/// What is sent at a time.
pub(super) const PART_BYTES: usize = 8 * CHUNK_BYTES;

/// How many requests it took to write an object of so many bytes: its parts, what begins, notes and ends them, and the manifest.
pub(crate) fn requests_to_copy(object_bytes: u64) -> u64 {
    let parts = object_bytes.div_ceil(to_u64(PART_BYTES)).max(1);
    if parts == 1 { 2 } else { parts + 4 }
}

/// See the file's header.
pub(super) struct Sending {
    pub store: Store,
    pub throttle: Arc<Throttle>,
    /// The name that it gets.
    pub object: String,
    /// What it is encrypted with.
    pub key: Option<SegmentKey>,
    pub upload: Option<Upload>,
    /// Checksums of the chunks of its records so far.
    pub crcs: Vec<u32>,
    /// Bytes of records so far.
    pub log_bytes: u64,
    /// Bytes of the object so far.
    sent_bytes: u64,
}

impl Sending {
    pub(super) fn new(
        store: Store,
        throttle: Arc<Throttle>,
        (object, key): (String, Option<SegmentKey>),
    ) -> Self {
        let (crcs, log_bytes, sent_bytes) = (Vec::new(), 0, 0);
        Self { store, throttle, object, key, upload: None, crcs, log_bytes, sent_bytes }
    }

    /// Sends `PART_BYTES` of records, after which more come, and notes the checksums of their chunks.
    pub(super) async fn part(&mut self, part: Vec<u8>, crcs: Vec<u32>) -> Result<(), RemoteError> {
        let part = self.sealed(part, crcs)?;
        self.pace(part.len()).await;
        if self.upload.is_none() {
            self.begin().await?;
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let sent = upload.part(Bytes::from(part)).await;
        Ok(sent?)
    }

    /// The next chunks of the records as the bucket gets them.
    fn sealed(&mut self, records: Vec<u8>, crcs: Vec<u32>) -> Result<Vec<u8>, RemoteError> {
        let first = self.crcs.len();
        self.log_bytes += to_u64(records.len());
        self.crcs.extend(crcs);
        let Some(key) = &self.key else { return Ok(records) };
        key.seal_chunks(first, &records)
    }

    /// Sends the rest of the records and what `trailer` makes of all checksums; returns the object's size.
    pub(super) async fn finish(
        &mut self,
        (rest, crcs): (Vec<u8>, Vec<u32>),
        trailer: impl FnOnce(&[u32]) -> Vec<u8>,
    ) -> Result<u64, RemoteError> {
        let mut rest = self.sealed(rest, crcs)?;
        let trailer = trailer(&self.crcs);
        match &self.key {
            Some(key) => rest.extend_from_slice(&key.seal_trailer(&trailer)?),
            None => rest.extend_from_slice(&trailer),
        }
        self.pace(rest.len()).await;
        match &mut self.upload {
            Some(upload) => upload.part(Bytes::from(rest)).await?,
            None => drop(self.store.create(&self.object, Bytes::from(rest)).await?),
        }
        if let Some(upload) = self.upload.take() {
            upload.finish().await?;
            self.forget_note().await;
        }
        Ok(self.sent_bytes)
    }

    /// Begins an upload, and notes it in the bucket: it can be aborted by others if this process dies.
    async fn begin(&mut self) -> Result<(), RemoteError> {
        let upload = self.store.upload(&self.object).await?;
        let id = upload.id().map(|id| Bytes::from(id.to_owned()));
        self.upload = Some(upload);
        if let Some(id) = id {
            self.store.create(&format!("{}{UPLOAD_ENDING}", self.object), id).await?;
        }
        Ok(())
    }

    async fn forget_note(&mut self) {
        let note = format!("{}{UPLOAD_ENDING}", self.object);
        if let Err(error) = self.store.delete(&[note]).await {
            tracing::debug!(%error, "the note of a finished upload stays for some hours");
        }
    }

    async fn pace(&mut self, bytes: usize) {
        self.throttle.wait().await;
        self.throttle.note(uptime_ms(), bytes);
        self.sent_bytes += to_u64(bytes);
    }

    /// Takes away what was sent.
    pub(super) async fn give_up(mut self) {
        let Some(upload) = self.upload.take() else { return };
        match upload.abort().await {
            Ok(()) => self.forget_note().await,
            Err(error) => {
                tracing::warn!(%error, "upload not aborted yet: the leader tries again in some hours");
            }
        }
    }
}
