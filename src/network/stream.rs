//! The byte stream of a connection: TCP, or memory in simulations.
//!
//! Invariants: file ranges leave by sendfile on TCP, without passing through the process.

use std::io::{self, IoSlice};

use bytes::BytesMut;
#[cfg(test)]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::output::{Output, Part};
use crate::system::SharedFile;

/// Slices in one vectored write.
const SLICES_MAX: usize = 64;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// Waits until there is something to read. A memory stream always says so.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.readable().await,
            #[cfg(test)]
            Stream::Memory(_) => Ok(()),
        }
    }

    /// Reads what is there; `WouldBlock` if nothing is (TCP), else waits (memory).
    #[cfg_attr(not(test), expect(clippy::unused_async, reason = "the simulated twin waits"))]
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.try_read_buf(buffer),
            #[cfg(test)]
            Stream::Memory(memory) => memory.read_buf(buffer).await,
        }
    }

    /// Writes responses in order.
    pub(crate) async fn write(&mut self, outputs: &[Output]) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => write_tcp(tcp, outputs).await,
            #[cfg(test)]
            Stream::Memory(memory) => write_memory(memory, outputs).await,
        }
    }
}

async fn write_tcp(tcp: &TcpStream, outputs: &[Output]) -> io::Result<()> {
    let mut slices: Vec<&[u8]> = Vec::with_capacity(outputs.len().min(SLICES_MAX));
    for output in outputs {
        slices.push(&output.head);
        for part in &output.rest {
            match part {
                Part::Bytes(bytes) => slices.push(bytes),
                Part::File { file, offset, bytes } => {
                    write_slices(tcp, &mut slices, true).await?;
                    send_file(tcp, file, *offset, *bytes).await?;
                }
            }
        }
        if slices.len() >= SLICES_MAX {
            write_slices(tcp, &mut slices, false).await?;
        }
    }
    write_slices(tcp, &mut slices, false).await
}

/// Writes and empties `slices`; with `more` the kernel waits for what follows before it sends a small packet.
async fn write_slices(tcp: &TcpStream, slices: &mut Vec<&[u8]>, more: bool) -> io::Result<()> {
    slices.retain(|slice| !slice.is_empty());
    let mut all = slices.as_slice();
    let mut first = all.first().copied().unwrap_or_default();
    while !all.is_empty() {
        let vector: Vec<IoSlice<'_>> = std::iter::once(first)
            .chain(all.iter().skip(1).copied())
            .take(SLICES_MAX)
            .map(IoSlice::new)
            .collect();
        let mut written = send_vector(tcp, &vector, more).await?;
        while written >= first.len() && !all.is_empty() {
            written -= first.len();
            all = all.get(1..).unwrap_or_default();
            first = all.first().copied().unwrap_or_default();
        }
        first = first.get(written..).unwrap_or_default();
    }
    slices.clear();
    Ok(())
}

async fn send_vector(tcp: &TcpStream, vector: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
    let flags = if more { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
    tcp.async_io(tokio::io::Interest::WRITABLE, || {
        sendmsg(tcp, vector, &mut SendAncillaryBuffer::default(), flags).map_err(Into::into)
    })
    .await
}

async fn send_file(
    tcp: &TcpStream,
    file: &SharedFile,
    offset: u64,
    bytes: usize,
) -> io::Result<()> {
    let Some(os_file) = file.os_file() else {
        return Err(io::Error::other("a simulated file on a real socket"));
    };
    let (mut at, mut left) = (offset, bytes);
    while left > 0 {
        let sent = tcp
            .async_io(tokio::io::Interest::WRITABLE, || {
                rustix::fs::sendfile(tcp, os_file, Some(&mut at), left).map_err(Into::into)
            })
            .await?;
        if sent == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file ended before its range",
            ));
        }
        left -= sent;
    }
    Ok(())
}

#[cfg(test)]
async fn write_memory(memory: &mut tokio::io::DuplexStream, outputs: &[Output]) -> io::Result<()> {
    for output in outputs {
        memory.write_all(&output.head).await?;
        for part in &output.rest {
            match part {
                Part::Bytes(bytes) => memory.write_all(bytes).await?,
                Part::File { file, offset, bytes } => {
                    let mut buffer = vec![0; *bytes];
                    crate::system::disk::read_full(&**file, &mut buffer, *offset)?;
                    memory.write_all(&buffer).await?;
                }
            }
        }
    }
    memory.flush().await
}
