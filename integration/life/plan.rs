//! What a seed stands for: topics, each a point of the matrix, and what happens while they live. Nothing else is chance.

use std::fmt::Write as _;

use super::batches::CODECS;

/// Numbers from a seed (splitmix64), the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below another one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len().try_into().expect("few"))).expect("few")]
    }
}

/// Whether records go to the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    No,
    Yes,
    /// The topic is told to while it lives.
    Later,
}

/// Whose clock stamps records, and how wrong it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Broker,
    Client,
    /// Within two seconds, back and forth.
    Unsteady,
    /// An hour late.
    Late,
}

/// How large records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    Tiny,
    Small,
    Middle,
    Large,
    Huge,
    Mixed,
}

impl Sizes {
    /// Bytes of a value.
    pub(crate) fn of(self, chance: &mut Chance) -> usize {
        let (low, high) = match self {
            Sizes::Tiny => (10, 20),
            Sizes::Small => (100, 2_000),
            Sizes::Middle => (5_000, 60_000),
            Sizes::Large => (300_000, 1_100_000),
            Sizes::Huge => (3_000_000, 10_000_000),
            Sizes::Mixed => {
                let all = [Sizes::Tiny, Sizes::Small, Sizes::Small, Sizes::Middle, Sizes::Large];
                return chance.pick(&all).of(chance);
            }
        };
        usize::try_from(low + chance.below(high - low)).expect("small")
    }

    /// Batches of a burst, and most records of a batch.
    pub(crate) fn burst(self) -> (u64, u64) {
        match self {
            Sizes::Tiny => (150, 60),
            Sizes::Small => (100, 25),
            Sizes::Middle => (40, 5),
            Sizes::Large => (8, 2),
            Sizes::Huge => (2, 1),
            Sizes::Mixed => (30, 4),
        }
    }
}

/// A topic of one partition: a point of the matrix.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub name: String,
    pub is_compacted: bool,
    pub is_deleted: bool,
    pub segment_ms: Option<i64>,
    pub segment_bytes: Option<i64>,
    pub retention_ms: Option<i64>,
    pub retention_bytes: Option<i64>,
    pub dirty_ratio: f64,
    pub lag_min_ms: i64,
    pub lag_max_ms: Option<i64>,
    pub delete_retention_ms: i64,
    pub codec: i16,
    /// The codec that the broker stores, if it is not the producer's.
    pub stored: Option<&'static str>,
    pub clock: Clock,
    pub tier: Tier,
    pub local_retention_ms: i64,
    pub is_cached: bool,
    pub sizes: Sizes,
    pub is_idempotent: bool,
    /// How many keys there are; 0: records have none.
    pub keys: u64,
    pub is_preallocated: bool,
    pub index_interval: i64,
}

/// What happens, while producers write or in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Burst,
    /// Nothing, for longer than every timer.
    Idle,
    Restart,
    Kill,
    Move,
    DeleteRecords,
    BucketGone,
    BucketFoul,
    /// Topics are tiered from here on.
    Tier,
    /// A follower is stopped for long, comes back, and leads.
    Behind,
    Paused,
    /// The replicas become one, and three again.
    Reassign,
}

const ALONE: [Phase; 8] = [
    Phase::Kill,
    Phase::Move,
    Phase::Restart,
    Phase::DeleteRecords,
    Phase::BucketGone,
    Phase::BucketFoul,
    Phase::Burst,
    Phase::Idle,
];
const TOGETHER: [Phase; 10] = [
    Phase::Behind,
    Phase::Kill,
    Phase::Reassign,
    Phase::Move,
    Phase::Paused,
    Phase::DeleteRecords,
    Phase::BucketGone,
    Phase::Restart,
    Phase::Burst,
    Phase::Idle,
];

/// Everything that a seed stands for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub is_encrypted: bool,
    pub points: Vec<Point>,
    pub phases: Vec<Phase>,
}

impl Plan {
    /// Odd seeds have three nodes.
    pub(crate) fn of(seed: u64, topics: u64, phases: u64) -> Self {
        let mut chance = Chance::new(seed);
        let nodes = if seed.is_multiple_of(2) { 1 } else { 3 };
        let points = (0..topics).map(|index| Point::of(&mut chance, seed, index)).collect();
        let all: &[Phase] = if nodes == 1 { &ALONE } else { &TOGETHER };
        let count = u64::try_from(all.len()).expect("few");
        // Each kind comes before any comes again, wherever the seed begins.
        let begin = chance.below(count);
        let pick = |number| all[usize::try_from((begin + number * 3) % count).expect("few")];
        let mut phases: Vec<Phase> = (0..phases).map(pick).collect();
        let tier_at = usize::try_from(chance.below(phases.len().try_into().expect("few")));
        phases.insert(tier_at.expect("few"), Phase::Tier);
        phases.insert(0, Phase::Burst);
        Self { seed, nodes, is_encrypted: chance.one_in(2), points, phases }
    }

    /// The plan for whoever has to follow it.
    pub(crate) fn told(&self) -> String {
        let mut text = format!(
            "seed {}: {} nodes, encrypted {}, {:?}\n",
            self.seed, self.nodes, self.is_encrypted, self.phases
        );
        for point in &self.points {
            let _ = writeln!(text, "  {}", point.told());
        }
        text
    }
}

impl Point {
    fn of(chance: &mut Chance, seed: u64, index: u64) -> Self {
        // Policies take turns: what is most different is in every run.
        let policy = (seed / 2 + index) % 3;
        let (is_compacted, is_deleted) = (policy > 0, policy != 1);
        let sizes =
            [Sizes::Tiny, Sizes::Small, Sizes::Middle, Sizes::Mixed, Sizes::Large, Sizes::Huge];
        let clocks = [Clock::Client, Clock::Broker, Clock::Unsteady, Clock::Late];
        let retains = is_deleted && !chance.one_in(3);
        let by_size = retains && !is_compacted && chance.one_in(2);
        let ratio = chance.pick(&[0.0, 0.5]);
        let keyless = !is_compacted && chance.one_in(3);
        let is_preallocated = chance.one_in(4);
        let segment_bytes = chance.pick(&[Some(1 << 20), Some(4 << 20), None]);
        Self {
            name: format!("life-{seed}-{index}"),
            is_compacted,
            is_deleted,
            segment_ms: chance.pick(&[Some(500), Some(1_500), Some(4_000), None]),
            // The room of a segment is taken from the disk at once.
            segment_bytes: if is_preallocated { Some(4 << 20) } else { segment_bytes },
            retention_ms: (retains && !by_size).then(|| chance.pick(&[2_500, 8_000])),
            retention_bytes: by_size.then(|| chance.pick(&[200_000, 3_000_000])),
            dirty_ratio: ratio,
            lag_min_ms: chance.pick(&[0, 0, 1_000]),
            lag_max_ms: chance.pick(&[None, Some(2_000)]),
            delete_retention_ms: chance.pick(&[500, 86_400_000]),
            codec: chance.pick(&[0, 1, 2, 3, 4]),
            stored: chance.pick(&[None, None, None, Some("zstd"), Some("uncompressed")]),
            clock: chance.pick(&clocks),
            tier: chance.pick(&[Tier::No, Tier::Yes, Tier::Later]),
            local_retention_ms: chance.pick(&[1, 2_000, -2]),
            is_cached: chance.one_in(3),
            sizes: chance.pick(&sizes),
            is_idempotent: chance.one_in(2),
            keys: if keyless { 0 } else { chance.pick(&[1, 7, 60]) },
            is_preallocated,
            index_interval: chance.pick(&[0, 4_096, 100_000]),
        }
    }

    /// The settings that the topic is made with.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let policy = match (self.is_compacted, self.is_deleted) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            _ => "delete",
        };
        let stamped = if self.clock == Clock::Broker { "LogAppendTime" } else { "CreateTime" };
        let mut all = vec![
            ("cleanup.policy", policy.to_owned()),
            ("retention.ms", self.retention_ms.unwrap_or(-1).to_string()),
            ("retention.bytes", self.retention_bytes.unwrap_or(-1).to_string()),
            ("min.cleanable.dirty.ratio", self.dirty_ratio.to_string()),
            ("min.compaction.lag.ms", self.lag_min_ms.to_string()),
            ("delete.retention.ms", self.delete_retention_ms.to_string()),
            ("compression.type", self.stored.unwrap_or("producer").to_owned()),
            ("message.timestamp.type", stamped.to_owned()),
            ("local.retention.ms", self.local_retention_ms().to_string()),
            ("write.caching", self.is_cached.to_string()),
            ("preallocate", self.is_preallocated.to_string()),
            ("index.interval.bytes", self.index_interval.to_string()),
            ("file.delete.delay.ms", "100".to_owned()),
            ("max.message.bytes", "13000000".to_owned()),
        ];
        let optional = [
            ("segment.ms", self.segment_ms),
            ("segment.bytes", self.segment_bytes),
            ("max.compaction.lag.ms", self.lag_max_ms),
        ];
        all.extend(
            optional.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?.to_string()))),
        );
        if self.tier == Tier::Yes {
            all.push(("remote.storage.enable", "true".to_owned()));
        }
        all
    }

    /// `local.retention.ms` may not be longer than `retention.ms`.
    pub(crate) fn local_retention_ms(&self) -> i64 {
        match self.retention_ms {
            Some(whole) if self.local_retention_ms > whole => -2,
            _ => self.local_retention_ms,
        }
    }

    /// How long a segment may be written to at most, once nothing comes any more: `None` is for ever.
    pub(crate) fn closes_after_ms(&self) -> Option<i64> {
        let lag = self.lag_max_ms.filter(|_| self.is_compacted);
        [self.segment_ms, lag].into_iter().flatten().min()
    }

    /// Whether whatever is superseded is compacted in the end.
    pub(crate) fn is_compacted_in_time(&self) -> bool {
        self.is_compacted
            && self.closes_after_ms().is_some()
            && (self.lag_max_ms.is_some() || self.dirty_ratio <= 0.0)
    }

    fn told(&self) -> String {
        let settings: Vec<String> =
            self.settings().iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!(
            "{}: {:?}, {:?} records, {} keys, {}, {:?}{}, {}",
            self.name,
            self.tier,
            self.sizes,
            self.keys,
            CODECS[usize::try_from(self.codec).expect("few")],
            self.clock,
            if self.is_idempotent { ", idempotent" } else { "" },
            settings.join(" "),
        )
    }
}

#[test]
fn a_seed_is_the_same_plan_each_time_and_few_seeds_hold_every_setting_and_phase() {
    assert_eq!(Plan::of(7, 6, 8).told(), Plan::of(7, 6, 8).told());
    let all: Vec<Plan> = (0..40).map(|seed| Plan::of(seed, 6, 8)).collect();
    let points: Vec<&Point> = all.iter().flat_map(|plan| &plan.points).collect();
    for sizes in [Sizes::Tiny, Sizes::Mixed, Sizes::Huge] {
        assert!(points.iter().any(|point| point.sizes == sizes && point.tier == Tier::Later));
    }
    for phase in ALONE.iter().chain(&TOGETHER) {
        assert!(all.iter().any(|plan| plan.phases.contains(phase)), "{phase:?}");
    }
}
