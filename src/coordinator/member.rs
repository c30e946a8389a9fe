//! A member of a group, and what members ask.

use bytes::Bytes;
use tokio::sync::oneshot::Sender;

use super::error::GroupError;
use super::group::{Joined, Synced};
use super::records::StoredMember;
use crate::model::Timestamp;

/// How a waiting join is told.
pub(super) type JoinWaiter = Sender<Joined>;
/// How a waiting sync is told.
pub(super) type SyncWaiter = Sender<Result<Synced, GroupError>>;

/// JoinGroup.
#[derive(Debug, Clone, Default)]
pub(crate) struct JoinRequest {
    pub group: String,
    /// Empty for a new member.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// By preference.
    pub protocols: Vec<(String, Bytes)>,
    /// The client joins twice, the second time with its id (KIP-394).
    pub id_required: bool,
    /// The client understands `skip_assignment` (KIP-814).
    pub can_skip_assignment: bool,
}

/// SyncGroup.
#[derive(Debug, Clone, Default)]
pub(crate) struct SyncRequest {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// `None`: the version has no such field.
    pub protocol: Option<(Option<String>, Option<String>)>,
    /// From the leader only.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// When the member is given up, unless it is heard of.
    pub deadline_ms: Timestamp,
    /// When it must have synced at the latest.
    pub sync_deadline_ms: Option<Timestamp>,
    /// Order of joining; the first is the leader.
    pub sequence: u64,
    pub join: Option<JoinWaiter>,
    pub sync: Option<SyncWaiter>,
}

impl Member {
    pub(super) fn new(id: String, request: &JoinRequest, sequence: u64) -> Self {
        Self {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            deadline_ms: Timestamp::MAX,
            sync_deadline_ms: None,
            sequence,
            join: None,
            sync: None,
        }
    }

    /// A member read from the log, with the one protocol that is known of it.
    pub(super) fn stored(member: StoredMember, protocol: Option<&String>, sequence: u64) -> Self {
        let protocols =
            protocol.map(|name| (name.clone(), member.subscription)).into_iter().collect();
        Self {
            id: member.id,
            instance_id: member.instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            protocols,
            assignment: member.assignment,
            deadline_ms: Timestamp::MAX,
            sync_deadline_ms: None,
            sequence,
            join: None,
            sync: None,
        }
    }

    /// The member's bytes for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, bytes)| bytes.clone())
            .unwrap_or_default()
    }

    pub(super) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    pub(super) fn heard(&mut self, now_ms: Timestamp) {
        self.deadline_ms = now_ms + i64::from(self.session_timeout_ms);
    }
}
