//! Questions: Coordinators and groups.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::*;

use super::client::*;

pub(super) fn groups(asking: &mut Asking) -> Result<()> {
    let Asking { c, t1, .. } = asking;
    show(
        "FindCoordinator v4 two keys",
        c.call(
            4,
            FindCoordinatorRequest::default()
                .with_key_type(0)
                .with_coordinator_keys(vec![s("g1"), s("g2")]),
        ),
    );
    std::thread::sleep(Duration::from_millis(2500));
    show(
        "FindCoordinator v4 two keys again",
        c.call(
            4,
            FindCoordinatorRequest::default()
                .with_key_type(0)
                .with_coordinator_keys(vec![s("g1"), s("g2")]),
        ),
    );
    show(
        "FindCoordinator v3 one key",
        c.call(3, FindCoordinatorRequest::default().with_key_type(0).with_key(s("g1"))),
    );
    show(
        "FindCoordinator v3 key type 7",
        c.call(3, FindCoordinatorRequest::default().with_key_type(7).with_key(s("g1"))),
    );
    show(
        "FindCoordinator v3 transaction",
        c.call(3, FindCoordinatorRequest::default().with_key_type(1).with_key(s("tx1")))
            .map(|r| (r.error_code, r.error_message)),
    );
    let jg = |mid: &str, inst: Option<&str>| {
        use join_group_request::*;
        JoinGroupRequest::default()
            .with_group_id(GroupId(s("g1")))
            .with_session_timeout_ms(10000)
            .with_rebalance_timeout_ms(10000)
            .with_member_id(s(mid))
            .with_group_instance_id(inst.map(s))
            .with_protocol_type(s("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default()
                    .with_name(s("range"))
                    .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
            ])
    };
    let r = c.call(7, jg("", None))?;
    let mid = r.member_id.to_string();
    show("JoinGroup v7 without member id", Ok(r));
    let r = c.call(7, jg(&mid, None))?;
    let generation = r.generation_id;
    show("JoinGroup v7 with it", Ok(r));
    show(
        "JoinGroup no protocols",
        c.call(7, {
            let mut j = jg("", None);
            j.protocols.clear();
            j
        })
        .map(|r| r.error_code),
    );
    show(
        "JoinGroup other protocol type",
        c.call(7, {
            let mut j = jg("", Some("i9"));
            j.protocol_type = s("connect");
            j
        })
        .map(|r| r.error_code),
    );
    show(
        "JoinGroup session timeout 1 ms",
        c.call(7, {
            let mut j = jg("", None);
            j.session_timeout_ms = 1;
            j
        })
        .map(|r| r.error_code),
    );
    show("JoinGroup v7 unknown member", c.call(7, jg("who", None)).map(|r| r.error_code));
    show(
        "JoinGroup v7 empty group",
        c.call(7, {
            let mut j = jg("", None);
            j.group_id = GroupId(s(""));
            j
        })
        .map(|r| r.error_code),
    );
    let sg = |mid: &str, generation: i32, pt: Option<&str>, pn: Option<&str>| {
        use sync_group_request::*;
        SyncGroupRequest::default()
            .with_group_id(GroupId(s("g1")))
            .with_generation_id(generation)
            .with_member_id(s(mid))
            .with_protocol_type(pt.map(s))
            .with_protocol_name(pn.map(s))
            .with_assignments(vec![
                SyncGroupRequestAssignment::default()
                    .with_member_id(s(mid))
                    .with_assignment(Bytes::from_static(b"abc")),
            ])
    };
    show(
        "SyncGroup v5 null protocol type and name",
        c.call(5, sg(&mid, generation, None, None))
            .map(|r| (r.error_code, r.protocol_type, r.protocol_name, r.assignment.len())),
    );
    show(
        "SyncGroup v5 wrong protocol name",
        c.call(5, sg(&mid, generation, Some("consumer"), Some("zzz")))
            .map(|r| (r.error_code, r.protocol_type, r.protocol_name, r.assignment.len())),
    );
    show(
        "SyncGroup v5 right",
        c.call(5, sg(&mid, generation, Some("consumer"), Some("range")))
            .map(|r| (r.error_code, r.protocol_type, r.protocol_name, r.assignment.len())),
    );
    show(
        "SyncGroup v5 wrong generation",
        c.call(5, sg(&mid, generation + 5, Some("consumer"), Some("range")))
            .map(|r| (r.error_code, r.assignment.len())),
    );
    show(
        "Heartbeat unknown group",
        c.call(
            4,
            HeartbeatRequest::default()
                .with_group_id(GroupId(s("nogroup")))
                .with_member_id(s("m"))
                .with_generation_id(1),
        )
        .map(|r| r.error_code),
    );
    show(
        "Heartbeat wrong generation",
        c.call(
            4,
            HeartbeatRequest::default()
                .with_group_id(GroupId(s("g1")))
                .with_member_id(s(&mid))
                .with_generation_id(generation + 9),
        )
        .map(|r| r.error_code),
    );
    let oc = |g: &str, mid: &str, generation: i32, t: &str, meta: Option<&str>| {
        use offset_commit_request::*;
        OffsetCommitRequest::default()
            .with_group_id(GroupId(s(g)))
            .with_member_id(s(mid))
            .with_generation_id_or_member_epoch(generation)
            .with_topics(vec![
                OffsetCommitRequestTopic::default().with_name(topic(t)).with_partitions(vec![
                    OffsetCommitRequestPartition::default()
                        .with_partition_index(0)
                        .with_committed_offset(3)
                        .with_committed_leader_epoch(-1)
                        .with_committed_metadata(meta.map(s)),
                ]),
            ])
    };
    let oce = |r: OffsetCommitResponse| {
        r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect::<Vec<_>>()
    };
    show(
        "OffsetCommit v9 no group, empty member, gen -1",
        c.call(9, oc("simple", "", -1, t1, Some("meta"))).map(oce),
    );
    show("OffsetCommit v9 null metadata", c.call(9, oc("simple2", "", -1, t1, None)).map(oce));
    show(
        "OffsetCommit v9 unknown group with member",
        c.call(9, oc("nogroup", "m", 1, t1, None)).map(oce),
    );
    show("OffsetCommit v9 unknown topic", c.call(9, oc("simple", "", -1, "nope", None)).map(oce));
    show(
        "OffsetCommit v9 live group, empty member",
        c.call(9, oc("g1", "", -1, t1, None)).map(oce),
    );
    let of8 = |g: &str, t: Option<&str>| {
        use offset_fetch_request::*;
        OffsetFetchRequest::default().with_groups(vec![
            OffsetFetchRequestGroup::default().with_group_id(GroupId(s(g))).with_topics(t.map(
                |t| {
                    vec![
                        OffsetFetchRequestTopics::default()
                            .with_name(topic(t))
                            .with_partition_indexes(vec![0, 7]),
                    ]
                },
            )),
        ])
    };
    show("OffsetFetch v8 all topics", c.call(8, of8("simple", None)).map(|r| r.groups));
    show("OffsetFetch v8 null metadata commit", c.call(8, of8("simple2", None)).map(|r| r.groups));
    show(
        "OffsetFetch v8 unknown group, named topic",
        c.call(8, of8("nogroup", Some(t1))).map(|r| r.groups),
    );
    show("OffsetFetch v8 unknown group, all", c.call(8, of8("nogroup", None)).map(|r| r.groups));
    show(
        "OffsetFetch v7 unknown group",
        c.call(7, {
            use offset_fetch_request::*;
            OffsetFetchRequest::default().with_group_id(GroupId(s("nogroup"))).with_topics(Some(
                vec![
                    OffsetFetchRequestTopic::default()
                        .with_name(topic(t1))
                        .with_partition_indexes(vec![0]),
                ],
            ))
        }),
    );
    for v in [5, 6] {
        show(
            &format!("DescribeGroups v{v} unknown"),
            c.call(v, DescribeGroupsRequest::default().with_groups(vec![GroupId(s("nogroup"))])),
        );
    }
    show(
        "DescribeGroups v5 live",
        c.call(5, DescribeGroupsRequest::default().with_groups(vec![GroupId(s("g1"))])),
    );
    show(
        "DeleteGroups v2 (live, unknown)",
        c.call(
            2,
            DeleteGroupsRequest::default()
                .with_groups_names(vec![GroupId(s("g1")), GroupId(s("nogroup"))]),
        ),
    );
    show("ListGroups v5", c.call(5, ListGroupsRequest::default()));
    show(
        "LeaveGroup v5 (member, unknown)",
        c.call(5, {
            use leave_group_request::*;
            LeaveGroupRequest::default().with_group_id(GroupId(s("g1"))).with_members(vec![
                MemberIdentity::default().with_member_id(s(&mid)),
                MemberIdentity::default().with_member_id(s("zz")),
            ])
        }),
    );
    show(
        "ConsumerGroupHeartbeat v1 empty member id",
        c.call(
            1,
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(s("cg")))
                .with_member_epoch(0)
                .with_rebalance_timeout_ms(5000)
                .with_subscribed_topic_names(Some(vec![topic(t1)]))
                .with_topic_partitions(Some(vec![])),
        )
        .map(|r| (r.error_code, r.error_message)),
    );
    show(
        "ConsumerGroupHeartbeat v1",
        c.call(
            1,
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(s("cg")))
                .with_member_id(s("AAAAAAAAAAAAAAAAAAAAAA"))
                .with_member_epoch(0)
                .with_rebalance_timeout_ms(5000)
                .with_subscribed_topic_names(Some(vec![topic(t1)]))
                .with_topic_partitions(Some(vec![])),
        ),
    );
    Ok(())
}
