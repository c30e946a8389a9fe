//! Looking at segment files while no broker has them: for `log dump` and `log verify`.
//!
//! Invariants: nothing is written; damage is reported with its place, and what follows it is not guessed at.

use std::path::{Path, PathBuf};

use super::error::ReadError;
use super::index::SegmentIndex;
use super::segment::{Walk, base_of};
use crate::model::Offset;
use crate::model::number::to_u64;
use crate::record::batch::checksum;
use crate::record::{BatchHeader, Records};
use crate::system::{Disk, OpenMode};

/// Most bytes that one batch may yield here.
const PLAIN_BYTES_MAX: usize = 256 << 20;

/// One finding of `verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub path: PathBuf,
    pub position: u64,
    pub what: String,
}

/// What `verify` read.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    pub files: usize,
    pub batches: u64,
    pub bytes: u64,
    pub damages: Vec<Damage>,
}

/// Visits each batch of a segment file; a damaged one ends the visit.
pub(crate) fn each_batch(
    disk: &dyn Disk,
    path: &Path,
    mut visit: impl FnMut(&BatchHeader, u64, &[u8], bool),
) -> Result<(), ReadError> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut walk = Walk::new(&*file, path, 0, file.bytes()?);
    while let Some((header, position)) = walk.next_header()? {
        let batch = walk.batch(&header, position)?;
        visit(&header, position, &batch, checksum(&batch) == Some(header.crc));
    }
    Ok(())
}

/// Checks every batch and index of the partition folders below `folder`; `progress` is told of bytes read.
pub(crate) fn verify(
    disk: &dyn Disk,
    folder: &Path,
    report: &mut Verified,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    for entry in disk.list(folder)? {
        let path = folder.join(&entry.name);
        if entry.is_dir {
            verify(disk, &path, report, progress)?;
        } else if let Some(base) = base_of(&entry.name, ".log") {
            verify_segment(disk, (&path, base, entry.bytes), report, progress);
        }
    }
    Ok(())
}

fn verify_segment(
    disk: &dyn Disk,
    (path, base, bytes): (&Path, Offset, u64),
    report: &mut Verified,
    progress: &mut dyn FnMut(u64),
) {
    report.files += 1;
    report.bytes += bytes;
    let mut found = Vec::new();
    let mut next = base;
    let mut batches = 0;
    let mut damage = |position, what: &str| {
        found.push(Damage { path: path.to_owned(), position, what: what.to_owned() });
    };
    let visited = each_batch(disk, path, |header, position, batch, is_true| {
        batches += 1;
        progress(to_u64(batch.len()));
        if !is_true {
            damage(position, "checksum differs");
        } else if header.base_offset < next {
            damage(position, "offsets go back");
        } else if Records::open(*header, batch, PLAIN_BYTES_MAX)
            .is_ok_and(|r| r.iter().any(|r| r.is_err()))
        {
            damage(position, "records are malformed");
        }
        next = header.last_offset() + 1;
    });
    match visited {
        Ok(()) => {}
        Err(ReadError::Corrupt { position, .. }) => damage(position, "not a whole batch"),
        Err(error) => damage(0, &error.to_string()),
    }
    if disk.exists(&path.with_extension("index"))
        && SegmentIndex::load(disk, path, base, bytes).is_none()
    {
        damage(0, "index is damaged (it will be rebuilt)");
    }
    report.batches += batches;
    report.damages.append(&mut found);
}
