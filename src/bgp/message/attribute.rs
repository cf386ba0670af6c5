//! One path attribute: what is right about it, and what becomes of the routes when something is wrong
//! (RFC 7606 §7, RFC 6793 §6, RFC 7607, RFC 8092 §6). The value is read by the crate.

use std::net::Ipv4Addr;

use netgauze_bgp_pkt::path_attribute as crate_;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::{ParseFromWithOneInput, ParseFromWithTwoInputs};

use super::open::AS_TRANS;
use crate::bgp::attributes::{AsPath, Origin, Segment, Unknown};

/// Flags of an attribute.
pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// Codes (https://www.iana.org/assignments/bgp-parameters).
pub(super) mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const EXTENDED_COMMUNITIES_V6: u8 = 25;
    pub const LARGE_COMMUNITIES: u8 = 32;
}

/// Subcodes of UPDATE errors.
pub(super) mod subcode {
    pub const LIST: u8 = 1;
    pub const UNKNOWN_WELL_KNOWN: u8 = 2;
    pub const MISSING: u8 = 3;
    pub const FLAGS: u8 = 4;
    pub const LENGTH: u8 = 5;
    pub const ORIGIN: u8 = 6;
    pub const OPTIONAL: u8 = 9;
    pub const NETWORK: u8 = 10;
    pub const AS_PATH: u8 = 11;
}

/// The attribute's name in the registry.
pub(super) fn name(code: u8) -> &'static str {
    match code {
        code::ORIGIN => "ORIGIN",
        code::AS_PATH => "AS_PATH",
        code::NEXT_HOP => "NEXT_HOP",
        code::MED => "MULTI_EXIT_DISC",
        code::LOCAL_PREF => "LOCAL_PREF",
        code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code::AGGREGATOR => "AGGREGATOR",
        code::COMMUNITIES => "COMMUNITIES",
        code::ORIGINATOR_ID => "ORIGINATOR_ID",
        code::CLUSTER_LIST => "CLUSTER_LIST",
        code::MP_REACH => "MP_REACH_NLRI",
        code::MP_UNREACH => "MP_UNREACH_NLRI",
        code::EXTENDED_COMMUNITIES => "EXTENDED_COMMUNITIES",
        code::AS4_PATH => "AS4_PATH",
        code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code::EXTENDED_COMMUNITIES_V6 => "IPv6 EXTENDED_COMMUNITIES",
        code::LARGE_COMMUNITIES => "LARGE_COMMUNITIES",
        _ => "unknown attribute",
    }
}

/// The flags that a known attribute must have.
fn flags(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => TRANSITIVE,
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH
        | code::MP_UNREACH => OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::EXTENDED_COMMUNITIES_V6
        | code::LARGE_COMMUNITIES => OPTIONAL | TRANSITIVE,
        _ => return None,
    })
}

/// What is wrong with an attribute, by what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is left out ("attribute discard").
    Discard(&'static str),
    /// The routes beside it are taken as withdrawn ("treat-as-withdraw"); the subcode that a
    /// NOTIFICATION would have.
    Withdraw(u8, &'static str),
    /// The session ends.
    Reset(u8, &'static str),
}

/// An attribute as it lies in an UPDATE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    /// Length and value, as the crate reads them.
    pub(super) sized: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The first attribute of some, and what follows it; none if it is longer than what is there.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[flags, code], sized) = bytes.split_first_chunk()?;
        let size = 1 + usize::from(flags & EXTENDED_LENGTH != 0);
        let length = match size {
            1 => usize::from(*sized.first()?),
            _ => usize::from(u16::from_be_bytes(*sized.first_chunk()?)),
        };
        let (sized, rest) = sized.split_at_checked(size + length)?;
        let raw = Self {
            flags,
            code,
            sized,
            value: &sized[size..],
        };
        Some((raw, rest))
    }

    fn extended(&self) -> bool {
        self.flags & EXTENDED_LENGTH != 0
    }

    fn reader(&self) -> SliceReader<'a> {
        SliceReader::new(self.sized)
    }

    /// Whether it has the flags that its code asks for (RFC 7606 §3 c).
    pub(super) fn check_flags(&self) -> Result<(), Fault> {
        let found = self.flags & (OPTIONAL | TRANSITIVE);
        match flags(self.code) {
            Some(right) if right != found => Err(Fault::Withdraw(
                subcode::FLAGS,
                "its optional or transitive flag is wrong",
            )),
            None if self.flags & OPTIONAL == 0 => Err(Fault::Reset(
                subcode::UNKNOWN_WELL_KNOWN,
                "it claims to be well-known, and nobody knows it",
            )),
            _ => Ok(()),
        }
    }
}

/// How the peer that sent an UPDATE is to us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// It is in another AS.
    pub(super) external: bool,
    /// It speaks AS numbers of four bytes.
    pub(super) four_octet: bool,
}

/// All attributes of an UPDATE but those that carry prefixes.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) origin: Option<Origin>,
    pub(super) as_path: Option<AsPath>,
    as4_path: Option<AsPath>,
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) med: Option<u32>,
    pub(super) local_pref: Option<u32>,
    pub(super) atomic_aggregate: bool,
    pub(super) aggregator: Option<(u32, Ipv4Addr)>,
    as4_aggregator: Option<(u32, Ipv4Addr)>,
    pub(super) communities: Box<[u32]>,
    pub(super) extended_communities: Box<[[u8; 8]]>,
    pub(super) large_communities: Box<[[u32; 3]]>,
    pub(super) originator_id: Option<Ipv4Addr>,
    pub(super) cluster_list: Box<[Ipv4Addr]>,
    pub(super) unknown: Vec<Unknown>,
}

impl Collected {
    /// Takes one attribute, whose flags are right.
    pub(super) fn take(&mut self, raw: &Raw<'_>, sender: Sender) -> Result<(), Fault> {
        let internal_only = matches!(
            raw.code,
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST
        );
        if internal_only && sender.external {
            return Err(Fault::Discard("it means nothing from another AS"));
        }
        match raw.code {
            code::ORIGIN => self.origin = Some(origin(raw)?),
            code::AS_PATH => self.as_path = Some(as_path(raw, sender.four_octet)?),
            code::NEXT_HOP => self.next_hop = Some(next_hop(raw)?),
            code::MED => self.med = Some(number(raw)?),
            code::LOCAL_PREF => self.local_pref = Some(number(raw)?),
            code::ATOMIC_AGGREGATE => {
                if !raw.value.is_empty() {
                    return Err(Fault::Discard("its length is not 0"));
                }
                self.atomic_aggregate = true;
            }
            code::AGGREGATOR => self.aggregator = Some(aggregator(raw, sender.four_octet)?),
            code::COMMUNITIES => self.communities = communities(raw)?,
            code::ORIGINATOR_ID => self.originator_id = Some(originator(raw)?),
            code::CLUSTER_LIST => self.cluster_list = cluster_list(raw)?,
            code::EXTENDED_COMMUNITIES => {
                let (whole, rest) = raw.value.as_chunks();
                not_empty_multiple(whole.len(), rest.len())?;
                self.extended_communities = whole.into();
            }
            code::EXTENDED_COMMUNITIES_V6 => {
                not_empty_multiple(raw.value.len() / 20, raw.value.len() % 20)?;
                self.pass_on(raw);
            }
            code::LARGE_COMMUNITIES => self.large_communities = large_communities(raw)?,
            code::AS4_PATH if sender.four_octet => {
                return Err(Fault::Discard("the sender has AS numbers of four bytes"));
            }
            code::AS4_PATH => self.as4_path = Some(as4_path(raw)?),
            code::AS4_AGGREGATOR if sender.four_octet => {
                return Err(Fault::Discard("the sender has AS numbers of four bytes"));
            }
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(raw, true)?),
            _ if raw.flags & TRANSITIVE != 0 => self.pass_on(raw),
            _ => {}
        }
        Ok(())
    }

    fn pass_on(&mut self, raw: &Raw<'_>) {
        self.unknown.push(Unknown {
            code: raw.code,
            value: raw.value.into(),
        });
    }

    /// Puts back what a peer with AS numbers of two bytes could not say (RFC 6793 §4.2.3).
    pub(super) fn merge_as4(&mut self) {
        let two_octet_aggregator = |(number, _)| number != u32::from(AS_TRANS);
        if self.aggregator.is_some_and(two_octet_aggregator) {
            return;
        }
        if self.aggregator.is_some() {
            self.aggregator = self.as4_aggregator.or(self.aggregator);
        }
        if let (Some(path), Some(as4)) = (&mut self.as_path, self.as4_path.take()) {
            *path = merged(path, as4);
        }
    }
}

/// AS4_PATH behind those ASes of AS_PATH by which it is shorter.
fn merged(path: &AsPath, as4: AsPath) -> AsPath {
    let Some(mut missing) = path.length().checked_sub(as4.length()) else {
        return path.clone();
    };
    let mut segments = Vec::new();
    for segment in &path.0 {
        if missing == 0 {
            break;
        }
        match segment {
            Segment::Sequence(ases) => {
                let kept = missing.min(ases.len());
                segments.push(Segment::Sequence(ases[..kept].into()));
                missing -= kept;
            }
            Segment::Set(_) => {
                segments.push(segment.clone());
                missing -= 1;
            }
        }
    }
    segments.extend(as4.0);
    AsPath(segments.into())
}

fn origin(raw: &Raw<'_>) -> Result<Origin, Fault> {
    if raw.value.len() != 1 {
        return Err(Fault::Withdraw(subcode::LENGTH, "its length is not 1"));
    }
    let read = crate_::Origin::parse(&mut raw.reader(), raw.extended());
    match read {
        Ok(crate_::Origin::IGP) => Ok(Origin::Igp),
        Ok(crate_::Origin::EGP) => Ok(Origin::Egp),
        Ok(crate_::Origin::Incomplete) => Ok(Origin::Incomplete),
        Err(_) => Err(Fault::Withdraw(
            subcode::ORIGIN,
            "its value is not 0, 1 or 2",
        )),
    }
}

fn as_path(raw: &Raw<'_>, four_octet: bool) -> Result<AsPath, Fault> {
    const MALFORMED: Fault = Fault::Withdraw(
        subcode::AS_PATH,
        "a segment's type or length is wrong, or AS 0 is in it",
    );
    let read = crate_::AsPath::parse(&mut raw.reader(), raw.extended(), four_octet);
    let segments: Vec<_> = match read.map_err(|_| MALFORMED)? {
        crate_::AsPath::As4PathSegments(segments) => {
            segments.iter().map(four_octet_segment).collect()
        }
        crate_::AsPath::As2PathSegments(segments) => {
            segments.iter().map(two_octet_segment).collect()
        }
    };
    let path = AsPath(segments.into());
    match path.count(0) {
        0 => Ok(path),
        _ => Err(MALFORMED),
    }
}

fn as4_path(raw: &Raw<'_>) -> Result<AsPath, Fault> {
    const MALFORMED: Fault =
        Fault::Discard("a segment's type or length is wrong, or AS 0 is in it");
    let read = crate_::As4Path::parse(&mut raw.reader(), raw.extended());
    let read = read.map_err(|_| MALFORMED)?;
    let segments: Vec<_> = read.segments().iter().map(four_octet_segment).collect();
    let path = AsPath(segments.into());
    match path.count(0) {
        0 => Ok(path),
        _ => Err(MALFORMED),
    }
}

fn four_octet_segment(segment: &crate_::As4PathSegment) -> Segment {
    as_segment(segment.segment_type(), segment.as_numbers().into())
}

fn two_octet_segment(segment: &crate_::As2PathSegment) -> Segment {
    let ases = segment.as_numbers().iter().map(|number| u32::from(*number));
    as_segment(segment.segment_type(), ases.collect())
}

fn as_segment(kind: crate_::AsPathSegmentType, ases: Box<[u32]>) -> Segment {
    match kind {
        crate_::AsPathSegmentType::AsSequence => Segment::Sequence(ases),
        crate_::AsPathSegmentType::AsSet => Segment::Set(ases),
    }
}

fn next_hop(raw: &Raw<'_>) -> Result<Ipv4Addr, Fault> {
    let read = crate_::NextHop::parse(&mut raw.reader(), raw.extended());
    let read = read.map_err(|_| Fault::Withdraw(subcode::LENGTH, "its length is not 4"))?;
    Ok(read.next_hop())
}

/// MULTI_EXIT_DISC and LOCAL_PREF: the crate has a reader for each, which are alike.
fn number(raw: &Raw<'_>) -> Result<u32, Fault> {
    let value = raw.value.try_into().map(u32::from_be_bytes);
    value.map_err(|_| Fault::Withdraw(subcode::LENGTH, "its length is not 4"))
}

fn aggregator(raw: &Raw<'_>, four_octet: bool) -> Result<(u32, Ipv4Addr), Fault> {
    let read = crate_::Aggregator::parse(&mut raw.reader(), raw.extended(), four_octet);
    let (number, router) = match read {
        Ok(crate_::Aggregator::As4Aggregator(by)) => (*by.asn(), by.origin()),
        Ok(crate_::Aggregator::As2Aggregator(by)) => (u32::from(*by.asn()), by.origin()),
        Err(_) => return Err(Fault::Discard("its length is wrong")),
    };
    match number {
        0 => Err(Fault::Discard("AS 0 is in it")),
        _ => Ok((number, router)),
    }
}

fn communities(raw: &Raw<'_>) -> Result<Box<[u32]>, Fault> {
    not_empty_multiple(raw.value.len() / 4, raw.value.len() % 4)?;
    let read = crate_::Communities::parse(&mut raw.reader(), raw.extended());
    let read = read.map_err(|_| WRONG_MULTIPLE)?;
    Ok(read.communities().iter().map(|one| one.value()).collect())
}

fn large_communities(raw: &Raw<'_>) -> Result<Box<[[u32; 3]]>, Fault> {
    not_empty_multiple(raw.value.len() / 12, raw.value.len() % 12)?;
    let read = crate_::LargeCommunities::parse(&mut raw.reader(), raw.extended());
    let read = read.map_err(|_| WRONG_MULTIPLE)?;
    let numbers = read.communities().iter();
    Ok(numbers
        .map(|one| [one.global_admin(), one.local_data1(), one.local_data2()])
        .collect())
}

fn originator(raw: &Raw<'_>) -> Result<Ipv4Addr, Fault> {
    let read = crate_::Originator::parse(&mut raw.reader(), raw.extended());
    let read = read.map_err(|_| Fault::Withdraw(subcode::LENGTH, "its length is not 4"))?;
    Ok(read.id())
}

fn cluster_list(raw: &Raw<'_>) -> Result<Box<[Ipv4Addr]>, Fault> {
    not_empty_multiple(raw.value.len() / 4, raw.value.len() % 4)?;
    let read = crate_::ClusterList::parse(&mut raw.reader(), raw.extended());
    let read = read.map_err(|_| WRONG_MULTIPLE)?;
    Ok(read.cluster_list().iter().map(|one| one.id()).collect())
}

const WRONG_MULTIPLE: Fault = Fault::Withdraw(
    subcode::OPTIONAL,
    "its length is 0, or not a multiple of an entry's",
);

fn not_empty_multiple(whole: usize, rest: usize) -> Result<(), Fault> {
    match whole > 0 && rest == 0 {
        true => Ok(()),
        false => Err(WRONG_MULTIPLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(ases: &[u32]) -> AsPath {
        AsPath([Segment::Sequence(ases.into())].into())
    }

    /// RFC 6793 §4.2.3.
    #[test]
    fn as4_path_replaces_the_end_of_as_path() {
        let trans = u32::from(AS_TRANS);
        let as4 = path(&[100_000, 200_000]);
        let whole = merged(&path(&[7, trans, trans]), as4.clone());
        assert_eq!(whole.to_string(), "7 100000 200000");
        assert_eq!(merged(&path(&[7]), as4.clone()), path(&[7]));
        assert_eq!(
            merged(&path(&[trans, trans]), as4.clone()).to_string(),
            "100000 200000"
        );
        assert_eq!(as4.length(), 2);
    }

    #[test]
    fn an_attribute_longer_than_the_rest_is_none() {
        assert!(Raw::split(&[0x40, 1, 2, 0]).is_none());
        assert!(Raw::split(&[0x50, 1, 0]).is_none());
        assert!(Raw::split(&[0x40]).is_none());
        let (raw, rest) = Raw::split(&[0x50, 1, 0, 1, 2, 9]).unwrap();
        assert_eq!((raw.value, rest), (&[2][..], &[9][..]));
    }
}
