//! Which brokers are alive, as far as the active controller has heard: soft state, begun anew with each term.
//!
//! Invariants: a broker is fenced only after its session time without a heartbeat, or when its listener refuses
//! connections; only time counts in which the controller was awake to hear it; a new controller gives everybody a whole session, since an older one may have promised it.

use std::collections::BTreeMap;

use crate::metadata::Image;
use crate::model::BrokerId;

/// When each unfenced broker's session ends, in one term. All times are those of `Awake`.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    term: u64,
    /// Whether nobody was told yet that the term began.
    is_fresh: bool,
    ends_ms: BTreeMap<BrokerId, i64>,
    /// Whom each broker can't reach.
    unreachable: BTreeMap<BrokerId, Vec<BrokerId>>,
    /// How far each broker has applied the metadata, and when it said so.
    applied: BTreeMap<BrokerId, (u64, i64)>,
}

impl Sessions {
    /// Begins a term, if it is another one.
    pub(super) fn begin(&mut self, term: u64, now_ms: i64, session_ms: i64, image: &Image) {
        if self.term == term {
            return;
        }
        self.is_fresh = true;
        self.unreachable.clear();
        self.applied.clear();
        self.term = term;
        let alive = image.brokers.iter().filter(|(_, broker)| !broker.is_fenced);
        self.ends_ms = alive.map(|(id, _)| (*id, now_ms + session_ms)).collect();
    }

    /// Whether the term is new since this was asked last.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.is_fresh)
    }

    /// A heartbeat came.
    pub(super) fn heard(&mut self, broker: BrokerId, now_ms: i64, session_ms: i64) {
        self.ends_ms.insert(broker, now_ms + session_ms);
    }

    /// Notes how far a broker is.
    pub(super) fn note_applied(&mut self, broker: BrokerId, applied: u64, now_ms: i64) {
        self.applied.insert(broker, (applied, now_ms));
    }

    /// How far brokers are, and how long ago they said so, in ms.
    pub(super) fn applied(&self, now_ms: i64) -> BTreeMap<BrokerId, (u64, i64)> {
        let all = self.applied.iter();
        all.map(|(id, (applied, at_ms))| (*id, (*applied, now_ms - at_ms))).collect()
    }

    /// Notes whom a broker can't reach.
    pub(super) fn note_unreachable(&mut self, broker: BrokerId, leaders: &[BrokerId]) {
        self.unreachable.insert(broker, leaders.to_vec());
    }

    /// Leaders that somebody does not reach, each with those who do not; told once.
    pub(super) fn take_unreachable(&mut self) -> BTreeMap<BrokerId, Vec<BrokerId>> {
        let mut by_leader: BTreeMap<BrokerId, Vec<BrokerId>> = BTreeMap::new();
        for (broker, leaders) in std::mem::take(&mut self.unreachable) {
            for leader in leaders {
                by_leader.entry(leader).or_default().push(broker);
            }
        }
        by_leader
    }

    /// A broker's process is known to be gone.
    pub(super) fn gone(&mut self, broker: BrokerId) {
        if let Some(end_ms) = self.ends_ms.get_mut(&broker) {
            *end_ms = 0;
        }
    }

    /// Unfenced brokers whose session is over, with their epochs.
    pub(super) fn expired(
        &mut self,
        now_ms: i64,
        session_ms: i64,
        image: &Image,
    ) -> Vec<(BrokerId, i64)> {
        let mut expired = Vec::new();
        for (id, broker) in image.brokers.iter().filter(|(_, broker)| !broker.is_fenced) {
            let end_ms = *self.ends_ms.entry(*id).or_insert(now_ms + session_ms);
            if end_ms <= now_ms {
                expired.push((*id, broker.epoch));
            }
        }
        expired
    }
}
