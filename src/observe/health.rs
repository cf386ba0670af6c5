//! Health checks and metrics over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/liveness` | 200 while every component runs, else 503: restart the process |
//! | `/readiness` | 200 while every component does its work, else 503: send no traffic |
//! | `/metrics` | [`super::metrics`] |
//!
//! The first two carry a JSON body with each component's state.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use super::NodeView;
use super::http::{Answer, Request, Server};
use super::metrics::{self, Report};

/// The running HTTP servers; dropping them stops them.
pub struct HealthServer {
    servers: Vec<Server>,
}

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {what}: {reason}; give an address of this host and a free port"
)]
pub struct HealthError {
    /// The address.
    pub address: SocketAddr,
    /// What should have been served there.
    pub what: &'static str,
    /// What the operating system or the HTTP server said.
    pub reason: String,
}

impl HealthServer {
    /// Serves health and metrics of `view`, each on its address if it has one; the two may be the
    /// same. Port 0 lets the system choose: see [`HealthServer::addresses`].
    pub fn start(
        view: Arc<dyn NodeView>,
        health: Option<SocketAddr>,
        metrics: Option<SocketAddr>,
    ) -> Result<Self, HealthError> {
        let wanted: Vec<(SocketAddr, Paths)> = match (health, metrics) {
            (Some(both), Some(metrics)) if both == metrics => vec![(both, Paths::All)],
            (health, metrics) => health
                .map(|address| (address, Paths::Health))
                .into_iter()
                .chain(metrics.map(|address| (address, Paths::Metrics)))
                .collect(),
        };
        let mut servers = Vec::new();
        for (address, paths) in wanted {
            let view = Arc::clone(&view);
            let server = Server::start(address, move |request| respond(request, &*view, paths));
            servers.push(server.map_err(|error| HealthError {
                address,
                what: paths.what(),
                reason: error.to_string(),
            })?);
        }
        Ok(Self { servers })
    }

    /// The addresses that are listened on, health's before metrics'.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(Server::address).collect()
    }
}

/// What is served on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paths {
    Health,
    Metrics,
    All,
}

impl Paths {
    const fn what(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::All => "health and metrics",
        }
    }

    const fn list(self) -> &'static str {
        match self {
            Self::Health => "/liveness and /readiness",
            Self::Metrics => "/metrics",
            Self::All => "/liveness, /readiness and /metrics",
        }
    }
}

fn respond(request: Request<'_>, view: &dyn NodeView, paths: Paths) -> Answer {
    let Request { method, path } = request;
    if !matches!(method, "GET" | "HEAD") {
        return Answer::plain(405, format!("{method} is not answered here; use GET\n"));
    }
    match (path, paths) {
        ("/liveness" | "/readiness", Paths::Health | Paths::All) => {
            let status = view.status();
            let healthy = if path == "/liveness" {
                status.is_live()
            } else {
                status.is_ready()
            };
            let word = if healthy { "ok" } else { "failed" };
            let body = json!({
                "status": word,
                "node": status.node,
                "components": status.components,
            });
            Answer {
                code: if healthy { 200 } else { 503 },
                content_type: "application/json",
                body: format!("{body}\n"),
            }
        }
        ("/metrics", Paths::Metrics | Paths::All) => {
            let report = Report {
                counters: view.counters(),
                status: view.status(),
            };
            Answer {
                code: 200,
                content_type: metrics::CONTENT_TYPE,
                body: metrics::encode(report),
            }
        }
        _ => Answer::plain(
            404,
            format!("nothing is at {path}; there is {}\n", paths.list()),
        ),
    }
}
