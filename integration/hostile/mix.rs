//! All attacks at once: a short mix in every run, and as long a one as `HOSTILE` says (`HOSTILE=10m`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use super::good::{OFTEN, beside_a_good_client};
use super::poison::{bomb, poisons};
use super::requests::{from, part_of_a_frame, taken};
use super::{frame, header};
use crate::broker::{Broker, folder};
use crate::first_run::{create, get};
use crate::kit::eventually;
use crate::wire::{Wire, fetch, name, produce};

/// What attackers need: where to, until when, and how often they came to an end.
struct Field<'a> {
    broker: &'a Broker,
    is_over: AtomicBool,
    rounds: [AtomicUsize; ATTACKS.len()],
}

type Attack = fn(&Broker, usize);

/// Each does its worst once, and is done again and again. None of them may be led astray by what the broker does to it.
const ATTACKS: [(&str, Attack); 9] = [
    ("half-sent requests", half_sent),
    ("fetches that wait for weeks", waiting_fetches),
    ("deaf readers", deaf),
    ("connections", connections),
    ("half-sent HTTP", half_http),
    ("bombs", bombs),
    ("poison", poison),
    ("malformed frames", malformed),
    ("topics", topics),
];

fn half_sent(broker: &Broker, round: usize) {
    let last = u8::try_from(round % 200).expect("small") + 1;
    let mut stream = from([127, 0, 3, last], broker);
    let _ = stream.set_write_timeout(Some(Duration::from_millis(300)));
    let _ = stream.write_all(&part_of_a_frame(50 << 20, 30 << 20));
    std::thread::sleep(Duration::from_millis(500));
}

fn waiting_fetches(broker: &Broker, _: usize) {
    let mut request = fetch("t", i32::MAX, i32::MAX);
    request.unknown_tagged_fields.insert(77, Bytes::from(vec![7; 10 << 20]));
    if let Ok(mut wire) = Wire::try_connect(&broker.address, Duration::from_millis(500)) {
        let _ = wire.try_ask(12, &request);
    }
}

fn deaf(broker: &Broker, _: usize) {
    let Ok(mut stream) = TcpStream::connect(&broker.address) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_millis(300)));
    let _ = stream.write_all(&frame(&header(18, 0)).repeat(20_000));
    std::thread::sleep(Duration::from_millis(500));
}

fn connections(broker: &Broker, _: usize) {
    let all: Vec<_> = (0..200).map(|_| TcpStream::connect(&broker.address)).collect();
    std::thread::sleep(Duration::from_millis(300));
    drop(all);
}

fn half_http(broker: &Broker, _: usize) {
    let half = |_| {
        let mut stream = TcpStream::connect(&broker.http)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")?;
        Ok::<_, std::io::Error>(stream)
    };
    // Those who look at the broker have an address of their own to come from: a few connections are left to them.
    let all: Vec<_> = (0..20).map(half).collect();
    std::thread::sleep(Duration::from_millis(500));
    drop(all);
}

fn bombs(broker: &Broker, _: usize) {
    static BOMB: std::sync::LazyLock<Bytes> = std::sync::LazyLock::new(|| bomb("zstd", 100 << 20));
    if let Ok(mut wire) = Wire::try_connect(&broker.address, Duration::from_secs(30)) {
        let _ = wire.try_ask(9, &produce("bombs", 1, BOMB.clone()));
    }
}

fn poison(broker: &Broker, round: usize) {
    static ALL: std::sync::LazyLock<Vec<Bytes>> = std::sync::LazyLock::new(|| {
        poisons("none").into_iter().map(|poison| poison.batch).collect()
    });
    if let Ok(mut wire) = Wire::try_connect(&broker.address, Duration::from_secs(30)) {
        let _ = wire.try_ask(9, &produce("t", 1, ALL[round % ALL.len()].clone()));
    }
}

fn malformed(broker: &Broker, round: usize) {
    let Ok(mut stream) = TcpStream::connect(&broker.address) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let body: Vec<u8> =
        (0..60).map(|n| u8::try_from((round * 31 + n * 7) % 251).expect("small")).collect();
    let key = i16::try_from(round % 76).expect("small");
    let _ = stream.write_all(&frame(&[header(key, 0), body].concat()));
    let _ = stream.read(&mut [0; 64]);
}

fn topics(broker: &Broker, round: usize) {
    let topic =
        |n| MetadataRequestTopic::default().with_name(Some(name(&format!("n{}-{n}", round % 20))));
    let asked = MetadataRequest::default().with_topics(Some((0..100).map(topic).collect()));
    if let Ok(mut wire) = Wire::try_connect(&broker.address, Duration::from_secs(30)) {
        let _ = wire.try_ask(9, &asked.with_allow_auto_topic_creation(true));
    }
    std::thread::sleep(Duration::from_millis(300));
}

/// Attacks until the time is over.
fn attack(broker: &Broker, time: Duration) {
    let field = Field { broker, is_over: AtomicBool::new(false), rounds: Default::default() };
    std::thread::scope(|scope| {
        for (number, (_, attack)) in ATTACKS.iter().enumerate() {
            let field = &field;
            scope.spawn(move || {
                while !field.is_over.load(Ordering::Relaxed) {
                    let round = field.rounds[number].fetch_add(1, Ordering::Relaxed);
                    attack(field.broker, round);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < time {
            assert_eq!(get(broker, "/livez"), "ok\n");
            std::thread::sleep(Duration::from_millis(200).min(time));
        }
        field.is_over.store(true, Ordering::Relaxed);
    });
    for ((what, _), rounds) in ATTACKS.iter().zip(&field.rounds) {
        println!("{what}: {rounds:?} times");
    }
}

#[test]
fn a_mix_of_all_attacks_takes_nobody_down_and_leaves_nothing_behind() {
    let time = std::env::var("HOSTILE").map_or(Duration::from_secs(8), |text| {
        let minutes: Option<u64> = text.strip_suffix('m').and_then(|minutes| minutes.parse().ok());
        Duration::from_secs(60 * minutes.expect("HOSTILE is minutes, as 10m"))
    });
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &[OFTEN, "max.connections=300"]);
    create(&broker, "t", &[]);
    create(&broker, "bombs", &["retention.bytes=1000000"]);
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("listed").count();
    beside_a_good_client(&broker, 1000, || attack(&broker, time));
    eventually("all bytes are given back", || taken(&broker) == 0);
    eventually("all connections are closed", || {
        let text = get(&broker, "/metrics");
        text.lines().any(|line| line == "strandline_connections 0")
    });
    let resident = broker.resident_kib() >> 10;
    println!("{resident} MiB and {} descriptors after it", descriptors());
    assert!(resident < 400, "{resident} MiB");
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    assert!(broker.terminate().success());
}
