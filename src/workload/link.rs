//! A workload's link: a veth pair between the node and the workload's network namespace.
//!
//! ```text
//!   node                                   workload
//!   caliXXXXXXXXXXX ─────── veth ───────── eth0  ADDRESS/32, default via 169.254.1.1
//!   ee:ee:ee:ee:ee:ee                            (IPv6: fe80::ecee:eeff:feee:eeee)
//! ```

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use sha1::{Digest, Sha1};

use super::{HASH, LONGEST_NAME, WorkloadError};
use crate::forward::RouterAddresses;
use crate::kernel::{Link, Netlink, OwnRoute, Target, Veth, sysctl, veth};
use crate::wire::{MacAddr, Mtu};

/// Where a name is a network namespace's, as `ip netns` has it.
const NAMED: &str = "/run/netns";

/// What a link is made from.
#[derive(Debug, Clone)]
pub struct LinkPlan {
    /// The node's end.
    pub host: String,
    /// The workload's end.
    pub interface: String,
    /// The workload's network namespace.
    pub netns: PathBuf,
    /// The workload's addresses.
    pub addresses: Vec<IpAddr>,
    /// The largest packet that gets to every other workload.
    pub mtu: Mtu,
}

/// The node's end of a workload's link, as Calico names it: `cali` and the beginning of a hash.
pub fn host_interface(prefix: &str, namespace: &str, name: &str) -> String {
    let hash = Sha1::digest(format!("{namespace}.{name}"));
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let room = LONGEST_NAME.saturating_sub(prefix.len()).min(HASH);
    format!("{prefix}{}", &hex[..room])
}

/// The file of a network namespace that is given by name or by path.
pub fn netns_path(netns: &str) -> PathBuf {
    match netns.contains('/') {
        true => PathBuf::from(netns),
        false => Path::new(NAMED).join(netns),
    }
}

/// Makes the link, and gives the workload's end its addresses and routes; what was left of an
/// earlier attempt is removed first. Gives the Ethernet address of the workload's end.
pub fn make(plan: &LinkPlan) -> Result<MacAddr, WorkloadError> {
    let netns = open(&plan.netns)?;
    let mut netlink = Netlink::open()?;
    netlink.delete_link(&plan.host)?;
    let pair = Veth {
        name: &plan.host,
        mac: MacAddr::WORKLOAD_GATEWAY,
        peer: &plan.interface,
        mtu: plan.mtu,
    };
    netlink.create_veth(&pair, &netns)?;
    let made = || -> Result<MacAddr, WorkloadError> {
        prepare_host_end(&plan.host)?;
        let mut netlink = Netlink::open()?;
        let host = netlink.link(&plan.host)?;
        netlink.set_link_up(host.index, true)?;
        let plan = plan.clone();
        Ok(veth::inside(&netns, move || settle(&plan))??)
    };
    made().inspect_err(|_| {
        // Half a link is of no use to anybody.
        if let Err(error) = netlink.delete_link(&plan.host) {
            log::error!("{}: {error}", plan.host);
        }
    })
}

/// Gives a link that is there the MTU that is planned now. Gives the Ethernet address of the workload's end.
pub fn adapt(plan: &LinkPlan) -> Result<MacAddr, WorkloadError> {
    let set = |interface: &str, mtu: Mtu| -> crate::kernel::Result<MacAddr> {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(interface)?;
        if link.mtu != mtu {
            netlink.set_link_mtu(link.index, mtu)?;
        }
        Ok(link.mac.unwrap_or_default())
    };
    set(&plan.host, plan.mtu)?;
    let netns = open(&plan.netns)?;
    Ok(veth::inside(&netns, || set(&plan.interface, plan.mtu))??)
}

/// The interface of that name, if it is there.
pub fn find(host: &str) -> Result<Option<Link>, WorkloadError> {
    match Netlink::open()?.link(host) {
        Ok(link) => Ok(Some(link)),
        Err(crate::kernel::Error::NoInterface(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes a link that somebody else made. A veth's far end gets the addresses and routes, and its Ethernet
/// address is given; behind others, such as a guest's TAP, the workload learns them by DHCP.
pub fn take(plan: &LinkPlan, host: &Link) -> Result<Option<MacAddr>, WorkloadError> {
    prepare_host_end(&host.name)?;
    Netlink::open()?.set_link_up(host.index, true)?;
    Ok(veth::on_peer(host, |peer| settle_on(plan, peer))?)
}

/// Leaves a link that was taken as it was, without the workload's addresses; the last one takes the routes
/// along.
pub fn release(host: &str, addresses: &[IpAddr]) -> Result<(), WorkloadError> {
    let Ok(link) = Netlink::open()?.link(host) else {
        return Ok(());
    };
    let removed = veth::on_peer(&link, |peer| {
        let mut netlink = Netlink::open()?;
        addresses
            .iter()
            .try_for_each(|address| netlink.remove_address(peer.index, IpNet::from(*address)))
    });
    Ok(removed.map(|_| ())?)
}

/// Removes a workload's link by the node's end; nothing happens if there is none.
pub fn remove(host: &str) -> Result<(), WorkloadError> {
    Ok(Netlink::open()?.delete_link(host)?)
}

/// Whether the link is as it was made; says what is not.
pub fn check(plan: &LinkPlan) -> Result<(), WorkloadError> {
    let host = Netlink::open()?.link(&plan.host)?;
    if !host.up {
        return Err(WorkloadError::Link(format!("{} is down", plan.host)));
    }
    let netns = open(&plan.netns)?;
    let plan = plan.clone();
    veth::inside(&netns, move || inspect(&plan))?
}

/// The node's end carries nothing of the node's own: no addresses, no router solicitations.
fn prepare_host_end(host: &str) -> Result<(), WorkloadError> {
    let mut sysctls = sysctl::Sysctls::default();
    // A kernel without IPv6 has nothing to switch off.
    if let Err(error) = sysctls.set_ipv6_disabled(host, true) {
        log::debug!("{host}: {error}");
    }
    sysctls.keep();
    Ok(())
}

/// The workload's end, in its own namespace.
fn settle(plan: &LinkPlan) -> crate::kernel::Result<MacAddr> {
    let link = Netlink::open()?.link(&plan.interface)?;
    settle_on(plan, &link)
}

fn settle_on(plan: &LinkPlan, link: &Link) -> crate::kernel::Result<MacAddr> {
    let mut netlink = Netlink::open()?;
    if let Ok(loopback) = netlink.link("lo") {
        netlink.set_link_up(loopback.index, true)?;
    }
    if link.mtu > plan.mtu {
        netlink.set_link_mtu(link.index, plan.mtu)?;
    }
    for address in &plan.addresses {
        netlink.add_address(link.index, IpNet::from(*address))?;
    }
    netlink.set_link_up(link.index, true)?;
    for route in routes(plan, link) {
        netlink.replace_route(&route)?;
    }
    Ok(link.mac.unwrap_or_default())
}

/// Everything by the gateway, which answers for any address.
fn routes(plan: &LinkPlan, link: &Link) -> Vec<OwnRoute> {
    let by = |destination, gateway| OwnRoute {
        destination,
        target: Target::Interface {
            interface: link.index,
            gateway,
            onlink: gateway.is_some(),
        },
        source: None,
        metric: 0,
    };
    let mut routes = Vec::new();
    if plan.addresses.iter().any(IpAddr::is_ipv4) {
        let gateway = IpAddr::V4(RouterAddresses::GATEWAY_V4);
        routes.push(by(IpNet::from(gateway), None));
        routes.push(by(IpNet::V4(Default::default()), Some(gateway)));
    }
    if plan.addresses.iter().any(IpAddr::is_ipv6) {
        let gateway = IpAddr::V6(RouterAddresses::GATEWAY_V6);
        routes.push(by(IpNet::V6(Default::default()), Some(gateway)));
    }
    routes
}

fn inspect(plan: &LinkPlan) -> Result<(), WorkloadError> {
    let mirror = crate::kernel::Mirror::open()?;
    let link = mirror
        .link_named(&plan.interface)
        .ok_or_else(|| WorkloadError::Link(format!("there is no {}", plan.interface)))?;
    let own = mirror.addresses(link.index);
    for address in &plan.addresses {
        if !own.iter().any(|own| own.address.addr() == *address) {
            return Err(WorkloadError::Link(format!(
                "{} does not have the address {address}",
                plan.interface
            )));
        }
        let default = mirror.routes().any(|route| {
            route.destination.prefix_len() == 0
                && route.destination.addr().is_ipv4() == address.is_ipv4()
                && route
                    .next_hops
                    .iter()
                    .any(|hop| hop.interface == link.index)
        });
        if !default {
            return Err(WorkloadError::Link(format!(
                "{} has no default route for {address}",
                plan.interface
            )));
        }
    }
    Ok(())
}

fn open(netns: &Path) -> Result<File, WorkloadError> {
    File::open(netns).map_err(|error| {
        WorkloadError::Link(format!(
            "the network namespace {}: {error}; `ip netns list` shows those with names",
            netns.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NGINX: &str = "calic440f455693";

    #[test]
    fn host_interfaces_are_named_as_calico_does() {
        // printf default.nginx | sha1sum
        assert_eq!(host_interface("cali", "default", "nginx"), NGINX);
        assert_eq!(
            host_interface("workload", "default", "nginx"),
            format!("workload{}", &NGINX[4..11])
        );
        assert_eq!(netns_path("pod1"), Path::new("/run/netns/pod1"));
        assert_eq!(netns_path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
    }
}
