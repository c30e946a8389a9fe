//! The active controller: decides commands one after the other, makes their records part of the log, answers.
//!
//! Invariants: a command is decided on everything that was decided before it; nothing is answered that is not
//! committed; what was decided on an old image is decided again.
//! Left to others: being the only one (the quorum sees to it that decisions on old images are void).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::command::{Answer, Command, CommandReply, Heartbeat, QuorumView};
use super::decide::decide;
use super::error::ControllerError;
use super::partitions::Partitions;
use super::sessions::Sessions;
use super::state::ClusterState;
use crate::metadata::Image;
use crate::model::BrokerId;
use crate::network::Dialer;
use crate::quorum::{CommandHandler, ProposeError, Quorum, Room};
use crate::system::clock::{millis, monotonic, sleep, timeout_at, uptime_ms};
use crate::system::tasks::{Boxed, keep_service, run_errand};
use crate::system::{Awake, wait_here};

/// Commands that wait to be decided.
const QUEUE_MAX: usize = 10_000;
/// Commands whose records become one entry.
const BATCH_MAX: usize = 200;
const TICK: Duration = Duration::from_millis(50);
/// How long a majority may take.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// How long a listener may take to show that its process is alive.
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// Pauses before a broker's listener is tried after one of its connections ended.
const PROBES_MS: [i64; 4] = [0, 20, 50, 100];

type Queued = (Command, oneshot::Sender<CommandReply>);

/// See the file's header.
#[derive(Debug)]
pub(crate) struct ActiveController {
    pub(super) state: Arc<ClusterState>,
    pub(super) quorum: Arc<Quorum>,
    queue: mpsc::Sender<Queued>,
    sessions: Mutex<Sessions>,
    /// What sessions are measured by.
    awake: Arc<Awake>,
    dialer: Dialer,
    /// Held while the voters change: one change at a time.
    pub(super) changing_voters: tokio::sync::Mutex<()>,
}

impl ActiveController {
    /// Starts to decide whenever this node leads the quorum.
    pub(crate) fn start(
        state: Arc<ClusterState>,
        quorum: Arc<Quorum>,
        (dialer, awake): (Dialer, Arc<Awake>),
    ) -> Arc<Self> {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let controller = Arc::new(Self {
            state,
            quorum,
            queue,
            sessions: Mutex::default(),
            awake,
            dialer,
            changing_voters: tokio::sync::Mutex::default(),
        });
        keep_service("controller", run(Arc::clone(&controller), queued));
        controller
    }

    /// Whether this node decides now.
    pub(super) fn is_active(&self) -> bool {
        self.quorum.leading().is_some()
    }

    /// Decides a command, or says that another node does.
    pub(super) async fn submit(&self, command: Command) -> CommandReply {
        if let Command::Heartbeat(heartbeat) = &command {
            return self.reply(self.heartbeat(heartbeat));
        }
        if !self.is_active() {
            return self.reply(Err(ControllerError::NotController));
        }
        match &command {
            Command::DescribeQuorum => {
                let heard = self.sessions.lock().applied(self.awake.now_ms());
                let view = QuorumView { status: self.quorum.status(), heard };
                return self.reply(Ok(Answer::Quorum(view)));
            }
            Command::AddVoter { id, directory, address } => {
                return self.reply(self.add_voter(*id, *directory, address).await);
            }
            Command::RemoveVoter { id, directory } => {
                return self.reply(self.remove_voter(*id, *directory).await);
            }
            Command::Observe { id, directory, address } => {
                return self.reply(self.observe(*id, *directory, address).await);
            }
            Command::Unregister { broker } => {
                let broker = *broker;
                let reply = self.queued(command).await;
                if reply.result.is_ok() {
                    self.forget_observer(broker).await;
                }
                return reply;
            }
            _ => {}
        }
        self.queued(command).await
    }

    /// Waits until a command is decided.
    pub(super) async fn queued(&self, command: Command) -> CommandReply {
        let (answer, answered) = oneshot::channel();
        if self.queue.send((command, answer)).await.is_err() {
            return self.reply(Err(ControllerError::NotController));
        }
        answered.await.unwrap_or_else(|_| self.reply(Err(ControllerError::NotController)))
    }

    fn reply(&self, result: Result<Answer, ControllerError>) -> CommandReply {
        CommandReply { result, index: self.quorum.progress().borrow().data }
    }

    fn session_ms(&self) -> i64 {
        self.state.config().long("broker.session.timeout.ms")
    }

    fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<Answer, ControllerError> {
        let Some(term) = self.quorum.leading() else { return Err(ControllerError::NotController) };
        let (image, id) = (self.state.image(), heartbeat.broker);
        let broker = image.brokers.get(&id).ok_or(ControllerError::UnknownBroker(id))?;
        if broker.epoch != heartbeat.epoch {
            return Err(ControllerError::StaleBrokerEpoch);
        }
        let (now_ms, session_ms) = (self.awake.now_ms(), self.session_ms());
        {
            let mut sessions = self.sessions.lock();
            sessions.begin(term, now_ms, session_ms, &image);
            sessions.heard(id, now_ms, session_ms);
            sessions.note_unreachable(id, &heartbeat.unreachable);
            sessions.note_applied(id, heartbeat.applied, now_ms);
        }
        if let Some(capacity) = &heartbeat.capacity
            && broker.capacity.as_ref() != Some(capacity)
        {
            let (epoch, capacity) = (broker.epoch, capacity.clone());
            self.enqueue(Command::Capacity { broker: id, epoch, capacity });
        }
        let partitions = self.state.config();
        if heartbeat.wants_to_stop && !broker.is_draining {
            self.enqueue(Command::Drain { broker: id, is_draining: true });
        } else if broker.is_fenced && heartbeat.is_ready && !heartbeat.wants_to_stop {
            self.enqueue(Command::Unfence { broker: id, epoch: broker.epoch });
        }
        let leads = if heartbeat.wants_to_stop && broker.is_draining {
            Partitions::new(&image, &partitions).led_by(id)
        } else {
            usize::from(heartbeat.wants_to_stop)
        };
        Ok(Answer::Heartbeat { is_fenced: broker.is_fenced, leads })
    }

    /// A command of our own, whose answer nobody waits for.
    fn enqueue(&self, command: Command) {
        let (answer, _) = oneshot::channel();
        let _ = self.queue.try_send((command, answer));
    }

    /// Fences who was not heard of for too long.
    async fn expire(self: &Arc<Self>) {
        let Some(term) = self.quorum.leading() else { return };
        let (image, now_ms, session_ms) =
            (self.state.image(), self.awake.now_ms(), self.session_ms());
        let (is_new, unreachable, expired) = {
            let mut sessions = self.sessions.lock();
            sessions.begin(term, now_ms, session_ms, &image);
            let unreachable = sessions.take_unreachable();
            (sessions.take_fresh(), unreachable, sessions.expired(now_ms, session_ms, &image))
        };
        for (leader, by) in unreachable {
            self.enqueue(Command::Avoid { leader, by });
        }
        if is_new {
            tracing::info!(term, "this node is the controller");
            // Some of them may have died with the controller before.
            let alive = image.brokers.iter().filter(|(_, broker)| !broker.is_fenced);
            alive.for_each(|(id, _)| self.probe(*id));
        }
        if !expired.is_empty() {
            tracing::warn!(brokers = ?expired, "no heartbeat in time: fenced");
            self.carry_out(vec![(Command::Fence { brokers: expired }, oneshot::channel().0)]).await;
        }
    }

    /// Looks whether a broker's listener refuses connections: then its process is gone.
    fn probe(self: &Arc<Self>, node: BrokerId) {
        let endpoints =
            self.state.image().brokers.get(&node).map(|broker| broker.endpoints.clone());
        let Some(endpoint) = endpoints.and_then(|all| all.into_iter().next()) else { return };
        if node == self.state.node_id {
            return;
        }
        let controller = Arc::clone(self);
        let address = format!("{}:{}", endpoint.host, endpoint.port);
        run_errand("probe of a broker", async move {
            // A process that dies closes one socket after the other: the listener may be the last.
            for pause_ms in PROBES_MS {
                sleep(millis(pause_ms)).await;
                let dialing = controller.dialer.dial(address.clone());
                let refused = matches!(
                    timeout_at(monotonic() + PROBE_WAIT, dialing).await,
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused
                );
                if refused {
                    tracing::info!(broker = node, "its listener refuses connections");
                    return controller.sessions.lock().gone(node);
                }
            }
        });
    }

    /// Decides commands, makes their records one entry, answers.
    async fn carry_out(&self, batch: Vec<Queued>) {
        let (commands, answers): (Vec<Command>, Vec<_>) = batch.into_iter().unzip();
        let outcome = self.commit(&commands).await;
        let index = self.quorum.progress().borrow().data;
        match outcome {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    let _ = answer.send(CommandReply { result, index });
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(CommandReply { result: Err(error.clone()), index });
                }
            }
        }
    }

    async fn commit(
        &self,
        commands: &[Command],
    ) -> Result<Vec<Result<Answer, ControllerError>>, ControllerError> {
        loop {
            if self.quorum.leading().is_none() {
                return Err(ControllerError::NotController);
            }
            // In this order: an image that is newer than the base makes the proposal void, not wrong.
            let base = self.quorum.progress().borrow().data;
            let mut image = Image::clone(&self.state.image());
            let (mut records, mut results) = (Vec::new(), Vec::with_capacity(commands.len()));
            // Many of them, or one of many partitions, take a while.
            wait_here(|| {
                let room = self.room_for(commands);
                for command in commands {
                    let decided = if command.needs() > room {
                        Err(no_room(room))
                    } else {
                        decide(&self.state, &image, base, command)
                    };
                    results.push(decided.map(|(new, answer)| {
                        new.iter().for_each(|record| image.apply(record));
                        records.extend(new);
                        answer
                    }));
                }
            });
            if records.is_empty() {
                return Ok(results);
            }
            let text = serde_json::to_string(&records).and_then(RawValue::from_string);
            let data = text.map_err(|error| ControllerError::Unavailable(error.to_string()))?;
            match self.quorum.propose(base, data, COMMIT_WAIT).await {
                Ok(_) => return Ok(results),
                Err(ProposeError::Stale) => {}
                Err(ProposeError::NotLeader { .. }) => return Err(ControllerError::NotController),
                Err(ProposeError::Stopped(why)) => return Err(stopped(&why)),
                Err(error @ ProposeError::TimedOut) => {
                    return Err(ControllerError::Unavailable(error.to_string()));
                }
            }
        }
    }

    /// How much room there is, as far as it matters to these commands.
    fn room_for(&self, commands: &[Command]) -> Room {
        let matters = commands.iter().any(|command| command.needs() > Room::Scarce);
        if matters { self.quorum.room() } else { Room::Scarce }
    }
}

fn no_room(room: Room) -> ControllerError {
    let done =
        if room == Room::Low { "nothing that grows is made" } else { "only topics are deleted" };
    ControllerError::Storage(format!(
        "The file system of the controller's metadata log has no room left: until some is freed, {done}."
    ))
}

/// A command on a node whose quorum has stopped. It may have been carried out.
pub(super) fn stopped(why: &str) -> ControllerError {
    ControllerError::Storage(format!(
        "The controller can't write its metadata log, and needs a restart once its disk is well: {why}"
    ))
}

/// Takes commands as they come, and looks after sessions between them.
async fn run(controller: Arc<ActiveController>, mut queued: mpsc::Receiver<Queued>) {
    let mut next_tick = monotonic() + TICK;
    let mut next_balance_ms = uptime_ms();
    loop {
        match timeout_at(next_tick, queued.recv()).await {
            Ok(Some(first)) => {
                let mut batch = vec![first];
                while batch.len() < BATCH_MAX
                    && let Ok(more) = queued.try_recv()
                {
                    batch.push(more);
                }
                controller.carry_out(batch).await;
            }
            Ok(None) => return,
            Err(_) => {}
        }
        if monotonic() >= next_tick {
            next_tick = monotonic() + TICK;
            controller.expire().await;
            let config = controller.state.config();
            if config.boolean("auto.leader.rebalance.enable") && uptime_ms() >= next_balance_ms {
                let pause_ms = config.long("leader.imbalance.check.interval.seconds") * 1000;
                next_balance_ms = uptime_ms() + pause_ms;
                controller.enqueue(Command::Balance);
            }
        }
    }
}

impl CommandHandler for Arc<ActiveController> {
    fn command(&self, from: BrokerId, command: Arc<RawValue>) -> Boxed<Arc<RawValue>> {
        let controller = Arc::clone(self);
        Box::pin(async move {
            // Whoever joins does not know yet who leads. Only its own word is passed on, so that none goes in circles.
            if !controller.is_active()
                && let Ok(Command::Observe { id, .. }) = serde_json::from_str(command.get())
                && id == from
                && let Some(passed) = controller.quorum.ask_leader(&command).await
            {
                return passed;
            }
            let reply = match serde_json::from_str::<Command>(command.get()) {
                Ok(command) => controller.submit(command).await,
                Err(error) => controller.reply(Err(ControllerError::Request(error.to_string()))),
            };
            let text = serde_json::to_string(&reply).and_then(RawValue::from_string);
            text.map_or_else(|_| RawValue::NULL.to_owned().into(), Into::into)
        })
    }

    /// A connection of a broker ended: nobody has to wait until its session is over if the process is gone.
    fn lost(&self, node: BrokerId) {
        if self.is_active() {
            self.probe(node);
        }
    }
}
