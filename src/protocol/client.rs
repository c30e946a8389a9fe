//! The other direction: requests to bytes and responses from bytes, for the command line.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

use super::table::codec_version;
use super::text;
use crate::model::number::to_i32;

/// Encodes a request with its length and header.
pub(crate) fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    request: &R,
) -> anyhow::Result<BytesMut> {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text("strandline")));
    header.encode(&mut out, R::header_version(version))?;
    request.encode(&mut out, codec_version(R::KEY, version))?;
    let length = to_i32(out.len() - 4);
    if let Some(front) = out.get_mut(..4) {
        front.copy_from_slice(&length.to_be_bytes());
    }
    Ok(out)
}

/// Decodes a response; an error if it answers another request.
pub(crate) fn decode_response<R: Request>(
    version: i16,
    correlation_id: i32,
    mut frame: Bytes,
) -> anyhow::Result<R::Response> {
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version))?;
    anyhow::ensure!(
        header.correlation_id == correlation_id,
        "the answer belongs to another request"
    );
    R::Response::decode(&mut frame, codec_version(R::KEY, version))
}
