//! A disk in memory that fails as real ones do (tests only).
//!
//! Invariants: `crash` keeps what was synced, and of the rest a prefix that the seed picks, perhaps torn; a name
//! that was not `sync_dir`ed may vanish or stay, and a folder has its old or its new name; after a failed sync the unsynced bytes are lost for good.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, Entry, FileId, OpenMode, SharedFile, Space};
use super::random::Random;
use crate::model::number::{to_u64, to_usize};

/// What goes wrong from now on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Every write fails with EIO.
    pub fail_writes: bool,
    /// Every sync fails with EIO.
    pub fail_syncs: bool,
    /// Files whose path begins so can't be opened to be written: EIO.
    pub fail_opens: Option<String>,
    /// There is no descriptor for files whose path begins so: EMFILE.
    pub no_descriptors: Option<String>,
    /// Room left in bytes, if it is limited; a write past it fails with ENOSPC.
    pub room: Option<u64>,
    /// Longest pause before a flush, in microseconds.
    pub sync_us: u64,
}

#[derive(Debug, Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Content>>>;

#[derive(Debug, Default)]
struct State {
    files: Names,
    durable_names: Names,
    dirs: BTreeSet<PathBuf>,
    /// Folders' names that are not durable yet: from, to.
    renamed: Vec<(PathBuf, PathBuf)>,
    /// Who holds them: an owner that died does not take the lock of the next one with it.
    locks: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    faults: Faults,
    syncs: u64,
}

/// A simulated disk; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    content: Arc<Mutex<Content>>,
    state: Arc<Mutex<State>>,
    lock: Option<PathBuf>,
}

#[cfg_attr(not(test), expect(dead_code, reason = "fuzz targets use the disk without its faults"))]
impl SimDisk {
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Cuts the power: open files are dead, unsynced bytes are kept, cut or torn as `random` decides.
    pub(crate) fn crash(&self, random: &Random) {
        let mut state = self.0.lock();
        state.locks.clear();
        let mut names = std::mem::take(&mut state.files);
        let mut after = std::mem::take(&mut state.durable_names);
        for (from, to) in std::mem::take(&mut state.renamed).into_iter().rev() {
            // Another one has the old name: it got that after this one had lost it.
            let is_taken = state.dirs.contains(&from);
            if random.below(2) == 0 && !is_taken {
                names = moved(names, &to, &from);
                state.dirs.remove(&to);
                state.dirs.insert(from);
            } else {
                after = moved(after, &from, &to);
            }
        }
        for (path, content) in names {
            if !after.contains_key(&path) && random.below(2) == 0 {
                after.insert(path, content);
            }
        }
        let mut done = BTreeSet::new();
        for content in after.values_mut() {
            if done.insert(Arc::as_ptr(content)) {
                let survived = survivor(&content.lock(), random);
                *content = Arc::new(Mutex::new(survived));
            }
        }
        state.files.clone_from(&after);
        state.durable_names = after;
    }

    /// The process dies and the machine goes on: what was written stays.
    pub(crate) fn die(&self) {
        self.0.lock().locks.clear();
    }

    /// Flips one bit of a file, also on the platter.
    pub(crate) fn flip_bit(&self, path: &Path, at: usize) {
        let content = self.0.lock().files.get(path).cloned();
        if let Some(content) = content {
            let mut content = content.lock();
            let Content { live, durable } = &mut *content;
            for bytes in [live, durable] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }
        }
    }
}

fn survivor(content: &Content, random: &Random) -> Content {
    let mut bytes = content.durable.clone();
    let keep = to_usize(random.below(to_u64(content.live.len()) + 1));
    if content.live.len() >= bytes.len() {
        let keep = keep.max(bytes.len());
        bytes.extend_from_slice(content.live.get(bytes.len()..keep).unwrap_or_default());
        if random.below(4) == 0 {
            // A torn sector: length was journalled, the bytes were not.
            let durable = content.durable.len();
            if let Some(tail) = bytes.get_mut(durable..) {
                let cut = to_usize(random.below(to_u64(tail.len()) + 1));
                tail.iter_mut().skip(cut).for_each(|b| *b = 0);
            }
        }
    }
    Content { live: bytes.clone(), durable: bytes }
}

fn id_of(content: &Arc<Mutex<Content>>) -> FileId {
    (0, to_u64(Arc::as_ptr(content).addr()))
}

/// Names, where a folder has got another one.
fn moved(names: Names, from: &Path, to: &Path) -> Names {
    let rename = |path: PathBuf| match path.strip_prefix(from) {
        Ok(rest) => to.join(rest),
        Err(_) => path,
    };
    names.into_iter().map(|(path, content)| (rename(path), content)).collect()
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

fn eio(what: &str) -> io::Error {
    io::Error::other(format!("injected {what} error"))
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SharedFile> {
        let mut state = self.0.lock();
        let fails = state.faults.fail_opens.as_deref();
        if mode != OpenMode::Read && fails.is_some_and(|f| path.to_string_lossy().starts_with(f)) {
            return Err(eio("open"));
        }
        let wants = state.faults.no_descriptors.as_deref();
        if wants.is_some_and(|f| path.to_string_lossy().starts_with(f)) {
            return Err(io::Error::from_raw_os_error(24));
        }
        let content = match (state.files.get(path), mode) {
            (Some(content), OpenMode::Read | OpenMode::Write) => Arc::clone(content),
            (None, OpenMode::Read) => return Err(missing(path)),
            (_, OpenMode::Write | OpenMode::Replace) => {
                let content = Arc::new(Mutex::new(Content::default()));
                state.files.insert(path.to_owned(), Arc::clone(&content));
                content
            }
        };
        Ok(Arc::new(SimFile { content, state: Arc::clone(&self.0), lock: None }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.files.retain(|p, _| !p.starts_with(path));
        state.dirs.retain(|p| !p.starts_with(path));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().files.remove(path).map(|_| ()).ok_or_else(|| missing(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.dirs.contains(from) {
            state.files = moved(std::mem::take(&mut state.files), from, to);
            state.dirs.remove(from);
            state.dirs.insert(to.to_owned());
            state.renamed.push((from.to_owned(), to.to_owned()));
            return Ok(());
        }
        let content = state.files.remove(from).ok_or_else(|| missing(from))?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.0.lock();
        if !state.dirs.contains(path) {
            return Err(missing(path));
        }
        let name =
            |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let dirs = state.dirs.iter().filter(|p| p.parent() == Some(path));
        let files = state.files.iter().filter(|(p, _)| p.parent() == Some(path));
        let mut entries: Vec<Entry> = dirs
            .map(|p| Entry { name: name(p), is_dir: true, bytes: 0 })
            .chain(files.map(|(p, c)| Entry {
                name: name(p),
                is_dir: false,
                bytes: to_u64(c.lock().live.len()),
            }))
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.0.lock();
        state.files.contains_key(path) || state.dirs.contains(path)
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        let state = self.0.lock();
        // The names of locks are not among the files.
        let is_there = path.parent().is_some_and(|dir| state.dirs.contains(dir));
        let lock = state.locks.get(path).filter(|_| is_there);
        state.files.get(path).or(lock).map(id_of).ok_or_else(|| missing(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.faults.fail_syncs {
            return Err(eio("sync"));
        }
        if !state.dirs.contains(path) {
            return Err(missing(path));
        }
        let is_here = |name: &Path| name.parent() == Some(path);
        let (durable, rest) = std::mem::take(&mut state.renamed)
            .into_iter()
            .partition(|(from, to)| is_here(from) || is_here(to));
        state.renamed = rest;
        let durable: Vec<(PathBuf, PathBuf)> = durable;
        for (from, to) in durable {
            state.durable_names = moved(std::mem::take(&mut state.durable_names), &from, &to);
        }
        state.durable_names.retain(|p, _| p.parent() != Some(path));
        let now: Vec<_> = state
            .files
            .iter()
            .filter(|(p, _)| p.parent() == Some(path))
            .map(|(p, c)| (p.clone(), Arc::clone(c)))
            .collect();
        state.durable_names.extend(now);
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.syncs += 1;
        if state.faults.fail_syncs {
            return Err(eio("sync"));
        }
        for content in state.files.values() {
            let mut content = content.lock();
            let Content { live, durable } = &mut *content;
            durable.clone_from(live);
        }
        state.durable_names = state.files.clone();
        state.renamed.clear();
        Ok(())
    }

    fn sync_pause(&self) -> std::time::Duration {
        let state = self.0.lock();
        let (longest, count) = (state.faults.sync_us, state.syncs);
        // Some flushes are quick, some are slow; which is which follows from their number.
        let share = Random::seeded(count).below(1_000);
        std::time::Duration::from_micros(longest * share * share / 1_000_000)
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let room = self.0.lock().faults.room.unwrap_or(1 << 40);
        Ok(Space { total: 1 << 40, usable: room })
    }

    fn lock(&self, path: &Path) -> io::Result<SharedFile> {
        let mut state = self.0.lock();
        if state.locks.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.locks.insert(path.to_owned(), Arc::clone(&content));
        Ok(Arc::new(SimFile { content, state: Arc::clone(&self.0), lock: Some(path.to_owned()) }))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let total: usize = slices.iter().map(|s| s.len()).sum();
        let mut state = self.state.lock();
        if state.faults.fail_writes {
            return Err(eio("write"));
        }
        if let Some(room) = state.faults.room.as_mut() {
            *room = room.checked_sub(to_u64(total)).ok_or(io::ErrorKind::StorageFull)?;
        }
        let mut content = self.content.lock();
        let start = to_usize(offset);
        if content.live.len() < start + total {
            content.live.resize(start + total, 0);
        }
        let mut at = start;
        for slice in slices {
            if let Some(target) = content.live.get_mut(at..at + slice.len()) {
                target.copy_from_slice(slice);
            }
            at += slice.len();
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let rest = content.live.get(to_usize(offset)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.syncs += 1;
        let mut content = self.content.lock();
        if state.faults.fail_syncs {
            // The page cache still shows the bytes, but they will not survive.
            return Err(eio("sync"));
        }
        let Content { live, durable } = &mut *content;
        durable.clone_from(live);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.live.resize(to_usize(bytes), 0);
        let kept = content.durable.len().min(to_usize(bytes));
        content.durable.truncate(kept);
        Ok(())
    }

    fn reserve(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(to_u64(self.content.lock().live.len()))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(id_of(&self.content))
    }

    fn os_file(&self) -> Option<&std::fs::File> {
        None
    }

    fn is_cached(&self, _offset: u64, _bytes: usize) -> bool {
        true
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(path) = &self.lock {
            let locks = &mut self.state.lock().locks;
            if locks.get(path).is_some_and(|held| Arc::ptr_eq(held, &self.content)) {
                locks.remove(path);
            }
        }
    }
}
