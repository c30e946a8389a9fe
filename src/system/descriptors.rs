//! How many files and sockets the process may have open, and who is to have how many of them.
//!
//! Invariants: what is told of logs, connections and closed segments together never exceeds the limit; logs are not opened up to it
//! either, so that clients can still be let in.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Listeners, locks, the metadata's log, peers, HTTP, folders that are looked through, a segment that follows another one.
const OWN: usize = 64;
/// Most files of closed segments that are kept open.
const CLOSED_SEGMENTS_MAX: usize = 1_000;

/// The limit, raised as far as the system lets us, once.
pub(crate) fn descriptors_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let limit = if raised { maximum } else { current };
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    })
}

/// What the descriptors of a process are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    max: usize,
}

impl Shares {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        Self { max: descriptors_max() }
    }

    /// Most connections at a time, whatever the configuration says.
    pub(crate) fn connections(self) -> usize {
        self.max / 2
    }

    /// Files of closed segments that stay open for whoever reads them next.
    pub(crate) fn closed_segments(self) -> usize {
        (self.max / 8).min(CLOSED_SEGMENTS_MAX)
    }

    /// Logs that there is room for beside so many connections: each holds the file that is written.
    pub(crate) fn logs(self, connections: usize) -> usize {
        let connections = connections.min(self.connections());
        self.max.saturating_sub(connections + self.closed_segments() + OWN)
    }

    /// Logs that are opened whatever the cluster has put here: clients must find the rest of them served.
    pub(crate) fn logs_most(self) -> usize {
        self.max.saturating_sub(self.max / 4 + self.closed_segments() + OWN)
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn what_is_shared_out_is_never_more_than_there_is() {
        for max in [0, 1, 64, 100, 256, 1_024, 4_096, 20_000, 1 << 20, usize::MAX] {
            let shares = Shares { max };
            let all = shares.logs(usize::MAX) + shares.connections() + shares.closed_segments();
            assert!(all <= max, "{max}: {shares:?}");
            assert!(shares.logs_most() + shares.closed_segments() <= max, "{max}");
            assert!(
                shares.logs_most() >= shares.logs(usize::MAX),
                "{max}: told more than is opened"
            );
        }
    }

    #[test]
    fn logs_get_what_connections_are_not_to_have() {
        let shares = Shares { max: 1_024 };
        assert_eq!((shares.connections(), shares.closed_segments()), (512, 128));
        assert_eq!(
            (shares.logs(usize::MAX), shares.logs(100), shares.logs_most()),
            (320, 732, 576)
        );
    }
}
