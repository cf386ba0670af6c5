//! A node follows its kernel: links, neighbours and routes, and what its workers notice of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Node;
use crate::control::apply::Hop;
use crate::control::facts::Known;
use crate::wire::Mtu;
use crate::worker::slow_path::Event;

/// How often workloads whose Ethernet addresses were learnt are asked for them.
const ASK_EVERY: Duration = Duration::from_secs(5);

impl Node {
    /// Has adjacencies follow the kernel's neighbours, links and routes.
    pub(super) fn follow_kernel(&mut self) {
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

    /// What was refused at the start can be set later: packets are kept to what buffers hold then.
    fn warn_of_large_mtus(&self, changed: &BTreeSet<String>) {
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
    pub(super) fn uplink_is_new(&self) -> bool {
        let link = self
            .mirror
            .link_named(self.config.uplink.interface.as_str());
        link.is_some_and(|link| link.index != self.ports.uplink_index && link.up)
    }

    pub(super) fn refresh(&mut self) {
        let facts = facts!(self);
        self.forwarding.refresh(&facts);
        if let Some(host) = &mut self.host {
            host.set_mtu(facts.host_mtu);
        }
        self.follow_next_hops();
        self.show_learned_routes();
    }

    pub(super) fn look_after_fast_path(&mut self) {
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.look_after(&self.mirror);
        }
    }

    /// Heeds what the slow path noticed; so much at once that it does not take turns with the rest.
    pub(super) fn heed(&mut self, events: impl Iterator<Item = Event>) {
        const AT_ONCE: usize = 256;
        let mut news = false;
        for event in events.take(AT_ONCE) {
            news |= self.heed_one(event);
        }
        if news {
            self.refresh();
        }
    }

    /// Whether workers' adjacencies are to be made anew for it.
    fn heed_one(&mut self, event: Event) -> bool {
        match event {
            Event::WorkloadSeen(port, address, mac) => {
                let news = self.links.learn(port, address, mac);
                if news {
                    log::debug!("workload {address} is at {mac}");
                }
                return news;
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
        false
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
    pub(super) fn probe_nodes(&mut self) {
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
    pub(super) fn ask_workloads(&mut self) {
        if self.last_asked.elapsed() < ASK_EVERY {
            return;
        }
        self.last_asked = Instant::now();
        for (port, address) in self.links.learnt() {
            self.handles.ask_workload(port, address);
        }
    }

    pub(super) fn facts(&self) -> Known<'_> {
        facts!(self)
    }

    /// The TUN device's MTU: as configured, else what the largest encapsulation in use leaves.
    pub(super) fn host_mtu(&self) -> Mtu {
        match &self.config.host {
            Some(host) if host.mtu > 0 => Mtu(host.mtu),
            _ => {
                let learned = self.forwarding.learned_overhead();
                self.uplink_mtu()
                    .less(self.overheads.largest().max(learned))
            }
        }
    }

    pub(super) fn uplink_mtu(&self) -> Mtu {
        let name = self.config.uplink.interface.to_string();
        self.mirror
            .link_named(&name)
            .map_or(Mtu::ETHERNET, |link| link.mtu)
            .min(self.ports.largest)
    }
}
