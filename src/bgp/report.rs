//! What a speaker says of its neighbours and routes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::attributes::Attributes;
use super::settings::{PeerKind, PeerName};

/// A session's state (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Waits until it may try (again).
    Idle,
    /// Is connecting.
    Connect,
    /// Waits for the peer to connect, or for the next try.
    Active,
    /// Has sent its OPEN.
    OpenSent,
    /// Has accepted the peer's OPEN.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// The RFC's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        }
    }
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborReport {
    /// Its name in the settings.
    pub name: PeerName,
    /// Its address.
    pub address: IpAddr,
    /// Why we talk with it.
    pub kind: PeerKind,
    /// Its AS, as configured.
    pub remote_as: u32,
    /// Where the session is.
    pub state: State,
    /// Since when it is there.
    pub since: SystemTime,
    /// What ended the session the last time, or hinders it now: `Hold timer expired`, `Bad peer AS: …`.
    pub last_error: Option<String>,
    /// What was agreed, while the session is up.
    pub session: Option<SessionReport>,
    /// Its routes are kept though the session is down: it restarts (RFC 4724).
    pub restarting: bool,
    /// What was counted since the peer was configured.
    pub counters: Counters,
    /// Prefixes received, and of these those that can be used.
    pub received_prefixes: usize,
    /// Those of its prefixes that passed the import filter and every check.
    pub accepted_prefixes: usize,
    /// Prefixes that it has been told.
    pub advertised_prefixes: usize,
}

/// What two speakers have agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport {
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our address.
    pub local_address: IpAddr,
    /// Seconds; 0: none.
    pub hold_time: u16,
    /// Seconds; 0: none are sent.
    pub keepalive_time: u16,
    /// Names of the capabilities that both have.
    pub capabilities: Vec<&'static str>,
}

/// What is counted of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages by type.
    pub received: Messages,
    /// Messages by type.
    pub sent: Messages,
    /// Prefixes announced to us, each time.
    pub prefixes_received: u64,
    /// Prefixes withdrawn from us, each time, treat-as-withdraw too.
    pub prefixes_withdrawn: u64,
    /// UPDATEs whose routes were taken as withdrawn for a malformed attribute (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Malformed attributes that were left out (RFC 7606).
    pub attributes_discarded: u64,
    /// Routes not used because our AS, router id or cluster id is in their path.
    pub loops: u64,
    /// Routes not used because their next hop is ours or nobody's.
    pub bad_next_hops: u64,
    /// Messages that ended a session with a NOTIFICATION of ours.
    pub errors: u64,
    /// How often the session came up.
    pub established: u64,
    /// Connections of it that we closed at once, since it came too often.
    pub refused_connections: u64,
}

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// OPEN.
    pub opens: u64,
    /// UPDATE.
    pub updates: u64,
    /// NOTIFICATION.
    pub notifications: u64,
    /// KEEPALIVE.
    pub keepalives: u64,
    /// ROUTE-REFRESH.
    pub refreshes: u64,
}

/// A route in some table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteReport {
    /// The destination.
    pub prefix: IpNet,
    /// Who told it; none: an own one.
    pub peer: Option<PeerName>,
    /// The path identifier (RFC 7911); 0: none.
    pub path_id: u32,
    /// What is said of it.
    pub attributes: Arc<Attributes>,
    /// When it came.
    pub since: SystemTime,
    /// The best of its prefix, or equal to it and used with it.
    pub best: bool,
    /// Why it is not used at all: `own AS in the path`, `import filter`, …
    pub unusable: Option<&'static str>,
    /// Its peer restarts (RFC 4724).
    pub stale: bool,
}

/// Which routes are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteQuery {
    /// Of one peer alone.
    pub peer: Option<PeerName>,
    /// Of this prefix alone.
    pub prefix: Option<IpNet>,
}
