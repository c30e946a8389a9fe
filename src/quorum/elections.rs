//! Elections: when there is no leader, a node asks whether it would win one, and only then begins it.
//!
//! Invariants: an election begins only when a majority has not heard of a leader for the election timeout (pre-vote),
//! so a node that comes and goes deposes nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::node::Quorum;
use super::peers::{PeerReply, PeerRequest};
use crate::model::number::{to_i64, to_u64};
use crate::system::Random;
use crate::system::clock::{millis, sleep, uptime_ms};

const TICK_MS: i64 = 25;
const ASK_WAIT_MS: i64 = 250;

impl Quorum {
    /// Asks every other voter whether it would vote for this node; whether a majority would.
    async fn would_win(&self) -> bool {
        let last = self.storage.last();
        let mut asked = tokio::task::JoinSet::new();
        let voters = self.voters();
        // A vote of one's own is one of them.
        let needed = voters.len() / 2;
        if needed == 0 {
            return true;
        }
        for (id, address) in voters.into_iter().filter(|(id, _)| *id != self.settings.node) {
            let transport = self.transport.clone();
            let asking = async move {
                let request = PeerRequest::WouldVote { last };
                let answer = transport.ask(id, &address, &request, millis(ASK_WAIT_MS)).await;
                matches!(answer, Ok(PeerReply::WouldVote(true)))
            };
            asked.spawn(asking);
        }
        let mut granted = 0;
        while let Some(answer) = asked.join_next().await {
            granted += usize::from(answer.unwrap_or(false));
            if granted >= needed {
                return true;
            }
        }
        false
    }
}

/// Begins elections when there is no leader.
pub(super) async fn elect(quorum: Arc<Quorum>, random: Random) {
    let Some(member) = quorum.member() else { return };
    let (me, timeout_ms) = (quorum.settings.node, quorum.settings.election_timeout_ms);
    let mut patience_ms = timeout_ms + to_i64(random.below(to_u64(timeout_ms) / 4 + 1));
    while quorum.failure().is_none() {
        sleep(millis(TICK_MS)).await;
        let silent_ms = uptime_ms() - member.heard_ms.load(Ordering::Acquire);
        if member.is_leader() || silent_ms < patience_ms || !quorum.voters().contains_key(&me) {
            continue;
        }
        if quorum.would_win().await {
            tracing::info!(node = me, silent_ms, "no leader: election begun");
            let _ = member.raft.trigger().elect().await;
            // Others need time to answer; and if two began at once, one should be later the next time.
            sleep(millis(TICK_MS * 2 + to_i64(random.below(to_u64(timeout_ms) / 2 + 1)))).await;
        } else {
            sleep(millis(TICK_MS + to_i64(random.below(50)))).await;
        }
        patience_ms = timeout_ms + to_i64(random.below(to_u64(timeout_ms) / 4 + 1));
    }
}
