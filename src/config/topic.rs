//! The resolved configuration of one topic: overrides on top of the broker's values.
//!
//! Invariants: overrides were checked when they were accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::broker::Config;
use super::origin::{MOUNT, Mount, RESTORE, Restore};
use super::table::{Kind, TOPIC_ROWS, broker_row, topic_row};
use super::throttled::ThrottledReplicas;
use super::value::{canonical, fraction, items};
use crate::model::OFFSETS_TOPIC;
use crate::model::number::{to_u64, to_usize};
use crate::record::{Codec, Levels, TimestampRules};

/// A local retention that is that of the whole log, or a lag that is the local retention.
const AS_WHOLE: i64 = -2;

/// Whose clock stamps records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What a partition's log and replica need to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicConfig {
    pub is_compacted: bool,
    pub is_deleted: bool,
    /// `None`: as the producer sent it.
    pub codec: Option<Codec>,
    pub levels: Levels,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: u64,
    pub max_compaction_lag_ms: i64,
    pub plain_bytes_max: usize,
    /// Whether the records of every batch are looked at.
    pub walks_records: bool,
    pub message_bytes_max: usize,
    pub timestamps: TimestampRules,
    pub timestamp_type: TimestampType,
    pub dirty_ratio_min: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub unclean_leader_election: bool,
    /// Whether a segment's room is reserved when it is begun.
    pub preallocate: bool,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    /// Whether segments are copied to object storage; then how long they stay here too.
    pub is_tiered: bool,
    pub local_retention_bytes: i64,
    pub local_retention_ms: i64,
    /// Whether more is copied there.
    pub is_copied: bool,
    /// How old a record is, or how much comes after its segment, when it is copied; -1: not because of that.
    pub copy_lag_ms: i64,
    pub copy_lag_bytes: i64,
    /// Whether what is there goes where the topic is tiered no more.
    pub is_deleted_on_disable: bool,
    /// Whether its logs begin where the bucket ends.
    pub is_restored: bool,
    /// Where its records are, if they are another cluster's: then they are read only.
    pub mount: Option<Arc<Mount>>,
    pub segment_bytes: u64,
    pub segment_index_bytes: usize,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub write_caching: bool,
    /// Replicas that leaders throttle, and those that throttle themselves (KIP-73).
    pub leader_throttled: ThrottledReplicas,
    pub follower_throttled: ThrottledReplicas,
}

impl TopicConfig {
    /// Whether it is in object storage as this cluster's own, so that segments are copied, deleted and compacted there.
    pub(crate) fn is_in_own_bucket(&self) -> bool {
        self.is_tiered && self.mount.is_none()
    }

    pub(crate) fn resolve(broker: &Config, overrides: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| effective(broker, overrides, name);
        let long = |name: &str| text(name).trim().parse::<i64>().unwrap_or(0);
        let is_true = |name: &str| text(name).eq_ignore_ascii_case("true");
        let policy = text("cleanup.policy");
        let has = |word: &str| policy.split(',').any(|item| item.trim() == word);
        let local = |name: &str, whole: &str| match long(name) {
            // What is only compacted never goes as a whole.
            AS_WHOLE if !has("delete") => -1,
            AS_WHOLE => long(whole).max(-1),
            own => own,
        };
        let mount = Mount::parse(&text(MOUNT)).ok().flatten().map(Arc::new);
        let is_mounted = mount.is_some();
        Self {
            is_compacted: has("compact"),
            is_deleted: has("delete"),
            codec: Codec::from_name(&text("compression.type")),
            levels: levels(long("compression.gzip.level"), long("compression.zstd.level")),
            delete_retention_ms: long("delete.retention.ms"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: to_u64(long("index.interval.bytes")),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            plain_bytes_max: crate::record::compress::decompressed_bytes_max(long(
                "max.decompressed.message.bytes",
            )),
            walks_records: text("record.validation") != "headers",
            message_bytes_max: to_usize(long("max.message.bytes")),
            timestamps: TimestampRules {
                before_max_ms: long("message.timestamp.before.max.ms"),
                after_max_ms: long("message.timestamp.after.max.ms"),
            },
            timestamp_type: if text("message.timestamp.type") == "LogAppendTime" {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            dirty_ratio_min: fraction(&text("min.cleanable.dirty.ratio")).unwrap_or(0.5),
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            unclean_leader_election: is_true("unclean.leader.election.enable"),
            min_insync_replicas: i32::try_from(long("min.insync.replicas")).unwrap_or(i32::MAX),
            preallocate: is_true("preallocate"),
            retention_bytes: long("retention.bytes").max(-1),
            retention_ms: long("retention.ms"),
            is_tiered: is_true("remote.storage.enable") || is_mounted,
            local_retention_bytes: local("local.retention.bytes", "retention.bytes"),
            local_retention_ms: local("local.retention.ms", "retention.ms"),
            is_copied: is_true("remote.storage.enable")
                && !is_true("remote.log.copy.disable")
                && !is_mounted,
            copy_lag_ms: match long("remote.copy.lag.ms") {
                AS_WHOLE => local("local.retention.ms", "retention.ms"),
                own => own,
            },
            copy_lag_bytes: match long("remote.copy.lag.bytes") {
                AS_WHOLE => local("local.retention.bytes", "retention.bytes"),
                own => own,
            },
            is_deleted_on_disable: is_true("remote.log.delete.on.disable"),
            is_restored: !text(RESTORE).is_empty(),
            mount,
            segment_bytes: to_u64(long("segment.bytes")),
            segment_index_bytes: to_usize(long("segment.index.bytes")),
            segment_jitter_ms: long("segment.jitter.ms"),
            segment_ms: long("segment.ms"),
            write_caching: is_true("write.caching"),
            leader_throttled: throttled(&text("leader.replication.throttled.replicas")),
            follower_throttled: throttled(&text("follower.replication.throttled.replicas")),
        }
    }
}

fn levels(gzip: i64, zstd: i64) -> Levels {
    let own = Levels::default();
    Levels {
        gzip: i32::try_from(gzip).unwrap_or(own.gzip),
        zstd: i32::try_from(zstd).unwrap_or(own.zstd),
    }
}

fn throttled(text: &str) -> ThrottledReplicas {
    ThrottledReplicas::parse(text).unwrap_or_default()
}

/// The value in force for a topic key, as text.
pub(crate) fn effective(
    broker: &Config,
    overrides: &BTreeMap<String, String>,
    name: &str,
) -> String {
    match overrides.get(name) {
        Some(value) => value.clone(),
        None => broker_default(broker, name),
    }
}

/// What a topic key is without an override.
pub(super) fn broker_default(broker: &Config, name: &str) -> String {
    match name {
        "retention.ms" => broker.retention_ms().to_string(),
        "segment.ms" => broker.roll_ms().to_string(),
        _ => match topic_row(name) {
            Some(row) => {
                // A broker's setting without a default of its own leaves the topic's.
                let set = row.broker.map(|key| broker.get(key));
                let set = set.filter(|(text, origin)| {
                    *origin != super::broker::Origin::Default || !text.is_empty()
                });
                set.map_or(row.default, |(text, _)| text).to_owned()
            }
            None => String::new(),
        },
    }
}

/// An override as it is kept; the error is the text that the client gets.
pub(crate) fn canonical_override(name: &str, value: &str) -> Result<String, String> {
    let Some(row) = topic_row(name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    let value = canonical(row.name, row.kind, row.bounds, value)?;
    match name {
        RESTORE => drop(Restore::parse(&value)?),
        MOUNT => drop(Mount::parse(&value)?),
        _ => {}
    }
    Ok(value)
}

/// Checks what a topic's overrides are together, as Kafka does; `before` is what they were.
pub(crate) fn check_topic(
    topic: &str,
    broker: &Config,
    before: &BTreeMap<String, String>,
    overrides: &BTreeMap<String, String>,
) -> Result<(), String> {
    let was_tiered = TopicConfig::resolve(broker, before).is_tiered;
    let config = TopicConfig::resolve(broker, overrides);
    let (low, high) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
    if low > high {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({low}) > max.compaction.lag.ms ({high})"
        ));
    }
    if let Some(mount) = &config.mount {
        let is_tiered =
            effective(broker, overrides, "remote.storage.enable").eq_ignore_ascii_case("true");
        return mount.check(broker, is_tiered || config.is_restored);
    }
    if config.is_restored && !config.is_tiered {
        return Err(format!(
            "{RESTORE} brings back what is in object storage: set remote.storage.enable=true, or delete {RESTORE}."
        ));
    }
    if !config.is_tiered {
        return if was_tiered && !config.is_deleted_on_disable {
            Err("It is invalid to disable remote storage without deleting remote data. If you want to keep the remote data and \
                 turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. If you want to \
                 disable remote storage and delete all remote data, please set \
                 `remote.storage.enable=false,remote.log.delete.on.disable=true`."
                .to_owned())
        } else {
            Ok(())
        };
    }
    if broker.text("remote.storage.url").is_empty() {
        return Err("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote \
                    log storage: set remote.storage.url."
            .to_owned());
    }
    if topic == OFFSETS_TOPIC {
        return Err(format!("Remote log storage is unsupported for the internal topic {topic}"));
    }
    for (name, local, whole) in [
        ("retention.ms", config.local_retention_ms, config.retention_ms),
        ("retention.bytes", config.local_retention_bytes, config.retention_bytes),
    ] {
        let whole = if config.is_deleted { whole } else { -1 };
        if whole >= 0 && (local > whole || local == -1) {
            return Err(format!(
                "Invalid value {local} for configuration local.{name}: Value must not be more than {name} property value: \
                 {whole}"
            ));
        }
        if !config.is_copied && local != whole {
            return Err(format!(
                "When `remote.log.copy.disable` is set to true, the `local.{name}` and `{name}` must be set to the identical \
                 value because there will be no more logs copied to the remote storage."
            ));
        }
    }
    if config.copy_lag_ms < 0 && config.copy_lag_bytes < 0 {
        return Err("With remote.copy.lag.ms and remote.copy.lag.bytes both -1 nothing would ever be copied to object \
                    storage."
            .to_owned());
    }
    let (lag, local) = (config.copy_lag_ms, config.local_retention_ms);
    if local >= 0 && lag > local {
        return Err(format!(
            "Invalid value {lag} for configuration remote.copy.lag.ms: Value must not be more than local.retention.ms \
             property value: {local}"
        ));
    }
    Ok(())
}

/// Checks what a broker's settings are together, as Kafka does when they change while it runs.
pub(crate) fn check_broker(broker: &Config) -> Result<(), String> {
    const LOCAL: &str = "log.local.retention.ms";
    const LAG: &str = "log.remote.copy.lag.ms";
    let refused = |name: &str, value: i64, why: String| {
        Err(format!("Invalid value {value} for configuration {name}: {why}"))
    };
    let whole = broker.retention_ms();
    let local = match broker.long(LOCAL) {
        AS_WHOLE => whole,
        -1 if whole >= 0 => {
            return refused(
                LOCAL,
                -1,
                format!("Value must not be -1 as log.retention.ms value is set as {whole}."),
            );
        }
        local if whole >= 0 && local > whole => {
            return refused(
                LOCAL,
                local,
                format!("Value must not be more than log.retention.ms property value: {whole}"),
            );
        }
        local => local,
    };
    let lag = broker.long(LAG);
    if local >= 0 && lag > local {
        return refused(
            LAG,
            lag,
            format!("Value must not exceed log.local.retention.ms (effective value: {local})"),
        );
    }
    Ok(())
}

/// The value of a list after APPEND (`add`) or SUBTRACT; `Err` if the key is no list.
pub(crate) fn edit_list(
    name: &str,
    current: &str,
    change: &str,
    add: bool,
) -> Result<String, String> {
    let is_list = TOPIC_ROWS.iter().any(|row| {
        row.name == name && matches!(row.kind, Kind::List | Kind::Words(_) | Kind::Pairs)
    }) || broker_row(name)
        .is_some_and(|row| matches!(row.kind, Kind::List | Kind::Words(_) | Kind::Pairs));
    if !is_list {
        let verb = if add { "APPEND" } else { "SUBTRACT" };
        return Err(format!("Can't {verb} to key {name} because its type is not LIST."));
    }
    let mut all = items(current);
    for item in change.split(',').map(str::trim) {
        if !add {
            all.retain(|old| *old != item);
        } else if !all.contains(&item) {
            all.push(item);
        }
    }
    Ok(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::model::TopicId;

    #[test]
    fn an_override_beats_the_broker_and_the_broker_beats_the_default() {
        let mut broker = Config::default();
        broker.set("log.retention.hours", "1", Origin::File).expect("set");
        let mut overrides = BTreeMap::new();
        let config = TopicConfig::resolve(&broker, &overrides);
        assert_eq!(
            (config.retention_ms, config.is_compacted, config.is_deleted),
            (3_600_000, false, true)
        );
        overrides.insert("retention.ms".to_owned(), "5".to_owned());
        overrides.insert("cleanup.policy".to_owned(), "compact,delete".to_owned());
        let config = TopicConfig::resolve(&broker, &overrides);
        assert_eq!((config.retention_ms, config.is_compacted, config.is_deleted), (5, true, true));
    }

    #[test]
    fn a_topic_that_is_copied_from_apache_kafka_is_made_as_it_was_there() {
        let mut overrides = BTreeMap::new();
        for (name, value) in [
            ("compression.gzip.level", "8"),
            ("compression.zstd.level", "-3"),
            ("compression.lz4.level", "17"),
            ("preallocate", "TRUE"),
            ("retention.bytes", "-9"),
            ("cleanup.policy", ""),
            ("errors.deadletterqueue.group.enable", "true"),
        ] {
            let kept = canonical_override(name, value).expect(name);
            overrides.insert(name.to_owned(), kept);
        }
        let broker = Config::default();
        assert_eq!(check_topic("t", &broker, &BTreeMap::new(), &overrides), Ok(()));
        let config = TopicConfig::resolve(&broker, &overrides);
        assert_eq!(config.levels, Levels { gzip: 8, zstd: -3 });
        assert_eq!((config.preallocate, config.retention_bytes), (true, -1));
        assert_eq!((config.is_compacted, config.is_deleted), (false, false));
        assert_eq!((config.flush_ms, config.segment_jitter_ms), (i64::MAX, 0));
    }

    #[test]
    fn nothing_must_be_compacted_before_it_may_be() {
        let lags = |low: &str, high: &str| {
            let set = [("min.compaction.lag.ms", low), ("max.compaction.lag.ms", high)];
            let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
            check_topic("t", &Config::default(), &BTreeMap::new(), &BTreeMap::from(set))
        };
        assert_eq!(lags("70", "70"), Ok(()));
        assert!(lags("71", "70").expect_err("a conflict").contains("conflict"));
    }

    #[test]
    fn a_topic_is_tiered_only_where_there_is_a_bucket_and_stays_so() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let mut broker = Config::default();
        let (none, tiered) = (map(&[]), map(&[("remote.storage.enable", "true")]));
        let refused = check_topic("t", &broker, &none, &tiered).expect_err("no bucket");
        assert!(refused.contains("remote.storage.url"), "{refused}");
        broker.set("remote.storage.url", "file:x", Origin::File).expect("set");
        assert_eq!(check_topic("t", &broker, &none, &tiered), Ok(()));
        assert!(
            check_topic("t", &broker, &tiered, &none)
                .expect_err("off")
                .contains("invalid to disable")
        );
        for (name, value) in [("local.retention.ms", "604800001"), ("local.retention.ms", "-1")] {
            let mut wrong = tiered.clone();
            wrong.insert(name.to_owned(), value.to_owned());
            assert!(check_topic("t", &broker, &none, &wrong).is_err(), "{name}={value}");
        }
        let mut off = map(&[("remote.log.delete.on.disable", "true")]);
        assert_eq!(check_topic("t", &broker, &tiered, &off), Ok(()));
        off.insert(RESTORE.to_owned(), format!("{}@1", TopicId::from_u128(1)));
        assert!(check_topic("t", &broker, &tiered, &off).expect_err("restored").contains(RESTORE));
        let mut frozen = tiered.clone();
        frozen.insert("remote.log.copy.disable".to_owned(), "true".to_owned());
        assert_eq!(check_topic("t", &broker, &tiered, &frozen), Ok(()));
        frozen.insert("local.retention.ms".to_owned(), "5".to_owned());
        let refused = check_topic("t", &broker, &tiered, &frozen).expect_err("what is not copied");
        assert!(refused.contains("identical"), "{refused}");
        let mut late = tiered.clone();
        late.insert("remote.copy.lag.ms".to_owned(), "-1".to_owned());
        assert!(
            check_topic("t", &broker, &none, &late).expect_err("never").contains("nothing would")
        );
        late.insert("remote.copy.lag.bytes".to_owned(), "7".to_owned());
        assert_eq!(check_topic("t", &broker, &none, &late), Ok(()));
        late.insert("remote.copy.lag.ms".to_owned(), "604800001".to_owned());
        assert!(
            check_topic("t", &broker, &none, &late).expect_err("late").contains("must not be more")
        );
        late.insert("remote.copy.lag.ms".to_owned(), "-2".to_owned());
        assert_eq!(check_topic("t", &broker, &none, &late), Ok(()));
        assert_eq!(TopicConfig::resolve(&broker, &late).copy_lag_ms, 604_800_000);
        let short = map(&[("remote.storage.enable", "true"), ("local.retention.ms", "5")]);
        assert_eq!(check_topic("t", &broker, &none, &short), Ok(()));
        let config = TopicConfig::resolve(&broker, &short);
        assert_eq!((config.local_retention_ms, config.local_retention_bytes), (5, -1));
    }

    #[test]
    fn lists_grow_and_shrink_and_numbers_do_not() {
        assert_eq!(
            edit_list("cleanup.policy", "compact", "delete", true),
            Ok("compact,delete".to_owned())
        );
        assert_eq!(
            edit_list("cleanup.policy", "compact,delete", "delete", false),
            Ok("compact".to_owned())
        );
        let error = edit_list("retention.ms", "1", "5", true).expect_err("no list");
        assert_eq!(error, "Can't APPEND to key retention.ms because its type is not LIST.");
        assert_eq!(edit_list("cleanup.policy", "delete", "delete", false), Ok(String::new()));
    }
}
