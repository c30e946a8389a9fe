//! Object storage: S3 and what is compatible, Google Cloud Storage, Azure, a folder, memory.
//!
//! Invariants: an object is made once and never overwritten, but through `replace`, which changes it only if it is still the
//! version that the caller read; a store that can't promise that is refused before anything is trusted to it (`check`).
//! Absent: what the objects mean.

mod check;
mod counts;
#[cfg(test)]
pub(crate) mod faulty;
mod location;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use check::{CLOCKS, Finding, check};
pub(crate) use location::{Location, open};
pub(crate) use store::{Listed, Store, StoreError, Upload, Version};
