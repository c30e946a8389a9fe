//! A framed client: of the command line, and of nodes among themselves.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::{Dial, Duplex};
use crate::model::number::be32;

/// Largest response that is accepted.
const RESPONSE_BYTES_MAX: usize = 512 << 20;

/// Room that is made at once for an answer that says that it is so long.
const RESERVE_BYTES_MAX: usize = 16 << 20;

/// A connection that sends requests and reads responses.
#[derive(Debug)]
pub(crate) struct FramedClient {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
}

impl FramedClient {
    pub(crate) async fn dial(dialer: &dyn Dial, address: &str) -> io::Result<Self> {
        Ok(Self { stream: dialer.dial(address.to_owned()).await?, buffer: BytesMut::new() })
    }

    /// Sends bytes that already carry their length.
    pub(crate) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame).await
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
                self.buffer.reserve((4 + length - self.buffer.len()).min(RESERVE_BYTES_MAX));
            } else {
                self.buffer.reserve(4096);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the broker closed the connection",
                ));
            }
        }
    }
}
