//! Routes for offline study: MRT, TABLE_DUMP_V2 (RFC 6396 §4.3), which bgpdump and others read.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::attributes::Attributes;
use super::message::encode::{push_prefix, write_attributes};
use super::report::{NeighborReport, RouteReport};
use super::settings::PeerName;

const TABLE_DUMP_V2: u16 = 13;
const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;
/// Of a peer's entry: the address is one of IPv6; the AS number has four bytes.
const PEER_V6: u8 = 1;
const PEER_AS4: u8 = 2;
const OPTIONAL_EXTENDED: u8 = 0x90;
const MP_REACH: u8 = 14;

/// Writes routes, which are in order of prefix.
pub(super) fn write(
    to: &mut dyn Write,
    now: SystemTime,
    neighbors: &[NeighborReport],
    routes: &[RouteReport],
) -> io::Result<()> {
    let now = seconds(now);
    record(to, now, PEER_INDEX_TABLE, &peers(neighbors))?;
    let places = neighbors
        .iter()
        .zip(0u16..)
        .map(|(of, place)| (&of.name, place));
    let places: BTreeMap<_, _> = places.collect();
    for (sequence, same) in (0u32..).zip(routes.chunk_by(|a, b| a.prefix == b.prefix)) {
        let (kind, body) = rib(sequence, same, &places);
        record(to, now, kind, &body)?;
    }
    to.flush()
}

fn record(to: &mut dyn Write, now: u32, kind: u16, body: &[u8]) -> io::Result<()> {
    let mut header = now.to_be_bytes().to_vec();
    header.extend_from_slice(&TABLE_DUMP_V2.to_be_bytes());
    header.extend_from_slice(&kind.to_be_bytes());
    header.extend_from_slice(&(body.len() as u32).to_be_bytes());
    to.write_all(&header)?;
    to.write_all(body)
}

/// The collector's identifier and its view's name are left empty.
fn peers(neighbors: &[NeighborReport]) -> Vec<u8> {
    let mut body = vec![0; 6];
    body.extend_from_slice(&(neighbors.len() as u16).to_be_bytes());
    for neighbor in neighbors {
        let v6 = neighbor.address.is_ipv6();
        body.push(PEER_AS4 | if v6 { PEER_V6 } else { 0 });
        let id = neighbor
            .session
            .as_ref()
            .map_or(Ipv4Addr::UNSPECIFIED, |of| of.router_id);
        body.extend_from_slice(&id.octets());
        match neighbor.address {
            IpAddr::V4(address) => body.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => body.extend_from_slice(&address.octets()),
        }
        body.extend_from_slice(&neighbor.remote_as.to_be_bytes());
    }
    body
}

fn rib(sequence: u32, same: &[RouteReport], places: &BTreeMap<&PeerName, u16>) -> (u16, Vec<u8>) {
    let prefix = same[0].prefix;
    let kind = match prefix {
        IpNet::V4(_) => RIB_IPV4_UNICAST,
        IpNet::V6(_) => RIB_IPV6_UNICAST,
    };
    let mut body = sequence.to_be_bytes().to_vec();
    push_prefix(&mut body, &prefix);
    let known = same.iter().filter_map(|route| {
        let place = places.get(route.peer.as_ref()?)?;
        Some((*place, route))
    });
    let known: Vec<_> = known.collect();
    body.extend_from_slice(&(known.len() as u16).to_be_bytes());
    for (place, route) in known {
        body.extend_from_slice(&place.to_be_bytes());
        body.extend_from_slice(&seconds(route.since).to_be_bytes());
        let attributes = attributes(&route.attributes);
        body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
        body.extend_from_slice(&attributes);
    }
    (kind, body)
}

/// MP_REACH_NLRI has the next hop alone (§4.3.4).
fn attributes(of: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    write_attributes(&mut bytes, of, true, true);
    if let IpAddr::V6(next_hop) = of.next_hop {
        let mut hops = next_hop.octets().to_vec();
        hops.extend(of.link_local.iter().flat_map(|local| local.octets()));
        bytes.extend_from_slice(&[
            OPTIONAL_EXTENDED,
            MP_REACH,
            0,
            hops.len() as u8 + 1,
            hops.len() as u8,
        ]);
        bytes.extend_from_slice(&hops);
    }
    bytes
}

fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() as u32
}
