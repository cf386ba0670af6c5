//! From a cluster's resources to what a node's BGP speaker is and tells, by Calico's rules (confd's
//! templates for BIRD). Pure: the same resources give the same plan.
//!
//! * Every node is every other's peer, unless the mesh is off or one of the two is a route reflector; the
//!   node with the higher address connects.
//! * A BGPPeer gives a session to the nodes that it names or selects, all of them by default, with one
//!   address or with every node that `peerSelector` selects; and those nodes have it, too.
//! * A node tells its own blocks, the addresses that it has borrowed, and the networks of services. What
//!   peers told goes on within pools alone, to another AS only with its own next hop. Pools of VXLAN, and those with `disableBGPExport`, are not told.
//! * A node that has no peer and nothing but VXLAN does not even listen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::filters::{self, local_pref};
use crate::bgp::attributes::OwnRoute;
use crate::bgp::filter::Action;
use crate::bgp::settings::{NextHopMode, PeerKind, PeerName, PeerSettings, Settings};
use crate::control::resolve::{Target, Wanted};
use crate::resources::bgp_configuration::{BgpConfigurationSpec, BindMode};
use crate::resources::bgp_peer::{self, BgpPassword, BgpPeer, ReversePeering, SourceAddress};
use crate::resources::community::CommunityValue;
use crate::resources::{BgpConfiguration, ClusterState, EncapMode, IpPool, Node, NodeName};

/// What a speaker is to be and to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How it is set up; none where there is nothing to speak about.
    pub settings: Option<Settings>,
    /// What it tells of its own.
    pub own: Vec<OwnRoute>,
    /// What cannot be done as the resources say, one sentence each, for people.
    pub problems: Vec<String>,
    /// Peers that there is no session with, though the resources ask for one.
    pub unopened: Vec<Unopened>,
    /// Peers that are reached by a gateway of their own, whatever the routes say.
    pub reached_by: BTreeMap<IpAddr, IpAddr>,
}

/// A peer whose session cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unopened {
    /// As it would be named.
    pub name: PeerName,
    /// Where it is.
    pub address: IpAddr,
    /// Why it is one.
    pub kind: PeerKind,
    /// Its AS.
    pub remote_as: u32,
    /// What is missing.
    pub reason: String,
}

/// Where passwords are: the value of a key of a secret, or why there is none.
pub type Secrets<'a> = &'a dyn Fn(&str, &str) -> Result<String, String>;

/// What a plan depends on beside the resources of BGP.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where passwords are.
    pub secrets: Secrets<'a>,
    /// The uplink, by which all peers' routes lead.
    pub uplink: &'a str,
    /// The priority of IPv4 and of IPv6 routes.
    pub priorities: [i64; 2],
}

/// What the node that `wanted` is of shall do.
pub fn plan(state: &ClusterState, wanted: &Wanted, around: Surroundings<'_>) -> Plan {
    let planner = Planner::new(state, wanted, around);
    planner.plan()
}

struct Planner<'a> {
    state: &'a ClusterState,
    wanted: &'a Wanted,
    around: Surroundings<'a>,
    name: NodeName,
    configuration: BgpConfigurationSpec,
    problems: Vec<String>,
    unopened: Vec<Unopened>,
    reached_by: BTreeMap<IpAddr, IpAddr>,
}

/// A peer before it has settings.
struct Candidate<'a> {
    name: String,
    kind: PeerKind,
    address: IpAddr,
    port: Option<u16>,
    remote_as: u32,
    /// The node that it is, if it is one.
    node: Option<&'a Node>,
    /// The resource that says so; none for the mesh.
    resource: Option<&'a BgpPeer>,
}

impl<'a> Planner<'a> {
    fn new(state: &'a ClusterState, wanted: &'a Wanted, around: Surroundings<'a>) -> Self {
        let name = wanted.local.name.clone();
        Self {
            configuration: configuration(state, &name),
            state,
            wanted,
            around,
            name,
            problems: Vec::new(),
            unopened: Vec::new(),
            reached_by: BTreeMap::new(),
        }
    }

    fn plan(mut self) -> Plan {
        let Some(node) = self.state.nodes.get(&self.name) else {
            return Plan {
                settings: None,
                own: Vec::new(),
                problems: Vec::new(),
                unopened: Vec::new(),
                reached_by: BTreeMap::new(),
            };
        };
        if !self.configuration.ignored_interfaces.is_empty() {
            self.problems.push(
                "BGPConfiguration: ignoredInterfaces has no effect: peers' next hops are followed by the \
                 kernel's routes, and what is on an interface's own network is not told"
                    .to_owned(),
            );
        }
        let candidates = self.candidates(node);
        let mut peers = BTreeMap::new();
        for candidate in candidates {
            if let Some(settings) = self.peer(node, &candidate) {
                peers.insert(PeerName::from(candidate.name), settings);
            }
        }
        let explicit = peers
            .values()
            .any(|peer| peer.kind != PeerKind::NodeToNodeMesh);
        let carried = self.state.pools.values().any(by_bgp) || self.state.pools.is_empty();
        let settings = (!peers.is_empty() && (carried || explicit)).then(|| Settings {
            peers,
            ..self.speaker(node)
        });
        Plan {
            own: settings
                .as_ref()
                .map_or_else(Vec::new, |_| self.own_routes()),
            settings,
            problems: self.problems,
            unopened: self.unopened,
            reached_by: self.reached_by,
        }
    }

    fn speaker(&self, node: &Node) -> Settings {
        let local = &self.wanted.local;
        let v4 = local.ipv4.map(|net| net.addr());
        let v6 = local.ipv6.map(|net| net.addr());
        let mut settings = Settings::new(
            self.as_number(node),
            v4.unwrap_or_else(|| router_id(&self.name)),
        );
        settings.listen = self.listen(v4, v6);
        settings.cluster_id = cluster_id(node);
        settings.local_addresses = local.addresses().collect();
        settings.next_hop_v4 = v4;
        settings.next_hop_v6 = v6;
        settings.default_local_pref = local_pref(self.around.priorities[0]);
        settings.interface = Some(self.around.uplink.to_owned());
        settings
    }

    fn listen(&self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> BTreeSet<SocketAddr> {
        let own = self.configuration.bind_mode == Some(BindMode::NodeIp);
        let v4 = v4.map(|own_address| {
            if own {
                own_address
            } else {
                Ipv4Addr::UNSPECIFIED
            }
        });
        let v6 = v6.map(|own_address| {
            if own {
                own_address
            } else {
                Ipv6Addr::UNSPECIFIED
            }
        });
        let addresses = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
        let port = listen_port(&self.configuration);
        addresses
            .map(|address| SocketAddr::new(address, port))
            .collect()
    }

    /// All peers, each address once: what is said of one node goes before what is said of all, and that
    /// before the mesh.
    fn candidates(&mut self, node: &'a Node) -> Vec<Candidate<'a>> {
        let mut all = self.by_resources(node);
        all.sort_by_key(|candidate| candidate.kind != PeerKind::NodeSpecific);
        all.extend(self.mesh(node));
        let mut seen = BTreeSet::new();
        all.retain(|candidate| seen.insert(candidate.address));
        all
    }

    fn mesh(&self, node: &Node) -> Vec<Candidate<'a>> {
        let enabled = self.configuration.node_to_node_mesh_enabled != Some(false);
        if !enabled || cluster_id(node).is_some() {
            return Vec::new();
        }
        let others = self
            .state
            .nodes
            .iter()
            .filter(|(name, other)| **name != self.name && cluster_id(other).is_none());
        let candidates = others.flat_map(|(_, other)| {
            self.addresses_in_common(other).map(|address| Candidate {
                name: peer_name("Mesh", address),
                kind: PeerKind::NodeToNodeMesh,
                address,
                port: Some(self.port_of(other)),
                remote_as: self.as_number(other),
                node: Some(other),
                resource: None,
            })
        });
        candidates.collect()
    }

    fn by_resources(&mut self, node: &'a Node) -> Vec<Candidate<'a>> {
        let mut candidates = Vec::new();
        for peer in self.state.others::<BgpPeer>() {
            let spec = &peer.spec;
            if !spec.local_workload_selector.is_empty() {
                self.problems.push(format!(
                    "BGPPeer({}): sessions with workloads (localWorkloadSelector) are not supported; \
                     peer with their addresses by peerIP",
                    peer.metadata.name
                ));
                continue;
            }
            let here = has_session(peer, node);
            if here && let Some(address) = spec.peer_ip {
                candidates.extend(self.with_address(
                    peer,
                    address.address,
                    address.port.map(Into::into),
                ));
            }
            if spec.peer_selector.is_empty() {
                continue;
            }
            let selected = |other: &Node| spec.peer_selector.matches(&other.metadata.labels);
            let back = selected(node) && spec.reverse_peering != Some(ReversePeering::Manual);
            let others = self
                .state
                .nodes
                .values()
                .filter(|other| other.name() != self.name);
            for other in others {
                if here && selected(other) || back && has_session(peer, other) {
                    candidates.extend(self.with_node(peer, other));
                }
            }
        }
        candidates
    }

    fn with_address(
        &mut self,
        peer: &'a BgpPeer,
        address: IpAddr,
        port: Option<u16>,
    ) -> Option<Candidate<'a>> {
        if self.wanted.local.addresses().any(|own| own == address) {
            return None;
        }
        let mut nodes = self.state.nodes.values();
        let node = nodes.find(|node| addresses(node).any(|own| own == address));
        let remote_as = peer.spec.as_number.map(|number| number.0);
        let remote_as = remote_as.or_else(|| node.map(|node| self.as_number(node)));
        let Some(remote_as) = remote_as else {
            self.problems.push(format!(
                "BGPPeer({}): there is no asNumber, and {address} is no node's; add asNumber",
                peer.metadata.name
            ));
            return None;
        };
        let kind = kind(peer);
        Some(Candidate {
            name: peer_name(prefix_of(kind), address),
            kind,
            address,
            port: port.or_else(|| node.map(|node| self.port_of(node))),
            remote_as,
            node,
            resource: Some(peer),
        })
    }

    fn with_node(&self, peer: &'a BgpPeer, other: &'a Node) -> Vec<Candidate<'a>> {
        let kind = kind(peer);
        let addresses = self.addresses_in_common(other);
        addresses
            .map(|address| Candidate {
                name: peer_name(prefix_of(kind), address),
                kind,
                address,
                port: Some(self.port_of(other)),
                remote_as: self.as_number(other),
                node: Some(other),
                resource: Some(peer),
            })
            .collect()
    }

    fn peer(&mut self, node: &Node, candidate: &Candidate<'_>) -> Option<PeerSettings> {
        let spec = candidate.resource.map(|peer| &peer.spec);
        let local_as = spec
            .and_then(|spec| spec.local_as_number)
            .map(|number| number.0);
        let own_as = local_as.unwrap_or_else(|| self.as_number(node));
        let internal = own_as == candidate.remote_as;
        let is_v4 = candidate.address.is_ipv4();
        let own_address = self.wanted.local.address(is_v4)?;
        let mut settings = PeerSettings::new(candidate.address, candidate.remote_as);
        settings.kind = candidate.kind;
        settings.port = candidate.port.unwrap_or(crate::bgp::settings::PORT);
        settings.local_as = local_as;
        settings.ipv4 = is_v4;
        settings.ipv6 = !is_v4;
        settings.source = match spec.and_then(|spec| spec.source_address) {
            Some(SourceAddress::None) => None,
            Some(SourceAddress::UseNodeIp) | None => Some(own_address),
        };
        // One connection a pair: the node with the higher address makes it.
        settings.passive = spec.is_none() && candidate.address > own_address;
        settings.password = self.password(candidate)?;
        settings.max_restart_time = match spec {
            Some(spec) => spec.max_restart_time,
            None => self.configuration.node_mesh_max_restart_time,
        }
        .and_then(to_std);
        if let Some(spec) = spec {
            settings.ttl_security = spec.ttl_security.filter(|hops| *hops > 0);
            settings.allowed_local_as = spec.num_allowed_local_as_numbers.unwrap_or(0);
            settings.keepalive_time = spec.keepalive_time.and_then(to_std);
            settings.next_hop = next_hop_mode(spec);
            if let Some(gateway) = spec.reachable_by {
                self.reached_by.insert(candidate.address, gateway);
            }
            let cluster = cluster_id(node);
            let other = candidate.node.and_then(cluster_id);
            settings.route_reflector_client = internal && cluster.is_some() && cluster != other;
        }
        let rules = filters::of_peer(self.state, spec, is_v4, internal, &mut self.problems);
        let told = rules.export.rules.iter();
        settings.transit = match settings.next_hop {
            NextHopMode::Own => true,
            NextHopMode::Keep => false,
            // A filter of the user's may let peers' routes through to another AS.
            NextHopMode::Auto => {
                !internal && told.clone().any(|rule| rule.action == Action::Accept)
            }
        };
        settings.import = rules.import;
        // To another AS what peers told goes on with its own next hop alone: by this node it would be a
        // detour that nobody forwards.
        let learned = internal || settings.next_hop == NextHopMode::Keep;
        settings.export = filters::with_calicos(
            self.state,
            &self.configuration,
            rules.export,
            (is_v4, learned),
        );
        Some(settings)
    }

    /// The session's password; the outer none where it has one that cannot be had.
    fn password(&mut self, candidate: &Candidate<'_>) -> Option<Option<String>> {
        let password: Option<&BgpPassword> = match candidate.resource {
            Some(peer) => peer.spec.password.as_ref(),
            None => self.configuration.node_mesh_password.as_ref(),
        };
        let Some(key) = password.and_then(|password| password.secret_key_ref.as_ref()) else {
            return Some(None);
        };
        match (self.around.secrets)(key.name.as_deref().unwrap_or_default(), &key.key) {
            Ok(secret) => Some(Some(secret)),
            Err(_) if key.optional == Some(true) => Some(None),
            Err(reason) => {
                self.problems.push(format!(
                    "{}: no session without its password: {reason}",
                    candidate.name
                ));
                self.unopened.push(Unopened {
                    name: PeerName::from(candidate.name.as_str()),
                    address: candidate.address,
                    kind: candidate.kind,
                    remote_as: candidate.remote_as,
                    reason: format!("No password: {reason}"),
                });
                None
            }
        }
    }

    fn own_routes(&mut self) -> Vec<OwnRoute> {
        let mut prefixes: BTreeSet<IpNet> = own_prefixes(self.state, self.wanted).collect();
        prefixes.extend(services(&self.configuration));
        let routes = prefixes.into_iter().map(|prefix| {
            let mut route = OwnRoute::new(prefix);
            let family = usize::from(prefix.addr().is_ipv6());
            route.says.local_pref = Some(local_pref(self.around.priorities[family]));
            for advertisement in &self.configuration.prefix_advertisements {
                if advertisement.cidr.net().contains(&prefix) {
                    add_communities(&mut route, &advertisement.communities, &self.configuration);
                }
            }
            route
        });
        routes.collect()
    }

    fn as_number(&self, node: &Node) -> u32 {
        let own = node.spec.bgp.as_ref().and_then(|bgp| bgp.as_number);
        let cluster = self.configuration.as_number;
        own.or(cluster).unwrap_or(BgpConfiguration::AS_NUMBER).0
    }

    fn port_of(&self, node: &Node) -> u16 {
        port_of(self.state, &node.name())
    }

    /// Another node's addresses of the families that this one has.
    fn addresses_in_common(&self, other: &'a Node) -> impl Iterator<Item = IpAddr> + use<'a> {
        let local = self.wanted.local.clone();
        addresses(other).filter(move |address| local.address(address.is_ipv4()).is_some())
    }
}

/// A node's BGPConfiguration over the cluster's.
fn configuration(state: &ClusterState, node: &NodeName) -> BgpConfigurationSpec {
    let of = |name: String| {
        let name = name.parse().ok()?;
        state
            .other::<BgpConfiguration>(&name)
            .map(|found| found.spec.clone())
    };
    let mut spec = of("default".to_owned()).unwrap_or_default();
    if let Some(own) = of(format!("node.{node}")) {
        spec.listen_port = own.listen_port.or(spec.listen_port);
        spec.bind_mode = own.bind_mode.or(spec.bind_mode);
        if !own.prefix_advertisements.is_empty() {
            spec.prefix_advertisements = own.prefix_advertisements;
        }
        if !own.communities.is_empty() {
            spec.communities = own.communities;
        }
    }
    spec
}

/// The port that a node's speaker listens at.
pub fn port_of(state: &ClusterState, node: &NodeName) -> u16 {
    listen_port(&configuration(state, node))
}

fn listen_port(configuration: &BgpConfigurationSpec) -> u16 {
    configuration
        .listen_port
        .unwrap_or(crate::bgp::settings::PORT)
}

fn cluster_id(node: &Node) -> Option<Ipv4Addr> {
    node.spec.bgp.as_ref()?.route_reflector_cluster_id
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> + use<> {
    let v4 = node.ipv4().map(|interface| IpAddr::V4(interface.0.addr()));
    let v6 = node.ipv6().map(|interface| IpAddr::V6(interface.0.addr()));
    v4.into_iter().chain(v6)
}

/// Whether a BGPPeer gives a node sessions.
fn has_session(peer: &BgpPeer, node: &Node) -> bool {
    let spec = &peer.spec;
    match &spec.node {
        Some(name) => *name == node.name(),
        None => spec.node_selector.is_empty() || spec.node_selector.matches(&node.metadata.labels),
    }
}

fn kind(peer: &BgpPeer) -> PeerKind {
    match peer.spec.node.is_none() && peer.spec.node_selector.is_empty() {
        true => PeerKind::Global,
        false => PeerKind::NodeSpecific,
    }
}

fn prefix_of(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::NodeToNodeMesh => "Mesh",
        PeerKind::Global => "Global",
        PeerKind::NodeSpecific => "Node",
    }
}

/// As Calico names BIRD's protocols: `Mesh_10_30_0_12`.
fn peer_name(prefix: &str, address: IpAddr) -> String {
    format!("{prefix}_{}", address.to_string().replace(['.', ':'], "_"))
}

fn next_hop_mode(spec: &bgp_peer::BgpPeerSpec) -> NextHopMode {
    match spec.next_hop_mode {
        Some(bgp_peer::NextHopMode::Itself) => NextHopMode::Own,
        Some(bgp_peer::NextHopMode::Keep) => NextHopMode::Keep,
        Some(bgp_peer::NextHopMode::Auto) => NextHopMode::Auto,
        None if spec.keep_original_next_hop => NextHopMode::Keep,
        None => NextHopMode::Auto,
    }
}

fn to_std(time: crate::resources::duration::Duration) -> Option<Duration> {
    let seconds = u64::try_from(time.as_secs()).ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether BGP tells where a pool's blocks are.
pub(super) fn by_bgp(pool: &IpPool) -> bool {
    pool.spec.vxlan_mode == EncapMode::Never
}

/// A node's blocks, and the addresses in pools that it has outside of them.
fn own_prefixes(state: &ClusterState, wanted: &Wanted) -> impl Iterator<Item = IpNet> {
    let blocks: Vec<IpNet> = wanted
        .routes
        .iter()
        .filter(|(_, target)| **target == Target::Blackhole)
        .map(|(block, _)| *block)
        .collect();
    let pools: Vec<IpNet> = state.pools.values().map(IpPool::cidr).collect();
    let in_pool = move |prefix: &IpNet| pools.iter().any(|pool| pool.contains(prefix));
    let own = blocks.clone();
    let borrowed = wanted.routes.iter().filter(move |(prefix, target)| {
        matches!(target, Target::Workload { .. } | Target::Host)
            && !blocks.iter().any(|block| block.contains(*prefix))
    });
    let borrowed: Vec<IpNet> = borrowed.map(|(prefix, _)| *prefix).collect();
    own.into_iter().chain(borrowed).filter(in_pool)
}

/// The networks of services, which every node tells.
pub(super) fn services(configuration: &BgpConfigurationSpec) -> impl Iterator<Item = IpNet> {
    configuration
        .service_cluster_ips
        .iter()
        .chain(&configuration.service_external_ips)
        .chain(&configuration.service_load_balancer_ips)
        .map(|block| block.cidr.net())
}

fn add_communities(route: &mut OwnRoute, texts: &[String], configuration: &BgpConfigurationSpec) {
    for text in texts {
        let named = configuration
            .communities
            .iter()
            .find(|community| community.name.as_str() == text);
        let value = named.map_or_else(|| text.parse().ok(), |community| Some(community.value));
        match value {
            Some(CommunityValue::Standard(a, n)) => {
                route
                    .says
                    .communities
                    .push(u32::from(a) << 16 | u32::from(n));
            }
            Some(CommunityValue::Large(a, n, m)) => route.says.large_communities.push([a, n, m]),
            // Validation refuses what is neither.
            None => {}
        }
    }
}

/// The identifier of a node without an IPv4 address, from its name (FNV-1a).
fn router_id(name: &NodeName) -> Ipv4Addr {
    let hash = name.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from_bits(hash.max(1))
}
