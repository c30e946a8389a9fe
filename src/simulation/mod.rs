//! A broker, its clients and its disk in one thread, from one seed (tests only).
//!
//! A run is several lives of one broker on one disk. A life ends with a power cut, the death of the process or a clean
//! stop; in some the disk fails or fills up. Clients produce with `acks=all`, idempotently, and read. Invariants:
//! what was acknowledged is there, once, at its offset; what a reader saw stays; the same seed gives the same trace.

mod client;
mod cluster;
mod net;
mod nodes;
mod operator;
mod producer;
mod world;

use crate::system::planted::{Bug, plant};
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

/// Seeds of whole clusters that every test run goes through; `CLUSTER_SEEDS=from..to` runs others, `SEED=n` one, with
/// its trace.
const CLUSTER_SEEDS: std::ops::Range<u64> = 0..12;
const CLUSTER_SECONDS: u64 = 20;

fn check_cluster(seed: u64) -> cluster::ClusterRun {
    let run = cluster::run(seed, number("CLUSTER_SECONDS").unwrap_or(CLUSTER_SECONDS));
    assert!(run.wrong.is_empty(), "SEED={seed}: {:#?}\n{}", run.wrong, run.trace.join("\n"));
    run
}

fn seeds_of(variable: &str, usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let wanted = std::env::var(variable).ok();
    let range = wanted.as_deref().and_then(|wanted| wanted.split_once(".."));
    range.map_or(usual, |(from, to)| from.parse().expect("a number")..to.parse().expect("a number"))
}

/// Runs seeds, and says of all of them what went wrong.
fn run_clusters(
    name: &str,
    seeds: std::ops::Range<u64>,
    run: fn(u64, u64) -> cluster::ClusterRun,
) -> Vec<cluster::ClusterRun> {
    let seconds = number("CLUSTER_SECONDS").unwrap_or(CLUSTER_SECONDS);
    let (mut runs, mut wrong) = (Vec::new(), Vec::new());
    for seed in seeds {
        // An assertion of ours that fails in a run is a finding like any other, and does not hide those after it.
        let run = std::panic::catch_unwind(|| run(seed, seconds));
        let run = run.unwrap_or_else(|_| cluster::ClusterRun::panicked());
        if !run.wrong.is_empty() {
            println!("{name}={seed}: {:#?}", run.wrong);
            wrong.push(seed);
        }
        runs.push(run);
    }
    assert!(wrong.is_empty(), "{} of {} runs: {name}={wrong:?}", wrong.len(), runs.len());
    runs
}

#[test]
fn a_cluster_loses_nothing_acknowledged_whatever_happens_to_its_nodes() {
    let seeds = seeds_of("CLUSTER_SEEDS", CLUSTER_SEEDS);
    let runs = run_clusters("SEED", seeds, cluster::run);
    let (acked, faults) = runs.iter().fold((0, 0), |(a, f), run| (a + run.acked, f + run.faults));
    println!("{} runs, {acked} records acknowledged, {faults} faults", runs.len());
    assert!(acked > 100 * runs.len() && faults > 2 * runs.len(), "{acked} {faults}");
}

/// Seeds of clusters with a bucket that every test run goes through; `TIERED_SEEDS=from..to` runs others.
const TIERED_SEEDS: std::ops::Range<u64> = 0..6;

#[test]
fn a_tiered_cluster_loses_nothing_whatever_happens_to_its_nodes_and_to_the_bucket() {
    let seeds = seeds_of("TIERED_SEEDS", TIERED_SEEDS);
    let runs = run_clusters("TIERED", seeds, cluster::run_tiered);
    let acked: usize = runs.iter().map(|run| run.acked).sum();
    let remote = runs.iter().filter(|run| run.local_start > 0).count();
    println!(
        "{} runs, {acked} records acknowledged; {remote} with records in the bucket only",
        runs.len()
    );
    assert!(acked > 100 * runs.len() && remote * 4 > runs.len() * 3, "{acked} {remote}");
}

/// The same with compacted topics; `COMPACTED_SEEDS=from..to` runs others.
const COMPACTED_SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn a_compacted_cluster_keeps_the_newest_of_each_key_whatever_happens_to_its_nodes_and_to_the_bucket()
 {
    let seeds = seeds_of("COMPACTED_SEEDS", COMPACTED_SEEDS);
    let runs = run_clusters("COMPACTED", seeds, cluster::run_compacted);
    let (acked, left) = runs.iter().fold((0, 0), |(a, l), run| (a + run.acked, l + run.left));
    let remote = runs.iter().filter(|run| run.local_start > 0).count();
    println!(
        "{} runs, {acked} records acknowledged, {left} left; {remote} in the bucket",
        runs.len()
    );
    assert!(left * 2 < acked && remote * 4 > runs.len() * 3, "{acked} {left} {remote}");
}

/// The same with retention by size; `SIZED_SEEDS=from..to` runs others.
const SIZED_SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn a_tiered_cluster_keeps_as_many_bytes_as_it_is_told_to_wherever_its_replicas_lie() {
    let seeds = seeds_of("SIZED_SEEDS", SIZED_SEEDS);
    let runs = run_clusters("SIZED", seeds, cluster::run_sized);
    let acked: usize = runs.iter().map(|run| run.acked).sum();
    let deleted = runs.iter().filter(|run| run.start > 0).count();
    println!("{} runs, {acked} records acknowledged; {deleted} with deleted ones", runs.len());
    assert!(acked > 100 * runs.len() && deleted * 2 > runs.len(), "{acked} {deleted}");
}

/// Clusters whose logs are compacted on disk; `AGED_SEEDS=from..to` runs others.
const AGED_SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn an_aged_cluster_can_be_read_from_the_start_whatever_happened_and_however_long_nothing_did() {
    let seeds = seeds_of("AGED_SEEDS", AGED_SEEDS);
    let runs = run_clusters("AGED", seeds, cluster::run_aged);
    let (acked, left) = runs.iter().fold((0, 0), |(a, l), run| (a + run.acked, l + run.left));
    println!("{} runs, {acked} records acknowledged, {left} left", runs.len());
    assert!(acked > 50 * runs.len() && left * 2 < acked, "{acked} {left}");
}

/// Log lines tell the run's own time, as its trace does.
struct SimulatedUptime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedUptime {
    fn format_time(
        &self,
        to: &mut tracing_subscriber::fmt::format::Writer<'_>,
    ) -> std::fmt::Result {
        write!(to, "{}", crate::system::clock::uptime_ms())
    }
}

#[test]
fn the_seed_of_the_environment_is_run_on_a_cluster_and_shown() {
    let seconds = number("CLUSTER_SECONDS").unwrap_or(CLUSTER_SECONDS);
    let show = |variable: &str, run: fn(u64, u64) -> cluster::ClusterRun| {
        let Some(seed) = number(variable) else { return };
        if std::env::var_os("STRANDLINE_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_env("STRANDLINE_LOG");
            let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
            let _ = lines.with_timer(SimulatedUptime).try_init();
        }
        let run = run(seed, seconds);
        println!("seed {seed}\n{}\n{:#?}", run.trace.join("\n"), run.wrong);
        assert!(run.wrong.is_empty());
    };
    show("SEED", cluster::run);
    show("TIERED", cluster::run_tiered);
    show("COMPACTED", cluster::run_compacted);
    show("SIZED", cluster::run_sized);
    show("AGED", cluster::run_aged);
}

/// Whether a run shows that something is wrong: by its checks, or by an assertion of ours that failed.
fn shows_a_bug(run: fn(u64, u64) -> cluster::ClusterRun, seed: u64, seconds: u64) -> bool {
    std::panic::catch_unwind(|| !run(seed, seconds).wrong.is_empty()).unwrap_or(true)
}

/// In which runs a planted bug is looked for.
fn runs_for(bug: Bug) -> fn(u64, u64) -> cluster::ClusterRun {
    match bug {
        Bug::CacheByPath
        | Bug::StalePlaceOfHighWatermark
        | Bug::GapBetweenSegments
        | Bug::PromiseUnwritten
        | Bug::ForgetAge
        | Bug::AnswerWithoutRecords => cluster::run_aged,
        Bug::CountCopiedTwice => cluster::run_sized,
        _ => cluster::run,
    }
}

/// How long a run may be that has to find a planted bug, and how many seeds are looked through for a new one.
const PLANTED_SECONDS: u64 = 60;
const PLANTED_SEEDS: u64 = 2_000;

fn finds(bug: Bug, seed: u64) -> bool {
    plant(Some(bug));
    let found = shows_a_bug(runs_for(bug), seed, PLANTED_SECONDS);
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found_by_the_seed_that_is_noted_for_it() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulation/planted.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let noted = |bug: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(bug)?.trim().parse().ok())
    };
    let is_update = std::env::var_os("UPDATE").is_some();
    let (mut lines, mut missed) = (Vec::new(), Vec::new());
    let only = std::env::var("BUGS").unwrap_or_default();
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if !only.is_empty() && !only.split(',').any(|wanted| wanted == name) {
            continue;
        }
        let mut found = noted(&name).filter(|seed| finds(*bug, *seed));
        if found.is_none() && is_update {
            found = (0..PLANTED_SEEDS).find(|seed| finds(*bug, *seed));
        }
        match found {
            Some(seed) => lines.push(format!("{name} {seed}\n")),
            None => missed.push(name),
        }
    }
    if is_update && !only.is_empty() {
        println!("{}", lines.concat());
    } else if is_update {
        std::fs::write(&path, lines.concat()).expect("written");
    }
    assert!(missed.is_empty(), "not found: {missed:?}: see docs/internals/simulation.md");
}

#[test]
fn the_same_seed_gives_the_same_trace_of_a_cluster() {
    for seed in [2, 5, 11] {
        assert_eq!(check_cluster(seed).trace, check_cluster(seed).trace, "seed {seed}");
    }
}
