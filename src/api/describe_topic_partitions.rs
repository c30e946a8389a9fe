//! DescribeTopicPartitions: topics page by page (KIP-966).

use std::sync::Arc;

use super::{Call, Context, Reply, authorized_operations, broker_ids, is_internal};
use crate::error::ErrorCode;
use crate::metadata::TopicImage;
use crate::model::number::{to_i32, to_usize};
use crate::protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use crate::protocol::text;
use crate::security::{Operation, Resource};

/// Most partitions in one answer, whatever is asked for (Kafka's `max.request.partition.size.limit`).
const PARTITIONS_MAX: usize = 2000;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> Reply<DescribeTopicPartitionsResponse> {
    let image = context.image();
    let mut names: Vec<String> = if request.topics.is_empty() {
        image.topics.keys().map(ToString::to_string).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let (first, mut skip) = request
        .cursor
        .map_or((String::new(), 0), |c| (c.topic_name.to_string(), to_usize(c.partition_index)));
    let mut left = to_usize(request.response_partition_limit).clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.into_iter().filter(|name| *name >= first) {
        if left == 0 {
            response.next_cursor = Some(Cursor::default().with_topic_name(TopicName(text(name))));
            break;
        }
        if name != first {
            skip = 0;
        }
        let found = image.topic(&name);
        let is_allowed = context.allows(call, Operation::Describe, Resource::Topic(&name));
        let Some(topic) = found.filter(|_| is_allowed) else {
            let code = if is_allowed {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::TopicAuthorizationFailed
            };
            let unknown = DescribeTopicPartitionsResponseTopic::default()
                .with_error_code(code.code())
                .with_name(Some(TopicName(text(name))));
            response.topics.push(unknown);
            continue;
        };
        let all = topic.partitions.len();
        let end = all.min(skip + left);
        response.topics.push(describe(context, call, topic, skip..end));
        left -= end.saturating_sub(skip);
        if end < all {
            let cursor = Cursor::default()
                .with_topic_name(TopicName(text(name)))
                .with_partition_index(to_i32(end));
            response.next_cursor = Some(cursor);
            break;
        }
    }
    Reply::Now(response)
}

fn describe(
    context: &Context,
    call: &Call,
    topic: &TopicImage,
    range: std::ops::Range<usize>,
) -> DescribeTopicPartitionsResponseTopic {
    let image = context.image();
    let partitions = range.filter_map(|index| {
        let found = topic.partitions.get(index)?;
        let index = to_i32(index);
        let shown = context.shown(&image, &topic.name, index, found);
        Some(
            DescribeTopicPartitionsResponsePartition::default()
                .with_error_code(shown.code.code())
                .with_partition_index(index)
                .with_leader_id(BrokerId(shown.leader))
                .with_leader_epoch(found.leader_epoch)
                .with_replica_nodes(broker_ids(&found.replicas))
                .with_isr_nodes(broker_ids(&found.isr))
                .with_eligible_leader_replicas(Some(broker_ids(&found.elr)))
                .with_last_known_elr(Some(Vec::new()))
                .with_offline_replicas(broker_ids(&shown.offline)),
        )
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(&*topic.name))))
        .with_topic_id(topic.id)
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(authorized_operations(
            context,
            call,
            Resource::Topic(&topic.name),
        ))
}
