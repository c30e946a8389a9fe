//! What is looked at when all is quiet: every way to read, what must be gone, disks, logs, and how much is done for nothing.

use std::time::{Duration, Instant};

use super::families;
use super::judge::dues;
use super::lives::{Life, Outcome};
use super::model::Seen;
use super::plan::{Plan, Point, Tier};
use super::read::{self, LIMITS, Read};
use super::talk::Client;
use super::world::World;

/// How long nothing may go of what is to go, on a busy machine.
const LATE_MS: i64 = 15_000;
/// How long nothing is asked of brokers, and how much of a core a node may need then, built for debugging.
const REST: Duration = Duration::from_secs(3);
const REST_PERMILLE: u64 = 150;
/// A batch without records.
const EMPTY_BYTES: u64 = 61;

/// See the file's header.
pub(crate) fn close(plan: &Plan, world: &mut World, lives: &mut [Life], outcome: &mut Outcome) {
    let mut client = world.client();
    for life in lives.iter_mut() {
        let Some(read) = settle(&mut client, life, outcome) else { continue };
        probe(&mut client, life, &read, 20, outcome);
        let few = read.lasts.len() < 300;
        life.read(&mut client, LIMITS[usize::from(!few)], None, outcome);
        if plan.nodes > 1 {
            follow(&mut client, life, outcome);
        }
        room(world, &mut client, life, outcome);
        let begun = Instant::now();
        while let Some(why) = still_here(&mut client, life) {
            if begun.elapsed() > Duration::from_millis(LATE_MS.unsigned_abs()) {
                outcome.findings.push(why);
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    for life in families_of(lives, plan) {
        let name = life.name();
        let (model, chance) = (&life.model, &mut life.chance);
        match read::all(&mut client, (&name, &model.fill), LIMITS[4], None, chance) {
            Ok(read) if families::can_tell(life, &read) => {
                families::read(&world.node(0).address, life, &read, outcome);
            }
            Ok(_) => {}
            Err(why) => outcome.findings.push(why),
        }
    }
    rest(world, outcome);
    outcome.findings.extend(world.words());
    outcome.findings.extend(world.leftovers());
    outcome.findings.extend(world.verify());
}

/// What says that a tiered topic is not only in the bucket by now, though nothing is to be here any more.
fn still_here(client: &mut Client, life: &Life) -> Option<String> {
    let point = &life.model.point;
    if point.tier == Tier::No || point.local_retention_ms() < 0 || point.closes_after_ms().is_none()
    {
        return None;
    }
    let name = &point.name;
    let ends = client.offset(name, -1).and_then(|end| Ok((end, client.offset(name, -4)?)));
    match ends {
        Ok(((0, _, end), (0, _, here))) if here == end => None,
        other => Some(format!("{name}: still here, end and start here {other:?}")),
    }
}

/// A topic or two whose records, but for tombstones perhaps, stay as they are.
fn families_of<'a>(lives: &'a mut [Life], plan: &Plan) -> impl Iterator<Item = &'a mut Life> {
    let count = plan.points.len().div_ceil(4);
    lives.iter_mut().filter(|life| is_still(&life.model.point)).take(count)
}

fn is_still(point: &Point) -> bool {
    // What compaction takes it has taken by now, or it may do so while the families read.
    let is_compacted = point.is_compacted_in_time() && point.tier == Tier::No;
    let keeps_tombstones = point.delete_retention_ms > 1_000_000;
    let stays = !point.is_compacted || is_compacted && keeps_tombstones;
    point.keys > 0 && stays && point.retention_ms.is_none()
}

/// What brokers do while nothing is asked of them.
fn rest(world: &World, outcome: &mut Outcome) {
    let nodes: Vec<usize> = (0..world.cluster.places.len()).collect();
    let requests = || -> u64 { nodes.iter().map(|node| world.bucket_requests(*node)).sum() };
    let ticks = || -> u64 { nodes.iter().map(|node| world.cpu_ticks(*node)).sum() };
    let (before, asked) = (ticks(), requests());
    std::thread::sleep(REST);
    // A tick is ten milliseconds of a core.
    let permille = (ticks() - before) * 10_000 / u64::try_from(REST.as_millis()).expect("small");
    let asked = requests() - asked;
    let each = permille / u64::try_from(nodes.len()).expect("few");
    outcome.most("‰ of a core a node at rest", each);
    outcome.most("requests to the bucket at rest, of 3 s", asked);
    if each > REST_PERMILLE {
        outcome.findings.push(format!("at rest a node needs {each} ‰ of a core"));
    }
}

/// Reads until all is gone that has to go. On a busy machine much of it goes late; but as long as there is any, something goes.
fn settle(client: &mut Client, life: &mut Life, outcome: &mut Outcome) -> Option<Read> {
    let (mut left, mut went_ms) = (u64::MAX, i64::MIN);
    loop {
        let read = life.read(client, LIMITS[4], None, outcome)?;
        let dues = dues(&life.model, &read);
        let Some(due) = dues.iter().map(|(_, at)| *at).min() else { return Some(read) };
        let bytes = u64::try_from(read.bytes).expect("small");
        if bytes < left {
            (left, went_ms) = (bytes, read.began_ms);
        }
        let late = read.began_ms - due;
        if read.began_ms - went_ms.max(due) > LATE_MS {
            let ((why, at), count, name) = (&dues[0], dues.len(), life.name());
            outcome
                .findings
                .push(format!("{name}: {why}, due at {at}, {late} ms late; {count} such"));
            return None;
        }
        outcome.late_ms = outcome.late_ms.max(late);
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Reads from offsets and times by chance; what comes is what was read before, if nothing was deleted meanwhile.
pub(crate) fn probe(
    client: &mut Client,
    life: &mut Life,
    read: &Read,
    count: u64,
    outcome: &mut Outcome,
) {
    let name = life.name();
    for _ in 0..count {
        let length = u64::try_from(read.end - read.start).expect("a length");
        if length == 0 {
            return;
        }
        let offset = read.start + i64::try_from(life.chance.below(length)).expect("an offset");
        let limit = life.chance.pick(&LIMITS);
        let topic = (&*name, &life.model.fill);
        let found = read::at(client, topic, (offset, limit), None, &mut life.chance);
        let expected = read.records.iter().find(|seen| seen.offset >= offset);
        let wrong = match found {
            Err(why) => Some(why),
            Ok(found) => unlike(expected, found.as_ref(), life)
                .then(|| format!("{name}: {found:?} at {offset}, not {expected:?}")),
        };
        outcome.findings.extend(wrong);
        outcome.count("offsets", 1);
        outcome.findings.extend(by_time(client, life, read));
        outcome.count("times", 1);
    }
}

/// Whether what was found is not what was expected, and deletion and compaction do not explain it.
fn unlike(expected: Option<&Seen>, found: Option<&Seen>, life: &Life) -> bool {
    if !may_change(life) {
        return expected != found;
    }
    // Between here and there lies what one of two copies has lost to compaction, and the other has not.
    let is_in_bucket = |found: &Seen| {
        let known = life.model.known.get(&found.offset);
        life.model.point.is_compacted
            && life.model.point.tier != Tier::No
            && known.is_some_and(|known| known.sent.number == found.number)
    };
    match (expected, found) {
        (Some(expected), Some(found)) => expected.offset > found.offset && !is_in_bucket(found),
        (None, Some(found)) => !is_in_bucket(found),
        _ => false,
    }
}

/// Asks by a time; the first record of that time or later is named.
fn by_time(client: &mut Client, life: &mut Life, read: &Read) -> Option<String> {
    let times = || read.records.iter().map(|seen| seen.timestamp);
    let (first, last) = (times().min()?, times().max()?);
    let range = u64::try_from(last - first + 3).expect("a time");
    let time = first - 1 + i64::try_from(life.chance.below(range)).expect("a time");
    let name = life.name();
    let expected = read.records.iter().find(|seen| seen.timestamp >= time);
    // A leader may have changed since it was last asked.
    let mut found = client.offset(&name, time);
    for _ in 0..20 {
        if matches!(found, Ok((0, ..))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        found = client.offset(&name, time);
    }
    let (error, timestamp, offset) = match found {
        Ok(found) => found,
        Err(error) => return Some(format!("{name} by time: {error}")),
    };
    let is_good = match expected {
        Some(seen) => (seen.offset, seen.timestamp) == (offset, timestamp),
        None => offset == -1,
    };
    if is_good && error == 0 {
        return None;
    }
    // What was expected may be gone by now; what is named is later then, and of the time.
    let is_later =
        offset == -1 || (timestamp >= time && expected.is_some_and(|seen| seen.offset < offset));
    // What compaction took here may be named after the copy in the bucket; reading from there begins with what is expected.
    let known = life.model.known.get(&offset).and_then(|known| known.timestamp);
    let is_in_bucket = life.model.point.is_compacted
        && life.model.point.tier != Tier::No
        && (known == Some(timestamp) && timestamp >= time)
        && expected.is_none_or(|seen| seen.offset > offset);
    if error == 0 && (may_change(life) && is_later || is_in_bucket) {
        return None;
    }
    Some(format!("{name}: {time} is at {offset} ({timestamp}, error {error}), not {expected:?}"))
}

/// Whether what is readable changes by itself.
fn may_change(life: &Life) -> bool {
    let point = &life.model.point;
    point.is_compacted || point.retention_ms.is_some() || point.retention_bytes.is_some()
}

/// Reads all from each follower.
fn follow(client: &mut Client, life: &mut Life, outcome: &mut Outcome) {
    let Ok(found) = client.look(&life.name()) else { return };
    for follower in found.in_sync.iter().filter(|id| **id != found.leader) {
        life.read(client, LIMITS[3], Some(*follower), outcome);
        outcome.count("reads of followers", 1);
    }
}

/// Compares what lies on the leader's disk with what is readable.
fn room(world: &World, client: &mut Client, life: &mut Life, outcome: &mut Outcome) {
    let point = life.model.point.clone();
    if point.tier != Tier::No || point.is_preallocated || life.model.deleted_to > 0 {
        return;
    }
    let mut last = String::new();
    for _ in 0..20 {
        let (Some(read), Ok(found)) =
            (life.read(client, LIMITS[4], None, outcome), client.look(&point.name))
        else {
            return;
        };
        let node = usize::try_from(found.leader - 1).expect("a node");
        let there = world.bytes_on(node, &point.name);
        let more = there.checked_sub(u64::try_from(read.bytes).expect("small"));
        // What compaction emptied is on the disk, and not always sent.
        let emptied = |more| point.is_compacted && more % EMPTY_BYTES == 0;
        if more.is_some_and(|more| more == 0 || emptied(more)) {
            outcome.count("disks compared", 1);
            return;
        }
        last = format!("{}: {there} bytes on the disk, {} readable", point.name, read.bytes);
        std::thread::sleep(Duration::from_millis(300));
    }
    outcome.findings.push(last);
}
