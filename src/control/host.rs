//! The host's own side: the TUN device's addresses, routes and MTU in the kernel.
//!
//! Everything made here hangs on the TUN device, which the kernel removes when the process ends,
//! however it ends; so nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::resolve::{Delta, Encap, LocalNode, Target as WantedTarget, Wanted};
use crate::kernel::{Error, Netlink, OwnRoute, Target, sysctl};
use crate::wire::Mtu;

/// The kernel's view of the TUN device, as we made it.
pub struct HostSide {
    netlink: Netlink,
    interface: u32,
    addresses: BTreeSet<IpAddr>,
    routes: BTreeMap<IpNet, Option<IpAddr>>,
    /// Routes that the kernel refused to change.
    refused: BTreeSet<IpNet>,
    mtu: Option<Mtu>,
}

impl HostSide {
    /// Brings the TUN device up.
    pub fn new(tun: &str, uplink: &str) -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let interface = netlink.link(tun)?.index;
        netlink.set_link_up(interface, true)?;
        warn_of_strict_filter(uplink);
        Ok(Self {
            netlink,
            interface,
            addresses: BTreeSet::new(),
            routes: BTreeMap::new(),
            refused: BTreeSet::new(),
            mtu: None,
        })
    }

    /// Makes the kernel's side what is wanted: new first, then what goes. What the kernel refuses is
    /// logged and tried again with the next update. `delta` says what has changed since the last one.
    pub fn update(&mut self, wanted: &Wanted, delta: &Delta, mtu: Mtu) {
        self.set_mtu(mtu);
        let addresses = tunnel_addresses(wanted);
        for address in &addresses {
            if !self.addresses.contains(address) {
                let added = self
                    .netlink
                    .add_address(self.interface, IpNet::from(*address));
                keep(added, || self.addresses.insert(*address));
            }
        }
        self.update_routes(wanted, delta);
        for address in self.addresses.clone().difference(&addresses) {
            let removed = self
                .netlink
                .remove_address(self.interface, IpNet::from(*address));
            keep(removed, || self.addresses.remove(address));
        }
    }

    /// Sets the device's MTU.
    pub fn set_mtu(&mut self, mtu: Mtu) {
        if self.mtu != Some(mtu) {
            let set = self.netlink.set_link_mtu(self.interface, mtu);
            keep(set, || self.mtu = Some(mtu));
        }
    }

    fn update_routes(&mut self, wanted: &Wanted, delta: &Delta) {
        let mut prefixes = std::mem::take(&mut self.refused);
        prefixes.extend(delta.routes.keys());
        if delta.local || self.routes.is_empty() {
            prefixes.extend(self.routes.keys());
            prefixes.extend(wanted.routes.keys());
        }
        let (there, gone): (Vec<_>, Vec<_>) = prefixes
            .into_iter()
            .map(|prefix| (prefix, wanted_route(wanted, prefix)))
            .partition(|(_, route)| route.is_some());
        for (destination, source) in there {
            let source = source.flatten();
            if self.routes.get(&destination) == Some(&source) {
                continue;
            }
            let route = OwnRoute {
                destination,
                target: Target::Interface {
                    interface: self.interface,
                    gateway: None,
                    onlink: false,
                },
                source,
                metric: 0,
            };
            let replaced = self.netlink.replace_route(&route);
            if keep(replaced, || self.routes.insert(destination, source)).is_none() {
                self.refused.insert(destination);
            }
        }
        for (destination, _) in gone {
            if !self.routes.contains_key(&destination) {
                continue;
            }
            let deleted = self.netlink.delete_route(destination, 0);
            if keep(deleted, || self.routes.remove(&destination)).is_none() {
                self.refused.insert(destination);
            }
        }
    }
}

/// Notes what was done, or says why it could not be.
fn keep<T, U>(result: Result<T, Error>, done: impl FnOnce() -> U) -> Option<U> {
    match result {
        Ok(_) => Some(done()),
        Err(error) => {
            log::error!("the host's routes: {error}");
            None
        }
    }
}

/// The addresses that the TUN device carries: the node's tunnel addresses, as Calico's tunl0 and
/// vxlan.calico do.
fn tunnel_addresses(wanted: &Wanted) -> BTreeSet<IpAddr> {
    let local = &wanted.local;
    let v4 = [local.ipip_tunnel_addr, local.vxlan_tunnel_addr];
    let v4 = v4.into_iter().flatten().map(IpAddr::V4);
    v4.chain(local.vxlan_tunnel_addr_v6.map(IpAddr::V6))
        .collect()
}

/// How host processes reach a prefix through the TUN device, if they do: the source address that they
/// should have is the tunnel's if packets are tunnelled, so that answers are too; else the node's own.
fn wanted_route(wanted: &Wanted, prefix: IpNet) -> Option<Option<IpAddr>> {
    let local = &wanted.local;
    let is_v4 = prefix.addr().is_ipv4();
    let tunnel = match wanted.routes.get(&prefix)? {
        WantedTarget::Remote { encap, .. } => tunnel_source(local, encap, is_v4),
        WantedTarget::Workload { .. } | WantedTarget::Blackhole => None,
        WantedTarget::Host | WantedTarget::Unreachable => return None,
    };
    Some(tunnel.or_else(|| local.address(is_v4)))
}

fn tunnel_source(local: &LocalNode, encap: &Encap, is_v4: bool) -> Option<IpAddr> {
    match encap {
        Encap::None => None,
        Encap::Ipip => local.ipip_tunnel_addr.map(IpAddr::V4),
        Encap::Vxlan { .. } if is_v4 => local.vxlan_tunnel_addr.map(IpAddr::V4),
        Encap::Vxlan { .. } => local.vxlan_tunnel_addr_v6.map(IpAddr::V6),
    }
}

/// In direct mode answers to the host come by the uplink, while the way back leads through the TUN:
/// a strict reverse-path filter on the uplink drops them.
fn warn_of_strict_filter(uplink: &str) {
    let strict = |interface: &str| {
        sysctl::interface_key("ipv4", interface, "rp_filter")
            .and_then(|key| sysctl::read(&key))
            .is_ok_and(|value| value.trim() == "1")
    };
    if strict("all") || strict(uplink) {
        log::warn!(
            "{uplink}: the kernel's reverse-path filter is strict (rp_filter = 1): in direct mode \
             the host's own connections to workloads of other nodes will fail; set \
             net.ipv4.conf.{uplink}.rp_filter and net.ipv4.conf.all.rp_filter to 0 or 2"
        );
    }
}
