//! Black box: the built binary, real clients, real crashes.
//!
//! Each file is a story. Everything runs on loopback, on ports that the system picks, in temporary folders; what a
//! story needs besides the Rust toolchain it installs by name (`kit.rs`) or says in one line what is missing.

#![expect(clippy::disallowed_methods, reason = "black box: real clocks, threads and processes")]

mod admin;
mod again;
mod aged;
mod assignments;
mod broker;
mod bucket;
mod chaos;
mod clients;
mod cluster;
mod compacted;
mod crash;
mod current;
mod devices;
mod ecosystem;
mod encrypted;
mod ending;
mod exhausted;
mod faults;
mod first_run;
mod hostile;
mod judges;
mod kit;
mod life;
mod limits;
mod mounted;
mod operations;
mod order;
mod plans;
mod power;
mod probe;
mod protocol;
mod restore;
mod returning;
mod secure;
mod settings;
mod slow_disk;
mod stopping;
mod suites;
mod tier;
mod tiered_sizes;
mod tiering;
mod uploads;
mod vanished;
mod watch;
mod wire;
