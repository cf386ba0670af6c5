//! BGP as observers see it: sessions and routes as rows.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who tells a node where blocks are, and how that goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpStatus {
    /// `off`, `internal` or `external`.
    pub mode: String,
    /// The sessions of the node's own speaker.
    #[serde(default)]
    pub neighbors: Vec<NeighborRow>,
    /// Learned routes in effect.
    #[serde(default)]
    pub learned: u64,
    /// Learned routes that are known and not in effect.
    #[serde(default)]
    pub aside: u64,
    /// What cannot be done as the resources say.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborRow {
    /// Its name, as Calico names BIRD's protocols.
    pub name: String,
    /// The peer's address.
    pub address: IpAddr,
    /// `node-to-node mesh`, `global` or `node specific`.
    pub kind: String,
    /// The AS that the peer must have.
    pub remote_as: u32,
    /// The RFC's name of the state.
    pub state: String,
    /// Since when it is there, in seconds since 1970.
    pub since: u64,
    /// What hinders it, or ended it the last time.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Whether the peer restarts and its routes are kept (RFC 4724).
    #[serde(default)]
    pub restarting: bool,
    /// What was agreed with the peer, while the session is up: names of capabilities.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The agreed hold time in seconds.
    #[serde(default)]
    pub hold_time: Option<u16>,
    /// Prefixes that it has told.
    pub received: u64,
    /// Those of them that passed every check.
    pub accepted: u64,
    /// Prefixes that it was told.
    pub advertised: u64,
    /// Messages from it.
    pub messages_in: u64,
    /// Messages to it.
    pub messages_out: u64,
    /// How often the session came up.
    pub established: u64,
    /// UPDATEs taken as withdrawals, since they were malformed (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Messages that ended the session by a NOTIFICATION of ours.
    pub errors: u64,
}

impl NeighborRow {
    /// Whether routes are exchanged.
    pub fn is_up(&self) -> bool {
        self.state == "Established"
    }

    /// BIRD's and so calicoctl's word for the state: the state, and what hinders it.
    pub fn info(&self) -> String {
        match &self.last_error {
            Some(error) if !self.is_up() => format!("{} {error}", self.state),
            _ => self.state.clone(),
        }
    }
}

/// What is asked of a speaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpRequest {
    /// Which of its tables, or what it is to do.
    pub what: BgpQuestion,
    /// The peer, by address or name.
    #[serde(default)]
    pub peer: Option<String>,
    /// Only this prefix.
    #[serde(default)]
    pub prefix: Option<IpNet>,
    /// Rows to tell at most.
    #[serde(default)]
    pub limit: Option<usize>,
    /// The file on the node that is dumped into.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// Which of a speaker's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BgpQuestion {
    /// The paths in use, own ones too.
    Routes,
    /// What peers have told, used or not.
    Received,
    /// What a peer was told.
    Advertised,
    /// All that peers have told, as MRT (RFC 6396), into a file on the node.
    Dump,
    /// Nothing; a peer's session is ended and begun anew.
    Reset,
    /// Nothing; a peer is asked for its routes again.
    Refresh,
}

/// A speaker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpAnswer {
    /// The rows, in order of prefix.
    pub rows: Vec<BgpRow>,
    /// How many there are, those over the limit too.
    pub total: u64,
}

/// A route in a speaker's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpRow {
    /// The destination.
    pub prefix: IpNet,
    /// Where packets go.
    pub next_hop: IpAddr,
    /// Who told it; none for an own one.
    #[serde(default)]
    pub peer: Option<String>,
    /// The ASes on the way.
    pub as_path: String,
    /// `IGP`, `EGP` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF.
    #[serde(default)]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(default)]
    pub med: Option<u32>,
    /// Communities, as `aa:nn`, and large ones, as `aa:nn:mm`.
    #[serde(default)]
    pub communities: Vec<String>,
    /// Who brought it into this AS, by reflection.
    #[serde(default)]
    pub originator: Option<IpAddr>,
    /// Whether it is in use.
    pub best: bool,
    /// Why it cannot be.
    #[serde(default)]
    pub unusable: Option<String>,
    /// Whether its peer restarts.
    #[serde(default)]
    pub stale: bool,
    /// When it came, in seconds since 1970.
    pub since: u64,
}
