//! A broker, its clients and its disk in one thread, from one seed (tests only).
//!
//! A run is several lives of one broker on one disk. A life ends with a power cut, the death of the process or a clean
//! stop; in some the disk fails or fills up. Clients produce with `acks=all`, idempotently, and read. Invariants:
//! what was acknowledged is there, once, at its offset; what a reader saw stays; the same seed gives the same trace.

mod client;
mod world;

use world::{Run, run, waiting_fetches_before_and_after_a_client_goes};

/// Seeds that every test run goes through; `SIMULATION_SEEDS=n` runs more, `SIMULATION_SEED=n` one, with its trace.
const SEEDS: u64 = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn check(seed: u64) -> Run {
    let run = run(seed);
    assert!(run.wrong.is_empty(), "seed {seed}: {:#?}\n{}", run.wrong, run.trace.join("\n"));
    run
}

#[test]
fn nothing_acknowledged_is_lost_whatever_the_disk_does() {
    let runs: Vec<Run> = (0..number("SIMULATION_SEEDS").unwrap_or(SEEDS)).map(check).collect();
    // A simulation in which nothing happens proves nothing.
    let acked: usize = runs.iter().map(|run| run.acked).sum();
    let (crashes, refused) =
        runs.iter().fold((0, 0), |(c, r), run| (c + run.crashes, r + run.refused));
    assert!(acked > 2_000 && crashes > 20 && refused > 20, "{acked} {crashes} {refused}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 17] {
        assert_eq!(check(seed).trace, check(seed).trace, "seed {seed}");
    }
}

#[test]
fn the_seed_of_the_environment_is_run_and_shown() {
    if let Some(seed) = number("SIMULATION_SEED") {
        println!("seed {seed}\n{}", check(seed).trace.join("\n"));
    }
}

#[test]
fn a_client_that_goes_while_it_waits_leaves_nothing_behind() {
    assert_eq!(waiting_fetches_before_and_after_a_client_goes(), (1, 0));
}
