//! How many bytes count, where segments of a log do not begin and end where those in the bucket do.

use super::tests::{all, append, copy_all, id, log_with, offsets, remote};
use super::*;
use crate::log::Log;
use crate::model::Offset;
use crate::objects::faulty::{Fault, faulty};

fn log_of(segment_bytes: u64, records: i64) -> Log {
    let mut log = log_with(|config| config.segment_bytes = segment_bytes);
    append(&mut log, 0, records);
    log
}

/// Bytes of a log between two offsets.
fn between(log: &Log, from: Offset, to: Offset) -> u64 {
    log.bytes_from(from).run() - log.bytes_from(to).run()
}

#[test]
fn the_bytes_of_a_log_from_an_offset_on_are_told_exactly_wherever_that_lies() {
    let mut log = log_of(700, 0);
    let mut sizes = Vec::new();
    for count in [5, 1, 30, 2, 9, 13] {
        let before = log.bytes();
        append(&mut log, 0, count);
        sizes.push((log.log_end(), log.bytes() - before));
        for (at, _) in &sizes {
            let after: u64 = sizes.iter().filter(|(end, _)| end > at).map(|(_, size)| size).sum();
            assert_eq!(log.bytes_from(*at).run(), after, "{at}");
        }
    }
    assert!(log.segments() > 4);
    assert_eq!((log.bytes_from(-5).run(), log.bytes_from(1_000).run()), (log.bytes(), 0));
    log.trim(7);
    assert_eq!(log.bytes_from(0).run(), log.bytes_from(7).run(), "what was deleted is not counted");
}

#[tokio::test]
async fn no_byte_is_stored_or_counted_twice_however_the_segments_of_two_leaders_lie() {
    for (first, second, more) in
        [(400, 700, 10), (300, 5_000, 40), (900, 250, 1), (1_100, 1_000, 3)]
    {
        let (store, _) = faulty(Fault::None);
        let remote = remote(&store);
        copy_all(&remote, &log_of(first, 40), 0).await.expect("copied");
        // Another replica has the same records in other segments.
        let mut log = log_of(second, 40);
        let claimed = remote.claim(1, (log.epochs(), log.log_end()), 0).await.expect("claimed");
        let left = log.bytes_from(claimed.end().expect("some")).run();
        assert_eq!(claimed.bytes() + left, log.bytes(), "{first} {second}");
        append(&mut log, 1, more);
        while let Some(source) = log.segment_to_copy(
            (remote.manifest().and_then(|m| m.end()).expect("some"), log.log_end()),
            0,
        ) {
            let manifest = remote.copy(source, (1, id()), false).await.expect("copied");
            let end = manifest.end().expect("some");
            assert_eq!(manifest.bytes() + log.bytes_from(end).run(), log.bytes(), "{end}");
            let stored: u64 = manifest.segments.iter().map(|segment| segment.log_bytes).sum();
            assert_eq!(stored, manifest.bytes(), "{first} {second}: {end}");
        }
        let manifest = remote.manifest().expect("known");
        let end = manifest.end().expect("some");
        assert_eq!(manifest.segments.iter().map(|s| s.end_offset).max(), Some(end));
        for from in [0, 13, end.min(40) - 1, end - 1] {
            assert_eq!(offsets(&remote, from).await, all(from..end), "{first} {second}: {from}");
            let found = remote.reader().find_time(&manifest, from, end, 1 << 20).await;
            assert_eq!(found.expect("looked").map(|found| found.offset), Some(from));
        }
        assert!(remote.measure(1).await.expect("nothing to do") == 0);
        let state = remote.state_at(end).await.expect("known");
        let epochs: &[&str] = if end > 40 { &["0 0", "1 40"] } else { &["0 0"] };
        assert_eq!(state.epochs.lines(), epochs);
        assert_eq!(state.producers.lines().len(), 1);
    }
}

#[tokio::test]
async fn what_counts_of_a_segment_that_lost_its_beginning_or_its_end_is_found_out() {
    let (store, _) = faulty(Fault::None);
    let remote = remote(&store);
    let (mut lost, mut other) = (log_of(900, 23), log_of(900, 23));
    append(&mut lost, 1, 30);
    append(&mut other, 2, 30);
    let before = copy_all(&remote, &lost, 1).await.expect("copied");
    // As an older release made them: the object has what the segment before it has too.
    let cut = |manifest: &mut Manifest| {
        manifest.log_start = 2;
        manifest.segments[0].base_offset = 2;
        Ok(())
    };
    remote.change(1, cut).await.expect("changed");
    // And an unclean election takes the end of another one back.
    let claimed = remote.claim(2, (other.epochs(), other.log_end()), 0).await.expect("claimed");
    assert!(claimed.end() == Some(23) && before.end() > Some(30));
    let is_cut = claimed.segments.iter().filter(|segment| segment.counted_bytes() == 0).count();
    assert_eq!(is_cut, 2, "what is not known is not counted: {claimed:?}");
    assert!(claimed.bytes() < between(&other, 2, 23));
    assert_eq!(remote.measure(2).await.expect("measured"), 2);
    let manifest = remote.manifest().expect("known");
    assert_eq!(manifest.bytes(), between(&other, 2, 23));
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&*manifest));
    assert_eq!(remote.measure(2).await.expect("measured"), 0);
    let manifest = copy_all(&remote, &other, 3).await.expect("copied");
    let end = manifest.end().expect("some");
    assert_eq!(manifest.bytes() + other.bytes_from(end).run(), between(&other, 2, 53));
    assert_eq!(offsets(&remote, 2).await, all(2..end));
}
