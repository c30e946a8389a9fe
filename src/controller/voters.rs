//! Changes of the voters while the cluster runs (KIP-853).
//!
//! Invariants: one change at a time; a new voter is who it is said to be, and has everything before it votes; the disk
//! that it votes from is noted before it does.

use std::time::Duration;

use uuid::Uuid;

use super::active::ActiveController;
use super::command::{Answer, Command};
use super::error::ControllerError;
use crate::metadata::{LEVEL_VOTERS, VERSION_FEATURE};
use crate::model::BrokerId;
use crate::quorum::ProposeError;

const HELLO_WAIT: Duration = Duration::from_secs(3);

impl ActiveController {
    pub(super) async fn add_voter(
        &self,
        id: BrokerId,
        directory: Uuid,
        address: &str,
    ) -> Result<Answer, ControllerError> {
        self.check_level()?;
        let _changing = self.changing_voters.lock().await;
        if self.quorum.voters().contains_key(&id) {
            return Err(ControllerError::DuplicateVoter(id));
        }
        let found = self.quorum.hello(address, HELLO_WAIT).await.map_err(|error| {
            ControllerError::Voter(format!("node {id} does not answer at {address}: {error}"))
        })?;
        if found.node != id {
            let other = found.node;
            return Err(ControllerError::Voter(format!("{address} is node {other}, not {id}")));
        }
        if !directory.is_nil() && found.directory != directory {
            let other = found.directory;
            return Err(ControllerError::Voter(format!(
                "node {id} would vote from the directory {other}, not {directory}"
            )));
        }
        self.note_disk(id, found.directory).await?;
        self.quorum.add_voter(id, address).await.map_err(refused)?;
        tracing::info!(id, address, "a node votes from now on");
        Ok(Answer::Done)
    }

    fn has_level(&self) -> bool {
        self.state.image().level() >= LEVEL_VOTERS
    }

    fn check_level(&self) -> Result<(), ControllerError> {
        if self.has_level() {
            return Ok(());
        }
        Err(ControllerError::Feature(format!(
            "voters change from {VERSION_FEATURE} {LEVEL_VOTERS} on: once every node runs this release, \
             `strandline cluster upgrade`"
        )))
    }

    pub(super) async fn remove_voter(
        &self,
        id: BrokerId,
        directory: Uuid,
    ) -> Result<Answer, ControllerError> {
        self.check_level()?;
        let _changing = self.changing_voters.lock().await;
        let voters = self.quorum.voters();
        let known = self.state.image().voters.get(&id).copied();
        let is_same = directory.is_nil() || known.is_none_or(|known| known == directory);
        if !voters.contains_key(&id) || !is_same {
            return Err(ControllerError::UnknownVoter(id));
        }
        if voters.len() == 1 {
            return Err(ControllerError::Request("the last voter can't be removed".to_owned()));
        }
        // A broker needs what is decided also when it does not vote. A leader has to go altogether, or it would go on
        // leading without a vote; it asks to be told again.
        let is_alive = self.state.image().brokers.get(&id).is_some_and(|broker| !broker.is_fenced);
        let is_told = is_alive && id != self.state.node_id;
        self.quorum.remove_voter(id, is_told).await.map_err(refused)?;
        tracing::info!(id, "a node votes no more");
        if !is_alive {
            self.queued(Command::ForgetVoter { id }).await.result?;
        }
        Ok(Answer::Done)
    }

    /// A node that may vote one day is told what is decided.
    pub(super) async fn observe(
        &self,
        id: BrokerId,
        directory: Uuid,
        address: &str,
    ) -> Result<Answer, ControllerError> {
        if self.quorum.voters().contains_key(&id) && !self.has_level() {
            // As before there were levels: a voter's disk is noted once.
            if !self.state.image().voters.contains_key(&id) {
                self.queued(Command::Voter { id, directory }).await.result?;
            }
            return Ok(Answer::Done);
        }
        self.check_level()?;
        let _changing = self.changing_voters.lock().await;
        let is_same = self.state.image().voters.get(&id) == Some(&directory);
        if is_same && self.quorum.tells(id) {
            return Ok(Answer::Done);
        }
        self.note_disk(id, directory).await?;
        self.quorum.tell(id, address.to_owned()).await.map_err(refused)?;
        Ok(Answer::Done)
    }

    /// Notes which disk a node's copy of the log is on. One that comes with another begins from nothing: the consensus
    /// library must not take it for the one that it knew.
    async fn note_disk(&self, id: BrokerId, directory: Uuid) -> Result<(), ControllerError> {
        let known = self.state.image().voters.get(&id).copied();
        if known.is_some_and(|known| known != directory) && self.quorum.tells(id) {
            if self.quorum.voters().contains_key(&id) {
                return Err(ControllerError::Voter(format!(
                    "node {id} votes from another disk: remove the voter first"
                )));
            }
            self.quorum.forget(id).await.map_err(refused)?;
        }
        self.queued(Command::Voter { id, directory }).await.result.map(drop)
    }

    /// A broker that was forgotten is told nothing any more.
    pub(super) async fn forget_observer(&self, id: BrokerId) {
        let _changing = self.changing_voters.lock().await;
        if !self.quorum.tells(id) || self.quorum.voters().contains_key(&id) {
            return;
        }
        match self.quorum.forget(id).await {
            Ok(()) => drop(self.queued(Command::ForgetVoter { id }).await),
            Err(error) => {
                tracing::warn!(id, %error, "an unregistered node is still told everything");
            }
        }
    }
}

fn refused(error: ProposeError) -> ControllerError {
    match error {
        ProposeError::NotLeader { .. } => ControllerError::NotController,
        ProposeError::Stale | ProposeError::TimedOut | ProposeError::Stopped(_) => {
            ControllerError::Unavailable(error.to_string())
        }
    }
}
