//! What runs out under a running broker, and comes back: it refuses meanwhile, and goes on by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DeleteTopicsRequest, MetadataRequest};

use crate::broker::{Broker, folder};
use crate::devices::sh;
use crate::first_run::{cli, create, get};
use crate::kit::eventually;
use crate::wire::{Wire, name};

/// Lets a process open nothing more, or as much as it could.
fn limit_descriptors(broker: &Broker, to: Option<u32>) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).expect("limits");
    let files =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line");
    let hard = files.split_whitespace().nth(1).expect("a hard limit").to_owned();
    let soft = to.map_or(hard, |to| to.to_string());
    sh(&format!("prlimit --pid {} --nofile={soft}:", broker.pid())).expect("limited");
}

fn leader_error(wire: &mut Wire, topic: &str) -> i16 {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let answer = wire.ask(9, &MetadataRequest::default().with_topics(Some(vec![asked])));
    answer.topics[0].error_code
}

#[test]
fn a_broker_without_descriptors_refuses_for_a_while_and_takes_no_directory_offline() {
    const STORAGE_ERROR: i16 = 56;
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    for topic in ["t", "quiet", "gone"] {
        create(&broker, topic, &["segment.bytes=1048576"]);
    }
    let mut wire = Wire::connect(&broker.address);
    let mut acked = 0;
    for topic in ["t", "quiet", "gone"] {
        assert_eq!(wire.produce_one(topic, -1, 100), 0);
    }
    for _ in 0..2 {
        limit_descriptors(&broker, Some(5));
        // Everything that needs a file: a segment is closed and another one begun, a topic made, one deleted.
        let mut refused = 0;
        for _ in 0..60 {
            match wire.produce_one("t", -1, 200_000) {
                0 => acked += 1,
                error => {
                    assert_eq!(error, STORAGE_ERROR);
                    refused += 1;
                }
            }
        }
        assert!(refused > 30, "{refused} of 60 were refused");
        assert_eq!(wire.produce_one("quiet", -1, 100), 0, "it needs no descriptor");
        let made = format!("made-{acked}");
        let answer = wire.ask(5, &crate::wire::create(&made, 1, 1));
        println!("made without descriptors: {}", answer.topics[0].error_code);
        if acked < 10 {
            let gone = DeleteTopicsRequest::default().with_topic_names(vec![name("gone")]);
            let answer = wire.ask(4, &gone.with_timeout_ms(10_000));
            assert_eq!(answer.responses[0].error_code, 0);
        }
        // Longer than checkpoints, retention and the looks at the directory take to come round.
        std::thread::sleep(Duration::from_secs(4));
        limit_descriptors(&broker, None);
        eventually("it takes records again", || wire.produce_one("t", -1, 200_000) == 0);
        acked += 1;
        if answer.topics[0].error_code == 0 {
            eventually("a topic that was made meanwhile is served", || {
                leader_error(&mut wire, &made) == 0 && wire.produce_one(&made, -1, 100) == 0
            });
        }
    }
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    let read = cli(&broker, &["consume", "t", "-o", "start", "-e"]);
    assert_eq!(read.lines().count(), acked + 1, "one of 100 bytes, and those of 200 kB");
    // All of it is there after a restart, too.
    assert!(broker.terminate().success());
    let broker = Broker::start(&data);
    assert_eq!(cli(&broker, &["consume", "t", "-o", "start", "-e"]), read);
    assert!(!data.join("gone-0").exists());
    assert!(broker.terminate().success());
}

#[test]
fn half_sent_http_requests_take_few_descriptors_and_do_so_for_seconds_only() {
    const KEPT_MAX: usize = 32;
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    create(&broker, "t", &[]);
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("listed").count();
    let before = descriptors();
    let half = |_| {
        let mut stream = TcpStream::connect(&broker.http).expect("it listens");
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
        stream
    };
    let mut streams: Vec<TcpStream> = (0..200).map(half).collect();
    eventually("those over the limit are closed", || descriptors() <= before + KEPT_MAX + 2);
    assert_eq!(Wire::connect(&broker.address).produce_one("t", -1, 100), 0);
    let begun = Instant::now();
    eventually("the rest is closed too", || descriptors() <= before + 2);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    // One that begins a request, or has had an answer and says nothing more, does not hold up a stop.
    streams.clear();
    let half = half(0);
    let mut idle = TcpStream::connect(&broker.http).expect("it listens");
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert!(idle.read(&mut [0; 512]).expect("answered") > 0);
    let begun = Instant::now();
    assert!(broker.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop((half, idle));
}
