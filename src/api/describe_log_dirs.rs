//! DescribeLogDirs: what lies where, how large, how much room (KIP-113, KIP-827).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::model::number::to_i64;
use crate::protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use crate::protocol::text;
use crate::replication::{LogDirectory, Replicas};
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DescribeLogDirsRequest,
) -> Reply<DescribeLogDirsResponse> {
    if !context.allows(call, Operation::Describe, Resource::Cluster) {
        let mut refused = DescribeLogDirsResponse::default();
        if call.version >= 3 {
            refused.error_code = ErrorCode::ClusterAuthorizationFailed.code();
        }
        return Reply::Now(refused);
    }
    let (context, version) = (Arc::clone(context), call.version);
    Reply::blocking(move || {
        let directories = context.replicas.directories();
        let results =
            directories.iter().map(|d| describe(&context.replicas, d, &request, version)).collect();
        DescribeLogDirsResponse::default().with_results(results)
    })
}

fn describe(
    replicas: &Replicas,
    directory: &Arc<LogDirectory>,
    request: &DescribeLogDirsRequest,
    version: i16,
) -> DescribeLogDirsResult {
    let result =
        DescribeLogDirsResult::default().with_log_dir(text(directory.path.display().to_string()));
    if directory.is_offline() {
        return result.with_error_code(ErrorCode::KafkaStorageError.code());
    }
    let named = request.topics.as_ref().map(|topics| {
        let mut named: HashMap<&str, HashSet<i32>> = HashMap::new();
        for topic in topics {
            named.entry(&topic.topic).or_default().extend(&topic.partitions);
        }
        named
    });
    let is_wanted = |topic: &str, partition: i32| {
        let Some(named) = &named else { return true };
        named.get(topic).is_some_and(|partitions| partitions.contains(&partition))
    };
    let mut topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in directory.partitions() {
        let name = &partition.name;
        if !is_wanted(&name.topic, name.partition) {
            continue;
        }
        let Some(bytes) = partition.with_log(crate::log::Log::bytes) else { continue };
        let described = DescribeLogDirsPartition::default()
            .with_partition_index(name.partition)
            .with_partition_size(to_i64(bytes));
        topics.entry(Arc::clone(&name.topic)).or_default().push(described);
    }
    for (name, moving) in replicas.moving_to(directory) {
        if !is_wanted(&name.topic, name.partition) {
            continue;
        }
        let end = replicas.partition(&name).and_then(|p| p.with_log(crate::log::Log::log_end));
        let copied = moving.end.load(Ordering::Relaxed);
        let described = DescribeLogDirsPartition::default()
            .with_partition_index(name.partition)
            .with_partition_size(to_i64(moving.bytes.load(Ordering::Relaxed)))
            .with_offset_lag(end.map_or(0, |end| end - copied))
            .with_is_future_key(true);
        topics.entry(Arc::clone(&name.topic)).or_default().push(described);
    }
    let topic = |(name, partitions): (Arc<str>, Vec<DescribeLogDirsPartition>)| {
        DescribeLogDirsTopic::default()
            .with_name(TopicName(text(&*name)))
            .with_partitions(partitions)
    };
    let result = result.with_topics(topics.into_iter().map(topic).collect());
    if version < 4 {
        return result;
    }
    let space = directory.space();
    result
        .with_total_bytes(space.map_or(-1, |space| to_i64(space.total)))
        .with_usable_bytes(space.map_or(-1, |space| to_i64(space.usable)))
}
