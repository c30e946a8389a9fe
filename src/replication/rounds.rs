//! Whose turn it is with the bucket: every tiered partition's, over and over.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::{Either, pending, select};
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::partition::PartitionHandle;
use super::replicas::Replicas;
use crate::system::clock::{millis, monotonic, timeout_at};
use crate::system::tasks::keep_job;

/// How the work on object storage is paced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TierSettings {
    pub interval_ms: i64,
    pub copiers: usize,
}

/// What ends a wait.
enum Event {
    Done(PartitionHandle),
    Wanted,
    Time,
}

impl Replicas {
    /// Looks after tiered partitions, over and over.
    pub(crate) fn start_tiering(self: &Arc<Self>, settings: TierSettings) {
        self.start_sweeping();
        self.start_compacting(settings.interval_ms);
        keep_job("tiering", Arc::clone(self).look_after_all(settings));
    }

    /// One partition that takes long holds up no other, as long as there are copiers left.
    async fn look_after_all(self: Arc<Self>, settings: TierSettings) {
        let copiers = Semaphore::new(settings.copiers);
        // Those at work, and whether somebody asked for them meanwhile.
        let mut at_work: HashMap<usize, bool> = HashMap::new();
        let mut works = FuturesUnordered::new();
        loop {
            let partitions = self.directories.iter().flat_map(|d| d.partitions());
            let mut tiered: Vec<_> =
                partitions.filter(|p| p.is_tiered() || p.is_leaving()).collect();
            // Somebody waits for those that are brought back.
            tiered.sort_by_key(|partition| !partition.awaits_restore());
            for partition in tiered {
                if let Entry::Vacant(idle) = at_work.entry(place_of(&partition)) {
                    idle.insert(false);
                    works.push(self.look_after_in_turn(&copiers, partition));
                }
            }
            let next = monotonic() + millis(settings.interval_ms);
            loop {
                let event = {
                    let wanted = pin!(self.local.tier_wanted.notified());
                    let done = pin!(next_of(&mut works));
                    match timeout_at(next, select(wanted, done)).await {
                        Ok(Either::Left(_)) => Event::Wanted,
                        Ok(Either::Right((partition, _))) => Event::Done(partition),
                        Err(_) => Event::Time,
                    }
                };
                match event {
                    Event::Done(partition) => {
                        let place = place_of(&partition);
                        if at_work.remove(&place) == Some(true) {
                            at_work.insert(place, false);
                            works.push(self.look_after_in_turn(&copiers, partition));
                        }
                    }
                    Event::Wanted => {
                        at_work.values_mut().for_each(|again| *again = true);
                        break;
                    }
                    Event::Time => break,
                }
            }
        }
    }

    async fn look_after_in_turn(
        &self,
        copiers: &Semaphore,
        partition: PartitionHandle,
    ) -> PartitionHandle {
        let _one = copiers.acquire().await;
        self.look_after(&partition).await;
        partition
    }
}

/// What tells one partition from others as long as it lives.
fn place_of(partition: &PartitionHandle) -> usize {
    Arc::as_ptr(partition).addr()
}

/// The next one that is done; waits for ever where nothing is being done.
async fn next_of<T>(works: &mut FuturesUnordered<impl Future<Output = T>>) -> T {
    match works.next().await {
        Some(done) => done,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::PartitionError;
    use super::super::tests::{append, create_as, led, open};
    use super::*;
    use crate::config::{Config, TopicConfig};
    use crate::objects::faulty::{Fault, faulty};
    use crate::remote_log::Tier;
    use crate::system::sim_disk::SimDisk;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_partition_whose_copy_takes_for_ever_holds_up_no_other() {
        let (store, _switch) = faulty(Fault::Stuck("slow"));
        let replicas = open(&SimDisk::default(), &["/a"]);
        replicas.set_tier(Tier::new(store, 0));
        let mut config = tiered();
        (config.segment_ms, config.write_caching) = (1, false);
        let [slow, fast] = ["slow", "fast"].map(|name| create_as(&replicas, name, config.clone()));
        replicas.start_tiering(TierSettings { interval_ms: 20, copiers: 2 });
        let copied = async |partition: &PartitionHandle, records| {
            for _ in 0..500 {
                if partition.tiered_end() == Some(records) {
                    return true;
                }
                crate::system::clock::sleep(std::time::Duration::from_millis(10)).await;
            }
            false
        };
        for records in 1..4 {
            for partition in [&slow, &fast] {
                append(partition, None).expect("taken");
            }
            assert!(copied(&fast, records).await, "{records} records");
        }
        assert_eq!(slow.tiered_end(), Some(0));
        replicas.stop(-1);
    }

    fn tiered() -> TopicConfig {
        let tiered = [("remote.storage.enable".to_owned(), "true".to_owned())].into();
        let mut config = TopicConfig::resolve(&Config::default(), &tiered);
        // Records here are as old as they can be.
        config.retention_ms = -1;
        config
    }

    /// A partition with three records that are committed, and a bucket with a fault.
    async fn filled(fault: Fault) -> (Arc<Replicas>, PartitionHandle) {
        let (store, _switch) = faulty(fault);
        let replicas = open(&SimDisk::default(), &["/a"]);
        replicas.set_tier(Tier::new(store, 0));
        let partition = create_as(&replicas, "t", tiered());
        for _ in 0..3 {
            append(&partition, None).expect("taken");
        }
        while partition.high_watermark() < 3 {
            crate::system::clock::sleep(std::time::Duration::from_millis(5)).await;
        }
        (replicas, partition)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_deleted_before_anything_is_in_the_bucket_does_not_come_back_with_the_first_copy()
     {
        let (replicas, partition) = filled(Fault::None).await;
        replicas.start_tiering(TierSettings { interval_ms: 20, copiers: 2 });
        let remote = partition.remote.clone().expect("tiered");
        let soon = || monotonic() + std::time::Duration::from_secs(20);
        let until = soon();
        while remote.claimed(0).is_none() {
            assert!(monotonic() < until, "not claimed");
            crate::system::clock::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(partition.trim(2).expect("trimmed"), 2);
        partition.trim_tiered(2, 1, soon()).await.expect("noted");
        // Whoever copies what it took from the log before adds to this.
        assert_eq!(remote.claimed(0).map(|manifest| manifest.log_start), Some(2));
        replicas.stop(-1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_later_leader_deletes_nothing_before_it_knows_what_is_in_the_bucket() {
        let (replicas, partition) = filled(Fault::Down).await;
        let soon = || monotonic() + std::time::Duration::from_millis(50);
        assert_eq!(partition.trim(1).expect("trimmed"), 1);
        partition.trim_tiered(1, 1, soon()).await.expect("the first leader knows");
        partition.take_state(&led(1));
        let refused = partition.trim_tiered(2, 1, soon()).await;
        assert!(matches!(refused, Err(PartitionError::Unsettled)), "{refused:?}");
        replicas.stop(-1);
    }
}
