//! Questions about the settings of brokers.

use anyhow::Result;
use kafka_protocol::messages::{UpdateFeaturesRequest, update_features_request};

use super::asking::Step::{Append, Delete, Set, Subtract};
use super::asking::{Asking, BROKER, Change, Steps};
use super::values::{Kind, values};
use crate::probe::client::s;

/// Settings whose every value is tried; what they are.
const TRIED: &[(&str, Kind)] = &[
    ("compression.gzip.level", Kind::Number),
    ("compression.lz4.level", Kind::Number),
    ("compression.type", Kind::Codec),
    ("compression.zstd.level", Kind::Number),
    ("follower.replication.throttled.rate", Kind::Number),
    ("leader.replication.throttled.rate", Kind::Number),
    ("log.cleaner.backoff.ms", Kind::Number),
    ("log.cleaner.dedupe.buffer.size", Kind::Number),
    ("log.cleaner.delete.retention.ms", Kind::Number),
    ("log.cleaner.io.max.bytes.per.second", Kind::Fraction),
    ("log.cleaner.max.compaction.lag.ms", Kind::Number),
    ("log.cleaner.min.cleanable.ratio", Kind::Fraction),
    ("log.cleaner.min.compaction.lag.ms", Kind::Number),
    ("log.cleanup.policy", Kind::Policy),
    ("log.flush.interval.messages", Kind::Number),
    ("log.flush.interval.ms", Kind::Number),
    ("log.index.interval.bytes", Kind::Number),
    ("log.index.size.max.bytes", Kind::Number),
    ("log.local.retention.bytes", Kind::Number),
    ("log.local.retention.ms", Kind::Number),
    ("log.message.timestamp.after.max.ms", Kind::Number),
    ("log.message.timestamp.before.max.ms", Kind::Number),
    ("log.message.timestamp.type", Kind::Clock),
    ("log.preallocate", Kind::Truth),
    ("log.remote.copy.lag.bytes", Kind::Number),
    ("log.remote.copy.lag.ms", Kind::Number),
    ("log.retention.bytes", Kind::Number),
    ("log.retention.ms", Kind::Number),
    ("log.roll.jitter.ms", Kind::Number),
    ("log.roll.ms", Kind::Number),
    ("log.segment.bytes", Kind::Number),
    ("log.segment.delete.delay.ms", Kind::Number),
    ("max.connection.creation.rate", Kind::Number),
    ("max.connections", Kind::Number),
    ("max.connections.per.ip", Kind::Number),
    ("max.decompressed.message.bytes", Kind::Number),
    ("message.max.bytes", Kind::Number),
    ("min.insync.replicas", Kind::Number),
    ("producer.id.expiration.ms", Kind::Number),
    ("remote.log.manager.copy.max.bytes.per.second", Kind::Number),
    ("remote.log.manager.fetch.max.bytes.per.second", Kind::Number),
    ("replica.alter.log.dirs.io.max.bytes.per.second", Kind::Number),
    ("unclean.leader.election.enable", Kind::Truth),
];

/// Names that brokers are told, and are no settings of theirs.
const OTHERS: &[&str] = &[
    "no.such",
    "retention.ms",
    "cleanup.policy",
    "super.users",
    "allow.everyone.if.no.acl.found",
    "password.encoder.secret",
    "listener.name.plaintext.ssl.keystore.location",
    "listener.name.plaintext.max.connections",
    "listener.name.other.sasl.jaas.config",
    "zookeeper.connect",
    "inter.broker.protocol.version",
    "Log.Retention.Ms",
    "",
];

/// Values that are set for a while, and shown.
const SHOWN: &[(&str, &str)] = &[
    ("log.retention.ms", "+86400000"),
    ("log.retention.bytes", "-5"),
    ("log.cleanup.policy", "delete, compact"),
    ("log.cleaner.min.cleanable.ratio", "1e-2"),
    ("unclean.leader.election.enable", "FALSE"),
    ("compression.type", "gzip"),
    ("compression.gzip.level", "7"),
    ("log.preallocate", "TRUE"),
    ("log.remote.copy.lag.ms", "0"),
    ("message.max.bytes", " 1048577 "),
    ("sasl.kerberos.min.time.before.relogin", "58000"),
    ("sasl.kerberos.ticket.renew.jitter", "0.06"),
    ("no.such", "1"),
    ("retention.ms", "1000"),
    ("cleanup.policy", "compact, delete"),
];

pub(super) fn ask(asking: &mut Asking, names: &[String]) -> Result<()> {
    let own = asking.broker.to_string();
    for (name, at) in [("the cluster", String::new()), ("a broker", own.clone())] {
        for key in names.iter().map(String::as_str).chain(OTHERS.iter().copied()) {
            let value = ordinary(key);
            let asked = [(at.clone(), vec![(key, Set, Some(value))])];
            let done = asking.alter(BROKER, &asked, true)?.remove(0);
            asking.say(&format!("{name} {key} set to {value:?}"), &done);
        }
    }
    for (key, kind) in TRIED {
        for value in values(key, *kind) {
            let asked = [(String::new(), vec![(*key, Set, Some(value))])];
            let done = asking.alter(BROKER, &asked, true)?.remove(0);
            asking.say(&format!("the cluster {key} set to {value:?}"), &done);
        }
    }
    for (key, value) in SHOWN {
        shown(asking, &own, key, value)?;
    }
    steps(asking, &own)?;
    features(asking)
}

/// Levels of features, which nobody knows or has.
fn features(asking: &mut Asking) -> Result<()> {
    use update_features_request::FeatureUpdateKey;
    for version in 0..=2 {
        for (name, level) in
            [("no.such", 1), ("no.such", 0), ("no.such", -1), ("", 1), ("metadata.version", 99)]
        {
            let update =
                FeatureUpdateKey::default().with_feature(s(name)).with_max_version_level(level);
            let request = UpdateFeaturesRequest::default()
                .with_timeout_ms(5000)
                .with_validate_only(version > 0)
                .with_feature_updates(vec![update]);
            let answer = asking.c.call(version, request)?;
            let why = answer.error_message.as_ref().map_or("", |why| why.as_str());
            asking.say(
                &format!("features v{version} {name:?} at {level}"),
                &format!("error {} {why:?}, {} results", answer.error_code, answer.results.len()),
            );
        }
    }
    Ok(())
}

/// A value that a setting of this name is likely to take.
fn ordinary(key: &str) -> &'static str {
    const ENDS: &[(&str, &str)] = &[
        (".ms", "86400000"),
        (".bytes", "1048577"),
        ("enable", "false"),
        (".ratio", "0.5"),
        (".factor", "0.5"),
        (".jitter", "0.5"),
        ("cleanup.policy", "delete"),
        ("timestamp.type", "CreateTime"),
        ("compression.type", "producer"),
        ("preallocate", "false"),
        ("listeners", "PLAINTEXT://127.0.0.1:9092"),
        ("protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("client.auth", "none"),
        ("enabled.protocols", "TLSv1.3"),
        ("cordoned.log.dirs", ""),
        ("min.insync.replicas", "1"),
    ];
    ENDS.iter().find(|(end, _)| key.ends_with(end)).map_or("5", |(_, value)| value)
}

fn shown(asking: &mut Asking, own: &str, key: &str, value: &str) -> Result<()> {
    for (name, at) in [("the cluster", ""), ("a broker", own)] {
        let asked = [(at.to_owned(), vec![(key, Set, Some(value))])];
        let mut answers = vec![asking.alter(BROKER, &asked, false)?.remove(0)];
        asking.settle();
        for place in [at, own] {
            answers.push(asking.describe(BROKER, &[place.to_owned()], key, true)?.remove(0));
        }
        asking.say(&format!("{name} shows {key} set to {value:?}"), &answers.join(", then "));
        let back: [(String, Steps<'_>); 1] = [(at.to_owned(), vec![(key, Delete, None)])];
        let done = asking.alter(BROKER, &back, false)?.remove(0);
        asking.settle();
        let after = asking.describe(BROKER, &[own.to_owned()], key, true)?.remove(0);
        asking.say(&format!("{name} no more {key}"), &format!("{done}, then {after}"));
    }
    Ok(())
}

fn steps(asking: &mut Asking, own: &str) -> Result<()> {
    let policy = "log.cleanup.policy";
    let runs: &[Change<'_>] = &[
        (policy, Append, Some("compact")),
        (policy, Append, Some("compact")),
        (policy, Subtract, Some("delete")),
        (policy, Subtract, Some("compact")),
        (policy, Set, None),
        (policy, Append, Some("shred")),
        (policy, Delete, None),
        ("log.retention.ms", Append, Some("5")),
        ("log.retention.ms", Subtract, Some("5")),
        ("log.retention.ms", Set, None),
        ("log.retention.ms", Set, Some("abc")),
        ("no.such", Append, Some("5")),
        ("no.such", Delete, None),
        ("node.id", Delete, None),
        ("node.id", Append, Some("1")),
        ("listeners", Append, Some("X://:1")),
    ];
    for (key, step, value) in runs {
        let asked = [(String::new(), vec![(*key, *step, *value)])];
        let done = asking.alter(BROKER, &asked, false)?.remove(0);
        asking.settle();
        let after = asking.describe(BROKER, &[own.to_owned()], key, true)?.remove(0);
        asking.say(
            &format!("the cluster {key} {} {value:?}", step.number()),
            &format!("{done}, then {after}"),
        );
    }
    for name in ["99", "x", "-1"] {
        let asked = [(name.to_owned(), vec![("log.retention.ms", Set, Some("5"))])];
        let done = asking.alter(BROKER, &asked, false)?.remove(0);
        asking.say(&format!("broker {name} altered"), &done);
        let shown =
            asking.describe(BROKER, &[name.to_owned()], "log.retention.ms", true)?.remove(0);
        asking.say(&format!("broker {name} described"), &shown);
    }
    let replaced = asking.replace(BROKER, "", &[("log.retention.ms", Some("86400000"))])?;
    asking.say("the cluster replaced", &replaced);
    let replaced = asking.replace(BROKER, "", &[("node.id", Some("86400000"))])?;
    asking.say("the cluster replaced with what can't change", &replaced);
    let replaced = asking.replace(BROKER, "", &[])?;
    asking.say("the cluster replaced with nothing", &replaced);
    Ok(())
}
