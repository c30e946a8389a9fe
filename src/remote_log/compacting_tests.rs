//! Compaction of what is in a bucket, beside that of the local log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::encryption_tests::encrypted;
use super::tests::{CACHE_BYTES, TOPIC, id, log_with, remote};
use super::*;
use crate::log::compaction::CompactionRules;
use crate::log::{Log, NewBatch, Stamp};
use crate::model::{LeaderEpoch, Offset};
use crate::objects::faulty::{Fault, faulty};
use crate::record::{BatchBuilder, BatchHeader, Codec, Records, next_batch};
use crate::system::Random;

const HORIZON_MS: i64 = 1_000;
/// Keys, and the newest value of each.
type Table = BTreeMap<Vec<u8>, Vec<u8>>;

fn settings(now_ms: i64) -> CompactionSettings {
    CompactionSettings {
        rules: CompactionRules {
            now_ms,
            delete_retention_ms: HORIZON_MS,
            plain_bytes_max: 1 << 20,
            keeps_tombstones: false,
        },
        map_bytes_max: 1 << 20,
        dirty_ratio_min: 0.0,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        segment_bytes: 1_500,
        index_interval_bytes: 100,
    }
}

fn compacted_log() -> Log {
    log_with(|config| {
        (config.is_compacted, config.is_tiered, config.is_deleted) = (true, true, false);
        config.dirty_ratio_min = 0.0;
        config.delete_retention_ms = 100;
    })
}

fn put(log: &mut Log, epoch: LeaderEpoch, key: u64, value: Option<&str>) {
    let at = log.log_end();
    let key = format!("key-{key}");
    let batch = BatchBuilder::new()
        .producer(7, 0, i32::try_from(at).expect("small"))
        .record(at, Some(key.as_bytes()), value.map(str::as_bytes))
        .build();
    let header = BatchHeader::parse(&batch).expect("header");
    log.append(&header, &batch, Stamp { leader_epoch: epoch, now_ms: at }).expect("appended");
}

async fn copy(remote: &RemotePartition, log: &Log, epoch: LeaderEpoch) -> Arc<Manifest> {
    let mut manifest = match remote.claimed(epoch) {
        Some(manifest) => manifest,
        None => remote.claim(epoch, (log.epochs(), log.log_end()), 0).await.expect("claimed"),
    };
    while let Some(source) =
        log.segment_to_copy((manifest.end().unwrap_or(log.log_start()), log.log_end()), 0)
    {
        manifest = remote.copy(source, (epoch, id()), false).await.expect("copied");
    }
    manifest
}

/// Steps until there is nothing more to do; how many.
async fn compact(remote: &RemotePartition, epoch: LeaderEpoch, now_ms: i64) -> usize {
    let before = remote.manifest().expect("known").cleaned_to;
    let mut steps = 0;
    while remote.compact(epoch, id(), settings(now_ms)).await.expect("compacted") {
        steps += 1;
        if remote.manifest().is_some_and(|manifest| manifest.cleaned_to > before) {
            break;
        }
    }
    steps
}

/// What whoever reads all of it knows at last, and how many records it reads.
async fn read(remote: &RemotePartition, from: Offset) -> (Table, usize) {
    let manifest = remote.manifest().expect("known");
    let (mut at, mut table, mut count) = (from, Table::new(), 0);
    while manifest.find(at).is_some() {
        let bytes = remote.reader().read(&manifest, at, 700, Offset::MAX).await.expect("read");
        let mut rest = &*bytes;
        while let Some((header, batch, after)) = next_batch(rest) {
            rest = after;
            let records = Records::open(header, batch, 1 << 20).expect("open");
            for record in records.iter().map(|record| record.expect("record")) {
                count += 1;
                apply(&mut table, record.key.expect("a key"), record.value);
            }
            assert!(header.last_offset() >= at, "reading on gets somewhere");
            at = header.last_offset() + 1;
        }
    }
    assert_eq!(Some(at), manifest.end());
    (table, count)
}

fn apply(table: &mut Table, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => drop(table.insert(key.to_vec(), value.to_vec())),
        None => drop(table.remove(key)),
    }
}

#[tokio::test]
async fn of_each_key_the_newest_record_stays_in_the_bucket_and_small_segments_become_one() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (compacted_log(), remote(&store));
    for round in 0..20 {
        for key in 0..10 {
            put(&mut log, 0, key, Some(&format!("value {round}")));
        }
    }
    log.close().expect("flushed");
    let before = copy(&remote, &log, 0).await;
    let (table, all) = read(&remote, 0).await;
    assert!(compact(&remote, 0, 1_000).await > before.segments.len());
    let after = remote.manifest().expect("known");
    let (same, few) = read(&remote, 0).await;
    assert_eq!((same, after.end()), (table, before.end()));
    assert!(all > 150 && few < 15, "{few} of {all}");
    assert_eq!(after.removed.len(), before.segments.len() - unchanged(&before, &after));
    assert!(!remote.compact(0, id(), settings(1_000)).await.expect("asked"), "there is no more");
    // Once more with nothing new but one segment: what was small is merged.
    for key in 0..10 {
        put(&mut log, 0, key, Some("last"));
    }
    log.close().expect("flushed");
    copy(&remote, &log, 0).await;
    compact(&remote, 0, 1_000).await;
    let merged = remote.manifest().expect("known");
    assert!(merged.segments.len() < 4, "{} segments", merged.segments.len());
    let tier = Tier::new(store.clone(), CACHE_BYTES);
    assert_eq!(tier.verify(&merged).await.damaged.len(), 0);
    // Producers are known as before, and what nobody reads goes.
    let state = remote.state_at(merged.end().expect("some")).await.expect("known");
    let sequence = i32::try_from(merged.end().expect("some")).expect("small");
    let next = BatchBuilder::new().producer(7, 0, sequence).record(0, None, None).build();
    assert!(state.producers.check(&BatchHeader::parse(&next).expect("header")).is_ok());
    remote.sweep(0, 10, 100_000).await.expect("swept");
    let objects = store.list("").await.expect("listed").len();
    assert_eq!(objects, merged.segments.len() + 1);
}

fn unchanged(before: &Manifest, after: &Manifest) -> usize {
    before.segments.iter().filter(|s| after.segments.iter().any(|now| now.id == s.id)).count()
}

#[tokio::test]
async fn whatever_is_compacted_where_and_when_readers_know_the_same_at_last() {
    for seed in 0..8 {
        let (store, switch) = faulty(Fault::None);
        let (mut log, random) = (compacted_log(), Random::seeded(seed));
        let remote_of: fn(&_) -> _ = if seed % 2 == 0 { remote } else { encrypted };
        let mut remote = remote_of(&store);
        let (mut table, mut epoch, mut now_ms) = (Table::new(), 0, 0);
        for _ in 0..60 {
            now_ms += i64::try_from(random.below(400)).expect("small");
            for _ in 0..random.below(12) {
                let (key, value) = (random.below(8), random.below(4) > 0);
                let value = value.then(|| format!("value at {}", log.log_end()));
                put(&mut log, epoch, key, value.as_deref());
                let key = format!("key-{key}");
                apply(&mut table, key.as_bytes(), value.as_deref().map(str::as_bytes));
            }
            log.close().expect("flushed");
            if random.below(6) == 0 {
                copy(&remote, &log, epoch).await;
            }
            for _ in 0..random.below(8) {
                if random.below(10) == 0 {
                    let faults = [Fault::Short, Fault::Flipped, Fault::Down, Fault::DoneButFailed];
                    let at = usize::try_from(random.below(4)).expect("small");
                    *switch.lock() = faults[at];
                }
                if remote.compact(epoch, id(), settings(now_ms)).await.is_err() {
                    *switch.lock() = Fault::None;
                    copy(&remote, &log, epoch).await;
                }
                *switch.lock() = Fault::None;
            }
            if random.below(2) == 0
                && let Some(plan) = log.clean_plan(now_ms, log.log_end(), 1 << 20)
            {
                let cleaned = plan.run(&mut |_| {}).expect("cleaned");
                log.swap_cleaned(cleaned).expect("swapped");
            }
            if random.below(6) == 0 {
                // Another leader, with the same log.
                epoch += 1;
                remote = remote_of(&store);
            }
            remote.sweep(epoch, 0, now_ms).await.expect("swept");
        }
        copy(&remote, &log, epoch).await;
        let end = log.active_base();
        let (mut seen, _) = read(&remote, 0).await;
        let rest = log.slice(end, log.end(), 1 << 20, true).expect("local");
        let rest = rest.map(|slice| slice.read().expect("read")).unwrap_or_default();
        let mut rest = &*rest;
        while let Some((header, batch, after)) = next_batch(rest) {
            rest = after;
            for record in &Records::open(header, batch, 1 << 20).expect("open") {
                let record = record.expect("record");
                apply(&mut seen, record.key.expect("a key"), record.value);
            }
        }
        assert_eq!(seen, table, "seed {seed}");
    }
}

#[tokio::test]
async fn a_tombstone_stays_for_its_time_and_then_goes() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (compacted_log(), remote(&store));
    let fill = |log: &mut Log| {
        for key in 100..110 {
            put(log, 0, key, Some("filler"));
        }
        log.close().expect("flushed");
    };
    put(&mut log, 0, 1, Some("old"));
    fill(&mut log);
    put(&mut log, 0, 1, None);
    fill(&mut log);
    copy(&remote, &log, 0).await;
    compact(&remote, 0, 0).await;
    let (_, with) = read(&remote, 0).await;
    assert_eq!(with, 11, "ten fillers and a tombstone");
    fill(&mut log);
    copy(&remote, &log, 0).await;
    compact(&remote, 0, HORIZON_MS).await;
    assert_eq!(read(&remote, 0).await.1, 11, "its time is not over");
    fill(&mut log);
    copy(&remote, &log, 0).await;
    compact(&remote, 0, HORIZON_MS + 1).await;
    assert_eq!(read(&remote, 0).await.1, 10);
}

#[tokio::test]
async fn what_an_unclean_election_cut_is_compacted_without_what_was_cut() {
    let (store, _) = faulty(Fault::None);
    let (mut lost, old) = (compacted_log(), remote(&store));
    for at in 0..40 {
        put(&mut lost, i32::from(at >= 25), at % 5, Some(&format!("value {at}")));
    }
    lost.close().expect("flushed");
    copy(&old, &lost, 1).await;
    // The other one never had what epoch 1 wrote.
    let (mut log, mut table) = (compacted_log(), Table::new());
    for at in 0..60 {
        let (epoch, key) = if at < 25 { (0, at % 5) } else { (2, at % 7 + 10) };
        put(&mut log, epoch, key, Some(&format!("value {at}")));
    }
    log.close().expect("flushed");
    let remote = remote(&store);
    let manifest = copy(&remote, &log, 2).await;
    assert!(manifest.segments.iter().any(|segment| segment.end_offset == 25), "{manifest:?}");
    compact(&remote, 2, 0).await;
    let end = u64::try_from(manifest.end().expect("some")).expect("positive");
    for at in 0..end {
        let key = if at < 25 { at % 5 } else { at % 7 + 10 };
        apply(&mut table, format!("key-{key}").as_bytes(), Some(format!("value {at}").as_bytes()));
    }
    assert_eq!(read(&remote, 0).await.0, table);
    let state = remote.state_at(25).await.expect("known");
    let batch = BatchBuilder::new().producer(7, 0, 25).record(0, None, None).build();
    assert!(state.producers.check(&BatchHeader::parse(&batch).expect("header")).is_ok());
    assert_eq!(remote.manifest().expect("known").topic_id, TOPIC);
}

/// A follower learns epochs from what it reads: that of two replicas one has another history than the other, though both are
/// right, would be taken for an unclean election.
#[tokio::test]
async fn where_an_epoch_began_is_seen_in_what_compaction_leaves_here_and_in_the_bucket() {
    let (store, _) = faulty(Fault::None);
    let (mut log, remote) = (compacted_log(), remote(&store));
    for epoch in [0, 2, 5, 6] {
        // Of the epochs before the last one no record is the newest of its key.
        for key in 0..30 {
            put(&mut log, epoch, key, Some("value"));
        }
    }
    log.close().expect("flushed");
    copy(&remote, &log, 6).await;
    compact(&remote, 6, 0).await;
    let plan = log.clean_plan(0, log.log_end(), 1 << 20).expect("dirty");
    let cleaned = plan.run(&mut |_| {}).expect("cleaned");
    log.swap_cleaned(cleaned).expect("swapped");
    let began = log.epochs().lines();
    assert_eq!(began.len(), 4);
    let manifest = remote.manifest().expect("known");
    let (mut at, mut there) = (0, crate::log::LeaderEpochs::default());
    while manifest.find(at).is_some() {
        let bytes = remote.reader().read(&manifest, at, 700, Offset::MAX).await.expect("read");
        at = note_epochs(&bytes, &mut there);
    }
    let slice = log.slice(0, log.end(), 1 << 20, true).expect("local").expect("some");
    let mut here = crate::log::LeaderEpochs::default();
    let (mut slice, mut from) = (Some(slice), 0);
    while let Some(read) = slice.take() {
        from = note_epochs(&read.read().expect("read"), &mut here);
        if from < log.log_end() {
            slice = log.slice(from, log.end(), 1 << 20, true).expect("local");
        }
    }
    assert_eq!((from, at), (log.log_end(), manifest.end().expect("some")));
    assert_eq!((here.lines(), there.lines()), (began.clone(), began));
}

/// What a follower learns; returns where it reads on.
fn note_epochs(mut bytes: &[u8], epochs: &mut crate::log::LeaderEpochs) -> Offset {
    let mut next = -1;
    while let Some((header, _, after)) = next_batch(bytes) {
        bytes = after;
        epochs.assign(header.leader_epoch, header.base_offset);
        next = header.last_offset() + 1;
    }
    next
}

/// A log as a replica holds it that an earlier release compacted, and then a segment with one record, and a closed one with none.
fn emptied_log(codec: Codec) -> Log {
    let mut log = compacted_log();
    let fetch = |log: &mut Log, bytes: Vec<u8>| {
        let header = BatchHeader::parse(&bytes).expect("a header");
        log.append_fetched(&[NewBatch { header, bytes: &bytes }], 0).expect("appended");
    };
    for base in (0..100).step_by(10) {
        fetch(&mut log, BatchBuilder::ill(codec, base..base + 4));
        fetch(&mut log, BatchBuilder::ill(codec, base + 4..base + 10));
    }
    let record = |base: Offset, key: &[u8]| {
        let mut bytes = BatchBuilder::new().record(5, Some(key), Some(&[7; 1_000])).build();
        crate::record::batch::patch_position(&mut bytes, base, 0);
        bytes
    };
    fetch(&mut log, record(100, b"one"));
    for base in (101..200).step_by(9) {
        fetch(&mut log, BatchBuilder::ill(codec, base..base + 9));
    }
    fetch(&mut log, record(200, b"two"));
    log.close().expect("flushed");
    log
}

#[tokio::test]
async fn an_object_that_the_next_leader_removed_is_nothing_to_act_on_and_one_that_is_lost_is() {
    for is_lost in [false, true] {
        let (store, _) = faulty(Fault::None);
        let mut log = compacted_log();
        for n in 0..200 {
            put(&mut log, 0, n % 7, Some("value"));
        }
        log.close().expect("flushed");
        let old = remote(&store);
        let manifest = copy(&old, &log, 0).await;
        let first = manifest.object(&manifest.segments[0]);
        if is_lost {
            store.delete(std::slice::from_ref(&first)).await.expect("deleted");
        } else {
            let new = remote(&store);
            new.claim(1, (log.epochs(), log.log_end()), 0).await.expect("claimed");
            let end = manifest.segments[1].end_offset;
            let advance = |manifest: &mut Manifest| {
                manifest.advance(end, 1_000);
                Ok(())
            };
            new.change(1, advance).await.expect("changed");
            assert!(new.sweep(1, 0, 2_000).await.expect("swept") > 0);
        }
        let error = old.compact(0, id(), settings(0)).await.expect_err("there is no object");
        assert_eq!(error.is_passing(), !is_lost, "{error}");
        assert_eq!(error.to_string().contains(&first), is_lost, "{error}");
    }
}

#[tokio::test]
async fn whoever_wants_records_is_led_past_a_batch_in_the_bucket_whose_records_all_come_before() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut log = compacted_log();
        for base in (0..12).step_by(3) {
            let value = [7; 700];
            let three = (0..3).fold(BatchBuilder::new().codec(codec), |builder, key: u8| {
                builder.record(5, Some(&[key]), Some(&value))
            });
            let mut bytes = three.build();
            crate::record::batch::patch_position(&mut bytes, base, 0);
            let header = BatchHeader::parse(&bytes).expect("a header");
            let records = Records::open(header, &bytes, 1 << 20).expect("records");
            let mut thinned = BatchBuilder::like(&header).codec(codec);
            thinned.keep(&records.iter().next().expect("one").expect("a record"));
            thinned.reach(base + 2);
            let bytes = thinned.build();
            let header = BatchHeader::parse(&bytes).expect("a header");
            assert_eq!((header.count, header.last_offset()), (1, base + 2));
            log.append_fetched(&[NewBatch { header, bytes: &bytes }], 0).expect("appended");
        }
        // What follows closes their segment.
        for base in [12, 13] {
            let mut bytes = BatchBuilder::new().record(5, Some(b"k"), Some(&[7; 1_000])).build();
            crate::record::batch::patch_position(&mut bytes, base, 0);
            let header = BatchHeader::parse(&bytes).expect("a header");
            log.append_fetched(&[NewBatch { header, bytes: &bytes }], 0).expect("appended");
        }
        log.close().expect("flushed");
        let (store, _) = faulty(Fault::None);
        let remote = remote(&store);
        let manifest = copy(&remote, &log, 0).await;
        let end = manifest.end().expect("some");
        for at in 0..10 {
            let found = remote.reader().read_records(&manifest, at, (1, true), end).await;
            let found = found.expect("read").expect("whole");
            let first = BatchHeader::parse(&found.bytes).expect("a batch");
            assert_eq!(first.base_offset, (at + 2) / 3 * 3, "{codec:?} from {at}");
        }
        let past = remote.reader().read_records(&manifest, 10, (1, true), 12).await;
        assert!(!past.expect("read").expect("whole").has_records);
    }
}

#[tokio::test]
async fn batches_without_records_are_healed_in_the_bucket_and_lead_whoever_reads_past_them() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let (store, _) = faulty(Fault::None);
        let (log, remote) = (emptied_log(codec), remote(&store));
        let manifest = copy(&remote, &log, 0).await;
        let end = manifest.end().expect("some");
        assert!(manifest.segments.len() > 3 && end > 120, "{manifest:?}");
        let all_sound = async |manifest: &Manifest| {
            let mut at = 0;
            while at < end {
                let bytes = remote.reader().read(manifest, at, 150, end).await.expect("read");
                let mut rest = &*bytes;
                while let Some((header, batch, after)) = next_batch(rest) {
                    assert!(!header.has_codec_without_records(), "{codec:?} at {at}");
                    assert_eq!(crate::record::batch::checksum(batch), Some(header.crc));
                    (rest, at) = (after, header.last_offset() + 1);
                }
            }
        };
        all_sound(&manifest).await;
        let records = async |manifest: &Manifest, at: Offset, end: Offset| {
            let found = remote.reader().read_records(manifest, at, (150, true), end).await;
            let found = found.expect("read").expect("whole");
            let first = BatchHeader::parse(&found.bytes).expect("a batch");
            assert!(first.last_offset() >= at && first.last_offset() < end);
            assert_eq!(found.has_records, first.count > 0);
            (first.base_offset, first.count, found.next)
        };
        for at in [0, 3, 50, 99, 100] {
            assert_eq!(records(&manifest, at, end).await.0, 100, "{codec:?} from {at}");
        }
        // Below what is committed there is none, and past the last one neither.
        assert_eq!(records(&manifest, 5, 100).await, (5, 0, 100));
        assert_eq!(records(&manifest, 101, end).await, (101, 0, end));
        compact(&remote, 0, 0).await;
        let manifest = remote.manifest().expect("known");
        assert_eq!(manifest.end(), Some(end));
        all_sound(&manifest).await;
        for segment in &manifest.segments {
            let (object, _) = store.get(&manifest.object(segment)).await.expect("there");
            let mut rest = &object[..usize::try_from(segment.log_bytes).expect("small")];
            while let Some((header, _, after)) = next_batch(rest) {
                assert!(!header.has_codec_without_records(), "{codec:?}: what is in the bucket");
                rest = after;
            }
            assert!(rest.is_empty());
        }
    }
}
