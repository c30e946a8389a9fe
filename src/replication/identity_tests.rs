//! Names come back: what was known of the file that had one says nothing of the file that has it now.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tests::{led, open};
use super::*;
use crate::config::{Config, TopicConfig};
use crate::model::{Offset, TopicPartition};
use crate::record::{BatchBuilder, Records, next_batch};
use crate::system::clock::{monotonic, sleep};
use crate::system::sim_disk::SimDisk;

/// Small segments that nothing but their size closes.
fn config(changes: impl FnOnce(&mut TopicConfig)) -> TopicConfig {
    let mut config = TopicConfig::resolve(&Config::default(), &[].into());
    config.segment_bytes = 700;
    changes(&mut config);
    config
}

fn create(replicas: &Replicas, id: u128, config: TopicConfig) -> PartitionHandle {
    let name = TopicPartition::new("t", 0);
    let topic_id = uuid::Uuid::from_u128(id);
    let config = Arc::new(config);
    replicas.create(&PartitionSpec { name: name.clone(), topic_id, state: led(0), config });
    replicas.partition(&name).expect("made")
}

/// Appends records of so many bytes, one a batch, whose values begin with `word` and whose key is always the same.
async fn append(partition: &PartitionHandle, word: &str, count: usize, bytes: usize) {
    for n in 0..count {
        let value = format!("{word} {n} {}", "x".repeat(bytes));
        let batch = BatchBuilder::new().record(1, Some(b"key"), Some(value.as_bytes())).build();
        let request =
            AppendRequest { batch: &batch, now_ms: 1, waiter: None, internal_epoch: None };
        let done = partition.append(&request).expect("appended");
        let until = monotonic() + Duration::from_secs(20);
        while partition.high_watermark() <= done.last_offset {
            assert!(monotonic() < until, "never flushed");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Offsets and first words of what a consumer reads from the start, with so many bytes a fetch.
fn read(partition: &PartitionHandle, bytes_max: usize) -> Vec<(Offset, String)> {
    let (mut at, mut all) = (partition.local_start(), Vec::new());
    while at < partition.high_watermark() {
        let found = partition.read(at, bytes_max, true, ReadRules::leader(-1)).expect("found");
        let bytes = found.slice.expect("something").read().expect("read");
        let mut rest = bytes.as_slice();
        while let Some((header, batch, after)) = next_batch(rest) {
            rest = after;
            at = header.last_offset() + 1;
            for record in &Records::open(header, batch, 1 << 20).expect("opens") {
                let record = record.expect("whole");
                let value = String::from_utf8_lossy(record.value.expect("a value"));
                let word = value.split(' ').next().unwrap_or_default().to_owned();
                all.push((record.offset, word));
            }
        }
    }
    all
}

/// Waits until all of it is durable, and noted to be.
async fn flushed(partition: &PartitionHandle) {
    let is_flushed = |log: &crate::log::Log| log.recovery_point() == log.log_end();
    while partition.with_log(is_flushed) != Some(true) {
        sleep(Duration::from_millis(1)).await;
    }
    partition.directory.write_points().expect("written");
}

fn expected(word: &str, count: i64) -> Vec<(Offset, String)> {
    (0..count).map(|offset| (offset, word.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_under_its_name_shows_nothing_of_the_old_one() {
    let replicas = open(&SimDisk::default(), &["/a"]);
    // Other segments, the same, and fewer records than before.
    let rounds = [("old", 700, 60, 31), ("new", 700, 60, 31), ("last", 1_900, 200, 17)];
    for (id, (word, segment_bytes, bytes, count)) in (7..).zip(rounds) {
        let partition = create(&replicas, id, config(|c| c.segment_bytes = segment_bytes));
        append(&partition, word, count, bytes).await;
        let all = expected(word, i64::try_from(count).expect("small"));
        assert_eq!(read(&partition, 100), all);
        assert_eq!(read(&partition, 1 << 20), all);
        let first = partition.find_time(Some(1)).await.expect("found").map(|found| found.offset);
        assert_eq!(first, Some(0));
        drop(partition);
        replicas.delete("t", 60_000);
    }
    let cache = &replicas.directories()[0].cache;
    assert_eq!(cache.counts(), (0, 0), "what was open of deleted logs is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_goes_and_comes_back_shows_what_it_has_now() {
    let replicas = open(&SimDisk::default(), &["/a"]);
    for word in ["first", "second"] {
        let partition = create(&replicas, 7, config(|_| ()));
        append(&partition, word, 20, 100).await;
        assert_eq!(read(&partition, 150), expected(word, 20));
        let name = partition.name.clone();
        drop(partition);
        assert_eq!(replicas.delete_partition(&name), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_moves_between_directories_and_back_shows_what_it_has() {
    let replicas = open(&SimDisk::default(), &["/a", "/b"]);
    let partition = create(&replicas, 7, config(|_| ()));
    let name = partition.name.clone();
    let mut count = 0;
    append(&partition, "word", 9, 100).await;
    let mut there = partition.directory.path.clone();
    drop(partition);
    for _ in 0..3 {
        count += 9;
        let partition = replicas.partition(&name).expect("there");
        assert_eq!(read(&partition, 150), expected("word", count));
        there = PathBuf::from(if *there == *"/a" { "/b" } else { "/a" });
        drop(partition);
        let (told, done) = tokio::sync::oneshot::channel();
        let tell = move || told.send(()).expect("somebody waits");
        replicas.move_replica(&name, &there, tell).expect("begins");
        done.await.expect("moved");
        let partition = replicas.partition(&name).expect("there");
        partition.take_state(&led(0));
        append(&partition, "word", 9, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_compacted_topic_can_be_read_whatever_its_records_size() {
    // On both sides of the pieces that are read at once, sent by the kernel, and reserved.
    for (bytes, count) in [(10, 30), (4_000, 12), (10_000, 12), (40_000, 9), (1_040_000, 3)] {
        let replicas = open(&SimDisk::default(), &["/a"]);
        let config = config(|c| {
            (c.segment_bytes, c.segment_ms) = (1 << 30, 10);
            (c.is_compacted, c.is_deleted) = (true, false);
        });
        let partition = create(&replicas, 7, config);
        append(&partition, "word", count, bytes).await;
        assert!(partition.roll_if_old(1_000_000));
        flushed(&partition).await;
        replicas.clean_once(&mut |_| ());
        let last = i64::try_from(count).expect("small") - 1;
        for bytes_max in [1, 1 << 20] {
            assert_eq!(read(&partition, bytes_max), [(last, "word".to_owned())], "{bytes} bytes");
        }
        append(&partition, "word", 2, bytes).await;
        assert_eq!(read(&partition, 1 << 20).len(), 3, "{bytes} bytes");
    }
}
