//! This broker as a member of its cluster: registers, sends heartbeats, carries its leaders' wishes to the controller.
//!
//! Invariants: the lease counts from when a heartbeat was sent, and only once this node has applied all that the
//! controller knew when it answered: a node that hears the controller but not the quorum's log does not know what it
//! leads; a broker says that it is ready only when it has applied what the controller had told it about before.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::sync::{Notify, watch};

use super::capacity::capacity;
use super::error::BrokerError;
use super::fetcher::Fetchers;
use crate::controller::{
    Answer, Command, Controller, ControllerError, Heartbeat, IsrChange, Registration,
};
use crate::model::TopicPartition;
use crate::model::number::to_i64;
use crate::replication::{IsrProposal, Replicas};
use crate::system::clock::{millis, monotonic, sleep, timeout_at, uptime_ms};
use crate::system::tasks::keep_service;

/// Pause before a registration is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// How often somebody is told what a start is waiting for.
const TELL: Duration = Duration::from_secs(5);

/// See the file's header.
#[derive(Debug)]
pub(super) struct Membership {
    controller: Arc<Controller>,
    replicas: Arc<Replicas>,
    fetchers: Arc<Fetchers>,
    registration: Registration,
    epoch: AtomicI64,
    /// The newest index that the controller told of.
    told: AtomicI64,
    wants_to_stop: AtomicBool,
    /// Whether nothing that others could lead is led here any more.
    is_drained: watch::Sender<bool>,
    hurry: Notify,
    /// Partitions whose failed logs the controller knows of.
    told_failed: Mutex<BTreeSet<TopicPartition>>,
    /// How late heartbeats are answered, where somebody wants to know.
    delays: OnceLock<Histogram>,
}

impl Membership {
    pub(super) fn new(
        controller: Arc<Controller>,
        (replicas, fetchers): (Arc<Replicas>, Arc<Fetchers>),
        registration: Registration,
    ) -> Arc<Self> {
        Arc::new(Self {
            controller,
            replicas,
            fetchers,
            registration,
            epoch: AtomicI64::new(-1),
            told: AtomicI64::new(i64::MAX),
            wants_to_stop: AtomicBool::new(false),
            is_drained: watch::channel(false).0,
            hurry: Notify::new(),
            told_failed: Mutex::default(),
            delays: OnceLock::new(),
        })
    }

    /// Notes from now on how late heartbeats are answered.
    pub(super) fn note_delays(&self, delays: Histogram) {
        let _ = self.delays.set(delays);
    }

    /// Begins to take part; returns once this broker may lead.
    pub(super) async fn begin(self: &Arc<Self>) {
        keep_service("heartbeats", Arc::clone(self).beat());
        keep_service("ISR changes", Arc::clone(self).carry_proposals());
        self.wait_unfenced().await;
    }

    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Registers, and returns once this node has applied what the controller knew then.
    pub(super) async fn register(&self) -> Result<(), BrokerError> {
        let mut tell_at = monotonic() + TELL;
        loop {
            let command = Command::Register(self.registration.clone());
            match self.controller.submit_once(&command, Duration::from_secs(6)).await {
                Ok(reply) => match reply.result {
                    Ok(Answer::Registered { epoch }) => {
                        self.epoch.store(epoch, Ordering::Release);
                        self.told.store(to_i64(reply.index), Ordering::Release);
                        let forever = monotonic() + Duration::from_hours(1);
                        let _ = self.controller.wait_applied(reply.index, forever).await;
                        return Ok(());
                    }
                    Err(error @ (ControllerError::Request(_) | ControllerError::Feature(_))) => {
                        return Err(BrokerError::Controller(error));
                    }
                    Ok(_) | Err(_) if monotonic() < tell_at => {}
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "not registered yet");
                        tell_at = monotonic() + TELL;
                    }
                },
                Err(_) if monotonic() < tell_at => {}
                Err(error) => {
                    let quorum = self.controller.quorum();
                    tracing::warn!(%error, voters = ?quorum.voters, "waiting for the quorum: a majority of the voters must be there");
                    tell_at = monotonic() + TELL;
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn wait_unfenced(&self) {
        let id = self.registration.broker;
        let is_fenced =
            || self.controller.image().brokers.get(&id).is_none_or(|broker| broker.is_fenced);
        while is_fenced() {
            sleep(millis(2)).await;
        }
    }

    /// Heartbeats until the process ends.
    async fn beat(self: Arc<Self>) {
        let mut due = monotonic();
        loop {
            let config = self.controller.config();
            let (interval_ms, session_ms) = (
                config.long("broker.heartbeat.interval.ms"),
                config.long("broker.session.timeout.ms"),
            );
            let sent_ms = uptime_ms();
            let again = self.beat_once(sent_ms, (interval_ms, session_ms)).await;
            if let Some(delays) = self.delays.get() {
                delays.observe(due.elapsed().as_secs_f64());
            }
            self.tell_failed().await;
            // The first ones follow at once, so that a start takes no longer than it must.
            let pause_ms = if again { 1 } else { interval_ms };
            due = monotonic() + millis(pause_ms);
            if timeout_at(due, self.hurry.notified()).await.is_ok() {
                due = monotonic();
            }
        }
    }

    /// One heartbeat; whether the next one is to follow at once.
    async fn beat_once(&self, sent_ms: i64, (interval_ms, session_ms): (i64, i64)) -> bool {
        let applied = self.controller.applied_data();
        let heartbeat = Heartbeat {
            broker: self.registration.broker,
            epoch: self.epoch(),
            is_ready: to_i64(applied) >= self.told.load(Ordering::Acquire),
            wants_to_stop: self.wants_to_stop.load(Ordering::Acquire),
            unreachable: self.fetchers.unreachable(2 * session_ms),
            applied: self.controller.applied(),
            capacity: Some(capacity(&self.controller.config(), &self.replicas)),
        };
        let wait = millis(session_ms / 2);
        let reply = self.controller.submit_once(&Command::Heartbeat(heartbeat), wait).await;
        let Ok(reply) = reply else { return false };
        match reply.result {
            Ok(Answer::Heartbeat { is_fenced, leads }) => {
                self.told.store(to_i64(reply.index), Ordering::Release);
                let until = monotonic() + millis(interval_ms);
                if !is_fenced && self.controller.wait_applied(reply.index, until).await.is_ok() {
                    tracing::debug!(
                        node = self.registration.broker,
                        sent_ms,
                        index = reply.index,
                        "lease extended"
                    );
                    // A tenth is left for clocks that do not run alike.
                    self.replicas.lease().extend(sent_ms, session_ms - session_ms / 10);
                }
                if self.wants_to_stop.load(Ordering::Acquire) && leads == 0 {
                    self.is_drained.send_replace(true);
                }
                is_fenced || leads > 0
            }
            Err(ControllerError::StaleBrokerEpoch | ControllerError::UnknownBroker(_)) => {
                tracing::warn!(
                    "the controller does not know this broker any more: registering again"
                );
                let _ = self.register().await;
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Lets the controller know of logs that failed, where others can lead.
    async fn tell_failed(&self) {
        let failed = self.replicas.failed();
        // One that is open again, and fails again, is told again.
        self.told_failed.lock().retain(|name| failed.contains(name));
        if failed.iter().all(|name| self.told_failed.lock().contains(name)) {
            return;
        }
        let image = self.controller.image();
        let replicated = |name: &TopicPartition| {
            let topic = image.topic(&name.topic)?;
            let found = topic.partitions.get(usize::try_from(name.partition).ok()?)?;
            (found.replicas.len() > 1).then_some((topic.id, name.partition))
        };
        let partitions: Vec<_> = failed.iter().filter_map(replicated).collect();
        let (broker, epoch) = (self.registration.broker, self.epoch());
        if !partitions.is_empty() {
            tracing::error!(partitions = partitions.len(), "logs failed: others are to lead");
            let command = Command::ReplicasOffline { broker, epoch, partitions };
            let asked = self.controller.submit_once(&command, Duration::from_secs(5)).await;
            if !matches!(asked.map(|reply| reply.result), Ok(Ok(_))) {
                return;
            }
        }
        self.told_failed.lock().extend(failed);
    }

    /// Gives away what others can lead; returns when that is done, or the time is over.
    pub(super) async fn leave(&self, wait: Duration) {
        self.wants_to_stop.store(true, Ordering::Release);
        self.hurry.notify_one();
        let mut drained = self.is_drained.subscribe();
        if timeout_at(monotonic() + wait, drained.wait_for(|drained| *drained)).await.is_err() {
            tracing::warn!("stopping without having given away everything that is led here");
        }
    }

    /// Carries wishes for other ISRs to the controller.
    async fn carry_proposals(self: Arc<Self>) {
        let proposals = Arc::clone(self.replicas.proposals());
        loop {
            let wishes = proposals.take().await;
            self.propose(wishes).await;
        }
    }

    async fn propose(&self, wishes: Vec<(TopicPartition, IsrProposal)>) {
        let image = self.controller.image();
        let mut changes = Vec::with_capacity(wishes.len());
        let mut asked = Vec::with_capacity(wishes.len());
        for (name, wish) in wishes {
            let Some(topic) = image.topic(&name.topic) else { continue };
            let me = (self.registration.broker, self.epoch());
            let member = |(id, epoch): &(i32, i64)| if *id == me.0 { me } else { (*id, *epoch) };
            changes.push(IsrChange {
                topic: topic.id,
                partition: name.partition,
                leader_epoch: wish.leader_epoch,
                partition_epoch: wish.partition_epoch,
                isr: wish.isr.iter().map(member).collect(),
                hand_over: wish.hand_over,
            });
            asked.push((name, wish));
        }
        let (broker, epoch) = (self.registration.broker, self.epoch());
        let command = Command::AlterIsr { broker, epoch, changes };
        // A wish that was not heard is made again with the next tick.
        let Ok(reply) = self.controller.submit_once(&command, Duration::from_secs(5)).await else {
            return;
        };
        let Ok(Answer::Isr(results)) = reply.result else { return };
        for ((name, wish), result) in asked.into_iter().zip(results) {
            let Err(error) = result else { continue };
            tracing::debug!(node = broker, partition = %name, %error, "ISR not changed");
            if let Some(partition) = self.replicas.partition(&name) {
                partition.refused(wish.leader_epoch, wish.partition_epoch);
            }
        }
    }
}
