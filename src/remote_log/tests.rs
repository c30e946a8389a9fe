//! Copying, reading back and losing, on a simulated disk and a store in memory that gets things wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::manifest::RemoteSegment;
use super::sending::{PART_BYTES, Sending, UPLOAD_ENDING};
use super::*;
use crate::config::{Config, TopicConfig};
use crate::log::{FileCache, Log, LogParts, RecoveryPoint, Stamp};
use crate::model::{LeaderEpoch, Offset, TopicPartition};
use crate::objects::faulty::{Fault, faulty};
use crate::objects::{Location, Store, open};
use crate::record::{BatchBuilder, BatchHeader, next_batch};
use crate::system::sim_disk::SimDisk;

pub(super) const TOPIC: Uuid = Uuid::from_u128(9);
pub(super) const CACHE_BYTES: u64 = 1 << 26;

/// A number that nothing else has.
pub(super) fn id() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

/// A log whose segments hold a few records each.
fn log() -> Log {
    log_with(|_| {})
}

pub(super) fn log_with(change: impl FnOnce(&mut TopicConfig)) -> Log {
    let mut config = TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new());
    config.segment_bytes = 400;
    config.index_interval_bytes = 100;
    change(&mut config);
    let cache = Arc::new(FileCache::new(Arc::new(SimDisk::default()), 8, 8));
    let parts = LogParts { cache, config: Arc::new(config) };
    let dir = PathBuf::from("/data/t-0");
    let opened = Log::open(TopicPartition::new("t", 0), dir, parts, RecoveryPoint::default(), 0);
    opened.expect("opens").0
}

/// Appends records of an idempotent producer; the time of each is its offset.
pub(super) fn append(log: &mut Log, leader_epoch: LeaderEpoch, count: i64) {
    for _ in 0..count {
        let at = log.log_end();
        let sequence = i32::try_from(at).expect("small");
        let batch =
            BatchBuilder::new().producer(7, 0, sequence).record(at, None, Some(b"some value"));
        let batch = batch.build();
        let header = BatchHeader::parse(&batch).expect("header");
        log.append(&header, &batch, Stamp { leader_epoch, now_ms: at }).expect("appended");
    }
    log.close().expect("flushed");
}

pub(super) fn remote(store: &Store) -> RemotePartition {
    RemotePartition::new(&Tier::new(store.clone(), CACHE_BYTES), &"t".into(), TOPIC, 0)
}

/// Claims, and copies all that is closed.
pub(super) async fn copy_all(
    remote: &RemotePartition,
    log: &Log,
    leader_epoch: LeaderEpoch,
) -> Result<Arc<Manifest>, RemoteError> {
    let mut manifest = remote.claim(leader_epoch, (log.epochs(), log.log_end()), 0).await?;
    while let Some(source) =
        log.segment_to_copy((manifest.end().unwrap_or(log.log_start()), log.log_end()), 0)
    {
        manifest = remote.copy(source, (leader_epoch, id()), false).await?;
    }
    Ok(manifest)
}

/// The offsets that a reader sees from `from` on.
pub(super) async fn offsets(remote: &RemotePartition, from: Offset) -> Vec<Offset> {
    let manifest = remote.manifest().expect("known");
    let (mut at, mut all) = (from, Vec::new());
    while manifest.find(at).is_some() {
        let bytes = remote.reader().read(&manifest, at, 150, Offset::MAX).await.expect("read");
        let mut rest = &*bytes;
        while let Some((header, _, after)) = next_batch(rest) {
            rest = after;
            all.extend((header.base_offset..=header.last_offset()).filter(|offset| *offset >= at));
            at = header.last_offset() + 1;
        }
    }
    all
}

pub(super) fn all(range: std::ops::Range<Offset>) -> Vec<Offset> {
    range.collect()
}

#[tokio::test]
async fn what_is_copied_is_read_back_from_any_offset_and_by_time() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    append(&mut log, 3, 20);
    let manifest = copy_all(&remote, &log, 3).await.expect("copied");
    let end = log.active_base();
    assert_eq!((manifest.end(), manifest.segments.len() > 5), (Some(end), true));
    for from in [0, 1, 17, 40, end - 1] {
        assert_eq!(offsets(&remote, from).await, all(from..end), "{from}");
    }
    let time = |at: i64| remote.reader().find_time(&manifest, at, end, 1 << 20);
    assert_eq!(time(17).await.expect("found").map(|f| (f.offset, f.leader_epoch)), Some((17, 0)));
    assert_eq!(time(41).await.expect("found").map(|f| (f.offset, f.leader_epoch)), Some((41, 3)));
    assert_eq!(time(1_000).await.expect("looked"), None);
    // Whoever comes later, and has nothing of it on its own disk.
    let stranger = self::remote(&store);
    stranger.refresh().await.expect("read");
    assert_eq!(offsets(&stranger, 0).await, all(0..end));
    let state = stranger.state_at(25).await.expect("known");
    assert_eq!(state.epochs.lines(), ["0 0"]);
    let next = BatchBuilder::new().producer(7, 0, 25).record(0, None, None).build();
    let wrong = BatchBuilder::new().producer(7, 0, 27).record(0, None, None).build();
    let check =
        |batch: &[u8]| state.producers.check(&BatchHeader::parse(batch).expect("header")).is_ok();
    assert!(check(&next) && !check(&wrong), "the producer's next batch is the one after offset 24");
    let state = stranger.state_at(end).await.expect("known");
    assert_eq!(state.epochs.lines(), ["0 0", "3 40"]);
}

#[tokio::test]
async fn a_read_stops_at_what_is_known_to_be_committed_though_the_bucket_has_more() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    let manifest = copy_all(&remote, &log, 0).await.expect("copied");
    assert!(manifest.segments[0].end_offset > 3);
    let read = async |from, end| {
        let bytes = remote.reader().read(&manifest, from, 10_000, end).await.expect("read");
        whole(&bytes)
    };
    assert_eq!((read(0, 3).await, read(2, 3).await), (3, 3));
}

/// The offset after whole batches.
fn whole(mut bytes: &[u8]) -> Offset {
    let mut end = -1;
    while let Some((header, _, after)) = next_batch(bytes) {
        (end, bytes) = (header.last_offset() + 1, after);
    }
    end
}

#[tokio::test]
async fn of_two_leaders_that_copy_the_same_the_older_one_changes_nothing() {
    let (store, _) = faulty(Fault::None);
    let mut log = log();
    append(&mut log, 5, 30);
    let (old, new) = (remote(&store), remote(&store));
    let claimed = old.claim(5, (log.epochs(), log.log_end()), 0).await.expect("claimed");
    let source = || log.segment_to_copy((0, log.log_end()), 0).expect("closed");
    assert_eq!(claimed.end(), None);
    let copied = copy_all(&new, &log, 6).await.expect("copied");
    let late = old.copy(source(), (5, id()), true).await;
    assert!(matches!(late, Err(RemoteError::Fenced { leader_epoch: 6, .. })), "{late:?}");
    let again = old.claim(5, (log.epochs(), log.log_end()), 0).await;
    assert!(matches!(again, Err(RemoteError::Fenced { .. })), "{again:?}");
    assert_eq!(*old.refresh().await.expect("read"), *copied);
    let objects = store.list("t-00000000000000000000000000000009").await.expect("listed").len();
    assert_eq!(objects, copied.segments.len() + 2, "the manifest, and what the old leader sent");
}

#[tokio::test]
async fn a_store_that_fails_in_any_way_never_makes_what_is_not_there_count() {
    for fault in [Fault::Down, Fault::Short, Fault::Flipped, Fault::DoneButFailed] {
        let (store, switch) = faulty(Fault::None);
        let (mut log, remote) = (log(), remote(&store));
        append(&mut log, 0, 30);
        let manifest = remote.claim(0, (log.epochs(), log.log_end()), 0).await.expect("claimed");
        *switch.lock() = fault;
        let source = log.segment_to_copy((0, log.log_end()), 0).expect("closed");
        let copied = remote.copy(source, (0, id()), false).await;
        assert!(copied.is_err(), "{fault:?}");
        assert_eq!(manifest.end(), None);
        *switch.lock() = Fault::None;
        let manifest = copy_all(&remote, &log, 0).await.expect("copied");
        assert_eq!(offsets(&remote, 0).await, all(0..log.active_base()), "{fault:?}");
        let verified = Tier::new(store, CACHE_BYTES).verify(&manifest).await;
        assert_eq!((verified.segments, verified.damaged.len()), (manifest.segments.len(), 0));
    }
}

#[tokio::test]
async fn a_manifest_that_was_written_though_it_failed_is_known_to_be_written() {
    let (store, switch) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 30);
    copy_all(&remote, &log, 0).await.expect("copied");
    *switch.lock() = Fault::DoneButFailed;
    let changed = remote.change(0, |manifest| {
        manifest.advance(9, 77);
        Ok(())
    });
    assert_eq!(changed.await.expect("done").log_start, 9);
}

#[tokio::test]
async fn bytes_that_rot_in_the_store_are_told_and_not_served() {
    let (store, switch) = faulty(Fault::None);
    let (mut log, writer) = (log(), remote(&store));
    append(&mut log, 0, 30);
    let manifest = copy_all(&writer, &log, 0).await.expect("copied");
    let reader = remote(&store);
    *switch.lock() = Fault::Flipped;
    let read = reader.reader().read(&manifest, 0, 1_000, Offset::MAX).await;
    assert!(matches!(&*read.expect_err("told"), RemoteError::Damaged { .. }));
    *switch.lock() = Fault::None;
    assert!(
        !reader.reader().read(&manifest, 0, 1_000, Offset::MAX).await.expect("read").is_empty()
    );
}

#[tokio::test]
async fn what_is_expired_leaves_the_manifest_first_and_the_store_after_its_readers_had_their_time()
{
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    let before = copy_all(&remote, &log, 0).await.expect("copied");
    let manifest = remote
        .change(0, |manifest| {
            manifest.advance(20, 1_000);
            Ok(())
        })
        .await
        .expect("changed");
    let gone = manifest.removed.len();
    assert!(gone > 1 && manifest.segments.len() + gone == before.segments.len());
    assert!(manifest.segments[0].end_offset > 20 && manifest.log_start == 20);
    let objects =
        async || store.list("t-00000000000000000000000000000009").await.expect("listed").len();
    let there = objects().await;
    assert_eq!(remote.sweep(0, 500, 1_400).await.expect("swept"), 0);
    // A reader with the manifest of before finishes.
    let bytes = remote.reader().read(&before, 0, 100, Offset::MAX).await.expect("read");
    assert!(!bytes.is_empty());
    assert_eq!(remote.sweep(0, 500, 1_500).await.expect("swept"), gone);
    assert_eq!(objects().await, there - gone);
    assert!(remote.manifest().expect("known").removed.is_empty());
}

#[tokio::test]
async fn what_no_manifest_names_goes_after_hours_and_nothing_else_does() {
    let (store, switch) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    remote.claim(0, (log.epochs(), log.log_end()), 0).await.expect("claimed");
    *switch.lock() = Fault::DoneButFailed;
    let source = log.segment_to_copy((0, log.log_end()), 0).expect("closed");
    assert!(remote.copy(source, (0, id()), false).await.is_err(), "sent, and nobody knows");
    *switch.lock() = Fault::None;
    let manifest = copy_all(&remote, &log, 0).await.expect("copied");
    let folder = "t-00000000000000000000000000000009";
    let listed = store.list(folder).await.expect("listed");
    let now_ms = listed.iter().map(|object| object.modified_ms).max().expect("some");
    assert_eq!(listed.len(), manifest.segments.len() + 2);
    assert_eq!(remote.sweep_orphans(0, 1_000, now_ms + 500).await.expect("swept"), 0);
    assert_eq!(remote.sweep_orphans(0, 1_000, now_ms + 1_500).await.expect("swept"), 1);
    assert_eq!(offsets(&remote, 0).await, all(0..log.active_base()));
    assert_eq!(remote.sweep_orphans(7, 0, now_ms + 1_500).await.expect("not its own"), 0);
}

#[tokio::test]
async fn an_upload_that_nobody_finishes_is_aborted_after_hours() {
    let disk: crate::system::SharedDisk = Arc::new(SimDisk::default());
    let location = Location { url: "memory:".to_owned(), ..Location::default() };
    let store = open(&location, &disk).expect("opened");
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    let manifest = copy_all(&remote, &log, 0).await.expect("copied");
    let object = manifest.object(&manifest.segments[0]).replace("0-0-", "0-0-f");
    let mut sending = Sending::new(store.clone(), Arc::default(), (object.clone(), None));
    sending.part(vec![0; PART_BYTES], vec![1; 8]).await.expect("sent");
    let note = format!("{object}{UPLOAD_ENDING}");
    let begun_ms = store.list(&object).await.expect("listed");
    let listed = store.list("").await.expect("listed");
    let now_ms = listed.iter().find(|o| o.name == note).expect("a note").modified_ms;
    assert_eq!((begun_ms.len(), listed.len()), (0, manifest.segments.len() + 2));
    remote.sweep_orphans(0, 1_000, now_ms + 500).await.expect("swept");
    sending.part(vec![0; PART_BYTES], vec![1; 8]).await.expect("it is not old enough");
    remote.sweep_orphans(0, 1_000, now_ms + 1_500).await.expect("swept");
    assert!(sending.part(vec![0; PART_BYTES], vec![1; 8]).await.is_err(), "aborted");
    assert_eq!(store.list("").await.expect("listed").len(), manifest.segments.len() + 1);
    // One that is finished leaves no note, nor does one that is given up.
    for is_finished in [true, false] {
        let mut sending = Sending::new(store.clone(), Arc::default(), (object.clone(), None));
        sending.part(vec![0; PART_BYTES], vec![1; 8]).await.expect("sent");
        if is_finished {
            sending.finish((vec![1], vec![2]), |_| vec![3]).await.expect("finished");
            assert_eq!(store.get(&object).await.expect("there").0.len(), PART_BYTES + 2);
            store.delete(std::slice::from_ref(&object)).await.expect("deleted");
        } else {
            sending.give_up().await;
        }
        assert_eq!(store.list("").await.expect("listed").len(), manifest.segments.len() + 1);
    }
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing_and_a_note_for_a_day() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    copy_all(&remote, &log, 0).await.expect("copied");
    let tier = Tier::new(store.clone(), CACHE_BYTES);
    assert_eq!(tier.sweep_deleted(0).await.expect("swept"), 0, "it is not deleted");
    for _ in 0..2 {
        tier.note_deleted("t", TOPIC).await.expect("noted");
    }
    let folder = "t-00000000000000000000000000000009";
    let there = store.list(folder).await.expect("listed").len();
    assert_eq!(tier.sweep_deleted(0).await.expect("swept"), there);
    assert!(store.list(folder).await.expect("listed").is_empty());
    let notes = store.list("deleted-topics").await.expect("listed");
    let day_after = notes[0].modified_ms + 25 * 3_600_000;
    tier.sweep_deleted(day_after).await.expect("swept");
    assert!(store.list("deleted-topics").await.expect("listed").is_empty());
}

#[tokio::test]
async fn after_an_unclean_election_each_offset_has_the_truth_of_the_leaders_lineage() {
    let (store, _) = faulty(Fault::None);
    let (mut lost, remote_of_lost) = (log(), remote(&store));
    append(&mut lost, 1, 20);
    append(&mut lost, 2, 30);
    let copied = copy_all(&remote_of_lost, &lost, 2).await.expect("copied");
    // The other one never had what epoch 2 wrote, and went on from offset 25 of epoch 1.
    let mut other = log();
    append(&mut other, 1, 25);
    append(&mut other, 3, 40);
    let remote = remote(&store);
    let mut behind = log();
    append(&mut behind, 1, 20);
    append(&mut behind, 2, 5);
    let manifest = remote.claim(3, (behind.epochs(), 25), 5).await.expect("claimed");
    assert_eq!(manifest.end(), copied.end(), "what it does not know it does not contradict");
    let manifest = remote.claim(3, (other.epochs(), other.log_end()), 5).await.expect("claimed");
    assert_eq!(manifest.end(), Some(20), "epoch 2 began at 20");
    assert!(copied.end() > Some(40) && !manifest.removed.is_empty());
    copy_all(&remote, &other, 3).await.expect("copied");
    assert_eq!(offsets(&remote, 0).await, all(0..other.active_base()));
    let manifest = remote.manifest().expect("known");
    let epochs: Vec<_> = manifest.segments.iter().flat_map(|s| s.epochs.clone()).collect();
    assert!(epochs.iter().all(|(epoch, _)| *epoch != 2), "{epochs:?}");
}

#[test]
fn a_copy_that_the_start_of_the_log_has_passed_while_it_was_made_brings_nothing_back() {
    let whole = || sample_manifest().segments[0].clone();
    let mut manifest = Manifest::new("t", Uuid::from_u128(7), 0);
    manifest.advance(1, 5);
    manifest.add(whole()).expect("sound");
    assert_eq!((manifest.log_start, manifest.end()), (1, Some(10)));
    let mut manifest = Manifest::new("t", Uuid::from_u128(7), 0);
    manifest.advance(10, 5);
    manifest.add(whole()).expect("sound");
    assert_eq!((manifest.log_start, manifest.end(), manifest.removed.len()), (10, None, 1));
}

#[test]
fn a_manifest_with_gaps_overlaps_or_nonsense_is_refused() {
    let good = sample_manifest;
    let segment = |base_offset: Offset, end_offset: Offset| RemoteSegment {
        base_offset,
        end_offset,
        object_offset: base_offset,
        ..good().segments[0].clone()
    };
    assert_eq!(Manifest::decode(&good().encode()).expect("read"), good());
    assert!(good().add(segment(25, 30)).is_err(), "a gap");
    assert!(good().add(segment(15, 30)).is_err(), "an overlap");
    let cases: [fn(&mut RemoteSegment); 5] = [
        |s| s.end_offset = s.base_offset,
        |s| s.object_bytes = s.log_bytes,
        |s| s.epochs.clear(),
        |s| s.epochs = vec![(4, 0), (3, 12)],
        |s| s.object_offset = s.base_offset + 1,
    ];
    for spoil in cases {
        let mut manifest = good();
        spoil(&mut manifest.segments[1]);
        assert!(Manifest::decode(&manifest.encode()).is_err(), "{manifest:?}");
    }
    for bytes in [&b""[..], b"{}", b"[1]", b"\xff"] {
        assert!(Manifest::decode(bytes).is_err());
    }
}

#[tokio::test]
async fn what_is_noted_of_a_cluster_is_read_back_and_a_leader_of_an_older_epoch_changes_nothing() {
    let (store, _) = faulty(Fault::None);
    let tier = Tier::new(store, CACHE_BYTES);
    let mut note = TopicNote::new("c", "t", TOPIC);
    (note.leader_epoch, note.partitions) = (3, 2);
    tier.note_topic(&note).await.expect("written");
    assert_eq!(tier.topic_note("t", TOPIC).await.expect("read"), Some(note.clone()));
    let mut stale = note.clone();
    (stale.leader_epoch, stale.partitions) = (2, 9);
    assert!(matches!(tier.note_topic(&stale).await, Err(RemoteError::Fenced { .. })));
    let mut newer = note;
    (newer.leader_epoch, newer.cluster_id) = (4, "d".into());
    tier.note_topic(&newer).await.expect("written");
    assert_eq!(tier.topic_note("t", TOPIC).await.expect("read"), Some(newer));
    assert_eq!(tier.topic_note("t", Uuid::from_u128(1)).await.expect("read"), None);
    let at = |offset| {
        let metadata = "m".to_owned();
        vec![NotedOffset { topic: "t".into(), partition: 1, offset, metadata }]
    };
    let nothing = GroupsNote::new("c", (0, 1), [].into());
    tier.note_groups(&nothing).await.expect("nothing to say");
    assert!(tier.noted_groups("c").await.expect("read").is_empty());
    let one = GroupsNote::new("c", (1, 1), [("g".to_owned(), at(5))].into());
    let two = GroupsNote::new("c", (2, 1), [("h".to_owned(), at(6))].into());
    tier.note_groups(&one).await.expect("written");
    tier.note_groups(&two).await.expect("written");
    let groups = tier.noted_groups("c").await.expect("read");
    assert_eq!(groups, [("g".to_owned(), at(5)), ("h".to_owned(), at(6))].into());
    assert!(tier.noted_groups("d").await.expect("read").is_empty());
    let gone = GroupsNote::new("c", (1, 2), [].into());
    tier.note_groups(&gone).await.expect("written");
    assert_eq!(tier.noted_groups("c").await.expect("read").len(), 1);
    let inventory = tier.inventory().await.expect("read");
    assert_eq!((inventory.topics.len(), inventory.manifests.len()), (1, 0));
    assert!(!tier.is_deleted("t", TOPIC).await.expect("asked"));
    tier.note_deleted("t", TOPIC).await.expect("noted");
    assert!(tier.is_deleted("t", TOPIC).await.expect("asked"));
}

#[tokio::test]
async fn a_topic_that_is_tiered_no_more_leaves_nothing_once_its_readers_had_their_time() {
    let (store, _) = faulty(Fault::None);
    let (mut log, old) = (log(), remote(&store));
    append(&mut log, 0, 30);
    assert!(old.leave(0, 100, 0).await.expect("asked"), "nothing was ever there");
    copy_all(&old, &log, 0).await.expect("copied");
    let mut note = TopicNote::new("c", "t", TOPIC);
    note.partitions = 1;
    Tier::new(store.clone(), CACHE_BYTES).note_topic(&note).await.expect("noted");
    let objects = store.list("").await.expect("listed").len();
    // Another leader goes on with it.
    let new = remote(&store);
    assert!(!new.leave(1, 100, 1_000).await.expect("begun"));
    assert!(matches!(old.leave(0, 100, 1_000).await, Err(RemoteError::Fenced { .. })));
    assert!(!new.leave(1, 100, 1_099).await.expect("readers have time"));
    assert_eq!(store.list("").await.expect("listed").len(), objects);
    assert!(new.leave(1, 100, 1_101).await.expect("done"));
    assert_eq!(store.list("").await.expect("listed"), []);
    // And if it is tiered again, it begins anew.
    let manifest = copy_all(&new, &log, 2).await.expect("copied");
    assert_eq!(manifest.end(), Some(log.active_base()));
}

#[test]
fn with_a_lag_a_segment_is_copied_when_it_is_old_or_has_enough_after_it() {
    let mut log = log();
    append(&mut log, 0, 30);
    let at = |log: &Log, now_ms| log.segment_to_copy((0, log.log_end()), now_ms).is_some();
    let first = log.segment_to_copy((0, log.log_end()), 0).expect("at once").end;
    let mut config = log.config().clone();
    config.copy_lag_ms = 1_000;
    log.set_config(Arc::new(config.clone()));
    // The time of a record is its offset.
    assert!(!at(&log, first + 998) && at(&log, first + 999));
    config.copy_lag_bytes = i64::try_from(log.bytes_from(first).run()).expect("small");
    log.set_config(Arc::new(config.clone()));
    assert!(at(&log, 0));
    config.copy_lag_bytes += 1;
    log.set_config(Arc::new(config));
    assert!(!at(&log, 0) && at(&log, first + 999));
}

#[tokio::test]
async fn what_went_before_it_was_copied_is_told_from_what_cannot_be_read() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (log(), remote(&store));
    append(&mut log, 0, 40);
    remote.claim(0, (log.epochs(), log.log_end()), 0).await.expect("claimed");
    let source = log.segment_to_copy((0, log.log_end()), 0).expect("closed");
    assert!(log.still_has(&source));
    // The replica begins anew while its segment waits to be copied.
    log.restart_at(100).expect("begun");
    let error = remote.copy(source.clone(), (0, id()), false).await.expect_err("it is gone");
    assert!(error.is_local() && !log.still_has(&source), "{error}");
}
