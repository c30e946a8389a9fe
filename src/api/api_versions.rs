//! ApiVersions: what we speak (KIP-35, KIP-511, KIP-584).

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::metadata::{LEVEL_MIN, VERSION_FEATURE, level_max};
use crate::protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::{ApiKey, SERVED, ServedApi, text};

/// `metadata.version` as Kafka numbers it: 4.0's, whose protocol this is without transactions and KIP-848.
pub(super) const METADATA_VERSION: &str = "metadata.version";
pub(super) const METADATA_VERSION_MIN: i16 = 7;
pub(super) const METADATA_VERSION_MAX: i16 = 25;

pub(super) fn handle(
    context: &Context,
    call: &Call,
    request: &ApiVersionsRequest,
) -> Reply<ApiVersionsResponse> {
    let mut response = ApiVersionsResponse::default();
    if call.version >= 3
        && !(is_name(&request.client_software_name) && is_name(&request.client_software_version))
    {
        return Reply::Now(response.with_error_code(ErrorCode::InvalidRequest.code()));
    }
    response.api_keys = SERVED.iter().map(range).collect();
    if call.version >= 3 {
        let supported = SupportedFeatureKey::default()
            .with_name(text(METADATA_VERSION))
            .with_min_version(METADATA_VERSION_MIN)
            .with_max_version(METADATA_VERSION_MAX);
        let level =
            context.image().features.get(METADATA_VERSION).copied().unwrap_or(METADATA_VERSION_MAX);
        let finalized = FinalizedFeatureKey::default()
            .with_name(text(METADATA_VERSION))
            .with_min_version_level(level)
            .with_max_version_level(level);
        let own = SupportedFeatureKey::default()
            .with_name(text(VERSION_FEATURE))
            .with_min_version(LEVEL_MIN)
            .with_max_version(level_max());
        let own_level = context.image().level();
        let own_finalized = FinalizedFeatureKey::default()
            .with_name(text(VERSION_FEATURE))
            .with_min_version_level(own_level)
            .with_max_version_level(own_level);
        response.supported_features = vec![supported, own];
        response.finalized_features = vec![finalized, own_finalized];
        response.finalized_features_epoch = 0;
    }
    Reply::Now(response)
}

/// The answer to a version that we do not know: version 0, error 35, and our own range.
pub(super) fn unsupported() -> ApiVersionsResponse {
    let own = SERVED.iter().filter(|api| api.key == ApiKey::ApiVersions).map(range).collect();
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(own)
}

fn range(api: &ServedApi) -> ApiVersion {
    let api_key = crate::protocol::key_number(api.key);
    ApiVersion::default()
        .with_api_key(api_key)
        .with_min_version(api.advertised_min)
        .with_max_version(api.max)
}

/// Letters and digits, with dots and dashes between them.
fn is_name(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}
