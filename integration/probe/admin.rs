//! Questions: Settings and administration.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::*;

use super::OUT;
use super::client::*;

pub(super) fn configs(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, t2, .. } = asking;
    use describe_configs_request::*;
    let dc = |ty: i8, n: &str, keys: Option<Vec<&str>>| {
        DescribeConfigsRequest::default().with_include_synonyms(true).with_resources(vec![
            DescribeConfigsResource::default()
                .with_resource_type(ty)
                .with_resource_name(s(n))
                .with_configuration_keys(keys.map(|k| k.iter().map(|x| s(x)).collect())),
        ])
    };
    let r = c.call(4, dc(2, t2, None))?;
    say!(
        "## DescribeConfigs v4 topic: {} entries: {}",
        r.results[0].configs.len(),
        r.results[0]
            .configs
            .iter()
            .map(|c| format!(
                "{}={}({})",
                &*c.name,
                c.value.as_ref().map_or("null".into(), ToString::to_string),
                c.config_source
            ))
            .collect::<Vec<_>>()
            .join(" ")
    );
    show(
        "   cleanup.policy entry",
        Ok(r.results[0].configs.iter().find(|c| &*c.name == "cleanup.policy").cloned()),
    );
    let r = c.call(4, dc(4, "1", None))?;
    say!("## DescribeConfigs v4 broker 1: {} entries", r.results[0].configs.len());
    show(
        "   auto.create.topics.enable",
        Ok(r.results[0].configs.iter().find(|c| &*c.name == "auto.create.topics.enable").cloned()),
    );
    show(
        "DescribeConfigs broker \"\"",
        c.call(4, dc(4, "", None)).map(|r| (r.results[0].error_code, r.results[0].configs.len())),
    );
    show(
        "DescribeConfigs broker 9",
        c.call(4, dc(4, "9", None))
            .map(|r| (r.results[0].error_code, r.results[0].error_message.clone())),
    );
    show(
        "DescribeConfigs unknown topic",
        c.call(4, dc(2, "nope", None))
            .map(|r| (r.results[0].error_code, r.results[0].error_message.clone())),
    );
    show(
        "DescribeConfigs empty key list",
        c.call(4, dc(2, t1, Some(vec![]))).map(|r| r.results[0].configs.len()),
    );
    let iac = |n: &str, k: &str, op: i8, v: Option<&str>| {
        use incremental_alter_configs_request::*;
        IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(s(n))
                .with_configs(vec![
                    AlterableConfig::default()
                        .with_name(s(k))
                        .with_config_operation(op)
                        .with_value(v.map(s)),
                ]),
        ])
    };
    for (k, op, v) in [
        ("retention.ms", 0i8, Some("1000")),
        ("retention.ms", 1, None),
        ("cleanup.policy", 2, Some("delete")),
        ("cleanup.policy", 3, Some("delete")),
        ("retention.ms", 2, Some("5")),
        ("no.such", 0, Some("1")),
        ("retention.ms", 0, Some("abc")),
        ("retention.ms", 0, None),
    ] {
        show(
            &format!("IncrementalAlterConfigs {k} op {op} {v:?}"),
            c.call(1, iac(t2, k, op, v))
                .map(|r| (r.responses[0].error_code, r.responses[0].error_message.clone())),
        );
    }
    Ok(())
}

pub(super) fn the_rest(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, t2, t3, tid, .. } = asking;
    show("OffsetForLeaderEpoch epochs 0, 5, -1", {
        use offset_for_leader_epoch_request::*;
        c.call(
            4,
            OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
                OffsetForLeaderTopic::default().with_topic(topic(t1)).with_partitions(
                    [0, 5, -1]
                        .iter()
                        .map(|e| {
                            OffsetForLeaderPartition::default()
                                .with_partition(0)
                                .with_current_leader_epoch(-1)
                                .with_leader_epoch(*e)
                        })
                        .collect(),
                ),
            ]),
        )
    });
    show("DeleteRecords -1 then 1", {
        use delete_records_request::*;
        let q = |o: i64| {
            DeleteRecordsRequest::default().with_timeout_ms(2000).with_topics(vec![
                DeleteRecordsTopic::default().with_name(topic(t3)).with_partitions(vec![
                    DeleteRecordsPartition::default().with_partition_index(0).with_offset(o),
                ]),
            ])
        };
        let a = c.call(2, q(-1));
        let b = c.call(2, q(1));
        let d = c.call(2, q(99));
        Ok::<_, anyhow::Error>((a?.topics, b?.topics, d?.topics))
    });
    show("DescribeLogDirs", c.call(4, DescribeLogDirsRequest::default().with_topics(Some(vec![]))));
    show(
        "SaslHandshake on PLAINTEXT",
        C::new().call(1, SaslHandshakeRequest::default().with_mechanism(s("PLAIN"))),
    );
    show(
        "SaslAuthenticate on PLAINTEXT",
        C::new().call(
            2,
            SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0a\0b")),
        ),
    );
    show(
        "DescribeAcls without authorizer",
        c.call(
            3,
            DescribeAclsRequest::default()
                .with_resource_type_filter(1)
                .with_pattern_type_filter(3)
                .with_operation(1)
                .with_permission_type(1),
        )
        .map(|r| (r.error_code, r.error_message)),
    );
    show("DescribeTopicPartitions", {
        use describe_topic_partitions_request::*;
        c.call(
            0,
            DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(topic(t1))])
                .with_response_partition_limit(2000),
        )
    });
    show("DeleteTopics with doubts which topic is meant", {
        use delete_topics_request::*;
        let state = |name: Option<&str>, id: uuid::Uuid| {
            DeleteTopicState::default().with_name(name.map(topic)).with_topic_id(id)
        };
        let no_id = uuid::Uuid::nil();
        c.call(
            6,
            DeleteTopicsRequest::default().with_timeout_ms(3000).with_topics(vec![
                state(Some(t1), no_id),
                state(None, *tid),
                state(Some(t2), *tid),
                state(Some(""), uuid::Uuid::from_u128(5)),
                state(None, no_id),
                state(Some(t3), no_id),
                state(Some(t3), no_id),
                state(None, uuid::Uuid::from_u128(6)),
                state(None, uuid::Uuid::from_u128(6)),
            ]),
        )
        .map(|r| {
            let mut told: Vec<_> =
                r.responses.into_iter().map(|r| (r.name, r.error_code, r.error_message)).collect();
            told.sort();
            told
        })
    });
    show("DeleteTopics by id, unknown id, unknown name", {
        use delete_topics_request::*;
        c.call(
            6,
            DeleteTopicsRequest::default().with_timeout_ms(3000).with_topics(vec![
                DeleteTopicState::default().with_name(None).with_topic_id(*tid),
                DeleteTopicState::default().with_name(None).with_topic_id(uuid::Uuid::from_u128(3)),
                DeleteTopicState::default().with_name(Some(topic("nope"))),
            ]),
        )
    });
    show("CreatePartitions fewer", {
        use create_partitions_request::*;
        c.call(
            3,
            CreatePartitionsRequest::default().with_timeout_ms(2000).with_topics(vec![
                CreatePartitionsTopic::default().with_name(topic(t2)).with_count(1),
            ]),
        )
    });
    show("Produce acks 0: is there an answer?", {
        let mut d = C::new();
        d.s.set_read_timeout(Some(Duration::from_millis(700)))?;
        d.call(12, produce(t3, Some(recs(1, true, 5)), 0)).map(pr)
    });
    show("Produce acks 0 with an error: is the connection closed?", {
        let mut d = C::new();
        d.s.set_read_timeout(Some(Duration::from_millis(1500)))?;
        d.call(12, produce("nope", Some(recs(1, true, 5)), 0)).map(pr)
    });
    Ok(())
}
