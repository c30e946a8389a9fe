use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{HeaderVersion, Message, Request};
use proptest::prelude::*;

use super::table::key_number;
use super::{DecodeError, SERVED, decode, parse_head, text};

/// Runs a check for every served API with its request type.
macro_rules! for_every_api {
    ($check:ident) => {
        $check::<ProduceRequest>();
        $check::<FetchRequest>();
        $check::<ListOffsetsRequest>();
        $check::<MetadataRequest>();
        $check::<OffsetCommitRequest>();
        $check::<OffsetFetchRequest>();
        $check::<FindCoordinatorRequest>();
        $check::<JoinGroupRequest>();
        $check::<HeartbeatRequest>();
        $check::<LeaveGroupRequest>();
        $check::<SyncGroupRequest>();
        $check::<DescribeGroupsRequest>();
        $check::<ListGroupsRequest>();
        $check::<ApiVersionsRequest>();
        $check::<CreateTopicsRequest>();
        $check::<DeleteTopicsRequest>();
        $check::<DeleteRecordsRequest>();
        $check::<InitProducerIdRequest>();
        $check::<OffsetForLeaderEpochRequest>();
        $check::<DescribeConfigsRequest>();
        $check::<AlterConfigsRequest>();
        $check::<DescribeLogDirsRequest>();
        $check::<CreatePartitionsRequest>();
        $check::<DeleteGroupsRequest>();
        $check::<IncrementalAlterConfigsRequest>();
        $check::<OffsetDeleteRequest>();
        $check::<DescribeQuorumRequest>();
        $check::<UpdateFeaturesRequest>();
        $check::<DescribeClusterRequest>();
        $check::<DescribeProducersRequest>();
        $check::<ListConfigResourcesRequest>();
        $check::<DescribeTopicPartitionsRequest>();
    };
}

fn versions<R: Request>() -> std::ops::RangeInclusive<i16> {
    let api = SERVED.iter().find(|api| key_number(api.key) == R::KEY).expect("served");
    api.min..=api.max
}

fn frame<R: Request>(version: i16, request: &R) -> Bytes {
    let whole = super::encode_request(version, 5, request).expect("encodes");
    whole.freeze().slice(4..)
}

fn served_versions_are_within_the_codec<R: Request>()
where
    R::Response: Message,
{
    let (request, response) = (R::VERSIONS, <R::Response as Message>::VERSIONS);
    let served = versions::<R>();
    assert!(request.min <= *served.start() && *served.end() <= request.max, "request {}", R::KEY);
    assert!(
        response.min <= *served.start() && *served.end() <= response.max,
        "response {}",
        R::KEY
    );
}

#[test]
fn a_version_is_served_only_if_the_codec_reads_its_request_and_writes_its_response() {
    for_every_api!(served_versions_are_within_the_codec);
}

fn the_walk_agrees_with_the_codec<R: Request + Default + PartialEq + std::fmt::Debug>() {
    for version in versions::<R>() {
        let request = R::default();
        let mut encoded = BytesMut::new();
        // A default that a version can't hold is no test of it.
        if request.encode(&mut encoded, version).is_err() {
            continue;
        }
        let mut bytes = frame(version, &request);
        let head = parse_head(&mut bytes).expect("head");
        assert_eq!(head.version, version);
        let again: R = decode(&head, &mut bytes).expect("decodes");
        assert_eq!(again, request, "key {} version {version}", R::KEY);
        // Each cut is refused, never believed.
        let whole = frame(version, &request);
        for cut in 0..whole.len() {
            let mut cut_bytes = whole.slice(..cut);
            let refused =
                parse_head(&mut cut_bytes).and_then(|head| decode::<R>(&head, &mut cut_bytes));
            assert!(refused.is_err(), "key {} version {version} cut at {cut}", R::KEY);
        }
    }
}

#[test]
fn what_the_codec_writes_passes_the_walk_and_a_cut_does_not() {
    for_every_api!(the_walk_agrees_with_the_codec);
}

#[test]
fn every_header_version_is_the_codecs() {
    fn check<R: Request>() {
        for version in versions::<R>() {
            let api = SERVED.iter().find(|api| key_number(api.key) == R::KEY).expect("served");
            assert_eq!(api.key.request_header_version(version), R::header_version(version));
            assert_eq!(
                api.key.response_header_version(version),
                <R::Response as HeaderVersion>::header_version(version)
            );
        }
    }
    for_every_api!(check);
}

#[test]
fn a_future_version_of_api_versions_is_told_apart_from_other_unknown_versions() {
    let head = |key: i16, version: i16| {
        let mut bytes = Bytes::from(
            [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 9, 0, 0]].concat(),
        );
        parse_head(&mut bytes)
    };
    assert!(head(18, 127).expect("answered").is_future_api_versions);
    assert!(matches!(head(3, 99), Err(DecodeError::UnknownVersion { key: 3, version: 99 })));
    assert!(matches!(head(200, 0), Err(DecodeError::UnknownKey(200))));
    assert!(matches!(parse_head(&mut Bytes::from_static(&[0, 3])), Err(DecodeError::TooShort(2))));
}

/// Decodes a frame as whatever it says it is.
fn decode_any(mut bytes: Bytes) {
    let Ok(head) = parse_head(&mut bytes) else { return };
    macro_rules! try_each {
        ($($request:ident)*) => {
            match head.key {
                $(key if key_number(key) == <$request as Request>::KEY => {
                    let _ = decode::<$request>(&head, &mut bytes);
                })*
                _ => {}
            }
        };
    }
    try_each! {
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
        FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest
        DescribeGroupsRequest ListGroupsRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
        DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest DescribeConfigsRequest
        AlterConfigsRequest DescribeLogDirsRequest CreatePartitionsRequest DeleteGroupsRequest
        IncrementalAlterConfigsRequest OffsetDeleteRequest DescribeQuorumRequest UpdateFeaturesRequest
        DescribeClusterRequest DescribeProducersRequest ListConfigResourcesRequest DescribeTopicPartitionsRequest
    }
}

/// A frame with something in its arrays, to be damaged.
fn sample(which: usize) -> Bytes {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let name = TopicName(text("topic"));
    match which {
        0 => {
            let topic = MetadataRequestTopic::default().with_name(Some(name));
            frame(9, &MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic])))
        }
        1 => {
            let data =
                PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
            let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
            frame(9, &ProduceRequest::default().with_topic_data(vec![topic]))
        }
        2 => {
            use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
            let topic = FetchTopic::default()
                .with_topic(name)
                .with_partitions(vec![FetchPartition::default()]);
            frame(11, &FetchRequest::default().with_topics(vec![topic]))
        }
        _ => {
            use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            frame(7, &JoinGroupRequest::default().with_protocols(vec![protocol]))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_make_a_decoder_panic_or_allocate_wildly(
        key in 0_i16..80,
        version in 0_i16..19,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 1, 0, 0]].concat();
        decode_any(Bytes::from([head, body].concat()));
    }

    #[test]
    fn no_damage_to_a_request_makes_a_decoder_panic(
        which in 0_usize..4,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = sample(which).to_vec();
        for (at, value) in damages {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        decode_any(Bytes::from(bytes));
    }
}
