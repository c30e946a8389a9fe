//! Folders that go away under a running broker: what nobody can find again is not acknowledged.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::{Broker, folder, run};
use crate::cluster::Cluster;
use crate::devices::sh;
use crate::ending::COULD_NOT_GO_ON;
use crate::first_run::{consume, create, get};
use crate::judges::Judge;
use crate::kit::{eventually, eventually_within};
use crate::wire::Wire;

/// The longest that records may be acknowledged into a folder that is gone, and some time for a busy machine.
const SEEN: Duration = Duration::from_secs(3);
const STORAGE_ERROR: i16 = 56;

/// Produces until it is refused; how long that took.
fn refused(broker: &Broker, topic: &str, acks: i16) -> Duration {
    let (mut wire, begun) = (Wire::connect(&broker.address), Instant::now());
    loop {
        match wire.produce_one(topic, acks, 100) {
            0 => assert!(begun.elapsed() < SEEN, "acknowledged though nothing is there"),
            error => {
                assert_eq!(error, STORAGE_ERROR);
                return begun.elapsed();
            }
        }
    }
}

fn is_served(broker: &Broker, topic: &str) -> bool {
    Wire::connect(&broker.address).produce_one(topic, -1, 100) == 0
}

#[test]
fn a_data_folder_that_is_removed_is_noticed_at_once_and_nothing_more_is_acknowledged() {
    for (acks, settings) in [(-1, None), (1, None), (1, Some("write.caching=true"))] {
        let (_folder, data) = folder();
        let broker = Broker::start(&data);
        create(&broker, "t", settings.as_slice());
        assert!(is_served(&broker, "t"));
        std::fs::remove_dir_all(&data).expect("removed");
        let took = refused(&broker, "t", acks);
        println!("acks={acks}: refused after {} ms", took.as_millis());
        let ready = get(&broker, "/readyz");
        assert!(ready.contains("is offline"), "{ready}");
        let made = run(&["topic", "create", "new", "-b", &broker.address]);
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(!made.status.success(), "a topic was made that no start will find");
        println!("topic create: {said}");
        assert!(!data.exists(), "something was written where nothing was");
        broker.terminate();
    }
}

#[test]
fn one_partitions_folder_that_is_taken_away_is_noticed_once_it_is_written_to() {
    let (folder, data) = folder();
    let other = folder.path().join("other");
    let both = format!("log.dirs={},{}", data.display(), other.display());
    let broker = Broker::start_with(&data, &[&both]);
    for topic in ["a", "b"] {
        create(&broker, topic, &[]);
        assert!(is_served(&broker, topic));
    }
    let lies_in = |directory: &Path, topic: &str| directory.join(format!("{topic}-0")).exists();
    let (gone, left) = if lies_in(&other, "a") { ("a", "b") } else { ("b", "a") };
    assert!(lies_in(&other, gone) && lies_in(&data, left));
    let aside = folder.path().join("aside");
    std::fs::rename(other.join(format!("{gone}-0")), &aside).expect("moved");
    refused(&broker, gone, -1);
    assert!(is_served(&broker, left), "one directory takes another with it");
    // Put back, everything that was acknowledged is there after a restart.
    assert!(broker.terminate().success());
    std::fs::rename(&aside, other.join(format!("{gone}-0"))).expect("put back");
    let broker = Broker::start_with(&data, &[&both]);
    assert!(is_served(&broker, gone) && is_served(&broker, left));
    assert!(consume(&broker, gone).lines().count() >= 2);
    assert!(broker.terminate().success());
}

#[test]
fn a_volume_that_is_unmounted_or_covered_takes_its_directory_offline_and_no_other() {
    for words in ["umount -l", "mount -t tmpfs tmpfs"] {
        let (folder, data) = folder();
        let volume = folder.path().join("volume");
        std::fs::create_dir_all(&volume).expect("made");
        if let Err(why) = sh(&format!("mount -t tmpfs tmpfs {}", volume.display())) {
            println!("skipped: this machine mounts nothing: {why}");
            return;
        }
        let both = format!("log.dirs={},{}", data.display(), volume.display());
        let broker = Broker::start_with(&data, &[&both]);
        for topic in ["a", "b"] {
            create(&broker, topic, &[]);
            assert!(is_served(&broker, topic));
        }
        let (gone, left) = if volume.join("a-0").exists() { ("a", "b") } else { ("b", "a") };
        sh(&format!("{words} {}", volume.display())).expect("done");
        refused(&broker, gone, -1);
        assert!(is_served(&broker, left));
        // What is made from now on is made where it can be found again.
        create(&broker, "new", &[]);
        assert!(is_served(&broker, "new") && data.join("new-0").exists());
        assert!(std::fs::read_dir(&volume).expect("a folder").next().is_none(), "{words}");
        assert!(broker.terminate().success());
        for _ in 0..2 {
            let _ = sh(&format!("umount -l {}", volume.display()));
        }
    }
}

#[test]
fn three_nodes_lose_nothing_when_the_folder_of_one_is_removed() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let judge = Judge::start(&[], &cluster.bootstrap(), 14);
    std::thread::sleep(Duration::from_secs(3));
    std::fs::remove_dir_all(&cluster.places[0].data).expect("removed");
    let ended = || cluster.nodes[0].as_mut().expect("running").has_ended();
    eventually_within(
        Duration::from_secs(20),
        Duration::from_millis(50),
        "the node ends, and others lead",
        ended,
    );
    let code = cluster.nodes[0].take().expect("there").exit_code();
    assert_eq!(code, Some(COULD_NOT_GO_ON));
    assert!(judge.verdict() > 1_000, "too little was produced");
    eventually("the others serve", || {
        let address = &cluster.node(1).address;
        run(&["topic", "create", "new", "-r", "2", "-b", address]).status.success()
    });
}
