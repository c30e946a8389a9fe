//! Room for the metadata's files that is kept while there is some, and given up bit by bit once nobody else finds any.
//!
//! Invariants: the file holds room and never data; what is given up is given up for a write that is tried again at once; without it
//! what would grow the metadata is refused, and what makes room is not.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::model::number::{to_u64, to_usize};
use crate::system::disk::ROOM_MIN;
use crate::system::{OpenMode, SharedDisk, SharedFile};

const FILE: &str = "reserve";
/// What is given up at a time: some hundred entries of the log.
const STEP: u64 = 64 << 10;

/// How much may still be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// For what makes room, and for what brokers need to go on.
    Scarce,
    /// For all but what grows: there is nothing left but the reserve.
    Low,
    Plenty,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Reserve {
    disk: SharedDisk,
    path: PathBuf,
    bytes: u64,
    /// The file, and how much it holds.
    held: Mutex<(SharedFile, u64)>,
}

impl Reserve {
    /// Takes what was kept before, and makes it whole if there is room.
    pub(super) fn open(disk: &SharedDisk, folder: &Path, bytes: u64) -> io::Result<Self> {
        let path = folder.join(FILE);
        let file = disk.open(&path, OpenMode::Write)?;
        let held = file.bytes()?;
        let held = Mutex::new((file, held));
        let reserve = Self { disk: SharedDisk::clone(disk), path, bytes, held };
        reserve.refill();
        Ok(reserve)
    }

    /// Writes something; where there is no room, gives some up and tries again.
    pub(super) fn lend<T, E>(
        &self,
        is_no_room: impl Fn(&E) -> bool,
        mut write: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match write() {
                Err(error) if is_no_room(&error) && self.give_up() => {}
                done => return done,
            }
        }
    }

    /// Gives some of it up; `false` if nothing is left.
    fn give_up(&self) -> bool {
        let mut held = self.held.lock();
        let left = held.1.saturating_sub(STEP);
        if held.1 == 0 || held.0.set_len(left).is_err() {
            return false;
        }
        if held.1 == self.bytes {
            let path = self.path.display();
            tracing::error!(%path, "no room for the metadata: its reserve is used, and no topics are made until some is freed");
        }
        held.1 = left;
        true
    }

    /// Makes it whole again if there is room for it and for others.
    pub(super) fn refill(&self) {
        let mut held = self.held.lock();
        let missing = self.bytes.saturating_sub(held.1);
        if missing == 0 || self.usable() < missing + ROOM_MIN {
            return;
        }
        // What a file system could squeeze would be no room.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        };
        let noise: Vec<u8> =
            std::iter::repeat_with(&mut noise).flatten().take(to_usize(STEP)).collect();
        while held.1 < self.bytes {
            let more = noise.get(..to_usize(self.bytes - held.1)).unwrap_or(&noise);
            if held.0.write_at(&[IoSlice::new(more)], held.1).is_err() {
                let _ = held.0.set_len(held.1);
                return;
            }
            held.1 += to_u64(more.len());
        }
        if held.0.sync().is_ok() {
            tracing::info!(path = %self.path.display(), "the reserve for the metadata is whole");
        }
    }

    /// How much may still be written.
    pub(super) fn room(&self) -> Room {
        let held = self.held.lock().1;
        if held < self.bytes / 2 && self.usable() < ROOM_MIN {
            return Room::Scarce;
        }
        if held < self.bytes || self.usable() < ROOM_MIN { Room::Low } else { Room::Plenty }
    }

    /// Where that can't be told, as of a folder that is gone, a write says what is wrong.
    fn usable(&self) -> u64 {
        self.disk.space(&self.path).map_or(u64::MAX, |space| space.usable)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use super::*;
    use crate::system::disk::is_no_room;
    use crate::system::sim_disk::{Faults, SimDisk};

    const BYTES: u64 = 5 * STEP;

    fn reserve(disk: &SimDisk) -> Reserve {
        let shared: SharedDisk = Arc::new(disk.clone());
        shared.create_dir_all(Path::new("/d")).expect("made");
        Reserve::open(&shared, Path::new("/d"), BYTES).expect("opened")
    }

    fn lend(reserve: &Reserve, fails: usize) -> (bool, usize) {
        let mut tries = 0;
        let lent = reserve.lend(is_no_room, || {
            tries += 1;
            if tries <= fails { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        (lent.is_ok(), tries)
    }

    fn held(reserve: &Reserve) -> u64 {
        reserve.held.lock().1
    }

    fn has_room(disk: &SimDisk, room: Option<u64>) {
        disk.set_faults(Faults { room, ..Faults::default() });
    }

    #[test]
    fn it_is_given_up_bit_by_bit_while_a_write_finds_no_room() {
        let disk = SimDisk::default();
        let reserve = reserve(&disk);
        assert_eq!(reserve.room(), Room::Plenty);
        assert_eq!(lend(&reserve, 0), (true, 1));
        assert_eq!(held(&reserve), BYTES, "a write that finds room needs none of it");
        has_room(&disk, Some(0));
        assert_eq!(reserve.room(), Room::Low);
        assert_eq!(lend(&reserve, 2), (true, 3));
        assert_eq!((held(&reserve), reserve.room()), (BYTES - 2 * STEP, Room::Low));
        assert_eq!(lend(&reserve, 1), (true, 2));
        assert_eq!(reserve.room(), Room::Scarce);
        assert_eq!(lend(&reserve, 5), (false, 3), "nothing is left");
        let file = reserve.disk.open(&reserve.path, OpenMode::Read).expect("there");
        assert_eq!(file.bytes().expect("known"), 0);
    }

    #[test]
    fn it_is_whole_again_once_there_is_room_for_it_and_for_others() {
        let disk = SimDisk::default();
        let made = reserve(&disk);
        has_room(&disk, Some(0));
        lend(&made, 2);
        drop(made);
        // A start with little room takes what is left and does not take the last of it.
        has_room(&disk, Some(ROOM_MIN));
        let made = reserve(&disk);
        assert_eq!((held(&made), made.room()), (BYTES - 2 * STEP, Room::Low));
        has_room(&disk, Some(ROOM_MIN + 2 * STEP));
        made.refill();
        assert_eq!(held(&made), BYTES);
        has_room(&disk, None);
        assert_eq!(made.room(), Room::Plenty);
        let file = made.disk.open(&made.path, OpenMode::Read).expect("there");
        assert_eq!(file.bytes().expect("known"), BYTES);
    }

    #[test]
    fn another_error_than_want_of_room_costs_nothing() {
        let reserve = reserve(&SimDisk::default());
        let mut tries = 0;
        let lent: io::Result<()> = reserve.lend(is_no_room, || {
            tries += 1;
            Err(io::Error::other("broken"))
        });
        assert!(lent.is_err() && tries == 1);
        assert_eq!(held(&reserve), BYTES);
    }
}
