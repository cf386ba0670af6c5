//! natOutgoing: what leaves a NAT pool for a destination in no pool gets the node's address.
//!
//! ```text
//!  workload ──▶ worker ──▶ host's TUN ──▶ kernel: forwarded, masqueraded ──▶ the world
//!  workload ◀── worker ◀── host's TUN ◀── kernel: translated back        ◀── the answers
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
    turns: Turns,
    sysctls: Sysctls,
    /// What keeps it from working, while it does.
    trouble: Vec<String>,
}

/// How often it is looked whether what worked is still there.
const LOOK: Duration = Duration::from_secs(10);

/// How soon what failed is tried again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How long `nft` may hold up the control thread in one go, and a second more to end: the supervisor's
/// watchdog (`WatchdogSec`) waits for ten.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the pools ask for. UDP gets no port of VXLAN as its source: answers would be taken for tunnel
/// packets. Disabled pools count: they are how users keep networks outside the overlay
/// from being masqueraded to.
pub fn wanted(
    state: &ClusterState,
    exclusions: NatOutgoingExclusions,
    vxlan_ports: BTreeSet<u16>,
) -> MasqueradeRules {
    let pools = || state.pools.values();
    let nat = pools().filter(|pool| pool.spec.nat_outgoing);
    let sources = nat.map(|pool| pool.cidr()).collect();
    let mut excluded: BTreeSet<IpNet> = pools().map(|pool| pool.cidr()).collect();
    if exclusions == NatOutgoingExclusions::PoolsAndHosts {
        let nodes = state.nodes.values().flat_map(Node::underlay_addresses);
        excluded.extend(nodes.map(IpNet::from));
    }
    MasqueradeRules {
        sources,
        excluded,
        spared: vxlan_ports,
    }
}

impl OutgoingNat {
    /// No masquerading yet, for a node and its TUN device.
    pub fn new(node: &str, tun: Option<String>) -> Self {
        Self {
            node: node.to_owned(),
            tun,
            wanted: MasqueradeRules::default(),
            table: None,
            turns: Turns::default(),
            sysctls: Sysctls::new(),
            trouble: Vec::new(),
        }
    }

    /// Makes the kernel's rules what the pools ask for.
    pub fn update(&mut self, wanted: MasqueradeRules, now: Instant) {
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        if self.wanted.sources.is_empty() {
            self.table = None;
            self.turns = Turns::default();
            self.trouble.clear();
        } else if self.table.is_some() || self.turns.may_try(now) {
            // What failed waits for its turn otherwise: an `nft` that hangs would hold up every change.
            self.apply(now, Instant::now() + PATIENCE);
        }
    }

    /// Sees that the rules are still there, and tries again what failed; to be called about once a second.
    pub fn look_after(&mut self, now: Instant) {
        if self.wanted.sources.is_empty() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        let looks = self.table.is_some() && self.turns.may_look(now);
        if let Some(lost) = self.lost(looks, end) {
            self.table = None;
            self.note(vec![lost]);
        }
        match self.table {
            None if self.turns.may_try(now) && Instant::now() < end => self.apply(now, end),
            Some(_) if looks => {
                self.turns.found_well(now);
                let trouble = self.forwarding();
                self.note(trouble);
            }
            _ => {}
        }
    }

    /// What keeps it from working.
    pub fn trouble(&self) -> &[String] {
        &self.trouble
    }

    /// What has become of the table, if it is there no more.
    fn lost(&mut self, looks: bool, end: Instant) -> Option<String> {
        let table = self.table.as_mut()?;
        if !table.is_alive() {
            return Some("natOutgoing: nft has ended; starting it again".to_owned());
        }
        if !looks || table.is_owned() {
            return None;
        }
        let error = table.check(end).err()?;
        Some(format!("natOutgoing: {error}; making it again"))
    }

    fn apply(&mut self, now: Instant, end: Instant) {
        let Some(tun) = self.tun.clone() else {
            return self.note(vec![
                "natOutgoing: this node has no TUN device to its kernel, so nothing leaves the \
                 overlay here; add `host: {}` to its configuration"
                    .to_owned(),
            ]);
        };
        let mut trouble = self.forwarding();
        if let Err(error) = self.apply_to(&tun, now, end) {
            self.table = None;
            let advice = match &error {
                Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    "install nftables"
                }
                _ => "see `nft list tables`",
            };
            trouble.push(format!(
                "natOutgoing does not work, packets leave with their workload's address: {error}; \
                 {advice}"
            ));
        }
        self.note(trouble);
    }

    fn apply_to(&mut self, tun: &str, now: Instant, end: Instant) -> Result<(), Error> {
        if let Some(table) = &mut self.table {
            return table.set(&self.wanted, end);
        }
        let begun = Instant::now();
        let opened = Masquerade::open(&self.node, tun, end).and_then(|mut table| {
            table.set(&self.wanted, end)?;
            Ok(table)
        });
        // A try that took long is followed by a pause all the same.
        self.turns.tried(now + begun.elapsed());
        let table = opened?;
        if !table.is_owned() {
            log::info!("natOutgoing: the kernel has no owned tables (before Linux 5.12)");
        }
        self.table = Some(table);
        Ok(())
    }

    /// Has the kernel forward what the TUN device brings; whether it forwards the answers, which come
    /// by other devices, is not ours to decide. What is wrong with that.
    fn forwarding(&mut self) -> Vec<String> {
        let mut trouble = Vec::new();
        let Some(tun) = &self.tun else {
            return trouble;
        };
        let forwarding = sysctl::interface_key("ipv4", tun, "forwarding");
        if let Err(error) = forwarding.and_then(|key| self.sysctls.set(&key, "1")) {
            trouble.push(format!("natOutgoing: {error}"));
        }
        for (ipv4, key) in [
            (true, "ipv4/ip_forward"),
            (false, "ipv6/conf/all/forwarding"),
        ] {
            let mut sources = self.wanted.sources.iter();
            let used = sources.any(|net| net.addr().is_ipv4() == ipv4);
            if used && sysctl::read(key).is_ok_and(|value| value == "0") {
                let name = key.replace('/', ".");
                trouble.push(format!(
                    "natOutgoing: net.{name} is 0, so the kernel forwards no answers to workloads; \
                     set it to 1"
                ));
            }
        }
        trouble
    }

    /// Keeps in mind what is wrong now, and says what is new of it.
    fn note(&mut self, trouble: Vec<String>) {
        let known = std::mem::replace(&mut self.trouble, trouble);
        for new in self.trouble.iter().filter(|one| !known.contains(one)) {
            log::warn!("{new}");
        }
        if self.trouble.is_empty() && !known.is_empty() {
            log::info!("natOutgoing works again");
        }
    }
}

/// When the table is made, tried again and looked at.
#[derive(Debug, Default)]
struct Turns {
    /// When that was done last.
    last: Option<Instant>,
    /// How long after that it is tried again.
    pause: Duration,
}

impl Turns {
    /// Whether it is time to make the table, if there is none.
    fn may_try(&self, now: Instant) -> bool {
        self.is_over(self.pause, now)
    }

    /// Whether it is time to look at it.
    fn may_look(&self, now: Instant) -> bool {
        self.is_over(LOOK, now)
    }

    /// It was tried to make it. What came of it does not matter: one that is gone at once is not to be made
    /// each second.
    fn tried(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(RETRY.0, RETRY.1);
        self.last = Some(now);
    }

    /// It has held until now.
    fn found_well(&mut self, now: Instant) {
        self.pause = Duration::ZERO;
        self.last = Some(now);
    }

    fn is_over(&self, pause: Duration, now: Instant) -> bool {
        let passed = |last| now.saturating_duration_since(last) >= pause;
        self.last.is_none_or(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_after_two_seconds_then_after_ever_more() {
        let start = Instant::now();
        let mut turns = Turns::default();
        assert!(turns.may_try(start));
        let mut now = start;
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            turns.tried(now);
            assert!(!turns.may_try(now + Duration::from_secs(pause - 1)));
            now += Duration::from_secs(pause);
            assert!(turns.may_try(now), "after {pause} s");
        }
        // What has held for a while is made again at once.
        turns.found_well(now);
        assert!(turns.may_try(now));
        assert!(!turns.may_look(now + Duration::from_secs(9)));
        assert!(turns.may_look(now + Duration::from_secs(10)));
        turns.tried(now);
        assert!(!turns.may_try(now + Duration::from_secs(1)));
        assert!(turns.may_try(now + Duration::from_secs(2)));
    }
}
