//! The lives of a simulated broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::client::{Client, TOPIC};
use crate::broker::{Broker, Parts, replica_settings};
use crate::config::{Config, Origin};
use crate::controller::{ControllerError, NewTopic};
use crate::network::{Dialer, Stream, Taken, TcpDialer, serve};
use crate::quorum::{Identity, PeerService, Peers};
use crate::replication::{Lease, Replicas};
use crate::system::clock::{monotonic, sleep};
use crate::system::life::Life;
use crate::system::sim_disk::{Faults, SimDisk};
use crate::system::tasks::{run_blocking_in_place, spawn};
use crate::system::{Clock, Random, SharedDisk};

const PARTITIONS: i32 = 3;
const LIVES: u64 = 5;
const STARTED_MS: i64 = 1_700_000_000_000;

/// What a run showed.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
    pub acked: usize,
    pub refused: usize,
    pub crashes: usize,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    PowerCut,
    Killed,
    Stopped,
}

pub(super) fn run(seed: u64) -> Run {
    run_blocking_in_place();
    let random = Random::seeded(seed);
    let disk = SimDisk::default();
    let mut clients: Vec<Client> = (0..PARTITIONS).map(Client::new).collect();
    let mut run = Run::default();
    for life in 0..LIVES {
        let end = match random.below(4) {
            0 => End::Stopped,
            1 => End::Killed,
            _ => End::PowerCut,
        };
        run.trace.push(format!("life {life}, to end {end:?}"));
        clients = in_a_runtime(|| live(&disk, &random, clients, end));
        for client in &mut clients {
            run.trace.append(&mut client.trace);
        }
        disk.set_faults(Faults::default());
        match end {
            End::PowerCut => disk.crash(&random),
            End::Killed | End::Stopped => disk.die(),
        }
        run.crashes += usize::from(end != End::Stopped);
    }
    clients = in_a_runtime(|| check(&disk, &random, clients));
    for mut client in clients {
        run.acked += client.acked.len();
        run.refused += client.refused;
        run.wrong.append(&mut client.wrong);
    }
    run
}

/// One thread with a clock that jumps to the next deadline when there is nothing to do. What still runs when the
/// work is done is dropped, as a process that dies drops it.
fn in_a_runtime<F: Future<Output = Vec<Client>>>(work: impl FnOnce() -> F) -> Vec<Client> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(work())
}

async fn start(disk: &SimDisk, random: &Random) -> Broker {
    let mut config = Config::default();
    for (key, value) in
        [("log.dirs", "/sim"), ("log.segment.bytes", "1048576"), ("log.dirs.min.free.bytes", "0")]
    {
        config.set(key, value, Origin::CommandLine).expect("valid");
    }
    let shared: SharedDisk = Arc::new(disk.clone());
    let clock = Clock::simulated(STARTED_MS);
    let (handles, lease) = ((clock.clone(), random.clone()), (Lease::endless(), None));
    let replicas = Replicas::open(&shared, replica_settings(&config), handles, lease);
    let replicas = replicas.expect("the folder opens");
    let identity = Identity { node: 1, directory: uuid::Uuid::nil(), cluster: None };
    let dialer: Dialer = Arc::new(TcpDialer);
    let parts = Parts {
        config,
        disk: shared,
        clock,
        random: random.clone(),
        replicas,
        advertised: HashMap::from([("SIM".into(), ("sim".to_owned(), 1))]),
        peers: Peers::new(identity.clone(), Arc::clone(&dialer)),
        service: PeerService::new(identity),
        metadata_reserve_bytes: 0,
        broker_dialer: Arc::clone(&dialer),
        dialer,
    };
    Broker::open(parts, &Life::new()).await.expect("the broker starts")
}

fn connect(broker: &Broker, stop: &watch::Receiver<bool>) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (service, rules) = broker.service();
    let peer = rules.peer(([127, 0, 0, 1], 1).into(), "SIM".into(), &Taken::default());
    let stop = stop.clone();
    spawn(async move {
        let _ = serve(Stream::Memory(theirs), peer, &*service, &rules, stop).await;
    });
    ours
}

async fn live(disk: &SimDisk, random: &Random, clients: Vec<Client>, end: End) -> Vec<Client> {
    let broker = start(disk, random).await;
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: PARTITIONS,
        replication_factor: -1,
        ..NewTopic::default()
    };
    match broker.context().controller.create_topic(&topic, false).await {
        Ok(_) | Err(ControllerError::TopicExists(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let (stopping, stop) = watch::channel(false);
    let until = monotonic() + Duration::from_millis(300 + random.below(1_500));
    let mut tasks = Vec::new();
    for mut client in clients {
        let stream = connect(&broker, &stop);
        let random = Random::seeded(random.next_u64());
        tasks.push(spawn(async move {
            client.live(stream, random, until).await;
            client
        }));
    }
    let faults = match random.below(6) {
        0 => Faults { fail_writes: true, ..Faults::default() },
        1 => Faults { fail_syncs: true, ..Faults::default() },
        2 => Faults { room: Some(random.below(8_000)), ..Faults::default() },
        _ => Faults::default(),
    };
    sleep(Duration::from_millis(random.below(1_000))).await;
    disk.set_faults(faults);
    let mut back = Vec::new();
    for task in tasks {
        back.push(task.await.expect("a client does not panic"));
    }
    if end == End::Stopped {
        let _ = stopping.send(true);
        let _ = broker.stop().await;
    }
    back
}

/// How many fetches wait on an idle partition while a client waits, and after it has gone.
pub(super) fn waiting_fetches_before_and_after_a_client_goes() -> (usize, usize) {
    run_blocking_in_place();
    let (disk, random) = (SimDisk::default(), Random::seeded(1));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let broker = start(&disk, &random).await;
        let topic = NewTopic {
            name: TOPIC.to_owned(),
            partitions: 1,
            replication_factor: -1,
            ..NewTopic::default()
        };
        broker.context().controller.create_topic(&topic, false).await.expect("made");
        let (_stopping, stop) = watch::channel(false);
        let name = crate::model::TopicPartition::new(TOPIC, 0);
        let partition = broker.context().replicas.partition(&name).expect("made");
        let mut stream = connect(&broker, &stop);
        super::client::ask_and_wait_long(&mut stream).await;
        sleep(Duration::from_millis(100)).await;
        let before = partition.waiting_fetches();
        drop(stream);
        sleep(Duration::from_millis(100)).await;
        (before, partition.waiting_fetches())
    })
}

async fn check(disk: &SimDisk, random: &Random, clients: Vec<Client>) -> Vec<Client> {
    let broker = start(disk, random).await;
    let (_stopping, stop) = watch::channel(false);
    let mut back = Vec::new();
    for mut client in clients {
        client.verify(connect(&broker, &stop)).await;
        back.push(client);
    }
    back
}
