use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Config, TopicConfig};
use crate::log::SequenceError;
use crate::model::TopicPartition;
use crate::record::{BatchBuilder, BatchHeader, Codec};
use crate::system::clock::{monotonic, sleep, timeout_at};
use crate::system::sim_disk::{Faults, SimDisk};
use crate::system::{Clock, Disk, Random, SharedDisk};

fn settings(directories: &[&str]) -> ReplicaSettings {
    let mut settings = crate::broker::replica_settings(&Config::default());
    settings.directories = directories.iter().map(PathBuf::from).collect();
    settings.free_bytes_min = 0;
    settings
}

pub(super) fn open(disk: &SimDisk, directories: &[&str]) -> Arc<Replicas> {
    let shared: SharedDisk = Arc::new(disk.clone());
    let random = Random::seeded(1);
    let replicas = Replicas::open(
        &shared,
        settings(directories),
        (Clock::system(), random),
        (Lease::endless(), None),
    )
    .expect("opens");
    replicas.start(&[]).expect("starts");
    replicas
}

/// This broker is the only replica.
pub(super) fn led(leader_epoch: i32) -> PartitionState {
    PartitionState {
        leader: 1,
        leader_epoch,
        partition_epoch: leader_epoch,
        replicas: vec![1],
        isr: vec![1],
        transfer_to: None,
    }
}

fn create(replicas: &Replicas, name: &str, write_caching: bool) -> PartitionHandle {
    let overrides = [("write.caching".to_owned(), write_caching.to_string())].into();
    create_as(replicas, name, TopicConfig::resolve(&Config::default(), &overrides))
}

pub(super) fn create_as(replicas: &Replicas, name: &str, config: TopicConfig) -> PartitionHandle {
    let config = Arc::new(config);
    let name = TopicPartition::new(name, 0);
    let topic_id = uuid::Uuid::from_u128(7);
    replicas.create(&PartitionSpec { name: name.clone(), topic_id, state: led(0), config });
    replicas.partition(&name).expect("made")
}

pub(super) fn append(
    partition: &PartitionHandle,
    waiter: Option<&Arc<AckWaiter>>,
) -> Result<Appending, PartitionError> {
    let batch = BatchBuilder::new().record(1, None, Some(b"v")).build();
    partition.append(&AppendRequest { batch: &batch, now_ms: 1, waiter, internal_epoch: None })
}

async fn settled(waiter: &AckWaiter) {
    timeout_at(monotonic() + Duration::from_secs(20), waiter.wait()).await.expect("it settles");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_waits_for_the_flush_and_the_high_watermark_with_it() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    let waiter = AckWaiter::new();
    let done = append(&partition, Some(&waiter)).expect("appended");
    settled(&waiter).await;
    assert!(partition.high_watermark() > done.last_offset);
    let cached = create(&replicas, "cached", true);
    append(&cached, None).expect("appended");
    assert_eq!(cached.high_watermark(), 1, "with write caching it does not wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_flush_is_never_acknowledged_and_takes_only_its_directory_offline() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a", "/b"]);
    let (one, two) = (create(&replicas, "one", false), create(&replicas, "two", false));
    assert_ne!(one.directory.path, two.directory.path, "each folder gets its share");
    disk.set_faults(Faults { fail_syncs: true, ..Faults::default() });
    let waiter = AckWaiter::new();
    append(&one, Some(&waiter)).expect("written, not flushed");
    settled(&waiter).await;
    assert_eq!(one.high_watermark(), 0);
    disk.set_faults(Faults::default());
    assert!(matches!(append(&one, None), Err(PartitionError::Offline)));
    let waiter = AckWaiter::new();
    append(&two, Some(&waiter)).expect("the other folder goes on");
    settled(&waiter).await;
    assert_eq!(two.high_watermark(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_waits_is_woken_by_the_high_watermark_and_by_deletion() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    let waiter = FetchWaiter::new();
    assert!(partition.wait(0, &waiter), "nothing new yet");
    append(&partition, None).expect("appended");
    timeout_at(monotonic() + Duration::from_secs(20), waiter.wait()).await.expect("woken");
    assert!(!partition.wait(0, &waiter), "there is news");
    assert!(partition.wait(1, &waiter));
    replicas.delete("t", 0);
    timeout_at(monotonic() + Duration::from_secs(20), waiter.wait()).await.expect("woken");
    assert!(matches!(
        partition.read(0, 100, true, ReadRules::leader(-1)),
        Err(PartitionError::Deleted)
    ));
}

#[test]
fn a_stale_and_a_future_leader_epoch_are_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let _guard = runtime.enter();
    let replicas = open(&SimDisk::default(), &["/a"]);
    let partition = create(&replicas, "t", false);
    partition.take_state(&led(3));
    assert!(matches!(
        partition.bounds(2),
        Err(PartitionError::FencedEpoch { asked: 2, current: 3 })
    ));
    assert!(matches!(
        partition.bounds(4),
        Err(PartitionError::UnknownEpoch { asked: 4, current: 3 })
    ));
    assert!(partition.bounds(3).is_ok() && partition.bounds(-1).is_ok());
    replicas.stop(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_on_a_disk_that_is_not_there_is_offline_and_not_begun_anew() {
    let disk = SimDisk::default();
    let spec = |name: &str| PartitionSpec {
        name: TopicPartition::new(name, 0),
        topic_id: uuid::Uuid::from_u128(7),
        state: led(0),
        config: Arc::new(TopicConfig::resolve(&Config::default(), &[].into())),
    };
    let replicas = open(&disk, &["/a", "/b"]);
    for name in ["one", "two"] {
        append(&create(&replicas, name, true), None).expect("appended");
    }
    replicas.stop(1);
    drop(replicas);
    disk.die();
    let shared: SharedDisk = Arc::new(disk.clone());
    // The second disk is not mounted: an empty folder stands there.
    shared.remove_dir_all(Path::new("/b")).expect("gone");
    let settings = settings(&["/a", "/b"]);
    let again = Replicas::open(
        &shared,
        settings,
        (Clock::system(), Random::seeded(2)),
        (Lease::endless(), None),
    );
    let again = again.expect("opens");
    again.start(&[spec("one"), spec("two")]).expect("starts");
    let online =
        |name: &str| again.partition(&TopicPartition::new(name, 0)).expect("listed").is_online();
    assert_ne!(online("one"), online("two"), "one is where it was, the other is not begun anew");
    let metadata = again.metadata_directory("__cluster_metadata-0");
    assert!(matches!(metadata, Err(StartError::MetadataMissing)));
}

#[tokio::test]
async fn a_topic_deleted_while_its_log_is_flushed_does_not_take_the_directory_offline() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "gone", true);
    append(&partition, None).expect("appended");
    let directory = Arc::clone(&replicas.directories()[0]);
    let jobs = directory.begin_flush(&[partition]);
    assert!(jobs.iter().any(|(_, job)| job.dir.is_some()), "a folder to flush");
    assert_eq!(replicas.delete("gone", 0), 1);
    directory.carry_out(&jobs).expect("nothing failed");
    assert!(!directory.is_offline());
    let other = create(&replicas, "other", true);
    let jobs = directory.begin_flush(&[other]);
    Disk::remove_dir_all(&disk, &PathBuf::from("/a/other-0")).expect("removed");
    directory.carry_out(&jobs).expect_err("a folder that is gone for no reason of ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_becomes_a_follower_fetches_only_after_it_has_flushed_its_own() {
    let replicas = open(&SimDisk::default(), &["/a"]);
    let partition = create(&replicas, "t", false);
    for epoch in 1..20 {
        partition.take_state(&led(2 * epoch));
        append(&partition, None).expect("appended");
        let other = PartitionState { leader: 2, ..led(2 * epoch + 1) };
        partition.take_state(&other);
        let until = monotonic() + Duration::from_secs(20);
        let position = loop {
            if let Some(position) = partition.fetch_position(2) {
                break position;
            }
            assert!(monotonic() < until, "never flushed");
            sleep(Duration::from_millis(1)).await;
        };
        let flushed = partition.with_log(crate::log::Log::recovery_point).expect("online");
        assert_eq!((position.offset, flushed), (i64::from(epoch), i64::from(epoch)));
    }
}

/// Appends while a replica moves, and returns when it lies in the other directory.
async fn moved(replicas: &Arc<Replicas>, name: &TopicPartition, to: &str) -> usize {
    let (told, mut moved) = (Arc::new(tokio::sync::Notify::new()), 0);
    let done = Arc::clone(&told);
    let path = PathBuf::from(to);
    replicas.move_replica(name, &path, move || done.notify_one()).expect("begins");
    let until = monotonic() + Duration::from_secs(20);
    loop {
        let partition = replicas.partition(name).expect("there");
        partition.take_state(&led(0));
        if append(&partition, None).is_ok() {
            moved += 1;
        }
        let soon = monotonic() + Duration::from_millis(1);
        if timeout_at(soon, told.notified()).await.is_ok() {
            replicas.partition(name).expect("there").take_state(&led(0));
            return moved;
        }
        assert!(monotonic() < until, "it does not arrive");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_goes_to_another_directory_with_all_that_it_has_while_it_serves() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a", "/b"]);
    let first = create(&replicas, "t", false);
    let (name, there) = (first.name.clone(), first.directory.path.clone());
    let other = if *there == *"/a" { "/b" } else { "/a" };
    let mut count = 0;
    for _ in 0..500 {
        append(&first, None).expect("appended");
        count += 1;
    }
    assert_eq!(
        replicas.move_replica(&name, &PathBuf::from("/c"), || ()),
        Err(MoveError::UnknownDirectory)
    );
    count += moved(&replicas, &name, other).await;
    let now = replicas.partition(&name).expect("there");
    assert_eq!(now.directory.path, PathBuf::from(other));
    assert!(!disk.exists(&there.join("t-0")), "the original is still there");
    let waiter = AckWaiter::new();
    append(&now, Some(&waiter)).expect("appended");
    count += 1;
    settled(&waiter).await;
    let end = now.with_log(crate::log::Log::log_end).expect("online");
    assert_eq!(usize::try_from(end).expect("small"), count);
    assert_eq!(now.high_watermark(), end);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_an_acknowledgement_while_a_replica_is_moved_gets_it() {
    let replicas = open(&SimDisk::default(), &["/a", "/b"]);
    let name = create(&replicas, "t", false).name.clone();
    let mut acknowledged = 0;
    for round in 0..30 {
        let to = if round % 2 == 0 { ["/a", "/b"] } else { ["/b", "/a"] };
        let there = replicas.partition(&name).expect("there").directory.path.clone();
        let to = PathBuf::from(to.into_iter().find(|path| *there != **path).expect("another one"));
        let (told, done) = (Arc::new(tokio::sync::Notify::new()), Arc::default());
        let (telling, is_done) =
            (Arc::clone(&told), Arc::<std::sync::atomic::AtomicBool>::clone(&done));
        let moved = move || {
            is_done.store(true, std::sync::atomic::Ordering::Release);
            telling.notify_one();
        };
        replicas.move_replica(&name, &to, moved).expect("begins");
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let waiter = AckWaiter::new();
            let partition = replicas.partition(&name).expect("there");
            partition.take_state(&led(0));
            match append(&partition, Some(&waiter)) {
                Ok(appended) => {
                    settled(&waiter).await;
                    let deadline = monotonic() + Duration::from_secs(20);
                    let following = follow_move(partition, &appended, deadline);
                    let role = async {
                        told.notified().await;
                        replicas.partition(&name).expect("there").take_state(&led(0));
                        std::future::pending::<()>().await;
                    };
                    let partition = tokio::select! {
                        partition = following => partition,
                        () = role => unreachable!("it waits for ever"),
                    };
                    assert!(partition.is_committed(&appended), "{appended:?} in round {round}");
                    acknowledged += 1;
                }
                Err(PartitionError::Moving | PartitionError::NotLeader { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    let partition = replicas.partition(&name).expect("there");
    partition.take_state(&led(0));
    assert_eq!(partition.with_log(crate::log::Log::log_end), Some(acknowledged));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "threads that may wait for each other for good")]
fn cleaners_retention_and_checkpoints_never_wait_for_each_other() {
    let disk = SimDisk::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let replicas = open(&disk, &["/a"]);
    let overrides = [("cleanup.policy".to_owned(), "compact,delete".to_owned())].into();
    for name in ["t", "u"] {
        create_as(&replicas, name, TopicConfig::resolve(&Config::default(), &overrides));
    }
    let (done, end) = std::sync::mpsc::channel();
    let works: [fn(&Replicas); 3] = [
        |replicas| replicas.clean_once(&mut |_| ()),
        |replicas| {
            replicas.directories().iter().for_each(|d| d.write_points().expect("written"));
        },
        |replicas| {
            let all = replicas.directories().iter().flat_map(|d| d.partitions());
            all.for_each(|partition| assert_eq!(replicas.apply_retention(&partition), 0));
        },
    ];
    for work in works {
        let (done, replicas) = (done.clone(), Arc::clone(&replicas));
        std::thread::spawn(move || {
            (0..3_000).for_each(|_| work(&replicas));
            done.send(())
        });
    }
    for _ in works {
        end.recv_timeout(Duration::from_secs(30)).expect("they wait for each other");
    }
}

/// Appends a batch of records, and deletes all before an offset.
fn trimmed(partition: &PartitionHandle, count: usize, to: i64) -> Vec<u8> {
    let batch = (0..count).fold(BatchBuilder::new(), |all, _| all.record(1, None, Some(b"v")));
    let batch = batch.build();
    let request = AppendRequest { batch: &batch, now_ms: 1, waiter: None, internal_epoch: None };
    partition.append(&request).expect("appended");
    partition.lock().log_mut().expect("online").trim(to);
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_begins_in_the_middle_of_a_batch_is_moved() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a", "/b"]);
    let first = create(&replicas, "t", false);
    trimmed(&first, 10, 4);
    let (name, there) = (first.name.clone(), first.directory.path.clone());
    let other = if *there == *"/a" { "/b" } else { "/a" };
    let count = 10 + i64::try_from(moved(&replicas, &name, other).await).expect("few");
    let now = replicas.partition(&name).expect("there");
    let bounds =
        |partition: &PartitionHandle| partition.with_log(|log| (log.log_start(), log.log_end()));
    assert_eq!(bounds(&now), Some((4, count)));
    let waiter = AckWaiter::new();
    append(&now, Some(&waiter)).expect("appended");
    settled(&waiter).await;
    drop((first, now, replicas));
    disk.die();
    let replicas = open(&disk, &["/a", "/b"]);
    assert_eq!(bounds(&create(&replicas, "t", false)), Some((4, count + 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_begins_in_the_middle_of_a_batch_as_its_leader_does() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let mut batch = trimmed(&create(&replicas, "leading", false), 10, 4);
    let follower = create(&replicas, "t", false);
    let state = PartitionState { leader: 2, replicas: vec![1, 2], isr: vec![2], ..led(1) };
    follower.take_state(&state);
    follower.restart_at(1, 104).expect("begun anew");
    let mut take = |base: i64| {
        crate::record::batch::patch_position(&mut batch, base, 1);
        follower.append_fetched(&FetchedBatches {
            leader_epoch: 1,
            bytes: &batch,
            high_watermark: 110,
            log_start: 104,
            now_ms: 1,
        })
    };
    take(100).expect("taken");
    let bounds =
        |partition: &PartitionHandle| partition.with_log(|log| (log.log_start(), log.log_end()));
    assert_eq!(bounds(&follower), Some((104, 110)));
    // What comes again, or begins before the end of a log that has something, is not taken twice.
    take(100).expect("nothing new");
    assert!(take(105).is_err());
    assert_eq!(bounds(&follower), Some((104, 110)));
    follower.lock().log_mut().expect("online").close().expect("flushed");
    drop((follower, replicas));
    disk.die();
    let replicas = open(&disk, &["/a"]);
    assert_eq!(bounds(&create(&replicas, "t", false)), Some((104, 110)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_that_finds_no_descriptors_takes_nothing_offline_and_is_made_later() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let mut config = TopicConfig::resolve(&Config::default(), &BTreeMap::new());
    config.segment_bytes = 200;
    let partition = create_as(&replicas, "t", config.clone());
    for _ in 0..30 {
        append(&partition, None).expect("appended");
    }
    let state = PartitionState { leader: 2, replicas: vec![1, 2], isr: vec![2], ..led(1) };
    partition.take_state(&state);
    disk.set_faults(Faults { no_descriptors: Some("/a/t-0".to_owned()), ..Faults::default() });
    let diverging = || Diverging { epoch: 0, end: 5 };
    let refused = partition.cut_diverging(1, diverging());
    assert!(matches!(refused, Err(PartitionError::Shortage)), "{refused:?}");
    assert!(!partition.directory.is_offline() && !partition.is_online());
    let name = partition.name.clone();
    let (topic_id, config) = (uuid::Uuid::from_u128(7), Arc::new(config));
    let spec = PartitionSpec { name: name.clone(), topic_id, state: led(0), config };
    assert_eq!(replicas.take_unopened(), [name.clone()].into());
    assert!(!replicas.reopen(&spec), "there are none yet");
    assert_eq!(replicas.take_unopened(), [name.clone()].into(), "it is tried again");
    disk.set_faults(Faults::default());
    assert!(replicas.reopen(&spec));
    let partition = replicas.partition(&name).expect("there");
    partition.take_state(&state);
    partition.cut_diverging(1, diverging()).expect("cut");
    let end = |partition: &PartitionHandle| partition.with_log(crate::log::Log::log_end);
    assert_eq!(end(&partition), Some(5));
    drop((partition, replicas));
    disk.die();
    let replicas = open(&disk, &["/a"]);
    assert_eq!(end(&create(&replicas, "t", false)), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_old_directory_fails_as_it_leaves_serves_in_its_new_one() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a", "/b"]);
    let first = create(&replicas, "t", false);
    append(&first, None).expect("appended");
    let (name, there) = (first.name.clone(), first.directory.path.clone());
    let other = if *there == *"/a" { "/b" } else { "/a" };
    let points = Some(there.join("recovery-points").display().to_string());
    disk.set_faults(Faults { fail_opens: points, ..Faults::default() });
    let end = 1 + moved(&replicas, &name, other).await;
    let now = replicas.partition(&name).expect("there");
    assert_eq!(now.with_log(crate::log::Log::log_end), i64::try_from(end).ok());
    let waiter = AckWaiter::new();
    append(&now, Some(&waiter)).expect("appended");
    settled(&waiter).await;
    // What it promises of a log that is not there any more can't be taken back.
    assert!(first.directory.is_offline() && !now.directory.is_offline());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_at_any_moment_of_a_move_leaves_nothing_of_itself() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a", "/b"]);
    let mut arrived = 0;
    for round in 0..200 {
        let first = create(&replicas, "t", false);
        append(&first, None).expect("appended");
        let there = &first.directory;
        let to = replicas.directories().iter().find(|other| !Arc::ptr_eq(other, there)).cloned();
        let to = to.expect("another one");
        replicas.move_replica(&first.name, &to.path, || ()).expect("begins");
        sleep(Duration::from_micros(round * 10)).await;
        arrived += usize::from(first.successor.get().is_some());
        assert_eq!(replicas.delete("t", 0), 1, "round {round}");
        let until = monotonic() + Duration::from_secs(20);
        while !replicas.moving_to(&to).is_empty() {
            assert!(monotonic() < until, "it does not end");
            sleep(Duration::from_millis(1)).await;
        }
        assert!(replicas.topic("t").is_none(), "round {round}: the topic is there again");
        for directory in ["/a", "/b"] {
            let entries = Disk::list(&disk, &PathBuf::from(directory)).expect("listed");
            let left = entries.iter().find(|e| e.is_dir && !e.name.ends_with("-delete"));
            assert!(left.is_none(), "round {round}: {left:?}");
        }
        assert!(replicas.directories().iter().all(|directory| !directory.is_offline()));
    }
    assert!((1..200).contains(&arrived), "{arrived} moves of 200 ended before");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_into_a_folder_that_is_gone() {
    for seconds in [0, 2] {
        let disk = SimDisk::default();
        let replicas = open(&disk, &["/a", "/b"]);
        let partition = create(&replicas, "t", false);
        let directory = Arc::clone(&partition.directory);
        let waiter = AckWaiter::new();
        append(&partition, Some(&waiter)).expect("appended");
        settled(&waiter).await;
        Disk::remove_dir_all(&disk, &directory.path).expect("removed");
        // Either it is looked for from time to time, or by whoever acknowledges something.
        if seconds == 0 {
            replicas.look();
        } else {
            sleep(Duration::from_secs(seconds)).await;
            let late = AckWaiter::new();
            let appended = append(&partition, Some(&late)).expect("the file is open");
            settled(&late).await;
            assert!(!partition.is_committed(&appended), "{appended:?}");
        }
        assert!(directory.is_offline());
        let other = replicas.directories().iter().find(|other| !Arc::ptr_eq(other, &directory));
        assert!(!other.expect("another one").is_offline());
        let until = monotonic() + Duration::from_secs(20);
        while partition.is_online() {
            assert!(monotonic() < until, "never offline");
            sleep(Duration::from_millis(1)).await;
        }
        let created = create(&replicas, "u", true);
        assert!(!Arc::ptr_eq(&created.directory, &directory), "made in a folder that is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_files_were_taken_away_takes_its_directory_offline() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let (taken, idle) = (create(&replicas, "taken", true), create(&replicas, "idle", true));
    append(&taken, None).expect("appended");
    replicas.look();
    assert!(!replicas.have_all_failed());
    Disk::rename(&disk, &PathBuf::from("/a/taken-0"), &PathBuf::from("/elsewhere")).expect("moved");
    replicas.look();
    assert!(!replicas.have_all_failed(), "nothing was written since");
    append(&taken, None).expect("the file is open");
    replicas.look();
    assert!(replicas.have_all_failed());
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_points_that_find_no_room_are_written_later_and_other_errors_are_the_disks() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    append(&partition, None).expect("appended");
    let directory = &partition.directory;
    let flushed = || partition.with_log(crate::log::Log::recovery_point) == Some(1);
    let until = monotonic() + Duration::from_secs(20);
    while !flushed() {
        assert!(monotonic() < until, "never flushed");
        sleep(Duration::from_millis(1)).await;
    }
    let written = || directory.points.lock().0.get("t-0").map(|point| point.recovery.offset);
    disk.set_faults(Faults { room: Some(0), ..Faults::default() });
    replicas.write_checkpoints();
    assert!(!directory.is_offline() && written() != Some(1));
    disk.set_faults(Faults::default());
    replicas.write_checkpoints();
    assert_eq!(written(), Some(1));
    directory.points_changed.store(true, std::sync::atomic::Ordering::Release);
    let points = Some("/a/recovery-points".to_owned());
    disk.set_faults(Faults { fail_opens: points, ..Faults::default() });
    replicas.write_checkpoints();
    assert!(directory.is_offline());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_a_crash_ended_leaves_one_whole_log_whatever_was_renamed() {
    for step in 0..3 {
        let disk = SimDisk::default();
        let replicas = open(&disk, &["/a", "/b"]);
        let partition = create(&replicas, "t", false);
        let from = partition.directory.path.clone();
        let to = PathBuf::from(if *from == *"/a" { "/b" } else { "/a" });
        for _ in 0..20 {
            append(&partition, None).expect("appended");
        }
        replicas.stop(1);
        drop((partition, replicas));
        disk.die();
        let copy = to.join("t-0.1-future");
        for entry in Disk::list(&disk, &from.join("t-0")).expect("listed") {
            Disk::create_dir_all(&disk, &copy).expect("made");
            let bytes = crate::system::disk::read_file(&disk, &from.join("t-0").join(&entry.name));
            let file = Disk::open(&disk, &copy.join(&entry.name), crate::system::OpenMode::Replace)
                .expect("opened");
            file.write_at(&[std::io::IoSlice::new(&bytes.expect("read"))], 0).expect("written");
            file.sync().expect("synced");
        }
        // Nothing yet; the original is out of the way; the copy has its name.
        if step > 0 {
            Disk::rename(&disk, &from.join("t-0"), &from.join("t-0.1-moved")).expect("renamed");
        }
        if step > 1 {
            Disk::rename(&disk, &copy, &to.join("t-0")).expect("renamed");
        }
        let replicas = open(&disk, &["/a", "/b"]);
        // The last step was all that was left to do.
        let interrupted = if step == 2 { vec![] } else { vec![(TopicPartition::new("t", 0), to)] };
        assert_eq!(replicas.take_interrupted(), interrupted, "step {step}");
        let partition = create(&replicas, "t", false);
        let end = partition.with_log(crate::log::Log::log_end).expect("online");
        assert_eq!(end, 20, "step {step}");
        for directory in ["/a", "/b"] {
            for entry in Disk::list(&disk, &PathBuf::from(directory)).expect("listed") {
                let is_left = entry.name.ends_with("-future") || entry.name.ends_with("-moved");
                assert!(!is_left, "step {step}: {}", entry.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_that_a_log_is_durable_only_after_the_flush_that_is_under_way() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    let directory = Arc::clone(&partition.directory);
    append(&partition, None).expect("appended");
    // A flush has taken out what there is to flush, and is not done until it is told to go on.
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let (taken, was_taken) = tokio::sync::oneshot::channel();
    let (flushed, handle) = (Arc::clone(&directory), Arc::clone(&partition));
    let flush = crate::system::tasks::spawn(async move {
        let slow = move || {
            let _flushing = flushed.flushing.lock();
            let jobs = flushed.begin_flush(std::slice::from_ref(&handle));
            taken.send(jobs.len()).expect("somebody waits");
            told.recv().expect("told");
            flushed.carry_out(&jobs).expect("flushed");
        };
        crate::system::tasks::blocking(slow).await.expect("no panic");
    });
    let jobs = was_taken.await.expect("taken");
    let stopping = Arc::clone(&replicas);
    let stopped = crate::system::tasks::spawn(async move {
        crate::system::tasks::blocking(move || stopping.stop(1)).await;
    });
    sleep(Duration::from_millis(50)).await;
    // Where the flusher was quicker there was nothing to take out.
    assert!(jobs == 0 || !stopped.is_finished(), "the stop did not wait");
    go_on.send(()).expect("somebody waits");
    flush.await.expect("flushed");
    stopped.await.expect("it stops");
    disk.crash(&Random::seeded(1));
    let again = open(&disk, &["/a"]);
    let end = create(&again, "t", false).with_log(crate::log::Log::log_end);
    assert_eq!(end, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_deleted_before_a_crash_comes_again_whatever_the_disk_did() {
    for (fail_writes, end) in [(false, 0), (true, 1)] {
        let disk = SimDisk::default();
        let replicas = open(&disk, &["/a"]);
        let partition = create(&replicas, "t", false);
        let waiter = AckWaiter::new();
        append(&partition, Some(&waiter)).expect("appended");
        settled(&waiter).await;
        partition.directory.write_points().expect("written");
        disk.set_faults(Faults { fail_writes, ..Faults::default() });
        let folders = replicas.delete_partition(&partition.name);
        assert_eq!(folders, usize::from(!fail_writes), "what could not be forgotten is kept");
        drop((partition, replicas));
        disk.die();
        disk.set_faults(Faults::default());
        let replicas = open(&disk, &["/a"]);
        let partition = create(&replicas, "t", false);
        assert_eq!(partition.with_log(crate::log::Log::log_end), Some(end), "{fail_writes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_could_not_be_taken_back_is_held_at_the_next_try_too() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    for _ in 0..3 {
        let waiter = AckWaiter::new();
        append(&partition, Some(&waiter)).expect("appended");
        settled(&waiter).await;
    }
    let directory = Arc::clone(&partition.directory);
    directory.write_points().expect("written");
    disk.set_faults(Faults { fail_writes: true, ..Faults::default() });
    let names = [partition.name.clone()];
    for _ in 0..2 {
        assert!(directory.lower_point(&partition.name, 1).is_err(), "not written");
        assert!(directory.forget_points(&names).is_err(), "not written");
        assert_eq!(directory.lock_with_point(&partition).1, 3);
    }
    disk.set_faults(Faults::default());
    directory.lower_point(&partition.name, 1).expect("written");
    assert_eq!(directory.lock_with_point(&partition).1, 1);
    directory.forget_points(&names).expect("written");
    assert_eq!(directory.lock_with_point(&partition).1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_again_very_late_is_told_to_be_stored_once_it_is_committed() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    let send = |sequence: i32, waiter: Option<&Arc<AckWaiter>>| {
        let batch = BatchBuilder::new().producer(7, 0, sequence).record(1, None, Some(b"v"));
        let batch = batch.build();
        partition.append(&AppendRequest { batch: &batch, now_ms: 1, waiter, internal_epoch: None })
    };
    disk.set_faults(Faults { sync_us: 300_000, ..Faults::default() });
    let waiter = AckWaiter::new();
    for sequence in 0..8 {
        send(sequence, Some(&waiter)).expect("appended");
    }
    let early = send(0, None).map(|done| done.last_offset);
    assert!(matches!(early, Err(PartitionError::NotEnoughReplicasAfterAppend)), "{early:?}");
    settled(&waiter).await;
    let late = send(0, None).map(|done| done.last_offset);
    let stored = matches!(late, Err(PartitionError::Sequence(SequenceError::Stored { .. })));
    assert!(stored, "{late:?}");
    assert_eq!(send(7, None).expect("remembered").last_offset, 7);
    assert_eq!(partition.with_log(crate::log::Log::log_end), Some(8), "nothing is stored twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_removed_once_its_time_has_come_and_not_before() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    for name in ["now", "later", "kept"] {
        append(&create(&replicas, name, false), None).expect("appended");
    }
    replicas.start_removing();
    replicas.delete("now", 0);
    replicas.delete("later", 3_600_000);
    let folders = || {
        let entries = disk.list(Path::new("/a")).expect("listed").into_iter();
        let mut names: Vec<_> = entries.filter(|e| e.is_dir).map(|e| e.name).collect();
        names.iter_mut().for_each(|name| name.truncate(name.find('-').unwrap_or(name.len())));
        names
    };
    while folders().contains(&"now".to_owned()) {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(folders(), ["kept", "later"]);
    let left = disk.list(Path::new("/a/kept-0")).expect("listed");
    assert!(left.iter().any(|entry| Path::new(&entry.name).extension() == Some("log".as_ref())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_deletes_before_a_crash_is_not_taken_for_lost_after_it() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let mut config = TopicConfig::resolve(&Config::default(), &[].into());
    (config.segment_bytes, config.retention_bytes) = (100, 0);
    let partition = create_as(&replicas, "t", config.clone());
    let some = async || {
        for _ in 0..5 {
            let waiter = AckWaiter::new();
            append(&partition, Some(&waiter)).expect("appended");
            settled(&waiter).await;
        }
    };
    some().await;
    partition.directory.write_points().expect("written");
    some().await;
    assert!(replicas.apply_retention(&partition) > 0, "what the points cover goes");
    let start = partition.local_start();
    assert!((1..=5).contains(&start), "{start}: no more than they cover");
    drop((partition, replicas));
    disk.die();
    let replicas = open(&disk, &["/a"]);
    let partition = create_as(&replicas, "t", config);
    let found = partition.with_log(|log| (log.log_start(), log.log_end()));
    assert_eq!(found, Some((start, 10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_begins_anew_past_its_end_and_crashes_is_not_taken_for_one_that_lost_something()
 {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    let waiter = AckWaiter::new();
    append(&partition, Some(&waiter)).expect("appended");
    settled(&waiter).await;
    partition.directory.write_points().expect("written");
    let state = PartitionState { leader: 2, replicas: vec![1, 2], isr: vec![2], ..led(1) };
    partition.take_state(&state);
    partition.restart_at(1, 50).expect("begun anew");
    drop((partition, replicas));
    disk.die();
    let replicas = open(&disk, &["/a"]);
    let partition = create(&replicas, "t", false);
    let found = partition.with_log(|log| (log.log_start(), log.log_end()));
    assert_eq!(found, Some((50, 50)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_brought_back_takes_and_shows_nothing_before_it_knows_where_it_begins() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let mut config = TopicConfig::resolve(&Config::default(), &[].into());
    (config.is_tiered, config.is_restored) = (true, true);
    let partition = create_as(&replicas, "t", config);
    assert!(matches!(append(&partition, None), Err(PartitionError::Restoring)));
    let read = partition.read(0, 100, true, ReadRules::leader(-1));
    assert!(matches!(read, Err(PartitionError::Restoring)), "{read:?}");
    assert!(matches!(partition.bounds(-1), Err(PartitionError::Restoring)));
    let nothing = crate::log::ProducerStates::default();
    let mut epochs = crate::log::LeaderEpochs::default();
    epochs.assign(2, 5);
    let state = crate::remote_log::RestoredState { epochs, producers: nothing };
    partition.take_state(&led(3));
    partition.begin_with(3, 20, state).await.expect("it begins");
    assert_eq!(partition.bounds(-1).map(|bounds| bounds.1).map_err(drop), Err(()), "no manifest");
    let appended = append(&partition, None).expect("taken");
    assert_eq!((appended.base_offset, partition.epoch_at(7)), (20, 2));
    // What a leader has it never gives up.
    let state = crate::remote_log::RestoredState::default();
    assert!(partition.begin_with(3, 30, state).await.is_err());
    assert_eq!(partition.with_log(crate::log::Log::log_end), Some(21));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_knows_less_than_the_bucket_goes_on_there_unless_it_appended_something() {
    let disk = SimDisk::default();
    let replicas = open(&disk, &["/a"]);
    let mut config = TopicConfig::resolve(&Config::default(), &[].into());
    (config.is_tiered, config.write_caching) = (true, true);
    let partition = create_as(&replicas, "t", config);
    append(&partition, None).expect("taken");
    append(&partition, None).expect("taken");
    partition.take_state(&led(3));
    let state = || {
        let mut epochs = crate::log::LeaderEpochs::default();
        epochs.assign(0, 0);
        epochs.assign(1, 5);
        crate::remote_log::RestoredState { epochs, ..Default::default() }
    };
    partition.begin_with(3, 1, state()).await.expect("it is past that");
    assert_eq!(partition.with_log(crate::log::Log::log_end), Some(2), "never back");
    assert!(partition.begin_with(2, 20, state()).await.is_err(), "another epoch");
    partition.begin_with(3, 20, state()).await.expect("it goes on");
    assert_eq!((partition.high_watermark(), partition.epoch_at(19)), (20, 1));
    assert_eq!(append(&partition, None).expect("taken").base_offset, 20);
    assert!(partition.begin_with(3, 25, state()).await.is_err(), "its own log is the truth");
    partition.take_state(&led(4));
    partition.begin_with(4, 30, state()).await.expect("it has appended nothing yet");
    // After a stop it is all there, and nothing is left of what was refused.
    replicas.stop(-1);
    drop((partition, replicas));
    let names: Vec<String> =
        disk.list(Path::new("/a/t-0")).expect("listed").into_iter().map(|e| e.name).collect();
    assert!(names.iter().any(|name| name.ends_with("30.snapshot")), "{names:?}");
    let refused = |name: &String| name.ends_with("25.snapshot") || name.ends_with("01.snapshot");
    assert!(!names.iter().any(refused), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_never_sent_what_has_no_records_while_there_is_something_that_has() {
    let (disk, overrides) = (SimDisk::default(), BTreeMap::new());
    let replicas = open(&disk, &["/a"]);
    let mut config = TopicConfig::resolve(&Config::default(), &overrides);
    (config.segment_bytes, config.segment_ms, config.dirty_ratio_min) = (1, 1, 0.0);
    let partition = create_as(&replicas, "t", config.clone());
    // Of each producer the last batch stays, if only empty; what has no key goes.
    for (producer, key) in [(1, Some(b"a")), (2, Some(b"a")), (3, Some(b"a")), (4, None), (5, None)]
    {
        let waiter = AckWaiter::new();
        let batch = BatchBuilder::new().producer(producer, 0, 0).codec(Codec::Gzip);
        let batch = batch.record(1, key.map(|key| &key[..]), Some(b"v")).build();
        let waits = Some(&waiter);
        let request =
            AppendRequest { batch: &batch, now_ms: 1, waiter: waits, internal_epoch: None };
        partition.append(&request).expect("appended");
        settled(&waiter).await;
    }
    config.is_compacted = true;
    partition.lock().log.as_mut().expect("open").set_config(Arc::new(config));
    replicas.write_checkpoints();
    replicas.clean_once(&mut |_| {});
    let read = |offset, rules| {
        let read = partition.read(offset, 1 << 20, true, rules).expect("read");
        let slice = read.slice?;
        let bytes = slice.read().expect("read");
        let header = BatchHeader::parse(&bytes).expect("a header");
        Some((header.base_offset, header.count, slice.is_bare))
    };
    let consumer = ReadRules::leader(-1);
    let follower = ReadRules { up_to_log_end: true, ..consumer };
    let found: Vec<_> = (0..6).map(|offset| read(offset, consumer)).collect();
    let at = |offset, count, is_bare| Some((offset, count, is_bare));
    let third = at(2, 1, false);
    assert_eq!(found, [third, third, third, at(3, 0, true), at(4, 0, true), None]);
    let found: Vec<_> = (0..6).map(|offset| read(offset, follower)).collect();
    let all =
        [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0)].map(|(offset, count)| at(offset, count, false));
    assert_eq!((&found[..5], found[5]), (&all[..], None));
}
