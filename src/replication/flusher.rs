//! Group commit: one flusher a log directory makes every queued log durable at once.
//!
//! Invariants: what was appended before a flush began is durable when it ends; a failed flush is never retried: the
//! directory goes offline and whoever waits is told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log_directory::LogDirectory;
use super::partition::Partition;
use crate::log::FlushJob;
use crate::system::tasks::dedicated;

/// More files than this are flushed by one flush of the file system, which writes its journal once.
const FILES_ONE_BY_ONE_MAX: usize = 6;

impl LogDirectory {
    /// Starts the flusher.
    pub(super) fn start_flusher(self: &Arc<Self>) -> io::Result<()> {
        let directory = Arc::clone(self);
        dedicated("flusher", async move {
            while !directory.stopping.load(Ordering::Acquire) {
                directory.queued.notified().await;
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
        let mut jobs = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let mut state = partition.state.lock();
            state.flush_queued = false;
            state.unflushed_since_ms = None;
            let Some(log) = state.log.as_mut() else { continue };
            let unflushed = log.unflushed_bytes();
            if let Some(job) = log.flush_job() {
                self.take_unflushed(unflushed);
                jobs.push((partition, job));
            }
        }
        if let Err(error) = self.carry_out(jobs.iter().map(|(_, job)| job)) {
            if let Some((partition, _)) = jobs.first() {
                self.fail(&error, &partition.name);
            }
            return;
        }
        for (partition, job) in &jobs {
            partition.flushed(job.end);
        }
        self.points_changed.store(true, Ordering::Release);
    }

    fn carry_out<'a>(&self, jobs: impl Iterator<Item = &'a FlushJob> + Clone) -> io::Result<()> {
        let files: usize =
            jobs.clone().map(|job| job.files.len() + usize::from(job.dir.is_some())).sum();
        if files > FILES_ONE_BY_ONE_MAX {
            return self.disk().sync_all(&self.path);
        }
        for job in jobs {
            for file in &job.files {
                file.sync()?;
            }
            if let Some(dir) = &job.dir {
                self.disk().sync_dir(dir)?;
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
