//! Black box: the built binary, real clients, real crashes.
//!
//! Each file is a story. Everything runs on loopback, on ports that the system picks, in temporary folders; what a
//! story needs besides the Rust toolchain it installs by name (`kit.rs`) or says in one line what is missing.

#![expect(clippy::disallowed_methods, reason = "black box: real clocks, threads and processes")]

mod broker;
mod bucket;
mod chaos;
mod clients;
mod cluster;
mod compacted;
mod crash;
mod encrypted;
mod faults;
mod first_run;
mod franz_go;
mod hostile;
mod judges;
mod kit;
mod mounted;
mod operations;
mod power;
mod probe;
mod protocol;
mod restore;
mod secure;
mod tier;
mod tiering;
mod uploads;
