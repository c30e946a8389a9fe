//! Which replication traffic is held to how many bytes a second (KIP-73).
//!
//! Invariants: what is not throttled never waits here.

use crate::system::Throttle;

/// Both ends of replication on this broker.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    pub leader: Throttle,
    pub follower: Throttle,
    /// Copies between this broker's log directories.
    pub directories: Throttle,
}

impl Throttles {
    /// Bytes a second of each end.
    pub(super) fn set_rates(&self, (leader, follower, directories): (i64, i64, i64)) {
        self.leader.set_rate(leader);
        self.follower.set_rate(follower);
        self.directories.set_rate(directories);
    }
}
