//! Bytes that no client should send: one bad connection never hurts another.

mod elements;
mod every_api;
mod filesystems;
mod full_disk;
mod fuzz;
mod good;
mod kept;
mod material;
mod mix;
mod mutations;
mod names;
mod partitions;
mod poison;
mod records;
mod requests;
mod users;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::broker::{Broker, folder};
use crate::first_run::{cli, consume, produce};

fn connect(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(&broker.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("small").to_be_bytes();
    [&length[..], body].concat()
}

/// Sends bytes and returns what came back before the broker closed; panics if it does not close.
fn closes(broker: &Broker, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(broker);
    // The broker may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the broker keeps the connection open: {error}"),
    }
}

/// A request header: key, version, correlation id, no client id.
fn header(key: i16, version: i16) -> Vec<u8> {
    [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7, 0xff, 0xff]].concat()
}

#[test]
fn malformed_frames_close_their_connection_and_nothing_else() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    assert!(produce(&broker, "t", "before\n").0);
    let mut attacks: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        (-1_i32).to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        frame(b""),
        frame(&[0, 3]),
        // An array of two billion topics in four bytes.
        frame(&[header(3, 1), 0x7fff_ffff_i32.to_be_bytes().to_vec()].concat()),
        // A client id that is longer than the frame.
        frame(&[0, 3, 0, 1, 0, 0, 0, 7, 0x7f, 0xff]),
        frame(&header(200, 0)),
        frame(&header(3, 99)),
        frame(&header(0, 2)),
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..200 {
        let body: Vec<u8> = (0..60)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        let head = [0, body[0] % 76, 0, body[1] % 14, 0, 0, 0, 7, 0xff, 0xff];
        attacks.push(frame(&[&head[..], &body].concat()));
    }
    for attack in &attacks {
        let mut stream = connect(&broker);
        let _ = stream.write_all(attack);
        // Random bytes may be a request by chance; what matters is that the broker lives.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 64]);
    }
    for attack in attacks.iter().take(10) {
        assert!(closes(&broker, attack).is_empty(), "{attack:?}");
    }
    assert!(produce(&broker, "t", "after\n").0);
    assert_eq!(consume(&broker, "t"), "before\nafter\n");
    assert!(broker.resident_kib() < 100 << 10, "{} KiB", broker.resident_kib());
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served_and_holds_up_nobody() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let mut slow = connect(&broker);
    let request = frame(&header(18, 0));
    for byte in &request {
        slow.write_all(&[*byte]).expect("taken");
        assert!(cli(&broker, &["topic", "ls"]).contains("TOPIC"));
    }
    let mut answer = [0; 10];
    slow.read_exact(&mut answer).expect("answered");
    assert_eq!(answer[4..8], [0, 0, 0, 7]);
}

#[test]
fn a_client_that_reads_nothing_costs_no_memory_and_holds_up_nobody() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    // Answers of about a kilobyte each, never read.
    let mut deaf = connect(&broker);
    deaf.set_write_timeout(Some(Duration::from_millis(500))).expect("set");
    let request = frame(&header(18, 0)).repeat(10_000);
    let mut sent = 0;
    for _ in 0..2000 {
        match deaf.write(&request) {
            Ok(0) | Err(_) => break,
            Ok(bytes) => sent += bytes,
        }
    }
    assert!(sent < request.len() * 2000, "the broker stops reading when its answers are not taken");
    assert!(produce(&broker, "t", "fine\n").0);
    assert_eq!(consume(&broker, "t"), "fine\n");
    assert!(broker.resident_kib() < 100 << 10, "{} KiB", broker.resident_kib());
}

#[test]
fn connections_over_the_limit_are_refused_and_idle_ones_cost_little() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["max.connections=600"]);
    let before = broker.resident_kib();
    let idle: Vec<TcpStream> = (0..500).map(|_| connect(&broker)).collect();
    assert!(produce(&broker, "t", "fine\n").0);
    let each = (broker.resident_kib().saturating_sub(before)) / 500;
    println!("{each} KiB for an idle connection");
    assert!(each < 64, "{each} KiB for an idle connection");
    let more: Vec<TcpStream> = (0..200).map(|_| connect(&broker)).collect();
    let refused = more
        .iter()
        .rev()
        .filter(|stream| matches!((&**stream).read(&mut [0; 1]), Ok(0)))
        .take(50)
        .count();
    assert_eq!(refused, 50, "those over the limit are closed");
    drop((idle, more));
    crate::kit::eventually("there is room again", || produce(&broker, "t", "again\n").0);
}

#[test]
fn idle_connections_are_closed() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["connections.max.idle.ms=300"]);
    assert!(closes(&broker, b"").is_empty());
}
