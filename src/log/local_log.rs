//! The log itself: what it holds, where it ends, what is durable.
//!
//! Invariants: `log_start <= recovery_point <= log_end` but for a trimmed empty log; closed segments lie below the
//! active one without gaps but those that compaction leaves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::age::Age;
use super::append::RESERVE_FROM_BYTES;
use super::checkpoint;
use super::error::OpenError;
use super::file_cache::{FileCache, OpenLog, SegmentId};
use super::index::SegmentIndex;
use super::leader_epochs::LeaderEpochs;
use super::producer_state::ProducerStates;
use super::segment::{Segment, log_name};
use super::snapshots::Snapshots;
use crate::config::TopicConfig;
use crate::model::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use crate::system::disk::is_no_room;
use crate::system::{OpenMode, SharedFile, wait_here};

const EPOCHS_FILE: &str = "leader-epoch-checkpoint";
const EPOCHS_KIND: &str = "strandline-leader-epochs";

/// A place between two batches. What it knows of files is a hint, and only for as long as they are what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub offset: Offset,
    /// The segment that ends or goes on there, and the byte in its file; `None` if nobody has looked.
    pub place: Option<(SegmentId, u64)>,
}

impl Position {
    /// Where a batch begins or the log ends; who reads up to there has to look for the byte.
    pub(crate) fn at(offset: Offset) -> Self {
        Self { offset, place: None }
    }
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    /// Another one after each cut: what was noted of bytes before says nothing of those that come in their place.
    pub id: SegmentId,
    pub base_offset: Offset,
    pub path: PathBuf,
    pub file: SharedFile,
    pub bytes: u64,
    /// Up to where room was reserved on the disk; nothing to give back if it is not past `bytes`.
    pub reserved: u64,
    pub index: SegmentIndex,
    pub age: Age,
    /// Whether it is known to hold no batch that has to be healed (`healing.rs`).
    pub is_sound: bool,
}

/// What a flush has to make durable.
#[derive(Debug)]
pub(crate) struct FlushJob {
    pub files: Vec<SharedFile>,
    /// The folder, if names in it are new.
    pub dir: Option<PathBuf>,
    pub end: Position,
    /// Snapshots of producers among the files.
    snapshots: Vec<Offset>,
    /// How often the log had been cut when the job began.
    cuts: u64,
}

/// What all logs of a directory share.
#[derive(Debug, Clone)]
pub(crate) struct LogParts {
    pub cache: Arc<FileCache>,
    pub config: Arc<TopicConfig>,
}

/// One partition's log.
#[derive(Debug)]
pub(crate) struct Log {
    pub partition: TopicPartition,
    pub dir: PathBuf,
    pub(super) parts: LogParts,
    pub(super) closed: BTreeMap<Offset, Arc<Segment>>,
    pub(super) active: Active,
    pub(super) log_start: Offset,
    pub(super) log_end: Offset,
    pub(super) recovery_point: Offset,
    pub(super) unflushed: Vec<SharedFile>,
    pub(super) unflushed_bytes: u64,
    pub(super) dir_changed: bool,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerStates,
    pub(super) producers_saved_at: Option<Offset>,
    pub(super) snapshots: Snapshots,
    /// Whether retention waits for a snapshot: segments that it could be made again from are not deleted before.
    pub(super) retention_waits: bool,
    /// Up to where a tiered log is known to be in remote storage.
    pub(super) copied_to: Offset,
    /// Up to where the cleaner has been.
    pub(super) cleaned_to: Offset,
    /// Whether it was compacted at some time since it was opened.
    pub(super) was_compacted: bool,
    /// Time taken off `segment.ms`, fixed for the active segment.
    pub(super) roll_jitter_ms: i64,
    /// How often the log was truncated since it was opened.
    pub(super) cuts: u64,
    #[expect(dead_code, reason = "what counts is when it goes")]
    pub(super) open: OpenLog,
}

impl Log {
    pub(crate) fn config(&self) -> &TopicConfig {
        &self.parts.config
    }

    pub(crate) fn shared_config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.parts.config)
    }

    pub(crate) fn set_config(&mut self, config: Arc<TopicConfig>) {
        self.was_compacted |= self.parts.config.is_compacted;
        self.parts.config = config;
    }

    pub(crate) fn log_start(&self) -> Offset {
        self.log_start
    }

    pub(crate) fn log_end(&self) -> Offset {
        self.log_end
    }

    pub(crate) fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    pub(crate) fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    pub(crate) fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Where the next batch goes.
    pub(crate) fn end(&self) -> Position {
        Position { offset: self.log_end, place: Some((self.active.id, self.active.bytes)) }
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.closed.values().map(|s| s.bytes).sum::<u64>() + self.active.bytes
    }

    #[cfg(test)]
    pub(crate) fn segments(&self) -> usize {
        self.closed.len() + 1
    }

    /// Forgets producers that were idle too long.
    pub(crate) fn expire_producers(&mut self, now_ms: Timestamp, expiration_ms: i64) {
        self.producers.expire(now_ms, expiration_ms);
    }

    /// What must be flushed to make the log durable up to its end; `None` if nothing is dirty.
    pub(crate) fn flush_job(&mut self) -> Option<FlushJob> {
        if self.recovery_point == self.log_end && self.unflushed.is_empty() && !self.dir_changed {
            return None;
        }
        let mut files = std::mem::take(&mut self.unflushed);
        files.push(Arc::clone(&self.active.file));
        let dir = std::mem::take(&mut self.dir_changed).then(|| self.dir.clone());
        self.unflushed_bytes = 0;
        let snapshots = std::mem::take(&mut self.snapshots.pending);
        Some(FlushJob { files, dir, end: self.end(), snapshots, cuts: self.cuts })
    }

    /// Notes that a flush job was carried out; `false` if the log was cut meanwhile, and nothing is known by it.
    pub(crate) fn flushed(&mut self, job: &FlushJob) -> bool {
        if job.cuts != self.cuts {
            return false;
        }
        let end = job.end.offset;
        assert!(end <= self.log_end, "flushed past the end of {}", self.partition);
        self.recovery_point = self.recovery_point.max(end);
        self.snapshots.durable.extend(&job.snapshots);
        true
    }

    /// Closes the active segment and begins the next one at the log's end.
    pub(super) fn roll(&mut self) -> std::io::Result<()> {
        self.roll_at(self.log_end)
    }

    /// The same, where the next segment begins with a given offset.
    pub(super) fn roll_at(&mut self, base_offset: Offset) -> std::io::Result<()> {
        // Files are written and made: on a slow disk that takes its time.
        wait_here(|| self.begin_segment(base_offset))
    }

    fn begin_segment(&mut self, base_offset: Offset) -> std::io::Result<()> {
        let disk = Arc::clone(self.parts.cache.disk());
        self.active.index.save(&*disk, &self.active.path, true)?;
        self.release()?;
        let next = open_active(&self.parts, &self.dir, base_offset)?;
        let old = std::mem::replace(&mut self.active, next);
        self.dir_changed = true;
        self.unflushed.push(Arc::clone(&old.file));
        let (cache, file) = (&self.parts.cache, (old.path, old.bytes));
        let closed = Segment::with_id(cache, old.id, old.base_offset, file);
        if old.is_sound {
            closed.note_sound(0, u64::MAX);
        }
        self.closed.insert(old.base_offset, Arc::new(closed));
        self.save_producers()?;
        Ok(())
    }

    /// Gives back the room that was reserved past the active segment's end.
    fn release(&mut self) -> std::io::Result<()> {
        if self.active.reserved > self.active.bytes {
            self.active.file.set_len(self.active.bytes)?;
        }
        self.active.reserved = 0;
        Ok(())
    }

    /// Notes that an epoch begins at the log's end. The file becomes durable with the first records of the epoch.
    pub(super) fn begin_epoch(&mut self, epoch: LeaderEpoch) -> std::io::Result<()> {
        self.begin_epoch_at(epoch, self.log_end)
    }

    pub(super) fn begin_epoch_at(&mut self, epoch: LeaderEpoch, at: Offset) -> std::io::Result<()> {
        if !self.epochs.is_news(epoch) {
            return Ok(());
        }
        let before = self.epochs.clone();
        self.epochs.assign(epoch, at);
        let saved = self.save_epochs();
        if saved.is_err() {
            // It is to be written with the next try.
            self.epochs = before;
        }
        saved
    }

    /// Writes the epochs' file; it becomes durable with the next flush.
    pub(super) fn save_epochs(&mut self) -> std::io::Result<()> {
        let disk = Arc::clone(self.parts.cache.disk());
        let (path, tmp) = (self.dir.join(EPOCHS_FILE), self.dir.join(format!("{EPOCHS_FILE}.tmp")));
        let file = disk.open(&tmp, OpenMode::Replace)?;
        let text = checkpoint::encode(EPOCHS_KIND, 1, &self.epochs.lines());
        file.write_at(&[std::io::IoSlice::new(text.as_bytes())], 0)?;
        disk.rename(&tmp, &path)?;
        self.unflushed.push(file);
        self.dir_changed = true;
        Ok(())
    }

    /// `None` where the file is missing or did not survive a crash whole: then the batches tell the epochs.
    pub(super) fn load_epochs(
        parts: &LogParts,
        dir: &std::path::Path,
    ) -> std::io::Result<Option<LeaderEpochs>> {
        match checkpoint::read(&**parts.cache.disk(), &dir.join(EPOCHS_FILE), EPOCHS_KIND, 1) {
            Ok(lines) => Ok(lines.and_then(|lines| LeaderEpochs::parse(&lines))),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Saves index entries and producers so that a recovery from the recovery point has little to read.
    pub(crate) fn save_hints(&mut self) -> std::io::Result<()> {
        let disk = Arc::clone(self.parts.cache.disk());
        self.active.index.save(&*disk, &self.active.path, false)?;
        self.save_producers()
    }

    /// The file that is written to, and where it is.
    pub(crate) fn active_file(&self) -> (PathBuf, SharedFile) {
        (self.active.path.clone(), Arc::clone(&self.active.file))
    }

    /// What a clean stop leaves: flushed bytes, whole indexes, a snapshot.
    pub(crate) fn close(&mut self) -> Result<(), OpenError> {
        self.save_hints()?;
        self.make_durable()
    }

    /// The same after a recovery, which a full disk does not keep from being read: without hints the next one reads as much again.
    pub(super) fn close_recovered(&mut self) -> Result<(), OpenError> {
        match self.save_hints() {
            Err(error) if is_no_room(&error) => {
                tracing::warn!(partition = %self.partition, %error, "no room for what a recovery learned: the next one begins anew");
            }
            saved => saved?,
        }
        self.make_durable()
    }

    fn make_durable(&mut self) -> Result<(), OpenError> {
        self.release()?;
        if let Some(job) = self.flush_job() {
            for file in &job.files {
                file.sync()?;
            }
            if let Some(dir) = &job.dir {
                self.parts.cache.disk().sync_dir(dir)?;
            }
            self.flushed(&job);
        }
        Ok(())
    }
}

/// Opens (or makes) the file that will be the active segment.
pub(super) fn open_active(
    parts: &LogParts,
    dir: &std::path::Path,
    base_offset: Offset,
) -> std::io::Result<Active> {
    let path = dir.join(log_name(base_offset));
    let file = parts.cache.disk().open(&path, OpenMode::Write)?;
    let bytes = file.bytes()?;
    let (index, is_sound) = (SegmentIndex::new(base_offset), bytes == 0);
    // A crash leaves room reserved that nobody remembers: it is given back with the rest.
    let may_be_more = bytes >= RESERVE_FROM_BYTES || parts.config.preallocate;
    let reserved = if may_be_more { bytes + 1 } else { 0 };
    let (id, age) = (parts.cache.new_id(&path), Age::default());
    Ok(Active { id, base_offset, path, file, bytes, reserved, index, age, is_sound })
}
