//! A producer: it writes a topic's bursts and tells the model what was acknowledged, and what may have been stored.

use std::time::{Duration, Instant};

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};

use super::batches::encode;
use super::model::{Model, Sent};
use super::plan::Chance;
use super::talk::{Client, now_ms};
use crate::wire::produce;

/// Longer than any fault takes, and what comes after it.
const PATIENCE: Duration = Duration::from_secs(40);
const ALL: i16 = -1;
const ANSWER_MS: i32 = 4_000;

/// Errors after which the same is sent again. Whether it was stored is open: a leader may be told after it appended that it is none.
const RETRIABLE: [i16; 8] = [3, 5, 6, 7, 14, 19, 20, 56];

/// See the file's header.
pub(crate) struct Writer {
    client: Client,
    /// Id and next sequence.
    producer: Option<(i64, i32)>,
}

impl Writer {
    pub(crate) fn new(bootstrap: &str) -> Self {
        Self { client: Client::new(bootstrap), producer: None }
    }

    /// Writes a burst; what went wrong.
    pub(crate) fn burst(
        &mut self,
        model: &mut Model,
        chance: &mut Chance,
        batches: u64,
    ) -> Vec<String> {
        let (_, most) = model.point.sizes.burst();
        if chance.one_in(3) {
            self.producer = None;
        }
        for _ in 0..batches {
            let sent = model.make(chance, most, now_ms());
            if let Err(why) = self.send(model, &sent) {
                return vec![format!("{}: {why}", model.point.name)];
            }
        }
        Vec::new()
    }

    fn producer(&mut self) -> std::io::Result<(i64, i32)> {
        if let Some(producer) = self.producer {
            return Ok(producer);
        }
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.client.ask_any(4, &request)?;
        if answer.error_code != 0 {
            return Err(std::io::Error::other(format!("error {} to an id", answer.error_code)));
        }
        Ok(*self.producer.insert((answer.producer_id.0, 0)))
    }

    /// Sends a batch until it is acknowledged.
    fn send(&mut self, model: &mut Model, sent: &[Sent]) -> Result<(), String> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            match self.try_send(model, sent) {
                Ok(None) => return Ok(()),
                Ok(Some(wait)) => last = wait,
                Err(fatal) => return Err(fatal),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("record {} is not acknowledged: {last}", sent[0].number))
    }

    /// Sends it once; `None`: it is acknowledged, else why it is to be sent again.
    fn try_send(&mut self, model: &mut Model, sent: &[Sent]) -> Result<Option<String>, String> {
        let producer = match model.point.is_idempotent.then(|| self.producer()).transpose() {
            Ok(producer) => producer,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let batch = encode(&model.records(sent), model.point.codec, producer);
        let request = produce(&model.point.name, ALL, batch).with_timeout_ms(ANSWER_MS);
        let name = model.point.name.clone();
        if let Err(error) = self.client.whereabouts(&name) {
            return Ok(Some(error.to_string()));
        }
        let answer = match self.client.ask_leader(&name, 9, &request) {
            Ok(answer) => answer,
            Err(error) => {
                may_be_stored(model, sent);
                return Ok(Some(error.to_string()));
            }
        };
        let answered = &answer.responses[0].partition_responses[0];
        match answered.error_code {
            0 => {
                model.stored(answered.base_offset, sent, answered.log_append_time_ms, now_ms());
                if let Some((_, next)) = self.producer.as_mut().filter(|_| producer.is_some()) {
                    *next += i32::try_from(sent.len()).expect("few");
                }
                Ok(None)
            }
            code if RETRIABLE.contains(&code) => {
                may_be_stored(model, sent);
                self.client.forget(&name);
                Ok(Some(format!("error {code}")))
            }
            code => Err(format!("error {code} to record {}", sent[0].number)),
        }
    }
}

/// What an idempotent producer sends again is stored once.
fn may_be_stored(model: &mut Model, sent: &[Sent]) {
    if !model.point.is_idempotent {
        model.may_be_stored(sent);
    }
}
