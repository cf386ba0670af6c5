//! A node's life: what is started in which order, the control loop, and the end.
//!
//! Start: ports open, nothing steered → routes resolved and published → workers run → steering on.
//! End: steering off → workers drain and join → slow path joins → sockets and devices close.

mod bgp;
mod host_routes;
mod learned;
mod paths;
mod settings;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};

use super::apply::{Fixed, Forwarding, Hop, is_steered, node_addresses, steered_prefixes};
use super::bgp::{BgpSide, Farewell};
use super::bridges::Bridging;
use super::facts::Known;
use super::fast_path::FastPathSide;
use super::host::{Devices, HostSide};
use super::kernel_routes::KernelRoutes;
use super::learned::pools as learned_pools;
use super::nat::OutgoingNat;
use super::overheads::Overheads;
use super::path_mtu::PathMtus;
use super::path_prober::PathProber;
use super::ports::{self, OpenPorts, UPLINK};
use super::probe::Prober;
use super::resolve::{Delta, Resolver};
use super::supervisor::Supervisor;
use super::threads::{Handles, Threads};
use super::upkeep::Upkeep;
use super::view::{Counted, PortTable, Question, View};
use super::waiting::first_state;
use super::workloads::{WorkloadLinks, stale_mtus};
use super::{probe, report};
use crate::datastore::{self, Selection, Update, Watch};
use crate::forward::{Dscp, FromWorkloads, OuterTtl, TunnelMtus};
use crate::kernel::{Mirror, Netlink, capabilities};
use crate::observe::NodeView;
use crate::observe::control_socket::ControlSocket;
use crate::observe::report::{FdbRow, RouteRow, StatusReport};
use crate::port::capture::CaptureSwitch;
use crate::resources::bgp_use::Bgp;
use crate::resources::config::{self, NodeConfig};
use crate::resources::{ClusterState, Fault, Kind, Problem, ResourceKey, Settings};
use crate::wire::Mtu;
use crate::worker::slow_path::Event;
use settings::{Networks, Services};

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

/// How often workloads whose Ethernet addresses were learnt are asked for them.
const ASK_EVERY: Duration = Duration::from_secs(5);

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
    loop {
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
    fn start(
        mut config: NodeConfig,
        log_is_given: bool,
        signals: &Receiver<i32>,
    ) -> Result<Option<Self>, String> {
        let started = Instant::now();
        let store = datastore::open(&config.datastore).map_err(|error| error.to_string())?;
        let watch = store
            .watch(&watched(), None)
            .map_err(|error| error.to_string())?;
        let Some((state, problems)) = first_state(&config, &store, &watch, signals)? else {
            return Ok(None);
        };
        if !state.nodes.contains_key(&config.node) {
            return Err(no_node(&config, &problems));
        }
        let settings = Settings::new(&config, &state);
        if !log_is_given {
            log::set_max_level(settings.log.into());
        }
        // Bridges have the routed network's port where they name none.
        (config.vxlan.port, config.vxlan.vni) = (settings.vxlan_port, settings.vni);
        let mut mirror = Mirror::open().map_err(|error| error.to_string())?;
        if let Some(host) = &config.host {
            mirror.ignore_interface(host.tun.to_string());
        }
        let switch = CaptureSwitch::new();
        let mut ports = ports::open(&config, &mirror, &switch).map_err(|e| e.to_string())?;
        // The devices that were just made are in the mirror before anybody asks for them.
        mirror.process().map_err(|error| error.to_string())?;
        let host = match &config.host {
            Some(host) => {
                let side = HostSide::new(Devices {
                    tun: host.tun.to_string(),
                    uplink: config.uplink.interface.to_string(),
                    keep_routes: host.keep_routes,
                    awaits_learned: config.bgp != Bgp::Off,
                });
                Some(side.map_err(|error| error.to_string())?)
            }
            None => None,
        };

        let by_bgp = config.bgp != Bgp::Off;
        let resolver = Resolver::with_bgp(&state, &config.node, by_bgp);
        let external = learned::external(&config.bgp, &mut mirror)?;
        let fixed = fixed(&config, &settings, &ports);
        let bridging = Bridging::new(&config, &ports.bridge_ports);
        let mut forwarding =
            Forwarding::new(fixed, resolver.wanted().clone()).with_bridges(bridging);
        let fast_path = FastPathSide::open(&config, &mut ports, &mirror, &switch)
            .map_err(|problem| problem.to_string())?;
        let (fast_path, follower) = fast_path.map_or((None, None), |(a, b)| (Some(a), Some(b)));
        if let Some(follower) = follower {
            forwarding.set_fast_path(follower);
        }
        let links = WorkloadLinks::default();
        let (handles, counters) = Threads::prepare(&config, &mut ports, &forwarding)
            .and_then(Threads::start)
            .map_err(|error| format!("cannot start the workers: {error}"))?;
        let prober = handles
            .uplink()
            .map(|uplink| Arc::new(Prober::new(uplink, switch.clone())));
        let counted = Counted {
            threads: counters,
            fast_path: fast_path.as_ref().map(FastPathSide::counters),
        };
        let bgp = BgpSide::new(&config.control_socket());
        let shown = PortTable::new(counted.clone(), ports.descriptions.clone());
        let (view, questions) = View::new(counted, &shown, switch, prober.clone(), bgp.slot());
        let view: Arc<dyn NodeView> = Arc::new(view);
        let socket = ControlSocket::start(&config.control_socket(), view.clone());
        let services = Services::start(view, &settings);
        let announcements = watch_kernel(&mirror);
        let tun = config.host.as_ref().map(|host| host.tun.to_string());
        let upkeep = Upkeep::start(&config, store)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        let mut node = Self {
            started,
            announcements,
            mirror,
            ports,
            shown,
            host,
            nat: OutgoingNat::new(config.node.as_str(), tun),
            watch,
            upkeep,
            state,
            problems: Vec::new(),
            overheads: Overheads::new(resolver.wanted()),
            resolver,
            external,
            bgp,
            too_many_outside: false,
            trim_in: 0,
            forwarding,
            links,
            paths: PathMtus::new(Mtu(config.tunnel.min_path_mtu)),
            prober: PathProber::start(prober),
            paths_probed: started,
            fast_path,
            handles,
            questions,
            more_plugs: bounded(1),
            last_asked: started,
            _socket: socket.map_err(|error| error.to_string())?,
            services: services.map_err(|error| error.to_string())?,
            settings_dirty: false,
            networks: Networks::settled(&settings),
            restart_needed: None,
            log_is_given,
            settings,
            config,
        };
        node.note_problems(problems);
        node.log_warnings(&[]);
        node.apply(&Delta::default());
        node.take_daemons_routes();
        if matches!(node.config.bgp, Bgp::External(_)) {
            node.forget_earlier_host_routes();
        }
        node.follow_bgp_resources();
        node.follow_ports();
        node.probe_nodes();
        Ok(Some(node))
    }

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
            if self.uplink_is_new() {
                log::warn!(
                    "{}: the uplink was made again: it starts anew",
                    self.config.node
                );
                end = End::UplinkIsNew;
                break;
            }
            let spoken = self.bgp.events();
            select! {
                recv(updates) -> update => match update {
                    Ok(update) => changed = self.take(update, changed),
                    Err(_) => { failure = Some("the datastore's watch has ended".to_owned()); break }
                },
                recv(self.announcements) -> _ => self.follow_kernel(),
                recv(events) -> event => if let Ok(event) = event { self.heed(event) },
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
                    self.nat.look_after();
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
        let host_mtu = self.host_mtu();
        let facts = Known::new(
            &self.mirror,
            &self.ports,
            &self.links,
            &self.paths,
            host_mtu,
        );
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
        self.nat.update(&self.state, self.settings.nat_exclusions);
        let wanted = super::nat::wanted(&self.state, self.settings.nat_exclusions);
        let host_mtu = self.host_mtu();
        let facts = Known::new(
            &self.mirror,
            &self.ports,
            &self.links,
            &self.paths,
            host_mtu,
        );
        let sources = wanted.sources.into_iter().collect();
        self.forwarding.set_translated(sources, &facts);
    }

    /// Has the uplink take from the kernel what is ours.
    fn steer(&mut self) {
        let wanted = self.resolver.wanted();
        let (port, also) = (self.networks.sent.0, self.networks.also.0);
        let mut more_ports = self.forwarding.bridging().udp_ports();
        if also != port && !more_ports.contains(&also) {
            more_ports.insert(0, also);
        }
        let steering = &mut self.ports.uplink_steering;
        let prefixes: Vec<_> = steered_prefixes(wanted).into_iter().collect();
        let steered = steering
            .set_vxlan_port(port)
            .and_then(|()| steering.set_more_vxlan_ports(&more_ports))
            .and_then(|()| steering.set_node_addresses(&node_addresses(wanted)))
            .and_then(|()| steering.set_local_prefixes(&prefixes));
        if let Err(error) = steered {
            log::error!("steering: {error}");
        }
    }

    /// Has adjacencies follow the kernel's neighbours, links and routes.
    fn follow_kernel(&mut self) {
        let mut links = false;
        match self.mirror.process() {
            Ok(changes) if changes.any() => {
                links = changes.links;
                if changes.links {
                    self.ports.plugs.hurry(&changes.interfaces);
                    self.follow_ports();
                    self.warn_of_large_mtus(&changes.interfaces);
                    self.follow_uplink_address();
                    self.look_after_fast_path();
                }
                self.refresh();
            }
            Ok(_) => {}
            Err(error) => log::error!("the kernel's tables: {error}"),
        }
        self.follow_routes(links);
    }

    fn look_after_fast_path(&mut self) {
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.look_after(&self.mirror);
        }
    }

    /// What was refused at the start can be set later: packets are kept to what buffers hold then.
    fn warn_of_large_mtus(&self, changed: &std::collections::BTreeSet<String>) {
        let largest = self.ports.largest;
        let ports = self.ports.descriptions.iter().flatten();
        for port in ports.filter(|port| port.local) {
            let link = self.mirror.link_named(&port.device);
            if let Some(link) =
                link.filter(|link| link.mtu > largest && changed.contains(&link.name))
            {
                log::warn!(
                    "{}: its MTU is {} now, and buffers hold {largest}: larger packets are lost; lower \
                     it (ip link set {} mtu {largest}), or restart the node",
                    port.name,
                    link.mtu,
                    link.name
                );
            }
        }
    }

    /// The uplink's own Ethernet address is what packets are steered by and sent from.
    fn follow_uplink_address(&mut self) {
        let link = self
            .mirror
            .link_named(self.config.uplink.interface.as_str());
        if let Some(address) = link.and_then(|link| link.mac)
            && self.forwarding.set_uplink_address(address)
            && let Err(error) = self.ports.uplink_steering.set_device_address(address)
        {
            log::error!("steering: {error}");
        }
    }

    /// Sockets stay with the interface that they were opened on, which is no more.
    fn uplink_is_new(&self) -> bool {
        let link = self
            .mirror
            .link_named(self.config.uplink.interface.as_str());
        link.is_some_and(|link| link.index != self.ports.uplink_index && link.up)
    }

    /// Says of the uplink if it is gone.
    fn note_lost_uplink(&self, status: &mut StatusReport) {
        let uplink = self.config.uplink.interface.as_str();
        let name = format!("port {uplink}");
        let mut ports = status.components.iter_mut();
        if self
            .mirror
            .link_named(uplink)
            .is_none_or(|link| link.index != self.ports.uplink_index)
            && let Some(port) = ports.find(|part| part.name == name)
        {
            port.ready = false;
            port.detail =
                "gone: the interface was deleted; when one of its name is there and up, the node \
                           starts anew"
                    .to_owned();
        }
    }

    fn refresh(&mut self) {
        let host_mtu = self.host_mtu();
        let facts = Known::new(
            &self.mirror,
            &self.ports,
            &self.links,
            &self.paths,
            host_mtu,
        );
        self.forwarding.refresh(&facts);
        if let Some(host) = &mut self.host {
            host.set_mtu(host_mtu);
        }
        self.follow_next_hops();
        self.show_learned_routes();
    }

    /// Heeds what the slow path noticed.
    fn heed(&mut self, event: Event) {
        match event {
            Event::WorkloadSeen(port, address, mac) => {
                if self.links.learn(port, address, mac) {
                    log::debug!("workload {address} is at {mac}");
                    self.refresh();
                }
            }
            Event::Unresolved(next_hop) => match self.forwarding.hop(next_hop).cloned() {
                Some(Hop::Workload(port, address)) => self.handles.ask_workload(port, address),
                Some(hop) => self
                    .forwarding
                    .next_hops(&hop)
                    .into_iter()
                    .for_each(|node| self.probe(node)),
                None => {}
            },
            Event::PathMtu(far_end, mtu) => self.learn_path(far_end, mtu),
        }
    }

    fn probe(&mut self, node: IpAddr) {
        if let Ok(way) = self.mirror.resolve_underlay(node)
            && let Err(error) = self.mirror.probe(way.interface, way.next_hop)
        {
            log::debug!("probing {}: {error}", way.next_hop);
        }
    }

    /// Keeps the next hops to all other nodes resolved: AF_XDP's packets do not tell the kernel that
    /// a neighbour is in use.
    fn probe_nodes(&mut self) {
        let ways: Vec<_> = self
            .forwarding
            .neighbours()
            .into_iter()
            .chain(self.bgp.unreachable().iter().copied())
            .filter_map(|node| self.mirror.resolve_underlay(node).ok())
            .map(|way| (way.interface, way.next_hop))
            .collect();
        if let Err(error) = self.mirror.refresh(ways) {
            log::debug!("confirming neighbours: {error}");
        }
    }

    /// Asks workloads where they are: one may have come back with another Ethernet address without a
    /// word.
    fn ask_workloads(&mut self) {
        if self.last_asked.elapsed() < ASK_EVERY {
            return;
        }
        self.last_asked = Instant::now();
        for (port, address) in self.links.learnt() {
            self.handles.ask_workload(port, address);
        }
    }

    fn uplink_io(&self) -> &str {
        let uplink = self.ports.descriptions.get(usize::from(UPLINK.0));
        uplink
            .and_then(Option::as_ref)
            .map_or("", |port| port.io.as_str())
    }

    fn answer(&self, question: Question) {
        // An observer that has gone wants no answer.
        match question {
            Question::Routes(answer) => drop(answer.send(self.routes())),
            Question::Fdb(answer) => drop(answer.send(self.fdb())),
            Question::Status(answer) => drop(answer.send(self.status())),
            Question::Probe(far, answer) => drop(answer.send(self.probe_target(&far))),
        }
    }

    fn probe_target(&self, far: &str) -> Result<probe::Target, String> {
        let uplink = (self.config.uplink.interface.to_string(), self.uplink_mtu());
        probe::target(&self.forwarding, &self.state, uplink, far)
    }

    fn routes(&self) -> Vec<RouteRow> {
        report::routes(&self.config, &self.forwarding, &self.state, &self.facts())
    }

    fn fdb(&self) -> Vec<FdbRow> {
        self.forwarding.bridging().rows(self.forwarding.wanted())
    }

    fn status(&self) -> StatusReport {
        let mut status = report::status(
            &self.config,
            self.started,
            &self.forwarding,
            report::datastore_component(&self.problems, &self.upkeep.datastore()),
            &self.handles,
            &self.ports,
            self.fast_path.as_ref(),
        );
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        status
            .components
            .extend(report::warnings("resources", &problems));
        let stale = stale_mtus(
            &self.state,
            &self.config.node,
            self.forwarding.fixed().tunnel_mtus,
            self.uplink_mtu(),
        );
        status.components.extend(report::warnings("mtu", &stale));
        status.components.extend(self.upkeep.trouble());
        status.components.extend(self.settings_trouble());
        self.note_lost_uplink(&mut status);
        let wanted = self.forwarding.wanted();
        status.bridges = self.forwarding.bridging().status(wanted, &self.facts());
        let components = status.bridges.iter().map(report::bridge_component);
        status.components.extend(components.collect::<Vec<_>>());
        status.bgp = Box::new(self.bgp_status());
        status.components.extend(self.bgp_component());
        status
    }

    fn facts(&self) -> Known<'_> {
        Known::new(
            &self.mirror,
            &self.ports,
            &self.links,
            &self.paths,
            self.host_mtu(),
        )
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

    /// The TUN device's MTU: as configured, else what the largest encapsulation in use leaves.
    fn host_mtu(&self) -> Mtu {
        match &self.config.host {
            Some(host) if host.mtu > 0 => Mtu(host.mtu),
            _ => {
                let learned = self.forwarding.learned_overhead();
                self.uplink_mtu()
                    .less(self.overheads.largest().max(learned))
            }
        }
    }

    fn uplink_mtu(&self) -> Mtu {
        let name = self.config.uplink.interface.to_string();
        self.mirror
            .link_named(&name)
            .map_or(Mtu::ETHERNET, |link| link.mtu)
            .min(self.ports.largest)
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

/// What does not change with the routes.
fn fixed(config: &NodeConfig, settings: &Settings, ports: &OpenPorts) -> Fixed {
    let mut fixed = Fixed {
        ports: ports.configs.clone(),
        workload_ports: ports.workload_ports.clone(),
        uplink: (UPLINK, ports.uplink_mac),
        host: ports.host(),
        vxlan_port: config.vxlan.port,
        vni: config.vxlan.vni,
        also: (config.vxlan.port, config.vxlan.vni),
        strict_reserved_bits: config.vxlan.strict_reserved_bits,
        ttl: match config.tunnel.ttl {
            config::Ttl::Fixed(ttl) => OuterTtl::Fixed(ttl),
            config::Ttl::Inherit => OuterTtl::Inherit,
        },
        dscp: match config.tunnel.dscp {
            config::Dscp::Fixed(dscp) => Dscp::Fixed(dscp),
            config::Dscp::Inherit => Dscp::Inherit,
        },
        tunnel_mtus: TunnelMtus::default(),
        udp_zero_checksum_v6: config.tunnel.udp_zero_checksum_v6,
        fence: (&config.fence).into(),
        from_workloads: FromWorkloads::default(),
    };
    settings::configure(&mut fixed, settings, Networks::settled(settings));
    fixed
}

/// What a node acts on: everything but IPAM's handles. Its blocks say which addresses are borrowed.
fn watched() -> Selection {
    let kinds = Kind::ALL.iter().copied();
    Selection::kinds(kinds.filter(|kind| *kind != Kind::IpamHandle))
}

fn no_node(config: &NodeConfig, problems: &[Problem]) -> String {
    let fault = Fault::new(
        "node",
        format!(
            "the datastore has no Node({}) that is in order",
            config.node
        ),
        "write the name of one of its Node resources, or add this node's",
    );
    let mut text = lines(&[config.problem(fault)]);
    if !problems.is_empty() {
        text.push('\n');
        text.push_str(&lines(problems));
    }
    text
}

/// A machine's way to the world is not taken by accident.
fn refuse_default_route(config: &NodeConfig, allowed: bool) -> Result<(), String> {
    if allowed || config.uplink.allow_default_route {
        return Ok(());
    }
    let interfaces = Netlink::open()
        .and_then(|mut netlink| netlink.default_route_interfaces())
        .map_err(|error| error.to_string())?;
    let uplink = config.uplink.interface.to_string();
    if !interfaces.contains(&uplink) {
        return Ok(());
    }
    let fault = Fault::new(
        "uplink.interface",
        format!("{uplink} carries this machine's default route"),
        "name another interface, or say --allow-default-route (or allowDefaultRoute: true): only \
         tunnel packets and packets to local blocks are then taken from the kernel",
    );
    Err(config.problem(fault).to_string())
}

/// Tells when the kernel has announced something. The thread ends with the process.
fn watch_kernel(mirror: &Mirror) -> Receiver<()> {
    let descriptor = mirror.fd();
    // No room: the thread goes on only when the news were heard, so that it does not spin.
    let (news, heard) = crossbeam_channel::bounded(0);
    std::thread::spawn(move || {
        while crate::kernel::wait_readable(descriptor).is_ok() && news.send(()).is_ok() {
            // A burst is taken in at once rather than one by one.
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    heard
}

fn signals() -> std::io::Result<Receiver<i32>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let (sender, receiver) = crossbeam_channel::bounded(4);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
