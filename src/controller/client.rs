//! The controller as the rest of this node sees it: here or on another node.
//!
//! Invariants: an answer is given once this node has applied what it is about; a command whose fate is not known is
//! not sent again by itself, unless sending it twice does no harm.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::active::{ActiveController, stopped};
use super::command::{Answer, Command, CommandReply, NewPartitions, NewTopic, QuorumView};
use super::configs::ConfigChange;
use super::error::ControllerError;
use super::state::ClusterState;
use crate::config::{Config, TopicConfig};
use crate::metadata::{ConfigResource, Image, LEVEL_VOTERS, PartitionImage, TopicImage};
use crate::model::{BrokerId, PartitionId, ProducerId, TopicId};
use crate::quorum::{Peers, Quorum, QuorumStatus};
use crate::system::Random;
use crate::system::clock::{Instant, millis, monotonic, sleep, timeout_at};

/// How long a client's command may take in all.
const COMMAND_WAIT: Duration = Duration::from_secs(10);
/// How long one try may take.
const TRY_WAIT: Duration = Duration::from_secs(6);
/// How long the controller may take to say how the quorum stands.
const DESCRIBE_WAIT: Duration = Duration::from_secs(2);
/// How long a change of the voters may take: a new one has to get everything first.
const LONG_WAIT: Duration = Duration::from_secs(40);
const RETRY_MS: i64 = 25;
/// How often somebody is told that a node is told nothing.
const TELL: Duration = Duration::from_secs(5);
/// How often a node that is told nothing asks for it.
const OBSERVE_AGAIN: Duration = Duration::from_millis(500);

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Controller {
    pub node_id: BrokerId,
    state: Arc<ClusterState>,
    active: Arc<ActiveController>,
    quorum: Arc<Quorum>,
    peers: Arc<Peers>,
    producer_ids: tokio::sync::Mutex<Range<ProducerId>>,
    random: Random,
}

impl Controller {
    pub(crate) fn new(
        state: Arc<ClusterState>,
        active: Arc<ActiveController>,
        quorum: Arc<Quorum>,
        peers: Arc<Peers>,
        random: Random,
    ) -> Self {
        let node_id = state.node_id;
        let producer_ids = tokio::sync::Mutex::new(0..0);
        Self { node_id, state, active, quorum, peers, producer_ids, random }
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.state.image()
    }

    /// Shows this broker a partition's role once more.
    pub(crate) fn show_again(&self, topic: TopicId, partition: PartitionId) {
        self.state.show_again(topic, partition);
    }

    /// The broker's configuration with its dynamic values.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.state.config()
    }

    /// A topic's configuration in force.
    pub(crate) fn topic_config(&self, name: &str) -> TopicConfig {
        let values = self.image().configs(&ConfigResource::Topic(name.to_owned()));
        TopicConfig::resolve(&self.config(), &values)
    }

    pub(crate) fn quorum(&self) -> QuorumStatus {
        self.quorum.status()
    }

    /// The index of the newest metadata that this node has applied.
    pub(crate) fn applied_data(&self) -> u64 {
        self.quorum.progress().borrow().data
    }

    /// The index after the newest entry that this node has applied.
    pub(crate) fn applied(&self) -> u64 {
        self.quorum.progress().borrow().next
    }

    /// How the quorum stands as its leader sees it; where nobody leads, as this node does.
    pub(crate) async fn describe_quorum(&self) -> QuorumView {
        let asked = self.submit_once(&Command::DescribeQuorum, DESCRIBE_WAIT).await;
        if let Ok(CommandReply { result: Ok(Answer::Quorum(view)), .. }) = asked {
            return view;
        }
        let status = self.quorum.status();
        let heard = BTreeMap::from([(self.node_id, (status.log_end.try_into().unwrap_or(0), 0))]);
        QuorumView { status, heard }
    }

    /// Who is the controller; -1 if nobody is known to be.
    pub(crate) fn controller_id(&self) -> BrokerId {
        self.quorum.leader().map_or(-1, |(id, _)| id)
    }

    /// Makes a topic, or only says whether it could be made.
    pub(crate) async fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<Arc<TopicImage>, ControllerError> {
        let restored = topic.restore()?.map(|restore| restore.topic_id);
        let (topic, id) = (topic.clone(), restored.unwrap_or_else(|| self.random.uuid()));
        let name: Arc<str> = topic.name.as_str().into();
        let answer = self.ask(Command::CreateTopic { topic, id, validate_only }).await?;
        let made = self.image().topic_by_id(id).cloned();
        match (made, answer) {
            (Some(made), _) => Ok(made),
            (None, Answer::Topic { id, replicas }) => {
                let partition = |replicas: Vec<BrokerId>| PartitionImage {
                    leader: replicas.first().copied().unwrap_or(-1),
                    isr: replicas.clone(),
                    replicas,
                    ..PartitionImage::default()
                };
                let partitions = replicas.into_iter().map(partition).collect();
                Ok(Arc::new(TopicImage { name, id, partitions }))
            }
            (None, _) => Err(ControllerError::UnknownTopic),
        }
    }

    pub(crate) async fn delete_topic(&self, id: TopicId) -> Result<(), ControllerError> {
        self.ask(Command::DeleteTopic { id }).await.map(drop)
    }

    pub(crate) async fn create_partitions(
        &self,
        wish: &NewPartitions,
        validate_only: bool,
    ) -> Result<(), ControllerError> {
        let wish = wish.clone();
        self.ask(Command::CreatePartitions { wish, validate_only }).await.map(drop)
    }

    /// Changes one resource's settings, all or none.
    pub(crate) async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ControllerError> {
        let (resource, changes) = (resource.clone(), changes.to_vec());
        self.ask(Command::AlterConfigs { resource, changes, validate_only }).await.map(drop)
    }

    /// Replaces one resource's settings (the older AlterConfigs).
    pub(crate) async fn replace_configs(
        &self,
        resource: &ConfigResource,
        values: &[(String, Option<String>)],
        validate_only: bool,
    ) -> Result<(), ControllerError> {
        let (resource, values) = (resource.clone(), values.to_vec());
        self.ask(Command::ReplaceConfigs { resource, values, validate_only }).await.map(drop)
    }

    /// A producer id that was never given out before.
    pub(crate) async fn next_producer_id(&self) -> Result<ProducerId, ControllerError> {
        let mut ids = self.producer_ids.lock().await;
        if ids.is_empty() {
            match self.ask(Command::ProducerIds).await? {
                Answer::ProducerIds { first, next } => *ids = first..next,
                other => return Err(ControllerError::Unavailable(format!("answered {other:?}"))),
            }
        }
        ids.next().ok_or(ControllerError::NotController)
    }

    /// Asks the controller, wherever it is, and waits until its answer shows here.
    pub(crate) async fn ask(&self, command: Command) -> Result<Answer, ControllerError> {
        self.ask_within(command, COMMAND_WAIT).await
    }

    /// Shows the controller this node's disk, and asks to be told what is decided: once after each start, and whenever
    /// it is told nothing.
    pub(crate) async fn observe(&self, directory: Uuid, address: String) {
        let id = self.node_id;
        let Ok(raw) = encode(&Command::Observe { id, directory, address }) else { return };
        let (mut is_known, mut tell_at) = (false, monotonic());
        while self.quorum.failure().is_none() {
            // A controller of the release before does not know the question, nor does a cluster at its level need it.
            let image = self.image();
            if image.level() < LEVEL_VOTERS && image.voters.get(&id) == Some(&directory) {
                is_known = true;
            }
            if !is_known || self.quorum.is_left_alone() {
                is_known = self.observe_once(&raw, &mut tell_at).await;
            }
            sleep(OBSERVE_AGAIN).await;
        }
    }

    async fn observe_once(&self, raw: &Arc<RawValue>, tell_at: &mut Instant) -> bool {
        if let Some(own) = self.own_observation(raw).await {
            return own;
        }
        let leader = self.quorum.leader().map(|(_, address)| address);
        for known in leader.into_iter().chain(self.quorum.addresses()) {
            match self.forward(&known, Arc::clone(raw), TRY_WAIT).await {
                Ok(CommandReply { result: Ok(_), .. }) => return true,
                Ok(CommandReply { result: Err(ControllerError::NotController), .. }) => {}
                Ok(CommandReply { result: Err(error), .. }) => {
                    if monotonic() >= *tell_at {
                        tracing::warn!(%error, "this node is not told what the quorum decides");
                        *tell_at = monotonic() + TELL;
                    }
                    return false;
                }
                Err(error) => tracing::debug!(known, %error, "voter not reached"),
            }
        }
        false
    }

    /// The same where this node decides itself.
    async fn own_observation(&self, raw: &Arc<RawValue>) -> Option<bool> {
        if !self.active.is_active() {
            return None;
        }
        let command = serde_json::from_str(raw.get()).ok()?;
        Some(self.active.submit(command).await.result.is_ok())
    }

    /// The same for what takes the controller longer than a client's command may.
    pub(crate) async fn ask_for_long(&self, command: Command) -> Result<Answer, ControllerError> {
        self.ask_within(command, LONG_WAIT).await
    }

    async fn ask_within(
        &self,
        command: Command,
        wait: Duration,
    ) -> Result<Answer, ControllerError> {
        let deadline = monotonic() + wait;
        let reply = self.submit(&command, deadline).await?;
        let answer = reply.result?;
        self.wait_applied(reply.index, deadline).await?;
        Ok(answer)
    }

    /// Asks until somebody is the controller.
    pub(crate) async fn submit(
        &self,
        command: &Command,
        deadline: Instant,
    ) -> Result<CommandReply, ControllerError> {
        let mut raw: Option<Arc<RawValue>> = None;
        loop {
            if self.active.is_active() {
                let reply = self.active.submit(command.clone()).await;
                if reply.result.as_ref().err() != Some(&ControllerError::NotController) {
                    return Ok(reply);
                }
            } else if let Some((leader, address)) = self.quorum.leader()
                && leader != self.node_id
            {
                let raw = match &raw {
                    Some(raw) => Arc::clone(raw),
                    None => Arc::clone(raw.insert(encode(command)?)),
                };
                match self.forward(&address, raw, command.wait()).await {
                    Ok(reply)
                        if reply.result.as_ref().err() != Some(&ControllerError::NotController) =>
                    {
                        return Ok(reply);
                    }
                    Ok(_) => {}
                    // Refused connections were never heard; of others nobody knows.
                    Err(error) if is_unheard(&error) => {}
                    Err(error) => return Err(ControllerError::Unavailable(error.to_string())),
                }
            }
            // Nobody else will be the controller.
            if !self.quorum.has_others()
                && let Some(why) = self.quorum.failure()
            {
                return Err(stopped(&why));
            }
            if monotonic() >= deadline {
                return Err(ControllerError::NotController);
            }
            sleep(millis(RETRY_MS)).await;
        }
    }

    async fn forward(
        &self,
        address: &str,
        command: Arc<RawValue>,
        wait: Duration,
    ) -> std::io::Result<CommandReply> {
        let answer = self.peers.command(address, command, wait).await?;
        Ok(serde_json::from_str(answer.get())?)
    }

    /// One try, for those who ask again by themselves.
    pub(crate) async fn submit_once(
        &self,
        command: &Command,
        wait: Duration,
    ) -> Result<CommandReply, ControllerError> {
        if self.active.is_active() {
            return Ok(self.active.submit(command.clone()).await);
        }
        let Some((_, address)) = self.quorum.leader().filter(|(id, _)| *id != self.node_id) else {
            return Err(ControllerError::NotController);
        };
        let asked = self.forward(&address, encode(command)?, wait).await;
        asked.map_err(|error| ControllerError::Unavailable(error.to_string()))
    }

    /// Waits until this node has applied what stands at an index.
    pub(crate) async fn wait_applied(
        &self,
        index: u64,
        deadline: Instant,
    ) -> Result<(), ControllerError> {
        let mut progress = self.quorum.progress();
        let applied =
            timeout_at(deadline, progress.wait_for(|progress| progress.next > index)).await;
        match applied {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(ControllerError::Unavailable("this node lags behind the controller".to_owned()))
            }
        }
    }
}

impl Command {
    /// How long one try may take.
    fn wait(&self) -> Duration {
        match self {
            Command::AddVoter { .. } | Command::RemoveVoter { .. } => LONG_WAIT,
            _ => TRY_WAIT,
        }
    }
}

fn encode(command: &Command) -> Result<Arc<RawValue>, ControllerError> {
    let text = serde_json::to_string(command).and_then(RawValue::from_string);
    text.map(Into::into).map_err(|error| ControllerError::Unavailable(error.to_string()))
}

fn is_unheard(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::HostUnreachable
    ) || error.to_string() == "the node is starting"
}
