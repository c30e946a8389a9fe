//! The five codecs of Kafka, bounded.
//!
//! Invariants: decompression never yields more than it was allowed, and allocates as output arrives, never by a
//! length that the input claims; snappy is read both framed (Java, "xerial") and plain (librdkafka).

use std::io::{self, Read, Write};

use crate::model::number::{to_i32, to_usize};

/// A codec, by its attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// How hard the codecs that have levels try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    /// 1 to 9, or -1: gzip's own.
    pub gzip: i32,
    pub zstd: i32,
}

impl Levels {
    pub(super) fn of_gzip(self) -> flate2::Compression {
        u32::try_from(self.gzip).map_or_else(
            |_| flate2::Compression::default(),
            |level| flate2::Compression::new(level.min(9)),
        )
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self { gzip: -1, zstd: 3 }
    }
}

/// Why bytes can't be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    #[error("unknown compression type {0}")]
    UnknownCodec(i16),
    #[error("decompressed size exceeds {limit} bytes")]
    TooLarge { limit: usize },
    #[error("compressed data is damaged: {0}")]
    Damaged(String),
}

impl Codec {
    pub(crate) fn from_bits(bits: i16) -> Result<Self, CompressError> {
        match bits {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(CompressError::UnknownCodec(other)),
        }
    }

    pub(crate) fn bits(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    /// By the name that `compression.type` uses; `producer` is not a codec.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" | "uncompressed" => Some(Codec::None),
            "gzip" => Some(Codec::Gzip),
            "snappy" => Some(Codec::Snappy),
            "lz4" => Some(Codec::Lz4),
            "zstd" => Some(Codec::Zstd),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// zstd's window may take this much memory: 2^23, the format's recommended minimum for decoders, with room.
pub(super) const ZSTD_WINDOW_LOG_MAX: u32 = 27;
pub(super) const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
pub(super) const XERIAL_HEADER_BYTES: usize = 16;

/// Decompresses to at most `bytes_max` bytes.
pub(crate) fn decompress(
    codec: Codec,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, CompressError> {
    let damaged = |error: io::Error| CompressError::Damaged(error.to_string());
    match codec {
        Codec::None => read_bounded(bytes, bytes_max),
        Codec::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(bytes), bytes_max),
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(bytes), bytes_max),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            read_bounded(decoder, bytes_max)
        }
        Codec::Snappy => unsnap(bytes, bytes_max),
    }
}

/// Compresses; snappy and lz4 have no levels (of lz4 there is only the fast one here).
pub(crate) fn compress(codec: Codec, levels: Levels, bytes: &[u8]) -> Vec<u8> {
    let packed = match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), levels.of_gzip());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).and_then(|()| encoder.finish().map_err(io::Error::other))
        }
        Codec::Zstd => zstd::bulk::compress(bytes, levels.zstd),
        Codec::Snappy => Ok(snap_framed(bytes)),
    };
    // Compressing into memory fails only when memory does.
    packed.unwrap_or_else(|error| unreachable!("compressing in memory failed: {error}"))
}

fn read_bounded(reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, CompressError> {
    let mut out = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|error| CompressError::Damaged(error.to_string()))?;
    if out.len() > bytes_max {
        return Err(CompressError::TooLarge { limit: bytes_max });
    }
    Ok(out)
}

fn unsnap(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressError> {
    if !bytes.starts_with(XERIAL_MAGIC) {
        return unsnap_block(bytes, bytes_max);
    }
    let cut = || CompressError::Damaged("snappy frame is cut".to_owned());
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or_else(cut)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (block, tail) = tail.split_at_checked(length).ok_or_else(cut)?;
        rest = tail;
        out.extend_from_slice(&unsnap_block(block, bytes_max - out.len())?);
    }
    Ok(out)
}

fn unsnap_block(block: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressError> {
    let claimed = claimed_by_snappy(block)?;
    if claimed > bytes_max {
        return Err(CompressError::TooLarge { limit: bytes_max });
    }
    snap::raw::Decoder::new()
        .decompress_vec(block)
        .map_err(|error| CompressError::Damaged(error.to_string()))
}

/// Bytes that a block says it yields, if they can be in it.
pub(super) fn claimed_by_snappy(block: &[u8]) -> Result<usize, CompressError> {
    let claimed = snap::raw::decompress_len(block)
        .map_err(|error| CompressError::Damaged(error.to_string()))?;
    // A snappy copy element yields at most 64 bytes from 2, so a truthful length is within 32 times the input.
    if claimed > block.len().saturating_mul(32) {
        return Err(CompressError::Damaged(format!(
            "snappy block of {} bytes claims {claimed}",
            block.len()
        )));
    }
    Ok(claimed)
}

fn snap_framed(bytes: &[u8]) -> Vec<u8> {
    const BLOCK_BYTES: usize = 32 * 1024;
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).unwrap_or_default();
        out.extend_from_slice(&to_i32(packed.len()).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

/// Bytes that a batch may yield: Kafka's `max.decompressed.message.bytes`, and never more than memory can bear.
pub(crate) fn decompressed_bytes_max(setting: i64) -> usize {
    to_usize(setting).min(256 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_stopped_at_the_limit_with_every_codec() {
        let zeros = vec![0; 4 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress(codec, Levels::default(), &zeros);
            assert!(packed.len() < 300_000, "{codec:?} made {}", packed.len());
            let stopped = decompress(codec, &packed, 1 << 20);
            assert!(
                matches!(stopped, Err(CompressError::TooLarge { .. })),
                "{codec:?}: {stopped:?}"
            );
            assert_eq!(decompress(codec, &packed, 4 << 20).expect("fits"), zeros);
        }
    }

    #[test]
    fn a_higher_level_makes_fewer_bytes_and_all_levels_are_read() {
        let words = [&b"orders"[..], b"customer", b"invoice", b"payment", b"refund", b"cart"];
        let pick = |i: usize| *words.get((i * i + i / 7 + i / 31) % words.len()).expect("a word");
        let plain: Vec<u8> =
            (0..20_000).flat_map(|i| [pick(i), &i.to_string().into_bytes()].concat()).collect();
        let size = |codec, levels| {
            let packed = compress(codec, levels, &plain);
            assert_eq!(decompress(codec, &packed, 1 << 24).expect("read"), plain, "{levels:?}");
            packed.len()
        };
        let gzip = |gzip| size(Codec::Gzip, Levels { gzip, ..Levels::default() });
        let zstd = |zstd| size(Codec::Zstd, Levels { zstd, ..Levels::default() });
        assert!(gzip(1) > gzip(6) && gzip(1) > gzip(9), "{} {} {}", gzip(1), gzip(6), gzip(9));
        assert_eq!(gzip(-1), gzip(6));
        assert!(zstd(-50) > zstd(1) && zstd(1) > zstd(19), "{} {}", zstd(1), zstd(19));
        assert!(zstd(-(1 << 17)) >= zstd(-50));
    }

    #[test]
    fn plain_snappy_is_read_as_well_as_framed() {
        let packed =
            snap::raw::Encoder::new().compress_vec(b"hello hello hello").expect("compress");
        assert_eq!(decompress(Codec::Snappy, &packed, 100).expect("plain"), b"hello hello hello");
    }

    #[test]
    fn a_snappy_block_that_claims_four_gigabytes_is_refused() {
        let lying = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert!(matches!(
            decompress(Codec::Snappy, &lying, usize::MAX),
            Err(CompressError::Damaged(_))
        ));
    }

    #[test]
    fn cut_input_is_an_error_with_every_codec() {
        let plain: Vec<u8> = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress(codec, Levels::default(), &plain);
            let half = packed.get(..packed.len() / 2).expect("half");
            assert!(decompress(codec, half, 1 << 20).is_err(), "{codec:?}");
        }
    }
}
