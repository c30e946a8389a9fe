//! Removes the files that nobody needs any more, a little at a time.
//!
//! Invariants: whatever is here has its name of a deleted file already, so a stop in between costs nothing (the next start
//! removes it); the disk spends no more than a part of its time on it, however much there is: a file system that frees
//! gigabytes at once keeps everybody's flushes waiting.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::log_directory::LogDirectory;
use super::replicas::Replicas;
use crate::system::Disk;
use crate::system::clock::{millis, monotonic, sleep};
use crate::system::tasks::{blocking, keep_job};

const TICK_MS: i64 = 500;
/// How many times as long as a removal took nothing is removed after it.
pub(super) const PAUSE_FACTOR: u32 = 4;

/// What is to be removed from a log directory, by when.
#[derive(Debug, Default)]
pub(super) struct Rubbish {
    paths: BTreeMap<(i64, u64), PathBuf>,
    count: u64,
}

impl Rubbish {
    fn add(&mut self, due_ms: i64, path: PathBuf) {
        self.count += 1;
        self.paths.insert((due_ms, self.count), path);
    }

    fn take_due(&mut self, now_ms: i64) -> Option<PathBuf> {
        let first = self.paths.first_entry().filter(|first| first.key().0 <= now_ms)?;
        Some(first.remove())
    }
}

impl Replicas {
    /// Removes files and folders of a directory once `delay_ms` have passed.
    pub(super) fn remove_later(
        &self,
        directory: &LogDirectory,
        paths: impl IntoIterator<Item = PathBuf>,
        delay_ms: i64,
    ) {
        let due_ms = self.clock.now_ms().saturating_add(delay_ms);
        let mut rubbish = directory.rubbish.lock();
        paths.into_iter().for_each(|path| rubbish.add(due_ms, path));
    }

    /// One after the other, for each directory by itself: one that hangs keeps no other.
    pub(super) fn start_removing(self: &Arc<Self>) {
        for directory in self.directories.iter().map(Arc::clone) {
            let replicas = Arc::clone(self);
            keep_job("removal of files", async move {
                loop {
                    let due = directory.rubbish.lock().take_due(replicas.clock.now_ms());
                    let Some(path) = due else {
                        sleep(millis(TICK_MS)).await;
                        continue;
                    };
                    replicas.remove(&directory, path).await;
                }
            });
        }
    }

    async fn remove(&self, directory: &Arc<LogDirectory>, path: PathBuf) {
        let disk = Arc::clone(directory.disk());
        let (listing, folder) = (Arc::clone(&disk), path.clone());
        let entries = blocking(move || listing.list(&folder).ok()).await.flatten();
        let is_folder = entries.is_some();
        for file in entries.iter().flatten().map(|entry| path.join(&entry.name)) {
            self.paced(directory, move |disk| disk.remove(&file)).await;
        }
        let shown = path.display().to_string();
        let rest = move |disk: &dyn Disk| {
            if is_folder { disk.remove_dir_all(&path) } else { disk.remove(&path) }
        };
        // A file goes with its partition's folder too.
        if let Some(Err(error)) = self.paced(directory, rest).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = shown, %error, "not removed: the next start tries again");
        }
    }

    async fn paced(
        &self,
        directory: &Arc<LogDirectory>,
        work: impl FnOnce(&dyn Disk) -> io::Result<()> + Send + 'static,
    ) -> Option<io::Result<()>> {
        let (disk, begun) = (Arc::clone(directory.disk()), monotonic());
        let done = blocking(move || work(&*disk)).await;
        // Room is worth more than an even pace where it is short.
        if !directory.is_full() {
            sleep(begun.elapsed() * PAUSE_FACTOR).await;
        }
        done
    }
}
