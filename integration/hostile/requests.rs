//! Bytes of requests: whoever holds them, or sends half of them, leaves room to others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::good::{OFTEN, beside_a_good_client};
use super::header;
use crate::broker::{Broker, folder};
use crate::first_run::{create, get};
use crate::kit::eventually;
use crate::wire::{Wire, fetch};

/// A connection from another address of this machine.
pub(super) fn from(address: [u8; 4], broker: &Broker) -> TcpStream {
    let (source, target) =
        (std::net::SocketAddr::from((address, 0)), broker.address.parse::<std::net::SocketAddr>());
    let made = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&made, &source).expect("bound");
    connect(&made, &target.expect("an address")).expect("connected");
    let stream = TcpStream::from(made);
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream
}

/// Bytes that requests in progress take now.
pub(super) fn taken(broker: &Broker) -> u64 {
    let metrics = get(broker, "/metrics");
    let line =
        metrics.lines().find(|line| line.starts_with("strandline_request_bytes_in_progress"));
    let value = line.and_then(|line| line.split_whitespace().last()).expect("a value");
    value.parse::<f64>().expect("a number").round().to_string().parse().expect("whole")
}

#[test]
fn fetches_that_wait_for_weeks_with_large_fields_that_nobody_knows_hold_no_bytes() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &[OFTEN]);
    create(&broker, "empty", &[]);
    let mut attackers: Vec<Wire> = Vec::new();
    let attack = || {
        for _ in 0..4 {
            let mut request = fetch("empty", i32::MAX, i32::MAX);
            request.unknown_tagged_fields.insert(77, Bytes::from(vec![7; 88 << 20]));
            let mut wire = Wire::connect(&broker.address);
            wire.send(12, &request);
            attackers.push(wire);
        }
        std::thread::sleep(Duration::from_secs(3));
    };
    beside_a_good_client(&broker, 1000, attack);
    eventually("their bytes are given back while they wait", || taken(&broker) < 1 << 20);
    let resident = broker.resident_kib() >> 10;
    assert!(resident < 200, "{resident} MiB");
    drop(attackers);
    assert!(broker.terminate().success());
}

/// A frame of so many bytes, and as much of it as is to be sent.
pub(super) fn part_of_a_frame(whole: usize, part: usize) -> Vec<u8> {
    let mut bytes = u32::try_from(whole).expect("fits").to_be_bytes().to_vec();
    bytes.extend_from_slice(&header(0, 9));
    bytes.resize(part, 7);
    bytes
}

#[test]
fn half_sent_requests_take_bounded_memory_and_go_first_where_others_need_it() {
    const WHOLE: usize = 100 << 20;
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &[OFTEN]);
    let mut attackers: Vec<TcpStream> = Vec::new();
    let bytes = part_of_a_frame(WHOLE, WHOLE - 1000);
    let attack = || {
        for number in 0..20_u8 {
            let mut stream = from([127, 0, 1, number % 4], &broker);
            stream.set_write_timeout(Some(Duration::from_millis(500))).expect("set");
            // The broker takes as much as there is room for.
            let _ = stream.write_all(&bytes);
            attackers.push(stream);
        }
    };
    beside_a_good_client(&broker, 1000, attack);
    let resident = broker.resident_kib() >> 10;
    println!("{resident} MiB with {} of them", attackers.len());
    assert!(resident < 450, "{resident} MiB");
    // One that sends large requests is served, at the cost of those that do not come on.
    create(&broker, "large", &["max.message.bytes=20000000"]);
    let begun = Instant::now();
    let mut large = Wire::connect(&broker.address);
    for _ in 0..20 {
        assert_eq!(large.produce_one("large", -1, 10_000_000), 0);
    }
    println!("200 MB beside them in {:?}", begun.elapsed());
    drop(attackers);
    eventually("all is given back", || taken(&broker) == 0);
    let resident = broker.resident_kib() >> 10;
    println!("{resident} MiB after it");
    assert!(resident < 250, "{resident} MiB after the attack");
    assert!(broker.terminate().success());
}

#[test]
fn one_that_announces_much_and_sends_little_is_given_up_when_another_waits() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["queued.max.request.bytes=8388608"]);
    create(&broker, "t", &["max.message.bytes=5000000"]);
    let liar = |number: u8| {
        let mut stream = from([127, 0, 2, number], &broker);
        stream.write_all(&part_of_a_frame(3_000_000, 1000)).expect("sent");
        stream
    };
    let mut liars: Vec<TcpStream> = (1..3).map(liar).collect();
    eventually("they hold what they announced", || taken(&broker) == 6_000_000);
    // Nobody needs it: they may go on slowly.
    std::thread::sleep(Duration::from_secs(3));
    for liar in &mut liars {
        liar.write_all(&[7; 100]).expect("not given up");
    }
    assert_eq!(taken(&broker), 6_000_000);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(wire.produce_one("t", -1, 2_000_000), 0);
    let ended = liars.iter_mut().filter_map(|liar| liar.read(&mut [0; 10]).ok());
    assert!(ended.filter(|bytes| *bytes == 0).count() >= 1, "one of them was given up");
}

#[test]
fn a_reader_gets_its_answer_however_slowly_it_reads() {
    const BYTES: usize = 40_000_000;
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    create(&broker, "t", &[]);
    let mut wire = Wire::connect(&broker.address);
    for _ in 0..BYTES / 1_000_000 {
        assert_eq!(wire.produce_one("t", -1, 1_000_000), 0);
    }
    let mut slow = Wire::connect(&broker.address);
    let sent = slow.send(11, &fetch("t", 0, 1));
    // Longer than a minute for one answer, as over a line of 3 Mbit/s.
    let begun = Instant::now();
    let answer = slow.try_receive_slowly(&sent, |_| {
        if begun.elapsed() < Duration::from_secs(66) {
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let answer = answer.expect("the whole answer");
    let records = answer.responses[0].partitions[0].records.as_ref().expect("records");
    println!("{} bytes in {:?}", records.len(), begun.elapsed());
    assert!(records.len() > BYTES && begun.elapsed() > Duration::from_secs(66));
    assert!(broker.terminate().success());
}
