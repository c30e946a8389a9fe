//! What stays on a local disk of what was read from a bucket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::encryption_tests::encrypted;
use super::tests::{all, append, copy_all, log_with, offsets, remote};
use super::*;
use crate::objects::Store;
use crate::objects::faulty::{Fault, faulty};
use crate::system::SharedDisk;
use crate::system::disk::{OpenMode, read_file};
use crate::system::sim_disk::SimDisk;
use crate::system::tasks::Background;

const DIR: &str = "/cache";

async fn with_disk(remote: RemotePartition, disk: &SharedDisk, bytes_max: u64) -> RemotePartition {
    let opened = DiskCache::open(disk, (Path::new(DIR), bytes_max), &Background::none());
    remote.tier.set_disk_cache(opened.expect("opened"));
    remote.refresh().await.expect("read");
    settle().await;
    remote
}

/// Lets what nobody waits for be done.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Reads until all of it is on the disk: what comes while many others are written is not kept.
async fn warm(of: fn(&Store) -> RemotePartition, store: &Store, disk: &SharedDisk) {
    for _ in 0..4 {
        let reader = with_disk(of(store), disk, 1 << 30).await;
        offsets(&reader, 0).await;
        settle().await;
    }
}

fn files(disk: &SharedDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).expect("listed");
    names.into_iter().map(|entry| Path::new(DIR).join(entry.name)).collect()
}

fn counts(remote: &RemotePartition) -> (u64, u64) {
    let counts = &remote.tier.counts;
    (counts.reads.load(Ordering::Relaxed), counts.disk_cache_hits.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_was_read_is_on_the_disk_for_whoever_comes_later_and_so_after_a_restart() {
    let kinds: [fn(&Store) -> RemotePartition; 2] = [remote, encrypted];
    for of in kinds {
        let (store, switch) = faulty(Fault::None);
        let disk: SharedDisk = Arc::new(SimDisk::default());
        let (mut log, writer) = (log_with(|_| {}), of(&store));
        append(&mut log, 0, 40);
        let manifest = copy_all(&writer, &log, 0).await.expect("copied");
        let end = log.active_base();
        warm(of, &store, &disk).await;
        assert_eq!(files(&disk).len(), 2 * manifest.segments.len());
        // A new process, with nothing in its memory, while the bucket does not answer.
        let later = with_disk(of(&store), &disk, 1 << 30).await;
        *switch.lock() = Fault::Down;
        assert_eq!(offsets(&later, 0).await, all(0..end));
        let pieces = 2 * u64::try_from(manifest.segments.len()).expect("small");
        assert_eq!(counts(&later), (0, pieces));
    }
}

#[tokio::test]
async fn a_piece_that_rots_on_the_disk_or_goes_is_fetched_anew_and_never_shown() {
    let (store, _) = faulty(Fault::None);
    let disk: SharedDisk = Arc::new(SimDisk::default());
    let (mut log, writer) = (log_with(|_| {}), remote(&store));
    append(&mut log, 0, 40);
    copy_all(&writer, &log, 0).await.expect("copied");
    let end = log.active_base();
    warm(remote, &store, &disk).await;
    let there = files(&disk);
    for (at, path) in there.iter().enumerate() {
        match at % 4 {
            0 => {
                let mut bytes = read_file(&*disk, path).expect("read");
                bytes[20] ^= 1;
                let file = disk.open(path, OpenMode::Replace).expect("opened");
                file.write_at(&[std::io::IoSlice::new(&bytes)], 0).expect("written");
            }
            1 => disk.open(path, OpenMode::Write).expect("opened").set_len(9).expect("cut"),
            _ => {}
        }
    }
    let later = with_disk(remote(&store), &disk, 1 << 30).await;
    disk.remove(&there[2]).expect("removed");
    assert_eq!(offsets(&later, 0).await, all(0..end));
    let wrong = there.iter().enumerate().filter(|(at, _)| at % 4 < 2 || *at == 2).count();
    let number = |count: usize| u64::try_from(count).expect("small");
    assert_eq!(counts(&later), (number(wrong), number(there.len() - wrong)));
    warm(remote, &store, &disk).await;
    let again = with_disk(remote(&store), &disk, 1 << 30).await;
    assert_eq!(offsets(&again, 0).await, all(0..end));
    assert_eq!(counts(&again).0, 0, "all is good again");
}

#[tokio::test]
async fn the_cache_is_as_large_as_it_may_be_and_leaves_other_files_alone() {
    let (store, _) = faulty(Fault::None);
    let disk: SharedDisk = Arc::new(SimDisk::default());
    let (mut log, writer) = (log_with(|_| {}), remote(&store));
    append(&mut log, 0, 60);
    let manifest = copy_all(&writer, &log, 0).await.expect("copied");
    disk.create_dir_all(Path::new(DIR)).expect("made");
    for name in ["mine", "half.tmp"] {
        disk.open(&Path::new(DIR).join(name), OpenMode::Write).expect("made");
    }
    // Each piece takes a unit of the disk.
    let small = with_disk(remote(&store), &disk, 5 * 4_096).await;
    assert_eq!(offsets(&small, 0).await, all(0..log.active_base()));
    settle().await;
    assert!(manifest.segments.len() > 5);
    let left: Vec<_> = files(&disk).into_iter().filter(|path| !path.ends_with("mine")).collect();
    assert!((1..=5).contains(&left.len()) && left.len() + 1 == files(&disk).len(), "{left:?}");
    assert!(!left.iter().any(|path| path.ends_with("half.tmp")));
    let fewer = with_disk(remote(&store), &disk, 2 * 4_096).await;
    assert_eq!(offsets(&fewer, 0).await, all(0..log.active_base()));
    settle().await;
    assert!(files(&disk).len() <= 3);
}
