//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups, DeleteGroups.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Call, Context, NO_OPERATIONS, Reply, authorized_operations};
use crate::coordinator::{DescribedMember, GroupError, JoinRequest, Joined, SyncRequest, Synced};
use crate::error::ErrorCode;
use crate::protocol::messages::delete_groups_response::DeletableGroupResult;
use crate::protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use crate::protocol::messages::join_group_response::JoinGroupResponseMember;
use crate::protocol::messages::leave_group_request::MemberIdentity;
use crate::protocol::messages::leave_group_response::MemberResponse;
use crate::protocol::messages::list_groups_response::ListedGroup;
use crate::protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use crate::protocol::{StrBytes, text};
use crate::security::{Operation, Resource};

fn code(result: Result<(), GroupError>) -> i16 {
    result.map_or_else(|error| ErrorCode::from(&error).code(), |()| 0)
}

fn owned(value: Option<&StrBytes>) -> Option<String> {
    value.map(ToString::to_string)
}

pub(super) fn join(
    context: &Arc<Context>,
    call: &Call,
    request: JoinGroupRequest,
) -> Reply<JoinGroupResponse> {
    let version = call.version;
    let member_id = request.member_id.to_string();
    let refuse = |code: ErrorCode| {
        let mut response = JoinGroupResponse::default()
            .with_error_code(code.code())
            .with_generation_id(-1)
            .with_member_id(text(member_id.as_str()));
        response.protocol_name = (version < 7).then(|| text(""));
        Reply::Now(response)
    };
    if !context.allows(call, Operation::Read, Resource::Group(&request.group_id)) {
        return refuse(ErrorCode::GroupAuthorizationFailed);
    }
    let session_timeout_ms = request.session_timeout_ms;
    let offered = request.protocols.into_iter();
    let Some(protocols) =
        offered.map(|p| Some((p.name.to_string(), keep(call, &p.metadata)?))).collect()
    else {
        return refuse(ErrorCode::CoordinatorNotAvailable);
    };
    let asked = JoinRequest {
        group: request.group_id.to_string(),
        member_id: member_id.clone(),
        instance_id: owned(request.group_instance_id.as_ref()),
        client_id: call.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", call.address.ip().to_canonical()),
        session_timeout_ms,
        // Version 0 has one timeout for both.
        rebalance_timeout_ms: if version >= 1 {
            request.rebalance_timeout_ms
        } else {
            session_timeout_ms
        },
        protocol_type: request.protocol_type.to_string(),
        protocols,
        id_required: version >= 4,
        can_skip_assignment: version >= 9,
    };
    match context.groups.join(&asked) {
        Err(error) => refuse(ErrorCode::from(&error)),
        Ok(receiver) => {
            let groups = Arc::clone(&context.groups);
            Reply::later(async move {
                let refused =
                    |error| Joined { error: Some(error), generation: -1, ..Joined::default() };
                let told = receiver.await.unwrap_or_else(|_| refused(GroupError::Unavailable));
                match groups.still_keeps(&asked.group) {
                    Err(error) if told.error.is_none() => joined(version, refused(error)),
                    Err(_) | Ok(()) => joined(version, told),
                }
            })
        }
    }
}

fn joined(version: i16, joined: Joined) -> JoinGroupResponse {
    let member = |member: crate::coordinator::JoinedMember| {
        let id = member.instance_id.filter(|_| version >= 5);
        JoinGroupResponseMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(id.map(text))
            .with_metadata(member.metadata)
    };
    let mut response = JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| ErrorCode::from(&error).code()))
        .with_generation_id(joined.generation)
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect());
    response.protocol_name = joined.protocol.map(text).or_else(|| (version < 7).then(|| text("")));
    if version >= 7 {
        response.protocol_type = joined.protocol_type.map(text);
    }
    if version >= 9 {
        response.skip_assignment = joined.skip_assignment;
    }
    response
}

/// What a member takes besides its bytes.
const MEMBER_BYTES: usize = 1 << 10;

/// A copy for a group to keep, which is counted until it lets it go: it must not keep the whole request. `None`: there is no room.
fn keep(call: &Call, bytes: &Bytes) -> Option<Bytes> {
    let grant = call.kept.keep(MEMBER_BYTES + bytes.len())?;
    Some(grant.count(Bytes::copy_from_slice(bytes)))
}

pub(super) fn sync(
    context: &Arc<Context>,
    call: &Call,
    request: SyncGroupRequest,
) -> Reply<SyncGroupResponse> {
    let version = call.version;
    let refuse = |code: ErrorCode| SyncGroupResponse::default().with_error_code(code.code());
    if !context.allows(call, Operation::Read, Resource::Group(&request.group_id)) {
        return Reply::Now(refuse(ErrorCode::GroupAuthorizationFailed));
    }
    let protocol = (owned(request.protocol_type.as_ref()), owned(request.protocol_name.as_ref()));
    let given = request.assignments.into_iter();
    let Some(assignments) =
        given.map(|a| Some((a.member_id.to_string(), keep(call, &a.assignment)?))).collect()
    else {
        return Reply::Now(refuse(ErrorCode::CoordinatorNotAvailable));
    };
    let asked = SyncRequest {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id.as_ref()),
        protocol: (version >= 5).then_some(protocol),
        assignments,
    };
    match context.groups.sync(&asked) {
        Err(error) => Reply::Now(refuse(ErrorCode::from(&error))),
        Ok(receiver) => {
            let groups = Arc::clone(&context.groups);
            Reply::later(async move {
                let told = receiver.await.unwrap_or(Err(GroupError::Unavailable));
                synced(
                    version,
                    told.and_then(|told| groups.still_keeps(&asked.group).map(|()| told)),
                )
            })
        }
    }
}

fn synced(version: i16, told: Result<Synced, GroupError>) -> SyncGroupResponse {
    match told {
        Ok(Synced { protocol_type, protocol, assignment }) => {
            let response = SyncGroupResponse::default().with_assignment(assignment);
            if version < 5 {
                return response;
            }
            response
                .with_protocol_type(protocol_type.map(text))
                .with_protocol_name(protocol.map(text))
        }
        Err(error) => SyncGroupResponse::default().with_error_code(ErrorCode::from(&error).code()),
    }
}

pub(super) fn heartbeat(
    context: &Arc<Context>,
    call: &Call,
    request: &HeartbeatRequest,
) -> Reply<HeartbeatResponse> {
    let group = request.group_id.as_str();
    if !context.allows(call, Operation::Read, Resource::Group(group)) {
        let code = ErrorCode::GroupAuthorizationFailed.code();
        return Reply::Now(HeartbeatResponse::default().with_error_code(code));
    }
    let instance_id = request.group_instance_id.as_deref();
    let result =
        context.groups.heartbeat(group, &request.member_id, instance_id, request.generation_id);
    Reply::Now(HeartbeatResponse::default().with_error_code(code(result)))
}

pub(super) fn leave(
    context: &Arc<Context>,
    call: &Call,
    request: LeaveGroupRequest,
) -> Reply<LeaveGroupResponse> {
    let group = request.group_id.as_str();
    if !context.allows(call, Operation::Read, Resource::Group(group)) {
        let code = ErrorCode::GroupAuthorizationFailed.code();
        return Reply::Now(LeaveGroupResponse::default().with_error_code(code));
    }
    if call.version < 3 {
        let result = context.groups.leave(group, &request.member_id, None);
        return Reply::Now(LeaveGroupResponse::default().with_error_code(code(result)));
    }
    if group.is_empty() {
        let code = ErrorCode::InvalidGroupId.code();
        return Reply::Now(LeaveGroupResponse::default().with_error_code(code));
    }
    let leave = |member: &MemberIdentity| {
        let result =
            context.groups.leave(group, &member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(result))
    };
    Reply::Now(
        LeaveGroupResponse::default().with_members(request.members.iter().map(leave).collect()),
    )
}

pub(super) fn describe(
    context: &Arc<Context>,
    call: &Call,
    request: &DescribeGroupsRequest,
) -> Reply<DescribeGroupsResponse> {
    let describe = |id: &GroupId| {
        let mut group = DescribedGroup::default()
            .with_group_id(id.clone())
            .with_authorized_operations(NO_OPERATIONS);
        if !context.allows(call, Operation::Describe, Resource::Group(id)) {
            return group.with_error_code(ErrorCode::GroupAuthorizationFailed.code());
        }
        if call.version >= 3 && request.include_authorized_operations {
            group.authorized_operations = authorized_operations(context, call, Resource::Group(id));
        }
        match context.groups.describe(id) {
            Ok(Some(found)) => group
                .with_group_state(text(found.state.name()))
                .with_protocol_type(text(found.protocol_type))
                .with_protocol_data(text(found.protocol))
                .with_members(
                    found.members.into_iter().map(|m| described(call.version, m)).collect(),
                ),
            Ok(None) => {
                let group = group.with_group_state(text("Dead"));
                if call.version < 6 {
                    return group;
                }
                let message = format!("Group {} not found.", id.as_str());
                group
                    .with_error_code(ErrorCode::GroupIdNotFound.code())
                    .with_error_message(Some(text(message)))
            }
            Err(error) => group.with_error_code(ErrorCode::from(&error).code()),
        }
    };
    Reply::Now(
        DescribeGroupsResponse::default()
            .with_groups(request.groups.iter().map(describe).collect()),
    )
}

fn described(version: i16, member: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(member.id))
        .with_group_instance_id(member.instance_id.filter(|_| version >= 4).map(text))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

pub(super) fn list(
    context: &Arc<Context>,
    call: &Call,
    request: &ListGroupsRequest,
) -> Reply<ListGroupsResponse> {
    const CLASSIC: &str = "classic";
    let groups = match context.groups.list() {
        Ok(groups) => groups,
        Err(error) => {
            let code = ErrorCode::from(&error).code();
            return Reply::Now(ListGroupsResponse::default().with_error_code(code));
        }
    };
    let lower = |filter: &[StrBytes]| -> HashSet<String> {
        filter.iter().map(|wanted| wanted.to_ascii_lowercase()).collect()
    };
    let (states, types) = (lower(&request.states_filter), lower(&request.types_filter));
    let matches = |filter: &HashSet<String>, value: &str| {
        filter.is_empty() || filter.contains(&value.to_ascii_lowercase())
    };
    let shown = groups.into_iter().filter(|group| {
        matches(&states, group.state.name())
            && matches(&types, CLASSIC)
            && context.allows(call, Operation::Describe, Resource::Group(&group.id))
    });
    let list = |group: crate::coordinator::ListedGroup| {
        let mut listed = ListedGroup::default()
            .with_group_id(GroupId(text(group.id)))
            .with_protocol_type(text(group.protocol_type));
        if call.version >= 4 {
            listed.group_state = text(group.state.name());
        }
        if call.version >= 5 {
            listed.group_type = text(CLASSIC);
        }
        listed
    };
    Reply::Now(ListGroupsResponse::default().with_groups(shown.map(list).collect()))
}

pub(super) fn delete(
    context: &Arc<Context>,
    call: &Call,
    request: DeleteGroupsRequest,
) -> Reply<DeleteGroupsResponse> {
    let mut pending = Vec::new();
    for id in request.groups_names {
        let begun = if context.allows(call, Operation::Delete, Resource::Group(&id)) {
            context.groups.delete(&id).map_err(|error| ErrorCode::from(&error))
        } else {
            Err(ErrorCode::GroupAuthorizationFailed)
        };
        pending.push((id, begun));
    }
    Reply::later(async move {
        let mut results = Vec::new();
        for (id, begun) in pending {
            let code = match begun {
                Ok(done) => code(done.await),
                Err(code) => code.code(),
            };
            results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
        }
        DeleteGroupsResponse::default().with_results(results)
    })
}
