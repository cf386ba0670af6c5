//! Packets too large for the way out, where cutting them up is allowed (RFC 791 section 2.3), within the
//! tunnel or outside of it.

use etherparse::Ipv4HeaderSlice;

use super::waiting::take_hop;
use crate::wire::ethernet::HEADER_LEN as LINK;
use crate::wire::ipv4::{Ipv4, protocol};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{Mtu, checksum};

/// Whether the packet is IPv4 with DF clear.
pub(super) fn allowed(packet: &[u8]) -> bool {
    Ipv4::may_be_fragmented(packet)
}

/// Whether the packet is a fragment, of either family, and one that could be put together.
pub(super) fn is_one(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => Ipv4::parse(packet).is_ok_and(|ip| ip.is_fragment()),
        Some(6) => packet.get(6) == Some(&protocol::FRAGMENT),
        _ => false,
    }
}

/// A packet of the router's own in fragments that any link takes, if it needs any. Nothing if it makes no
/// sense.
pub(super) fn for_any_link(packet: Vec<u8>, identification: u32) -> Vec<Vec<u8>> {
    const ANY_LINK: Mtu = Mtu(ipv6::MIN_MTU as u16);
    if packet.len() <= ipv6::MIN_MTU {
        return vec![packet];
    }
    let pieces = match packet[0] >> 4 {
        4 => fragment(packet, ANY_LINK, false),
        _ => cut_v6(&packet, ANY_LINK.0.into(), identification),
    };
    pieces.unwrap_or_default()
}

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes; each keeps the options that must be
/// copied, and all but the packet's own last one say that more follow. `hop`: whether this router
/// counts as one. None if the packet makes no sense or no progress would be made.
pub(super) fn fragment(mut packet: Vec<u8>, mtu: Mtu, hop: bool) -> Option<Vec<Vec<u8>>> {
    if hop && !take_hop(&mut packet) {
        return None;
    }
    let header = Ipv4HeaderSlice::from_slice(&packet).ok()?;
    let header_len = header.slice().len();
    let total_len = usize::from(header.total_len()).min(packet.len());
    let last_says_more = header.more_fragments();
    let first_offset = usize::from(header.fragments_offset().value());
    let payload = packet.get(header_len..total_len)?;

    let first = packet[..header_len].to_vec();
    let later = later_header(&first);
    let mut fragments = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let header = if at == 0 { &first } else { &later };
        // All but the last carry a multiple of eight bytes.
        let room = usize::from(mtu.0).checked_sub(header.len())? & !7;
        if room == 0 {
            return None;
        }
        let rest = payload.len() - at;
        let fits = usize::from(mtu.0) - header.len() >= rest;
        let length = if fits { rest } else { room };
        let more = !fits || last_says_more;
        let offset = first_offset + at / 8;
        fragments.push(build(header, &payload[at..at + length], offset, more)?);
        at += length;
    }
    Some(fragments)
}

/// Cuts a tunnel packet behind its Ethernet header up for a path of `path` bytes; each fragment has the
/// same Ethernet header. IPv4 has its identification already.
pub(super) fn outside(frame: &[u8], path: Mtu, identification: u32) -> Option<Vec<Vec<u8>>> {
    let (link, packet) = frame.split_at_checked(LINK)?;
    let pieces = match packet.first()? >> 4 {
        4 => fragment(packet.to_vec(), path, false)?,
        _ => cut_v6(packet, usize::from(path.0), identification)?,
    };
    let framed = pieces.iter().map(|piece| [link, piece].concat());
    Some(framed.collect())
}

/// Cuts an IPv6 packet up for a path that takes `path` bytes, as only its sender may (RFC 8200 section
/// 4.5). Nothing if the path is too narrow for any.
fn cut_v6(packet: &[u8], path: usize, identification: u32) -> Option<Vec<Vec<u8>>> {
    let ip = Ipv6::parse(packet).ok()?;
    let payload = packet.get(ipv6::HEADER_LEN..ip.total_len())?;
    let room = path.checked_sub(ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN)? & !7;
    if room == 0 {
        return None;
    }
    let count = payload.len().div_ceil(room);
    let parts = payload.chunks(room).enumerate().map(|(nth, part)| {
        let header = ipv6::Fragment {
            offset: (nth * room) as u16,
            more: nth + 1 < count,
            identification,
        };
        let mut piece = packet[..ipv6::HEADER_LEN].to_vec();
        ipv6::set_payload_len(&mut piece, (ipv6::FRAGMENT_LEN + part.len()) as u16);
        piece[6] = protocol::FRAGMENT;
        piece.extend(header.header(ip.next_header));
        piece.extend_from_slice(part);
        piece
    });
    Some(parts.collect())
}

/// The header of all fragments but the first: options without the copied flag are left out.
fn later_header(first: &[u8]) -> Vec<u8> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    let mut header = first[..20].to_vec();
    let mut options = &first[20..];
    while let [kind, rest @ ..] = options {
        match *kind {
            END => break,
            NO_OPERATION => options = rest,
            kind => {
                let length = usize::from(rest.first().copied().unwrap_or(0));
                if length < 2 || length > options.len() {
                    break;
                }
                if kind & 0x80 != 0 {
                    header.extend_from_slice(&options[..length]);
                }
                options = &options[length..];
            }
        }
    }
    header.resize(header.len().next_multiple_of(4), END);
    header[0] = 0x40 | (header.len() / 4) as u8;
    header
}

fn build(header: &[u8], payload: &[u8], offset: usize, more: bool) -> Option<Vec<u8>> {
    let total_len = u16::try_from(header.len() + payload.len()).ok()?;
    let offset = u16::try_from(offset)
        .ok()
        .filter(|offset| *offset < 1 << 13)?;
    let flags = offset | if more { 0x2000 } else { 0 };
    let mut packet = Vec::with_capacity(usize::from(total_len));
    packet.extend_from_slice(header);
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header, defrag};

    fn packet(payload: usize) -> Vec<u8> {
        let mut header = Ipv4Header::new(
            payload as u16,
            64,
            IpNumber::UDP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .unwrap();
        header.identification = 7;
        header.dont_fragment = false;
        let mut packet = header.to_bytes().to_vec();
        let sum = header.calc_header_checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend((0..payload).map(|n| (n * 7) as u8));
        packet
    }

    /// etherparse puts the fragments together again.
    fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
        let mut pool = defrag::IpDefragPool::<(), ()>::new();
        let mut whole = None;
        for fragment in fragments {
            let sliced = etherparse::SlicedPacket::from_ip(fragment).unwrap();
            whole = pool
                .process_sliced_packet(&sliced, (), ())
                .unwrap()
                .or(whole);
        }
        whole.expect("all fragments are there").payload
    }

    #[test]
    fn fragments_fit_and_come_together_again() {
        for (payload, mtu) in [
            (1480, 1400),
            (4000, 576),
            (1500, 68),
            (1401, 1420),
            (3, 1400),
        ] {
            let original = packet(payload);
            let fragments = fragment(original.clone(), Mtu(mtu), true).unwrap();
            for part in &fragments {
                assert!(part.len() <= usize::from(mtu));
                let (header, _) = Ipv4Header::from_slice(part).unwrap();
                assert_eq!(header.time_to_live, 63);
                assert_eq!(header.header_checksum, header.calc_header_checksum());
            }
            if fragments.len() > 1 {
                assert_eq!(
                    reassemble(&fragments),
                    &original[20..],
                    "{payload} over {mtu}"
                );
            }
        }
    }

    #[test]
    fn options_without_the_copied_flag_stay_with_the_first_fragment() {
        let mut original = packet(1000);
        // Record route (7, not copied), then loose source route (131, copied).
        let options = [7, 3, 4, 131, 3, 4, 0, 0];
        original.splice(20..20, options);
        original[0] = 0x47;
        let total_len = (original.len() as u16).to_be_bytes();
        original[2..4].copy_from_slice(&total_len);
        let fragments = fragment(original, Mtu(500), false).unwrap();
        assert_eq!(&fragments[0][20..28], &options);
        assert_eq!(fragments[1][0], 0x46);
        assert_eq!(&fragments[1][20..24], &[131, 3, 4, 0]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(fragment(vec![0x45; 10], Mtu(576), false).is_none());
        assert!(fragment(packet(100), Mtu(20), false).is_none());
        assert!(fragment(Vec::new(), Mtu(576), true).is_none());
    }
}
