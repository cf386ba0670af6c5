//! A workload's addresses, from IPAM.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::WorkloadError;
use crate::ipam::{Ipam, IpamError, Request};
use crate::resources::ip_pool::AllowedUse;
use crate::resources::{ClusterState, Name, Node, NodeName};

/// What a workload asks IPAM for.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// The node that the workload is on.
    pub node: &'a NodeName,
    /// The handle by which the addresses are released.
    pub handle: &'a str,
    /// More about the workload.
    pub attributes: BTreeMap<String, String>,
    /// The pools to take addresses from; all that fit if empty.
    pub pools: &'a [String],
    /// The addresses that it is to have; none: any.
    pub asked: &'a [IpAddr],
}

/// Hands out the addresses asked for, else one of each family that a pool is there for. What the
/// handle has already is kept.
pub fn assign(
    ipam: &Ipam,
    state: &ClusterState,
    order: &Order<'_>,
) -> Result<Vec<IpAddr>, WorkloadError> {
    let held = ipam.addresses_of(order.handle)?;
    if !held.is_empty() {
        return Ok(held);
    }
    let taken = taken(state);
    let assigned = match order.asked {
        [] => any(ipam, order, &taken),
        asked => these(ipam, order, asked, &taken),
    };
    if assigned.is_err() {
        ipam.release_handle(order.handle)?;
    }
    assigned
}

fn these(
    ipam: &Ipam,
    order: &Order<'_>,
    asked: &[IpAddr],
    taken: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, WorkloadError> {
    for address in asked {
        if taken.contains(address) {
            return Err(IpamError::Taken(*address).into());
        }
        ipam.assign_address(&request(order, address.is_ipv4())?, *address)?;
    }
    Ok(asked.to_vec())
}

fn any(
    ipam: &Ipam,
    order: &Order<'_>,
    taken: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, WorkloadError> {
    let (mut found, mut reason) = (Vec::new(), None);
    for ipv4 in [true, false] {
        match one(ipam, order, ipv4, taken) {
            Ok(address) => found.push(address),
            Err(error) => {
                reason.get_or_insert(error);
            }
        }
    }
    match reason {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// A free address.
fn one(
    ipam: &Ipam,
    order: &Order<'_>,
    ipv4: bool,
    taken: &BTreeSet<IpAddr>,
) -> Result<IpAddr, WorkloadError> {
    let found = ipam.assign_unused(&request(order, ipv4)?, taken)?;
    found.ok_or_else(|| {
        WorkloadError::Address(format!(
            "no pool has a free {} address for node {}",
            if ipv4 { "IPv4" } else { "IPv6" },
            order.node
        ))
    })
}

fn request(order: &Order<'_>, ipv4: bool) -> Result<Request, WorkloadError> {
    let name = |text: &String| {
        text.parse::<Name>()
            .map_err(|error| WorkloadError::Name(format!("'{text}' is no pool's name: {error}")))
    };
    Ok(Request {
        node: order.node.clone(),
        handle: order.handle.to_owned(),
        attributes: order.attributes.clone(),
        purpose: AllowedUse::Workload,
        ipv4,
        count: 1,
        pools: order.pools.iter().map(name).collect::<Result<_, _>>()?,
    })
}

/// Every address that a resource says somebody has.
fn taken(state: &ClusterState) -> BTreeSet<IpAddr> {
    let workloads = state.endpoints.values().flat_map(|e| e.addresses());
    let nodes = state.nodes.values().flat_map(Node::addresses);
    workloads.chain(nodes).collect()
}
