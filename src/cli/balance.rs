//! Where replicas should be, so that brokers hold, take in and lead about the same: a pure plan.
//!
//! Invariants: replicas of a partition stay on different brokers and on as many racks as before; nothing moves that does
//! not make the fullest broker less full; whoever is to be emptied ends up with nothing, or it is said what is in the way.

use std::collections::{BTreeMap, BTreeSet};

/// A broker that has replicas, or may get some.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub rack: Option<String>,
    /// It gets nothing new, and gives away what it has.
    pub is_leaving: bool,
}

/// A partition as it lies now.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub topic: String,
    pub partition: i32,
    /// The first one is to lead.
    pub replicas: Vec<i32>,
    pub bytes: u64,
    pub bytes_per_second: u64,
}

/// A partition that is to lie elsewhere, or to be led by another of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub topic: String,
    pub partition: i32,
    pub from: Vec<i32>,
    pub to: Vec<i32>,
    /// What has to be copied.
    pub bytes: u64,
}

/// Loads differ by at most this share of their mean where that can be had.
const TOLERANCE: f64 = 0.05;
const STEPS_MAX: usize = 10_000;

/// See the file's header.
#[derive(Debug)]
struct Plan<'a> {
    brokers: &'a BTreeMap<i32, Holder>,
    before: &'a [Held],
    now: Vec<Held>,
    /// What one replica of each partition weighs, and what leading it does.
    weights: Vec<(f64, f64)>,
}

/// The moves that even things out; `Err` names a partition that has no place.
pub(super) fn plan(
    brokers: &BTreeMap<i32, Holder>,
    partitions: &[Held],
) -> Result<Vec<Move>, String> {
    let mut plan = Plan {
        brokers,
        before: partitions,
        now: partitions.to_vec(),
        weights: weights(partitions),
    };
    plan.empty_those_who_leave()?;
    plan.even_out_replicas();
    plan.even_out_leaders();
    Ok(plan.moves())
}

/// Bytes, traffic and number count alike: each is a share of the cluster's whole.
fn weights(partitions: &[Held]) -> Vec<(f64, f64)> {
    let sum = |of: fn(&Held) -> f64| partitions.iter().map(of).sum::<f64>();
    let replicas = sum(|held| count(held.replicas.len()));
    let bytes = sum(|held| number(held.bytes) * count(held.replicas.len()));
    let traffic = sum(|held| number(held.bytes_per_second) * count(held.replicas.len()));
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let weigh = |held: &Held| {
        let rate = share(number(held.bytes_per_second), traffic);
        let one = share(1.0, replicas);
        (one + share(number(held.bytes), bytes) + rate, one + rate)
    };
    partitions.iter().map(weigh).collect()
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "weights need no more")]
fn number(value: u64) -> f64 {
    value as f64
}

fn count(value: usize) -> f64 {
    number(u64::try_from(value).unwrap_or(u64::MAX))
}

impl Plan<'_> {
    fn loads(&self) -> BTreeMap<i32, f64> {
        let staying = self.brokers.iter().filter(|(_, holder)| !holder.is_leaving);
        let mut loads: BTreeMap<i32, f64> = staying.map(|(id, _)| (*id, 0.0)).collect();
        for (held, (weight, _)) in self.now.iter().zip(&self.weights) {
            for id in &held.replicas {
                if let Some(load) = loads.get_mut(id) {
                    *load += weight;
                }
            }
        }
        loads
    }

    fn racks(&self, replicas: impl Iterator<Item = i32>) -> usize {
        let rack = |id: i32| self.brokers.get(&id).and_then(|holder| holder.rack.clone());
        replicas.filter_map(rack).collect::<BTreeSet<_>>().len()
    }

    /// Whether a replica of a partition may go from one broker to another.
    fn may_go(&self, at: usize, from: i32, to: i32) -> bool {
        let Some(held) = self.now.get(at) else { return false };
        let after = held.replicas.iter().map(|id| if *id == from { to } else { *id });
        held.replicas.contains(&from)
            && !held.replicas.contains(&to)
            && self.racks(after) >= self.racks(held.replicas.iter().copied())
    }

    fn go(&mut self, at: usize, from: i32, to: i32) {
        let replicas = self.now.get_mut(at).map(|held| &mut held.replicas);
        for id in replicas.into_iter().flatten().filter(|id| **id == from) {
            *id = to;
        }
    }

    fn empty_those_who_leave(&mut self) -> Result<(), String> {
        let leaving: Vec<i32> = self
            .brokers
            .iter()
            .filter(|(_, holder)| holder.is_leaving)
            .map(|(id, _)| *id)
            .collect();
        for at in 0..self.now.len() {
            for from in &leaving {
                if !self.now.get(at).is_some_and(|held| held.replicas.contains(from)) {
                    continue;
                }
                let mut loads: Vec<(i32, f64)> = self.loads().into_iter().collect();
                loads.sort_by(|a, b| a.1.total_cmp(&b.1));
                let has = |to: i32| self.now.get(at).is_some_and(|h| h.replicas.contains(&to));
                let free = || loads.iter().map(|(id, _)| *id).filter(|to| !has(*to));
                // A rack less is better than a broker that can't be emptied.
                let to = free().find(|to| self.may_go(at, *from, *to)).or_else(|| free().next());
                match to {
                    Some(to) => self.go(at, *from, to),
                    None => return Err(self.no_place(at)),
                }
            }
        }
        Ok(())
    }

    fn no_place(&self, at: usize) -> String {
        let name = self.now.get(at).map(|held| format!("{}-{}", held.topic, held.partition));
        let name = name.unwrap_or_default();
        format!(
            "{name} has a replica on every broker that stays: add a broker, or lower its replication factor"
        )
    }

    fn even_out_replicas(&mut self) {
        for _ in 0..STEPS_MAX {
            let loads = self.loads();
            let mean = loads.values().sum::<f64>() / count(loads.len().max(1));
            let mut sorted: Vec<(i32, f64)> = loads.into_iter().collect();
            sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
            let Some((fullest, most)) = sorted.last().copied() else { return };
            let step = sorted.iter().find_map(|(to, least)| {
                let gap = most - least;
                if gap <= mean * TOLERANCE {
                    return None;
                }
                let movable = |at: &usize| {
                    let weight = self.weights.get(*at).map_or(f64::MAX, |(weight, _)| *weight);
                    weight < gap * 0.999 && self.may_go(*at, fullest, *to)
                };
                let off = |at: &usize| {
                    let weight = self.weights.get(*at).map_or(0.0, |(weight, _)| *weight);
                    (gap / 2.0 - weight).abs()
                };
                let topics = self.by_topic(fullest, *to);
                // Of those that fit alike: one of the topic that is the least even between the two.
                let skew = |at: &usize| {
                    let topic = self.now.get(*at).map(|held| held.topic.as_str());
                    topic.and_then(|topic| topics.get(topic)).copied().unwrap_or(0)
                };
                let best = (0..self.now.len()).filter(movable);
                let order =
                    |a: &usize, b: &usize| off(a).total_cmp(&off(b)).then(skew(b).cmp(&skew(a)));
                best.min_by(order).map(|at| (at, *to))
            });
            match step {
                Some((at, to)) => self.go(at, fullest, to),
                None => return,
            }
        }
    }

    /// By topic, how many replicas one broker has more than another, in thousandths of the topic's partitions.
    fn by_topic(&self, one: i32, other: i32) -> BTreeMap<&str, i64> {
        let mut more: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for held in &self.now {
            let has = |id: i32| i64::from(held.replicas.contains(&id));
            let (difference, partitions) = more.entry(&held.topic).or_default();
            *difference += has(one) - has(other);
            *partitions += 1;
        }
        let share = |(topic, (difference, partitions))| (topic, difference * 1000 / partitions);
        more.into_iter().map(share).collect()
    }

    fn even_out_leaders(&mut self) {
        for _ in 0..STEPS_MAX {
            let staying = self.brokers.iter().filter(|(_, holder)| !holder.is_leaving);
            let mut led: BTreeMap<i32, f64> = staying.map(|(id, _)| (*id, 0.0)).collect();
            for (held, (_, weight)) in self.now.iter().zip(&self.weights) {
                if let Some(load) = held.replicas.first().and_then(|first| led.get_mut(first)) {
                    *load += weight;
                }
            }
            let load = |id: &i32| led.get(id).copied().unwrap_or(f64::MAX);
            let step = (0..self.now.len()).filter_map(|at| {
                let held = self.now.get(at)?;
                let (_, weight) = self.weights.get(at)?;
                let (first, others) = held.replicas.split_first()?;
                let next = others.iter().min_by(|a, b| load(a).total_cmp(&load(b)))?;
                let gain = load(first) - load(next) - weight;
                (gain > weight * 0.001).then_some((at, *first, *next, gain))
            });
            let best = step.max_by(|a, b| a.3.total_cmp(&b.3));
            let Some((at, first, next, _)) = best else { return };
            let replicas = self.now.get_mut(at).map(|held| &mut held.replicas);
            for id in replicas.into_iter().flatten() {
                *id = if *id == first {
                    next
                } else if *id == next {
                    first
                } else {
                    *id
                };
            }
        }
    }

    fn moves(self) -> Vec<Move> {
        let changed = self.before.iter().zip(self.now).filter(|(a, b)| a.replicas != b.replicas);
        let moved = |(before, now): (&Held, Held)| {
            let new = now.replicas.iter().filter(|id| !before.replicas.contains(id)).count();
            Move {
                topic: now.topic,
                partition: now.partition,
                from: before.replicas.clone(),
                to: now.replicas,
                bytes: before.bytes * u64::try_from(new).unwrap_or(0),
            }
        };
        changed.map(moved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(ids: &[i32], leaving: &[i32]) -> BTreeMap<i32, Holder> {
        let holder = |id: &i32| Holder { rack: None, is_leaving: leaving.contains(id) };
        ids.iter().map(|id| (*id, holder(id))).collect()
    }

    fn held(partition: i32, replicas: &[i32], bytes: u64) -> Held {
        let replicas = replicas.to_vec();
        Held { topic: "t".to_owned(), partition, replicas, bytes, bytes_per_second: 0 }
    }

    fn after(partitions: &[Held], moves: &[Move]) -> Vec<Held> {
        let mut all = partitions.to_vec();
        for change in moves {
            let at = usize::try_from(change.partition).expect("an index");
            assert_eq!(all[at].replicas, change.from);
            all[at].replicas.clone_from(&change.to);
        }
        all
    }

    #[test]
    fn a_new_broker_gets_its_share_of_replicas_bytes_and_leaders() {
        let partitions: Vec<Held> =
            (0..12).map(|p| held(p, if p % 2 == 0 { &[1, 2] } else { &[2, 1] }, 1_000)).collect();
        let moves = plan(&brokers(&[1, 2, 3], &[]), &partitions).expect("a plan");
        let now = after(&partitions, &moves);
        for id in 1..=3 {
            let replicas = now.iter().filter(|held| held.replicas.contains(&id)).count();
            let leads = now.iter().filter(|held| held.replicas[0] == id).count();
            assert_eq!((replicas, leads), (8, 4), "{now:?}");
        }
        assert!(moves.iter().map(|change| change.bytes).sum::<u64>() <= 9_000, "{moves:?}");
    }

    #[test]
    fn who_leaves_keeps_nothing_and_what_has_no_place_is_named() {
        let partitions = [held(0, &[1, 2, 3], 10), held(1, &[2, 3, 1], 10)];
        let moves = plan(&brokers(&[1, 2, 3, 4], &[2]), &partitions).expect("a plan");
        let now = after(&partitions, &moves);
        assert!(now.iter().all(|held| !held.replicas.contains(&2) && held.replicas.len() == 3));
        let refused = plan(&brokers(&[1, 2, 3], &[2]), &partitions).expect_err("no place");
        assert!(refused.contains("t-0"), "{refused}");
    }

    #[test]
    fn replicas_stay_on_as_many_racks_and_what_is_even_stays_as_it_is() {
        let mut brokers = brokers(&[1, 2, 3, 4], &[]);
        for (id, rack) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
            brokers.get_mut(&id).expect("known").rack = Some(rack.to_owned());
        }
        let partitions: Vec<Held> = (0..8).map(|p| held(p, &[1, 3], 100)).collect();
        let now = after(&partitions, &plan(&brokers, &partitions).expect("a plan"));
        for held in &now {
            let racks: BTreeSet<bool> = held.replicas.iter().map(|id| *id > 2).collect();
            assert_eq!(racks.len(), 2, "{held:?}");
        }
        assert_eq!(plan(&brokers, &now), Ok(Vec::new()));
    }

    #[test]
    fn every_topic_is_spread_over_a_new_broker() {
        let mut partitions: Vec<Held> = (0..12).map(|p| held(p, &[1, 2], 5)).collect();
        partitions.extend((0..48).map(|p| Held { topic: "u".to_owned(), ..held(p, &[2, 1], 5) }));
        let moves = plan(&brokers(&[1, 2, 3], &[]), &partitions).expect("a plan");
        for (topic, fair) in [("t", 8), ("u", 32)] {
            let got = moves.iter().filter(|m| m.topic == topic && m.to.contains(&3)).count();
            assert!((fair - 2..=fair + 2).contains(&got), "{got} of {topic}");
        }
    }

    #[test]
    fn one_large_partition_weighs_as_much_as_many_small_ones() {
        let mut partitions = vec![held(0, &[1], 1_000_000)];
        partitions.extend((1..9).map(|p| held(p, &[1], 10)));
        let now = after(&partitions, &plan(&brokers(&[1, 2], &[]), &partitions).expect("a plan"));
        let large = now[0].replicas[0];
        let beside = now[1..].iter().filter(|held| held.replicas[0] == large).count();
        assert!(beside <= 2, "{now:?}");
    }
}
