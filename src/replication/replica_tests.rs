//! Scripts of the replica state machine: commands in, effects out (`testdata/replica.txt`; `UPDATE=1` rewrites them).

use std::fmt::Write;
use std::path::Path;

use super::replica::{Effects, PartitionState, Replica};

const ME: i32 = 1;
const LAG_MAX_MS: i64 = 10_000;

/// Numbers of a word like `isr=1,2,3`.
fn ids(word: &str) -> Vec<i32> {
    let list = word.split_once('=').map_or("", |(_, list)| list);
    list.split(',').filter_map(|id| id.parse().ok()).collect()
}

fn number(word: Option<&str>) -> i64 {
    word.and_then(|word| word.parse().ok()).expect("a number")
}

fn show(effects: &Effects, replica: &Replica) -> String {
    let mut shown = format!("high watermark {}", replica.high_watermark());
    if effects.high_watermark_moved {
        shown.push_str(", moved");
    }
    if effects.too_few_in_sync {
        shown.push_str(", too few in sync");
    }
    if let Some(proposal) = &effects.propose {
        let members: Vec<i32> = proposal.isr.iter().map(|(id, _)| *id).collect();
        match proposal.hand_over {
            Some(to) => write!(shown, ", hand over to {to}").expect("written"),
            None => write!(shown, ", propose {members:?}").expect("written"),
        }
    }
    shown
}

/// Carries out one line.
fn step(replica: &mut Replica, line: &str) -> Effects {
    let mut words = line.split_whitespace();
    match words.next().unwrap_or_default() {
        "state" => {
            let words: Vec<&str> = words.collect();
            let of = |name: &str| words.iter().find(|word| word.starts_with(name)).copied();
            let one = |name: &str| of(name).and_then(|word| ids(word).first().copied());
            let state = PartitionState {
                leader: one("leader=").unwrap_or(-1),
                leader_epoch: one("epoch=").expect("an epoch"),
                partition_epoch: one("version=").unwrap_or(0),
                replicas: ids(of("replicas=").unwrap_or("=1,2,3")),
                isr: ids(of("isr=").expect("an ISR")),
                transfer_to: one("to="),
            };
            replica.take_state(ME, &state, 0)
        }
        "append" => replica.appended(number(words.next())),
        "flush" => replica.flushed(number(words.next())),
        "fetch" => {
            let (who, offset) = (number(words.next()), number(words.next()));
            let now_ms = words.next().and_then(|at| at.parse().ok()).unwrap_or(0);
            replica.fetched(now_ms, i32::try_from(who).expect("an id"), 7, offset)
        }
        "tick" => replica.tick(number(words.next()), LAG_MAX_MS),
        "told" => replica.told_high_watermark(number(words.next())),
        "cut" => {
            let to = number(words.next());
            let durable = words.next().map_or(to, |word| number(Some(word)));
            replica.truncated(to, durable);
            Effects::default()
        }
        other => panic!("unknown command {other}"),
    }
}

#[test]
fn the_replica_does_what_its_scripts_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/replication/testdata/replica.txt");
    let text = std::fs::read_to_string(&path).expect("the scripts");
    let mut after = String::new();
    let mut replica = Replica::new(0, 0, (false, 2));
    for line in text.lines() {
        let command = line.split("->").next().unwrap_or_default().trim();
        if command.is_empty() || command.starts_with('#') {
            after.push_str(line);
            after.push('\n');
            continue;
        }
        if let Some(rest) = command.strip_prefix("begin") {
            let mut words = rest.split_whitespace();
            let (end, known) = (number(words.next()), number(words.next()));
            replica = Replica::new(end, known, (rest.contains("caching"), 2));
            after.push_str(line);
            after.push('\n');
            continue;
        }
        let effects = step(&mut replica, command);
        writeln!(after, "{command} -> {}", show(&effects, &replica)).expect("written");
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &after).expect("written");
        return;
    }
    assert_eq!(after, text, "see the change with `UPDATE=1 cargo test replica`, and read it");
}

#[test]
#[should_panic(expected = "flushed_within_log")]
fn a_flush_past_the_end_is_our_bug() {
    let _ = Replica::new(5, 5, (false, 1)).flushed(6);
}

#[test]
#[should_panic(expected = "leaders_never_truncate")]
fn a_leader_that_cuts_its_log_is_our_bug() {
    let mut replica = Replica::new(5, 5, (false, 1));
    let _ = step(&mut replica, "state leader=1 epoch=1 isr=1");
    replica.truncated(3, 3);
}

#[test]
fn a_log_that_began_anew_in_the_bucket_is_committed_where_it_leads_though_nothing_is_flushed() {
    let mut replica = Replica::new(45, 45, (false, 1));
    let _ = step(&mut replica, "state leader=2 epoch=1 isr=2,3");
    // What lies before 57 is in object storage; nobody told yet what is committed.
    let _ = step(&mut replica, "cut 57 57");
    let _ = step(&mut replica, "state leader=1 epoch=2 isr=1,2");
    assert!(!replica.is_settled());
    let _ = step(&mut replica, "fetch 2 57");
    assert!(replica.is_settled() && replica.high_watermark() == 57);
}
