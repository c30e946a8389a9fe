//! Three nodes: what is answered is what is, and nobody waits longer than there is something to wait for.

use std::time::{Duration, Instant};

use kafka_protocol::messages::*;

use crate::broker::{Broker, folder, run};
use crate::cluster::Cluster;
use crate::kit::eventually;
use crate::wire::{Wire, batch, commit, committed, create, name, produce, text};

const NODES: usize = 3;

fn wires(cluster: &Cluster) -> Vec<Wire> {
    let connect = |index: usize| {
        let place = &cluster.places[index];
        Wire::connect(&format!("{}:{}", place.host, place.kafka))
    };
    (0..NODES).map(connect).collect()
}

/// Which node leads partition 0, if one does.
fn leader(wire: &mut Wire, topic: &str) -> Option<usize> {
    use metadata_request::MetadataRequestTopic;
    let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let found = wire.ask(12, &request);
    let partition = found.topics[0].partitions.first()?;
    usize::try_from(partition.leader_id.0).ok()?.checked_sub(1)
}

/// Produces until it is acknowledged, as a client that tries again at once; how long that took.
fn first_acknowledged(wires: &mut [Wire], topic: &str, acks: i16) -> Duration {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is acknowledged for {topic}");
        let asked = usize::try_from(begun.elapsed().as_micros()).expect("small") % wires.len();
        if let Some(leader) = leader(&mut wires[asked], topic) {
            let done = wires[leader].ask(9, &produce(topic, acks, batch(1, 100, -1)));
            if done.responses[0].partition_responses[0].error_code == 0 {
                return begun.elapsed();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn shown(what: &str, mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let (median, p99, last) = (at(50), at(99), times[times.len() - 1]);
    println!("{what}: p50 {median:?}, p99 {p99:?}, max {last:?} of {}", times.len());
    times
}

#[test]
fn the_first_records_of_a_topic_and_of_a_new_leader_are_acknowledged_at_once() {
    let (folder, _) = folder();
    // What waits a whole poll of a follower is seen whatever else the machine does.
    let cluster = Cluster::start_with(
        Cluster::places(folder.path()),
        &["replica.fetch.wait.max.ms=3000", "replica.lag.time.max.ms=30000"],
    );
    let mut wires = wires(&cluster);
    let mut first = Vec::new();
    for number in 0..60 {
        let topic = format!("t{number}");
        let made = wires[number % NODES].ask(7, &create(&topic, 1, 3));
        assert_eq!(made.topics[0].error_code, 0);
        first.push(first_acknowledged(&mut wires, &topic, -1));
    }
    let first = shown("first record of a topic", first);
    assert!(first[first.len() - 1] < Duration::from_millis(1_500), "somebody waited for a poll");
    let mut changed = Vec::new();
    for number in 0..30 {
        let topic = format!("t{number}");
        let before = leader(&mut wires[0], &topic).expect("a leader");
        prefer(&mut wires[0], &topic, (before + 1) % NODES);
        eventually("another one leads", || {
            leader(&mut wires[0], &topic).is_some_and(|now| now != before)
        });
        changed.push(first_acknowledged(&mut wires, &topic, -1));
    }
    let changed = shown("first record of a new leader", changed);
    assert!(changed[changed.len() - 1] < Duration::from_millis(1_500));
}

/// Makes a node the first replica of partition 0, and has the first replica elected.
fn prefer(wire: &mut Wire, topic: &str, index: usize) {
    use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
    use elect_leaders_request::TopicPartitions;
    let node =
        |offset: usize| BrokerId(i32::try_from((index + offset) % NODES + 1).expect("small"));
    let partition = ReassignablePartition::default()
        .with_partition_index(0)
        .with_replicas(Some((0..NODES).map(node).collect()));
    let wanted =
        ReassignableTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![wanted]);
    let done = wire.ask(0, &request);
    assert_eq!(done.responses[0].partitions[0].error_code, 0, "{done:?}");
    let partitions = TopicPartitions::default().with_topic(name(topic)).with_partitions(vec![0]);
    let request = ElectLeadersRequest::default()
        .with_election_type(0)
        .with_timeout_ms(10_000)
        .with_topic_partitions(Some(vec![partitions]));
    assert_eq!(wire.ask(2, &request).error_code, 0);
}

/// Which node keeps a group, as another one says.
fn keeper(wire: &mut Wire, group: &str) -> Option<usize> {
    let found = wire.ask(4, &find(group));
    let found = &found.coordinators[0];
    (found.error_code == 0).then(|| usize::try_from(found.node_id.0).expect("an id") - 1)
}

fn join(group: &str) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;
    let protocol = JoinGroupRequestProtocol::default().with_name(text("p"));
    JoinGroupRequest::default()
        .with_group_id(id(group))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

#[test]
fn a_coordinator_that_slept_answers_for_no_group_that_another_one_keeps() {
    let (folder, _) = folder();
    let cluster = Cluster::start_with(
        Cluster::places(folder.path()),
        &["broker.session.timeout.ms=4000", "broker.heartbeat.interval.ms=300"],
    );
    let mut wires = wires(&cluster);
    assert_eq!(wires[0].ask(7, &create("t", 1, 3)).topics[0].error_code, 0);
    let known = |wire: &mut Wire| {
        let mut found = None;
        eventually("somebody keeps the group", || {
            found = keeper(wire, "g");
            found.is_some()
        });
        found.expect("a coordinator")
    };
    known(&mut wires[0]);
    cluster.wait_healthy();
    for round in 0..3_i64 {
        let old = known(&mut wires[0]);
        let other = (old + 1) % NODES;
        let commit_at = |wire: &mut Wire, offset: i64| {
            wire.ask(8, &commit("g", "t", offset)).topics[0].partitions[0].error_code
        };
        eventually("a commit", || commit_at(&mut wires[old], 10 * round) == 0);
        let group = format!("members{round}");
        let member = wires[old].ask(3, &join("g")).member_id;
        let mut asking: Vec<Wire> = (0..9)
            .map(|_| {
                let place = &cluster.places[old];
                Wire::connect(&format!("{}:{}", place.host, place.kafka))
            })
            .collect();
        // Every connection is known to the node before it sleeps.
        for wire in &mut asking {
            let _ = wire.ask(0, &ApiVersionsRequest::default());
        }
        cluster.node(old).pause(true);
        eventually("another one keeps the group", || {
            keeper(&mut wires[other], "g").is_some_and(|now| now != old)
        });
        let now = known(&mut wires[other]);
        eventually("a commit at the new one", || commit_at(&mut wires[now], 10 * round + 1) == 0);
        cluster.node(old).pause(false);
        answers_for_no_group(&mut asking, old, &member, &group);
        cluster.wait_healthy();
    }
}

/// Asks the node `old`, each on its own connection, what it knows of the group `g` and its member, and to join another.
fn answers_for_no_group(asking: &mut [Wire], old: usize, member: &str, group: &str) {
    let [offsets, describing, listing, beating, joining, committing, finding, forgetting, deleting] =
        &mut asking[..]
    else {
        unreachable!("nine")
    };
    let sent = (
        offsets.send(8, &committed("g")),
        describing.send(5, &DescribeGroupsRequest::default().with_groups(vec![id("g")])),
        listing.send(4, &ListGroupsRequest::default()),
        beating.send(3, &heartbeat("g", member)),
        joining.send(3, &join(group)),
        committing.send(8, &commit("g", "t", 99)),
        finding.send(4, &find("g")),
        forgetting.send(0, &offset_delete("g", "t")),
        deleting.send(2, &DeleteGroupsRequest::default().with_groups_names(vec![id("g")])),
    );
    let refused = |code: i16, what: &str| {
        assert!([14, 15, 16].contains(&code), "{what} of a coordinator that slept: {code}");
    };
    refused(offsets.answer(&sent.0).groups[0].error_code, "OffsetFetch");
    refused(describing.answer(&sent.1).groups[0].error_code, "DescribeGroups");
    refused(beating.answer(&sent.3).error_code, "Heartbeat");
    refused(joining.answer(&sent.4).error_code, "JoinGroup");
    let code = committing.answer(&sent.5).topics[0].partitions[0].error_code;
    refused(code, "OffsetCommit");
    refused(forgetting.answer(&sent.7).error_code, "OffsetDelete");
    refused(deleting.answer(&sent.8).results[0].error_code, "DeleteGroups");
    let listed = listing.answer(&sent.2);
    assert!(listed.groups.is_empty(), "{listed:?}");
    let found = finding.answer(&sent.6).coordinators[0].node_id.0;
    assert!(usize::try_from(found).ok() != Some(old + 1), "it names itself");
}

fn id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn find(group: &str) -> FindCoordinatorRequest {
    FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]).with_key_type(0)
}

fn heartbeat(group: &str, member: &str) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(id(group))
        .with_generation_id(1)
        .with_member_id(text(member))
}

fn offset_delete(group: &str, topic: &str) -> OffsetDeleteRequest {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic =
        OffsetDeleteRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    OffsetDeleteRequest::default().with_group_id(id(group)).with_topics(vec![topic])
}

#[test]
fn members_of_a_coordinator_that_slept_longer_than_their_session_are_members_still() {
    use join_group_request::JoinGroupRequestProtocol;
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["group.initial.rebalance.delay.ms=0"]);
    let mut wire = Wire::connect(&broker.address);
    eventually("a coordinator", || wire.ask(4, &find("g")).coordinators[0].error_code == 0);
    let protocol = JoinGroupRequestProtocol::default().with_name(text("p"));
    let join = JoinGroupRequest::default()
        .with_group_id(id("g"))
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(6_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let joined = wire.ask(3, &join);
    let member = joined.member_id.to_string();
    let sync = SyncGroupRequest::default()
        .with_group_id(id("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id);
    assert_eq!((joined.error_code, wire.ask(3, &sync).error_code), (0, 0));
    assert_eq!(wire.ask(3, &heartbeat("g", &member)).error_code, 0);
    broker.pause(true);
    std::thread::sleep(Duration::from_secs(8));
    broker.pause(false);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(wire.ask(3, &heartbeat("g", &member)).error_code, 0);
    // Who is silent while it listens is a member no more.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(wire.ask(3, &heartbeat("g", &member)).error_code, 25);
}

#[test]
fn a_cluster_whose_nodes_were_all_killed_serves_again_at_once() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let bootstrap = cluster.bootstrap();
    let created = run(&["topic", "create", "t", "--partitions", "1", "-r", "3", "-b", &bootstrap]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let mut before = wires(&cluster);
    eventually("a commit", || {
        let Some(keeper) = keeper(&mut before[0], "g") else { return false };
        let done = before[keeper].ask(8, &commit("g", "t", 5));
        done.topics[0].partitions[0].error_code == 0
    });
    cluster.wait_healthy();
    let (mut started, mut served, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        (0..NODES).for_each(|index| cluster.kill(index));
        let begun = Instant::now();
        cluster.start_missing();
        started.push(begun.elapsed());
        let mut wires = wires(&cluster);
        let _ = first_acknowledged(&mut wires, "t", -1);
        served.push(begun.elapsed());
        eventually("the group's offsets are told", || {
            let Some(keeper) = keeper(&mut wires[0], "g") else { return false };
            let found = wires[keeper].ask(8, &committed("g"));
            found.groups[0].error_code == 0
                && found.groups[0].topics[0].partitions[0].committed_offset == 5
        });
        groups.push(begun.elapsed());
        cluster.wait_healthy();
    }
    shown("nodes listen", started);
    let served = shown("records are acknowledged", served);
    shown("groups are served", groups);
    assert!(served[served.len() / 2] < Duration::from_secs(5), "nobody waits for a time-out");
}
