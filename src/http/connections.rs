//! HTTP connections: how many there may be, and for how long.
//!
//! Invariants: whatever a client does or leaves undone, its connection ends `LIFE` and `LAST` after it began at the latest, and soon after the
//! broker is told to stop; an accept error pauses, never ends, the listener.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::network::{ConnectionLimits, next_connection};
use crate::system::clock::{monotonic, sleep, timeout_at};
use crate::system::descriptors_max;
use crate::system::tasks::spawn_connection;

/// Connections in all, of one address, and new ones in a second. Scrapers and probes need a handful; descriptors are for logs and clients.
const CONNECTIONS_MAX: usize = 128;
const PER_ADDRESS_MAX: usize = 32;
const RATE_MAX: usize = 1_000;
/// Of all descriptors HTTP has at most one in so many.
const DESCRIPTORS_SHARE: usize = 16;
/// How long a client may take to send a request.
const HEADER: Duration = Duration::from_secs(10);
/// How long a connection is used again: its client opens another one.
const LIFE: Duration = Duration::from_mins(2);
/// How long the answer that is under way then may take.
const LAST: Duration = Duration::from_secs(30);
/// The same when the broker stops.
const LAST_AT_STOP: Duration = Duration::from_secs(1);

/// Accepts until `stop` turns true.
pub(super) async fn accept(listener: TcpListener, routes: Router, mut stop: watch::Receiver<bool>) {
    let open_max = CONNECTIONS_MAX.min(descriptors_max() / DESCRIPTORS_SHARE);
    let limits = ConnectionLimits::new(open_max, PER_ADDRESS_MAX, RATE_MAX);
    while let Some((tcp, peer)) = next_connection(&listener, &mut stop).await {
        let Ok(counted) = limits.count(peer.ip().to_canonical()) else {
            tracing::debug!(%peer, "HTTP connection refused: there are too many");
            continue;
        };
        let served = serve(tcp, routes.clone(), stop.clone());
        spawn_connection(async move {
            served.await;
            drop(counted);
        });
    }
}

async fn serve(tcp: TcpStream, routes: Router, mut stop: watch::Receiver<bool>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER);
    let service = TowerToHyperService::new(routes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tcp), service));
    let last = tokio::select! {
        biased;
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "HTTP connection ended");
            }
            return;
        }
        _ = stop.wait_for(|stop| *stop) => LAST_AT_STOP,
        () = sleep(LIFE) => LAST,
    };
    connection.as_mut().graceful_shutdown();
    let _ = timeout_at(monotonic() + last, connection).await;
}
