use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{HeaderVersion, Message, Request};
use proptest::prelude::*;

use super::samples::{decode_any, for_every_api, sample_frames};
use super::table::{codec_version, key_number};
use super::{DecodeError, SERVED, decode, parse_head};

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
    let end = codec_version(R::KEY, *served.end());
    assert!(request.min <= *served.start() && end <= request.max, "request {}", R::KEY);
    assert!(response.min <= *served.start() && end <= response.max, "response {}", R::KEY);
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
        if request.encode(&mut encoded, codec_version(R::KEY, version)).is_err() {
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
    assert!(matches!(head(3, 99), Err(DecodeError::NotServed { key: 3, version: 99, .. })));
    assert!(matches!(head(200, 0), Err(DecodeError::NotServed { key: 200, .. })));
    assert!(matches!(parse_head(&mut Bytes::from_static(&[0, 3])), Err(DecodeError::TooShort(2))));
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
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let frames = sample_frames();
        let mut bytes = frames[which.index(frames.len())].2.slice(4..).to_vec();
        for (at, value) in damages {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        decode_any(Bytes::from(bytes));
    }
}

#[test]
fn a_client_that_asks_for_what_is_not_served_is_named_with_what_it_asks_for_and_what_is() {
    let told = |key: i16, version: i16| {
        let mut frame = [key, version].map(i16::to_be_bytes).concat();
        frame.extend([0, 0, 0, 9, 0, 5]);
        frame.extend(b"old\n1");
        parse_head(&mut frame.into()).expect_err("not served").to_string()
    };
    let expected = r#"client "old\n1" asks for Fetch (key 1) in version 2: 4 to 18 are served"#;
    assert_eq!(told(1, 2), expected);
    assert!(
        told(24, 4).ends_with("AddPartitionsToTxn (key 24) in version 4: this API is not served")
    );
    assert!(told(900, 0).contains("asks for an unknown API (key 900)"));
}
