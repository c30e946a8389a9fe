//! What a walk refuses, and that it refuses nothing that a client sends.

use proptest::prelude::*;

use super::batch::{BatchHeader, HEADER_BYTES, renew_checksum};
use super::builder::BatchBuilder;
use super::compress::{Codec, CompressError, Levels, compress};
use super::plain::{Plain, announced};
use super::reader::{RecordError, Records};
use super::validate::{
    BatchError, BatchRules, TimestampRules, check_frame, check_header, check_records, recompress,
};
use super::varint::put_varlong;
use super::walk::Walked;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const RULES: BatchRules = BatchRules {
    bytes_max: 1 << 24,
    plain_bytes_max: 1 << 24,
    walks: true,
    keys_required: false,
    timestamps: None,
};

fn walk(batch: &[u8]) -> Result<Walked, BatchError> {
    let header = check_frame(batch, 1 << 24)?;
    check_header(&header, batch.len())?;
    Ok(check_records(&header, batch, &RULES, 0)?.expect("it is walked"))
}

/// A batch of so many records with a body of its own.
fn sealed(codec: Codec, count: i32, body: &[u8]) -> Vec<u8> {
    let mut batch = BatchBuilder::new().record(1000, None, None).build();
    batch.truncate(HEADER_BYTES);
    batch.extend_from_slice(body);
    let length = i32::try_from(batch.len() - 12).expect("small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] |= u8::try_from(codec.bits()).expect("small");
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    renew_checksum(&mut batch);
    batch
}

fn packed(codec: Codec, count: i32, plain: &[u8]) -> Vec<u8> {
    sealed(codec, count, &compress(codec, Levels::default(), plain))
}

fn varint(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varlong(&mut out, value);
    out
}

/// A record of these fields, with its true length.
fn record(fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    [varint(i64::try_from(body.len()).expect("small")), body].concat()
}

/// Attributes, timestamp and a place in the batch.
fn head(index: i64) -> Vec<u8> {
    [vec![0, 0], varint(index)].concat()
}

const KEY: &[u8] = &[2, b'k'];
const VALUE: &[u8] = &[20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const NO_HEADERS: &[u8] = &[0];

fn good(index: i64) -> Vec<u8> {
    record(&[&head(index), KEY, VALUE, NO_HEADERS])
}

/// Walks a good record, then this, with every codec; how it is refused, which is the same for all.
fn refused(second: &[u8]) -> (i32, &'static str) {
    let mut found = Vec::new();
    for codec in CODECS {
        match walk(&packed(codec, 2, &[&good(0), second].concat())) {
            Err(BatchError::Records(RecordError::Wrong { index, what })) => {
                found.push((index, what));
            }
            other => panic!("{codec:?}: {other:?}"),
        }
    }
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

#[test]
fn each_lie_of_a_record_has_its_own_refusal() {
    let at_1 = head(1);
    let cases: [(Vec<u8>, &str); 18] = [
        (record(&[&[0x80, 0, 2], KEY, VALUE, NO_HEADERS]), "an attribute"),
        (varint(-1), "negative length"),
        (varint(1 << 31), "no number of 32 bits"),
        (varint(i64::from(i32::MAX)), "ends before its fields do"),
        (vec![0], "ends before its fields"),
        ([varint(90), good(1)[1..].to_vec()].concat(), "longer than its fields"),
        (record(&[&head(0), KEY, VALUE, NO_HEADERS]), "offset delta"),
        (record(&[&head(7), KEY, VALUE, NO_HEADERS]), "offset delta"),
        (record(&[&head(-1), KEY, VALUE, NO_HEADERS]), "offset delta"),
        (record(&[&at_1, &varint(-2), VALUE, NO_HEADERS]), "a key of a length"),
        (record(&[&at_1, &varint(999), VALUE, NO_HEADERS]), "a key of a length"),
        (record(&[&at_1, KEY, &varint(-2), NO_HEADERS]), "a value of a length"),
        (record(&[&at_1, KEY, VALUE, &varint(-1)]), "count of headers"),
        (record(&[&at_1, KEY, VALUE, &varint(99), KEY, VALUE]), "count of headers"),
        (record(&[&at_1, KEY, VALUE, &varint(1), &varint(-1), VALUE]), "a header without a key"),
        (record(&[&at_1, KEY, VALUE, &varint(1), &[2, 0xff], VALUE]), "not UTF-8"),
        (record(&[&at_1, KEY, VALUE, &varint(1), KEY, &varint(-2)]), "a header with a value"),
        (record(&[&at_1, KEY, VALUE, NO_HEADERS, &[1]]), "longer than its fields"),
    ];
    for (second, expected) in cases {
        let (index, what) = refused(&second);
        assert!(index == 1 && what.contains(expected), "{second:?}: record {index} {what}");
    }
}

#[test]
fn a_batch_holds_the_records_that_it_announces_and_nothing_else() {
    for codec in CODECS {
        let two = [good(0), good(1)].concat();
        let is_wrong = |batch: &[u8], at: i32| matches!(walk(batch), Err(BatchError::Records(RecordError::Wrong { index, .. })) if index == at);
        assert!(walk(&packed(codec, 2, &two)).is_ok(), "{codec:?}");
        assert!(is_wrong(&packed(codec, 1, &two), 1), "{codec:?}: one is announced");
        assert!(is_wrong(&packed(codec, 2, &good(0)), 1), "{codec:?}: two are announced");
        assert!(
            is_wrong(&packed(codec, 2, &[&two[..], &[0; 9]].concat()), 2),
            "{codec:?}: and more"
        );
    }
}

#[test]
fn what_is_no_frame_of_its_codec_or_has_something_behind_it_is_refused() {
    let plain = [good(0), good(1)].concat();
    for codec in CODECS.into_iter().skip(1) {
        let body = compress(codec, Levels::default(), &plain);
        let one = compress(codec, Levels::default(), &good(0));
        let two = compress(codec, Levels::default(), &good(1));
        let is_damaged = |body: &[u8]| {
            let batch = sealed(codec, 2, body);
            matches!(
                walk(&batch),
                Err(BatchError::Records(RecordError::Compress(CompressError::Damaged(_))))
            )
        };
        assert!(is_damaged(&[0xa5; 200]), "{codec:?}: garbage");
        assert!(is_damaged(&body[..body.len() - 1]), "{codec:?}: cut");
        assert!(is_damaged(&[&body[..], &[7; 9]].concat()), "{codec:?}: and more");
        if codec != Codec::Snappy {
            assert!(is_damaged(&[]), "{codec:?}: nothing");
            assert!(is_damaged(&[one, two].concat()), "{codec:?}: two frames");
        }
    }
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let body = compress(Codec::Zstd, Levels::default(), &plain);
    assert!(walk(&sealed(Codec::Zstd, 2, &[&skipped[..], &body].concat())).is_err());
}

/// `plain` as an lz4 frame.
fn lz4(plain: &[u8], info: lz4_flex::frame::FrameInfo) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn an_lz4_frame_is_one_that_java_reads() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
    let value = [varint(200_000), vec![b'v'; 200_000]].concat();
    let plain = record(&[&head(0), KEY, &value, NO_HEADERS]);
    let info = || FrameInfo::new().block_size(BlockSize::Max64KB);
    let takes = |info: FrameInfo| walk(&sealed(Codec::Lz4, 1, &lz4(&plain, info))).is_ok();
    assert!(takes(info()));
    assert!(takes(info().block_checksums(true).content_checksum(true)));
    assert!(takes(info().content_size(Some(plain.len().try_into().expect("small")))));
    assert!(!takes(info().block_mode(BlockMode::Linked)));
}

#[test]
fn a_record_may_be_larger_than_what_is_in_memory_and_so_may_the_key_of_a_header() {
    for codec in CODECS {
        let mut builder = BatchBuilder::new().codec(codec);
        for size in [1, 40_000, 3_000_000, 32_767, 32_768] {
            let headers = [("h".repeat(size), Some(vec![1; size])), (String::new(), None)];
            builder.add(5, Some(&vec![2; size]), Some(&vec![3; size]), &headers);
        }
        let batch = builder.build();
        let header = BatchHeader::parse(&batch).expect("a header");
        let plain = Records::open(header, &batch, 1 << 24).expect("opens").plain_bytes();
        let walked = walk(&batch).unwrap_or_else(|error| panic!("{codec:?}: {error}"));
        assert_eq!(walked, Walked { max_timestamp: 5, plain_bytes: plain }, "{codec:?}");
    }
}

#[test]
fn a_bomb_is_refused_by_what_it_announces_and_no_frame_yields_more_than_that() {
    let value = [varint(8 << 20), vec![0; 8 << 20]].concat();
    let plain = record(&[&head(0), KEY, &value, NO_HEADERS]);
    let rules = BatchRules { plain_bytes_max: 1 << 20, ..RULES };
    for codec in CODECS.into_iter().skip(1) {
        let body = compress(codec, Levels::default(), &plain);
        let said = announced(codec, &body).expect("a frame");
        assert!(said.bytes >= plain.len() && said.bytes <= plain.len() + (4 << 20), "{said:?}");
        let batch = sealed(codec, 1, &body);
        let header = BatchHeader::parse(&batch).expect("a header");
        let refused = check_records(&header, &batch, &rules, 0);
        assert!(
            matches!(
                refused,
                Err(BatchError::Records(RecordError::Compress(CompressError::TooLarge { .. })))
            ),
            "{codec:?}: {refused:?}"
        );
        let mut source = Plain::open(codec, &body, 1 << 24).expect("opens").expect("compressed");
        let (mut piece, mut sum) = (vec![0; 10_000], 0);
        while let Ok(bytes @ 1..) = source.read(&mut piece) {
            sum += bytes;
        }
        assert_eq!(sum, plain.len(), "{codec:?}");
    }
    // A gzip member that says 8 bytes too few.
    let mut lying = compress(Codec::Gzip, Levels::default(), &plain);
    let at = lying.len() - 4;
    let less = u32::try_from(plain.len() - 8).expect("small");
    lying[at..].copy_from_slice(&less.to_le_bytes());
    assert!(walk(&sealed(Codec::Gzip, 1, &lying)).is_err());
}

#[test]
fn of_a_million_records_without_keys_a_thousand_are_named() {
    let one = |index| record(&[&head(index), &varint(-1), &varint(-1), NO_HEADERS]);
    let plain: Vec<u8> = (0..20_000).flat_map(one).collect();
    let batch = packed(Codec::Zstd, 20_000, &plain);
    let header = BatchHeader::parse(&batch).expect("a header");
    let rules = BatchRules { keys_required: true, walks: false, ..RULES };
    match check_records(&header, &batch, &rules, 0) {
        Err(BatchError::KeyMissing { indexes, count: 20_000 }) => assert_eq!(indexes.len(), 1000),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timestamp_that_no_clock_can_be_compared_with_is_out_of_range() {
    let rules = TimestampRules { before_max_ms: i64::MAX, after_max_ms: 1000 };
    let rules = BatchRules { timestamps: Some(rules), ..RULES };
    let at = |delta: i64| {
        let fields = [vec![0], varint(delta), varint(0)].concat();
        let batch = packed(Codec::None, 1, &record(&[&fields, KEY, VALUE, NO_HEADERS]));
        let header = BatchHeader::parse(&batch).expect("a header");
        check_records(&header, &batch, &rules, 5000).map(|walked| walked.expect("walked"))
    };
    assert_eq!(at(500).expect("in range").max_timestamp, 1500);
    for delta in [i64::MAX, i64::MIN, 9000] {
        assert!(matches!(at(delta), Err(BatchError::TimestampOutOfRange { index: 0, .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_batch_of_our_builder_passes_and_passes_again_under_another_codec(
        records in prop::collection::vec(
            (
                0_i64..2_000_000_000_000,
                prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..3000)),
                prop::collection::vec(("\\PC{0,20}", prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..4),
            ),
            1..40,
        ),
        from in 0_usize..5,
        to in 0_usize..5,
    ) {
        let mut builder = BatchBuilder::new().codec(CODECS[from]);
        for (timestamp, key, value, headers) in &records {
            builder.add(*timestamp, key.as_deref(), value.as_deref(), headers);
        }
        let batch = builder.build();
        let header = BatchHeader::parse(&batch).expect("a header");
        let walked = walk(&batch).expect("it passes");
        prop_assert_eq!(walked.max_timestamp, header.max_timestamp);
        let how = (CODECS[to], Levels::default());
        let again = recompress(&header, &batch, walked.plain_bytes, how, 1 << 24).expect("packed");
        prop_assert_eq!(walk(&again).expect("it passes"), walked);
        let opened = |batch: &[u8]| {
            let header = BatchHeader::parse(batch).expect("a header");
            let records = Records::open(header, batch, 1 << 24).expect("opens");
            let all: Result<Vec<_>, _> = records.iter().map(|r| r.map(|r| format!("{r:?}"))).collect();
            all.expect("records")
        };
        prop_assert_eq!(opened(&again), opened(&batch));
        // One byte of room less is too little.
        let short = recompress(&header, &batch, walked.plain_bytes, how, again.len() - 1);
        let is_refused = matches!(short, Err(BatchError::TooLarge { .. }));
        prop_assert!(is_refused);
    }

    #[test]
    fn no_damage_makes_a_walk_panic_and_what_passes_can_be_read(
        codec in 0_usize..5,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut builder = BatchBuilder::new().codec(CODECS[codec]);
        for n in 0..5 {
            builder.add(n, Some(b"key"), Some(&[7; 40]), &[("h".to_owned(), Some(vec![1]))]);
        }
        let mut batch = builder.build();
        for (at, value) in damages {
            let at = HEADER_BYTES + at.index(batch.len() - HEADER_BYTES);
            batch[at] = value;
        }
        renew_checksum(&mut batch);
        if walk(&batch).is_ok() {
            let header = BatchHeader::parse(&batch).expect("a header");
            let records = Records::open(header, &batch, 1 << 24).expect("opens");
            prop_assert_eq!(records.iter().flatten().count(), 5);
        }
    }
}
