//! How large a packet gets through to another node: `underpass probe-mtu`.
//!
//! Echo requests with DF set, inside and out, go by the very way that other packets take, whatever MTU
//! that way is believed to have. A capture of the uplink watches for the answers and for ICMP errors,
//! so that any far end will do that answers an echo, and the kernel here need not know of it.
//!
//! An answer is as large as its request. Where the way back is the narrower one and drops silently,
//! that is what is measured.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::apply::{Forwarding, Hop};
use super::ports::UPLINK;
use crate::forward::{self, Adjacency, Egress, Encapsulation, Verdict, WorkerState};
use crate::observe::report::{MtuLimit, MtuReport};
use crate::packet::{Frame, HEADROOM};
use crate::port::capture::{Capture, CaptureSwitch, Direction};
use crate::resources::ClusterState;
use crate::wire::ethernet::Ethernet;
use crate::wire::icmp::{self, types};
use crate::wire::ipv4::{self, Ipv4, protocol};
use crate::wire::{Mtu, checksum, ethernet, udp, vxlan};
use crate::worker::mailbox::{Mailbox, Message};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_millis(500);

/// How often a size is tried before its packets count as lost.
const TRIES: u16 = 3;

/// The size that must get through: it fits any link (RFC 791 section 3.2).
const LEAST: u16 = 68;

/// Bytes of each captured packet that are looked at: an error's quotation of a VXLAN packet fits.
const SNAP: usize = 256;

/// Captured packets that wait to be looked at.
const CAPTURED: usize = 4096;

/// Where to probe, as the control thread knows it.
#[derive(Debug)]
pub struct Target {
    /// Who sends and who answers.
    source: Ipv4Addr,
    destination: Ipv4Addr,
    /// The far node's name and address.
    node: Option<String>,
    far_end: IpAddr,
    egress: Egress,
    /// The uplink's name and MTU.
    uplink: String,
    link: Mtu,
}

/// Finds where to send: `far` is a node's name, or any address behind one.
pub fn target(
    forwarding: &Forwarding,
    state: &ClusterState,
    uplink: (String, Mtu),
    far: &str,
) -> Result<Target, String> {
    let destination = match far.parse() {
        Ok(IpAddr::V4(address)) => address,
        Ok(IpAddr::V6(_)) => return Err("write an IPv4 address, or a node's name".to_owned()),
        Err(_) => tunnel_address(state, far)?,
    };
    let snapshot = forwarding.published().get();
    let next_hop = snapshot.fib.lookup_v4(destination);
    let Some(Hop::Remote(far_end, _)) = next_hop.and_then(|index| forwarding.hop(index)) else {
        return Err(format!("{destination} is not behind another node"));
    };
    let adjacency = next_hop.and_then(|index| snapshot.adjacencies.get(index.0 as usize));
    let egress = match adjacency {
        Some(Adjacency::Forward(egress)) => egress.clone(),
        Some(Adjacency::Unresolved) => {
            return Err(format!(
                "the underlay's next hop to {far_end} has not answered yet; try again in a moment"
            ));
        }
        _ => return Err(format!("the underlay has no route to {far_end}")),
    };
    let local = &forwarding.wanted().local;
    let workload = forwarding
        .wanted()
        .workloads
        .values()
        .flat_map(|workload| &workload.addresses)
        .find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
    let source = local
        .ipip_tunnel_addr
        .or(local.vxlan_tunnel_addr)
        .or(workload)
        .ok_or("this node has neither a tunnel address nor a workload to send from")?;
    let node = forwarding.wanted().peers.get(far_end);
    Ok(Target {
        source,
        destination,
        node: node.map(|peer| peer.node.to_string()),
        far_end: *far_end,
        egress,
        uplink: uplink.0,
        link: uplink.1,
    })
}

fn tunnel_address(state: &ClusterState, name: &str) -> Result<Ipv4Addr, String> {
    let Some((_, node)) = state.nodes.iter().find(|(known, _)| known.as_str() == name) else {
        let known: Vec<_> = state.nodes.keys().map(ToString::to_string).collect();
        return Err(format!(
            "there is no node '{name}'; there are: {}; or write an address behind one",
            known.join(", ")
        ));
    };
    let v4 = |address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    node.tunnel_addrs().find_map(v4).ok_or(format!(
        "node '{name}' has no tunnel address; write the address of one of its workloads"
    ))
}

/// What probes are sent with; one probe at a time.
pub struct Prober {
    /// Leaked once: frames are never freed.
    frame: Mutex<Frame>,
    uplink: Mailbox,
    switch: CaptureSwitch,
    /// Tells one run's answers from the last one's.
    runs: AtomicU16,
}

impl Prober {
    /// A prober that sends by the worker with this mailbox, which must serve the uplink.
    pub fn new(uplink: Mailbox, switch: CaptureSwitch) -> Self {
        Self {
            frame: Mutex::new(Frame::leak(HEADROOM + 4096, HEADROOM)),
            uplink,
            switch,
            runs: AtomicU16::new(std::process::id() as u16),
        }
    }

    /// Finds the largest packet that gets through: up to half a minute where packets are lost
    /// without an error.
    pub fn probe(&self, target: &Target) -> Result<MtuReport, String> {
        let Ok(mut frame) = self.frame.try_lock() else {
            return Err("another probe is running; try again when it has ended".to_owned());
        };
        let capture = self
            .switch
            .attach(std::slice::from_ref(&target.uplink), SNAP, CAPTURED)
            .map_err(|error| error.to_string())?;
        let overhead = target.egress.encapsulation.overhead();
        let mut sweep = Sweep::new(target.link.less(overhead).0);
        let mut probe = Probe {
            target,
            capture: &capture,
            uplink: &self.uplink,
            frame: &mut frame,
            identifier: self.runs.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        };
        while let Some(size) = sweep.next() {
            let outcome = probe.try_size(size)?;
            sweep.note(size, outcome);
        }
        sweep.report(target)
    }
}

/// What became of the packets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// This router's next link takes inner packets up to this size.
    TooBig(IpAddr, u16),
    Lost,
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
}

impl Sweep {
    fn new(largest: u16) -> Self {
        Self {
            largest,
            fits: None,
            refused: None,
            named: None,
            over: false,
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
            Outcome::TooBig(_, named) => {
                self.refused = Some((size, outcome));
                self.named = Some(named);
            }
            Outcome::Lost => self.refused = Some((size, outcome)),
        }
        // Not even the least gets through: there is nothing to search.
        self.over = self.fits.is_none();
    }

    fn report(&self, target: &Target) -> Result<MtuReport, String> {
        let Some(fits) = self.fits else {
            return Err(match self.refused {
                Some((_, Outcome::TooBig(router, mtu))) => {
                    format!("{router} refuses even {LEAST} bytes: it names {mtu}")
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
            Some(_) => MtuLimit::Silent,
        };
        Ok(MtuReport {
            destination: target.destination.into(),
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
    identifier: u16,
    sequence: u16,
}

impl Probe<'_> {
    fn try_size(&mut self, size: u16) -> Result<Outcome, String> {
        for _ in 0..TRIES {
            self.sequence = self.sequence.wrapping_add(1);
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
        let packet = self.request(usize::from(size));
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

    /// An echo request of this many bytes, DF set.
    fn request(&self, size: usize) -> Vec<u8> {
        let ip = Ipv4 {
            header_len: ipv4::HEADER_LEN,
            tos: 0,
            total_len: size,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: protocol::ICMP,
            source: self.target.source,
            destination: self.target.destination,
        };
        let mut packet = vec![0x55; size];
        ip.write(&mut packet);
        let message = &mut packet[ipv4::HEADER_LEN..];
        message[..4].copy_from_slice(&[types::ECHO_REQUEST, 0, 0, 0]);
        message[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        let sum = checksum::of(message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// What a frame that came in by the uplink says about the probe that was sent last.
    fn read(&self, frame: &[u8]) -> Option<Outcome> {
        let header = Ethernet::parse(frame).ok()?;
        let packet = frame.get(header.header_len()..)?;
        let (ip, payload) = split(packet)?;
        if ip.protocol == protocol::ICMP
            && let Some((mtu, quoted)) = too_big(payload)
            && self.inner(quoted).is_some_and(|inner| self.is_probe(inner))
        {
            let overhead = self.target.egress.encapsulation.overhead();
            return Some(Outcome::TooBig(
                ip.source.into(),
                mtu.saturating_sub(overhead),
            ));
        }
        self.read_inner(self.inner(packet)?)
    }

    /// What the packet within the tunnel says: the answer, or an error from behind the tunnel.
    fn read_inner(&self, packet: &[u8]) -> Option<Outcome> {
        let (ip, payload) = split(packet)?;
        if ip.protocol != protocol::ICMP {
            return None;
        }
        if let Some((mtu, quoted)) = too_big(payload)
            && self.is_probe(quoted)
        {
            return Some(Outcome::TooBig(ip.source.into(), mtu));
        }
        let answers = ip.source == self.target.destination
            && ip.destination == self.target.source
            && payload.first() == Some(&types::ECHO_REPLY)
            && self.has_our_numbers(payload);
        answers.then_some(Outcome::Answered)
    }

    /// Whether a quoted packet is the probe. A router that quotes too little of it to tell counts as
    /// silent.
    fn is_probe(&self, quoted: &[u8]) -> bool {
        split(quoted).is_some_and(|(ip, payload)| {
            ip.source == self.target.source
                && ip.destination == self.target.destination
                && ip.protocol == protocol::ICMP
                && self.has_our_numbers(payload)
        })
    }

    fn has_our_numbers(&self, message: &[u8]) -> bool {
        message.get(4..6) == Some(&self.identifier.to_be_bytes()[..])
            && message.get(6..8) == Some(&self.sequence.to_be_bytes()[..])
    }

    /// The packet within a tunnel packet, which may be a first fragment or cut short.
    fn inner<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let (ip, payload) = match packet.first()? >> 4 {
            4 => split(packet)?,
            _ => return None,
        };
        match self.target.egress.encapsulation {
            Encapsulation::None => Some(packet),
            Encapsulation::Ipip => (ip.protocol == protocol::IPIP).then_some(payload),
            Encapsulation::Vxlan | Encapsulation::VxlanOverIpv6 => {
                const BEFORE: usize = udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;
                (ip.protocol == protocol::UDP)
                    .then(|| payload.get(BEFORE..))
                    .flatten()
            }
        }
    }
}

/// An IPv4 header and what follows it, of a packet that may be cut short.
fn split(packet: &[u8]) -> Option<(Ipv4, &[u8])> {
    let ip = Ipv4::parse_quoted(packet).ok()?;
    let payload = packet.get(ip.header_len..)?;
    (ip.fragment_offset == 0).then_some((ip, payload))
}

/// The MTU that a fragmentation needed names, and what it quotes.
fn too_big(message: &[u8]) -> Option<(u16, &[u8])> {
    let header: &[u8; icmp::HEADER_LEN] = message.first_chunk()?;
    let matches = header[0] == types::DESTINATION_UNREACHABLE
        && header[1] == icmp::codes::FRAGMENTATION_NEEDED;
    let mtu = u16::from_be_bytes([header[6], header[7]]);
    matches.then(|| (mtu, &message[icmp::HEADER_LEN..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 254));

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

    #[test]
    fn silence_is_searched_by_halves() {
        for path in [68, 69, 576, 1279, 1379, 1479] {
            let (fits, refused, steps) = sweep(1480, path, None);
            assert_eq!((fits, refused), (Some(path), Some(path + 1)));
            assert!(steps <= 13, "{path}: {steps}");
        }
    }

    #[test]
    fn nobody_there_is_known_at_once() {
        assert_eq!(sweep(1480, 20, None), (None, Some(68), 1));
    }
}
