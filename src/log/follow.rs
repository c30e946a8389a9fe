//! What a follower does to its log: takes batches as the leader wrote them, cuts what the leader does not have.
//!
//! Invariants: a fetched batch keeps its offsets and its leader epoch; producers and epochs are, after a cut, what the
//! log that is left makes them (KIP-101, KIP-320); a cut is on the disk before anything is appended after it.

use std::io::IoSlice;

use smallvec::SmallVec;

use super::age::Age;
use super::append::{NewBatch, disk_error};
use super::error::{AppendError, OpenError};
use super::leader_epochs::LeaderEpochs;
use super::local_log::{Log, open_active};
use super::producer_state::ProducerStates;
use super::recovery::RecoveryPoint;
use super::segment::{Segment, Walk};
use crate::model::number::to_u64;
use crate::model::{Offset, Timestamp};
use crate::record::BatchHeader;
use crate::system::planted::{Bug, is_planted};

/// Whether two offsets are so far apart that one segment can't hold both.
pub(super) fn is_far(from: Offset, to: Offset) -> bool {
    to.saturating_sub(from) > 1 << 30
}

impl Log {
    /// Appends batches as another broker's log holds them, by as few writes as it takes; their offsets must lie at or
    /// past the log's end, and grow. Only the first batch of an empty log may begin before.
    pub(crate) fn append_fetched(
        &mut self,
        batches: &[NewBatch<'_>],
        now_ms: Timestamp,
    ) -> Result<(), AppendError> {
        if let Some(first) = batches.first().filter(|batch| self.begins_in(&batch.header)) {
            self.begin_with(&first.header).map_err(disk_error)?;
        }
        self.load_age().map_err(disk_error)?;
        let (mut run, mut run_bytes) = (0..0, 0);
        for (at, batch) in batches.iter().enumerate() {
            let header = &batch.header;
            let begins = batches.get(run.start).map(|first| first.header.leader_epoch);
            let is_new_epoch = begins != Some(header.leader_epoch);
            if is_new_epoch || self.must_roll(header, (run.len(), run_bytes), now_ms) {
                self.write_fetched(batches.get(run).unwrap_or_default(), now_ms)?;
                (run, run_bytes) = (at..at, 0);
                if self.must_roll(header, (0, 0), now_ms) {
                    self.roll_for(header.base_offset).map_err(disk_error)?;
                }
            }
            run.end = at + 1;
            run_bytes += to_u64(batch.bytes.len());
        }
        self.write_fetched(batches.get(run).unwrap_or_default(), now_ms)
    }

    /// Whether the log is empty, and begins in the middle of a batch: records were deleted up to there (DeleteRecords).
    pub(crate) fn begins_in(&self, header: &BatchHeader) -> bool {
        let is_empty = self.closed.is_empty() && self.active.bytes == 0;
        is_empty && (header.base_offset + 1..=header.last_offset()).contains(&self.log_end)
    }

    /// Lets the segment begin with the batch that the log begins in, which lies whole in it.
    fn begin_with(&mut self, first: &BatchHeader) -> std::io::Result<()> {
        if self.active.base_offset > first.base_offset {
            let next = open_active(&self.parts, &self.dir, first.base_offset)?;
            let old = std::mem::replace(&mut self.active, next);
            let cache = &self.parts.cache;
            Segment::new(cache, old.base_offset, old.path, old.bytes).delete_files(cache);
            self.dir_changed = true;
        }
        self.log_end = first.base_offset;
        Ok(())
    }

    /// Closes the segment. The next one begins where this one ends, not where the leader's next batch does, which may be later in a
    /// compacted log: recovery takes a gap between two segments for a file that is missing.
    fn roll_for(&mut self, next: Offset) -> std::io::Result<()> {
        let begins_there = is_far(self.log_end, next) || is_planted(Bug::GapBetweenSegments);
        self.roll_at(if begins_there { next } else { self.log_end })
    }

    /// Writes batches of one epoch.
    fn write_fetched(
        &mut self,
        batches: &[NewBatch<'_>],
        now_ms: Timestamp,
    ) -> Result<(), AppendError> {
        let Some(first) = batches.first().map(|batch| batch.header) else { return Ok(()) };
        assert!(first.base_offset >= self.log_end, "a follower appends past its log's end only");
        self.begin_epoch_at(first.leader_epoch, first.base_offset).map_err(disk_error)?;
        self.reserve(batches.iter().map(|batch| to_u64(batch.bytes.len())).sum());
        let slices: SmallVec<[IoSlice<'_>; 4]> =
            batches.iter().map(|batch| IoSlice::new(batch.bytes)).collect();
        self.write_slices(&slices)?;
        batches.iter().for_each(|batch| self.note_appended(&batch.header, now_ms, false));
        Ok(())
    }

    /// Cuts the log so that it ends at `to`, which must lie between two batches. What was below the recovery point is
    /// no longer promised: the caller has lowered it on the disk before.
    pub(crate) fn truncate(&mut self, to: Offset) -> Result<(), OpenError> {
        let to = to.max(self.log_start);
        if to >= self.log_end {
            return Ok(());
        }
        tracing::info!(partition = %self.partition, from = self.log_end, to, "log truncated");
        self.cuts += 1;
        while self.active.base_offset > to {
            let last = self.closed.pop_last().map(|(_, segment)| segment);
            let bytes = self.active.bytes;
            let next = match &last {
                Some(segment) => {
                    segment.retire();
                    open_active(&self.parts, &self.dir, segment.base_offset)?
                }
                None => open_active(&self.parts, &self.dir, to)?,
            };
            let cut = std::mem::replace(&mut self.active, next);
            let cache = &self.parts.cache;
            Segment::new(cache, cut.base_offset, cut.path, bytes).delete_files(cache);
            self.dir_changed = true;
            if let Some(segment) = &last {
                self.active.bytes = segment.bytes;
                self.active.index = self.rebuilt_index()?;
            }
        }
        let byte = self.byte_of(to)?;
        self.active.file.set_len(byte)?;
        self.active.file.sync()?;
        self.active.id = self.parts.cache.new_id(&self.active.path);
        self.active.bytes = byte;
        self.active.age = Age::default();
        self.active.reserved = 0;
        self.active.index.truncate(to, byte);
        self.end_at_cut(to)
    }

    /// Forgets everything and begins at `offset`: the leader's log starts past this one's end.
    pub(crate) fn restart_at(&mut self, offset: Offset) -> Result<(), OpenError> {
        tracing::info!(partition = %self.partition, offset, "log begins anew at the leader's start");
        self.cuts += 1;
        // Before the next segment is made: one of these may have its name.
        for segment in std::mem::take(&mut self.closed).into_values() {
            segment.delete_files(&self.parts.cache);
        }
        if self.active.base_offset == offset {
            self.active.file.set_len(0)?;
        } else {
            let next = open_active(&self.parts, &self.dir, offset)?;
            let old = std::mem::replace(&mut self.active, next);
            let cache = &self.parts.cache;
            Segment::new(cache, old.base_offset, old.path, old.bytes).delete_files(cache);
        }
        self.active.id = self.parts.cache.new_id(&self.active.path);
        self.active.bytes = 0;
        self.active.age = Age::default();
        self.active.reserved = 0;
        self.active.index = super::index::SegmentIndex::new(offset);
        self.log_start = offset;
        self.epochs = LeaderEpochs::default();
        // What was known of producers says nothing of what they sent between there and here.
        self.drop_snapshots_but(offset)?;
        self.parts.cache.disk().sync_dir(&self.dir)?;
        self.end_at_cut(offset)
    }

    /// The same, where what lies before is in remote storage: epochs and producers are those of the whole log.
    pub(crate) fn restart_with(
        &mut self,
        offset: Offset,
        epochs: LeaderEpochs,
        producers: ProducerStates,
    ) -> Result<(), OpenError> {
        self.restart_at(offset)?;
        self.epochs = epochs;
        self.save_epochs()?;
        self.producers = producers;
        // `write_snapshot` has put it on the disk before.
        self.producers_saved_at = Some(offset);
        self.snapshots.durable.insert(offset);
        self.close()
    }

    fn end_at_cut(&mut self, to: Offset) -> Result<(), OpenError> {
        self.log_end = to;
        self.recovery_point = self.recovery_point.min(to);
        self.cleaned_to = self.cleaned_to.min(to);
        self.copied_to = self.copied_to.min(to);
        self.snapshots.cut(to);
        self.epochs.truncate_end(to);
        self.save_epochs()?;
        self.drop_snapshots_past(to)?;
        let has_producers = !self.producers.is_empty();
        if is_planted(Bug::KeepProducersAfterCut) {
            return Ok(());
        }
        self.producers = ProducerStates::default();
        self.producers_saved_at = None;
        let point = RecoveryPoint { offset: to, log_start: self.log_start, has_producers };
        self.recover_producers(point, false)?;
        self.parts.cache.disk().sync_dir(&self.dir)?;
        Ok(())
    }

    fn byte_of(&self, to: Offset) -> Result<u64, OpenError> {
        let active = &self.active;
        let start = active.index.floor(to);
        let mut walk = Walk::new(&*active.file, &active.path, start, active.bytes);
        while let Some((header, position)) =
            walk.next_header().map_err(super::recovery::damage(0))?
        {
            if header.last_offset() >= to {
                return Ok(position);
            }
        }
        Ok(active.bytes)
    }

    fn rebuilt_index(&self) -> Result<super::index::SegmentIndex, OpenError> {
        let active = &self.active;
        let mut index = super::index::SegmentIndex::new(active.base_offset);
        let mut walk = Walk::new(&*active.file, &active.path, 0, active.bytes);
        while let Some((header, position)) =
            walk.next_header().map_err(super::recovery::damage(0))?
        {
            index.note(&header, position, self.parts.config.index_interval_bytes);
        }
        Ok(index)
    }
}
