//! Cutting a byte stream into frames (four bytes of length, then the frame).
//!
//! Invariants: a length outside 0..=limit is an error before anything is allocated for it; the buffer grows with
//! the bytes that arrive; it is given back when the connection idles.

use bytes::{Bytes, BytesMut};

use crate::model::number::{be32, to_usize};

/// Room that is made before each read.
const READ_BYTES: usize = 64 * 1024;
/// A frame up to this size gets its room at once; a larger one as it arrives.
const ROOM_AT_ONCE_BYTES: usize = 1 << 20;
const LENGTH_BYTES: usize = 4;

/// A frame's length is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("frame length {length} is not within 0..={limit}")]
pub(crate) struct FrameLengthError {
    pub length: i32,
    pub limit: usize,
}

/// The receiving side of a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Frames {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max }
    }

    /// The buffer with room for the next read.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let missing = match self.length() {
            Some(length) => (length + LENGTH_BYTES).saturating_sub(self.buffer.len()),
            None => 0,
        };
        let have = self.buffer.len();
        let room = if missing <= ROOM_AT_ONCE_BYTES {
            missing.max(READ_BYTES)
        } else {
            have.max(ROOM_AT_ONCE_BYTES)
        };
        self.buffer.reserve(room);
        &mut self.buffer
    }

    /// Whether `next` has something to say without another read.
    pub(crate) fn is_ready(&self) -> bool {
        let Some(length) = self.length() else { return self.buffer.len() >= LENGTH_BYTES };
        self.buffer.len() >= LENGTH_BYTES + length
    }

    /// What `next` would return, if that is a whole frame.
    pub(crate) fn upcoming(&self) -> Option<&[u8]> {
        let bytes = usize::try_from(be32(self.buffer.get(..LENGTH_BYTES)?, 0)).ok()?;
        let end = LENGTH_BYTES + Some(bytes).filter(|bytes| *bytes <= self.frame_bytes_max)?;
        self.buffer.get(LENGTH_BYTES..end)
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameLengthError> {
        if self.buffer.len() < LENGTH_BYTES {
            return Ok(None);
        }
        let length = be32(&self.buffer, 0);
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= self.frame_bytes_max);
        let bytes = bytes.ok_or(FrameLengthError { length, limit: self.frame_bytes_max })?;
        if self.buffer.len() < LENGTH_BYTES + bytes {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(LENGTH_BYTES + bytes);
        Ok(Some(frame.split_off(LENGTH_BYTES).freeze()))
    }

    /// Gives the buffer's memory back.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    fn length(&self) -> Option<usize> {
        (self.buffer.len() >= LENGTH_BYTES)
            .then(|| to_usize(be32(&self.buffer, 0)).min(self.frame_bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut frames = Frames::new(100);
        let mut wire = Vec::new();
        for body in [&b"abc"[..], b"", b"0123456789"] {
            wire.extend_from_slice(&u32::try_from(body.len()).expect("small").to_be_bytes());
            wire.extend_from_slice(body);
        }
        let mut got = Vec::new();
        for byte in wire {
            frames.room().extend_from_slice(&[byte]);
            while let Some(upcoming) = frames.upcoming().map(<[u8]>::to_vec) {
                let frame = frames.next().expect("valid").expect("whole");
                assert_eq!(upcoming, frame);
                got.push(frame);
            }
            assert_eq!(frames.next(), Ok(None));
        }
        assert_eq!(got, [&b"abc"[..], b"", b"0123456789"]);
    }

    #[test]
    fn a_lying_length_is_refused_and_allocates_little() {
        let mut http = Frames::new(100 << 20);
        http.room().extend_from_slice(b"GET / HTTP/1.1");
        assert_eq!(http.next().expect_err("no frame").limit, 100 << 20);
        let mut large = Frames::new(100 << 20);
        large.room().extend_from_slice(&(100_i32 << 20).to_be_bytes());
        assert_eq!(large.next(), Ok(None));
        assert!(large.room().capacity() <= 2 << 20);
        let mut negative = Frames::new(100);
        negative.room().extend_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(negative.upcoming(), None);
        assert!(negative.next().is_err());
    }
}
