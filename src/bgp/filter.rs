//! Ordered rules as in Calico's BGPFilter: the first that matches decides.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::attributes::Attributes;

/// Rules, and what becomes of a route that none of them matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The first rule that matches decides.
    pub rules: Vec<Rule>,
    /// What is done when none matches.
    pub otherwise: Action,
}

/// Accepts everything.
impl Default for Filter {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            otherwise: Action::Accept,
        }
    }
}

impl Filter {
    /// What becomes of a route.
    pub fn decide(&self, route: &Subject<'_>) -> Action {
        self.judge(route).0
    }

    /// What becomes of a route, and how it is changed if it passes.
    pub fn judge(&self, route: &Subject<'_>) -> (Action, &[Change]) {
        let rule = self.rules.iter().find(|rule| rule.matches(route));
        rule.map_or((self.otherwise, &[]), |rule| (rule.action, &rule.changes))
    }

    /// Whether nothing but a route's attributes decides, and every route with the same ones meets the same.
    pub fn takes_all(&self) -> bool {
        self.rules.is_empty() && self.otherwise == Action::Accept
    }
}

/// A route as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its destination.
    pub prefix: IpNet,
    /// It came from a BGP peer; else it is an own one.
    pub from_peer: bool,
    /// The interface that it leads to, if that is known.
    pub interface: Option<&'a str>,
    /// What is said of it.
    pub says: &'a Attributes,
    /// LOCAL_PREF of a route that says none.
    pub default_local_pref: u32,
}

/// A rule; it matches a route that every given condition holds for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The destination's relation to a network.
    pub cidr: Option<(MatchOperator, IpNet)>,
    /// The destination's prefix length.
    pub prefix_length: Option<RangeInclusive<u8>>,
    /// Where it came from.
    pub source: Option<Source>,
    /// The interface it leads to; a `*` stands for anything.
    pub interface: Option<String>,
    /// A community that it has.
    pub community: Option<Community>,
    /// What its AS path begins with; anything if empty.
    pub path_begins: Vec<u32>,
    /// Its LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// What is done with it.
    pub action: Action,
    /// What is changed in it if it passes, in this order.
    pub changes: Vec<Change>,
}

/// A community of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Community {
    /// RFC 1997: AS in the upper half.
    Standard(u32),
    /// RFC 8092.
    Large([u32; 3]),
}

impl Community {
    fn is_in(self, said: &Attributes) -> bool {
        match self {
            Self::Standard(value) => said.communities.contains(&value),
            Self::Large(value) => said.large_communities.contains(&value),
        }
    }
}

/// One change of a route that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this community, too.
    Add(Community),
    /// These ASes go before its path, the first of them first.
    Prepend(Vec<u32>),
    /// Its LOCAL_PREF is this one.
    LocalPref(u32),
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, to: &mut Attributes) {
        match self {
            Self::Add(community) if community.is_in(to) => {}
            Self::Add(Community::Standard(value)) => {
                let all = to.communities.iter().copied().chain([*value]);
                to.communities = all.collect();
            }
            Self::Add(Community::Large(value)) => {
                let all = to.large_communities.iter().copied().chain([*value]);
                to.large_communities = all.collect();
            }
            Self::Prepend(numbers) => {
                for number in numbers.iter().rev() {
                    to.as_path = to.as_path.prepended(*number);
                }
            }
            Self::LocalPref(value) => to.local_pref = Some(*value),
        }
    }
}

impl Rule {
    /// A rule without conditions.
    pub fn all(action: Action) -> Self {
        Self {
            cidr: None,
            prefix_length: None,
            source: None,
            interface: None,
            community: None,
            path_begins: Vec::new(),
            local_pref: None,
            action,
            changes: Vec::new(),
        }
    }

    fn matches(&self, route: &Subject<'_>) -> bool {
        self.cidr
            .is_none_or(|(operator, cidr)| operator.holds(route.prefix, cidr))
            && self
                .prefix_length
                .as_ref()
                .is_none_or(|lengths| lengths.contains(&route.prefix.prefix_len()))
            && self
                .source
                .is_none_or(|Source::RemotePeers| route.from_peer)
            && self.interface.as_ref().is_none_or(|pattern| {
                route
                    .interface
                    .is_some_and(|name| matches_interface(pattern.as_bytes(), name.as_bytes()))
            })
            && self
                .community
                .is_none_or(|community| community.is_in(route.says))
            && route.says.as_path.begins_with(&self.path_begins)
            && self.local_pref.is_none_or(|wanted| {
                route.says.local_pref.unwrap_or(route.default_local_pref) == wanted
            })
    }
}

/// `*` stands for anything, and nothing. Names have 15 characters, so trying takes no time.
fn matches_interface(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => {
            (0..=name.len()).any(|skipped| matches_interface(rest, &name[skipped..]))
        }
        Some((first, rest)) => name.first() == Some(first) && matches_interface(rest, &name[1..]),
    }
}

/// How a destination is compared with a rule's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOperator {
    /// It is the network.
    Equal,
    /// It is not the network.
    NotEqual,
    /// It is the network, or within it.
    In,
    /// Neither.
    NotIn,
}

impl MatchOperator {
    fn holds(self, prefix: IpNet, cidr: IpNet) -> bool {
        match self {
            Self::Equal => prefix == cidr.trunc(),
            Self::NotEqual => prefix != cidr.trunc(),
            Self::In => cidr.contains(&prefix),
            Self::NotIn => !cidr.contains(&prefix),
        }
    }
}

/// Where a route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// BGP peers.
    RemotePeers,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is taken, or told.
    Accept,
    /// It is not.
    Reject,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::attributes::{AsPath, Segment};

    fn subject(prefix: &str) -> Subject<'static> {
        static SAID: std::sync::LazyLock<Attributes> =
            std::sync::LazyLock::new(|| said(&[65000, 65001, 65002]));
        Subject {
            prefix: prefix.parse().unwrap(),
            from_peer: false,
            interface: Some("cali123"),
            says: &SAID,
            default_local_pref: 100,
        }
    }

    fn said(path: &[u32]) -> Attributes {
        let mut said = Attributes::own([10, 0, 0, 1].into());
        said.as_path = AsPath([Segment::Sequence(path.into())].into());
        said.communities = [7].into();
        said.large_communities = [[1, 2, 3]].into();
        said
    }

    fn rule(operator: MatchOperator, cidr: &str, action: Action) -> Rule {
        Rule {
            cidr: Some((operator, cidr.parse().unwrap())),
            ..Rule::all(action)
        }
    }

    #[test]
    fn operators() {
        use MatchOperator::*;
        for (operator, cidr, prefix, holds) in [
            (Equal, "10.0.0.0/8", "10.0.0.0/8", true),
            (Equal, "10.0.0.0/8", "10.0.0.0/9", false),
            (NotEqual, "10.0.0.0/8", "10.0.0.0/9", true),
            (NotEqual, "10.0.0.0/8", "10.0.0.0/8", false),
            (In, "10.0.0.0/8", "10.0.0.0/8", true),
            (In, "10.0.0.0/8", "10.9.0.0/26", true),
            (In, "10.0.0.0/8", "0.0.0.0/0", false),
            (In, "10.0.0.0/8", "fd00::/64", false),
            (NotIn, "10.0.0.0/8", "fd00::/64", true),
            (NotIn, "10.0.0.0/8", "10.9.0.0/26", false),
            (In, "fd00::/8", "fd00::/64", true),
        ] {
            assert_eq!(
                operator.holds(prefix.parse().unwrap(), cidr.parse().unwrap()),
                holds,
                "{prefix} {operator:?} {cidr}"
            );
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let filter = Filter {
            rules: vec![
                rule(MatchOperator::In, "10.1.0.0/16", Action::Accept),
                rule(MatchOperator::In, "10.0.0.0/8", Action::Reject),
            ],
            otherwise: Action::Accept,
        };
        assert_eq!(filter.decide(&subject("10.1.2.0/26")), Action::Accept);
        assert_eq!(filter.decide(&subject("10.2.2.0/26")), Action::Reject);
        assert_eq!(filter.decide(&subject("11.0.0.0/8")), Action::Accept);
    }

    #[test]
    fn lengths_sources_and_interfaces() {
        let reject = |rule: Rule| Filter {
            rules: vec![rule],
            otherwise: Action::Accept,
        };
        let long = reject(Rule {
            prefix_length: Some(27..=32),
            ..Rule::all(Action::Reject)
        });
        assert_eq!(long.decide(&subject("10.0.0.1/32")), Action::Reject);
        assert_eq!(long.decide(&subject("10.0.0.0/26")), Action::Accept);
        let remote = reject(Rule {
            source: Some(Source::RemotePeers),
            ..Rule::all(Action::Reject)
        });
        assert_eq!(remote.decide(&subject("10.0.0.1/32")), Action::Accept);
        let learned = Subject {
            from_peer: true,
            ..subject("10.0.0.1/32")
        };
        assert_eq!(remote.decide(&learned), Action::Reject);
        for (pattern, action) in [
            ("cali*", Action::Reject),
            ("cali123", Action::Reject),
            ("cali1", Action::Accept),
            ("*", Action::Reject),
            ("*123", Action::Reject),
            ("c*1*3", Action::Reject),
            ("c*4", Action::Accept),
            ("", Action::Accept),
        ] {
            let by_interface = reject(Rule {
                interface: Some(pattern.to_owned()),
                ..Rule::all(Action::Reject)
            });
            assert_eq!(
                by_interface.decide(&subject("10.0.0.1/32")),
                action,
                "{pattern}"
            );
        }
    }

    #[test]
    fn attributes() {
        let route = subject("10.0.0.0/26");
        let rule = || Rule::all(Action::Reject);
        let community = |community| Rule {
            community: Some(community),
            ..rule()
        };
        let path = |path_begins: &[u32]| Rule {
            path_begins: path_begins.to_vec(),
            ..rule()
        };
        let preferred = |local_pref| Rule {
            local_pref: Some(local_pref),
            ..rule()
        };
        for (rule, matches) in [
            (community(Community::Standard(7)), true),
            (community(Community::Standard(8)), false),
            (community(Community::Large([1, 2, 3])), true),
            (community(Community::Large([1, 2, 4])), false),
            (path(&[65000]), true),
            (path(&[65000, 65001]), true),
            (path(&[65000, 65001, 65002]), true),
            (path(&[65000, 65001, 65002, 65003]), false),
            (path(&[65001]), false),
            (preferred(100), true),
            (preferred(101), false),
        ] {
            assert_eq!(rule.matches(&route), matches, "{rule:?}");
        }
    }

    /// Calico's filters add AS numbers so that the first of the list comes first.
    #[test]
    fn changes() {
        let mut route = said(&[65000]);
        for change in [
            Change::Add(Community::Standard(7)),
            Change::Add(Community::Standard(9)),
            Change::Add(Community::Large([1, 2, 3])),
            Change::Add(Community::Large([3, 2, 1])),
            Change::Prepend(vec![65010, 65011]),
            Change::LocalPref(300),
        ] {
            change.apply(&mut route);
        }
        assert_eq!(*route.communities, [7, 9]);
        assert_eq!(*route.large_communities, [[1, 2, 3], [3, 2, 1]]);
        assert_eq!(route.as_path.to_string(), "65010 65011 65000");
        assert_eq!(route.local_pref, Some(300));
    }
}
