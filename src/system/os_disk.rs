//! The operating system's disk.
//!
//! Invariants: a short write is carried on, never reported as whole; `EINTR` is retried; a failed sync is returned
//! once and never retried (after fsync fails the kernel may call the lost pages clean).

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::ReadWriteFlags;

use super::disk::{Disk, DiskFile, Entry, FileId, OpenMode, SharedFile, Space};
use crate::model::number::to_u64;

/// The real file system.
#[derive(Debug, Default)]
pub(crate) struct OsDisk;

#[derive(Debug)]
struct OsFile(File);

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SharedFile> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::Replace => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let about = match entry.metadata() {
                // It went between the two calls: whoever deletes files holds no lock that lists them.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                about => about?,
            };
            entries.push(Entry { name, is_dir: about.is_dir(), bytes: about.len() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        let about = fs::metadata(path)?;
        Ok((about.dev(), about.ino()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        rustix::fs::syncfs(File::open(path)?).map_err(Into::into)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let about = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: about.f_blocks * about.f_frsize,
            usable: about.f_bavail * about.f_frsize,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<SharedFile> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(OsFile(file)))
    }
}

impl DiskFile for OsFile {
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let total: usize = slices.iter().map(|s| s.len()).sum();
        let mut done = match rustix::io::pwritev(&self.0, slices, offset) {
            Ok(written) => written,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if done == total {
            return Ok(());
        }
        let mut start = 0;
        for slice in slices {
            let skip = done.saturating_sub(start).min(slice.len());
            if let Some(rest) = slice.get(skip..).filter(|rest| !rest.is_empty()) {
                self.0.write_all_at(rest, offset + to_u64(start + skip))?;
                done = start + slice.len();
            }
            start += slice.len();
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, bytes).map_err(Into::into)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn id(&self) -> io::Result<FileId> {
        let about = self.0.metadata()?;
        Ok((about.dev(), about.ino()))
    }

    fn os_file(&self) -> Option<&File> {
        Some(&self.0)
    }

    fn is_cached(&self, offset: u64, bytes: usize) -> bool {
        let last = offset + to_u64(bytes.saturating_sub(1));
        [offset, last].into_iter().all(|at| {
            let mut byte = [0];
            let slices = &mut [IoSliceMut::new(&mut byte)];
            rustix::io::preadv2(&self.0, slices, at, ReadWriteFlags::NOWAIT)
                .is_ok_and(|read| read == 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "another thread of any kind")]
    fn a_folder_is_listed_while_files_in_it_come_and_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let stays = folder.path().join("stays");
        fs::write(&stays, [7; 5]).expect("written");
        let is_over = Arc::new(AtomicBool::new(false));
        let (path, until) = (folder.path().to_owned(), Arc::clone(&is_over));
        let other = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for at in 0..50 {
                    fs::write(path.join(format!("{at}.cleaned")), "").expect("written");
                }
                for at in 0..50 {
                    let gone = path.join(format!("{at}.cleaned"));
                    fs::rename(&gone, gone.with_extension("deleted")).expect("renamed");
                    fs::remove_file(gone.with_extension("deleted")).expect("removed");
                }
            }
        });
        for _ in 0..3_000 {
            let found = OsDisk.list(folder.path()).expect("listed");
            let stays = found.iter().find(|entry| entry.name == "stays").expect("it is there");
            assert_eq!((stays.bytes, stays.is_dir), (5, false));
        }
        is_over.store(true, Ordering::Relaxed);
        other.join().expect("it ends");
    }
}
