//! Walking the records of a batch, with nothing copied.
//!
//! Invariants: every length is checked against what is left; offsets are added with overflow checks; timestamps
//! wrap, as in Kafka.

use std::borrow::Cow;

use super::batch::{BatchHeader, HEADER_BYTES};
use super::compress::{Codec, CompressError, decompress};
use super::varint::{take_varint, take_varlong};
use crate::model::number::to_usize;
use crate::model::{Offset, Timestamp};

/// Why records can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("record {index} is cut or malformed")]
    Malformed { index: i32 },
    #[error("record {index} of the batch {what}")]
    Wrong { index: i32, what: &'static str },
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// The records of one batch, decompressed if need be.
#[derive(Debug)]
pub struct Records<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
}

/// One record; the slices point into the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Header count, then the headers, as they stand on the wire.
    pub headers: &'a [u8],
}

impl<'a> Records<'a> {
    /// Opens a whole batch; decompression yields at most `bytes_max` bytes.
    pub fn open(
        header: BatchHeader,
        batch: &'a [u8],
        bytes_max: usize,
    ) -> Result<Self, RecordError> {
        let body = batch.get(HEADER_BYTES..).unwrap_or_default();
        let body = match Codec::from_bits(header.codec_bits())? {
            Codec::None => Cow::Borrowed(body),
            codec => Cow::Owned(decompress(codec, body, bytes_max)?),
        };
        Ok(Self { header, body })
    }

    /// The records in order; after an error nothing follows.
    pub fn iter(&self) -> Iter<'_> {
        Iter { header: self.header, rest: &self.body, index: 0 }
    }

    /// Bytes of the records when they are not compressed.
    pub fn plain_bytes(&self) -> usize {
        self.body.len()
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>, RecordError>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// See [`Records::iter`].
#[derive(Debug)]
pub struct Iter<'a> {
    header: BatchHeader,
    rest: &'a [u8],
    index: i32,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count {
            // Bytes after the last record are as wrong as missing ones.
            let trailing = !self.rest.is_empty() && self.index == self.header.count;
            self.rest = &[];
            self.index = i32::MAX;
            return trailing.then_some(Err(RecordError::Malformed { index: self.header.count }));
        }
        let index = self.index;
        self.index += 1;
        if let Some(record) = take_record(&self.header, &mut self.rest) {
            return Some(Ok(record));
        }
        self.index = i32::MAX;
        self.rest = &[];
        Some(Err(RecordError::Malformed { index }))
    }
}

fn take_record<'a>(header: &BatchHeader, rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (mut body, after) = rest.split_at_checked(length)?;
    *rest = after;
    let (_attributes, tail) = body.split_first()?;
    body = tail;
    let timestamp_delta = take_varlong(&mut body)?;
    let offset_delta = take_varint(&mut body)?;
    if offset_delta < 0 || offset_delta > header.last_offset_delta {
        return None;
    }
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let headers = body;
    check_headers(body)?;
    let timestamp = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(timestamp_delta)
    };
    Some(Record {
        offset: header.base_offset.checked_add(offset_delta.into())?,
        timestamp,
        key,
        value,
        headers,
    })
}

/// Splits length-prefixed bytes off; the outer `None` is an error, the inner one is null.
fn take_bytes<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_varint(body)?;
    if length < 0 {
        return (length == -1).then_some(None);
    }
    let (bytes, rest) = body.split_at_checked(to_usize(length))?;
    *body = rest;
    Some(Some(bytes))
}

fn check_headers(mut body: &[u8]) -> Option<()> {
    let count = take_varint(&mut body)?;
    if count < 0 || to_usize(count) > body.len() {
        return None;
    }
    for _ in 0..count {
        take_bytes(&mut body)??;
        take_bytes(&mut body)?;
    }
    body.is_empty().then_some(())
}

/// What a batch holds at most that compaction has thinned out: more than it takes up itself.
const THINNED_BYTES_MAX: usize = 256 << 20;

/// Whether an offset is within a batch that compaction has thinned out: what is left may all come before it.
pub(crate) fn may_end_before(header: &BatchHeader, offset: Offset) -> bool {
    header.base_offset < offset && header.count <= header.last_offset_delta
}

/// Whether all records of a batch come before an offset. One that can't be read is for whoever reads it to find out.
pub(crate) fn ends_before(header: &BatchHeader, batch: &[u8], offset: Offset) -> bool {
    let Ok(records) = Records::open(*header, batch, THINNED_BYTES_MAX) else { return false };
    records.iter().all(|record| record.is_ok_and(|record| record.offset < offset))
}

/// The headers of a record, in order, keys as text with replacement characters.
pub(crate) fn headers(record: &Record<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let mut body = record.headers;
    let count = take_varint(&mut body).unwrap_or(0);
    let mut all = Vec::new();
    for _ in 0..count {
        let (Some(Some(key)), Some(value)) = (take_bytes(&mut body), take_bytes(&mut body)) else {
            break;
        };
        all.push((String::from_utf8_lossy(key).into_owned(), value.map(<[u8]>::to_vec)));
    }
    all
}
