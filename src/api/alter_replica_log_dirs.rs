//! AlterReplicaLogDirs (KIP-113): replicas go to other log directories of this broker.

use std::path::Path;
use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::model::TopicPartition;
use crate::protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use crate::protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: AlterReplicaLogDirsRequest,
) -> Reply<AlterReplicaLogDirsResponse> {
    let is_allowed = context.allows(call, Operation::Alter, Resource::Cluster);
    let mut results = Vec::new();
    for directory in request.dirs {
        for topic in directory.topics {
            let mut answered = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let name = TopicPartition { topic: topic.name.as_str().into(), partition };
                let code = if is_allowed {
                    begin(context, &name, Path::new(directory.path.as_str()))
                } else {
                    ErrorCode::ClusterAuthorizationFailed
                };
                let result = AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(partition)
                    .with_error_code(code.code());
                answered.push(result);
            }
            let result = AlterReplicaLogDirTopicResult::default()
                .with_topic_name(topic.name)
                .with_partitions(answered);
            results.push(result);
        }
    }
    Reply::Now(AlterReplicaLogDirsResponse::default().with_results(results))
}

fn begin(context: &Context, name: &TopicPartition, path: &Path) -> ErrorCode {
    let Some(topic) = context.replicas.topic(&name.topic).map(|topic| topic.id) else {
        return context.elsewhere(&name.topic, name.partition);
    };
    let (controller, partition) = (Arc::clone(&context.controller), name.partition);
    let done = move || controller.show_again(topic, partition);
    match context.replicas.move_replica(name, path, done) {
        Ok(()) => ErrorCode::None,
        Err(error) => ErrorCode::from(&error),
    }
}
