//! Three nodes, each in a network and on a file system of its own, and one thing after the other goes wrong.
//!
//! Faults are real (`faults.rs`). Needs root, network namespaces and loop devices; where they are missing the story says
//! so and is skipped. `CHAOS_MINUTES=60` makes it the standard run, `CHAOS_ONLY='slow disk,clock back'` tries a few kinds.

mod faults;
mod machines;

use std::time::{Duration, Instant};

use self::faults::{FAULTS, World, hurt, missing};
use self::machines::{CLIENT, Machines, NODES};
use crate::broker::folder;
use crate::cluster::Cluster;
use crate::judges::{Judge, KafkasOwn};

const SHORT_RUN: Duration = Duration::from_mins(4);
/// Records a second and topic, in the short run and in a longer one.
const RATE: u64 = 1_500;
const LONG_RATE: u64 = 3_000;

fn machines_or_reason(folder: &std::path::Path) -> Option<Machines> {
    crate::kit::install_tools();
    match Machines::new(folder) {
        Ok(machines) => Some(machines),
        Err(why) => {
            println!("skipped: no networks and file systems of our own on this machine: {why}");
            None
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_networks_disks_and_processes() {
    let (folder, _) = folder();
    let Some(machines) = machines_or_reason(folder.path()) else { return };
    let minutes = std::env::var("CHAOS_MINUTES").ok().and_then(|m| m.parse::<u64>().ok());
    let length = minutes.map_or(SHORT_RUN, Duration::from_mins);
    crate::watch::may_take(length);
    let rate = if minutes.is_some() { LONG_RATE } else { RATE };
    let only = std::env::var("CHAOS_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let mut kinds = Vec::new();
    for (name, needs, make) in FAULTS {
        match missing(needs, &machines) {
            Some(why) => println!("left out: {name}: {why} ({needs})"),
            None if only.is_empty() || only.contains(name) => kinds.push((*name, *make)),
            None => {}
        }
    }
    let mut cluster = Cluster::start_at((1..=NODES).map(|node| machines.place(node)).collect());
    let bootstrap = cluster.bootstrap();
    let judge =
        Judge::start_at_rate(&machines.prefix(CLIENT), &bootstrap, length.as_secs() + 5, rate);
    let kafkas_own = KafkasOwn::start(&machines.prefix(CLIENT), &bootstrap, folder.path());
    std::thread::sleep(Duration::from_secs(4));
    let begun = Instant::now();
    let mut faults = 0;
    while begun.elapsed() + Duration::from_secs(10) < length {
        let (what, make) = kinds[faults % kinds.len()];
        let node = 1 + (faults + faults / kinds.len()) % NODES;
        println!("{:>6.1} s: {what}, node {node}", begun.elapsed().as_secs_f64());
        let world = &mut World { machines: &machines, cluster: &mut cluster };
        hurt(make, node, world).unwrap_or_else(|why| panic!("{what}: {why}"));
        faults += 1;
        std::thread::sleep(Duration::from_secs(2));
    }
    let acked = judge.verdict();
    let theirs = kafkas_own.verdict();
    let kinds = kinds.len();
    println!(
        "{faults} faults of {kinds} kinds, {acked} records acknowledged, and {theirs} to Kafka's own"
    );
    cluster.wait_healthy();
    let different = cluster.stop_and_compare("all");
    assert!(different.is_empty(), "{different:#?}");
    assert!(acked > 5_000 && theirs > 1_000, "{acked} and {theirs} records");
    assert!(faults >= 10 || !only.is_empty(), "{faults} faults");
}

#[test]
fn the_power_cut_finds_what_was_acknowledged_before_it_was_flushed() {
    let (folder, _) = folder();
    let Some(machines) = machines_or_reason(folder.path()) else { return };
    // A run that can't fail shows nothing: what is acknowledged from caches must be missed here.
    let places = (1..=NODES).map(|node| machines.place(node)).collect();
    let mut cluster = Cluster::start_with(places, &["write.caching=true"]);
    let judge = Judge::start(&machines.prefix(CLIENT), &cluster.bootstrap(), 14);
    std::thread::sleep(Duration::from_secs(9));
    let (.., cut) = FAULTS.iter().find(|(name, ..)| *name == "power cut of all").expect("known");
    let world = &mut World { machines: &machines, cluster: &mut cluster };
    hurt(*cut, 1, world).expect("the power is cut");
    let lost = judge.lost();
    println!("{lost} records lost that were acknowledged from caches");
    assert!(lost > 0);
}
