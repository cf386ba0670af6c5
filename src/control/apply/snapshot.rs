//! What workers read, put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Facts, Fixed, Forwarding, Hop, node_address};
use crate::control::fence;
use crate::control::learned::Learned;
use crate::control::resolve::Wanted;
use crate::fib::{Fib, NextHop};
use crate::forward::{
    Addresses, Adjacency, Bridges, Peers, RouterAddresses, Snapshot, Tunnels, TunnelsV6,
};

impl Forwarding {
    /// Has workers see what is known now; `peers` says whether other nodes are others than before.
    pub(super) fn publish(&mut self, peers: bool, facts: &dyn Facts) {
        let peers = match peers {
            true => fence::peers(&self.fixed.fence, &self.wanted, &self.learned_peers()),
            false => self.published.get().tunnels.peers.clone(),
        };
        let peers = peers.doubting(facts.doubted());
        let Self {
            fixed,
            wanted,
            fib,
            hops,
            adjacencies,
            fast_path,
            bridging,
            learned,
            ..
        } = self;
        let bridges = bridging.snapshot(fixed, wanted, facts);
        let adjacencies = adjacencies.clone();
        let led = (&*hops, &*learned);
        let snapshot = snapshot(fixed, wanted, fib, led, adjacencies, peers, bridges);
        let snapshot = Arc::new(snapshot);
        self.published.publish(Arc::clone(&snapshot));
        if let Some(mirror) = fast_path {
            mirror.update(&snapshot);
        }
    }
}

pub(super) fn snapshot(
    fixed: &Fixed,
    wanted: &Wanted,
    fib: &Arc<Fib>,
    (hops, learned): (&BTreeMap<Hop, NextHop>, &Learned),
    adjacencies: Vec<Adjacency>,
    peers: Peers,
    bridges: Bridges,
) -> Snapshot {
    let mut ports = fixed.ports.clone();
    let mut local_addresses = Addresses::default();
    local_addresses.extend(wanted.local.addresses());
    for (interface, workload) in &wanted.workloads {
        local_addresses.extend(workload.addresses.iter().copied());
        if let Some(port) = fixed.workload_ports.get(interface) {
            let sources = &mut ports[usize::from(port.0)].sources;
            sources.own.extend(&workload.addresses);
            sources.allowed.extend(
                workload
                    .addresses
                    .iter()
                    .map(|address| IpNet::from(*address)),
            );
            sources.allowed.extend(&workload.allowed_sources);
        }
    }
    let node_address = node_address(wanted);
    let v6_address = wanted.local.ipv6.map(|net| net.addr());
    let reverse_path = fence::reverse_path(&fixed.fence, &peers, hops, learned, adjacencies.len());
    Snapshot {
        fib: Arc::clone(fib),
        adjacencies,
        ports,
        tunnels: Tunnels {
            peers,
            node_address,
            vxlan_port: fixed.vxlan_port,
            vni: fixed.vni,
            also: fixed.also,
            vtep_mac: wanted.local.vtep_mac,
            strict_reserved_bits: fixed.strict_reserved_bits,
            local_addresses,
            v6: v6_address.map(|node_address| TunnelsV6 {
                node_address,
                vtep_mac: wanted.local.vtep_mac_v6,
                zero_checksum: fixed.udp_zero_checksum_v6,
            }),
            reverse_path,
            from_workloads: fixed.from_workloads,
        },
        router: RouterAddresses {
            v4: node_address.unwrap_or(RouterAddresses::GATEWAY_V4),
            v6: v6_address.unwrap_or(RouterAddresses::GATEWAY_V6),
        },
        bridges,
    }
}
