//! Driving the compaction of what is in object storage: whose turn it is.
//!
//! Invariants: copies never wait for it; a partition that this broker does not lead any more holds up nobody else's.

use std::sync::Arc;

use super::partition::{Partition, PartitionHandle};
use super::replicas::Replicas;
use crate::config::TopicConfig;
use crate::log::compaction::CompactionRules;
use crate::model::LeaderEpoch;
use crate::remote_log::{CompactionSettings, TierCounts};
use crate::system::clock::{millis, sleep};
use crate::system::tasks::keep_job;

impl Replicas {
    /// Compacts what is in the bucket, over and over.
    pub(super) fn start_compacting(self: &Arc<Self>, interval_ms: i64) {
        let replicas = Arc::clone(self);
        keep_job("compaction in object storage", async move {
            loop {
                let partitions: Vec<_> =
                    replicas.directories.iter().flat_map(|d| d.partitions()).collect();
                let mut has_more = false;
                for partition in &partitions {
                    has_more |= replicas.compact_tiered(partition).await;
                }
                if !has_more {
                    sleep(millis(interval_ms)).await;
                }
            }
        });
    }

    /// Does the next step of one partition, if there is one; whether there may be more.
    async fn compact_tiered(&self, partition: &PartitionHandle) -> bool {
        let Some(remote) = &partition.remote else { return false };
        let wanted = partition.leading_compacted();
        let wanted = wanted.and_then(|(epoch, config)| Some((epoch, self.rules(&config)?)));
        let Some((epoch, settings)) = wanted else {
            remote.end_pass();
            return false;
        };
        match remote.compact(epoch, self.random().uuid(), settings).await {
            Ok(has_more) => {
                if has_more {
                    partition.know(epoch);
                }
                has_more
            }
            Err(error) if error.is_passing() => {
                tracing::info!(partition = %partition.name, %error, "compaction in object storage begins anew");
                false
            }
            Err(error) => {
                self.tier_counts().map(TierCounts::failed);
                tracing::warn!(partition = %partition.name, %error, "not compacted in object storage; what is there stays as it is");
                false
            }
        }
    }

    /// How what is in object storage is compacted; `None` if it is not.
    fn rules(&self, config: &TopicConfig) -> Option<CompactionSettings> {
        let (is_enabled, map_bytes_max) = {
            let settings = self.settings.lock();
            (settings.cleaner_enabled, settings.cleaner_buffer_bytes)
        };
        let rules = CompactionRules {
            now_ms: self.clock.now_ms(),
            delete_retention_ms: config.delete_retention_ms,
            plain_bytes_max: config.plain_bytes_max,
            keeps_tombstones: false,
        };
        is_enabled.then_some(CompactionSettings {
            rules,
            map_bytes_max,
            dirty_ratio_min: config.dirty_ratio_min,
            min_lag_ms: config.min_compaction_lag_ms,
            max_lag_ms: config.max_compaction_lag_ms,
            segment_bytes: config.segment_bytes,
            index_interval_bytes: config.index_interval_bytes,
        })
    }
}

impl Partition {
    /// The epoch and the settings of a leader of a tiered, compacted log.
    fn leading_compacted(&self) -> Option<(LeaderEpoch, Arc<TopicConfig>)> {
        let state = self.lock();
        let log = state.log.as_ref()?;
        let is_wanted = state.replica.is_leader()
            && self.local.lease.is_held()
            && log.config().is_in_own_bucket()
            && log.config().is_compacted;
        is_wanted.then(|| (state.replica.leader_epoch, log.shared_config()))
    }
}
