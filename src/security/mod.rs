//! Who may do what.
//!
//! Invariants: every handler asks before it looks at anything; what is not decided yet is allowed to everyone
//! (there is no authentication yet, so there is nobody to tell apart).
//! Absent for now: authentication, ACLs, quotas.

use std::net::SocketAddr;

/// What is asked for (KIP-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    ClusterAction,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
}

/// What it is asked for on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Principal {
    pub address: SocketAddr,
}

/// Decides.
pub(crate) trait Authorizer: Send + Sync + std::fmt::Debug {
    fn is_allowed(
        &self,
        principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool;
}

/// Everyone may do everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AllowAll;

impl Authorizer for AllowAll {
    fn is_allowed(&self, _: &Principal, _: Operation, _: Resource<'_>) -> bool {
        true
    }
}
