//! Batches that a client library never sends: each has a true checksum, and something wrong behind it.

use std::io::Write;

use bytes::Bytes;

pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// When the first record was made.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// A batch and what is wrong with it.
pub(crate) struct Poison {
    pub name: &'static str,
    pub batch: Bytes,
}

/// A record, whose lengths may lie.
#[derive(Clone)]
struct Fields {
    length: Option<i64>,
    attributes: u8,
    timestamp: i64,
    offset: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<u8>,
    tail: Vec<u8>,
}

fn varint(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut out = Vec::new();
    while rest > 0x7f {
        out.push(u8::try_from(rest & 0x7f).expect("small") | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("small"));
    out
}

fn text(words: &[u8]) -> Vec<u8> {
    [varint(i64::try_from(words.len()).expect("small")), words.to_vec()].concat()
}

fn record(index: i64) -> Fields {
    Fields {
        length: None,
        attributes: 0,
        timestamp: index,
        offset: varint(index),
        key: text(format!("key-{index}").as_bytes()),
        value: text(&[b'v'; 100]),
        headers: [varint(1), text(b"header"), text(b"value")].concat(),
        tail: Vec::new(),
    }
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let body = [
            &[self.attributes][..],
            &varint(self.timestamp),
            &self.offset,
            &self.key,
            &self.value,
            &self.headers,
            &self.tail,
        ]
        .concat();
        let length = i64::try_from(body.len()).expect("small");
        [varint(self.length.unwrap_or(length)), body].concat()
    }
}

pub(crate) fn compress(codec: &str, plain: &[u8]) -> Vec<u8> {
    match codec {
        "none" => plain.to_vec(),
        "gzip" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(plain).expect("in memory");
            encoder.finish().expect("in memory")
        }
        "snappy" => snap::raw::Encoder::new().compress_vec(plain).expect("in memory"),
        "lz4" => lz4(plain, lz4_flex::frame::BlockMode::Independent),
        "zstd" => zstd::bulk::compress(plain, 3).expect("in memory"),
        other => panic!("no codec {other}"),
    }
}

fn lz4(plain: &[u8], mode: lz4_flex::frame::BlockMode) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(mode)
        .block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain).expect("in memory");
    encoder.finish().expect("in memory")
}

fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::LazyLock<[u32; 256]> = std::sync::LazyLock::new(|| {
        std::array::from_fn(|byte| {
            let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            (0..8).fold(u32::try_from(byte).expect("small"), step)
        })
    });
    let table = &*TABLE;
    let step = |crc: u32, byte: &u8| {
        let [.., low] = (crc ^ u32::from(*byte)).to_be_bytes();
        (crc >> 8) ^ table[usize::from(low)]
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// A batch with this body, as it is; attributes beside the codec, count, and the largest timestamp.
pub(crate) fn sealed(codec: &str, attributes: i16, count: i32, max: i64, body: &[u8]) -> Bytes {
    let bits = CODECS.iter().position(|name| *name == codec).expect("a codec");
    let attributes = attributes | i16::try_from(bits).expect("small");
    let covered = [
        &attributes.to_be_bytes()[..],
        &(count - 1).to_be_bytes(),
        &NOW.to_be_bytes(),
        &max.to_be_bytes(),
        &(-1_i64).to_be_bytes(),
        &(-1_i16).to_be_bytes(),
        &(-1_i32).to_be_bytes(),
        &count.to_be_bytes(),
        body,
    ]
    .concat();
    let length = i32::try_from(covered.len() + 9).expect("small");
    let mut batch = [&0_i64.to_be_bytes()[..], &length.to_be_bytes(), &[0xff; 4], &[2]].concat();
    batch.extend_from_slice(&crc32c(&covered).to_be_bytes());
    batch.extend_from_slice(&covered);
    batch.into()
}

/// Bytes with the length and the checksum of a batch made right, where they are long enough to have them.
pub(crate) fn resealed(mut batch: Vec<u8>) -> Bytes {
    if batch.len() > 21 {
        let length = i32::try_from(batch.len() - 12).expect("small");
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch.into()
}

/// The same batch of an idempotent producer.
pub(crate) fn idempotent(batch: &Bytes, id: i64, sequence: i32) -> Bytes {
    let mut batch = batch.to_vec();
    batch[43..51].copy_from_slice(&id.to_be_bytes());
    batch[51..53].copy_from_slice(&0_i16.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    resealed(batch)
}

/// A batch of records as every client sends them.
pub(crate) fn good(codec: &str, count: i32) -> Bytes {
    let plain: Vec<u8> = (0..count).flat_map(|index| record(index.into()).bytes()).collect();
    sealed(codec, 0, count, NOW + i64::from(count) - 1, &compress(codec, &plain))
}

/// A batch of one record that is large when it is not compressed.
pub(crate) fn bomb(codec: &str, bytes: usize) -> Bytes {
    let mut big = record(0);
    big.value = text(&vec![0; bytes]);
    sealed(codec, 0, 1, NOW, &compress(codec, &big.bytes()))
}

type Change = fn(&mut Vec<Fields>);

/// What is wrong within the second of three records.
const WRONG_RECORDS: &[(&str, Change)] = &[
    ("record length -1", |all| all[1].length = Some(-1)),
    ("record length 0", |all| all[1].length = Some(0)),
    ("record length 2^31", |all| all[1].length = Some(1 << 31)),
    ("record length 2^31-1", |all| all[1].length = Some((1 << 31) - 1)),
    ("record length of the last too long", |all| all[2].length = Some(500)),
    ("record length too short", |all| all[1].length = Some(20)),
    ("record length overlong", |all| {
        all[1].length = None;
        all[1].offset =
            [&[0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80][..], &[0]].concat();
    }),
    ("offset delta of 33 bits", |all| all[1].offset = vec![0x82, 0x80, 0x80, 0x80, 0x70]),
    ("offset deltas out of order", |all| all.swap(0, 1)),
    ("offset deltas twice the same", |all| all[1].offset = varint(0)),
    ("offset deltas with a gap", |all| all[2].offset = varint(7)),
    ("offset delta negative", |all| all[1].offset = varint(-1)),
    ("key length -2", |all| all[1].key = varint(-2)),
    ("key longer than its record", |all| all[1].key = varint(1 << 20)),
    ("value length -2", |all| all[1].value = varint(-2)),
    ("value longer than its record", |all| all[1].value = varint(1 << 20)),
    ("header count -1", |all| all[1].headers = varint(-1)),
    ("header count 5 of 1", |all| all[1].headers[0] = 10),
    ("header count 0 of 1", |all| all[1].headers[0] = 0),
    ("header count 2^31-1", |all| {
        all[1].headers = [varint((1 << 31) - 1), text(b"h"), text(b"v")].concat();
    }),
    ("header key null", |all| all[1].headers = [varint(1), varint(-1), text(b"v")].concat()),
    ("header key that is no text", |all| {
        all[1].headers = [varint(1), text(&[0xff, 0xfe, b'h']), text(b"v")].concat();
    }),
    ("header value length -2", |all| {
        all[1].headers = [varint(1), text(b"h"), varint(-2)].concat();
    }),
    ("bytes at the end of a record", |all| all[1].tail = vec![1, 2, 3]),
    ("record attributes", |all| all[1].attributes = 0x7f),
    ("record attribute of the highest bit", |all| all[1].attributes = 0x80),
    ("timestamp delta that wraps", |all| all[1].timestamp = i64::MAX),
];

/// All of them with a codec.
pub(crate) fn poisons(codec: &'static str) -> Vec<Poison> {
    let three = || (0..3).map(record).collect::<Vec<_>>();
    let plain = |all: &[Fields]| all.iter().flat_map(Fields::bytes).collect::<Vec<u8>>();
    let packed = |all: &[Fields]| compress(codec, &plain(all));
    let seal = |count: i32, body: &[u8]| sealed(codec, 0, count, NOW + 2, body);
    let mut found: Vec<(&'static str, Bytes)> = WRONG_RECORDS
        .iter()
        .map(|(name, change)| {
            let mut all = three();
            change(&mut all);
            (*name, seal(3, &packed(&all)))
        })
        .collect();
    let body = packed(&three());
    let more = |what: &[u8]| seal(3, &[&body, what].concat());
    found.extend([
        ("garbage", seal(3, &(0..200_u8).map(|n| n.wrapping_mul(151) ^ 0xa5).collect::<Vec<_>>())),
        ("nothing", seal(3, &[])),
        ("cut in the middle", seal(3, &body[..body.len() / 2])),
        ("one record of two announced", seal(1, &packed(&three()[..2]))),
        ("three records announced of two", seal(3, &packed(&three()[..2]))),
        ("a million records announced", seal(1_000_000, &body)),
        (
            "bytes after the last record",
            seal(3, &compress(codec, &[&plain(&three())[..], &[0; 9]].concat())),
        ),
        ("bytes after the end", more(&[7; 9])),
        ("largest timestamp too large", sealed(codec, 0, 3, NOW + (1 << 40), &body)),
        ("largest timestamp too small", sealed(codec, 0, 3, 5, &body)),
        ("largest timestamp -1", sealed(codec, 0, 3, -1, &body)),
        ("attribute bits 7 to 15", sealed(codec, -128, 3, NOW + 2, &body)),
        ("attribute of a delete horizon", sealed(codec, 1 << 6, 3, NOW + 2, &body)),
        ("attribute of log append time", sealed(codec, 1 << 3, 3, NOW + 2, &body)),
    ]);
    match codec {
        "gzip" => found.push((
            "two members",
            seal(3, &[packed(&three()[..1]), packed(&three()[1..])].concat()),
        )),
        "zstd" => {
            found.push((
                "two frames",
                seal(3, &[packed(&three()[..1]), packed(&three()[1..])].concat()),
            ));
            let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &body].concat();
            found.push(("a frame to skip before it", seal(3, &skipped)));
        }
        "lz4" => {
            let large: Vec<Fields> = (0..3)
                .map(|index| Fields { value: text(&vec![b'v'; 60_000]), ..record(index) })
                .collect();
            let linked = lz4(&plain(&large), lz4_flex::frame::BlockMode::Linked);
            found.push(("blocks that need those before them", seal(3, &linked)));
            found.push((
                "two frames",
                seal(3, &[packed(&three()[..1]), packed(&three()[1..])].concat()),
            ));
        }
        _ => {}
    }
    found.into_iter().map(|(name, batch)| Poison { name, batch }).collect()
}
