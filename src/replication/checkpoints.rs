//! The recovery points of a log directory.
//!
//! Invariants: a recovery point that is written was flushed before; the file is replaced whole.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::log_directory::LogDirectory;
use super::partition::{Partition, State};
use crate::log::{RecoveryPoint, checkpoint};
use crate::model::{Offset, TopicPartition};
use crate::system::Disk;
use crate::system::disk::is_shortage;
use crate::system::planted::{Bug, is_planted};

const FILE: &str = "recovery-points";
const KIND: &str = "strandline-recovery-points";
const CLEAN_FILE: &str = "clean-shutdown";
const CLEAN_KIND: &str = "strandline-clean-shutdown";

/// What is known of a log without opening it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub recovery: RecoveryPoint,
    pub high_watermark: Offset,
}

/// Points by partition folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Points(pub HashMap<String, Point>);

impl Points {
    pub(super) fn load(disk: &dyn Disk, directory: &Path) -> io::Result<Self> {
        let lines = checkpoint::read(disk, &directory.join(FILE), KIND, 1)?.unwrap_or_default();
        let parsed: Option<HashMap<_, _>> = lines.iter().map(|line| parse(line)).collect();
        parsed.map(Self).ok_or_else(|| io::Error::other("recovery-points is malformed"))
    }

    fn lines(&self) -> Vec<String> {
        let line = |(name, point): (&String, &Point)| {
            let RecoveryPoint { offset, log_start, has_producers } = point.recovery;
            let producers = i32::from(has_producers);
            format!("{name} {offset} {log_start} {producers} {}", point.high_watermark)
        };
        let mut lines: Vec<String> = self.0.iter().map(line).collect();
        lines.sort_unstable();
        lines
    }
}

fn parse(line: &str) -> Option<(String, Point)> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let offset = words.next()?.parse().ok()?;
    let log_start = words.next()?.parse().ok()?;
    let has_producers = words.next()? == "1";
    let recovery = RecoveryPoint { offset, log_start, has_producers };
    Some((name, Point { recovery, high_watermark: words.next()?.parse().ok()? }))
}

impl LogDirectory {
    fn store(&self, points: &Points) -> io::Result<()> {
        checkpoint::write(&**self.disk(), &self.path.join(FILE), KIND, 1, &points.lines())
    }

    /// Saves index and producer hints of logs that moved, then their recovery points and starts.
    pub(crate) fn write_points(&self) -> io::Result<()> {
        if self.is_offline() {
            return Ok(());
        }
        let mut held = self.points.lock();
        let mut points = held.clone();
        for partition in self.partitions() {
            let mut state = partition.lock();
            let high_watermark = state.replica.high_watermark();
            let Some(log) = state.log.as_mut() else { continue };
            let has_producers = !log.producers().is_empty();
            let recovery = RecoveryPoint {
                offset: log.recovery_point(),
                log_start: log.log_start(),
                has_producers,
            };
            let name = partition.name.to_string();
            if points.0.get(&name).map(|point| point.recovery) != Some(recovery) {
                log.save_hints()?;
            }
            points.0.insert(name, Point { recovery, high_watermark });
        }
        self.store(&points)?;
        *held = points;
        Ok(())
    }

    /// A partition's lock, and up to where its log is promised whole after a crash: what is missing past it was lost, what is
    /// missing before it was deleted. So nothing is deleted past it. The points are locked first, as by whoever writes them.
    pub(super) fn lock_with_point<'a>(
        &self,
        partition: &'a Partition,
    ) -> (MutexGuard<'a, State>, Offset) {
        let points = self.points.lock();
        let state = partition.lock();
        let point = points.0.get(&partition.name.to_string());
        (state, point.map_or(0, |point| point.recovery.offset))
    }

    /// Promises no more of a log than what lies before `to`, before it is cut there. What could not be written is promised still:
    /// a second try must not take it for done.
    pub(super) fn lower_point(&self, partition: &TopicPartition, to: Offset) -> io::Result<()> {
        let mut held = self.points.lock();
        let mut points = held.clone();
        let Some(point) = points.0.get_mut(&partition.to_string()) else { return Ok(()) };
        if point.recovery.offset <= to && point.high_watermark <= to {
            return Ok(());
        }
        point.recovery.offset = point.recovery.offset.min(to);
        point.recovery.log_start = point.recovery.log_start.min(to);
        point.high_watermark = point.high_watermark.min(to);
        if is_planted(Bug::PromiseUnwritten) {
            held.clone_from(&points);
        }
        self.store(&points)?;
        *held = points;
        Ok(())
    }

    /// Promises of a log that is to begin anew at `start` nothing but that, before it does.
    pub(super) fn restart_point(
        &self,
        partition: &TopicPartition,
        start: Offset,
        has_producers: bool,
    ) -> io::Result<()> {
        let mut held = self.points.lock();
        let mut points = held.clone();
        let recovery = RecoveryPoint { offset: start, log_start: start, has_producers };
        let point = Point { recovery, high_watermark: start };
        points.0.insert(partition.to_string(), point);
        self.store(&points)?;
        *held = points;
        Ok(())
    }

    /// Promises nothing of these logs any more, before their folders go: a log that comes again under such a name would
    /// be taken for one that lost what was flushed.
    pub(super) fn forget_points(&self, names: &[TopicPartition]) -> io::Result<()> {
        let mut held = self.points.lock();
        let mut points = held.clone();
        for name in names {
            points.0.remove(&name.to_string());
        }
        let is_less = points.0.len() < held.0.len();
        let stored = if is_less && !is_planted(Bug::KeepPointOfDeleted) {
            self.store(&points)
        } else {
            Ok(())
        };
        // Where there is no room for it, it is written with the next ones.
        if stored.as_ref().err().is_none_or(is_shortage) {
            *held = points;
        }
        stored
    }

    /// Writes the points if something moved.
    pub(super) fn write_points_if_changed(&self) -> io::Result<()> {
        if self.points_changed.swap(false, Ordering::AcqRel) { self.write_points() } else { Ok(()) }
    }

    /// Says that every log here was closed whole, in this incarnation of the broker.
    pub(super) fn mark_clean(&self, broker_epoch: i64) -> io::Result<()> {
        let line = format!("broker.epoch={broker_epoch}");
        checkpoint::write(&**self.disk(), &self.path.join(CLEAN_FILE), CLEAN_KIND, 1, &[line])
    }

    /// Takes the mark away, so that a crash from now on is seen; returns the broker epoch that it names.
    pub(super) fn take_clean_mark(&self) -> io::Result<Option<i64>> {
        let path = self.path.join(CLEAN_FILE);
        let mark = checkpoint::read(&**self.disk(), &path, CLEAN_KIND, 1).ok().flatten();
        if self.disk().exists(&path) {
            self.disk().remove(&path)?;
            self.disk().sync_dir(&self.path)?;
        }
        let epoch = mark.iter().flatten().find_map(|line| line.strip_prefix("broker.epoch="));
        Ok(epoch.and_then(|epoch| epoch.parse().ok()))
    }
}

/// Reads the files of a log directory that hold any bytes, and any lines under a right checksum (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_checkpoints(
    disk: &crate::system::SharedDisk,
    directory: &Path,
    bytes: &[u8],
    lines: &[String],
) {
    for (file, kind) in [(FILE, KIND), super::log_directory::META] {
        let path = directory.join(file);
        let _ = crate::system::disk::replace_file(&**disk, &path, bytes);
        let _ =
            (Points::load(&**disk, directory), super::log_directory::read_meta(disk, directory));
        let _ = checkpoint::write(&**disk, &path, kind, 1, lines);
        let _ =
            (Points::load(&**disk, directory), super::log_directory::read_meta(disk, directory));
    }
}
