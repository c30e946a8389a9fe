//! ElectLeaders (KIP-460): preferred leaders, or any live replica where none in sync is left.

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::controller::{Command, ControllerError, ElectionKind};
use crate::error::ErrorCode;
use crate::model::number::to_i32;
use crate::protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use crate::protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use crate::protocol::text;
use crate::security::{Operation, Resource};

const UNCLEAN: i8 = 1;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: ElectLeadersRequest,
) -> Reply<ElectLeadersResponse> {
    if !context.allows(call, Operation::Alter, Resource::Cluster) {
        let code = ErrorCode::ClusterAuthorizationFailed.code();
        let refused = ElectLeadersResponse::default();
        return Reply::Now(if call.version >= 1 { refused.with_error_code(code) } else { refused });
    }
    let is_unclean = call.version >= 1 && request.election_type == UNCLEAN;
    let kind = if is_unclean { ElectionKind::Unclean } else { ElectionKind::Preferred };
    let context = Arc::clone(context);
    Reply::later(async move {
        let is_all = request.topic_partitions.is_none();
        let mut results = Vec::new();
        for (topic, partitions) in wanted(&context, request) {
            let mut answered = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let elected = elect(&context, kind, &topic, partition).await;
                // Asked for everything, what needs nothing is not told.
                if is_all && elected == Err(ControllerError::ElectionNotNeeded) {
                    continue;
                }
                answered.push(result(partition, elected));
            }
            if !answered.is_empty() {
                let answer = ReplicaElectionResult::default()
                    .with_topic(topic)
                    .with_partition_result(answered);
                results.push(answer);
            }
        }
        ElectLeadersResponse::default().with_replica_election_results(results)
    })
}

fn wanted(context: &Context, request: ElectLeadersRequest) -> Vec<(TopicName, Vec<i32>)> {
    let image = context.image();
    match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|t| (t.topic, t.partitions)).collect(),
        None => image
            .topics
            .values()
            .map(|topic| {
                let all = (0..to_i32(topic.partitions.len())).collect();
                (TopicName(text(&*topic.name)), all)
            })
            .collect(),
    }
}

async fn elect(
    context: &Context,
    kind: ElectionKind,
    topic: &TopicName,
    partition: i32,
) -> Result<(), ControllerError> {
    let topic = context.image().topic(topic).map(|topic| topic.id);
    let topic = topic.ok_or(ControllerError::UnknownTopic)?;
    context.controller.ask(Command::Elect { kind, topic, partition }).await.map(drop)
}

fn result(partition: i32, elected: Result<(), ControllerError>) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(partition).with_error_message(None);
    match elected {
        Ok(()) => result,
        Err(error) => result
            .with_error_code(ErrorCode::from(&error).code())
            .with_error_message(Some(text(error.to_string()))),
    }
}
