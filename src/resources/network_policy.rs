//! NetworkPolicy and GlobalNetworkPolicy: which packets endpoints may receive and send.

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::metadata::Metadata;
use super::name::Name;
use super::order::Order;
use super::problem::Fault;
use super::rule::{Direction, GLOBAL_ELSEWHERE, Rule, check_direction, check_rules};
use super::selector::Selector;

/// A NetworkPolicy resource: for endpoints of its own namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Name, namespace, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: NetworkPolicySpec,
    /// What the cluster reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Json>,
}

/// A GlobalNetworkPolicy resource: for endpoints of all namespaces, and of none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalNetworkPolicy {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: GlobalNetworkPolicySpec,
    /// What the cluster reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Json>,
}

/// A policy's endpoints and rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicySpec {
    /// The tier that the policy is in.
    #[serde(default = "default_tier")]
    pub tier: Name,
    /// Its place among the tier's policies; last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The endpoints.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
    /// The endpoints' service accounts.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub service_account_selector: Selector,
    /// The ways that the policy is about; see [`directions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<Direction>,
    /// What the endpoints may receive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// What the endpoints may send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// How the policy may be prepared for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// A policy's endpoints and rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GlobalNetworkPolicySpec {
    /// The tier that the policy is in.
    #[serde(default = "default_tier")]
    pub tier: Name,
    /// Its place among the tier's policies; last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The endpoints.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
    /// The endpoints' namespaces.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub namespace_selector: Selector,
    /// The endpoints' service accounts.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub service_account_selector: Selector,
    /// The ways that the policy is about; see [`directions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<Direction>,
    /// What the endpoints may receive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// What the endpoints may send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Whether the rules come before connection tracking.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub do_not_track: bool,
    /// Whether the rules come before destinations are translated.
    #[serde(
        default,
        rename = "preDNAT",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub pre_dnat: bool,
    /// Whether the rules also go for what a host endpoint's machine forwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apply_on_forward: bool,
    /// How the policy may be prepared for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// How a policy may be prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PerformanceHint {
    /// Every node is likely to need it.
    AssumeNeededOnEveryNode,
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self {
            tier: default_tier(),
            order: None,
            selector: Selector::default(),
            service_account_selector: Selector::default(),
            types: Vec::new(),
            ingress: Vec::new(),
            egress: Vec::new(),
            performance_hints: Vec::new(),
        }
    }
}

impl Default for GlobalNetworkPolicySpec {
    fn default() -> Self {
        Self {
            tier: default_tier(),
            order: None,
            selector: Selector::default(),
            namespace_selector: Selector::default(),
            service_account_selector: Selector::default(),
            types: Vec::new(),
            ingress: Vec::new(),
            egress: Vec::new(),
            do_not_track: false,
            pre_dnat: false,
            apply_on_forward: false,
            performance_hints: Vec::new(),
        }
    }
}

/// The ways that a policy is about: as given; else ingress, unless there are only egress rules, and
/// both if there are both.
pub fn directions(types: &[Direction], ingress: &[Rule], egress: &[Rule]) -> Vec<Direction> {
    if !types.is_empty() {
        return types.to_vec();
    }
    match (ingress.is_empty(), egress.is_empty()) {
        (_, true) => vec![Direction::Ingress],
        (true, false) => vec![Direction::Egress],
        (false, false) => vec![Direction::Ingress, Direction::Egress],
    }
}

impl NetworkPolicy {
    /// Writes out what follows from the rest, as Calico does when a policy is stored.
    pub fn fill_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.types = directions(&spec.types, &spec.ingress, &spec.egress);
    }

    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        check_name(
            &mut faults,
            self.metadata.name.as_str(),
            &["knp", "ossg", "kcnp"],
        );
        check_types(&mut faults, &spec.types);
        check_selectors(
            &mut faults,
            &[
                ("spec.selector", &spec.selector),
                (
                    "spec.serviceAccountSelector",
                    &spec.service_account_selector,
                ),
            ],
        );
        check_hints(&mut faults, &spec.performance_hints);
        for (field, rules, direction) in [
            ("spec.ingress", &spec.ingress, Direction::Ingress),
            ("spec.egress", &spec.egress, Direction::Egress),
        ] {
            check_rules(&mut faults, field, rules);
            check_direction(&mut faults, field, rules, direction, false);
        }
        faults
    }
}

impl GlobalNetworkPolicy {
    /// Writes out what follows from the rest, as Calico does when a policy is stored.
    pub fn fill_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.types = directions(&spec.types, &spec.ingress, &spec.egress);
    }

    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        check_name(&mut faults, self.metadata.name.as_str(), &[]);
        self.check_flags(&mut faults);
        check_types(&mut faults, &spec.types);
        check_selectors(
            &mut faults,
            &[
                ("spec.selector", &spec.selector),
                (
                    "spec.serviceAccountSelector",
                    &spec.service_account_selector,
                ),
                ("spec.namespaceSelector", &spec.namespace_selector),
            ],
        );
        check_hints(&mut faults, &spec.performance_hints);
        for (field, rules, direction) in [
            ("spec.ingress", &spec.ingress, Direction::Ingress),
            ("spec.egress", &spec.egress, Direction::Egress),
        ] {
            check_rules(&mut faults, field, rules);
            check_direction(&mut faults, field, rules, direction, true);
        }
        faults
    }

    fn check_flags(&self, faults: &mut Vec<Fault>) {
        let spec = &self.spec;
        let mut wrong = |found: bool, field: &str, reason: &str, remedy: &str| {
            if found {
                faults.push(Fault::new(field, reason, remedy));
            }
        };
        wrong(
            spec.do_not_track && spec.pre_dnat,
            "spec.preDNAT",
            "PreDNAT and DoNotTrack cannot both be true, for a given PolicySpec",
            "set one of them to false",
        );
        wrong(
            spec.pre_dnat && !spec.egress.is_empty(),
            "spec.egress",
            "PreDNAT PolicySpec cannot have any Egress rules",
            "remove them, or preDNAT",
        );
        wrong(
            spec.pre_dnat && spec.types.contains(&Direction::Egress),
            "spec.types",
            "PreDNAT PolicySpec cannot have 'egress' Type",
            "remove Egress, or preDNAT",
        );
        wrong(
            !spec.apply_on_forward && (spec.do_not_track || spec.pre_dnat),
            "spec.applyOnForward",
            "ApplyOnForward must be true if either PreDNAT or DoNotTrack is true, \
             for a given PolicySpec",
            "write applyOnForward: true",
        );
    }
}

/// Names are one label, or a tier's name and a label; some prefixes stand for what other kinds of
/// policies are turned into, whose names may have more parts.
fn check_name(faults: &mut Vec<Fault>, name: &str, prefixes: &[&str]) {
    let converted = prefixes.iter().any(|prefix| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(".default.") && rest.len() > ".default.".len())
    });
    if !converted && name.matches('.').count() > 1 {
        faults.push(Fault::new(
            "metadata.name",
            "name must consist of lower case alphanumeric characters or '-' \
             (regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?)",
            "write a name with at most one '.', after the tier's name",
        ));
    }
}

fn check_types(faults: &mut Vec<Fault>, types: &[Direction]) {
    for direction in [Direction::Ingress, Direction::Egress] {
        if types.iter().filter(|given| **given == direction).count() > 1 {
            faults.push(Fault::new(
                "spec.types",
                format!("'{direction:?}' type specified more than once"),
                "write it once",
            ));
        }
    }
}

fn check_selectors(faults: &mut Vec<Fault>, selectors: &[(&str, &Selector)]) {
    for (field, selector) in selectors {
        if selector.expression().mentions_global() {
            faults.push(Fault::new(
                *field,
                GLOBAL_ELSEWHERE,
                "remove global(): a policy's own selectors select endpoints",
            ));
        }
    }
}

fn check_hints(faults: &mut Vec<Fault>, hints: &[PerformanceHint]) {
    if hints.len() > 1 {
        faults.push(Fault::new(
            "spec.performanceHints",
            "the hint is given more than once",
            "write it once",
        ));
    }
}

fn default_tier() -> Name {
    Name::default_name()
}
