//! DescribeQuorum: the metadata log's quorum as its leader sees it (KIP-595). Brokers without a vote are its observers.

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::controller::QuorumView;
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
    let (context, version) = (Arc::clone(context), call.version);
    Reply::later(async move {
        let view = context.controller.describe_quorum().await;
        let mut topics = Vec::new();
        for topic in request.topics {
            let describe = |index: i32| {
                let known = topic.topic_name.as_str() == METADATA_TOPIC && index == 0;
                if known { described(&context, &view, version) } else { unknown(index) }
            };
            let partitions =
                topic.partitions.iter().map(|asked| describe(asked.partition_index)).collect();
            let described = TopicData::default().with_topic_name(topic.topic_name.clone());
            topics.push(described.with_partitions(partitions));
        }
        DescribeQuorumResponse::default().with_error_message(None).with_topics(topics)
    })
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

fn described(context: &Context, view: &QuorumView, version: i16) -> PartitionData {
    let status = &view.status;
    let image = context.image();
    let now_ms = context.clock.now_ms();
    let replica = |id: &i32| {
        let (mut end, mut heard_ms) = (-1, -1);
        if status.leader == Some(*id) {
            (end, heard_ms) = (status.log_end, now_ms);
        } else if let Some(Some(index)) = status.replicated.get(id) {
            end = to_i64(*index) + 1;
            heard_ms = if end >= status.log_end { now_ms } else { -1 };
        } else if let Some((applied, ago_ms)) = view.heard.get(id) {
            (end, heard_ms) = (to_i64(*applied), now_ms - ago_ms);
        }
        let mut replica =
            ReplicaState::default().with_replica_id(BrokerId(*id)).with_log_end_offset(end);
        if version >= 1 {
            replica.last_fetch_timestamp = heard_ms;
            replica.last_caught_up_timestamp = if end >= status.log_end { heard_ms } else { -1 };
        }
        if version >= 2 {
            replica.replica_directory_id = image.voters.get(id).copied().unwrap_or_default();
        }
        replica
    };
    let others = image.brokers.keys().filter(|id| !status.voters.contains(id));
    let mut observers: Vec<i32> = status.observers.iter().chain(others).copied().collect();
    observers.sort_unstable();
    observers.dedup();
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(BrokerId(status.leader.unwrap_or(-1)))
        .with_leader_epoch(i32::try_from(status.term).unwrap_or(i32::MAX))
        .with_high_watermark(to_i64(status.applied))
        .with_current_voters(status.voters.iter().map(replica).collect())
        .with_observers(observers.iter().map(replica).collect())
}
