//! A file system without any room, and a metadata folder that is gone: what can't be written is refused, reads and deletes go on, and nothing
//! goes offline.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest};

use crate::broker::{Broker, folder};
use crate::devices::sh;
use crate::first_run::{consume, create as make, get};
use crate::kit::eventually;
use crate::wire::{Wire, create, name};

const STORAGE_ERROR: i16 = 56;

/// A file system in memory; it goes when it is dropped.
struct Volume<'a>(&'a Path);

impl<'a> Volume<'a> {
    fn new(path: &'a Path, mib: usize) -> Option<Self> {
        std::fs::create_dir_all(path).expect("made");
        match sh(&format!("mount -t tmpfs -o size={mib}m tmpfs {}", path.display())) {
            Ok(_) => Some(Self(path)),
            Err(why) => {
                println!("skipped: this machine mounts nothing: {why}");
                None
            }
        }
    }

    /// Takes whatever room there is.
    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.join("filling"))
            .expect("opened");
        for bytes in [1 << 20, 4 << 10, 1] {
            while file.write_all(&vec![7; bytes]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filling")).expect("removed");
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        let _ = sh(&format!("umount -l {}", self.0.display()));
    }
}

fn make_topic(broker: &Broker, topic: &str) -> (i16, String) {
    let begun = Instant::now();
    let answer = Wire::connect(&broker.address).ask(5, &create(topic, 1, 1));
    let result = &answer.topics[0];
    let why = result.error_message.as_deref().unwrap_or_default().to_owned();
    println!("create {topic}: {} {why:?} after {:?}", result.error_code, begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(4), "{why}");
    (result.error_code, why)
}

fn delete_topic(broker: &Broker, topic: &str) -> i16 {
    let gone = DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]);
    let answer = Wire::connect(&broker.address).ask(4, &gone.with_timeout_ms(10_000));
    answer.responses[0].error_code
}

/// Fetches a topic's first records, over and over; how often, and whether they always came.
fn reader(address: &str, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    let mut wire = Wire::connect(address);
    std::thread::spawn(move || {
        let mut read = 0;
        while !stop.load(Ordering::Relaxed) {
            let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
            let topic =
                FetchTopic::default().with_topic(name("kept")).with_partitions(vec![partition]);
            let answer = wire.ask(4, &FetchRequest::default().with_topics(vec![topic]));
            let partition = &answer.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            assert!(partition.records.as_ref().is_some_and(|records| records.len() > 1_000));
            read += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        read
    })
}

/// What happens on a full disk before and after a restart.
fn is_full_and_serves(broker: &Broker, gone: &str) {
    let stop = Arc::new(AtomicBool::new(false));
    let reading = reader(&broker.address, Arc::clone(&stop));
    let mut wire = Wire::connect(&broker.address);
    for round in 0..5 {
        let (code, why) = make_topic(broker, &format!("refused-{gone}-{round}"));
        assert_eq!(code, STORAGE_ERROR, "{why}");
        assert!(why.contains("no room left"), "{why}");
        // Whoever goes on writing gets nothing of what is kept for the metadata.
        let codes: Vec<i16> = (0..40).map(|_| wire.produce_one("kept", -1, 20_000)).collect();
        assert!(codes.iter().all(|code| [0, STORAGE_ERROR].contains(code)), "{codes:?}");
        assert!(codes.contains(&STORAGE_ERROR), "there is room");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(delete_topic(broker, gone), 0);
    assert_eq!(delete_topic(broker, gone), 3);
    let said = get(broker, "/readyz");
    assert!(!said.contains("is offline"), "{said}");
    stop.store(true, Ordering::Relaxed);
    let count = reading.join().expect("a reader was refused something");
    println!("{count} reads beside it");
    assert!(count > 10);
}

#[test]
fn a_disk_without_room_takes_nothing_offline_and_topics_can_be_deleted_before_and_after_a_start() {
    let (folder, _) = folder();
    let path = folder.path().join("volume");
    let Some(volume) = Volume::new(&path, 24) else { return };
    let data = path.join("data");
    let settings = ["log.dirs.min.free.bytes=0", "log.retention.check.interval.ms=500"];
    let broker = Broker::start_with(&data, &settings);
    for topic in ["kept", "first", "second", "third"] {
        make(&broker, topic, &["file.delete.delay.ms=0", "retention.ms=-1"]);
    }
    let mut wire = Wire::connect(&broker.address);
    for _ in 0..100 {
        assert_eq!(wire.produce_one("kept", -1, 100), 0);
    }
    volume.fill();
    is_full_and_serves(&broker, "first");
    // A clean stop, then one that is none; each leaves a disk on which nothing can be written.
    broker.terminate();
    volume.fill();
    let broker = Broker::start_with(&data, &settings);
    is_full_and_serves(&broker, "second");
    broker.kill();
    volume.fill();
    let broker = Broker::start_with(&data, &settings);
    is_full_and_serves(&broker, "third");
    let read = consume(&broker, "kept").lines().count();
    // With room everything goes on by itself, and what was kept is kept again.
    volume.empty();
    eventually("topics are made again", || make_topic(&broker, "again").0 == 0);
    let mut wire = Wire::connect(&broker.address);
    eventually("records are taken again", || wire.produce_one("kept", -1, 100) == 0);
    eventually("the reserve is whole", || {
        let file = data.join("__cluster_metadata-0/reserve");
        std::fs::metadata(file).is_ok_and(|file| file.len() == 4 << 20)
    });
    assert_eq!(wire.produce_one("again", -1, 100), 0);
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    assert!(consume(&broker, "kept").lines().count() > read);
    assert!(broker.terminate().success());
    let broker = Broker::start_with(&data, &settings);
    assert_eq!(consume(&broker, "again").lines().count(), 1);
    assert!(broker.terminate().success());
}

#[test]
fn a_node_whose_metadata_folder_is_gone_says_so_at_once_and_serves_what_it_has() {
    let (folder, data) = folder();
    let broker = Broker::start(&data);
    make(&broker, "t", &[]);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(wire.produce_one("t", -1, 100), 0);
    let aside = folder.path().join("aside");
    std::fs::rename(data.join("__cluster_metadata-0"), &aside).expect("moved");
    for topic in ["a", "b"] {
        let (code, why) = make_topic(&broker, topic);
        assert_eq!(code, STORAGE_ERROR, "{why}");
        assert!(why.contains("metadata log"), "{why}");
    }
    assert_eq!(delete_topic(&broker, "t"), STORAGE_ERROR);
    assert_eq!(consume(&broker, "t").lines().count(), 1);
    broker.terminate();
    // Put back, it is as it was; the first thing that was refused may be there.
    std::fs::rename(&aside, data.join("__cluster_metadata-0")).expect("put back");
    let broker = Broker::start(&data);
    assert_eq!(consume(&broker, "t").lines().count(), 1);
    assert_eq!(make_topic(&broker, "c").0, 0);
    assert!(broker.terminate().success());
}
