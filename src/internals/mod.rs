//! Doors to the inside for fuzz targets and micro-benchmarks; in no ordinary build (feature `internals`).
//!
//! Invariants: nothing here decides anything; a fuzz entry returns whatever the bytes are, or has found a bug.

pub mod fuzz;
pub mod micro;
