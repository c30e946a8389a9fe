//! Listeners, connections, and a framed client: bytes in, bytes out.
//!
//! Invariants: answers leave in the order of their requests; a connection holds no more memory than its requests in
//! progress; nothing that one connection does stops another.
//! Absent: what the bytes mean (the `Service` knows).

mod budget;
pub mod client;
mod connection;
mod frames;
mod limits;
mod listener;
mod output;
mod stream;

pub use budget::Budget;
pub use connection::{Answer, ConnectionRules, Peer, Service, serve};
pub use limits::ConnectionLimits;
pub use listener::{Listening, listen};
pub use output::{Output, Part};
pub use stream::Stream;
