//! The routes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::exporter;
use crate::api::Context;
use crate::config::{BROKER_ROWS, parse_address};
use crate::metrics::Metrics;
use crate::network::{Budget, ConnectionLimits};
use crate::system::tasks::{JoinHandle, blocking, spawn};

/// What the routes look at.
#[derive(Debug)]
pub(crate) struct Http {
    pub context: Arc<Context>,
    pub limits: Arc<ConnectionLimits>,
    pub budget: Arc<Budget>,
    pub metrics: Arc<Metrics>,
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
    pub(crate) fn start(
        self: Arc<Self>,
        listener: TcpListener,
    ) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
        let address = listener.local_addr()?;
        let mut stop = self.stopping.clone();
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/v1/config/effective", get(config))
            .with_state(self);
        let task = spawn(async move {
            let until = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(until).await {
                tracing::error!(%error, "HTTP ended");
            }
        });
        Ok((address, task))
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
    let text = blocking(move || exporter::text(&http)).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Every broker setting with its value and where that comes from.
async fn config(State(http): State<Arc<Http>>) -> axum::Json<serde_json::Value> {
    let config = http.context.controller.config();
    let entry = |row: &crate::config::Row| {
        let (value, origin) = config.get(row.name);
        (row.name.to_owned(), serde_json::json!({ "value": value, "origin": origin.to_string() }))
    };
    axum::Json(serde_json::Value::Object(BROKER_ROWS.iter().map(entry).collect()))
}
