//! Cutting a byte stream into frames (four bytes of length, then the frame).
//!
//! Invariants: a length outside 0..=limit is an error before anything is allocated for it; the buffer grows with
//! the bytes that arrive; a large frame has a buffer of its own, which goes with it; what is left is given back when the connection
//! idles.

use bytes::buf::Limit;
use bytes::{BufMut, Bytes, BytesMut};

use crate::model::number::{be32, to_usize};

/// Room that is made before each read.
const READ_BYTES: usize = 64 * 1024;
/// A frame gets so much room at once; a larger one more as it arrives.
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
    /// How far the buffer of a large frame has grown; 0: there is none.
    grown: usize,
    frame_bytes_max: usize,
}

impl Frames {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), grown: 0, frame_bytes_max }
    }

    /// Room for the next read: where a frame is larger than a read, for nothing that comes after it.
    pub(crate) fn room(&mut self) -> Limit<&mut BytesMut> {
        let have = self.buffer.len();
        match self.missing().filter(|missing| have + missing > READ_BYTES) {
            None => {
                self.buffer.reserve(READ_BYTES);
                (&mut self.buffer).limit(usize::MAX)
            }
            Some(missing) => {
                if self.grown <= have {
                    let room = missing.min(have.max(ROOM_AT_ONCE_BYTES));
                    let mut grown = BytesMut::with_capacity(have + room);
                    grown.extend_from_slice(&self.buffer);
                    (self.buffer, self.grown) = (grown, have + room);
                }
                let room = self.grown - have;
                (&mut self.buffer).limit(room)
            }
        }
    }

    /// Bytes of the frame that is being received, if it says already how long it is and is not whole.
    pub(crate) fn receiving(&self) -> Option<usize> {
        self.missing()?;
        self.length()
    }

    /// Whether a frame has begun and is not whole.
    pub(crate) fn is_partial(&self) -> bool {
        !self.buffer.is_empty() && !self.is_ready()
    }

    /// Bytes that have come and were not handed out.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    fn missing(&self) -> Option<usize> {
        let whole = LENGTH_BYTES + self.length()?;
        whole.checked_sub(self.buffer.len()).filter(|missing| *missing > 0)
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
        if self.grown > 0 {
            (self.buffer, self.grown) = (BytesMut::new(), 0);
        }
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
            frames.room().put_slice(&[byte]);
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
        http.room().put_slice(b"GET / HTTP/1.1");
        assert_eq!(http.next().expect_err("no frame").limit, 100 << 20);
        let mut large = Frames::new(100 << 20);
        large.room().put_slice(&(100_i32 << 20).to_be_bytes());
        assert_eq!(large.next(), Ok(None));
        assert!(large.room().get_ref().capacity() <= 2 << 20);
        let mut negative = Frames::new(100);
        negative.room().put_slice(&(-1_i32).to_be_bytes());
        assert_eq!(negative.upcoming(), None);
        assert!(negative.next().is_err());
    }

    #[test]
    fn a_large_frame_takes_no_more_memory_than_its_bytes_and_leaves_none_behind() {
        const BYTES: usize = 5 << 20;
        let mut frames = Frames::new(100 << 20);
        let wire =
            [&u32::try_from(BYTES).expect("fits").to_be_bytes()[..], &vec![7; BYTES]].concat();
        let (mut at, mut most) = (0, 0);
        while !frames.is_ready() {
            let mut room = frames.room();
            let read = room.remaining_mut().min(100_000).min(wire.len() - at);
            room.put_slice(&wire[at..at + read]);
            most = most.max(room.get_ref().capacity());
            at += read;
            assert!(room.get_ref().capacity() <= 2 * at + (1 << 20) + READ_BYTES, "{at}");
            assert_eq!(frames.receiving().is_some(), !frames.is_ready() && at >= 4);
        }
        assert_eq!((at, most), (wire.len(), wire.len()));
        assert_eq!(frames.next().expect("valid").expect("whole").len(), BYTES);
        assert_eq!((frames.buffer.capacity(), frames.is_partial()), (0, false));
    }
}
