//! One plan from its beginning to its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kafka_protocol::messages::DeleteRecordsRequest;

use super::closing;
use super::judge::judge;
use super::model::Model;
use super::plan::{Chance, Phase, Plan, Point};
use super::read::{self, LIMITS, Read};
use super::talk::{Client, now_ms};
use super::world::World;
use super::write::Writer;
use crate::broker::folder;
use crate::bucket::Weather;
use crate::wire::name;

/// What was done, what was compared, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub findings: Vec<String>,
    pub counts: BTreeMap<String, u64>,
    /// The largest of what was measured.
    pub most: BTreeMap<String, u64>,
    /// The longest that something stayed past its time.
    pub late_ms: i64,
}

impl Outcome {
    pub(crate) fn count(&mut self, what: &str, more: u64) {
        *self.counts.entry(what.to_owned()).or_default() += more;
    }

    /// Notes the largest of what was measured.
    pub(crate) fn most(&mut self, what: &str, measured: u64) {
        let most = self.most.entry(what.to_owned()).or_default();
        *most = measured.max(*most);
    }

    pub(crate) fn add(&mut self, other: Self) {
        other.counts.iter().for_each(|(what, count)| self.count(what, *count));
        other.most.iter().for_each(|(what, measured)| self.most(what, *measured));
        self.findings.extend(other.findings);
        self.late_ms = self.late_ms.max(other.late_ms);
    }

    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        for (what, count) in &self.counts {
            let _ = write!(text, "{count} {what}, ");
        }
        for (what, most) in &self.most {
            let _ = write!(text, "at most {most} {what}, ");
        }
        let _ = write!(text, "nothing gone later than {} ms after its time, ", self.late_ms);
        let _ = write!(text, "{} findings", self.findings.len());
        text
    }
}

/// A topic while it lives.
pub(crate) struct Life {
    pub model: Model,
    writer: Writer,
    pub chance: Chance,
}

impl Life {
    pub(crate) fn name(&self) -> String {
        self.model.point.name.clone()
    }

    /// Reads all with a limit, and judges it.
    pub(crate) fn read(
        &mut self,
        client: &mut Client,
        bytes_max: i32,
        follower: Option<i32>,
        outcome: &mut Outcome,
    ) -> Option<Read> {
        let name = self.name();
        let topic = (&*name, &self.model.fill);
        match read::all(client, topic, bytes_max, follower, &mut self.chance) {
            Err(why) => {
                outcome.findings.push(why);
                None
            }
            Ok(read) => {
                outcome.count("fetches", read.fetches);
                outcome.count("records compared", read.records.len().try_into().expect("few"));
                outcome.findings.extend(judge(&mut self.model, &read));
                Some(read)
            }
        }
    }
}

/// See the file's header.
pub(crate) fn live(plan: &Plan) -> Outcome {
    let (folder, _) = folder();
    if std::env::var("LIFE_KEEP").is_err() {
        return live_in(folder.path(), plan);
    }
    let folder = folder.keep();
    println!("in {}", folder.display());
    let outcome = live_in(&folder, plan);
    if outcome.findings.is_empty() {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    outcome
}

fn live_in(folder: &Path, plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    let mut world = World::start(plan, folder);
    world.cluster.wait_healthy();
    let bootstrap = world.cluster.bootstrap();
    let mut chance = Chance::new(plan.seed ^ 0xface);
    let mut lives: Vec<Life> = Vec::new();
    for point in &plan.points {
        world.create(point);
        let seed = chance.next();
        let model = Model::new(point.clone(), seed);
        lives.push(Life { model, writer: Writer::new(&bootstrap), chance: Chance::new(seed) });
    }
    let begun = Instant::now();
    for phase in &plan.phases {
        println!("{:>6.1} s: {phase:?}", begun.elapsed().as_secs_f64());
        pass(*phase, &mut world, &mut lives, &mut chance, &mut outcome);
        outcome.count(&format!("× {phase:?}"), 1);
        look(&world, &mut lives, &mut outcome);
        if !outcome.findings.is_empty() {
            let at = format!("found after {phase:?}, {}", now_ms());
            outcome.findings.push(at);
            break;
        }
    }
    println!("{:>6.1} s: the end", begun.elapsed().as_secs_f64());
    if outcome.findings.is_empty() {
        closing::close(plan, &mut world, &mut lives, &mut outcome);
    }
    let stored: usize = lives.iter().map(|life| life.model.known.len()).sum();
    outcome.count("records stored", stored.try_into().expect("few"));
    outcome.count("topics", lives.len().try_into().expect("few"));
    outcome
}

/// Lets all topics be written to while something happens.
fn meanwhile(
    world: &mut World,
    lives: &mut [Life],
    outcome: &mut Outcome,
    happens: impl FnOnce(&mut World),
) {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let mut writing = Vec::new();
        for Life { model, writer, chance } in lives.iter_mut() {
            let (batches, _) = model.point.sizes.burst();
            writing.push(scope.spawn(move || writer.burst(model, chance, batches)));
        }
        happens(world);
        writing.into_iter().flat_map(|thread| thread.join().expect("a writer")).collect()
    });
    outcome.findings.extend(wrong);
}

fn pass(
    phase: Phase,
    world: &mut World,
    lives: &mut [Life],
    chance: &mut Chance,
    outcome: &mut Outcome,
) {
    let points: Vec<Point> = lives.iter().map(|life| life.model.point.clone()).collect();
    let nodes = world.cluster.places.len();
    let index = usize::try_from(chance.below(nodes.try_into().expect("few"))).expect("few");
    let moment = Duration::from_millis(100 + chance.below(900));
    let mut at_once = |world: &mut World, happens: &dyn Fn(&mut World)| {
        meanwhile(world, lives, outcome, happens);
    };
    match phase {
        Phase::Burst => at_once(world, &|_| ()),
        Phase::Idle => std::thread::sleep(Duration::from_secs(6)),
        Phase::Kill => at_once(world, &|world| {
            std::thread::sleep(moment);
            world.kill(index, moment);
        }),
        Phase::Restart => at_once(world, &|world| {
            std::thread::sleep(moment);
            world.restart(index, moment);
        }),
        Phase::Paused => at_once(world, &|world| world.pause(index, 3 * moment)),
        Phase::Move => at_once(world, &|world| world.move_all(index, &points)),
        Phase::BucketGone => {
            at_once(world, &|world| world.bucket(Weather::Gone, Duration::from_secs(3)));
        }
        Phase::BucketFoul => {
            at_once(world, &|world| world.bucket(Weather::Foul, Duration::from_secs(3)));
        }
        Phase::Tier => world.tier(&points),
        Phase::DeleteRecords => delete_records(world, lives, outcome),
        Phase::Behind => {
            at_once(world, &|world| world.restart(index, Duration::from_secs(5)));
            world.reassign(&turned(nodes, index), &points);
        }
        Phase::Reassign => {
            let only = turned(nodes, index)[0];
            world.reassign(&[only], &points);
            at_once(world, &|_| ());
            let others = turned(nodes, (index + 1) % nodes);
            at_once(world, &|world| world.reassign(&others, &points));
        }
    }
}

/// The ids of all nodes, one of them first.
fn turned(nodes: usize, first: usize) -> Vec<i32> {
    (0..nodes).map(|at| i32::try_from((first + at) % nodes + 1).expect("few")).collect()
}

/// Deletes some of each topic that records may be deleted of.
fn delete_records(world: &World, lives: &mut [Life], outcome: &mut Outcome) {
    use kafka_protocol::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsTopic,
    };
    let mut client = world.client();
    for life in lives.iter_mut().filter(|life| life.model.point.is_deleted) {
        let share = u64::try_from(life.model.end).expect("an offset") / 2;
        let to = i64::try_from(life.chance.below(share + 1)).expect("an offset");
        let name_of = life.name();
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(to);
        let topic = DeleteRecordsTopic::default()
            .with_name(name(&name_of))
            .with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        match client.ask_leader(&name_of, 2, &request) {
            Ok(answer) => {
                let partition = &answer.topics[0].partitions[0];
                // What retention deleted before is out of range.
                if partition.error_code == 0 {
                    life.model.deleted_to = life.model.deleted_to.max(to);
                } else if partition.error_code != 1 {
                    let code = partition.error_code;
                    outcome.findings.push(format!("{name_of}: error {code} to DeleteRecords {to}"));
                }
            }
            Err(error) => outcome.findings.push(format!("{name_of}: DeleteRecords: {error}")),
        }
    }
}

/// Reads every topic from its start with some limit, and from some offsets and times.
fn look(world: &World, lives: &mut [Life], outcome: &mut Outcome) {
    let mut client = world.client();
    for life in lives.iter_mut() {
        let limit = life.chance.pick(&LIMITS[2..]);
        if let Some(read) = life.read(&mut client, limit, None, outcome) {
            closing::probe(&mut client, life, &read, 6, outcome);
        }
    }
}
