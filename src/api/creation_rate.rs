//! How fast topics are made because somebody asked for their metadata: by each address, and in all on this broker.
//!
//! Invariants: in a while of any length an address makes no more topics than a burst and what its rate gives; one that is refused
//! uses up nothing of what others may; addresses that have not made anything for a while are not remembered.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

/// So many seconds' worth of topics may be made at once by whoever made none before: a program that starts asks for all that it needs.
const BURST_SECONDS: i64 = 10;
/// Addresses are looked through for those that can be forgotten once there are so many.
const ADDRESSES_MANY: usize = 1_024;

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct CreationRate(Mutex<Made>);

/// Until when what was made would have taken at its rate (uptime in microseconds).
#[derive(Debug, Default)]
struct Made {
    by_address: HashMap<IpAddr, i64>,
    in_all_us: i64,
}

/// Topics a second: by one address, and in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub by_address: i64,
    pub in_all: i64,
}

impl CreationRate {
    /// Whether an address may make a topic now; then it counts as made.
    pub(super) fn take(&self, address: IpAddr, now_ms: i64, rates: Rates) -> bool {
        let now = now_ms.saturating_mul(1_000);
        let mut made = self.0.lock();
        let before = made.by_address.get(&address).copied().unwrap_or(now);
        let Some(by_address) = next(before, now, rates.by_address) else { return false };
        let Some(in_all) = next(made.in_all_us, now, rates.in_all) else { return false };
        if made.by_address.len() >= ADDRESSES_MANY {
            made.by_address.retain(|_, until_us| *until_us > now);
        }
        made.by_address.insert(address, by_address);
        made.in_all_us = in_all;
        true
    }
}

/// Until when one more takes; `None`: that is too far ahead.
fn next(until_us: i64, now_us: i64, rate: i64) -> Option<i64> {
    let next_us = until_us.max(now_us) + 1_000_000 / rate.max(1);
    (next_us - now_us <= BURST_SECONDS * 1_000_000).then_some(next_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { by_address: 5, in_all: 8 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// How many of so many tries succeed.
    fn taken(rate: &CreationRate, last: u8, now_ms: i64, tries: usize) -> usize {
        (0..tries).filter(|_| rate.take(address(last), now_ms, RATES)).count()
    }

    #[test]
    fn an_address_makes_a_burst_and_then_as_many_as_its_rate_gives() {
        let rate = CreationRate::default();
        assert_eq!(taken(&rate, 1, 50_000, 1_000), 50);
        assert_eq!(taken(&rate, 1, 50_100, 1_000), 0);
        let later: usize = (0..100).map(|tenth| taken(&rate, 1, 50_200 + tenth * 100, 9)).sum();
        assert_eq!(later, 50, "five a second for ten seconds");
        assert_eq!(taken(&rate, 1, 120_000, 1_000), 50, "a burst again after a while");
    }

    #[test]
    fn one_address_leaves_room_for_others_and_all_of_them_have_a_limit() {
        let rate = CreationRate::default();
        assert_eq!(taken(&rate, 1, 1_000, 1_000), 50);
        assert_eq!(taken(&rate, 2, 1_000, 1_000), 30, "eighty in all");
        // What the second was refused for the others' sake was not held against it.
        assert_eq!(taken(&rate, 2, 3_000, 1_000), 16);
        assert_eq!(taken(&rate, 3, 3_000, 1_000), 0);
    }

    #[test]
    fn addresses_are_forgotten_once_they_make_nothing() {
        let rate = CreationRate::default();
        let rates = Rates { by_address: 5, in_all: i64::MAX };
        for number in 0..20_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            assert!(rate.take(address, i64::from(number), rates));
        }
        assert!(rate.0.lock().by_address.len() <= ADDRESSES_MANY);
    }
}
