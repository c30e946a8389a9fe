//! Changed bytes on the wire: what was well-formed is changed by chance and sent to a running broker beside a client that does nothing wrong.
//!
//! Some seconds in every run; `FUZZ=60m` as long as it says, `FUZZ_SEED=n` another chance, `FUZZ_FROM=n` from a connection on. Whatever fails, the seed and the bytes that were
//! sent last are printed. What a broker can be told over the wire by whoever may tell it everything is not looked for here: the requests
//! name only topics and groups of their own.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, MetadataRequest};

use super::every_api::{GROUP, TOPICS, read};
use super::good::{OFTEN, beside_a_good_client, descriptors};
use super::material::{KEPT, Material};
use super::mutations::{self, changed, framed, index};
use super::requests::taken;
use crate::broker::{Broker, folder};
use crate::cluster::free_ports;
use crate::compacted::told;
use crate::first_run::{cli, create, get};
use crate::kit::{eventually, eventually_within, python_script, succeed};
use crate::life::plan::Chance;
use crate::wire::{Wire, commit, name, text};

/// No small number: a request that happens to name the broker itself, such as UnregisterBroker, is carried out.
const NODE: i32 = 1_234_567;
/// How many clients send to the Kafka listener, beside one for the controller listener and one for HTTP.
const CLIENTS: usize = 2;
/// A pause between two connections of a client: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(10);
/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// What was sent last by a client.
const REMEMBERED: usize = 100;

#[derive(Debug, Default)]
struct Counts {
    cases: BTreeMap<&'static str, usize>,
    answers: usize,
    connections: usize,
    closed: usize,
    without_answer: usize,
}

/// Connections by their number, and what was sent over each.
type Last = VecDeque<(u64, Vec<u8>)>;

/// Clients that send, and what they have sent.
struct Field<'a> {
    broker: &'a Broker,
    /// What the broker says.
    log: &'a Path,
    controller: String,
    material: Material,
    seed: u64,
    /// The connection before the first one.
    from: u64,
    is_over: AtomicBool,
    counts: Mutex<Counts>,
    last: [Mutex<Last>; CLIENTS + 2],
    read: AtomicUsize,
}

/// A frame that was sent, and that may be answered.
struct Sent {
    key: i16,
    version: i16,
    id: [u8; 4],
}

/// Frames as whoever reads a connection finds them.
fn frames(mut bytes: &[u8]) -> VecDeque<Sent> {
    let mut found = VecDeque::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("fits");
        let Some(frame) = rest.get(..length).filter(|frame| frame.len() >= 8) else { break };
        let number = |at| i16::from_be_bytes([frame[at], frame[at + 1]]);
        let id = [frame[4], frame[5], frame[6], frame[7]];
        found.push_back(Sent { key: number(0), version: number(2), id });
        bytes = &rest[length..];
    }
    found
}

enum Came {
    Answer(Vec<u8>),
    Closed,
    Nothing,
}

/// The next frame of a connection.
fn next(stream: &mut TcpStream) -> Came {
    let came = |error: &std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Came::Nothing,
        _ => Came::Closed,
    };
    let mut length = [0; 4];
    if let Err(error) = stream.read_exact(&mut length) {
        return came(&error);
    }
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("fits")];
    match stream.read_exact(&mut answer) {
        Ok(()) => Came::Answer(answer),
        Err(error) => came(&error),
    }
}

impl Field<'_> {
    /// Opens a connection and notes what is to be sent over it; `None` where nobody listens.
    fn open(&self, client: usize, number: u64, to: &str) -> Option<TcpStream> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        self.counts.lock().expect("whole").connections += 1;
        let mut last = self.last[client].lock().expect("whole");
        while last.len() > REMEMBERED {
            last.pop_front();
        }
        last.push_back((number, Vec::new()));
        Some(stream)
    }

    fn note(&self, client: usize, (kind, bytes): (&'static str, &[u8])) {
        *self.counts.lock().expect("whole").cases.entry(kind).or_default() += 1;
        if let Some((_, all)) = self.last[client].lock().expect("whole").back_mut() {
            all.extend_from_slice(bytes);
        }
    }

    /// Reads answers until all that was sent is answered; whether the connection may be used again.
    fn answers(&self, stream: &mut TcpStream, mut sent: VecDeque<Sent>) -> bool {
        while !sent.is_empty() {
            match next(stream) {
                Came::Answer(answer) => {
                    // What wants no answer gets none, but all others in their order.
                    let asked = loop {
                        let first = sent.pop_front().expect("an answer that nobody asked for");
                        if answer.get(..4) == Some(&first.id) {
                            break first;
                        }
                        assert_eq!(first.key, 0, "API {} was left out: {answer:?}", first.key);
                    };
                    let (key, version) = (asked.key, asked.version);
                    if let Err(why) = read(key, version, &answer) {
                        panic!("the answer to API {key}, version {version}: {why}: {answer:?}");
                    }
                    self.counts.lock().expect("whole").answers += 1;
                }
                Came::Closed => {
                    self.counts.lock().expect("whole").closed += 1;
                    return false;
                }
                Came::Nothing => {
                    self.counts.lock().expect("whole").without_answer += sent.len();
                    return false;
                }
            }
        }
        true
    }

    /// One connection to the Kafka listener; some requests in one go, or one after the other.
    fn kafka(&self, client: usize, number: u64, chance: &mut Chance) -> Option<()> {
        let mut stream = self.open(client, number, &self.broker.address)?;
        let count = 1 + index(chance, 6);
        if chance.one_in(2) {
            let mut all = Vec::new();
            for id in 0..count {
                let (kind, bytes) = self.material.numbered(chance, id);
                self.note(client, (kind, &bytes));
                all.extend_from_slice(&bytes);
            }
            // The broker may close, or wait for its answers to be taken, before all of it is sent.
            let _ = stream.write_all(&all);
            self.answers(&mut stream, frames(&all));
        } else {
            for id in 0..count {
                let (kind, bytes) = self.material.numbered(chance, id);
                self.note(client, (kind, &bytes));
                if stream.write_all(&bytes).is_err() {
                    self.counts.lock().expect("whole").closed += 1;
                    break;
                }
                let sent = frames(&bytes);
                // What is no whole frame is the beginning of what comes next.
                if sent.is_empty() || !self.answers(&mut stream, sent) {
                    let _ = stream.shutdown(Shutdown::Write);
                    break;
                }
            }
        }
        Some(())
    }

    /// What cases are made of is sound itself.
    fn every_valid_request_is_answered(&self) {
        for valid in &self.material.valid {
            let mut stream = TcpStream::connect(&self.broker.address).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
            let length = u32::try_from(valid.frame.len()).expect("small").to_be_bytes();
            stream.write_all(&[&length[..], &valid.frame].concat()).expect("sent");
            let Came::Answer(answer) = next(&mut stream) else {
                panic!("API {}, version {} is not answered", valid.key, valid.version);
            };
            let read = read(valid.key, valid.version, &answer);
            assert!(read.is_ok(), "API {}, version {}: {read:?}", valid.key, valid.version);
        }
    }

    fn controller(&self, client: usize, number: u64, chance: &mut Chance) -> Option<()> {
        let mut stream = self.open(client, number, &self.controller)?;
        for _ in 0..=chance.below(6) {
            let material = &self.material;
            let bytes = if chance.one_in(4) {
                let valid = material.request(chance);
                mutations::request(chance, valid, valid)
            } else {
                let message = material.one(chance, "peer_message");
                let other = material.one(chance, "peer_message");
                let message = changed(chance, message, other, 0);
                framed(chance, &message)
            };
            self.note(client, ("messages to the controller", &bytes));
            if stream.write_all(&bytes).is_err() {
                break;
            }
            match next(&mut stream) {
                Came::Answer(answer) => {
                    let read = serde_json::from_slice::<serde_json::Value>(&answer);
                    read.expect("an answer of the controller's is JSON");
                    self.counts.lock().expect("whole").answers += 1;
                }
                Came::Closed => {
                    self.counts.lock().expect("whole").closed += 1;
                    break;
                }
                Came::Nothing => {
                    self.counts.lock().expect("whole").without_answer += 1;
                    break;
                }
            }
        }
        Some(())
    }

    fn http(&self, client: usize, number: u64, chance: &mut Chance) -> Option<()> {
        const PATHS: [&str; 5] =
            ["/livez", "/readyz", "/metrics", "/v1/config/effective", "/v1/config/effective?x=%zz"];
        let mut stream = self.open(client, number, &self.broker.http)?;
        let whole = |path| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
            )
        };
        let (path, other) = (chance.pick(&PATHS), whole(chance.pick(&PATHS)));
        let bytes = changed(chance, whole(path).as_bytes(), other.as_bytes(), 0);
        self.note(client, ("HTTP requests", &bytes));
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let is_closed = stream.read_to_end(&mut answer).is_ok();
        // An answer without a head is one of HTTP/0.9, which nobody speaks.
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        let mut counts = self.counts.lock().expect("whole");
        counts.answers += usize::from(!answer.is_empty());
        counts.closed += usize::from(is_closed && answer.is_empty());
        counts.without_answer += usize::from(!is_closed);
        Some(())
    }

    /// A client of its own chance, until the time is over.
    fn client(&self, client: usize) {
        let mut number = self.from;
        while !self.is_over.load(Ordering::Relaxed) {
            number += 1;
            let mut chance = Chance::new(
                self.seed ^ (u64::try_from(client).expect("few") << 56) ^ (number << 20),
            );
            let done = match client {
                CLIENTS => self.controller(client, number, &mut chance),
                client if client > CLIENTS => self.http(client, number, &mut chance),
                _ => self.kafka(client, number, &mut chance),
            };
            if done.is_none() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The cluster that a node says it is of.
fn cluster_of(controller: &str) -> String {
    let hello = br#"{"from":{"node":1,"directory":"00000000-0000-0000-0000-000000000001","cluster":null},"body":"Hello"}"#;
    let mut stream = TcpStream::connect(controller).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let length = u32::try_from(hello.len()).expect("small").to_be_bytes();
    stream.write_all(&[&length[..], hello].concat()).expect("sent");
    let Came::Answer(answer) = next(&mut stream) else { panic!("no answer to a hello") };
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    answer["from"]["cluster"].as_str().expect("a cluster").to_owned()
}

impl Drop for Field<'_> {
    /// What was sent last, where something went wrong.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", self.seed));
        let _ = std::fs::create_dir_all(&folder);
        let _ = std::fs::copy(self.log, folder.join("log"));
        println!(
            "FUZZ_SEED={}; all of these bytes, and what the broker said, are in {}",
            self.seed,
            folder.display()
        );
        for (client, last) in self.last.iter().enumerate() {
            let last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for (number, bytes) in last.iter() {
                let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                let _ = std::fs::write(folder.join(format!("{client}-{number}")), &hex);
                let shown = hex.get(..8_000).unwrap_or(&hex);
                println!("client {client}, connection {number}, {} bytes: {shown}", bytes.len());
            }
        }
    }
}

/// What a log says that an operator would have to act on.
fn errors(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).expect("a log");
    let text = String::from_utf8_lossy(&text);
    let is_bad = |line: &&str| line.contains("ERROR") || line.contains("panic");
    text.lines().filter(is_bad).map(ToOwned::to_owned).collect()
}

/// Reads what the good client writes, record for record.
fn reader(field: &Field<'_>, topic: &str) {
    let mut wire = Wire::connect(&field.broker.address);
    let mut offset = 0_i64;
    while !field.is_over.load(Ordering::Relaxed) {
        let partition = FetchPartition::default().with_fetch_offset(offset);
        let topic = FetchTopic::default()
            .with_topic(name(topic))
            .with_partitions(vec![partition.with_partition_max_bytes(1 << 20)]);
        let asked = FetchRequest::default().with_max_wait_ms(200).with_min_bytes(1);
        let answer = wire.ask(4, &asked.with_topics(vec![topic]));
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let mut records = &partition.records.as_ref().expect("records")[..];
        while records.len() > 61 {
            let base = i64::from_be_bytes(records[..8].try_into().expect("eight"));
            let length = u32::from_be_bytes(records[8..12].try_into().expect("four"));
            assert_eq!(base, offset, "what was written is read in its order");
            offset += 1;
            records = &records[12 + usize::try_from(length).expect("small")..];
        }
    }
    field.read.store(usize::try_from(offset).expect("small"), Ordering::Relaxed);
}

/// Sends until the time is over, or something goes wrong.
fn attack(mut field: Field<'_>, time: Duration) -> Field<'_> {
    let shared = &field;
    std::thread::scope(|scope| {
        let mut clients: Vec<_> =
            (0..CLIENTS + 2).map(|client| scope.spawn(move || shared.client(client))).collect();
        clients.push(scope.spawn(|| reader(shared, "beside-1000")));
        let begun = Instant::now();
        while begun.elapsed() < time && !clients.iter().any(ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(200));
            if errors(shared.log).is_empty() && get(shared.broker, "/livez") == "ok\n" {
                continue;
            }
            shared.is_over.store(true, Ordering::Relaxed);
            panic!("the broker has failed: {:#?}", errors(shared.log));
        }
        let is_early = begun.elapsed() < time;
        shared.is_over.store(true, Ordering::Relaxed);
        assert!(!is_early, "a client came to an end");
    });
    let counts = std::mem::take(field.counts.get_mut().expect("whole"));
    let sent: usize = counts.cases.values().sum();
    println!("seed {}: {sent} cases, {counts:#?}", field.seed);
    println!("{} records of the good client were read beside it", field.read.get_mut());
    assert!(counts.answers > 100 && *field.read.get_mut() > 100);
    field
}

/// What was stored is read whole by our consumer and by librdkafka, and both read the same; how much it is.
fn read_by_both(broker: &Broker, topic: &str) -> usize {
    let ours = cli(broker, &["consume", topic, "-o", "start", "-e", "-f", "%o\\n"]);
    let theirs = succeed(python_script("whole.py").args([&broker.address, topic]));
    assert_eq!(ours, theirs, "{topic}");
    let offsets: Vec<i64> = ours.lines().map(|line| line.parse().expect("an offset")).collect();
    assert!(offsets.windows(2).all(|two| two[0] + 1 == two[1]), "{topic}: records are missing");
    offsets.len()
}

/// A request that waits for something may hold what it takes for as long as a wait may last.
fn given_back(broker: &Broker) {
    const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60 + 30);
    let over = Instant::now();
    println!("{} bytes are in progress when it is over", taken(broker));
    let often = Duration::from_millis(200);
    eventually_within(LONGEST_WAIT, often, "all bytes are given back", || taken(broker) == 0);
    println!("all bytes were given back {:?} after it", over.elapsed());
}

fn topics(broker: &Broker) -> Vec<String> {
    let answer =
        Wire::connect(&broker.address).ask(9, &MetadataRequest::default().with_topics(None));
    answer.topics.iter().flat_map(|topic| &topic.name).map(|name| name.to_string()).collect()
}

/// Deletes what the clients have made; descriptors are then those of before, and of the good client's two topics.
fn leaves_nothing_open(broker: &Broker, before: usize) {
    let kept = [KEPT, "alone-1000", "beside-1000", "__consumer_offsets"];
    let gone: Vec<String> =
        topics(broker).into_iter().filter(|topic| !kept.contains(&&**topic)).collect();
    println!("{} topics were made", gone.len());
    for some in gone.chunks(50) {
        let words: Vec<&str> = some.iter().map(|topic| &**topic).collect();
        cli(broker, &[&["topic", "rm"][..], &words].concat());
    }
    println!("{before} descriptors before it, {} after it", descriptors(broker));
    eventually("descriptors are given back", || descriptors(broker) <= before + 10);
}

/// Makes the topic of groups, and one group in it.
fn make_groups(broker: &Broker) {
    use kafka_protocol::messages::FindCoordinatorRequest;
    let mut wire = Wire::connect(&broker.address);
    eventually("groups are kept", || {
        wire.ask(1, &FindCoordinatorRequest::default().with_key(text(GROUP)));
        let answer = wire.ask(2, &commit(GROUP, TOPICS[0], 0));
        answer.topics[0].partitions[0].error_code == 0
    });
}

fn number_from(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().expect("a number"))
}

fn from_environment() -> (Duration, u64) {
    let time = std::env::var("FUZZ").map_or(Duration::from_secs(10), |text| {
        let minutes: Option<u64> = text.strip_suffix('m').and_then(|minutes| minutes.parse().ok());
        Duration::from_secs(60 * minutes.expect("FUZZ is minutes, as 60m"))
    });
    (time, number_from("FUZZ_SEED", 1))
}

#[test]
fn changed_bytes_hurt_nobody_and_what_of_them_is_stored_is_read_by_everybody() {
    let (time, seed) = from_environment();
    crate::watch::may_take(time);
    let (folder, data) = folder();
    let (log, port) = (folder.path().join("log"), free_ports(1)[0]);
    let controller = format!("127.0.0.1:{port}");
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://{controller}");
    let voters = format!("controller.quorum.voters={NODE}@{controller}");
    let node = format!("node.id={NODE}");
    let settings = [
        &*listeners,
        &*voters,
        &*node,
        OFTEN,
        "broker.partitions.max=400",
        "log.segment.delete.delay.ms=100",
        "producer.id.expiration.ms=60000",
        "group.initial.rebalance.delay.ms=0",
        // A machine that does other things for a second is no fault of the broker's.
        "broker.session.timeout.ms=6000",
        // Clients that are gone are let go soon, whatever they wait for.
        "connections.max.idle.ms=20000",
    ];
    let broker = told(&data, &log, &settings);
    create(&broker, KEPT, &["max.message.bytes=3000000", "retention.bytes=100000000"]);
    create(&broker, TOPICS[0], &[]);
    make_groups(&broker);
    let before = descriptors(&broker);
    let material = Material::new(&broker.address, &cluster_of(&controller), NODE);
    let field = Field {
        broker: &broker,
        log: &log,
        controller,
        material,
        seed,
        from: number_from("FUZZ_FROM", 0),
        is_over: AtomicBool::new(false),
        counts: Mutex::default(),
        last: Default::default(),
        read: AtomicUsize::new(0),
    };
    field.every_valid_request_is_answered();
    let field = beside_a_good_client(&broker, 1000, || attack(field, time));
    given_back(&broker);
    eventually("all connections are closed", || {
        get(&broker, "/metrics").lines().any(|line| line == "strandline_connections 0")
    });
    let kept = read_by_both(&broker, KEPT);
    if topics(&broker).iter().any(|topic| topic == TOPICS[0]) {
        println!("{} records of changed requests", read_by_both(&broker, TOPICS[0]));
    }
    leaves_nothing_open(&broker, before);
    let resident = broker.resident_kib() >> 10;
    println!("{kept} records of changed batches; {resident} MiB after it");
    assert!(kept > 0 && resident < 400, "{resident} MiB");
    assert_eq!(errors(&log), Vec::<String>::new());
    drop(field);
    // A start finds all of it, and groups are as readable as topics.
    assert!(broker.terminate().success());
    let broker = told(&data, &log, &settings);
    eventually("it serves again", || get(&broker, "/readyz") == "ok\n");
    assert_eq!(read_by_both(&broker, KEPT), kept);
    cli(&broker, &["group", "ls"]);
    assert!(broker.terminate().success());
    assert_eq!(errors(&log), Vec::<String>::new());
}
