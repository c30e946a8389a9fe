//! One connection's life: read frames, hand them to the service, write the answers in order.
//!
//! Invariants: requests are handed over in the order they came, each when its turn has come: it finds what those before it
//! did; answers leave in the same order; while too many wait, or the next one waits for its turn, the socket is not read;
//! idle and stalled connections are closed.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::limits::Taken;
use super::output::Output;
use super::receiver::{self, Receiver};
use super::stream::Stream;
use crate::model::Turn;
use crate::system::clock::{monotonic, sleep_until, timeout_at};
use crate::system::{Account, Budgets, Grant};

/// Requests of one connection in progress at a time.
const PIPELINE_MAX: usize = 100;

/// Answers that have not left may take so many bytes in memory: then no request is begun before they have.
const READY_BYTES_MAX: usize = 1 << 20;
/// How long a connection's requests are handled before others have their turn.
const TURN: Duration = Duration::from_micros(200);
/// An answer of fewer bytes in memory is not counted while its peer takes it, and none that is taken this soon.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
const AT_ONCE: Duration = Duration::from_secs(1);

/// Who is at the other end, where it came in, and what it may take.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub listener: Arc<str>,
    pub requests: Arc<Account>,
    pub kept: Arc<Account>,
}

/// What became of a request.
pub(crate) enum Answer {
    /// No response is sent (`acks=0`).
    Nothing,
    Now(Output),
    /// `None` closes the connection, as `Close` does.
    Later(Pin<Box<dyn Future<Output = Option<Output>> + Send>>),
    /// The connection is closed once earlier answers have left.
    Close,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Answer::Nothing => "Nothing",
            Answer::Now(_) => "Now",
            Answer::Later(_) => "Later",
            Answer::Close => "Close",
        })
    }
}

/// What stands behind a listener.
pub(crate) trait Service: Send + Sync + 'static {
    /// What the service keeps for a connection.
    type Session: Send;
    fn open(&self, peer: Peer) -> Self::Session;
    /// What a request has to wait for.
    fn turn(&self, frame: &[u8]) -> Turn;
    /// Takes requests that came together and may be on their way together, in their order; one answer each, and none
    /// after `Close`.
    fn requests(&self, session: &mut Self::Session, frames: Vec<Bytes>) -> Vec<Answer>;
}

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionRules {
    pub frame_bytes_max: usize,
    pub idle: Duration,
    pub budgets: Budgets,
}

impl ConnectionRules {
    /// A peer whose address has taken what `taken` says.
    pub(crate) fn peer(&self, address: SocketAddr, listener: Arc<str>, taken: &Taken) -> Peer {
        let requests = self.budgets.requests.account(address, Arc::clone(&taken.requests));
        let kept = self.budgets.kept.account(address, Arc::clone(&taken.kept));
        Peer { address, listener, requests, kept }
    }
}

enum Slot {
    Ready(Output),
    Waiting(Pin<Box<dyn Future<Output = Option<Output>> + Send>>),
}

struct Pending {
    slot: Slot,
    turn: Turn,
    /// Given back when the answer has left.
    grant: Option<Grant>,
}

/// Serves a connection until it ends; `Err` says why, if it was not the peer's clean close.
pub(crate) async fn serve<S: Service>(
    mut stream: Stream,
    peer: Peer,
    service: &S,
    rules: &ConnectionRules,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let kept = Arc::clone(&peer.kept);
    let mut frames = Receiver::new(rules.frame_bytes_max, Arc::clone(&peer.requests));
    let mut session = service.open(peer);
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let mut next = Next::Read;
    let idle = sleep_until(monotonic() + rules.idle);
    tokio::pin!(idle);
    let mut last_active = monotonic();
    loop {
        if next != Next::Close {
            next = take_requests(service, &mut session, &mut frames, &mut pending)?;
        }
        write_ready(&mut stream, &mut pending, &kept).await?;
        if next == Next::Write {
            // Other connections have their turn.
            tokio::task::yield_now().await;
            continue;
        }
        let is_stopping = *stopping.borrow();
        if pending.is_empty() && (next == Next::Close || is_stopping) {
            return Ok(());
        }
        if is_stopping && pending.iter().all(|other| other.turn == Turn::HoldsUpNobody) {
            // What waits for records that may never come has nothing to lose.
            return Ok(());
        }
        let has_room = next == Next::Read && pending.len() < PIPELINE_MAX;
        if has_room && frames.is_ready() {
            // What has come is handled before more is read, or a peer that only sends could fill the memory.
            continue;
        }
        let may_read = next == Next::WaitForRoom || has_room && !is_stopping;
        if pending.is_empty() {
            frames.shrink();
        }
        tokio::select! {
            biased;
            output = front(&mut pending) => {
                // What came before has left, what came after was asked of a connection that is no more.
                let Some(output) = output else { return Ok(()) };
                if let Some(first) = pending.front_mut() {
                    first.slot = Slot::Ready(output);
                }
            }
            went_on = frames.go_on(&mut stream), if may_read => {
                if !went_on? {
                    return Ok(());
                }
            }
            _ = stopping.changed() => {}
            () = &mut idle => {
                let deadline = last_active + rules.idle;
                // While a request waits for its turn nothing is read, and so not noticed that nobody waits for it.
                if deadline <= monotonic() && (pending.is_empty() || stream.is_hung_up()) {
                    return Ok(());
                }
                let next = deadline.max(monotonic() + Duration::from_secs(1));
                idle.as_mut().reset(next);
                continue;
            }
        }
        last_active = monotonic();
    }
}

/// What a connection does after its requests were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    /// A request is there whose turn has not come.
    Wait,
    /// A request may be there, but much was done: what is answered is to leave first.
    Write,
    /// A request is there that others' requests leave no room for.
    WaitForRoom,
    Close,
}

/// Hands over the frames that are whole and whose turn has come.
fn take_requests<S: Service>(
    service: &S,
    session: &mut S::Session,
    frames: &mut Receiver,
    pending: &mut VecDeque<Pending>,
) -> io::Result<Next> {
    let begun = monotonic();
    loop {
        let first = frames.upcoming().map(|frame| service.turn(frame));
        if first.is_some_and(|turn| !may_begin(turn, pending)) {
            return Ok(Next::Wait);
        }
        if first.is_some() && hold_much(pending) {
            let may_leave = matches!(pending.front().map(|p| &p.slot), Some(Slot::Ready(_)));
            return Ok(if may_leave { Next::Write } else { Next::Wait });
        }
        let (mut taken, mut grants) = (Vec::new(), Vec::new());
        let mut then = Next::Read;
        while pending.len() + taken.len() < PIPELINE_MAX {
            let joins = |frame| {
                let turn = service.turn(frame);
                first == Some(turn) && matches!(turn, Turn::WithItsKind(_) | Turn::Free)
            };
            if !taken.is_empty() && !frames.upcoming().is_some_and(joins) {
                break;
            }
            match frames.next().map_err(io::Error::other)? {
                receiver::Next::Frame(frame, grant) => {
                    taken.push(frame);
                    grants.push(grant);
                }
                receiver::Next::Nothing => break,
                receiver::Next::NoRoom => {
                    then = Next::WaitForRoom;
                    break;
                }
            }
        }
        let Some(turn) = first.filter(|_| !taken.is_empty()) else { return Ok(then) };
        for (answer, grant) in service.requests(session, taken).into_iter().zip(grants) {
            let slot = match answer {
                Answer::Nothing => continue,
                Answer::Now(output) => Slot::Ready(output),
                Answer::Later(future) => Slot::Waiting(future),
                Answer::Close => return Ok(Next::Close),
            };
            pending.push_back(Pending { slot, turn, grant });
        }
        if monotonic().saturating_duration_since(begun) > TURN {
            return Ok(Next::Write);
        }
    }
}

/// Whether nothing is on its way that a request has to wait for.
fn may_begin(turn: Turn, pending: &VecDeque<Pending>) -> bool {
    turn == Turn::Free
        || pending.iter().all(|other| match (&other.slot, other.turn) {
            (Slot::Ready(_), _) | (Slot::Waiting(_), Turn::HoldsUpNobody | Turn::Free) => true,
            (Slot::Waiting(_), kind @ Turn::WithItsKind(_)) => turn == kind,
            (Slot::Waiting(_), Turn::Alone) => false,
        })
}

/// Whether answers that have not left take so much memory that no more are to be made.
fn hold_much(pending: &VecDeque<Pending>) -> bool {
    let ready = pending.iter().map(|p| match &p.slot {
        Slot::Ready(output) => output.memory_bytes(),
        Slot::Waiting(_) => 0,
    });
    ready.sum::<usize>() > READY_BYTES_MAX
}

/// Writes the answers whose turn it is. What a peer does not take at once is kept for it, as far as it may have something kept.
async fn write_ready(
    stream: &mut Stream,
    pending: &mut VecDeque<Pending>,
    kept: &Arc<Account>,
) -> io::Result<()> {
    let ready = pending.iter().take_while(|p| matches!(p.slot, Slot::Ready(_))).count();
    if ready == 0 {
        return Ok(());
    }
    let mut outputs = Vec::with_capacity(ready);
    let mut grants = Vec::with_capacity(ready);
    for Pending { slot, grant, .. } in pending.drain(..ready) {
        grants.push(grant);
        if let Slot::Ready(output) = slot {
            outputs.push(output);
        }
    }
    let bytes: usize = outputs.iter().map(Output::memory_bytes).sum();
    let write = stream.write(&outputs);
    if bytes < SMALL_ANSWER_BYTES {
        return write.await;
    }
    tokio::pin!(write);
    if let Ok(written) = timeout_at(monotonic() + AT_ONCE, write.as_mut()).await {
        return written;
    }
    let no_room =
        || io::Error::other("it does not take its answers, and too much is kept for its address");
    kept.keep(bytes).ok_or_else(no_room)?.during(write).await
}

/// The first waiting answer; pends for ever if there is none.
async fn front(pending: &mut VecDeque<Pending>) -> Option<Output> {
    match pending.front_mut().map(|p| &mut p.slot) {
        Some(Slot::Waiting(future)) => future.await,
        Some(Slot::Ready(_)) | None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers each frame with itself; a frame `w` waits for a turn of the runtime first, and `wx` fails then.
    struct Echo;

    impl Service for Echo {
        type Session = ();

        fn open(&self, _: Peer) {}

        fn turn(&self, _: &[u8]) -> Turn {
            Turn::Free
        }

        fn requests(&self, (): &mut (), frames: Vec<Bytes>) -> Vec<Answer> {
            let answer = |frame: Bytes| {
                let length = u32::try_from(frame.len()).expect("small").to_be_bytes();
                let output = Output::bytes([&length[..], &frame].concat());
                let output_is_lost = frame.get(1) == Some(&b'x');
                match frame.first() {
                    Some(b'w') => Answer::Later(Box::pin(async move {
                        sleep_until(monotonic() + Duration::from_millis(1)).await;
                        (!output_is_lost).then_some(output)
                    })),
                    Some(b'n') => Answer::Nothing,
                    Some(b'c') => Answer::Close,
                    _ => Answer::Now(output),
                }
            };
            frames.into_iter().map(answer).collect()
        }
    }

    /// Answers `w` when it is told to, and anything else at once with half of what may be ready.
    #[derive(Default)]
    struct Large {
        begun: AtomicUsize,
        go: Arc<tokio::sync::Notify>,
    }

    impl Service for Large {
        type Session = ();

        fn open(&self, _: Peer) {}

        fn turn(&self, frame: &[u8]) -> Turn {
            if frame == b"w" { Turn::HoldsUpNobody } else { Turn::Alone }
        }

        fn requests(&self, (): &mut (), frames: Vec<Bytes>) -> Vec<Answer> {
            let answer = |frame: Bytes| {
                self.begun.fetch_add(1, Ordering::Relaxed);
                let output = Output::bytes(vec![1; READY_BYTES_MAX / 2]);
                if &*frame != b"w" {
                    return Answer::Now(output);
                }
                let go = Arc::clone(&self.go);
                Answer::Later(Box::pin(async move {
                    go.notified().await;
                    Some(output)
                }))
            };
            frames.into_iter().map(answer).collect()
        }
    }

    #[tokio::test]
    async fn few_answers_are_made_while_one_before_them_is_waited_for_and_all_afterwards() {
        let large = Large::default();
        let input = [&frame(b"w")[..], &frame(b"x").repeat(20)].concat();
        let talk = exchange_with(&large, input, 21 * READY_BYTES_MAX / 2);
        let watch = async {
            sleep_until(monotonic() + Duration::from_millis(50)).await;
            let begun = large.begun.load(Ordering::Relaxed);
            large.go.notify_one();
            begun
        };
        let (_, begun) = tokio::join!(talk, watch);
        assert_eq!((begun, large.begun.load(Ordering::Relaxed)), (4, 21));
    }

    async fn exchange(input: Vec<u8>, expected: usize) -> Vec<u8> {
        exchange_with(&Echo, input, expected).await
    }

    async fn exchange_with<S: Service>(service: &S, input: Vec<u8>, expected: usize) -> Vec<u8> {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let rules = ConnectionRules {
            frame_bytes_max: 1 << 20,
            idle: Duration::from_mins(1),
            budgets: Budgets::new(1 << 20, 1 << 20),
        };
        let (_stopping, stop) = watch::channel(false);
        let peer = rules.peer(([127, 0, 0, 1], 1).into(), "T".into(), &Taken::default());
        let serving = serve(Stream::Memory(theirs), peer, service, &rules, stop);
        let talking = async {
            ours.write_all(&input).await.expect("taken");
            let mut answer = vec![0; expected];
            ours.read_exact(&mut answer).await.expect("answered");
            drop(ours);
            answer
        };
        let (served, answer) = tokio::join!(serving, talking);
        served.expect("a clean end");
        answer
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).expect("small").to_be_bytes()[..], body].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_leave_in_the_order_of_their_requests() {
        let input = [frame(b"w1"), frame(b"2"), frame(b"n"), frame(b"w3"), frame(b"4")].concat();
        let expected = [frame(b"w1"), frame(b"2"), frame(b"w3"), frame(b"4")].concat();
        assert_eq!(exchange(input, expected.len()).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_came_together_are_all_answered_however_many_they_are() {
        let input: Vec<u8> = (0..5_000_u32).flat_map(|n| frame(&n.to_be_bytes())).collect();
        assert_eq!(exchange(input.clone(), input.len()).await, input);
        let waiting: Vec<u8> = (0..500).flat_map(|_| frame(b"wait")).collect();
        assert_eq!(exchange(waiting.clone(), waiting.len()).await, waiting);
    }

    #[tokio::test(start_paused = true)]
    async fn earlier_answers_leave_before_a_connection_is_closed() {
        let input = [frame(b"w1"), frame(b"c"), frame(b"2")].concat();
        assert_eq!(exchange(input, 6).await, frame(b"w1"));
        let input = [frame(b"1"), frame(b"wx"), frame(b"2")].concat();
        assert_eq!(exchange(input, 5).await, frame(b"1"));
    }

    /// Notes what happens: each request begins when it is handed over and is done a while later, `now` ones at once.
    #[derive(Default)]
    struct Noting(Arc<parking_lot::Mutex<Vec<String>>>);

    impl Service for Noting {
        type Session = ();

        fn open(&self, _: Peer) {}

        fn turn(&self, frame: &[u8]) -> Turn {
            match frame.first() {
                Some(kind @ (b'p' | b'q')) => Turn::WithItsKind(i16::from(*kind)),
                Some(b'f') => Turn::HoldsUpNobody,
                _ => Turn::Alone,
            }
        }

        fn requests(&self, (): &mut (), frames: Vec<Bytes>) -> Vec<Answer> {
            let begin = |frame: Bytes| {
                let name = String::from_utf8_lossy(&frame).into_owned();
                self.0.lock().push(format!("{name} begins"));
                let length = u32::try_from(frame.len()).expect("small").to_be_bytes();
                let output = Output::bytes([&length[..], &frame].concat());
                if name.ends_with('n') {
                    return Answer::Now(output);
                }
                let notes = Arc::clone(&self.0);
                Answer::Later(Box::pin(async move {
                    sleep_until(monotonic() + Duration::from_millis(5)).await;
                    notes.lock().push(format!("{name} is done"));
                    Some(output)
                }))
            };
            frames.into_iter().map(begin).collect()
        }
    }

    async fn noted(names: &[&str]) -> Vec<String> {
        let service = Noting::default();
        let input = names.iter().map(|name| frame(name.as_bytes())).collect::<Vec<_>>().concat();
        assert_eq!(exchange_with(&service, input.clone(), input.len()).await, input);
        let notes = service.0.lock();
        notes.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_begins_when_those_before_it_are_done() {
        let expected = ["a begins", "a is done", "bn begins", "c begins", "c is done", "dn begins"];
        assert_eq!(noted(&["a", "bn", "c", "dn"]).await, expected);
        let expected = [
            "p begins",
            "p is done",
            "fn begins",
            "p begins",
            "p is done",
            "a begins",
            "a is done",
        ];
        assert_eq!(noted(&["p", "fn", "p", "a"]).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_may_overlap_begin_before_those_before_them_are_done() {
        let expected = ["p1 begins", "p2 begins", "pn begins", "p1 is done", "p2 is done"];
        assert_eq!(noted(&["p1", "p2", "pn"]).await, expected);
        let expected =
            ["p begins", "p is done", "q1 begins", "q2 begins", "q1 is done", "q2 is done"];
        assert_eq!(noted(&["p", "q1", "q2"]).await, expected);
        let expected = ["f begins", "p begins", "f is done", "p is done", "an begins"];
        assert_eq!(noted(&["f", "p", "an"]).await, expected);
        let expected = ["f1 begins", "f2 begins", "an begins", "f1 is done", "f2 is done"];
        assert_eq!(noted(&["f1", "f2", "an"]).await, expected);
        let many: Vec<String> = (0..250).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).chain(["a"]).collect();
        let notes = noted(&names).await;
        assert_eq!(notes[..100].iter().filter(|note| note.ends_with("begins")).count(), 100);
        assert_eq!(notes[500..], ["a begins", "a is done"]);
    }
}
