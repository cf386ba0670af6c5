//! Health checks and metrics over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/liveness` | 200 while every component runs, else 503: restart the process |
//! | `/readiness` | 200 while every component does its work, else 503: send no traffic |
//! | `/metrics` | [`super::metrics`] |
//!
//! The first two carry a JSON body with each component's state.

use std::io::{Cursor, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt::SendTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;
use tiny_http::{Header, Method, Request, Response, Server};

use super::NodeView;
use super::metrics::{self, Report};

/// Seconds that one write waits for a client to make room; tiny_http tries a few writes more before
/// it gives up, so a client that reads nothing holds a responder for about four times as long.
const SEND_TIMEOUT: i64 = 1;

/// Threads that answer on one address, so that one slow client does not keep others waiting.
const RESPONDERS: usize = 2;

/// The running HTTP servers; dropping them stops them.
pub struct HealthServer {
    endpoints: Vec<Endpoint>,
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
        let mut endpoints = Vec::new();
        for (address, paths) in wanted {
            endpoints.push(Endpoint::start(Arc::clone(&view), address, paths)?);
        }
        Ok(Self { endpoints })
    }

    /// The addresses that are listened on, health's before metrics'.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.address)
            .collect()
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

/// One address and the threads that answer there; when it is dropped, the threads are joined, then
/// the fields go in this order.
struct Endpoint {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    server: Arc<Server>,
    _closing: Closing,
}

/// Stops listening when dropped: tiny_http's own thread closes the socket only some time after the
/// server is dropped, and until then the address would be taken.
struct Closing(TcpListener);

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

impl Endpoint {
    fn start(
        view: Arc<dyn NodeView>,
        address: SocketAddr,
        paths: Paths,
    ) -> Result<Self, HealthError> {
        let refuse = |reason: String| HealthError {
            address,
            what: paths.what(),
            reason,
        };
        let listener = TcpListener::bind(address).map_err(|error| refuse(error.to_string()))?;
        let address = listener.local_addr().unwrap_or(address);
        // Accepted sockets inherit it (Linux).
        setsockopt(&listener, SendTimeout, &TimeVal::seconds(SEND_TIMEOUT))
            .map_err(|error| refuse(error.to_string()))?;
        let closing = Closing(
            listener
                .try_clone()
                .map_err(|error| refuse(error.to_string()))?,
        );
        let server = Server::from_listener(listener, None).map_err(|e| refuse(e.to_string()))?;
        let mut endpoint = Self {
            address,
            stopping: Arc::default(),
            threads: Vec::new(),
            server: Arc::new(server),
            _closing: closing,
        };
        for index in 0..RESPONDERS {
            let (server, view) = (Arc::clone(&endpoint.server), Arc::clone(&view));
            let stopping = Arc::clone(&endpoint.stopping);
            let thread = thread::Builder::new()
                .name(format!("{} {index}", paths.what()))
                .spawn(move || serve(&server, &stopping, &*view, address, paths))
                .map_err(|error| refuse(error.to_string()))?;
            endpoint.threads.push(thread);
        }
        Ok(endpoint)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        self.threads.iter().for_each(|_| self.server.unblock());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(
    server: &Server,
    stopping: &AtomicBool,
    view: &dyn NodeView,
    address: SocketAddr,
    paths: Paths,
) {
    while !stopping.load(SeqCst) {
        match server.recv() {
            Ok(request) => {
                let response = respond(&request, view, paths);
                match request.respond(response) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        log::warn!(
                            "{} on {address}: a client did not read its answer",
                            paths.what()
                        );
                    }
                    // A client that has gone needs no answer.
                    _ => {}
                }
            }
            Err(error) if !stopping.load(SeqCst) => {
                log::error!("{} on {address} ended: {error}", paths.what());
                return;
            }
            Err(_) => return,
        }
    }
}

fn respond(request: &Request, view: &dyn NodeView, paths: Paths) -> Response<Cursor<Vec<u8>>> {
    if !matches!(request.method(), Method::Get | Method::Head) {
        let text = format!("{} is not answered here; use GET\n", request.method());
        return plain(405, text);
    }
    let path = request.url().split('?').next().unwrap_or_default();
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
            let code = if healthy { 200 } else { 503 };
            typed(code, format!("{body}\n"), "application/json")
        }
        ("/metrics", Paths::Metrics | Paths::All) => {
            let report = Report {
                counters: view.counters(),
                status: view.status(),
            };
            typed(200, metrics::encode(report), metrics::CONTENT_TYPE)
        }
        _ => plain(
            404,
            format!("nothing is at {path}; there is {}\n", paths.list()),
        ),
    }
}

fn plain(code: u16, text: String) -> Response<Cursor<Vec<u8>>> {
    typed(code, text, "text/plain; charset=utf-8")
}

fn typed(code: u16, body: String, content_type: &str) -> Response<Cursor<Vec<u8>>> {
    let response = Response::from_string(body).with_status_code(code);
    match Header::from_bytes("Content-Type", content_type) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}
