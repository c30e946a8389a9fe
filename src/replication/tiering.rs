//! Which segments go to object storage, and when local and remote copies may go (KIP-405).
//!
//! Invariants: a segment is copied once it is closed, committed and flushed; a local copy goes only after the manifest that names
//! the remote one was read; only the leader changes the manifest, in the epoch in which it claimed it; until it has, it does not
//! say where the log begins.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::error::PartitionError;
use super::partition::{Partition, PartitionHandle, State};
use super::reading::ReadRules;
use super::replicas::{Replicas, Topic};
use crate::config::TopicConfig;
use crate::log::{FoundRecord, LeaderEpochs, Log, SegmentSource};
use crate::model::number::to_i64;
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::remote_log::{Manifest, RemoteError, RemotePartition, Tier, TierCounts};
use crate::system::clock::{millis, monotonic, sleep, timeout_at};
use crate::system::tasks::{blocking, spawn};

/// How often it is looked for what deleted topics left.
const SWEEP_EVERY: Duration = Duration::from_mins(30);
/// A partition with more closed segments than this to copy, beside the one at hand, falls behind.
const BEHIND_SEGMENTS: usize = 2;
/// An object that no manifest names after this time never will be: its copy was broken off.
const ORPHAN_AGE_MS: i64 = 6 * 3_600_000;
const ORPHANS_EVERY_MS: i64 = 3_600_000;
const NOTE_AGAIN: Duration = Duration::from_secs(5);

/// How the work on object storage is paced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TierSettings {
    pub interval_ms: i64,
    pub copiers: usize,
}

/// See `Partition::tiered_extent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TieredExtent {
    pub is_known: bool,
    pub bytes: u64,
    /// The first offset that is not in object storage.
    pub end: Offset,
    pub uncopied_bytes: u64,
}

/// What a leader knows when it begins to look after its part of the bucket.
struct Leading {
    epoch: LeaderEpoch,
    epochs: LeaderEpochs,
    log_end: Offset,
    config: Arc<TopicConfig>,
}

impl State {
    /// Where the log begins, here or in object storage; an error while a leader does not know.
    pub(super) fn start(&self) -> Result<Offset, PartitionError> {
        let log = self.log()?;
        let local = log.log_start();
        if !log.config().is_tiered || local == 0 {
            return Ok(local);
        }
        match &self.remote {
            Some(manifest) if log.config().mount.is_some() => Ok(manifest.log_start.min(local)),
            Some(manifest) if manifest.end().is_some_and(|end| end >= local) => {
                Ok(manifest.log_start.min(local))
            }
            Some(_) => Ok(local),
            None => Err(PartitionError::Unsettled),
        }
    }
}

impl Replicas {
    /// Makes a bucket that of all partitions here; before they are opened.
    pub(crate) fn set_tier(&self, tier: Arc<Tier>) {
        tier.set_rates(self.settings.lock().tier_rates);
        let _ = self.local.tier.set(tier);
    }

    /// The bucket of all partitions here, if there is one.
    pub(crate) fn tier(&self) -> Option<Arc<Tier>> {
        self.local.tier.get().cloned()
    }

    /// What passed between this broker and its bucket; `None` if it has none.
    pub(crate) fn tier_counts(&self) -> Option<&TierCounts> {
        self.local.any_tier().map(|tier| &*tier.counts)
    }

    /// Looks after tiered partitions, over and over.
    pub(crate) fn start_tiering(self: &Arc<Self>, settings: TierSettings) {
        self.start_sweeping();
        self.start_compacting(settings.interval_ms);
        let replicas = Arc::clone(self);
        spawn(async move {
            loop {
                let wanted = replicas.local.tier_wanted.notified();
                let _ = timeout_at(monotonic() + millis(settings.interval_ms), wanted).await;
                let partitions = replicas.directories.iter().flat_map(|d| d.partitions());
                let mut tiered: Vec<_> =
                    partitions.filter(|p| p.is_tiered() || p.is_leaving()).collect();
                // Somebody waits for those that are brought back.
                tiered.sort_by_key(|partition| !partition.awaits_restore());
                futures_util::stream::iter(tiered)
                    .for_each_concurrent(settings.copiers, |partition| {
                        let replicas = Arc::clone(&replicas);
                        async move { replicas.look_after(&partition).await }
                    })
                    .await;
            }
        });
    }

    /// Removes what deleted topics left in the bucket, over and over.
    fn start_sweeping(self: &Arc<Self>) {
        let Some(tier) = self.local.tier.get().cloned() else { return };
        let replicas = Arc::clone(self);
        spawn(async move {
            loop {
                let mut again = SWEEP_EVERY;
                match tier.sweep_deleted(replicas.clock.now_ms()).await {
                    Ok(0) => {}
                    Ok(count) => {
                        tracing::info!(
                            count,
                            "objects of deleted topics removed from object storage"
                        );
                    }
                    Err(error) => {
                        tracing::warn!(%error, "objects of deleted topics not removed from object storage yet");
                        again = NOTE_AGAIN;
                    }
                }
                let told = replicas.local.topic_deleted.notified();
                let _ = timeout_at(monotonic() + again, told).await;
            }
        });
    }

    /// A tiered topic is deleted: what is in the bucket goes too.
    pub(super) fn forget_tiered(&self, topic: &Topic) {
        let Some(tier) = self.local.tier.get().cloned() else { return };
        if !topic.partitions().iter().any(|partition| partition.is_tiered()) {
            return;
        }
        let (name, id, local) = (Arc::clone(&topic.name), topic.id, Arc::clone(&self.local));
        spawn(async move {
            while let Err(error) = tier.note_deleted(&name, id).await {
                tracing::warn!(topic = %name, %error, "deletion not noted in object storage yet");
                sleep(NOTE_AGAIN).await;
            }
            local.topic_deleted.notify_one();
        });
    }

    /// Does for one partition what is due.
    async fn look_after(&self, partition: &PartitionHandle) {
        let Some(remote) = &partition.remote else { return };
        let now_ms = self.clock.now_ms();
        let done = match partition.begin_tiering(now_ms) {
            _ if partition.is_leaving() => self.leave_tier(partition, remote).await,
            Some(leading) => self.lead_tier(partition, remote, leading).await,
            None => follow_tier(partition, remote, now_ms).await,
        };
        match done {
            Ok(()) => {}
            Err(error) if error.is_passing() => {
                tracing::info!(partition = %partition.name, %error, "object storage");
            }
            Err(error) => {
                self.tier_counts().map(TierCounts::failed);
                if partition.awaits_restore() {
                    tracing::warn!(partition = %partition.name, %error, "not brought back from object storage yet");
                    return;
                }
                tracing::warn!(partition = %partition.name, %error, "object storage: nothing is deleted here meanwhile");
            }
        }
    }

    async fn lead_tier(
        &self,
        partition: &PartitionHandle,
        remote: &RemotePartition,
        leading: Leading,
    ) -> Result<(), RemoteError> {
        let Leading { epoch, epochs, log_end, config } = leading;
        let mut manifest = match remote.claimed(epoch) {
            Some(manifest) => manifest,
            None if config.is_restored && log_end == 0 => {
                remote.claim_to_restore(epoch, self.clock.now_ms()).await?
            }
            None => remote.claim(epoch, (&epochs, log_end), self.clock.now_ms()).await?,
        };
        partition.go_on(remote, epoch, &manifest).await?;
        partition.know(epoch);
        while let Some(source) = partition.to_copy(epoch, &manifest, self.clock.now_ms()) {
            let (from, end, behind) = (source.from, source.end, source.after > BEHIND_SEGMENTS);
            manifest = remote.copy(source, (epoch, self.random().uuid()), behind).await?;
            tracing::info!(partition = %partition.name, from, end, "segment copied to object storage");
            partition.know(epoch);
        }
        let rewrapped = remote.rewrap(epoch).await?;
        if rewrapped > 0 {
            tracing::info!(partition = %partition.name, rewrapped, "keys of segments wrapped anew");
            partition.know(epoch);
        }
        let now_ms = self.clock.now_ms();
        let start = partition.start_wanted(&config, &manifest, now_ms);
        if start > manifest.log_start {
            let advanced = remote.change(epoch, |manifest| {
                manifest.advance(start, now_ms);
                Ok(())
            });
            advanced.await?;
            partition.know(epoch);
        }
        remote.sweep(epoch, config.file_delete_delay_ms, now_ms).await?;
        if partition.is_sweep_due(now_ms) {
            let orphans = remote.sweep_orphans(epoch, ORPHAN_AGE_MS, now_ms).await?;
            if orphans > 0 {
                tracing::info!(partition = %partition.name, orphans, "objects that no manifest names removed");
            }
        }
        Ok(())
    }
}

/// A follower learns what is in object storage when it has something that could go here.
async fn follow_tier(
    partition: &PartitionHandle,
    remote: &RemotePartition,
    now_ms: Timestamp,
) -> Result<(), RemoteError> {
    let waiting = Arc::clone(partition);
    let waits = move || waiting.with_log(|log| log.waits_for_copy(now_ms)).unwrap_or(false);
    if !blocking(waits).await.unwrap_or(false) {
        return Ok(());
    }
    let manifest = remote.refresh().await?;
    let mut state = partition.state.lock();
    if !state.replica.is_leader()
        && let Some(log) = state.log.as_mut()
    {
        log.set_copied_to(safe_to(log, &manifest));
    }
    Ok(())
}

/// Up to where local retention may go: what is in the bucket, or, where nothing is copied any more and nothing is left there,
/// everything.
fn safe_to(log: &Log, manifest: &Manifest) -> Offset {
    match manifest.end() {
        Some(end) => end.min(log.log_end()),
        None if log.config().is_copied => 0,
        None => log.log_end(),
    }
}

impl Partition {
    fn is_tiered(&self) -> bool {
        self.remote.is_some()
            && self.with_log(|log| log.config().is_in_own_bucket()).unwrap_or(false)
    }

    /// What a leader needs; `None` where this replica does not lead. Rolls a segment that has its age.
    fn begin_tiering(self: &Arc<Self>, now_ms: Timestamp) -> Option<Leading> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.replica.is_leader() || !self.local.lease.is_held() {
            return None;
        }
        let epoch = state.replica.leader_epoch;
        let log = state.log.as_mut()?;
        if let Err(error) = log.roll_if_old(now_ms) {
            self.directory.fail(&error, &self.name);
            state.fail();
            return None;
        }
        let (epochs, log_end) = (log.epochs().clone(), log.log_end());
        let (config, waits) = (log.shared_config(), log.recovery_point() < log.active_base());
        if waits && config.is_copied {
            // With `write.caching` nobody else may want that for long.
            self.queue_flush(state);
        }
        Some(Leading { epoch, epochs, log_end, config })
    }

    /// Takes on what is in object storage, if this replica leads in that epoch still: what is known of it now, since several change it.
    pub(super) fn know(&self, epoch: LeaderEpoch) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.replica.is_leader() || state.replica.leader_epoch != epoch {
            return;
        }
        let known = self.remote.as_ref().and_then(|remote| remote.claimed(epoch));
        let Some(manifest) = known else { return };
        if let Some(log) = state.log.as_mut() {
            log.set_copied_to(safe_to(log, &manifest));
            // What DeleteRecords or retention took away of the whole log is taken away here too.
            log.trim(manifest.log_start.min(state.replica.high_watermark()));
        }
        state.remote = Some(manifest);
        state.has_left = false;
    }

    /// Whether it is time to look for orphans, spread over an hour from the first look on.
    fn is_sweep_due(&self, now_ms: Timestamp) -> bool {
        let mut state = self.state.lock();
        let next = state.next_sweep_ms.get_or_insert(now_ms + ORPHANS_EVERY_MS / 2);
        let is_due = now_ms >= *next;
        if is_due {
            *next = now_ms + ORPHANS_EVERY_MS;
        }
        is_due
    }

    fn to_copy(
        &self,
        epoch: LeaderEpoch,
        manifest: &Manifest,
        now_ms: Timestamp,
    ) -> Option<SegmentSource> {
        let state = self.state.lock();
        if !state.replica.is_leader() || state.replica.leader_epoch != epoch {
            return None;
        }
        let log = state.log.as_ref().filter(|log| log.config().is_copied)?;
        let (local, from) = (log.log_start(), manifest.end().unwrap_or(manifest.log_start));
        if !manifest.segments.is_empty() && from < local {
            // Deleting what stands before the gap would be a loss that nobody asked for.
            tracing::warn!(partition = %self.name, from, local, "nothing is copied to object storage: what is between is on this disk no more. DeleteRecords up to the local start gives up what is before");
            return None;
        }
        log.segment_to_copy((from.max(local), state.replica.high_watermark()), now_ms)
    }

    /// Where the whole log is to begin: what is in object storage and too old or too much goes.
    fn start_wanted(&self, config: &TopicConfig, manifest: &Manifest, now_ms: Timestamp) -> Offset {
        let mut start = manifest.log_start;
        let local_bytes = self.with_log(|log| log.bytes_from(manifest.end().unwrap_or(0)));
        if !config.is_deleted {
            return start;
        }
        let mut left = manifest.bytes() + local_bytes.unwrap_or(0);
        for segment in &manifest.segments {
            let age_ms = now_ms.saturating_sub(segment.max_timestamp);
            let too_old = config.retention_ms >= 0
                && segment.max_timestamp >= 0
                && age_ms > config.retention_ms;
            let after = left.saturating_sub(segment.log_bytes);
            let too_much = config.retention_bytes >= 0 && to_i64(after) >= config.retention_bytes;
            if !too_old && !too_much {
                break;
            }
            left = after;
            start = start.max(segment.end_offset);
        }
        start
    }

    /// How much of a leader's tiered log is in object storage; `None` where it is not tiered.
    pub(crate) fn tiered_extent(&self) -> Option<TieredExtent> {
        let state = self.state.lock();
        let log = state.log.as_ref().filter(|log| log.config().is_tiered)?;
        let manifest = state.remote.as_ref();
        let end = manifest.and_then(|manifest| manifest.end()).unwrap_or(log.log_start());
        Some(TieredExtent {
            is_known: manifest.is_some(),
            bytes: manifest.map_or(0, |manifest| manifest.bytes()),
            end,
            uncopied_bytes: log.bytes_from(end),
        })
    }

    /// Offsets of a leader: where its local log begins, and the last one in object storage, -1 if there is none.
    pub(crate) fn tiered_bounds(&self) -> Result<(Offset, Offset), PartitionError> {
        let state = self.state.lock();
        let local = self.readable(&state, ReadRules::leader(-1))?.log_start();
        let last =
            state.remote.as_ref().and_then(|manifest| manifest.end()).map_or(-1, |end| end - 1);
        Ok((local, last))
    }

    /// The first record at or after a time among those that are in object storage only; `None` if there is none, and
    /// without a time the one with the largest.
    pub(crate) async fn find_time_tiered(
        &self,
        timestamp: Option<Timestamp>,
    ) -> Result<Option<FoundRecord>, PartitionError> {
        let (manifest, local, plain_bytes_max) = {
            let state = self.state.lock();
            let log = self.readable(&state, ReadRules::leader(-1))?;
            let local = log.log_start();
            if state.start()? == local {
                return Ok(None);
            }
            let Some(manifest) = state.remote.clone() else { return Ok(None) };
            (manifest, local, log.config().plain_bytes_max)
        };
        let Some(remote) = &self.remote else { return Ok(None) };
        let newest = manifest.segments.iter().filter(|s| s.base_offset < local);
        let newest = newest.map(|segment| segment.max_timestamp).max();
        let Some(timestamp) = timestamp.or(newest) else { return Ok(None) };
        let found = remote.reader().find_time(&manifest, timestamp, local, plain_bytes_max).await;
        found.map_err(|error| PartitionError::Remote(error.to_string()))
    }

    /// Moves the log's start (DeleteRecords); -1 means the high watermark. Returns the new start, which is durable only
    /// after `trim_tiered` where the log is tiered.
    pub(crate) fn trim(&self, offset: Offset) -> Result<Offset, PartitionError> {
        let mut state = self.state.lock();
        if self.readable(&state, ReadRules::leader(-1))?.config().mount.is_some() {
            return Err(PartitionError::Mounted);
        }
        let high_watermark = state.replica.high_watermark();
        let to = if offset == -1 { high_watermark } else { offset };
        if to < 0 || to > high_watermark {
            return Err(PartitionError::OutOfRange { offset: to });
        }
        let start = state.start()?;
        let local = state.log_mut()?.trim(to);
        Ok(if to < local { start.max(to) } else { local })
    }

    /// Makes a new start that of what is in object storage too.
    pub(crate) async fn trim_tiered(
        &self,
        start: Offset,
        now_ms: Timestamp,
    ) -> Result<(), PartitionError> {
        let Some(remote) = self.remote.as_ref().filter(|_| self.is_tiered()) else {
            return Ok(());
        };
        let epoch = self.leading_epoch();
        if remote.claimed(epoch).is_none_or(|manifest| manifest.segments.is_empty()) {
            return if self.local_start() >= start {
                Ok(())
            } else {
                Err(PartitionError::Unsettled)
            };
        }
        let changed = remote.change(epoch, |manifest| {
            manifest.advance(start, now_ms);
            Ok(())
        });
        changed.await.map_err(|error| PartitionError::Remote(error.to_string()))?;
        self.know(epoch);
        Ok(())
    }
}
