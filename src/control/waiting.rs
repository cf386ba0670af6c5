//! A node until its datastore has told what there is: it has touched nothing yet, and goes on asking; whoever
//! asks it is told why it waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select};

use super::report;
use super::supervisor::Supervisor;
use crate::datastore::{Datastore, Update, Watch};
use crate::observe::NodeView;
use crate::observe::control_socket::ControlSocket;
use crate::observe::health::HealthServer;
use crate::observe::protocol::{CaptureRequest, ProbeRequest};
use crate::observe::report::{CounterReport, FdbRow, MtuReport, RouteRow, StatusReport};
use crate::port::capture::{Capture, CaptureError};
use crate::resources::{ClusterState, NodeConfig, Problem, Settings};

/// How soon a datastore is expected to have told everything; nobody is told of a shorter wait.
const SOON: Duration = Duration::from_secs(1);

/// How often the log says that the node still waits.
const EVERY: Duration = Duration::from_secs(5);

/// What a datastore held when it had told everything for the first time.
pub type First = (ClusterState, Vec<Problem>);

/// Everything that the datastore holds at the start, however long that takes; nothing if a signal came
/// before. An error is text for people.
pub fn first_state(
    config: &NodeConfig,
    store: &Arc<dyn Datastore>,
    watch: &Watch,
    signals: &Receiver<i32>,
) -> Result<Option<First>, String> {
    let (mut state, mut found) = (ClusterState::default(), Vec::new());
    let updates = watch.updates();
    let mut waiting = None;
    let mut patience = after(SOON);
    loop {
        select! {
            recv(updates) -> update => match update {
                Ok(Update::Put { resource, .. }) => state.put(*resource),
                Ok(Update::Delete(key)) => {
                    state.delete(&key);
                }
                Ok(Update::Problems(problems)) => found = problems,
                Ok(Update::InSync) => return Ok(Some((state, found))),
                Err(_) => return Err("the datastore's watch has ended".to_owned()),
            },
            recv(patience) -> _ => {
                if waiting.is_none() {
                    waiting = Some(Waiting::start(config, store)?);
                }
                if let Some(waiting) = &waiting {
                    waiting.tell();
                }
                patience = after(EVERY);
            },
            recv(signals) -> _ => return Ok(None),
        }
    }
}

/// What answers while there is nothing to forward by.
struct Waiting {
    view: Arc<WaitingView>,
    supervisor: Supervisor,
    _socket: ControlSocket,
    _health: HealthServer,
}

impl Waiting {
    fn start(config: &NodeConfig, store: &Arc<dyn Datastore>) -> Result<Self, String> {
        let view = Arc::new(WaitingView {
            node: config.node.to_string(),
            uplink: config.uplink.interface.to_string(),
            config: config
                .file()
                .and_then(|file| std::path::absolute(file).ok()),
            started: Instant::now(),
            store: Arc::clone(store),
        });
        let shown: Arc<dyn NodeView> = view.clone();
        // What FelixConfigurations say of them is not known yet.
        let settings = Settings::new(config, &ClusterState::default());
        let socket = ControlSocket::start(&config.control_socket(), Arc::clone(&shown));
        let health = HealthServer::start(shown, settings.health, settings.metrics);
        Ok(Self {
            view,
            supervisor: Supervisor::from_environment(),
            _socket: socket.map_err(|error| error.to_string())?,
            _health: health.map_err(|error| error.to_string())?,
        })
    }

    /// Says in the log, and to systemd, that and why the node waits.
    fn tell(&self) {
        let detail = self.view.why();
        self.supervisor.starting(&detail, 4 * EVERY);
        // A node that starts anew was ready before: systemd watches it.
        self.supervisor.alive();
        log::warn!("{}: not ready: {detail}", self.view.node);
    }
}

/// A node that has nothing yet.
struct WaitingView {
    node: String,
    uplink: String,
    config: Option<std::path::PathBuf>,
    started: Instant,
    store: Arc<dyn Datastore>,
}

const NOT_YET: &str = "the node waits for its datastore (underpass status says why)";

impl WaitingView {
    fn why(&self) -> String {
        report::missing_datastore(&self.store.health())
    }
}

impl NodeView for WaitingView {
    fn routes(&self) -> Vec<RouteRow> {
        Vec::new()
    }

    fn fdb(&self) -> Vec<FdbRow> {
        Vec::new()
    }

    fn counters(&self) -> CounterReport {
        CounterReport::default()
    }

    fn status(&self) -> StatusReport {
        StatusReport {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            uplink: Some(self.uplink.clone()),
            components: vec![report::waiting_component(self.why())],
            config: self.config.clone(),
            ..StatusReport::default()
        }
    }

    fn capture(&self, _request: &CaptureRequest) -> Result<Capture, CaptureError> {
        Err(CaptureError::NoPorts)
    }

    fn probe_mtu(&self, _request: &ProbeRequest) -> Result<MtuReport, String> {
        Err(NOT_YET.to_owned())
    }
}
