//! A frame's header and body, and the response's bytes.
//!
//! Invariants: a frame under eight bytes is refused before the crate sees it; a body is walked by its shape first;
//! an error here means the connection is closed, but for ApiVersions of a version we do not know.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::shapes;
use super::table::{codec_version, key_number, served};
use crate::model::number::{be16, be32, to_i32};

/// Key, version, correlation id.
const SMALLEST_HEADER_BYTES: usize = 8;

/// Why a frame can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("frame of {0} bytes is too short for a request header")]
    TooShort(usize),
    #[error("{}", not_served(*.key, *.version, .client_id.as_deref()))]
    NotServed { key: i16, version: i16, client_id: Option<String> },
    #[error("malformed request of API key {key} version {version}: {why}")]
    Malformed { key: i16, version: i16, why: String },
}

impl DecodeError {
    /// Whether the client asks for something that exists, only not here.
    pub(crate) fn is_not_served(&self) -> bool {
        matches!(self, DecodeError::NotServed { .. })
    }
}

/// What an operator needs to know of a client that asks in vain.
fn not_served(key: i16, version: i16, client_id: Option<&str>) -> String {
    let client = client_id.unwrap_or_default();
    let name = ApiKey::try_from(key)
        .map_or_else(|()| "an unknown API".to_owned(), |key| format!("{key:?}"));
    let served = match served(key) {
        Some(api) => format!("{} to {} are served", api.advertised_min, api.max),
        None => "this API is not served".to_owned(),
    };
    format!("client {client:?} asks for {name} (key {key}) in version {version}: {served}")
}

/// The header of a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
    /// ApiVersions newer than ours: answered with version 0 and error 35 (KIP-511).
    pub is_future_api_versions: bool,
}

/// Reads the header and leaves the body in `frame`.
pub(crate) fn parse_head(frame: &mut Bytes) -> Result<RequestHead, DecodeError> {
    if frame.len() < SMALLEST_HEADER_BYTES {
        return Err(DecodeError::TooShort(frame.len()));
    }
    let (key_number, version, correlation_id) = (be16(frame, 0), be16(frame, 2), be32(frame, 4));
    let not_served = |frame: &[u8]| DecodeError::NotServed {
        key: key_number,
        version,
        client_id: client_id(frame),
    };
    let api = served(key_number).ok_or_else(|| not_served(frame))?;
    let is_known = (api.min..=api.max).contains(&version);
    let key = api.key;
    if !is_known && key == ApiKey::ApiVersions && version > 0 {
        let client_id = None;
        return Ok(RequestHead {
            key,
            version,
            correlation_id,
            client_id,
            is_future_api_versions: true,
        });
    }
    if !is_known {
        return Err(not_served(frame));
    }
    let malformed = |why: String| DecodeError::Malformed { key: key_number, version, why };
    check_head(frame, key.request_header_version(version))
        .map_err(|why| malformed(why.to_owned()))?;
    let header = RequestHeader::decode(frame, key.request_header_version(version))
        .map_err(|error| malformed(error.to_string()))?;
    Ok(RequestHead {
        key,
        version,
        correlation_id,
        client_id: header.client_id.map(|id| id.to_string()),
        is_future_api_versions: false,
    })
}

/// The client id, which all versions of the header but the first have in the same place.
fn client_id(frame: &[u8]) -> Option<String> {
    let end = 10 + usize::try_from(be16(frame, 8)).ok()?;
    Some(String::from_utf8_lossy(frame.get(10..end)?).into_owned())
}

/// Bounds of the client id and of the header's tagged fields.
fn check_head(frame: &[u8], header_version: i16) -> Result<(), &'static str> {
    let length = be16(frame, 8);
    let start = 10 + usize::try_from(length).unwrap_or(0);
    if frame.len() < start || length < -1 {
        return Err("client id is cut");
    }
    if std::str::from_utf8(frame.get(10..start).unwrap_or_default()).is_err() {
        return Err("client id is not UTF-8");
    }
    if header_version < 2 {
        return Ok(());
    }
    // Clients send no tagged fields in the header; a few are allowed, never enough to matter.
    match frame.get(start) {
        None => Err("tagged fields are cut"),
        Some(0..=16) => Ok(()),
        Some(_) => Err("too many tagged fields in the header"),
    }
}

/// Decodes a body that `parse_head` left.
pub(crate) fn decode<R: Decodable>(head: &RequestHead, body: &mut Bytes) -> Result<R, DecodeError> {
    decode_counted(head, body).map(|(request, _)| request)
}

/// The same, and how many bytes its elements take besides those of the frame.
pub(crate) fn decode_counted<R: Decodable>(
    head: &RequestHead,
    body: &mut Bytes,
) -> Result<(R, usize), DecodeError> {
    let key = key_number(head.key);
    let malformed = |why: String| DecodeError::Malformed { key, version: head.version, why };
    let version = codec_version(key, head.version);
    let (bytes, left) =
        shapes::check(key, version, body).map_err(|why| malformed(why.to_owned()))?;
    let request = R::decode(body, version).map_err(|error| malformed(error.to_string()))?;
    if body.len() != left {
        return Err(malformed("it can be read in two ways".to_owned()));
    }
    Ok((request, bytes))
}

/// Encodes a response with its length and header.
pub(crate) fn encode<R: Encodable>(
    head: &RequestHead,
    response: &R,
) -> Result<BytesMut, DecodeError> {
    let version = codec_version(key_number(head.key), head.version);
    let version = if head.is_future_api_versions { 0 } else { version };
    let failed = |error: anyhow::Error| DecodeError::Malformed {
        key: key_number(head.key),
        version,
        why: format!("response can't be encoded: {error}"),
    };
    let header_version = head.key.response_header_version(version);
    let header = ResponseHeader::default().with_correlation_id(head.correlation_id);
    let size = header.compute_size(header_version).map_err(failed)?
        + response.compute_size(version).map_err(failed)?;
    let mut out = BytesMut::with_capacity(4 + size);
    out.put_i32(to_i32(size));
    header.encode(&mut out, header_version).map_err(failed)?;
    response.encode(&mut out, version).map_err(failed)?;
    Ok(out)
}
