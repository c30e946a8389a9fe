//! The life of data: topics of every kind, from a seed, through bursts, silence and faults; and a model that knows of each record
//! whether it must be readable, and what must be gone.
//!
//! `plan.rs` is what a seed stands for, `model.rs` what is known of a topic's records, `judge.rs` the rules, `world.rs` the nodes
//! and what happens to them, `lives.rs` one plan from its beginning to its end, `closing.rs` what is looked at when all is quiet.
//! One of a single node and one of three are lived through in every run; `LIFE=1h` lives through seeds
//! from 100 or `LIFE_SEED` on until the time is over, `LIFE_SEED=n` alone through one.

mod batches;
mod closing;
mod families;
mod judge;
mod lives;
mod model;
pub(crate) mod plan;
mod read;
mod talk;
mod world;
mod write;

use std::time::{Duration, Instant};

use self::lives::{Outcome, live};
use self::plan::Plan;

/// Of the short form: of one node, and of three.
const SHORT: [u64; 2] = [0, 1];
const SHORT_TOPICS: u64 = 4;
const SHORT_PHASES: u64 = 4;
const LONG_TOPICS: u64 = 8;
const LONG_PHASES: u64 = 10;
/// Longest life of a plan.
const LIFE_MAX: Duration = Duration::from_mins(30);

fn lived(plan: &Plan) -> Outcome {
    let begun = Instant::now();
    print!("{}", plan.told());
    crate::watch::may_take(LIFE_MAX);
    let outcome = live(plan);
    println!("seed {}: {}, {:?}", plan.seed, outcome.told(), begun.elapsed());
    for finding in &outcome.findings {
        println!("  {finding}");
    }
    outcome
}

fn short(seed: u64) {
    let outcome = lived(&Plan::of(seed, SHORT_TOPICS, SHORT_PHASES));
    assert!(outcome.findings.is_empty(), "LIFE_SEED={seed}: {:#?}", outcome.findings);
}

#[test]
fn of_every_kind_of_topic_is_readable_what_must_be_and_gone_what_must_be_on_one_node() {
    short(SHORT[0]);
}

#[test]
fn of_every_kind_of_topic_is_readable_what_must_be_and_gone_what_must_be_on_three_nodes() {
    short(SHORT[1]);
}

#[test]
fn the_seeds_of_the_environment() {
    let seed = std::env::var("LIFE_SEED").ok().and_then(|seed| seed.parse().ok());
    let length = std::env::var("LIFE").ok().and_then(|text| duration(&text));
    let (begun, mut all, first) = (Instant::now(), Outcome::default(), seed.unwrap_or(100));
    let is_due = |next: &u64| length.map_or(seed == Some(*next), |length| begun.elapsed() < length);
    for seed in (first..).take_while(is_due) {
        let is_short = length.is_none() && SHORT.contains(&seed);
        let (topics, phases) =
            if is_short { (SHORT_TOPICS, SHORT_PHASES) } else { (LONG_TOPICS, LONG_PHASES) };
        all.add(lived(&Plan::of(seed, topics, phases)));
        println!("seeds {first} to {seed}: {}", all.told());
    }
    assert!(all.findings.is_empty(), "{:#?}", all.findings);
}

/// `90s`, `30m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len() - 1)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_mins(number)),
        "h" => Some(Duration::from_hours(number)),
        _ => None,
    }
}
