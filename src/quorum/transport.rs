//! The consensus library's messages over our peers.
//!
//! Invariants: what comes from another disk than the voter's is as if nobody had answered: a voter that lost its log
//! must not be counted as its old self; when a voter followed last counts from when it was asked.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{AnyError, BasicNode};
use parking_lot::Mutex;
use uuid::Uuid;

use super::peers::{PeerReply, PeerRequest, Peers, unexpected};
use super::types::{TypeConfig, Vote};
use crate::model::BrokerId;
use crate::system::clock::uptime_ms;

/// Pause before a node that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);
const SNAPSHOT_WAIT: Duration = Duration::from_mins(1);

/// Knows which disk a voter votes from.
pub(crate) trait VoterDisks: Send + Sync {
    /// `None` if that is not known yet.
    fn directory(&self, voter: BrokerId) -> Option<Uuid>;
}

/// Makes connections to voters.
#[derive(Clone)]
pub(super) struct Transport {
    pub peers: Arc<Peers>,
    pub disks: Arc<dyn VoterDisks>,
    pub followed: Arc<Followed>,
}

/// Who followed this node as a leader: in which term, and when it was asked (uptime).
#[derive(Debug, Default)]
pub(super) struct Followed(Mutex<BTreeMap<BrokerId, (u64, i64)>>);

impl Followed {
    fn note(&self, voter: BrokerId, term: u64, asked_ms: i64) {
        let mut all = self.0.lock();
        let last = all.entry(voter).or_default();
        *last = (*last).max((term, asked_ms));
    }

    /// Voters that followed in this term, and were asked then or later.
    pub(super) fn since(&self, term: u64, from_ms: i64) -> Vec<BrokerId> {
        let all = self.0.lock();
        let recent = all.iter().filter(|(_, last)| last.0 == term && last.1 >= from_ms);
        recent.map(|(voter, _)| *voter).collect()
    }
}

/// The way to one voter.
pub(super) struct VoterLink {
    transport: Transport,
    target: BrokerId,
    address: String,
}

type CallError<E = RaftError<BrokerId>> = RPCError<BrokerId, BasicNode, E>;

impl RaftNetworkFactory<TypeConfig> for Transport {
    type Network = VoterLink;

    async fn new_client(&mut self, target: BrokerId, node: &BasicNode) -> VoterLink {
        VoterLink { transport: self.clone(), target, address: node.addr.clone() }
    }
}

impl Transport {
    /// Asks a voter; an answer from another node or disk is none.
    pub(super) async fn ask(
        &self,
        target: BrokerId,
        address: &str,
        request: &PeerRequest,
        wait: Duration,
    ) -> io::Result<PeerReply> {
        let answer = self.peers.call(address, request, wait).await?;
        let known = self.disks.directory(target);
        if answer.from.node != target {
            let other = answer.from.node;
            return Err(io::Error::other(format!("{address} is node {other}, not {target}")));
        }
        if known.is_some_and(|known| known != answer.from.directory) {
            return Err(io::Error::other(format!(
                "node {target} votes from another disk than before: remove the voter and add it again"
            )));
        }
        Ok(answer.body)
    }
}

impl VoterLink {
    async fn ask(&self, request: &PeerRequest, wait: Duration) -> io::Result<PeerReply> {
        self.transport.ask(self.target, &self.address, request, wait).await
    }
}

fn failed<E: std::error::Error>(error: &io::Error) -> CallError<E> {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::Other => {
            RPCError::Network(NetworkError::new(error))
        }
        _ => RPCError::Unreachable(Unreachable::new(error)),
    }
}

impl RaftNetwork<TypeConfig> for VoterLink {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<BrokerId>, CallError> {
        let (term, asked_ms) = (rpc.vote.leader_id.term, uptime_ms());
        match self.ask(&PeerRequest::Append(rpc), option.hard_ttl()).await {
            Ok(PeerReply::Append(response)) => {
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.transport.followed.note(self.target, term, asked_ms);
                }
                Ok(response)
            }
            Ok(other) => Err(failed(&unexpected(&other))),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<BrokerId>,
        option: RPCOption,
    ) -> Result<VoteResponse<BrokerId>, CallError> {
        match self.ask(&PeerRequest::Vote(rpc), option.hard_ttl()).await {
            Ok(PeerReply::Vote(response)) => Ok(response),
            Ok(other) => Err(failed(&unexpected(&other))),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<BrokerId>, StreamingError<TypeConfig, Fatal<BrokerId>>> {
        let request =
            PeerRequest::Snapshot { vote, meta: snapshot.meta, lines: *snapshot.snapshot };
        let answer = tokio::select! {
            biased;
            answer = self.ask(&request, SNAPSHOT_WAIT) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer {
            Ok(PeerReply::Snapshot { vote }) => Ok(SnapshotResponse { vote }),
            Ok(other) => Err(lost(&unexpected(&other))),
            Err(error) => Err(lost(&error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

fn lost(error: &io::Error) -> StreamingError<TypeConfig, Fatal<BrokerId>> {
    StreamingError::Network(NetworkError::from(AnyError::new(error)))
}
