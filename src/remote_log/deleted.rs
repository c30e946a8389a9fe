//! Removes what a deleted topic left in the bucket.
//!
//! Invariants: a topic's id is never used again, so whatever stands in its folder is its own; a note in the bucket outlives
//! whoever deletes, and stays for a day: a leader that did not know yet may have sent something.

use std::sync::Arc;

use bytes::Bytes;

use super::error::RemoteError;
use super::manifest::Manifest;
use super::partition::Tier;
use crate::model::{Timestamp, TopicId};
use crate::objects::StoreError;

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
