//! What is done to logs from time to time: checkpoints, retention, timed flushes, room on the disk.
//!
//! Invariants: nothing here runs on a thread that serves requests; a failure takes its log directory offline.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::partition::{Partition, PartitionHandle, State};
use super::removing::PAUSE_FACTOR;
use super::replicas::{ReplicaSettings, Replicas};
use crate::model::Offset;
use crate::system::SharedFile;
use crate::system::clock::{millis, monotonic, sleep};
use crate::system::disk::{is_named, is_shortage, not_named};
use crate::system::tasks::{Kind, blocking, keep, keep_job};

const CHECKPOINT_MS: i64 = 2_000;
const TICK_MS: i64 = 500;

impl Replicas {
    /// Starts the loops.
    pub(crate) fn start_maintenance(self: &Arc<Self>) {
        let each = |kind: Kind, name, period_ms: i64, work: fn(&Replicas)| {
            let replicas = Arc::clone(self);
            keep(kind, name, async move {
                loop {
                    sleep(millis(period_ms)).await;
                    let replicas = Arc::clone(&replicas);
                    blocking(move || work(&replicas)).await;
                }
            });
        };
        each(Kind::Job, "checkpoints", CHECKPOINT_MS, Self::write_checkpoints);
        each(Kind::Service, "partition timers", TICK_MS, Self::tick);
        each(Kind::Service, "log directories", TICK_MS, Self::look);
        let (retention_ms, cleaner) = {
            let settings = self.settings.lock();
            (settings.retention_check_ms, settings.cleaner_enabled)
        };
        keep_job("retention", Arc::clone(self).retain(retention_ms));
        self.start_removing();
        if cleaner {
            self.start_cleaner();
        }
    }

    /// Writes recovery points that moved.
    pub(crate) fn write_checkpoints(&self) {
        for directory in &self.directories {
            if let Err(error) = directory.write_points_if_changed() {
                directory.note_unwritten(&error);
            }
        }
    }

    /// Takes on changed settings, those of them that can change while the broker runs.
    pub(crate) fn set_settings(&self, settings: ReplicaSettings) {
        self.throttles.set_rates(settings.throttled_rates);
        if let Some(tier) = self.local.any_tier() {
            tier.set_rates(settings.tier_rates);
        }
        *self.settings.lock() = settings;
        self.check_room();
    }

    /// Deletes what retention no longer wants, over and over.
    async fn retain(self: Arc<Self>, period_ms: i64) {
        loop {
            sleep(millis(period_ms)).await;
            for partition in self.directories.iter().flat_map(|d| d.partitions()) {
                let (replicas, begun) = (Arc::clone(&self), monotonic());
                let work = move || replicas.apply_retention(&partition);
                let deleted = blocking(work).await.unwrap_or(0);
                if deleted > 0 {
                    sleep(begun.elapsed() * PAUSE_FACTOR).await;
                }
            }
        }
    }

    /// Returns how many segments it deleted.
    pub(super) fn apply_retention(&self, partition: &PartitionHandle) -> usize {
        let now_ms = self.clock.now_ms();
        let expiration_ms = self.settings.lock().producer_expiration_ms;
        let mut count = 0;
        loop {
            let (mut state, written) = partition.directory.lock_with_point(partition);
            let bound = state.replica.high_watermark().min(written);
            let Some(log) = state.log.as_mut() else { return count };
            log.expire_producers(now_ms, expiration_ms);
            let delay_ms = log.config().file_delete_delay_ms;
            let deleted = log.apply_retention(now_ms, bound);
            // It closes the segment that is written where all of that is too old.
            partition.queue_flush_if_due(&mut state, now_ms);
            drop(state);
            match deleted {
                Ok(segments) if segments.is_empty() => {
                    partition.flush_snapshot();
                    return count;
                }
                Ok(segments) => {
                    count += segments.len();
                    let directory = &partition.directory;
                    directory.points_changed.store(true, Ordering::Release);
                    let files = segments.into_iter().flat_map(|segment| segment.files);
                    self.remove_later(directory, files, delay_ms);
                }
                Err(error) => {
                    tracing::error!(partition = %partition.name, %error, "retention failed");
                    return count;
                }
            }
        }
    }

    fn tick(&self) {
        self.check_room();
        let now_ms = self.clock.now_ms();
        let lag_max_ms = self.settings.lock().lag_max_ms;
        for partition in self.directories.iter().flat_map(|d| d.partitions()) {
            // One whose disk keeps it busy has its turn the next time.
            let Some(mut state) = partition.try_lock() else { continue };
            partition.tick_isr(&mut state, lag_max_ms);
            let Some(since) = state.unflushed_since_ms.filter(|_| !state.flush_queued) else {
                continue;
            };
            let due = state.log.as_ref().is_some_and(|log| now_ms - since >= log.config().flush_ms);
            if due {
                partition.queue_flush(&mut state);
            }
        }
    }

    /// Looks whether what was appended since went into files that can be found again.
    pub(super) fn look(&self) {
        for directory in self.directories.iter().filter(|directory| !directory.is_offline()) {
            if directory.look().is_err() {
                continue;
            }
            for partition in directory.partitions() {
                if let Err(error) = partition.look() {
                    directory.fail(&error, &partition.name);
                    break;
                }
            }
        }
    }

    fn check_room(&self) {
        let free_bytes_min = self.settings.lock().free_bytes_min;
        for directory in &self.directories {
            if let Some(space) = directory.space() {
                directory.set_full(space.usable < free_bytes_min);
                directory.note_room(space.usable);
            }
        }
    }
}

impl Partition {
    /// What could not be written for want of resources is tried again some time; any other error is the disk's.
    pub(super) fn stay_or_fail(&self, state: &mut State, error: &io::Error) {
        if is_shortage(error) {
            return self.directory.note_shortage(error);
        }
        self.directory.fail(error, &self.name);
        state.fail();
    }

    /// An error if the log has grown, and its newest file is not where it is looked for.
    fn look(&self) -> io::Result<()> {
        let active = |seen: Option<Offset>| {
            let state = self.try_lock()?;
            let log = state.log.as_ref().filter(|log| Some(log.log_end()) != seen)?;
            Some((log.log_end(), log.active_file()))
        };
        let seen = Some(self.looked_to.load(Ordering::Relaxed));
        let Some((end, (path, file))) = active(seen) else { return Ok(()) };
        let is_there = match is_named(&**self.directory.disk(), &path, &*file) {
            Err(error) if is_shortage(&error) => return Ok(()),
            named => named?,
        };
        if is_there {
            self.looked_to.store(end, Ordering::Relaxed);
            return Ok(());
        }
        // It may have been closed, moved or deleted meanwhile.
        let same = |now: &(PathBuf, SharedFile)| now.0 == path && Arc::ptr_eq(&now.1, &file);
        if active(None).is_some_and(|(_, now)| same(&now)) { Err(not_named(&path)) } else { Ok(()) }
    }

    /// Retention waits until what producers sent is durable without the segments that it deletes.
    fn flush_snapshot(self: &Arc<Self>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(log) = state.log.as_mut() else { return };
        match log.snapshot_for_retention() {
            Ok(false) => {}
            Ok(true) => self.queue_flush(state),
            Err(error) => self.stay_or_fail(state, &error),
        }
    }
}
