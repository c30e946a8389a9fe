//! The feature level of the cluster: what every node in it understands (KIP-584).
//!
//! Invariants: a level is finalized only when somebody says so, and only when every registered broker knows it; what a
//! level brings is not used below it, so that nodes of two releases after each other work together.
//!
//! | level | brings |
//! |---|---|
//! | 1 | clusters |
//! | 2 | voters that change while the cluster runs, and nodes that are told what is decided without a vote (KIP-853) |

use std::sync::atomic::{AtomicI16, Ordering};

use super::image::Image;

/// The feature's name on the wire.
pub(crate) const VERSION_FEATURE: &str = "strandline.version";
/// The oldest level that this build works in.
pub(crate) const LEVEL_MIN: i16 = 1;
/// From this level on voters change at runtime.
pub(crate) const LEVEL_VOTERS: i16 = 2;

static LEVEL_MAX: AtomicI16 = AtomicI16::new(LEVEL_VOTERS);

/// The newest level that this build knows.
pub(crate) fn level_max() -> i16 {
    LEVEL_MAX.load(Ordering::Relaxed)
}

/// This process knows as much as the release before did (for tests of upgrades).
pub(crate) fn know_one_less() {
    LEVEL_MAX.store(LEVEL_VOTERS - 1, Ordering::Relaxed);
}

impl Image {
    /// The finalized level; clusters from before there was one are at the first.
    pub(crate) fn level(&self) -> i16 {
        self.features.get(VERSION_FEATURE).copied().unwrap_or(LEVEL_MIN)
    }
}
