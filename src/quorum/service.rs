//! The controller listener: other nodes' questions.
//!
//! Invariants: until the node has joined its cluster it only says who it is; a question of another cluster's node is
//! refused, and so is a leader's or candidate's whose disk is not the one that its vote counts for.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::node::Quorum;
use super::peers::{Envelope, Identity, PeerReply, PeerRequest, framed};
use crate::model::{BrokerId, Turn};
use crate::network::{Answer, Output, Peer, Service};
use crate::system::tasks::Boxed;

/// Whoever answers commands for the controller.
pub(crate) trait CommandHandler: Send + Sync {
    fn command(&self, from: BrokerId, command: Arc<RawValue>) -> Boxed<Arc<RawValue>>;

    /// The last connection of a node ended.
    fn lost(&self, node: BrokerId);
}

/// What stands behind the listener once the node has joined.
struct Joined {
    quorum: Arc<Quorum>,
    handler: Arc<dyn CommandHandler>,
}

/// See the file's header.
pub(crate) struct PeerService {
    identity: Mutex<Identity>,
    joined: OnceLock<Joined>,
}

/// One connection; it tells when it ends.
pub(crate) struct PeerSession {
    joined: Option<Arc<dyn CommandHandler>>,
    quorum: Option<Arc<Quorum>>,
    from: Option<BrokerId>,
}

impl Drop for PeerSession {
    fn drop(&mut self) {
        let Some(from) = self.from else { return };
        if let Some(quorum) = &self.quorum {
            quorum.lost(from);
        }
        if let Some(handler) = &self.joined {
            handler.lost(from);
        }
    }
}

impl PeerService {
    pub(crate) fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self { identity: Mutex::new(identity), joined: OnceLock::new() })
    }

    /// The node's cluster is known now.
    pub(crate) fn become_member(&self, identity: Identity) {
        *self.identity.lock() = identity;
    }

    /// From now on everything is answered.
    pub(crate) fn open_for_all(&self, quorum: Arc<Quorum>, handler: Arc<dyn CommandHandler>) {
        let _ = self.joined.set(Joined { quorum, handler });
    }

    fn answer(&self, session: &mut PeerSession, frame: &Bytes) -> Answer {
        let identity = self.identity.lock().clone();
        let request: Envelope<PeerRequest> = match serde_json::from_slice(frame) {
            Ok(request) => request,
            Err(error) => {
                tracing::info!(%error, "a message on the controller listener is not understood");
                return Answer::Close;
            }
        };
        let from = request.from;
        if matches!(request.body, PeerRequest::Hello) {
            return reply_now(identity, PeerReply::Hello);
        }
        if from.cluster.is_none() || from.cluster != identity.cluster {
            let why = format!("node {} is of cluster {:?}", from.node, from.cluster);
            return reply_now(identity, PeerReply::Refused(why));
        }
        let Some(joined) = self.joined.get() else {
            return reply_now(identity, PeerReply::Refused("the node is starting".to_owned()));
        };
        if session.from.is_none() {
            session.from = Some(from.node);
            session.quorum = Some(Arc::clone(&joined.quorum));
            session.joined = Some(Arc::clone(&joined.handler));
        }
        let (quorum, handler) = (Arc::clone(&joined.quorum), Arc::clone(&joined.handler));
        Answer::Later(Box::pin(async move {
            let reply = serve(&quorum, &*handler, from, request.body).await;
            output(identity, reply)
        }))
    }
}

impl Service for PeerService {
    type Session = PeerSession;

    fn open(&self, _: Peer) -> PeerSession {
        PeerSession { joined: None, quorum: None, from: None }
    }

    /// Nodes wait for an answer themselves where another request depends on it.
    fn turn(&self, _: &[u8]) -> Turn {
        Turn::Free
    }

    fn requests(&self, session: &mut PeerSession, frames: Vec<Bytes>) -> Vec<Answer> {
        frames.iter().map(|frame| self.answer(session, frame)).collect()
    }
}

fn reply_now(identity: Identity, reply: PeerReply) -> Answer {
    output(identity, reply).map_or(Answer::Close, Answer::Now)
}

fn output(identity: Identity, reply: PeerReply) -> Option<Output> {
    match framed(&Envelope { from: identity, body: reply }) {
        Ok(frame) => Some(Output::bytes(frame)),
        Err(error) => {
            tracing::error!(%error, "answer to a node dropped");
            None
        }
    }
}

async fn serve(
    quorum: &Arc<Quorum>,
    handler: &dyn CommandHandler,
    from: Identity,
    request: PeerRequest,
) -> PeerReply {
    match request {
        PeerRequest::Command(command) => {
            return PeerReply::Command(handler.command(from.node, command).await);
        }
        PeerRequest::Follow { next, wait_ms } => return quorum.followed(next, wait_ms).await,
        _ => {}
    }
    let Some(raft) = quorum.member().map(|member| &member.raft) else {
        return PeerReply::Refused("this node does not vote".to_owned());
    };
    if quorum.directory_of(from.node).is_some_and(|known| known != from.directory) {
        return PeerReply::Refused(format!("node {} votes from another disk", from.node));
    }
    let refused = |error: &dyn std::fmt::Display| PeerReply::Refused(error.to_string());
    match request {
        PeerRequest::Append(rpc) => {
            let vote = rpc.vote;
            match raft.append_entries(rpc).await {
                Ok(response) => {
                    quorum.heard_from_leader(&vote);
                    PeerReply::Append(response)
                }
                Err(error) => refused(&error),
            }
        }
        PeerRequest::Vote(rpc) => match raft.vote(rpc).await {
            Ok(response) => PeerReply::Vote(response),
            Err(error) => refused(&error),
        },
        PeerRequest::WouldVote { last } => PeerReply::WouldVote(quorum.would_vote(last)),
        PeerRequest::Snapshot { vote, meta, lines } => {
            let snapshot = Snapshot { meta, snapshot: Box::new(lines) };
            match raft.install_full_snapshot(vote, snapshot).await {
                Ok(response) => {
                    quorum.heard_from_leader(&vote);
                    PeerReply::Snapshot { vote: response.vote }
                }
                Err(error) => refused(&error),
            }
        }
        PeerRequest::Hello | PeerRequest::Command(_) | PeerRequest::Follow { .. } => {
            PeerReply::Hello
        }
    }
}
