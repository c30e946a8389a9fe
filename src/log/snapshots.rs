//! What the log knew of its producers at some offset, in a file.
//!
//! Invariants: there is always one on stable storage, or the batches from which it can be made again: those of a segment that
//! retention deletes, and what a log knows after it was cut; one that tells of more than the log holds is dropped.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint;
use super::local_log::{Log, LogParts};
use super::producer_state::ProducerStates;
use crate::model::Offset;
use crate::system::OpenMode;
use crate::system::disk::read_file;

const SNAPSHOT_KIND: &str = "strandline-producers";

/// Which of the files can be relied on.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Those that are on stable storage.
    pub durable: BTreeSet<Offset>,
    /// Those that the next flush makes so.
    pub pending: Vec<Offset>,
    /// The log is not cut below this.
    pub committed: Offset,
}

impl Snapshots {
    /// The newest one on stable storage that is not past an offset; 0 if there is none.
    pub(super) fn last_durable(&self, bound: Offset) -> Offset {
        self.durable.range(..=bound).next_back().copied().unwrap_or(0)
    }

    /// The log was cut: what lies past its end tells of what is gone.
    pub(super) fn cut(&mut self, to: Offset) {
        self.durable.retain(|offset| *offset <= to);
        self.pending.clear();
    }
}

impl Log {
    /// Writes the producers' snapshot at the log's end and drops older ones; no file where there are none.
    pub(super) fn save_producers(&mut self) -> std::io::Result<()> {
        if self.producers_saved_at == Some(self.log_end) {
            return Ok(());
        }
        let disk = self.parts.cache.disk();
        if !self.producers.is_empty() {
            let path = snapshot_path(&self.dir, self.log_end);
            let text = checkpoint::encode(SNAPSHOT_KIND, 1, &self.producers.lines());
            let file = disk.open(&path, OpenMode::Replace)?;
            file.write_at(&[std::io::IoSlice::new(text.as_bytes())], 0)?;
            self.unflushed.push(file);
            self.dir_changed = true;
            self.snapshots.pending.push(self.log_end);
        }
        self.producers_saved_at = Some(self.log_end);
        self.drop_snapshots()
    }

    /// Drops snapshots that are older than one that is surely on disk and below which the log is never cut; of a tiered log those
    /// stay from which that of a segment can be made that is to be copied.
    fn drop_snapshots(&mut self) -> std::io::Result<()> {
        let disk = self.parts.cache.disk();
        let offset =
            |entry: &crate::system::disk::Entry| super::segment::base_of(&entry.name, ".snapshot");
        let all: Vec<Offset> = disk.list(&self.dir)?.iter().filter_map(offset).collect();
        let is_tiered = self.parts.config.is_tiered;
        let bound = if is_tiered { self.copied_to } else { Offset::MAX };
        let needed = self.snapshots.last_durable(bound.min(self.snapshots.committed));
        for old in all.iter().filter(|offset| **offset < needed) {
            disk.remove(&snapshot_path(&self.dir, *old))?;
        }
        self.snapshots.durable = self.snapshots.durable.split_off(&needed);
        Ok(())
    }

    /// Reads the newest snapshot within the log's files that verifies: what was known before their first one says nothing of what
    /// producers sent from there to here.
    pub(super) fn load_producers(
        parts: &LogParts,
        dir: &std::path::Path,
        (base, end): (Offset, Offset),
    ) -> std::io::Result<Option<(Offset, ProducerStates)>> {
        let disk = parts.cache.disk();
        let names = disk.list(dir)?;
        let mut offsets: Vec<Offset> =
            names.iter().filter_map(|e| super::segment::base_of(&e.name, ".snapshot")).collect();
        offsets.sort_unstable();
        for offset in offsets.into_iter().rev().filter(|offset| (base..=end).contains(offset)) {
            let path = snapshot_path(dir, offset);
            match checkpoint::read(&**disk, &path, SNAPSHOT_KIND, 1) {
                Ok(Some(lines)) => {
                    if let Some(states) = ProducerStates::parse(&lines) {
                        return Ok(Some((offset, states)));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "producer snapshot dropped");
                }
            }
        }
        Ok(None)
    }

    /// Makes the snapshot that retention waits for, which the next flush makes durable; whether there is one to flush.
    pub(crate) fn snapshot_for_retention(&mut self) -> std::io::Result<bool> {
        if !std::mem::take(&mut self.retention_waits) {
            return Ok(false);
        }
        if self.snapshots.pending.is_empty() {
            // One that is there may be from before a crash or a cut: nobody knows whether it is durable.
            self.producers_saved_at = None;
            self.save_producers()?;
        }
        Ok(!self.snapshots.pending.is_empty())
    }

    /// Writes what the producers were at an offset past the log's end, before the log begins anew there: whatever happens
    /// then, it is known.
    pub(crate) fn write_snapshot(
        disk: &dyn crate::system::Disk,
        dir: &std::path::Path,
        offset: Offset,
        producers: &ProducerStates,
    ) -> std::io::Result<()> {
        let text = checkpoint::encode(SNAPSHOT_KIND, 1, &producers.lines());
        let file = disk.open(&snapshot_path(dir, offset), OpenMode::Replace)?;
        file.write_at(&[std::io::IoSlice::new(text.as_bytes())], 0)?;
        file.sync()?;
        disk.sync_dir(dir)
    }

    /// Takes on what another log of the same batches knows and they do not tell: epochs and producers of what was deleted, or is in
    /// remote storage only. It is durable with the next flush.
    pub(crate) fn learn_from(&mut self, other: &Log) -> std::io::Result<()> {
        let offset =
            |entry: &crate::system::disk::Entry| super::segment::base_of(&entry.name, ".snapshot");
        let disk = Arc::clone(self.parts.cache.disk());
        for own in disk.list(&self.dir)?.iter().filter_map(offset) {
            disk.remove(&snapshot_path(&self.dir, own))?;
        }
        self.snapshots = Snapshots::default();
        // All of them: the log may be cut, and any of its segments be the next that is copied to remote storage.
        let from = other.parts.cache.disk();
        for at in from.list(&other.dir)?.iter().filter_map(offset).filter(|at| *at <= self.log_end)
        {
            let text = read_file(&**from, &snapshot_path(&other.dir, at))?;
            let file = disk.open(&snapshot_path(&self.dir, at), OpenMode::Replace)?;
            file.write_at(&[std::io::IoSlice::new(&text)], 0)?;
            self.unflushed.push(file);
            self.snapshots.pending.push(at);
        }
        self.producers = other.producers.clone();
        self.producers_saved_at = None;
        self.epochs = other.epochs.clone();
        self.save_epochs()
    }

    /// Takes back what `write_snapshot` wrote.
    pub(crate) fn forget_snapshot(
        disk: &dyn crate::system::Disk,
        dir: &std::path::Path,
        offset: Offset,
    ) -> std::io::Result<()> {
        disk.remove(&snapshot_path(dir, offset))?;
        disk.sync_dir(dir)
    }

    /// Drops snapshots of more than the log holds: they tell of batches that are gone; others may take their offsets.
    pub(super) fn drop_snapshots_past(&self, end: Offset) -> std::io::Result<()> {
        self.drop_snapshots_where(|at| at > end)
    }

    /// Drops all but the one at an offset, if there is one.
    pub(super) fn drop_snapshots_but(&mut self, offset: Offset) -> std::io::Result<()> {
        self.snapshots.durable.retain(|at| *at == offset);
        self.drop_snapshots_where(|at| at != offset)
    }

    fn drop_snapshots_where(&self, goes: impl Fn(Offset) -> bool) -> std::io::Result<()> {
        let disk = self.parts.cache.disk();
        for entry in disk.list(&self.dir)? {
            if super::segment::base_of(&entry.name, ".snapshot").is_some_and(&goes) {
                disk.remove(&self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

fn snapshot_path(dir: &std::path::Path, offset: Offset) -> PathBuf {
    dir.join(format!("{offset:020}.snapshot"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::config::{Config, TopicConfig};
    use crate::log::{FileCache, Log, LogParts, RecoveryPoint, Stamp};
    use crate::model::{Offset, TopicPartition};
    use crate::record::{BatchBuilder, BatchHeader};
    use crate::system::Random;
    use crate::system::sim_disk::SimDisk;

    fn open(disk: &SimDisk, point: Offset, is_tiered: bool) -> Log {
        let mut config =
            TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new());
        (config.segment_bytes, config.retention_bytes) = (400, 0);
        (config.is_tiered, config.local_retention_bytes) = (is_tiered, 0);
        let cache = Arc::new(FileCache::new(Arc::new(disk.clone()), 8, 8));
        let parts = LogParts { cache, config: Arc::new(config) };
        let point = RecoveryPoint { offset: point, log_start: 0, has_producers: true };
        Log::open(TopicPartition::new("t", 0), "/data/t-0".into(), parts, point, 0)
            .expect("opens")
            .0
    }

    fn append(log: &mut Log, count: i32) {
        for _ in 0..count {
            let at = log.log_end();
            let sequence = i32::try_from(at).expect("small");
            let batch = BatchBuilder::new().producer(7, 0, sequence).record(at, None, Some(b"v"));
            let batch = batch.build();
            let header = BatchHeader::parse(&batch).expect("header");
            log.append(&header, &batch, Stamp { leader_epoch: 0, now_ms: at }).expect("appended");
        }
    }

    fn known(log: &Log) -> Vec<String> {
        log.producers().lines()
    }

    #[test]
    fn a_log_that_is_cut_after_retention_knows_its_producers() {
        let disk = SimDisk::default();
        let (mut log, mut other) = (open(&disk, 0, false), open(&SimDisk::default(), 0, false));
        append(&mut log, 30);
        log.close().expect("flushed");
        // What is past 31 is not committed.
        append(&mut log, 20);
        log.close().expect("flushed");
        append(&mut other, 31);
        for _ in 0..3 {
            log.apply_retention(1_000, 31).expect("deletes");
            log.snapshot_for_retention().expect("written");
            append(&mut log, 5);
            log.close().expect("flushed");
        }
        assert!(log.log_start() > 5, "{}", log.log_start());
        log.truncate(31).expect("cut");
        assert_eq!(known(&log), known(&other));
    }

    #[test]
    fn a_copy_knows_what_the_original_does_of_producers_whose_batches_are_gone() {
        let disk = SimDisk::default();
        let mut log = open(&disk, 0, false);
        append(&mut log, 30);
        log.close().expect("flushed");
        for _ in 0..3 {
            log.apply_retention(1_000, 31).expect("deletes");
            log.snapshot_for_retention().expect("written");
            append(&mut log, 5);
            log.close().expect("flushed");
        }
        let mut copy = open(&SimDisk::default(), 0, false);
        copy.restart_at(log.log_start()).expect("begun");
        let slice = |log: &Log, from| log.slice(from, log.end(), 1 << 20, true).expect("read");
        while let Some(slice) = slice(&log, copy.log_end()) {
            let bytes = slice.read().expect("read");
            let mut rest = &*bytes;
            while let Some((header, batch, after)) = crate::record::next_batch(rest) {
                rest = after;
                let batch = crate::log::NewBatch { header, bytes: batch };
                copy.append_fetched(&[batch], 0).expect("appended");
            }
        }
        assert_ne!(known(&copy), known(&log));
        copy.learn_from(&log).expect("learnt");
        copy.close().expect("flushed");
        for end in [45, 38, 31] {
            log.truncate(end).expect("cut");
            copy.truncate(end).expect("cut");
            assert_eq!((known(&copy), copy.epochs()), (known(&log), log.epochs()), "{end}");
        }
    }

    #[test]
    fn a_snapshot_that_nobody_flushed_takes_the_place_of_none() {
        for seed in 0..30 {
            let disk = SimDisk::default();
            let mut log = open(&disk, 0, true);
            append(&mut log, 30);
            log.close().expect("flushed");
            append(&mut log, 10);
            log.save_hints().expect("written");
            // The process dies, and then, when the log has gone on for a while, the power goes.
            drop(log);
            let mut log = open(&disk, 30, true);
            append(&mut log, 20);
            for _ in 0..3 {
                log.set_copied_to(44);
                log.apply_retention(1_000, 44).expect("deletes");
                log.snapshot_for_retention().expect("written");
                append(&mut log, 5);
                log.close().expect("flushed");
            }
            let end = log.log_end();
            drop(log);
            disk.crash(&Random::seeded(seed));
            // All of it was flushed: what the dead process had closed, too.
            let mut log = open(&disk, end, true);
            log.truncate(44).expect("cut");
            let mut other = open(&SimDisk::default(), 0, true);
            append(&mut other, 44);
            assert_eq!(known(&log), known(&other), "seed {seed}");
        }
    }
}
