//! Which segments go to object storage, and when local and remote copies may go (KIP-405).
//!
//! Invariants: a segment is copied once it is closed, committed and flushed; a local copy goes only after the manifest that names
//! the remote one was read; only the leader changes the manifest, in the epoch in which it claimed it; until it has, it does not
//! say where the log begins.

use std::sync::Arc;
use std::time::Duration;

use super::error::PartitionError;
use super::partition::{Partition, PartitionHandle, State};
use super::reading::ReadRules;
use super::replicas::{Replicas, Topic};
use crate::config::TopicConfig;
use crate::log::{LeaderEpochs, Log, SegmentSource};
use crate::model::number::to_i64;
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::remote_log::{Manifest, RemoteError, RemotePartition, Tier, TierCounts};
use crate::system::clock::{Instant, monotonic, sleep, timeout_at};
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::{blocking, keep_job, run_errand};

/// How often it is looked for what deleted topics left.
const SWEEP_EVERY: Duration = Duration::from_mins(30);
/// A partition with more closed segments than this to copy, beside the one at hand, falls behind.
const BEHIND_SEGMENTS: usize = 2;
/// An object that no manifest names after this time never will be: its copy was broken off.
const ORPHAN_AGE_MS: i64 = 6 * 3_600_000;
const ORPHANS_EVERY_MS: i64 = 3_600_000;
const NOTE_AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether the bucket is known by now.
const CLAIM_AGAIN: Duration = Duration::from_millis(10);

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

    /// Removes what deleted topics left in the bucket, over and over.
    pub(super) fn start_sweeping(self: &Arc<Self>) {
        let Some(tier) = self.local.tier.get().cloned() else { return };
        let replicas = Arc::clone(self);
        keep_job("sweeping of deleted topics", async move {
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
        run_errand("noting a deletion", async move {
            while let Err(error) = tier.note_deleted(&name, id).await {
                tracing::warn!(topic = %name, %error, "deletion not noted in object storage yet");
                sleep(NOTE_AGAIN).await;
            }
            local.topic_deleted.notify_one();
        });
    }

    /// Does for one partition what is due.
    pub(super) async fn look_after(&self, partition: &PartitionHandle) {
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
        let copied = self.copy_all(partition, remote, (epoch, &config, &mut manifest)).await;
        if copied.as_ref().is_err_and(|error| !error.is_local()) {
            return copied;
        }
        // What can't be copied keeps nothing in the bucket that is to go.
        let looked_after = self.clean_up(partition, remote, (epoch, &config, &manifest)).await;
        copied.and(looked_after)
    }

    /// Copies what is due, segment by segment; what goes for it does not wait for the rest, which may be much.
    async fn copy_all(
        &self,
        partition: &PartitionHandle,
        remote: &RemotePartition,
        (epoch, config, manifest): (LeaderEpoch, &TopicConfig, &mut Arc<Manifest>),
    ) -> Result<(), RemoteError> {
        while let Some(source) = partition.to_copy(epoch, manifest, self.clock.now_ms()) {
            let (from, end, behind) = (source.from, source.end, source.after > BEHIND_SEGMENTS);
            let copied = remote.copy(source.clone(), (epoch, self.random().uuid()), behind).await;
            *manifest = match copied {
                Ok(manifest) => manifest,
                Err(error) if error.is_local() && !partition.still_has(&source) => {
                    // Files that are gone since the replica is, or retention came first, are nothing to worry about.
                    tracing::debug!(partition = %partition.name, %error, "segments changed while they were copied");
                    return Err(RemoteError::Changed(partition.name.to_string()));
                }
                Err(error) => return Err(error),
            };
            tracing::info!(partition = %partition.name, from, end, "segment copied to object storage");
            partition.know(epoch);
            if let Some(shorter) = self.expire(partition, remote, (epoch, config, manifest)).await?
            {
                *manifest = shorter;
            }
        }
        Ok(())
    }

    /// Takes what is too old or too much out of the manifest, which is `None` if it stays as it is.
    async fn expire(
        &self,
        partition: &PartitionHandle,
        remote: &RemotePartition,
        (epoch, config, manifest): (LeaderEpoch, &TopicConfig, &Manifest),
    ) -> Result<Option<Arc<Manifest>>, RemoteError> {
        let now_ms = self.clock.now_ms();
        let after = partition.bytes_after(manifest).await;
        let start = start_wanted(config, (manifest, after), now_ms);
        if start <= manifest.log_start {
            return Ok(None);
        }
        let advanced = remote.change(epoch, |manifest| {
            manifest.advance(start, now_ms);
            Ok(())
        });
        let manifest = advanced.await?;
        partition.know(epoch);
        Ok(Some(manifest))
    }

    /// Takes out of the bucket what is to go, and puts the rest in order.
    async fn clean_up(
        &self,
        partition: &PartitionHandle,
        remote: &RemotePartition,
        (epoch, config, manifest): (LeaderEpoch, &TopicConfig, &Manifest),
    ) -> Result<(), RemoteError> {
        let rewrapped = remote.rewrap(epoch).await?;
        if rewrapped > 0 {
            tracing::info!(partition = %partition.name, rewrapped, "keys of segments wrapped anew");
            partition.know(epoch);
        }
        self.expire(partition, remote, (epoch, config, manifest)).await?;
        let now_ms = self.clock.now_ms();
        remote.sweep(epoch, config.file_delete_delay_ms, now_ms).await?;
        if partition.is_sweep_due(now_ms) {
            let orphans = remote.sweep_orphans(epoch, ORPHAN_AGE_MS, now_ms).await?;
            if orphans > 0 {
                tracing::info!(partition = %partition.name, orphans, "objects that no manifest names removed");
            }
        }
        if remote.measure(epoch).await? > 0 {
            partition.know(epoch);
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
    let mut state = partition.lock();
    // Only what the leader of today has claimed: what one before it copied may be what this log was cut by since.
    if !state.replica.is_leader()
        && state.replica.leader_epoch == manifest.leader_epoch
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

/// Where the whole log is to begin: what is in object storage and too old or too much goes. `after`: bytes of the log that are not in
/// the manifest.
fn start_wanted(
    config: &TopicConfig,
    (manifest, after): (&Manifest, u64),
    now_ms: Timestamp,
) -> Offset {
    let mut start = manifest.log_start;
    if !config.is_deleted {
        return start;
    }
    let mut left = manifest.bytes().saturating_add(after);
    for (at, segment) in manifest.segments.iter().enumerate() {
        // One without any time (all of it was emptied by an earlier release) is as old as what comes after it.
        let mut times = manifest.segments.iter().skip(at).map(|later| later.max_timestamp);
        let newest = times.find(|timestamp| *timestamp >= 0);
        let too_old = config.retention_ms >= 0
            && newest.is_some_and(|newest| now_ms.saturating_sub(newest) > config.retention_ms);
        let after = left.saturating_sub(segment.counted_bytes());
        let too_much = config.retention_bytes >= 0 && to_i64(after) >= config.retention_bytes;
        if !too_old && !too_much {
            break;
        }
        left = after;
        start = start.max(segment.end_offset);
    }
    start
}

impl Partition {
    pub(super) fn is_tiered(&self) -> bool {
        self.remote.is_some()
            && self.with_log(|log| log.config().is_in_own_bucket()).unwrap_or(false)
    }

    /// What a leader needs; `None` where this replica does not lead. Rolls a segment that has its age.
    fn begin_tiering(self: &Arc<Self>, now_ms: Timestamp) -> Option<Leading> {
        if !self.is_leader() {
            return None;
        }
        self.roll_if_old(now_ms);
        let state = self.lock();
        if !state.replica.is_leader() || !self.local.lease.is_held() {
            return None;
        }
        let epoch = state.replica.leader_epoch;
        let log = state.log.as_ref()?;
        let (epochs, log_end) = (log.epochs().clone(), log.log_end());
        let config = log.shared_config();
        Some(Leading { epoch, epochs, log_end, config })
    }

    /// Takes on what is in object storage, if this replica leads in that epoch still: what is known of it now, since several change it.
    pub(super) fn know(&self, epoch: LeaderEpoch) {
        let mut state = self.lock();
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
        let mut state = self.lock();
        let next = state.next_sweep_ms.get_or_insert(now_ms + ORPHANS_EVERY_MS / 2);
        let is_due = now_ms >= *next;
        if is_due {
            *next = now_ms + ORPHANS_EVERY_MS;
        }
        is_due
    }

    fn still_has(&self, source: &SegmentSource) -> bool {
        self.with_log(|log| log.still_has(source)).unwrap_or(false)
    }

    fn to_copy(
        &self,
        epoch: LeaderEpoch,
        manifest: &Manifest,
        now_ms: Timestamp,
    ) -> Option<SegmentSource> {
        let state = self.lock();
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

    /// Committed bytes of this log that no segment of the manifest has: what is not committed may be gone a moment later.
    async fn bytes_after(self: &Arc<Self>, manifest: &Manifest) -> u64 {
        let end = manifest.end().unwrap_or(manifest.log_start);
        let (all, uncommitted) = {
            let state = self.lock();
            let Some(log) = state.log.as_ref() else { return 0 };
            // What is counted twice must not be taken off twice as well, or the bug cancels itself.
            let is_whole = is_planted(Bug::CountCopiedTwice);
            let high_watermark = state.replica.high_watermark();
            let committed = if is_whole { log.log_end() } else { high_watermark }.max(end);
            (log.bytes_from(end), log.bytes_from(committed))
        };
        blocking(move || all.run().saturating_sub(uncommitted.run())).await.unwrap_or(0)
    }

    /// How much of a leader's tiered log is in object storage; `None` where it is not tiered. May wait for the disk.
    pub(crate) fn tiered_extent(&self) -> Option<TieredExtent> {
        let (extent, uncopied) = {
            let state = self.lock();
            let log = state.log.as_ref().filter(|log| log.config().is_tiered)?;
            let manifest = state.remote.as_ref();
            let end = manifest.and_then(|manifest| manifest.end()).unwrap_or(log.log_start());
            let bytes = manifest.map_or(0, |manifest| manifest.bytes());
            let is_known = manifest.is_some();
            (TieredExtent { is_known, bytes, end, uncopied_bytes: 0 }, log.bytes_from(end))
        };
        Some(TieredExtent { uncopied_bytes: uncopied.run(), ..extent })
    }

    /// The first offset that is not in object storage; `None` where the log is not tiered.
    pub(crate) fn tiered_end(&self) -> Option<Offset> {
        let state = self.lock();
        let log = state.log.as_ref().filter(|log| log.config().is_tiered)?;
        let copied = state.remote.as_ref().and_then(|manifest| manifest.end());
        Some(copied.unwrap_or(log.log_start()))
    }

    /// Offsets of a leader: where its local log begins, and the last one in object storage, -1 if there is none.
    pub(crate) fn tiered_bounds(&self) -> Result<(Offset, Offset), PartitionError> {
        let state = self.lock();
        let local = self.readable(&state, ReadRules::leader(-1))?.log_start();
        let last =
            state.remote.as_ref().and_then(|manifest| manifest.end()).map_or(-1, |end| end - 1);
        Ok((local, last))
    }

    /// Moves the log's start (DeleteRecords); -1 means the high watermark. Returns the new start, which is durable only
    /// after `trim_tiered` where the log is tiered.
    pub(crate) fn trim(&self, offset: Offset) -> Result<Offset, PartitionError> {
        let mut state = self.lock();
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

    /// Makes a new start that of what is in object storage too, also where nothing is there yet: the first segment may be on its way. Waits for
    /// what an earlier leader left there.
    pub(crate) async fn trim_tiered(
        &self,
        start: Offset,
        now_ms: Timestamp,
        deadline: Instant,
    ) -> Result<(), PartitionError> {
        let Some(remote) = self.remote.as_ref().filter(|_| self.is_tiered()) else {
            return Ok(());
        };
        let epoch = self.leading_epoch();
        while remote.claimed(epoch).is_none() {
            // What a first leader copies when it knows the bucket begins no earlier than its log does now.
            if epoch == 0 && self.local_start() >= start {
                return Ok(());
            }
            if self.leading_epoch() != epoch || epoch < 0 || monotonic() >= deadline {
                return Err(PartitionError::Unsettled);
            }
            sleep(CLAIM_AGAIN).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::remote_log::sample_manifest;

    #[test]
    fn retention_by_size_deletes_a_segment_only_if_enough_is_left_without_it() {
        let mut config =
            TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new());
        config.retention_ms = -1;
        // Two segments of ten bytes, up to the offsets 10 and 20.
        let mut manifest = sample_manifest();
        let mut start = |retention_bytes: i64, counted: Option<u64>, after: u64| {
            config.retention_bytes = retention_bytes;
            manifest.segments[1].counted_bytes = counted;
            start_wanted(&config, (&manifest, after), 1_000)
        };
        assert_eq!([start(-1, None, 900), start(11, None, 0), start(10, None, 0)], [0, 0, 10]);
        assert_eq!([start(0, None, 0), start(7, None, 7), start(8, None, 7)], [20, 20, 10]);
        // Of the second one only some counts.
        assert_eq!([start(10, Some(4), 5), start(10, Some(4), 6)], [0, 10]);
        assert_eq!([start(10, Some(0), 9), start(10, Some(0), 10)], [0, 20]);
    }

    #[test]
    fn a_segment_in_the_bucket_without_any_time_is_as_old_as_what_comes_after_it() {
        let mut config =
            TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new());
        (config.retention_ms, config.retention_bytes) = (1_000, -1);
        let mut manifest = sample_manifest();
        let mut start = |times: [i64; 2], now_ms: i64| {
            for (segment, time) in manifest.segments.iter_mut().zip(times) {
                segment.max_timestamp = time;
            }
            start_wanted(&config, (&manifest, 0), now_ms)
        };
        assert_eq!([start([-1, 500], 1_500), start([-1, 500], 1_501)], [0, 20]);
        assert_eq!([start([500, -1], 1_501), start([-1, -1], 9_000)], [10, 0]);
    }
}
