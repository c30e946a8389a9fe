//! What changed bytes are made of: the corpora of the fuzz targets, a valid request for every API, and batches.

use std::collections::BTreeMap;
use std::path::Path;

use super::every_api::{Valid, encode, every_api};
use super::mutations::{self, changed, framed, index};
use super::poison::{CODECS, NOW, good, sealed};
use crate::life::plan::Chance;
use crate::wire::{produce, text};

/// Where changed batches go: nothing else names it.
pub(super) const KEPT: &str = "kept";
const CORPORA: [&str; 6] =
    ["frames", "request", "batch", "compressed", "group_records", "peer_message"];

/// What cases are made of.
pub(super) struct Material {
    pub valid: Vec<Valid>,
    corpora: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// Records without a codec.
    plain: Vec<u8>,
}

impl Material {
    /// Of what lies in the repository, and of what suits a broker at an address, with its cluster and its number.
    pub(super) fn new(address: &str, cluster: &str, node: i32) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz/corpus");
        let corpus = |name: &'static str| {
            let entries = std::fs::read_dir(folder.join(name)).expect("a corpus").flatten();
            let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            (name, paths.iter().map(|path| std::fs::read(path).expect("read")).collect())
        };
        let mut corpora: BTreeMap<_, Vec<Vec<u8>>> = CORPORA.into_iter().map(corpus).collect();
        // Messages of this cluster's node, too: those of others are answered before they are looked at.
        let cluster = format!("\"cluster\":\"{cluster}\"");
        let messages = corpora.get_mut("peer_message").expect("a corpus");
        for message in messages.clone() {
            let message = String::from_utf8_lossy(&message).replace("\"cluster\":\"c\"", &cluster);
            let message = message.replace("\"node\":1", &format!("\"node\":{node}"));
            messages.push(message.into_bytes());
        }
        let valid = every_api(address);
        Self { valid, corpora, plain: good("none", 3)[61..].to_vec() }
    }

    pub(super) fn one(&self, chance: &mut Chance, corpus: &str) -> &[u8] {
        let all = &self.corpora[corpus];
        &all[index(chance, all.len())]
    }

    pub(super) fn request(&self, chance: &mut Chance) -> &[u8] {
        if chance.one_in(4) {
            return self.one(chance, "request");
        }
        &self.valid[index(chance, self.valid.len())].frame
    }

    /// The same with an id of its own.
    pub(super) fn numbered(&self, chance: &mut Chance, id: usize) -> (&'static str, Vec<u8>) {
        let (kind, mut bytes) = self.kafka(chance);
        if let Some(place) = bytes.get_mut(8..12) {
            place.copy_from_slice(&u32::try_from(id).expect("few").to_be_bytes());
        }
        (kind, bytes)
    }

    /// A request with its length, mostly; what it is.
    fn kafka(&self, chance: &mut Chance) -> (&'static str, Vec<u8>) {
        let kept = |batch| {
            let frame = encode(9, 5, &produce(KEPT, -1, batch)).expect("a request");
            [&u32::try_from(frame.len()).expect("small").to_be_bytes()[..], &frame].concat()
        };
        match chance.below(16) {
            0 => {
                let valid = self.request(chance);
                let length = u32::try_from(valid.len()).expect("small").to_be_bytes();
                ("valid requests", [&length[..], valid].concat())
            }
            1..=8 => {
                let (valid, other) = (self.request(chance), self.request(chance));
                ("changed requests", mutations::request(chance, valid, other))
            }
            9 => {
                let frames = self.one(chance, "frames");
                ("changed frames", changed(chance, &frames[1..], frames, 4))
            }
            10 | 11 => {
                let (valid, other) = (self.one(chance, "batch"), self.one(chance, "batch"));
                ("changed batches", kept(mutations::batch(chance, valid, other)))
            }
            12 | 13 => ("changed records", kept(mutations::packed(chance, &self.plain, 3))),
            14 => {
                let bytes = self.one(chance, "compressed");
                let body = changed(chance, &bytes[1..], bytes, 0);
                let codec = CODECS[usize::from(bytes[0] % 5)];
                ("changed codecs", kept(sealed(codec, 0, 1, NOW, &body)))
            }
            _ => {
                let record = self.one(chance, "group_records");
                let body = changed(chance, record, record, 0);
                ("changed records of groups", group_record(chance, &body))
            }
        }
    }
}

/// Bytes where a group keeps what members say, or to be written to where groups are kept.
fn group_record(chance: &mut Chance, body: &[u8]) -> Vec<u8> {
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
    use kafka_protocol::messages::{GroupId, JoinGroupRequest};
    let frame = if chance.one_in(2) {
        let batch = sealed("none", 0, 1, NOW, body);
        encode(9, 5, &produce("__consumer_offsets", -1, batch))
    } else {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        let join = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&format!("fuzz-{}", chance.below(50)))))
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(200)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol.with_metadata(body.to_vec().into())]);
        encode(3, 5, &join)
    };
    let frame = frame.expect("a request");
    framed(chance, &frame)
}
