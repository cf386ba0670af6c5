//! The node's bridges: which ports and remotes they have, as the packet path wants to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::apply::{Facts, Fixed, Way};
use super::resolve::Wanted;
use crate::forward::{
    Bridge, Bridges, Egress, Encapsulation, ForwardingTable, Place, Remote, RemoteId, Remotes,
    TunnelHeader, TunnelHeaderV6,
};
use crate::observe::report::{BridgeStatus, FdbKind, FdbRow};
use crate::port::PortId;
use crate::resources::NodeConfig;
use crate::resources::bridge::{self as config, Underlay};
use crate::wire::MacAddr;

/// All bridges of the node.
#[derive(Debug, Default)]
pub struct Bridging {
    members: Vec<Member>,
}

/// One bridge: what was configured, what it has learnt, and the numbers of its remotes.
#[derive(Debug)]
struct Member {
    config: config::Bridge,
    udp_port: u16,
    ports: BTreeMap<String, PortId>,
    table: Arc<ForwardingTable>,
    remotes: BTreeMap<IpAddr, RemoteId>,
    free: Vec<RemoteId>,
    next: u16,
    /// Stations that found no room, as of the last tick.
    refused: u64,
    neighbours_refused: Arc<AtomicU64>,
    /// Addresses that found no room, as of the last tick.
    told: u64,
}

impl Bridging {
    /// The bridges of a configuration, whose ports are open under these names.
    pub fn new(config: &NodeConfig, ports: &BTreeMap<String, PortId>) -> Self {
        let member = |bridge: &config::Bridge| {
            let port = |name: String| Some((name.clone(), *ports.get(&name)?));
            let names = bridge.ports.iter().map(ToString::to_string);
            Member {
                udp_port: bridge.udp_port(config),
                ports: names.filter_map(port).collect(),
                table: Arc::new(ForwardingTable::new(bridge.limit, bridge.ageing, seed())),
                remotes: BTreeMap::new(),
                free: Vec::new(),
                next: 0,
                refused: 0,
                neighbours_refused: Arc::default(),
                told: 0,
                config: bridge.clone(),
            }
        };
        Self {
            members: config.bridges.iter().map(member).collect(),
        }
    }

    /// The UDP ports of all bridges.
    pub fn udp_ports(&self) -> Vec<u16> {
        let ports: BTreeSet<u16> = self.members.iter().map(|member| member.udp_port).collect();
        ports.into_iter().collect()
    }

    /// The addresses of all bridges' remotes.
    pub fn remotes(&self, wanted: &Wanted) -> BTreeSet<IpAddr> {
        let members = self.members.iter();
        members
            .flat_map(|member| member.addresses(wanted))
            .collect()
    }

    /// What workers are to read; remotes that are new get a number.
    pub fn snapshot(&mut self, fixed: &Fixed, wanted: &Wanted, facts: &dyn Facts) -> Bridges {
        let bridge = |member: &mut Member| {
            let addresses = member.addresses(wanted);
            member.number(&addresses);
            member.bridge(&addresses, |address| {
                member.egress(fixed, wanted, facts, address)
            })
        };
        Bridges::new(self.members.iter_mut().map(bridge).collect())
    }

    /// Forgets remotes that have gone, and stations behind them. Nobody may hold a snapshot with them
    /// any more once `synchronize` has returned; it is called only if there are any.
    pub fn retire(&mut self, wanted: &Wanted, mut synchronize: impl FnMut()) {
        for member in &mut self.members {
            let addresses = member.addresses(wanted);
            let remotes = member.remotes.iter();
            let gone: BTreeMap<IpAddr, RemoteId> = remotes
                .filter(|(address, _)| !addresses.contains(address))
                .map(|(address, id)| (*address, *id))
                .collect();
            if gone.is_empty() {
                continue;
            }
            synchronize();
            let ids: BTreeSet<RemoteId> = gone.values().copied().collect();
            let is_gone = |place| matches!(place, Place::Remote(id) if ids.contains(&id));
            member.table.forget(is_gone);
            member
                .remotes
                .retain(|address, _| !gone.contains_key(address));
            member.free.extend(ids);
        }
    }

    /// Forgets the stations behind a port that has gone, as the kernel's bridge does.
    pub fn forget_port(&self, gone: PortId) {
        for member in &self.members {
            member.table.forget(|place| place == Place::Port(gone));
        }
    }

    /// Lets time pass: `now` is in seconds from any beginning. Stations that are too old are forgotten,
    /// and what was full for the first time since is told of.
    pub fn tick(&mut self, now: u32) {
        for member in &mut self.members {
            member.table.set_now(now);
            member.table.expire();
            member.warn();
        }
    }

    /// All stations, configured and learnt, and the remotes that flooded frames go to, under the
    /// address that `bridge fdb` gives them.
    pub fn rows(&self, wanted: &Wanted) -> Vec<FdbRow> {
        let rows = self.members.iter().flat_map(|member| member.rows(wanted));
        rows.collect()
    }

    /// How the bridges are.
    pub fn status(&self, wanted: &Wanted, facts: &dyn Facts) -> Vec<BridgeStatus> {
        let status = |member: &Member| {
            let addresses = member.addresses(wanted);
            let known = |address: &&IpAddr| matches!(facts.way(**address), Way::Known(..));
            BridgeStatus {
                name: member.config.name.clone(),
                vni: member.config.vni.get(),
                udp_port: member.udp_port,
                address: member.own_address(wanted),
                ports: member.ports.len() as u64,
                remotes: addresses.len() as u64,
                reachable: addresses.iter().filter(known).count() as u64,
                stations: member.table.len() as u64,
                limit: member.table.limit().into(),
                refused: member.table.refused(),
                moves: member.table.moved(),
                neighbours_refused: member.neighbours_refused.load(Ordering::Relaxed),
            }
        };
        self.members.iter().map(status).collect()
    }
}

impl Member {
    fn underlay(&self, wanted: &Wanted) -> Underlay {
        let own = || match wanted.local.ipv4 {
            Some(_) => Underlay::Ipv4,
            None => Underlay::Ipv6,
        };
        self.config.given_underlay().unwrap_or_else(own)
    }

    /// The address that its packets are sent from.
    fn own_address(&self, wanted: &Wanted) -> Option<IpAddr> {
        match self.underlay(wanted) {
            Underlay::Ipv4 => wanted.local.ipv4.map(|net| net.addr().into()),
            Underlay::Ipv6 => wanted.local.ipv6.map(|net| net.addr().into()),
        }
    }

    /// The other tunnel end points: the known nodes of the underlay's family, and those configured.
    fn addresses(&self, wanted: &Wanted) -> BTreeSet<IpAddr> {
        let underlay = self.underlay(wanted);
        let own = self.own_address(wanted);
        let nodes = wanted.peers.keys().filter(|_| self.config.known_nodes);
        let configured = self.config.remotes.iter().map(|remote| remote.0);
        nodes
            .copied()
            .chain(configured)
            .filter(|address| underlay.has(*address) && Some(*address) != own)
            .collect()
    }

    fn number(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            if self.remotes.contains_key(address) {
                continue;
            }
            let fresh = || {
                let id = RemoteId::new(self.next)?;
                self.next += 1;
                Some(id)
            };
            // More than 32768 nodes: the rest has no part in the bridge.
            if let Some(id) = self.free.pop().or_else(fresh) {
                self.remotes.insert(*address, id);
            }
        }
    }

    fn bridge(
        &self,
        addresses: &BTreeSet<IpAddr>,
        egress: impl Fn(IpAddr) -> Option<Egress>,
    ) -> Bridge {
        let mut remotes = vec![None; usize::from(self.next)];
        let present = self.remotes.iter();
        for (address, id) in present.filter(|(address, _)| addresses.contains(address)) {
            remotes[id.index()] = Some(Remote {
                address: *address,
                egress: egress(*address),
            });
        }
        let stations = self.config.forwarding.iter();
        let neighbours = self.config.neighbours.iter();
        Bridge {
            vni: self.config.vni,
            udp_port: self.udp_port,
            ports: self.ports.values().copied().collect(),
            remotes: Remotes::new(remotes),
            stations: stations
                .filter_map(|station| Some((station.mac, self.place(station)?)))
                .collect(),
            neighbours: neighbours
                .map(|one| (one.address.0, (one.mac, one.router)))
                .collect(),
            table: Arc::clone(&self.table),
            learning: self.config.learning,
            ageing: self.config.ageing,
            suppression: self.config.arp_suppression,
            neighbours_refused: Arc::clone(&self.neighbours_refused),
            link_local_groups: self.config.link_local_groups,
        }
    }

    /// Where a configured station is; nowhere while its remote is no node that is known.
    fn place(&self, station: &config::Station) -> Option<Place> {
        match (&station.port, &station.remote) {
            (Some(port), _) => self.ports.get(port.as_str()).copied().map(Place::Port),
            (None, Some(remote)) => self.remotes.get(&remote.0).copied().map(Place::Remote),
            (None, None) => None,
        }
    }

    /// The header before frames to a remote, if the way there is known.
    fn egress(
        &self,
        fixed: &Fixed,
        wanted: &Wanted,
        facts: &dyn Facts,
        remote: IpAddr,
    ) -> Option<Egress> {
        let Way::Known(mac, path) = facts.way(remote) else {
            return None;
        };
        let (port, own_mac) = fixed.uplink;
        // The inner Ethernet header comes with the frame.
        let none = MacAddr::default();
        let network = (self.config.vni, self.udp_port, none, none);
        let mtu = |encapsulation: Encapsulation| fixed.tunnel_mtus.within(encapsulation, path);
        let egress = match remote {
            IpAddr::V4(far_end) => {
                let tunnel = TunnelHeader {
                    source: wanted.local.ipv4?.addr(),
                    far_end,
                    vxlan: Some(network),
                };
                Egress::tunnel(port, mtu(Encapsulation::Vxlan), own_mac, mac, &tunnel)
            }
            IpAddr::V6(far_end) => {
                let tunnel = TunnelHeaderV6 {
                    source: wanted.local.ipv6?.addr(),
                    far_end,
                    vxlan: network,
                    zero_checksum: fixed.udp_zero_checksum_v6,
                };
                let mtu = mtu(Encapsulation::VxlanOverIpv6);
                Egress::tunnel_v6(port, mtu, own_mac, mac, &tunnel)
            }
        };
        Some(egress.marking(fixed.ttl, fixed.dscp).for_frames())
    }

    /// Tells of what found no room, once.
    fn warn(&mut self) {
        let name = &self.config.name;
        if has_begun(&mut self.refused, self.table.refused()) {
            log::warn!(
                "bridge {name}: {} stations are known, and there is no room for more: frames to \
                 others go everywhere; raise its `limit`, or find who has so many addresses \
                 (underpass fdb)",
                self.table.len()
            );
        }
        if has_begun(
            &mut self.told,
            self.neighbours_refused.load(Ordering::Relaxed),
        ) {
            log::warn!(
                "bridge {name}: there is no room for more of its stations' IP addresses: questions \
                 for others go everywhere; find who has so many, or set `arpSuppression: false`"
            );
        }
    }

    fn rows(&self, wanted: &Wanted) -> Vec<FdbRow> {
        let row = |mac: MacAddr, place: Place, kind: FdbKind| {
            let (port, remote) = match place {
                Place::Port(id) => {
                    let named = self.ports.iter().find(|(_, port)| **port == id);
                    (named.map(|(name, _)| name.clone()), None)
                }
                Place::Remote(id) => {
                    let addressed = self.remotes.iter().find(|(_, remote)| **remote == id);
                    (None, addressed.map(|(address, _)| *address))
                }
            };
            let node = remote.and_then(|address| wanted.peers.get(&address));
            FdbRow {
                bridge: self.config.name.clone(),
                vni: self.config.vni.get(),
                mac,
                port,
                remote,
                node: node.map(|peer| peer.node.to_string()),
                kind,
                age: None,
                flapping: false,
            }
        };
        let configured =
            self.config.forwarding.iter().filter_map(|station| {
                Some(row(station.mac, self.place(station)?, FdbKind::Static))
            });
        let configured: Vec<FdbRow> = configured.collect();
        let learnt = self.table.stations().map(|station| FdbRow {
            age: Some(station.age),
            flapping: station.flapping,
            ..row(station.mac, station.place, FdbKind::Learned)
        });
        let all = self.remotes.values();
        let flood = all.map(|id| row(MacAddr::default(), Place::Remote(*id), FdbKind::Flood));
        let mut rows: Vec<FdbRow> = configured.into_iter().chain(learnt).chain(flood).collect();
        rows.sort_by_key(|row| (row.mac, row.remote, row.port.clone()));
        rows
    }
}

/// Whether a count is no longer zero since it was looked at last.
fn has_begun(last: &mut u64, count: u64) -> bool {
    std::mem::replace(last, count) == 0 && count > 0
}

/// What no station can guess.
fn seed() -> u64 {
    RandomState::new().hash_one(0_u64)
}
