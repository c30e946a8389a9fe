//! Questions about the settings of topics.

use anyhow::Result;

use super::asking::Step::{Append, Delete, Set, Subtract};
use super::asking::{Asking, Change, Step, Steps, TOPIC};
use super::stamp;
use super::values::{Kind, TOPIC_SETTINGS, values};

/// As many topics as a setting has values.
const TOPICS: usize = 40;

pub(super) fn ask(asking: &mut Asking) -> Result<()> {
    let stamp = stamp();
    let pool: Vec<String> = (0..TOPICS).map(|i| format!("settings-{i}-{stamp}")).collect();
    let plain: Vec<(String, &str, &str)> = pool.iter().map(|name| (name.clone(), "", "")).collect();
    asking.create(&plain, false)?;
    for _ in 0..10 {
        asking.settle();
    }
    for (key, kind) in TOPIC_SETTINGS {
        let shown = asking.describe(TOPIC, &pool[..1], key, true)?.remove(0);
        asking.say(&format!("topic {key}"), &shown);
        set(asking, &pool, key, values(key, *kind))?;
    }
    for key in ["cleanup.policy", "min.cleanable.dirty.ratio", "preallocate", "retention.ms"] {
        let (_, kind) = TOPIC_SETTINGS.iter().find(|(name, _)| *name == key).expect("a setting");
        steps(asking, &pool, key, *kind)?;
    }
    together(asking, &pool)?;
    replaced(asking, &pool)
}

/// Each value, where a topic is made and where one is changed.
fn set(asking: &mut Asking, pool: &[String], key: &str, values: Vec<&str>) -> Result<()> {
    let stamp = stamp();
    let new: Vec<(String, &str, &str)> = values
        .iter()
        .enumerate()
        .map(|(i, value)| (format!("new-{i}-{stamp}"), key, *value))
        .collect();
    let made = asking.create(&new, true)?;
    let changes: Vec<(String, Steps<'_>)> = pool
        .iter()
        .zip(&values)
        .map(|(name, value)| (name.clone(), vec![(key, Set, Some(*value))]))
        .collect();
    let altered = asking.alter(TOPIC, &changes, false)?;
    asking.settle();
    let shown = asking.describe(TOPIC, &pool[..values.len()], key, false)?;
    for (i, value) in values.iter().enumerate() {
        let set = if altered[i] == "ok" { &shown[i] } else { &altered[i] };
        let both = if *set == made[i] { set.clone() } else { format!("{}, made {}", set, made[i]) };
        asking.say(&format!("topic {key} {value:?}"), &both);
    }
    let first = &pool[..1];
    let shown = asking.describe(TOPIC, first, key, true)?.remove(0);
    asking.say(&format!("topic {key} as it is set"), &shown);
    let changes: Vec<(String, Steps<'_>)> = pool
        .iter()
        .zip(&values)
        .map(|(name, _)| (name.clone(), vec![(key, Delete, None)]))
        .collect();
    asking.alter(TOPIC, &changes, false)?;
    Ok(())
}

/// What else can be done to a setting.
fn steps(asking: &mut Asking, pool: &[String], key: &str, kind: Kind) -> Result<()> {
    let some = values(key, kind)[0];
    let all: Vec<(&str, Steps<'_>)> = vec![
        ("set to null", vec![(key, Set, None)]),
        ("deleted", vec![(key, Delete, None)]),
        ("deleted with a value", vec![(key, Delete, Some("x"))]),
        ("appended", vec![(key, Append, Some(some))]),
        ("subtracted", vec![(key, Subtract, Some(some))]),
        ("appended null", vec![(key, Append, None)]),
        ("set twice", vec![(key, Set, Some(some)), (key, Set, Some(some))]),
        ("set and deleted", vec![(key, Set, Some(some)), (key, Delete, None)]),
    ];
    for (name, (what, steps)) in pool.iter().zip(all) {
        let done = asking.alter(TOPIC, &[(name.clone(), steps)], false)?.remove(0);
        asking.say(&format!("topic {key} {what}"), &done);
    }
    asking.settle();
    for (name, what) in pool.iter().skip(3).zip(["append", "subtract"]) {
        let shown = asking.describe(TOPIC, std::slice::from_ref(name), key, true)?.remove(0);
        asking.say(&format!("topic {key} after the {what}"), &shown);
    }
    let back: Vec<(String, Steps<'_>)> =
        pool[..8].iter().map(|name| (name.clone(), vec![(key, Delete, None)])).collect();
    asking.alter(TOPIC, &back, false)?;
    Ok(())
}

const POLICY: &str = "cleanup.policy";
const LEADERS: &str = "leader.replication.throttled.replicas";

/// Lists that are changed step by step, and settings that depend on each other.
const RUNS: &[&[Change<'static>]] = &[
    &[(POLICY, Append, Some("compact")), (POLICY, Append, Some("compact"))],
    &[(POLICY, Append, Some("delete"))],
    &[(POLICY, Subtract, Some("delete"))],
    &[(POLICY, Subtract, Some("compact"))],
    &[(POLICY, Append, Some("compact, delete"))],
    &[(POLICY, Append, Some("shred"))],
    &[(POLICY, Append, Some(""))],
    &[(POLICY, Subtract, Some(""))],
    &[(POLICY, Subtract, Some("delete,compact"))],
    &[(LEADERS, Append, Some("0:1"))],
    &[(LEADERS, Append, Some("0:1,0:2"))],
    &[(LEADERS, Subtract, Some("0:7"))],
    &[(LEADERS, Append, Some("*"))],
    &[(LEADERS, Append, Some("abc"))],
    &[("min.compaction.lag.ms", Set, Some("9")), ("max.compaction.lag.ms", Set, Some("8"))],
    &[("retention.ms", Set, Some("5")), ("segment.ms", Set, Some("9"))],
    &[("retention.ms", Set, Some("5")), ("no.such", Set, Some("1"))],
    &[("retention.ms", Set, Some("5")), ("segment.bytes", Set, Some("x"))],
    &[("segment.bytes", Set, Some("1048576")), ("max.message.bytes", Set, Some("9999999"))],
    &[("segment.ms", Set, Some("5")), ("segment.jitter.ms", Set, Some("9"))],
    &[("local.retention.ms", Set, Some("9")), ("retention.ms", Set, Some("5"))],
    &[("local.retention.bytes", Set, Some("9")), ("retention.bytes", Set, Some("5"))],
    &[("remote.copy.lag.ms", Set, Some("9")), ("retention.ms", Set, Some("5"))],
    &[("remote.log.copy.disable", Set, Some("true"))],
    &[("remote.log.delete.on.disable", Set, Some("true"))],
    &[("remote.storage.enable", Set, Some("true")), (POLICY, Set, Some("compact"))],
    &[("No.Such", Delete, None)],
    &[("no.such", Append, Some("1"))],
    &[("", Set, Some("1"))],
    &[("retention.ms ", Set, Some("1"))],
    &[("RETENTION.MS", Set, Some("1"))],
    &[("log.retention.ms", Set, Some("1"))],
    &[("message.format.version", Set, Some("3.0"))],
    &[("message.downconversion.enable", Set, Some("true"))],
    &[("message.timestamp.difference.max.ms", Set, Some("5"))],
    &[],
];

fn together(asking: &mut Asking, pool: &[String]) -> Result<()> {
    for (i, run) in RUNS.iter().enumerate() {
        let name = &pool[i % TOPICS];
        let mut answers = Vec::new();
        for step in chunks(run) {
            answers.push(asking.alter(TOPIC, &[(name.clone(), step)], false)?.remove(0));
            asking.settle();
        }
        let key = run.first().map_or(POLICY, |(key, ..)| *key);
        answers.push(asking.describe(TOPIC, std::slice::from_ref(name), key, true)?.remove(0));
        let asked: Vec<String> = run
            .iter()
            .map(|(key, step, value)| format!("{} {key} {value:?}", verb(*step)))
            .collect();
        asking.say(&format!("topic steps {}", asked.join(", then ")), &answers.join(", then "));
        asking.replace(TOPIC, name, &[])?;
    }
    Ok(())
}

/// Steps on one setting follow each other; those on several come in one request.
fn chunks<'a>(run: &[Change<'a>]) -> Vec<Steps<'a>> {
    if run.iter().all(|(key, ..)| *key == run[0].0) && run.len() > 1 {
        return run.iter().map(|step| vec![*step]).collect();
    }
    vec![run.to_vec()]
}

fn verb(step: Step) -> &'static str {
    match step {
        Set => "set",
        Delete => "delete",
        Append => "append",
        Subtract => "subtract",
    }
}

/// AlterConfigs says all that is set.
fn replaced(asking: &mut Asking, pool: &[String]) -> Result<()> {
    let name = &pool[0];
    let runs: &[&[(&str, Option<&str>)]] = &[
        &[("cleanup.policy", Some("compact, delete")), ("retention.ms", Some("+5"))],
        &[("cleanup.policy", Some("compact"))],
        &[("retention.ms", None)],
        &[("no.such", Some("1"))],
        &[("retention.ms", Some("abc"))],
        &[("retention.ms", Some("1")), ("retention.ms", Some("2"))],
        &[],
    ];
    for run in runs {
        let done = asking.replace(TOPIC, name, run)?;
        asking.settle();
        let mut shown = vec![done];
        for key in ["cleanup.policy", "retention.ms"] {
            shown.push(asking.describe(TOPIC, std::slice::from_ref(name), key, true)?.remove(0));
        }
        asking.say(&format!("topic replaced by {run:?}"), &shown.join(", then "));
    }
    let nobody = "settings-nobody".to_owned();
    let done = asking.alter(TOPIC, &[(nobody.clone(), vec![])], false)?.remove(0);
    asking.say("topic that is not there altered", &done);
    let shown = asking.describe(TOPIC, &[nobody], "retention.ms", true)?.remove(0);
    asking.say("topic that is not there described", &shown);
    for name in ["", "a b", ".."] {
        let name = name.to_owned();
        let done = asking.alter(TOPIC, &[(name.clone(), vec![])], false)?.remove(0);
        asking.say(&format!("topic with the name {name:?} altered"), &done);
        let shown =
            asking.describe(TOPIC, std::slice::from_ref(&name), "retention.ms", true)?.remove(0);
        asking.say(&format!("topic with the name {name:?} described"), &shown);
    }
    Ok(())
}
