//! Three nodes on this machine, and what happens to them: killed, stopped, asked to stop, while a client produces.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use crate::broker::{BINARY, Broker, folder, run};
use crate::judges::Judge;
use crate::kit::{eventually, python_script};
use crate::wire::{Wire, name};

const NODES: usize = 3;

/// Where a node listens and keeps its data, and how it is run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub host: String,
    pub kafka: u16,
    pub controller: u16,
    pub data: PathBuf,
    /// What stands before the program's name.
    pub prefix: Vec<String>,
    pub settings: Vec<String>,
    /// The program, where it is not the built one.
    pub program: Option<PathBuf>,
}

/// Nodes that form a cluster.
pub(crate) struct Cluster {
    pub places: Vec<Place>,
    pub nodes: Vec<Option<Broker>>,
    /// How many of the first places vote from the beginning.
    voters: usize,
    /// Further settings of every node.
    settings: Vec<String>,
}

pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    bound.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

impl Cluster {
    /// Starts three nodes on loopback.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_at(Self::places(folder))
    }

    pub(crate) fn places(folder: &Path) -> Vec<Place> {
        let ports = free_ports(2 * NODES);
        let place = |(index, ports): (usize, &[u16])| Place {
            host: "127.0.0.1".to_owned(),
            kafka: ports[0],
            controller: ports[1],
            data: folder.join(format!("node{}", index + 1)),
            prefix: Vec::new(),
            settings: Vec::new(),
            program: None,
        };
        ports.chunks(2).enumerate().map(place).collect()
    }

    pub(crate) fn start_at(places: Vec<Place>) -> Self {
        Self::start_with(places, &[])
    }

    pub(crate) fn start_with(places: Vec<Place>, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let nodes = places.iter().map(|_| None).collect();
        let voters = places.len();
        let mut cluster = Self { places, nodes, voters, settings };
        cluster.start_missing();
        cluster
    }

    /// Starts another node, which finds the voters by itself; its id.
    pub(crate) fn add(&mut self, folder: &Path, is_controller: bool, settings: &[&str]) -> usize {
        let id = self.places.len() + 1;
        let ports = free_ports(2);
        let servers: Vec<String> = self.places[..self.voters]
            .iter()
            .map(|place| format!("{}:{}", place.host, place.controller))
            .collect();
        let mut own = vec![
            "controller.quorum.voters=".to_owned(),
            format!("controller.quorum.bootstrap.servers={}", servers.join(",")),
        ];
        if !is_controller {
            own.push("process.roles=broker".to_owned());
            own.push(format!("listeners=PLAINTEXT://127.0.0.1:{}", ports[0]));
        }
        own.extend(settings.iter().map(|setting| (*setting).to_owned()));
        self.places.push(Place {
            host: "127.0.0.1".to_owned(),
            kafka: ports[0],
            controller: ports[1],
            data: folder.join(format!("node{id}")),
            prefix: Vec::new(),
            settings: own,
            program: None,
        });
        self.nodes.push(None);
        self.start_missing();
        id
    }

    /// Stops a node for good.
    pub(crate) fn remove(&mut self, id: usize) {
        assert!(self.nodes[id - 1].take().expect("running").terminate().success());
    }

    pub(crate) fn command(&self, index: usize) -> Command {
        let place = &self.places[index];
        let voter =
            |(index, p): (usize, &Place)| format!("{}@{}:{}", index + 1, p.host, p.controller);
        let voters: Vec<String> =
            self.places[..self.voters].iter().enumerate().map(voter).collect();
        let mut words = place.prefix.clone();
        let program = place.program.as_ref().map(|path| path.display().to_string());
        words.push(program.unwrap_or_else(|| BINARY.to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve");
        let own = [
            format!("node.id={}", index + 1),
            format!("log.dirs={}", place.data.display()),
            format!(
                "listeners=PLAINTEXT://{host}:{},CONTROLLER://{host}:{}",
                place.kafka,
                place.controller,
                host = place.host
            ),
            format!("controller.quorum.voters={}", voters.join(",")),
            "http.listen=127.0.0.1:0".to_owned(),
            "log.dirs.min.free.bytes=0".to_owned(),
        ];
        for setting in own.iter().chain(&self.settings).chain(&place.settings) {
            command.args(["--set", setting]);
        }
        command
    }

    /// Starts the nodes that are not running, all at once: a first one alone would wait for the others.
    pub(crate) fn start_missing(&mut self) {
        let missing: Vec<usize> =
            (0..self.nodes.len()).filter(|index| self.nodes[*index].is_none()).collect();
        let starting: Vec<_> = missing
            .into_iter()
            .map(|index| {
                let command = self.command(index);
                (index, std::thread::spawn(move || Broker::start_command(command)))
            })
            .collect();
        for (index, thread) in starting {
            self.nodes[index] = Some(thread.join().expect("the node starts"));
        }
    }

    /// Forgets nodes that ended by themselves (their disk failed).
    pub(crate) fn reap(&mut self) {
        for node in &mut self.nodes {
            if node.as_mut().is_some_and(Broker::has_ended) {
                *node = None;
            }
        }
    }

    pub(crate) fn bootstrap(&self) -> String {
        let address = |place: &Place| format!("{}:{}", place.host, place.kafka);
        self.places.iter().map(address).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn node(&self, index: usize) -> &Broker {
        self.nodes[index].as_ref().expect("running")
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].take().expect("running").kill();
    }

    /// Waits until every running node knows the same topics, every partition has a leader, and all its replicas are in
    /// sync. A node that has not yet heard of a topic finds nothing wrong with it.
    pub(crate) fn wait_healthy(&self) {
        let bootstrap = self.bootstrap();
        let begun = Instant::now();
        let mut why = String::from("nodes know different topics");
        while begun.elapsed() < Duration::from_mins(1) {
            let running = self.places.iter().zip(&self.nodes).filter(|(_, node)| node.is_some());
            let mut known = running.map(|(place, _)| {
                let address = format!("{}:{}", place.host, place.kafka);
                self.ask(&["topic", "ls", "--format", "json", "-b", &address]).ok()
            });
            let first = known.next().flatten();
            if first.is_some() && known.all(|topics| topics == first) {
                match self.ask(&["cluster", "health", "-b", &bootstrap]) {
                    Ok(_) => return,
                    Err(found) => why = found,
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not healthy: {why}");
    }

    /// What the command line prints where the first node stands; what it complains of as the error.
    fn ask(&self, words: &[&str]) -> Result<String, String> {
        let mut all = self.places[0].prefix.clone();
        all.extend([BINARY].iter().chain(words).map(|word| (*word).to_owned()));
        let output = Command::new(&all[0]).args(&all[1..]).output().expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Stops every node, and says which partitions of a topic are not the same bytes on all of them.
    pub(crate) fn stop_and_compare(&mut self, topic: &str) -> Vec<String> {
        // Followers learn of the last high watermark with their next fetch.
        std::thread::sleep(Duration::from_secs(1));
        for node in &mut self.nodes {
            node.take().expect("running").kill();
        }
        let logs: Vec<BTreeMap<String, Vec<u8>>> =
            self.places.iter().map(|place| logs_of(&place.data, topic)).collect();
        let mut different = Vec::new();
        for name in logs[0].keys() {
            let first = logs[0].get(name);
            if logs.iter().any(|other| other.get(name) != first) {
                let bytes: Vec<_> = logs.iter().map(|l| l.get(name).map(Vec::len)).collect();
                different.push(format!("{name}: {bytes:?} bytes"));
            }
        }
        different
    }
}

/// The bytes of each partition of a topic.
fn logs_of(data: &Path, topic: &str) -> BTreeMap<String, Vec<u8>> {
    let mut logs = BTreeMap::new();
    for entry in std::fs::read_dir(data).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.rsplit_once('-').is_none_or(|(found, _)| found != topic) {
            continue;
        }
        let mut files: Vec<PathBuf> = std::fs::read_dir(entry.path())
            .expect("a folder")
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
            .collect();
        files.sort();
        let bytes = files.iter().flat_map(|file| std::fs::read(file).expect("a file")).collect();
        logs.insert(name, bytes);
    }
    logs
}

#[test]
fn three_nodes_lose_nothing_while_each_is_killed_paused_and_asked_to_stop() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let judge = Judge::start(&[], &cluster.bootstrap(), 24);
    std::thread::sleep(Duration::from_secs(3));
    for index in 0..NODES {
        cluster.kill(index);
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.start_missing();
        std::thread::sleep(Duration::from_secs(1));
        cluster.node(index).pause(true);
        std::thread::sleep(Duration::from_millis(2_500));
        cluster.node(index).pause(false);
        std::thread::sleep(Duration::from_secs(1));
        assert!(cluster.nodes[index].take().expect("running").terminate().success());
        cluster.start_missing();
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(judge.verdict() > 1_000, "too little was produced");
    cluster.wait_healthy();
    let different = cluster.stop_and_compare("all");
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn a_controller_that_stood_still_blames_no_broker_for_it() {
    let (folder, _) = folder();
    let mut places = Cluster::places(folder.path());
    places.truncate(1);
    let mut cluster = Cluster::start_with(places, &["auto.leader.rebalance.enable=false"]);
    let others = [(); 2].map(|()| cluster.add(folder.path(), false, &[]));
    crate::operations::ours(&cluster, &["topic", "create", "t", "-p", "6", "-r", "2"]);
    cluster.wait_healthy();
    let address = cluster.node(others[0] - 1).address.clone();
    let epochs = || {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name("t")))]));
        let answer = Wire::connect(&address).ask(9, &request);
        let mut epochs: Vec<(i32, i32)> = answer.topics[0]
            .partitions
            .iter()
            .map(|partition| (partition.partition_index, partition.leader_epoch))
            .collect();
        epochs.sort_unstable();
        epochs
    };
    let before = epochs();
    assert_eq!(before.len(), 6);
    for _ in 0..3 {
        cluster.node(0).pause(true);
        std::thread::sleep(Duration::from_secs(3));
        cluster.node(0).pause(false);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(epochs(), before, "leaders were changed");
    }
    cluster.wait_healthy();
    // One that is really gone is missed as ever.
    cluster.kill(others[1] - 1);
    eventually("others lead what it led", || {
        let now = epochs();
        now.len() == 6 && now != before
    });
}

#[test]
fn a_rolling_restart_loses_nothing_even_of_what_only_the_leader_acknowledged() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let judge = Judge::start(&[], &cluster.bootstrap(), 14);
    std::thread::sleep(Duration::from_secs(3));
    for index in (0..NODES).chain(0..NODES) {
        assert!(cluster.nodes[index].take().expect("running").terminate().success());
        cluster.start_missing();
        cluster.wait_healthy();
    }
    assert!(judge.verdict_on(&["all", "one"]) > 1_000, "too little was produced");
}

#[test]
fn a_consumer_that_names_its_rack_is_served_by_the_follower_there() {
    let (folder, _) = folder();
    let cluster = Cluster::start_at(racks(folder.path()));
    read_in_rack(&cluster, &[]);
}

/// Places in racks of their own, where consumers are sent to the follower in theirs.
pub(crate) fn racks(folder: &Path) -> Vec<Place> {
    let selector =
        "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let mut places = Cluster::places(folder);
    for (index, place) in places.iter_mut().enumerate() {
        place.settings = vec![format!("broker.rack=rack{}", index + 1), selector.to_owned()];
    }
    places
}

/// Reads as a consumer of a follower's rack; which follower.
pub(crate) fn read_in_rack(cluster: &Cluster, more: &[&str]) -> usize {
    let mut script = python_script("racks.py");
    let out = crate::kit::succeed(script.arg(cluster.bootstrap()).args(more));
    let result: serde_json::Value = serde_json::from_str(out.trim()).expect("JSON");
    let follower = result["follower"].as_u64().expect("an id");
    let fetches = |id: u64| result["fetches"][id.to_string()].as_u64().unwrap_or(0);
    let others: u64 = (1..=3).filter(|id| *id != follower).map(fetches).sum();
    assert!(fetches(follower) > others, "{out}");
    usize::try_from(follower).expect("small")
}

#[test]
fn groups_commit_whichever_broker_keeps_them_and_a_topic_made_while_one_is_down_has_all_its_replicas()
 {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let bootstrap = cluster.bootstrap();
    crate::kit::succeed(python_script("commits.py").arg(&bootstrap));
    cluster.kill(2);
    let made = run(&["topic", "create", "t", "-b", &bootstrap]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    cluster.start_missing();
    cluster.wait_healthy();
    let told = run(&["topic", "describe", "t", "--format", "json", "-b", &bootstrap]);
    let rows: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    for key in ["replicas", "isr"] {
        let ids = rows[0][key]
            .as_array()
            .map(Vec::len)
            .or_else(|| rows[0][key].as_str().map(|text| text.split(',').count()));
        assert_eq!(ids, Some(3), "{key}: {rows}");
    }
}

#[test]
fn a_cluster_serves_again_within_seconds_after_every_node_was_killed() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let bootstrap = cluster.bootstrap();
    let created = run(&["topic", "create", "t", "--partitions", "20", "-b", &bootstrap]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    for _ in 0..2 {
        (0..NODES).for_each(|index| cluster.kill(index));
        let begun = Instant::now();
        cluster.start_missing();
        cluster.wait_healthy();
        println!("healthy after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn a_leader_whose_bytes_rotted_gives_way_to_a_replica_with_good_ones_and_infects_nobody() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let bootstrap = cluster.bootstrap();
    let made = run(&["topic", "create", "t", "-r", "3", "-b", &bootstrap]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let numbers: Vec<String> = (0..2_000).map(|number: u32| number.to_string()).collect();
    let lines = numbers.join("\n") + "\n";
    let input = folder.path().join("input");
    std::fs::write(&input, &lines).expect("written");
    let produced = Command::new(BINARY)
        .args(["produce", "t", "-b", &bootstrap])
        .stdin(std::fs::File::open(&input).expect("a file"))
        .output()
        .expect("it runs");
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    cluster.wait_healthy();
    let leader = || {
        let told = run(&["topic", "describe", "t", "--format", "json", "-b", &bootstrap]);
        let rows: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
        usize::try_from(rows[0]["leader"].as_i64().unwrap_or(-1)).ok()
    };
    let first = leader().expect("a leader");
    let rotten = cluster.places[first - 1].data.join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&rotten).expect("a log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&rotten, &bytes).expect("written");
    // Somebody has to read it all: a follower that lost its disk's replica.
    let follower = first % NODES + 1;
    cluster.kill(follower - 1);
    std::fs::remove_dir_all(cluster.places[follower - 1].data.join("t-0")).expect("removed");
    cluster.start_missing();
    eventually("another one leads", || leader().is_some_and(|now| now != first));
    let read = run(&["consume", "t", "--offset", "start", "--exit", "-b", &bootstrap]);
    assert_eq!(String::from_utf8_lossy(&read.stdout), lines);
}
