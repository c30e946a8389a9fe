//! The disk as the rest of the house sees it, with its failures.
//!
//! Invariants: offsets are explicit, so a file has no cursor to race on; `sync` makes the file's bytes durable,
//! `sync_dir` the names in a folder; a failed write or sync may have done anything to the bytes it covered.

use std::fmt::Debug;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) type SharedDisk = Arc<dyn Disk>;
pub(crate) type SharedFile = Arc<dyn DiskFile>;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    Read,
    /// Read and write, made if it is missing, kept if it is there.
    Write,
    /// Read and write, emptied.
    Replace,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: String,
    pub is_dir: bool,
    pub bytes: u64,
}

/// Room on the file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub total: u64,
    pub usable: u64,
}

/// Device and inode: no other file has both while it is open.
pub(crate) type FileId = (u64, u64);

/// A file system.
pub(crate) trait Disk: Send + Sync + Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SharedFile>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The folder's names in order; an error of kind `NotFound` if it is missing.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    fn exists(&self, path: &Path) -> bool;
    /// Which file a path names; an error of kind `NotFound` if it names none.
    fn id(&self, path: &Path) -> io::Result<FileId>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system that holds `path` durable; an error covers any of it.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// How long a flush takes before it begins: real disks take their time in `sync` itself.
    fn sync_pause(&self) -> Duration {
        Duration::ZERO
    }
    /// Takes the exclusive lock on a file for as long as the result lives; `WouldBlock` if another process has it.
    fn lock(&self, path: &Path) -> io::Result<SharedFile>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Writes all the slices at `offset`, in order.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Reserves room on the disk for bytes to come; the file's length stays. Errors where the file system can't.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()>;
    fn bytes(&self) -> io::Result<u64>;
    /// Which file this is, whatever names it.
    fn id(&self) -> io::Result<FileId>;
    /// The operating system's file, for sendfile; `None` on a simulated disk.
    fn os_file(&self) -> Option<&std::fs::File>;
    /// Whether the range can be read without waiting for the disk (a hint).
    fn is_cached(&self, offset: u64, bytes: usize) -> bool;
}

/// Whether a path names this very file: neither none nor another one that came in its place.
pub(crate) fn is_named(disk: &dyn Disk, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
    match disk.id(path) {
        Ok(id) => Ok(id == file.id()?),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether there was no room for what was to be written.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether something ran out that may be there again later: room, descriptors, memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let kind = error.kind();
    is_no_room(error) || kind == ErrorKind::OutOfMemory || is_out_of_descriptors(error)
}

/// With less room than this on a file system nothing new is made there.
pub(crate) const ROOM_MIN: u64 = 1 << 20;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// What is said where none of the descriptors that there are may be used for this.
pub(crate) fn out_of_descriptors() -> io::Error {
    io::Error::from_raw_os_error(EMFILE)
}

/// Whether no descriptor was to be had: nothing was opened, so nothing was done.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// What to say of a file that its path does not name any more.
pub(crate) fn not_named(path: &Path) -> io::Error {
    let path = path.display();
    io::Error::other(format!(
        "{path} is gone, or another file has its place: what is written is lost"
    ))
}

/// Reads a whole file.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let bytes = usize::try_from(file.bytes()?).map_err(io::Error::other)?;
    let mut buffer = vec![0; bytes];
    let read = read_full(&*file, &mut buffer, 0)?;
    buffer.truncate(read);
    Ok(buffer)
}

/// Reads until the buffer is full or the file ends; returns the bytes read.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(crate::model::number::to_u64(done));
        match file.read_at(rest, at)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// Replaces a file so that after a crash it holds either all the old bytes or all the new ones:
/// write-tmp, flush, rename, flush the folder.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let tmp = PathBuf::from(name);
    let file = disk.open(&tmp, OpenMode::Replace)?;
    file.write_at(&[IoSlice::new(bytes)], 0)?;
    file.sync()?;
    disk.rename(&tmp, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
