//! UpdateFeatures: there is one feature, `metadata.version`, at its only useful level (KIP-584).

use std::sync::Arc;

use super::api_versions::{METADATA_VERSION, METADATA_VERSION_MAX, METADATA_VERSION_MIN};
use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::protocol::messages::update_features_request::FeatureUpdateKey;
use crate::protocol::messages::update_features_response::UpdatableFeatureResult;
use crate::protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: UpdateFeaturesRequest,
) -> Reply<UpdateFeaturesResponse> {
    let mut response = UpdateFeaturesResponse::default().with_error_message(None);
    if !context.allows(call, Operation::Alter, Resource::Cluster) {
        let code = ErrorCode::ClusterAuthorizationFailed;
        return Reply::Now(
            response.with_error_code(code.code()).with_error_message(Some(text(code.text()))),
        );
    }
    let results: Vec<UpdatableFeatureResult> = request.feature_updates.iter().map(judge).collect();
    // From version 2 on the whole request fails with its first error.
    if let Some(failed) = results.iter().find(|result| result.error_code != 0)
        && call.version >= 2
    {
        response.error_code = failed.error_code;
        response.error_message.clone_from(&failed.error_message);
        return Reply::Now(response);
    }
    if call.version < 2 {
        response.results = results;
    }
    Reply::Now(response)
}

fn judge(update: &FeatureUpdateKey) -> UpdatableFeatureResult {
    let result = UpdatableFeatureResult::default()
        .with_feature(update.feature.clone())
        .with_error_message(None);
    let refuse = |message: String| {
        result
            .clone()
            .with_error_code(ErrorCode::InvalidUpdateVersion.code())
            .with_error_message(Some(text(message)))
    };
    let level = update.max_version_level;
    match update.feature.as_str() {
        METADATA_VERSION if level == METADATA_VERSION_MAX => result,
        METADATA_VERSION => refuse(format!(
            "Invalid update version {level} for feature {METADATA_VERSION}. Local controller {level} only supports \
             versions {METADATA_VERSION_MIN}-{METADATA_VERSION_MAX}, and changing the level is not supported yet"
        )),
        other => refuse(format!(
            "Invalid update version {level} for feature {other}. Local controller does not support this feature."
        )),
    }
}
