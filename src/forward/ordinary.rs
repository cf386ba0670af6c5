//! Stages 1 and 2 at once, for the packets that almost all are: IPv4 without options or fragments, in
//! an untagged frame to this port, from whom it may come; opened, if it is a tunnel packet to this node.
//!
//! What is recognised here comes out as the stages one by one would have it, and whatever else there
//! is goes through them, untouched: they alone know why a packet is dropped. So nothing here may take
//! what they refuse; the tests below compare the two. What it is for is the number of
//! instructions: headers are read as words, at places that the compiler knows, and what a batch has in
//! common is looked at once.

use std::net::Ipv4Addr;

use super::parse::never_forwarded_v4;
use super::{PortConfig, PortRole, Snapshot, Tunnels, ecn, reverse_path};
use crate::packet::{Frame, Link};
use crate::wire::ipv4::{self, Plain, protocol};
use crate::wire::{MacAddr, ethernet, partial, udp, vxlan};

/// Bytes up to the packet in a frame.
const LINK: usize = ethernet::HEADER_LEN;
/// Bytes up to the packet in IP-in-IP, and up to what an IPv4 packet carries.
const IPIP: usize = LINK + ipv4::HEADER_LEN;
/// Bytes up to the inner frame in VXLAN.
const VXLAN: usize = IPIP + udp::HEADER_LEN + vxlan::HEADER_LEN;
/// Bytes of the longest headers that are read: VXLAN's, and the inner packet's.
const LONGEST: usize = VXLAN + LINK + ipv4::HEADER_LEN;

/// Takes ordinary packets' headers off, up to the one by which each is routed, and says where each goes;
/// ends at the first that is not an ordinary one, which is left as it was. How many there were, of no
/// more than there is room for destinations.
#[inline(always)]
pub(super) fn open<const N: usize>(
    snapshot: &Snapshot,
    port: &PortConfig,
    batch: &mut [Frame],
    destinations: &mut [Ipv4Addr; N],
) -> usize {
    let Link::Ethernet(own) = port.link else {
        return 0;
    };
    match port.role {
        PortRole::Workload => {
            let (own, gateway) = (own.0, MacAddr::WORKLOAD_GATEWAY.0);
            each(batch, destinations, |bytes| {
                from_workload(snapshot, port, [own, gateway], bytes)
            })
        }
        PortRole::Uplink => each(batch, destinations, |bytes| {
            from_underlay(snapshot, port, own.0, bytes)
        }),
        PortRole::Host | PortRole::Bridge(_) => 0,
    }
}

/// Narrows frames to the packets that `find` finds in them, up to the first in which it finds none.
#[inline(always)]
fn each<const N: usize>(
    batch: &mut [Frame],
    destinations: &mut [Ipv4Addr; N],
    find: impl Fn(&[u8]) -> Option<(usize, usize, Ipv4Addr)>,
) -> usize {
    let mut count = 0;
    for (frame, to) in batch.iter_mut().zip(destinations) {
        let Some((begin, end, destination)) = find(frame.bytes()) else {
            break;
        };
        if !frame.narrow(begin, end) {
            break;
        }
        *to = destination;
        count += 1;
    }
    count
}

/// A packet that a workload may send: where it lies, and where it goes. Of what could be about a tunnel
/// no answer is given.
#[inline(always)]
fn from_workload(
    snapshot: &Snapshot,
    port: &PortConfig,
    to: [[u8; 6]; 2],
    bytes: &[u8],
) -> Option<(usize, usize, Ipv4Addr)> {
    let head: &[u8; IPIP] = bytes.first_chunk()?;
    let ip = header(head, &to, bytes.len())?;
    let end = LINK + ip.total_len();
    let segment = bytes.get(IPIP..end)?;
    // Looked at in each arm, where the compiler knows the protocol.
    let is_for_the_stages = match ip.protocol() {
        protocol::TCP => port.partial_checksums && partial::is_partial(&ip, segment),
        protocol::UDP => {
            let &[_, _, high, low] = segment.first_chunk()?;
            snapshot.is_vxlan_port(u16::from_be_bytes([high, low]))
                || port.partial_checksums && partial::is_partial(&ip, segment)
        }
        _ => true,
    };
    let right = !is_for_the_stages && port.sources.allow_v4(ip.source());
    right.then_some((LINK, end, ip.destination()))
}

/// A packet from the underlay to this port: the one in a tunnel packet to this node, or one that is
/// routed as it is.
#[inline(always)]
fn from_underlay(
    snapshot: &Snapshot,
    port: &PortConfig,
    own: [u8; 6],
    bytes: &[u8],
) -> Option<(usize, usize, Ipv4Addr)> {
    let head: &[u8; IPIP] = bytes.first_chunk()?;
    let outer = header(head, &[own], bytes.len())?;
    let tunnels = &snapshot.tunnels;
    let (ip, begin) = if tunnels.node_address == Some(outer.destination()) {
        opened(snapshot, &outer, bytes)?
    } else if tunnels.local_addresses.contains_v4(outer.source()) {
        return None;
    } else {
        (outer, LINK)
    };
    let end = begin + ip.total_len();
    if port.partial_checksums && partial::is_partial(&ip, bytes.get(begin + ipv4::HEADER_LEN..end)?)
    {
        return None;
    }
    Some((begin, end, ip.destination()))
}

/// The header of an IPv4 packet in an untagged frame to one of these, that nothing is wrong or out of the
/// ordinary with.
#[inline(always)]
fn header<'a>(head: &'a [u8; IPIP], to: &[[u8; 6]], length: usize) -> Option<Plain<'a>> {
    let ours = to.iter().any(|own| head[..6] == *own);
    if !ours || head[12..14] != [0x08, 0x00] {
        return None;
    }
    ipv4(head.last_chunk()?, length - LINK)
}

/// A header that nothing is wrong or out of the ordinary with.
#[inline(always)]
fn ipv4(header: &[u8; ipv4::HEADER_LEN], available: usize) -> Option<Plain<'_>> {
    let ip = Plain::parse(header, available)?;
    let moves = !never_forwarded_v4(ip.source()) && !never_forwarded_v4(ip.destination());
    moves.then_some(ip)
}

/// The packet within a tunnel packet to this node from a known one, and where it begins.
#[inline(always)]
fn opened<'a>(
    snapshot: &Snapshot,
    outer: &Plain<'_>,
    bytes: &'a [u8],
) -> Option<(Plain<'a>, usize)> {
    let tunnels = &snapshot.tunnels;
    let begin = match outer.protocol() {
        protocol::IPIP => IPIP,
        protocol::UDP => vxlan(tunnels, outer, bytes)?,
        _ => return None,
    };
    let available = (LINK + outer.total_len()).checked_sub(begin)?;
    let inner = ipv4(bytes.get(begin..)?.first_chunk()?, available)?;
    let right = tunnels.peers.knows_v4(outer.source())
        && !tunnels.local_addresses.contains_v4(inner.source())
        && reverse_path::check(snapshot, outer.source().into(), inner.source().into()).is_ok()
        && ecn::leaves_the_inner(outer.tos(), inner.tos());
    right.then_some((inner, begin))
}

/// Where the packet in a VXLAN packet of the routed network lies.
#[inline(always)]
fn vxlan(tunnels: &Tunnels, outer: &Plain<'_>, bytes: &[u8]) -> Option<usize> {
    let head: &[u8; LONGEST] = bytes.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let datagram = usize::from(word(IPIP + 4));
    let right = word(IPIP + 2) == tunnels.vxlan_port
        && datagram == outer.total_len() - ipv4::HEADER_LEN
        && word(IPIP + 6) == 0
        && head[VXLAN - vxlan::HEADER_LEN..VXLAN] == vxlan::header(tunnels.vni)
        && head[VXLAN..VXLAN + 6] == tunnels.vtep_mac.0
        && head[VXLAN + 12..VXLAN + LINK] == [0x08, 0x00];
    right.then_some(VXLAN + LINK)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipnet::IpNet;

    use super::super::{
        LeadsTo, PortRole, ReversePath, ReversePathMode, RouterAddresses, WorkloadSources,
        parse::{Ip, Traits},
        stages_1_and_2,
    };
    use super::*;
    use crate::fib::{Fib, Grace, NextHop};
    use crate::packet::PortId;
    use crate::wire::{Vni, checksum};

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const VTEP: MacAddr = MacAddr([0x66, 1, 2, 3, 4, 5]);
    const NODE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 12);
    const POD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const FAR_POD: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 2);
    const CASES: usize = 300_000;

    struct AtOnce;

    impl Grace for AtOnce {
        fn start(&self) -> u64 {
            0
        }

        fn passed(&self, _: u64) -> bool {
            true
        }
    }

    /// Small changes of packets of every kind: whatever is taken at once comes out as from the stages,
    /// and enough of each kind is taken.
    #[test]
    fn what_is_taken_comes_out_as_the_stages_have_it() {
        let mut random = Random(0x5eed);
        let snapshots = [false, true].map(snapshot);
        let mut taken = [0; 5];
        for case in 0..CASES {
            let kind = case % taken.len();
            let port = port(kind, random.below(2) == 0);
            let snapshot = &snapshots[usize::from(random.below(4) == 0)];
            let mut packet = packet(kind, &mut random);
            for _ in 0..random.below(3) {
                mutate(&mut packet, &mut random);
            }
            let mut at_once = frame(&packet);
            let mut staged = frame(&packet);
            let mut to = [Ipv4Addr::UNSPECIFIED];
            if open(snapshot, &port, std::slice::from_mut(&mut at_once), &mut to) == 0 {
                assert_eq!(at_once.bytes(), packet, "left as it was");
                continue;
            }
            let (traits, [destination]) = (Traits::of_ipv4(at_once.bytes()), to);
            taken[kind] += 1;
            match stages_1_and_2(snapshot, &port, &mut staged) {
                Ok(Ip::V4(ip)) => {
                    let expected = Traits::from(&Ip::V4(ip));
                    assert_eq!(
                        (traits, destination),
                        (Some(expected), ip.destination),
                        "{packet:x?}"
                    );
                }
                other => panic!("kind {kind}: taken, but {other:?}: {packet:x?}"),
            }
            assert_eq!(at_once.bytes(), staged.bytes(), "{packet:x?}");
        }
        let share = CASES / taken.len();
        assert!(
            taken.iter().all(|taken| *taken > share / 8),
            "{taken:?} of {share} each"
        );
    }

    /// xorshift64 (Marsaglia 2003).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % bound
        }
    }

    fn port(kind: usize, partial_checksums: bool) -> PortConfig {
        let role = if kind < 2 {
            PortRole::Workload
        } else {
            PortRole::Uplink
        };
        PortConfig {
            id: PortId(0),
            role,
            link: Link::Ethernet(OWN),
            sources: WorkloadSources {
                allowed: vec![IpNet::from(IpAddr::V4(POD))],
                own: Vec::new(),
            },
            partial_checksums,
        }
    }

    fn snapshot(loose: bool) -> Snapshot {
        let (fib, mut writer) = Fib::new(AtOnce);
        let of_far_pods = "192.168.2.0/24".parse().expect("a prefix");
        writer.insert(of_far_pods, NextHop(0)).expect("room");
        let mode = if loose {
            ReversePathMode::Loose
        } else {
            ReversePathMode::Off
        };
        Snapshot {
            fib,
            adjacencies: Vec::new(),
            ports: Vec::new(),
            tunnels: Tunnels {
                peers: [PEER].into_iter().collect(),
                node_address: Some(NODE),
                vxlan_port: 4789,
                vni: Vni::CALICO,
                also: (4789, Vni::CALICO),
                vtep_mac: VTEP,
                strict_reserved_bits: false,
                local_addresses: [NODE, POD].map(IpAddr::V4).into_iter().collect(),
                v6: None,
                from_workloads: Default::default(),
                reverse_path: ReversePath {
                    mode,
                    leads_to: vec![LeadsTo::Nodes],
                },
            },
            router: RouterAddresses {
                v4: NODE,
                v6: RouterAddresses::GATEWAY_V6,
            },
            bridges: Default::default(),
        }
    }

    /// 0 TCP and 1 UDP from a workload, 2 IP-in-IP, 3 VXLAN and 4 neither from the underlay.
    fn packet(kind: usize, random: &mut Random) -> Vec<u8> {
        let tos = random.below(256) as u8;
        let outer_tos = [tos, tos & !3][random.below(2)];
        let payload = [vec![0x12; 20 + random.below(40)], vec![0; random.below(9)]].concat();
        let (inner, to) = match kind {
            0 => (
                ipv4(6, tos, POD, FAR_POD, &payload),
                MacAddr::WORKLOAD_GATEWAY,
            ),
            1 => (ipv4(17, tos, POD, FAR_POD, &payload), OWN),
            _ => (ipv4(17, tos, FAR_POD, POD, &payload), OWN),
        };
        let outer = match kind {
            2 => ipv4(4, outer_tos, PEER, NODE, &inner),
            3 => {
                let mut datagram = vec![0xc0, 0, 0x12, 0xb5];
                datagram.extend((inner.len() as u16 + 30).to_be_bytes());
                datagram.extend([0, 0]);
                datagram.extend(vxlan::header(Vni::CALICO));
                datagram.extend(ethernet(VTEP, &inner));
                ipv4(17, outer_tos, PEER, NODE, &datagram)
            }
            _ => inner,
        };
        let mut packet = ethernet(to, &outer);
        packet.resize(packet.len() + random.below(3), 0);
        packet
    }

    fn ethernet(to: MacAddr, payload: &[u8]) -> Vec<u8> {
        [&to.0[..], &[2, 0, 0, 0, 0, 9, 8, 0], payload].concat()
    }

    fn ipv4(protocol: u8, tos: u8, source: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut header = [
            0x45, tos, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        header[2..4].copy_from_slice(&(payload.len() as u16 + 20).to_be_bytes());
        header[12..16].copy_from_slice(&source.octets());
        header[16..].copy_from_slice(&to.octets());
        seal(&mut header);
        [&header[..], payload].concat()
    }

    fn seal(header: &mut [u8]) {
        header[10..12].fill(0);
        let sum = checksum::of(header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
    }

    /// Another byte in the headers, their checksums set right more often than not, or another length.
    fn mutate(packet: &mut Vec<u8>, random: &mut Random) {
        if random.below(8) == 0 {
            packet.truncate(random.below(packet.len() + 1));
            return;
        }
        let Some(last) = packet.len().min(110).checked_sub(1) else {
            return;
        };
        let at = random.below(last + 1);
        packet[at] = match random.below(3) {
            0 => random.below(256) as u8,
            1 => packet[at] ^ 1 << random.below(8),
            _ => [0, 1, 4, 6, 17, 127, 224, 255][random.below(8)],
        };
        if random.below(4) > 0 {
            for begin in [LINK, IPIP, VXLAN + LINK] {
                if let Some(header) = packet.get_mut(begin..begin + 20)
                    && header[0] == 0x45
                {
                    seal(header);
                }
            }
        }
    }

    fn frame(packet: &[u8]) -> Frame {
        let mut frame = Frame::new(Vec::leak(vec![0; packet.len() + 64]), 0);
        assert!(frame.fill(packet, 64));
        frame
    }
}
