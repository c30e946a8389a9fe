//! Puts what the cleaner wrote in the place of the segments that it was made of.
//!
//! Invariants: a crash at any moment leaves all of the old segments or the new one: where several become one, a file whose
//! name says which they are is durable before the first of them goes, and the next start finishes what was begun; no index is
//! there before the log that it is of; what is not used is removed.
//! Left to others: what is written (`cleaner.rs`).

use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::SegmentIndex;
use super::local_log::{Log, LogParts};
use super::segment::{Segment, base_of, log_name};
use crate::config::TopicConfig;
use crate::model::Offset;
use crate::model::number::{to_u64, to_usize};
use crate::record::BatchHeader;
use crate::system::{Disk, OpenMode, SharedFile};

/// What a log that is being written ends with; its indexes end with theirs and this.
pub(super) const WRITTEN: &str = "cleaned";
const SWAP_ENDING: &str = ".swap";
const INDEXES: [&str; 3] = ["index", "timeindex", "txnindex"];
/// Written at a time.
const BUFFER_BYTES: usize = 256 << 10;
const INDEX_ENTRY_BYTES: usize = 8;

/// A segment that is written beside those that it is made of.
#[derive(Debug)]
pub(super) struct NewSegment {
    /// What it is made of, oldest first.
    pub old: Vec<Arc<Segment>>,
    /// The first offset past it.
    pub end: Offset,
    pub bytes: u64,
    /// Whether anything was taken away.
    pub is_changed: bool,
    /// Whether there are batches without records.
    has_bare: bool,
    /// What becomes the last batch if nothing comes after it: offsets do not end before those of the old segments.
    last: Option<Vec<u8>>,
    index: SegmentIndex,
    path: PathBuf,
    file: SharedFile,
    buffer: Vec<u8>,
}

impl NewSegment {
    /// Begins one with the first segment of those that it is to be made of.
    pub(super) fn begin(parts: &LogParts, first: &Segment) -> io::Result<Self> {
        let file =
            parts.cache.disk().open(&first.path.with_extension(WRITTEN), OpenMode::Replace)?;
        Ok(Self {
            old: Vec::new(),
            end: first.base_offset,
            bytes: 0,
            is_changed: false,
            has_bare: false,
            last: None,
            index: SegmentIndex::new(first.base_offset),
            path: first.path.clone(),
            file,
            buffer: Vec::new(),
        })
    }

    /// Whether a segment can become a part of it, however much of it stays.
    pub(super) fn has_room_for(
        &self,
        segment: &Segment,
        end: Offset,
        config: &TopicConfig,
    ) -> bool {
        let entries = to_usize(segment.bytes / config.index_interval_bytes.max(1)) + 1;
        self.bytes + segment.bytes <= config.segment_bytes
            && self.index.offset_bytes() + INDEX_ENTRY_BYTES * entries <= config.segment_index_bytes
            && i32::try_from(end - self.index.base_offset).is_ok()
    }

    /// Adds a batch.
    pub(super) fn push(&mut self, batch: &[u8], interval_bytes: u64) -> io::Result<()> {
        if let Some(header) = BatchHeader::parse(batch) {
            self.index.note(&header, self.bytes, interval_bytes);
            self.has_bare |= header.count == 0;
        }
        self.last = None;
        self.buffer.extend_from_slice(batch);
        self.bytes += to_u64(batch.len());
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
    }

    /// Holds a batch without records back, which is needed only if it is the last one.
    pub(super) fn hold_last(&mut self, batch: Vec<u8>) {
        self.last = Some(batch);
    }

    /// Up to where it is known that nothing has to be healed.
    pub(super) fn sound_to(&self) -> u64 {
        if self.has_bare || self.last.is_some() { 0 } else { u64::MAX }
    }

    /// Whether the segment that it is made of is as good.
    pub(super) fn is_needless(&self) -> bool {
        self.old.len() == 1 && !self.is_changed
    }

    /// Makes it durable, with its indexes.
    pub(super) fn finish(&mut self, disk: &dyn Disk, interval_bytes: u64) -> io::Result<()> {
        if let Some(last) = self.last.take() {
            self.push(&last, interval_bytes)?;
        }
        self.write()?;
        self.file.sync()?;
        self.index.close();
        let (offsets, times) = self.index.encode(0, 0);
        for (ending, bytes) in [("index", offsets), ("timeindex", times)] {
            let file = disk.open(&self.written_index(ending), OpenMode::Replace)?;
            file.write_at(&[IoSlice::new(&bytes)], 0)?;
            file.sync()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let at = self.bytes - to_u64(self.buffer.len());
        self.file.write_at(&[IoSlice::new(&self.buffer)], at)?;
        self.buffer.clear();
        Ok(())
    }

    fn written(&self) -> PathBuf {
        self.path.with_extension(WRITTEN)
    }

    fn written_index(&self, ending: &str) -> PathBuf {
        self.path.with_extension(format!("{ending}.{WRITTEN}"))
    }

    /// Removes what was written, as far as it is there: the next start would, too.
    pub(super) fn discard(&self, disk: &dyn Disk) {
        let _ = disk.remove(&self.written());
        for ending in INDEXES {
            let _ = disk.remove(&self.written_index(ending));
        }
    }

    /// Where several become one: the name that says which; from when it is durable on they are one.
    fn mark(&self) -> Option<PathBuf> {
        let name = swap_name(self.index.base_offset, self.end);
        (self.old.len() > 1).then(|| self.path.with_file_name(name))
    }
}

fn swap_name(base_offset: Offset, end: Offset) -> String {
    format!("{base_offset:020}-{end:020}{SWAP_ENDING}")
}

/// The offsets of the segments that a file stands for.
fn swapped(name: &str) -> Option<std::ops::Range<Offset>> {
    let (base, end) = name.strip_suffix(SWAP_ENDING)?.split_once('-')?;
    let number = |digits: &str| base_of(digits, "");
    Some(number(base)?..number(end)?)
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove(path).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// The steps of a swap; after each one the folder is flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// What several segments become gets the name by which the next start knows it.
    Mark,
    /// What the new segments take the place of goes: indexes, and logs of other names.
    RemoveOld,
    /// The new logs get their names.
    Name,
}

impl Step {
    pub(super) const ALL: [Self; 3] = [Self::Mark, Self::RemoveOld, Self::Name];
}

/// Carries out one step for one segment.
pub(super) fn step(disk: &dyn Disk, new: &NewSegment, step: Step) -> io::Result<()> {
    match (step, new.mark()) {
        (Step::Mark, Some(mark)) => disk.rename(&new.written(), &mark),
        (Step::Mark, None) => Ok(()),
        (Step::RemoveOld, _) => {
            for old in &new.old {
                for ending in INDEXES {
                    remove_if_there(disk, &old.path.with_extension(ending))?;
                }
                if old.path != new.path {
                    remove_if_there(disk, &old.path)?;
                }
            }
            Ok(())
        }
        (Step::Name, mark) => disk.rename(&mark.unwrap_or_else(|| new.written()), &new.path),
    }
}

impl Log {
    /// Puts new segments in place of the old ones, but for those whose old ones are not the log's any more. Returns where the
    /// first of these begins: from there on the log is as it was.
    pub(super) fn swap_in(&mut self, segments: Vec<NewSegment>) -> io::Result<Option<Offset>> {
        let disk = Arc::clone(self.parts.cache.disk());
        let holds = |new: &NewSegment| new.old.iter().all(|old| self.holds(old));
        let (good, stale): (Vec<_>, Vec<_>) = segments.into_iter().partition(holds);
        stale.iter().for_each(|new| new.discard(&*disk));
        let stale_from = stale.first().map(|new| new.index.base_offset);
        if good.is_empty() {
            return Ok(stale_from);
        }
        for old in good.iter().flat_map(|new| &new.old) {
            old.retire();
        }
        for at in Step::ALL {
            if at == Step::Mark && good.iter().all(|new| new.mark().is_none()) {
                continue;
            }
            for new in &good {
                step(&*disk, new, at)?;
            }
            disk.sync_dir(&self.dir)?;
        }
        for new in good {
            for ending in ["index", "timeindex"] {
                // A hint: it is made again where it is missing.
                let _ = disk.rename(&new.written_index(ending), &new.path.with_extension(ending));
            }
            for old in &new.old {
                self.closed.remove(&old.base_offset);
            }
            let base = new.index.base_offset;
            let sound_to = new.sound_to();
            let segment = Segment::new(&self.parts.cache, base, new.path, new.bytes);
            segment.note_sound(0, sound_to);
            self.closed.insert(base, Arc::new(segment));
        }
        self.dir_changed = true;
        Ok(stale_from)
    }
}

/// Finishes what a stop in the middle of a swap left; whether there was anything.
pub(super) fn finish_swaps(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let entries = disk.list(dir)?;
    let marks: Vec<_> =
        entries.iter().filter_map(|entry| Some((swapped(&entry.name)?, &entry.name))).collect();
    for (offsets, mark) in &marks {
        for entry in &entries {
            let base = |ending: &str| base_of(&entry.name, &format!(".{ending}"));
            let is_old_index = INDEXES.into_iter().filter_map(base).any(|at| offsets.contains(&at));
            let is_old_log = base("log").is_some_and(|at| at > offsets.start && at < offsets.end);
            if is_old_index || is_old_log {
                disk.remove(&dir.join(&entry.name))?;
            }
        }
        disk.sync_dir(dir)?;
        disk.rename(&dir.join(mark), &dir.join(log_name(offsets.start)))?;
        disk.sync_dir(dir)?;
    }
    Ok(!marks.is_empty())
}
