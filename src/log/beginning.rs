//! What a log that is to begin anew further on has to know of the epochs before it.
//!
//! Invariants: it is durable before anything of the old log goes, and is taken back when the new one is whole; a start in between
//! finds it, and the old log's epochs are not taken for those of what it never had.

use std::io;
use std::path::Path;

use super::checkpoint;
use super::error::OpenError;
use super::leader_epochs::LeaderEpochs;
use super::local_log::Log;
use crate::model::Offset;
use crate::system::Disk;

const FILE: &str = "leader-epochs-of-beginning";
const KIND: &str = "strandline-leader-epochs-of-beginning";

impl Log {
    /// Writes the epochs of what lies before an offset, before the log begins anew there.
    pub(crate) fn write_beginning(
        disk: &dyn Disk,
        dir: &Path,
        offset: Offset,
        epochs: &LeaderEpochs,
    ) -> io::Result<()> {
        let mut lines = epochs.lines();
        lines.insert(0, offset.to_string());
        checkpoint::write(disk, &dir.join(FILE), KIND, 1, &lines)
    }

    /// Takes back what `write_beginning` wrote.
    pub(crate) fn forget_beginning(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.remove(&dir.join(FILE))?;
        disk.sync_dir(dir)
    }

    /// Takes what was written for a log that begins where this one does, which a stop left half done; else it was not begun.
    pub(super) fn take_beginning(&mut self) -> Result<(), OpenError> {
        let disk = std::sync::Arc::clone(self.parts.cache.disk());
        let path = self.dir.join(FILE);
        if !disk.exists(&path) {
            return Ok(());
        }
        let lines = checkpoint::read(&*disk, &path, KIND, 1)?.unwrap_or_default();
        let (first, rest) = lines.split_first().map_or((None, &[][..]), |(a, b)| (Some(a), b));
        let offset: Option<Offset> = first.and_then(|line| line.parse().ok());
        let before = LeaderEpochs::parse(rest);
        if let Some(before) = before.filter(|_| offset == Some(self.log_start)) {
            tracing::info!(partition = %self.partition, offset, "the log begins anew, as was begun before the stop");
            self.epochs = before.followed_by(&self.epochs, self.log_start);
            self.save_epochs()?;
            self.close()?;
        }
        Ok(Self::forget_beginning(&*disk, &self.dir)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DIR, config, flush, open, open_with, put};
    use super::super::{NewBatch, ProducerStates, RecoveryPoint};
    use super::*;
    use crate::record::{BatchBuilder, BatchHeader};
    use crate::system::Random;
    use crate::system::sim_disk::{Faults, SimDisk};

    /// What lies before 20 was written in these.
    fn before() -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in [(0, 0), (3, 4), (5, 12), (6, 17)] {
            epochs.assign(epoch, start);
        }
        epochs
    }

    #[test]
    fn a_beginning_that_failed_on_its_way_is_not_taken_for_the_old_log() {
        // Room that runs out at each step, and power that fails.
        for room in (0..1_500).step_by(20) {
            for has_power in [true, false] {
                let disk = SimDisk::default();
                let mut log = open(&disk, &config(&[]));
                for at in 0..7 {
                    put(&mut log, "k", "v", at);
                }
                flush(&mut log);
                Log::write_beginning(&disk, Path::new(DIR), 20, &before()).expect("written");
                disk.set_faults(Faults { room: Some(room), ..Faults::default() });
                let begun = log.restart_with(20, before(), ProducerStates::default());
                disk.set_faults(Faults::default());
                drop(log);
                if has_power {
                    disk.die();
                } else {
                    disk.crash(&Random::seeded(room));
                }
                let point = RecoveryPoint { offset: 20, log_start: 20, has_producers: false };
                let (mut log, _) = open_with(&disk, &config(&[]), point).expect("opens");
                assert_eq!((log.log_start(), log.log_end()), (20, 20), "{room}: {begun:?}");
                assert_eq!(log.epochs(), &before(), "{room}: {begun:?}");
                // It goes on from there, and a later start does not go back to it.
                let mut batch = BatchBuilder::new().record(1, None, Some(b"x")).build();
                crate::record::batch::patch_position(&mut batch, 20, 9);
                let header = BatchHeader::parse(&batch).expect("a header");
                log.append_fetched(&[NewBatch { header, bytes: &batch }], 1).expect("appended");
                flush(&mut log);
                drop(log);
                let (log, _) = open_with(&disk, &config(&[]), point).expect("opens");
                assert_eq!((log.log_end(), log.epochs().latest()), (21, Some(9)), "{room}");
            }
        }
    }

    #[test]
    fn what_was_not_begun_changes_nothing() {
        let disk = SimDisk::default();
        let mut log = open(&disk, &config(&[]));
        put(&mut log, "k", "v", 1);
        flush(&mut log);
        Log::write_beginning(&disk, Path::new(DIR), 20, &before()).expect("written");
        drop(log);
        let point = RecoveryPoint { offset: 1, log_start: 0, has_producers: false };
        for _ in 0..2 {
            let (log, _) = open_with(&disk, &config(&[]), point).expect("opens");
            assert_eq!((log.log_end(), log.epochs().latest()), (1, Some(0)));
            assert!(!disk.exists(&Path::new(DIR).join(FILE)));
        }
    }
}
