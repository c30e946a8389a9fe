//! What a broker keeps for clients between their requests: as much as there is room for, whoever asks for more.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    DescribeConfigsRequest, FindCoordinatorRequest, GroupId, JoinGroupRequest, LeaveGroupRequest,
};

use super::good::{OFTEN, beside_a_good_client};
use super::requests::from;
use crate::broker::{Broker, folder};
use crate::first_run::{create, get};
use crate::kit::eventually;
use crate::wire::{Wire, commit, committed, fetch, text};

/// Bytes that are kept for clients now.
fn kept(broker: &Broker) -> u64 {
    let metrics = get(broker, "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("strandline_kept_bytes "));
    line.expect("a line").trim().parse().expect("a number")
}

fn resident_mib(broker: &Broker) -> u64 {
    broker.resident_kib() >> 10
}

#[test]
fn a_fetch_that_names_a_partition_many_thousand_times_is_a_fetch_of_it_and_holds_up_no_producer() {
    const TIMES: usize = 300_000;
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &[OFTEN]);
    // Producers write to the partition that is named.
    let mut request = fetch("beside-1000", i32::MAX, i32::MAX);
    let named = FetchPartition::default().with_fetch_offset(-1).with_partition_max_bytes(1);
    request.topics[0].partitions = vec![named; TIMES];
    request.topics[0].partitions[TIMES - 1].fetch_offset = 0;
    let mut waiting = Vec::new();
    let attack = || {
        for number in 1..=4 {
            let mut wire = Wire::over(from([127, 0, 4, number], &broker));
            wire.send(11, &request);
            waiting.push(wire);
        }
        std::thread::sleep(Duration::from_secs(3));
        waiting.clear();
        std::thread::sleep(Duration::from_secs(1));
    };
    beside_a_good_client(&broker, 1000, attack);
    let resident = resident_mib(&broker);
    println!("{resident} MiB after {TIMES} names, four times");
    assert!(resident < 400, "{resident} MiB");
    request.max_wait_ms = 10;
    let answer = Wire::connect(&broker.address).ask(11, &request);
    let answered = &answer.responses[0].partitions;
    assert_eq!((answered.len(), answered[0].error_code), (1, 0), "the last that was named counts");
    eventually("nothing is kept", || kept(&broker) == 0);
    assert!(broker.terminate().success());
}

fn join(group: &str, bytes: usize) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from(vec![7; bytes]));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

#[test]
fn members_of_groups_take_the_memory_that_there_is_for_them_and_leave_room_to_others() {
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    let (_folder, data) = folder();
    let settings = ["client.memory.max.bytes=67108864", "group.initial.rebalance.delay.ms=0"];
    let broker = Broker::start_with(&data, &settings);
    let mut good = Wire::connect(&broker.address);
    let find = FindCoordinatorRequest::default().with_key(text("good"));
    eventually("groups are kept", || good.ask(1, &find).error_code == 0);
    eventually("they are loaded", || good.ask(3, &join("good-0", 100)).error_code == 0);
    let mut members = Vec::new();
    let mut refused = 0;
    for number in 0..12 {
        let group = format!("large-{number}");
        let mut wire = Wire::over(from([127, 0, 5, 1 + number % 2], &broker));
        let joined = wire.ask(3, &join(&group, 10 << 20));
        match joined.error_code {
            0 => members.push((wire, group, joined.member_id)),
            COORDINATOR_NOT_AVAILABLE => refused += 1,
            other => panic!("error {other}"),
        }
    }
    println!("{} of 10 MiB each, {refused} refused; {} kept", members.len(), kept(&broker));
    assert_eq!((members.len(), refused), (4, 8), "two of each address");
    for number in 1..100 {
        let joined = good.ask(3, &join(&format!("good-{number}"), 1000));
        assert_eq!(joined.error_code, 0, "there is room for others");
    }
    assert!(
        kept(&broker) > 40 << 20 && resident_mib(&broker) < 250,
        "{} MiB",
        resident_mib(&broker)
    );
    for (mut wire, group, member_id) in members {
        let leave = LeaveGroupRequest::default().with_group_id(GroupId(text(&group)));
        assert_eq!(wire.ask(0, &leave.with_member_id(member_id)).error_code, 0);
    }
    eventually("their room is given back", || kept(&broker) < 1 << 20);
    let mut again = Wire::over(from([127, 0, 5, 1], &broker));
    assert_eq!(again.ask(3, &join("large-0", 10 << 20)).error_code, 0);
    assert!(broker.terminate().success());
}

#[test]
fn a_client_that_is_gone_is_let_go_though_what_it_asked_last_waits_for_what_it_asked_before() {
    let (_folder, data) = folder();
    let settings = ["connections.max.idle.ms=1000", "group.initial.rebalance.delay.ms=0"];
    let broker = Broker::start_with(&data, &settings);
    let connections = || {
        let metrics = get(&broker, "/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix("strandline_connections "));
        line.expect("a line").to_owned()
    };
    let mut first = Wire::connect(&broker.address);
    let find = FindCoordinatorRequest::default().with_key(text("g"));
    eventually("groups are kept", || first.ask(1, &find).error_code == 0);
    let joins = join("g", 10).with_session_timeout_ms(600_000).with_rebalance_timeout_ms(i32::MAX);
    eventually("they are loaded", || first.ask(3, &joins).error_code == 0);
    // It waits for the first member, who does not come back.
    let mut gone = Wire::connect(&broker.address);
    gone.send(3, &joins);
    gone.send(1, &find);
    std::thread::sleep(Duration::from_millis(300));
    drop((gone, first));
    eventually("both are let go", || connections() == "0");
    assert!(broker.terminate().success());
}

#[test]
fn committed_offsets_take_the_memory_that_there_is_for_them_and_groups_that_are_there_go_on() {
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    let (_folder, data) = folder();
    let settings = ["client.memory.max.bytes=1048576"];
    let broker = Broker::start_with(&data, &settings);
    create(&broker, "t", &[]);
    let commit_note = |wire: &mut Wire, group: &str, offset: i64, bytes: usize| {
        let mut request = commit(group, "t", offset);
        request.topics[0].partitions[0].committed_metadata = Some(text(&"n".repeat(bytes)));
        wire.ask(2, &request).topics[0].partitions[0].error_code
    };
    let mut good = Wire::connect(&broker.address);
    let find = FindCoordinatorRequest::default().with_key(text("good"));
    eventually("groups are kept", || good.ask(1, &find).error_code == 0);
    eventually("they are loaded", || commit_note(&mut good, "good", 1, 10) == 0);
    let mut bad = Wire::over(from([127, 0, 8, 1], &broker));
    let codes: Vec<i16> =
        (0..200).map(|n| commit_note(&mut bad, &format!("bad-{n}"), 1, 4000)).collect();
    let stored = codes.iter().filter(|code| **code == 0).count();
    println!("{stored} of {} groups have committed; {} kept", codes.len(), kept(&broker));
    assert!((100..150).contains(&stored), "half of a megabyte in pieces of 4 KiB: {stored}");
    assert!(codes.iter().all(|code| [0, COORDINATOR_NOT_AVAILABLE].contains(code)));
    assert_eq!(commit_note(&mut bad, "bad-0", 2, 4000), 0, "it needs no more than it has");
    assert_eq!(commit_note(&mut good, "another", 1, 4000), 0, "others have their own half");
    let before = kept(&broker);
    (0..50).for_each(|offset| assert_eq!(commit_note(&mut good, "good", offset, 10), 0));
    assert_eq!(kept(&broker), before, "what is replaced is given back");
    assert!(broker.terminate().success());
    let broker = Broker::start_with(&data, &settings);
    let mut good = Wire::connect(&broker.address);
    eventually("they are loaded", || commit_note(&mut good, "good", 50, 10) == 0);
    let answer = good.ask(8, &committed("bad-0"));
    assert_eq!(answer.groups[0].topics[0].partitions[0].committed_offset, 2);
    assert!(broker.terminate().success());
}

#[test]
fn answers_behind_a_fetch_that_waits_and_those_that_nobody_takes_take_bounded_memory() {
    const REQUESTS: usize = 90;
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &[OFTEN, "client.memory.max.bytes=67108864"]);
    create(&broker, "t", &[]);
    // Its answer has some four hundred times its bytes.
    let named =
        DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
    let large = DescribeConfigsRequest::default().with_resources(vec![named; 100]);
    let (mut behind, mut deaf) = (Vec::new(), Vec::new());
    let attack = || {
        for number in 1..=6 {
            let mut wire = Wire::over(from([127, 0, 6, number], &broker));
            let waits = wire.send(11, &fetch("t", 6_000, i32::MAX));
            let asked: Vec<_> = (0..REQUESTS).map(|_| wire.send(1, &large)).collect();
            behind.push((wire, waits, asked));
            let mut wire = Wire::over(from([127, 0, 7, number], &broker));
            (0..REQUESTS).for_each(|_| {
                wire.send(1, &large);
            });
            deaf.push(wire);
        }
        std::thread::sleep(Duration::from_secs(4));
    };
    beside_a_good_client(&broker, 1000, attack);
    let resident = resident_mib(&broker);
    println!(
        "{resident} MiB with {REQUESTS} answers behind each of 6 fetches, and as many deaf; {} kept",
        kept(&broker)
    );
    assert!(resident < 150, "{resident} MiB");
    let mut bytes = 0;
    for (mut wire, waits, asked) in behind {
        assert_eq!(wire.answer(&waits).responses.len(), 1);
        for sent in asked {
            let answer = wire.try_receive_slowly(&sent, |piece| bytes += piece);
            let results = answer.expect("all are answered, in their order").results;
            assert!(results.len() == 100 && results.iter().all(|result| result.error_code == 0));
        }
    }
    println!("{} MiB of answers were behind fetches", bytes >> 20);
    drop(deaf);
    eventually("nothing is kept", || kept(&broker) == 0);
    assert!(broker.terminate().success());
}
