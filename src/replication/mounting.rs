//! Topics whose records are another cluster's: its bucket is read, and nothing is ever written to it.
//!
//! Invariants: a leader shows nothing before it has read the manifest, and then what that holds; the log here is empty, and begins
//! where the bucket ends, anew whenever that is further; leader epochs here are larger than any that is in the bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::partition::{Local, Partition, PartitionHandle};
use super::replicas::Replicas;
use crate::config::TopicConfig;
use crate::model::{LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::remote_log::{Manifest, RemoteError, RemotePartition, Tier, TierCounts};
use crate::system::clock::{millis, monotonic, timeout_at};
use crate::system::tasks::keep_job;

/// Manifests that are read at the same time.
const LOOKS: usize = 8;

impl Local {
    /// One of all buckets, which share their counts, keys and limits.
    pub(super) fn any_tier(&self) -> Option<&Arc<Tier>> {
        self.tier.get().or_else(|| self.mounts.get()?.values().next())
    }

    /// What a partition has in object storage: its own, or another cluster's.
    pub(super) fn remote(
        &self,
        (name, topic_id): (&TopicPartition, TopicId),
        config: Option<&TopicConfig>,
    ) -> Option<RemotePartition> {
        let Some(mount) = config.and_then(|config| config.mount.as_ref()) else {
            let tier = self.tier.get()?;
            return Some(RemotePartition::new(tier, &name.topic, topic_id, name.partition));
        };
        let Some(tier) = self.mounts.get().and_then(|mounts| mounts.get(&mount.url)) else {
            tracing::error!(partition = %name, url = mount.url, "it is mounted from where this broker may not: name it in remote.storage.mount.urls");
            return None;
        };
        let topic: Arc<str> = mount.topic.as_str().into();
        Some(RemotePartition::new(tier, &topic, mount.topic_id, name.partition))
    }
}

impl Replicas {
    /// The buckets of other clusters, by their URLs; before partitions are opened.
    pub(crate) fn set_mounts(&self, mounts: BTreeMap<String, Arc<Tier>>) {
        let rates = self.settings.lock().tier_rates;
        mounts.values().for_each(|tier| tier.set_rates(rates));
        let _ = self.local.mounts.set(mounts);
    }

    /// Looks what the other clusters have written, over and over.
    pub(crate) fn start_mounts(self: &Arc<Self>, refresh_ms: i64) {
        let replicas = Arc::clone(self);
        keep_job("mounted topics", async move {
            loop {
                let wanted = replicas.local.mount_wanted.notified();
                let _ = timeout_at(monotonic() + millis(refresh_ms), wanted).await;
                let partitions = replicas.directories.iter().flat_map(|d| d.partitions());
                let mounted: Vec<_> = partitions.filter(|p| p.leads_mount().is_some()).collect();
                futures_util::stream::iter(mounted)
                    .for_each_concurrent(LOOKS, |partition| {
                        let replicas = Arc::clone(&replicas);
                        async move { replicas.look_at_mount(&partition).await }
                    })
                    .await;
            }
        });
    }

    async fn look_at_mount(&self, partition: &PartitionHandle) {
        let Some(remote) = &partition.remote else { return };
        match partition.follow_source(remote).await {
            Ok(()) => {}
            Err(error) if error.is_passing() => {
                tracing::info!(partition = %partition.name, %error, "mounted topic");
            }
            Err(error) => {
                self.tier_counts().map(TierCounts::failed);
                tracing::warn!(partition = %partition.name, %error, "it is not known what is new in the bucket of a mounted topic");
            }
        }
    }
}

impl Partition {
    /// The epoch and the log's end of a leader of a mounted partition.
    fn leads_mount(&self) -> Option<(LeaderEpoch, Offset)> {
        let state = self.lock();
        let log = state.log.as_ref().filter(|log| log.config().mount.is_some())?;
        let leads = state.replica.is_leader() && self.local.lease.is_held();
        leads.then(|| (state.replica.leader_epoch, log.log_end()))
    }

    /// Learns what there is, and lets the log begin where that ends.
    async fn follow_source(self: &Arc<Self>, remote: &RemotePartition) -> Result<(), RemoteError> {
        let Some((epoch, log_end)) = self.leads_mount() else { return Ok(()) };
        let manifest = remote.look().await?;
        let end = manifest.end().unwrap_or(manifest.log_start);
        // Whoever is told of the new end finds what lies before it; who asks first is told nothing before the log has begun.
        self.take_manifest(epoch, &manifest, true);
        if end > log_end {
            self.begin_at_end(remote, epoch, end).await?;
        } else if end < log_end {
            tracing::warn!(partition = %self.name, end, log_end, "the cluster that writes a mounted topic has taken records back: an unclean election, or it was restored");
        }
        self.take_manifest(epoch, &manifest, false);
        Ok(())
    }

    fn take_manifest(&self, epoch: LeaderEpoch, manifest: &Arc<Manifest>, only_if_known: bool) {
        let mut state = self.lock();
        let leads = state.replica.is_leader() && state.replica.leader_epoch == epoch;
        if leads && (state.remote.is_some() || !only_if_known) {
            state.remote = Some(Arc::clone(manifest));
        }
    }
}
