//! The table of settings: Kafka's names where Kafka has the setting, our own where it has not.
//!
//! Invariants: sorted by name; a topic row names the broker row that is its default.

/// The type of a value; numbers are DescribeConfigs' (KIP-569).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Str,
    Int,
    Long,
    Double,
    List,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these words.
    Words(&'static [&'static str]),
    /// Partitions and brokers, as `0:1,0:2`, or `*`.
    Pairs,
}

/// A broker setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// Smallest and largest number allowed.
    pub bounds: (i64, i64),
    /// Whether it can change while the broker runs.
    pub dynamic: bool,
    pub text: &'static str,
}

/// A topic setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopicRow {
    pub name: &'static str,
    pub kind: Kind,
    /// The broker setting that is its default; `None` where only `default` is.
    pub broker: Option<&'static str>,
    pub default: &'static str,
    pub bounds: (i64, i64),
    pub text: &'static str,
}

const MAX: i64 = i64::MAX;
const MIN: i64 = i64::MIN;
const INT: i64 = 2_147_483_647;
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const POLICIES: &[&str] = &["compact", "delete"];
const ROLES: &[&str] = &["broker", "controller"];
const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];

const CLIENT_AUTH: &[&str] = &["none", "requested", "required"];
const STORE_TYPES: &[&str] = &["PEM"];

const VALIDATIONS: &[&str] = &["records", "headers"];
const SELECTORS: &[&str] = &["", "org.apache.kafka.common.replica.RackAwareReplicaSelector"];

macro_rules! rows {
    ($($name:literal $kind:expr, $default:literal, $low:expr, $high:expr, $dynamic:literal, $text:literal;)*) => {
        &[$(Row { name: $name, kind: $kind, default: $default, bounds: ($low, $high), dynamic: $dynamic, text: $text },)*]
    };
}

macro_rules! topic_rows {
    ($($name:literal $kind:expr, $broker:expr, $default:literal, $low:expr, $high:expr, $text:literal;)*) => {
        &[$(TopicRow {
            name: $name, kind: $kind, broker: $broker, default: $default, bounds: ($low, $high), text: $text,
        },)*]
    };
}

use Kind::{Bool, Double, Int, List, Long, Pairs, Str, Word, Words};

/// Every broker setting.
pub(crate) const BROKER_ROWS: &[Row] = rows! {
    "advertised.listeners" List, "", 0, 0, false, "Addresses that clients are told, as NAME://host:port; empty: the listeners' own.";
    "auto.create.topics.enable" Bool, "true", 0, 0, false, "Make a topic when a client that allows it asks for its metadata.";
    "auto.leader.rebalance.enable" Bool, "true", 0, 0, true, "Whether leaders go back to the first of their replicas by themselves.";
    "broker.drain" Bool, "false", 0, 0, true, "Set for one broker: it leads nothing and gets no new replicas (strandline broker drain).";
    "broker.heartbeat.interval.ms" Int, "200", 10, INT, false, "How often a broker shows the controller that it is alive.";
    "broker.partitions.max" Int, "0", 0, INT, true, "Most replicas on a broker; what would make more is refused. 0: as many as its machine holds by its descriptors (ulimit -n) and memory.";
    "broker.rack" Str, "", 0, 0, false, "The rack or zone of this broker, shown in metadata.";
    "broker.session.timeout.ms" Int, "1200", 50, INT, false, "A broker that was not heard of for this long is fenced: others lead what it led.";
    "client.memory.max.bytes" Long, "0", 0, MAX, false, "Memory that is kept for clients besides requests in progress: members of groups, fetches that wait, fetch sessions, answers that are not taken; half of it for one address. 0: an eighth of the machine's.";
    "cluster.partitions.max" Int, "200000", 1, INT, true, "Most partitions in the cluster; what would make more is refused.";
    "compression.gzip.level" Int, "-1", -1, 9, true, "Level of gzip where the broker compresses (compression.type); -1: gzip's own.";
    "compression.lz4.level" Int, "9", 1, 17, true, "Kept for whoever copies settings: lz4 has one level here, the fast one.";
    "compression.type" Word(CODECS), "producer", 0, 0, true, "Codec of stored batches; producer keeps what the client sent.";
    "compression.zstd.level" Int, "3", -(1 << 17), 22, true, "Level of zstd where the broker compresses (compression.type).";
    "connections.max.idle.ms" Long, "600000", 1, MAX, false, "A connection without traffic is closed after this time.";
    "controller.listener.names" List, "CONTROLLER", 0, 0, false, "Listeners that other nodes of the cluster talk to; clients are not told of them.";
    "controller.quorum.bootstrap.servers" List, "", 0, 0, false, "Where a node that is not one of the first voters finds them, as host:port of controller listeners.";
    "controller.quorum.election.timeout.ms" Int, "600", 60, INT, false, "Voters that have not heard of a leader for this long elect one.";
    "controller.quorum.voters" List, "", 0, 0, false, "The voters of the metadata quorum, as id@host:port of their controller listeners; empty: this node alone.";
    "default.replication.factor" Int, "3", 1, 32767, false, "Replication factor of a topic made without one; all brokers where there are fewer.";
    "delete.topic.enable" Bool, "true", 0, 0, false, "Whether DeleteTopics is allowed.";
    "fetch.max.bytes" Int, "57671680", 1024, INT, false, "Most bytes in the answer of one fetch.";
    "follower.replication.throttled.rate" Long, "9223372036854775807", 1, MAX, true, "Most bytes a second that throttled replicas on this broker fetch (follower.replication.throttled.replicas).";
    "group.initial.rebalance.delay.ms" Int, "3000", 0, INT, false, "How long the first join of an empty group waits for more members.";
    "group.max.session.timeout.ms" Int, "1800000", 1, INT, false, "Largest session timeout a member may ask for.";
    "group.max.size" Int, "2147483647", 1, INT, false, "Most members in one group.";
    "group.min.session.timeout.ms" Int, "6000", 1, INT, false, "Smallest session timeout a member may ask for.";
    "http.allowed.hosts" List, "localhost", 0, 0, false, "Names by which HTTP may be asked (Host, Origin), besides addresses and the names of advertised.listeners; *: any.";
    "http.listen" Str, "127.0.0.1:8080", 0, 0, false, "Address of health, metrics and admin over HTTP; empty: none.";
    "inter.broker.listener.name" Str, "", 0, 0, false, "The listener that followers fetch from; empty: the first one.";
    "leader.imbalance.check.interval.seconds" Long, "300", 1, MAX, false, "How often leaders go back to the first of their replicas.";
    "leader.replication.throttled.rate" Long, "9223372036854775807", 1, MAX, true, "Most bytes a second that leaders on this broker send to throttled replicas (leader.replication.throttled.replicas).";
    "listener.security.protocol.map" List, "", 0, 0, false, "PLAINTEXT or SSL for each listener, as NAME:PROTOCOL; without it listeners are named by their protocol, and those of controllers speak plainly if all do.";
    "listeners" List, "PLAINTEXT://127.0.0.1:9092", 0, 0, false, "Addresses to listen on, as NAME://host:port; port 0 picks a free one.";
    "log.cleaner.backoff.ms" Long, "15000", 1, MAX, true, "Pause of the cleaner when there is nothing to compact.";
    "log.cleaner.dedupe.buffer.size" Long, "134217728", 1 << 20, MAX, true, "Memory for the cleaner's table of keys, in bytes.";
    "log.cleaner.delete.retention.ms" Long, "86400000", 0, MAX, true, "How long a tombstone stays readable.";
    "log.cleaner.enable" Bool, "true", 0, 0, false, "Whether compacted topics are compacted.";
    "log.cleaner.io.max.bytes.per.second" Double, "1.7976931348623157E308", 0, MAX, true, "Most bytes that the cleaner reads and writes in a second.";
    "log.cleaner.max.compaction.lag.ms" Long, "9223372036854775807", 1, MAX, true, "A record is compacted after this time at the latest.";
    "log.cleaner.min.cleanable.ratio" Double, "0.5", 0, 1, true, "Share of a log that must be dirty before it is compacted.";
    "log.cleaner.min.compaction.lag.ms" Long, "0", 0, MAX, true, "A record stays uncompacted for at least this time.";
    "log.cleanup.policy" Words(POLICIES), "delete", 0, 0, true, "Delete old segments, compact by key, or both.";
    "log.dirs" List, "./data", 0, 0, false, "Folders of the logs, separated by commas.";
    "log.dirs.min.free.bytes" Long, "268435456", 0, MAX, true, "Producers are refused while a log directory's file system has less room than this.";
    "log.flush.interval.messages" Long, "9223372036854775807", 1, MAX, true, "Flush a log after this many records, where write.caching is on.";
    "log.flush.interval.ms" Long, "", 0, MAX, true, "Flush a log when a record has been unflushed for this time, where write.caching is on.";
    "log.index.interval.bytes" Int, "4096", 0, INT, true, "Bytes of log between two entries of the offset index.";
    "log.index.size.max.bytes" Int, "10485760", 4, INT, true, "Size of an offset index at which its segment is rolled.";
    "log.local.retention.bytes" Long, "-2", -2, MAX, true, "Size of a tiered partition on local disk above which segments that are in object storage are deleted there; -1: no limit, -2: log.retention.bytes.";
    "log.local.retention.ms" Long, "-2", -2, MAX, true, "Age at which segments of a tiered partition that are in object storage are deleted on local disk; -1: never, -2: log.retention.ms.";
    "log.message.timestamp.after.max.ms" Long, "3600000", 0, MAX, true, "How far a record's timestamp may lie in the future.";
    "log.message.timestamp.before.max.ms" Long, "9223372036854775807", 0, MAX, true, "How far a record's timestamp may lie in the past.";
    "log.message.timestamp.type" Word(TIMESTAMP_TYPES), "CreateTime", 0, 0, true, "Whose clock stamps records.";
    "log.preallocate" Bool, "false", 0, 0, true, "Reserve the room of a whole segment (log.segment.bytes) with its first record, where the file system can; what is left over is given back when it is closed.";
    "log.record.validation" Word(VALIDATIONS), "records", 0, 0, true, "How far batches from producers are looked at (record.validation).";
    "log.remote.copy.lag.bytes" Long, "-1", -2, MAX, true, "A closed segment is copied to object storage once this much comes after it (remote.copy.lag.bytes).";
    "log.remote.copy.lag.ms" Long, "0", -2, MAX, true, "A record is copied to object storage once it is this old (remote.copy.lag.ms).";
    "log.retention.bytes" Long, "-1", MIN, MAX, true, "Size of a partition above which old segments are deleted; negative: no limit.";
    "log.retention.check.interval.ms" Long, "300000", 1, MAX, false, "Pause between two looks for segments to delete.";
    "log.retention.hours" Int, "168", -1, INT, false, "Age at which segments are deleted, if neither minutes nor ms are set.";
    "log.retention.minutes" Int, "", -1, INT, false, "Age at which segments are deleted, if ms is not set.";
    "log.retention.ms" Long, "", MIN, MAX, true, "Age at which segments are deleted; negative: never.";
    "log.roll.hours" Int, "168", 1, INT, false, "Age at which a segment is rolled, if ms is not set.";
    "log.roll.jitter.ms" Long, "", 0, MAX, true, "Random time taken off the age at which a segment is rolled.";
    "log.roll.ms" Long, "", 1, MAX, true, "Age at which a segment is rolled.";
    "log.segment.bytes" Int, "1073741824", 1 << 20, INT, true, "Size at which a segment is rolled.";
    "log.segment.delete.delay.ms" Long, "60000", 0, MAX, true, "How long a deleted segment's files stay.";
    "max.auto.create.topics.rate" Int, "50", 1, INT, true, "Most topics that this broker makes in a second because clients ask for their metadata (auto.create.topics.enable), and ten times as many at once; others wait for their turn.";
    "max.auto.create.topics.rate.per.ip" Int, "10", 1, INT, true, "The same for one address.";
    "max.connection.creation.rate" Int, "2147483647", 1, INT, true, "Most new connections accepted in a second.";
    "max.connections" Int, "2147483647", 1, INT, true, "Most connections at a time; never more than half of the files that the process may open.";
    "max.connections.per.ip" Int, "2147483647", 1, INT, true, "Most connections at a time from one address.";
    "max.decompressed.message.bytes" Int, "2147483639", 1, 2_147_483_639, true, "Most bytes that a compressed batch may yield.";
    "max.incremental.fetch.session.cache.slots" Int, "1000", 0, INT, false, "Most fetch sessions kept.";
    "message.max.bytes" Int, "1048588", 0, INT, true, "Largest record batch, as compressed by the client.";
    "min.insync.replicas" Int, "2", 1, INT, true, "Replicas that must have a record before acks=all is answered; all of them where a topic has fewer.";
    "node.id" Int, "1", 0, INT, false, "Identity of this node in its cluster.";
    "num.partitions" Int, "1", 1, INT, false, "Partitions of a topic made without a number.";
    "num.recovery.threads.per.data.dir" Int, "2", 1, INT, false, "Threads that open logs at start.";
    "offset.metadata.max.bytes" Int, "4096", 0, INT, false, "Largest metadata string of a committed offset.";
    "offsets.retention.check.interval.ms" Long, "600000", 1, MAX, false, "Pause between two looks for offsets to expire.";
    "offsets.retention.minutes" Int, "10080", 1, INT, false, "How long offsets of an empty group are kept.";
    "offsets.topic.num.partitions" Int, "50", 1, INT, false, "Partitions of __consumer_offsets, fixed when it is made.";
    "offsets.topic.segment.bytes" Int, "104857600", 1, INT, false, "Segment size of __consumer_offsets.";
    "process.roles" Words(ROLES), "broker,controller", 0, 0, false, "Whether this node keeps records, takes part in the metadata quorum, or both.";
    "producer.id.expiration.ms" Int, "86400000", 1, INT, true, "How long an idle producer's sequence is remembered.";
    "queued.max.request.bytes" Long, "268435456", 1 << 20, MAX, false, "Bytes of requests in progress on all connections, beyond which sockets are not read.";
    "remote.fetch.cache.bytes" Long, "134217728", 1 << 24, MAX, false, "Memory for what was read from object storage.";
    "remote.fetch.disk.cache.bytes" Long, "10737418240", 1 << 24, MAX, false, "How much of what was read from object storage stays in remote.fetch.disk.cache.dir.";
    "remote.fetch.disk.cache.dir" Str, "", 0, 0, false, "Folder, of this broker alone, for what was read from object storage and no longer fits into remote.fetch.cache.bytes; empty: none.";
    "remote.log.manager.copier.thread.pool.size" Int, "4", 1, 1000, false, "Partitions whose segments are copied to object storage at the same time; each holds 8 MiB while it does.";
    "remote.log.manager.copy.max.bytes.per.second" Long, "9223372036854775807", 1, MAX, true, "Most bytes a second that are copied to object storage.";
    "remote.log.manager.fetch.max.bytes.per.second" Long, "9223372036854775807", 1, MAX, true, "Most bytes a second that are read from object storage for readers.";
    "remote.log.manager.task.interval.ms" Long, "2000", 100, MAX, false, "How often it is looked for segments to copy to object storage, and for what to delete there.";
    "remote.storage.certificates" Str, "", 0, 0, false, "PEM file of certificates that the object storage is trusted by, beside the operating system's.";
    "remote.storage.encryption.keys" Str, "", 0, 0, false, "File of keys that wrap the keys of what is written to object storage, as lines of ID=BASE64 (32 bytes, strandline tier key makes one): the first one wraps what is new; none as the first line: nothing new is encrypted. Read again when it changes; empty: no encryption.";
    "remote.storage.mount.refresh.ms" Long, "10000", 100, MAX, false, "How often it is looked what the clusters have written that mounted topics are of.";
    "remote.storage.mount.urls" List, "", 0, 0, false, "Buckets of other clusters that topics may be mounted from (strandline tier mount), as remote.storage.url; remote.storage.options counts for those of the same kind of store as remote.storage.url. All brokers of a cluster name the same.";
    "remote.storage.options" List, "", 0, 0, false, "Options of the object storage as KEY=VALUE, e.g. aws_endpoint=http://localhost:9000; what is not given comes from the environment, a web identity, or the machine.";
    "remote.storage.url" Str, "", 0, 0, false, "Object storage for topics with remote.storage.enable: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:FOLDER; empty: none.";
    "replica.alter.log.dirs.io.max.bytes.per.second" Long, "9223372036854775807", 1, MAX, true, "Most bytes a second that are copied between log directories of this broker.";
    "replica.fetch.max.bytes" Int, "1048576", 1, INT, false, "Most bytes of one partition in the answer to a follower, but for the first batch.";
    "replica.fetch.response.max.bytes" Int, "10485760", 1, INT, false, "Most bytes in the answer to a follower, but for the first batch.";
    "replica.fetch.wait.max.ms" Int, "500", 1, INT, false, "How long a leader may wait for new records before it answers a follower.";
    "replica.lag.time.max.ms" Long, "30000", 100, MAX, true, "A follower that did not reach the end of the log for this long leaves the ISR.";
    "replica.selector.class" Word(SELECTORS), "", 0, 0, false, "Whether consumers that name their rack (client.rack) are sent to a follower in sync there; empty: they read from leaders.";
    "socket.request.max.bytes" Int, "104857600", 1, INT, false, "Largest request.";
    "ssl.client.auth" Word(CLIENT_AUTH), "none", 0, 0, false, "Whether clients of listeners with TLS show certificates; on controller listeners both sides always do.";
    "ssl.keystore.location" Str, "", 0, 0, false, "PEM file with this node's private key (not encrypted) and its chain of certificates; read again when it changes.";
    "ssl.keystore.type" Word(STORE_TYPES), "PEM", 0, 0, false, "What ssl.keystore.location is.";
    "ssl.truststore.location" Str, "", 0, 0, false, "PEM file with the certificates that sign those of other nodes and of clients; read again when it changes.";
    "ssl.truststore.type" Word(STORE_TYPES), "PEM", 0, 0, false, "What ssl.truststore.location is.";
    "unclean.leader.election.enable" Bool, "false", 0, 0, true, "Whether a replica out of sync may lead when no other is left.";
    "write.caching" Bool, "false", 0, 0, true, "Count written bytes as replicated (as Apache Kafka does) instead of flushed ones.";
};

/// Every topic setting.
pub(crate) const TOPIC_ROWS: &[TopicRow] = topic_rows! {
    "cleanup.policy" Words(POLICIES), Some("log.cleanup.policy"), "delete", 0, 0, "Delete old segments, compact by key, or both.";
    "compression.gzip.level" Int, Some("compression.gzip.level"), "-1", -1, 9, "Level of gzip where the broker compresses (compression.type); -1: gzip's own.";
    "compression.lz4.level" Int, Some("compression.lz4.level"), "9", 1, 17, "Kept for whoever copies topics: lz4 has one level here, the fast one.";
    "compression.type" Word(CODECS), Some("compression.type"), "producer", 0, 0, "Codec of stored batches; producer keeps what the client sent.";
    "compression.zstd.level" Int, Some("compression.zstd.level"), "3", -(1 << 17), 22, "Level of zstd where the broker compresses (compression.type).";
    "delete.retention.ms" Long, Some("log.cleaner.delete.retention.ms"), "86400000", 0, MAX, "How long a tombstone stays readable.";
    "errors.deadletterqueue.group.enable" Bool, None, "false", 0, 0, "Kept for whoever copies topics: whether share groups may put records here that nobody could process. There are no share groups.";
    "file.delete.delay.ms" Long, Some("log.segment.delete.delay.ms"), "60000", 0, MAX, "How long a deleted segment's files stay.";
    "flush.messages" Long, Some("log.flush.interval.messages"), "9223372036854775807", 1, MAX, "Flush after this many records, where write.caching is on.";
    "flush.ms" Long, Some("log.flush.interval.ms"), "9223372036854775807", 0, MAX, "Flush when a record has been unflushed for this time, where write.caching is on.";
    "follower.replication.throttled.replicas" Pairs, None, "", 0, 0, "Replicas that fetch at follower.replication.throttled.rate while they are not in sync, as partition:broker pairs, or * for all.";
    "index.interval.bytes" Int, Some("log.index.interval.bytes"), "4096", 0, INT, "Bytes of log between two entries of the offset index.";
    "leader.replication.throttled.replicas" Pairs, None, "", 0, 0, "Replicas that are sent records at leader.replication.throttled.rate while they are not in sync, as partition:broker pairs, or * for all.";
    "local.retention.bytes" Long, Some("log.local.retention.bytes"), "-2", -2, MAX, "Size of a tiered partition on local disk above which segments that are in object storage are deleted there; -1: no limit, -2: retention.bytes.";
    "local.retention.ms" Long, Some("log.local.retention.ms"), "-2", -2, MAX, "Age at which segments of a tiered partition that are in object storage are deleted on local disk; -1: never, -2: retention.ms.";
    "max.compaction.lag.ms" Long, Some("log.cleaner.max.compaction.lag.ms"), "9223372036854775807", 1, MAX, "A record is compacted after this time at the latest.";
    "max.decompressed.message.bytes" Int, Some("max.decompressed.message.bytes"), "2147483639", 1, 2_147_483_639, "Most bytes that a compressed batch may yield.";
    "max.message.bytes" Int, Some("message.max.bytes"), "1048588", 0, INT, "Largest record batch, as compressed by the client.";
    "message.timestamp.after.max.ms" Long, Some("log.message.timestamp.after.max.ms"), "3600000", 0, MAX, "How far a record's timestamp may lie in the future.";
    "message.timestamp.before.max.ms" Long, Some("log.message.timestamp.before.max.ms"), "9223372036854775807", 0, MAX, "How far a record's timestamp may lie in the past.";
    "message.timestamp.type" Word(TIMESTAMP_TYPES), Some("log.message.timestamp.type"), "CreateTime", 0, 0, "Whose clock stamps records.";
    "min.cleanable.dirty.ratio" Double, Some("log.cleaner.min.cleanable.ratio"), "0.5", 0, 1, "Share of the log that must be dirty before it is compacted.";
    "min.compaction.lag.ms" Long, Some("log.cleaner.min.compaction.lag.ms"), "0", 0, MAX, "A record stays uncompacted for at least this time.";
    "min.insync.replicas" Int, Some("min.insync.replicas"), "2", 1, INT, "Replicas that must have a record before acks=all is answered; all of them where there are fewer.";
    "preallocate" Bool, Some("log.preallocate"), "false", 0, 0, "Reserve the room of a whole segment (segment.bytes) with its first record, where the file system can; what is left over is given back when it is closed.";
    "record.validation" Word(VALIDATIONS), Some("log.record.validation"), "records", 0, 0, "How far batches from producers are looked at: records walks every record, so that none is stored that a client can't read; headers stops at the checksum, as long as nothing else needs the records (compaction, compression.type, a suspicious timestamp).";
    "remote.copy.lag.bytes" Long, Some("log.remote.copy.lag.bytes"), "-1", -2, MAX, "A closed segment is copied to object storage once this much comes after it, if it is not old enough before (remote.copy.lag.ms); -1: whatever comes after it, -2: local.retention.bytes.";
    "remote.copy.lag.ms" Long, Some("log.remote.copy.lag.ms"), "0", -2, MAX, "A record is copied to object storage once it is this old, and its segment is closed for that; 0: as soon as its segment is closed, -1: whenever remote.copy.lag.bytes says, -2: local.retention.ms.";
    "remote.log.copy.disable" Bool, None, "false", 0, 0, "Whether a tiered topic copies nothing more to object storage; what is there is read on, and expires.";
    "remote.log.delete.on.disable" Bool, None, "false", 0, 0, "Whether what is in object storage is deleted when remote.storage.enable is set to false, which is refused without it.";
    "remote.storage.enable" Bool, None, "false", 0, 0, "Whether closed segments are copied to object storage (remote.storage.url), and read there once they are gone here.";
    "remote.storage.mount" Str, None, "", 0, 0, "Set where strandline tier mount makes a topic: whose records it shows, read only, as ID:TOPIC@URL, of a topic in the bucket of another cluster. URL is one of remote.storage.mount.urls.";
    "remote.storage.restore" Str, None, "", 0, 0, "Set where strandline tier restore makes a topic: the id that it has in the bucket, and the leader epoch that its partitions begin with, as ID@EPOCH. Until its log has begun where the bucket's ends, it takes no records.";
    "retention.bytes" Long, Some("log.retention.bytes"), "-1", MIN, MAX, "Size of a partition above which old segments are deleted; negative: no limit.";
    "retention.ms" Long, Some("log.retention.ms"), "604800000", -1, MAX, "Age at which segments are deleted; -1: never.";
    "segment.bytes" Int, Some("log.segment.bytes"), "1073741824", 1 << 20, INT, "Size at which a segment is rolled.";
    "segment.index.bytes" Int, Some("log.index.size.max.bytes"), "10485760", 4, INT, "Size of an offset index at which its segment is rolled.";
    "segment.jitter.ms" Long, Some("log.roll.jitter.ms"), "0", 0, MAX, "Random time taken off the age at which a segment is rolled.";
    "segment.ms" Long, Some("log.roll.ms"), "604800000", 1, MAX, "Age at which a segment is rolled.";
    "unclean.leader.election.enable" Bool, Some("unclean.leader.election.enable"), "false", 0, 0, "Whether a replica out of sync may lead when no other is left.";
    "write.caching" Bool, Some("write.caching"), "false", 0, 0, "Count written bytes as replicated (as Apache Kafka does) instead of flushed ones.";
};

/// The broker row of a name.
pub(super) fn broker_row(name: &str) -> Option<&'static Row> {
    BROKER_ROWS.iter().find(|row| row.name == name)
}

/// The topic row of a name.
pub(super) fn topic_row(name: &str) -> Option<&'static TopicRow> {
    TOPIC_ROWS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::value::canonical;
    use super::*;

    #[test]
    fn rows_are_sorted_and_their_defaults_pass_their_own_check() {
        assert!(BROKER_ROWS.is_sorted_by(|a, b| a.name < b.name));
        assert!(TOPIC_ROWS.is_sorted_by(|a, b| a.name < b.name));
        for row in BROKER_ROWS.iter().filter(|row| !row.default.is_empty()) {
            let form = canonical(row.name, row.kind, row.bounds, row.default);
            assert_eq!(form.as_deref(), Ok(row.default));
        }
        for row in TOPIC_ROWS {
            if !row.default.is_empty() {
                let form = canonical(row.name, row.kind, row.bounds, row.default);
                assert_eq!(form.as_deref(), Ok(row.default));
            }
            assert!(row.broker.is_none_or(|name| broker_row(name).is_some()), "{}", row.name);
        }
    }

    #[test]
    fn a_wrong_value_gets_the_text_that_clients_know() {
        let row = topic_row("retention.ms").expect("row");
        let error = canonical(row.name, row.kind, row.bounds, "abc").expect_err("not a number");
        assert_eq!(
            error,
            "Invalid value abc for configuration retention.ms: Not a number of type LONG"
        );
        let policy = topic_row("cleanup.policy").expect("row");
        assert!(canonical(policy.name, policy.kind, policy.bounds, "compact,delete").is_ok());
        assert!(canonical(policy.name, policy.kind, policy.bounds, "compact,shred").is_err());
    }
}
