//! Asking a cluster whose nodes come and go: whoever is there, or whoever leads.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::Request;
use uuid::Uuid;

use crate::wire::{Wire, name, text};

/// Longer than anything takes while nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(6);
/// Topics have ids from this version of Fetch on.
const BY_ID: i16 = 13;
/// Consumers name their rack from this version on.
pub(crate) const BY_RACK: i16 = 11;

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    i64::try_from(since.as_millis()).expect("small")
}

/// Where the only partition of a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub id: Uuid,
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
    addresses: HashMap<i32, String>,
}

/// See the file's header.
pub(crate) struct Client {
    addresses: Vec<String>,
    open: HashMap<String, Wire>,
    known: HashMap<String, Whereabouts>,
}

/// What is asked of a fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub topic: &'a str,
    pub version: i16,
    pub offset: i64,
    pub bytes_max: i32,
    /// A follower to ask, if not the leader; it is told that the consumer is in its rack.
    pub follower: Option<i32>,
}

/// An answer to a fetch.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub error: i16,
    pub high_watermark: i64,
    pub log_start: i64,
    pub records: Bytes,
}

impl Client {
    pub(crate) fn new(bootstrap: &str) -> Self {
        let addresses = bootstrap.split(',').map(str::to_owned).collect();
        Self { addresses, open: HashMap::new(), known: HashMap::new() }
    }

    /// Asks a broker; the connection ends with the first failure.
    pub(crate) fn ask_at<R: Request>(
        &mut self,
        address: &str,
        version: i16,
        request: &R,
    ) -> Result<R::Response> {
        let mut wire = match self.open.remove(address) {
            Some(wire) => wire,
            None => Wire::try_connect(address, PATIENCE)?,
        };
        let answer = wire.try_ask(version, request)?;
        self.open.insert(address.to_owned(), wire);
        Ok(answer)
    }

    /// Asks whoever answers first.
    pub(crate) fn ask_any<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let mut last = Error::other("nobody to ask");
        for address in self.addresses.clone() {
            match self.ask_at(&address, version, request) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks again where a topic is.
    pub(crate) fn look(&mut self, topic: &str) -> Result<Whereabouts> {
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        self.known.remove(topic);
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name(topic)))]))
            .with_allow_auto_topic_creation(false);
        let mut last = Error::other("nobody to ask");
        // One that comes back may know an old leader, or none.
        for address in self.addresses.clone() {
            match self.ask_at(&address, 12, &request).and_then(|answer| found(&answer)) {
                Ok(found) if found.addresses.contains_key(&found.leader) => {
                    self.known.insert(topic.to_owned(), found.clone());
                    return Ok(found);
                }
                Ok(found) => last = Error::other(format!("{topic} has no leader: {found:?}")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) fn whereabouts(&mut self, topic: &str) -> Result<Whereabouts> {
        match self.known.get(topic) {
            Some(known) => Ok(known.clone()),
            None => self.look(topic),
        }
    }

    /// Forgets who leads, since that was wrong.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.known.remove(topic);
    }

    pub(crate) fn ask_leader<R: Request>(
        &mut self,
        topic: &str,
        version: i16,
        request: &R,
    ) -> Result<R::Response> {
        let found = self.whereabouts(topic)?;
        let answer = self.ask_at(&found.addresses[&found.leader], version, request);
        if answer.is_err() {
            self.forget(topic);
        }
        answer
    }

    pub(crate) fn ask_node<R: Request>(
        &mut self,
        node: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response> {
        let index = usize::try_from(node - 1).expect("a node");
        self.ask_at(&self.addresses[index].clone(), version, request)
    }

    pub(crate) fn fetch(&mut self, ask: Ask) -> Result<Fetched> {
        use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
        let found = self.whereabouts(ask.topic)?;
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(ask.offset)
            .with_partition_max_bytes(ask.bytes_max)
            .with_current_leader_epoch(-1);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let topic = if ask.version >= BY_ID {
            topic.with_topic_id(found.id)
        } else {
            topic.with_topic(name(ask.topic))
        };
        let mut request = FetchRequest::default()
            .with_max_wait_ms(300)
            .with_min_bytes(1)
            .with_max_bytes(ask.bytes_max)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let node = ask.follower.unwrap_or(found.leader);
        if ask.follower.is_some() {
            request.rack_id = text(&format!("rack{node}"));
        }
        let mut answer = self.ask_at(&found.addresses[&node], ask.version, &request)?;
        let answered = answer.responses.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(partition) = answered else {
            return Err(Error::other(format!("error {} to a fetch", answer.error_code)));
        };
        Ok(Fetched {
            error: partition.error_code,
            high_watermark: partition.high_watermark,
            log_start: partition.log_start_offset,
            records: partition.records.unwrap_or_default(),
        })
    }

    /// Error, time and offset by a time, or by -1 (the end), -2 (the start), -3 (the newest), -4 (the start here).
    pub(crate) fn offset(&mut self, topic: &str, time: i64) -> Result<(i16, i64, i64)> {
        use kafka_protocol::messages::list_offsets_request::{
            ListOffsetsPartition, ListOffsetsTopic,
        };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(time);
        let asked =
            ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let answer = self.ask_leader(topic, 8, &request)?;
        let partition = &answer.topics[0].partitions[0];
        if partition.error_code != 0 {
            self.forget(topic);
        }
        Ok((partition.error_code, partition.timestamp, partition.offset))
    }

    /// The same where it has to come in the end.
    pub(crate) fn offset_at_last(
        &mut self,
        topic: &str,
        time: i64,
    ) -> std::result::Result<i64, String> {
        let mut last = String::new();
        for _ in 0..100 {
            match self.offset(topic, time) {
                Ok((0, _, offset)) => return Ok(offset),
                Ok((code, ..)) => last = format!("error {code}"),
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(format!("{topic}: no offset of {time}: {last}"))
    }
}

fn found(answer: &MetadataResponse) -> Result<Whereabouts> {
    let topic = answer.topics.first().filter(|topic| topic.error_code == 0);
    let Some(topic) = topic.filter(|topic| topic.partitions.len() == 1) else {
        return Err(Error::other("no such topic yet"));
    };
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    let partition = &topic.partitions[0];
    let address = |broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
        (broker.node_id.0, format!("{}:{}", broker.host.as_str(), broker.port))
    };
    Ok(Whereabouts {
        id: topic.topic_id,
        leader: partition.leader_id.0,
        replicas: ids(&partition.replica_nodes),
        in_sync: ids(&partition.isr_nodes),
        addresses: answer.brokers.iter().map(address).collect(),
    })
}
