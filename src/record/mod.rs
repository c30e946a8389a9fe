//! Record batches of format v2: look at, check, build, compress.
//!
//! Invariants: bytes of a client's batch are never rebuilt, only patched in place (base offset, leader epoch,
//! the maximum timestamp where it is false,
//! and for LogAppendTime the attribute); every length is checked before it is believed.
//! Absent: formats v0 and v1 (refused as Kafka 4 does), I/O.

pub(crate) mod batch;
pub(crate) mod builder;
pub(crate) mod compress;
pub(crate) mod effort;
mod plain;
pub(crate) mod reader;
pub(crate) mod validate;
mod varint;
mod walk;
#[cfg(test)]
mod walk_tests;

pub(crate) use batch::{BatchHeader, HEADER_BYTES, next_batch};
pub(crate) use builder::BatchBuilder;
pub(crate) use compress::{Codec, CompressError, Levels};
pub(crate) use effort::{Effort, effort};
pub(crate) use reader::{RecordError, Records};
pub(crate) use validate::{BatchError, BatchRules, TimestampRules};
