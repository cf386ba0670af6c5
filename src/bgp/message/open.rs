//! OPEN: who a peer is and what it can do (RFC 4271 §4.2, RFC 5492, RFC 9072).
//!
//! The fixed fields are read here, since each error has a subcode and data of its own; a capability is
//! read by the crate, one at a time, so that one it cannot read is passed over alone (RFC 5492 §3).

use std::net::Ipv4Addr;

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::capabilities::{
    AddPathAddressFamily, AddPathCapability, BgpCapability, ExtendedNextHopEncoding,
    ExtendedNextHopEncodingCapability, FourOctetAsCapability, GracefulRestartAddressFamily,
    GracefulRestartCapability, MultiProtocolExtensionsCapability,
};
use netgauze_bgp_pkt::open::{BgpOpenMessage, BgpOpenMessageParameter};
use netgauze_iana::address_family::{AddressFamily, AddressType};
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFrom;

use super::notification::{Notification, code};
use super::{Family, LONGEST};

/// Stands in two bytes for an AS number of four (RFC 6793 §9).
pub(in crate::bgp) const AS_TRANS: u16 = 23456;

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
/// As length and type of the first parameter: lengths of two bytes follow (RFC 9072).
const EXTENDED: u8 = 255;

/// What an OPEN says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bgp) struct Open {
    pub(in crate::bgp) local_as: u32,
    /// Seconds.
    pub(in crate::bgp) hold_time: u16,
    pub(in crate::bgp) router_id: Ipv4Addr,
    pub(in crate::bgp) capabilities: Capabilities,
}

/// What a speaker can do, as far as we know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct Capabilities {
    /// Families by RFC 4760; none: the capability is not there, which means IPv4.
    pub(in crate::bgp) families: Option<Vec<Family>>,
    pub(in crate::bgp) four_octet_as: bool,
    pub(in crate::bgp) refresh: bool,
    pub(in crate::bgp) enhanced_refresh: bool,
    pub(in crate::bgp) extended_message: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub(in crate::bgp) extended_next_hop: bool,
    pub(in crate::bgp) graceful_restart: Option<GracefulRestart>,
    /// Families in which the speaker would send, and receive, several paths (RFC 7911).
    pub(in crate::bgp) add_path_send: Vec<Family>,
    pub(in crate::bgp) add_path_receive: Vec<Family>,
}

/// RFC 4724 §3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct GracefulRestart {
    /// The speaker has restarted.
    pub(in crate::bgp) restarted: bool,
    /// Routes are kept after a NOTIFICATION, too, unless it is a Hard Reset (RFC 8538 §2).
    pub(in crate::bgp) after_notification: bool,
    /// Seconds.
    pub(in crate::bgp) time: u16,
    /// Families, and whether packets were forwarded through the restart.
    pub(in crate::bgp) families: Vec<(Family, bool)>,
}

impl Open {
    /// Reads a body of ten bytes at least.
    pub(in crate::bgp) fn read(body: &[u8]) -> Result<Self, Notification> {
        let Some((fixed, parameters)) = body.split_first_chunk::<9>() else {
            return Err(malformed("shorter than its fixed fields"));
        };
        let [version, as_high, as_low, hold_high, hold_low, id @ ..] = *fixed;
        if version != VERSION {
            return Err(Notification::new(code::OPEN, 1)
                .with_data(u16::from(VERSION).to_be_bytes())
                .detail(format!("{version}, where 4 is spoken")));
        }
        let (capabilities, four_octet) = read_parameters(parameters)?;
        let two_octet = u32::from(u16::from_be_bytes([as_high, as_low]));
        let open = Self {
            local_as: four_octet.unwrap_or(two_octet),
            hold_time: u16::from_be_bytes([hold_high, hold_low]),
            router_id: Ipv4Addr::from(id),
            capabilities,
        };
        // RFC 7607 §2; what AS it ought to be is for the session to say.
        if open.local_as == 0 || two_octet == 0 {
            return Err(Notification::new(code::OPEN, 2).detail("0, which is reserved"));
        }
        if matches!(open.hold_time, 1 | 2) {
            return Err(Notification::new(code::OPEN, 6)
                .with_data(open.hold_time.to_be_bytes())
                .detail(format!(
                    "{} s, where 0 or at least 3 can be",
                    open.hold_time
                )));
        }
        if open.router_id.is_unspecified() {
            return Err(Notification::new(code::OPEN, 3).detail("0.0.0.0"));
        }
        Ok(open)
    }

    /// Appends the message.
    pub(in crate::bgp) fn write(&self, to: &mut Vec<u8>) {
        let capabilities = self.capabilities.as_written(self.local_as);
        let parameters = match capabilities.is_empty() {
            true => Vec::new(),
            false => vec![BgpOpenMessageParameter::new_capabilities(capabilities)],
        };
        let two_octet = u16::try_from(self.local_as).unwrap_or(AS_TRANS);
        let open = BgpOpenMessage::new(two_octet, self.hold_time, self.router_id, parameters);
        BgpMessage::Open(open)
            .write(to)
            .expect("an OPEN of our own fits, and memory takes it");
    }
}

impl Capabilities {
    fn as_written(&self, local_as: u32) -> Vec<BgpCapability> {
        let mut written = Vec::new();
        for family in self.families.iter().flatten() {
            written.push(BgpCapability::MultiProtocolExtensions(
                MultiProtocolExtensionsCapability::new(address_type(*family)),
            ));
        }
        if self.refresh {
            written.push(BgpCapability::RouteRefresh);
        }
        if self.extended_next_hop {
            let encoding =
                ExtendedNextHopEncoding::new(AddressType::Ipv4Unicast, AddressFamily::IPv6);
            written.push(BgpCapability::ExtendedNextHopEncoding(
                ExtendedNextHopEncodingCapability::new(vec![encoding]),
            ));
        }
        if self.extended_message {
            written.push(BgpCapability::ExtendedMessage);
        }
        if let Some(restart) = &self.graceful_restart {
            written.push(BgpCapability::GracefulRestartCapability(
                restart.as_written(),
            ));
        }
        if self.four_octet_as {
            written.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(
                local_as,
            )));
        }
        if !self.add_path_send.is_empty() || !self.add_path_receive.is_empty() {
            let both = Family::ALL.into_iter().map(|family| {
                AddPathAddressFamily::new(
                    address_type(family),
                    self.add_path_send.contains(&family),
                    self.add_path_receive.contains(&family),
                )
            });
            let some: Vec<_> = both.filter(|one| one.send() || one.receive()).collect();
            written.push(BgpCapability::AddPath(AddPathCapability::new(some)));
        }
        if self.enhanced_refresh {
            written.push(BgpCapability::EnhancedRouteRefresh);
        }
        written
    }

    /// Takes note of one capability; gives the AS number that it says.
    fn note(&mut self, capability: &BgpCapability) -> Option<u32> {
        match capability {
            BgpCapability::MultiProtocolExtensions(one) => {
                let families = self.families.get_or_insert_default();
                families.extend(family(one.address_type()));
            }
            BgpCapability::RouteRefresh => self.refresh = true,
            BgpCapability::EnhancedRouteRefresh => self.enhanced_refresh = true,
            BgpCapability::ExtendedMessage => self.extended_message = true,
            BgpCapability::ExtendedNextHopEncoding(some) => {
                self.extended_next_hop |= some.encodings().iter().any(|one| {
                    one.address_type() == AddressType::Ipv4Unicast
                        && one.next_hop_afi() == AddressFamily::IPv6
                });
            }
            BgpCapability::GracefulRestartCapability(restart) => {
                self.graceful_restart = Some(GracefulRestart::noted(restart));
            }
            BgpCapability::AddPath(some) => {
                for one in some.address_families() {
                    let Some(family) = family(one.address_type()) else {
                        continue;
                    };
                    self.add_path_send.extend(one.send().then_some(family));
                    self.add_path_receive
                        .extend(one.receive().then_some(family));
                }
            }
            BgpCapability::FourOctetAs(number) => {
                self.four_octet_as = true;
                return Some(number.asn4());
            }
            _ => {}
        }
        None
    }
}

impl GracefulRestart {
    fn as_written(&self) -> GracefulRestartCapability {
        let families = self.families.iter().map(|(family, forwarding)| {
            GracefulRestartAddressFamily::new(*forwarding, address_type(*family))
        });
        let families: Vec<_> = families.collect();
        GracefulRestartCapability::new(self.restarted, self.after_notification, self.time, families)
    }

    fn noted(capability: &GracefulRestartCapability) -> Self {
        let families = capability.address_families().iter();
        let known =
            families.filter_map(|one| Some((family(one.address_type())?, one.forwarding_state())));
        Self {
            restarted: capability.restart(),
            after_notification: capability.graceful_notification(),
            time: capability.time(),
            families: known.collect(),
        }
    }
}

fn read_parameters(bytes: &[u8]) -> Result<(Capabilities, Option<u32>), Notification> {
    let (&length, mut rest) = bytes
        .split_first()
        .ok_or_else(|| malformed("no length of its parameters"))?;
    let mut length = usize::from(length);
    let extended = length == usize::from(EXTENDED) && rest.first() == Some(&EXTENDED);
    if extended {
        let (long, after) = rest[1..]
            .split_first_chunk()
            .ok_or_else(|| malformed("no length of its parameters"))?;
        (length, rest) = (usize::from(u16::from_be_bytes(*long)), after);
    }
    if length != rest.len() {
        return Err(malformed("parameters are not as long as it says"));
    }
    let (mut capabilities, mut four_octet) = (Capabilities::default(), None);
    while !rest.is_empty() {
        let (kind, value, after) = split(rest, extended)
            .ok_or_else(|| malformed("a parameter is longer than all of them"))?;
        if kind != CAPABILITIES {
            return Err(Notification::new(code::OPEN, 4).detail(format!("type {kind}")));
        }
        let mut value = value;
        while !value.is_empty() {
            let (_, inner, next) = split(value, false)
                .ok_or_else(|| malformed("a capability is longer than its parameter"))?;
            let whole = &value[..2 + inner.len()];
            if let Ok(capability) = BgpCapability::parse(&mut SliceReader::new(whole)) {
                four_octet = capabilities.note(&capability).or(four_octet);
            }
            value = next;
        }
        rest = after;
    }
    Ok((capabilities, four_octet))
}

/// Type, value and what follows.
fn split(bytes: &[u8], extended: bool) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (length, rest) = match extended {
        true => {
            let (long, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*long)), rest)
        }
        false => {
            let (short, rest) = rest.split_first()?;
            (usize::from(*short), rest)
        }
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((kind, value, rest))
}

fn malformed(what: &str) -> Notification {
    debug_assert!(what.len() < LONGEST);
    Notification::new(code::OPEN, 0).detail(what)
}

fn address_type(family: Family) -> AddressType {
    match family {
        Family::V4 => AddressType::Ipv4Unicast,
        Family::V6 => AddressType::Ipv6Unicast,
    }
}

fn family(of: AddressType) -> Option<Family> {
    match of {
        AddressType::Ipv4Unicast => Some(Family::V4),
        AddressType::Ipv6Unicast => Some(Family::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEADER;
    use super::*;

    fn full() -> Open {
        Open {
            local_as: 4_200_000_000,
            hold_time: 90,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            capabilities: Capabilities {
                families: Some(vec![Family::V4, Family::V6]),
                four_octet_as: true,
                refresh: true,
                enhanced_refresh: true,
                extended_message: true,
                extended_next_hop: true,
                graceful_restart: Some(GracefulRestart {
                    restarted: true,
                    after_notification: true,
                    time: 120,
                    families: vec![(Family::V4, true), (Family::V6, false)],
                }),
                add_path_send: vec![],
                add_path_receive: vec![Family::V4, Family::V6],
            },
        }
    }

    fn fixed(version: u8, number: u16, hold: u16, id: u32) -> Vec<u8> {
        let mut body = vec![version];
        body.extend(number.to_be_bytes());
        body.extend(hold.to_be_bytes());
        body.extend(id.to_be_bytes());
        body
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        full().write(&mut bytes);
        assert_eq!(bytes[20..22], AS_TRANS.to_be_bytes());
        assert_eq!(Open::read(&bytes[HEADER..]), Ok(full()));
        let plain = Open {
            local_as: 64512,
            capabilities: Capabilities::default(),
            ..full()
        };
        let mut bytes = Vec::new();
        plain.write(&mut bytes);
        assert_eq!(bytes.len(), 29);
        assert_eq!(Open::read(&bytes[HEADER..]), Ok(plain));
    }

    /// RFC 4271 §6.2, RFC 6286, RFC 7607.
    #[test]
    fn errors_by_the_rfcs() {
        for (body, rest, subcode) in [
            (fixed(3, 64512, 90, 1), vec![0], 1),
            (fixed(5, 64512, 90, 1), vec![0], 1),
            (fixed(4, 0, 90, 1), vec![0], 2),
            (
                fixed(4, AS_TRANS, 90, 1),
                vec![8, 2, 6, 65, 4, 0, 0, 0, 0],
                2,
            ),
            (fixed(4, 64512, 90, 0), vec![0], 3),
            (fixed(4, 64512, 1, 1), vec![0], 6),
            (fixed(4, 64512, 2, 1), vec![0], 6),
            // An authentication parameter, and one that nobody knows.
            (fixed(4, 64512, 90, 1), vec![3, 1, 1, 0], 4),
            (fixed(4, 64512, 90, 1), vec![2, 77, 0], 4),
            // Lengths that do not fit.
            (fixed(4, 64512, 90, 1), vec![5, 2, 2, 2, 0], 0),
            (fixed(4, 64512, 90, 1), vec![3, 2, 2, 2, 0], 0),
            (fixed(4, 64512, 90, 1), vec![4, 2, 2, 2, 9], 0),
        ] {
            let body = [body, rest].concat();
            let error = Open::read(&body).unwrap_err();
            assert_eq!(
                (error.code, error.subcode),
                (2, subcode),
                "{body:?}: {error}"
            );
        }
        let version = Open::read(&[fixed(3, 1, 90, 1), vec![0]].concat()).unwrap_err();
        assert_eq!(version.data, [0, 4]);
    }

    #[test]
    fn unknown_and_unreadable_capabilities_are_passed_over() {
        let parameters = [
            &[18, 2, 16][..],
            &[200, 2, 1, 2],   // unknown
            &[65, 3, 1, 2, 3], // too short for an AS number
            &[8, 1, 9],        // multiple labels, cut
            &[2, 0],           // route refresh
            &[70, 0],          // enhanced refresh
        ]
        .concat();
        let body = [fixed(4, 64512, 0, 1), parameters].concat();
        let open = Open::read(&body).unwrap();
        assert!(open.capabilities.refresh && open.capabilities.enhanced_refresh);
        assert!(!open.capabilities.four_octet_as);
        assert_eq!((open.local_as, open.capabilities.families), (64512, None));
    }

    /// RFC 9072 §2.
    #[test]
    fn extended_parameters() {
        let parameters = [&[255, 255, 0, 5][..], &[2, 0, 2], &[2, 0]].concat();
        let open = Open::read(&[fixed(4, 64512, 90, 1), parameters].concat()).unwrap();
        assert!(open.capabilities.refresh);
    }
}
