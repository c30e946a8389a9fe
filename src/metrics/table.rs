//! The table of metrics: our own names, and those of kafka_exporter word for word, so that its dashboards work.

#[cfg(test)]
use std::fmt::Write;

/// What kind of values a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows; counted as things happen.
    Counter,
    /// Only grows; kept by whoever does what is counted, and looked at by a scrape.
    Total,
    Gauge,
    /// How many were at most so long, in seconds.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub id: Name,
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        /// A metric of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Name { $($id,)* }

        impl Name {
            /// What the table says of it.
            pub(super) const fn row(self) -> Row {
                let id = self;
                match id {
                    $(Name::$id => {
                        Row { id, name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }
                    })*
                }
            }
        }

        pub(super) const ROWS: &[Row] = &[$(Name::$id.row(),)*];
    };
}

metrics! {
    BuildInfo "strandline_build_info" Gauge ["version"] "Always 1; the label is the version.";
    Ready "strandline_ready" Gauge [] "1 when requests are served.";
    Requests "strandline_requests_total" Counter ["api"] "Requests by API.";
    RequestSeconds "strandline_request_seconds" Histogram ["api"] "Time from a request's arrival until its answer is ready to leave; long polls and the wait for durability are in it.";
    RefusedFrames "strandline_refused_frames_total" Counter [] "Frames that closed their connection: malformed, or of an API or version that is not served.";
    Connections "strandline_connections" Gauge [] "Open connections.";
    KeptBytes "strandline_kept_bytes" Gauge [] "Memory that is kept for clients besides requests in progress: members of groups, fetches that wait, fetch sessions, answers that are not taken. See client.memory.max.bytes.";
    RequestBytes "strandline_request_bytes_in_progress" Gauge [] "Bytes of requests in progress; see queued.max.request.bytes.";
    HeartbeatSeconds "strandline_broker_heartbeat_seconds" Histogram [] "From when a heartbeat of this broker is due until the controller has answered it. Alert when it comes near broker.session.timeout.ms.";
    FetchSessions "strandline_fetch_sessions" Gauge [] "Incremental fetch sessions.";
    OfflinePartitions "strandline_offline_partitions" Gauge [] "Partitions of the cluster without a leader, and those led here whose log can't be used. Alert above 0.";
    UnderReplicated "strandline_under_replicated_partitions" Gauge [] "Partitions led here whose replicas are not all in sync.";
    ActiveController "strandline_active_controller" Gauge [] "1 on the node that decides for the cluster. Alert when the sum is not 1.";
    FencedBrokers "strandline_fenced_brokers" Gauge [] "Registered brokers that are not heard of. Alert above 0.";
    DiscardedRecords "strandline_unclean_election_discarded_records_total" Total [] "Committed records that unclean elections took back on this broker since it started. Alert above 0.";
    UnreadRecords "strandline_failed_reads_total" Total [] "Reads of records from local disks that failed or came up short since the broker started: their partitions were answered with KAFKA_STORAGE_ERROR. Alert above 0.";
    DirectoryOffline "strandline_log_directory_offline" Gauge ["path"] "1 when the folder saw a disk error. Alert above 0.";
    DirectoryFull "strandline_log_directory_full" Gauge ["path"] "1 when producers are refused for want of room. Alert above 0.";
    DirectoryTotal "strandline_log_directory_total_bytes" Gauge ["path"] "Size of the folder's file system.";
    DirectoryUsable "strandline_log_directory_usable_bytes" Gauge ["path"] "Room left on the folder's file system.";
    PartitionBytes "strandline_partition_bytes" Gauge ["topic", "partition"] "Bytes of the partition's segments.";
    RemoteBytes "strandline_remote_bytes" Gauge ["topic", "partition"] "Bytes of the partition's records in object storage.";
    RemoteUncopiedBytes "strandline_remote_uncopied_bytes" Gauge ["topic", "partition"] "Bytes of a tiered partition that are not in object storage yet, its open segment among them.";
    RemoteUncopiedSeconds "strandline_remote_uncopied_seconds" Gauge ["topic", "partition"] "Age of the oldest record of a tiered partition that is not in object storage yet. Alert when it is far above segment.ms.";
    RemoteUnknown "strandline_remote_unknown_partitions" Gauge [] "Tiered partitions led here of which it is not known what is in object storage. Alert when it stays above 0.";
    RemoteCopiedBytes "strandline_remote_copied_bytes_total" Total [] "Bytes that this broker has copied to object storage since it started.";
    RemoteReadBytes "strandline_remote_read_bytes_total" Total [] "Bytes that this broker has read from object storage since it started.";
    RemoteReads "strandline_remote_reads_total" Total [] "Requests by which this broker has read from object storage since it started.";
    RemoteRequests "strandline_remote_requests_total" Total ["kind"] "Requests of this broker to object storage since it started, as stores bill them.";
    RemoteRequestErrors "strandline_remote_request_errors_total" Total ["reason"] "Requests of this broker to object storage that failed since it started. Conflicts are leaders that met; alert when unavailable or denied grows.";
    RemoteCacheHits "strandline_remote_cache_hits_total" Total [] "Pieces of segments in object storage that this broker wanted and found in its memory since it started.";
    RemoteDiskCacheHits "strandline_remote_disk_cache_hits_total" Total [] "Pieces of segments in object storage that this broker wanted and found on its disk (remote.fetch.disk.cache.dir) since it started.";
    RemoteOrphans "strandline_remote_orphans_removed_total" Total [] "Objects that no manifest named and that this broker removed from object storage since it started: copies that were broken off.";
    RemoteFailures "strandline_remote_failures_total" Total [] "What this broker could not copy to object storage, or read there, since it started. Alert when it grows.";
    LagSeconds "strandline_consumergroup_lag_seconds" Gauge ["consumergroup", "topic", "partition"] "Age of the oldest record that the group has not committed, of one in object storage that of its segment; 0 without lag.";
    ExporterBrokers "kafka_brokers" Gauge [] "Brokers in the cluster.";
    ExporterBrokerInfo "kafka_broker_info" Gauge ["id", "address"] "Always 1, for each broker.";
    ExporterTopicPartitions "kafka_topic_partitions" Gauge ["topic"] "Partitions of the topic.";
    ExporterCurrentOffset "kafka_topic_partition_current_offset" Gauge ["topic", "partition"] "High watermark of the partition.";
    ExporterOldestOffset "kafka_topic_partition_oldest_offset" Gauge ["topic", "partition"] "Log start offset of the partition.";
    ExporterLeader "kafka_topic_partition_leader" Gauge ["topic", "partition"] "Leader of the partition.";
    ExporterPreferred "kafka_topic_partition_leader_is_preferred" Gauge ["topic", "partition"] "1 when the first replica leads.";
    ExporterReplicas "kafka_topic_partition_replicas" Gauge ["topic", "partition"] "Replicas of the partition.";
    ExporterInSync "kafka_topic_partition_in_sync_replica" Gauge ["topic", "partition"] "Replicas in sync.";
    ExporterUnderReplicated "kafka_topic_partition_under_replicated_partition" Gauge ["topic", "partition"] "1 when replicas are out of sync.";
    ExporterGroupMembers "kafka_consumergroup_members" Gauge ["consumergroup"] "Members of the group.";
    ExporterGroupOffset "kafka_consumergroup_current_offset" Gauge ["consumergroup", "topic", "partition"] "Committed offset of the group.";
    ExporterGroupOffsetSum "kafka_consumergroup_current_offset_sum" Gauge ["consumergroup", "topic"] "Committed offsets of the group, added up over the topic.";
    ExporterGroupLag "kafka_consumergroup_lag" Gauge ["consumergroup", "topic", "partition"] "Records that the group has not committed.";
    ExporterGroupLagSum "kafka_consumergroup_lag_sum" Gauge ["consumergroup", "topic"] "Records that the group has not committed, added up over the topic.";
}

/// `docs/reference/metrics.md`.
#[cfg(test)]
pub(crate) fn reference_page() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `src/metrics/table.rs`; `UPDATE=1 cargo test tidy` rewrites it.\n\n\
         Shown at `/metrics` in Prometheus' text format. Names that begin with `kafka_` are those of kafka_exporter.\n\n\
         | name | kind | labels | what it says |\n|---|---|---|---|\n",
    );
    for row in ROWS {
        let kind = match row.kind {
            Kind::Counter | Kind::Total => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = row.labels.join(", ");
        let _ = writeln!(page, "| `{}` | {kind} | {labels} | {} |", row.name, row.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_and_only_counters_end_in_total() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
        let is_counter = |row: &Row| matches!(row.kind, Kind::Counter | Kind::Total);
        assert!(ROWS.iter().all(|row| row.name.ends_with("_total") == is_counter(row)));
    }
}
