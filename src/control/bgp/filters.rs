//! What of their routes peers are told and what is taken of theirs: BGPFilters, and Calico's own rules.

use std::cmp::Reverse;

use crate::bgp::filter::{Action, Change, Community, Filter, MatchOperator, Rule, Source};
use crate::resources::bgp_configuration::BgpConfigurationSpec;
use crate::resources::bgp_filter::{
    self, BgpFilter, BgpFilterRule, FilterAction, Operation, PeerType, RouteSource,
};
use crate::resources::bgp_peer::BgpPeerSpec;
use crate::resources::community::CommunityValue;
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
            let rules = from.iter().filter(of_kind);
            to.rules.extend(rules.map(|rule| translated(rule, is_v4)));
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

/// LOCAL_PREF says a route's priority, the metric that it has in a kernel's table, upside down: confd has
/// BIRD write the difference from this.
const PRIORITIES: u32 = 2_147_483_647;

/// The LOCAL_PREF of a route with this priority.
pub fn local_pref(priority: i64) -> u32 {
    let priority = u32::try_from(priority).unwrap_or(0);
    PRIORITIES.saturating_sub(priority)
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
        community: rule
            .communities
            .as_ref()
            .and_then(|communities| communities.values.first())
            .map(community),
        path_begins: rule.as_path_prefix.iter().map(|number| number.0).collect(),
        local_pref: rule.priority.map(local_pref),
        action: match rule.action {
            FilterAction::Accept => Action::Accept,
            FilterAction::Reject => Action::Reject,
        },
        changes: rule.operations.iter().filter_map(change).collect(),
    }
}

fn community(value: &CommunityValue) -> Community {
    match *value {
        CommunityValue::Standard(a, n) => Community::Standard(u32::from(a) << 16 | u32::from(n)),
        CommunityValue::Large(a, n, m) => Community::Large([a, n, m]),
    }
}

/// The one change that validation lets an operation be.
fn change(operation: &Operation) -> Option<Change> {
    if let Some(add) = &operation.add_community {
        return Some(Change::Add(community(&add.value)));
    }
    if let Some(path) = &operation.prepend_as_path {
        let numbers = path.prefix.iter().map(|number| number.0);
        return Some(Change::Prepend(numbers.collect()));
    }
    let priority = operation.set_priority.as_ref()?;
    Some(Change::LocalPref(local_pref(priority.value)))
}
