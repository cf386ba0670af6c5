//! The node's route table and state, as rows for people.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::apply::{Carriage, Facts, Forwarding, Hop, Way};
use super::facts::Known;
use super::fast_path::{FastPathMirror, FastPathSide};
use super::ports::{OpenPorts, UPLINK};
use super::resolve::{Encap, Target};
use super::threads::Handles;
use crate::datastore::Health;
use crate::observe::report::{
    BridgeStatus, Component, Encapsulation, RouteCount, RouteKind, RouteRow, RouteState,
    StatusReport, WorkerStatus,
};
use crate::resources::time::rfc3339;
use crate::resources::{ClusterState, NodeConfig, Problem};

/// The device that operators know VXLAN routes by.
const VXLAN_DEVICE: &str = "vxlan.calico";

/// The device that operators know IP-in-IP routes by, where the node has no TUN device.
const IPIP_DEVICE: &str = "tunl0";

/// Learned routes that are shown as rows at most; status says how many there are.
const LEARNED_ROWS: usize = 10_000;

/// The bytes that a route's encapsulation takes of the uplink's MTU.
pub fn overhead(target: &Target) -> u16 {
    use crate::forward::Encapsulation as Outer;
    match target {
        Target::Remote {
            encap: Encap::Ipip, ..
        } => Outer::Ipip.overhead(),
        Target::Remote {
            encap: Encap::Vxlan { .. },
            far_end,
            ..
        } => match far_end {
            IpAddr::V4(_) => Outer::Vxlan.overhead(),
            IpAddr::V6(_) => Outer::VxlanOverIpv6.overhead(),
        },
        _ => 0,
    }
}

/// The route table, in the order of its destinations.
pub fn routes(
    config: &NodeConfig,
    forwarding: &Forwarding,
    state: &ClusterState,
    facts: &Known<'_>,
) -> Vec<RouteRow> {
    let own = forwarding.routes().iter();
    let own = own.map(|(destination, hop)| (*destination, hop));
    let learned = forwarding.learned_routes().take(LEARNED_ROWS);
    let rows = own.chain(learned).map(|(destination, hop)| {
        let mut row = row(config, forwarding, destination, hop, facts);
        row.pool = pool(state, &destination);
        row
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| row.destination);
    rows
}

fn row(
    config: &NodeConfig,
    forwarding: &Forwarding,
    destination: IpNet,
    hop: &Hop,
    facts: &Known<'_>,
) -> RouteRow {
    let mut row = RouteRow {
        destination,
        kind: RouteKind::Unicast,
        encapsulation: None,
        node: None,
        far_end: None,
        next_hop: None,
        others: Vec::new(),
        mac: None,
        interface: None,
        mtu: None,
        state: RouteState::Resolved,
        pool: None,
    };
    match hop {
        Hop::Blackhole => row.kind = RouteKind::Blackhole,
        Hop::Unreachable => row.kind = RouteKind::Unreachable,
        Hop::Router => row.kind = RouteKind::Local,
        Hop::Host => {
            row.kind = RouteKind::Host;
            row.interface = config.host.as_ref().map(|host| host.tun.to_string());
        }
        Hop::Workload(port, address) => {
            row.encapsulation = Some(Encapsulation::None);
            row.node = Some(config.node.to_string());
            row.interface = facts
                .ports
                .get(usize::from(port.0))
                .and_then(Option::as_ref)
                .map(|port| port.name.clone());
            row.mtu = Some(facts.mtu(*port).0);
            row.mac = facts.workload_mac(*port, *address);
            let ethernet = matches!(
                forwarding
                    .fixed()
                    .ports
                    .get(usize::from(port.0))
                    .map(|port| port.link),
                Some(crate::port::Link::Ethernet(_))
            );
            row.state = resolved(row.mac.is_some() || !ethernet);
        }
        Hop::Remote(..) | Hop::Learned(..) => {
            match (forwarding.far_end(hop), forwarding.carried(hop)) {
                (Some(node), Some(carriage)) => {
                    remote(&mut row, config, forwarding, node, carriage, facts);
                    row.others = forwarding.far_ends(hop)[1..].to_vec();
                }
                _ => row.kind = RouteKind::Blackhole,
            }
        }
    }
    row
}

fn remote(
    row: &mut RouteRow,
    config: &NodeConfig,
    forwarding: &Forwarding,
    node: IpAddr,
    carriage: Carriage,
    facts: &Known<'_>,
) {
    let tun = config
        .host
        .as_ref()
        .map_or(IPIP_DEVICE.to_owned(), |host| host.tun.to_string());
    let (encapsulation, interface) = match carriage {
        Carriage::Direct => (Encapsulation::None, config.uplink.interface.to_string()),
        Carriage::Ipip => (Encapsulation::Ipip, tun),
        Carriage::Vxlan(_) => (Encapsulation::Vxlan, VXLAN_DEVICE.to_owned()),
    };
    let underlay = facts.mirror.resolve_underlay(node).ok();
    let way = facts.way(node);
    row.encapsulation = Some(encapsulation);
    row.interface = Some(interface);
    row.node = forwarding
        .wanted()
        .peers
        .get(&node)
        .map(|peer| peer.node.to_string());
    row.far_end = (carriage != Carriage::Direct).then_some(node);
    row.next_hop = underlay.map(|underlay| underlay.next_hop);
    row.state = resolved(matches!(way, Way::Known(..)));
    if let Way::Known(mac, mtu) = way {
        row.mac = Some(mac);
        let mtus = forwarding.fixed().tunnel_mtus;
        row.mtu = Some(mtus.within(carriage.encapsulation(node), mtu).0);
    }
}

fn resolved(yes: bool) -> RouteState {
    if yes {
        RouteState::Resolved
    } else {
        RouteState::Unresolved
    }
}

/// The most specific pool that a destination is from.
fn pool(state: &ClusterState, destination: &IpNet) -> Option<String> {
    let containing = state
        .pools
        .values()
        .filter(|pool| pool.cidr().contains(destination));
    let best = containing.max_by_key(|pool| pool.cidr().prefix_len());
    best.map(|pool| pool.metadata.name.to_string())
}

/// A bridge as a part of the node: it needs an address to send from.
pub fn bridge_component(bridge: &BridgeStatus) -> Component {
    let BridgeStatus {
        ports,
        remotes,
        reachable,
        stations,
        limit,
        refused,
        ..
    } = bridge;
    let detail = match (bridge.address, refused) {
        (None, _) => "the node has no address of the underlay's family".to_owned(),
        (Some(_), 0) => format!(
            "{ports} port(s), {reachable} of {remotes} remote(s) resolved, {stations} station(s) learnt"
        ),
        (Some(_), refused) => {
            format!(
                "full: {stations} of {limit} stations learnt, {refused} time(s) no room for one"
            )
        }
    };
    Component {
        name: format!("bridge {}", bridge.name),
        live: true,
        ready: bridge.address.is_some(),
        detail,
    }
}

/// How the node and its parts are.
pub fn status(
    config: &NodeConfig,
    started: Instant,
    forwarding: &Forwarding,
    datastore: Component,
    handles: &Handles,
    ports: &OpenPorts,
    fast_path: Option<&FastPathSide>,
) -> StatusReport {
    let address = super::apply::node_addresses(forwarding.wanted())
        .first()
        .copied();
    StatusReport {
        node: config.node.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: started.elapsed().as_secs(),
        address,
        uplink: Some(config.uplink.interface.to_string()),
        routes: counts(forwarding),
        workers: workers(handles),
        components: std::iter::once(datastore)
            .chain(components(forwarding, handles, ports))
            .chain(fast_path.map(|side| fast_path_component(side, forwarding)))
            .collect(),
        bridges: Vec::new(),
        bgp: Box::default(),
        config: config
            .file()
            .and_then(|file| std::path::absolute(file).ok()),
    }
}

fn counts(forwarding: &Forwarding) -> Vec<RouteCount> {
    let in_ipip = forwarding.learned_in_ipip();
    let learned = |wanted| match wanted {
        Encapsulation::None => (forwarding.learned_count() - in_ipip) as u64,
        Encapsulation::Ipip => in_ipip as u64,
        Encapsulation::Vxlan => 0,
    };
    let of = |wanted: Encapsulation| {
        let carried = forwarding.routes().values().filter(|hop| match hop {
            Hop::Remote(..) | Hop::Learned(..) => match forwarding.carried(hop) {
                Some(Carriage::Direct) => wanted == Encapsulation::None,
                Some(Carriage::Ipip) => wanted == Encapsulation::Ipip,
                Some(Carriage::Vxlan(_)) => wanted == Encapsulation::Vxlan,
                None => false,
            },
            Hop::Workload(..) => wanted == Encapsulation::None,
            Hop::Host | Hop::Router | Hop::Blackhole | Hop::Unreachable => false,
        });
        RouteCount {
            encapsulation: wanted,
            routes: carried.count() as u64 + learned(wanted),
        }
    };
    Encapsulation::ALL.map(of).to_vec()
}

fn workers(handles: &Handles) -> Vec<WorkerStatus> {
    let status = |(number, (cpu, counters, _)): (usize, (Option<usize>, &_, bool))| {
        let counters: &crate::worker::counters::Counters = counters;
        let (rounds, busy) = (counters.rounds.get(), counters.busy_rounds.get());
        WorkerStatus {
            id: number as u32,
            cpu: cpu.map(|cpu| cpu as u32),
            busy: if rounds == 0 {
                0.0
            } else {
                busy as f64 / rounds as f64
            },
        }
    };
    handles.workers().enumerate().map(status).collect()
}

/// The fast path is an offload: the node does its work without it.
fn fast_path_component(side: &FastPathSide, forwarding: &Forwarding) -> Component {
    let failure = forwarding.fast_path().and_then(FastPathMirror::failure);
    Component {
        name: "fast path".to_owned(),
        live: true,
        ready: true,
        detail: failure.map_or_else(|| side.detail(), |failure| format!("off: {failure}")),
    }
}

/// A datastore that has told nothing yet.
pub fn missing_datastore(datastore: &Health) -> String {
    let (place, since) = (&datastore.place, rfc3339(datastore.since));
    match &datastore.wrong {
        Some(wrong) => {
            format!("{place} is away since {since}: {wrong}; it is asked again and again")
        }
        None => format!("{place} has not told all that it holds since {since}"),
    }
}

/// The same, as a part of a node that waits for it.
pub fn waiting_component(detail: String) -> Component {
    Component {
        name: "datastore".to_owned(),
        live: true,
        ready: false,
        detail,
    }
}

/// The datastore. While it is away the node forwards by what it knows, but as with Calico it is not ready:
/// what changes meanwhile it does not learn. What is wrong in one document keeps no other from being
/// routed.
pub fn datastore_component(problems: &[Problem], datastore: &Health) -> Component {
    let Health {
        place,
        connected,
        since,
        wrong,
    } = datastore;
    let since = rfc3339(*since);
    let detail = match (connected, problems) {
        (false, _) => format!(
            "{place} is away since {since}: {}; what was read before stays in effect",
            wrong.as_deref().unwrap_or("it does not answer")
        ),
        (true, []) => format!("in sync with {place} since {since}"),
        (true, [first, ..]) => {
            format!("{place}: {} problem(s), the first: {first}", problems.len())
        }
    };
    Component {
        name: "datastore".to_owned(),
        live: true,
        ready: *connected,
        detail,
    }
}

fn components(forwarding: &Forwarding, handles: &Handles, ports: &OpenPorts) -> Vec<Component> {
    let mut components = Vec::new();
    for (number, (cpu, _, alive)) in handles.workers().enumerate() {
        components.push(Component {
            name: format!("worker {number}"),
            live: alive,
            ready: alive,
            detail: cpu.map_or("not pinned".to_owned(), |cpu| format!("on CPU {cpu}")),
        });
    }
    for port in ports.descriptions.iter().flatten() {
        components.push(Component {
            name: format!("port {}", port.name),
            live: true,
            ready: true,
            detail: port.io.clone(),
        });
    }
    if let Some(fallback) = ports.uplink_steering.fallback()
        && let Some(uplink) = components.get_mut(handles.workers().count() + usize::from(UPLINK.0))
    {
        uplink.detail = format!("{}: {fallback}", uplink.detail);
    }
    for (name, reason) in ports.plugs.waiting() {
        components.push(Component {
            name: format!("port {name}"),
            live: true,
            // One workload's trouble is no reason to send others elsewhere.
            ready: true,
            detail: format!("waits: {reason}"),
        });
    }
    components.extend(warnings("resources", &forwarding.wanted().warnings));
    components
}

/// What is odd about the resources, the first few in full.
pub fn warnings(name: &str, sentences: &[String]) -> Vec<Component> {
    const SHOWN: usize = 8;
    let more = sentences.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("{more} more warnings; the log has them"));
    let details = sentences.iter().take(SHOWN).cloned().chain(more);
    let component = |detail| Component {
        name: name.to_owned(),
        live: true,
        ready: true,
        detail,
    };
    details.map(component).collect()
}
