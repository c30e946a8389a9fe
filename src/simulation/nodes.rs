//! The nodes of a simulated cluster: each a whole broker on its own machine and disk.

use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::net::{Accept, SimDialer, SimNet};
use crate::broker::{Broker, Parts, replica_settings};
use crate::config::{Config, Origin};
use crate::controller::Controller;
use crate::network::{ConnectionRules, Dialer, Service, Stream, Taken, serve};
use crate::quorum::{Identity, METADATA_FOLDER, PeerService, Peers};
use crate::replication::{Lease, Replicas};
use crate::system::clock::sleep;
use crate::system::disk::{Disk as _, OpenMode};
use crate::system::sim_disk::{Faults, SimDisk};
use crate::system::sim_nodes::{kill, pause, spawn_free, spawn_on};
use crate::system::{Budgets, Clock, Random, SharedDisk};

const CLUSTER: &str = "SimulatedClusterAAAAAA";
/// The slowest flush.
pub(super) const SYNC_US: u64 = 40_000;
pub(super) const STARTED_MS: i64 = 1_700_000_000_000;

/// What is there of a node, apart from its disk.
#[derive(Debug, Default)]
struct Life {
    broker: Option<Broker>,
    is_running: bool,
    /// Deaths that are under way: until they are over, nobody turns it on again.
    dying: u32,
    /// How often it was asked to stop, or died: what watches over one life leaves the next one alone.
    ended: u32,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Broker and controller, a voter from the beginning.
    Voter,
    /// Broker and controller, which may be made a voter.
    Controller,
    /// Broker only: it reads what is decided.
    Broker,
}

/// One node.
#[derive(Clone)]
pub(super) struct Node {
    pub id: u32,
    pub disk: SimDisk,
    life: Arc<Mutex<Life>>,
    net: SimNet,
    random: Random,
    pub role: Role,
    voters: u32,
    bucket: BucketUse,
    /// Its log directories.
    pub directories: &'static [&'static str],
}

/// How a node uses a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BucketUse {
    None,
    /// None, but what compacts and deletes comes by often.
    Aged,
    Plain,
    /// Encrypted, and with a disk for what was read.
    Encrypted,
}

/// What wraps the keys of segments.
const KEYS: &str = "a=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// Takes connections for a service on a machine.
fn acceptor<S: Service>(machine: u32, service: Arc<S>, rules: ConnectionRules) -> Accept {
    Arc::new(move |stream| {
        let (service, rules) = (Arc::clone(&service), rules.clone());
        let peer = rules.peer(([127, 0, 0, 1], 1).into(), "PLAINTEXT".into(), &Taken::default());
        drop(spawn_on(machine, async move {
            let (_stopping, stop) = watch::channel(false);
            let _ = serve(Stream::Memory(stream), peer, &*service, &rules, stop).await;
        }));
    })
}

impl Node {
    pub(super) fn new(
        id: u32,
        (role, voters, bucket): (Role, u32, BucketUse),
        net: &SimNet,
        random: &Random,
    ) -> Self {
        let random = Random::seeded(random.next_u64());
        let (disk, life) = (SimDisk::default(), Arc::default());
        if bucket == BucketUse::Encrypted {
            disk.create_dir_all("/keys".as_ref()).expect("made");
            let keys = disk.open("/keys/keys".as_ref(), OpenMode::Replace).expect("made");
            keys.write_at(&[IoSlice::new(KEYS.as_bytes())], 0).expect("written");
            keys.sync().expect("flushed");
            disk.sync_dir("/keys".as_ref()).expect("flushed");
        }
        disk.set_faults(Faults { sync_us: SYNC_US, ..Faults::default() });
        let (net, directories) = (net.clone(), &["/sim"][..]);
        Self { id, disk, life, net, random, role, voters, bucket, directories }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        let id = self.id;
        let voters: Vec<String> = (1..=self.voters).map(|id| format!("{id}@n{id}:9093")).collect();
        let known: Vec<String> = (1..=self.voters).map(|id| format!("n{id}:9093")).collect();
        let (voters, known) = match self.role {
            Role::Voter => (voters.join(","), String::new()),
            Role::Controller | Role::Broker => (String::new(), known.join(",")),
        };
        let (listeners, roles) = match self.role {
            Role::Voter | Role::Controller => {
                (format!("PLAINTEXT://n{id}:9092,CONTROLLER://n{id}:9093"), "broker,controller")
            }
            Role::Broker => (format!("PLAINTEXT://n{id}:9092"), "broker"),
        };
        for (key, value) in [
            ("node.id", id.to_string()),
            ("log.dirs", self.directories.join(",")),
            ("listeners", listeners),
            ("process.roles", roles.to_owned()),
            ("controller.quorum.voters", voters),
            ("controller.quorum.bootstrap.servers", known),
            ("log.segment.bytes", "1048576".to_owned()),
            ("log.dirs.min.free.bytes", "0".to_owned()),
            ("replica.lag.time.max.ms", "3000".to_owned()),
            ("replica.fetch.max.bytes", "600".to_owned()),
            ("replica.fetch.response.max.bytes", "2000".to_owned()),
            ("offsets.topic.num.partitions", "2".to_owned()),
            ("leader.imbalance.check.interval.seconds", "5".to_owned()),
        ] {
            config.set(key, &value, Origin::CommandLine).expect("valid");
        }
        let tiered = [
            ("remote.storage.url", "memory:shared"),
            ("remote.log.manager.task.interval.ms", "300"),
        ];
        let aged = [("log.retention.check.interval.ms", "1000"), ("log.cleaner.backoff.ms", "700")];
        let encrypted = [
            ("remote.storage.encryption.keys", "/keys/keys"),
            ("remote.fetch.disk.cache.dir", "/cache"),
        ];
        let has_bucket = matches!(self.bucket, BucketUse::Plain | BucketUse::Encrypted);
        let tiered = tiered.into_iter().filter(|_| has_bucket);
        let aged = aged.into_iter().filter(|_| self.bucket != BucketUse::None);
        let encrypted = encrypted.into_iter().filter(|_| self.bucket == BucketUse::Encrypted);
        for (key, value) in tiered.chain(aged).chain(encrypted) {
            config.set(key, value, Origin::CommandLine).expect("valid");
        }
        config
    }

    pub(super) fn is_running(&self) -> bool {
        let life = self.life.lock();
        life.is_running || life.dying > 0
    }

    /// Looks at the broker, if it has started.
    pub(super) fn with_broker<T>(&self, look: impl FnOnce(&Broker) -> T) -> Option<T> {
        self.life.lock().broker.as_ref().map(look)
    }

    /// What it sees of the controller, if it has started.
    pub(super) fn controller(&self) -> Option<Arc<Controller>> {
        self.with_broker(|broker| Arc::clone(&broker.context().controller))
    }

    /// Turns the machine on.
    pub(super) fn start(&self) {
        self.life.lock().is_running = true;
        let node = self.clone();
        drop(spawn_on(self.id, async move {
            if let Err(error) = node.run().await {
                tracing::info!(node = node.id, %error, "node not started");
                node.life.lock().is_running = false;
            }
        }));
    }

    async fn run(&self) -> Result<(), String> {
        self.net.back(self.id);
        let (config, clock) = (self.config(), Clock::simulated(STARTED_MS));
        let random = Random::seeded(self.random.next_u64());
        let disk: SharedDisk = Arc::new(self.disk.clone());
        let dialer: Dialer = Arc::new(SimDialer { net: self.net.clone(), from: self.id });
        let handles = (clock.clone(), random.clone());
        let lease = (Lease::none(), Some(CLUSTER.to_owned()));
        let replicas = Replicas::open(&disk, replica_settings(&config), handles, lease)
            .map_err(|error| error.to_string())?;
        let directory =
            replicas.metadata_directory(METADATA_FOLDER).map_err(|error| error.to_string())?.id;
        let node = i32::try_from(self.id).expect("small");
        let identity = Identity { node, directory, cluster: Some(CLUSTER.to_owned()) };
        let service = PeerService::new(identity.clone());
        let rules = ConnectionRules {
            frame_bytes_max: 64 << 20,
            idle: Duration::from_mins(10),
            budgets: Budgets::new(64 << 20, 64 << 20),
        };
        if self.role != Role::Broker {
            let address = format!("n{}:9093", self.id);
            self.net.listen(&address, self.id, acceptor(self.id, Arc::clone(&service), rules));
        }
        let name = format!("n{}", self.id);
        let parts = Parts {
            config,
            disk,
            clock,
            random,
            replicas,
            advertised: HashMap::from([("PLAINTEXT".into(), (name.clone(), 9092))]),
            peers: Peers::new(identity, Arc::clone(&dialer)),
            service,
            metadata_reserve_bytes: 0,
            broker_dialer: Arc::clone(&dialer),
            dialer,
        };
        let broker = Broker::open(parts, &crate::system::life::Life::new()).await;
        let broker = broker.map_err(|error| error.to_string())?;
        let (service, rules) = broker.service();
        self.net.listen(&format!("{name}:9092"), self.id, acceptor(self.id, service, rules));
        let failed = broker.failed();
        let ended = {
            let mut life = self.life.lock();
            life.broker = Some(broker);
            life.ended
        };
        tracing::info!(node = self.id, "node started");
        let node = self.clone();
        // As a process that ends with an error.
        spawn_free(async move {
            tokio::select! {
                biased;
                () = node.is_over(ended) => return,
                _ = failed => {}
            }
            if node.life.lock().ended != ended {
                return;
            }
            kill(node.id);
            node.net.gone(node.id, false);
            drop(node.life.lock().broker.take());
        });
        Ok(())
    }

    /// Returns when the node was stopped, or died.
    async fn is_over(&self, ended: u32) {
        while self.life.lock().ended == ended {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn end(&self) -> Option<Broker> {
        let mut life = self.life.lock();
        life.ended += 1;
        life.broker.take()
    }

    /// The process dies; `power`: the machine with it, and what was not flushed.
    pub(super) async fn die(&self, power: bool, random: &Random) {
        self.life.lock().dying += 1;
        pause(self.id, false);
        kill(self.id);
        self.net.gone(self.id, power);
        drop(self.end());
        // Aborted tasks are dropped when the runtime comes by.
        sleep(Duration::from_millis(1)).await;
        self.disk.set_faults(Faults { sync_us: SYNC_US, ..Faults::default() });
        if power {
            self.disk.crash(random);
        } else {
            self.disk.die();
        }
        let mut life = self.life.lock();
        life.dying -= 1;
        life.is_running = false;
    }

    /// The process is asked to stop, and does within a while.
    pub(super) async fn stop(&self, random: &Random) {
        if let Some(broker) = self.end() {
            let stopping = spawn_on(self.id, broker.stop());
            let _ = stopping.await;
            tracing::info!(node = self.id, "node stopped");
        }
        self.die(false, random).await;
    }

    pub(super) fn pause(&self, is_paused: bool) {
        pause(self.id, is_paused);
    }

    /// What this node's logs know of producers, by partition.
    pub(super) fn producers(&self, topic: &str) -> BTreeMap<i32, Vec<String>> {
        let topic = self.with_broker(|broker| broker.context().replicas.topic(topic)).flatten();
        let partitions = topic.map(|topic| topic.partitions()).unwrap_or_default();
        let lines = |log: &crate::log::Log| log.producers().lines();
        let known = |partition: &crate::replication::PartitionHandle| {
            (partition.name.partition, partition.with_log(lines).unwrap_or_default())
        };
        partitions.iter().map(known).collect()
    }

    /// What stands in this node's logs: by partition the high watermark, and the batches below it by their base offset.
    pub(super) fn logs(&self, topic: &str) -> BTreeMap<i32, (i64, BTreeMap<i64, Vec<u8>>)> {
        let mut logs = BTreeMap::new();
        let topic = self.with_broker(|broker| broker.context().replicas.topic(topic)).flatten();
        for partition in topic.map(|topic| topic.partitions()).unwrap_or_default() {
            let end = partition.high_watermark();
            let batches = partition.with_log(|log| {
                let mut all = BTreeMap::new();
                let mut at = log.log_start();
                while at < end
                    && let Ok(Some(slice)) = log.slice(at, log.end(), 1 << 20, true)
                {
                    let bytes = slice.read().expect("read");
                    let mut rest = bytes.as_slice();
                    while let Some((header, batch, after)) = crate::record::next_batch(rest) {
                        rest = after;
                        at = header.last_offset() + 1;
                        if at <= end {
                            all.insert(header.base_offset, batch.to_vec());
                        }
                    }
                }
                all
            });
            logs.insert(partition.name.partition, (end, batches.unwrap_or_default()));
        }
        logs
    }

    /// This node's logs whose last records still lie in the segment that is written. (Whether that was cleaned is not asked: a node's
    /// clock begins anew with its process here, and what is to come is overdue for nobody.)
    pub(super) fn unaged(&self, topic: &str) -> Vec<(i32, String)> {
        let topic = self.with_broker(|broker| broker.context().replicas.topic(topic)).flatten();
        let partitions = topic.map(|topic| topic.partitions()).unwrap_or_default();
        let left = |log: &crate::log::Log| {
            let (active, end) = (log.active_base(), log.log_end());
            (active < end).then(|| format!("from {active} to {end} is not closed"))
        };
        let look = |p: &crate::replication::PartitionHandle| {
            Some((p.name.partition, p.with_log(left).flatten()?))
        };
        partitions.iter().filter_map(look).collect()
    }

    /// Where this node's logs begin, by partition.
    pub(super) fn starts(&self, topic: &str) -> BTreeMap<i32, i64> {
        let topic = self.with_broker(|broker| broker.context().replicas.topic(topic)).flatten();
        let partitions = topic.map(|topic| topic.partitions()).unwrap_or_default();
        partitions.iter().map(|p| (p.name.partition, p.local_start())).collect()
    }
}
