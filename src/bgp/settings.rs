//! What a speaker is told to be: pure data, so that two of them can be compared and the difference applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::attributes::DEFAULT_LOCAL_PREF;
use super::filter::Filter;

/// BGP's port.
pub const PORT: u16 = 179;

/// What the speaker is and whom it talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The AS number that own routes come from; never 0 (RFC 7607).
    pub local_as: u32,
    /// The BGP identifier; never 0.0.0.0.
    pub router_id: Ipv4Addr,
    /// Where to accept connections; empty: nowhere. An IPv6 address takes IPv6 alone.
    pub listen: BTreeSet<SocketAddr>,
    /// The cluster that route reflector clients of this speaker belong to; the router id by default.
    pub cluster_id: Option<Ipv4Addr>,
    /// Addresses of this node: a route whose next hop is one of them is not taken.
    pub local_addresses: BTreeSet<IpAddr>,
    /// The next hop of own IPv4 routes on a session over IPv6.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// The next hop of own IPv6 routes on a session over IPv4.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// How long peers shall keep our routes while we restart (RFC 4724), in whole seconds up to 4095;
    /// zero: not at all.
    pub graceful_restart: Duration,
    /// The offered hold time in whole seconds: zero (none), or at least 3.
    pub hold_time: Duration,
    /// How many equal paths are used at once.
    pub max_paths: usize,
    /// LOCAL_PREF of a route that says none: one of our own, or of another AS.
    pub default_local_pref: u32,
    /// The interface that peers' routes lead to, for filters.
    pub interface: Option<String>,
    /// The peers, by the name under which they are shown.
    pub peers: BTreeMap<PeerName, PeerSettings>,
}

impl Settings {
    /// A speaker without peers that does not listen.
    pub fn new(local_as: u32, router_id: Ipv4Addr) -> Self {
        Self {
            local_as,
            router_id,
            listen: BTreeSet::new(),
            cluster_id: None,
            local_addresses: BTreeSet::new(),
            next_hop_v4: None,
            next_hop_v6: None,
            graceful_restart: Duration::from_secs(120),
            hold_time: Duration::from_secs(90),
            max_paths: 16,
            default_local_pref: DEFAULT_LOCAL_PREF,
            interface: None,
            peers: BTreeMap::new(),
        }
    }

    /// What cannot be, said so that it can be set right.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.local_as == 0 {
            return Err(SettingsError::LocalAs);
        }
        if self.router_id.is_unspecified() {
            return Err(SettingsError::RouterId);
        }
        let hold = self.hold_time.as_secs();
        if hold == 1 || hold == 2 || hold > u64::from(u16::MAX) {
            return Err(SettingsError::HoldTime(hold));
        }
        let mut seen = BTreeMap::new();
        for (name, peer) in &self.peers {
            peer.check(name)?;
            if let Some(other) = seen.insert((peer.address, peer.scope_id), name) {
                return Err(SettingsError::SameAddress(
                    other.clone(),
                    name.clone(),
                    peer.address,
                ));
            }
        }
        Ok(())
    }
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// RFC 7607.
    #[error("local AS 0 is reserved: take 1–4294967295, such as 64512")]
    LocalAs,
    /// RFC 6286: any number but zero.
    #[error("the router id is 0.0.0.0: take an IPv4 address of the node")]
    RouterId,
    /// RFC 4271 §4.2.
    #[error("hold time {0} s: 0 for none, or 3–65535")]
    HoldTime(u64),
    /// RFC 7607.
    #[error("peer {0}: remote AS 0 is reserved: take 1–4294967295")]
    RemoteAs(PeerName),
    /// The TTL of what arrives is 255 less the hops.
    #[error("peer {0}: {1} hops: ttlSecurity is 1–254")]
    Hops(PeerName, u8),
    /// The kernel's TCP_MD5SIG_MAXKEYLEN.
    #[error("peer {0}: a password of {1} bytes: TCP MD5 takes 1–80")]
    Password(PeerName, usize),
    /// A connection is told from another by the peer's address.
    #[error("peers {0} and {1} have the same address {2}: keep one of them")]
    SameAddress(PeerName, PeerName, IpAddr),
    /// No route could be sent or received.
    #[error("peer {0} has neither IPv4 nor IPv6 routes to talk about: take one")]
    NoFamily(PeerName),
}

/// A peer's name: unique, and stable while its settings change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for PeerName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How to talk with one peer.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// Where it is.
    pub address: IpAddr,
    /// Its port when we connect.
    pub port: u16,
    /// The interface's index, for a link-local address; else 0.
    pub scope_id: u32,
    /// Why we talk with it.
    pub kind: PeerKind,
    /// The AS that its OPEN must say.
    pub remote_as: u32,
    /// Our AS on this session, if it is not the speaker's.
    pub local_as: Option<u32>,
    /// The address that we connect from.
    pub source: Option<IpAddr>,
    /// TCP MD5 (RFC 2385): 1–80 bytes.
    pub password: Option<String>,
    /// We wait for it to connect.
    pub passive: bool,
    /// GTSM (RFC 5082): the peer is at most so many hops away; 1 is the same link.
    pub ttl_security: Option<u8>,
    /// It is a client of ours (RFC 4456).
    pub route_reflector_client: bool,
    /// What next hop it is told.
    pub next_hop: NextHopMode,
    /// How often our own AS may be in a path it sends; Calico's numAllowedLocalASNumbers.
    pub allowed_local_as: u8,
    /// Keepalives are sent so often; a third of the hold time by default.
    pub keepalive_time: Option<Duration>,
    /// In place of [`Settings::graceful_restart`]; Calico's maxRestartTime.
    pub max_restart_time: Option<Duration>,
    /// IPv4 unicast routes are exchanged.
    pub ipv4: bool,
    /// IPv6 unicast routes are exchanged.
    pub ipv6: bool,
    /// It may send several paths for a prefix (RFC 7911).
    pub add_path_receive: bool,
    /// More prefixes than so many end the session (Cease, 1), so that a peer's memory is bounded.
    pub max_prefixes: usize,
    /// What it is told of other peers' routes leads through this node, which has to hear of them again
    /// after a restart before it can forward: then the peer is not asked to keep them (RFC 4724 §4.1).
    pub transit: bool,
    /// What is taken of its routes.
    pub import: Filter,
    /// What it is told of ours.
    pub export: Filter,
}

impl PeerSettings {
    /// A peer with everything as usual.
    pub fn new(address: IpAddr, remote_as: u32) -> Self {
        Self {
            address,
            port: PORT,
            scope_id: 0,
            kind: PeerKind::NodeToNodeMesh,
            remote_as,
            local_as: None,
            source: None,
            password: None,
            passive: false,
            ttl_security: None,
            route_reflector_client: false,
            next_hop: NextHopMode::Auto,
            allowed_local_as: 0,
            keepalive_time: None,
            max_restart_time: None,
            ipv4: true,
            ipv6: true,
            add_path_receive: true,
            max_prefixes: 4_000_000,
            transit: false,
            import: Filter::default(),
            export: Filter::default(),
        }
    }

    /// Whether a session that runs by `self` can go on by `new`: policies alone differ, which are
    /// applied to the routes that are there.
    pub fn same_session(&self, new: &Self) -> bool {
        let policies = |of: &Self| Self {
            kind: new.kind,
            route_reflector_client: new.route_reflector_client,
            next_hop: new.next_hop,
            allowed_local_as: new.allowed_local_as,
            max_prefixes: new.max_prefixes,
            transit: new.transit,
            import: new.import.clone(),
            export: new.export.clone(),
            ..of.clone()
        };
        policies(self) == *new
    }

    fn check(&self, name: &PeerName) -> Result<(), SettingsError> {
        if self.remote_as == 0 || self.local_as == Some(0) {
            return Err(SettingsError::RemoteAs(name.clone()));
        }
        if let Some(hops @ (0 | 255)) = self.ttl_security {
            return Err(SettingsError::Hops(name.clone(), hops));
        }
        if let Some(length @ (0 | 81..)) = self.password.as_ref().map(String::len) {
            return Err(SettingsError::Password(name.clone(), length));
        }
        if !self.ipv4 && !self.ipv6 {
            return Err(SettingsError::NoFamily(name.clone()));
        }
        Ok(())
    }
}

/// The password is left out.
impl fmt::Debug for PeerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSettings")
            .field("address", &self.address)
            .field("port", &self.port)
            .field("remote_as", &self.remote_as)
            .field("kind", &self.kind)
            .field("passive", &self.passive)
            .finish_non_exhaustive()
    }
}

/// Why a peer is one; shown as `calicoctl node status` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Every node with every other.
    NodeToNodeMesh,
    /// A BGPPeer for all nodes.
    Global,
    /// A BGPPeer that names or selects nodes.
    NodeSpecific,
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeToNodeMesh => "node-to-node mesh",
            Self::Global => "global",
            Self::NodeSpecific => "node specific",
        })
    }
}

/// The next hop that a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopMode {
    /// Ours towards other ASes, the route's own within ours (RFC 4271 §5.1.3).
    Auto,
    /// Ours always.
    Own,
    /// The route's own always; Calico's keepOriginalNextHop.
    Keep,
}
