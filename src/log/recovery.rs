//! Opening a log, after a clean stop or a crash.
//!
//! Invariants: only what lies after the recovery point is read; a torn tail is cut at the last good batch; what was
//! recovered is flushed before the log is given out; damage below the recovery point refuses the log and changes
//! nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{OpenError, ReadError};
use super::follow::is_far;
use super::index::SegmentIndex;
use super::local_log::{Active, Log, LogParts, open_active};
use super::producer_state::ProducerStates;
use super::segment::{Segment, Walk, base_of};
use super::snapshots::Snapshots;
use super::swapping::{WRITTEN, finish_swaps};
use crate::model::number::to_u64;
use crate::model::{Offset, TopicPartition};
use crate::record::batch::checksum;
use crate::system::planted::{Bug, is_planted};

/// What the log directory's checkpoint says of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RecoveryPoint {
    pub offset: Offset,
    pub log_start: Offset,
    /// Whether there were idempotent producers; if not, no snapshot is looked for.
    pub has_producers: bool,
}

/// What recovery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Recovered {
    pub bytes_checked: u64,
    pub bytes_cut: u64,
}

/// The end of a scan.
struct Scan {
    byte: u64,
    next_offset: Offset,
    checked: u64,
}

impl Log {
    /// Opens the log in `dir`, making it if the folder is empty.
    pub(crate) fn open(
        partition: TopicPartition,
        dir: PathBuf,
        parts: LogParts,
        point: RecoveryPoint,
        roll_jitter_ms: i64,
    ) -> Result<(Self, Recovered), OpenError> {
        let disk = Arc::clone(parts.cache.disk());
        let open = parts.cache.open_log()?;
        if !disk.exists(&dir) {
            disk.create_dir_all(&dir)?;
            disk.sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
        }
        if finish_swaps(&*disk, &dir)? {
            tracing::info!(%partition, "a compaction that was stopped was finished");
        }
        let mut closed = list_segments(&parts, &dir)?;
        let mut recovered = Recovered::default();
        if closed.keys().next().is_some_and(|first| *first > point.offset.max(point.log_start)) {
            if point.offset > point.log_start {
                return Err(OpenError::Missing { path: dir, end: 0, recovery_point: point.offset });
            }
            // Retention stays below the recovery point, so the segments before these were lost unflushed.
            for segment in std::mem::take(&mut closed).into_values() {
                recovered.bytes_cut += segment.bytes;
                segment.delete_files(&parts.cache);
            }
        }
        let active = match closed.pop_last() {
            None if point.offset > point.log_start.max(0) => {
                return Err(OpenError::Missing { path: dir, end: 0, recovery_point: point.offset });
            }
            None => open_active(&parts, &dir, point.log_start.max(point.offset))?,
            Some((base, _)) => open_active(&parts, &dir, base)?,
        };
        let epochs = Self::load_epochs(&parts, &dir)?;
        let are_epochs_lost = epochs.is_none();
        let mut log = Self {
            open,
            partition,
            dir,
            log_start: point
                .log_start
                .max(closed.keys().next().copied().unwrap_or(active.base_offset)),
            log_end: active.base_offset,
            recovery_point: point.offset,
            unflushed: Vec::new(),
            unflushed_bytes: 0,
            // A process that was killed may have left names of files that no disk knows yet.
            dir_changed: true,
            producers: ProducerStates::default(),
            producers_saved_at: None,
            snapshots: Snapshots::default(),
            retention_waits: false,
            copied_to: 0,
            cleaned_to: 0,
            was_compacted: false,
            roll_jitter_ms,
            cuts: 0,
            epochs: epochs.unwrap_or_default(),
            closed,
            active,
            parts,
        };
        log.recover_segments(point, &mut recovered)?;
        log.drop_snapshots_past(log.log_end)?;
        log.recover_producers(point, are_epochs_lost)?;
        log.epochs.truncate_end(log.log_end);
        log.take_beginning()?;
        if recovered.bytes_checked > 0 || recovered.bytes_cut > 0 {
            // Flushed before it is served: the page cache alone may have survived the process, not the power.
            log.close_recovered()?;
        } else {
            log.recovery_point = log.log_end;
        }
        Ok((log, recovered))
    }

    fn recover_segments(
        &mut self,
        point: RecoveryPoint,
        recovered: &mut Recovered,
    ) -> Result<(), OpenError> {
        // Closed segments past the recovery point were not flushed; the first bad batch ends the log there.
        for (segment, next_base) in self.suspects(point.offset) {
            let file = segment.file()?;
            let mut index = SegmentIndex::new(segment.base_offset);
            let scan = scan(
                &*file,
                &segment.path,
                segment.bytes,
                &mut index,
                (0, segment.base_offset),
                point.offset,
            )?;
            recovered.bytes_checked += scan.checked;
            // A file whose name was not durable may be missing between two that are there.
            let is_gap = scan.next_offset != next_base && !is_far(scan.next_offset, next_base);
            if scan.byte < segment.bytes || is_gap {
                self.end_at(&segment, recovered)?;
                break;
            }
            // Maybe only the page cache has it.
            self.unflushed.push(file);
            self.parts.cache.forget(segment.id);
            let disk = Arc::clone(self.parts.cache.disk());
            SegmentIndex::remove(&*disk, &segment.path);
            index.save_if_room(&*disk, &segment.path)?;
        }
        let (scan, index) = self.scan_active(point.offset)?;
        recovered.bytes_checked += scan.checked;
        if scan.next_offset < point.offset && scan.byte < self.active.bytes {
            return Err(OpenError::Damaged {
                path: self.active.path.clone(),
                position: scan.byte,
                recovery_point: point.offset,
            });
        }
        // Where nothing past the start is promised, what is before it may be anything: a log that was to begin anew.
        if scan.next_offset < point.offset && point.offset > point.log_start {
            return Err(OpenError::Missing {
                path: self.active.path.clone(),
                end: scan.next_offset,
                recovery_point: point.offset,
            });
        }
        if scan.byte < self.active.bytes {
            recovered.bytes_cut += self.active.bytes - scan.byte;
            self.active.file.set_len(scan.byte)?;
        }
        self.active.bytes = scan.byte;
        self.active.index = index;
        self.log_end = scan.next_offset.max(self.log_start);
        Ok(())
    }

    /// Closed segments that reach past the recovery point, each with the next segment's base.
    fn suspects(&self, recovery_point: Offset) -> Vec<(Arc<Segment>, Offset)> {
        let next_bases = self.closed.keys().skip(1).copied().chain([self.active.base_offset]);
        let pairs = self.closed.values().zip(next_bases);
        pairs
            .filter(|(_, next)| *next > recovery_point)
            .map(|(segment, next)| (Arc::clone(segment), next))
            .collect()
    }

    /// Makes a closed segment with a torn tail the active one; what follows it was never durable.
    fn end_at(&mut self, segment: &Segment, recovered: &mut Recovered) -> Result<(), OpenError> {
        let later: Vec<Offset> =
            self.closed.range(segment.base_offset..).map(|(base, _)| *base).collect();
        let mut cut = |log: &mut Self, path: &Path, bytes: u64| {
            recovered.bytes_cut += bytes;
            let cache = &log.parts.cache;
            Segment::new(cache, 0, path.to_owned(), bytes).delete_files(cache);
        };
        let (path, bytes) = (self.active.path.clone(), self.active.bytes);
        cut(self, &path, bytes);
        for base in later {
            if let Some(removed) =
                self.closed.remove(&base).filter(|s| s.base_offset != segment.base_offset)
            {
                cut(self, &removed.path, removed.bytes);
            }
        }
        self.active = open_active(&self.parts, &self.dir, segment.base_offset)?;
        Ok(())
    }

    /// Scans the active segment from the last index entry below the recovery point.
    fn scan_active(&self, recovery_point: Offset) -> Result<(Scan, SegmentIndex), OpenError> {
        let Active { base_offset, path, file, bytes, .. } = &self.active;
        let disk = self.parts.cache.disk();
        if let Some(mut index) = SegmentIndex::load(&**disk, path, *base_offset, *bytes) {
            index.truncate(recovery_point, *bytes);
            if let Some(start) = trusted_start(&**file, path, &index, *bytes) {
                let scan = scan(&**file, path, *bytes, &mut index, start, recovery_point)?;
                if scan.next_offset >= recovery_point {
                    return Ok((scan, index));
                }
            }
        }
        let mut index = SegmentIndex::new(*base_offset);
        let scan = scan(&**file, path, *bytes, &mut index, (0, *base_offset), recovery_point)?;
        Ok((scan, index))
    }

    /// Replays headers past the newest snapshot for what producers sent, and for epochs that began there.
    pub(super) fn recover_producers(
        &mut self,
        point: RecoveryPoint,
        are_epochs_lost: bool,
    ) -> Result<(), OpenError> {
        let base = self.closed.keys().next().copied().unwrap_or(self.active.base_offset);
        let snapshot = Self::load_producers(&self.parts, &self.dir, (base, self.log_end))?;
        let from = match snapshot {
            Some((offset, states)) => {
                self.producers = states;
                offset
            }
            None if point.has_producers => self.log_start,
            None => point.offset,
        };
        if is_planted(Bug::ForgetProducersAtStart) {
            self.producers = ProducerStates::default();
            return Ok(());
        }
        self.producers_saved_at = Some(from);
        let read_from = if are_epochs_lost { self.log_start } else { from.min(point.offset) };
        if read_from >= self.log_end {
            return Ok(());
        }
        let mut segments: Vec<Option<Arc<Segment>>> =
            self.closed.values().cloned().map(Some).collect();
        segments.push(None);
        let base = |segment: &Option<Arc<Segment>>| {
            segment.as_ref().map_or(self.active.base_offset, |segment| segment.base_offset)
        };
        let first = segments.partition_point(|s| base(s) <= read_from).saturating_sub(1);
        for segment in segments.split_off(first) {
            let (file, path, start, bytes) = if let Some(segment) = &segment {
                (segment.file()?, &segment.path, 0, segment.bytes)
            } else {
                let Active { file, path, index, bytes, .. } = &self.active;
                (Arc::clone(file), path, index.floor(read_from), *bytes)
            };
            let mut walk = Walk::new(&*file, path, start, bytes);
            while let Some((header, _)) = walk.next_header().map_err(damage(point.offset))? {
                self.epochs.assign(header.leader_epoch, header.base_offset);
                if header.base_offset >= from {
                    self.producers.note(&header);
                }
            }
        }
        Ok(())
    }
}

pub(super) fn damage(recovery_point: Offset) -> impl Fn(ReadError) -> OpenError {
    move |error| match error {
        ReadError::Corrupt { path, position } => {
            OpenError::Damaged { path, position, recovery_point }
        }
        ReadError::Disk(error) => OpenError::Disk(error),
        ReadError::OutOfRange { .. } => OpenError::Disk(std::io::Error::other(error.to_string())),
    }
}

/// The byte of the last index entry and the offset of its batch, if the file agrees with the index.
fn trusted_start(
    file: &dyn crate::system::DiskFile,
    path: &Path,
    index: &SegmentIndex,
    bytes: u64,
) -> Option<(u64, Offset)> {
    let Some(entry) = index.last() else { return Some((0, index.base_offset)) };
    let (header, position) =
        Walk::new(file, path, entry.position.into(), bytes).next_header().ok()??;
    let agrees = header.last_offset() == index.base_offset + i64::from(entry.last_offset);
    agrees.then_some((position, header.base_offset))
}

/// Walks batches from `start`, notes them in the index, and stops at the first bad one. Batches past the recovery
/// point have their checksum verified.
fn scan(
    file: &dyn crate::system::DiskFile,
    path: &Path,
    bytes: u64,
    index: &mut SegmentIndex,
    start: (u64, Offset),
    recovery_point: Offset,
) -> Result<Scan, OpenError> {
    let mut walk = Walk::new(file, path, start.0, bytes);
    let mut end = Scan { byte: start.0, next_offset: start.1, checked: 0 };
    let mut batch = Vec::new();
    let skip = index.last().map(|entry| u64::from(entry.position));
    loop {
        let (header, position) = match walk.next_header() {
            Ok(Some(found)) => found,
            Ok(None) | Err(ReadError::Corrupt { .. } | ReadError::OutOfRange { .. }) => {
                return Ok(end);
            }
            Err(ReadError::Disk(error)) => return Err(error.into()),
        };
        if header.base_offset < end.next_offset || header.last_offset_delta < 0 {
            return Ok(end);
        }
        if header.last_offset() >= recovery_point {
            walk.batch_into(&header, position, &mut batch).map_err(damage(recovery_point))?;
            end.checked += to_u64(batch.len());
            if checksum(&batch) != Some(header.crc) {
                return Ok(end);
            }
        }
        if skip != Some(position) {
            index.note(&header, position, 4096);
        }
        end.byte = position + to_u64(header.total_bytes());
        end.next_offset = header.last_offset() + 1;
    }
}

fn list_segments(
    parts: &LogParts,
    dir: &Path,
) -> Result<BTreeMap<Offset, Arc<Segment>>, OpenError> {
    let mut segments = BTreeMap::new();
    for entry in parts.cache.disk().list(dir)? {
        let path = dir.join(&entry.name);
        let ending = entry.name.rsplit_once('.').map_or("", |(_, ending)| ending);
        if matches!(ending, "deleted" | "tmp" | WRITTEN) {
            parts.cache.disk().remove(&path)?;
        } else if let Some(base) = base_of(&entry.name, ".log") {
            let segment = Segment::new(&parts.cache, base, path, entry.bytes);
            segments.insert(base, Arc::new(segment));
        }
    }
    Ok(segments)
}
