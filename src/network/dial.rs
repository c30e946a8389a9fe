//! Opening connections to others: TCP, or memory in simulations.
//!
//! Invariants: whoever talks to another node asks for the connection here, so that a simulation can cut it.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug> Duplex for T {}

/// A connection that is being opened.
pub(crate) type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// Whoever opens connections.
pub(crate) trait Dial: Send + Sync + Debug {
    /// Opens a connection to `host:port`.
    fn dial(&self, address: String) -> Dialing;
}

pub(crate) type Dialer = Arc<dyn Dial>;

/// The operating system's TCP.
#[derive(Debug)]
pub(crate) struct TcpDialer;

impl Dial for TcpDialer {
    fn dial(&self, address: String) -> Dialing {
        Box::pin(async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let stream: Box<dyn Duplex> = Box::new(tcp);
            Ok(stream)
        })
    }
}
