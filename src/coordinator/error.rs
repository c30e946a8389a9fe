//! Why a group refuses something.

/// See the file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("the group id is empty")]
    InvalidGroupId,
    #[error("the group has no such member")]
    UnknownMember,
    #[error("another generation is current")]
    IllegalGeneration,
    #[error("no protocol in common with the other members")]
    InconsistentProtocol,
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("join again with the member id")]
    MemberIdRequired,
    #[error("the group has group.max.size members")]
    GroupFull,
    #[error("another member has this group.instance.id")]
    FencedInstance,
    #[error("the group has members")]
    NotEmpty,
    #[error("there is no such group")]
    NotFound,
    #[error("the group subscribes to the topic")]
    Subscribed,
    #[error("another broker keeps the group")]
    NotCoordinator,
    #[error("the groups are being loaded")]
    Loading,
    #[error("the group's log can't be written")]
    Unavailable,
}
