//! How long it will take to look into a batch, told from its frame alone.
//!
//! Invariants: no frame makes it less than it is by more than the machine is slower than the ones measured: what comes out
//! of a codec is bounded by `plain.rs`. Nothing is decompressed here.
//! Left to others: where the work is done (`replication/checking.rs`).

use std::time::Duration;

use super::batch::{BatchHeader, HEADER_BYTES};
use super::compress::{Codec, Levels};
use super::plain::announced;
use super::validate::{BatchRules, has_walk};
use crate::model::Timestamp;
use crate::model::number::to_u64;

/// What a job takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    pub time: Duration,
    pub memory: usize,
}

impl Effort {
    /// Both, one after the other.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { time: self.time + other.time, memory: self.memory.max(other.memory) }
    }
}

/// Picoseconds a byte, as they come out of a codec (`benches/micro.rs`).
fn unpacking(codec: Codec) -> u64 {
    match codec {
        Codec::None => 0,
        Codec::Snappy | Codec::Lz4 => 600,
        Codec::Zstd => 1_200,
        Codec::Gzip => 2_000,
    }
}

/// The same, as they go into one.
fn packing(codec: Codec, levels: Levels) -> u64 {
    match codec {
        Codec::None => 100,
        Codec::Snappy | Codec::Lz4 => 3_000,
        Codec::Zstd if levels.zstd > 6 => 100_000,
        Codec::Zstd => 8_000,
        Codec::Gzip => 40_000,
    }
}

/// Nanoseconds to walk a record.
const RECORD_NANOS: u64 = 12;

/// What it takes to look into a batch, and to pack its records anew where its topic has a codec of its own.
pub(crate) fn effort(
    batch: &[u8],
    rules: &BatchRules,
    target: Option<(Codec, Levels)>,
    now_ms: Timestamp,
) -> Effort {
    let Some(header) = BatchHeader::parse(batch) else { return Effort::default() };
    let Ok(codec) = Codec::from_bits(header.codec_bits()) else { return Effort::default() };
    let target = target.filter(|(target, _)| *target != codec);
    if target.is_none() && !has_walk(&header, rules, now_ms) {
        return Effort::default();
    }
    // What is no frame is refused for that, which takes no time; so is what is too large.
    let body = batch.get(HEADER_BYTES..).unwrap_or_default();
    let Ok(announced) = announced(codec, body) else { return Effort::default() };
    if announced.is_exact && announced.bytes > rules.plain_bytes_max {
        return Effort::default();
    }
    let bytes = to_u64(announced.bytes.min(rules.plain_bytes_max));
    // A record has seven bytes at least.
    let records = to_u64(header.count).min(bytes / 7);
    let rewriting = target.map_or(0, |(to, levels)| unpacking(codec) + packing(to, levels));
    let picos = bytes.saturating_mul(unpacking(codec) + rewriting);
    Effort {
        time: Duration::from_nanos(picos / 1000 + records * RECORD_NANOS),
        memory: announced.window + if target.is_some() { rules.bytes_max } else { 0 },
    }
}
