//! The addresses of nodes' tunnels: one of a Tunnel pool for each kind that its pools use.

use std::fmt;
use std::net::IpAddr;

use super::{ATTEMPTS, Ipam, IpamError, Release, Request, Result, pools};
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

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipip => "IP-in-IP",
            Self::Vxlan => "VXLAN",
            Self::VxlanV6 => "IPv6 VXLAN",
        })
    }
}

impl Ipam {
    /// Gives a node the tunnel addresses that its pools ask for, takes back those that none asks for
    /// any more, and writes them into its Node resource. Gives those that changed.
    ///
    /// An address in the Node resource that was never handed out was written by a person, and stays; it
    /// is recorded where there is a block for it, so that nobody else gets it.
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
        let asking = self.asking_pools(&node, kind)?;
        let has = kind.address(&node);
        let fits = |address: IpAddr| asking.iter().any(|pool| pool.cidr().contains(&address));
        let handle = kind.handle(name);
        let assigned = self.addresses_of(&handle)?;
        if let Some(address) = has
            && assigned.is_empty()
            && self.is_by_hand(name, address)?
        {
            if fits(address) && self.block_with(address)?.is_some() {
                self.record_tunnel_address(name, kind, address)?;
            }
            return Ok(None);
        }
        // One that was assigned but not written down is taken up.
        let right = has.filter(|&address| fits(address) && assigned.contains(&address));
        let right = right.or_else(|| assigned.iter().copied().find(|&address| fits(address)));
        let address = match (right, asking.is_empty()) {
            (Some(address), _) => Some(address),
            (None, true) => None,
            (None, false) => Some(self.assign_tunnel_address(name, kind, &asking)?),
        };
        if address != has {
            self.write_tunnel_address(name, kind, address)?;
        }
        // What the Node resource says no more goes back last: until then it is in use.
        let stale = assigned.into_iter().filter(|old| Some(*old) != address);
        for address in stale {
            self.release(&[Release {
                address,
                handle: Some(handle.clone()),
                sequence: None,
            }])?;
        }
        Ok((address != has).then_some(address))
    }

    /// The pools that ask for a tunnel address of a kind on a node.
    fn asking_pools(&self, node: &Node, kind: TunnelKind) -> Result<Vec<IpPool>> {
        let mut asking = self.pools()?;
        asking.retain(|pool| {
            kind.uses(pool)
                && pools::serves(pool, AllowedUse::Tunnel)
                && pools::selects(pool, &node.metadata.labels)
                && !pool.spec.disabled
        });
        Ok(asking)
    }

    /// Whether a tunnel's address is nobody's, or that of another tunnel of the node.
    fn is_by_hand(&self, node: &NodeName, address: IpAddr) -> Result<bool> {
        let owner = self.owner_of(address)?;
        Ok(owner.is_none_or(|owner| {
            let own = TunnelKind::ALL.map(|kind| kind.handle(node));
            owner.handle_id.is_some_and(|handle| own.contains(&handle))
        }))
    }

    fn record_tunnel_address(
        &self,
        node: &NodeName,
        kind: TunnelKind,
        address: IpAddr,
    ) -> Result<()> {
        match self.assign_address(&tunnel_request(node, kind), address) {
            // Another tunnel's of the node, or another node's block: it stays as it is.
            Err(IpamError::Taken(_) | IpamError::Strict(..)) => Ok(()),
            done => done,
        }
    }

    fn assign_tunnel_address(
        &self,
        node: &NodeName,
        kind: TunnelKind,
        asking: &[IpPool],
    ) -> Result<IpAddr> {
        let mut request = tunnel_request(node, kind);
        request.pools = asking
            .iter()
            .map(|pool| pool.metadata.name.clone())
            .collect();
        let none = || IpamError::NoPools(node.clone(), "no address is free".to_owned());
        self.assign_unused(&request, &self.used()?)?
            .ok_or_else(none)
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

fn tunnel_request(node: &NodeName, kind: TunnelKind) -> Request {
    let mut request = Request::workload(node.clone(), kind.handle(node));
    request.purpose = AllowedUse::Tunnel;
    request.ipv4 = kind != TunnelKind::VxlanV6;
    request
        .attributes
        .insert("type".into(), kind.attribute().into());
    request
}
