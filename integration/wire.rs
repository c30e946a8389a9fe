//! A bare connection: requests as bytes, several in one go, and their answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// See the file's header.
pub(crate) struct Wire {
    stream: TcpStream,
    id: i32,
}

/// A request that was sent and is to be answered.
pub(crate) struct Sent<R: Request> {
    id: i32,
    version: i16,
    request: std::marker::PhantomData<R>,
}

impl Wire {
    pub(crate) fn connect(address: &str) -> Self {
        Self::try_connect(address, Duration::from_secs(30)).expect("a connection")
    }

    /// The same for whoever goes on where nobody is there, or nobody answers in time.
    pub(crate) fn try_connect(address: &str, patience: Duration) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, id: 0 })
    }

    /// Over a stream that was connected elsewhere.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, id: 0 }
    }

    fn frame<R: Request>(&mut self, version: i16, request: &R) -> (Bytes, Sent<R>) {
        self.id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.id)
            .with_client_id(Some(text("wire")));
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version)).expect("a header");
        request.encode(&mut body, version).expect("a request");
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(body.len()).expect("small"));
        frame.put_slice(&body);
        (frame.freeze(), Sent { id: self.id, version, request: std::marker::PhantomData })
    }

    fn receive<R: Request>(&mut self, sent: &Sent<R>) -> R::Response {
        self.try_receive(sent).expect("an answer")
    }

    fn try_receive<R: Request>(&mut self, sent: &Sent<R>) -> std::io::Result<R::Response> {
        self.try_receive_slowly(sent, |_| {})
    }

    /// The same, with a word after each piece of the answer, and its size.
    pub(crate) fn try_receive_slowly<R: Request>(
        &mut self,
        sent: &Sent<R>,
        mut after: impl FnMut(usize),
    ) -> std::io::Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).expect("a length");
        let mut frame = vec![0; length];
        for piece in frame.chunks_mut(100_000) {
            self.stream.read_exact(piece)?;
            after(piece.len());
        }
        let mut frame = Bytes::from(frame);
        let header_version = R::Response::header_version(sent.version);
        let header = ResponseHeader::decode(&mut frame, header_version).expect("a header");
        assert_eq!(header.correlation_id, sent.id, "answers come in the order of requests");
        Ok(R::Response::decode(&mut frame, sent.version).expect("a response"))
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> Sent<R> {
        let (frame, sent) = self.frame(version, request);
        self.stream.write_all(&frame).expect("sent");
        sent
    }

    pub(crate) fn answer<R: Request>(&mut self, sent: &Sent<R>) -> R::Response {
        self.receive(sent)
    }

    /// Asks one thing.
    pub(crate) fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request);
        self.receive(&sent)
    }

    /// The same where the other end may go; no further question fits this connection then.
    pub(crate) fn try_ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> std::io::Result<R::Response> {
        let (frame, sent) = self.frame(version, request);
        self.stream.write_all(&frame)?;
        self.try_receive(&sent)
    }

    /// Produces one record of so many bytes to partition 0; the partition's error.
    pub(crate) fn produce_one(&mut self, topic: &str, acks: i16, bytes: usize) -> i16 {
        let answer = self.ask(9, &produce(topic, acks, batch(1, bytes, -1)));
        answer.responses[0].partition_responses[0].error_code
    }

    /// Asks two things in one go.
    pub(crate) fn ask_both<A: Request, B: Request>(
        &mut self,
        first: (i16, &A),
        second: (i16, &B),
    ) -> (A::Response, B::Response) {
        let ((one, sent_one), (other, sent_other)) =
            (self.frame(first.0, first.1), self.frame(second.0, second.1));
        self.stream.write_all(&[one, other].concat()).expect("sent");
        (self.receive(&sent_one), self.receive(&sent_other))
    }

    /// Sends what is not answered (`acks=0`), and asks another thing in the same go.
    pub(crate) fn ask_after<A: Request, B: Request>(
        &mut self,
        first: (i16, &A),
        second: (i16, &B),
    ) -> B::Response {
        let ((one, _), (other, sent)) =
            (self.frame(first.0, first.1), self.frame(second.0, second.1));
        self.stream.write_all(&[one, other].concat()).expect("sent");
        self.receive(&sent)
    }
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub(crate) fn name(value: &str) -> TopicName {
    TopicName(text(value))
}

/// A batch of records; of an idempotent producer, if there is an id.
pub(crate) fn batch(count: i32, bytes: usize, producer_id: i64) -> Bytes {
    batch_at(1_700_000_000_000, count, bytes, producer_id)
}

/// The same from a time on, a millisecond a record.
pub(crate) fn batch_at(timestamp: i64, count: i32, bytes: usize, producer_id: i64) -> Bytes {
    let record = |number: i32| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch: if producer_id < 0 { -1 } else { 0 },
        timestamp_type: TimestampType::Creation,
        offset: number.into(),
        sequence: if producer_id < 0 { number - 1 } else { number },
        timestamp: timestamp + i64::from(number),
        key: None,
        value: Some(Bytes::from(vec![b'v'; bytes])),
        headers: kafka_protocol::indexmap::IndexMap::new(),
    };
    let records: Vec<Record> = (0..count).map(record).collect();
    let mut buffer = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut buffer, &records, &options).expect("a batch");
    buffer.freeze()
}

/// Produces one batch to partition 0.
pub(crate) fn produce(topic: &str, acks: i16, batch: Bytes) -> ProduceRequest {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let topic =
        TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

/// Fetches partition 0 from its start, without a session.
pub(crate) fn fetch(topic: &str, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(100 << 20);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(100 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Makes a topic.
pub(crate) fn create(topic: &str, partitions: i32, replicas: i16) -> CreateTopicsRequest {
    use kafka_protocol::messages::create_topics_request::CreatableTopic;
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas);
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

/// Commits an offset of partition 0 for a group without members.
pub(crate) fn commit(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    use kafka_protocol::messages::offset_commit_request::{
        OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(-1);
    let topic =
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(kafka_protocol::messages::GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// Asks for all that a group has committed (version 8).
pub(crate) fn committed(group: &str) -> OffsetFetchRequest {
    use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(kafka_protocol::messages::GroupId(text(group)))
        .with_topics(None);
    OffsetFetchRequest::default().with_groups(vec![group])
}
