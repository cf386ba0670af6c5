//! UPDATE: routes that come and go (RFC 4271 §4.3, RFC 4760), and what malformed ones do (RFC 7606).

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFrom;

use super::Family;
use super::attribute::{Collected, Fault, Raw, Sender, code as attribute_code, name, subcode};
use super::notification::{Notification, code};
use crate::bgp::attributes::Attributes;

/// What was agreed with the peer, as far as its UPDATEs depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bgp) struct Context {
    /// It is in another AS.
    pub(in crate::bgp) external: bool,
    /// AS numbers have four bytes.
    pub(in crate::bgp) four_octet: bool,
    /// Whether the families are exchanged: IPv4, IPv6.
    pub(in crate::bgp) families: [bool; 2],
    /// Whether the peer sends path identifiers, by family.
    pub(in crate::bgp) path_ids: [bool; 2],
    /// IPv4 routes may have IPv6 next hops.
    pub(in crate::bgp) extended_next_hop: bool,
}

/// Prefixes, each with its path identifier (0 where there are none).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct Prefixes {
    pub(in crate::bgp) v4: Vec<(u32, Ipv4Net)>,
    pub(in crate::bgp) v6: Vec<(u32, Ipv6Net)>,
}

impl Prefixes {
    pub(in crate::bgp) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(in crate::bgp) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn extend(&mut self, more: Self) {
        self.v4.extend(more.v4);
        self.v6.extend(more.v6);
    }
}

/// An UPDATE, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct Update {
    /// Routes that are gone.
    pub(in crate::bgp) withdrawn: Prefixes,
    /// Routes that are there, by what is said of them.
    pub(in crate::bgp) announced: Vec<(Attributes, Prefixes)>,
    /// All routes of the family have been sent (RFC 4724 §2).
    pub(in crate::bgp) end_of_rib: Option<Family>,
    /// What was malformed and what became of it.
    pub(in crate::bgp) problems: Vec<Problem>,
    /// Its announced routes are among the withdrawn ones.
    pub(in crate::bgp) treated_as_withdraw: bool,
}

/// Something malformed that did not end the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bgp) struct Problem {
    /// `ORIGIN`, or what else it is about.
    pub(in crate::bgp) about: &'static str,
    /// The attribute's code.
    pub(in crate::bgp) code: u8,
    /// What is wrong.
    pub(in crate::bgp) what: &'static str,
    /// It was left out, and nothing else.
    pub(in crate::bgp) discarded: bool,
}

impl Update {
    /// Reads a body. An error ends the session.
    pub(in crate::bgp) fn read(body: &[u8], context: &Context) -> Result<Self, Notification> {
        let parts = Parts::split(body)?;
        let mut reading = Reading::new(context);
        reading.withdrawn(parts.withdrawn)?;
        reading.attributes(parts.attributes)?;
        reading.announced(parts.announced)?;
        reading.finish(parts.is_empty())
    }
}

struct Parts<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    announced: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(body: &'a [u8]) -> Result<Self, Notification> {
        let sized = |bytes: &'a [u8]| {
            let (length, rest) = bytes.split_first_chunk()?;
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        };
        let too_long = |what| error(subcode::LIST).detail(what);
        let (withdrawn, rest) =
            sized(body).ok_or_else(|| too_long("withdrawn routes are longer than the message"))?;
        let (attributes, announced) =
            sized(rest).ok_or_else(|| too_long("attributes are longer than the message"))?;
        Ok(Self {
            withdrawn,
            attributes,
            announced,
        })
    }

    fn is_empty(&self) -> bool {
        self.withdrawn.is_empty() && self.attributes.is_empty() && self.announced.is_empty()
    }
}

/// Routes of MP_REACH_NLRI.
struct Reached {
    next_hop: IpAddr,
    link_local: Option<Ipv6Addr>,
    prefixes: Prefixes,
}

struct Reading<'a> {
    context: &'a Context,
    collected: Collected,
    seen: [u64; 4],
    reached: Option<Reached>,
    classic: Prefixes,
    /// The subcode of the first fault that withdraws.
    withdraws: Option<(u8, u8, &'static str)>,
    only_unreach: Option<Family>,
    others: usize,
    update: Update,
}

impl<'a> Reading<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            context,
            collected: Collected::default(),
            seen: [0; 4],
            reached: None,
            classic: Prefixes::default(),
            withdraws: None,
            only_unreach: None,
            others: 0,
            update: Update::default(),
        }
    }

    fn withdrawn(&mut self, bytes: &[u8]) -> Result<(), Notification> {
        let prefixes = self.v4(bytes).ok_or_else(bad_network)?;
        if self.context.families[0] {
            self.update.withdrawn.v4 = prefixes;
        }
        Ok(())
    }

    fn announced(&mut self, bytes: &[u8]) -> Result<(), Notification> {
        self.classic.v4 = self.v4(bytes).ok_or_else(bad_network)?;
        if !self.context.families[0] && !self.classic.is_empty() {
            self.classic = Prefixes::default();
            self.note("NLRI", 0, "IPv4 routes were not agreed on", true);
        }
        Ok(())
    }

    fn attributes(&mut self, mut bytes: &[u8]) -> Result<(), Notification> {
        while !bytes.is_empty() {
            let Some((raw, rest)) = Raw::split(bytes) else {
                // RFC 7606 §4: the prefixes behind are found by the length of all attributes.
                let code = bytes.get(1).copied().unwrap_or(0);
                let what = "it is longer than all attributes";
                self.fault(code, Fault::Withdraw(subcode::LIST, what), bytes)?;
                return Ok(());
            };
            let whole = &bytes[..bytes.len() - rest.len()];
            bytes = rest;
            if self.is_repeated(raw.code) {
                self.repeated(&raw)?;
                continue;
            }
            let outcome = raw.check_flags().and_then(|()| self.attribute(&raw));
            if let Err(fault) = outcome {
                self.fault(raw.code, fault, whole)?;
            }
        }
        Ok(())
    }

    fn is_repeated(&mut self, code: u8) -> bool {
        let (word, bit) = (usize::from(code >> 6), 1 << (code & 63));
        let repeated = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        repeated
    }

    /// RFC 7606 §3 g.
    fn repeated(&mut self, raw: &Raw<'_>) -> Result<(), Notification> {
        if matches!(
            raw.code,
            attribute_code::MP_REACH | attribute_code::MP_UNREACH
        ) {
            let detail = format!("{} twice", name(raw.code));
            return Err(error(subcode::LIST).detail(detail));
        }
        self.note(name(raw.code), raw.code, "it comes again", true);
        Ok(())
    }

    fn attribute(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        if raw.code != attribute_code::MP_UNREACH {
            self.others += 1;
        }
        match raw.code {
            attribute_code::MP_REACH => self.reach(raw.value),
            attribute_code::MP_UNREACH => self.unreach(raw.value),
            _ => {
                let sender = Sender {
                    external: self.context.external,
                    four_octet: self.context.four_octet,
                };
                self.collected.take(raw, sender)
            }
        }
    }

    /// RFC 4760 §3, RFC 8950 §3; what cannot be read ends the session (RFC 7606 §7.11).
    fn reach(&mut self, value: &[u8]) -> Result<(), Fault> {
        const CUT: Fault = Fault::Reset(subcode::OPTIONAL, "it ends within its fixed fields");
        let (&[high, low, safi, length], rest) = value.split_first_chunk().ok_or(CUT)?;
        let (next_hop, rest) = rest.split_at_checked(usize::from(length)).ok_or(CUT)?;
        let (_reserved, prefixes) = rest.split_first().ok_or(CUT)?;
        let family = Family::of(u16::from_be_bytes([high, low]), safi);
        let Some(family) = family.filter(|family| self.context.families[*family as usize]) else {
            self.note(
                "MP_REACH_NLRI",
                attribute_code::MP_REACH,
                "its family was not agreed on",
                true,
            );
            return Ok(());
        };
        let (next_hop, link_local) = self.next_hop(family, next_hop)?;
        let prefixes = self.prefixes(family, prefixes).ok_or(Fault::Reset(
            subcode::OPTIONAL,
            "a prefix is longer than the attribute or its family",
        ))?;
        self.reached = Some(Reached {
            next_hop,
            link_local,
            prefixes,
        });
        Ok(())
    }

    fn next_hop(&self, family: Family, bytes: &[u8]) -> Result<(IpAddr, Option<Ipv6Addr>), Fault> {
        let v6 = |bytes: &[u8; 16]| Ipv6Addr::from(*bytes);
        let extended = family == Family::V6 || self.context.extended_next_hop;
        if let (Family::V4, Ok(v4)) = (family, <[u8; 4]>::try_from(bytes)) {
            return Ok((IpAddr::from(v4), None));
        }
        match bytes.as_chunks::<16>() {
            ([one], []) if extended => Ok((v6(one).into(), None)),
            ([one, local], []) if extended => {
                let (one, local) = (v6(one), v6(local));
                // Some speakers leave the global address out, and say the link-local one twice.
                match one.is_unspecified() {
                    true => Ok((local.into(), Some(local))),
                    false => Ok((one.into(), Some(local).filter(|of| !of.is_unspecified()))),
                }
            }
            _ => Err(Fault::Reset(
                subcode::OPTIONAL,
                "its next hop's length is wrong",
            )),
        }
    }

    fn unreach(&mut self, value: &[u8]) -> Result<(), Fault> {
        const CUT: Fault = Fault::Reset(subcode::OPTIONAL, "it ends within its fixed fields");
        let (&[high, low, safi], bytes) = value.split_first_chunk().ok_or(CUT)?;
        let family = Family::of(u16::from_be_bytes([high, low]), safi);
        let Some(family) = family.filter(|family| self.context.families[*family as usize]) else {
            self.note(
                "MP_UNREACH_NLRI",
                attribute_code::MP_UNREACH,
                "its family was not agreed on",
                true,
            );
            return Ok(());
        };
        let prefixes = self.prefixes(family, bytes).ok_or(Fault::Reset(
            subcode::OPTIONAL,
            "a prefix is longer than the attribute or its family",
        ))?;
        if prefixes.is_empty() && bytes.is_empty() {
            self.only_unreach = Some(family);
        }
        self.update.withdrawn.extend(prefixes);
        Ok(())
    }

    fn prefixes(&mut self, family: Family, bytes: &[u8]) -> Option<Prefixes> {
        let mut prefixes = Prefixes::default();
        match family {
            Family::V4 => prefixes.v4 = self.v4(bytes)?,
            Family::V6 => prefixes.v6 = self.v6(bytes)?,
        }
        Some(prefixes)
    }

    /// None: one is longer than it may be, or than what is there. What is no destination of unicast
    /// packets is left out (RFC 4271 §6.3).
    fn v4(&mut self, bytes: &[u8]) -> Option<Vec<(u32, Ipv4Net)>> {
        let mut reader = SliceReader::new(bytes);
        let mut found = Vec::with_capacity(bytes.len() / 4);
        while !reader.is_empty() {
            let path_id = self.path_id(Family::V4, &mut reader)?;
            let prefix = <Ipv4Net as ParseFrom>::parse(&mut reader).ok()?.trunc();
            match prefix.addr().is_multicast() {
                true => self.note("NLRI", 0, "a multicast prefix", true),
                false => found.push((path_id, prefix)),
            }
        }
        Some(found)
    }

    fn v6(&mut self, bytes: &[u8]) -> Option<Vec<(u32, Ipv6Net)>> {
        let mut reader = SliceReader::new(bytes);
        let mut found = Vec::with_capacity(bytes.len() / 9);
        while !reader.is_empty() {
            let path_id = self.path_id(Family::V6, &mut reader)?;
            let prefix = <Ipv6Net as ParseFrom>::parse(&mut reader).ok()?.trunc();
            let link_local = prefix.addr().is_unicast_link_local() && prefix.prefix_len() >= 10;
            match prefix.addr().is_multicast() || link_local {
                true => self.note("NLRI", 0, "a multicast or link-local prefix", true),
                false => found.push((path_id, prefix)),
            }
        }
        Some(found)
    }

    fn path_id(&self, family: Family, reader: &mut SliceReader<'_>) -> Option<u32> {
        match self.context.path_ids[family as usize] {
            true => reader.read_u32_be().ok(),
            false => Some(0),
        }
    }

    fn fault(&mut self, code: u8, fault: Fault, whole: &[u8]) -> Result<(), Notification> {
        match fault {
            Fault::Discard(what) => self.note(name(code), code, what, true),
            Fault::Withdraw(subcode, what) => {
                self.withdraws.get_or_insert((subcode, code, what));
                self.note(name(code), code, what, false);
            }
            Fault::Reset(subcode, what) => return Err(reset(subcode, code, what).with_data(whole)),
        }
        Ok(())
    }

    /// A flood of malformed prefixes in one message is one line.
    fn note(&mut self, about: &'static str, code: u8, what: &'static str, discarded: bool) {
        let problem = Problem {
            about,
            code,
            what,
            discarded,
        };
        if !self.update.problems.contains(&problem) {
            self.update.problems.push(problem);
        }
    }

    fn finish(mut self, empty: bool) -> Result<Update, Notification> {
        let reached = self.reached.take();
        let mp = reached.as_ref().is_some_and(|mp| !mp.prefixes.is_empty());
        if mp || !self.classic.is_empty() {
            self.demand(attribute_code::ORIGIN, self.collected.origin.is_some());
            self.demand(attribute_code::AS_PATH, self.collected.as_path.is_some());
            let needs_next_hop = self.classic.is_empty() || self.collected.next_hop.is_some();
            self.demand(attribute_code::NEXT_HOP, needs_next_hop);
        } else if let Some((subcode, code, what)) = self.withdraws {
            // What would have to be withdrawn cannot be known (RFC 7606 §5.2).
            return Err(reset(subcode, code, what));
        }
        if self.withdraws.is_some() {
            self.update.treated_as_withdraw = true;
            self.update
                .withdrawn
                .extend(std::mem::take(&mut self.classic));
            if let Some(mp) = reached {
                self.update.withdrawn.extend(mp.prefixes);
            }
            return Ok(self.update);
        }
        self.update.end_of_rib = match empty {
            true => Some(Family::V4).filter(|_| self.context.families[0]),
            false => self
                .only_unreach
                .filter(|_| self.others == 0 && self.update.withdrawn.is_empty()),
        };
        self.announce(reached);
        Ok(self.update)
    }

    /// RFC 7606 §3 d.
    fn demand(&mut self, code: u8, there: bool) {
        if !there
            && !self
                .update
                .problems
                .iter()
                .any(|of| of.code == code && !of.discarded)
        {
            let what = "it is missing";
            self.withdraws.get_or_insert((subcode::MISSING, code, what));
            self.note(name(code), code, what, false);
        }
    }

    fn announce(&mut self, reached: Option<Reached>) {
        self.collected.merge_as4();
        let classic = std::mem::take(&mut self.classic);
        let mp = reached.filter(|mp| !mp.prefixes.is_empty());
        let classic_hop = self.collected.next_hop.map(IpAddr::from);
        match (classic_hop.filter(|_| !classic.is_empty()), mp) {
            (Some(next_hop), None) => {
                let attributes = self.common(next_hop, None);
                self.update.announced.push((attributes, classic));
            }
            (Some(next_hop), Some(mp)) => {
                let attributes = self.common(mp.next_hop, mp.link_local);
                let of_classic = Attributes {
                    next_hop,
                    link_local: None,
                    ..attributes.clone()
                };
                self.update.announced.push((of_classic, classic));
                self.update.announced.push((attributes, mp.prefixes));
            }
            (None, Some(mp)) => {
                let attributes = self.common(mp.next_hop, mp.link_local);
                self.update.announced.push((attributes, mp.prefixes));
            }
            (None, None) => {}
        }
    }

    fn common(&mut self, next_hop: IpAddr, link_local: Option<Ipv6Addr>) -> Attributes {
        let of = &mut self.collected;
        Attributes {
            origin: of.origin.expect("demanded"),
            as_path: of.as_path.take().expect("demanded"),
            next_hop,
            link_local,
            med: of.med,
            local_pref: of.local_pref,
            atomic_aggregate: of.atomic_aggregate,
            aggregator: of.aggregator,
            communities: std::mem::take(&mut of.communities),
            extended_communities: std::mem::take(&mut of.extended_communities),
            large_communities: std::mem::take(&mut of.large_communities),
            originator_id: of.originator_id,
            cluster_list: std::mem::take(&mut of.cluster_list),
            unknown: std::mem::take(&mut of.unknown).into(),
            made_from: None,
        }
    }
}

fn error(subcode: u8) -> Notification {
    Notification::new(code::UPDATE, subcode)
}

fn reset(subcode: u8, attribute: u8, what: &str) -> Notification {
    let detail = format!("{} (code {attribute}): {what}", name(attribute));
    error(subcode).detail(detail)
}

fn bad_network() -> Notification {
    error(subcode::NETWORK).detail("a prefix is longer than 32 bits or than the message")
}

#[cfg(test)]
mod tests;
