//! The connection: one member at a time, another when that one fails, and how it went.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::runtime::{Builder, Runtime};

use crate::datastore::{DatastoreError, Health};
use crate::resources::datastore::Etcd as Config;

/// How long a member may take to answer, before another is asked …
const ATTEMPT: Duration = Duration::from_secs(3);
/// … and how long they all may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long everything may take to be read.
pub(super) const READ: Duration = Duration::from_secs(30);
/// The pause after a failure, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often an idle connection is tried, and how long the answer may take. etcd refuses clients that
/// ask more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));
/// The largest answer that is taken, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// An etcd cluster's members, and the connection to one of them.
pub(super) struct Members {
    config: Config,
    runtime: Runtime,
    connection: Mutex<Connection>,
}

struct Connection {
    client: Option<Client>,
    /// The member that is asked, or asked next.
    member: usize,
    connected: bool,
    since: SystemTime,
    wrong: Option<String>,
}

/// Grows from failure to failure.
pub(super) struct Backoff(Duration);

impl Members {
    pub fn new(config: &Config) -> Result<Self, DatastoreError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(|error| DatastoreError::Unavailable {
                place: place(config),
                reason: format!("cannot start its thread: {error}"),
            })?;
        Ok(Self {
            config: config.clone(),
            runtime,
            connection: Mutex::new(Connection {
                client: None,
                member: 0,
                connected: false,
                since: SystemTime::now(),
                wrong: None,
            }),
        })
    }

    pub fn place(&self) -> String {
        place(&self.config)
    }

    pub fn health(&self) -> Health {
        let connection = self.connection();
        Health {
            place: self.place(),
            connected: connection.connected,
            since: connection.since,
            wrong: connection.wrong.clone(),
        }
    }

    /// Runs a future to its end on the caller's thread.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.handle().block_on(future)
    }

    /// Asks members until one answers. The operation is told whether an earlier attempt may have
    /// taken effect without an answer.
    pub fn ask<T>(
        &self,
        operation: impl AsyncFn(Client, bool) -> Result<T, Error>,
    ) -> Result<T, DatastoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        let mut again = false;
        self.block_on(async {
            loop {
                let asked = async {
                    let client = self.client().await?;
                    operation(client, again).await
                };
                let reason = match tokio::time::timeout(ATTEMPT, asked).await {
                    Ok(Ok(answer)) => {
                        self.answered();
                        return Ok(answer);
                    }
                    Ok(Err(error)) if is_final(&error) => return Err(self.refused(text(&error))),
                    Ok(Err(error)) => text(&error),
                    Err(_) => format!("no answer within {} s", ATTEMPT.as_secs()),
                };
                let reason = self.failed(reason);
                again = true;
                if Instant::now() >= deadline {
                    return Err(self.refused(reason));
                }
                backoff.pause().await;
            }
        })
    }

    /// A connection to a member: the one in use, else one to the next member.
    pub async fn client(&self) -> Result<Client, Error> {
        let endpoint = {
            let connection = self.connection();
            if let Some(client) = &connection.client {
                return Ok(client.clone());
            }
            self.config.endpoints[connection.member % self.config.endpoints.len()].clone()
        };
        let options = self.options()?;
        let client = Client::connect([endpoint], Some(options)).await?;
        self.connection().client = Some(client.clone());
        Ok(client)
    }

    /// Notes that a member answered.
    pub fn answered(&self) {
        let mut connection = self.connection();
        if !connection.connected {
            connection.since = SystemTime::now();
            log::info!("{}: connected", place(&self.config));
        }
        connection.connected = true;
        connection.wrong = None;
    }

    /// Notes that a member failed: the next one's turn. Gives the reason, with the member's name.
    pub fn failed(&self, reason: String) -> String {
        let mut connection = self.connection();
        let member = &self.config.endpoints[connection.member % self.config.endpoints.len()];
        let reason = format!("{member}: {reason}");
        if connection.connected {
            connection.since = SystemTime::now();
        }
        connection.connected = false;
        connection.client = None;
        connection.member = connection.member.wrapping_add(1);
        connection.wrong = Some(reason.clone());
        reason
    }

    fn refused(&self, reason: String) -> DatastoreError {
        DatastoreError::Unavailable {
            place: self.place(),
            reason,
        }
    }

    fn options(&self) -> Result<ConnectOptions, Error> {
        let config = &self.config;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ATTEMPT)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_auto_token_refresh(true);
        if !config.username.is_empty() {
            options = options.with_user(&config.username, &config.password);
        }
        if config
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("https:"))
        {
            let mut tls = TlsOptions::new();
            if let Some(file) = &config.ca_file {
                tls = tls.ca_certificate(Certificate::from_pem(read(file)?));
            }
            if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            options = options.with_tls(tls);
        }
        Ok(options)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backoff {
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// How long to wait this time.
    pub fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (self.0 * 2).min(BACKOFF.1);
        now
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF.0)
    }
}

/// The part of a client that takes large answers.
pub(super) fn large(client: &Client) -> etcd_client::KvClient {
    client.kv_client().max_decoding_message_size(ANSWER_MAX)
}

/// The same, for watches.
pub(super) fn large_watch(client: &Client) -> etcd_client::WatchClient {
    client.watch_client().max_decoding_message_size(ANSWER_MAX)
}

/// What went wrong, in one line.
pub(super) fn text(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    }
}

/// Whether another attempt would fail the same way.
fn is_final(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else {
        return matches!(error, Error::InvalidArgs(_) | Error::InvalidUri(_));
    };
    let message = status.message();
    message.contains("authentication failed")
        || message.contains("permission denied")
        || message.contains("user name is empty")
        || message.contains("request is too large")
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file)
        .map_err(|error| Error::InvalidArgs(format!("{} cannot be read: {error}", file.display())))
}

fn place(config: &Config) -> String {
    format!("etcd {}", config.endpoints.join(","))
}
