//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455).

use std::collections::HashSet;
use std::sync::Arc;

use super::{Call, Context, Reply, broker_ids};
use crate::controller::{Command, ControllerError, check_replicas};
use crate::error::ErrorCode;
use crate::metadata::TopicImage;
use crate::model::BrokerId;
use crate::protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use crate::protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use crate::protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn alter(
    context: &Arc<Context>,
    call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> Reply<AlterPartitionReassignmentsResponse> {
    let mut response = AlterPartitionReassignmentsResponse::default().with_error_message(None);
    if call.version >= 1 {
        response.allow_replication_factor_change = request.allow_replication_factor_change;
    }
    if !context.allows(call, Operation::Alter, Resource::Cluster) {
        return Reply::Now(response.with_error_code(ErrorCode::ClusterAuthorizationFailed.code()));
    }
    let may_change_factor = call.version < 1 || request.allow_replication_factor_change;
    let context = Arc::clone(context);
    Reply::later(async move {
        for topic in request.topics {
            let mut answered = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let done = reassign(&context, &topic.name, &partition, may_change_factor).await;
                let mut answer = ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_message(None);
                if let Err((code, why)) = done {
                    answer.error_code = code.code();
                    answer.error_message = Some(text(why));
                }
                answered.push(answer);
            }
            response.responses.push(
                ReassignableTopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(answered),
            );
        }
        response
    })
}

async fn reassign(
    context: &Context,
    name: &TopicName,
    wanted: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<(), (ErrorCode, String)> {
    let told = |error: ControllerError| (ErrorCode::from(&error), error.to_string());
    let unknown = |what: String| (ErrorCode::UnknownTopicOrPartition, what);
    let image = context.image();
    let topic = image.topic(name);
    let topic =
        topic.ok_or_else(|| unknown(format!("Unable to find a topic named {}.", name.as_str())))?;
    let partition = wanted.partition_index;
    let current = usize::try_from(partition).ok().and_then(|index| topic.partitions.get(index));
    let current = current.ok_or_else(|| {
        unknown(format!("Unable to find partition {}:{partition}.", name.as_str()))
    })?;
    let replicas: Option<Vec<BrokerId>> =
        wanted.replicas.as_ref().map(|ids| ids.iter().map(|id| id.0).collect());
    if let Some(replicas) = replicas.as_ref().filter(|_| !may_change_factor) {
        // Before their number, as Kafka does.
        check_replicas(&image, replicas, None).map_err(told)?;
        let factor = current.replicas.len() - current.adding.len();
        if replicas.len() != factor {
            return Err(told(ControllerError::ReplicationFactor(format!(
                "The replication factor is changed from {factor} to {}",
                replicas.len()
            ))));
        }
    }
    let command = Command::Reassign { topic: topic.id, partition, replicas };
    context.controller.ask(command).await.map(drop).map_err(told)
}

pub(super) fn list(
    context: &Arc<Context>,
    call: &Call,
    request: ListPartitionReassignmentsRequest,
) -> Reply<ListPartitionReassignmentsResponse> {
    let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
    if !context.allows(call, Operation::Describe, Resource::Cluster) {
        return Reply::Now(response.with_error_code(ErrorCode::ClusterAuthorizationFailed.code()));
    }
    let image = context.image();
    let topics = match &request.topics {
        None => image.topics.values().filter_map(|topic| ongoing(topic, None)).collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|wanted| {
                ongoing(image.topic(&wanted.name)?, Some(&wanted.partition_indexes))
            })
            .collect(),
    };
    Reply::Now(response.with_topics(topics))
}

/// The moves of a topic that are under way.
fn ongoing(topic: &TopicImage, wanted: Option<&Vec<i32>>) -> Option<OngoingTopicReassignment> {
    let wanted: Option<HashSet<&i32>> = wanted.map(|wanted| wanted.iter().collect());
    let is_wanted = |index: i32| wanted.as_ref().is_none_or(|wanted| wanted.contains(&index));
    let partitions: Vec<_> = (0..)
        .zip(&topic.partitions)
        .filter(|(index, found)| {
            is_wanted(*index) && !(found.adding.is_empty() && found.removing.is_empty())
        })
        .map(|(index, found)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(broker_ids(&found.replicas))
                .with_adding_replicas(broker_ids(&found.adding))
                .with_removing_replicas(broker_ids(&found.removing))
        })
        .collect();
    (!partitions.is_empty()).then(|| {
        OngoingTopicReassignment::default()
            .with_name(TopicName(text(&*topic.name)))
            .with_partitions(partitions)
    })
}
