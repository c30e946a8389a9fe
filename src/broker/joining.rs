//! Which cluster a node belongs to: what its folders say, or what the other voters say.
//!
//! Invariants: a cluster id is made up once, by the voter with the lowest id, when a majority of the voters says that
//! there is none; every other node learns it.

use std::time::Duration;

use crate::quorum::{Identity, Peers, QuorumSettings};
use crate::system::clock::{monotonic, sleep};

const ASK_WAIT: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(50);
const TELL: Duration = Duration::from_secs(5);

/// Asks until it is known; `None`: this node is to make one up.
pub(super) async fn cluster_of(peers: &Peers, settings: &QuorumSettings) -> Option<String> {
    let (me, voters) = (peers.identity.node, &settings.voters);
    let is_first = voters.keys().next() == Some(&me);
    let mut tell_at = monotonic() + TELL;
    loop {
        let mut without = 1;
        for (_, address) in voters.iter().filter(|(id, _)| **id != me) {
            match peers.hello(address, ASK_WAIT).await {
                Ok(identity) => match identity.cluster {
                    Some(cluster) => return Some(cluster),
                    None => without += 1,
                },
                Err(error) => tracing::debug!(address, %error, "voter not reached"),
            }
        }
        for address in &settings.known {
            if let Ok(Identity { cluster: Some(cluster), .. }) =
                peers.hello(address, ASK_WAIT).await
            {
                return Some(cluster);
            }
        }
        if is_first && without > voters.len() / 2 {
            return None;
        }
        if monotonic() >= tell_at {
            let nodes: Vec<&String> = voters.values().chain(&settings.known).collect();
            tracing::warn!(
                ?nodes,
                "waiting for the nodes of controller.quorum.voters and controller.quorum.bootstrap.servers"
            );
            tell_at = monotonic() + TELL;
        }
        sleep(RETRY).await;
    }
}
