//! The only door to the operating system: clock, random numbers, files, tasks, shutdown.
//!
//! Invariants: no other module names `std::fs`, `SystemTime`, `Instant::now`, a random source or a spawn function
//! (`tidy` and clippy check it); each door has a twin that a simulation drives from one seed.
//! Left to others: what the files mean.

mod awake;
mod budget;
pub(crate) mod clock;
mod descriptors;
pub(crate) mod disk;
pub(crate) mod life;
mod memory;
mod os_disk;
mod patient;
pub(crate) mod planted;
pub(crate) mod random;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod sim_disk;
#[cfg(test)]
pub(crate) mod sim_nodes;
pub(crate) mod tasks;
mod telling;
mod throttle;

pub(crate) use awake::Awake;
pub(crate) use budget::{Account, Budgets, Grant, Pool};
pub(crate) use clock::Clock;
pub(crate) use descriptors::{Shares, descriptors_max};
pub(crate) use disk::{Disk, DiskFile, OpenMode, SharedDisk, SharedFile, Space};
pub(crate) use memory::memory_max;
pub(crate) use os_disk::OsDisk;
pub(crate) use patient::{Patient, wait_here};
pub(crate) use random::Random;
pub(crate) use telling::Telling;
pub(crate) use throttle::Throttle;
