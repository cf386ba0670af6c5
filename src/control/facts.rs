//! What the underlay and the workload links tell, for adjacencies.

use std::net::IpAddr;

use super::apply::{Facts, Way};
use super::path_mtu::PathMtus;
use super::ports::{Description, OpenPorts, UPLINK};
use super::workloads::WorkloadLinks;
use crate::forward::PortRole;
use crate::kernel::{Mirror, Neighbour};
use crate::port::PortId;
use crate::wire::{MacAddr, Mtu};

/// Facts from the mirrored kernel, the endpoints' configuration and what workloads said themselves.
pub struct Known<'a> {
    /// The kernel's tables.
    pub mirror: &'a Mirror,
    /// The ports.
    pub ports: &'a [Option<Description>],
    /// Where workloads are.
    pub links: &'a WorkloadLinks,
    /// The MTU of the host's TUN device.
    pub host_mtu: Mtu,
    /// What the underlay said of the paths to other nodes.
    pub paths: &'a PathMtus,
    /// The largest packet that the ports' buffers hold, whatever a device's MTU is raised to.
    pub largest: Mtu,
}

impl Facts for Known<'_> {
    fn way(&self, node: IpAddr) -> Way {
        let uplink = self.port(UPLINK).map(|port| port.device.as_str());
        match self.mirror.resolve_underlay(node) {
            Ok(underlay) if Some(underlay.interface_name.as_str()) == uplink => {
                match underlay.neighbour {
                    Neighbour::Resolved(mac) => {
                        let link = underlay.mtu.min(self.largest);
                        let path = self.paths.get(node).map_or(link, |path| path.min(link));
                        Way::Known(mac, path)
                    }
                    Neighbour::Missing => Way::Asking,
                    Neighbour::Failed => Way::Failed,
                    Neighbour::NotNeeded => Way::None,
                }
            }
            Ok(_) | Err(_) => Way::None,
        }
    }

    fn workload_mac(&self, port: PortId, address: IpAddr) -> Option<MacAddr> {
        self.links.mac(port, address)
    }

    fn mtu(&self, port: PortId) -> Mtu {
        let Some(description) = self.port(port) else {
            return Mtu::ETHERNET;
        };
        match description.role {
            PortRole::Host => self.host_mtu,
            PortRole::Uplink | PortRole::Workload | PortRole::Bridge(_) => {
                self.device_mtu(description)
            }
        }
    }

    fn doubted(&self) -> Vec<IpAddr> {
        self.paths.doubted().collect()
    }
}

impl<'a> Known<'a> {
    /// A node's facts, from the parts of it that know them.
    pub fn new(
        mirror: &'a Mirror,
        ports: &'a OpenPorts,
        links: &'a WorkloadLinks,
        paths: &'a PathMtus,
        host_mtu: Mtu,
    ) -> Self {
        Self {
            mirror,
            ports: &ports.descriptions,
            links,
            host_mtu,
            paths,
            largest: ports.largest,
        }
    }

    fn port(&self, id: PortId) -> Option<&Description> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    fn device_mtu(&self, port: &Description) -> Mtu {
        let local = || self.mirror.link_named(&port.device).map(|link| link.mtu);
        let mtu = port.local.then(local).flatten().unwrap_or(port.mtu);
        mtu.min(self.largest)
    }
}
