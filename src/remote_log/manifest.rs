//! What a bucket holds of one partition: the only thing that says which objects count.
//!
//! Invariants: segments lie one after the other without gaps or overlaps, from the log's start on; an object that is named
//! nowhere is nobody's; the fence grows, so that of two leaders the older one changes nothing (KIP-405, KIP-101).
//! The text is JSON, so that whoever has the bucket can read it without this program.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::encryption::WrappedKey;
use crate::model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId};

/// The version of the text.
const FORMAT: u32 = 1;
/// What the names of segments' objects end with.
pub(super) const LOG_ENDING: &str = ".log";

/// One copied segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteSegment {
    pub id: Uuid,
    /// The first offset that counts, and the first one past the segment.
    pub base_offset: Offset,
    pub end_offset: Offset,
    /// The base offset of the object, which the index's offsets are relative to.
    pub object_offset: Offset,
    /// The leader epoch that copied it; part of the object's name.
    pub leader_epoch: LeaderEpoch,
    pub max_timestamp: Timestamp,
    /// Bytes of records, which stand first in the object, and of the object.
    pub log_bytes: u64,
    pub object_bytes: u64,
    /// How many bytes of records are of offsets that count, where that is fewer than all; 0 as long as nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_bytes: Option<u64>,
    /// Where each leader epoch begins that has records in it.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Whether offsets may be missing, since the log is compacted.
    #[serde(default)]
    pub is_compacted: bool,
    /// The object's key, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<WrappedKey>,
}

/// An object that no reader needs any more, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    pub object: String,
    pub since_ms: Timestamp,
}

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub topic: String,
    pub topic_id: TopicId,
    pub partition: PartitionId,
    /// The epoch of the leader that may change it.
    pub leader_epoch: LeaderEpoch,
    /// Where the log begins, local or not.
    pub log_start: Offset,
    pub segments: Vec<RemoteSegment>,
    pub removed: Vec<Removed>,
    /// Below this, of each key only the newest record is left that is below it.
    #[serde(default)]
    pub cleaned_to: Offset,
}

impl RemoteSegment {
    /// Bytes of records that are the log's, for whoever deletes by size: none is another segment's too, and what is not known is not
    /// counted.
    pub(crate) fn counted_bytes(&self) -> u64 {
        let all = if self.object_offset < self.base_offset { 0 } else { self.log_bytes };
        self.counted_bytes.map_or(all, |counted| counted.min(self.log_bytes))
    }

    /// Whether it has yet to be looked how much of it counts: its end was taken back, or it begins past its object's beginning and is
    /// of a release that did not look.
    pub(super) fn is_unmeasured(&self) -> bool {
        self.counted_bytes() == 0
    }
}

impl Manifest {
    pub(crate) fn new(topic: &str, topic_id: TopicId, partition: PartitionId) -> Self {
        Self {
            format: FORMAT,
            topic: topic.to_owned(),
            topic_id,
            partition,
            leader_epoch: -1,
            log_start: 0,
            segments: Vec::new(),
            removed: Vec::new(),
            cleaned_to: 0,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads and checks the text; the error says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}", manifest.format));
        }
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        for segment in &self.segments {
            let RemoteSegment { base_offset: base, end_offset: end, .. } = *segment;
            let in_order = segment.epochs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
            let is_sound = segment.object_offset >= 0
                && segment.object_offset <= base
                && base < end
                && segment.log_bytes > 0
                && segment.stored_log_bytes() < segment.object_bytes
                && in_order
                && segment.epochs.first().is_some_and(|(_, start)| *start <= base)
                && segment.epochs.last().is_some_and(|(_, start)| *start < end);
            if !is_sound {
                return Err(format!("the segment at {base} is not sound"));
            }
        }
        let mut pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        if let Some((one, next)) = pairs.find(|(one, next)| one.end_offset != next.base_offset) {
            return Err(format!("{} does not follow {}", next.base_offset, one.end_offset));
        }
        if self.log_start < 0 {
            return Err(format!("the log begins at {}", self.log_start));
        }
        if self.segments.first().is_some_and(|first| first.end_offset <= self.log_start) {
            return Err(format!("the log begins at {}, past its first segment", self.log_start));
        }
        Ok(())
    }

    /// Where the next copy has to begin; `None` if nothing was ever copied.
    pub(crate) fn end(&self) -> Option<Offset> {
        self.segments.last().map(|segment| segment.end_offset)
    }

    /// The segment that holds an offset.
    pub(crate) fn find(&self, offset: Offset) -> Option<&RemoteSegment> {
        let at = self.segments.partition_point(|segment| segment.end_offset <= offset);
        self.segments.get(at).filter(|segment| segment.base_offset <= offset)
    }

    /// The segments that may hold a record at or after a time, in order.
    pub(crate) fn since(&self, timestamp: Timestamp) -> impl Iterator<Item = &RemoteSegment> {
        self.segments.iter().filter(move |segment| segment.max_timestamp >= timestamp)
    }

    /// Bytes of records, each of which counts once.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.counted_bytes()))
    }

    /// Which keys wrap those of its segments, in order.
    pub(crate) fn key_ids(&self) -> Vec<&str> {
        let wrapped = self.segments.iter().filter_map(|segment| segment.encryption.as_ref());
        let ids: BTreeSet<&str> = wrapped.map(|wrapped| wrapped.key_id.as_str()).collect();
        ids.into_iter().collect()
    }

    /// Adds a copy; it must follow the last one, or begin a manifest that holds none. One that the log's start has passed meanwhile is
    /// to be removed: nobody has read it.
    pub(crate) fn add(&mut self, segment: RemoteSegment) -> Result<(), String> {
        if segment.end_offset <= self.log_start {
            self.remove(&[segment], 0);
            return self.check();
        }
        if self.segments.is_empty() {
            self.log_start = self.log_start.max(segment.base_offset);
        }
        self.segments.push(segment);
        self.check()
    }

    /// Moves the log's start; segments below it are no longer the log's.
    pub(crate) fn advance(&mut self, log_start: Offset, now_ms: Timestamp) {
        self.log_start = self.log_start.max(log_start);
        let gone = self.segments.partition_point(|s| s.end_offset <= self.log_start);
        let gone: Vec<_> = self.segments.drain(..gone).collect();
        self.remove(&gone, now_ms);
    }

    /// Takes away what a leader with this history contradicts: after an unclean election each offset has one truth, that of
    /// the leader's lineage. `epoch_at` says which epoch wrote an offset below the end of the leader's log; what lies past it
    /// contradicts nothing.
    pub(crate) fn follow_lineage(
        &mut self,
        (epoch_at, log_end): (impl Fn(Offset) -> Option<LeaderEpoch>, Offset),
        now_ms: Timestamp,
    ) {
        let parts = self.segments.iter().flat_map(|segment| {
            let ends = segment.epochs.iter().skip(1).map(|(_, start)| *start);
            let ends = ends.chain([segment.end_offset]);
            let starts = segment.epochs.iter().map(|(epoch, start)| (*epoch, *start));
            starts
                .zip(ends)
                .map(|((epoch, start), end)| (epoch, start.max(segment.base_offset), end))
        });
        let parts = parts.map(|(epoch, start, end)| (epoch, start, end.min(log_end)));
        // The epoch that wrote a range's last offset wrote all of it, or began in it and is another one.
        let wrong = parts
            .into_iter()
            .filter(|(_, start, end)| start < end)
            .find(|(epoch, _, end)| epoch_at(end - 1).is_some_and(|known| known != *epoch));
        let Some((epoch, start, end)) = wrong else { return };
        let truth = first_of(&epoch_at, epoch, start, end);
        let kept = self.segments.partition_point(|segment| segment.base_offset < truth);
        let gone: Vec<_> = self.segments.drain(kept..).collect();
        if let Some(last) = self.segments.last_mut().filter(|last| last.end_offset > truth) {
            last.end_offset = truth;
            last.counted_bytes = Some(0);
            last.epochs.retain(|(_, start)| *start < truth);
        }
        self.cleaned_to = self.cleaned_to.min(truth);
        self.remove(&gone, now_ms);
    }

    /// Puts one segment in place of several that lie one after the other, of the same offsets.
    pub(crate) fn replace(
        &mut self,
        old: &[Uuid],
        new: RemoteSegment,
        now_ms: Timestamp,
    ) -> Result<(), String> {
        let first = self.segments.iter().position(|segment| old.first() == Some(&segment.id));
        let range = first.map(|first| first..first + old.len());
        let found = range.and_then(|range| Some((self.segments.get(range.clone())?, range)));
        let Some((there, range)) = found else {
            return Err("the segments that were compacted are not there any more".to_owned());
        };
        let offsets =
            |all: &[RemoteSegment]| Some((all.first()?.base_offset, all.last()?.end_offset));
        if !there.iter().map(|segment| &segment.id).eq(old)
            || offsets(there) != offsets(std::slice::from_ref(&new))
        {
            return Err("the segments that were compacted were changed meanwhile".to_owned());
        }
        let gone: Vec<_> = self.segments.splice(range, [new]).collect();
        self.remove(&gone, now_ms);
        self.check()
    }

    fn remove(&mut self, gone: &[RemoteSegment], now_ms: Timestamp) {
        let removed =
            gone.iter().map(|segment| Removed { object: self.object(segment), since_ms: now_ms });
        let removed: Vec<_> = removed.collect();
        self.removed.extend(removed);
    }

    /// Every object that counts, or did a moment ago.
    pub(crate) fn objects(&self) -> impl Iterator<Item = String> {
        let segments = self.segments.iter().map(|segment| self.object(segment));
        segments.chain(self.removed.iter().map(|removed| removed.object.clone()))
    }

    /// The folder of a topic.
    pub(super) fn topic_folder(topic: &str, topic_id: TopicId) -> String {
        format!("{topic}-{}", topic_id.simple())
    }

    /// The folder of the partition's objects.
    pub(crate) fn folder(topic: &str, topic_id: TopicId, partition: PartitionId) -> String {
        format!("{}/{partition}", Self::topic_folder(topic, topic_id))
    }

    /// The name of a segment's object: nothing else ever has it.
    pub(crate) fn object(&self, segment: &RemoteSegment) -> String {
        let folder = Self::folder(&self.topic, self.topic_id, self.partition);
        let RemoteSegment { object_offset, leader_epoch, id, .. } = segment;
        format!("{folder}/{object_offset:020}-{leader_epoch}-{}{LOG_ENDING}", id.simple())
    }
}

/// Up to where the ranges agree: the first offset of `start..end` that another epoch wrote.
fn first_of(
    epoch_at: &impl Fn(Offset) -> Option<LeaderEpoch>,
    epoch: LeaderEpoch,
    start: Offset,
    end: Offset,
) -> Offset {
    let (mut low, mut high) = (start, end.max(start));
    while low < high {
        let middle = low + (high - low) / 2;
        if epoch_at(middle).is_none_or(|known| known == epoch) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Reads any bytes as a manifest, and asks of it what a broker asks (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_manifest(bytes: &[u8]) {
    let Ok(mut manifest) = Manifest::decode(bytes) else { return };
    let _ = (manifest.bytes(), manifest.objects().count(), manifest.since(5).count());
    let end = manifest.end().unwrap_or(manifest.log_start);
    for offset in [0, manifest.log_start, end - 1, end] {
        let found = manifest.find(offset).map(|segment| segment.base_offset..segment.end_offset);
        assert!(found.is_none_or(|range| range.contains(&offset)), "{offset}");
    }
    manifest.follow_lineage((|offset| Some(i32::from(offset > end / 2)), end), 1);
    manifest.advance(end / 2, 2);
    assert!(Manifest::decode(&manifest.encode()).is_ok(), "{manifest:?}");
}

/// A manifest of two segments, for the corpus.
#[cfg(test)]
pub(crate) fn sample() -> Manifest {
    let mut manifest = Manifest::new("t", TopicId::from_u128(7), 0);
    for (base_offset, end_offset, epochs) in
        [(0, 10, vec![(0, 0)]), (10, 20, vec![(0, 0), (3, 12)])]
    {
        let segment = RemoteSegment {
            id: Uuid::from_u128(1),
            base_offset,
            end_offset,
            object_offset: base_offset,
            leader_epoch: 3,
            max_timestamp: 5,
            log_bytes: 10,
            object_bytes: 20,
            counted_bytes: None,
            epochs,
            is_compacted: base_offset > 0,
            encryption: None,
        };
        manifest.add(segment).expect("sound");
    }
    manifest
}
