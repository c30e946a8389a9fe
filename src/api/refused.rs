//! APIs that are answered with why they do nothing here, in words that end a client's call at once.
//!
//! Invariants: as Apache Kafka answers where it is set up without the feature: ACLs without an authorizer, and groups with the
//! classic protocol only. Absent: features.

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::protocol::messages::create_acls_response::AclCreationResult;
use crate::protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use crate::protocol::messages::{
    ConsumerGroupHeartbeatResponse, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest,
    DeleteAclsResponse, DescribeAclsResponse,
};
use crate::protocol::text;
use crate::security::{Operation, Resource};

const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub(super) fn describe_acls(context: &Context, call: &Call) -> Reply<DescribeAclsResponse> {
    let (code, message) = match acls(context, call, Operation::Describe) {
        ErrorCode::SecurityDisabled => {
            (ErrorCode::SecurityDisabled, "No Authorizer is configured on the broker")
        }
        other => (other, other.text()),
    };
    let response = DescribeAclsResponse::default().with_error_code(code.code());
    Reply::Now(response.with_error_message(Some(text(message))))
}

pub(super) fn create_acls(
    context: &Context,
    call: &Call,
    request: &CreateAclsRequest,
) -> Reply<CreateAclsResponse> {
    let code = acls(context, call, Operation::Alter);
    let refused = AclCreationResult::default()
        .with_error_code(code.code())
        .with_error_message(Some(text(told(code))));
    let results = vec![refused; request.creations.len()];
    Reply::Now(CreateAclsResponse::default().with_results(results))
}

pub(super) fn delete_acls(
    context: &Context,
    call: &Call,
    request: &DeleteAclsRequest,
) -> Reply<DeleteAclsResponse> {
    let code = acls(context, call, Operation::Alter);
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(code.code())
        .with_error_message(Some(text(told(code))));
    let results = vec![refused; request.filters.len()];
    Reply::Now(DeleteAclsResponse::default().with_filter_results(results))
}

fn acls(context: &Context, call: &Call, operation: Operation) -> ErrorCode {
    if context.allows(call, operation, Resource::Cluster) {
        ErrorCode::SecurityDisabled
    } else {
        ErrorCode::ClusterAuthorizationFailed
    }
}

fn told(code: ErrorCode) -> &'static str {
    if code == ErrorCode::SecurityDisabled { NO_AUTHORIZER } else { code.text() }
}

/// A consumer with `group.protocol=consumer`. Some would wait for ever for an API that is absent.
pub(super) fn consumer_group_heartbeat() -> Reply<ConsumerGroupHeartbeatResponse> {
    let why = "This broker has the classic group protocol only: set group.protocol=classic.";
    let response = ConsumerGroupHeartbeatResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code());
    Reply::Now(response.with_error_message(Some(text(why))))
}
