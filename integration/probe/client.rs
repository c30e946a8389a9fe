//! Asking one question: a bare connection, and the requests that many questions begin from.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::*;
use kafka_protocol::records::*;

use super::{ADDRESS, OUT};

pub(crate) struct C {
    pub(crate) s: TcpStream,
    id: i32,
}
impl C {
    pub(crate) fn new() -> C {
        let a = ADDRESS.with_borrow(String::clone);
        let s = TcpStream::connect(a).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        C { s, id: 0 }
    }
    pub(crate) fn raw(&mut self, key: i16, version: i16, hv: i16, body: &[u8]) -> Result<Vec<u8>> {
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
    pub(crate) fn read(&mut self) -> Result<Vec<u8>> {
        let mut l = [0u8; 4];
        self.s.read_exact(&mut l)?;
        let mut v = vec![0u8; i32::from_be_bytes(l) as usize];
        self.s.read_exact(&mut v)?;
        Ok(v)
    }
    pub(crate) fn call<R: Request>(&mut self, v: i16, r: R) -> Result<R::Response> {
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
pub(crate) fn s(x: &str) -> StrBytes {
    StrBytes::from_string(x.to_string())
}
pub(crate) fn topic(x: &str) -> TopicName {
    TopicName(s(x))
}
pub(crate) fn show<T: std::fmt::Debug>(what: &str, r: Result<T>) {
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
pub(crate) fn recs(n: usize, key: bool, val: usize) -> Bytes {
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
    encoded(&r)
}
pub(crate) fn encoded(r: &[Record]) -> Bytes {
    let mut b = BytesMut::new();
    RecordBatchEncoder::encode(
        &mut b,
        r,
        &RecordEncodeOptions { version: 2, compression: Compression::None },
    )
    .unwrap();
    b.freeze()
}
pub(crate) fn fix_crc(b: &mut BytesMut) {
    let c = crc_fast::crc32_iscsi(&b[21..]);
    b[17..21].copy_from_slice(&c.to_be_bytes());
}
pub(crate) fn produce(t: &str, r: Option<Bytes>, acks: i16) -> ProduceRequest {
    use produce_request::*;
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![
        TopicProduceData::default().with_name(topic(t)).with_partition_data(vec![
            PartitionProduceData::default().with_index(0).with_records(r),
        ]),
    ])
}
pub(crate) fn fetch(
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

/// Questions that share topics.
pub(crate) struct Asking {
    pub(crate) c: C,
    pub(crate) stamp: u128,
    pub(crate) t1: String,
    pub(crate) t2: String,
    pub(crate) t3: String,
    pub(crate) tid: uuid::Uuid,
}

pub(crate) const Z: uuid::Uuid = uuid::Uuid::nil();

/// ListOffsets of partition 0.
pub(crate) fn lo(t: &str, ts: i64, ep: i32) -> ListOffsetsRequest {
    use list_offsets_request::*;
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default().with_name(topic(t)).with_partitions(vec![
            ListOffsetsPartition::default()
                .with_partition_index(0)
                .with_timestamp(ts)
                .with_current_leader_epoch(ep),
        ]),
    ])
}

/// Error, time, offset, epoch.
pub(crate) fn one(r: ListOffsetsResponse) -> (i16, i64, i64, i32) {
    let p = &r.topics[0].partitions[0];
    (p.error_code, p.timestamp, p.offset, p.leader_epoch)
}

/// What is compared of a produce answer.
pub(crate) fn pr(r: ProduceResponse) -> impl std::fmt::Debug {
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
}

/// What is compared of a fetch answer.
pub(crate) fn fp(r: FetchResponse) -> impl std::fmt::Debug {
    (
        r.error_code,
        // Chosen at random: shown as one number, however many digits it has.
        if r.session_id > 100_000 { 999_999_999 } else { r.session_id },
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
}
