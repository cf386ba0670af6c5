//! A node's life: what is started in which order, the control loop, and the end.
//!
//! Start: ports open, nothing steered → routes resolved and published → workers run → steering on.
//! End: steering off → workers drain and join → slow path joins → sockets and devices close.

/// What a node knows of its surroundings: [`Node::facts`] where the rest of the node is changed meanwhile. A
/// method would borrow all of it, this does the parts that know.
macro_rules! facts {
    ($node:expr) => {{
        let host_mtu = $node.host_mtu();
        $crate::control::facts::Known::new(
            &$node.mirror,
            &$node.ports,
            &$node.links,
            &$node.paths,
            host_mtu,
        )
    }};
}

mod answers;
mod bgp;
mod host_routes;
mod kernel;
mod learned;
mod paths;
mod settings;
mod start;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, tick};

use super::apply::{Forwarding, is_steered, node_addresses, steered_prefixes};
use super::bgp::{BgpSide, Farewell};
use super::fast_path::FastPathSide;
use super::host::HostSide;
use super::kernel_routes::KernelRoutes;
use super::learned::pools as learned_pools;
use super::nat::OutgoingNat;
use super::overheads::Overheads;
use super::path_mtu::PathMtus;
use super::path_prober::PathProber;
use super::ports::OpenPorts;
use super::resolve::{Delta, Resolver};
use super::supervisor::Supervisor;
use super::threads::Handles;
use super::upkeep::Upkeep;
use super::view::{PortTable, Question};
use super::workloads::WorkloadLinks;
use crate::datastore::{Update, Watch};
use crate::kernel::{Mirror, capabilities};
use crate::observe::control_socket::ControlSocket;
use crate::resources::config::NodeConfig;
use crate::resources::{ClusterState, Problem, ResourceKey, Settings};
use settings::{Networks, Services};
use start::{refuse_default_route, signals};

/// How to run a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The node's configuration.
    pub config: PathBuf,
    /// Whether the uplink may be the machine's default route.
    pub allow_default_route: bool,
    /// How much is logged, if not as configured.
    pub log: Option<log::LevelFilter>,
}

/// How often neighbours in use are confirmed and threads looked after.
const TICK: Duration = Duration::from_secs(1);

/// Runs a node until SIGTERM, after which BGP peers wait for it to come back, or SIGINT, after which they do
/// not. An error is text for people, a line each.
pub fn run(options: &RunOptions) -> Result<(), String> {
    let config = NodeConfig::load(&options.config).map_err(|problems| lines(&problems))?;
    log::set_max_level(options.log.unwrap_or_else(|| config.log.into()));
    let log_is_given = options.log.is_some();
    let missing = capabilities::missing();
    if !missing.is_empty() {
        let sentences: Vec<_> = missing.into_iter().map(|lack| lack.sentence).collect();
        return Err(sentences.join("\n"));
    }
    refuse_default_route(&config, options.allow_default_route)?;
    let signals = signals().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut node = Node::start(config.clone(), log_is_given, &signals)?;
    while let Some(running) = node {
        match running.run(&signals)? {
            End::Told => break,
            End::UplinkIsNew => node = start_again(&config, log_is_given, &signals),
        }
    }
    Ok(())
}

/// Starts a node anew whose uplink was made again; what is not there yet may come. Nothing if it is told to
/// stop before.
fn start_again(config: &NodeConfig, log_is_given: bool, signals: &Receiver<i32>) -> Option<Node> {
    let supervisor = Supervisor::from_environment();
    loop {
        supervisor.alive();
        match Node::start(config.clone(), log_is_given, signals) {
            Ok(node) => return node,
            Err(error) => log::error!("{error}; tried again in a second"),
        }
        if signals.recv_timeout(TICK).is_ok() {
            return None;
        }
    }
}

/// Why a node ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was told to.
    Told,
    /// Its uplink is another interface now, of the same name.
    UplinkIsNew,
}

/// A running node.
pub(super) struct Node {
    pub(super) config: NodeConfig,
    settings: Settings,
    /// Whether a resource that has a say in them has changed.
    settings_dirty: bool,
    /// VXLAN's port and network, which change step by step.
    networks: Networks,
    /// What of them takes effect with the next start only.
    restart_needed: Option<String>,
    /// Whether the command line says how much is logged.
    log_is_given: bool,
    started: Instant,
    pub(super) mirror: Mirror,
    announcements: Receiver<()>,
    pub(super) ports: OpenPorts,
    pub(super) shown: PortTable,
    host: Option<HostSide>,
    nat: OutgoingNat,
    watch: Watch,
    upkeep: Upkeep,
    state: ClusterState,
    resolver: Resolver,
    external: Option<KernelRoutes>,
    bgp: BgpSide,
    /// Whether the host's table is too small for the learned routes to destinations in no pool.
    too_many_outside: bool,
    /// Ticks until the heap's free pages are given back; 0 for never.
    trim_in: u8,
    overheads: Overheads,
    problems: Vec<Problem>,
    pub(super) forwarding: Forwarding,
    links: WorkloadLinks,
    paths: PathMtus,
    prober: PathProber,
    paths_probed: Instant,
    pub(super) fast_path: Option<FastPathSide>,
    pub(super) handles: Handles,
    questions: Receiver<Question>,
    /// Says that there are more ports to open or close.
    pub(super) more_plugs: (Sender<()>, Receiver<()>),
    last_asked: Instant,
    _socket: ControlSocket,
    services: Services,
}

impl Node {
    fn run(mut self, signals: &Receiver<i32>) -> Result<End, String> {
        log::info!(
            "{}: ready after {} ms: {} routes, {} worker(s), uplink {} ({})",
            self.config.node,
            self.started.elapsed().as_millis(),
            self.forwarding.routes().len(),
            self.config.worker_count(),
            self.config.uplink.interface,
            self.uplink_io(),
        );
        let supervisor = Supervisor::from_environment();
        supervisor.ready(&format!("{} forwards", self.config.node));
        let updates = self.watch.updates();
        let events = self.handles.events();
        let measured = self.prober.measured();
        let ticks = tick(TICK);
        let mut changed = false;
        let mut failure = None;
        // Whoever ends a service that is to come back says SIGTERM; one that fails is started again.
        let mut farewell = Farewell::Restart;
        let mut end = End::Told;
        let more = self.more_plugs.1.clone();
        loop {
            let spoken = self.bgp.events();
            select! {
                recv(updates) -> update => match update {
                    Ok(update) => changed = self.take(update, changed),
                    Err(_) => { failure = Some("the datastore's watch has ended".to_owned()); break }
                },
                recv(self.announcements) -> _ => {
                    self.follow_kernel();
                    if self.uplink_is_new() {
                        log::warn!("{}: the uplink was made again: it starts anew", self.config.node);
                        end = End::UplinkIsNew;
                        break;
                    }
                },
                recv(events) -> event => self.heed(event.into_iter().chain(events.try_iter())),
                recv(measured) -> path => if let Ok(path) = path { self.take_measurement(&path) },
                recv(self.questions) -> question => if let Ok(question) = question {
                    self.answer(question);
                },
                recv(spoken) -> event => match event {
                    Ok(event) => self.hear_speaker(event),
                    Err(_) => { failure = Some("the BGP speaker has ended".to_owned()); break }
                },
                recv(more) -> _ => self.follow_ports(),
                recv(ticks) -> _ => {
                    self.probe_nodes();
                    self.ask_workloads();
                    self.follow_ports();
                    self.nat.look_after(Instant::now());
                    self.look_after_host_routes();
                    self.show_learned_routes_outside();
                    self.give_memory_back();
                    self.look_after_paths();
                    self.look_after_bgp();
                    self.look_after_networks();
                    self.look_after_fast_path();
                    self.forwarding.tick(self.started.elapsed().as_secs() as u32);
                    if let Some(died) = self.handles.dead() {
                        failure = Some(died);
                        break;
                    }
                    supervisor.alive();
                },
                recv(signals) -> signal => {
                    log::info!("{}: stopping on signal {}", self.config.node, signal.unwrap_or(0));
                    if signal == Ok(signal_hook::consts::SIGINT) {
                        farewell = Farewell::ForGood;
                    }
                    break;
                },
            }
        }
        if end == End::Told {
            supervisor.stopping();
        }
        self.stop(farewell);
        failure.map_or(Ok(end), Err)
    }

    /// Takes one change of the datastore in; acts when it is in sync again. Returns whether there is
    /// something still to act on.
    fn take(&mut self, update: Update, changed: bool) -> bool {
        match update {
            Update::Put { resource, .. } => {
                self.heed_key(&resource.key());
                self.resolver.put(&mut self.state, *resource);
            }
            Update::Delete(key) => {
                self.heed_key(&key);
                self.resolver.delete(&mut self.state, &key);
            }
            Update::Problems(problems) => {
                self.note_problems(problems);
                return changed;
            }
            Update::InSync => {
                if changed {
                    let known = self.forwarding.wanted().warnings.clone();
                    let delta = self.resolver.settle(&self.state);
                    self.overheads.update(self.resolver.wanted(), &delta);
                    self.log_warnings(&known);
                    self.follow_settings();
                    let repooled = self.forwarding.set_pools(learned_pools(&self.state));
                    if delta.is_empty() && !repooled {
                        self.follow_nat();
                    } else {
                        self.apply(&delta);
                    }
                    self.follow_bgp_resources();
                    self.follow_ports();
                }
                return false;
            }
        }
        true
    }

    fn heed_key(&mut self, key: &ResourceKey) {
        self.upkeep.heed(key);
        self.settings_dirty |= settings::concerns(key, &self.config.node);
    }

    fn log_warnings(&self, known: &[String]) {
        let known: BTreeSet<&String> = known.iter().collect();
        let warnings = self.resolver.wanted().warnings.iter();
        for warning in warnings.filter(|warning| !known.contains(warning)) {
            log::warn!("{warning}");
        }
    }

    /// Makes everything what is wanted, of which `delta` has changed. What sends packets our way comes
    /// last, what takes them away from a route first learns the new one.
    pub(super) fn apply(&mut self, delta: &Delta) {
        let first = self.forwarding.routes().is_empty();
        let wanted = self.resolver.wanted();
        let workload_ports = &self.forwarding.fixed().workload_ports;
        self.links.configure(wanted, workload_ports);
        let facts = facts!(self);
        let host_mtu = facts.host_mtu;
        let before = self.forwarding.routes().len();
        self.forwarding.set_pools(learned_pools(&self.state));
        for refused in self.forwarding.update(wanted, delta, &facts) {
            log::error!("no room in the route table for {refused}");
        }
        if first || delta.local || delta.is_of(wanted, is_steered) {
            self.steer();
        }
        let wanted = self.resolver.wanted();
        if let Some(host) = &mut self.host {
            host.update(wanted, delta, host_mtu, &self.mirror);
        }
        self.show_learned_routes();
        self.follow_nat();
        let after = self.forwarding.routes().len();
        log::info!(
            "{}: routes applied: {before} before, {after} now",
            self.config.node
        );
    }

    /// Has the kernel translate what the pools say, and what is to be translated go to the kernel.
    pub(super) fn follow_nat(&mut self) {
        let bridges = self.forwarding.bridging().udp_ports();
        let vxlan_ports = self.networks.ports().into_iter().chain(bridges).collect();
        let wanted = super::nat::wanted(&self.state, self.settings.nat_exclusions, vxlan_ports);
        let sources = wanted.sources.iter().copied().collect();
        self.nat.update(wanted, Instant::now());
        let facts = facts!(self);
        self.forwarding.set_translated(sources, &facts);
    }

    /// Has the uplink take from the kernel what is ours.
    fn steer(&mut self) {
        let wanted = self.resolver.wanted();
        let (port, also) = (self.networks.sent.0, self.networks.also.0);
        let mut more_ports = self.forwarding.bridging().udp_ports();
        more_ports.retain(|more| ![port, also].contains(more));
        // Both are taken before one takes the other's place.
        if also != port {
            more_ports.splice(0..0, [port, also]);
        }
        let steering = &mut self.ports.uplink_steering;
        let prefixes: Vec<_> = steered_prefixes(wanted).into_iter().collect();
        let steered = steering
            .set_more_vxlan_ports(&more_ports)
            .and_then(|()| steering.set_vxlan_port(port))
            .and_then(|()| steering.set_node_addresses(&node_addresses(wanted)))
            .and_then(|()| steering.set_local_prefixes(&prefixes));
        if let Err(error) = steered {
            log::error!("steering: {error}");
        }
    }

    fn note_problems(&mut self, problems: Vec<Problem>) {
        for problem in &problems {
            if !self.problems.contains(problem) {
                log::error!("{problem}");
            }
        }
        if problems.is_empty() && !self.problems.is_empty() {
            log::info!("the datastore's problems are mended");
        }
        self.problems = problems;
    }

    /// The end, in the order in which nothing is steered to a socket that is gone.
    fn stop(mut self, farewell: Farewell) {
        self.bgp.stop("the node stops", farewell);
        self.ports.unsteer_all();
        let OpenPorts {
            uplink_steering,
            workers,
            ..
        } = self.ports;
        drop(uplink_steering);
        let closed = self.handles.stop();
        drop(closed);
        drop(workers);
        // While the TUN device is there: nothing leaves untranslated.
        drop(self.nat);
        drop(self.host);
        log::info!("{}: stopped", self.config.node);
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
