//! Workloads' links: their Ethernet addresses, from their endpoints or learnt from what they say; and whether
//! the MTUs that they were given are still right.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::resolve::Wanted;
use crate::forward::{Encapsulation, TunnelMtus};
use crate::port::PortId;
use crate::resources::{ClusterState, NodeName, WorkloadEndpoint};
use crate::wire::{MacAddr, Mtu};

/// Where each workload address is, on its port.
#[derive(Debug, Default)]
pub struct WorkloadLinks {
    configured: BTreeMap<(PortId, IpAddr), MacAddr>,
    learnt: BTreeMap<(PortId, IpAddr), MacAddr>,
}

impl WorkloadLinks {
    /// Takes over what WorkloadEndpoints say, and forgets what was learnt of addresses that are no
    /// workload's any more.
    pub fn configure(&mut self, wanted: &Wanted, ports: &BTreeMap<String, PortId>) {
        self.configured.clear();
        let mut present = BTreeMap::new();
        for (interface, workload) in &wanted.workloads {
            let Some(port) = ports.get(interface) else {
                continue;
            };
            for address in &workload.addresses {
                present.insert((*port, *address), ());
                if let Some(mac) = workload.mac {
                    self.configured.insert((*port, *address), mac);
                }
            }
        }
        self.learnt.retain(|at, _| present.contains_key(at));
    }

    /// Notes what a workload said; whether that is news. What its endpoint says wins, so that is none.
    pub fn learn(&mut self, port: PortId, address: IpAddr, mac: MacAddr) -> bool {
        let news = self.learnt.insert((port, address), mac) != Some(mac);
        news && !self.configured.contains_key(&(port, address))
    }

    /// Addresses whose place only their workloads have told: it may change without a word.
    pub fn learnt(&self) -> impl Iterator<Item = (PortId, IpAddr)> {
        let known = self.learnt.keys();
        known
            .filter(|at| !self.configured.contains_key(at))
            .copied()
    }

    /// Where an address is. What the endpoint says wins.
    pub fn mac(&self, port: PortId, address: IpAddr) -> Option<MacAddr> {
        let at = (port, address);
        self.configured
            .get(&at)
            .or_else(|| self.learnt.get(&at))
            .copied()
    }
}

/// A node's workloads whose interfaces were made with a larger MTU than is carried now, a sentence each.
pub fn stale_mtus(
    state: &ClusterState,
    node: &NodeName,
    tunnels: TunnelMtus,
    uplink: Mtu,
) -> Vec<String> {
    let fits = |address: IpAddr| {
        let around = Encapsulation::of_pool(state.tunnels_to(address), address.is_ipv4());
        tunnels.within(around, uplink)
    };
    let own = state.endpoints.values().filter(|e| e.spec.node == *node);
    let stale = own.filter_map(|endpoint| {
        let (made, now) = (endpoint.mtu()?, endpoint.addresses().map(fits).min()?);
        (made > now).then(|| stale_mtu(endpoint, made, now))
    });
    stale.collect()
}

fn stale_mtu(endpoint: &WorkloadEndpoint, made: Mtu, now: Mtu) -> String {
    let spec = &endpoint.spec;
    let name = spec.pod.as_ref().or(spec.workload.as_ref());
    let name = name.map_or(endpoint.metadata.name.as_str(), String::as_str);
    let by_hand = spec.orchestrator.as_deref() == Some("underpass");
    let remedy = match by_hand {
        true => format!("`underpass workload add {name}` once more sets it"),
        false => "it is set when the container is made again".to_owned(),
    };
    format!(
        "workload {name} has an MTU of {made} at {}, and {now} are carried now: larger packets are cut up, or \
         their sender is told; {remedy}",
        spec.interface_name
    )
}
