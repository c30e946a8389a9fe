//! Why a broker does not start.

use crate::config::ConfigError;
use crate::controller::ControllerError;
use crate::network::TlsError;
use crate::quorum::StoreError;
use crate::replication::StartError;

/// See the file's header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Quorum(#[from] StoreError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error("can't listen on {address}: {error}: choose another address with --set {setting}=...")]
    Listen { address: String, setting: &'static str, error: std::io::Error },
}
