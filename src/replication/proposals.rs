//! Changes of ISRs that leaders on this broker ask for, until somebody carries them to the controller.
//!
//! Invariants: one proposal a partition, the newest; nothing here waits.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::replica::IsrProposal;
use crate::model::TopicPartition;

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    queued: Mutex<BTreeMap<TopicPartition, IsrProposal>>,
    news: Notify,
}

impl Proposals {
    pub(super) fn add(&self, partition: &TopicPartition, proposal: IsrProposal) {
        self.queued.lock().insert(partition.clone(), proposal);
        self.news.notify_one();
    }

    /// Waits until there is something, and takes all of it, by partition.
    pub(crate) async fn take(&self) -> Vec<(TopicPartition, IsrProposal)> {
        loop {
            let mut taken: Vec<_> = std::mem::take(&mut *self.queued.lock()).into_iter().collect();
            if !taken.is_empty() {
                taken.sort_by(|a, b| a.0.cmp(&b.0));
                return taken;
            }
            self.news.notified().await;
        }
    }
}
