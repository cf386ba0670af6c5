//! How a node comes to be, and what it refuses to start with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TrySendError, bounded};

use super::settings::{self, Networks, Services};
use super::{Node, learned, lines};
use crate::control::apply::{Fixed, Forwarding};
use crate::control::bgp::BgpSide;
use crate::control::bridges::Bridging;
use crate::control::fast_path::FastPathSide;
use crate::control::host::{Devices, HostSide};
use crate::control::nat::OutgoingNat;
use crate::control::overheads::Overheads;
use crate::control::path_mtu::PathMtus;
use crate::control::path_prober::PathProber;
use crate::control::ports::{self, OpenPorts, UPLINK};
use crate::control::probe::Prober;
use crate::control::resolve::{Delta, Resolver};
use crate::control::threads::Threads;
use crate::control::upkeep::Upkeep;
use crate::control::view::{Counted, PortTable, View};
use crate::control::waiting::first_state;
use crate::control::workloads::WorkloadLinks;
use crate::datastore::{self, Selection};
use crate::forward::{Dscp, FromWorkloads, OuterTtl, TunnelMtus};
use crate::kernel::{Mirror, Netlink};
use crate::observe::NodeView;
use crate::observe::control_socket::ControlSocket;
use crate::port::capture::CaptureSwitch;
use crate::resources::bgp_use::Bgp;
use crate::resources::config::{self, NodeConfig};
use crate::resources::{Fault, Kind, Problem, Settings};
use crate::wire::Mtu;

impl Node {
    pub(super) fn start(
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
        let problems = config.take_vxlan(settings.vxlan_port, settings.vni);
        if !problems.is_empty() {
            return Err(bridges_refused(&settings, &problems));
        }
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

/// Bridges that FelixConfigurations' port and VNI leave no room for.
fn bridges_refused(settings: &Settings, problems: &[Problem]) -> String {
    let (port, vni) = (settings.vxlan_port, settings.vni);
    format!(
        "{}\nthe routed network is VNI {vni} on UDP port {port}",
        lines(problems)
    )
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
pub(super) fn refuse_default_route(config: &NodeConfig, allowed: bool) -> Result<(), String> {
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

/// How often the thread that waits for the kernel looks whether anybody still hears it.
const LOOK_UP: Duration = Duration::from_secs(2);

/// Tells when the kernel has announced something. The thread ends soon after nobody hears it any more.
fn watch_kernel(mirror: &Mirror) -> Receiver<()> {
    let descriptor = mirror.fd();
    // No room: the thread goes on only when the news were heard, so that it does not spin.
    let (news, heard) = crossbeam_channel::bounded(0);
    std::thread::spawn(move || {
        loop {
            let told = match crate::kernel::wait_readable(descriptor, LOOK_UP) {
                Ok(true) => news.send(()).is_ok(),
                Ok(false) => news.try_send(()) != Err(TrySendError::Disconnected(())),
                Err(_) => false,
            };
            if !told {
                return;
            }
            // A burst is taken in at once rather than one by one.
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    heard
}

pub(super) fn signals() -> std::io::Result<Receiver<i32>> {
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
