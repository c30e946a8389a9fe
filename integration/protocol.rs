//! The broker answers as Apache Kafka does.

use std::collections::BTreeMap;

use crate::broker::{Broker, folder};
use crate::probe;

/// Ids, times and ports differ from run to run.
fn normal(text: &str) -> String {
    let mut out = String::new();
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    for word in text.split_inclusive(is_end) {
        let core = word.trim_end_matches(is_end);
        let digits = core.bytes().all(|b| b.is_ascii_digit());
        let is_uuid = core.len() == 36 && core.bytes().filter(|b| *b == b'-').count() == 4;
        let is_cluster = out.ends_with("cluster_id: Some(\"") || out.ends_with("cluster_id: \"");
        if is_uuid && !core.starts_with("00000000-0000-0000-0000-0000000000") {
            out.push_str("<id>");
        } else if digits && core.len() >= 9 && !core.starts_with("1700000") {
            out.push_str("<number>");
        } else if is_cluster {
            out.push_str("<cluster>");
        } else if core.starts_with("probe-") {
            out.push_str("<member>");
        } else {
            let parts: Vec<&str> = core.split('-').filter(|part| !is_suffix(part)).collect();
            out.push_str(&parts.join("-"));
        }
        out.push_str(word.strip_prefix(core).unwrap_or_default());
    }
    strip_number(&out, "port: ")
}

/// The probe's own suffix of names.
fn is_suffix(tail: &str) -> bool {
    tail.len() == 7 && tail.bytes().all(|b| b.is_ascii_digit())
}

fn strip_number(text: &str, before: &str) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(before);
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

fn answers(text: &str) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    for block in text.split("## ").skip(1) {
        let (question, answer) = block.split_once('\n').unwrap_or((block, ""));
        // A few answers stand in the question's own line.
        let (question, inline) = question.split_once(": ").unwrap_or((question, ""));
        let mut key = question.trim().to_owned();
        while answers.contains_key(&key) {
            key.push('\'');
        }
        answers.insert(key, normal(&format!("{inline} {}", answer.trim())));
    }
    answers
}

#[test]
fn the_answers_are_those_of_apache_kafka_but_for_named_differences() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let ours = answers(&probe::ask(&broker.address).expect("the probe runs to its end"));
    let theirs = answers(include_str!("probe/kafka-4.4.0.txt"));
    let mut named: BTreeMap<&str, &str> = include_str!("probe/differences.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" => ").expect("QUESTION => REASON"))
        .collect();
    let mut wrong = Vec::new();
    for (question, expected) in &theirs {
        let found = ours.get(question).map_or("(not asked)", String::as_str);
        match named.remove(question.as_str()) {
            Some(_) if found == expected => {
                wrong.push(format!("{question}: named as a difference, but equal"));
            }
            None if found != expected => {
                wrong.push(format!("{question}\n  Kafka {expected}\n  here  {found}"));
            }
            _ => {}
        }
    }
    wrong.extend(
        named
            .keys()
            .map(|question| format!("{question}: named as a difference, but not a question")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
