//! UPDATEs of ours: attributes by the crate, prefixes packed as many as fit.

use std::net::IpAddr;

use ipnet::IpNet;
use netgauze_bgp_pkt::community::{Community, LargeCommunity};
use netgauze_bgp_pkt::path_attribute as crate_;
use netgauze_bgp_pkt::path_attribute::{PathAttribute, PathAttributeValue as Value};
use netgauze_parse_utils::WritablePdu;

use super::attribute::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, code};
use super::open::AS_TRANS;
use super::{Family, HEADER, Kind, write};
use crate::bgp::attributes::{AsPath, Attributes, Origin, Segment};

/// Withdrawn length, attributes' length.
const LENGTHS: usize = 4;

/// What the peer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bgp) struct Format {
    /// AS numbers have four bytes.
    pub(in crate::bgp) four_octet: bool,
    /// The longest message.
    pub(in crate::bgp) longest: usize,
}

/// Appends UPDATEs that announce prefixes of one family with the same attributes. False: the attributes
/// leave no room for a prefix, and nothing is appended.
#[must_use]
pub(in crate::bgp) fn announce(
    to: &mut Vec<u8>,
    attributes: &Attributes,
    prefixes: &[IpNet],
    format: Format,
) -> bool {
    let Some(family) = prefixes.first().map(family) else {
        return true;
    };
    let classic = family == Family::V4 && attributes.next_hop.is_ipv4();
    let mut common = Vec::with_capacity(64);
    write_attributes(&mut common, attributes, classic, format.four_octet);
    let mp = (!classic).then(|| mp_next_hop(family, attributes));
    let overhead = HEADER + LENGTHS + common.len() + mp.as_ref().map_or(0, |mp| 4 + mp.len());
    let room = format.longest.saturating_sub(overhead);
    if room < 17 {
        return false;
    }
    for nlri in packed(prefixes, room) {
        let mut body = Vec::with_capacity(overhead + nlri.len());
        body.extend_from_slice(&[0, 0]);
        match &mp {
            None => {
                sized(&mut body, &[&common]);
                body.extend_from_slice(&nlri);
            }
            Some(mp) => {
                // First, so that it is found whatever is wrong behind it (RFC 7606 §5.1).
                let mut reach = vec![OPTIONAL | EXTENDED_LENGTH, code::MP_REACH];
                sized(&mut reach, &[mp, &nlri]);
                sized(&mut body, &[&reach, &common]);
            }
        }
        write(to, Kind::Update, &body);
    }
    true
}

/// Appends UPDATEs that withdraw prefixes of one family.
pub(in crate::bgp) fn withdraw(to: &mut Vec<u8>, prefixes: &[IpNet], longest: usize) {
    let Some(family) = prefixes.first().map(family) else {
        return;
    };
    for nlri in packed(prefixes, longest - HEADER - LENGTHS - 7) {
        match family {
            Family::V4 => {
                let mut body = Vec::with_capacity(LENGTHS + nlri.len());
                sized(&mut body, &[&nlri]);
                body.extend_from_slice(&[0, 0]);
                write(to, Kind::Update, &body);
            }
            Family::V6 => unreach(to, Family::V6, &nlri),
        }
    }
}

/// Appends the message that says that all routes of a family have been sent (RFC 4724 §2).
pub(in crate::bgp) fn end_of_rib(to: &mut Vec<u8>, family: Family) {
    match family {
        Family::V4 => write(to, Kind::Update, &[0; 4]),
        Family::V6 => unreach(to, Family::V6, &[]),
    }
}

fn unreach(to: &mut Vec<u8>, family: Family, nlri: &[u8]) {
    let [high, low] = family.afi().to_be_bytes();
    let mut attribute = vec![OPTIONAL | EXTENDED_LENGTH, code::MP_UNREACH];
    sized(&mut attribute, &[&[high, low, 1], nlri]);
    let mut body = vec![0, 0];
    sized(&mut body, &[&attribute]);
    write(to, Kind::Update, &body);
}

fn family(prefix: &IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// Length of two bytes, then the parts.
fn sized(to: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    to.extend_from_slice(&(length as u16).to_be_bytes());
    for part in parts {
        to.extend_from_slice(part);
    }
}

/// AFI, SAFI, next hop, the reserved byte.
fn mp_next_hop(family: Family, attributes: &Attributes) -> Vec<u8> {
    let [high, low] = family.afi().to_be_bytes();
    let mut bytes = vec![high, low, 1, 0];
    match attributes.next_hop {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
    if let Some(local) = attributes.link_local {
        bytes.extend_from_slice(&local.octets());
    }
    bytes[3] = bytes.len() as u8 - 4;
    bytes.push(0);
    bytes
}

/// The prefixes as bytes, in pieces of at most `room`.
fn packed(prefixes: &[IpNet], room: usize) -> Vec<Vec<u8>> {
    let (mut pieces, mut piece) = (Vec::new(), Vec::with_capacity(room.min(4096)));
    for prefix in prefixes {
        let length = usize::from(prefix.prefix_len().div_ceil(8));
        if piece.len() + 1 + length > room {
            pieces.push(std::mem::take(&mut piece));
        }
        push_prefix(&mut piece, prefix);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// Length, then as many bytes as it needs.
pub(in crate::bgp) fn push_prefix(to: &mut Vec<u8>, prefix: &IpNet) {
    let length = usize::from(prefix.prefix_len().div_ceil(8));
    to.push(prefix.prefix_len());
    match prefix {
        IpNet::V4(net) => to.extend_from_slice(&net.addr().octets()[..length]),
        IpNet::V6(net) => to.extend_from_slice(&net.addr().octets()[..length]),
    }
}

/// All attributes but MP_REACH_NLRI, in order of their codes.
pub(in crate::bgp) fn write_attributes(
    to: &mut Vec<u8>,
    of: &Attributes,
    with_next_hop: bool,
    four_octet: bool,
) {
    put(to, 0, Value::Origin(origin(of.origin)));
    put(to, 0, Value::AsPath(as_path(&of.as_path, four_octet)));
    if let (true, IpAddr::V4(next_hop)) = (with_next_hop, of.next_hop) {
        put(to, 0, Value::NextHop(crate_::NextHop::new(next_hop)));
    }
    if let Some(med) = of.med {
        let value = crate_::MultiExitDiscriminator::new(med);
        put(to, 0, Value::MultiExitDiscriminator(value));
    }
    if let Some(local_pref) = of.local_pref {
        let value = crate_::LocalPreference::new(local_pref);
        put(to, 0, Value::LocalPreference(value));
    }
    if of.atomic_aggregate {
        put(to, 0, Value::AtomicAggregate(crate_::AtomicAggregate));
    }
    if let Some((number, router)) = of.aggregator {
        let value = match four_octet {
            true => crate_::Aggregator::As4Aggregator(crate_::As4Aggregator::new(number, router)),
            false => {
                crate_::Aggregator::As2Aggregator(crate_::As2Aggregator::new(short(number), router))
            }
        };
        put(to, 0, Value::Aggregator(value));
    }
    if !of.communities.is_empty() {
        let values: Vec<_> = of
            .communities
            .iter()
            .map(|one| Community::new(*one))
            .collect();
        put(
            to,
            values.len() * 4,
            Value::Communities(crate_::Communities::new(values)),
        );
    }
    if let Some(id) = of.originator_id {
        put(to, 0, Value::Originator(crate_::Originator::new(id)));
    }
    if !of.cluster_list.is_empty() {
        let ids: Vec<_> = of
            .cluster_list
            .iter()
            .map(|id| crate_::ClusterId::new(*id))
            .collect();
        put(
            to,
            ids.len() * 4,
            Value::ClusterList(crate_::ClusterList::new(ids)),
        );
    }
    if !of.extended_communities.is_empty() {
        raw(
            to,
            OPTIONAL | TRANSITIVE,
            code::EXTENDED_COMMUNITIES,
            of.extended_communities.as_flattened(),
        );
    }
    if !four_octet {
        write_as4(to, of);
    }
    if !of.large_communities.is_empty() {
        let values = of.large_communities.iter();
        let values: Vec<_> = values
            .map(|[a, b, c]| LargeCommunity::new(*a, *b, *c))
            .collect();
        put(
            to,
            values.len() * 12,
            Value::LargeCommunities(crate_::LargeCommunities::new(values)),
        );
    }
    for unknown in &of.unknown {
        raw(
            to,
            OPTIONAL | TRANSITIVE | PARTIAL,
            unknown.code,
            &unknown.value,
        );
    }
}

/// What does not fit into two bytes, for those behind the peer (RFC 6793 §4.2.2).
fn write_as4(to: &mut Vec<u8>, of: &Attributes) {
    let long = |number: &u32| *number > u32::from(u16::MAX);
    if of
        .as_path
        .0
        .iter()
        .any(|segment| segment.ases().iter().any(long))
    {
        let segments = four_octet_segments(&of.as_path);
        put(
            to,
            segments.len() * 2 + 256,
            Value::As4Path(crate_::As4Path::new(segments)),
        );
    }
    if let Some((number, router)) = of.aggregator.filter(|(number, _)| long(number)) {
        let mut value = number.to_be_bytes().to_vec();
        value.extend_from_slice(&router.octets());
        raw(to, OPTIONAL | TRANSITIVE, code::AS4_AGGREGATOR, &value);
    }
}

/// `length`: of the value, if it may need two bytes.
fn put(to: &mut Vec<u8>, length: usize, value: Value) {
    let extended = length > 255 || matches!(value, Value::AsPath(_));
    let optional = value.can_be_optional().unwrap_or(true);
    let transitive = value.can_be_transitive().unwrap_or(true);
    let attribute = PathAttribute::from(optional, transitive, false, extended, value);
    attribute
        .expect("flags that the value asks for")
        .write(to)
        .expect("memory takes it");
}

fn raw(to: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    to.extend_from_slice(&[flags | EXTENDED_LENGTH, code]);
    sized(to, &[value]);
}

fn origin(of: Origin) -> crate_::Origin {
    match of {
        Origin::Igp => crate_::Origin::IGP,
        Origin::Egp => crate_::Origin::EGP,
        Origin::Incomplete => crate_::Origin::Incomplete,
    }
}

fn as_path(of: &AsPath, four_octet: bool) -> crate_::AsPath {
    if four_octet {
        return crate_::AsPath::as4_path_segments(four_octet_segments(of));
    }
    let segments = of.0.iter().map(|segment| {
        let ases: Vec<_> = segment.ases().iter().map(|number| short(*number)).collect();
        crate_::As2PathSegment::new(kind(segment), ases)
    });
    crate_::AsPath::as2_path_segments(segments.collect::<Vec<_>>())
}

fn four_octet_segments(of: &AsPath) -> Vec<crate_::As4PathSegment> {
    let segments = of.0.iter();
    segments
        .map(|segment| crate_::As4PathSegment::new(kind(segment), segment.ases()))
        .collect()
}

fn kind(segment: &Segment) -> crate_::AsPathSegmentType {
    match segment {
        Segment::Sequence(_) => crate_::AsPathSegmentType::AsSequence,
        Segment::Set(_) => crate_::AsPathSegmentType::AsSet,
    }
}

fn short(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(AS_TRANS)
}
