//! Questions: Versions, topics and metadata.

use std::time::Duration;

use anyhow::Result;
use kafka_protocol::messages::*;

use super::OUT;
use super::client::*;

pub(super) fn api_versions(asking: &mut Asking) -> Result<()> {
    let Asking { c, .. } = asking;
    let v = c.call(0, ApiVersionsRequest::default())?;
    say!(
        "## ApiVersions v0: {} keys\n{}",
        v.api_keys.len(),
        v.api_keys
            .iter()
            .map(|k| format!("{}:{}-{}", k.api_key, k.min_version, k.max_version))
            .collect::<Vec<_>>()
            .join(" ")
    );
    for ver in [3, 4] {
        let v = c.call(
            ver,
            ApiVersionsRequest::default()
                .with_client_software_name(s("probe"))
                .with_client_software_version(s("1")),
        )?;
        say!(
            "## ApiVersions v{ver} features: supported {:?} finalized epoch {} {:?} zk {} keys {}",
            v.supported_features
                .iter()
                .map(|f| format!("{}:{}-{}", &*f.name, f.min_version, f.max_version))
                .collect::<Vec<_>>(),
            v.finalized_features_epoch,
            v.finalized_features
                .iter()
                .map(|f| format!("{}:{}-{}", &*f.name, f.min_version_level, f.max_version_level))
                .collect::<Vec<_>>(),
            v.zk_migration_ready,
            v.api_keys.len()
        );
    }
    show(
        "ApiVersions v3 empty software name",
        C::new().call(3, ApiVersionsRequest::default()).map(|r| (r.error_code, r.api_keys.len())),
    );
    show(
        "ApiVersions v127 (raw: correlation, error, array)",
        C::new().raw(18, 127, 2, &[2, b'p', 2, b'1', 0]),
    );
    show("unknown api key 200", C::new().raw(200, 0, 2, &[0]));
    show("Produce v2", C::new().raw(0, 2, 1, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0]));
    show("Metadata v99", C::new().raw(3, 99, 2, &[0, 0, 0, 0]));
    show("LeaderAndIsr v0 (removed)", C::new().raw(4, 0, 1, &[0; 8]));
    show("Vote (controller API) on the broker listener", C::new().raw(52, 0, 2, &[0, 1, 0]));
    Ok(())
}

pub(super) fn topics(asking: &mut Asking) -> Result<()> {
    let Asking { c, stamp, t1, t2, t3, tid } = asking;
    let ct = |n: &str, p: i32, cfg: &[(&str, &str)], validate: bool| {
        use create_topics_request::*;
        CreateTopicsRequest::default()
            .with_timeout_ms(5000)
            .with_validate_only(validate)
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(topic(n))
                    .with_num_partitions(p)
                    .with_replication_factor(-1)
                    .with_configs(
                        cfg.iter()
                            .map(|(k, v)| {
                                CreatableTopicConfig::default()
                                    .with_name(s(k))
                                    .with_value(Some(s(v)))
                            })
                            .collect(),
                    ),
            ])
    };
    let r = c.call(7, ct(t1, 1, &[], false))?;
    *tid = r.topics[0].topic_id;
    let tid = *tid;
    say!(
        "## CreateTopics v7: err {} msg {:?} id {} partitions {} rf {} cfgErr {} configs {}",
        r.topics[0].error_code,
        r.topics[0].error_message,
        tid,
        r.topics[0].num_partitions,
        r.topics[0].replication_factor,
        r.topics[0].topic_config_error_code,
        r.topics[0].configs.as_ref().map_or(0, Vec::len)
    );
    say!("   first config {:?}", r.topics[0].configs.as_ref().unwrap()[0]);
    show(
        "CreateTopics again",
        c.call(7, ct(t1, 1, &[], false)).map(|r| {
            (
                r.topics[0].error_code,
                r.topics[0].error_message.clone(),
                r.topics[0].num_partitions,
                r.topics[0].topic_id,
            )
        }),
    );
    show(
        "CreateTopics validate_only new",
        c.call(7, ct("zz-new", 3, &[], true)).map(|r| {
            (
                r.topics[0].error_code,
                r.topics[0].num_partitions,
                r.topics[0].replication_factor,
                r.topics[0].topic_id,
            )
        }),
    );
    show(
        "CreateTopics bad name",
        c.call(7, ct("a/b", 1, &[], false))
            .map(|r| (r.topics[0].error_code, r.topics[0].error_message.clone())),
    );
    show(
        "CreateTopics colliding name",
        c.call(7, ct(&t1.replace('-', "_"), 1, &[], false))
            .map(|r| (r.topics[0].error_code, r.topics[0].error_message.clone())),
    );
    show(
        "CreateTopics then name with . and _ collide",
        c.call(7, ct(&format!("a_b-{stamp}"), 1, &[], false))
            .and_then(|_| c.call(7, ct(&format!("a.b-{stamp}"), 1, &[], false)))
            .map(|r| (r.topics[0].error_code, r.topics[0].error_message.clone())),
    );
    show(
        "CreateTopics unknown config",
        c.call(7, ct("zz-cfg", 1, &[("no.such", "1")], false))
            .map(|r| (r.topics[0].error_code, r.topics[0].error_message.clone())),
    );
    show(
        "CreateTopics 0 partitions",
        c.call(7, ct("zz-0", 0, &[], false))
            .map(|r| (r.topics[0].error_code, r.topics[0].error_message.clone())),
    );
    c.call(7, ct(t2, 1, &[("cleanup.policy", "compact")], false))?;
    c.call(7, ct(t3, 1, &[("message.timestamp.type", "LogAppendTime")], false))?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

pub(super) fn metadata(asking: &mut Asking) -> Result<()> {
    let Asking { c, stamp, t1, tid, .. } = asking;
    let md = |names: Option<Vec<&str>>, auto: bool| {
        use metadata_request::*;
        MetadataRequest::default().with_allow_auto_topic_creation(auto).with_topics(names.map(
            |n| {
                n.iter()
                    .map(|x| MetadataRequestTopic::default().with_name(Some(topic(x))))
                    .collect()
            },
        ))
    };
    show("Metadata v12 one topic", c.call(12, md(Some(vec![&t1]), false)));
    show(
        "Metadata v12 unknown topic, no auto create",
        c.call(12, md(Some(vec!["nope"]), false)).map(|r| r.topics),
    );
    show("Metadata v12 bad name", c.call(12, md(Some(vec!["a/b"]), false)).map(|r| r.topics));
    show(
        "Metadata v12 auto create, first answer",
        c.call(12, md(Some(vec![&format!("auto-{stamp}")]), true)).map(|r| r.topics),
    );
    std::thread::sleep(Duration::from_millis(500));
    show(
        "Metadata v12 auto create, second answer",
        c.call(12, md(Some(vec![&format!("auto-{stamp}")]), true)).map(|r| r.topics),
    );
    show("Metadata v12 empty list", c.call(12, md(Some(vec![]), false)).map(|r| r.topics.len()));
    show("Metadata v12 null list", c.call(12, md(None, false)).map(|r| r.topics.len()));
    show("Metadata v0 empty list", c.call(0, md(Some(vec![]), true)).map(|r| r.topics.len()));
    show(
        "Metadata v12 unknown topic id",
        c.call(
            12,
            MetadataRequest::default().with_topics(Some(vec![
                metadata_request::MetadataRequestTopic::default()
                    .with_name(None)
                    .with_topic_id(uuid::Uuid::from_u128(77)),
            ])),
        )
        .map(|r| r.topics),
    );
    by_id(c, t1, *tid);
    show(
        "Metadata v13 with authorized ops",
        c.call(12, md(Some(vec![&t1]), false).with_include_topic_authorized_operations(true))
            .map(|r| r.topics[0].topic_authorized_operations),
    );
    show("DescribeCluster v2", c.call(2, DescribeClusterRequest::default()));
    show(
        "DescribeCluster v2 endpoint type controller",
        c.call(2, DescribeClusterRequest::default().with_endpoint_type(2))
            .map(|r| (r.error_code, r.error_message)),
    );
    show(
        "DescribeCluster v1 endpoint type 9",
        c.call(1, DescribeClusterRequest::default().with_endpoint_type(9))
            .map(|r| (r.error_code, r.error_message)),
    );
    Ok(())
}

/// Whoever asks by id may leave a name beside it, or an empty one.
fn by_id(c: &mut C, t1: &str, tid: uuid::Uuid) {
    use metadata_request::*;
    let unknown = uuid::Uuid::from_u128(78);
    for (version, what, id, name) in [
        (13, "an id and an empty name", tid, Some("")),
        (12, "an id and its name", tid, Some(t1)),
        (12, "an id and another name", tid, Some("nope")),
        (13, "an unknown id and a name", unknown, Some(t1)),
        (12, "an unknown id and an empty name", unknown, Some("")),
        (12, "no id and an empty name", Z, Some("")),
        (11, "an id and an empty name", tid, Some("")),
        (10, "an id and no name", tid, None),
        (11, "an unknown id and a name", unknown, Some(t1)),
        (10, "neither id nor name", Z, None),
    ] {
        let wanted = MetadataRequestTopic::default().with_topic_id(id).with_name(name.map(topic));
        let asked = MetadataRequest::default().with_topics(Some(vec![wanted]));
        show(&format!("Metadata v{version} {what}"), c.call(version, asked).map(|r| r.topics));
    }
}
