//! A route's path attributes, as values that many prefixes share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

/// LOCAL_PREF of a route that says none, where nothing else is set (RFC 4271 leaves it open; everybody takes
/// 100).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// What is said about a path, whatever the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Where the route came from.
    pub origin: Origin,
    /// The ASes on the way, the nearest first.
    pub as_path: AsPath,
    /// Where packets go.
    pub next_hop: IpAddr,
    /// The link-local address beside a global IPv6 next hop (RFC 2545).
    pub link_local: Option<Ipv6Addr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AS and router that have aggregated.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// RFC 1997: AS in the upper half.
    pub communities: Box<[u32]>,
    /// RFC 4360.
    pub extended_communities: Box<[[u8; 8]]>,
    /// RFC 8092.
    pub large_communities: Box<[[u32; 3]]>,
    /// Who brought the route into this AS (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// The clusters that it was reflected in, the latest first (RFC 4456).
    pub cluster_list: Box<[Ipv4Addr]>,
    /// Optional transitive attributes that we do not know, to be handed on with the partial bit.
    pub unknown: Box<[Unknown]>,
    /// What was told, where an import filter has made this of it.
    pub made_from: Option<Arc<Attributes>>,
}

impl Attributes {
    /// Of a route of our own.
    pub fn own(next_hop: IpAddr) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            link_local: None,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Box::default(),
            extended_communities: Box::default(),
            large_communities: Box::default(),
            originator_id: None,
            cluster_list: Box::default(),
            unknown: Box::default(),
            made_from: None,
        }
    }

    /// As they were told, whatever an import filter has made of them.
    pub fn as_told(this: &Arc<Self>) -> &Arc<Self> {
        this.made_from.as_ref().unwrap_or(this)
    }
}

/// ORIGIN, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    Igp,
    /// Learned by EGP.
    Egp,
    /// By some other means.
    Incomplete,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "IGP",
            Self::Egp => "EGP",
            Self::Incomplete => "incomplete",
        })
    }
}

/// An attribute that is handed on as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unknown {
    /// Its type code.
    pub code: u8,
    /// Its value.
    pub value: Box<[u8]>,
}

/// AS_PATH.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath(pub Box<[Segment]>);

/// A part of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// ASes in the order in which the route passed them, the latest first.
    Sequence(Box<[u32]>),
    /// ASes in no order, of an aggregate.
    Set(Box<[u32]>),
}

impl Segment {
    /// The ASes in it.
    pub fn ases(&self) -> &[u32] {
        match self {
            Self::Sequence(ases) | Self::Set(ases) => ases,
        }
    }
}

/// A segment's length is one byte.
const MOST_IN_SEGMENT: usize = 255;

impl AsPath {
    /// How long it counts in the decision: a set as one (RFC 4271 §9.1.2.2 a).
    pub fn length(&self) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Sequence(ases) => ases.len(),
            Segment::Set(_) => 1,
        };
        self.0.iter().map(length).sum()
    }

    /// The AS next to ours; none for a route from our own AS.
    pub fn neighbour(&self) -> Option<u32> {
        match self.0.first()? {
            Segment::Sequence(ases) => ases.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// How often an AS is in it.
    pub fn count(&self, of: u32) -> usize {
        let ases = self.0.iter().flat_map(|segment| segment.ases());
        ases.filter(|number| **number == of).count()
    }

    /// Whether the path begins with these; of a set any member will do.
    pub fn begins_with(&self, numbers: &[u32]) -> bool {
        let mut steps = self.0.iter().flat_map(|segment| match segment {
            Segment::Sequence(ases) => ases.chunks(1),
            Segment::Set(ases) => ases.chunks(ases.len().max(1)),
        });
        numbers
            .iter()
            .all(|number| steps.next().is_some_and(|step| step.contains(number)))
    }

    /// The path with one more AS before it (RFC 4271 §5.1.2).
    pub fn prepended(&self, number: u32) -> Self {
        let mut segments = self.0.to_vec();
        match segments.first_mut() {
            Some(Segment::Sequence(ases)) if ases.len() < MOST_IN_SEGMENT => {
                *ases = std::iter::once(number)
                    .chain(ases.iter().copied())
                    .collect();
            }
            _ => segments.insert(0, Segment::Sequence([number].into())),
        }
        Self(segments.into())
    }
}

/// As routers print it: `64512 65001 {65002 65003}`.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |ases: &[u32]| {
            let texts: Vec<_> = ases.iter().map(u32::to_string).collect();
            texts.join(" ")
        };
        for (nth, segment) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str(" ")?;
            }
            match segment {
                Segment::Sequence(ases) => f.write_str(&join(ases))?,
                Segment::Set(ases) => write!(f, "{{{}}}", join(ases))?,
            }
        }
        Ok(())
    }
}

/// A route that this node tells others: a block, a borrowed address, an advertised prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRoute {
    /// The destination.
    pub prefix: IpNet,
    /// The interface that it leads to, for filters.
    pub interface: Option<String>,
    /// What is said of it.
    pub says: OwnAttributes,
}

impl OwnRoute {
    /// A route of which nothing is said.
    pub fn new(prefix: IpNet) -> Self {
        Self {
            prefix: prefix.trunc(),
            interface: None,
            says: OwnAttributes::default(),
        }
    }
}

/// What is said of an own route; Calico's prefixAdvertisements and route priority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnAttributes {
    /// The next hop, where it is not this node.
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF within our AS, where it is not the settings' default.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// RFC 1997: AS in the upper half.
    pub communities: Vec<u32>,
    /// RFC 8092.
    pub large_communities: Vec<[u32; 3]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_prepended_within_its_first_sequence() {
        let path = AsPath(
            [
                Segment::Sequence([2, 3].into()),
                Segment::Set([4, 5].into()),
            ]
            .into(),
        );
        let longer = path.prepended(1);
        assert_eq!(longer.to_string(), "1 2 3 {4 5}");
        assert_eq!((longer.length(), longer.neighbour()), (4, Some(1)));
        assert_eq!((longer.count(5), longer.count(6)), (1, 0));
        assert!(longer.begins_with(&[]) && longer.begins_with(&[1, 2, 3, 5]));
        assert!(!longer.begins_with(&[1, 3]) && !longer.begins_with(&[1, 2, 3, 4, 5]));
        let set = AsPath([Segment::Set([4, 5].into())].into());
        assert_eq!(set.neighbour(), None);
        assert_eq!(set.prepended(1).to_string(), "1 {4 5}");
        let full = AsPath([Segment::Sequence(vec![7; 255].into())].into());
        assert_eq!(full.prepended(1).0.len(), 2);
    }
}
