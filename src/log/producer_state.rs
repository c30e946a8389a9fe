//! What a log knows of its idempotent producers (KIP-98).
//!
//! Invariants: a pure function of the log's batches: replaying them gives the same state; the last five batches of
//! each producer are remembered, so any of them may be sent again; of older ones it is known that they are stored, as far as
//! the producer's sequence has no gap.
//! Left to others: when entries expire (`log.rs` asks), transactions.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use crate::model::number::to_i32;
use crate::model::{Offset, ProducerEpoch, ProducerId, Timestamp};
use crate::record::BatchHeader;
use crate::record::batch::add_sequence;

/// Batches remembered for each producer: as many as a client may have in flight.
const BATCHES_MAX: usize = 5;

/// Sequences are counted from 0 again after this many.
const SEQUENCES: i64 = 1 << 31;

/// Why a batch's sequence is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SequenceError {
    #[error(
        "Out of order sequence number for producer {producer_id}: {incoming} (incoming), {expected} (expected)"
    )]
    OutOfOrder { producer_id: ProducerId, incoming: i32, expected: i32 },
    #[error(
        "Epoch of producer {producer_id} is {epoch}, which is smaller than the last seen epoch {last}"
    )]
    OldEpoch { producer_id: ProducerId, epoch: ProducerEpoch, last: ProducerEpoch },
    /// It was sent again so late that its offset is not remembered any more.
    #[error(
        "Sequence number {incoming} of producer {producer_id} is stored already, somewhere below offset {before}"
    )]
    Stored { producer_id: ProducerId, incoming: i32, before: Offset },
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentBatch {
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub offset_delta: i32,
    pub timestamp: Timestamp,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub epoch: ProducerEpoch,
    pub last_timestamp: Timestamp,
    /// How many records, up to the newest one, are stored without a gap in their sequence.
    stored: i64,
    batches: VecDeque<SentBatch>,
}

impl ProducerEntry {
    /// Sequence of the newest record; -1 if none is known.
    pub(crate) fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
    }

    /// Where the remembered batches begin, if this one is stored before them.
    fn stored_before(&self, header: &BatchHeader) -> Option<Offset> {
        let oldest = self.batches.front()?;
        let behind = i64::from(self.last_sequence()) - i64::from(header.last_sequence());
        let behind = behind.rem_euclid(SEQUENCES);
        // Half of all sequences: what is further behind may as well be ahead.
        let known = self.stored.min(SEQUENCES / 2);
        let is_stored = behind + i64::from(header.last_offset_delta) < known;
        let before = oldest.last_offset - i64::from(oldest.offset_delta);
        is_stored.then_some(before)
    }

    /// Offset of the newest record.
    pub(crate) fn last_offset(&self) -> Option<Offset> {
        self.batches.back().map(|batch| batch.last_offset)
    }
}

/// All producers of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProducerStates {
    entries: BTreeMap<ProducerId, ProducerEntry>,
}

impl ProducerStates {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// Checks a batch before it is appended; `Ok(Some(_))` is the earlier copy of it.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Option<SentBatch>, SequenceError> {
        let producer_id = header.producer_id;
        // An unknown producer may start anywhere: its state may have expired (KIP-360).
        let Some(entry) = self.entries.get(&producer_id) else { return Ok(None) };
        if header.producer_epoch < entry.epoch {
            return Err(SequenceError::OldEpoch {
                producer_id,
                epoch: header.producer_epoch,
                last: entry.epoch,
            });
        }
        let incoming = header.base_sequence;
        if header.producer_epoch > entry.epoch {
            return if incoming == 0 {
                Ok(None)
            } else {
                Err(SequenceError::OutOfOrder { producer_id, incoming, expected: 0 })
            };
        }
        let is_copy = |batch: &&SentBatch| {
            batch.last_sequence == header.last_sequence()
                && batch.offset_delta == header.last_offset_delta
        };
        if let Some(copy) = entry.batches.iter().find(is_copy) {
            return Ok(Some(*copy));
        }
        if let Some(before) = entry.stored_before(header) {
            return Err(SequenceError::Stored { producer_id, incoming, before });
        }
        match entry.batches.back() {
            Some(last) if incoming != add_sequence(last.last_sequence, 1) => {
                Err(SequenceError::OutOfOrder {
                    producer_id,
                    incoming,
                    expected: add_sequence(last.last_sequence, 1),
                })
            }
            _ => Ok(None),
        }
    }

    /// Notes an appended batch (its header after the position was set).
    pub(crate) fn note(&mut self, header: &BatchHeader) {
        if !header.has_producer() || header.is_control() {
            return;
        }
        let fresh = || ProducerEntry {
            epoch: header.producer_epoch,
            last_timestamp: 0,
            stored: 0,
            batches: VecDeque::new(),
        };
        let entry = self.entries.entry(header.producer_id).or_insert_with(fresh);
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        // A leader that had forgotten the producer let it start anywhere.
        let goes_on = entry
            .batches
            .back()
            .is_some_and(|last| add_sequence(last.last_sequence, 1) == header.base_sequence);
        let before = if goes_on { entry.stored } else { 0 };
        entry.stored = before.saturating_add(i64::from(header.last_offset_delta) + 1);
        if entry.batches.len() == BATCHES_MAX {
            entry.batches.pop_front();
        }
        entry.last_timestamp = header.max_timestamp;
        entry.batches.push_back(SentBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
    }

    /// Forgets producers that were idle longer than `expiration_ms`.
    pub(crate) fn expire(&mut self, now_ms: Timestamp, expiration_ms: i64) {
        self.entries.retain(|_, entry| now_ms.saturating_sub(entry.last_timestamp) < expiration_ms);
    }

    /// The snapshot's lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(id, entry): (&ProducerId, &ProducerEntry)| {
            let (epoch, timestamp, stored) = (entry.epoch, entry.last_timestamp, entry.stored);
            let mut line = format!("{id} {epoch} {timestamp} {stored}");
            for b in &entry.batches {
                let (sequence, offset) = (b.last_sequence, b.last_offset);
                let _ = write!(line, " {sequence},{offset},{},{}", b.offset_delta, b.timestamp);
            }
            line
        };
        self.entries.iter().map(line).collect()
    }

    /// Reads a snapshot's lines; `None` if one is malformed.
    pub(crate) fn parse(lines: &[String]) -> Option<Self> {
        let mut entries = BTreeMap::new();
        for line in lines {
            let mut words = line.split(' ').peekable();
            let id = words.next()?.parse().ok()?;
            let epoch = words.next()?.parse().ok()?;
            let last_timestamp = words.next()?.parse().ok()?;
            // Earlier releases did not write it.
            let stored = words.next_if(|word| !word.contains(',')).map(str::parse::<i64>);
            let mut stored = stored.transpose().ok()?.unwrap_or(0).max(0);
            let mut batches = VecDeque::new();
            for word in words {
                let mut numbers = word.split(',').map(str::parse::<i64>);
                let mut next = || numbers.next()?.ok();
                let (sequence, offset, delta, timestamp) = (next()?, next()?, next()?, next()?);
                batches.push_back(SentBatch {
                    last_sequence: to_i32(sequence),
                    last_offset: offset,
                    offset_delta: to_i32(delta),
                    timestamp,
                });
            }
            let newest = batches.back().map_or(0, |batch: &SentBatch| batch.offset_delta + 1);
            stored = stored.max(newest.into());
            entries.insert(id, ProducerEntry { epoch, last_timestamp, stored, batches });
        }
        Some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn header(epoch: i16, sequence: i32, count: i32, offset: Offset) -> BatchHeader {
        let mut builder = BatchBuilder::new().producer(9, epoch, sequence);
        for _ in 0..count {
            builder.add(1000, None, Some(b"v"), &[]);
        }
        let mut header = BatchHeader::parse(&builder.build()).expect("header");
        header.base_offset = offset;
        header
    }

    fn filled() -> ProducerStates {
        let mut states = ProducerStates::default();
        for i in 0..7 {
            let h = header(0, i, 1, 100 + i64::from(i));
            assert_eq!(states.check(&h), Ok(None));
            states.note(&h);
        }
        states
    }

    #[test]
    fn the_last_five_batches_may_be_sent_again_and_of_older_ones_it_is_known_that_they_are_stored()
    {
        let states = filled();
        for sequence in 2..7 {
            let copy = states.check(&header(0, sequence, 1, 0)).expect("a copy").expect("known");
            assert_eq!(copy.last_offset, 100 + i64::from(sequence));
        }
        assert!(matches!(
            states.check(&header(0, 1, 1, 0)),
            Err(SequenceError::Stored { before: 102, .. })
        ));
        assert!(matches!(states.check(&header(0, 9, 1, 0)), Err(SequenceError::OutOfOrder { .. })));
        // Partly stored: no client sends that.
        assert!(matches!(states.check(&header(0, 5, 4, 0)), Err(SequenceError::OutOfOrder { .. })));
        assert_eq!(states.check(&header(0, 7, 1, 0)), Ok(None));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut states = filled();
        assert!(matches!(
            states.check(&header(1, 3, 1, 0)),
            Err(SequenceError::OutOfOrder { expected: 0, .. })
        ));
        states.note(&header(1, 0, 1, 200));
        assert!(matches!(
            states.check(&header(0, 7, 1, 0)),
            Err(SequenceError::OldEpoch { last: 1, .. })
        ));
    }

    #[test]
    fn only_what_came_without_a_gap_is_known_to_be_stored() {
        let mut states = ProducerStates::default();
        // Nobody knew the producer when it came with 50; later the leader had forgotten it, and it came with 90.
        for (at, sequence) in
            [50, 51, 52, 53, 54, 55, 56, 90, 91, 92, 93, 94, 95].iter().enumerate()
        {
            states.note(&header(0, *sequence, 1, i64::try_from(at).expect("small")));
        }
        let told = |sequence: i32| states.check(&header(0, sequence, 1, 0));
        assert!(matches!(told(90), Err(SequenceError::Stored { before: 8, .. })));
        for unknown in [89, 60, 56, 50, 49, 0] {
            assert!(matches!(told(unknown), Err(SequenceError::OutOfOrder { .. })), "{unknown}");
        }
    }

    #[test]
    fn a_snapshot_gives_the_same_state_back() {
        let states = filled();
        assert_eq!(ProducerStates::parse(&states.lines()), Some(states));
        // One of an earlier release: it says nothing of what lies before the remembered batches.
        let old = vec!["9 0 1000 2,102,0,1000 3,103,0,1000".to_owned()];
        let states = ProducerStates::parse(&old).expect("read");
        assert!(matches!(states.check(&header(0, 1, 1, 0)), Err(SequenceError::OutOfOrder { .. })));
        assert_eq!(states.check(&header(0, 4, 1, 0)), Ok(None));
    }

    #[test]
    fn a_producer_nobody_knows_may_start_anywhere_and_sequences_wrap() {
        let mut states = ProducerStates::default();
        let last = header(0, i32::MAX, 1, 0);
        assert_eq!(states.check(&last), Ok(None));
        states.note(&last);
        assert_eq!(states.check(&header(0, 0, 1, 1)), Ok(None));
    }
}
