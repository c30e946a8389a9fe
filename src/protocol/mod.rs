//! Requests and responses as bytes: bounds, headers, versions.
//!
//! Invariants: the only user of the `kafka-protocol` crate's codecs; no request reaches a decoder before its every
//! length and count was checked against the bytes that arrived; one table says which versions are served.
//! Absent: sockets, meaning.

mod client;
mod fetch_response;
mod frame;
#[cfg(any(test, feature = "internals"))]
mod samples;
mod shapes;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use client::{decode_response, encode_request};
pub(crate) use fetch_response::{
    FetchNode, FetchedPartition, FetchedRecords, FetchedTopic, encode_fetch,
};
pub(crate) use frame::{DecodeError, RequestHead, decode, decode_counted, encode, parse_head};
pub(crate) use kafka_protocol::messages;
pub(crate) use kafka_protocol::messages::ApiKey;
pub(crate) use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
#[cfg(any(test, feature = "internals"))]
pub(crate) use samples::decode_any;
#[cfg(test)]
pub(crate) use samples::sample_frames;
#[cfg(test)]
pub(crate) use table::reference_page;
pub(crate) use table::{SERVED, ServedApi, key_number, turn_of};

/// A `StrBytes` of any string.
pub(crate) fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}
