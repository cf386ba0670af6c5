//! What routes lead to: next hops, how each is reached, and the adjacencies that packets go by.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Carriage, Facts, Forwarding, Hop, Way};
use crate::control::resolve::{Encap, Target};
use crate::fib::NextHop;
use crate::forward::{Adjacency, Egress, TunnelHeader, TunnelHeaderV6};
use crate::port::{Link, PortId};
use crate::wire::MacAddr;

impl Forwarding {
    /// Notes how other nodes are reached for these prefixes.
    pub(super) fn carry<'a>(&mut self, prefixes: impl Iterator<Item = &'a IpNet>) {
        for prefix in prefixes {
            if let Some(Target::Remote {
                far_end,
                pool,
                encap,
                ..
            }) = self.wanted.routes.get(prefix)
            {
                let carriage = match encap {
                    Encap::None => Carriage::Direct,
                    Encap::Ipip => Carriage::Ipip,
                    Encap::Vxlan { vtep_mac, .. } => Carriage::Vxlan(*vtep_mac),
                };
                self.carriages.insert((*far_end, *pool), carriage);
            }
        }
    }

    /// Gives a next hop to what has none yet.
    pub(super) fn admit(&mut self, hops: &BTreeSet<Hop>) {
        for hop in hops {
            if !self.hops.contains_key(hop) {
                let index = self.free.pop().unwrap_or_else(|| {
                    self.next += 1;
                    NextHop(self.next - 1)
                });
                self.hops.insert(hop.clone(), index);
                let count = self.next as usize;
                self.by_index.resize(count, None);
                self.users.resize(count, 0);
                self.by_index[index.0 as usize] = Some(hop.clone());
            }
        }
    }

    /// Computes the adjacencies of those hops anew.
    pub(super) fn adapt(&mut self, concerned: impl Fn(&Hop) -> bool, facts: &dyn Facts) {
        let mut adjacencies = std::mem::take(&mut self.adjacencies);
        adjacencies.resize(self.next as usize, Adjacency::Unreachable);
        let mut chosen = std::mem::take(&mut self.chosen);
        for (hop, index) in self.hops.iter().filter(|(hop, _)| concerned(hop)) {
            if let Hop::Learned(group, _) = hop {
                let choice = self.choice(*group, facts);
                let before = chosen.insert(hop.clone(), choice.clone());
                let other = before != Some(choice);
                self.rechosen |= other;
                self.rechosen_outside |= other;
            }
            if self.goes_elsewhere(hop) {
                // About to be left, and until then as good as it was.
                continue;
            }
            let choice = chosen.get(hop).map_or(&[][..], |choice| choice);
            adjacencies[index.0 as usize] = self.adjacency(hop, choice, facts);
        }
        self.adjacencies = adjacencies;
        self.chosen = chosen;
    }

    fn adjacency(&self, hop: &Hop, choice: &[IpAddr], facts: &dyn Facts) -> Adjacency {
        match hop {
            Hop::Router => Adjacency::Router,
            Hop::Blackhole => Adjacency::Blackhole,
            Hop::Unreachable => Adjacency::Unreachable,
            Hop::Host => self
                .to_host(facts)
                .map_or(Adjacency::Router, Adjacency::Forward),
            Hop::Workload(port, address) => self.workload(*port, *address, facts),
            Hop::Learned(_, pool) => self.learned_adjacency(*pool, choice, facts),
            Hop::Remote(node, pool) => self.carriage(*node, *pool).map_or(
                // No route leads here any more; it is about to be retired.
                Adjacency::Unreachable,
                |carriage| self.remote(*node, carriage, facts),
            ),
        }
    }

    pub(super) fn to_host(&self, facts: &dyn Facts) -> Option<Egress> {
        let port = self.fixed.host?;
        Some(Egress::bare(port, facts.mtu(port)).to_host())
    }

    fn workload(&self, port: PortId, address: IpAddr, facts: &dyn Facts) -> Adjacency {
        let mtu = facts.mtu(port);
        let Some(config) = self.fixed.ports.get(usize::from(port.0)) else {
            return Adjacency::Unreachable;
        };
        match (config.link, facts.workload_mac(port, address)) {
            (Link::Ip, _) => Adjacency::Forward(Egress::bare(port, mtu)),
            (Link::Ethernet(_), Some(mac)) => {
                Adjacency::Forward(Egress::ethernet(port, mtu, MacAddr::WORKLOAD_GATEWAY, mac))
            }
            (Link::Ethernet(_), None) => Adjacency::Unresolved,
        }
    }

    pub(super) fn remote(&self, node: IpAddr, carriage: Carriage, facts: &dyn Facts) -> Adjacency {
        let (port, own_mac) = self.fixed.uplink;
        let (mac, path) = match facts.way(node) {
            Way::Known(mac, mtu) => (mac, mtu),
            // A neighbour that did not answer may do so again: packets keep asking.
            Way::Asking | Way::Failed => return Adjacency::Unresolved,
            Way::None => return Adjacency::Unreachable,
        };
        if carriage == Carriage::Direct {
            return Adjacency::Forward(Egress::ethernet(port, path, own_mac, mac));
        }
        let encapsulation = carriage.encapsulation(node);
        let mtu = self.fixed.tunnel_mtus.within(encapsulation, path);
        let egress = match self.tunnel(node, carriage) {
            Some(Tunnel::V4(tunnel)) => Egress::tunnel(port, mtu, own_mac, mac, &tunnel),
            Some(Tunnel::V6(tunnel)) => Egress::tunnel_v6(port, mtu, own_mac, mac, &tunnel),
            None => return Adjacency::Unreachable,
        };
        Adjacency::Forward(egress.marking(self.fixed.ttl, self.fixed.dscp))
    }

    /// The tunnel to another node; none for what cannot be: without an own address of the same
    /// family, and IP-in-IP over IPv6.
    fn tunnel(&self, node: IpAddr, carriage: Carriage) -> Option<Tunnel> {
        let (local, fixed) = (&self.wanted.local, &self.fixed);
        let vxlan = |own: MacAddr| match carriage {
            Carriage::Vxlan(vtep) => Some((fixed.vni, fixed.vxlan_port, own, vtep)),
            Carriage::Direct | Carriage::Ipip => None,
        };
        match node {
            IpAddr::V4(far_end) => Some(Tunnel::V4(TunnelHeader {
                source: local.ipv4?.addr(),
                far_end,
                vxlan: vxlan(local.vtep_mac),
            })),
            IpAddr::V6(far_end) => Some(Tunnel::V6(TunnelHeaderV6 {
                source: local.ipv6?.addr(),
                far_end,
                vxlan: vxlan(local.vtep_mac_v6)?,
                zero_checksum: fixed.udp_zero_checksum_v6,
            })),
        }
    }
}

/// A tunnel of either family.
enum Tunnel {
    V4(TunnelHeader),
    V6(TunnelHeaderV6),
}
