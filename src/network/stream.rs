//! The byte stream of a connection: TCP, TLS over it, or memory in simulations.
//!
//! Invariants: file ranges leave by sendfile on TCP, without passing through the process; elsewhere a piece at a time; a peer that
//! takes something now and then is written to for as long as it takes.

use std::future::Future;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::output::{Output, Part};
use crate::model::number::to_u64;
use crate::system::SharedFile;
use crate::system::clock::{monotonic, timeout_at};
use crate::system::disk::read_full;

/// Slices in one vectored write.
const SLICES_MAX: usize = 64;
/// Bytes that are written at once where the kernel does not do it from the page cache.
const PIECE_BYTES: usize = 128 << 10;
/// A peer that takes nothing for this long is gone. The kernel says that there is room when a third of its buffer is free, which
/// has four megabytes at most.
const STALL: Duration = Duration::from_mins(2);

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// Waits until there is something to read. Streams other than TCP always say so.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.readable().await,
            Stream::Tls(_) => Ok(()),
            #[cfg(test)]
            Stream::Memory(_) => Ok(()),
        }
    }

    /// Reads what is there; `WouldBlock` if nothing is (TCP), else waits.
    pub(crate) async fn read(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.try_read_buf(buffer),
            Stream::Tls(tls) => tls.read_buf(buffer).await,
            #[cfg(test)]
            Stream::Memory(memory) => memory.read_buf(buffer).await,
        }
    }

    /// Whether the peer sends nothing more: it has closed its end, or is gone.
    pub(crate) fn is_hung_up(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let tcp = match self {
            Stream::Tcp(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
            #[cfg(test)]
            Stream::Memory(_) => return false,
        };
        let mut asked = [PollFd::new(tcp, PollFlags::RDHUP)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|found| found > 0)
    }

    /// Writes responses in order.
    pub(crate) async fn write(&mut self, outputs: &[Output]) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => write_tcp(tcp, outputs).await,
            Stream::Tls(tls) => write_copies(tls, outputs).await,
            #[cfg(test)]
            Stream::Memory(memory) => write_copies(memory, outputs).await,
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
    let send = tcp.async_io(tokio::io::Interest::WRITABLE, || {
        sendmsg(tcp, vector, &mut SendAncillaryBuffer::default(), flags).map_err(Into::into)
    });
    in_time(send).await
}

/// Waits for a peer to take something, but not for ever.
async fn in_time<T>(write: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout_at(monotonic() + STALL, write).await {
        Ok(written) => written,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no answers")),
    }
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
        let sending = tcp.async_io(tokio::io::Interest::WRITABLE, || {
            rustix::fs::sendfile(tcp, os_file, Some(&mut at), left).map_err(Into::into)
        });
        let sent = in_time(sending).await?;
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

/// Writes through the process: small parts together, a file in pieces.
async fn write_copies(
    stream: &mut (impl AsyncWrite + Unpin),
    outputs: &[Output],
) -> io::Result<()> {
    let mut piece = Vec::new();
    for output in outputs {
        write_bytes(stream, &mut piece, &output.head).await?;
        for part in &output.rest {
            match part {
                Part::Bytes(bytes) => write_bytes(stream, &mut piece, bytes).await?,
                Part::File { file, offset, bytes } => {
                    write_file(stream, &mut piece, (file, *offset, *bytes)).await?;
                }
            }
        }
    }
    write_all(stream, &piece).await?;
    in_time(stream.flush()).await
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = in_time(stream.write(bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

async fn write_bytes(
    stream: &mut (impl AsyncWrite + Unpin),
    piece: &mut Vec<u8>,
    bytes: &[u8],
) -> io::Result<()> {
    if piece.len() + bytes.len() > PIECE_BYTES {
        write_all(stream, piece).await?;
        piece.clear();
    }
    if bytes.len() > PIECE_BYTES {
        return write_all(stream, bytes).await;
    }
    piece.extend_from_slice(bytes);
    Ok(())
}

async fn write_file(
    stream: &mut (impl AsyncWrite + Unpin),
    piece: &mut Vec<u8>,
    (file, offset, bytes): (&SharedFile, u64, usize),
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes {
        if piece.len() >= PIECE_BYTES {
            write_all(stream, piece).await?;
            piece.clear();
        }
        let start = piece.len();
        let length = (bytes - done).min(PIECE_BYTES - start);
        piece.resize(start + length, 0);
        let room = piece.get_mut(start..).unwrap_or_default();
        if read_full(&**file, room, offset + to_u64(done))? < length {
            let text = "the file ended before its range";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        done += length;
    }
    Ok(())
}
