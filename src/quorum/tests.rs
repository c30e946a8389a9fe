use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::types::Raft;
use super::*;
use crate::model::BrokerId;
use crate::network::{Dialer, TcpDialer};
use crate::system::clock::{monotonic, sleep};
use crate::system::sim_disk::SimDisk;
use crate::system::{Random, SharedDisk};

/// Keeps what was said, in order.
#[derive(Debug, Default)]
struct Words(Mutex<Vec<String>>);

impl StateMachine for Words {
    fn apply(&self, data: &[(u64, Arc<RawValue>)]) {
        self.0.lock().extend(data.iter().map(|(_, word)| word.get().to_owned()));
    }

    fn snapshot(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    fn restore(&self, _: u64, lines: &[String]) -> Result<(), String> {
        *self.0.lock() = lines.to_vec();
        Ok(())
    }
}

impl VoterDisks for Words {
    fn directory(&self, _: BrokerId) -> Option<uuid::Uuid> {
        None
    }
}

async fn open(disk: &SimDisk) -> (Arc<Quorum>, Arc<Words>) {
    let shared: SharedDisk = Arc::new(disk.clone());
    let storage = QuorumStorage::open(&shared, Path::new("/d")).expect("opens");
    let words = Arc::new(Words::default());
    let settings = QuorumSettings {
        known: Vec::new(),
        address: None,
        node: 1,
        voters: [(1, String::new())].into(),
        election_timeout_ms: 600,
        heartbeat_ms: 100,
    };
    let machine: Arc<dyn StateMachine> = Arc::<Words>::clone(&words);
    let loaded = LoadedQuorum::load(storage, machine, settings).expect("loads");
    let dialer: Dialer = Arc::new(TcpDialer);
    let identity = Identity { node: 1, directory: uuid::Uuid::nil(), cluster: None };
    let disks: Arc<dyn VoterDisks> = Arc::<Words>::clone(&words);
    let quorum = loaded.start(Peers::new(identity, dialer), disks, Random::seeded(1)).await;
    let quorum = quorum.expect("starts");
    while quorum.leading().is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    (quorum, words)
}

async fn say(quorum: &Quorum, word: usize) -> Result<u64, ProposeError> {
    let base = quorum.progress().borrow().data;
    propose(quorum, base, word).await
}

async fn propose(quorum: &Quorum, base: u64, word: usize) -> Result<u64, ProposeError> {
    let data = RawValue::from_string(word.to_string()).expect("a number");
    quorum.propose(base, data, Duration::from_secs(5)).await
}

fn numbers(to: usize) -> Vec<String> {
    (0..to).map(|word| word.to_string()).collect()
}

#[tokio::test]
async fn what_was_agreed_on_is_there_after_the_power_was_cut() {
    let (disk, random) = (SimDisk::default(), Random::seeded(4));
    for round in 1..=4 {
        let (quorum, words) = open(&disk).await;
        assert_eq!(*words.0.lock(), numbers((round - 1) * 10));
        for word in (round - 1) * 10..round * 10 {
            say(&quorum, word).await.expect("agreed");
        }
        assert_eq!(*words.0.lock(), numbers(round * 10));
        quorum.stop().await;
        disk.crash(&random);
    }
}

#[tokio::test]
async fn a_decision_on_old_data_is_void() {
    let (quorum, words) = open(&SimDisk::default()).await;
    let old = quorum.progress().borrow().data;
    say(&quorum, 0).await.expect("agreed");
    let refused = propose(&quorum, old, 7).await;
    assert!(matches!(refused, Err(ProposeError::Stale)), "{refused:?}");
    say(&quorum, 1).await.expect("agreed");
    assert_eq!(*words.0.lock(), numbers(2));
}

#[tokio::test]
async fn a_snapshot_stands_for_the_entries_before_it() {
    let disk = SimDisk::default();
    let (quorum, _) = open(&disk).await;
    for word in 0..30 {
        say(&quorum, word).await.expect("agreed");
    }
    raft(&quorum).trigger().snapshot().await.expect("triggered");
    let until = monotonic() + Duration::from_secs(10);
    let made = |quorum: &Quorum| raft(quorum).metrics().borrow().snapshot.is_some();
    while !made(&quorum) && monotonic() < until {
        sleep(Duration::from_millis(1)).await;
    }
    let last = raft(&quorum).metrics().borrow().snapshot.expect("a snapshot").index;
    raft(&quorum).trigger().purge_log(last).await.expect("triggered");
    say(&quorum, 30).await.expect("agreed");
    quorum.stop().await;
    disk.crash(&Random::seeded(1));
    let (quorum, words) = open(&disk).await;
    assert_eq!(*words.0.lock(), numbers(31));
    say(&quorum, 31).await.expect("agreed");
    assert_eq!(*words.0.lock(), numbers(32));
}

#[tokio::test]
async fn a_log_that_is_damaged_where_it_was_committed_is_refused() {
    let disk = SimDisk::default();
    let (quorum, _) = open(&disk).await;
    for word in 0..5 {
        say(&quorum, word).await.expect("agreed");
    }
    raft(&quorum).trigger().snapshot().await.expect("triggered");
    while raft(&quorum).metrics().borrow().snapshot.is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    raft(&quorum).trigger().purge_log(2).await.expect("triggered");
    sleep(Duration::from_millis(50)).await;
    quorum.stop().await;
    disk.die();
    let shared: SharedDisk = Arc::new(disk.clone());
    assert!(QuorumStorage::open(&shared, Path::new("/d")).is_ok());
    let state = Path::new("/d").join(METADATA_FOLDER).join("quorum-state");
    disk.flip_bit(&state, 40);
    assert!(QuorumStorage::open(&shared, Path::new("/d")).is_err(), "a vote that can't be read");
}

fn raft(quorum: &Quorum) -> &Raft {
    &quorum.member().expect("a member").raft
}

#[tokio::test]
async fn a_log_that_finds_no_room_waits_for_it_and_goes_on() {
    use crate::system::sim_disk::Faults;
    let disk = SimDisk::default();
    let (quorum, words) = open(&disk).await;
    say(&quorum, 0).await.expect("agreed");
    disk.set_faults(Faults { room: Some(0), ..Faults::default() });
    let base = quorum.progress().borrow().data;
    let data = RawValue::from_string("1".to_owned()).expect("a number");
    let waits = quorum.propose(base, data, Duration::from_millis(500)).await;
    assert!(matches!(waits, Err(ProposeError::TimedOut)), "{waits:?}");
    assert_eq!(quorum.failure(), None, "nobody leaves the quorum for want of room");
    disk.set_faults(Faults::default());
    while words.0.lock().len() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    say(&quorum, 2).await.expect("agreed");
    assert_eq!(*words.0.lock(), numbers(3));
    quorum.stop().await;
    let (_, words) = open(&disk).await;
    assert_eq!(*words.0.lock(), numbers(3));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_room() {
    use crate::system::sim_disk::Faults;
    let disk = SimDisk::default();
    let (quorum, _) = open(&disk).await;
    disk.set_faults(Faults { room: Some(0), ..Faults::default() });
    let base = quorum.progress().borrow().data;
    let data = RawValue::from_string("1".to_owned()).expect("a number");
    let _ = quorum.propose(base, data, Duration::from_millis(50)).await;
    quorum.stop().await;
}
