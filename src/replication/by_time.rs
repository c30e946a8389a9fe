//! Records by time, wherever they are.
//!
//! Invariants: every record from the log's start to the high watermark was looked at, in object storage or here, whatever went from
//! here to there meanwhile; nobody waits for either with the partition's lock.

use std::sync::Arc;

use super::error::PartitionError;
use super::partition::Partition;
use super::reading::{LOOKUPS_MAX, ReadRules};
use crate::log::FoundRecord;
use crate::model::{Offset, Timestamp};
use crate::system::tasks::blocking;

/// What was found, and where the part of the log begins that is on this disk.
type Found = (Option<FoundRecord>, Offset);

impl Partition {
    /// The first record at or after a time, without a time the first of those with the largest, below the high watermark.
    pub(crate) async fn find_time(
        self: &Arc<Self>,
        timestamp: Option<Timestamp>,
    ) -> Result<Option<FoundRecord>, PartitionError> {
        for _ in 0..LOOKUPS_MAX {
            let (old, looked_to) = self.find_time_tiered(timestamp).await?;
            if timestamp.is_some() && old.is_some() {
                return Ok(old);
            }
            let partition = Arc::clone(self);
            let here = blocking(move || partition.find_time_here(timestamp)).await;
            let (new, looked_from) = here.unwrap_or(Err(PartitionError::Offline))?;
            // Else something was copied and deleted here between the two looks: neither has seen it.
            if looked_from <= looked_to {
                let is_old =
                    |old: &FoundRecord| new.is_none_or(|new| new.timestamp <= old.timestamp);
                return Ok(old.filter(is_old).or(new));
            }
        }
        Err(PartitionError::Offline)
    }

    /// What is on this disk of it.
    fn find_time_here(&self, timestamp: Option<Timestamp>) -> Result<Found, PartitionError> {
        for _ in 0..LOOKUPS_MAX {
            let (search, start) = {
                let state = self.lock();
                let log = self.readable(&state, ReadRules::leader(-1))?;
                (log.time_search(timestamp, state.replica.high_watermark()), log.log_start())
            };
            let found = search.run(timestamp);
            if self.lock().log()?.still_holds_all(&search) {
                return Ok((found?, start));
            }
        }
        Err(PartitionError::Offline)
    }

    /// What is in object storage only.
    async fn find_time_tiered(
        &self,
        timestamp: Option<Timestamp>,
    ) -> Result<Found, PartitionError> {
        let (manifest, local, plain_bytes_max) = {
            let state = self.lock();
            let log = self.readable(&state, ReadRules::leader(-1))?;
            let local = log.log_start();
            if state.start()? == local {
                return Ok((None, local));
            }
            let Some(manifest) = state.remote.clone() else { return Ok((None, local)) };
            (manifest, local, log.config().plain_bytes_max)
        };
        let Some(remote) = &self.remote else { return Ok((None, local)) };
        let newest = manifest.segments.iter().filter(|s| s.base_offset < local);
        let newest = newest.map(|segment| segment.max_timestamp).max();
        let Some(timestamp) = timestamp.or(newest) else { return Ok((None, local)) };
        let found = remote.reader().find_time(&manifest, timestamp, local, plain_bytes_max).await;
        Ok((found.map_err(|error| PartitionError::Remote(error.to_string()))?, local))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::partition::PartitionHandle;
    use super::super::replicas::Replicas;
    use super::super::rounds::TierSettings;
    use super::super::tests::{append, create_as, open};
    use crate::config::{Config, TopicConfig};
    use crate::objects::faulty::{Fault, faulty};
    use crate::remote_log::Tier;
    use crate::system::clock::{monotonic, sleep};
    use crate::system::sim_disk::SimDisk;
    use crate::system::tasks::spawn;

    /// A tiered partition with four records, each in a segment of its own, nothing of which stays on the disk for long.
    async fn passing(replicas: &Replicas, name: &str) -> PartitionHandle {
        let tiered = [("remote.storage.enable".to_owned(), "true".to_owned())].into();
        let mut config = TopicConfig::resolve(&Config::default(), &tiered);
        (config.segment_ms, config.retention_ms, config.local_retention_ms) = (1, -1, 1);
        let partition = create_as(replicas, name, config);
        for _ in 0..4 {
            append(&partition, None).expect("taken");
        }
        while partition.high_watermark() < 4 {
            sleep(Duration::from_millis(1)).await;
        }
        partition
    }

    async fn passed(replicas: &Replicas, partition: &PartitionHandle) {
        let until = monotonic() + Duration::from_secs(20);
        while partition.local_start() < 3 {
            assert!(monotonic() < until, "nothing leaves the disk");
            replicas.write_checkpoints();
            replicas.apply_retention(partition);
            tokio::task::yield_now().await;
        }
    }

    fn with_bucket() -> Arc<Replicas> {
        let (store, _switch) = faulty(Fault::None);
        let replicas = open(&SimDisk::default(), &["/a"]);
        replicas.set_tier(Tier::new(store, 0));
        replicas.start_tiering(TierSettings { interval_ms: 1, copiers: 2 });
        replicas
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_is_found_by_its_time_in_the_moment_in_which_it_leaves_the_disk() {
        let replicas = with_bucket();
        for round in 0..60 {
            let partition = passing(&replicas, &format!("t{round}")).await;
            let lookers = [Some(1), None].map(|timestamp| {
                let partition = Arc::clone(&partition);
                spawn(async move {
                    // It is the first of its time wherever it is.
                    while partition.local_start() < 3 {
                        let found = partition.find_time(timestamp).await.expect("looked");
                        assert_eq!(found.map(|found| found.offset), Some(0), "{timestamp:?}");
                    }
                })
            });
            passed(&replicas, &partition).await;
            for looker in lookers {
                looker.await.expect("found at each look");
            }
        }
        replicas.stop(-1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_age_of_what_is_in_the_bucket_only_is_known() {
        let replicas = with_bucket();
        let partition = passing(&replicas, "t").await;
        assert_eq!(partition.timestamp_at(0), Some(1));
        passed(&replicas, &partition).await;
        assert_eq!((partition.timestamp_at(0), partition.timestamp_at(4)), (Some(1), None));
        replicas.stop(-1);
    }
}
