//! BGPFilter: which routes a BGP session takes and tells. The first rule that matches decides.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bgp_configuration::is_interface_pattern;
use super::community::CommunityValue;
use super::metadata::Metadata;
use super::net::{AsNumber, Network};
use super::problem::Fault;

/// A BGPFilter resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpFilter {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: BgpFilterSpec,
}

/// Rules by direction and IP version, each list in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFilterSpec {
    /// For IPv4 routes that are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<BgpFilterRule>,
    /// For IPv4 routes that are received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<BgpFilterRule>,
    /// For IPv6 routes that are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_v6: Vec<BgpFilterRule>,
    /// For IPv6 routes that are received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import_v6: Vec<BgpFilterRule>,
}

/// What a route must be like, and what is then done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFilterRule {
    /// The network that the route's prefix is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Network>,
    /// How it is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// The route's prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// Where the route was learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteSource>,
    /// The interface that the route leaves by; `*` is a wildcard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The kind of session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// A community that the route has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    /// What the route's AS path begins with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_path_prefix: Vec<AsNumber>,
    /// The route's priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Whether the route passes.
    pub action: FilterAction,
    /// What is changed in a route that passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
}

/// How a route's prefix is compared with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchOperator {
    /// It is the network.
    Equal,
    /// It is not the network.
    NotEqual,
    /// It is the network or part of it.
    In,
    /// It is neither the network nor part of it.
    NotIn,
}

/// Bounds of a prefix length, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixLength {
    /// The least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// Where a route was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RouteSource {
    /// From a BGP peer.
    RemotePeers,
}

/// The kind of a BGP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerType {
    /// Between two ASes.
    #[serde(rename = "eBGP")]
    External,
    /// Within one AS.
    #[serde(rename = "iBGP")]
    Internal,
}

/// Communities that a route has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommunityMatch {
    /// Exactly one.
    pub values: Vec<CommunityValue>,
}

/// Whether a route passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FilterAction {
    /// Yes.
    Accept,
    /// No.
    Reject,
}

/// One change of a route: exactly one field is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// A community that is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,
    /// AS numbers that are put before the path.
    #[serde(
        default,
        rename = "prependASPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_as_path: Option<PrependAsPath>,
    /// The priority that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<SetPriority>,
}

/// A community that is added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddCommunity {
    /// The community.
    pub value: CommunityValue,
}

/// AS numbers that are put before a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrependAsPath {
    /// The numbers, the first of which comes first.
    pub prefix: Vec<AsNumber>,
}

/// A priority that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPriority {
    /// The priority.
    pub value: i64,
}

const PRIORITIES: std::ops::RangeInclusive<i64> = 1..=2_147_483_646;
const LIST_MAX: usize = 10;

impl BgpFilter {
    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        for (name, rules, v4) in [
            ("exportV4", &spec.export_v4, true),
            ("importV4", &spec.import_v4, true),
            ("exportV6", &spec.export_v6, false),
            ("importV6", &spec.import_v6, false),
        ] {
            for (index, rule) in rules.iter().enumerate() {
                rule.check(&mut faults, v4, &|field| {
                    format!("spec.{name}[{index}].{field}")
                });
            }
        }
        faults
    }
}

impl BgpFilterRule {
    fn check(&self, faults: &mut Vec<Fault>, v4: bool, at: &dyn Fn(&str) -> String) {
        self.check_prefix(faults, v4, at);
        if let Some(name) = self
            .interface
            .as_ref()
            .filter(|name| !is_interface_pattern(name))
        {
            faults.push(Fault::new(
                at("interface"),
                format!("'{name}' is not an interface's name"),
                "write 1 to 15 letters, digits, '_', '.', '-' and '*'",
            ));
        }
        if let Some(communities) = &self.communities
            && communities.values.len() != 1
        {
            faults.push(Fault::new(
                at("communities.values"),
                format!("there are {} communities", communities.values.len()),
                "write exactly one",
            ));
        }
        if let Some(priority) = self.priority {
            check_priority(faults, at("priority"), priority);
        }
        self.check_operations(faults, at);
    }

    fn check_prefix(&self, faults: &mut Vec<Fault>, v4: bool, at: &dyn Fn(&str) -> String) {
        let mut wrong = |found: bool, field: &str, reason: &str, remedy: &str| {
            if found {
                faults.push(Fault::new(at(field), reason, remedy));
            }
        };
        let (cidr, operator) = (self.cidr, self.match_operator);
        wrong(
            cidr.is_some() && operator.is_none(),
            "cidr",
            "MatchOperator cannot be empty when CIDR is not",
            "add matchOperator: Equal, NotEqual, In or NotIn",
        );
        wrong(
            cidr.is_none() && operator.is_some(),
            "matchOperator",
            "CIDR cannot be empty when MatchOperator is not",
            "add cidr",
        );
        wrong(
            cidr.is_none() && self.prefix_length.is_some(),
            "prefixLength",
            "CIDR cannot be empty when PrefixLength is not",
            "add cidr",
        );
        if let Some(cidr) = cidr {
            let family = matches!(cidr.net(), IpNet::V4(_));
            wrong(
                family != v4,
                "cidr",
                &format!("{cidr} is of the other IP version"),
                if v4 {
                    "write an IPv4 network"
                } else {
                    "write an IPv6 network"
                },
            );
            cidr.check_masked(faults, &at("cidr"));
        }
        let most = if v4 { 32 } else { 128 };
        let length = self.prefix_length.unwrap_or_default();
        for (name, length) in [("min", length.min), ("max", length.max)] {
            if let Some(length) = length.filter(|length| !(0..=most).contains(length)) {
                faults.push(Fault::new(
                    at(&format!("prefixLength.{name}")),
                    format!("{length} is not a prefix length"),
                    format!("write a number from 0 to {most}"),
                ));
            }
        }
    }

    fn check_operations(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        if !self.operations.is_empty() && self.action != FilterAction::Accept {
            faults.push(Fault::new(
                at("operations"),
                "operations may only be used with action Accept",
                "remove them, or write action: Accept",
            ));
        }
        if self.operations.len() > LIST_MAX {
            faults.push(Fault::new(
                at("operations"),
                format!("there are {} operations", self.operations.len()),
                format!("write at most {LIST_MAX}"),
            ));
        }
        for (index, operation) in self.operations.iter().enumerate() {
            operation.check(faults, &at(&format!("operations[{index}]")));
        }
    }
}

impl Operation {
    fn check(&self, faults: &mut Vec<Fault>, field: &str) {
        let given = [
            self.add_community.is_some(),
            self.prepend_as_path.is_some(),
            self.set_priority.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            faults.push(Fault::new(
                field,
                "exactly one operation must be set",
                "write addCommunity, prependASPath or setPriority",
            ));
        }
        if let Some(path) = &self.prepend_as_path
            && !(1..=LIST_MAX).contains(&path.prefix.len())
        {
            faults.push(Fault::new(
                format!("{field}.prependASPath.prefix"),
                format!("there are {} AS numbers", path.prefix.len()),
                format!("write 1 to {LIST_MAX}"),
            ));
        }
        if let Some(priority) = &self.set_priority {
            check_priority(faults, format!("{field}.setPriority.value"), priority.value);
        }
    }
}

fn check_priority(faults: &mut Vec<Fault>, field: String, priority: i64) {
    if !PRIORITIES.contains(&priority) {
        let (least, most) = PRIORITIES.into_inner();
        faults.push(Fault::new(
            field,
            format!("{priority} is not a route's priority"),
            format!("write a number from {least} to {most}"),
        ));
    }
}
