//! The receiving side of a connection: frames, what they take of the budget, and how fast they come.
//!
//! Invariants: a frame that is not whole and larger than `UNCOUNTED_BYTES` is counted before more of it is read; a frame that does
//! not come on is given up, and sooner where others wait for what it holds: the slowest first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::frames::{FrameLengthError, Frames};
use super::stream::Stream;
use crate::model::number::to_u64;
use crate::system::clock::{monotonic, timeout_at};
use crate::system::{Account, Grant};

/// So much of a frame that is not whole is not counted: what a connection may cost anyway.
const UNCOUNTED_BYTES: usize = 16 << 10;
/// A frame up to this size is counted while its request is in progress; a larger one while anything keeps bytes of it.
const PASSING_BYTES: usize = 4 << 10;
/// How often it is looked whether a frame comes on.
const LOOK: Duration = Duration::from_secs(1);
/// A frame may take so long, and longer by its size at so many bytes a second.
const PATIENCE: Duration = Duration::from_mins(1);
const SLOWEST_BYTES_PER_SECOND: u64 = 4 << 10;
/// Where others wait: bytes a second that a frame has to come at, on average; twice as much with each second that they wait.
const PRESSED_BYTES_PER_SECOND: u64 = 16 << 10;
const DOUBLINGS_MAX: u64 = 20;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Receiver {
    frames: Frames,
    account: Arc<Account>,
    /// Taken for the first frame.
    grant: Option<Grant>,
    pace: Pace,
}

/// How a frame that is not whole comes.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

/// What there is to be handed out.
#[derive(Debug)]
pub(super) enum Next {
    /// A frame, and what is to be kept until its answer has left.
    Frame(Bytes, Option<Grant>),
    /// None that is whole.
    Nothing,
    /// There is one, but no room for what it takes of the budget.
    NoRoom,
}

impl Receiver {
    pub(super) fn new(frame_bytes_max: usize, account: Arc<Account>) -> Self {
        let (frames, pace) = (Frames::new(frame_bytes_max), Pace::default());
        Self { frames, account, grant: None, pace }
    }

    /// The next frame if that is whole, without its length.
    pub(super) fn upcoming(&self) -> Option<&[u8]> {
        self.frames.upcoming()
    }

    /// Whether `next` has something to say without another read.
    pub(super) fn is_ready(&self) -> bool {
        self.frames.is_ready()
    }

    /// Gives the buffer's memory back where it can.
    pub(super) fn shrink(&mut self) {
        self.frames.shrink();
    }

    /// Hands out the next frame.
    pub(super) fn next(&mut self) -> Result<Next, FrameLengthError> {
        if let Some(bytes) = self.frames.upcoming().map(<[u8]>::len)
            && self.grant.is_none()
        {
            self.grant = self.account.try_take(bytes);
            if self.grant.is_none() {
                return Ok(Next::NoRoom);
            }
        }
        let Some(frame) = self.frames.next()? else { return Ok(Next::Nothing) };
        self.pace = Pace::default();
        Ok(match self.grant.take() {
            Some(grant) if frame.len() > PASSING_BYTES => Next::Frame(grant.count(frame), None),
            grant => Next::Frame(frame, grant),
        })
    }

    /// Waits until there is room for the next frame or, where there is none that is whole, until more of it has come, and
    /// reads that. `false`: the peer has closed.
    pub(super) async fn go_on(&mut self, stream: &mut Stream) -> io::Result<bool> {
        if let Some(bytes) = self.frames.upcoming().map(<[u8]>::len) {
            self.grant = Some(self.account.take(bytes).await);
            return Ok(true);
        }
        Ok(self.read(stream).await? > 0)
    }

    async fn read(&mut self, stream: &mut Stream) -> io::Result<usize> {
        if !self.frames.is_partial() {
            return read_some(stream, &mut self.frames).await;
        }
        let wants = self.frames.receiving().filter(|bytes| *bytes > UNCOUNTED_BYTES);
        if let Some(bytes) = wants.filter(|_| self.grant.is_none()) {
            self.grant = Some(self.account.take(bytes).await);
        }
        loop {
            let begun = monotonic();
            let read = timeout_at(begun + LOOK, read_some(stream, &mut self.frames)).await;
            self.pace.waited += begun.elapsed();
            if let Ok(read) = read {
                let read = read?;
                self.pace.came += to_u64(read);
                self.check_pace()?;
                return Ok(read);
            }
            self.check_pace()?;
        }
    }

    fn check_pace(&self) -> io::Result<()> {
        let pressed = self.grant.as_ref().and_then(|_| self.account.pressed());
        let bytes = to_u64(self.frames.receiving().unwrap_or_default());
        let Some(why) = self.pace.verdict(bytes, pressed) else { return Ok(()) };
        let (came, seconds) = (self.frames.len(), self.pace.waited.as_secs());
        let text = format!("{came} of a request's {bytes} bytes came in {seconds} s: {why}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }
}

impl Pace {
    /// Why a frame of so many bytes is to be given up, if it is.
    fn verdict(&self, bytes: u64, pressed: Option<Duration>) -> Option<&'static str> {
        if self.waited > PATIENCE + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND) {
            return Some("too slow");
        }
        let pressed = pressed.filter(|_| self.waited > LOOK)?;
        let asked = PRESSED_BYTES_PER_SECOND << pressed.as_secs().min(DOUBLINGS_MAX);
        let millis = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
        (self.came < asked.saturating_mul(millis) / 1000)
            .then_some("others wait for what it holds, and it is the slowest")
    }
}

async fn read_some(stream: &mut Stream, frames: &mut Frames) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.read(&mut frames.room()).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(waited_s: u64, came: u64, bytes: u64, pressed_s: Option<u64>) -> bool {
        let pace = Pace { waited: Duration::from_secs(waited_s), came };
        pace.verdict(bytes, pressed_s.map(Duration::from_secs)).is_some()
    }

    #[test]
    fn a_frame_may_come_slowly_unless_others_wait() {
        const MIB: u64 = 1 << 20;
        assert!(!verdict(59, 1, 10, None));
        assert!(verdict(61, 1, 10, None), "a short one that has no end");
        assert!(!verdict(600, MIB, 3 * MIB, None));
        assert!(verdict(900, MIB, 3 * MIB, None));
        assert!(!verdict(1, 0, 100 * MIB, Some(30)), "it has hardly begun");
        assert!(verdict(2, 0, 100 * MIB, Some(0)));
        assert!(!verdict(2, MIB, 100 * MIB, Some(4)));
        assert!(verdict(2, MIB, 100 * MIB, Some(6)));
    }
}
