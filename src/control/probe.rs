//! How large a packet gets through to another node: `underpass probe-mtu`.
//!
//! Echo requests with DF set, inside and out, go by the very way that other packets take, whatever MTU
//! that way is believed to have. A capture of the uplink watches for the answers and for ICMP errors,
//! so that any far end will do that answers an echo, and the kernel here need not know of it.
//!
//! An answer is as large as its request. Where the way back is the narrower one and drops silently,
//! that is what is measured.

mod ways;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::apply::Forwarding;
use super::echo::{self, Packet};
use super::ports::UPLINK;
use crate::forward::{self, Adjacency, Egress, Verdict, WorkerState};
use crate::observe::report::{MtuLimit, MtuReport};
use crate::packet::{Frame, HEADROOM};
use crate::port::capture::{Capture, CaptureSwitch, Direction};
use crate::resources::ClusterState;
use crate::wire::ethernet::Ethernet;
use crate::wire::ipv4::protocol;
use crate::wire::{Mtu, ethernet, udp, vxlan};
use crate::worker::mailbox::{Mailbox, Message};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_millis(500);

/// The most that a sweep takes: every size of a search by halves is lost.
const LONGEST: Duration = Duration::from_secs(30);

/// How often a size is tried before its packets count as lost.
const TRIES: u16 = 3;

/// The size that must get through: it fits any link (RFC 791 section 3.2).
const LEAST: u16 = 68;

/// Bytes of each captured packet that are looked at: an error's quotation of a VXLAN packet fits.
const SNAP: usize = 256;

/// Captured packets that wait to be looked at.
const CAPTURED: usize = 4096;

/// Where to probe, as the control thread knows it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Who sends and who answers.
    source: IpAddr,
    destination: IpAddr,
    /// The far node's name and address.
    node: Option<String>,
    far_end: IpAddr,
    /// Whether the far node itself answers, not a workload of its.
    own: bool,
    egress: Egress,
    /// The encapsulations that are not in use.
    others: Vec<Egress>,
    /// The uplink's name and MTU.
    uplink: String,
    link: Mtu,
}

impl Target {
    /// The largest packet that the uplink has room for.
    fn room(&self) -> u16 {
        self.link.less(self.egress.encapsulation.overhead()).0
    }
}

/// Finds where to send: `far` is a node's name, or any address behind one.
pub fn target(
    forwarding: &Forwarding,
    state: &ClusterState,
    uplink: (String, Mtu),
    far: &str,
) -> Result<Target, String> {
    let destination = match far.parse() {
        Ok(address) => address,
        Err(_) => tunnel_address(state, far, None)?,
    };
    way_to(forwarding, state, uplink, destination)
}

/// Finds where to send to learn of the path to a node's underlay address, if it has a tunnel address
/// that is reached by it.
pub fn target_by(
    forwarding: &Forwarding,
    state: &ClusterState,
    uplink: (String, Mtu),
    far_end: IpAddr,
) -> Result<Target, String> {
    let peer = forwarding.wanted().peers.get(&far_end);
    let peer = peer.ok_or_else(|| format!("{far_end} is no known node's"))?;
    let destination = tunnel_address(state, peer.node.as_str(), Some(far_end.is_ipv4()))?;
    let target = way_to(forwarding, state, uplink, destination)?;
    if target.far_end != far_end {
        return Err(format!("{destination} is reached by {}", target.far_end));
    }
    Ok(target)
}

fn way_to(
    forwarding: &Forwarding,
    state: &ClusterState,
    uplink: (String, Mtu),
    destination: IpAddr,
) -> Result<Target, String> {
    let snapshot = forwarding.published().get();
    let next_hop = match destination {
        IpAddr::V4(address) => snapshot.fib.lookup_v4(address),
        IpAddr::V6(address) => snapshot.fib.lookup_v6(address),
    };
    let hop = next_hop.and_then(|index| forwarding.hop(index));
    let Some(far_end) = hop.and_then(|hop| forwarding.far_end(hop)) else {
        return Err(format!("{destination} is not behind another node"));
    };
    let adjacency = next_hop.and_then(|index| snapshot.adjacencies.get(index.0 as usize));
    let egress = match adjacency {
        Some(Adjacency::Unresolved) => {
            return Err(format!(
                "the underlay's next hop to {far_end} has not answered yet; try again in a moment"
            ));
        }
        adjacency => adjacency
            .and_then(Adjacency::egress)
            .ok_or_else(|| format!("the underlay has no route to {far_end}"))?
            .clone(),
    };
    let source = own_address(forwarding, destination.is_ipv4())
        .ok_or("this node has neither a tunnel address nor a workload to send from")?;
    let node = forwarding.wanted().peers.get(&far_end);
    let mut nodes = state.nodes.values();
    Ok(Target {
        source,
        destination,
        node: node.map(|peer| peer.node.to_string()),
        far_end,
        own: nodes.any(|node| node.tunnel_addrs().any(|own| own == destination)),
        others: ways::others(forwarding, &snapshot, &egress, far_end),
        egress,
        uplink: uplink.0,
        link: uplink.1,
    })
}

/// What this node sends probes of that family from.
fn own_address(forwarding: &Forwarding, v4: bool) -> Option<IpAddr> {
    let wanted = forwarding.wanted();
    let local = &wanted.local;
    let tunnels = [local.ipip_tunnel_addr, local.vxlan_tunnel_addr].map(|own| own.map(IpAddr::V4));
    let tunnels = tunnels
        .into_iter()
        .chain([local.vxlan_tunnel_addr_v6.map(IpAddr::V6)]);
    let workloads = wanted
        .workloads
        .values()
        .flat_map(|workload| workload.addresses.iter().copied());
    tunnels
        .flatten()
        .chain(workloads)
        .find(|address| address.is_ipv4() == v4)
}

/// A node's tunnel address: of that family, or IPv4 if it has both.
fn tunnel_address(state: &ClusterState, name: &str, v4: Option<bool>) -> Result<IpAddr, String> {
    let Some((_, node)) = state.nodes.iter().find(|(known, _)| known.as_str() == name) else {
        let known: Vec<_> = state.nodes.keys().map(ToString::to_string).collect();
        return Err(format!(
            "there is no node '{name}'; there are: {}; or write an address behind one",
            known.join(", ")
        ));
    };
    let of = |v4| {
        node.tunnel_addrs()
            .find(|address: &IpAddr| address.is_ipv4() == v4)
    };
    let address = match v4 {
        Some(v4) => of(v4),
        None => of(true).or_else(|| of(false)),
    };
    address.ok_or(format!(
        "node '{name}' has no tunnel address; write the address of one of its workloads"
    ))
}

/// What probes are sent with; one probe at a time.
pub struct Prober {
    /// Leaked once: frames are never freed.
    frame: Mutex<Frame>,
    uplink: Mailbox,
    switch: CaptureSwitch,
    /// Tells one run's answers from the last one's, and from what somebody else makes up: it begins
    /// where nobody knows.
    runs: AtomicU32,
}

impl Prober {
    /// A prober that sends by the worker with this mailbox, which must serve the uplink.
    pub fn new(uplink: Mailbox, switch: CaptureSwitch) -> Self {
        Self {
            frame: Mutex::new(Frame::leak(HEADROOM + 4096, HEADROOM)),
            uplink,
            switch,
            runs: AtomicU32::new(unguessable()),
        }
    }

    /// Finds the largest packet that gets through: up to half a minute where packets are lost
    /// without an error. Waits for its turn as long as one other probe may take: the node itself
    /// measures a path that it hears of.
    pub fn probe(&self, target: &Target) -> Result<MtuReport, String> {
        let end = Instant::now() + LONGEST;
        loop {
            match self.frame.try_lock() {
                Ok(frame) => return self.sweep(Sweep::new(target.room()), target, frame),
                Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
                Err(_) => {
                    return Err("other probes are running; try again when they have ended".into());
                }
            }
        }
    }

    /// The largest packet, outer header included, that gets through; waits for its turn.
    pub fn measure(&self, target: &Target) -> Result<Mtu, String> {
        let frame = self.frame.lock().map_err(|error| error.to_string())?;
        let sweep = Sweep::of_path(target.room());
        let report = self.sweep(sweep, target, frame)?;
        Ok(Mtu(report.inner + report.overhead))
    }

    fn sweep(
        &self,
        mut sweep: Sweep,
        target: &Target,
        mut frame: MutexGuard<'_, Frame>,
    ) -> Result<MtuReport, String> {
        let capture = self.attach(target)?;
        let mut probe = self.probe_of(target, &capture, &mut frame);
        while let Some(size) = sweep.next() {
            let outcome = probe.try_size(size)?;
            sweep.note(size, outcome.at(target.own.then_some(target.far_end)));
        }
        sweep.report(target)
    }

    fn attach(&self, target: &Target) -> Result<Capture, String> {
        self.switch
            .attach(std::slice::from_ref(&target.uplink), SNAP, CAPTURED)
            .map_err(|error| error.to_string())
    }

    fn probe_of<'a>(
        &'a self,
        target: &'a Target,
        capture: &'a Capture,
        frame: &'a mut Frame,
    ) -> Probe<'a> {
        Probe {
            target,
            capture,
            uplink: &self.uplink,
            frame,
            // Odd steps go through all numbers, and the next one is not next to this one.
            number: self.runs.fetch_add(0x9e37_79b1, Ordering::Relaxed),
        }
    }
}

/// What became of the packets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// This router's next link takes inner packets up to this size.
    TooBig(IpAddr, u16),
    /// The same, of the packet within: it got through the tunnel, and the link is behind that.
    TooBigBehind(IpAddr, u16),
    /// Somebody says by ICMP, with this code of "unreachable", that it goes no further.
    Refused(IpAddr, u8),
    Lost,
}

impl Outcome {
    /// What is too large for the far node's own address has come all the way to that node: its TUN
    /// device takes less than its uplink, and workloads' packets do not go there.
    fn at(self, node: Option<IpAddr>) -> Self {
        match self {
            Self::TooBig(by, _) if node == Some(by) => Self::Answered,
            other => other,
        }
    }
}

/// Which sizes are tried: the least, the largest, what a router names and one more, and halves where
/// packets are lost without a word.
#[derive(Debug)]
struct Sweep {
    largest: u16,
    fits: Option<u16>,
    /// The smallest size that is known not to fit, and what was said of it.
    refused: Option<(u16, Outcome)>,
    named: Option<u16>,
    over: bool,
    /// Whether it is enough to come out of the tunnel.
    path_alone: bool,
}

impl Sweep {
    fn new(largest: u16) -> Self {
        Self {
            largest,
            fits: None,
            refused: None,
            named: None,
            over: false,
            path_alone: false,
        }
    }

    /// One that looks for the path's own MTU, whatever is behind the tunnel.
    fn of_path(largest: u16) -> Self {
        Self {
            path_alone: true,
            ..Self::new(largest)
        }
    }

    /// The next size to try; none when it is known which is the largest.
    fn next(&mut self) -> Option<u16> {
        if self.over || self.largest < LEAST {
            return None;
        }
        let Some(fits) = self.fits else {
            return Some(LEAST);
        };
        let Some((refused, _)) = self.refused else {
            return (fits < self.largest).then_some(self.largest);
        };
        if fits + 1 >= refused {
            return None;
        }
        let within = |size: &u16| (fits + 1..refused).contains(size);
        match self.named {
            Some(named) if within(&named) => Some(named),
            Some(named) if named == fits => Some(fits + 1),
            _ => Some(fits + (refused - fits) / 2),
        }
    }

    fn note(&mut self, size: u16, outcome: Outcome) {
        match outcome {
            Outcome::Answered => self.fits = Some(size),
            Outcome::TooBigBehind(..) if self.path_alone => self.fits = Some(size),
            Outcome::TooBig(_, named) | Outcome::TooBigBehind(_, named) => {
                self.refused = Some((size, outcome));
                self.named = Some(named);
            }
            Outcome::Refused(..) | Outcome::Lost => self.refused = Some((size, outcome)),
        }
        // Not even the least gets through: there is nothing to search.
        self.over = self.fits.is_none();
    }

    fn report(&self, target: &Target) -> Result<MtuReport, String> {
        let Some(fits) = self.fits else {
            return Err(match self.refused {
                Some((_, Outcome::TooBig(router, mtu) | Outcome::TooBigBehind(router, mtu))) => {
                    format!("{router} refuses even {LEAST} bytes: it names {mtu}")
                }
                Some((_, Outcome::Refused(router, code))) => {
                    let icmp = if router.is_ipv4() {
                        "ICMP 3"
                    } else {
                        "ICMPv6 1"
                    };
                    let far_end = target.far_end;
                    format!("{router} says that {far_end} is not reached ({icmp}/{code})")
                }
                _ => format!(
                    "{} ({}) does not answer an echo request of {LEAST} bytes",
                    target.destination, target.far_end
                ),
            });
        };
        let overhead = target.egress.encapsulation.overhead();
        let limit = match self.refused {
            None => MtuLimit::Uplink {
                interface: target.uplink.clone(),
                mtu: target.link.0,
            },
            Some((_, Outcome::TooBig(router, _))) => MtuLimit::Link { router },
            Some((_, Outcome::TooBigBehind(router, _))) => MtuLimit::BehindTunnel { router },
            Some(_) => MtuLimit::Silent,
        };
        Ok(MtuReport {
            destination: target.destination,
            node: target.node.clone(),
            far_end: target.far_end,
            inner: fits,
            overhead,
            limit,
        })
    }
}

/// One run's way of sending and listening.
struct Probe<'a> {
    target: &'a Target,
    capture: &'a Capture,
    uplink: &'a Mailbox,
    frame: &'a mut Frame,
    /// What the last probe is known by: identifier and sequence number.
    number: u32,
}

impl Probe<'_> {
    fn try_size(&mut self, size: u16) -> Result<Outcome, String> {
        for _ in 0..TRIES {
            self.number = self.number.wrapping_add(1);
            self.send(size)?;
            let end = Instant::now() + WAIT;
            while let Ok(packet) = self.capture.packets().recv_deadline(end) {
                if packet.direction == Direction::In
                    && let Some(outcome) = self.read(&packet.bytes)
                {
                    return Ok(outcome);
                }
            }
        }
        Ok(Outcome::Lost)
    }

    fn send(&mut self, size: u16) -> Result<(), String> {
        let Target {
            source,
            destination,
            ..
        } = self.target;
        let packet = echo::request(*source, *destination, self.number, usize::from(size));
        if !self.frame.fill(&packet, HEADROOM) {
            return Err(format!("{size} bytes are more than a frame holds"));
        }
        let mut state = WorkerState::new(0, 1);
        let egress = &self.target.egress;
        match forward::originate_by(egress, &mut state, self.frame) {
            Verdict::Transmit(_) => {}
            other => return Err(format!("a probe cannot be sent: {other:?}")),
        }
        let message = Message::Transmit(UPLINK, self.frame.bytes().to_vec());
        self.uplink
            .post(message)
            .map_err(|_| "the worker of the uplink is too busy for a probe".to_owned())
    }

    /// What a frame that came in by the uplink says about the probe that was sent last.
    fn read(&self, frame: &[u8]) -> Option<Outcome> {
        let header = Ethernet::parse(frame).ok()?;
        let packet = Packet::read(frame.get(header.header_len()..)?)?;
        if let Some(outcome) = self.too_big(&packet) {
            return Some(outcome);
        }
        if let Some((code, quoted)) = packet.unreachable()
            && Packet::read(quoted)
                .and_then(|quoted| self.inner(quoted))
                .is_some_and(|inner| self.is_probe(&inner))
        {
            return Some(Outcome::Refused(packet.source, code));
        }
        self.read_inner(&self.inner(packet)?)
    }

    /// What the packet within the tunnel says: the answer, or an error from behind the tunnel.
    fn read_inner(&self, packet: &Packet<'_>) -> Option<Outcome> {
        if let Some(outcome) = self.too_big(packet) {
            return Some(outcome);
        }
        let answers = packet.source == self.target.destination
            && packet.destination == self.target.source
            && packet.answered_number() == Some(self.number);
        answers.then_some(Outcome::Answered)
    }

    /// What an error says that quotes the probe: of the tunnel packet, or of what had come out of it.
    fn too_big(&self, packet: &Packet<'_>) -> Option<Outcome> {
        let (mtu, quoted) = packet.too_big()?;
        let quoted = Packet::read(quoted)?;
        if !self
            .inner(quoted)
            .is_some_and(|inner| self.is_probe(&inner))
        {
            return None;
        }
        let overhead = self.target.egress.encapsulation.overhead();
        Some(if overhead > 0 && self.is_probe(&quoted) {
            Outcome::TooBigBehind(packet.source, mtu)
        } else {
            Outcome::TooBig(packet.source, mtu.saturating_sub(overhead))
        })
    }

    /// Whether a quoted packet is the probe. A router that quotes too little of it to tell counts as
    /// silent.
    fn is_probe(&self, quoted: &Packet<'_>) -> bool {
        quoted.source == self.target.source
            && quoted.destination == self.target.destination
            && quoted.asked_number() == Some(self.number)
    }

    /// The packet within a tunnel packet, which may be a first fragment or cut short; a packet that is in
    /// none as it is. The far node answers in the encapsulation that it has for the answer.
    fn inner<'a>(&self, packet: Packet<'a>) -> Option<Packet<'a>> {
        const BEFORE: usize = udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;
        let at = match packet.protocol {
            protocol::IPIP => 0,
            protocol::UDP => BEFORE,
            _ => return Some(packet),
        };
        Packet::read(packet.payload.get(at..)?)
    }
}

/// A number that nobody who does not see our packets knows.
pub(super) fn unguessable() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 30, 0, 254));

    /// Sweeps a path that takes `path` bytes, and says what was found, by whose word, in how many
    /// steps.
    fn sweep(largest: u16, path: u16, speaks: Option<u16>) -> (Option<u16>, Option<u16>, usize) {
        let mut sweep = Sweep::new(largest);
        let mut steps = 0;
        while let Some(size) = sweep.next() {
            let outcome = match speaks {
                _ if size <= path => Outcome::Answered,
                Some(named) => Outcome::TooBig(ROUTER, named),
                None => Outcome::Lost,
            };
            sweep.note(size, outcome);
            steps += 1;
            assert!(steps < 50, "{sweep:?}");
        }
        (sweep.fits, sweep.refused.map(|(size, _)| size), steps)
    }

    #[test]
    fn a_path_as_wide_as_the_uplink_takes_two_steps() {
        assert_eq!(sweep(1450, 1450, None), (Some(1450), None, 2));
        assert_eq!(sweep(1450, 9000, None), (Some(1450), None, 2));
        assert_eq!(sweep(68, 68, None), (Some(68), None, 1));
    }

    #[test]
    fn a_router_that_names_its_mtu_is_checked_to_the_byte() {
        assert_eq!(sweep(1480, 1380, Some(1380)), (Some(1380), Some(1381), 4));
        // One that names too much, or nothing, is searched like one that is silent.
        for wrong in [0, 1379, 1400, 1479, 9000] {
            let (fits, refused, steps) = sweep(1480, 1380, Some(wrong));
            assert_eq!((fits, refused), (Some(1380), Some(1381)), "{wrong}");
            assert!(steps <= 15, "{wrong}: {steps}");
        }
    }

    /// The link behind the tunnel is told from the path's own narrow one; the path's own MTU is found
    /// whatever is behind it.
    #[test]
    fn a_link_behind_the_tunnel_is_not_the_paths() {
        let search = |mut sweep: Sweep, path: u16, behind: u16| {
            while let Some(size) = sweep.next() {
                let outcome = match size {
                    size if size > path => Outcome::TooBig(ROUTER, path),
                    size if size > behind => Outcome::TooBigBehind(ROUTER, behind),
                    _ => Outcome::Answered,
                };
                sweep.note(size, outcome);
            }
            (sweep.fits, sweep.refused.map(|(_, outcome)| outcome))
        };
        let link = |mtu| Some(Outcome::TooBig(ROUTER, mtu));
        let behind = |mtu| Some(Outcome::TooBigBehind(ROUTER, mtu));
        let whole = || Sweep::new(1480);
        assert_eq!(search(whole(), 1480, 1300), (Some(1300), behind(1300)));
        assert_eq!(search(whole(), 1380, 1300), (Some(1300), behind(1300)));
        assert_eq!(search(whole(), 1300, 1380), (Some(1300), link(1300)));
        let path = || Sweep::of_path(1480);
        assert_eq!(search(path(), 1480, 1300), (Some(1480), None));
        assert_eq!(search(path(), 1380, 1300), (Some(1380), link(1380)));
        assert_eq!(search(path(), 1480, 60), (Some(1480), None));
    }

    #[test]
    fn silence_is_searched_by_halves() {
        for path in [68, 69, 576, 1279, 1379, 1479] {
            let (fits, refused, steps) = sweep(1480, path, None);
            assert_eq!((fits, refused), (Some(path), Some(path + 1)));
            assert!(steps <= 13, "{path}: {steps}");
        }
    }

    #[test]
    fn what_the_far_node_itself_finds_too_large_has_arrived() {
        let (node, other) = ([10, 30, 0, 12].into(), Outcome::TooBig(ROUTER, 1380));
        let own = Outcome::TooBig(node, 1480);
        assert_eq!(own.at(Some(node)), Outcome::Answered);
        assert_eq!(own.at(None), own, "a workload's device counts");
        assert_eq!(other.at(Some(node)), other);
    }

    #[test]
    fn nobody_there_is_known_at_once() {
        assert_eq!(sweep(1480, 20, None), (None, Some(68), 1));
    }
}
