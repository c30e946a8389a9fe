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
use crate::system::clock::sleep;
use crate::system::planted::{Bug, is_planted};
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
        if let Err(error) = self.carry_out(&jobs)
            && !is_planted(Bug::IgnoreFlushError)
        {
            if let Some((partition, _)) = jobs.first() {
                self.fail(&error, &partition.name);
            }
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
            let mut state = partition.state.lock();
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
