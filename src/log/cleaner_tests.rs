//! The cleaner: what it leaves, what it merges, and what a stop, a deletion or an earlier release leaves it.

use std::collections::BTreeMap;
use std::path::Path;

use super::lookup::Wanted;
use super::swapping::{Step, step};
use super::tests::{DIR, append, batch, config, flush, open, open_with, put, read_all};
use super::*;
use crate::config::TopicConfig;
use crate::model::{NO_TIMESTAMP, Offset, Timestamp};
use crate::record::{BatchBuilder, BatchHeader, Codec, HEADER_BYTES, next_batch};
use crate::system::sim_disk::SimDisk;
use crate::system::{Disk, Random};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn compacted(changes: &[(&str, &str)]) -> TopicConfig {
    let all = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0")];
    config(&[&all, changes].concat())
}

/// A pass over everything that is closed; whether there was something to do.
fn clean(log: &mut Log, now_ms: Timestamp) -> bool {
    let Some(plan) = log.clean_plan(now_ms, log.log_end(), 1 << 20) else { return false };
    let cleaned = plan.run(&mut |_| {}).expect("cleaned");
    log.swap_cleaned(cleaned).expect("swapped");
    true
}

fn headers(log: &Log) -> Vec<BatchHeader> {
    let (mut at, mut all) = (log.log_start(), Vec::new());
    while let Some(slice) = log.slice(at, log.end(), 300, true).expect("slice") {
        let bytes = slice.read().expect("read");
        let mut rest = bytes.as_slice();
        while let Some((header, one, after)) = next_batch(rest) {
            assert_eq!(crate::record::batch::checksum(one), Some(header.crc));
            assert!(header.last_offset() >= at, "reading on gets somewhere");
            (rest, at) = (after, header.last_offset() + 1);
            all.push(header);
        }
    }
    all
}

fn names(disk: &SimDisk, ending: &str) -> Vec<String> {
    let names = disk.list(Path::new(DIR)).expect("listed").into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(ending)).collect()
}

fn newest(log: &Log) -> BTreeMap<String, String> {
    read_all(log, log.log_start()).into_iter().map(|(_, key, value)| (key, value)).collect()
}

/// One batch a segment.
fn put_closed(log: &mut Log, builder: BatchBuilder, now_ms: Timestamp) {
    append(log, builder, now_ms);
    log.roll().expect("rolled");
    flush(log);
}

#[test]
fn a_batch_that_loses_its_records_is_kept_without_codec_and_with_its_time() {
    for (codec, stamped) in CODECS.into_iter().flat_map(|codec| [(codec, false), (codec, true)]) {
        let mut log = open(&SimDisk::default(), &compacted(&[]));
        let sent = |producer, sequence| {
            let one = BatchBuilder::new().codec(codec).producer(producer, 3, sequence);
            let (_, mut bytes) = batch(one.record(70, Some(b"k"), Some(&[7; 300])).record(
                60,
                Some(b"l"),
                Some(&[8; 300]),
            ));
            if stamped {
                crate::record::batch::stamp_append_time(&mut bytes, 80);
            }
            bytes
        };
        for producer in [1, 2] {
            let bytes = sent(producer, 40);
            let header = BatchHeader::parse(&bytes).expect("a header");
            let stamp = Stamp { leader_epoch: 5, now_ms: 80 };
            log.append(&header, &bytes, stamp).expect("appended");
            log.roll().expect("rolled");
        }
        flush(&mut log);
        assert!(clean(&mut log, 100));
        let all = headers(&log);
        let empty = all[0];
        assert_eq!(
            (all.len(), empty.count, empty.total_bytes()),
            (2, 0, HEADER_BYTES),
            "{codec:?}"
        );
        assert_eq!(empty.attributes, if stamped { 8 } else { 0 }, "{codec:?}");
        assert_eq!(empty.max_timestamp, if stamped { 80 } else { 70 });
        assert_eq!(empty.base_timestamp, NO_TIMESTAMP);
        assert_eq!((empty.base_offset, empty.last_offset(), empty.leader_epoch), (0, 1, 5));
        let producer = (empty.producer_id, empty.producer_epoch, empty.base_sequence);
        assert_eq!((producer, empty.last_sequence()), ((1, 3, 40), 41));
    }
}

#[test]
fn what_is_cleaned_becomes_one_segment_as_far_as_its_settings_allow() {
    let (disk, config) = (SimDisk::default(), compacted(&[("segment.index.bytes", "100000")]));
    let mut log = open(&disk, &config);
    for i in 0..44 {
        let value = format!("v{i}");
        let one = BatchBuilder::new().record(i, Some(b"k"), Some(value.as_bytes()));
        put_closed(&mut log, one, i);
        clean(&mut log, i);
    }
    put(&mut log, "other", "x", 44);
    assert_eq!(log.segments(), 2);
    assert_eq!(names(&disk, ".log").len(), 2);
    assert_eq!(names(&disk, ".index").len(), 1, "an index is there without anybody having read");
    assert!(names(&disk, "cleaned").is_empty() && names(&disk, ".swap").is_empty());
    assert_eq!(
        read_all(&log, 0),
        [(43, "k".into(), "v43".into()), (44, "other".into(), "x".into())]
    );
    // Many small segments of before: as large as they may become, by bytes, by index and by offsets.
    let sizes = |changes: &[(&str, &str)], span: Offset| {
        let mut log = open(&SimDisk::default(), &compacted(changes));
        for i in 0..40 {
            let key = format!("{i}");
            let mut one = BatchBuilder::new().record(0, Some(key.as_bytes()), Some(&[1; 400]));
            one.reach(span - 1);
            put_closed(&mut log, one, 0);
        }
        assert!(clean(&mut log, 100));
        assert_eq!(read_all(&log, 0).len(), 40);
        log.segments() - 1
    };
    assert_eq!(sizes(&[], 1), 1);
    let batch_bytes = 477;
    let five = (5 * (batch_bytes + 1)).to_string();
    assert!((8..=9).contains(&sizes(&[("segment.bytes", &five)], 1)));
    assert_eq!(sizes(&[("segment.index.bytes", "80"), ("index.interval.bytes", "1")], 1), 40);
    assert_eq!(sizes(&[], (1 << 31) / 4), 14);
}

#[test]
fn a_batch_without_records_stays_no_longer_than_it_is_needed() {
    let mut log = open(&SimDisk::default(), &compacted(&[]));
    // One that is first in its epoch; one of a producer that lives; one that is the last of what is cleaned.
    put_closed(&mut log, BatchBuilder::new().record(1, Some(b"a"), Some(b"1")), 1);
    put_closed(&mut log, BatchBuilder::new().record(2, Some(b"a"), Some(b"2")), 2);
    put_closed(
        &mut log,
        BatchBuilder::new().producer(9, 0, 0).record(3, Some(b"a"), Some(b"3")),
        3,
    );
    put_closed(&mut log, BatchBuilder::new().record(4, Some(b"a"), Some(b"4")), 4);
    put_closed(&mut log, BatchBuilder::new().record(5, None, Some(b"no key")), 5);
    assert!(clean(&mut log, 100));
    let left = |log: &Log| -> Vec<_> {
        headers(log).iter().map(|header| (header.base_offset, header.count)).collect()
    };
    assert_eq!(left(&log), [(0, 0), (2, 0), (3, 1), (4, 0)]);
    log.expire_producers(i64::MAX, 1);
    put_closed(&mut log, BatchBuilder::new().record(6, Some(b"b"), Some(b"6")), 6);
    assert!(clean(&mut log, 100));
    assert_eq!(left(&log), [(0, 0), (3, 1), (5, 1)]);
    assert!(!clean(&mut log, 100), "there is nothing to do");
}

#[test]
fn a_stop_at_any_moment_of_a_swap_loses_nothing_and_leaves_nothing() {
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let (disk, config) = (SimDisk::default(), compacted(&[("segment.bytes", "1000")]));
        let mut log = open(&disk, &config);
        for i in 0..60 {
            let key = format!("k{}", random.below(7));
            let value =
                format!("v{i} {}", "x".repeat(usize::try_from(random.below(200)).expect("small")));
            let one = BatchBuilder::new().record(i, Some(key.as_bytes()), Some(value.as_bytes()));
            append(&mut log, one, i);
            if random.below(3) == 0 {
                log.roll().expect("rolled");
            }
        }
        flush(&mut log);
        let (before, end) = (newest(&log), log.log_end());
        let plan = log.clean_plan(100, end, 1 << 20).expect("something to clean");
        let cleaned = plan.run(&mut |_| {}).expect("cleaned");
        let merged = cleaned.segments.iter().map(|new| new.old.len()).max();
        assert!(merged.is_some_and(|most| most > 2), "{merged:?}");
        // Steps are as far as a random one, and of that one some segments are done.
        let (stop, of_last) = (random.below(4), random.below(5));
        for (at, one) in (0..).zip(Step::ALL).filter(|(at, _)| *at <= stop) {
            let count = if at == stop { of_last } else { u64::MAX };
            for new in cleaned.segments.iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
                step(&disk, new, one).expect("a step");
            }
            if at < stop {
                disk.sync_dir(Path::new(DIR)).expect("flushed");
            }
        }
        drop(log);
        if random.below(3) == 0 {
            disk.die();
        } else {
            disk.crash(&random);
        }
        let point = RecoveryPoint { offset: end, log_start: 0, has_producers: false };
        let (mut log, _) = open_with(&disk, &config, point).expect("opens");
        assert_eq!((log.log_start(), log.log_end()), (0, end), "seed {seed}");
        assert_eq!(newest(&log), before, "seed {seed}");
        assert!(names(&disk, "cleaned").is_empty() && names(&disk, ".swap").is_empty());
        put(&mut log, "after", "it", 100);
        clean(&mut log, 200);
        assert_eq!(newest(&log).len(), before.len() + 1, "seed {seed}");
        let point = RecoveryPoint { offset: log.log_end(), ..point };
        flush(&mut log);
        drop(log);
        disk.crash(&random);
        let (log, _) = open_with(&disk, &config, point).expect("opens");
        assert_eq!(newest(&log).len(), before.len() + 1, "seed {seed}");
    }
}

#[test]
fn a_pass_that_is_overtaken_leaves_nothing_and_changes_nothing() {
    let (disk, config) = (SimDisk::default(), compacted(&[("cleanup.policy", "compact,delete")]));
    let filled = |disk: &SimDisk| {
        let mut log = open(disk, &config);
        for i in 0..6 {
            let key = format!("k{}", i % 2);
            let one = BatchBuilder::new().record(i, Some(key.as_bytes()), Some(b"v"));
            put_closed(&mut log, one, i);
        }
        log
    };
    let delete_two = |log: &mut Log| {
        log.trim(2);
        let deleted = log.apply_retention(100, log.log_end()).expect("deleted");
        assert_eq!(deleted.len(), 2);
    };
    // Before it reads them.
    let mut log = filled(&disk);
    let plan = log.clean_plan(100, log.log_end(), 1 << 20).expect("a plan");
    delete_two(&mut log);
    assert!(plan.run(&mut |_| {}).is_err() && plan.is_overtaken());
    assert!(names(&disk, "cleaned").is_empty());
    // While it writes.
    let disk = SimDisk::default();
    let mut log = filled(&disk);
    let plan = log.clean_plan(100, log.log_end(), 1 << 20).expect("a plan");
    let mut batches = 0;
    let failed = plan.run(&mut |_| {
        batches += 1;
        if batches == 7 {
            delete_two(&mut log);
        }
    });
    assert!(failed.is_err() && plan.is_overtaken(), "{batches}");
    assert!(names(&disk, "cleaned").is_empty());
    // When it is done.
    let disk = SimDisk::default();
    let mut log = filled(&disk);
    let plan = log.clean_plan(100, log.log_end(), 1 << 20).expect("a plan");
    let cleaned = plan.run(&mut |_| {}).expect("cleaned");
    delete_two(&mut log);
    log.swap_cleaned(cleaned).expect("swapped");
    assert!(names(&disk, "cleaned").is_empty() && names(&disk, ".swap").is_empty());
    assert_eq!(read_all(&log, 2).len(), 4);
    assert!(clean(&mut log, 100));
    assert_eq!(read_all(&log, 2).len(), 2);
    // The log is gone.
    let disk = SimDisk::default();
    let log = filled(&disk);
    let plan = log.clean_plan(100, log.log_end(), 1 << 20).expect("a plan");
    let cleaned = plan.run(&mut |_| {}).expect("cleaned");
    assert!(!names(&disk, "cleaned").is_empty());
    cleaned.discard();
    assert!(names(&disk, "cleaned").is_empty());
}

fn fetch(log: &mut Log, batches: &[Vec<u8>]) {
    let header = |bytes: &Vec<u8>| BatchHeader::parse(bytes).expect("a header");
    let new: Vec<_> =
        batches.iter().map(|bytes| NewBatch { header: header(bytes), bytes }).collect();
    log.append_fetched(&new, 0).expect("appended");
}

/// One with two records.
fn sound(base: Offset) -> Vec<u8> {
    let key = format!("k{base}");
    let two =
        BatchBuilder::new().record(9, Some(key.as_bytes()), Some(b"v")).record(9, Some(b"x"), None);
    let mut bytes = two.build();
    crate::record::batch::patch_position(&mut bytes, base, 0);
    bytes
}

/// What a client is sent from an offset on, batch by batch: base offset and how many records.
fn sent(log: &Log, from: Offset, bytes_max: usize) -> Vec<Vec<(Offset, i32)>> {
    let (mut at, mut answers) = (from, Vec::new());
    while at < log.log_end() {
        let answer = [Wanted::Records, Wanted::Any].into_iter().find_map(|wanted| {
            let mut past = None;
            loop {
                let search = log.search(at, past, log.end()).expect("searched")?;
                match search.run(wanted, bytes_max, true).expect("run") {
                    Searched::Slice(slice) => return slice,
                    Searched::Past(base) => past = Some(base),
                }
            }
        });
        let bytes = answer.expect("something").read().expect("read");
        let (mut rest, mut batches) = (bytes.as_slice(), Vec::new());
        while let Some((header, _, after)) = next_batch(rest) {
            batches.push((header.base_offset, header.count));
            (rest, at) = (after, header.last_offset() + 1);
        }
        answers.push(batches);
    }
    answers
}

#[test]
fn no_client_is_sent_two_batches_without_records_side_by_side() {
    let gap = |offsets: std::ops::Range<Offset>| BatchBuilder::gap(&offsets, 0);
    let disk = SimDisk::default();
    let mut log = open(&disk, &compacted(&[]));
    let both = [
        vec![sound(0), gap(2..3), gap(3..5), gap(5..6), sound(6), gap(8..9), sound(9)],
        vec![gap(11..12), gap(12..13), sound(13), gap(15..17), gap(17..18), gap(18..19)],
    ];
    let check = |log: &Log| {
        for bytes_max in [1, 62, 130, 200, 300, 10_000] {
            // Twice, since what is known to be sound is remembered.
            for _ in 0..2 {
                let answers = sent(log, 0, bytes_max);
                for answer in &answers {
                    let pair = answer.windows(2).find(|two| two.iter().all(|batch| batch.1 == 0));
                    assert_eq!(pair, None, "{bytes_max}: {answers:?}");
                }
                let all: Vec<_> =
                    answers.concat().into_iter().filter(|batch| batch.1 > 0).collect();
                assert_eq!(all, [(0, 2), (6, 2), (9, 2), (13, 2)], "{bytes_max}");
            }
        }
    };
    for batches in &both {
        fetch(&mut log, batches);
        log.roll().expect("rolled");
    }
    check(&log);
    assert_eq!(sent(&log, 3, 10_000)[0][0], (6, 2), "from within them");
    let for_replicas = log.slice(0, log.end(), 10_000, true).expect("slice").expect("something");
    assert_eq!(for_replicas.read().expect("read"), both[0].concat(), "replicas get all of it");
    flush(&mut log);
    drop(log);
    let point = RecoveryPoint { offset: 19, log_start: 0, has_producers: false };
    let (log, _) = open_with(&disk, &compacted(&[]), point).expect("opens");
    check(&log);
}

#[test]
fn what_an_earlier_release_emptied_is_healed_when_it_is_read_and_when_it_is_cleaned() {
    for codec in CODECS.into_iter().skip(1) {
        let disk = SimDisk::default();
        let mut log = open(&disk, &compacted(&[]));
        fetch(
            &mut log,
            &[
                BatchBuilder::ill(codec, 0..2),
                sound(2),
                BatchBuilder::ill(codec, 4..5),
                BatchBuilder::ill(codec, 5..9),
                sound(9),
            ],
        );
        log.roll().expect("rolled");
        fetch(&mut log, &[sound(11), BatchBuilder::ill(codec, 13..15)]);
        let is_sound = |header: &BatchHeader| !header.has_codec_without_records();
        let shape = |log: &Log| -> Vec<_> {
            let all = headers(log);
            assert!(all.iter().all(is_sound), "{codec:?}");
            all.iter()
                .map(|header| (header.base_offset, header.last_offset(), header.count))
                .collect()
        };
        let whole =
            [(0, 1, 0), (2, 3, 2), (4, 4, 0), (5, 8, 0), (9, 10, 2), (11, 12, 2), (13, 14, 0)];
        assert_eq!(shape(&log), whole, "{codec:?}");
        // In pieces of any size, with what is known of it and without.
        for bytes_max in [1, 60, 61, 62, 100, 200, 300, 1_000] {
            let (mut at, mut count) = (0, 0);
            while let Some(slice) = log.slice(at, log.end(), bytes_max, true).expect("slice") {
                let bytes = slice.read().expect("read");
                assert_eq!(bytes.len(), slice.bytes);
                let mut rest = bytes.as_slice();
                while let Some((header, _, after)) = next_batch(rest) {
                    assert!(is_sound(&header), "{codec:?} {bytes_max}");
                    (rest, at, count) = (after, header.last_offset() + 1, count + 1);
                }
            }
            assert_eq!((at, count), (15, 7), "{codec:?} {bytes_max}");
        }
        // After a start nothing is known of it.
        flush(&mut log);
        drop(log);
        let point = RecoveryPoint { offset: 15, log_start: 0, has_producers: false };
        let (mut log, _) = open_with(&disk, &compacted(&[]), point).expect("opens");
        assert_eq!(shape(&log), whole, "{codec:?}");
        log.roll().expect("rolled");
        flush(&mut log);
        assert!(clean(&mut log, 100));
        assert_eq!(log.segments(), 2);
        assert_eq!(shape(&log), [(0, 1, 0), (2, 3, 1), (9, 10, 1), (11, 12, 2), (13, 14, 0)]);
        let file = disk
            .open(&Path::new(DIR).join(&names(&disk, ".log")[0]), crate::system::OpenMode::Read);
        let mut bytes = vec![0; 4_000];
        let read = file.expect("there").read_at(&mut bytes, 0).expect("read");
        bytes.truncate(read);
        let mut rest = bytes.as_slice();
        while let Some((header, _, after)) = next_batch(rest) {
            assert!(is_sound(&header), "{codec:?}: what is on the disk");
            rest = after;
        }
    }
}

#[test]
fn whoever_wants_records_is_led_past_a_batch_whose_records_all_come_before() {
    for codec in CODECS {
        let mut log = open(&SimDisk::default(), &compacted(&[]));
        let put = |log: &mut Log, keys: &[&str]| {
            let builder = keys.iter().fold(BatchBuilder::new().codec(codec), |builder, key| {
                builder.record(9, Some(key.as_bytes()), Some(&[7; 50]))
            });
            put_closed(log, builder, 9);
        };
        put(&mut log, &["a", "b", "c"]);
        put(&mut log, &["c", "d", "b", "e"]);
        put(&mut log, &["e", "f", "d"]);
        assert!(clean(&mut log, 10));
        let first = |at| {
            let search = log.search(at, None, log.end()).expect("searched").expect("some");
            let Searched::Slice(Some(slice)) = search.run(Wanted::Records, 1, true).expect("run")
            else {
                panic!("nothing at {at}");
            };
            let bytes = slice.read().expect("read");
            BatchHeader::parse(&bytes).expect("a header").base_offset
        };
        let found: Vec<Offset> = (0..10).map(first).collect();
        assert_eq!(found, [0, 3, 3, 3, 3, 3, 7, 7, 7, 7], "{codec:?}");
        let answers: Vec<_> = sent(&log, 0, 10_000).concat();
        assert_eq!(answers, [(0, 1), (3, 2), (7, 3)], "replicas and whoever reads on get all");
    }
}

#[test]
fn whoever_wants_records_is_led_past_what_has_none() {
    let mut log = open(&SimDisk::default(), &compacted(&[]));
    let empty = |offsets| BatchBuilder::gap(&offsets, 0);
    fetch(&mut log, &[sound(0), empty(2..5), empty(5..6)]);
    log.roll().expect("rolled");
    fetch(&mut log, &[BatchBuilder::ill(Codec::Lz4, 6..8)]);
    log.roll().expect("rolled");
    fetch(&mut log, &[empty(8..9), sound(9), empty(11..12)]);
    let at = |offset, end| {
        let mut past = None;
        while let Some(search) = log.search(offset, past, end).expect("a search") {
            match search.run(Wanted::Records, 1, true).expect("found") {
                Searched::Slice(slice) => {
                    let bytes = slice?.read().expect("read");
                    return Some(BatchHeader::parse(&bytes).expect("a header").base_offset);
                }
                Searched::Past(base) => past = Some(base),
            }
        }
        None
    };
    let all = log.end();
    let found: Vec<_> = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11].map(|offset| at(offset, all)).into();
    let expected = [0, 0, 9, 9, 9, 9, 9, 9, 9, 9].map(Some);
    assert_eq!(found[..10], expected);
    assert_eq!(found[10], None);
    let committed = Position::at(9);
    assert_eq!((at(1, committed), at(3, committed), at(8, committed)), (Some(0), None, None));
}

#[test]
fn a_segment_without_any_time_is_as_old_as_what_comes_after_it() {
    let changes =
        [("cleanup.policy", "compact,delete"), ("retention.ms", "1000"), ("segment.ms", "100")];
    let mut log = open(&SimDisk::default(), &compacted(&changes));
    // As earlier releases left them: emptied, and without their time.
    for base in 0..2 {
        fetch(&mut log, &[BatchBuilder::ill(Codec::Gzip, base..base + 1)]);
        log.roll().expect("rolled");
    }
    fetch(&mut log, &[sound(2)]);
    log.roll().expect("rolled");
    let late = BatchBuilder::new().record(5_000, Some(b"late"), Some(b"v"));
    put_closed(&mut log, late, 5_000);
    assert!(log.apply_retention(1_009, log.log_end()).expect("done").is_empty());
    assert_eq!(log.apply_retention(1_010, log.log_end()).expect("done").len(), 3);
    assert_eq!(log.log_start(), 4);
    // What is emptied now keeps its time.
    put_closed(&mut log, BatchBuilder::new().record(5_100, Some(b"late"), Some(b"w")), 5_100);
    put_closed(&mut log, BatchBuilder::new().record(5_200, None, Some(b"no key")), 5_200);
    assert!(clean(&mut log, 5_300));
    assert!(log.apply_retention(6_200, log.log_end()).expect("done").is_empty());
    assert_eq!(log.apply_retention(6_201, log.log_end()).expect("done").len(), 1);
    assert_eq!(log.log_start(), log.log_end());
}

#[test]
fn the_newest_record_is_found_where_something_newer_was_emptied() {
    let mut log = open(&SimDisk::default(), &compacted(&[]));
    put_closed(&mut log, BatchBuilder::new().record(10, Some(b"a"), Some(b"1")), 10);
    put_closed(&mut log, BatchBuilder::new().record(50, Some(b"b"), Some(b"1")), 10);
    put_closed(
        &mut log,
        BatchBuilder::new().producer(3, 0, 0).record(90, Some(b"a"), Some(b"2")),
        10,
    );
    put_closed(&mut log, BatchBuilder::new().record(30, Some(b"a"), Some(b"3")), 10);
    put(&mut log, "c", "1", 20);
    assert!(clean(&mut log, 100));
    assert!(headers(&log).iter().any(|header| (header.count, header.max_timestamp) == (0, 90)));
    let found =
        |timestamp| log.find_time(timestamp, log.log_end()).expect("looked").map(|f| f.offset);
    assert_eq!(found(None), Some(1));
    assert_eq!((found(Some(40)), found(Some(51)), found(Some(20))), (Some(1), None, Some(1)));
}
