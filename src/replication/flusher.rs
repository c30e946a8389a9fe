//! Group commit: one flusher a log directory makes every queued log durable at once.
//!
//! Invariants: what was appended before a flush began is durable when it ends; a failed flush is never retried: the
//! directory goes offline and whoever waits is told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::log_directory::LogDirectory;
use super::partition::{Partition, State};
use crate::log::FlushJob;
use crate::model::Timestamp;
use crate::system::clock::{monotonic, pause, sleep};
use crate::system::disk::is_out_of_descriptors;
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::dedicated;

/// Where a directory holds much that is not durable, logs with this much of it are flushed at their next append.
const UNFLUSHED_WORTH_BYTES: u64 = 1 << 20;

/// More files than this are flushed by one flush of the file system, which writes its journal once.
const FILES_ONE_BY_ONE_MAX: usize = 6;

/// After which it is looked again whether there is a descriptor.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

impl LogDirectory {
    /// Starts the flusher.
    pub(super) fn start_flusher(self: &Arc<Self>) -> io::Result<()> {
        let directory = Arc::clone(self);
        dedicated("flusher", async move {
            while !directory.stopping.load(Ordering::Acquire) {
                directory.queued.notified().await;
                let pause = directory.disk().sync_pause();
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                directory.flush_queued();
            }
        })
    }

    /// Flushes what is queued until nothing is.
    pub(super) fn flush_queued(&self) {
        loop {
            let partitions = std::mem::take(&mut *self.queue.lock());
            if self.is_offline() {
                self.take_partitions_offline();
                return;
            }
            if partitions.is_empty() {
                return;
            }
            self.flush(&partitions);
        }
    }

    fn flush(&self, partitions: &[Arc<Partition>]) {
        let _flushing = self.flushing.lock();
        let jobs = self.begin_flush(partitions);
        let begun = monotonic();
        let carried_out = self.carry_out_patiently(&jobs);
        self.note_flush(begun.elapsed());
        if let Err(error) = carried_out
            && !is_planted(Bug::IgnoreFlushError)
        {
            if let Some((partition, _)) = jobs.first() {
                self.fail(&error, &partition.name);
            }
            return;
        }
        // What is durable in a folder that nobody can find again is not acknowledged.
        if self.look_again().is_err() && self.is_offline() {
            return;
        }
        for (partition, job) in &jobs {
            partition.flushed(job);
        }
        self.points_changed.store(true, Ordering::Release);
    }

    /// What there is to flush of these partitions.
    pub(super) fn begin_flush(
        &self,
        partitions: &[Arc<Partition>],
    ) -> Vec<(Arc<Partition>, FlushJob)> {
        let mut jobs = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let mut state = partition.lock();
            state.flush_queued = false;
            state.unflushed_since_ms = None;
            let Some(log) = state.log.as_mut() else { continue };
            let unflushed = log.unflushed_bytes();
            if let Some(job) = log.flush_job() {
                self.take_unflushed(unflushed);
                jobs.push((Arc::clone(partition), job));
            }
        }
        jobs
    }

    /// A folder that can't be opened for want of descriptors has not been flushed: unlike a flush that failed that can be tried again.
    fn carry_out_patiently(&self, jobs: &[(Arc<Partition>, FlushJob)]) -> io::Result<()> {
        loop {
            match self.carry_out(jobs) {
                Err(error)
                    if is_out_of_descriptors(&error) && !self.stopping.load(Ordering::Acquire) =>
                {
                    self.note_shortage(&error);
                    pause(SHORTAGE_PAUSE);
                }
                done => return done,
            }
        }
    }

    pub(super) fn carry_out(&self, jobs: &[(Arc<Partition>, FlushJob)]) -> io::Result<()> {
        let files = |(_, job): &(_, FlushJob)| job.files.len() + usize::from(job.dir.is_some());
        if jobs.iter().map(files).sum::<usize>() > FILES_ONE_BY_ONE_MAX {
            return self.disk().sync_all(&self.path);
        }
        for (partition, job) in jobs {
            for file in &job.files {
                file.sync()?;
            }
            let Some(dir) = &job.dir else { continue };
            match self.disk().sync_dir(dir) {
                // The topic was deleted meanwhile, and its folder has another name.
                Err(error) if error.kind() == io::ErrorKind::NotFound && partition.is_deleted() => {
                }
                synced => synced?,
            }
        }
        Ok(())
    }

    fn take_partitions_offline(&self) {
        for partition in self.partitions() {
            drop(partition.take_offline());
        }
    }
}

impl Partition {
    /// Notes what a flush made durable.
    pub(super) fn flushed(&self, job: &FlushJob) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(log) = state.log.as_mut() else { return };
        if !log.flushed(job) {
            return;
        }
        let end = job.end.offset;
        state.flushed_records_to = end;
        state.mark(job.end);
        let effects = state.replica.flushed(end);
        state.waiting.flushed(end);
        self.perform(state, effects);
    }

    /// Closes the segment that is written if it has its age; returns whether it did.
    pub(super) fn roll_if_old(self: &Arc<Self>, now_ms: Timestamp) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(log) = state.log.as_mut() else { return false };
        match log.roll_if_old(now_ms) {
            Ok(is_closed) => {
                self.queue_flush_if_due(state, now_ms);
                is_closed
            }
            Err(error) => {
                self.stay_or_fail(state, &error);
                false
            }
        }
    }

    /// Queues the log for flushing, whatever its settings say.
    pub(super) fn queue_flush(self: &Arc<Self>, state: &mut State) {
        if !state.flush_queued {
            state.flush_queued = true;
            self.directory.queue(self);
        }
    }

    pub(super) fn queue_flush_if_due(self: &Arc<Self>, state: &mut State, now_ms: Timestamp) {
        if state.flush_queued {
            return;
        }
        let Some(log) = &state.log else { return };
        let config = log.config();
        // Retention, compaction and copies wait for closed segments to be durable: with `write.caching` too.
        if log.recovery_point() < log.active_base() {
            return self.queue_flush(state);
        }
        if log.recovery_point() == log.log_end() {
            return;
        }
        let since = *state.unflushed_since_ms.get_or_insert(now_ms);
        let due = !config.write_caching
            || log.log_end() - state.flushed_records_to >= config.flush_messages
            || now_ms.saturating_sub(since) >= config.flush_ms
            || (self.directory.has_much_unflushed()
                && log.unflushed_bytes() >= UNFLUSHED_WORTH_BYTES);
        if due {
            self.queue_flush(state);
        }
    }
}
