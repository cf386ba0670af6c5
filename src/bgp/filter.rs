//! Ordered rules as in Calico's BGPFilter: the first that matches decides.

use std::ops::RangeInclusive;

use ipnet::IpNet;

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
        let rule = self.rules.iter().find(|rule| rule.matches(route));
        rule.map_or(self.otherwise, |rule| rule.action)
    }
}

/// A route as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its destination.
    pub prefix: IpNet,
    /// It came from a BGP peer; else it is an own one.
    pub from_peer: bool,
    /// The interface that an own route leads to.
    pub interface: Option<&'a str>,
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
    /// The interface it leads to; a `*` at the end stands for anything.
    pub interface: Option<String>,
    /// What is done with it.
    pub action: Action,
}

impl Rule {
    /// A rule without conditions.
    pub fn all(action: Action) -> Self {
        Self {
            cidr: None,
            prefix_length: None,
            source: None,
            interface: None,
            action,
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
                    .is_some_and(|name| matches_interface(pattern, name))
            })
    }
}

fn matches_interface(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => pattern == name,
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

    fn subject(prefix: &str) -> Subject<'static> {
        Subject {
            prefix: prefix.parse().unwrap(),
            from_peer: false,
            interface: Some("cali123"),
        }
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
}
