//! The routes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::connections::accept;
use super::exporter;
use super::hosts::{self, Hosts};
use crate::api::Context;
use crate::config::{BROKER_ROWS, is_secret, parse_address};
use crate::metrics::Metrics;
use crate::network::ConnectionLimits;
use crate::system::Budgets;
use crate::system::tasks::{Kind, blocking, keep};

/// Scrapes that are worked out at a time: those that wait for a disk must not take all threads that may.
pub(crate) const SCRAPES_MAX: usize = 2;

/// What the routes look at.
#[derive(Debug)]
pub(crate) struct Http {
    pub context: Arc<Context>,
    pub limits: Arc<ConnectionLimits>,
    pub budgets: Budgets,
    pub metrics: Arc<Metrics>,
    pub scrapes: Arc<Semaphore>,
    pub hosts: Arc<Hosts>,
    pub stopping: watch::Receiver<bool>,
}

/// Binds the address of `http.listen`; `None` if it is empty.
pub(crate) async fn listen(address: &str) -> std::io::Result<Option<TcpListener>> {
    if address.is_empty() {
        return Ok(None);
    }
    let (host, port) = parse_address(address).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not of the form host:port")
    })?;
    TcpListener::bind((host, port)).await.map(Some)
}

impl Http {
    /// Serves until the broker stops; returns the address.
    pub(crate) fn start(self: Arc<Self>, listener: TcpListener) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let stop = self.stopping.clone();
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/v1/config/effective", get(config))
            .layer(from_fn_with_state(Arc::clone(&self.hosts), hosts::check))
            .with_state(self);
        keep(Kind::Listener, "HTTP listener", accept(listener, routes, stop));
        Ok(address)
    }
}

async fn livez() -> &'static str {
    "ok\n"
}

/// Ready when every log directory works and groups are loaded (or there are none yet).
async fn readyz(State(http): State<Arc<Http>>) -> (StatusCode, String) {
    let mut reasons = Vec::new();
    for directory in http.context.replicas.directories().iter().filter(|d| d.is_offline()) {
        reasons.push(format!("log directory {} is offline", directory.path.display()));
    }
    if !http.context.groups.is_ready() && !http.context.groups.is_new() {
        reasons.push("groups are being loaded".to_owned());
    }
    if *http.stopping.borrow() {
        reasons.push("stopping".to_owned());
    }
    if reasons.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
}

async fn metrics(State(http): State<Arc<Http>>) -> impl IntoResponse {
    // Whoever goes away while it is worked out leaves it to be finished: it counts until then.
    let turn = Arc::clone(&http.scrapes).acquire_owned().await;
    let text = blocking(move || {
        let text = exporter::text(&http);
        drop(turn);
        text
    });
    let Some(text) = text.await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Every broker setting with its value and where that comes from.
async fn config(State(http): State<Arc<Http>>) -> axum::Json<serde_json::Value> {
    let config = http.context.controller.config();
    let entry = |row: &crate::config::Row| {
        let (value, origin) = config.get(row.name);
        let value = if is_secret(row.name) && !value.is_empty() { "[hidden]" } else { value };
        (row.name.to_owned(), serde_json::json!({ "value": value, "origin": origin.to_string() }))
    };
    axum::Json(serde_json::Value::Object(BROKER_ROWS.iter().map(entry).collect()))
}
