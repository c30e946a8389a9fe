//! Driving the cleaner: which log is next, how fast.
//!
//! Invariants: one pass at a time on this broker; the partition's lock is held to plan and to swap, not to work.

use std::sync::Arc;

use super::partition::Partition;
use super::replicas::Replicas;
use crate::model::Offset;
use crate::model::number::{from_f64, to_usize};
use crate::system::Throttle;
use crate::system::clock::{millis, sleep, uptime_ms};
use crate::system::planted::{Bug, is_planted};
use crate::system::tasks::{blocking, is_interrupted, keep_job, nap};

/// The shortest pause: shorter ones are saved up.
const PAUSE_MS_MIN: i64 = 10;
/// No disk is faster; the setting's default has no such number of bytes.
const RATE_MAX: f64 = 1e15;

/// Holds up a pass for as long as `log.cleaner.io.max.bytes.per.second` says.
fn hold_up(throttle: &Throttle, moved: u64) {
    throttle.note(uptime_ms(), to_usize(moved));
    let ahead_ms = throttle.wait_ms(uptime_ms());
    if ahead_ms >= PAUSE_MS_MIN {
        nap(millis(ahead_ms));
    }
}

impl Replicas {
    /// Starts the cleaner's loop.
    pub(super) fn start_cleaner(self: &Arc<Self>) {
        let replicas = Arc::clone(self);
        keep_job("cleaner", async move {
            let throttle = Arc::new(Throttle::default());
            loop {
                let (backoff_ms, rate) = {
                    let settings = replicas.settings.lock();
                    (settings.cleaner_backoff_ms, settings.cleaner_bytes_per_second)
                };
                throttle.set_rate(from_f64(rate.min(RATE_MAX)));
                let (worker, throttle) = (Arc::clone(&replicas), Arc::clone(&throttle));
                let mut pace = move |bytes| hold_up(&throttle, bytes);
                let _ = blocking(move || worker.clean_once(&mut pace)).await;
                sleep(millis(backoff_ms)).await;
            }
        });
    }

    /// Cleans every log that is due, once; `pace` is told of bytes moved.
    pub(crate) fn clean_once(&self, pace: &mut dyn FnMut(u64)) {
        let now_ms = self.clock.now_ms();
        let partitions: Vec<_> = self.directories.iter().flat_map(|d| d.partitions()).collect();
        for partition in partitions.iter().take_while(|_| !is_interrupted()) {
            self.clean(partition, now_ms, pace);
        }
    }

    fn clean(&self, partition: &Arc<Partition>, now_ms: i64, pace: &mut dyn FnMut(u64)) {
        let map_bytes_max = self.settings.lock().cleaner_buffer_bytes;
        if partition.with_log(|log| log.config().is_compacted) != Some(true) {
            return;
        }
        partition.roll_if_old(now_ms);
        let plan = {
            // Recovery reads what lies past the point that is written, and takes what compaction took away there for lost.
            let (state, written) = partition.directory.lock_with_point(partition);
            let is_bound = !is_planted(Bug::GapBetweenSegments);
            let bound =
                state.replica.high_watermark().min(if is_bound { written } else { Offset::MAX });
            let Some(log) = &state.log else { return };
            log.clean_plan(now_ms, bound, map_bytes_max)
        };
        let Some(plan) = plan else { return };
        let cleaned = match plan.run(pace) {
            Ok(cleaned) => cleaned,
            Err(_) if is_interrupted() => return,
            Err(error) if plan.is_overtaken() || !partition.is_online() => {
                tracing::debug!(partition = %partition.name, %error, "compaction overtaken by a deletion");
                return;
            }
            Err(error) => {
                tracing::error!(partition = %partition.name, %error, "compaction failed; the log stays as it is");
                return;
            }
        };
        let (read, written) = (cleaned.bytes_read, cleaned.bytes_written);
        let mut state = partition.lock();
        let Some(log) = state.log.as_mut() else { return cleaned.discard() };
        if let Err(error) = log.swap_cleaned(cleaned) {
            partition.directory.fail(&error, &partition.name);
            return;
        }
        tracing::info!(partition = %partition.name, read, written, "log compacted");
    }
}
