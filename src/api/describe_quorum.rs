//! DescribeQuorum: the metadata log's quorum, for now this node alone (KIP-595).

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::protocol::messages::describe_quorum_response::{PartitionData, ReplicaState, TopicData};
use crate::protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DescribeQuorumRequest,
) -> Reply<DescribeQuorumResponse> {
    if !context.allows(call, Operation::Describe, Resource::Cluster) {
        return Reply::Now(refused(call, ErrorCode::ClusterAuthorizationFailed));
    }
    let mut topics = Vec::new();
    for topic in request.topics {
        let describe = |index: i32| {
            let known = topic.topic_name.as_str() == METADATA_TOPIC && index == 0;
            if known { voter(context, call) } else { unknown(index) }
        };
        let partitions =
            topic.partitions.iter().map(|partition| describe(partition.partition_index)).collect();
        topics.push(
            TopicData::default()
                .with_topic_name(topic.topic_name.clone())
                .with_partitions(partitions),
        );
    }
    Reply::Now(DescribeQuorumResponse::default().with_error_message(None).with_topics(topics))
}

fn refused(call: &Call, code: ErrorCode) -> DescribeQuorumResponse {
    let response = DescribeQuorumResponse::default().with_error_code(code.code());
    if call.version >= 2 { response.with_error_message(Some(text(code.text()))) } else { response }
}

fn unknown(index: i32) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        .with_error_message(None)
}

fn voter(context: &Context, call: &Call) -> PartitionData {
    let end = context.controller.metadata_end();
    let now_ms = context.clock.now_ms();
    let mut replica =
        ReplicaState::default().with_replica_id(BrokerId(context.node_id)).with_log_end_offset(end);
    if call.version >= 1 {
        replica.last_fetch_timestamp = now_ms;
        replica.last_caught_up_timestamp = now_ms;
    }
    if call.version >= 2 {
        replica.replica_directory_id =
            context.replicas.directories().first().map(|d| d.id).unwrap_or_default();
    }
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(BrokerId(context.node_id))
        .with_leader_epoch(1)
        .with_high_watermark(end)
        .with_current_voters(vec![replica])
}
