//! Produce requests whose batches take long to check, away from the threads that run tasks.
//!
//! Invariants: a connection's requests are carried out in the order in which they came, whether they take long or not; what
//! comes while some are on their way waits for them. So much is done at a time as `replication/checking.rs` allows, and of
//! each connection one after the other.
//! Left to others: what a request does (`produce.rs`), and when those that are no produce requests begin (`model/turn.rs`):
//! they find what is answered later done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use super::produce::{ProduceCall, effort, handle};
use super::{Context, Reply};
use crate::protocol::messages::ProduceResponse;
use crate::record::Effort;
use crate::replication::is_short;
use crate::system::tasks::{blocking, spawn};

type Replies = Vec<Reply<ProduceResponse>>;

/// A connection's produce requests that are on their way elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    on_their_way: Arc<AtomicUsize>,
    /// Told when the last of them has been carried out.
    last: Option<oneshot::Receiver<()>>,
}

/// Counts what is on its way.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Requests that came together, and where their answers go.
struct Job {
    context: Arc<Context>,
    calls: Vec<ProduceCall>,
    effort: Effort,
    answers: Vec<oneshot::Sender<Reply<ProduceResponse>>>,
    before: Option<oneshot::Receiver<()>>,
    is_done: oneshot::Sender<()>,
    counted: Counted,
}

impl Aside {
    /// Serves requests that came together: here, where that is short and nothing is before them.
    pub(super) fn handle(&mut self, context: &Arc<Context>, calls: Vec<ProduceCall>) -> Replies {
        let effort = effort(context, &calls);
        let is_free = self.on_their_way.load(Ordering::Acquire) == 0;
        if is_free && is_short(&effort) {
            return handle(context, &calls);
        }
        let (answers, replies): (Vec<_>, Replies) = calls.iter().map(later).unzip();
        let (is_done, told) = oneshot::channel();
        self.on_their_way.fetch_add(1, Ordering::AcqRel);
        let job = Job {
            context: Arc::clone(context),
            calls,
            effort,
            answers,
            before: self.last.replace(told),
            is_done,
            counted: Counted(Arc::clone(&self.on_their_way)),
        };
        drop(spawn(job.run()));
        replies
    }
}

/// A reply that is told elsewhere; none is sent for `acks=0`.
fn later(call: &ProduceCall) -> (oneshot::Sender<Reply<ProduceResponse>>, Reply<ProduceResponse>) {
    let (teller, told) = oneshot::channel();
    if call.request.acks == 0 {
        let done = async move { matches!(told.await, Ok(Reply::Nothing)).then_some(()) };
        return (teller, Reply::NothingLater(Box::pin(done)));
    }
    let reply = Reply::Later(Box::pin(async move {
        match told.await.ok()? {
            Reply::Now(response) => Some(response),
            Reply::Later(response) => response.await,
            Reply::Nothing | Reply::NothingLater(_) | Reply::Close => None,
        }
    }));
    (teller, reply)
}

impl Job {
    async fn run(self) {
        let Self { context, calls, effort, mut answers, before, is_done, counted } = self;
        let turn = async {
            if let Some(before) = before {
                let _ = before.await;
            }
            if is_short(&effort) { None } else { Some(context.replicas.aside.place(&effort).await) }
        };
        let place = tokio::select! {
            biased;
            place = turn => place,
            () = given_up(&context, &calls, &mut answers) => return,
        };
        let replies = match place {
            None => Some(handle(&context, &calls)),
            Some(place) => {
                blocking(move || {
                    let _place = place;
                    handle(&context, &calls)
                })
                .await
            }
        };
        // What comes now finds it done.
        drop(counted);
        let _ = is_done.send(());
        for (answer, reply) in answers.into_iter().zip(replies.unwrap_or_default()) {
            let _ = answer.send(reply);
        }
    }
}

/// Ends when the connection is gone and nothing was sent that is carried out nevertheless. Whoever wants no answers
/// (`acks=0`) may go at once; then what it sent is bounded by others no more.
async fn given_up(
    context: &Context,
    calls: &[ProduceCall],
    answers: &mut [oneshot::Sender<Reply<ProduceResponse>>],
) {
    for answer in answers {
        answer.closed().await;
    }
    let unanswered = calls.iter().filter(|call| call.request.acks == 0);
    let bytes = unanswered.map(ProduceCall::bytes).sum();
    if bytes > 0
        && let Some(_kept) = context.replicas.aside.adopt(bytes)
    {
        std::future::pending::<()>().await;
    }
}
