//! Asks a broker the questions that re-implementations get wrong, and writes down what it answers.
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::default_trait_access,
    clippy::items_after_statements,
    clippy::many_single_char_names,
    clippy::unreadable_literal,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a list of questions, written down as they are asked"
)]
use std::cell::RefCell;

use anyhow::{Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::*;
use kafka_protocol::records::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

thread_local! {
    static ADDRESS: RefCell<String> = const { RefCell::new(String::new()) };
    static OUT: RefCell<String> = const { RefCell::new(String::new()) };
}

macro_rules! say {
    ($($arg:tt)*) => {
        {
            let line = format!($($arg)*);
            OUT.with_borrow_mut(|out| { out.push_str(&line); out.push('\n'); });
        }
    };
}

/// Asks everything; returns questions (`## …`) and answers.
pub(crate) fn ask(address: &str) -> Result<String> {
    ADDRESS.set(address.to_owned());
    OUT.take();
    questions()?;
    Ok(OUT.take())
}

struct C {
    s: TcpStream,
    id: i32,
}
impl C {
    fn new() -> C {
        let a = ADDRESS.with_borrow(String::clone);
        let s = TcpStream::connect(a).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        C { s, id: 0 }
    }
    fn raw(&mut self, key: i16, version: i16, hv: i16, body: &[u8]) -> Result<Vec<u8>> {
        self.id += 1;
        let mut b = BytesMut::new();
        b.put_i16(key);
        b.put_i16(version);
        b.put_i32(self.id);
        b.put_i16(5);
        b.put_slice(b"probe");
        if hv >= 2 {
            b.put_u8(0);
        }
        b.put_slice(body);
        let mut f = BytesMut::new();
        f.put_i32(b.len() as i32);
        f.put_slice(&b);
        let answer = self.s.write_all(&f).map_err(anyhow::Error::from).and_then(|()| self.read());
        if answer.is_err() {
            // The broker closes what it does not serve; the next question needs a new connection.
            *self = C::new();
        }
        answer
    }
    fn read(&mut self) -> Result<Vec<u8>> {
        let mut l = [0u8; 4];
        self.s.read_exact(&mut l)?;
        let mut v = vec![0u8; i32::from_be_bytes(l) as usize];
        self.s.read_exact(&mut v)?;
        Ok(v)
    }
    fn call<R: Request>(&mut self, v: i16, r: R) -> Result<R::Response> {
        let mut body = BytesMut::new();
        r.encode(&mut body, v)?;
        let out = self.raw(R::KEY, v, R::header_version(v), &body)?;
        let mut b = Bytes::from(out);
        let rh = ResponseHeader::decode(&mut b, R::Response::header_version(v))?;
        if rh.correlation_id != self.id {
            bail!("correlation");
        }
        let m = R::Response::decode(&mut b, v)?;
        if !b.is_empty() {
            bail!("{} bytes left over", b.len());
        }
        Ok(m)
    }
}
fn s(x: &str) -> StrBytes {
    StrBytes::from_string(x.to_string())
}
fn topic(x: &str) -> TopicName {
    TopicName(s(x))
}
fn show<T: std::fmt::Debug>(what: &str, r: Result<T>) {
    match r {
        Ok(x) => {
            let t = format!("{x:?}")
                .replace(", unknown_tagged_fields: {}", "")
                .replace("unknown_tagged_fields: {}", "");
            say!("## {what}\n{}", t.chars().take(1500).collect::<String>());
        }
        Err(e) => say!("## {what}\nERR {e}"),
    }
}
fn recs(n: usize, key: bool, val: usize) -> Bytes {
    let r: Vec<Record> = (0..n)
        .map(|i| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: i as i64,
            sequence: (-1i32).wrapping_add(i as i32),
            timestamp: 1_700_000_000_000 + i as i64,
            key: key.then(|| Bytes::from(format!("k{i}"))),
            value: Some(Bytes::from(vec![b'v'; val])),
            headers: Default::default(),
        })
        .collect();
    let mut b = BytesMut::new();
    RecordBatchEncoder::encode(
        &mut b,
        &r,
        &RecordEncodeOptions { version: 2, compression: Compression::None },
    )
    .unwrap();
    b.freeze()
}
fn fix_crc(b: &mut BytesMut) {
    let c = crc_fast::crc32_iscsi(&b[21..]);
    b[17..21].copy_from_slice(&c.to_be_bytes());
}
fn produce(t: &str, r: Option<Bytes>, acks: i16) -> ProduceRequest {
    use produce_request::*;
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![
        TopicProduceData::default().with_name(topic(t)).with_partition_data(vec![
            PartitionProduceData::default().with_index(0).with_records(r),
        ]),
    ])
}
fn fetch(
    t: Option<&str>,
    tid: uuid::Uuid,
    off: i64,
    max: i32,
    pmax: i32,
    sid: i32,
    sep: i32,
    iso: i8,
) -> FetchRequest {
    use fetch_request::*;
    let mut f = FetchRequest::default()
        .with_max_wait_ms(300)
        .with_min_bytes(1)
        .with_max_bytes(max)
        .with_session_id(sid)
        .with_session_epoch(sep)
        .with_isolation_level(iso);
    let mut ft = FetchTopic::default().with_partitions(vec![
        FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(off)
            .with_partition_max_bytes(pmax)
            .with_current_leader_epoch(-1),
    ]);
    if let Some(t) = t {
        ft = ft.with_topic(topic(t));
    } else {
        ft = ft.with_topic_id(tid);
    }
    f.topics = vec![ft];
    f
}

fn questions() -> Result<()> {
    let mut c = C::new();
    // ---- ApiVersions
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

    // ---- topics
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
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis()
        % 10_000_000;
    let (t1, t2, t3) = (format!("t1-{stamp}"), format!("compact-{stamp}"), format!("lat-{stamp}"));
    let r = c.call(7, ct(&t1, 1, &[], false))?;
    let tid = r.topics[0].topic_id;
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
        c.call(7, ct(&t1, 1, &[], false)).map(|r| {
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
    c.call(7, ct(&t2, 1, &[("cleanup.policy", "compact")], false))?;
    c.call(7, ct(&t3, 1, &[("message.timestamp.type", "LogAppendTime")], false))?;
    std::thread::sleep(Duration::from_millis(500));

    // ---- metadata
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

    // ---- list offsets on an empty partition
    let lo = |t: &str, ts: i64, ep: i32| {
        use list_offsets_request::*;
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
            ListOffsetsTopic::default().with_name(topic(t)).with_partitions(vec![
                ListOffsetsPartition::default()
                    .with_partition_index(0)
                    .with_timestamp(ts)
                    .with_current_leader_epoch(ep),
            ]),
        ])
    };
    let one = |r: ListOffsetsResponse| {
        let p = &r.topics[0].partitions[0];
        (p.error_code, p.timestamp, p.offset, p.leader_epoch)
    };
    for ts in [-1i64, -2, -3, -4, -5, -6, -7, 1] {
        show(
            &format!("ListOffsets v10 empty partition ts {ts}: (err, ts, offset, epoch)"),
            c.call(10, lo(&t1, ts, -1)).map(one),
        );
    }
    // ---- produce
    let pr = |r: ProduceResponse| {
        let p = &r.responses[0].partition_responses[0];
        (
            p.error_code,
            p.base_offset,
            p.log_append_time_ms,
            p.log_start_offset,
            p.record_errors.len(),
            p.error_message.clone(),
            p.record_errors.first().map(|e| (e.batch_index, e.batch_index_error_message.clone())),
        )
    };
    show(
        "Produce v12 3 records (err, base, append ts, start, n record errors, msg, first)",
        c.call(12, produce(&t1, Some(recs(3, true, 10)), -1)).map(pr),
    );
    show("Produce v12 5 records", c.call(12, produce(&t1, Some(recs(5, true, 10)), 1)).map(pr));
    show(
        "Produce v9 LogAppendTime topic",
        c.call(9, produce(&t3, Some(recs(2, true, 10)), -1)).map(pr),
    );
    show("Produce acks 2", c.call(12, produce(&t1, Some(recs(1, true, 10)), 2)).map(pr));
    show("Produce null records", C::new().call(12, produce(&t1, None, -1)).map(pr));
    show("Produce empty records", C::new().call(12, produce(&t1, Some(Bytes::new()), -1)).map(pr));
    let two = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b.extend_from_slice(&recs(1, true, 5));
        b.freeze()
    };
    show(
        "Produce two batches in one partition",
        C::new().call(12, produce(&t1, Some(two), -1)).map(pr),
    );
    let bad = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[20] ^= 1;
        b.freeze()
    };
    show("Produce bad CRC", C::new().call(12, produce(&t1, Some(bad), -1)).map(pr));
    let cnt = {
        let mut b = BytesMut::from(&recs(3, true, 5)[..]);
        b[57..61].copy_from_slice(&2i32.to_be_bytes());
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce record count not lastOffsetDelta+1",
        C::new().call(12, produce(&t1, Some(cnt), -1)).map(pr),
    );
    let base = {
        let mut b = BytesMut::from(&recs(3, true, 5)[..]);
        b[0..8].copy_from_slice(&500i64.to_be_bytes());
        b.freeze()
    };
    show("Produce base offset 500", C::new().call(12, produce(&t1, Some(base), -1)).map(pr));
    let m1 = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[16] = 1;
        b.freeze()
    };
    show("Produce magic 1", C::new().call(12, produce(&t1, Some(m1), -1)).map(pr));
    let ctl = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[22] |= 0x20;
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce control batch from a client",
        C::new().call(12, produce(&t1, Some(ctl), -1)).map(pr),
    );
    let unused = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[21] |= 0x02;
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce with an unused attribute bit",
        C::new().call(12, produce(&t1, Some(unused), -1)).map(pr),
    );
    let cut = {
        let b = recs(3, true, 50);
        b.slice(..b.len() - 10)
    };
    show("Produce truncated batch", C::new().call(12, produce(&t1, Some(cut), -1)).map(pr));
    let lat = {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[22] |= 0x08;
        fix_crc(&mut b);
        b.freeze()
    };
    show(
        "Produce with LogAppendTime bit set by the client, CreateTime topic",
        C::new().call(12, produce(&t1, Some(lat), -1)).map(pr),
    );
    show(
        "Produce 2 MB to default topic",
        C::new().call(12, produce(&t1, Some(recs(1, true, 2_000_000)), -1)).map(pr),
    );
    show(
        "Encoder: 3 records all with NO_SEQUENCE make how many batches",
        Ok({
            let r: Vec<Record> = (0..3)
                .map(|i| Record {
                    transactional: false,
                    control: false,
                    delete_horizon: false,
                    partition_leader_epoch: -1,
                    producer_id: -1,
                    producer_epoch: -1,
                    timestamp_type: TimestampType::Creation,
                    offset: i,
                    sequence: NO_SEQUENCE,
                    timestamp: 5,
                    key: None,
                    value: None,
                    headers: Default::default(),
                })
                .collect();
            let mut b = BytesMut::new();
            RecordBatchEncoder::encode(
                &mut b,
                &r,
                &RecordEncodeOptions { version: 2, compression: Compression::None },
            )
            .unwrap();
            RecordBatchDecoder::decode_all(&mut b.freeze()).unwrap().len()
        }),
    );
    show(
        "Produce keyless to compacted",
        C::new().call(12, produce(&t2, Some(recs(2, false, 10)), -1)).map(pr),
    );
    show("Produce unknown topic", c.call(12, produce("nope", Some(recs(1, true, 5)), -1)).map(pr));
    show(
        "Produce v13 unknown id",
        c.call(13, {
            let mut p = produce("x", Some(recs(1, true, 5)), -1);
            p.topic_data[0].name = Default::default();
            p.topic_data[0].topic_id = uuid::Uuid::from_u128(5);
            p
        })
        .map(pr),
    );
    show(
        "Produce v13 by id",
        c.call(13, {
            let mut p = produce("x", Some(recs(1, true, 5)), -1);
            p.topic_data[0].name = Default::default();
            p.topic_data[0].topic_id = tid;
            p
        }),
    );
    show(
        "Produce idempotent pid never handed out, seq 7",
        c.call(
            12,
            produce(
                &t1,
                Some({
                    let mut b = BytesMut::from(&recs(1, true, 5)[..]);
                    b[43..51].copy_from_slice(&4242i64.to_be_bytes());
                    b[51..53].copy_from_slice(&0i16.to_be_bytes());
                    b[53..57].copy_from_slice(&7i32.to_be_bytes());
                    fix_crc(&mut b);
                    b.freeze()
                }),
                -1,
            ),
        )
        .map(pr),
    );
    let seq = |pid: i64, ep: i16, sq: i32| {
        let mut b = BytesMut::from(&recs(1, true, 5)[..]);
        b[43..51].copy_from_slice(&pid.to_be_bytes());
        b[51..53].copy_from_slice(&ep.to_be_bytes());
        b[53..57].copy_from_slice(&sq.to_be_bytes());
        fix_crc(&mut b);
        b.freeze()
    };
    let pid = loop {
        let p = c.call(
            4,
            InitProducerIdRequest::default()
                .with_transaction_timeout_ms(60000)
                .with_transactional_id(None)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        )?;
        if p.error_code != 14 && p.error_code != 15 {
            break p;
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    say!(
        "## InitProducerId: err {} pid {:?} epoch {}",
        pid.error_code,
        pid.producer_id,
        pid.producer_epoch
    );
    for sq in [0, 1, 2, 3, 4, 5, 6] {
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 0, sq)), -1)).map(pr)?;
    }
    show(
        "idempotent: repeat seq 6 (last)",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 0, 6)), -1)).map(pr),
    );
    show(
        "idempotent: repeat seq 2 (5th from last)",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 0, 2)), -1)).map(pr),
    );
    show(
        "idempotent: repeat seq 1 (6th from last)",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 0, 1)), -1)).map(pr),
    );
    show(
        "idempotent: gap seq 9",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 0, 9)), -1)).map(pr),
    );
    show(
        "idempotent: epoch 1 with seq 3",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 1, 3)), -1)).map(pr),
    );
    show(
        "idempotent: epoch 1 with seq 0",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 1, 0)), -1)).map(pr),
    );
    show(
        "idempotent: old epoch 0 seq 7",
        c.call(12, produce(&t1, Some(seq(pid.producer_id.0, 0, 7)), -1)).map(pr),
    );
    for ts in [-1i64, -2, -3, -4, -5, 1_700_000_000_001, 1_900_000_000_000] {
        show(
            &format!("ListOffsets v10 filled partition ts {ts}"),
            c.call(10, lo(&t1, ts, -1)).map(one),
        );
    }
    show("ListOffsets current epoch 99", c.call(10, lo(&t1, -1, 99)).map(one));
    show("ListOffsets unknown topic", c.call(10, lo("nope", -1, -1)).map(one));

    // ---- fetch
    let fp = |r: FetchResponse| {
        (
            r.error_code,
            r.session_id,
            r.responses.len(),
            r.responses.first().and_then(|t| t.partitions.first()).map(|p| {
                (
                    p.error_code,
                    p.high_watermark,
                    p.last_stable_offset,
                    p.log_start_offset,
                    p.preferred_read_replica,
                    p.aborted_transactions.as_ref().map(Vec::len),
                    p.records.as_ref().map(|r| {
                        (
                            r.len(),
                            if r.len() > 8 {
                                i64::from_be_bytes(r[0..8].try_into().unwrap())
                            } else {
                                -9
                            },
                        )
                    }),
                )
            }),
        )
    };
    let z = uuid::Uuid::nil();
    show(
        "Fetch v12 offset 1 (mid batch) (err, session, topics, (err, hw, lso, start, replica, aborted, (len, base)))",
        c.call(12, fetch(Some(&t1), z, 1, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 max_bytes 1, partition max 1",
        c.call(12, fetch(Some(&t1), z, 0, 1, 1, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 read committed",
        c.call(12, fetch(Some(&t1), z, 0, 1 << 20, 1 << 20, 0, -1, 1)).map(fp),
    );
    let end = one(c.call(10, lo(&t1, -1, -1))?).2;
    show(
        "Fetch v12 at the end",
        c.call(12, fetch(Some(&t1), z, end, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 beyond the end",
        c.call(12, fetch(Some(&t1), z, 9999, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 offset -1",
        c.call(12, fetch(Some(&t1), z, -1, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v12 unknown topic",
        c.call(12, fetch(Some("nope"), z, 0, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    show(
        "Fetch v16 unknown id",
        c.call(16, fetch(None, uuid::Uuid::from_u128(9), 0, 1 << 20, 1 << 20, 0, -1, 0)).map(fp),
    );
    let r = c.call(16, fetch(None, tid, 0, 1 << 20, 1 << 20, 0, 0, 0))?;
    let sid = r.session_id;
    show("Fetch v16 new session", Ok(fp(r)));
    let inc = |sid: i32, ep: i32| {
        FetchRequest::default()
            .with_max_wait_ms(200)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(sid)
            .with_session_epoch(ep)
    };
    show("Fetch v16 session epoch 1, no topics (records remain)", c.call(16, inc(sid, 1)).map(fp));
    show(
        "Fetch v16 session: move to end",
        c.call(16, fetch(None, tid, end, 1 << 20, 1 << 20, sid, 2, 0)).map(fp),
    );
    show("Fetch v16 session: nothing new", c.call(16, inc(sid, 3)).map(fp));
    show("Fetch v16 session: wrong epoch 9", c.call(16, inc(sid, 9)).map(fp));
    show("Fetch v16 session: unknown id", c.call(16, inc(987654, 1)).map(fp));
    show("Fetch v16 session: close (epoch -1)", c.call(16, inc(sid, -1)).map(fp));
    show(
        "Fetch v12 node_endpoints / v16 leader fields on stale epoch",
        c.call(16, {
            let mut f = fetch(None, tid, 0, 1 << 20, 1 << 20, 0, -1, 0);
            f.topics[0].partitions[0].current_leader_epoch = 99;
            f
        })
        .map(|r| {
            (
                r.node_endpoints.len(),
                r.responses[0].partitions[0].error_code,
                r.responses[0].partitions[0].current_leader.clone(),
            )
        }),
    );
    // LogAppendTime
    let r = c.call(12, fetch(Some(&t3), z, 0, 1 << 20, 1 << 20, 0, -1, 0))?;
    let b = r.responses[0].partitions[0].records.clone().unwrap();
    say!(
        "## LogAppendTime batch as stored: attributes {:#x} baseTs {} maxTs {} leaderEpoch {}",
        i16::from_be_bytes(b[21..23].try_into()?),
        i64::from_be_bytes(b[27..35].try_into()?),
        i64::from_be_bytes(b[35..43].try_into()?),
        i32::from_be_bytes(b[12..16].try_into()?)
    );

    // ---- coordinators and groups
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
        c.call(9, oc("simple", "", -1, &t1, Some("meta"))).map(oce),
    );
    show("OffsetCommit v9 null metadata", c.call(9, oc("simple2", "", -1, &t1, None)).map(oce));
    show(
        "OffsetCommit v9 unknown group with member",
        c.call(9, oc("nogroup", "m", 1, &t1, None)).map(oce),
    );
    show("OffsetCommit v9 unknown topic", c.call(9, oc("simple", "", -1, "nope", None)).map(oce));
    show(
        "OffsetCommit v9 live group, empty member",
        c.call(9, oc("g1", "", -1, &t1, None)).map(oce),
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
        c.call(8, of8("nogroup", Some(&t1))).map(|r| r.groups),
    );
    show("OffsetFetch v8 unknown group, all", c.call(8, of8("nogroup", None)).map(|r| r.groups));
    show(
        "OffsetFetch v7 unknown group",
        c.call(7, {
            use offset_fetch_request::*;
            OffsetFetchRequest::default().with_group_id(GroupId(s("nogroup"))).with_topics(Some(
                vec![
                    OffsetFetchRequestTopic::default()
                        .with_name(topic(&t1))
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
                .with_subscribed_topic_names(Some(vec![topic(&t1)]))
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
                .with_subscribed_topic_names(Some(vec![topic(&t1)]))
                .with_topic_partitions(Some(vec![])),
        ),
    );

    // ---- transactions
    show(
        "InitProducerId empty transactional id",
        c.call(
            4,
            InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(s(""))))
                .with_transaction_timeout_ms(1000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        )
        .map(|r| r.error_code),
    );
    show(
        "InitProducerId timeout too large",
        c.call(
            4,
            InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(s("tx1"))))
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        )
        .map(|r| r.error_code),
    );
    std::thread::sleep(Duration::from_secs(2));
    let p = c.call(
        5,
        InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(s("tx1"))))
            .with_transaction_timeout_ms(60000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    );
    show(
        "InitProducerId v5 tx1",
        p.as_ref()
            .map(|p| (p.error_code, p.producer_id, p.producer_epoch))
            .map_err(|e| anyhow::anyhow!("{e}")),
    );
    if let Ok(p) = p {
        let txb = |ep: i16, sq: i32| {
            let mut b = BytesMut::from(&recs(1, true, 5)[..]);
            b[22] |= 0x10;
            b[43..51].copy_from_slice(&p.producer_id.0.to_be_bytes());
            b[51..53].copy_from_slice(&ep.to_be_bytes());
            b[53..57].copy_from_slice(&sq.to_be_bytes());
            fix_crc(&mut b);
            b.freeze()
        };
        let e = p.producer_epoch;
        show(
            "Produce v11 transactional without AddPartitionsToTxn",
            c.call(
                11,
                produce(&t1, Some(txb(e, 0)), -1)
                    .with_transactional_id(Some(TransactionalId(s("tx1")))),
            )
            .map(pr),
        );
        show(
            "Produce v12 transactional without AddPartitionsToTxn",
            c.call(
                12,
                produce(&t1, Some(txb(e, 0)), -1)
                    .with_transactional_id(Some(TransactionalId(s("tx1")))),
            )
            .map(pr),
        );
        show(
            "Fetch read committed while open (hw vs lso)",
            c.call(12, fetch(Some(&t1), z, 0, 1 << 20, 1 << 20, 0, -1, 1)).map(fp),
        );
        show(
            "EndTxn v5 commit: epoch in the answer",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e)
                    .with_committed(true),
            ),
        );
        std::thread::sleep(Duration::from_millis(300));
        show(
            "EndTxn v5 again with the old epoch",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e)
                    .with_committed(true),
            ),
        );
        show(
            "EndTxn v5 empty transaction, abort, new epoch",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e + 1)
                    .with_committed(false),
            ),
        );
        show(
            "EndTxn v5 empty transaction, commit, newer epoch",
            c.call(
                5,
                EndTxnRequest::default()
                    .with_transactional_id(TransactionalId(s("tx1")))
                    .with_producer_id(p.producer_id)
                    .with_producer_epoch(e + 2)
                    .with_committed(true),
            ),
        );
        show(
            "AddPartitionsToTxn v3 stale epoch",
            c.call(3, {
                use add_partitions_to_txn_request::*;
                AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(TransactionalId(s("tx1")))
                    .with_v3_and_below_producer_id(p.producer_id)
                    .with_v3_and_below_producer_epoch(e)
                    .with_v3_and_below_topics(vec![
                        AddPartitionsToTxnTopic::default()
                            .with_name(topic(&t1))
                            .with_partitions(vec![0]),
                    ])
            })
            .map(|r| r.results_by_topic_v3_and_below),
        );
    }
    show(
        "DescribeTransactions unknown",
        c.call(
            0,
            DescribeTransactionsRequest::default()
                .with_transactional_ids(vec![TransactionalId(s("nope"))]),
        ),
    );
    show(
        "DescribeProducers",
        c.call(0, {
            use describe_producers_request::*;
            DescribeProducersRequest::default().with_topics(vec![
                TopicRequest::default().with_name(topic(&t1)).with_partition_indexes(vec![0]),
            ])
        })
        .map(|r| r.topics[0].partitions[0].active_producers.clone()),
    );

    // ---- configs
    use describe_configs_request::*;
    let dc = |ty: i8, n: &str, keys: Option<Vec<&str>>| {
        DescribeConfigsRequest::default().with_include_synonyms(true).with_resources(vec![
            DescribeConfigsResource::default()
                .with_resource_type(ty)
                .with_resource_name(s(n))
                .with_configuration_keys(keys.map(|k| k.iter().map(|x| s(x)).collect())),
        ])
    };
    let r = c.call(4, dc(2, &t2, None))?;
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
        c.call(4, dc(2, &t1, Some(vec![]))).map(|r| r.results[0].configs.len()),
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
            c.call(1, iac(&t2, k, op, v))
                .map(|r| (r.responses[0].error_code, r.responses[0].error_message.clone())),
        );
    }
    // ---- the rest
    show("OffsetForLeaderEpoch epochs 0, 5, -1", {
        use offset_for_leader_epoch_request::*;
        c.call(
            4,
            OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
                OffsetForLeaderTopic::default().with_topic(topic(&t1)).with_partitions(
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
                DeleteRecordsTopic::default().with_name(topic(&t3)).with_partitions(vec![
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
                .with_topics(vec![TopicRequest::default().with_name(topic(&t1))])
                .with_response_partition_limit(2000),
        )
    });
    show("DeleteTopics by id, unknown id, unknown name", {
        use delete_topics_request::*;
        c.call(
            6,
            DeleteTopicsRequest::default().with_timeout_ms(3000).with_topics(vec![
                DeleteTopicState::default().with_name(None).with_topic_id(tid),
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
                CreatePartitionsTopic::default().with_name(topic(&t2)).with_count(1),
            ]),
        )
    });
    show("Produce acks 0: is there an answer?", {
        let mut d = C::new();
        d.s.set_read_timeout(Some(Duration::from_millis(700)))?;
        d.call(12, produce(&t3, Some(recs(1, true, 5)), 0)).map(pr)
    });
    show("Produce acks 0 with an error: is the connection closed?", {
        let mut d = C::new();
        d.s.set_read_timeout(Some(Duration::from_millis(1500)))?;
        d.call(12, produce("nope", Some(recs(1, true, 5)), 0)).map(pr)
    });
    Ok(())
}
