//! A workload's addresses, from IPAM.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::WorkloadError;
use crate::ipam::{Ipam, IpamError, Request};
use crate::resources::ip_pool::AllowedUse;
use crate::resources::{ClusterState, IpPool, Name, Node, NodeName};

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
    let pools = pools(state, order.pools)?;
    let held = ipam.addresses_of(order.handle)?;
    if !held.is_empty() {
        if order.asked.iter().all(|asked| held.contains(asked)) {
            return Ok(held);
        }
        // Of an attempt that was not finished, and asked for something else.
        ipam.release_handle(order.handle)?;
    }
    let taken = taken(state);
    let assigned = match order.asked {
        [] => any(ipam, order, &pools, &taken),
        asked => within(state, &pools, asked).and_then(|()| these(ipam, order, asked, &taken)),
    };
    if assigned.is_err() {
        ipam.release_handle(order.handle)?;
    }
    assigned
}

/// Whether addresses are of the pools that are named, if any are.
fn within(state: &ClusterState, pools: &[Name], asked: &[IpAddr]) -> Result<(), WorkloadError> {
    let is_in = |address: &IpAddr, name: &Name| {
        let pool = state.pools.get(name);
        pool.is_some_and(|pool| pool.cidr().contains(address))
    };
    let outside = |address: &&IpAddr| !pools.iter().any(|name| is_in(address, name));
    match asked.iter().find(outside) {
        Some(address) if !pools.is_empty() => {
            let names: Vec<&str> = pools.iter().map(Name::as_str).collect();
            Err(WorkloadError::Address(format!(
                "{address} is not in {}; ask for another address, or leave the pool out",
                names.join(", ")
            )))
        }
        _ => Ok(()),
    }
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
        ipam.assign_address(&request(order, &[], address.is_ipv4()), *address)?;
    }
    Ok(asked.to_vec())
}

fn any(
    ipam: &Ipam,
    order: &Order<'_>,
    pools: &[Name],
    taken: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, WorkloadError> {
    let (mut found, mut reason) = (Vec::new(), None);
    for ipv4 in [true, false] {
        match one(ipam, order, (pools, ipv4), taken) {
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
    (pools, ipv4): (&[Name], bool),
    taken: &BTreeSet<IpAddr>,
) -> Result<IpAddr, WorkloadError> {
    let found = ipam.assign_unused(&request(order, pools, ipv4), taken)?;
    found.ok_or_else(|| {
        WorkloadError::Address(format!(
            "no pool has a free {} address for node {}",
            if ipv4 { "IPv4" } else { "IPv6" },
            order.node
        ))
    })
}

fn request(order: &Order<'_>, pools: &[Name], ipv4: bool) -> Request {
    Request {
        node: order.node.clone(),
        handle: order.handle.to_owned(),
        attributes: order.attributes.clone(),
        purpose: AllowedUse::Workload,
        ipv4,
        count: 1,
        pools: pools.to_vec(),
    }
}

/// The pools that are meant, each by its name or, as Calico's plugin takes it, by its network.
pub fn pools(state: &ClusterState, meant: &[String]) -> Result<Vec<Name>, WorkloadError> {
    let find = |text: &String| {
        let is_meant = |pool: &&IpPool| {
            pool.metadata.name.as_str() == text || pool.cidr().to_string() == *text
        };
        let found = state.pools.values().find(is_meant);
        found.map(|pool| pool.metadata.name.clone()).ok_or_else(|| {
            let known: Vec<&str> = state.pools.keys().map(Name::as_str).collect();
            let there = match known.is_empty() {
                true => "there is none; make one by `underpass apply`".to_owned(),
                false => format!("there are: {}", known.join(", ")),
            };
            WorkloadError::Address(format!("no pool is called '{text}'; {there}"))
        })
    };
    meant.iter().map(find).collect()
}

/// Every address that a resource says somebody has.
fn taken(state: &ClusterState) -> BTreeSet<IpAddr> {
    let workloads = state.endpoints.values().flat_map(|e| e.addresses());
    let nodes = state.nodes.values().flat_map(Node::addresses);
    workloads.chain(nodes).collect()
}
