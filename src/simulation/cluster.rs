//! A run of a whole cluster: chaos, then healing, then a look at everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::client::TOPIC;
use super::net::SimNet;
use super::nodes::{BucketUse, Node, Role, SYNC_US};
use super::operator::{Act, carry_out, undrain};
use super::producer::Producer;
use crate::controller::NewTopic;
use crate::objects::faulty::{Fault as BucketFault, renew_shared};
use crate::system::Random;
use crate::system::clock::{Instant, monotonic, simulate_uptime, sleep, timeout_at};
use crate::system::sim_disk::Faults;
use crate::system::sim_nodes::reset;
use crate::system::tasks::{JoinHandle, run_blocking_in_place, spawn};

const PARTITIONS: i32 = 3;
const VOTERS: u32 = 3;

/// What a run showed.
#[derive(Debug, Default)]
pub(super) struct ClusterRun {
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
    pub acked: usize,
    pub refused: usize,
    pub faults: usize,
    /// The last offset at which a replica's log begins: what is before is in the bucket only.
    pub local_start: i64,
    /// The last offset at which a partition begins: what is before is gone.
    pub start: i64,
    /// Records that readers find at last.
    pub left: usize,
}

impl ClusterRun {
    pub(super) fn panicked() -> Self {
        Self { wrong: vec!["it panicked".to_owned()], ..Self::default() }
    }
}

/// What can happen, as the seed picks; some kinds do not exist in a run (swarm testing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    PowerCut,
    PowerCutAll,
    KillAll,
    Stop,
    Pause,
    Isolate,
    OneWay,
    Slow,
    Disk,
    /// No fault, but what an operator asks for, at any time.
    Act(Act),
}

const FAULTS: [Fault; 13] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutAll,
    Fault::KillAll,
    Fault::Stop,
    Fault::Pause,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Slow,
    Fault::Disk,
    Fault::Act(Act::Move),
    Fault::Act(Act::Drain),
    Fault::Act(Act::Voters),
];

struct World {
    random: Random,
    net: SimNet,
    nodes: Vec<Node>,
    run: ClusterRun,
    kinds: Vec<Fault>,
    started: Instant,
    kind: Kind,
    retention_bytes: Option<u64>,
    /// What is in the bucket stays on the disks as well, until it is too much: a copy of a replica has in one segment then what the
    /// bucket has in several.
    keeps_local: bool,
    bucket: Arc<Mutex<BucketFault>>,
    spoiled: Option<JoinHandle<()>>,
}

/// The bucket fails in one way or another, half of the time.
async fn spoil(bucket: Arc<Mutex<BucketFault>>, random: Random) {
    const KINDS: [BucketFault; 4] =
        [BucketFault::Down, BucketFault::Short, BucketFault::Flipped, BucketFault::DoneButFailed];
    loop {
        sleep(Duration::from_millis(200 + random.below(3_000))).await;
        let kind = usize::try_from(random.below(4)).ok().and_then(|at| KINDS.get(at));
        *bucket.lock() = kind.copied().unwrap_or(BucketFault::Down);
        sleep(Duration::from_millis(200 + random.below(3_000))).await;
        *bucket.lock() = BucketFault::None;
    }
}

/// Runs one seed for so many seconds of its own time.
pub(super) fn run(seed: u64, seconds: u64) -> ClusterRun {
    run_with(seed, seconds, Kind::Local)
}

/// After this time nothing is still under way that will come to an end.
const STUCK_AFTER: Duration = Duration::from_mins(10);

/// The same with a bucket, which fails too, and segments that are on disk for a moment only.
pub(super) fn run_tiered(seed: u64, seconds: u64) -> ClusterRun {
    run_with(seed, seconds, Kind::Tiered)
}

/// The same with a bucket and a topic that is compacted, here and there.
pub(super) fn run_compacted(seed: u64, seconds: u64) -> ClusterRun {
    run_with(seed, seconds, Kind::Compacted)
}

/// The same with a bucket and retention by size, and replicas that go from one log directory to the other.
pub(super) fn run_sized(seed: u64, seconds: u64) -> ClusterRun {
    run_with(seed, seconds, Kind::Sized)
}

/// The same with compacted logs whose segments are closed by their age, and records of all sizes.
pub(super) fn run_aged(seed: u64, seconds: u64) -> ClusterRun {
    run_with(seed, seconds, Kind::Aged)
}

/// How long nothing is appended before everything is read again, in aged runs: longer than every timer of a log.
const IDLE: Duration = Duration::from_secs(8);

/// Where a run's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Tiered,
    Compacted,
    /// Tiered, with retention by size, on nodes with two log directories.
    Sized,
    /// On disk only, compacted there; records on both sides of what the code treats as small, and times in which nothing comes.
    Aged,
}

impl Kind {
    fn has_bucket(self) -> bool {
        matches!(self, Kind::Tiered | Kind::Compacted | Kind::Sized)
    }

    fn is_compacted(self) -> bool {
        matches!(self, Kind::Compacted | Kind::Aged)
    }
}

fn run_with(seed: u64, seconds: u64, kind: Kind) -> ClusterRun {
    run_blocking_in_place();
    let bucket = renew_shared();
    reset();
    let seed_bytes: Vec<u8> = std::iter::repeat_n(seed.to_be_bytes(), 4).flatten().collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed_bytes))
        .build()
        .expect("a runtime");
    let run = runtime.block_on(async {
        simulate_uptime(true);
        let random = Random::seeded(seed);
        let net = SimNet::new(Random::seeded(random.next_u64()));
        let nodes = roles(&random);
        let nodes = (1..).zip(nodes);
        let use_of_bucket = match kind {
            Kind::Local => BucketUse::None,
            Kind::Aged => BucketUse::Aged,
            _ if seed.is_multiple_of(2) => BucketUse::Plain,
            _ => BucketUse::Encrypted,
        };
        let node = |(id, role)| {
            let mut node = Node::new(id, (role, VOTERS, use_of_bucket), &net, &random);
            if kind == Kind::Sized {
                node.directories = &["/sim", "/other"];
            }
            node
        };
        let nodes = nodes.map(node).collect();
        let kinds: Vec<Fault> = FAULTS.into_iter().filter(|_| random.below(2) == 0).collect();
        let mut kinds = if kinds.is_empty() { FAULTS.to_vec() } else { kinds };
        let retention_bytes = (kind == Kind::Sized).then(|| {
            kinds.extend([Fault::Act(Act::Directory); 3]);
            5_000 + random.below(40_000)
        });
        let keeps_local = kind == Kind::Sized && random.below(2) == 0;
        let (run, started) = (ClusterRun::default(), monotonic());
        let closing = net.clone();
        let spoiled =
            kind.has_bucket().then(|| spawn(spoil(Arc::clone(&bucket), Random::seeded(!seed))));
        let world = World {
            random,
            net,
            nodes,
            run,
            kinds,
            started,
            kind,
            retention_bytes,
            keeps_local,
            bucket,
            spoiled,
        };
        let until = started + Duration::from_secs(seconds) + STUCK_AFTER;
        let run = timeout_at(until, world.live(seconds)).await.unwrap_or_else(|_| {
            let wrong = vec!["something waits for what never comes".to_owned()];
            ClusterRun { wrong, ..ClusterRun::default() }
        });
        closing.close();
        run
    });
    drop(runtime);
    simulate_uptime(false);
    reset();
    run
}

/// Three that vote, and in two of three runs one or two more.
fn roles(random: &Random) -> Vec<Role> {
    let mut roles = vec![Role::Voter; 3];
    for _ in 0..random.below(3) {
        roles.push(if random.below(2) == 0 { Role::Controller } else { Role::Broker });
    }
    roles
}

impl World {
    /// How many nodes there are; they are numbered from 1 on.
    fn count(&self) -> u32 {
        u32::try_from(self.nodes.len()).expect("few")
    }

    fn note(&mut self, what: &str) {
        let at_ms = self.started.elapsed().as_millis();
        self.run.trace.push(format!("{at_ms:>6} {what}"));
    }

    async fn live(mut self, seconds: u64) -> ClusterRun {
        self.nodes.iter().for_each(Node::start);
        if !self.make_topic(Duration::from_secs(20)).await {
            self.run.wrong.push("the cluster did not form".to_owned());
            return self.run;
        }
        let until = monotonic() + Duration::from_secs(seconds);
        let clients: Vec<JoinHandle<Producer>> = (0..PARTITIONS)
            .map(|partition| {
                let mut client = Producer::new(partition, self.count(), &self.net, &self.random);
                client.is_keyed = self.kind.is_compacted();
                client.has_large = self.kind == Kind::Aged;
                client.retention_bytes = self.retention_bytes;
                spawn(async move {
                    client.live(until).await;
                    client
                })
            })
            .collect();
        while monotonic() + Duration::from_secs(3) < until {
            sleep(Duration::from_millis(100 + self.random.below(2_000))).await;
            self.hurt().await;
        }
        self.heal().await;
        let mut back = Vec::new();
        for client in clients {
            back.push(client.await.expect("a client does not panic"));
        }
        self.check(back).await
    }

    fn topic_configs(&self) -> BTreeMap<String, Option<String>> {
        let tiered = [
            ("remote.storage.enable", "true"),
            ("segment.ms", "1500"),
            ("retention.ms", "-1"),
            ("local.retention.ms", if self.keeps_local { "-2" } else { "1" }),
            ("file.delete.delay.ms", "500"),
        ];
        let compacted = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")];
        let aged = [("segment.ms", "1500"), ("max.compaction.lag.ms", "3000")];
        let wanted = tiered.into_iter().filter(|_| self.kind.has_bucket());
        let more = compacted.into_iter().filter(|_| self.kind.is_compacted());
        let aged = aged.into_iter().filter(|_| self.kind == Kind::Aged);
        let texts = wanted.chain(more).chain(aged).map(|(key, value)| (key, value.to_owned()));
        let size = self.retention_bytes.map(|bytes| ("retention.bytes", bytes.to_string()));
        texts.chain(size).map(|(key, value)| (key.to_owned(), Some(value))).collect()
    }

    /// Waits for a controller and makes the topic.
    async fn make_topic(&self, wait: Duration) -> bool {
        let until = monotonic() + wait;
        let topic = NewTopic {
            name: TOPIC.to_owned(),
            partitions: PARTITIONS,
            replication_factor: 3,
            configs: self.topic_configs(),
            ..NewTopic::default()
        };
        while monotonic() < until {
            if let Some(controller) = self.nodes.first().and_then(Node::controller) {
                let alive = controller.image().brokers.values().filter(|b| !b.is_fenced).count();
                if alive == self.nodes.len() && controller.create_topic(&topic, false).await.is_ok()
                {
                    return true;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn pick(&self) -> Node {
        let index = usize::try_from(self.random.below(self.count().into())).unwrap_or(0);
        self.nodes.get(index).cloned().expect("a node")
    }

    /// One thing goes wrong for a while; what is wrong already goes on.
    async fn hurt(&mut self) {
        let kind = {
            let count = u64::try_from(self.kinds.len()).unwrap_or(1);
            let index = usize::try_from(self.random.below(count)).unwrap_or(0);
            self.kinds.get(index).copied().unwrap_or(Fault::Kill)
        };
        let node = self.pick();
        self.run.faults += 1;
        self.note(&format!("{kind:?} n{}", node.id));
        let mut nodes = vec![node.clone()];
        match kind {
            Fault::Kill | Fault::PowerCut => {
                node.die(kind == Fault::PowerCut, &self.random).await;
            }
            Fault::KillAll | Fault::PowerCutAll => {
                nodes.clone_from(&self.nodes);
                for node in &nodes {
                    node.die(kind == Fault::PowerCutAll, &self.random).await;
                }
            }
            Fault::Stop => node.stop(&self.random).await,
            Fault::Pause => node.pause(true),
            Fault::Isolate => {
                for other in (1..=self.count()).filter(|other| *other != node.id) {
                    self.net.cut(node.id, other);
                    self.net.cut(other, node.id);
                }
            }
            Fault::Act(act) => {
                let random = Random::seeded(self.random.next_u64());
                return carry_out(act, &node, &self.nodes, random);
            }
            Fault::OneWay => self.net.cut(node.id, self.pick().id),
            Fault::Slow => self.net.set_latency_us(1_000 + self.random.below(40_000)),
            Fault::Disk => {
                let faults = match self.random.below(3) {
                    0 => Faults { fail_writes: true, ..Faults::default() },
                    1 => Faults { fail_syncs: true, ..Faults::default() },
                    _ => Faults { room: Some(self.random.below(4_000)), ..Faults::default() },
                };
                node.disk.set_faults(Faults { sync_us: SYNC_US, ..faults });
            }
        }
        let held = Duration::from_millis(50 + self.random.below(4_000));
        let (net, random) = (self.net.clone(), Random::seeded(self.random.next_u64()));
        drop(spawn(async move {
            sleep(held).await;
            match kind {
                Fault::Kill
                | Fault::PowerCut
                | Fault::KillAll
                | Fault::PowerCutAll
                | Fault::Stop
                | Fault::Act(_) => {}
                Fault::Pause => node.pause(false),
                Fault::Isolate | Fault::OneWay | Fault::Slow => net.heal(),
                // A disk that failed is looked at by a person, and the machine started again.
                Fault::Disk => node.die(random.below(2) == 0, &random).await,
            }
            nodes.iter().filter(|node| !node.is_running()).for_each(Node::start);
        }));
    }

    fn restart_all(&self) {
        for node in self.nodes.iter().filter(|node| !node.is_running()) {
            node.start();
        }
    }

    async fn heal(&mut self) {
        self.note("heal");
        if let Some(spoiled) = self.spoiled.take() {
            spoiled.abort();
        }
        *self.bucket.lock() = BucketFault::None;
        self.net.heal();
        for node in self.nodes.clone() {
            node.pause(false);
        }
        self.restart_all();
        sleep(Duration::from_millis(1)).await;
    }

    /// Everything must converge: the ISR is full, producers are answered, all replicas hold the same bytes.
    async fn check(mut self, mut clients: Vec<Producer>) -> ClusterRun {
        let until = monotonic() + Duration::from_mins(1);
        while !self.is_whole() {
            if monotonic() >= until {
                let states: Vec<String> = self.nodes.iter().map(describe).collect();
                self.run.wrong.push(format!("not whole after a minute: {states:#?}"));
                break;
            }
            sleep(Duration::from_millis(100)).await;
            self.restart_all();
            undrain(&self.nodes).await;
        }
        for client in &mut clients {
            client.settle(monotonic() + Duration::from_secs(20)).await;
            if !client.is_settled() {
                self.run.wrong.push(format!("p{}: never acknowledged", client.partition));
            }
        }
        if self.kind == Kind::Aged {
            sleep(IDLE).await;
            self.look_for_unaged();
        }
        for client in &mut clients {
            client.verify(monotonic() + Duration::from_secs(20)).await;
        }
        // High watermarks reach followers with the next fetch.
        sleep(Duration::from_secs(2)).await;
        self.compare();
        self.look_for_discarded();
        for mut client in clients {
            self.run.acked += client.acked.len();
            self.run.start = self.run.start.max(client.start);
            self.run.left += client.seen.len();
            self.run.refused += client.refused;
            self.run.trace.append(&mut client.trace);
            self.run.wrong.append(&mut client.wrong);
        }
        self.run
    }

    /// Whatever happened to a log, after long idleness its last segment was closed for its age.
    fn look_for_unaged(&mut self) {
        for node in &self.nodes {
            for (partition, what) in node.unaged(TOPIC) {
                self.run.wrong.push(format!("n{}: p{partition} {what}", node.id));
            }
        }
    }

    /// No node took back what was committed: there are no unclean elections here.
    fn look_for_discarded(&mut self) {
        for node in &self.nodes {
            let discarded = node.with_broker(|b| b.context().replicas.discarded_records());
            if discarded.is_some_and(|discarded| discarded > 0) {
                self.run.wrong.push(format!("n{}: {discarded:?} records discarded", node.id));
            }
        }
    }

    /// Every replica of a partition holds the same bytes, and knows the same of producers.
    fn compare(&mut self) {
        let image = self.nodes.first().and_then(Node::controller).map(|c| c.image());
        let partitions = image.and_then(|image| image.topic(TOPIC).map(|t| t.partitions.clone()));
        let producers: Vec<_> = self.nodes.iter().map(|node| node.producers(TOPIC)).collect();
        let logs: Vec<_> = self.nodes.iter().map(|node| node.logs(TOPIC)).collect();
        let starts: Vec<_> = self.nodes.iter().map(|node| node.starts(TOPIC)).collect();
        for (partition, state) in (0..).zip(partitions.unwrap_or_default()) {
            let at = |id: &i32| usize::try_from(id - 1).expect("an id");
            let start = |id: &i32| starts.get(at(id)).and_then(|all| all.get(&partition)).copied();
            let start = state.replicas.iter().filter_map(start).max().unwrap_or(0);
            self.run.local_start = self.run.local_start.max(start);
            // What one of them has in the bucket only is compared by whoever reads it there.
            let held = |id: &i32| {
                let (end, batches) = logs.get(at(id))?.get(&partition)?;
                Some((end, batches.range(start..).collect::<Vec<_>>()))
            };
            let is_trimmed = self.kind == Kind::Sized;
            let known = |id: &i32| {
                let known = producers.get(at(id))?.get(&partition)?.clone();
                Some(if is_trimmed { without_counts(&known) } else { known })
            };
            let Some(first) = state.replicas.first() else { continue };
            for other in &state.replicas {
                // Each replica compacts its own log, and forgets batches that are gone.
                let is_compacted = self.kind.is_compacted();
                if !is_compacted && known(first) != known(other) {
                    let (one, two) = (known(first), known(other));
                    let what = format!("p{partition}: producer states differ: {one:?} {two:?}");
                    self.run.wrong.push(what);
                }
                let are_alike = is_compacted || held(first) == held(other);
                if !are_alike || held(other).is_none() {
                    let ends = |id| held(id).map(|(end, batches)| (*end, batches.len()));
                    let what = format!(
                        "p{partition}: replicas differ: n{first} {:?} n{other} {:?}",
                        ends(first),
                        ends(other)
                    );
                    self.run.wrong.push(what);
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.with_broker(|broker| {
                let image = broker.context().controller.image();
                let partitions = image.topic(TOPIC).map(|topic| topic.partitions.clone());
                image.brokers.values().all(|broker| !broker.is_fenced)
                    && partitions.unwrap_or_default().iter().all(|p| {
                        p.leader >= 0
                            && p.isr.len() == 3
                            && p.replicas.len() == 3
                            && p.adding.is_empty()
                    })
            }) == Some(true)
        })
    }
}

/// What logs know of producers, but for how many records each has stored: a replica that began where retention had left the log
/// has not seen those before.
fn without_counts(lines: &[String]) -> Vec<String> {
    let line = |line: &String| {
        let words = line.split(' ').enumerate().filter(|(at, _)| *at != 3);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(line).collect()
}

fn describe(node: &Node) -> String {
    let state = node.with_broker(|broker| {
        let image = broker.context().controller.image();
        let quorum = broker.context().controller.quorum();
        let partitions = image.topic(TOPIC).map(|topic| topic.partitions.clone());
        let fenced: Vec<(i32, bool)> =
            image.brokers.iter().map(|(id, broker)| (*id, broker.is_fenced)).collect();
        format!("{quorum:?} fenced {fenced:?} partitions {partitions:?}")
    });
    format!("n{} {:?}", node.id, state)
}
