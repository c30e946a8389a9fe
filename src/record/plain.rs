//! The records of a compressed batch as they come out of its codec, a piece at a time.
//!
//! Invariants: a frame is one that every client's decoder reads: one frame, nothing behind it, no dictionary, and for lz4
//! blocks that stand for themselves; how much comes out at most is known from the frame alone, before anything is
//! decompressed, and never more comes out; memory is that of a window and a piece.
//! Left to others: what the bytes mean (`walk.rs`), and whole bodies for readers of what is stored (`compress.rs`).

use std::io::{self, Read, Write};

use super::compress::{
    Codec, CompressError, Levels, XERIAL_HEADER_BYTES, XERIAL_MAGIC, ZSTD_WINDOW_LOG_MAX,
    claimed_by_snappy,
};
use crate::model::number::to_u64;

const LZ4_MAGIC: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The largest block that zstd's format allows.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;
/// A byte of deflate yields no more than this many.
const GZIP_RATIO: usize = 1032;
/// A piece of what comes out.
const PIECE_BYTES: usize = 32 << 10;

/// What a frame says before it is decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    /// More than this never comes out.
    pub bytes: usize,
    /// Whether just that comes out.
    pub is_exact: bool,
    /// What the decoder keeps of it while it works.
    pub window: usize,
}

/// Reads what a frame says; an error is a frame that some client can't read, whatever is in it.
pub(crate) fn announced(codec: Codec, packed: &[u8]) -> Result<Announced, CompressError> {
    let found = match codec {
        Codec::None => Some(Announced { bytes: packed.len(), is_exact: true, window: 0 }),
        Codec::Gzip => of_gzip(packed),
        Codec::Snappy => return of_snappy(packed),
        Codec::Lz4 => of_lz4(packed),
        Codec::Zstd => of_zstd(packed),
    };
    found.ok_or_else(|| {
        CompressError::Damaged(format!(
            "{} bytes are not one {} frame that every client reads",
            packed.len(),
            codec.name()
        ))
    })
}

/// Takes bytes off the front.
fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(bytes)?;
    *rest = tail;
    Some(taken)
}

/// Takes a number of up to eight bytes off, the least byte first.
fn take_number(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    let taken = take(rest, bytes)?;
    let number = taken.iter().rev().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    usize::try_from(number).ok()
}

fn of_gzip(packed: &[u8]) -> Option<Announced> {
    const HEAD_BYTES: usize = 10;
    const TAIL_BYTES: usize = 8;
    let is_gzip = packed.starts_with(&[0x1f, 0x8b, 8]);
    if !is_gzip || packed.len() < HEAD_BYTES + TAIL_BYTES {
        return None;
    }
    let bytes = take_number(&mut packed.get(packed.len() - 4..)?, 4)?;
    let is_possible = bytes / GZIP_RATIO <= packed.len();
    is_possible.then_some(Announced { bytes, is_exact: true, window: 32 << 10 })
}

fn of_snappy(packed: &[u8]) -> Result<Announced, CompressError> {
    let (mut bytes, mut largest) = (0_usize, 0);
    for block in SnappyBlocks::new(packed)? {
        let claimed = claimed_by_snappy(block?)?;
        bytes = bytes.saturating_add(claimed);
        largest = largest.max(claimed);
    }
    Ok(Announced { bytes, is_exact: true, window: largest })
}

/// The blocks of a snappy body: Java frames them, librdkafka sends one bare.
struct SnappyBlocks<'a> {
    rest: &'a [u8],
    is_framed: bool,
}

impl<'a> SnappyBlocks<'a> {
    fn new(packed: &'a [u8]) -> Result<Self, CompressError> {
        if !packed.starts_with(XERIAL_MAGIC) {
            return Ok(Self { rest: packed, is_framed: false });
        }
        // The version, and the oldest one that reads it: there is one.
        let head = packed.get(..XERIAL_HEADER_BYTES);
        if head.is_none_or(|head| !head.ends_with(&[0, 0, 0, 1, 0, 0, 0, 1])) {
            return Err(CompressError::Damaged("snappy frame of an unknown version".to_owned()));
        }
        let rest = packed.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
        Ok(Self { rest, is_framed: true })
    }
}

impl<'a> Iterator for SnappyBlocks<'a> {
    type Item = Result<&'a [u8], CompressError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if !self.is_framed {
            return Some(Ok(std::mem::take(&mut self.rest)));
        }
        let block = self.rest.split_first_chunk::<4>().and_then(|(length, tail)| {
            tail.split_at_checked(usize::try_from(i32::from_be_bytes(*length)).ok()?)
        });
        let Some((block, tail)) = block else {
            self.rest = &[];
            return Some(Err(CompressError::Damaged("snappy frame is cut".to_owned())));
        };
        self.rest = tail;
        Some(Ok(block))
    }
}

/// As Java's reader wants it (`Lz4BlockInputStream`).
fn of_lz4(packed: &[u8]) -> Option<Announced> {
    let mut rest = packed;
    if take(&mut rest, 4)? != LZ4_MAGIC {
        return None;
    }
    let (flags, block) = (*take(&mut rest, 1)?.first()?, *take(&mut rest, 1)?.first()?);
    // Version 1, blocks that stand for themselves, no dictionary, no bit that means nothing.
    if flags & 0b1110_0011 != 0b0110_0000 || block & 0b1000_1111 != 0 {
        return None;
    }
    let block_bytes = match block >> 4 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        _ => return None,
    };
    let (has_block_sums, has_sum) = (flags & 0b1_0000 != 0, flags & 0b100 != 0);
    let said = if flags & 0b1000 == 0 { None } else { Some(take_number(&mut rest, 8)?) };
    take(&mut rest, 1)?;
    let mut bytes = 0_usize;
    loop {
        let length = take_number(&mut rest, 4)?;
        if length == 0 {
            break;
        }
        let (stored, is_plain) = (length & 0x7fff_ffff, length & 0x8000_0000 != 0);
        if stored > block_bytes {
            return None;
        }
        take(&mut rest, stored)?;
        take(&mut rest, if has_block_sums { 4 } else { 0 })?;
        bytes += if is_plain { stored } else { block_bytes.min(stored.saturating_mul(255)) };
    }
    take(&mut rest, if has_sum { 4 } else { 0 })?;
    let at_most = said.map_or(bytes, |said| said.min(bytes));
    let is_exact = said.is_some();
    rest.is_empty().then_some(Announced { bytes: at_most, is_exact, window: 2 * block_bytes })
}

fn of_zstd(packed: &[u8]) -> Option<Announced> {
    let mut rest = packed;
    if take(&mut rest, 4)? != ZSTD_MAGIC {
        return None;
    }
    let flags = *take(&mut rest, 1)?.first()?;
    let is_single_segment = flags & 0b10_0000 != 0;
    // No bit that means nothing, and no dictionary.
    if flags & 0b1011 != 0 {
        return None;
    }
    let window = if is_single_segment { None } else { Some(*take(&mut rest, 1)?.first()?) };
    let said = match (flags >> 6, is_single_segment) {
        (0, false) => None,
        (0, true) => Some(take_number(&mut rest, 1)?),
        (1, _) => Some(take_number(&mut rest, 2)? + 256),
        (2, _) => Some(take_number(&mut rest, 4)?),
        _ => Some(take_number(&mut rest, 8)?),
    };
    let mut bytes = 0_usize;
    loop {
        let head = take_number(&mut rest, 3)?;
        let (kind, length) = ((head >> 1) & 3, head >> 3);
        let (stored, plain) = match kind {
            0 => (length, length),
            1 => (1, length),
            2 => (length, ZSTD_BLOCK_BYTES),
            _ => return None,
        };
        if length > ZSTD_BLOCK_BYTES {
            return None;
        }
        take(&mut rest, stored)?;
        bytes = bytes.saturating_add(plain);
        if head & 1 == 1 {
            break;
        }
    }
    take(&mut rest, if flags & 0b100 == 0 { 0 } else { 4 })?;
    let window = window.map_or(said.unwrap_or(0), |byte| {
        let base = 1_usize << (10 + u32::from(byte >> 3));
        base + base / 8 * usize::from(byte & 7)
    });
    if !rest.is_empty() || window > 1 << ZSTD_WINDOW_LOG_MAX {
        return None;
    }
    let at_most = said.map_or(bytes, |said| said.min(bytes));
    Some(Announced { bytes: at_most, is_exact: said.is_some(), window: window.min(at_most) })
}

enum Decoder<'a> {
    Gzip(Box<flate2::bufread::GzDecoder<&'a [u8]>>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
    Snappy { blocks: SnappyBlocks<'a>, plain: Vec<u8>, at: usize },
}

/// See the file's header.
pub(crate) struct Plain<'a> {
    decoder: Decoder<'a>,
    /// What may still come, and what was allowed.
    left: usize,
    limit: usize,
    /// Whether the frame ends within what its own header says.
    is_announced: bool,
}

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("left", &self.left).field("limit", &self.limit).finish()
    }
}

fn damaged(error: io::Error) -> CompressError {
    CompressError::Damaged(error.to_string())
}

impl<'a> Plain<'a> {
    /// Opens a compressed body, of which at most `bytes_max` bytes may come; `None` if it is not compressed.
    pub(crate) fn open(
        codec: Codec,
        packed: &'a [u8],
        bytes_max: usize,
    ) -> Result<Option<Self>, CompressError> {
        let announced = announced(codec, packed)?;
        if announced.is_exact && announced.bytes > bytes_max {
            return Err(CompressError::TooLarge { limit: bytes_max });
        }
        let decoder = match codec {
            Codec::None => return Ok(None),
            Codec::Gzip => Decoder::Gzip(Box::new(flate2::bufread::GzDecoder::new(packed))),
            Codec::Lz4 => Decoder::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(packed))),
            Codec::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(damaged)?;
                let mut decoder = decoder.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
                Decoder::Zstd(decoder)
            }
            Codec::Snappy => {
                let blocks = SnappyBlocks::new(packed)?;
                Decoder::Snappy { blocks, plain: Vec::new(), at: 0 }
            }
        };
        let limit = announced.bytes.min(bytes_max);
        let is_announced = announced.bytes <= bytes_max;
        Ok(Some(Self { decoder, left: limit, limit, is_announced }))
    }

    /// Reads what comes next; 0 is the end, and that of the frame.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, CompressError> {
        if into.is_empty() {
            return Ok(0);
        }
        let bytes = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.read(into).map_err(damaged)?,
            Decoder::Lz4(decoder) => decoder.read(into).map_err(damaged)?,
            Decoder::Zstd(decoder) => decoder.read(into).map_err(damaged)?,
            Decoder::Snappy { blocks, plain, at } => read_snappy(blocks, plain, at, into)?,
        };
        if bytes > self.left {
            return Err(if self.is_announced {
                CompressError::Damaged(format!(
                    "more comes out than the {} bytes announced",
                    self.limit
                ))
            } else {
                CompressError::TooLarge { limit: self.limit }
            });
        }
        self.left -= bytes;
        if bytes == 0 {
            self.check_end()?;
        }
        Ok(bytes)
    }

    /// Whether nothing lies behind the frame.
    fn check_end(&self) -> Result<(), CompressError> {
        let behind = match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref().len(),
            Decoder::Lz4(decoder) => decoder.get_ref().len(),
            Decoder::Zstd(decoder) => decoder.get_ref().len(),
            Decoder::Snappy { .. } => 0,
        };
        if behind == 0 {
            return Ok(());
        }
        Err(CompressError::Damaged(format!("{behind} bytes lie behind the compressed records")))
    }
}

fn read_snappy(
    blocks: &mut SnappyBlocks<'_>,
    plain: &mut Vec<u8>,
    at: &mut usize,
    mut into: &mut [u8],
) -> Result<usize, CompressError> {
    while *at == plain.len() {
        let Some(block) = blocks.next().transpose()? else { return Ok(0) };
        // What the whole body claims was looked at before.
        plain.resize(claimed_by_snappy(block)?, 0);
        let bytes = snap::raw::Decoder::new()
            .decompress(block, plain)
            .map_err(|error| CompressError::Damaged(error.to_string()))?;
        plain.truncate(bytes);
        *at = 0;
    }
    let written = into.write(plain.get(*at..).unwrap_or_default()).map_err(damaged)?;
    *at += written;
    Ok(written)
}

/// Collects bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Records under another codec, byte for byte; `None` if that takes more than `limit` bytes.
pub(crate) fn repack(
    (from, packed): (Codec, &[u8]),
    plain_bytes: usize,
    (to, levels): (Codec, Levels),
    limit: usize,
) -> Result<Option<Vec<u8>>, CompressError> {
    let out = Bounded { bytes: Vec::new(), limit };
    let mut source = Plain::open(from, packed, plain_bytes)?;
    let mut copy = |out: &mut dyn Write| -> io::Result<()> {
        let Some(source) = &mut source else { return out.write_all(packed) };
        let mut piece = vec![0; PIECE_BYTES.min(plain_bytes.max(1))];
        loop {
            let bytes = source.read(&mut piece).map_err(io::Error::other)?;
            if bytes == 0 {
                return Ok(());
            }
            out.write_all(piece.get(..bytes).unwrap_or_default())?;
        }
    };
    let done = match to {
        Codec::None => {
            let mut out = out;
            copy(&mut out).map(|()| out)
        }
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, levels.of_gzip());
            copy(&mut encoder).and_then(|()| encoder.finish())
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            copy(&mut encoder).and_then(|()| encoder.finish().map_err(io::Error::from))
        }
        Codec::Zstd => zstd_encoder(out, levels, plain_bytes).and_then(|mut encoder| {
            copy(&mut encoder)?;
            encoder.finish()
        }),
        Codec::Snappy => {
            let mut encoder = SnappyEncoder::new(out);
            copy(&mut encoder).and_then(|()| encoder.finish())
        }
    };
    match done {
        Ok(out) => Ok(Some(out.bytes)),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        Err(error) => Err(damaged(error)),
    }
}

fn zstd_encoder(
    out: Bounded,
    levels: Levels,
    plain_bytes: usize,
) -> io::Result<zstd::stream::write::Encoder<'static, Bounded>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, levels.zstd)?;
    // Readers then know how much room they need.
    encoder.set_pledged_src_size(Some(to_u64(plain_bytes)))?;
    encoder.include_contentsize(true)?;
    Ok(encoder)
}

/// Blocks as Java frames them.
struct SnappyEncoder {
    out: Bounded,
    block: Vec<u8>,
    has_begun: bool,
}

impl SnappyEncoder {
    fn new(out: Bounded) -> Self {
        Self { out, block: Vec::with_capacity(PIECE_BYTES), has_begun: false }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.has_begun {
            self.out.write_all(XERIAL_MAGIC)?;
            self.out.write_all(&[0, 0, 0, 1, 0, 0, 0, 1])?;
            self.has_begun = true;
        }
        let packed =
            snap::raw::Encoder::new().compress_vec(&self.block).map_err(io::Error::other)?;
        let length = i32::try_from(packed.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_be_bytes())?;
        self.block.clear();
        self.out.write_all(&packed)
    }

    fn finish(mut self) -> io::Result<Bounded> {
        if !self.block.is_empty() || !self.has_begun {
            self.end_block()?;
        }
        Ok(self.out)
    }
}

impl Write for SnappyEncoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.block.len());
        self.block.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.block.len() == PIECE_BYTES {
            self.end_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
