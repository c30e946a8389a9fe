//! Every request that we serve: decoded from any bytes, and well-formed ones to begin from. For tests and fuzz targets.

use bytes::Bytes;
use kafka_protocol::protocol::Request;

use super::{decode, key_number, parse_head};

/// Runs a check for every served API with its request type.
macro_rules! for_every_api {
    ($check:ident $(($($argument:expr),*))?) => {
        for_every_api!(@each $check ($($($argument),*)?)
            ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
            OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
            LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
            ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest
            InitProducerIdRequest OffsetForLeaderEpochRequest DescribeConfigsRequest
            AlterConfigsRequest DescribeLogDirsRequest CreatePartitionsRequest DeleteGroupsRequest
            IncrementalAlterConfigsRequest OffsetDeleteRequest DescribeQuorumRequest
            UpdateFeaturesRequest DescribeClusterRequest DescribeProducersRequest
            ListConfigResourcesRequest DescribeTopicPartitionsRequest ElectLeadersRequest
            AlterPartitionReassignmentsRequest ListPartitionReassignmentsRequest
            UnregisterBrokerRequest AddRaftVoterRequest RemoveRaftVoterRequest
            AlterReplicaLogDirsRequest DescribeAclsRequest CreateAclsRequest DeleteAclsRequest
            ConsumerGroupHeartbeatRequest)
    };
    (@each $check:ident $arguments:tt $($request:ident)*) => {
        $(for_every_api!(@one $check $request $arguments);)*
    };
    (@one $check:ident $request:ident ($($argument:expr),*)) => {
        $check::<kafka_protocol::messages::$request>($($argument),*);
    };
}
#[cfg(test)]
pub(super) use for_every_api;

/// Decodes a frame as whatever it says it is.
pub(crate) fn decode_any(mut bytes: Bytes) {
    fn attempt<R: Request>(head: &super::RequestHead, bytes: &Bytes) {
        if key_number(head.key) == R::KEY {
            let _ = decode::<R>(head, &mut bytes.clone());
        }
    }
    let Ok(head) = parse_head(&mut bytes) else { return };
    for_every_api!(attempt(&head, &bytes));
}

/// Frames (with their length) of every API, its key and version; some with something in their arrays.
#[cfg(test)]
pub(crate) fn sample_frames() -> Vec<(i16, i16, Bytes)> {
    use super::{SERVED, encode_request, text};
    fn add<R: Request + Default>(frames: &mut Vec<(i16, i16, Bytes)>) {
        let api = SERVED.iter().find(|api| key_number(api.key) == R::KEY);
        for version in api.map(|api| [api.min, api.max]).unwrap_or_default() {
            // A default that a version can't hold is left out.
            if let Ok(frame) = encode_request(version, 5, &R::default()) {
                frames.push((R::KEY, version, frame.freeze()));
            }
        }
    }
    fn filled<R: Request>(frames: &mut Vec<(i16, i16, Bytes)>, version: i16, request: &R) {
        if let Ok(frame) = encode_request(version, 5, request) {
            frames.push((R::KEY, version, frame.freeze()));
        }
    }
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::*;
    let mut frames = Vec::new();
    for_every_api!(add(&mut frames));
    let name = TopicName(text("topic"));
    let topic = MetadataRequestTopic::default().with_name(Some(name.clone()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic]));
    filled(&mut frames, 9, &request);
    let data = PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
    let topic = TopicProduceData::default().with_name(name.clone()).with_partition_data(vec![data]);
    filled(&mut frames, 9, &ProduceRequest::default().with_topic_data(vec![topic]));
    let partitions = vec![FetchPartition::default()];
    let topic = FetchTopic::default().with_topic(name).with_partitions(partitions);
    filled(&mut frames, 11, &FetchRequest::default().with_topics(vec![topic]));
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    filled(&mut frames, 7, &JoinGroupRequest::default().with_protocols(vec![protocol]));
    frames
}
