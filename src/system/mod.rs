//! The only door to the operating system: clock, random numbers, files, tasks, shutdown.
//!
//! Invariants: no other module names `std::fs`, `SystemTime`, `Instant::now`, a random source or a spawn function
//! (`tidy` and clippy check it); each door has a twin that a simulation drives from one seed.
//! Left to others: what the files mean.

pub mod clock;
pub mod disk;
mod os_disk;
pub mod random;
#[cfg(test)]
pub mod sim_disk;
pub mod tasks;

pub use clock::Clock;
pub use disk::{Disk, DiskFile, Entry, OpenMode, SharedDisk, SharedFile, Space};
pub use os_disk::OsDisk;
pub use random::Random;
