//! Routes: what peers told (adj-in), what is best (loc), what peers were told (adj-out).
//!
//! ```text
//!   UPDATE ──▶ table: prefix → paths of all peers ──▶ decision ──┬──▶ groups ──▶ events
//!                 │ attributes: one value, many prefixes         └──▶ export ──▶ adj-out ──▶ UPDATE
//!                 └ touched slots, each once
//! ```
//!
//! One table holds all peers' paths of a prefix side by side, so that a change is decided where it is
//! found; adj-in of a peer and the loc-RIB are views of it. Decisions are taken when somebody asks for
//! them (a consumer, a peer that is sent routes), so a burst of changes to a prefix costs one.

pub(super) mod adj_out;
pub(super) mod decision;
pub(super) mod export;
pub(super) mod groups;
pub(super) mod store;
pub(super) mod table;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::attributes::Attributes;

/// A peer's place in the speaker's list, never used again; 0 is the speaker itself.
pub(super) type PeerIndex = u32;

/// Own routes.
pub(super) const OWN: PeerIndex = 0;

/// What the tables need to know of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerFacts {
    /// In another AS.
    pub(super) external: bool,
    /// A route reflector client of ours.
    pub(super) client: bool,
    pub(super) router_id: Ipv4Addr,
    pub(super) address: IpAddr,
    pub(super) scope_id: u32,
}

/// One way to a prefix, as a peer told it.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) attributes: Arc<Attributes>,
    pub(super) path_id: u32,
    /// Seconds after the speaker's start.
    pub(super) since: u32,
    pub(super) peer: PeerIndex,
    /// Its peer restarts, or has not repeated it yet since.
    pub(super) stale: bool,
    pub(super) unusable: Option<Unusable>,
}

/// Why a path takes no part in the decision, though its peer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    OwnAs,
    OwnRouterId,
    OwnCluster,
    OwnNextHop,
    NoNextHop,
    Filtered,
}

impl Unusable {
    /// For people.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::OwnAs => "own AS in the path",
            Self::OwnRouterId => "own router id as originator",
            Self::OwnCluster => "own cluster id in the list",
            Self::OwnNextHop => "next hop is this node",
            Self::NoNextHop => "next hop is no unicast address",
            Self::Filtered => "import filter",
        }
    }

    /// Whether the route has been here before.
    pub(super) fn is_loop(self) -> bool {
        matches!(self, Self::OwnAs | Self::OwnRouterId | Self::OwnCluster)
    }

    /// Whether packets could not follow it.
    pub(super) fn is_bad_next_hop(self) -> bool {
        matches!(self, Self::OwnNextHop | Self::NoNextHop)
    }
}
