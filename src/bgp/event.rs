//! What a speaker tells whoever programs routes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::settings::PeerName;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// From now on a group is these next hops. It precedes the first route that uses the group; when it
    /// comes again, a session has ended or a next hop is back, and one write re-points every prefix of
    /// the group, before [`Event::Routes`] says where each of them belongs. Empty: blackhole.
    Group {
        /// Which.
        id: NextHopGroupId,
        /// Equally good, in order of address.
        next_hops: Arc<[NextHop]>,
    },
    /// Best paths that have changed: each prefix once, as it is now.
    Routes(Vec<RouteChange>),
    /// No route uses the group any more; the id never comes again.
    GroupGone(NextHopGroupId),
    /// A session is up or has ended.
    Session {
        /// Whose.
        peer: PeerName,
        /// Up, or not.
        up: bool,
    },
    /// Every peer that was up in time has sent all its routes once, and they have been told: routes of an
    /// earlier run that were not told are gone (RFC 4724 §4.1). It comes once.
    Converged,
}

/// Where a prefix goes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The destination.
    pub prefix: IpNet,
    /// Its next hops; none: there is no route any more.
    pub group: Option<NextHopGroupId>,
}

/// Names a set of next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopGroupId(pub u32);

/// One next hop as a peer told it; how it is reached is the consumer's to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The BGP next hop: the far node, with a tunnel.
    pub address: IpAddr,
    /// The interface's index, for a link-local address; else 0.
    pub scope_id: u32,
}
