//! A client that does nothing wrong beside those that do: it gets no errors, and what it waits for is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::first_run::create;
use crate::kit::eventually;
use crate::wire::Wire;

/// A pause between two requests.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a request in a hundred may take under attack: on a machine of two cores that tests, attackers and the broker share, and with
/// a build that is not optimized, three times of what it takes alone says nothing.
const ANYWAY: Duration = Duration::from_millis(250);

/// A client on a thread of its own.
pub(crate) struct Good {
    stop: Arc<AtomicBool>,
    writing: JoinHandle<Vec<Duration>>,
    topic: String,
}

impl Good {
    /// Writes records of `bytes` to a topic one after the other, each acknowledged, until it is told to stop.
    pub(crate) fn begin(broker: &Broker, topic: &str, bytes: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address, name) =
            (Arc::clone(&stop), broker.address.clone(), topic.to_owned());
        let writing = std::thread::spawn(move || {
            let mut wire = Wire::connect(&address);
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(wire.produce_one(&name, -1, bytes), 0);
                took.push(begun.elapsed());
                std::thread::sleep(PAUSE);
            }
            took
        });
        Self { stop, writing, topic: topic.to_owned() }
    }

    /// How long requests took: one in a hundred more than `ANYWAY` at most. Everything that was acknowledged is read.
    pub(crate) fn end(self, broker: &Broker) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let took = self.writing.join().expect("the good client has no errors");
        let arguments = ["consume", &self.topic, "-o", "start", "-e"];
        let read = crate::first_run::cli(broker, &arguments).lines().count();
        assert_eq!(read, took.len(), "records that were acknowledged, and that are read");
        let slow = p99(&took);
        println!(
            "the good client: {read} records, p99 {slow:?}, the longest {:?}",
            took.iter().max()
        );
        assert!(slow <= ANYWAY, "p99 {slow:?}");
        took
    }
}

/// The time within which 99 of 100 requests were answered.
fn p99(took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

/// Enough heartbeats to say what one in a hundred takes.
pub(crate) const OFTEN: &str = "broker.heartbeat.interval.ms=20";
/// Of 100 heartbeats of the broker 99 are answered within so many seconds, whatever clients do: as `ANYWAY`. A machine that has
/// nothing else to do shows a tenth of a second.
const HEARTBEAT: &str = "0.25";

/// How many heartbeats were answered within so many seconds, and how many in all.
fn heartbeats(broker: &Broker, within: &str) -> (u64, u64) {
    let text = crate::first_run::get(broker, "/metrics");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line").trim().parse().expect("a number")
    };
    let soon = format!("strandline_broker_heartbeat_seconds_bucket{{le=\"{within}\"}} ");
    (value(&soon), value("strandline_broker_heartbeat_seconds_count "))
}

/// How many came too late meanwhile, and of how many.
fn late_heartbeats(before: (u64, u64), after: (u64, u64)) -> (u64, u64) {
    let all = after.1 - before.1;
    (all - (after.0 - before.0), all)
}

/// Files that a broker has open.
pub(crate) fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("listed").count()
}

/// What a broker takes while nobody attacks it.
pub(crate) struct Quiet {
    resident_kib: u64,
    descriptors: usize,
}

impl Quiet {
    pub(crate) fn of(broker: &Broker) -> Self {
        Self { resident_kib: broker.resident_kib(), descriptors: descriptors(broker) }
    }

    /// Once an attack is over it takes as many descriptors as before, and so many MiB more at most.
    pub(crate) fn comes_back(&self, broker: &Broker, more_mib: u64) {
        let over = Instant::now();
        eventually("descriptors and memory are given back", || {
            descriptors(broker) <= self.descriptors
                && broker.resident_kib() <= self.resident_kib + (more_mib << 10)
        });
        let (mib, took) = (broker.resident_kib() >> 10, over.elapsed());
        println!("{mib} MiB and {} descriptors {took:?} after it", descriptors(broker));
    }
}

/// Runs `attack` beside a good client that writes records of `bytes`.
pub(crate) fn beside_a_good_client<T>(
    broker: &Broker,
    bytes: usize,
    attack: impl FnOnce() -> T,
) -> T {
    let (alone, beside) = (format!("alone-{bytes}"), format!("beside-{bytes}"));
    create(broker, &alone, &["retention.ms=-1"]);
    create(broker, &beside, &["retention.ms=-1"]);
    let alone = Good::begin(broker, &alone, bytes);
    std::thread::sleep(Duration::from_secs(1));
    alone.end(broker);
    let before = ["0.1", HEARTBEAT].map(|within| heartbeats(broker, within));
    let beside = Good::begin(broker, &beside, bytes);
    let done = attack();
    beside.end(broker);
    let after = ["0.1", HEARTBEAT].map(|within| heartbeats(broker, within));
    let [(slow, _), (late, all)] = [0, 1].map(|at: usize| late_heartbeats(before[at], after[at]));
    println!("of {all} heartbeats {slow} took more than 0.1 s, {late} more than {HEARTBEAT}");
    assert!(late * 100 <= all, "{late} of {all} heartbeats took more than {HEARTBEAT} s");
    done
}
