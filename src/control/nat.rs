//! natOutgoing: what leaves a NAT pool for a destination in no pool gets the node's address.
//!
//! ```text
//!  workload ──▶ worker ──▶ host's TUN ──▶ kernel: forwarded, masqueraded ──▶ the world
//!  workload ◀── worker ◀── host's TUN ◀── kernel: translated back        ◀── the answers
//! ```

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::kernel::sysctl::{self, Sysctls};
use crate::kernel::{Error, Masquerade, MasqueradeRules};
use crate::resources::felix_configuration::NatOutgoingExclusions;
use crate::resources::{ClusterState, Node};

/// The node's masquerading, there while a pool asks for it.
pub struct OutgoingNat {
    node: String,
    /// The host's TUN device; without one, nothing leaves the overlay here.
    tun: Option<String>,
    wanted: MasqueradeRules,
    table: Option<Masquerade>,
    sysctls: Sysctls,
    complaints: Vec<String>,
}

/// What the pools ask for. Disabled pools count: they are how users keep networks outside the overlay
/// from being masqueraded to.
pub fn wanted(state: &ClusterState, exclusions: NatOutgoingExclusions) -> MasqueradeRules {
    let pools = || state.pools.values();
    let nat = pools().filter(|pool| pool.spec.nat_outgoing);
    let sources = nat.map(|pool| pool.cidr()).collect();
    let mut excluded: BTreeSet<IpNet> = pools().map(|pool| pool.cidr()).collect();
    if exclusions == NatOutgoingExclusions::PoolsAndHosts {
        let nodes = state.nodes.values().flat_map(Node::underlay_addresses);
        excluded.extend(nodes.map(IpNet::from));
    }
    MasqueradeRules { sources, excluded }
}

impl OutgoingNat {
    /// No masquerading yet, for a node and its TUN device.
    pub fn new(node: &str, tun: Option<String>) -> Self {
        Self {
            node: node.to_owned(),
            tun,
            wanted: MasqueradeRules::default(),
            table: None,
            sysctls: Sysctls::new(),
            complaints: Vec::new(),
        }
    }

    /// Makes the kernel's rules what the pools ask for.
    pub fn update(&mut self, wanted: MasqueradeRules) {
        if wanted != self.wanted {
            self.wanted = wanted;
            self.apply();
        }
    }

    /// Sees that the rules are still there; to be called about once a second.
    pub fn look_after(&mut self) {
        let ended = |table: &mut Masquerade| !table.is_alive();
        if self.table.as_mut().is_some_and(ended) {
            log::warn!("natOutgoing: nft has ended; starting it again");
            self.table = None;
            self.apply();
        }
    }

    fn apply(&mut self) {
        if self.wanted.sources.is_empty() {
            self.table = None;
            return;
        }
        let Some(tun) = self.tun.clone() else {
            return self.complain(
                "natOutgoing: this node has no TUN device to its kernel, so nothing leaves the \
                 overlay here; add `host: {}` to its configuration"
                    .to_owned(),
            );
        };
        if let Err(error) = self.apply_to(&tun) {
            self.table = None;
            let advice = match &error {
                Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    "install nftables"
                }
                _ => "see `nft list tables`",
            };
            self.complain(format!(
                "natOutgoing does not work, packets leave with their workload's address: {error}; \
                 {advice}"
            ));
        }
    }

    fn apply_to(&mut self, tun: &str) -> Result<(), Error> {
        self.forwarding(tun);
        if self.table.is_none() {
            let table = Masquerade::open(&self.node, tun)?;
            if !table.is_owned() {
                log::info!("natOutgoing: the kernel has no owned tables (before Linux 5.12)");
            }
            self.table = Some(table);
        }
        match &mut self.table {
            Some(table) => table.set(&self.wanted),
            None => Ok(()),
        }
    }

    /// Has the kernel forward what the TUN device brings; whether it forwards the answers, which come
    /// by other devices, is not ours to decide.
    fn forwarding(&mut self, tun: &str) {
        let forwarding = sysctl::interface_key("ipv4", tun, "forwarding");
        if let Err(error) = forwarding.and_then(|key| self.sysctls.set(&key, "1")) {
            self.complain(format!("natOutgoing: {error}"));
        }
        for (ipv4, key) in [
            (true, "ipv4/ip_forward"),
            (false, "ipv6/conf/all/forwarding"),
        ] {
            let sources = self.wanted.sources.iter();
            let used = sources.filter(|net| net.addr().is_ipv4() == ipv4).count() > 0;
            if used && sysctl::read(key).is_ok_and(|value| value == "0") {
                let name = key.replace('/', ".");
                self.complain(format!(
                    "natOutgoing: net.{name} is 0, so the kernel forwards no answers to workloads; \
                     set it to 1"
                ));
            }
        }
    }

    /// Says a thing once.
    fn complain(&mut self, what: String) {
        if !self.complaints.contains(&what) {
            log::warn!("{what}");
            self.complaints.push(what);
        }
    }
}
