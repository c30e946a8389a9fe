//! A broker that a task leaves that it can't do without.

use std::sync::Arc;
use std::time::Duration;

use super::start::{Broker, Started};
use crate::config::{Config, Origin};
use crate::system::clock::{monotonic, sleep, timeout_at};
use crate::system::life::Life;
use crate::system::{Clock, OsDisk, Random};

/// What a broker that is alone is made of, where it has a bucket.
const TASKS: [&str; 23] = [
    "HTTP listener",
    "ISR changes",
    "backup",
    "checkpoints",
    "cleaner",
    "compaction in object storage",
    "controller",
    "elections",
    "flusher",
    "group expiry",
    "group timers",
    "heartbeats",
    "keys of object storage",
    "listener",
    "log directories",
    "opening of logs",
    "partition timers",
    "removal of files",
    "reserve of the metadata",
    "retention",
    "sweeping of deleted topics",
    "tiering",
    "time awake",
];

async fn start(folder: &std::path::Path, life: &Life) -> Started {
    let mut config = Config::default();
    let place = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir_all(folder.join("bucket")).expect("made");
    let keys = "a=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    std::fs::write(folder.join("keys"), keys).expect("written");
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound").port()
    };
    for (key, value) in [
        ("log.dirs", place("data")),
        ("node.id", "1".to_owned()),
        ("listeners", format!("PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{port}")),
        ("controller.quorum.voters", format!("1@127.0.0.1:{port}")),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("remote.storage.url", format!("file:{}", place("bucket"))),
        ("remote.storage.encryption.keys", place("keys")),
    ] {
        config.set(key, &value, Origin::CommandLine).expect("valid");
    }
    let handles = (Clock::system(), Random::from_system());
    Broker::start(config, Arc::new(OsDisk), handles, life).await.expect("it starts")
}

async fn wait_for_tasks(life: &Life) {
    let until = monotonic() + Duration::from_mins(1);
    let tasks = || {
        let errands = ["telling of a voter's disk", "group loading"];
        let found = life.critical().into_iter().filter(|name| !errands.contains(name));
        found.collect::<Vec<_>>()
    };
    while tasks() != TASKS {
        assert!(monotonic() < until, "{:?}", tasks());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_ends_with_each_of_its_tasks_and_says_which_it_was() {
    for name in TASKS {
        let folder = tempfile::tempdir().expect("a folder");
        let life = Life::new();
        let started = start(folder.path(), &life).await;
        wait_for_tasks(&life).await;
        life.strike(name);
        let failed = started.broker.failed();
        let why = timeout_at(monotonic() + Duration::from_mins(1), failed).await;
        let why = why.unwrap_or_else(|_| panic!("it goes on without '{name}'"));
        assert!(why.contains(&format!("the task '{name}' panicked")), "{name}: {why}");
    }
}
