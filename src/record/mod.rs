//! Record batches of format v2: look at, check, build, compress.
//!
//! Invariants: bytes of a client's batch are never rebuilt, only patched in place (base offset, leader epoch,
//! and for LogAppendTime the attribute and maximum timestamp); every length is checked before it is believed.
//! Absent: formats v0 and v1 (refused as Kafka 4 does), I/O.

pub mod batch;
pub mod builder;
pub mod compress;
pub mod reader;
pub mod validate;
mod varint;

pub use batch::{BatchHeader, HEADER_BYTES, next_batch};
pub use builder::BatchBuilder;
pub use compress::{Codec, CompressError};
pub use reader::{Record, RecordError, Records};
pub use validate::{BatchError, BatchRules, TimestampRules};
