//! One valid request for every API that a broker names in ApiVersions, at its lowest and its highest version, and who reads the answers.
//!
//! Invariants: what changes something names only the topics of `TOPICS` and groups that nobody else has; no setting in them is one of
//! a broker's.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use uuid::Uuid;

use crate::wire::{Wire, batch, commit, create, fetch, name, produce, text};

/// A request without its length, and what it is.
#[derive(Debug, Clone)]
pub(super) struct Valid {
    pub key: i16,
    pub version: i16,
    pub frame: Vec<u8>,
}

/// The topics that requests name: one that is used, and one that is to be deleted.
pub(super) const TOPICS: [&str; 2] = ["fuzz", "fuzz-gone"];
pub(super) const GROUP: &str = "fuzz-group";

/// What is built for one broker: the versions that it names.
struct Collection {
    named: Vec<(i16, i16, i16)>,
    all: Vec<Valid>,
}

/// A request as bytes, without its length; `None` where this version has no place for something in it.
pub(super) fn encode<R: Request>(version: i16, id: i32, request: &R) -> Option<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(text("fuzz")));
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).ok()?;
    request.encode(&mut body, version).ok()?;
    Some(body.to_vec())
}

impl Collection {
    /// Adds a request at the lowest and the highest version that has a place for what is in one of these.
    fn add<R: Request>(&mut self, forms: &[R]) {
        let (_, min, max) =
            *self.named.iter().find(|(key, ..)| *key == R::KEY).expect("an API that is named");
        // Produce says 0 for the sake of old clients (KAFKA-18659).
        let ends = [min.max(R::VERSIONS.min), max.min(R::VERSIONS.max)];
        for (version, said) in ends.into_iter().zip([ends[0], max]) {
            let encoded = |form| encode(version, 5, form);
            let mut frame = forms.iter().find_map(encoded).unwrap_or_else(|| {
                panic!("no form of API {} fits version {version}", R::KEY);
            });
            // A version that is the same on the wire as the one before it.
            frame[2..4].copy_from_slice(&said.to_be_bytes());
            self.all.push(Valid { key: R::KEY, version: said, frame });
        }
    }
}

/// Calls a macro with every request type.
macro_rules! with_every_request {
    ($call:ident) => {
        $call! {
            ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
            OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
            LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
            ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest
            InitProducerIdRequest OffsetForLeaderEpochRequest DescribeAclsRequest CreateAclsRequest
            DeleteAclsRequest DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
            DescribeLogDirsRequest CreatePartitionsRequest DeleteGroupsRequest ElectLeadersRequest
            IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
            ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeQuorumRequest
            UpdateFeaturesRequest DescribeClusterRequest DescribeProducersRequest
            UnregisterBrokerRequest ConsumerGroupHeartbeatRequest ListConfigResourcesRequest
            DescribeTopicPartitionsRequest AddRaftVoterRequest RemoveRaftVoterRequest
        }
    };
}

/// Reads an answer (without its length) to a request of this key and version; why it can't be read, or what is left over.
pub(super) fn read(key: i16, version: i16, answer: &[u8]) -> Result<(), String> {
    fn attempt<R: Request>(version: i16, answer: &[u8]) -> Result<(), String> {
        let mut bytes = Bytes::copy_from_slice(answer);
        let version = version.min(R::VERSIONS.max);
        // What is asked in a version that is not known is told so in the oldest one.
        let version = if R::KEY == 18 && answer.get(4..6) == Some(&[0, 35]) { 0 } else { version };
        let told = |error| format!("{error:#}");
        ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).map_err(told)?;
        R::Response::decode(&mut bytes, version).map_err(told)?;
        if bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes are left", bytes.len())) }
    }
    macro_rules! by_key {
        ($($request:ident)*) => {
            $(if key == <$request as Request>::KEY {
                return attempt::<$request>(version, answer);
            })*
        };
    }
    with_every_request!(by_key);
    Err(format!("an answer to API {key}, which nobody knows"))
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn records(all: &mut Collection, id: Uuid) {
    let by_name = produce(TOPICS[0], -1, batch(3, 50, -1));
    let mut by_id = by_name.clone();
    by_id.topic_data[0].name = name("");
    by_id.topic_data[0].topic_id = id;
    all.add(&[by_id, by_name]);
    let mut by_name = fetch(TOPICS[0], 10, 1);
    by_name.topics[0].partitions[0].partition_max_bytes = 100_000;
    let mut by_id = by_name.clone();
    by_id.topics[0].topic = name("");
    by_id.topics[0].topic_id = id;
    all.add(&[by_id, by_name]);
    {
        use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(name(TOPICS[0]));
        let topics = vec![topic.with_partitions(vec![partition])];
        all.add(&[ListOffsetsRequest::default().with_topics(topics)]);
    }
    {
        use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let partition = DeleteRecordsPartition::default().with_offset(1);
        let topic = DeleteRecordsTopic::default().with_name(name(TOPICS[0]));
        let topics = vec![topic.with_partitions(vec![partition])];
        all.add(&[DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(100)]);
    }
    {
        use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(0);
        let topic = OffsetForLeaderTopic::default().with_topic(name(TOPICS[0]));
        let topics = vec![topic.with_partitions(vec![partition])];
        all.add(&[OffsetForLeaderEpochRequest::default().with_topics(topics)]);
    }
    all.add(&[InitProducerIdRequest::default().with_transactional_id(None)]);
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(name(TOPICS[0]))
        .with_partition_indexes(vec![0]);
    all.add(&[DescribeProducersRequest::default().with_topics(vec![topic])]);
}

/// One setting of a topic, changed by either of two requests whose types have the same names.
macro_rules! altered {
    ($request:ident, $module:ident) => {{
        use $module::{AlterConfigsResource, AlterableConfig};
        let setting = AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("600000")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(TOPICS[0]))
            .with_configs(vec![setting]);
        $request::default().with_resources(vec![resource])
    }};
}

fn groups(all: &mut Collection) {
    all.add(&[commit(GROUP, TOPICS[0], 1)]);
    {
        use offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        };
        let topics = OffsetFetchRequestTopics::default()
            .with_name(name(TOPICS[0]))
            .with_partition_indexes(vec![0]);
        let of_group = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![topics]));
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name(TOPICS[0]))
            .with_partition_indexes(vec![0]);
        all.add(&[
            OffsetFetchRequest::default().with_groups(vec![of_group]),
            OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic])),
        ]);
    }
    all.add(&[
        FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]),
        FindCoordinatorRequest::default().with_key(text(GROUP)),
    ]);
    let protocol = join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\x01\0\0\0\x01\0\x04fuzz\xff\xff\xff\xff"));
    let join = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(500)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    all.add(&[join]);
    all.add(&[HeartbeatRequest::default().with_group_id(group()).with_member_id(text("m"))]);
    let member = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
    all.add(&[
        LeaveGroupRequest::default().with_group_id(group()).with_members(vec![member]),
        LeaveGroupRequest::default().with_group_id(group()).with_member_id(text("m")),
    ]);
    let assignment = sync_group_request::SyncGroupRequestAssignment::default()
        .with_member_id(text("m"))
        .with_assignment(Bytes::from_static(b"\0\x01\0\0\0\0\xff\xff\xff\xff"));
    let sync = SyncGroupRequest::default()
        .with_group_id(group())
        .with_member_id(text("m"))
        .with_assignments(vec![assignment]);
    all.add(&[sync]);
    all.add(&[DescribeGroupsRequest::default().with_groups(vec![group()])]);
    all.add(&[ListGroupsRequest::default()]);
    let gone = GroupId(text("fuzz-group-gone"));
    all.add(&[DeleteGroupsRequest::default().with_groups_names(vec![gone])]);
    let partition = offset_delete_request::OffsetDeleteRequestPartition::default();
    let topic = offset_delete_request::OffsetDeleteRequestTopic::default()
        .with_name(name(TOPICS[0]))
        .with_partitions(vec![partition]);
    all.add(&[OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic])]);
    let beat = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_rebalance_timeout_ms(1_000)
        .with_subscribed_topic_names(Some(vec![name(TOPICS[0])]))
        .with_topic_partitions(Some(Vec::new()));
    all.add(&[beat]);
}

fn topics(all: &mut Collection) {
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name(TOPICS[0])));
    all.add(&[MetadataRequest::default().with_topics(Some(vec![asked]))]);
    all.add(&[
        ApiVersionsRequest::default()
            .with_client_software_name(text("fuzz"))
            .with_client_software_version(text("1")),
        ApiVersionsRequest::default(),
    ]);
    let mut make = create(TOPICS[1], 1, 1);
    let setting = create_topics_request::CreatableTopicConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("600000")));
    make.topics[0].configs.push(setting);
    all.add(&[make]);
    let gone = delete_topics_request::DeleteTopicState::default().with_name(Some(name(TOPICS[1])));
    let delete = DeleteTopicsRequest::default().with_timeout_ms(1_000);
    all.add(&[
        delete.clone().with_topics(vec![gone]),
        delete.with_topic_names(vec![name(TOPICS[1])]),
    ]);
    let more = create_partitions_request::CreatePartitionsTopic::default()
        .with_name(name(TOPICS[1]))
        .with_count(2)
        .with_assignments(None);
    all.add(&[CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(1_000)]);
    let of_topic = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPICS[0]))
        .with_configuration_keys(None);
    all.add(&[DescribeConfigsRequest::default().with_resources(vec![of_topic])]);
    all.add(&[altered!(AlterConfigsRequest, alter_configs_request)]);
    all.add(&[altered!(IncrementalAlterConfigsRequest, incremental_alter_configs_request)]);
    let topic =
        describe_topic_partitions_request::TopicRequest::default().with_name(name(TOPICS[0]));
    let described = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
    all.add(&[described.with_response_partition_limit(10).with_cursor(None)]);
}

fn cluster(all: &mut Collection) {
    let of_acls = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    all.add(&[of_acls]);
    let acl = create_acls_request::AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPICS[0]))
        .with_resource_pattern_type(3)
        .with_principal(text("User:fuzz"))
        .with_host(text("*"))
        .with_operation(3)
        .with_permission_type(3);
    all.add(&[CreateAclsRequest::default().with_creations(vec![acl])]);
    let filter = delete_acls_request::DeleteAclsFilter::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    all.add(&[DeleteAclsRequest::default().with_filters(vec![filter])]);
    let topic = alter_replica_log_dirs_request::AlterReplicaLogDirTopic::default()
        .with_name(name(TOPICS[0]))
        .with_partitions(vec![0]);
    let folder = alter_replica_log_dirs_request::AlterReplicaLogDir::default()
        .with_path(text("/nowhere"))
        .with_topics(vec![topic]);
    all.add(&[AlterReplicaLogDirsRequest::default().with_dirs(vec![folder])]);
    let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
        .with_topic(name(TOPICS[0]))
        .with_partitions(vec![0]);
    all.add(&[DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))]);
    let topic = elect_leaders_request::TopicPartitions::default()
        .with_topic(name(TOPICS[0]))
        .with_partitions(vec![0]);
    let elect = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]));
    all.add(&[elect.with_timeout_ms(1_000)]);
    let topic = alter_partition_reassignments_request::ReassignableTopic::default()
        .with_name(name(TOPICS[0]))
        .with_partitions(vec![
            alter_partition_reassignments_request::ReassignablePartition::default()
                .with_replicas(None),
        ]);
    let moved = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    all.add(&[moved.with_timeout_ms(1_000)]);
    let listed = ListPartitionReassignmentsRequest::default().with_topics(None);
    all.add(&[listed.with_timeout_ms(1_000)]);
    let partition = describe_quorum_request::PartitionData::default();
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(name("__cluster_metadata"))
        .with_partitions(vec![partition]);
    all.add(&[DescribeQuorumRequest::default().with_topics(vec![topic])]);
    let feature = update_features_request::FeatureUpdateKey::default()
        .with_feature(text("no.feature"))
        .with_max_version_level(1);
    let update = UpdateFeaturesRequest::default().with_feature_updates(vec![feature]);
    all.add(&[update.with_timeout_ms(1_000)]);
    all.add(&[DescribeClusterRequest::default()]);
    all.add(&[UnregisterBrokerRequest::default().with_broker_id(BrokerId(77_000))]);
    all.add(&[
        ListConfigResourcesRequest::default().with_resource_types(vec![2]),
        ListConfigResourcesRequest::default(),
    ]);
    let voter = AddRaftVoterRequest::default().with_cluster_id(None).with_timeout_ms(100);
    all.add(&[voter.with_voter_id(77_000).with_voter_directory_id(Uuid::from_u128(7))]);
    let voter = RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(77_000);
    all.add(&[voter.with_voter_directory_id(Uuid::from_u128(7))]);
}

/// All of them, twice each.
pub(super) fn every_api(address: &str) -> Vec<Valid> {
    let mut wire = Wire::connect(address);
    let named = wire.ask(0, &ApiVersionsRequest::default());
    let named: Vec<_> =
        named.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name(TOPICS[0])));
    let found = wire.ask(12, &MetadataRequest::default().with_topics(Some(vec![asked])));
    let id = found.topics[0].topic_id;
    assert!(!id.is_nil(), "the topic is there");
    let mut all = Collection { named, all: Vec::new() };
    records(&mut all, id);
    groups(&mut all);
    topics(&mut all);
    cluster(&mut all);
    for (key, ..) in &all.named {
        assert_eq!(all.all.iter().filter(|valid| valid.key == *key).count(), 2, "API {key}");
    }
    all.all
}
