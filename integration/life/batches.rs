//! Record batches, made and taken apart by hand: what is judged is not read with the code of what is judged.

use std::io::{Read, Write};

use bytes::{Buf, BufMut, Bytes};

/// The codecs of Kafka, by their number in a batch.
pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

const HEADER_BYTES: usize = 61;
/// Where that begins what the CRC is of.
const CRC_FROM: usize = 21;
const APPEND_TIME: i16 = 8;
const CONTROL: i16 = 32;
const HORIZON: i16 = 64;
const XERIAL: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// A record; `number` stands in a header of records that have no value to stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub number: Option<u64>,
}

/// A batch as it came.
#[derive(Debug)]
pub(crate) struct Batch {
    pub base: i64,
    pub last: i64,
    pub bytes: usize,
    pub epoch: i32,
    pub records: Vec<Record>,
}

fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut left = u64::from_ne_bytes(((number << 1) ^ (number >> 63)).to_ne_bytes());
    while left > 0x7f {
        out.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).expect("seven bits"));
}

fn get_varint(from: &mut &[u8]) -> Option<i64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            let half = i64::try_from(number >> 1).ok()?;
            return Some(if number & 1 == 0 { half } else { -half - 1 });
        }
    }
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).expect("small")
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, length(bytes));
            out.extend_from_slice(bytes);
        }
    }
}

fn get_bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = get_varint(from)?;
    if length < 0 {
        return Some(None);
    }
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(bytes))
}

fn put_record(out: &mut Vec<u8>, record: &Record, delta: i64, base_time: i64) {
    let mut body = vec![0];
    put_varint(&mut body, record.timestamp - base_time);
    put_varint(&mut body, delta);
    put_bytes(&mut body, record.key.as_ref());
    put_bytes(&mut body, record.value.as_ref());
    put_varint(&mut body, i64::from(record.number.is_some()));
    if let Some(number) = record.number {
        put_bytes(&mut body, Some(&Bytes::from_static(b"n")));
        put_bytes(&mut body, Some(&Bytes::copy_from_slice(&number.to_be_bytes())));
    }
    put_varint(out, length(&body));
    out.extend_from_slice(&body);
}

fn get_record(mut from: &[u8], base: i64, base_time: i64) -> Option<Record> {
    from = &from[1..];
    let timestamp = base_time + get_varint(&mut from)?;
    let offset = base + get_varint(&mut from)?;
    let key = get_bytes(&mut from)?.map(Bytes::copy_from_slice);
    let value = get_bytes(&mut from)?.map(Bytes::copy_from_slice);
    let mut number = None;
    for _ in 0..get_varint(&mut from)? {
        let (name, value) = (get_bytes(&mut from)??, get_bytes(&mut from)??);
        number = (name == b"n").then_some(u64::from_be_bytes(value.try_into().ok()?));
    }
    from.is_empty().then_some(Record { offset, timestamp, key, value, number })
}

/// A batch of records, whose offsets count from 0; of an idempotent producer, if there is one (id, first sequence).
pub(crate) fn encode(records: &[Record], codec: i16, producer: Option<(i64, i32)>) -> Bytes {
    let first = records.first().expect("a record").timestamp;
    let newest = records.iter().map(|record| record.timestamp).max().expect("a record");
    let mut plain = Vec::new();
    for record in records {
        put_record(&mut plain, record, record.offset, first);
    }
    let count = i32::try_from(records.len()).expect("few");
    let (id, sequence) = producer.unwrap_or((-1, -1));
    let mut rest = Vec::new();
    rest.put_i16(codec);
    rest.put_i32(count - 1);
    rest.put_i64(first);
    rest.put_i64(newest);
    rest.put_i64(id);
    rest.put_i16(if producer.is_some() { 0 } else { -1 });
    rest.put_i32(sequence);
    rest.put_i32(count);
    rest.extend_from_slice(&pack(codec, plain));
    let mut out = Vec::with_capacity(CRC_FROM + rest.len());
    out.put_i64(0);
    out.put_i32(i32::try_from(9 + rest.len()).expect("small"));
    out.put_i32(-1);
    out.put_u8(2);
    out.put_u32(crc_fast::crc32_iscsi(&rest));
    out.extend_from_slice(&rest);
    out.into()
}

/// Takes an answer apart: whole batches, with perhaps a cut one at the end.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<Batch>, String> {
    let mut all: Vec<Batch> = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let claimed = i32::from_be_bytes(bytes[8..12].try_into().expect("four"));
        let whole = 12 + usize::try_from(claimed).map_err(|_| format!("a length of {claimed}"))?;
        let Some((batch, rest)) = bytes.split_at_checked(whole) else { break };
        let batch = one(batch)?;
        if all.last().is_some_and(|before| before.last >= batch.base) {
            return Err(format!(
                "a batch at {} after one to {}",
                batch.base,
                all[all.len() - 1].last
            ));
        }
        all.push(batch);
        bytes = rest;
    }
    Ok(all)
}

fn one(bytes: &[u8]) -> Result<Batch, String> {
    let mut header = bytes;
    let base = header.get_i64();
    header.advance(4);
    let epoch = header.get_i32();
    let (magic, crc) = (header.get_u8(), header.get_u32());
    if magic != 2 || crc != crc_fast::crc32_iscsi(&bytes[CRC_FROM..]) {
        return Err(format!("the batch at {base}: format {magic}, or a wrong CRC"));
    }
    let attributes = header.get_i16();
    let last = base + i64::from(header.get_i32());
    let (first_time, max_time) = (header.get_i64(), header.get_i64());
    header.advance(14);
    let count = header.get_i32();
    if attributes & CONTROL != 0 {
        return Err(format!("a control batch at {base}"));
    }
    let codec = attributes & 7;
    if count == 0 && (codec != 0 || bytes.len() != HEADER_BYTES) {
        return Err(format!("the batch at {base} has a codec or bytes, and no records"));
    }
    let plain = unpack(codec, &bytes[HEADER_BYTES..]).map_err(|why| format!("{base}: {why}"))?;
    // The time at which tombstones go stands in the place of the first time; deltas count from it all the same.
    let _ = attributes & HORIZON;
    let (mut rest, mut records) = (&plain[..], Vec::new());
    for _ in 0..count {
        let found = get_bytes(&mut rest).flatten();
        let record = found.and_then(|body| get_record(body, base, first_time));
        let mut record = record.ok_or_else(|| format!("a record of the batch at {base} is cut"))?;
        if attributes & APPEND_TIME != 0 {
            record.timestamp = max_time;
        }
        if record.offset < base || record.offset > last {
            return Err(format!("a record at {} in the batch {base} to {last}", record.offset));
        }
        records.push(record);
    }
    let has_order = records.is_sorted_by(|a, b| a.offset < b.offset);
    let newest = records.iter().map(|record| record.timestamp).max();
    if !rest.is_empty() || !has_order {
        return Err(format!("the batch at {base}: records out of order, or bytes after them"));
    }
    if newest.is_some_and(|newest| newest != max_time) {
        return Err(format!("the batch at {base} says {max_time}, its records {newest:?}"));
    }
    Ok(Batch { base, last, bytes: bytes.len(), epoch, records })
}

fn pack(codec: i16, plain: Vec<u8>) -> Vec<u8> {
    let packed = match codec {
        0 => Ok(plain),
        1 => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&plain).and_then(|()| encoder.finish())
        }
        2 => {
            let mut out = XERIAL.to_vec();
            for block in plain.chunks(32 << 10) {
                let block = snap::raw::Encoder::new().compress_vec(block).expect("packed");
                out.put_u32(u32::try_from(block.len()).expect("small"));
                out.extend_from_slice(&block);
            }
            Ok(out)
        }
        3 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(&plain).and_then(|()| encoder.finish().map_err(Into::into))
        }
        _ => zstd::bulk::compress(&plain, 1),
    };
    packed.expect("memory suffices")
}

fn unpack(codec: i16, mut packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let done = match codec {
        _ if packed.is_empty() => Ok(0),
        0 => return Ok(packed.to_vec()),
        1 => flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut out),
        2 if packed.starts_with(&XERIAL[..8]) => {
            packed.advance(XERIAL.len());
            while packed.len() > 4 {
                let size = usize::try_from(packed.get_u32()).map_err(|error| error.to_string())?;
                let block = packed.get(..size).ok_or("a block is cut")?;
                let block = snap::raw::Decoder::new().decompress_vec(block);
                out.extend_from_slice(&block.map_err(|error| error.to_string())?);
                packed.advance(size);
            }
            Ok(0)
        }
        2 => {
            out = snap::raw::Decoder::new().decompress_vec(packed).map_err(|e| e.to_string())?;
            Ok(0)
        }
        3 => lz4_flex::frame::FrameDecoder::new(packed).read_to_end(&mut out),
        4 => zstd::Decoder::new(packed).and_then(|mut decoder| decoder.read_to_end(&mut out)),
        other => return Err(format!("codec {other}")),
    };
    done.map(|_| out).map_err(|error| error.to_string())
}

#[test]
fn a_batch_of_every_codec_is_read_as_it_was_made_and_a_flipped_bit_is_found() {
    let record = |offset: i64| Record {
        offset,
        timestamp: 1_000 - offset,
        key: (offset > 0).then(|| Bytes::from(format!("k{offset}"))),
        value: (offset != 1).then(|| Bytes::from(vec![b'v'; 300])),
        number: (offset == 1).then_some(u64::MAX),
    };
    let records: Vec<Record> = (0..3).map(record).collect();
    for codec in 0..5 {
        let batch = encode(&records, codec, Some((7, 3)));
        let found = decode(&batch).expect("sound");
        assert_eq!((found.len(), &found[0].records), (1, &records), "{codec}");
        let mut ill = batch.to_vec();
        ill[70] ^= 4;
        assert!(decode(&ill).is_err(), "{codec}");
    }
}
