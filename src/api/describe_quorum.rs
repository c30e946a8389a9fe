//! DescribeQuorum: the metadata log's quorum as this node sees it (KIP-595); only its leader knows how far others are.

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::model::number::to_i64;
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
    let status = context.controller.quorum();
    let image = context.image();
    let now_ms = context.clock.now_ms();
    let replica = |id: &i32| {
        let is_here = *id == context.node_id;
        let known = status.replicated.get(id).copied().flatten().map(|index| to_i64(index) + 1);
        let end = if is_here { status.log_end } else { known.unwrap_or(-1) };
        let mut replica =
            ReplicaState::default().with_replica_id(BrokerId(*id)).with_log_end_offset(end);
        if call.version >= 1 {
            let is_current = is_here || end >= status.log_end;
            replica.last_fetch_timestamp = if is_current { now_ms } else { -1 };
            replica.last_caught_up_timestamp = if is_current { now_ms } else { -1 };
        }
        if call.version >= 2 {
            replica.replica_directory_id = image.voters.get(id).copied().unwrap_or_default();
        }
        replica
    };
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(BrokerId(status.leader.unwrap_or(-1)))
        .with_leader_epoch(i32::try_from(status.term).unwrap_or(i32::MAX))
        .with_high_watermark(to_i64(status.applied))
        .with_current_voters(status.voters.iter().map(replica).collect())
        .with_observers(status.observers.iter().map(replica).collect())
}
