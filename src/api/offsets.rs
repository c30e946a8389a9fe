//! OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::coordinator::{CommitRequest, CommittedOffset, GroupError, commit_bytes};
use crate::error::ErrorCode;
use crate::protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;
use crate::protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn commit(
    context: &Arc<Context>,
    call: &Call,
    request: OffsetCommitRequest,
) -> Reply<OffsetCommitResponse> {
    let mut asked = CommitRequest {
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        generation: request.generation_id_or_member_epoch,
        retention_ms: Some(request.retention_time_ms).filter(|ms| *ms != -1),
        ..CommitRequest::default()
    };
    let is_allowed = context.allows(call, Operation::Read, Resource::Group(&asked.group));
    let mut codes: Vec<Vec<(i32, ErrorCode)>> = Vec::new();
    for topic in &request.topics {
        let may_read = context.allows(call, Operation::Read, Resource::Topic(&topic.name));
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let metadata =
                partition.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
            let code = if !is_allowed {
                ErrorCode::GroupAuthorizationFailed
            } else if !may_read {
                ErrorCode::TopicAuthorizationFailed
            } else if !context.exists(&topic.name, partition.partition_index) {
                ErrorCode::UnknownTopicOrPartition
            } else if metadata.len() > context.groups.metadata_bytes_max() {
                ErrorCode::OffsetMetadataTooLarge
            } else {
                let (offset, epoch) =
                    (partition.committed_offset, partition.committed_leader_epoch);
                let topic = topic.name.to_string();
                asked.offsets.push((topic, partition.partition_index, offset, epoch, metadata));
                ErrorCode::None
            };
            partitions.push((partition.partition_index, code));
        }
        codes.push(partitions);
    }
    let names: Vec<TopicName> = request.topics.into_iter().map(|topic| topic.name).collect();
    let version = call.version;
    if !is_allowed {
        return Reply::Now(committed(names, codes, ErrorCode::None));
    }
    let notes = asked.offsets.iter();
    asked.kept =
        call.kept.keep(notes.map(|(topic, _, _, _, note)| commit_bytes(topic, note)).sum());
    if asked.kept.is_none() && !has_committed(context, &asked) {
        return Reply::Now(committed(names, codes, ErrorCode::CoordinatorNotAvailable));
    }
    let begun = context.groups.commit(asked).map_err(|e| refusal(e, version));
    match begun {
        Ok(done) => Reply::later(async move {
            let failed = done.await.err().map_or(ErrorCode::None, |error| refusal(error, version));
            committed(names, codes, failed)
        }),
        Err(code) => Reply::Now(committed(names, codes, code)),
    }
}

/// Whether a group has committed for all these partitions: then it needs no more memory.
fn has_committed(context: &Context, asked: &CommitRequest) -> bool {
    let Ok(before) = context.groups.offsets(&asked.group) else { return false };
    let before: HashSet<_> = before.into_iter().map(|(key, _)| key).collect();
    let mut wanted = asked.offsets.iter().map(|(topic, partition, ..)| (topic.clone(), *partition));
    wanted.all(|key| before.contains(&key))
}

/// Before version 9 a missing group was told as a wrong generation.
fn refusal(error: GroupError, version: i16) -> ErrorCode {
    if error == GroupError::NotFound && version < 9 {
        ErrorCode::IllegalGeneration
    } else {
        ErrorCode::from(&error)
    }
}

fn committed(
    names: Vec<TopicName>,
    codes: Vec<Vec<(i32, ErrorCode)>>,
    failed: ErrorCode,
) -> OffsetCommitResponse {
    let topic = |(name, partitions): (TopicName, Vec<(i32, ErrorCode)>)| {
        let partition = |(index, code): (i32, ErrorCode)| {
            let code = if code.is_none() { failed } else { code };
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.code())
        };
        OffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.into_iter().map(partition).collect())
    };
    OffsetCommitResponse::default().with_topics(names.into_iter().zip(codes).map(topic).collect())
}

type Known = HashMap<(String, i32), CommittedOffset>;

pub(super) fn fetch(
    context: &Arc<Context>,
    call: &Call,
    request: OffsetFetchRequest,
) -> Reply<OffsetFetchResponse> {
    if call.version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            match known(context, call, &group.group_id) {
                Ok(known) => answer.with_topics(topics(context, call, known, group.topics)),
                Err(code) => answer.with_error_code(code.code()),
            }
        });
        return Reply::Now(OffsetFetchResponse::default().with_groups(groups.collect()));
    }
    let wanted = request.topics.map(|topics| {
        let convert =
            |topic: crate::protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                OffsetFetchRequestTopics::default()
                    .with_name(topic.name)
                    .with_partition_indexes(topic.partition_indexes)
            };
        topics.into_iter().map(convert).collect::<Vec<_>>()
    });
    let (found, code) = match known(context, call, &request.group_id) {
        Ok(known) => (topics(context, call, known, wanted), ErrorCode::None),
        // Version 1 has no place for an error but beside each partition.
        Err(code) => {
            let mut found = topics(context, call, Known::new(), wanted);
            found
                .iter_mut()
                .flat_map(|t| &mut t.partitions)
                .for_each(|p| p.error_code = code.code());
            (found, code)
        }
    };
    let mut response = OffsetFetchResponse::default()
        .with_topics(found.into_iter().map(|topic| older(call.version, topic)).collect());
    if call.version >= 2 {
        response.error_code = code.code();
    }
    Reply::Now(response)
}

fn known(context: &Context, call: &Call, group: &str) -> Result<Known, ErrorCode> {
    if !context.allows(call, Operation::Describe, Resource::Group(group)) {
        return Err(ErrorCode::GroupAuthorizationFailed);
    }
    match context.groups.offsets(group) {
        Ok(offsets) => Ok(offsets.into_iter().collect()),
        // The topic of the groups is not there yet, so nobody has committed anything.
        Err(GroupError::Unavailable) if context.groups.is_new() && context.groups.may_answer() => {
            Ok(Known::new())
        }
        Err(error) => Err(ErrorCode::from(&error)),
    }
}

/// The wanted offsets, or all of them.
fn topics(
    context: &Context,
    call: &Call,
    mut known: Known,
    wanted: Option<Vec<OffsetFetchRequestTopics>>,
) -> Vec<OffsetFetchResponseTopics> {
    let none = |index: i32| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(text("")))
    };
    let some = |index: i32, committed: CommittedOffset| {
        none(index)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(committed.metadata)))
    };
    if let Some(wanted) = wanted {
        let topic = |topic: OffsetFetchRequestTopics| {
            let may_describe =
                context.allows(call, Operation::Describe, Resource::Topic(&topic.name));
            let partition = |index: &i32| {
                if !may_describe {
                    return none(*index)
                        .with_error_code(ErrorCode::TopicAuthorizationFailed.code());
                }
                let found = known.remove(&(topic.name.to_string(), *index));
                found.map_or_else(|| none(*index), |committed| some(*index, committed))
            };
            let partitions = topic.partition_indexes.iter().map(partition).collect();
            OffsetFetchResponseTopics::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions)
        };
        return wanted.into_iter().map(topic).collect();
    }
    let mut all: Vec<((String, i32), CommittedOffset)> = known.into_iter().collect();
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for ((name, index), committed) in all {
        if !context.allows(call, Operation::Describe, Resource::Topic(&name)) {
            continue;
        }
        if topics.last().is_none_or(|topic| topic.name.as_str() != name) {
            topics.push(OffsetFetchResponseTopics::default().with_name(TopicName(text(name))));
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(some(index, committed));
        }
    }
    topics
}

/// The same in the form before version 8.
fn older(version: i16, topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |p: OffsetFetchResponsePartitions| {
        let older = OffsetFetchResponsePartition::default()
            .with_partition_index(p.partition_index)
            .with_committed_offset(p.committed_offset)
            .with_metadata(p.metadata)
            .with_error_code(p.error_code);
        if version >= 5 {
            older.with_committed_leader_epoch(p.committed_leader_epoch)
        } else {
            older
        }
    };
    OffsetFetchResponseTopic::default()
        .with_name(topic.name)
        .with_partitions(topic.partitions.into_iter().map(partition).collect())
}

pub(super) fn delete(
    context: &Arc<Context>,
    call: &Call,
    request: OffsetDeleteRequest,
) -> Reply<OffsetDeleteResponse> {
    let refuse =
        |code: ErrorCode| Reply::Now(OffsetDeleteResponse::default().with_error_code(code.code()));
    if !context.allows(call, Operation::Delete, Resource::Group(&request.group_id)) {
        return refuse(ErrorCode::GroupAuthorizationFailed);
    }
    let mut keys = Vec::new();
    for topic in &request.topics {
        keys.extend(
            topic
                .partitions
                .iter()
                .map(|partition| (topic.name.to_string(), partition.partition_index)),
        );
    }
    let (verdicts, done) = match context.groups.delete_offsets(&request.group_id, &keys) {
        Ok(begun) => begun,
        Err(error) => return refuse(ErrorCode::from(&error)),
    };
    let exists: Vec<bool> =
        keys.iter().map(|(topic, partition)| context.exists(topic, *partition)).collect();
    Reply::later(async move {
        if !done.await {
            return OffsetDeleteResponse::default()
                .with_error_code(ErrorCode::CoordinatorNotAvailable.code());
        }
        let mut codes = verdicts.into_iter().zip(exists).map(|(verdict, exists)| match verdict {
            _ if !exists => ErrorCode::UnknownTopicOrPartition,
            Ok(()) => ErrorCode::None,
            Err(error) => ErrorCode::from(&error),
        });
        let mut topics = Vec::new();
        for topic in request.topics {
            let partition = |p: &crate::protocol::messages::offset_delete_request::OffsetDeleteRequestPartition| {
                let code = codes.next().unwrap_or(ErrorCode::None);
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code.code())
            };
            let partitions = topic.partitions.iter().map(partition).collect();
            topics.push(
                OffsetDeleteResponseTopic::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        OffsetDeleteResponse::default().with_topics(topics)
    })
}
