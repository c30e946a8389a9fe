//! What nodes say to each other on the controller listener: frames of JSON, each with who speaks.
//!
//! Invariants: a node of another cluster is refused; an answer counts only if it comes from the node, and for a voter
//! from the disk, that was asked; a call ends when its time is over.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};
use crate::model::BrokerId;
use crate::network::Dialer;
use crate::network::client::FramedClient;
use crate::system::clock::{monotonic, timeout_at};

/// Connections to one address that wait for their next use.
const IDLE_MAX: usize = 8;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub node: BrokerId,
    /// The disk that its vote lies on.
    pub directory: Uuid,
    /// `None`: it does not belong to a cluster yet.
    pub cluster: Option<String>,
}

/// A message and its sender.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    pub from: Identity,
    pub body: T,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum PeerRequest {
    /// Who are you, and of which cluster?
    Hello,
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<BrokerId>),
    /// Would you vote for a node with this last entry? (pre-vote, Ongaro's thesis §9.6, KIP-996)
    WouldVote {
        last: Option<LogId>,
    },
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        lines: Vec<String>,
    },
    /// Something for the controller, which says what it means.
    Command(Arc<RawValue>),
    /// What is committed from an index on? (a node that does not vote)
    Follow {
        next: u64,
        wait_ms: u64,
    },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum PeerReply {
    Hello,
    Append(AppendEntriesResponse<BrokerId>),
    Vote(VoteResponse<BrokerId>),
    WouldVote(bool),
    Snapshot {
        vote: Vote,
    },
    Command(Arc<RawValue>),
    Follow {
        /// Where what comes next is not in the log any more: a snapshot instead.
        snapshot: Option<(SnapshotMeta, Vec<String>)>,
        entries: Vec<Entry>,
        leader: Option<(BrokerId, String)>,
        term: u64,
        voters: BTreeMap<BrokerId, String>,
    },
    /// The node can't answer this now.
    Refused(String),
}

/// Calls other nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    pub identity: Identity,
    dialer: Dialer,
    idle: Mutex<BTreeMap<String, Vec<FramedClient>>>,
}

impl Peers {
    pub(crate) fn new(identity: Identity, dialer: Dialer) -> Arc<Self> {
        Arc::new(Self { identity, dialer, idle: Mutex::default() })
    }

    /// The same with another identity: what is known before the folders are open may be less.
    pub(crate) fn renamed(&self, identity: Identity) -> Arc<Self> {
        Self::new(identity, Arc::clone(&self.dialer))
    }

    /// Asks a node who it is.
    pub(crate) async fn hello(&self, address: &str, wait: Duration) -> io::Result<Identity> {
        Ok(self.call(address, &PeerRequest::Hello, wait).await?.from)
    }

    /// Asks the controller at `address`.
    pub(crate) async fn command(
        &self,
        address: &str,
        command: Arc<RawValue>,
        wait: Duration,
    ) -> io::Result<Arc<RawValue>> {
        match self.call(address, &PeerRequest::Command(command), wait).await?.body {
            PeerReply::Command(answer) => Ok(answer),
            PeerReply::Refused(why) => Err(io::Error::other(why)),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call(
        &self,
        address: &str,
        request: &PeerRequest,
        wait: Duration,
    ) -> io::Result<Envelope<PeerReply>> {
        let envelope = Envelope { from: self.identity.clone(), body: request };
        let frame = framed(&envelope)?;
        let exchange = async {
            let waiting = self.idle.lock().get_mut(address).and_then(Vec::pop);
            if let Some(client) = waiting
                && let Ok(answer) = self.exchange(client, address, &frame).await
            {
                return Ok(answer);
            }
            // A connection that waited may have been closed by the other side long ago.
            let client = FramedClient::dial(&*self.dialer, address).await?;
            self.exchange(client, address, &frame).await
        };
        let answer = timeout_at(monotonic() + wait, exchange)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        let answer: Envelope<PeerReply> = serde_json::from_slice(&answer)?;
        let (ours, theirs) = (&self.identity.cluster, &answer.from.cluster);
        if ours.is_some() && theirs.is_some() && ours != theirs {
            let text = format!("{address} belongs to another cluster, {theirs:?}");
            return Err(io::Error::other(text));
        }
        Ok(answer)
    }

    async fn exchange(
        &self,
        mut client: FramedClient,
        address: &str,
        frame: &[u8],
    ) -> io::Result<Bytes> {
        client.send(frame).await?;
        let answer = client.receive().await?;
        let mut idle = self.idle.lock();
        let waiting = idle.entry(address.to_owned()).or_default();
        if waiting.len() < IDLE_MAX {
            waiting.push(client);
        }
        Ok(answer)
    }
}

/// A message with its length before it.
pub(super) fn framed<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    if let Some(head) = frame.get_mut(..4) {
        head.copy_from_slice(&length.to_be_bytes());
    }
    Ok(frame)
}

pub(super) fn unexpected(reply: &PeerReply) -> io::Error {
    match reply {
        PeerReply::Refused(why) => io::Error::other(why.clone()),
        _ => io::Error::other("the answer belongs to another request"),
    }
}

/// Reads a message as the controller listener does (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_message(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Envelope<PeerRequest>>(bytes);
    let _ = serde_json::from_slice::<Envelope<PeerReply>>(bytes);
}
