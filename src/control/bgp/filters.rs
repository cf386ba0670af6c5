//! What of their routes peers are told and what is taken of theirs: BGPFilters, and Calico's own rules.

use std::cmp::Reverse;

use crate::bgp::filter::{Action, Filter, MatchOperator, Rule, Source};
use crate::resources::bgp_configuration::BgpConfigurationSpec;
use crate::resources::bgp_filter::{
    self, BgpFilter, BgpFilterRule, FilterAction, PeerType, RouteSource,
};
use crate::resources::bgp_peer::BgpPeerSpec;
use crate::resources::{ClusterState, IpPool};

use super::plan::{by_bgp, services};

/// A session's rules as its BGPFilters say them; what none matches is accepted.
#[derive(Debug, Default)]
pub struct PeerRules {
    /// For what the peer tells.
    pub import: Filter,
    /// For what the peer is told.
    pub export: Filter,
}

/// The rules of a session's BGPFilters, one after the other. `problems` gets a sentence for each that
/// cannot be followed.
pub fn of_peer(
    state: &ClusterState,
    spec: Option<&BgpPeerSpec>,
    is_v4: bool,
    internal: bool,
    problems: &mut Vec<String>,
) -> PeerRules {
    let mut rules = PeerRules::default();
    for name in spec.into_iter().flat_map(|spec| &spec.filters) {
        let Some(filter) = state.other::<BgpFilter>(name) else {
            problems.push(format!(
                "there is no BGPFilter({name}), which a BGPPeer names; add it"
            ));
            continue;
        };
        let spec = &filter.spec;
        let (import, export) = match is_v4 {
            true => (&spec.import_v4, &spec.export_v4),
            false => (&spec.import_v6, &spec.export_v6),
        };
        for (from, to) in [(import, &mut rules.import), (export, &mut rules.export)] {
            let of_kind = |rule: &&BgpFilterRule| match rule.peer_type {
                Some(PeerType::Internal) => internal,
                Some(PeerType::External) => !internal,
                None => true,
            };
            for rule in from.iter().filter(of_kind) {
                if let Some(lack) = lacking(rule) {
                    problems.push(format!(
                        "BGPFilter({name}): a rule's {lack} is not supported, and the rule is passed over"
                    ));
                    continue;
                }
                to.rules.push(translated(rule, is_v4));
            }
        }
    }
    rules
}

/// The rules of a session for what it is told: its BGPFilters', then Calico's own. Told are services'
/// networks and what is in pools, but for those of VXLAN and those that say no. What peers told goes on if
/// `learned` says so.
pub fn with_calicos(
    state: &ClusterState,
    configuration: &BgpConfigurationSpec,
    mut filter: Filter,
    (is_v4, learned): (bool, bool),
) -> Filter {
    let mut pools: Vec<&IpPool> = state.pools.values().collect();
    pools.sort_by_key(|pool| Reverse(pool.cidr().prefix_len()));
    let within = |cidr, action| Rule {
        cidr: Some((MatchOperator::In, cidr)),
        ..Rule::all(action)
    };
    if !learned {
        filter.rules.push(Rule {
            source: Some(Source::RemotePeers),
            ..Rule::all(Action::Reject)
        });
    }
    for pool in pools
        .into_iter()
        .filter(|pool| pool.cidr().addr().is_ipv4() == is_v4)
    {
        let told = by_bgp(pool) && !pool.spec.disable_bgp_export;
        let action = if told { Action::Accept } else { Action::Reject };
        filter.rules.push(within(pool.cidr(), action));
    }
    let services = services(configuration).filter(|cidr| cidr.addr().is_ipv4() == is_v4);
    filter
        .rules
        .extend(services.map(|cidr| within(cidr, Action::Accept)));
    filter.otherwise = Action::Reject;
    filter
}

/// What of a rule the speaker has nothing for.
fn lacking(rule: &BgpFilterRule) -> Option<&'static str> {
    let lacks = [
        (rule.communities.is_some(), "communities"),
        (!rule.as_path_prefix.is_empty(), "asPathPrefix"),
        (rule.priority.is_some(), "priority"),
        (!rule.operations.is_empty(), "operations"),
    ];
    lacks
        .into_iter()
        .find(|(given, _)| *given)
        .map(|(_, name)| name)
}

fn translated(rule: &BgpFilterRule, is_v4: bool) -> Rule {
    let operator = rule.match_operator.map(|operator| match operator {
        bgp_filter::MatchOperator::Equal => MatchOperator::Equal,
        bgp_filter::MatchOperator::NotEqual => MatchOperator::NotEqual,
        bgp_filter::MatchOperator::In => MatchOperator::In,
        bgp_filter::MatchOperator::NotIn => MatchOperator::NotIn,
    });
    let most = if is_v4 { 32 } else { 128 };
    let length = |length: Option<i64>, otherwise: u8| {
        length
            .and_then(|length| u8::try_from(length).ok())
            .unwrap_or(otherwise)
    };
    Rule {
        cidr: operator.zip(rule.cidr.map(|cidr| cidr.net())),
        prefix_length: rule
            .prefix_length
            .map(|lengths| length(lengths.min, 0)..=length(lengths.max, most)),
        source: rule
            .source
            .map(|RouteSource::RemotePeers| Source::RemotePeers),
        interface: rule.interface.clone(),
        action: match rule.action {
            FilterAction::Accept => Action::Accept,
            FilterAction::Reject => Action::Reject,
        },
    }
}
