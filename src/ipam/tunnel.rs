//! The addresses of nodes' tunnels: one of a Tunnel pool for each kind that its pools use.

use std::net::IpAddr;

use super::{ATTEMPTS, Ipam, IpamError, Request, Result, pools};
use crate::datastore::DatastoreError;
use crate::resources::ip_pool::{AllowedUse, EncapMode, IpPool};
use crate::resources::{Kind, Node, NodeName, Resource, ResourceKey};

/// A kind of tunnel that has an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelKind {
    /// IP-in-IP.
    Ipip,
    /// VXLAN over IPv4.
    Vxlan,
    /// VXLAN over IPv6.
    VxlanV6,
}

impl TunnelKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Ipip, Self::Vxlan, Self::VxlanV6];

    /// The handle of a node's tunnel address.
    pub fn handle(self, node: &NodeName) -> String {
        match self {
            Self::Ipip => format!("ipip-tunnel-addr-{node}"),
            Self::Vxlan => format!("vxlan-tunnel-addr-{node}"),
            Self::VxlanV6 => format!("vxlan-v6-tunnel-addr-{node}"),
        }
    }

    /// What an address says that it is for.
    fn attribute(self) -> &'static str {
        match self {
            Self::Ipip => "ipipTunnelAddress",
            Self::Vxlan => "vxlanTunnelAddress",
            Self::VxlanV6 => "vxlanV6TunnelAddress",
        }
    }

    fn uses(self, pool: &IpPool) -> bool {
        let v4 = matches!(pool.cidr(), ipnet::IpNet::V4(_));
        match self {
            Self::Ipip => v4 && pool.spec.ipip_mode != EncapMode::Never,
            Self::Vxlan => v4 && pool.spec.vxlan_mode != EncapMode::Never,
            Self::VxlanV6 => !v4 && pool.spec.vxlan_mode != EncapMode::Never,
        }
    }

    fn address(self, node: &Node) -> Option<IpAddr> {
        let bgp = node.spec.bgp.as_ref();
        match self {
            Self::Ipip => bgp
                .and_then(|bgp| bgp.ipv4_ipip_tunnel_addr)
                .map(IpAddr::V4),
            Self::Vxlan => node.spec.ipv4_vxlan_tunnel_addr.map(IpAddr::V4),
            Self::VxlanV6 => node.spec.ipv6_vxlan_tunnel_addr.map(IpAddr::V6),
        }
    }

    fn set(self, node: &mut Node, address: Option<IpAddr>) {
        let v4 = match address {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        match self {
            Self::Ipip => {
                node.spec.bgp.get_or_insert_default().ipv4_ipip_tunnel_addr = v4;
            }
            Self::Vxlan => node.spec.ipv4_vxlan_tunnel_addr = v4,
            Self::VxlanV6 => {
                node.spec.ipv6_vxlan_tunnel_addr = match address {
                    Some(IpAddr::V6(address)) => Some(address),
                    _ => None,
                };
            }
        }
    }
}

impl Ipam {
    /// Gives a node the tunnel addresses that its pools ask for, takes back those that none asks for
    /// any more, and writes them into its Node resource. Gives those that changed.
    pub fn ensure_tunnel_addresses(
        &self,
        node: &NodeName,
    ) -> Result<Vec<(TunnelKind, Option<IpAddr>)>> {
        let mut changes = Vec::new();
        for kind in TunnelKind::ALL {
            if let Some(change) = self.ensure_tunnel_address(node, kind)? {
                changes.push((kind, change));
            }
        }
        Ok(changes)
    }

    fn ensure_tunnel_address(
        &self,
        name: &NodeName,
        kind: TunnelKind,
    ) -> Result<Option<Option<IpAddr>>> {
        let node = self.node(name)?;
        let labels = &node.metadata.labels;
        let mut asking = self.pools()?;
        asking.retain(|pool| {
            kind.uses(pool)
                && pools::serves(pool, AllowedUse::Tunnel)
                && pools::selects(pool, labels)
                && !pool.spec.disabled
        });
        let has = kind.address(&node);
        let fits = |address: IpAddr| asking.iter().any(|pool| pool.cidr().contains(&address));
        let handle = kind.handle(name);
        let assigned = self.addresses_of(&handle)?;
        if let Some(address) = has.filter(|&address| fits(address) && assigned.contains(&address)) {
            let _ = address;
            return Ok(None);
        }
        if asking.is_empty() {
            self.release_handle(&handle)?;
            return match has {
                None => Ok(None),
                Some(_) => self.write_tunnel_address(name, kind, None).map(Some),
            };
        }
        // One that was assigned but not written down is taken up; one of another pool goes back.
        let address = match assigned.iter().copied().find(|&address| fits(address)) {
            Some(address) => address,
            None => {
                self.release_handle(&handle)?;
                self.assign_tunnel_address(name, kind, &asking)?
            }
        };
        self.write_tunnel_address(name, kind, Some(address))
            .map(Some)
    }

    fn assign_tunnel_address(
        &self,
        node: &NodeName,
        kind: TunnelKind,
        asking: &[IpPool],
    ) -> Result<IpAddr> {
        let mut request = Request::workload(node.clone(), kind.handle(node));
        request.purpose = AllowedUse::Tunnel;
        request.ipv4 = kind != TunnelKind::VxlanV6;
        request
            .attributes
            .insert("type".into(), kind.attribute().into());
        request.pools = asking
            .iter()
            .map(|pool| pool.metadata.name.clone())
            .collect();
        let given = self.assign(&request)?;
        let none = || IpamError::NoPools(node.clone(), "no address is free".to_owned());
        given.into_iter().next().ok_or_else(none)
    }

    fn write_tunnel_address(
        &self,
        name: &NodeName,
        kind: TunnelKind,
        address: Option<IpAddr>,
    ) -> Result<Option<IpAddr>> {
        for _ in 0..ATTEMPTS {
            let mut node = self.node(name)?;
            kind.set(&mut node, address);
            match self.store.update(&Resource::Node(node)) {
                Ok(_) => return Ok(address),
                Err(DatastoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IpamError::Busy(format!("Node({name})")))
    }

    fn node(&self, name: &NodeName) -> Result<Node> {
        let key = ResourceKey {
            kind: Kind::Node,
            namespace: None,
            name: name.clone().into(),
        };
        match self.store.get(&key)? {
            Resource::Node(node) => Ok(node),
            other => Err(IpamError::Busy(other.key().to_string())),
        }
    }
}
