//! Walks the records of a batch from a client: what passes can be read by every client.
//!
//! Invariants: every length lies within its record and every record within the batch; there are as many records as the
//! header says, at its offsets, one after the other, and nothing behind them; keys of headers are text. Nothing is
//! allocated for records that are not compressed; of others a piece is in memory at a time.
//! Left to others: what a topic makes of what was found (`validate.rs`), and reading what is stored (`reader.rs`).

use super::batch::{BatchHeader, HEADER_BYTES};
use super::compress::{Codec, CompressError};
use super::plain::Plain;
use super::reader::RecordError;
use super::validate::{BatchError, BatchRules, is_outside};
use super::varint::{VARLONG_BYTES, take_varint, take_varlong};
use crate::model::number::to_usize;
use crate::model::{NO_TIMESTAMP, Timestamp};

/// What is decompressed at a time.
const PIECE_BYTES: usize = 32 << 10;
/// So many records without a key are named; a batch may have millions.
const NAMED_MAX: usize = 1000;

/// What was found on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walked {
    /// The largest timestamp of a record, as Apache Kafka finds it: -1 at least.
    pub max_timestamp: Timestamp,
    /// Bytes of the records when they are not compressed.
    pub plain_bytes: usize,
}

/// Why a walk ends early.
enum Stop {
    Wrong(&'static str),
    Compress(CompressError),
    OutOfRange(Timestamp),
}

impl From<CompressError> for Stop {
    fn from(error: CompressError) -> Self {
        Stop::Compress(error)
    }
}

/// Bytes that are there, and more where they come from.
trait Source {
    fn there(&self) -> &[u8];
    /// Takes what is there.
    fn take(&mut self, bytes: usize);
    /// Brings more; false at the end.
    fn more(&mut self) -> Result<bool, CompressError>;
}

impl Source for &[u8] {
    fn there(&self) -> &[u8] {
        self
    }

    fn take(&mut self, bytes: usize) {
        *self = self.get(bytes..).unwrap_or_default();
    }

    fn more(&mut self) -> Result<bool, CompressError> {
        Ok(false)
    }
}

/// A piece of what comes out of a codec; it grows only as far as one header's key needs it.
struct Pieces<'a> {
    plain: Plain<'a>,
    piece: Vec<u8>,
    at: usize,
    end: usize,
}

impl Source for Pieces<'_> {
    fn there(&self) -> &[u8] {
        self.piece.get(self.at..self.end).unwrap_or_default()
    }

    fn take(&mut self, bytes: usize) {
        self.at = self.end.min(self.at + bytes);
    }

    fn more(&mut self) -> Result<bool, CompressError> {
        self.piece.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        if self.end == self.piece.len() {
            self.piece.resize((2 * self.end).max(PIECE_BYTES), 0);
        }
        let bytes = self.plain.read(self.piece.get_mut(self.end..).unwrap_or_default())?;
        self.end += bytes;
        Ok(bytes > 0)
    }
}

/// Walks the records; an error says which one is wrong, and how.
pub(super) fn walk(
    header: &BatchHeader,
    batch: &[u8],
    rules: &BatchRules,
    now_ms: Timestamp,
) -> Result<Walked, BatchError> {
    let body = batch.get(HEADER_BYTES..).unwrap_or_default();
    let codec = Codec::from_bits(header.codec_bits()).map_err(RecordError::from)?;
    let plain = Plain::open(codec, body, rules.plain_bytes_max).map_err(RecordError::from)?;
    let Some(plain) = plain else { return Walk::new(header, body, rules, now_ms).run() };
    let pieces = Pieces { plain, piece: Vec::new(), at: 0, end: 0 };
    Walk::new(header, pieces, rules, now_ms).run()
}

struct Walk<'a, S> {
    source: S,
    header: &'a BatchHeader,
    rules: &'a BatchRules,
    now_ms: Timestamp,
    /// Bytes left of the record.
    left: usize,
    keyless: Vec<i32>,
    keyless_count: usize,
    walked: Walked,
}

impl<'a, S: Source> Walk<'a, S> {
    fn new(header: &'a BatchHeader, source: S, rules: &'a BatchRules, now_ms: Timestamp) -> Self {
        Self {
            source,
            header,
            rules,
            now_ms,
            left: 0,
            keyless: Vec::new(),
            keyless_count: 0,
            walked: Walked { max_timestamp: NO_TIMESTAMP, plain_bytes: 0 },
        }
    }

    fn run(mut self) -> Result<Walked, BatchError> {
        for index in 0..self.header.count {
            self.record(index).map_err(|stop| refusal(index, stop))?;
        }
        self.end().map_err(|stop| refusal(self.header.count, stop))?;
        if self.keyless_count > 0 {
            return Err(BatchError::KeyMissing {
                indexes: self.keyless,
                count: self.keyless_count,
            });
        }
        Ok(self.walked)
    }

    /// Nothing may follow the last record, and a codec's frame must end well.
    fn end(&mut self) -> Result<(), Stop> {
        if self.source.there().is_empty() && !self.source.more()? {
            return Ok(());
        }
        Err(Stop::Wrong("comes after all that the batch's count announces"))
    }

    fn record(&mut self, index: i32) -> Result<(), Stop> {
        self.left = usize::MAX;
        let length = self.varint("has a length that is cut or is no number of 32 bits")?;
        let taken = usize::MAX - self.left;
        self.left = usize::try_from(length).map_err(|_| Stop::Wrong("has a negative length"))?;
        self.walked.plain_bytes += taken + self.left;
        let cut = "ends before its fields do";
        self.attributes(cut)?;
        let timestamp_delta = self.varlong(cut)?;
        if self.varint(cut)? != index {
            return Err(Stop::Wrong("has an offset delta that is not its place in the batch"));
        }
        let timestamp = self.header.base_timestamp.wrapping_add(timestamp_delta);
        self.timestamp(timestamp, timestamp_delta)?;
        if self.bytes("has a key of a length that is none")?.is_none() {
            self.keyless(index);
        }
        self.bytes("has a value of a length that is none")?;
        self.headers()?;
        if self.left > 0 {
            return Err(Stop::Wrong("is longer than its fields"));
        }
        Ok(())
    }

    /// They mean nothing, but some readers take them for a varint.
    fn attributes(&mut self, cut: &'static str) -> Result<(), Stop> {
        if self.source.there().is_empty() && !self.source.more()? {
            return Err(Stop::Wrong(cut));
        }
        if self.source.there().first().is_some_and(|attributes| attributes & 0x80 != 0) {
            return Err(Stop::Wrong("has an attribute that no client knows"));
        }
        self.take(1, cut)
    }

    fn timestamp(&mut self, timestamp: Timestamp, delta: i64) -> Result<(), Stop> {
        self.walked.max_timestamp = self.walked.max_timestamp.max(timestamp);
        let Some(rules) = self.rules.timestamps else { return Ok(()) };
        let is_whole = self.header.base_timestamp.checked_add(delta).is_some();
        if is_whole && !is_outside(timestamp, rules, self.now_ms) {
            return Ok(());
        }
        Err(Stop::OutOfRange(timestamp))
    }

    fn keyless(&mut self, index: i32) {
        if self.rules.keys_required {
            self.keyless_count += 1;
            if self.keyless.len() < NAMED_MAX {
                self.keyless.push(index);
            }
        }
    }

    fn headers(&mut self) -> Result<(), Stop> {
        let wrong = "has a count of headers that is none, or more than there are";
        let count = usize::try_from(self.varint(wrong)?).map_err(|_| Stop::Wrong(wrong))?;
        if count > self.left {
            return Err(Stop::Wrong(wrong));
        }
        for _ in 0..count {
            self.text()?;
            self.bytes("has a header with a value of a length that is none")?;
        }
        Ok(())
    }

    /// The key of a header.
    fn text(&mut self) -> Result<(), Stop> {
        let wrong = "has a header without a key, or with one that ends after its record";
        let length = usize::try_from(self.varint(wrong)?).map_err(|_| Stop::Wrong(wrong))?;
        if length > self.left {
            return Err(Stop::Wrong(wrong));
        }
        while self.source.there().len() < length {
            if !self.source.more()? {
                return Err(Stop::Wrong(wrong));
            }
        }
        let key = self.source.there().get(..length).unwrap_or_default();
        if std::str::from_utf8(key).is_err() {
            return Err(Stop::Wrong("has a header with a key that is not UTF-8"));
        }
        self.skip(length, wrong)
    }

    /// Passes bytes with their length before them; `None` is null.
    #[inline]
    fn bytes(&mut self, wrong: &'static str) -> Result<Option<()>, Stop> {
        match self.varint(wrong)? {
            -1 => Ok(None),
            length if length < 0 => Err(Stop::Wrong(wrong)),
            length => self.skip(to_usize(length), wrong).map(Some),
        }
    }

    #[inline]
    fn varint(&mut self, wrong: &'static str) -> Result<i32, Stop> {
        self.number(take_varint, wrong)
    }

    #[inline]
    fn varlong(&mut self, wrong: &'static str) -> Result<i64, Stop> {
        self.number(take_varlong, wrong)
    }

    #[inline]
    fn number<T>(
        &mut self,
        take: impl Fn(&mut &[u8]) -> Option<T>,
        wrong: &'static str,
    ) -> Result<T, Stop> {
        loop {
            let mut rest = self.source.there();
            let there = rest.len();
            if let Some(number) = take(&mut rest) {
                let taken = there - rest.len();
                self.take(taken, wrong)?;
                return Ok(number);
            }
            if there >= VARLONG_BYTES || !self.source.more()? {
                return Err(Stop::Wrong(wrong));
            }
        }
    }

    #[inline]
    fn take(&mut self, bytes: usize, wrong: &'static str) -> Result<(), Stop> {
        self.left = self.left.checked_sub(bytes).ok_or(Stop::Wrong(wrong))?;
        self.source.take(bytes);
        Ok(())
    }

    #[inline]
    fn skip(&mut self, bytes: usize, wrong: &'static str) -> Result<(), Stop> {
        if bytes <= self.source.there().len() {
            return self.take(bytes, wrong);
        }
        self.skip_far(bytes, wrong)
    }

    fn skip_far(&mut self, mut bytes: usize, wrong: &'static str) -> Result<(), Stop> {
        if bytes > self.left {
            return Err(Stop::Wrong(wrong));
        }
        while bytes > 0 {
            let there = self.source.there().len().min(bytes);
            self.take(there, wrong)?;
            bytes -= there;
            if bytes > 0 && !self.source.more()? {
                return Err(Stop::Wrong("ends after the batch does"));
            }
        }
        Ok(())
    }
}

fn refusal(index: i32, stop: Stop) -> BatchError {
    match stop {
        Stop::Wrong(what) => BatchError::Records(RecordError::Wrong { index, what }),
        Stop::Compress(error) => BatchError::Records(error.into()),
        Stop::OutOfRange(timestamp) => BatchError::TimestampOutOfRange { index, timestamp },
    }
}
