//! The log as a whole, on the simulated disk: crashes, damage, retention, compaction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::recovery::Recovered;
use super::*;
use crate::config::{Config, TopicConfig};
use crate::model::{Offset, Timestamp, TopicPartition};
use crate::record::{BatchBuilder, BatchHeader, Codec, Records, next_batch};
use crate::system::sim_disk::{Faults, SimDisk};
use crate::system::{Disk, Random};

pub(super) const DIR: &str = "/data/t-0";

pub(super) fn config(changes: &[(&str, &str)]) -> TopicConfig {
    let overrides = changes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    TopicConfig::resolve(&Config::default(), &overrides)
}

pub(super) fn open_with(
    disk: &SimDisk,
    config: &TopicConfig,
    point: RecoveryPoint,
) -> Result<(Log, Recovered), OpenError> {
    let cache = Arc::new(FileCache::new(Arc::new(disk.clone()), 8, 8));
    let parts = LogParts { cache, config: Arc::new(config.clone()) };
    Log::open(TopicPartition::new("t", 0), PathBuf::from(DIR), parts, point, 0)
}

pub(super) fn open(disk: &SimDisk, config: &TopicConfig) -> Log {
    open_with(disk, config, RecoveryPoint::default()).expect("open").0
}

pub(super) fn batch(builder: BatchBuilder) -> (BatchHeader, Vec<u8>) {
    let bytes = builder.build();
    (BatchHeader::parse(&bytes).expect("header"), bytes)
}

pub(super) fn append(log: &mut Log, builder: BatchBuilder, now_ms: Timestamp) -> Appended {
    let (header, bytes) = batch(builder);
    log.append(&header, &bytes, Stamp { leader_epoch: 0, now_ms }).expect("append")
}

pub(super) fn put(log: &mut Log, key: &str, value: &str, time: Timestamp) {
    let value = (!value.is_empty()).then_some(value.as_bytes());
    append(log, BatchBuilder::new().record(time, Some(key.as_bytes()), value), time);
}

/// Every record from `from` on, as (offset, key, value).
pub(super) fn read_all(log: &Log, from: Offset) -> Vec<(Offset, String, String)> {
    let text = |b: Option<&[u8]>| String::from_utf8_lossy(b.unwrap_or_default()).into_owned();
    let (mut at, mut all) = (from, Vec::new());
    while let Some(slice) = log.slice(at, log.end(), 100, true).expect("slice") {
        let bytes = slice.read().expect("read");
        let mut rest = bytes.as_slice();
        while let Some((header, one, after)) = next_batch(rest) {
            rest = after;
            assert_eq!(crate::record::batch::checksum(one), Some(header.crc));
            for record in &Records::open(header, one, 1 << 20).expect("records") {
                let record = record.expect("record");
                all.push((record.offset, text(record.key), text(record.value)));
            }
            at = header.last_offset() + 1;
        }
    }
    all
}

pub(super) fn flush(log: &mut Log) {
    log.close().expect("flush");
}

#[test]
fn a_read_begins_with_the_batch_that_holds_the_offset() {
    let mut log = open(&SimDisk::default(), &config(&[]));
    for i in 0..10 {
        let three = BatchBuilder::new()
            .record(i, None, Some(b"a"))
            .record(i, None, Some(b"b"))
            .record(i, None, Some(b"c"));
        append(&mut log, three, i);
    }
    let slice = log.slice(4, log.end(), 1, true).expect("slice").expect("bytes");
    let header = BatchHeader::parse(&slice.read().expect("read")).expect("header");
    assert_eq!((header.base_offset, header.total_bytes()), (3, slice.bytes));
    assert!(log.slice(4, log.end(), slice.bytes - 1, false).expect("slice").is_none());
    assert!(log.slice(4, log.end(), slice.bytes, false).expect("slice").is_some());
    assert!(log.slice(30, log.end(), 1, true).expect("at the end").is_none());
    assert!(matches!(log.slice(31, log.end(), 1, true), Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_all(&log, 0).len(), 30);
}

#[test]
fn a_segment_that_was_made_before_a_process_died_is_there_after_the_power_was_cut() {
    for seed in 0..20 {
        let (disk, config) = (SimDisk::default(), config(&[]));
        let mut log = open(&disk, &config);
        put(&mut log, "k", "before", 0);
        flush(&mut log);
        let point = RecoveryPoint { offset: 1, log_start: 0, has_producers: false };
        log.roll().expect("rolled");
        // The process dies: the next segment's name is nowhere but in the page cache.
        drop(log);
        let mut log = open_with(&disk, &config, point).expect("open").0;
        put(&mut log, "k", "after", 1);
        let job = log.flush_job().expect("something to flush");
        for file in &job.files {
            file.sync().expect("synced");
        }
        if let Some(dir) = &job.dir {
            disk.sync_dir(dir).expect("synced");
        }
        drop((job, log));
        disk.crash(&Random::seeded(seed));
        let log = open_with(&disk, &config, point).expect("open").0;
        assert_eq!(log.log_end(), 2, "seed {seed}: what was flushed is lost");
    }
}

#[test]
fn segments_roll_by_size_and_reads_cross_them() {
    let mut config = config(&[]);
    config.segment_bytes = 200;
    config.index_interval_bytes = 50;
    let disk = SimDisk::default();
    let mut log = open(&disk, &config);
    for i in 0..40 {
        put(&mut log, &format!("k{i}"), "v", i);
    }
    assert!(log.segments() > 10);
    let expected: Vec<Offset> = (0..40).collect();
    assert_eq!(read_all(&log, 0).iter().map(|r| r.0).collect::<Vec<_>>(), expected);
    assert_eq!(
        log.find_time(Some(17), 40).expect("find").map(|f| (f.offset, f.timestamp)),
        Some((17, 17))
    );
    assert_eq!(log.find_time(None, 40).expect("find").map(|f| f.offset), Some(39));
    flush(&mut log);
    let again =
        open_with(&disk, &config, RecoveryPoint { offset: 40, log_start: 0, has_producers: false });
    let (log, recovered) = again.expect("reopen");
    assert_eq!((log.log_end(), recovered), (40, Recovered::default()));
    assert_eq!(read_all(&log, 7).len(), 33);
}

#[test]
fn a_missing_or_damaged_index_is_rebuilt() {
    let mut config = config(&[]);
    config.segment_bytes = 500;
    config.index_interval_bytes = 50;
    let disk = SimDisk::default();
    let mut log = open(&disk, &config);
    for i in 0..40 {
        put(&mut log, "k", "v", i);
    }
    flush(&mut log);
    let first = Path::new(DIR).join("00000000000000000000.index");
    disk.flip_bit(&first, 0);
    let time = Path::new(DIR).join("00000000000000000000.timeindex");
    Disk::remove(&disk, &time).expect("remove");
    let point = RecoveryPoint { offset: 40, log_start: 0, has_producers: false };
    let (log, _) = open_with(&disk, &config, point).expect("reopen");
    assert_eq!(read_all(&log, 0).len(), 40);
    assert_eq!(log.find_time(Some(3), 40).expect("find").map(|f| f.offset), Some(3));
}

#[test]
fn a_batch_that_is_damaged_below_the_recovery_point_refuses_the_log_and_changes_nothing() {
    let disk = SimDisk::default();
    let mut log = open(&disk, &config(&[]));
    for i in 0..5 {
        put(&mut log, "k", "v", i);
    }
    flush(&mut log);
    let path = Path::new(DIR).join("00000000000000000000.log");
    disk.flip_bit(&path, 16);
    let before = crate::system::disk::read_file(&disk, &path).expect("read");
    let point = RecoveryPoint { offset: 5, log_start: 0, has_producers: false };
    assert!(matches!(open_with(&disk, &config(&[]), point), Err(OpenError::Damaged { .. })));
    assert_eq!(crate::system::disk::read_file(&disk, &path).expect("read"), before);
    let gone = SimDisk::default();
    assert!(matches!(open_with(&gone, &config(&[]), point), Err(OpenError::Missing { .. })));
}

#[test]
fn an_epoch_that_began_on_a_full_disk_is_known_after_the_next_start() {
    let disk = SimDisk::default();
    let mut log = open(&disk, &config(&[]));
    put(&mut log, "a", "1", 1);
    let (header, bytes) = batch(BatchBuilder::new().record(1, None, Some(b"x")));
    let led = Stamp { leader_epoch: 3, now_ms: 1 };
    disk.set_faults(Faults { room: Some(10), ..Faults::default() });
    assert!(matches!(log.append(&header, &bytes, led), Err(AppendError::NoRoom)));
    assert_eq!(log.epochs().latest(), Some(0), "nothing was written in it");
    disk.set_faults(Faults::default());
    log.append(&header, &bytes, led).expect("there is room");
    log.close().expect("flushed");
    let known = RecoveryPoint { offset: 2, log_start: 0, has_producers: false };
    drop(log);
    let (log, _) = open_with(&disk, &config(&[]), known).expect("open");
    assert_eq!(log.epochs().end_of(0, 2), Some((0, 1)));
    assert_eq!(log.epochs().latest(), Some(3));
}

#[test]
fn an_index_whose_last_entry_is_torn_is_made_again() {
    for byte in 0..4 {
        let disk = SimDisk::default();
        let small = config(&[("index.interval.bytes", "1")]);
        let mut log = open(&disk, &small);
        for at in 0..40 {
            put(&mut log, "k", "some value", at);
        }
        log.roll().expect("rolled");
        put(&mut log, "k", "last", 40);
        flush(&mut log);
        drop(log);
        let path = Path::new(DIR).join("00000000000000000000.index");
        let bytes = crate::system::disk::read_file(&disk, &path).expect("an index").len();
        disk.flip_bit(&path, bytes - 1 - byte);
        let point = RecoveryPoint { offset: 41, log_start: 0, has_producers: false };
        let (log, _) = open_with(&disk, &small, point).expect("opens");
        assert_eq!(read_all(&log, 39).len(), 2, "{byte}");
    }
}

#[test]
fn a_full_disk_refuses_the_batch_and_the_log_goes_on_when_there_is_room() {
    let disk = SimDisk::default();
    let mut log = open(&disk, &config(&[]));
    put(&mut log, "a", "1", 1);
    disk.set_faults(Faults { room: Some(10), ..Faults::default() });
    let (header, bytes) = batch(BatchBuilder::new().record(1, None, Some(b"x")));
    let refused = log.append(&header, &bytes, Stamp { leader_epoch: 0, now_ms: 1 });
    assert!(matches!(refused, Err(AppendError::NoRoom)));
    disk.set_faults(Faults::default());
    put(&mut log, "b", "2", 2);
    assert_eq!(read_all(&log, 0).iter().map(|r| r.1.clone()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn retention_deletes_whole_old_segments_and_moves_the_start() {
    let mut config = config(&[("retention.ms", "100")]);
    config.segment_bytes = 200;
    let mut log = open(&SimDisk::default(), &config);
    for i in 0..20 {
        put(&mut log, "k", "v", i * 10);
    }
    flush(&mut log);
    let deleted = log.apply_retention(250, log.log_end()).expect("retention");
    assert!(!deleted.is_empty());
    assert!(log.log_start() > 0 && log.log_start() <= 15, "start {}", log.log_start());
    assert!(matches!(log.slice(0, log.end(), 100, true), Err(ReadError::OutOfRange { .. })));
    let kept = log.apply_retention(1_000_000, 16).expect("bounded");
    assert!(log.log_start() <= 16, "retention passed the bound: {kept:?}");
}

#[test]
fn compaction_keeps_the_newest_of_each_key_and_the_last_offset() {
    let mut config = config(&[("cleanup.policy", "compact"), ("delete.retention.ms", "1000")]);
    config.segment_bytes = 300;
    let mut log = open(&SimDisk::default(), &config);
    for i in 0..60 {
        put(&mut log, &format!("k{}", i % 5), &format!("v{i}"), i);
    }
    put(&mut log, "k1", "", 60);
    for i in 61..70 {
        put(&mut log, "z", "z", i);
    }
    flush(&mut log);
    let newest = |log: &Log| {
        let mut map = BTreeMap::new();
        for (_, key, value) in read_all(log, 0) {
            if value.is_empty() {
                map.remove(&key)
            } else {
                map.insert(key, value)
            };
        }
        map
    };
    let before = newest(&log);
    let clean = |log: &mut Log, now| {
        if let Some(plan) = log.clean_plan(now, log.log_end(), 1 << 20) {
            let cleaned = plan.run(&mut |_| {}).expect("clean");
            log.swap_cleaned(cleaned).expect("swap");
        }
    };
    clean(&mut log, 100);
    assert_eq!(newest(&log), before);
    let after_first = read_all(&log, 0);
    assert!(after_first.len() < 25, "{} records left", after_first.len());
    assert!(
        after_first.iter().any(|r| r.1 == "k1" && r.2.is_empty()),
        "the tombstone stays for a while"
    );
    for i in 70..90 {
        put(&mut log, "z", "z", i);
    }
    flush(&mut log);
    clean(&mut log, 5000);
    assert!(!read_all(&log, 0).iter().any(|r| r.1 == "k1"), "the tombstone goes after its time");
    assert_eq!(log.log_end(), 90);
}

#[test]
fn an_idempotent_retry_after_a_crash_gets_its_first_offset() {
    let disk = SimDisk::default();
    let mut log = open(&disk, &config(&[]));
    let send = |sequence| BatchBuilder::new().producer(7, 0, sequence).record(5, None, Some(b"v"));
    for sequence in 0..8 {
        append(&mut log, send(sequence), 5);
    }
    log.save_hints().expect("hints");
    flush(&mut log);
    append(&mut log, send(8), 5);
    drop(log);
    let point = RecoveryPoint { offset: 8, log_start: 0, has_producers: true };
    let (mut log, _) = open_with(&disk, &config(&[]), point).expect("reopen");
    assert_eq!(log.log_end(), 9);
    let copy = append(&mut log, send(5), 6);
    assert_eq!(copy, Appended::Copy { base_offset: 5, last_offset: 5, timestamp: 5 });
    let newest = append(&mut log, send(8), 6);
    assert!(matches!(newest, Appended::Copy { base_offset: 8, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        // Cases that failed once stand beside this file and are run first.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_crash_at_any_moment_keeps_what_was_flushed_and_a_prefix_of_the_rest(
        seed: u64, before in 0_usize..30, after in 0_usize..30, segment_bytes in 150_u64..900, crashes in 1_usize..4,
    ) {
        let random = Random::seeded(seed);
        let mut config = config(&[]);
        config.segment_bytes = segment_bytes;
        config.index_interval_bytes = 60;
        let disk = SimDisk::default();
        let mut log = open(&disk, &config);
        let mut written = 0;
        let mut point = RecoveryPoint::default();
        for _ in 0..crashes {
            for _ in 0..before {
                put(&mut log, "k", &format!("{written}"), 1);
                written += 1;
            }
            if random.below(3) > 0 {
                flush(&mut log);
                point = RecoveryPoint { offset: log.recovery_point(), log_start: 0, has_producers: false };
            }
            for _ in 0..after {
                put(&mut log, "k", &format!("{written}"), 1);
                written += 1;
            }
            let end = log.log_end();
            drop(log);
            disk.crash(&random);
            let (reopened, _) = open_with(&disk, &config, point).expect("recover");
            log = reopened;
            prop_assert!(log.log_end() >= point.offset && log.log_end() <= end);
            let records = read_all(&log, 0);
            prop_assert_eq!(records.len(), usize::try_from(log.log_end()).expect("positive"));
            for (index, (offset, _, value)) in records.iter().enumerate() {
                prop_assert_eq!(*offset, i64::try_from(index).expect("small"));
                prop_assert_eq!(value.parse::<i64>().expect("number"), *offset);
            }
            written = usize::try_from(log.log_end()).expect("positive");
            point = RecoveryPoint { offset: log.recovery_point(), log_start: 0, has_producers: false };
        }
    }

    #[test]
    fn records_survive_recompression(values in prop::collection::vec(prop::option::of("[a-z]{0,40}"), 1..20)) {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new().codec(codec);
            for value in &values {
                builder.add(1, Some(b"k"), value.as_ref().map(String::as_bytes), &[]);
            }
            let (header, bytes) = batch(builder);
            let records = Records::open(header, &bytes, 1 << 20).expect("open");
            let back: Vec<_> = records.iter().map(|r| r.expect("record").value.map(<[u8]>::to_vec)).collect();
            let sent: Vec<_> = values.iter().map(|v| v.as_ref().map(|v| v.clone().into_bytes())).collect();
            prop_assert_eq!(back, sent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_a_reader_of_our_files_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        text in "[a-z0-9 ,\n-]{0,120}",
    ) {
        let half = bytes.len() / 2;
        let _ = SegmentIndex::decode(&bytes[..half], &bytes[half..], 7, 1 << 20);
        let _ = checkpoint::decode(&String::from_utf8_lossy(&bytes), "kind", 1);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let _ = LeaderEpochs::parse(&lines);
        let _ = ProducerStates::parse(&lines);
        let _ = checkpoint::decode(&text, "kind", 1);
    }

    #[test]
    fn a_log_of_any_bytes_opens_or_is_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        is_batch in any::<bool>(),
    ) {
        if is_batch {
            let good = batch(BatchBuilder::new().record(1, Some(b"k"), Some(b"v"))).1;
            bytes = [good, bytes].concat();
        }
        let disk = SimDisk::default();
        disk.create_dir_all(Path::new(DIR)).expect("made");
        let path = Path::new(DIR).join("00000000000000000000.log");
        let file = disk.open(&path, crate::system::OpenMode::Write).expect("opens");
        file.write_at(&[std::io::IoSlice::new(&bytes)], 0).expect("written");
        let opened = open_with(&disk, &config(&[]), RecoveryPoint::default());
        if let Ok((log, _)) = opened {
            prop_assert!(log.log_end() >= i64::from(is_batch));
        }
    }
}

/// A batch of one record by producer 9.
fn sent(sequence: i32) -> (BatchHeader, Vec<u8>) {
    batch(BatchBuilder::new().producer(9, 0, sequence).record(1, None, Some(b"0123456789")))
}

fn append_together(log: &mut Log, batches: &[(BatchHeader, Vec<u8>)]) -> Vec<String> {
    let new: Vec<NewBatch<'_>> =
        batches.iter().map(|(header, bytes)| NewBatch { header: *header, bytes }).collect();
    let mut outcomes = Vec::new();
    let result = log.append_all(&new, Stamp { leader_epoch: 0, now_ms: 1 }, &mut outcomes);
    let mut told: Vec<String> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Appended::New { base_offset, .. }) => format!("new {base_offset}"),
            Ok(Appended::Copy { base_offset, .. }) => format!("copy {base_offset}"),
            Err(_) => "refused".to_owned(),
        })
        .collect();
    if let Err(error) = result {
        told.push(error.to_string());
    }
    told
}

#[test]
fn batches_that_are_appended_together_get_the_outcomes_of_batches_appended_one_by_one() {
    let disk = SimDisk::default();
    let mut log = open(&disk, &config(&[]));
    let plain = batch(BatchBuilder::new().record(1, None, Some(b"plain")));
    // In order, sent twice within the call, a gap, then on; others between them.
    let batches =
        [sent(0), plain.clone(), sent(1), sent(1), sent(5), sent(2), plain.clone(), sent(0)];
    let expected = ["new 0", "new 1", "new 2", "copy 2", "refused", "new 3", "new 4", "copy 0"];
    assert_eq!(append_together(&mut log, &batches), expected);
    let mut single = open(&SimDisk::default(), &config(&[]));
    for (header, bytes) in &batches {
        let _ = single.append(header, bytes, Stamp { leader_epoch: 0, now_ms: 1 });
    }
    assert_eq!(read_all(&log, 0), read_all(&single, 0));
    assert_eq!(log.producers(), single.producers());
    drop(log);
    assert_eq!(read_all(&open(&disk, &config(&[])), 0), read_all(&single, 0), "recovered");
}

#[test]
fn a_segment_that_fills_among_batches_appended_together_is_rolled_between_them() {
    let config = config(&[("segment.bytes", "1048576")]);
    let mut log = open(&SimDisk::default(), &config);
    let value = vec![7; 300_000];
    let batches: Vec<_> =
        (0..8).map(|_| batch(BatchBuilder::new().record(1, None, Some(&value)))).collect();
    assert_eq!(append_together(&mut log, &batches).len(), 8);
    assert_eq!((log.segments(), log.log_end()), (3, 8));
    assert_eq!(read_all(&log, 0).len(), 8);
}

#[test]
fn where_the_room_ends_the_batches_before_are_kept_and_the_rest_leave_nothing() {
    let disk = SimDisk::default();
    let mut log = open(&disk, &config(&[]));
    let (_, bytes) = sent(0);
    append_together(&mut log, &[sent(0)]);
    // The gap ends the first run of two; the second has no room.
    disk.set_faults(Faults {
        room: Some(u64::try_from(2 * bytes.len()).expect("small")),
        ..Faults::default()
    });
    let told = append_together(&mut log, &[sent(1), sent(2), sent(9), sent(3), sent(4)]);
    assert_eq!(told, ["new 1", "new 2", "refused", "no room on the file system"]);
    disk.set_faults(Faults::default());
    assert_eq!(append_together(&mut log, &[sent(3), sent(4)]), ["new 3", "new 4"]);
    assert_eq!(read_all(&log, 0).len(), 5);
}

/// Batches of three epochs by two producers, as a leader's log holds them.
fn history(random: &Random, count: u64) -> Vec<(BatchHeader, Vec<u8>)> {
    let disk = SimDisk::default();
    let mut leader = open(&disk, &config(&[]));
    let mut sequences = [0, 0];
    for at in 0..count {
        let producer = usize::try_from(random.below(2)).expect("small");
        let mut builder = BatchBuilder::new().producer(
            i64::try_from(producer).expect("small"),
            0,
            sequences[producer],
        );
        for _ in 0..=random.below(3) {
            builder = builder.record(1, None, Some(&[7; 40]));
            sequences[producer] += 1;
        }
        let (header, bytes) = batch(builder);
        let leader_epoch = i32::try_from(at * 3 / count).expect("small") * 2;
        leader.append(&header, &bytes, Stamp { leader_epoch, now_ms: 1 }).expect("append");
    }
    let slice = leader.slice(0, leader.end(), usize::MAX, true).expect("found").expect("bytes");
    let bytes = slice.read().expect("read");
    let (mut rest, mut all) = (bytes.as_slice(), Vec::new());
    while let Some((header, batch, after)) = next_batch(rest) {
        all.push((header, batch.to_vec()));
        rest = after;
    }
    all
}

fn take(log: &mut Log, batches: &[(BatchHeader, Vec<u8>)]) {
    let new: Vec<NewBatch<'_>> =
        batches.iter().map(|(header, bytes)| NewBatch { header: *header, bytes }).collect();
    log.append_fetched(&new, 1).expect("appended");
}

/// All that a log tells: its records, epochs and producers.
fn told(log: &Log) -> String {
    let (records, end) = (read_all(log, log.log_start()), log.log_end());
    format!("{end} {records:?} {:?} {:?}", log.epochs().lines(), log.producers().lines())
}

#[test]
fn a_log_that_is_cut_is_the_log_that_never_had_more() {
    let small = config(&[("segment.bytes", "1048576")]);
    let mut tiny = small.clone();
    tiny.segment_bytes = 600;
    for seed in 0..40 {
        let random = Random::seeded(seed);
        let batches = history(&random, 30);
        let keep = usize::try_from(random.below(31)).expect("small");
        let (disk, other) = (SimDisk::default(), SimDisk::default());
        let mut cut = open(&disk, &tiny);
        for part in batches.chunks(7) {
            take(&mut cut, part);
            if random.below(2) == 0 {
                cut.save_hints().expect("saved");
                flush(&mut cut);
            }
        }
        let mut never = open(&other, &tiny);
        take(&mut never, &batches[..keep]);
        cut.truncate(never.log_end()).expect("cut");
        assert_eq!(told(&cut), told(&never), "seed {seed}");
        // It goes on as if nothing had been, also after a crash.
        take(&mut cut, &batches[keep..]);
        take(&mut never, &batches[keep..]);
        assert_eq!(told(&cut), told(&never), "seed {seed}, gone on");
        flush(&mut cut);
        drop(cut);
        disk.crash(&random);
        assert_eq!(told(&open(&disk, &tiny)), told(&never), "seed {seed}, after a crash");
    }
}

#[test]
fn a_log_that_begins_anew_forgets_everything() {
    let (batches, disk) = (history(&Random::seeded(1), 10), SimDisk::default());
    let mut log = open(&disk, &config(&[]));
    take(&mut log, &batches);
    assert!(!log.producers().is_empty());
    log.close().expect("with what it knows of producers");
    log.restart_at(1_000).expect("restarted");
    assert_eq!((log.log_start(), log.log_end(), log.segments()), (1_000, 1_000, 1));
    assert!(log.producers().is_empty() && log.epochs().latest().is_none());
    log.close().expect("closed");
    drop(log);
    let point = RecoveryPoint { offset: 1_000, log_start: 1_000, has_producers: true };
    let log = open_with(&disk, &config(&[]), point).expect("opens").0;
    assert!(log.producers().is_empty(), "what they sent between there and here is not known");
}

#[test]
fn what_was_known_of_producers_before_the_files_begin_is_not_known_of_their_end() {
    let (batches, disk) = (history(&Random::seeded(1), 10), SimDisk::default());
    let mut log = open(&disk, &config(&[]));
    take(&mut log, &batches);
    log.close().expect("with what it knows of producers");
    let known = log.producers().lines();
    let snapshot = |at: i64| Path::new(DIR).join(format!("{at:020}.snapshot"));
    let kept = crate::system::disk::read_file(&disk, &snapshot(log.log_end())).expect("there");
    let end = log.log_end();
    log.restart_at(1_000).expect("restarted");
    // A crash may leave the file, and so do logs of earlier releases.
    let file = disk.open(&snapshot(end), crate::system::OpenMode::Replace).expect("made");
    file.write_at(&[std::io::IoSlice::new(&kept)], 0).expect("written");
    drop(log);
    let point = RecoveryPoint { offset: 1_000, log_start: 1_000, has_producers: true };
    let log = open_with(&disk, &config(&[]), point).expect("opens").0;
    assert!(!known.is_empty() && log.producers().is_empty(), "{:?}", log.producers().lines());
}

#[test]
fn a_copy_of_a_compacted_log_is_whole_after_a_crash_wherever_its_segments_end() {
    let mut small = config(&[]);
    small.segment_bytes = 300;
    for far in [40, 1 << 40] {
        let disk = SimDisk::default();
        let mut copy = open(&disk, &small);
        // What the leader's compaction left: batches with gaps between them.
        let all: Vec<_> = (0..30)
            .map(|n: i64| {
                let (_, mut bytes) = batch(BatchBuilder::new().record(1, None, Some(b"value")));
                let base = if n < 20 { n * 7 } else { n * 7 + far };
                crate::record::batch::patch_position(&mut bytes, base, 0);
                (BatchHeader::parse(&bytes).expect("header"), bytes)
            })
            .collect();
        for part in all.chunks(4) {
            take(&mut copy, part);
        }
        assert!(copy.segments() > 5);
        let job = copy.flush_job().expect("something to flush");
        for file in &job.files {
            file.sync().expect("synced");
        }
        disk.sync_dir(Path::new(DIR)).expect("synced");
        let whole = told(&copy);
        drop((job, copy));
        disk.crash(&Random::seeded(1));
        // The point that is written is older than what was flushed.
        let point = RecoveryPoint { offset: 10, log_start: 0, has_producers: false };
        let (copy, recovered) = open_with(&disk, &small, point).expect("opens");
        assert_eq!((told(&copy), recovered.bytes_cut), (whole, 0), "{far}");
    }
}

#[test]
fn a_log_begins_anew_also_where_a_closed_segment_begins() {
    let mut small = config(&[]);
    small.segment_bytes = 300;
    let disk = SimDisk::default();
    let mut log = open(&disk, &small);
    for n in 0..20 {
        put(&mut log, "k", &format!("value {n}"), n);
    }
    log.restart_at(0).expect("restarted");
    put(&mut log, "k", "new", 1);
    flush(&mut log);
    drop(log);
    disk.crash(&Random::seeded(1));
    let point = RecoveryPoint { offset: 1, log_start: 0, has_producers: false };
    let log = open_with(&disk, &small, point).expect("opens").0;
    assert_eq!(read_all(&log, 0), [(0, "k".to_owned(), "new".to_owned())]);
}
