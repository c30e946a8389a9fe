//! Listeners, connections, and a framed client: bytes in, bytes out.
//!
//! Invariants: answers leave in the order of their requests; a connection holds no more memory than its requests in
//! progress; nothing that one connection does stops another.
//! Absent: what the bytes mean (the `Service` knows).

pub(crate) mod client;
mod connection;
mod dial;
mod frames;
mod limits;
mod listener;
mod output;
mod receiver;
mod stream;
mod tls;

#[cfg(test)]
pub(crate) use connection::serve;
pub(crate) use connection::{Answer, ConnectionRules, Peer, Service};
#[cfg(test)]
pub(crate) use dial::{Dial, Dialing, Duplex};
pub(crate) use dial::{Dialer, TcpDialer};
#[cfg(any(test, feature = "internals"))]
pub(crate) use frames::Frames;
pub(crate) use limits::ConnectionLimits;
#[cfg(test)]
pub(crate) use limits::Taken;
pub(crate) use listener::{Listening, Wrapping, listen, next_connection};
pub(crate) use output::{Output, Part};
#[cfg(test)]
pub(crate) use stream::Stream;
pub(crate) use tls::{ClientAuth, Tls, TlsDialer, TlsError, TlsFiles};
