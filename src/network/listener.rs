//! Listening and accepting.
//!
//! Invariants: a connection over a limit is closed at once and counted; an accept error pauses, never ends, the
//! listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::watch;

use super::connection::{ConnectionRules, Peer, Service, serve};
use super::limits::{ConnectionLimits, Counted};
use super::stream::Stream;
use super::tls::{ClientAuth, Tls};
use crate::config::Endpoint;
use crate::system::Telling;
use crate::system::clock::sleep;
use crate::system::tasks::{Kind, keep, spawn_connection};

/// What a listener's connections are wrapped in.
#[derive(Debug, Clone)]
pub(crate) enum Wrapping {
    Plain,
    Tls(Arc<Tls>, ClientAuth),
}

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listening {
    pub endpoint: Endpoint,
    listener: TcpListener,
}

/// Binds an endpoint; port 0 becomes the port that was picked.
pub(crate) async fn listen(endpoint: &Endpoint) -> io::Result<Listening> {
    let host = if endpoint.host.is_empty() { "::" } else { &endpoint.host };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in lookup_host((host, endpoint.port)).await? {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let port = listener.local_addr()?.port();
                return Ok(Listening { endpoint: Endpoint { port, ..endpoint.clone() }, listener });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Listening {
    /// The same for whoever serves on other threads than it was bound on: to be called there.
    pub(crate) fn moved(self) -> io::Result<Self> {
        let listener = TcpListener::from_std(self.listener.into_std()?)?;
        Ok(Self { endpoint: self.endpoint, listener })
    }

    /// Accepts until `stopping` turns true; connections end by themselves then.
    pub(crate) fn start<S: Service>(
        self,
        service: Arc<S>,
        wrapping: Wrapping,
        rules: ConnectionRules,
        limits: Arc<ConnectionLimits>,
        stopping: watch::Receiver<bool>,
    ) {
        let accepting = async move {
            let name: Arc<str> = self.endpoint.name.as_str().into();
            let (mut stop, refusals) = (stopping.clone(), Telling::default());
            while let Some((tcp, address)) = next_connection(&self.listener, &mut stop).await {
                let Some(counted) = admit(&tcp, address, &limits, &refusals) else { continue };
                let peer = rules.peer(address, Arc::clone(&name), counted.taken());
                let (service, wrapping) = (Arc::clone(&service), wrapping.clone());
                let (rules, stopping) = (rules.clone(), stopping.clone());
                spawn_connection(async move {
                    let served = run(tcp, wrapping, peer, &*service, &rules, stopping).await;
                    if let Err(error) = served {
                        tracing::debug!(peer = %address, %error, "connection ended");
                    }
                    drop(counted);
                });
            }
        };
        keep(Kind::Listener, "listener", accepting);
    }
}

/// The next connection, however often accepting fails before; `None` once `stop` turns true.
pub(crate) async fn next_connection(
    listener: &TcpListener,
    stop: &mut watch::Receiver<bool>,
) -> Option<(TcpStream, SocketAddr)> {
    let failures = Telling::default();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        match accepted {
            Ok(connection) => return Some(connection),
            Err(error) => {
                if let Some(untold) = failures.turn() {
                    tracing::warn!(%error, untold, "no connection accepted; trying again");
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Counts a connection; `None` where there are too many.
fn admit(
    tcp: &TcpStream,
    peer: SocketAddr,
    limits: &Arc<ConnectionLimits>,
    refusals: &Telling,
) -> Option<Counted> {
    let counted = match limits.count(peer.ip().to_canonical()) {
        Ok(counted) => counted,
        Err(limit) => {
            if let Some(untold) = refusals.turn() {
                tracing::warn!(%peer, limit, untold, "connection refused: raise the limit, or look at who opens so many");
            }
            return None;
        }
    };
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    Some(counted)
}

async fn run<S: Service>(
    tcp: TcpStream,
    wrapping: Wrapping,
    peer: Peer,
    service: &S,
    rules: &ConnectionRules,
    stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let stream = match wrapping {
        Wrapping::Plain => Stream::Tcp(tcp),
        Wrapping::Tls(tls, auth) => Stream::Tls(Box::new(tls.accept(tcp, auth).await?)),
    };
    serve(stream, peer, service, rules, stopping).await
}
