//! Every reader of outside bytes, as a function of bytes.
//!
//! The targets of `integration/fuzz` call these; the corpus that they found is replayed by the tests below.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::config::{Config, TopicConfig};
use crate::log::{FileCache, Log, LogParts, RecoveryPoint, checkpoint, dump};
use crate::model::TopicPartition;
use crate::model::number::to_i32;
use crate::network::Frames;
use crate::protocol::decode_any;
use crate::quorum::{METADATA_FOLDER, QuorumStorage};
use crate::record::{
    BatchRules, Codec, Levels, Records, TimestampRules, compress, effort, next_batch, reader,
    validate,
};
use crate::system::sim_disk::SimDisk;
use crate::system::{OpenMode, SharedDisk};

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("frames", frames),
    ("request", request),
    ("batch", batch),
    ("compressed", compressed),
    ("log_files", log_files),
    ("checkpoints", checkpoints),
    ("metadata_log", metadata_log),
    ("group_records", group_records),
    ("peer_message", peer_message),
    ("bucket", bucket),
];

const FRAME_BYTES_MAX: usize = 1 << 16;
const PLAIN_BYTES_MAX: usize = 1 << 16;

/// A connection's bytes, arriving in pieces whose sizes the first byte gives.
pub fn frames(bytes: &[u8]) {
    let (step, rest) = bytes.split_first().map_or((1, bytes), |(s, r)| (usize::from(*s) + 1, r));
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let mut taken = 0;
    for piece in rest.chunks(step) {
        let mut piece = piece;
        while !piece.is_empty() {
            let mut room = frames.room();
            let (now, later) = piece.split_at(piece.len().min(room.remaining_mut()));
            room.put_slice(now);
            piece = later;
            let capacity = room.get_ref().capacity();
            assert!(capacity <= 4 * (FRAME_BYTES_MAX + bytes.len()), "room for what never came");
            loop {
                match frames.next() {
                    Ok(Some(frame)) => taken += frame.len() + 4,
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    }
    assert!(taken <= rest.len(), "frames of {taken} bytes out of {}", rest.len());
}

/// A frame: header and body of any request that we serve.
pub fn request(bytes: &[u8]) {
    decode_any(Bytes::copy_from_slice(bytes));
}

/// A record batch, with its checksum as it is and made right.
pub fn batch(bytes: &[u8]) {
    check_batch(bytes);
    let mut signed = bytes.to_vec();
    if signed.len() >= crate::record::HEADER_BYTES {
        crate::record::batch::renew_checksum(&mut signed);
        check_batch(&signed);
    }
    let mut rest = bytes;
    while let Some((_, _, after)) = next_batch(rest) {
        assert!(after.len() < rest.len(), "a batch of nothing");
        rest = after;
    }
}

fn check_batch(bytes: &[u8]) {
    let Ok(header) = validate::check_frame(bytes, bytes.len()) else { return };
    let is_sound = validate::check_header(&header, bytes.len()).is_ok();
    let rules = BatchRules {
        bytes_max: bytes.len(),
        plain_bytes_max: PLAIN_BYTES_MAX,
        walks: true,
        keys_required: true,
        timestamps: Some(TimestampRules { before_max_ms: 1, after_max_ms: 1 }),
    };
    let _ = validate::check_records(&header, bytes, &rules, 0);
    let rules = BatchRules { keys_required: false, timestamps: None, ..rules };
    let announced = effort(bytes, &rules, None, 0).memory;
    assert!(announced <= 1 << 27, "{announced} bytes of memory for a frame");
    let walked = validate::check_records(&header, bytes, &rules, 0);
    let Ok(records) = Records::open(header, bytes, PLAIN_BYTES_MAX) else {
        assert!(walked.is_err(), "a batch passes the checks that can't be opened");
        return;
    };
    assert!(records.plain_bytes() <= PLAIN_BYTES_MAX.max(bytes.len()), "more than allowed");
    let readable = records.iter().take_while(Result::is_ok).count();
    for record in records.iter().flatten() {
        let _ = reader::headers(&record);
    }
    // What contradicts itself in its header is refused before its records are walked.
    let Some(walked) = walked.ok().flatten().filter(|_| is_sound) else { return };
    assert_eq!(to_i32(readable), header.count, "a record passes the walk that can't be read");
    assert_eq!(walked.plain_bytes, records.plain_bytes(), "the walk misses some of it");
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let how = (codec, Levels::default());
        let packed = validate::recompress(&header, bytes, walked.plain_bytes, how, 1 << 20);
        let packed = packed.expect("what was walked is packed anew");
        let header = validate::check_frame(&packed, packed.len()).expect("a whole batch");
        let again = validate::check_records(&header, &packed, &rules, 0);
        assert_eq!(again.expect("it passes again"), Some(walked), "{codec:?}");
    }
}

/// Compressed bytes of every codec (the first byte tells which).
pub fn compressed(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Ok(codec) = Codec::from_bits(i16::from(kind % 5)) else { return };
    if let Ok(plain) = compress::decompress(codec, rest, PLAIN_BYTES_MAX) {
        assert!(plain.len() <= PLAIN_BYTES_MAX.max(rest.len()), "a bomb of {} bytes", plain.len());
    }
}

fn write(disk: &SharedDisk, path: &Path, bytes: &[u8]) {
    let parent = path.parent().unwrap_or(path);
    disk.create_dir_all(parent).expect("made");
    let file = disk.open(path, OpenMode::Replace).expect("opens");
    file.write_at(&[IoSlice::new(bytes)], 0).expect("written");
}

/// A partition's folder: the bytes are split evenly over its files.
pub fn log_files(bytes: &[u8]) {
    const NAMES: [&str; 6] = [
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "00000000000000000005.log",
        "00000000000000000005.snapshot",
        "leader-epoch-checkpoint",
    ];
    let folder = PathBuf::from("/data/t-0");
    let Some((split, rest)) = bytes.split_first() else { return };
    let disk: SharedDisk = Arc::new(SimDisk::default());
    let share = (rest.len() / (usize::from(*split) % NAMES.len() + 1)).max(1);
    for (name, part) in NAMES.iter().zip(rest.chunks(share)) {
        write(&disk, &folder.join(name), part);
    }
    let _ = dump::verify(&*disk, &folder, &mut dump::Verified::default(), &mut |_| {});
    let cache = Arc::new(FileCache::new(disk, 4, 4));
    let config =
        Arc::new(TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new()));
    let parts = LogParts { cache, config };
    for point in [0, 5] {
        let point = RecoveryPoint { offset: point, log_start: 0, has_producers: true };
        let name = TopicPartition::new("t", 0);
        let Ok((log, _)) = Log::open(name, folder.clone(), parts.clone(), point, 0) else {
            continue;
        };
        let _ = log.time_search(Some(1), log.log_end()).run(Some(1));
        if let Ok(Some(slice)) = log.slice(log.log_start(), log.end(), 1 << 16, true) {
            let _ = slice.read();
        }
    }
}

/// The small text files of a log directory.
pub fn checkpoints(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = checkpoint::decode(&text, "strandline-meta", 1);
    let disk: SharedDisk = Arc::new(SimDisk::default());
    let folder = Path::new("/data");
    // As they are, and with a right checksum over them.
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    crate::replication::read_checkpoints(&disk, folder, bytes, &lines);
}

/// The metadata's log: any bytes as its segment, then as the records of a whole batch.
pub fn metadata_log(bytes: &[u8]) {
    let path = Path::new("/data").join(METADATA_FOLDER).join("00000000000000000000.log");
    let whole = crate::record::BatchBuilder::new().record(1, Some(b"k"), Some(bytes)).build();
    for content in [bytes, whole.as_slice()] {
        let disk: SharedDisk = Arc::new(SimDisk::default());
        write(&disk, &path, content);
        let _ = QuorumStorage::open(&disk, Path::new("/data"));
    }
}

/// A message of another node on the controller listener, and the command that it may carry.
pub fn peer_message(bytes: &[u8]) {
    crate::quorum::read_message(bytes);
    crate::controller::read_command(bytes);
}

/// What stands in a bucket: a partition's manifest, what follows a segment's records, topics and committed offsets.
pub fn bucket(bytes: &[u8]) {
    crate::remote_log::read_manifest(bytes);
    crate::remote_log::read_trailer(bytes);
    crate::remote_log::read_note(bytes);
}

/// Keys and values of `__consumer_offsets` (the first byte says where the key ends).
pub fn group_records(bytes: &[u8]) {
    let Some((split, rest)) = bytes.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(*split).min(rest.len()));
    crate::coordinator::read_record(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz/corpus")
    }

    #[test]
    fn the_corpus_of_every_fuzz_target_is_replayed() {
        for (name, target) in TARGETS {
            let names = std::fs::read_dir(corpus().join(name)).expect("a corpus").flatten();
            let mut count = 0;
            for entry in names {
                target(&std::fs::read(entry.path()).expect("read"));
                count += 1;
            }
            assert!(count > 0, "no corpus for {name}");
        }
    }

    #[test]
    fn every_fuzz_target_has_its_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("read");
        for (name, _) in TARGETS {
            let program = folder.join(format!("fuzz_targets/{name}.rs"));
            let text = std::fs::read_to_string(program).expect("a program");
            assert!(text.contains(&format!("fuzz::{name}(")), "{name} calls another");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
        }
    }

    /// Seeds: each kind of bytes once, well-formed. `UPDATE=1` writes them.
    #[test]
    fn the_seeds_of_the_corpus_are_there() {
        for (target, name, bytes) in seeds() {
            let path = corpus().join(target).join(format!("seed-{name}"));
            if std::env::var_os("UPDATE").is_some() {
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                std::fs::write(&path, &bytes).expect("written");
            }
            assert!(path.exists(), "{} is missing: UPDATE=1 writes it", path.display());
        }
    }

    fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
        let mut seeds = Vec::new();
        for (key, version, frame) in crate::protocol::sample_frames() {
            seeds.push(("request", format!("{key}-v{version}"), frame[4..].to_vec()));
            if key == 3 {
                seeds.push(("frames", format!("{key}-v{version}"), [&[7], &frame[..]].concat()));
            }
        }
        for bits in 0..5 {
            let codec = Codec::from_bits(bits).expect("a codec");
            let mut builder = crate::record::BatchBuilder::new().codec(codec).producer(7, 1, 0);
            let headers = [("h".to_owned(), Some(b"x".to_vec()))];
            for number in 0..3 {
                builder.add(number, Some(b"key"), Some(&[b'v'; 40]), &headers);
            }
            let batch = builder.build();
            let packed = compress::compress(codec, Levels::default(), &[5; 300]);
            let kind = u8::try_from(bits).expect("small");
            seeds.push(("compressed", codec.name().to_owned(), [&[kind], &packed[..]].concat()));
            seeds.push(("log_files", codec.name().to_owned(), [&[0], &batch[..]].concat()));
            seeds.push(("batch", codec.name().to_owned(), batch));
        }
        let points =
            checkpoint::encode("strandline-recovery-points", 1, &["t-0 5 0 1 4".to_owned()]);
        seeds.push(("checkpoints", "points".to_owned(), points.into_bytes()));
        let entry = br#"{"log_id":{"leader_id":{"term":1,"node_id":1},"index":0},"payload":{"Normal":{"base":0,"data":[{"type":"topic","name":"t","id":"00000000-0000-0000-0000-000000000007"}]}}}"#;
        seeds.push(("metadata_log", "topic".to_owned(), entry.to_vec()));
        for (name, body) in [
            ("hello", r#""Hello""#),
            ("would-vote", r#"{"WouldVote":{"last":null}}"#),
            (
                "command",
                r#"{"Command":{"DeleteTopic":{"id":"00000000-0000-0000-0000-000000000007"}}}"#,
            ),
        ] {
            let from =
                r#"{"node":1,"directory":"00000000-0000-0000-0000-000000000001","cluster":"c"}"#;
            let message = format!(r#"{{"from":{from},"body":{body}}}"#);
            seeds.push(("peer_message", name.to_owned(), message.into_bytes()));
        }
        let command = r#"{"AlterIsr":{"broker":1,"epoch":2,"changes":[]}}"#;
        seeds.push(("peer_message", "isr".to_owned(), command.as_bytes().to_vec()));
        let manifest = crate::remote_log::sample_manifest().encode();
        seeds.push(("bucket", "manifest".to_owned(), manifest));
        for (name, note) in ["topic", "groups"].into_iter().zip(crate::remote_log::sample_notes()) {
            seeds.push(("bucket", name.to_owned(), note));
        }
        seeds.push(("bucket", "trailer".to_owned(), crate::remote_log::sample_trailer()));
        for (name, key, value) in crate::coordinator::sample_records() {
            let split = u8::try_from(key.len()).expect("small");
            seeds.push(("group_records", name, [&[split], &key[..], &value[..]].concat()));
        }
        seeds
    }
}
