//! Driving the cleaner: which log is next, how fast.
//!
//! Invariants: one pass at a time on this broker; the partition's lock is held to plan and to swap, not to work.

use std::sync::Arc;

use super::partition::Partition;
use super::replicas::Replicas;
use crate::model::number::{from_f64, to_f64, to_i64};
use crate::system::clock::{millis, sleep};
use crate::system::tasks::{blocking, spawn};

impl Replicas {
    /// Starts the cleaner's loop.
    pub(super) fn start_cleaner(self: &Arc<Self>) {
        let replicas = Arc::clone(self);
        spawn(async move {
            loop {
                let (backoff_ms, rate) = {
                    let settings = replicas.settings.lock();
                    (settings.cleaner_backoff_ms, settings.cleaner_bytes_per_second)
                };
                let worker = Arc::clone(&replicas);
                let bytes = blocking(move || worker.clean_once()).await.unwrap_or(0);
                // A pass that moved many bytes is paid for by a pause, so that the mean stays below the limit.
                let throttle_ms = from_f64(to_f64(to_i64(bytes)) / rate * 1000.0);
                sleep(millis(backoff_ms.max(throttle_ms))).await;
            }
        });
    }

    /// Cleans every log that is due, once; returns the bytes moved.
    pub(crate) fn clean_once(&self) -> u64 {
        let now_ms = self.clock.now_ms();
        let partitions: Vec<_> = self.directories.iter().flat_map(|d| d.partitions()).collect();
        partitions.iter().map(|partition| self.clean(partition, now_ms)).sum()
    }

    fn clean(&self, partition: &Partition, now_ms: i64) -> u64 {
        let map_bytes_max = self.settings.lock().cleaner_buffer_bytes;
        let plan = {
            let mut state = partition.state.lock();
            let bound = state.replica.high_watermark();
            let Some(log) = state.log.as_mut().filter(|log| log.config().is_compacted) else {
                return 0;
            };
            if let Err(error) = log.roll_if_old(now_ms) {
                partition.directory.fail(&error, &partition.name);
                return 0;
            }
            log.clean_plan(now_ms, bound, map_bytes_max)
        };
        let Some(plan) = plan else { return 0 };
        let cleaned = match plan.run() {
            Ok(cleaned) => cleaned,
            Err(error) => {
                tracing::error!(partition = %partition.name, %error, "compaction failed; the log stays as it is");
                return 0;
            }
        };
        let (read, written) = (cleaned.bytes_read, cleaned.bytes_written);
        let mut state = partition.state.lock();
        let Some(log) = state.log.as_mut() else { return 0 };
        if let Err(error) = log.swap_cleaned(cleaned) {
            partition.directory.fail(&error, &partition.name);
            return 0;
        }
        tracing::info!(partition = %partition.name, read, written, "log compacted");
        read + written
    }
}
