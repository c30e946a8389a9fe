//! Changes of the voters while the cluster runs (KIP-853).
//!
//! Invariants: one change at a time; a new voter is who it is said to be, and has everything before it votes; the disk
//! that it votes from is noted before it does.

use std::time::Duration;

use uuid::Uuid;

use super::active::ActiveController;
use super::command::{Answer, Command};
use super::error::ControllerError;
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
        self.queued(Command::Voter { id, directory: found.directory }).await.result?;
        self.quorum.add_voter(id, address).await.map_err(refused)?;
        tracing::info!(id, address, "a node votes from now on");
        Ok(Answer::Done)
    }

    pub(super) async fn remove_voter(
        &self,
        id: BrokerId,
        directory: Uuid,
    ) -> Result<Answer, ControllerError> {
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
        self.quorum.remove_voter(id).await.map_err(refused)?;
        tracing::info!(id, "a node votes no more");
        // One that removed itself leads no more; the note of its disk is written over when somebody votes under its id.
        let _ = self.queued(Command::ForgetVoter { id }).await;
        Ok(Answer::Done)
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
