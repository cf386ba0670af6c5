//! Workloads' Ethernet addresses: from their endpoints, or learnt from what they say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::resolve::Wanted;
use crate::port::PortId;
use crate::wire::MacAddr;

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

    /// Notes what a workload said; whether that is news.
    pub fn learn(&mut self, port: PortId, address: IpAddr, mac: MacAddr) -> bool {
        self.learnt.insert((port, address), mac) != Some(mac)
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
