//! Replicas that somebody names himself, in a new topic, for more partitions or for a move: taken and refused as by Apache Kafka.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::folder;
use crate::cluster::Cluster;
use crate::kit::eventually;
use crate::probe::ask_at;
use crate::probe::client::{C, topic};
use crate::settings::{differing, stamp};

/// What Apache Kafka 4.3.1 answers; `apache_kafka_is_asked_anew` writes it.
const ANSWERS: &str = include_str!("kafka-4.3.1.txt");

/// Partitions of a new topic, each with its replicas. Brokers 1 and 2 are there, and a third one with another id in each cluster.
type Assigned = &'static [(i32, &'static [i32])];
/// The replicas of further partitions, in their order.
type Lists = &'static [&'static [i32]];

/// A new topic: what is asked, its number of partitions, its replication factor, and what is assigned.
type NewTopic = (&'static str, i32, i16, Assigned);

const TOPICS: &[NewTopic] = &[
    ("nothing", -1, -1, &[]),
    ("two partitions", -1, -1, &[(0, &[1, 2]), (1, &[2, 1])]),
    ("two partitions in another order", -1, -1, &[(1, &[2]), (0, &[1])]),
    ("a broker twice", -1, -1, &[(0, &[1, 1])]),
    ("a broker twice in the second partition", -1, -1, &[(0, &[1, 2]), (1, &[2, 2])]),
    ("no replicas", -1, -1, &[(0, &[])]),
    ("no replicas in the second partition", -1, -1, &[(0, &[1]), (1, &[])]),
    ("an unknown broker", -1, -1, &[(0, &[99])]),
    ("an unknown broker beside a known one", -1, -1, &[(0, &[1, 99])]),
    ("a broker of -1", -1, -1, &[(0, &[-1])]),
    ("a broker of -1 beside a known one", -1, -1, &[(0, &[1, -1])]),
    ("the smallest broker", -1, -1, &[(0, &[i32::MIN])]),
    ("an unknown broker twice", -1, -1, &[(0, &[99, 99])]),
    ("a broker twice and an unknown one", -1, -1, &[(0, &[1, 1, 99])]),
    ("an unknown broker and one twice", -1, -1, &[(0, &[99, 1, 1])]),
    ("a broker of -1 twice", -1, -1, &[(0, &[-1, -1])]),
    ("fewer replicas in the second partition", -1, -1, &[(0, &[1, 2]), (1, &[1])]),
    ("more replicas in the second partition", -1, -1, &[(0, &[1]), (1, &[1, 2])]),
    ("fewer replicas, and an unknown broker", -1, -1, &[(0, &[1, 2]), (1, &[99])]),
    ("a gap", -1, -1, &[(0, &[1]), (2, &[1])]),
    ("a gap, and no replicas", -1, -1, &[(0, &[1]), (2, &[])]),
    ("a gap, and an unknown broker", -1, -1, &[(0, &[99]), (2, &[1])]),
    ("no first partition", -1, -1, &[(1, &[1])]),
    ("a partition twice", -1, -1, &[(0, &[1]), (0, &[2])]),
    ("a partition twice, alike", -1, -1, &[(0, &[1]), (0, &[1])]),
    ("a partition twice, and an unknown broker", -1, -1, &[(0, &[99]), (0, &[1])]),
    ("partition -1", -1, -1, &[(-1, &[1])]),
    ("partition -1 beside the first", -1, -1, &[(-1, &[1]), (0, &[1])]),
    ("the largest partition", -1, -1, &[(i32::MAX, &[1])]),
    ("as many partitions as are named", 1, -1, &[(0, &[1])]),
    ("more partitions than are named", 2, -1, &[(0, &[1])]),
    ("0 partitions", 0, -1, &[(0, &[1])]),
    ("as many replicas as are named", -1, 1, &[(0, &[1])]),
    ("more replicas than are named", -1, 2, &[(0, &[1])]),
    ("0 replicas", -1, 0, &[(0, &[1])]),
    ("partitions and replicas as they are named", 1, 1, &[(0, &[1])]),
    ("partitions that are counted, and a broker twice", 1, -1, &[(0, &[1, 1])]),
    ("-2 partitions", -2, -1, &[(0, &[1])]),
    ("-2 replicas", -1, -2, &[(0, &[1])]),
];

/// What is asked of a topic of one partition, on 1 and 2: how many partitions there are to be, and the replicas of those that are new.
type More = (&'static str, i32, Lists);

const MORE: &[More] = &[
    ("one", 2, &[&[2, 1]]),
    ("two", 3, &[&[2, 1], &[1, 2]]),
    ("a broker twice", 2, &[&[1, 1]]),
    ("no replicas", 2, &[&[]]),
    ("no replicas in the second one", 3, &[&[1, 2], &[]]),
    ("an unknown broker", 2, &[&[1, 99]]),
    ("a broker of -1", 2, &[&[1, -1]]),
    ("an unknown broker twice", 2, &[&[99, 99]]),
    ("fewer replicas than the topic has", 2, &[&[1]]),
    ("fewer replicas than the topic has, in the second one", 3, &[&[1, 2], &[1]]),
    ("fewer replicas than the topic has, in both", 3, &[&[1], &[2]]),
    ("fewer replicas, and an unknown broker", 2, &[&[99]]),
    ("more replicas than the topic has, one unknown", 2, &[&[1, 2, 99]]),
    ("fewer lists than partitions", 3, &[&[1, 2]]),
    ("more lists than partitions", 2, &[&[1, 2], &[2, 1]]),
    ("no lists", 2, &[]),
    ("fewer lists than partitions, and a broker twice", 3, &[&[1, 1]]),
    ("no more than there are", 1, &[&[1, 2]]),
    ("no more than there are, and no lists", 1, &[]),
    ("fewer than there are", 0, &[&[1, 2]]),
    ("-1", -1, &[&[1, 2]]),
];

/// What is asked of the first partition of such a topic: another one, whether its replicas may become more or fewer, and where they
/// are to be; `None`: a move is to be taken back.
type Move = (&'static str, i32, bool, Option<&'static [i32]>);

/// The one move of a topic that is not there.
const NO_TOPIC: &str = "a topic that is not there";

const MOVES: &[Move] = &[
    (NO_TOPIC, 0, true, Some(&[1, 2])),
    ("where they are", 0, true, Some(&[1, 2])),
    ("in another order", 0, true, Some(&[2, 1])),
    ("fewer", 0, true, Some(&[1])),
    ("fewer, where that is not allowed", 0, false, Some(&[1])),
    ("where they are, where no other number is allowed", 0, false, Some(&[2, 1])),
    ("a broker twice", 0, true, Some(&[1, 1])),
    ("a broker twice, where no other number is allowed", 0, false, Some(&[1, 1])),
    ("nowhere", 0, true, Some(&[])),
    ("nowhere, where no other number is allowed", 0, false, Some(&[])),
    ("an unknown broker", 0, true, Some(&[1, 99])),
    ("an unknown broker alone, where no other number is allowed", 0, false, Some(&[99])),
    ("a broker of -1", 0, true, Some(&[1, -1])),
    ("a broker of -1 alone", 0, true, Some(&[-1])),
    ("an unknown broker twice", 0, true, Some(&[99, 99])),
    ("a broker twice and an unknown one", 0, true, Some(&[1, 1, 99])),
    ("nothing is under way", 0, true, None),
    ("another partition", 1, true, Some(&[1, 2])),
    ("another partition, and an unknown broker", 1, true, Some(&[99])),
    ("another partition, nothing is under way", 1, true, None),
    ("partition -1", -1, true, Some(&[1, 2])),
];

/// A connection, and what was answered on it.
struct Asking {
    c: C,
    stamp: String,
    count: usize,
    out: String,
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn assignments(assigned: Assigned) -> Vec<CreatableReplicaAssignment> {
    let one = |(partition, replicas): &(i32, &[i32])| {
        let assignment = CreatableReplicaAssignment::default();
        assignment.with_partition_index(*partition).with_broker_ids(ids(replicas))
    };
    assigned.iter().map(one).collect()
}

/// A topic of so many partitions and replicas (-1: as they are assigned).
fn wanted(name: &str, (partitions, factor): (i32, i16), assigned: Assigned) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
        .with_assignments(assignments(assigned))
}

impl Asking {
    /// A name that no other topic has.
    fn name(&mut self) -> String {
        self.count += 1;
        format!("assigned-{}-{}", self.stamp, self.count)
    }

    fn say(&mut self, question: &str, (code, text): (i16, Option<&StrBytes>), name: &str) {
        let text = text.map_or("", |text| text).replace(name, "TOPIC");
        let answer = if code == 0 { "ok".to_owned() } else { format!("error {code} {text:?}") };
        let _ = writeln!(self.out, "{question} => {answer}");
    }

    fn create(&mut self, question: &str, asked: &NewTopic, validate_only: bool) -> Result<()> {
        let (name, (_, partitions, factor, assigned)) = (self.name(), *asked);
        let topic = wanted(&name, (partitions, factor), assigned);
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(10_000)
            .with_validate_only(validate_only)
            .with_topics(vec![topic]);
        let answer = self.c.call(7, request)?;
        let made = &answer.topics[0];
        self.say(question, (made.error_code, made.error_message.as_ref()), &name);
        Ok(())
    }

    /// A topic of one partition, on 1 and 2.
    fn made(&mut self) -> Result<String> {
        let name = self.name();
        let one = wanted(&name, (-1, -1), &[(0, &[1, 2])]);
        let request = CreateTopicsRequest::default().with_timeout_ms(10_000);
        let answer = self.c.call(7, request.with_topics(vec![one]))?;
        anyhow::ensure!(answer.topics[0].error_code == 0, "{answer:?}");
        Ok(name)
    }

    fn extend(&mut self, (what, count, lists): &More, validate_only: bool) -> Result<()> {
        let name = self.made()?;
        let list = |list: &&[i32]| CreatePartitionsAssignment::default().with_broker_ids(ids(list));
        let topic = CreatePartitionsTopic::default()
            .with_name(topic(&name))
            .with_count(*count)
            .with_assignments(Some(lists.iter().map(list).collect()));
        let request = CreatePartitionsRequest::default()
            .with_timeout_ms(10_000)
            .with_validate_only(validate_only)
            .with_topics(vec![topic]);
        let answer = self.c.call(3, request)?;
        let made = &answer.results[0];
        let how = if validate_only { "more, only checked" } else { "more" };
        let question = format!("{how}: {what}");
        self.say(&question, (made.error_code, made.error_message.as_ref()), &name);
        Ok(())
    }

    fn reassign(&mut self, (what, partition, may_change, wanted): &Move) -> Result<()> {
        let name = if *what == NO_TOPIC { self.name() } else { self.made()? };
        let partition = ReassignablePartition::default()
            .with_partition_index(*partition)
            .with_replicas(wanted.map(ids));
        let topic =
            ReassignableTopic::default().with_name(topic(&name)).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(10_000)
            .with_allow_replication_factor_change(*may_change)
            .with_topics(vec![topic]);
        let answer = self.c.call(1, request)?;
        let question = format!("move: {what}");
        let Some(moved) = answer.responses.first().and_then(|topic| topic.partitions.first())
        else {
            self.say(&question, (answer.error_code, answer.error_message.as_ref()), &name);
            return Ok(());
        };
        self.say(&question, (moved.error_code, moved.error_message.as_ref()), &name);
        Ok(())
    }
}

fn ask(address: &str) -> Result<String> {
    ask_at(address);
    let mut asking =
        Asking { c: C::new(), stamp: stamp().to_string(), count: 0, out: String::new() };
    for asked in TOPICS {
        asking.create(&format!("topic: {}", asked.0), asked, false)?;
    }
    for asked in TOPICS.iter().take(6) {
        asking.create(&format!("topic, only checked: {}", asked.0), asked, true)?;
    }
    for asked in MORE {
        asking.extend(asked, false)?;
    }
    for asked in MORE.iter().take(4) {
        asking.extend(asked, true)?;
    }
    for asked in MOVES {
        asking.reassign(asked)?;
    }
    Ok(asking.out)
}

#[test]
fn assigned_replicas_are_taken_and_refused_as_by_apache_kafka_but_for_named_differences() {
    let (folder, _) = folder();
    let cluster = Cluster::start(folder.path());
    cluster.wait_healthy();
    let mut ours = Err(anyhow::anyhow!("not asked"));
    eventually("all questions are asked", || {
        ours = ask(&cluster.node(0).address);
        ours.is_ok()
    });
    let wrong = differing(ANSWERS, &ours.expect("asked"), include_str!("differences.txt"));
    assert!(wrong.is_empty(), "{wrong}");
}

/// `KAFKA=HOST:PORT cargo test --test integration assignments::apache_kafka_is_asked -- --ignored`
#[test]
#[ignore = "needs a running Apache Kafka of three nodes, two of them 1 and 2, at KAFKA=HOST:PORT"]
fn apache_kafka_is_asked_anew() {
    let address = std::env::var("KAFKA").expect("KAFKA=HOST:PORT");
    let answers = ask(&address).expect("all questions are asked");
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/assignments/kafka-4.3.1.txt");
    std::fs::write(file, answers).expect("written");
}
