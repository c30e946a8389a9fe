//! Nodes that do not vote: they read the committed log from those who do.
//!
//! Invariants: only what is committed is handed out; an observer that can't reach one voter asks the next.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::node::{Quorum, QuorumStatus, Seat};
use super::peers::{PeerReply, PeerRequest, unexpected};
use crate::model::BrokerId;
use crate::model::number::to_i64;
use crate::system::clock::{millis, monotonic, sleep, timeout_at};
use crate::system::tasks::blocking;

/// How long a voter may wait for something new before it answers.
const WAIT_MS: u64 = 500;
/// Added to that before the voter counts as gone.
const PATIENCE_MS: i64 = 1_000;
const RETRY: Duration = Duration::from_millis(50);

/// What an observer knows of the quorum.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub leader: Option<(BrokerId, String)>,
    pub term: u64,
    pub voters: BTreeMap<BrokerId, String>,
}

impl Seen {
    pub(super) fn status(&self, applied: u64) -> QuorumStatus {
        QuorumStatus {
            leader: self.leader.as_ref().map(|(id, _)| *id),
            term: self.term,
            voters: self.voters.keys().copied().collect(),
            observers: Vec::new(),
            log_end: to_i64(applied),
            applied,
            replicated: BTreeMap::new(),
        }
    }
}

impl Quorum {
    /// Answers an observer: waits a while for what is committed from `next` on.
    pub(super) async fn followed(&self, next: u64, wait_ms: u64) -> PeerReply {
        let mut progress = self.progress();
        let until = monotonic() + millis(to_i64(wait_ms.min(WAIT_MS)));
        let _ = timeout_at(until, progress.wait_for(|progress| progress.next > next)).await;
        match self.committed_from(next) {
            Ok(found) => PeerReply::Follow {
                snapshot: found.snapshot,
                entries: found.entries,
                leader: self.leader(),
                term: self.status().term,
                voters: self.voters(),
            },
            Err(error) => PeerReply::Refused(error.to_string()),
        }
    }

    /// Addresses of those who may vote.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let voters = self.voters();
        let others = voters.iter().filter(|(id, _)| **id != self.settings.node);
        let mut all: Vec<String> = others.map(|(_, address)| address.clone()).collect();
        all.extend(
            self.settings
                .known
                .iter()
                .filter(|known| !voters.values().any(|v| v == *known))
                .cloned(),
        );
        all
    }
}

/// Reads the committed log for as long as the process lives.
pub(super) async fn follow(quorum: Arc<Quorum>) {
    let mut turn = 0;
    loop {
        let leader = quorum.leader().map(|(_, address)| address);
        let all = quorum.addresses();
        let next_one = || all.get(turn % all.len().max(1)).cloned();
        let Some(address) = leader.or_else(next_one) else {
            sleep(RETRY).await;
            continue;
        };
        if let Err(error) = follow_once(&quorum, &address).await {
            tracing::debug!(address, %error, "metadata not read");
            if let Seat::Observer(seen) = &quorum.seat {
                seen.lock().leader = None;
            }
            turn += 1;
            sleep(RETRY).await;
        }
    }
}

async fn follow_once(quorum: &Arc<Quorum>, address: &str) -> io::Result<()> {
    let Seat::Observer(seen) = &quorum.seat else { return Ok(()) };
    let next = quorum.progress().borrow().next;
    let request = PeerRequest::Follow { next, wait_ms: WAIT_MS };
    let wait = millis(to_i64(WAIT_MS) + PATIENCE_MS);
    let reply = quorum.transport.peers.call(address, &request, wait).await?.body;
    let PeerReply::Follow { snapshot, entries, leader, term, voters } = reply else {
        return Err(unexpected(&reply));
    };
    {
        let mut seen = seen.lock();
        // A voter that was cut off may still name an old leader.
        if term >= seen.term {
            (seen.leader, seen.term, seen.voters) = (leader, term, voters);
        }
    }
    let machine = quorum.machine.clone();
    let taken = blocking(move || machine.follow(snapshot, entries)).await;
    taken.unwrap_or(Ok(())).map_err(|error| io::Error::other(error.to_string()))
}
