//! What the cluster decides about leaders and ISRs, on an image of four brokers.

use uuid::Uuid;

use super::brokers::register;
use super::command::{ElectionKind, IsrChange, NewTopic, Registration};
use super::commands::create_topic;
use super::error::ControllerError;
use super::partitions::Partitions;
use crate::config::Config;
use crate::metadata::{BrokerImage, Image, MetadataRecord, PartitionImage};
use crate::model::BrokerId;

const TOPIC: Uuid = Uuid::from_u128(7);

fn broker(id: BrokerId) -> MetadataRecord {
    let state = BrokerImage {
        epoch: i64::from(id) * 10,
        incarnation: Uuid::from_u128(1),
        endpoints: Vec::new(),
        rack: None,
        directories: Vec::new(),
        is_fenced: false,
        is_draining: false,
        capacity: None,
        level_max: 1,
    };
    MetadataRecord::Broker { id, state }
}

/// Four brokers and one partition.
fn image(replicas: &[BrokerId], isr: &[BrokerId], elr: &[BrokerId], leader: BrokerId) -> Image {
    let mut image = Image::default();
    (1..=4).for_each(|id| image.apply(&broker(id)));
    image.apply(&MetadataRecord::Topic { name: "t".into(), id: TOPIC });
    let state = PartitionImage {
        leader,
        replicas: replicas.to_vec(),
        isr: isr.to_vec(),
        elr: elr.to_vec(),
        leader_epoch: 5,
        partition_epoch: 9,
        ..PartitionImage::default()
    };
    image.apply(&MetadataRecord::Partition { topic: TOPIC, partition: 0, state });
    image
}

/// The image after brokers went.
fn without(image: &mut Image, gone: &[BrokerId]) -> PartitionImage {
    let records = Partitions::new(image, &Config::default()).without(gone);
    for id in gone {
        let mut state = BrokerImage::clone(&image.brokers[id]);
        state.is_fenced = true;
        image.apply(&MetadataRecord::Broker { id: *id, state });
    }
    apply(image, &records)
}

/// The image after a broker came back.
fn with(image: &mut Image, id: BrokerId) -> PartitionImage {
    let mut state = BrokerImage::clone(&image.brokers[&id]);
    state.is_fenced = false;
    image.apply(&MetadataRecord::Broker { id, state });
    let records = Partitions::new(image, &Config::default()).with(id);
    apply(image, &records)
}

fn apply(image: &mut Image, records: &[MetadataRecord]) -> PartitionImage {
    records.iter().for_each(|record| image.apply(record));
    image.topic("t").expect("there").partitions[0].clone()
}

fn wish(image: &Image, isr: &[BrokerId]) -> IsrChange {
    let now = &image.topic("t").expect("there").partitions[0];
    IsrChange {
        topic: TOPIC,
        partition: 0,
        leader_epoch: now.leader_epoch,
        partition_epoch: now.partition_epoch,
        isr: isr.iter().map(|id| (*id, i64::from(*id) * 10)).collect(),
        hand_over: None,
    }
}

fn alter(
    image: &mut Image,
    by: BrokerId,
    wish: &IsrChange,
) -> Result<PartitionImage, ControllerError> {
    let records = Partitions::new(image, &Config::default()).alter_isr(by, wish)?;
    Ok(apply(image, &records))
}

#[test]
fn a_leader_that_goes_is_followed_by_one_in_sync_and_then_by_one_that_is_eligible() {
    let mut image = image(&[1, 2, 3], &[1, 2, 3], &[], 1);
    let now = without(&mut image, &[1]);
    assert_eq!((now.leader, now.leader_epoch, now.isr, now.elr), (2, 6, vec![2, 3], vec![]));
    // Two are needed: who leaves now has all that is committed, and stays eligible.
    let now = without(&mut image, &[3]);
    assert_eq!((now.leader, now.isr, now.elr), (2, vec![2], vec![3]));
    let now = without(&mut image, &[2]);
    assert_eq!((now.leader, now.isr, now.elr), (-1, vec![], vec![3, 2]));
    // The first broker left while enough were in sync: it may lack what came after.
    let now = with(&mut image, 1);
    assert_eq!(now.leader, -1);
    let now = with(&mut image, 3);
    assert_eq!((now.leader, now.isr, now.elr), (3, vec![3], vec![2]));
    // When enough are in sync nobody else is eligible.
    let change = wish(&image, &[3, 1]);
    let now = alter(&mut image, 3, &change).expect("taken");
    assert_eq!((now.isr, now.elr), (vec![3, 1], vec![]));
}

#[test]
fn an_isr_change_of_another_time_or_with_somebody_else_is_refused() {
    let mut image = image(&[1, 2, 3], &[1, 2], &[], 1);
    let good = wish(&image, &[1, 2, 3]);
    let refused =
        |image: &mut Image, by, change: &IsrChange| alter(image, by, change).expect_err("refused");
    let old = IsrChange { leader_epoch: 4, ..good.clone() };
    assert_eq!(refused(&mut image, 1, &old), ControllerError::FencedLeaderEpoch);
    assert_eq!(refused(&mut image, 2, &good), ControllerError::FencedLeaderEpoch);
    let other = IsrChange { partition_epoch: 8, ..good.clone() };
    assert_eq!(refused(&mut image, 1, &other), ControllerError::InvalidUpdateVersion);
    // Heard in a life before this one (KIP-903).
    let mut reborn = good.clone();
    reborn.isr[2].1 = 29;
    assert_eq!(refused(&mut image, 1, &reborn), ControllerError::IneligibleReplica(3));
    let stranger = wish(&image, &[1, 2, 4]);
    assert_eq!(refused(&mut image, 1, &stranger), ControllerError::IneligibleReplica(4));
    assert_eq!(alter(&mut image, 1, &good).expect("taken").isr, [1, 2, 3]);
    assert_eq!(refused(&mut image, 1, &good), ControllerError::InvalidUpdateVersion);
}

/// The image after broker 1 came back uncleanly with some of its log directories, and was let in.
fn comes_back(image: &mut Image, directories: &[u128], is_incomplete: bool) -> PartitionImage {
    let wish = Registration {
        broker: 1,
        incarnation: Uuid::from_u128(directories.iter().sum::<u128>() + 100),
        endpoints: Vec::new(),
        rack: None,
        directories: directories.iter().copied().map(Uuid::from_u128).collect(),
        is_incomplete,
        clean_epoch: None,
        capacity: None,
        level_max: 1,
    };
    let (records, _) = register(image, &Config::default(), 50, &wish).expect("registered");
    apply(image, &records);
    with(image, 1)
}

#[test]
fn what_only_one_broker_has_stays_its_own_when_a_disk_is_added_or_missing_but_not_when_one_is_another()
 {
    for (isr, others) in [(vec![1], vec![]), (vec![1, 2], vec![2])] {
        let led = |steps: &[(&[u128], bool)]| {
            let mut image = image(&[1, 2], &isr, &[], 1);
            comes_back(&mut image, &[1, 2], false);
            let mut state = BrokerImage::clone(&image.brokers[&1]);
            state.directories = [1, 2].map(Uuid::from_u128).to_vec();
            image.apply(&MetadataRecord::Broker { id: 1, state });
            let mut last = PartitionImage::default();
            for (directories, is_incomplete) in steps {
                without(&mut image, &[1]);
                last = comes_back(&mut image, directories, *is_incomplete);
            }
            (last.leader, last.isr)
        };
        let own = if others.is_empty() { (1, vec![1]) } else { (2, vec![2]) };
        let none = if others.is_empty() { (-1, vec![]) } else { (2, vec![2]) };
        assert_eq!(led(&[(&[1, 2, 3], false)]), own, "one more");
        assert_eq!(led(&[(&[2, 1], false)]), own, "the same ones");
        assert_eq!(led(&[(&[1], true)]), own, "one is missing");
        assert_eq!(led(&[(&[1], true), (&[1, 2], false)]), own, "it is there again");
        assert_eq!(led(&[(&[1], true), (&[1, 3], false)]), none, "another is in its place");
        assert_eq!(led(&[(&[1, 3], false)]), none, "one is another");
        assert_eq!(led(&[(&[1], false)]), none, "one was taken away");
    }
}

#[test]
fn an_unclean_election_is_held_only_when_it_is_asked_for() {
    let mut image = image(&[1, 2], &[1, 2], &[], 1);
    without(&mut image, &[2]);
    without(&mut image, &[1]);
    let now = with(&mut image, 2);
    assert_eq!(now.leader, 2, "it left while one was too few, so it is eligible");
    let mut image = super::partition_tests::image(&[1, 2, 3], &[1, 2], &[], 1);
    without(&mut image, &[1, 2]);
    let config = Config::default();
    let elected = |image: &Image, kind| Partitions::new(image, &config).elected(kind, TOPIC, 0);
    assert_eq!(
        elected(&image, ElectionKind::Preferred),
        Err(ControllerError::PreferredLeaderNotAvailable)
    );
    let records = elected(&image, ElectionKind::Unclean).expect("held");
    let now = apply(&mut image, &records);
    assert_eq!((now.leader, now.isr, now.elr), (3, vec![3], vec![]));
}

#[test]
fn a_move_ends_when_the_new_replicas_are_in_sync_and_the_leader_has_handed_over() {
    let mut image = image(&[1, 2], &[1, 2], &[], 1);
    let config = Config::default();
    let records =
        Partitions::new(&image, &config).reassigned(TOPIC, 0, Some(&[3, 4])).expect("begun");
    let now = apply(&mut image, &records);
    assert_eq!((now.replicas, now.adding), (vec![3, 4, 1, 2], vec![3, 4]));
    let change = wish(&image, &[1, 2, 3, 4]);
    let now = alter(&mut image, 1, &change).expect("taken");
    assert_eq!((now.leader, now.transfer_to, now.removing.len()), (1, Some(3), 2));
    let change = IsrChange { hand_over: Some(3), ..wish(&image, &[1, 2, 3, 4]) };
    let now = alter(&mut image, 1, &change).expect("taken");
    assert_eq!((now.leader, now.replicas, now.isr), (3, vec![3, 4], vec![3, 4]));
    assert!(now.adding.is_empty() && now.removing.is_empty() && now.transfer_to.is_none());
}

#[test]
fn a_move_that_is_taken_back_leaves_what_was() {
    let mut image = image(&[1, 2], &[1, 2], &[], 1);
    let config = Config::default();
    let begin =
        Partitions::new(&image, &config).reassigned(TOPIC, 0, Some(&[1, 3])).expect("begun");
    apply(&mut image, &begin);
    let back = Partitions::new(&image, &config).reassigned(TOPIC, 0, None).expect("taken back");
    let now = apply(&mut image, &back);
    assert_eq!((now.replicas, now.isr, now.leader), (vec![1, 2], vec![1, 2], 1));
    let nothing = Partitions::new(&image, &config).reassigned(TOPIC, 0, None);
    assert_eq!(nothing, Err(ControllerError::NoReassignment));
}

#[test]
fn a_leader_that_was_being_added_is_followed_by_another_when_the_move_becomes_another_one() {
    let config = Config::default();
    for target in [None, Some(&[1, 4][..])] {
        let mut image = image(&[3, 4, 1, 2], &[3], &[], 3);
        let moves = |image: &mut Image, isr: &[BrokerId], elr: &[BrokerId]| {
            let mut state = image.topic("t").expect("there").partitions[0].clone();
            (state.adding, state.removing) = (vec![3, 4], vec![1, 2]);
            (state.isr, state.elr) = (isr.to_vec(), elr.to_vec());
            state.partition_epoch += 1;
            image.apply(&MetadataRecord::Partition { topic: TOPIC, partition: 0, state });
        };
        let mut asked = |isr: &[BrokerId], elr: &[BrokerId]| {
            moves(&mut image, isr, elr);
            let records = Partitions::new(&image, &config).reassigned(TOPIC, 0, target)?;
            Ok(apply(&mut image.clone(), &records))
        };
        // Nobody else has everything.
        assert!(matches!(asked(&[3], &[]), Err(ControllerError::Assignment(_))), "{target:?}");
        let now = asked(&[2, 3], &[]).expect("begun");
        assert_eq!((now.leader, now.isr, now.leader_epoch), (2, vec![2], 6), "{target:?}");
        assert!(!now.replicas.contains(&3));
        let now = asked(&[3], &[1]).expect("begun");
        assert_eq!((now.leader, now.isr, now.elr), (1, vec![1], vec![]), "{target:?}");
    }
}

#[test]
fn a_leader_that_no_follower_reaches_is_replaced_but_not_because_one_says_so() {
    let mut image = image(&[1, 2, 3], &[1, 2, 3], &[], 1);
    let config = Config::default();
    assert!(Partitions::new(&image, &config).avoiding(1, &[2]).is_empty());
    assert!(Partitions::new(&image, &config).avoiding(2, &[1, 3]).is_empty());
    let records = Partitions::new(&image, &config).avoiding(1, &[2, 3]);
    let now = apply(&mut image, &records);
    assert_eq!((now.leader, now.leader_epoch, now.isr), (2, 6, vec![1, 2, 3]));
}

#[test]
fn a_topic_made_while_a_broker_is_down_has_a_replica_there_too_and_prefers_those_that_are_up() {
    let mut image = image(&[1, 2, 3], &[1, 2, 3], &[], 1);
    without(&mut image, &[1]);
    let make = |replication_factor: i16| {
        let wish = NewTopic {
            name: "new".into(),
            partitions: 1,
            replication_factor,
            ..NewTopic::default()
        };
        let records = create_topic(&image, &Config::default(), &wish, Uuid::from_u128(8));
        let made = records.expect("made").into_iter().find_map(|record| match record {
            MetadataRecord::Partition { state, .. } => Some(state),
            _ => None,
        });
        made.expect("a partition")
    };
    let three = make(3);
    assert!(!three.replicas.contains(&1), "{three:?}");
    let four = make(4);
    assert_eq!((four.replicas.len(), four.isr.len()), (4, 3));
    assert_eq!((four.replicas.last(), four.isr.contains(&1)), (Some(&1), false));
}
