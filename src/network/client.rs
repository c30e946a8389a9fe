//! A framed client over TCP, for the command line.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::model::number::be32;

/// Largest response that is accepted.
const RESPONSE_BYTES_MAX: usize = 512 << 20;

/// A connection that sends requests and reads responses.
#[derive(Debug)]
pub(crate) struct FramedClient {
    tcp: TcpStream,
    buffer: BytesMut,
}

impl FramedClient {
    pub(crate) async fn connect(address: &str) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, buffer: BytesMut::new() })
    }

    /// Sends bytes that already carry their length.
    pub(crate) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.tcp.write_all(frame).await
    }

    /// The next response, without its length.
    pub(crate) async fn receive(&mut self) -> io::Result<Bytes> {
        loop {
            if self.buffer.len() >= 4 {
                let length = usize::try_from(be32(&self.buffer, 0))
                    .ok()
                    .filter(|l| *l <= RESPONSE_BYTES_MAX);
                let length =
                    length.ok_or_else(|| io::Error::other("the answer is not a Kafka response"))?;
                if self.buffer.len() >= 4 + length {
                    let mut frame = self.buffer.split_to(4 + length);
                    return Ok(frame.split_off(4).freeze());
                }
                self.buffer.reserve((4 + length - self.buffer.len()).min(1 << 20));
            } else {
                self.buffer.reserve(4096);
            }
            if self.tcp.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the broker closed the connection",
                ));
            }
        }
    }
}
