//! What a peer is told of a path: whether at all, and with which attributes (RFC 4271 §5, RFC 4456 §8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{OWN, Path, PeerFacts, PeerIndex};
use crate::bgp::attributes::{AsPath, Attributes};
use crate::bgp::filter::Change;
use crate::bgp::message::Family;
use crate::bgp::settings::NextHopMode;

/// Well-known communities (RFC 1997).
const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// A peer as somebody who is told routes.
#[derive(Clone, Debug)]
pub(in crate::bgp) struct Reader {
    pub(in crate::bgp) index: PeerIndex,
    pub(in crate::bgp) facts: PeerFacts,
    /// Our AS on this session.
    pub(in crate::bgp) local_as: u32,
    /// LOCAL_PREF of a route that says none.
    pub(in crate::bgp) default_local_pref: u32,
    pub(in crate::bgp) cluster_id: Ipv4Addr,
    pub(in crate::bgp) next_hop: NextHopMode,
    /// Our own addresses as next hops.
    pub(in crate::bgp) own_v4: Option<Ipv4Addr>,
    pub(in crate::bgp) own_v6: Option<Ipv6Addr>,
    /// IPv4 routes may have IPv6 next hops.
    pub(in crate::bgp) extended_next_hop: bool,
}

impl Reader {
    /// Whether a path can be told at all, whatever is said in it; quick.
    pub(in crate::bgp) fn may_hear(&self, path: &Path, peers: &[PeerFacts]) -> bool {
        if path.peer == OWN {
            return true;
        }
        let source = &peers[path.peer as usize];
        // Routes from our own AS stay with those who heard them, but for reflection.
        let within = !source.external && !self.facts.external;
        path.peer != self.index && (!within || source.client || self.facts.client)
    }

    /// The attributes as the peer is told them, with a filter's changes made first; none: it is not told.
    pub(in crate::bgp) fn tell(
        &self,
        path: &Path,
        changes: &[Change],
        family: Family,
        peers: &[PeerFacts],
    ) -> Option<Attributes> {
        if !self.may_hear(path, peers) || self.community_forbids(&path.attributes) {
            return None;
        }
        let mut told = Attributes {
            made_from: None,
            ..(*path.attributes).clone()
        };
        if path.peer == OWN && !self.facts.external {
            told.as_path = AsPath::default();
        }
        changes.iter().for_each(|change| change.apply(&mut told));
        self.set_next_hop(&mut told, path, family)?;
        match self.facts.external {
            true => self.leave_as(&mut told, path),
            false => self.stay_in_as(&mut told, path, peers),
        }
        Some(told)
    }

    fn community_forbids(&self, said: &Attributes) -> bool {
        said.communities.iter().any(|community| match *community {
            NO_ADVERTISE => true,
            NO_EXPORT | NO_EXPORT_SUBCONFED => self.facts.external,
            _ => false,
        })
    }

    fn leave_as(&self, told: &mut Attributes, path: &Path) {
        told.as_path = told.as_path.prepended(self.local_as);
        told.local_pref = None;
        told.originator_id = None;
        told.cluster_list = Box::default();
        // A neighbour's preference among its own links means nothing to another (RFC 4271 §5.1.4).
        if path.peer != OWN {
            told.med = None;
        }
    }

    fn stay_in_as(&self, told: &mut Attributes, path: &Path, peers: &[PeerFacts]) {
        told.local_pref.get_or_insert(self.default_local_pref);
        if path.peer == OWN {
            return;
        }
        let source = &peers[path.peer as usize];
        if !source.external {
            told.originator_id.get_or_insert(source.router_id);
            let list = std::iter::once(self.cluster_id).chain(told.cluster_list.iter().copied());
            told.cluster_list = list.collect();
        }
    }

    fn set_next_hop(&self, told: &mut Attributes, path: &Path, family: Family) -> Option<()> {
        let unsaid = told.next_hop.is_unspecified();
        let own = unsaid
            || match self.next_hop {
                NextHopMode::Own => true,
                NextHopMode::Keep => false,
                NextHopMode::Auto => self.facts.external && path.peer != OWN,
            };
        if own {
            told.next_hop = self.own(family)?;
            told.link_local = None;
        }
        let readable = match (family, told.next_hop) {
            (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)) => true,
            (Family::V4, IpAddr::V6(_)) => self.extended_next_hop,
            (Family::V6, IpAddr::V4(_)) => false,
        };
        // Nobody is told that it is its own next hop (RFC 4271 §5.1.3).
        (readable && told.next_hop != self.facts.address).then_some(())
    }

    fn own(&self, family: Family) -> Option<IpAddr> {
        let v6 = self.own_v6.map(IpAddr::from);
        match family {
            Family::V4 => self.own_v4.map(IpAddr::from).or(v6),
            Family::V6 => v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bgp::attributes::Segment;

    const RR: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

    fn peers() -> Vec<PeerFacts> {
        let peer = |last, external, client| PeerFacts {
            external,
            client,
            router_id: Ipv4Addr::new(1, 1, 1, last),
            address: [10, 0, 0, last].into(),
            scope_id: 0,
        };
        vec![
            peer(0, false, false),
            peer(1, true, false),  // another AS
            peer(2, false, false), // internal
            peer(3, false, true),  // client
            peer(4, false, true),  // client
            peer(5, true, false),  // another AS
            peer(6, false, false), // internal
        ]
    }

    fn reader(index: PeerIndex) -> Reader {
        Reader {
            index,
            facts: peers()[index as usize],
            local_as: 64512,
            default_local_pref: 100,
            cluster_id: RR,
            next_hop: NextHopMode::Auto,
            own_v4: Some(Ipv4Addr::new(10, 0, 0, 100)),
            own_v6: None,
            extended_next_hop: false,
        }
    }

    fn from(peer: PeerIndex) -> Path {
        let mut said = Attributes::own([10, 0, 0, peer as u8].into());
        if peers()[peer as usize].external {
            said.as_path = AsPath([Segment::Sequence([65001].into())].into());
            said.med = Some(7);
        } else {
            said.local_pref = Some(200);
        }
        if peer == OWN {
            said.next_hop = Ipv4Addr::UNSPECIFIED.into();
        }
        Path {
            attributes: Arc::new(said),
            path_id: 0,
            since: 0,
            peer,
            stale: false,
            unusable: None,
        }
    }

    fn told(source: PeerIndex, to: &Reader) -> Option<Attributes> {
        to.tell(&from(source), &[], Family::V4, &peers())
    }

    /// RFC 4456 §6: who hears whom.
    #[test]
    fn reflection_by_the_rfc() {
        for (source, to, heard) in [
            (0, 1, true),
            (0, 2, true),
            (0, 3, true),
            (1, 1, false),
            (1, 2, true),
            (1, 3, true),
            (1, 5, true),
            (2, 1, true),
            (2, 3, true),
            (2, 6, false),
            (2, 2, false),
            (3, 1, true),
            (3, 2, true),
            (3, 3, false),
            (3, 4, true),
        ] {
            assert_eq!(
                told(source, &reader(to)).is_some(),
                heard,
                "{source} → {to}"
            );
        }
        let reflected = told(3, &reader(4)).unwrap();
        assert_eq!(reflected.originator_id, Some(Ipv4Addr::new(1, 1, 1, 3)));
        assert_eq!(*reflected.cluster_list, [RR]);
        assert_eq!(reflected.next_hop, IpAddr::from([10, 0, 0, 3]));
        assert_eq!(reflected.local_pref, Some(200));
    }

    #[test]
    fn another_as_hears_a_longer_path_and_our_next_hop() {
        let passed = told(1, &reader(5)).unwrap();
        assert_eq!(passed.as_path.to_string(), "64512 65001");
        assert_eq!((passed.med, passed.local_pref), (None, None));
        assert_eq!(passed.next_hop, IpAddr::from([10, 0, 0, 100]));
        let own = told(0, &reader(5)).unwrap();
        assert_eq!(
            (own.as_path.to_string(), own.local_pref),
            ("64512".to_owned(), None)
        );
        let inside = told(0, &reader(2)).unwrap();
        assert_eq!((inside.as_path.length(), inside.local_pref), (0, Some(200)));
    }

    #[test]
    fn next_hops_by_mode() {
        let mode = |to, next_hop| Reader {
            next_hop,
            ..reader(to)
        };
        let hop = |source, to: &Reader| told(source, to).map(|of| of.next_hop.to_string());
        assert_eq!(
            hop(1, &mode(5, NextHopMode::Keep)).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(
            hop(1, &mode(2, NextHopMode::Auto)).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(
            hop(1, &mode(2, NextHopMode::Own)).as_deref(),
            Some("10.0.0.100")
        );
        let over_v6 = Reader {
            own_v4: None,
            own_v6: Some(Ipv6Addr::LOCALHOST),
            ..reader(5)
        };
        assert_eq!(hop(0, &over_v6), None);
        let extended = Reader {
            extended_next_hop: true,
            ..over_v6
        };
        assert_eq!(hop(0, &extended).as_deref(), Some("::1"));
        assert!(extended.tell(&from(1), &[], Family::V6, &peers()).is_some());
    }

    #[test]
    fn communities_forbid() {
        for (community, inside, outside) in [
            (NO_EXPORT, true, false),
            (NO_EXPORT_SUBCONFED, true, false),
            (NO_ADVERTISE, false, false),
            (1, true, true),
        ] {
            let mut path = from(1);
            Arc::make_mut(&mut path.attributes).communities = [community].into();
            let heard = |to| reader(to).tell(&path, &[], Family::V4, &peers()).is_some();
            assert_eq!((heard(2), heard(5)), (inside, outside), "{community:#x}");
        }
    }
}
