//! Removes what a deleted topic left in the bucket.
//!
//! Invariants: a topic's id is never used again, so whatever stands in its folder is its own; a note in the bucket outlives
//! whoever deletes, and stays for a day: a leader that did not know yet may have sent something.

use std::sync::Arc;

use bytes::Bytes;

use super::error::RemoteError;
use super::manifest::Manifest;
use super::partition::Tier;
use super::sending::UPLOAD_ENDING;
use crate::model::{Timestamp, TopicId};
use crate::objects::{Listed, StoreError};

const NOTES: &str = "deleted-topics";
const NOTE_LIFE_MS: i64 = 24 * 3_600_000;

/// The object that says that a topic is gone.
pub(super) fn note_name(topic: &str, topic_id: TopicId) -> String {
    format!("{NOTES}/{}", Manifest::topic_folder(topic, topic_id))
}

impl Tier {
    /// Notes that a topic is gone.
    pub(crate) async fn note_deleted(
        self: &Arc<Self>,
        topic: &str,
        topic_id: TopicId,
    ) -> Result<(), RemoteError> {
        let note = note_name(topic, topic_id);
        match self.store.create(&note, Bytes::new()).await {
            Ok(_) | Err(StoreError::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Aborts the uploads in parts that these objects are notes of, and removes the notes.
    pub(super) async fn abort_uploads(
        &self,
        objects: impl Iterator<Item = &Listed>,
    ) -> Result<(), RemoteError> {
        for note in objects.filter(|object| object.name.ends_with(UPLOAD_ENDING)) {
            let object = note.name.trim_end_matches(UPLOAD_ENDING);
            let id = match self.store.get(&note.name).await {
                Ok((id, _)) => id,
                // Whoever began it has finished it just now.
                Err(StoreError::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            self.store.abort_upload(object, &String::from_utf8_lossy(&id)).await?;
            self.store.delete(std::slice::from_ref(&note.name)).await?;
        }
        Ok(())
    }

    /// Removes what topics left that are noted; returns how many objects.
    pub(crate) async fn sweep_deleted(
        self: &Arc<Self>,
        now_ms: Timestamp,
    ) -> Result<usize, RemoteError> {
        let mut count = 0;
        for note in self.store.list(NOTES).await? {
            let Some(folder) = note.name.rsplit('/').next().filter(|name| !name.is_empty()) else {
                continue;
            };
            let left = self.store.list(folder).await?;
            self.abort_uploads(left.iter()).await?;
            let names: Vec<String> = left.into_iter().map(|object| object.name).collect();
            count += names.len();
            if !names.is_empty() {
                self.store.delete(&names).await?;
            } else if now_ms.saturating_sub(note.modified_ms) > NOTE_LIFE_MS {
                self.store.delete(&[note.name]).await?;
            }
        }
        Ok(count)
    }
}
