//! Moves a replica to another log directory of its broker (KIP-113), while it serves.
//!
//! Invariants: only what is committed is copied ahead; the rest is copied, and all of it is durable, before the copy takes
//! the place of the original, under the partition's lock; at every moment of the change one whole log has the
//! partition's name or is found by what the original was renamed to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::checkpoints::Point;
use super::log_directory::LogDirectory;
use super::partition::{Appending, Partition, PartitionHandle};
use super::replica::PartitionState;
use super::replicas::{PartitionSpec, Replicas};
use crate::log::{Log, LogParts, LogSlice, NewBatch, RecoveryPoint};
use crate::model::{Offset, TopicPartition};
use crate::record::next_batch;
use crate::system::clock::{Instant, millis, monotonic, sleep, uptime_ms};
use crate::system::tasks::{blocking, run_errand};
use crate::system::{Disk, Throttle};

/// The endings of a copy that is being made, and of an original that a copy is about to replace.
const COPY_ENDING: &str = "-future";
const ORIGINAL_ENDING: &str = "-moved";
const STEP_BYTES: usize = 1 << 20;
/// How often it is looked whether the last step of a move is done.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why a replica can't be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MoveError {
    #[error("no log directory of this broker has that path")]
    UnknownDirectory,
    #[error("the log directory is offline")]
    OfflineDirectory,
    #[error("this broker has no such replica")]
    UnknownReplica,
}

/// Why a move ended without having moved anything.
type Ended = String;

/// A replica on its way.
#[derive(Debug)]
pub(crate) struct Moving {
    pub to: Arc<LogDirectory>,
    pub bytes: AtomicU64,
    /// The end of the copy.
    pub end: AtomicI64,
    is_cancelled: AtomicBool,
}

impl Replicas {
    /// Begins to move a replica; `done` is called once it lies in its new place, where its role has to be told to it.
    /// A move to where it lies ends one that is under way.
    pub(crate) fn move_replica(
        self: &Arc<Self>,
        name: &TopicPartition,
        path: &Path,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), MoveError> {
        let to = self.directories().iter().find(|directory| directory.path == path);
        let to = to.ok_or(MoveError::UnknownDirectory)?;
        if to.is_offline() {
            return Err(MoveError::OfflineDirectory);
        }
        let partition = self.partition(name).ok_or(MoveError::UnknownReplica)?;
        let mut moves = self.moves.lock();
        if let Some(before) = moves.get(name) {
            if Arc::ptr_eq(&before.to, to) {
                return Ok(());
            }
            before.is_cancelled.store(true, Ordering::Release);
            moves.remove(name);
        }
        if Arc::ptr_eq(&partition.directory, to) {
            return Ok(());
        }
        let moving = Arc::new(Moving {
            to: Arc::clone(to),
            bytes: AtomicU64::new(0),
            end: AtomicI64::new(0),
            is_cancelled: AtomicBool::new(false),
        });
        moves.insert(name.clone(), Arc::clone(&moving));
        drop(moves);
        let (replicas, name) = (Arc::clone(self), name.clone());
        run_errand("move of a replica", async move {
            let to = moving.to.path.display().to_string();
            match replicas.carry_over(&partition, &moving).await {
                Ok(()) => {
                    tracing::info!(partition = %name, to, "replica moved to another log directory");
                    done();
                }
                Err(why) => tracing::warn!(partition = %name, to, why, "replica not moved"),
            }
            replicas.moves.lock().retain(|_, other| !Arc::ptr_eq(other, &moving));
        });
        Ok(())
    }

    /// The replicas that are on their way to a directory.
    pub(crate) fn moving_to(&self, to: &Arc<LogDirectory>) -> Vec<(TopicPartition, Arc<Moving>)> {
        let moves = self.moves.lock();
        let there = moves.iter().filter(|(_, moving)| Arc::ptr_eq(&moving.to, to));
        there.map(|(name, moving)| (name.clone(), Arc::clone(moving))).collect()
    }

    async fn carry_over(
        self: &Arc<Self>,
        partition: &PartitionHandle,
        moving: &Arc<Moving>,
    ) -> Result<(), Ended> {
        let unique = self.random().uuid().simple().to_string();
        let folder = moving.to.path.join(format!("{}.{unique}{COPY_ENDING}", partition.name));
        let copied = self.copy(partition, moving, &folder).await;
        let replaced = match copied {
            Ok(copy) => {
                let (replicas, partition) = (Arc::clone(self), Arc::clone(partition));
                let (to, unique) = (Arc::clone(&moving.to), unique.clone());
                let replacing = move || replicas.replace(&partition, copy, &to, &unique);
                blocking(replacing).await.unwrap_or_else(|| Err("the move panicked".to_owned()))
            }
            Err(why) => Err(why),
        };
        if replaced.is_err() {
            let (disk, folder) = (Arc::clone(moving.to.disk()), folder);
            let _ = blocking(move || disk.remove_dir_all(&folder)).await;
        }
        replaced
    }

    /// Copies what is committed, until little is left.
    async fn copy(
        self: &Arc<Self>,
        partition: &PartitionHandle,
        moving: &Arc<Moving>,
        folder: &Path,
    ) -> Result<Log, Ended> {
        let mut copy = {
            let (partition, to) = (Arc::clone(partition), Arc::clone(&moving.to));
            let folder = folder.to_owned();
            let begun = blocking(move || begin(&partition, &to, folder)).await;
            begun.unwrap_or_else(|| Err("the copy panicked".to_owned()))?
        };
        let mut is_flushed = false;
        loop {
            if moving.is_cancelled.load(Ordering::Acquire) {
                return Err("it was taken back".to_owned());
            }
            let (replicas, source) = (Arc::clone(self), Arc::clone(partition));
            let stepped = blocking(move || {
                let step = step(&source, &mut copy, replicas.clock.now_ms());
                step.map(|bytes| (copy, bytes))
            });
            let stepped = stepped.await.unwrap_or_else(|| Err("the copy panicked".to_owned()));
            let bytes;
            (copy, bytes) = stepped?;
            moving.bytes.store(copy.bytes(), Ordering::Relaxed);
            moving.end.store(copy.log_end(), Ordering::Relaxed);
            if bytes < STEP_BYTES / 2 {
                if is_flushed {
                    return Ok(copy);
                }
                // What is flushed now need not be while the original stands still.
                is_flushed = true;
                let flushed = blocking(move || copy.close().map(|()| copy).map_err(told)).await;
                copy = flushed.unwrap_or_else(|| Err("the copy panicked".to_owned()))?;
                continue;
            }
            let throttle: &Throttle = &self.throttles.directories;
            throttle.note(uptime_ms(), bytes);
            sleep(millis(throttle.wait_ms(uptime_ms()))).await;
        }
    }

    /// Puts the copy in the original's place.
    fn replace(
        &self,
        partition: &PartitionHandle,
        mut copy: Log,
        to: &Arc<LogDirectory>,
        unique: &str,
    ) -> Result<(), Ended> {
        let from = &partition.directory;
        let (name, folder) = (partition.name.to_string(), copy.dir.clone());
        // Whoever deletes the topic finds it either here or there.
        let _changing = self.changing.lock();
        let topic = self.topic(&partition.name.topic);
        let listed = topic.as_ref().and_then(|topic| topic.partition(partition.name.partition));
        let topic_id = match topic {
            Some(topic) if listed.is_some_and(|it| Arc::ptr_eq(&it, partition)) => topic.id,
            _ => return Err("the topic was deleted".to_owned()),
        };
        let (config, old, point) = {
            let mut state = partition.lock();
            let log = state.log.as_ref().ok_or("the replica is offline")?;
            rest(log, &mut copy, self.clock.now_ms())?;
            let point = RecoveryPoint {
                offset: copy.log_end(),
                log_start: copy.log_start(),
                has_producers: !copy.producers().is_empty(),
            };
            let high_watermark = state.replica.high_watermark();
            let point = Point { recovery: point, high_watermark };
            let config = log.shared_config();
            let old = state.retire().ok_or("the replica is offline")?;
            (config, old, point)
        };
        drop(copy);
        to.points.lock().0.insert(name.clone(), point);
        let aside = from.path.join(format!("{name}.{unique}{ORIGINAL_ENDING}"));
        let in_place = to.path.join(&name);
        let swapped = from
            .disk()
            .rename(&old.dir, &aside)
            .and_then(|()| from.disk().sync_dir(&from.path))
            .and_then(|()| to.disk().rename(&folder, &in_place))
            .and_then(|()| to.disk().sync_dir(&to.path));
        if let Err(error) = swapped {
            // Whatever the folders are called now, the next start finds a whole log.
            partition.stay_offline();
            from.fail(&error, &partition.name);
            return Err(error.to_string());
        }
        from.partitions.lock().remove(&partition.name);
        from.points.lock().0.remove(&name);
        // The log is where it is to be, whatever is noted of it.
        for directory in [to, from] {
            if let Err(error) = directory.write_points() {
                directory.note_unwritten(&error);
            }
        }
        let state = PartitionState::unknown();
        let spec = PartitionSpec { name: partition.name.clone(), topic_id, state, config };
        let opened = self.open_log(&spec, to);
        let _ = partition.successor.set(self.list(&spec, Arc::clone(to), opened));
        drop(old);
        if let Err(error) = from.disk().remove_dir_all(&aside) {
            tracing::warn!(path = %aside.display(), %error, "folder of a moved replica not removed");
        }
        Ok(())
    }
}

/// The partition whose log has an append, if it was moved meanwhile, once it says what became of that: a producer notices nothing of a move.
pub(crate) async fn follow_move(
    mut handle: PartitionHandle,
    appended: &Appending,
    deadline: Instant,
) -> PartitionHandle {
    if !handle.has_moved() {
        return handle;
    }
    while !handle.is_committed(appended) && monotonic() < deadline {
        if handle.has_moved() {
            if let Some(next) = handle.successor.get().cloned() {
                handle = next;
            }
        } else if !handle.is_online() || handle.lock().replica.leader_epoch > appended.leader_epoch
        {
            break;
        }
        sleep(LOOK_AGAIN).await;
    }
    handle
}

/// An empty log in another folder, which begins where the replica's does.
fn begin(partition: &Partition, to: &LogDirectory, folder: PathBuf) -> Result<Log, Ended> {
    let found = partition.with_log(|log| (log.shared_config(), log.log_start()));
    let (config, start) = found.ok_or("the replica is offline")?;
    let parts = LogParts { cache: Arc::clone(&to.cache), config };
    let point = RecoveryPoint::default();
    let (mut log, _) = Log::open(partition.name.clone(), folder, parts, point, 0).map_err(told)?;
    if start > 0 {
        log.restart_at(start).map_err(told)?;
    }
    Ok(log)
}

/// Copies some of what is committed; how many bytes.
fn step(partition: &Partition, copy: &mut Log, now_ms: i64) -> Result<usize, Ended> {
    let slice = {
        let state = partition.lock();
        let log = state.log.as_ref().ok_or("the replica is offline")?;
        if log.log_start() > copy.log_end() {
            // What was copied so far was deleted meanwhile.
            copy.restart_at(log.log_start()).map_err(told)?;
        }
        if copy.log_end() >= state.hw_position.offset {
            return Ok(0);
        }
        log.slice(copy.log_end(), state.hw_position, STEP_BYTES, true).map_err(told)?
    };
    slice.map_or(Ok(0), |slice| append(copy, &slice, now_ms))
}

/// Copies everything that is left, and makes all of it durable.
fn rest(log: &Log, copy: &mut Log, now_ms: i64) -> Result<(), Ended> {
    while copy.log_end() < log.log_end() {
        let slice = log.slice(copy.log_end(), log.end(), STEP_BYTES, true).map_err(told)?;
        let copied = slice.map_or(Ok(0), |slice| append(copy, &slice, now_ms))?;
        if copied == 0 {
            return Err("the log can't be read to its end".to_owned());
        }
    }
    if log.log_start() > copy.log_start() {
        copy.trim(log.log_start());
    }
    copy.learn_from(log).map_err(told)?;
    copy.close().map_err(told)
}

fn append(copy: &mut Log, slice: &LogSlice, now_ms: i64) -> Result<usize, Ended> {
    let bytes = slice.read().map_err(told)?;
    let (mut rest, mut next): (&[u8], Offset) = (&bytes, copy.log_end());
    let mut batches = Vec::new();
    while let Some((header, batch, after)) = next_batch(rest) {
        rest = after;
        if header.last_offset() >= next {
            next = header.last_offset() + 1;
            batches.push(NewBatch { header, bytes: batch });
        }
    }
    copy.append_fetched(&batches, now_ms).map_err(told)?;
    Ok(batches.iter().map(|batch| batch.bytes.len()).sum())
}

fn told(error: impl std::fmt::Display) -> Ended {
    error.to_string()
}

/// A replica that was on its way when the broker ended, and the directory that it was on its way to.
pub(crate) type Interrupted = (TopicPartition, PathBuf);

/// What a stop in the middle of a move left: a copy that was never finished goes; an original whose copy did not get
/// its name gets it back. Returns the moves that are to begin anew.
pub(super) fn clean_up(directories: &[Arc<LogDirectory>]) -> std::io::Result<Vec<Interrupted>> {
    let mut interrupted = Vec::new();
    for directory in directories {
        let disk: &dyn Disk = &**directory.disk();
        for entry in disk.list(&directory.path)? {
            let path = directory.path.join(&entry.name);
            if let Some(whole) = entry.name.strip_suffix(COPY_ENDING) {
                disk.remove_dir_all(&path)?;
                let name = whole.rsplit_once('.').map_or(whole, |(name, _)| name);
                let name = TopicPartition::from_folder(name);
                interrupted.extend(name.map(|name| (name, directory.path.clone())));
            }
            let Some(whole) = entry.name.strip_suffix(ORIGINAL_ENDING) else { continue };
            let Some((name, _)) = whole.rsplit_once('.') else { continue };
            let is_replaced =
                directories.iter().any(|other| other.disk().exists(&other.path.join(name)));
            if is_replaced {
                disk.remove_dir_all(&path)?;
            } else {
                disk.rename(&path, &directory.path.join(name))?;
                disk.sync_dir(&directory.path)?;
            }
        }
    }
    Ok(interrupted)
}
