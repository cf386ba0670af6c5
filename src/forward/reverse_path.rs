//! Part of stage 2: whether an inner source may have come from where its packet came from.
//!
//! As the kernel's `rp_filter` (RFC 3704 sections 2.2 and 2.4), with nodes in the place of interfaces.

use std::net::IpAddr;

use super::Snapshot;
use super::snapshot::PeerId;
use crate::packet::DropReason;

/// How the sources of tunnelled packets are judged, and by what.
#[derive(Debug, Clone, Default)]
pub struct ReversePath {
    /// How strictly.
    pub mode: ReversePathMode,
    /// By next hop: where its routes lead, whether or not the way there is usable now. May be empty
    /// if the mode is off.
    pub leads_to: Vec<LeadsTo>,
}

/// How strictly the sources of tunnelled packets are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReversePathMode {
    /// Not at all.
    #[default]
    Off,
    /// There must be a route to the source that is neither unreachable nor a blackhole.
    Loose,
    /// The route must lead to the node that sent the packet.
    Strict,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeadsTo {
    /// To a known node.
    Node(PeerId),
    /// To several nodes, over which flows are spread: any may be the one that sent the packet.
    Nodes,
    /// To this node, or out into the world by its kernel.
    Elsewhere,
    /// Unreachable, or a blackhole.
    Nowhere,
}

/// Judges a packet from `inner` that arrived in a tunnel packet from `outer`, which may send.
///
/// A node's own addresses are right in either mode: nothing need be routed to them here. An external
/// node has no routes here either: it may send from whatever no known node has.
#[inline(always)]
pub(super) fn check(snapshot: &Snapshot, outer: IpAddr, inner: IpAddr) -> Result<(), DropReason> {
    if snapshot.tunnels.reverse_path.mode == ReversePathMode::Off {
        return Ok(());
    }
    judge(snapshot, outer, inner)
}

#[inline(never)]
fn judge(snapshot: &Snapshot, outer: IpAddr, inner: IpAddr) -> Result<(), DropReason> {
    let ReversePath { mode, leads_to } = &snapshot.tunnels.reverse_path;
    let next_hop = match inner {
        IpAddr::V4(source) => snapshot.fib.lookup_v4(source),
        IpAddr::V6(source) => snapshot.fib.lookup_v6(source),
    };
    let route = next_hop.and_then(|next_hop| leads_to.get(next_hop.0 as usize));
    let (strict, sender) = (
        *mode == ReversePathMode::Strict,
        snapshot.tunnels.peers.node(outer),
    );
    let right = match route {
        Some(LeadsTo::Node(node)) => !strict || sender == Some(*node),
        Some(LeadsTo::Nodes) => !strict || sender.is_some(),
        Some(LeadsTo::Elsewhere) => !strict || sender.is_none(),
        Some(LeadsTo::Nowhere) | None => false,
    };
    if right || (sender.is_some() && snapshot.tunnels.peers.node(inner) == sender) {
        Ok(())
    } else {
        Err(DropReason::ReversePath)
    }
}
