//! What is known of a topic's records: those that were acknowledged, those that may have been stored, and what was deleted.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::batches::Record;
use super::plan::{Chance, Clock, Point};

/// Digits of a record's number at the beginning of its value.
const DIGITS: usize = 10;
const FILL_BYTES: usize = 1 << 16;
const HOUR_MS: i64 = 3_600_000;

/// A record as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub number: u64,
    pub key: Option<u64>,
    /// `None`: a tombstone.
    pub size: Option<usize>,
    pub timestamp: i64,
    pub sent_ms: i64,
}

/// A record that is stored: it was acknowledged, or read.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub sent: Sent,
    /// What it has to be read with; `None` until that is known (the broker's clock).
    pub timestamp: Option<i64>,
    pub stored_ms: i64,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<u64>,
    pub size: Option<usize>,
    pub number: u64,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Model {
    pub point: Point,
    pub known: BTreeMap<i64, Known>,
    /// By number: sent, not acknowledged, and how often that may have been stored.
    pub open: HashMap<u64, (Sent, u32)>,
    /// Up to where DeleteRecords was answered.
    pub deleted_to: i64,
    /// The end of the log is no less.
    pub end: i64,
    pub fill: Fill,
    next: u64,
}

/// What values are filled with: partly compressible, and different in each topic.
#[derive(Debug)]
pub(crate) struct Fill(Vec<u8>);

impl Fill {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut bytes = Vec::with_capacity(FILL_BYTES);
        while bytes.len() < FILL_BYTES {
            bytes.extend_from_slice(&chance.next().to_be_bytes());
            bytes.extend_from_slice(b"words words words ");
        }
        bytes.truncate(FILL_BYTES);
        Self(bytes)
    }

    fn parts(&self, number: u64, size: usize) -> impl Iterator<Item = &[u8]> {
        let begin = usize::try_from(number % 40_000).expect("small");
        let mut left = size - DIGITS;
        let mut rest = &self.0[begin..];
        std::iter::from_fn(move || {
            let part = &rest[..rest.len().min(left)];
            left -= part.len();
            rest = &self.0;
            (!part.is_empty()).then_some(part)
        })
    }

    fn value(&self, number: u64, size: usize) -> Bytes {
        let mut value = format!("{number:0DIGITS$}").into_bytes();
        self.parts(number, size).for_each(|part| value.extend_from_slice(part));
        value.into()
    }

    /// The number of a value, if it is what it was made as.
    fn number(&self, value: &[u8]) -> Option<u64> {
        let (digits, mut rest) = value.split_at_checked(DIGITS)?;
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        for part in self.parts(number, value.len()) {
            let (found, after) = rest.split_at(part.len());
            if found != part {
                return None;
            }
            rest = after;
        }
        Some(number)
    }

    /// What a record that was read is.
    pub(crate) fn look(&self, record: &Record) -> Result<Seen, String> {
        let key = match &record.key {
            None => None,
            Some(key) => {
                let text = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix('k'));
                let number = text.and_then(|text| text.parse().ok());
                Some(number.ok_or_else(|| format!("{}: the key {key:?}", record.offset))?)
            }
        };
        let number = match &record.value {
            None => record.number,
            Some(value) => self.number(value),
        };
        let number = number.ok_or_else(|| format!("{}: other bytes than sent", record.offset))?;
        let size = record.value.as_ref().map(Bytes::len);
        Ok(Seen { offset: record.offset, timestamp: record.timestamp, key, size, number })
    }
}

impl Model {
    pub(crate) fn new(point: Point, seed: u64) -> Self {
        let fill = Fill::new(seed);
        let (known, open) = (BTreeMap::new(), HashMap::new());
        Self { point, known, open, deleted_to: 0, end: 0, fill, next: 0 }
    }

    /// The next records, for a batch of at most so many.
    pub(crate) fn make(&mut self, chance: &mut Chance, most: u64, now_ms: i64) -> Vec<Sent> {
        let count = 1 + chance.below(most);
        let make = |index| {
            let point = &self.point;
            let key = (point.keys > 0).then(|| chance.below(point.keys));
            let is_tombstone = point.is_compacted && chance.one_in(12);
            let timestamp = match point.clock {
                Clock::Broker | Clock::Client => now_ms,
                Clock::Unsteady => now_ms - i64::try_from(chance.below(2_000)).expect("small"),
                Clock::Late => now_ms - HOUR_MS,
            };
            let size = (!is_tombstone).then(|| point.sizes.of(chance));
            Sent { number: self.next + index, key, size, timestamp, sent_ms: now_ms }
        };
        let all: Vec<Sent> = (0..count).map(make).collect();
        self.next += count;
        all
    }

    /// The records as they are sent.
    pub(crate) fn records(&self, sent: &[Sent]) -> Vec<Record> {
        let record = |(offset, sent): (i64, &Sent)| Record {
            offset,
            timestamp: sent.timestamp,
            key: sent.key.map(|key| Bytes::from(format!("k{key}"))),
            value: sent.size.map(|size| self.fill.value(sent.number, size)),
            number: sent.size.is_none().then_some(sent.number),
        };
        (0..).zip(sent).map(record).collect()
    }

    /// Notes that a batch may have been stored once more.
    pub(crate) fn may_be_stored(&mut self, sent: &[Sent]) {
        for record in sent {
            self.open.entry(record.number).or_insert_with(|| (record.clone(), 0)).1 += 1;
        }
    }

    /// Notes a batch that was acknowledged, with the time that the broker gave it.
    pub(crate) fn stored(&mut self, base: i64, sent: &[Sent], append_ms: i64, now_ms: i64) {
        let is_brokers = self.point.clock == Clock::Broker;
        for (offset, record) in (base..).zip(sent) {
            let timestamp = if is_brokers { append_ms } else { record.timestamp };
            let timestamp = (timestamp >= 0).then_some(timestamp);
            let known = Known { sent: record.clone(), timestamp, stored_ms: now_ms };
            self.known.insert(offset, known);
            self.end = self.end.max(offset + 1);
        }
    }

    /// When the last record was stored.
    pub(crate) fn last_stored_ms(&self) -> i64 {
        self.known.values().next_back().map_or(0, |known| known.stored_ms)
    }
}

#[test]
fn a_value_is_known_by_its_bytes_and_another_one_is_not_taken_for_it() {
    let fill = Fill::new(3);
    for (number, size) in [(0, 10), (7, 11), (39_999, 70_000), (123_456, 200_000)] {
        let value = fill.value(number, size);
        assert_eq!((value.len(), fill.number(&value)), (size, Some(number)));
        if size > DIGITS {
            let mut ill = value.to_vec();
            *ill.last_mut().expect("a byte") ^= 1;
            assert_eq!(fill.number(&ill), None);
        }
    }
    assert_ne!(fill.value(1, 100)[DIGITS..], fill.value(2, 100)[DIGITS..]);
}
