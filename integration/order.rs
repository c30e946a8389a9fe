//! What one connection asks is done in its order: each request finds what those before it did, though all were sent at once.

use bytes::Bytes;
use kafka_protocol::messages::*;
use uuid::Uuid;

use crate::broker::{Broker, folder};
use crate::cluster::Cluster;
use crate::wire::{Wire, batch, batch_at, commit, committed, create, name, produce, text};

const ROUNDS: i32 = 25;
/// The time of the record at offset 0; each one after it is a millisecond younger.
const BEGIN_MS: i64 = 1_700_000_000_000;

fn list_offsets(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

/// Error and offset of an answer.
fn offset(response: &ListOffsetsResponse) -> (i16, i64) {
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.offset)
}

fn fetch(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// Error, and bytes of records.
fn fetched(response: &FetchResponse) -> (i16, usize) {
    let partition = &response.responses[0].partitions[0];
    (partition.error_code, partition.records.as_ref().map_or(0, Bytes::len))
}

fn delete_records(topic: &str, before: i64) -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(before);
    let topic =
        DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

fn low_watermark(response: &DeleteRecordsResponse) -> (i16, i64) {
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.low_watermark)
}

fn metadata(topic: &str) -> MetadataRequest {
    use metadata_request::MetadataRequestTopic;
    let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
}

/// Error, and number of partitions.
fn described(response: &MetadataResponse) -> (i16, usize) {
    (response.topics[0].error_code, response.topics[0].partitions.len())
}

fn produced(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn listed(response: &ListGroupsResponse, id: &str) -> bool {
    assert_eq!(response.error_code, 0);
    response.groups.iter().any(|listed| listed.group_id.as_str() == id)
}

/// The offset of the only partition, if there is one.
fn offset_of(response: &OffsetFetchResponse) -> Option<i64> {
    assert_eq!(response.groups[0].error_code, 0);
    Some(response.groups[0].topics.first()?.partitions[0].committed_offset)
}

fn describe_groups(id: &str) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![group(id)])
}

fn describe_config(topic: &str, key: &str) -> DescribeConfigsRequest {
    use describe_configs_request::DescribeConfigsResource;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text(key)]));
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn value(response: &DescribeConfigsResponse) -> String {
    let config = response.results[0].configs.first();
    config.and_then(|config| config.value.as_ref()).map(ToString::to_string).unwrap_or_default()
}

fn set_config(topic: &str, key: &str, value: &str) -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(0)
        .with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn delete_topic(topic: &str) -> DeleteTopicsRequest {
    use delete_topics_request::DeleteTopicState;
    let topic = DeleteTopicState::default().with_name(Some(name(topic))).with_topic_id(Uuid::nil());
    DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

fn made(wire: &mut Wire, topic: &str) {
    assert_eq!(wire.ask(7, &create(topic, 1, 1)).topics[0].error_code, 0);
}

fn started() -> (tempfile::TempDir, Broker) {
    let (folder, data) = folder();
    let settings = ["group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=3"];
    let broker = Broker::start_with(&data, &settings);
    (folder, broker)
}

/// Makes the topic that keeps groups.
fn find_coordinator(wire: &mut Wire) {
    let request =
        FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]).with_key_type(0);
    assert_eq!(wire.ask(4, &request).coordinators[0].error_code, 0);
}

#[test]
fn what_is_asked_after_a_produce_request_finds_its_records() {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    let mut end = 0;
    let next = |end: &mut i64| {
        let before = *end;
        *end += 2;
        before
    };
    for acks in [1, -1] {
        for _ in 0..ROUNDS {
            let records = produce("t", acks, batch(2, 100, -1));
            for time in [-1, -3, BEGIN_MS] {
                let before = next(&mut end);
                let timed = produce("t", acks, batch_at(BEGIN_MS + before, 2, 100, -1));
                let asked = if time < 0 { time } else { BEGIN_MS + before + 1 };
                let (done, found) = wire.ask_both((9, &timed), (7, &list_offsets("t", asked)));
                assert_eq!(produced(&done), (0, before));
                let expected = if time == -1 { end } else { end - 1 };
                assert_eq!(offset(&found), (0, expected), "acks={acks} time={time}");
            }
            let before = next(&mut end);
            let (_, found) = wire.ask_both((9, &records), (11, &fetch("t", before, 0)));
            let (code, bytes) = fetched(&found);
            assert!(code == 0 && bytes > 200, "acks={acks}: {bytes} bytes at once");
            let _ = next(&mut end);
            let partition = OffsetForLeaderPartition::default()
                .with_partition(0)
                .with_current_leader_epoch(-1)
                .with_leader_epoch(0);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![partition]);
            let epochs = OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![topic]);
            let (_, found) = wire.ask_both((9, &records), (4, &epochs));
            assert_eq!(found.topics[0].partitions[0].end_offset, end);
            let _ = next(&mut end);
            let (_, found) = wire.ask_both((9, &records), (2, &delete_records("t", -1)));
            assert_eq!(low_watermark(&found), (0, end), "acks={acks}");
            let _ = next(&mut end);
            let (_, found) = wire.ask_both((9, &records), (2, &delete_records("t", end)));
            assert_eq!(low_watermark(&found), (0, end), "acks={acks}");
        }
    }
    for _ in 0..ROUNDS {
        let _ = next(&mut end);
        let records = produce("t", 0, batch(2, 100, -1));
        let found = wire.ask_after((9, &records), (7, &list_offsets("t", -1)));
        assert_eq!(offset(&found), (0, end), "acks=0");
    }
}

#[test]
fn the_producers_of_a_partition_are_known_to_what_is_asked_after_their_batch() {
    use describe_producers_request::TopicRequest;
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    for round in 1..=usize::try_from(ROUNDS).expect("small") {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let made = wire.ask(4, &request.with_transaction_timeout_ms(1));
        assert_eq!(made.error_code, 0);
        let records = produce("t", -1, batch(3, 10, made.producer_id.0));
        let topic = TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let (done, found) = wire.ask_both((9, &records), (0, &request));
        assert_eq!(produced(&done).0, 0);
        assert_eq!(found.topics[0].partitions[0].active_producers.len(), round);
    }
}

#[test]
fn what_is_asked_after_deleting_records_finds_them_deleted() {
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    let _ = wire.ask(9, &produce("t", -1, batch(1_000, 10, -1)));
    for to in 1..=i64::from(ROUNDS) {
        let (_, found) =
            wire.ask_both((2, &delete_records("t", 2 * to)), (7, &list_offsets("t", -2)));
        assert_eq!(offset(&found), (0, 2 * to));
        let (_, found) =
            wire.ask_both((2, &delete_records("t", 2 * to + 1)), (11, &fetch("t", 2 * to, 0)));
        assert_eq!(fetched(&found), (1, 0), "OFFSET_OUT_OF_RANGE");
    }
}

#[test]
fn what_is_asked_after_a_change_of_a_groups_offsets_finds_it() {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    find_coordinator(&mut wire);
    for round in 0..ROUNDS {
        let id = format!("g{round}");
        for at in [7, 8] {
            let (_, found) = wire.ask_both((8, &commit(&id, "t", at)), (8, &committed(&id)));
            assert_eq!(offset_of(&found), Some(at));
        }
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let delete =
            OffsetDeleteRequest::default().with_group_id(group(&id)).with_topics(vec![topic]);
        let (done, found) = wire.ask_both((0, &delete), (8, &committed(&id)));
        assert_eq!((done.error_code, offset_of(&found)), (0, None));
        let (_, found) =
            wire.ask_both((8, &commit(&id, "t", 9)), (4, &ListGroupsRequest::default()));
        assert!(listed(&found, &id));
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group(&id)]);
        let (done, found) = wire.ask_both((2, &delete), (4, &ListGroupsRequest::default()));
        assert_eq!(done.results[0].error_code, 0);
        assert!(!listed(&found, &id));
        let (_, found) = wire.ask_both((8, &commit(&id, "t", 9)), (5, &describe_groups(&id)));
        assert_eq!(found.groups[0].group_state.as_str(), "Empty");
        let (_, found) = wire.ask_both((2, &delete), (5, &describe_groups(&id)));
        assert_eq!(found.groups[0].group_state.as_str(), "Dead");
        let _ = wire.ask(8, &commit(&id, "t", 10));
        let (_, found) = wire.ask_both((2, &delete), (8, &committed(&id)));
        assert_eq!(offset_of(&found), None);
    }
}

#[test]
fn commits_of_one_connection_overlap_and_the_last_one_counts() {
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    find_coordinator(&mut wire);
    for round in 0..i64::from(ROUNDS) {
        let sent: Vec<_> =
            (0..20).map(|at| wire.send(8, &commit("g", "t", 100 * round + at))).collect();
        let asked = wire.send(8, &committed("g"));
        for sent in &sent {
            assert_eq!(wire.answer(sent).topics[0].partitions[0].error_code, 0);
        }
        assert_eq!(offset_of(&wire.answer(&asked)), Some(100 * round + 19));
    }
}

#[test]
fn what_is_asked_after_joining_or_leaving_a_group_finds_it() {
    use join_group_request::JoinGroupRequestProtocol;
    use leave_group_request::MemberIdentity;
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    find_coordinator(&mut wire);
    for round in 0..ROUNDS {
        let id = format!("g{round}");
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("p"))
            .with_metadata(Bytes::from_static(b"m"));
        let join = JoinGroupRequest::default()
            .with_group_id(group(&id))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let (joined, found) = wire.ask_both((3, &join), (5, &describe_groups(&id)));
        assert_eq!(joined.error_code, 0);
        assert_eq!(found.groups[0].members.len(), 1);
        assert_eq!(found.groups[0].group_state.as_str(), "CompletingRebalance");
        let member = joined.member_id.clone();
        let sync = SyncGroupRequest::default()
            .with_group_id(group(&id))
            .with_generation_id(joined.generation_id)
            .with_member_id(member.clone());
        let (synced, found) = wire.ask_both((3, &sync), (5, &describe_groups(&id)));
        assert_eq!((synced.error_code, found.groups[0].group_state.as_str()), (0, "Stable"));
        let leaving = MemberIdentity::default().with_member_id(member);
        let leave =
            LeaveGroupRequest::default().with_group_id(group(&id)).with_members(vec![leaving]);
        let (left, found) = wire.ask_both((4, &leave), (5, &describe_groups(&id)));
        assert_eq!((left.error_code, found.groups[0].members.len()), (0, 0));
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group(&id)]);
        let (deleted, found) = wire.ask_both((2, &delete), (5, &describe_groups(&id)));
        assert_eq!(deleted.results[0].error_code, 0);
        assert_eq!(found.groups[0].group_state.as_str(), "Dead");
    }
}

#[test]
fn what_is_asked_after_a_change_of_a_topic_finds_it() {
    use create_partitions_request::CreatePartitionsTopic;
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    let records = || batch(1, 100, -1);
    for round in 0..ROUNDS {
        let t = |kind: &str| format!("{kind}{round}");
        let (_, found) = wire.ask_both((7, &create(&t("m"), 2, 1)), (12, &metadata(&t("m"))));
        assert_eq!(described(&found), (0, 2));
        let (_, found) =
            wire.ask_both((7, &create(&t("l"), 1, 1)), (7, &list_offsets(&t("l"), -1)));
        assert_eq!(offset(&found), (0, 0));
        let (_, done) =
            wire.ask_both((7, &create(&t("p"), 1, 1)), (9, &produce(&t("p"), 1, records())));
        assert_eq!(produced(&done), (0, 0));
        let config = describe_config(&t("d"), "retention.ms");
        let (_, found) = wire.ask_both((7, &create(&t("d"), 1, 1)), (4, &config));
        assert_eq!((found.results[0].error_code, value(&found).as_str()), (0, "604800000"));
        let more = CreatePartitionsTopic::default()
            .with_name(name(&t("m")))
            .with_count(5)
            .with_assignments(None);
        let more = CreatePartitionsRequest::default().with_topics(vec![more]);
        let more = more.with_timeout_ms(10_000);
        let (_, found) = wire.ask_both((3, &more), (12, &metadata(&t("m"))));
        assert_eq!(described(&found), (0, 5));
        let set = set_config(&t("d"), "retention.ms", &round.to_string());
        let (_, found) = wire.ask_both((1, &set), (4, &config));
        assert_eq!(value(&found), round.to_string());
        let set = set_config(&t("p"), "max.message.bytes", "20");
        let (_, done) = wire.ask_both((1, &set), (9, &produce(&t("p"), 1, records())));
        assert_eq!(produced(&done).0, 10, "MESSAGE_TOO_LARGE");
        let set = set_config(&t("p"), "max.message.bytes", "2000");
        let (_, done) = wire.ask_both((1, &set), (9, &produce(&t("p"), -1, records())));
        assert_eq!(produced(&done), (0, 1));
        let (_, found) = wire.ask_both((6, &delete_topic(&t("m"))), (12, &metadata(&t("m"))));
        assert_eq!(described(&found).0, 3, "UNKNOWN_TOPIC_OR_PARTITION");
        let (_, done) =
            wire.ask_both((6, &delete_topic(&t("p"))), (9, &produce(&t("p"), 1, records())));
        assert_eq!(produced(&done).0, 3);
        let (_, found) = wire.ask_both((6, &delete_topic(&t("l"))), (11, &fetch(&t("l"), 0, 0)));
        assert_eq!(fetched(&found).0, 3);
        let (_, found) = wire.ask_both((6, &delete_topic(&t("d"))), (4, &config));
        assert_eq!(found.results[0].error_code, 3);
    }
}

#[test]
fn on_each_node_of_a_cluster_what_is_asked_after_a_change_finds_it() {
    use create_partitions_request::CreatePartitionsTopic;
    let (folder, _) = folder();
    let cluster = Cluster::start(folder.path());
    let connect =
        |place: &crate::cluster::Place| Wire::connect(&format!("{}:{}", place.host, place.kafka));
    let mut wires: Vec<Wire> = cluster.places.iter().map(connect).collect();
    for round in 0..4 {
        for index in 0..wires.len() {
            let t = format!("t{round}-{index}");
            let wire = &mut wires[index];
            let (_, found) = wire.ask_both((7, &create(&t, 1, 3)), (12, &metadata(&t)));
            assert_eq!(described(&found), (0, 1));
            let leader = found.topics[0].partitions[0].leader_id.0;
            let set = set_config(&t, "retention.ms", "86400000");
            let config = describe_config(&t, "retention.ms");
            let (_, found) = wire.ask_both((1, &set), (4, &config));
            assert_eq!(value(&found), "86400000");
            let more = CreatePartitionsTopic::default()
                .with_name(name(&t))
                .with_count(4)
                .with_assignments(None);
            let more = CreatePartitionsRequest::default().with_topics(vec![more]);
            let (_, found) = wire.ask_both((3, &more.with_timeout_ms(10_000)), (12, &metadata(&t)));
            assert_eq!(described(&found), (0, 4));
            let leading = &mut wires[usize::try_from(leader).expect("an id") - 1];
            let request = produce(&t, -1, batch(2, 50, -1));
            // The leader may learn a moment later than the others that it leads.
            while produced(&leading.ask(9, &request)).0 != 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            for acked in 2..12 {
                let (done, found) = leading.ask_both((9, &request), (7, &list_offsets(&t, -1)));
                assert_eq!((produced(&done).0, offset(&found)), (0, (0, 2 * acked)));
                let (_, found) = leading
                    .ask_both((2, &delete_records(&t, 2 * acked - 1)), (7, &list_offsets(&t, -2)));
                assert_eq!(offset(&found), (0, 2 * acked - 1));
            }
            let wire = &mut wires[index];
            let (_, found) = wire.ask_both((6, &delete_topic(&t)), (12, &metadata(&t)));
            assert_eq!(described(&found).0, 3, "UNKNOWN_TOPIC_OR_PARTITION");
        }
    }
}

#[test]
fn the_log_ends_after_every_record_that_was_acknowledged_whoever_asks() {
    let (_folder, broker) = started();
    let (mut producer, mut asker) =
        (Wire::connect(&broker.address), Wire::connect(&broker.address));
    made(&mut producer, "t");
    for round in 1..=500_i64 {
        let time = BEGIN_MS + round;
        let acked = produced(&producer.ask(9, &produce("t", 1, batch_at(time, 1, 50, -1))));
        assert_eq!(acked, (0, round - 1));
        let found = match round % 4 {
            0 => offset(&asker.ask(7, &list_offsets("t", -1))).1,
            1 => offset(&asker.ask(7, &list_offsets("t", time))).1 + 1,
            2 => low_watermark(&asker.ask(2, &delete_records("t", -1))).1,
            _ => {
                let (code, bytes) = fetched(&asker.ask(11, &fetch("t", round - 1, 0)));
                assert!(code == 0 && bytes > 0, "round {round}: {bytes} bytes");
                round
            }
        };
        assert_eq!(found, round, "round {round}");
    }
}

#[test]
fn a_fetch_that_waits_holds_up_nobody_and_its_answer_still_comes_first() {
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    for round in 0..10 {
        let waiting = wire.send(11, &fetch("t", round, 20_000));
        let begun = std::time::Instant::now();
        let producing = wire.send(9, &produce("t", 1, batch(1, 50, -1)));
        let asking = wire.send(7, &list_offsets("t", -1));
        let (code, bytes) = fetched(&wire.answer(&waiting));
        assert!(code == 0 && bytes > 0);
        assert!(begun.elapsed().as_secs() < 10, "the record behind the fetch ended its wait");
        assert_eq!(produced(&wire.answer(&producing)), (0, round));
        assert_eq!(offset(&wire.answer(&asking)), (0, round + 1));
    }
}

#[test]
fn produce_requests_of_one_connection_overlap_and_keep_their_order() {
    let (_folder, broker) = started();
    let mut wire = Wire::connect(&broker.address);
    made(&mut wire, "t");
    let request = produce("t", -1, batch(1, 50, -1));
    let one = std::time::Instant::now();
    for at in 0..50 {
        assert_eq!(produced(&wire.ask(9, &request)), (0, at));
    }
    let alone = one.elapsed();
    let all = std::time::Instant::now();
    let sent: Vec<_> = (0..50).map(|_| wire.send(9, &request)).collect();
    for (at, sent) in (50..).zip(&sent) {
        assert_eq!(produced(&wire.answer(sent)), (0, at));
    }
    println!("50 produce requests: {alone:?} one by one, {:?} together", all.elapsed());
    assert!(all.elapsed() < alone, "they shared their flushes");
}
