//! Opening partitions' logs, now or once there is what it takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::checkpoints::Point;
use super::identity::{check_identity, write_identity};
use super::log_directory::LogDirectory;
use super::replica::PartitionState;
use super::replicas::{OpenedLog, PartitionSpec, Replicas};
use crate::log::{Log, LogParts, OpenError};
use crate::model::TopicPartition;
use crate::model::number::to_u64;
use crate::system::disk::is_shortage;

/// Partitions that somebody is told by name at a time.
const NAMED_MAX: usize = 20;

impl Replicas {
    pub(super) fn open_log(
        &self,
        spec: &PartitionSpec,
        directory: &Arc<LogDirectory>,
    ) -> OpenedLog {
        if let Err(error) = directory.cache.check_logs() {
            return self.open_later(spec, directory, &error);
        }
        let dir = directory.path.join(spec.name.to_string());
        let parts =
            LogParts { cache: Arc::clone(&directory.cache), config: Arc::clone(&spec.config) };
        let known = || directory.points.lock().0.get(&spec.name.to_string()).copied();
        let jitter =
            i64::try_from(self.random().below(to_u64(spec.config.segment_jitter_ms))).unwrap_or(0);
        let found = directory.look().and_then(|()| check_identity(directory, spec));
        let opened = found.map_err(OpenError::from).and_then(|()| {
            Log::open(spec.name.clone(), dir, parts, known().unwrap_or_default().recovery, jitter)
        });
        let Point { high_watermark, .. } = known().unwrap_or_default();
        match opened {
            Ok((log, recovered)) => {
                if recovered.bytes_checked > 0 || recovered.bytes_cut > 0 {
                    let (checked, cut) = (recovered.bytes_checked, recovered.bytes_cut);
                    tracing::info!(partition = %spec.name, checked, cut, "log recovered");
                }
                match write_identity(directory, spec) {
                    Ok(()) => (Some(log), high_watermark),
                    Err(error) if is_shortage(&error) => self.open_later(spec, directory, &error),
                    Err(error) => {
                        directory.fail(&error, &spec.name);
                        (None, 0)
                    }
                }
            }
            Err(OpenError::Disk(error)) if is_shortage(&error) => {
                self.open_later(spec, directory, &error)
            }
            Err(error) => {
                tracing::error!(partition = %spec.name, %error, "partition is offline");
                (None, 0)
            }
        }
    }

    /// Notes that a log could not be opened for want of descriptors, memory or room.
    fn open_later(
        &self,
        spec: &PartitionSpec,
        directory: &LogDirectory,
        error: &std::io::Error,
    ) -> OpenedLog {
        directory.note_shortage(error);
        self.local.unopened.lock().insert(spec.name.clone());
        (None, 0)
    }

    /// Whether no log directory has room for a new log.
    pub(crate) fn have_no_room(&self) -> bool {
        let mut usable = self.directories.iter().filter(|directory| !directory.is_offline());
        usable.all(|directory| directory.has_no_room())
    }

    /// How many logs could not be opened, and the first of them.
    pub(crate) fn unopened(&self) -> (usize, Vec<TopicPartition>) {
        let unopened = self.local.unopened.lock();
        (unopened.len(), unopened.iter().take(NAMED_MAX).cloned().collect())
    }

    /// Partitions whose logs could not be opened for want of something; told once.
    pub(crate) fn take_unopened(&self) -> BTreeSet<TopicPartition> {
        std::mem::take(&mut *self.local.unopened.lock())
    }

    /// Opens one of them, if it is wanted still; then its role has to be told to it.
    pub(crate) fn reopen(&self, spec: &PartitionSpec) -> bool {
        let _changing = self.changing.lock();
        let topic = self.topic(&spec.name.topic).filter(|topic| topic.id == spec.topic_id);
        let listed = topic.and_then(|topic| topic.partition(spec.name.partition));
        let Some(listed) = listed.filter(|it| !it.is_online() && !it.is_deleted()) else {
            return false;
        };
        let directory = &listed.directory;
        let opened = self.open_log(spec, directory);
        let is_open = opened.0.is_some();
        if is_open {
            let state = PartitionState::unknown();
            self.list(&PartitionSpec { state, ..spec.clone() }, Arc::clone(directory), opened);
        }
        is_open
    }
}
