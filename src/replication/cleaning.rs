//! Driving the cleaner: which log is next, how fast.
//!
//! Invariants: one pass at a time on this broker; the partition's lock is held to plan and to swap, not to work.

use std::sync::Arc;
use std::time::Duration;

use super::partition::Partition;
use super::replicas::Replicas;
use crate::model::number::{from_f64, to_f64, to_i64};
use crate::system::clock::{Instant, millis, monotonic, pause, sleep};
use crate::system::tasks::{blocking, spawn};

/// The shortest pause: shorter ones are saved up.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Holds a pass to `log.cleaner.io.max.bytes.per.second`.
#[derive(Debug)]
struct Pace {
    /// Bytes a second.
    rate: f64,
    begun: Instant,
    moved: u64,
}

impl Pace {
    fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        let due_ms = from_f64((to_f64(to_i64(self.moved)) / self.rate * 1000.0).min(1e12));
        let ahead = millis(due_ms).saturating_sub(self.begun.elapsed());
        if ahead >= PAUSE_MIN {
            pause(ahead);
        }
    }
}

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
                let mut pace = Pace { rate, begun: monotonic(), moved: 0 };
                let _ = blocking(move || worker.clean_once(&mut |bytes| pace.moved(bytes))).await;
                sleep(millis(backoff_ms)).await;
            }
        });
    }

    /// Cleans every log that is due, once; `pace` is told of bytes moved.
    pub(crate) fn clean_once(&self, pace: &mut dyn FnMut(u64)) {
        let now_ms = self.clock.now_ms();
        let partitions: Vec<_> = self.directories.iter().flat_map(|d| d.partitions()).collect();
        for partition in &partitions {
            self.clean(partition, now_ms, pace);
        }
    }

    fn clean(&self, partition: &Partition, now_ms: i64, pace: &mut dyn FnMut(u64)) {
        let map_bytes_max = self.settings.lock().cleaner_buffer_bytes;
        let plan = {
            let mut state = partition.state.lock();
            let bound = state.replica.high_watermark();
            let Some(log) = state.log.as_mut().filter(|log| log.config().is_compacted) else {
                return;
            };
            if let Err(error) = log.roll_if_old(now_ms) {
                partition.directory.fail(&error, &partition.name);
                return;
            }
            log.clean_plan(now_ms, bound, map_bytes_max)
        };
        let Some(plan) = plan else { return };
        let cleaned = match plan.run(pace) {
            Ok(cleaned) => cleaned,
            Err(error) => {
                tracing::error!(partition = %partition.name, %error, "compaction failed; the log stays as it is");
                return;
            }
        };
        let (read, written) = (cleaned.bytes_read, cleaned.bytes_written);
        let mut state = partition.state.lock();
        let Some(log) = state.log.as_mut() else { return };
        if let Err(error) = log.swap_cleaned(cleaned) {
            partition.directory.fail(&error, &partition.name);
            return;
        }
        tracing::info!(partition = %partition.name, read, written, "log compacted");
    }
}
