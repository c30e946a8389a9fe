//! What a bucket holds that nobody else is to read, and what becomes of it when keys change.

use super::encryption::TAG_BYTES;
use super::tests::{CACHE_BYTES, TOPIC, all, append, copy_all, log_with, offsets, remote};
use super::trailer::CHUNK_BYTES;
use super::*;
use crate::log::{Log, Stamp};
use crate::model::Offset;
use crate::objects::Store;
use crate::objects::faulty::{Fault, faulty};
use crate::record::{BatchBuilder, BatchHeader};

fn line(id: &str, byte: u8) -> String {
    use base64::Engine as _;
    format!("{id}={}", base64::engine::general_purpose::STANDARD.encode([byte; 32]))
}

fn keys(lines: &[String]) -> Keys {
    Keys::parse(&lines.join("\n")).expect("keys")
}

fn with_keys(store: &Store, lines: &[String]) -> RemotePartition {
    let tier = Tier::new(store.clone(), CACHE_BYTES);
    tier.keyring.set(keys(lines));
    RemotePartition::new(&tier, &"t".into(), TOPIC, 0)
}

/// One whose objects are encrypted.
pub(super) fn encrypted(store: &Store) -> RemotePartition {
    with_keys(store, &[line("a", 1)])
}

fn log() -> Log {
    log_with(|_| {})
}

async fn damaged(remote: &RemotePartition) -> Vec<String> {
    let manifest = remote.refresh().await.expect("read");
    let verified = remote.tier.verify(&manifest).await;
    verified.damaged.into_iter().map(|(_, error)| error.to_string()).collect()
}

#[tokio::test]
async fn what_is_encrypted_is_read_from_any_offset_and_nothing_of_it_can_be_read_in_the_bucket() {
    let (store, _) = faulty(Fault::None);
    let (mut log, writer) = (log(), encrypted(&store));
    append(&mut log, 0, 60);
    let manifest = copy_all(&writer, &log, 0).await.expect("copied");
    let end = log.active_base();
    for from in [0, 1, 17, end - 1] {
        assert_eq!(offsets(&writer, from).await, all(from..end), "{from}");
    }
    let later = encrypted(&store);
    assert!(damaged(&later).await.is_empty());
    assert_eq!(offsets(&later, 0).await, all(0..end));
    assert_eq!(later.state_at(end).await.expect("known").epochs.lines(), ["0 0"]);
    for segment in &manifest.segments {
        let (bytes, _) = store.get(&manifest.object(segment)).await.expect("there");
        let shows = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(!shows(b"some value") && !shows(b"topic") && !shows(b"crc"));
        assert!(BatchHeader::parse(&bytes).is_none_or(|header| header.base_offset != 0));
    }
}

/// Segments of several parts and chunks, of records that do not end where chunks do.
#[tokio::test]
async fn large_segments_are_encrypted_chunk_by_chunk_and_each_in_its_place() {
    let (store, _) = faulty(Fault::None);
    let (mut log, writer) = (log_with(|c| c.segment_bytes = 20 << 20), encrypted(&store));
    let value = vec![b'v'; 300_000];
    while log.active_base() == 0 {
        let at = log.log_end();
        let batch = BatchBuilder::new().record(at, None, Some(&value)).build();
        let header = BatchHeader::parse(&batch).expect("header");
        log.append(&header, &batch, Stamp { leader_epoch: 0, now_ms: at }).expect("appended");
    }
    log.close().expect("flushed");
    let manifest = copy_all(&writer, &log, 0).await.expect("copied");
    let segment = manifest.segments.first().expect("one");
    assert!(segment.chunks() > 16 && segment.stored_log_bytes() > segment.log_bytes);
    for from in [0, 3, 33, log.active_base() - 1] {
        assert_eq!(offsets(&writer, from).await, all(from..log.active_base()), "{from}");
    }
    // Two chunks that change places are both as they were sealed, and yet not what they claim to be.
    let object = manifest.object(segment);
    let (bytes, version) = store.get(&object).await.expect("there");
    let stored = CHUNK_BYTES + TAG_BYTES;
    let (first, second) = (&bytes[..stored], &bytes[stored..2 * stored]);
    let swapped = [second, first, &bytes[2 * stored..]].concat();
    store.replace(&object, swapped.into(), &version).await.expect("replaced");
    let told = damaged(&encrypted(&store)).await;
    assert!(matches!(&told[..], [text] if text.contains("chunk 0 is not what was")), "{told:?}");
    let read = encrypted(&store);
    let read = read.reader().read(&manifest, 0, 100, Offset::MAX).await.expect_err("told");
    assert!(matches!(&*read, RemoteError::Damaged { .. }), "{read}");
}

#[tokio::test]
async fn a_new_key_wraps_what_an_old_one_did_and_then_the_old_one_may_go() {
    let (store, _) = faulty(Fault::None);
    let mut log = log();
    append(&mut log, 0, 40);
    let old = encrypted(&store);
    let before = copy_all(&old, &log, 0).await.expect("copied");
    assert_eq!(old.rewrap(0).await.expect("looked"), 0, "there is no newer key");
    old.tier.keyring.set(keys(&[line("b", 2), line("a", 1)]));
    assert_eq!(old.rewrap(0).await.expect("wrapped"), before.segments.len());
    assert_eq!(old.rewrap(0).await.expect("looked"), 0);
    let after = old.manifest().expect("known");
    assert_eq!((after.key_ids(), before.key_ids()), (vec!["b"], vec!["a"]));
    let objects = |manifest: &Manifest| manifest.objects().collect::<Vec<_>>();
    assert_eq!(objects(&after), objects(&before), "no object is written");
    let new = with_keys(&store, &[line("b", 2)]);
    assert!(damaged(&new).await.is_empty());
    // Nothing new is encrypted, and what was stays readable.
    append(&mut log, 0, 40);
    old.tier.keyring.set(keys(&["none".to_owned(), line("b", 2)]));
    let mixed = copy_all(&old, &log, 0).await.expect("copied");
    let plain = mixed.segments.iter().filter(|segment| segment.encryption.is_none()).count();
    assert_eq!(plain, mixed.segments.len() - after.segments.len());
    assert_eq!(offsets(&old, 0).await, all(0..log.active_base()));
}

#[tokio::test]
async fn without_the_key_or_with_another_one_of_its_name_the_error_names_it() {
    let (store, _) = faulty(Fault::None);
    let (mut log, writer) = (log(), encrypted(&store));
    append(&mut log, 0, 40);
    let manifest = copy_all(&writer, &log, 0).await.expect("copied");
    for (reader, says) in [
        (remote(&store), "the key a, which is not among"),
        (with_keys(&store, &[line("b", 1)]), "the key a, which is not among"),
        (with_keys(&store, &[line("a", 2)]), "the key a is not the one"),
    ] {
        let error = reader.reader().read(&manifest, 0, 100, Offset::MAX).await.expect_err("told");
        assert!(error.to_string().contains(says), "{error}");
        let told = damaged(&reader).await;
        assert_eq!(told.len(), manifest.segments.len());
        assert!(told.iter().all(|text| text.contains(says)), "{told:?}");
    }
}

#[test]
fn a_file_of_keys_that_is_wrong_is_told_by_its_line_and_without_its_keys() {
    let short = "b=AAAA";
    for (text, says) in [
        ("", "strandline tier key"),
        ("# nothing\n\n", "strandline tier key"),
        ("secret", "line 1 is not of the form"),
        (&format!("# x\n{}\n{short}", line("a", 1)), "line 3: the key b is not 32 bytes"),
        (&format!("{}\n{}", line("a", 1), line("a", 2)), "line 2: there are two keys a"),
        (&format!("{}\nnone", line("a", 1)), "line 2 is not of the form"),
    ] {
        let error = Keys::parse(text).expect_err("refused");
        assert!(error.contains(says) && !error.contains("AAAA"), "{text}: {error}");
    }
    let made = Keys::new_line().expect("random");
    assert!(Keys::parse(&made).is_ok() && made != Keys::new_line().expect("random"));
}
