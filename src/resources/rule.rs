//! The rules of policies and profiles: what a packet must be like, and what is then done.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::metadata::check_annotations;
use super::name::Name;
use super::net::Cidr;
use super::port::{Port, Protocol};
use super::problem::Fault;
use super::selector::{Expression, Selector};

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What is done with a packet that matches.
    pub action: Action,
    /// 4 or 6: the packet's IP version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<u8>,
    /// The packet's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// A protocol that the packet does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<Protocol>,
    /// The packet's ICMP type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpFields>,
    /// An ICMP type and code that the packet does not have.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<IcmpFields>,
    /// Where the packet comes from.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub source: EntityRule,
    /// Where the packet goes.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub destination: EntityRule,
    /// The HTTP request that the packet belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMatch>,
    /// Notes about the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

/// What is done with a packet that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It goes on.
    Allow,
    /// It is dropped.
    Deny,
    /// It is logged, and the next rule is looked at.
    Log,
    /// The next tier decides, or the profiles after the last tier.
    Pass,
}

/// An ICMP type, and a code if only one is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpFields {
    /// The type, from 0 to 254.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<i64>,
    /// The code, from 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
}

/// One end of a packet's way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntityRule {
    /// The address is in one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Cidr>,
    /// The address is in none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_nets: Vec<Cidr>,
    /// It is an endpoint or a network set with such labels.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
    /// It is no endpoint or network set with such labels.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub not_selector: Selector,
    /// Its namespace has such labels; `global()` means what has no namespace.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub namespace_selector: Selector,
    /// The port is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// The port is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<Port>,
    /// It runs as such a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// It is behind such a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
}

/// Service accounts by name, by label, or both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountMatch {
    /// One of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Such labels.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
}

/// A Kubernetes service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceMatch {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Its namespace; the policy's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
}

/// HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpMatch {
    /// One of these methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// One of these paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<HttpPath>,
}

/// A path, or what it begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpPath {
    /// Exactly this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Any path that begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Notes about a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleMetadata {
    /// The notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Which way the packets go that rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// What Calico's rules may have in common, beside what their selectors may not say.
pub(super) const GLOBAL_ELSEWHERE: &str =
    "global() can only be used in an EntityRule namespaceSelector";

/// How many rules a list may have, as Calico's API server limits it.
const RULES_MAX: usize = 1024;

/// What is wrong with a list of rules, in the words of Calico's validation.
pub(super) fn check_rules(faults: &mut Vec<Fault>, field: &str, rules: &[Rule]) {
    if rules.len() > RULES_MAX {
        faults.push(Fault::new(
            field,
            format!("there are {} rules", rules.len()),
            format!("write at most {RULES_MAX}, and split the policy"),
        ));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = |name: &str| format!("{field}[{index}].{name}");
        rule.check(faults, &at);
        rule.source
            .check(faults, &|name| at(&format!("source.{name}")));
        rule.destination
            .check(faults, &|name| at(&format!("destination.{name}")));
    }
}

/// What is wrong with rules in one direction of a policy: services stand only at the far end, HTTP
/// only on the way in, and `global` policies must say in which namespace a service is.
pub(super) fn check_direction(
    faults: &mut Vec<Fault>,
    field: &str,
    rules: &[Rule],
    direction: Direction,
    global: bool,
) {
    for (index, rule) in rules.iter().enumerate() {
        let at = |name: &str| format!("{field}[{index}].{name}");
        let (near, far, near_end, far_end) = match direction {
            Direction::Ingress => ("destination", "source", &rule.destination, &rule.source),
            Direction::Egress => ("source", "destination", &rule.source, &rule.destination),
        };
        let way = if direction == Direction::Ingress {
            "ingress"
        } else {
            "egress"
        };
        if near_end.services.is_some() {
            faults.push(Fault::new(
                at(&format!("{near}.services")),
                format!("not allowed in {way} rule {near}"),
                format!("name the service under {far}"),
            ));
        }
        if direction == Direction::Egress && rule.http.is_some() {
            faults.push(Fault::new(
                at("http"),
                "not allowed in egress rule",
                "match HTTP in ingress rules",
            ));
        }
        let service = far_end.services.as_ref();
        if global && service.is_some_and(|service| service.namespace.is_none()) {
            faults.push(Fault::new(
                at(&format!("{far}.services.namespace")),
                "must specify a namespace",
                "add the service's namespace",
            ));
        }
    }
}

impl Rule {
    fn check(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        if let Some(version) = self.ip_version.filter(|version| ![4, 6].contains(version)) {
            faults.push(Fault::new(
                at("ipVersion"),
                format!("{version} is not an IP version"),
                "write 4 or 6",
            ));
        }
        self.check_ports(faults, at);
        self.check_icmp(faults, at);
        self.check_http(faults, at);
        self.check_families(faults, at);
        if let Some(metadata) = &self.metadata {
            check_annotations(faults, &at("metadata.annotations"), &metadata.annotations);
        }
    }

    fn check_ports(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        let ends = [("source", &self.source), ("destination", &self.destination)];
        let portless = !self.protocol.is_some_and(Protocol::has_ports);
        for (end, entity) in ends {
            let lists = [("ports", &entity.ports), ("notPorts", &entity.not_ports)];
            for (name, ports) in lists {
                if portless && !ports.is_empty() {
                    faults.push(Fault::new(
                        at(&format!("{end}.{name}")),
                        "rules that specify ports must set protocol to TCP or UDP or SCTP",
                        "add protocol, or remove the ports",
                    ));
                }
                if end == "destination" && entity.services.is_some() && !ports.is_empty() {
                    faults.push(Fault::new(
                        at(&format!("{end}.{name}")),
                        format!(
                            "cannot specify {} with a service selector",
                            name.to_lowercase()
                        ),
                        "remove the ports: the service's own are matched",
                    ));
                }
            }
        }
    }

    fn check_icmp(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        let is_icmp = |protocol| [Protocol::ICMP, Protocol::ICMPV6].contains(&protocol);
        if self.icmp.is_some() && !self.protocol.is_some_and(is_icmp) {
            faults.push(Fault::new(
                at("icmp"),
                "rules that specify ICMP fields must set protocol to ICMP",
                "write protocol: ICMP or ICMPv6",
            ));
        }
        for (name, fields) in [("icmp", &self.icmp), ("notICMP", &self.not_icmp)] {
            if let Some(fields) = fields {
                fields.check(faults, &|field| at(&format!("{name}.{field}")));
            }
        }
        for (protocol, name, version) in
            [(Protocol::ICMP, "icmp", 4), (Protocol::ICMPV6, "icmpv6", 6)]
        {
            let used = [self.protocol, self.not_protocol].contains(&Some(protocol));
            if used && self.ip_version.is_some_and(|given| given != version) {
                faults.push(Fault::new(
                    at("ipVersion"),
                    format!("must set ipversion to '{version}' with protocol {name}"),
                    format!("write {version}, or remove ipVersion"),
                ));
            }
        }
    }

    fn check_http(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        let Some(http) = &self.http else { return };
        if self
            .protocol
            .is_some_and(|protocol| protocol != Protocol::TCP)
        {
            faults.push(Fault::new(
                at("protocol"),
                "rules that specify HTTP fields must set protocol to TCP or empty",
                "write TCP, or remove protocol",
            ));
        }
        if self.action != Action::Allow {
            faults.push(Fault::new(
                at("http"),
                "only valid for Allow rules",
                "write action: Allow, or remove http",
            ));
        }
        http.check(faults, at);
    }

    /// All networks of a rule are of one IP version, and of the one that the rule names.
    fn check_families(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        let lists = [
            ("source.nets", &self.source.nets),
            ("source.notNets", &self.source.not_nets),
            ("destination.nets", &self.destination.nets),
            ("destination.notNets", &self.destination.not_nets),
        ];
        let (mut seen_v4, mut seen_v6) = (false, false);
        for (name, nets) in lists {
            let v4 = nets.iter().any(|net| matches!(net.net(), IpNet::V4(_)));
            let v6 = nets.iter().any(|net| matches!(net.net(), IpNet::V6(_)));
            let other = |version| self.ip_version.is_some_and(|given| given != version);
            if v4 && other(4) || v6 && other(6) {
                faults.push(Fault::new(
                    at(name),
                    "rule IP version doesn't match CIDR version",
                    "write CIDRs of the rule's ipVersion",
                ));
            }
            if v4 && seen_v6 || v6 && seen_v4 || v4 && v6 {
                faults.push(Fault::new(
                    at(name),
                    "rule contains both IPv4 and IPv6 CIDRs",
                    "write a rule for each IP version",
                ));
            }
            seen_v4 |= v4;
            seen_v6 |= v6;
        }
    }
}

impl IcmpFields {
    fn check(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        if let Some(code) = self.code
            && self.kind.is_none()
        {
            faults.push(Fault::new(
                at("code"),
                format!("ICMP code {code} specified without an ICMP type"),
                "add type",
            ));
        }
        for (name, value, most) in [("type", self.kind, 254), ("code", self.code, 255)] {
            if let Some(value) = value.filter(|value| !(0..=most).contains(value)) {
                faults.push(Fault::new(
                    at(name),
                    format!("{value} is not an ICMP {name}"),
                    format!("write a number from 0 to {most}"),
                ));
            }
        }
    }
}

impl HttpMatch {
    fn check(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        let distinct: BTreeSet<&String> = self.methods.iter().collect();
        if distinct.len() != self.methods.len() {
            faults.push(Fault::new(
                at("http.methods"),
                format!("Invalid methods (duplicates): {}", self.methods.join(" ")),
                "name each method once",
            ));
        }
        for (index, path) in self.paths.iter().enumerate() {
            let fault = |reason: String, remedy: &str| {
                Fault::new(at(&format!("http.paths[{index}]")), reason, remedy)
            };
            let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
            match (given(&path.exact), given(&path.prefix)) {
                (Some(_), Some(_)) => faults.push(fault(
                    "Invalid path match. Both 'exact' and 'prefix' are set".into(),
                    "write one of them",
                )),
                (None, None) => faults.push(fault(
                    "Invalid path match. Either 'exact' or 'prefix' must be set".into(),
                    "write one of them",
                )),
                (Some(text), None) | (None, Some(text)) => {
                    if !text.starts_with('/') || text.contains(['?', ' ', '#']) {
                        faults.push(fault(
                            format!(
                                "Invalid path {text}. (must start with `/` and not contain `?` or `#`"
                            ),
                            "write a path such as /api/v1",
                        ));
                    }
                }
            }
        }
    }
}

impl EntityRule {
    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        for (name, selector) in [
            ("selector", &self.selector),
            ("notSelector", &self.not_selector),
        ] {
            if selector.expression().mentions_global() {
                faults.push(Fault::new(
                    at(name),
                    GLOBAL_ELSEWHERE,
                    "write global() under namespaceSelector",
                ));
            }
        }
        let namespaces = self.namespace_selector.expression();
        if namespaces.mentions_global() && *namespaces != Expression::Global {
            faults.push(Fault::new(
                at("namespaceSelector"),
                "global() cannot be combined with other selectors",
                "write global() alone",
            ));
        }
        self.check_services(faults, at);
    }

    fn check_services(&self, faults: &mut Vec<Fault>, at: &dyn Fn(&str) -> String) {
        let Some(services) = &self.services else {
            return;
        };
        if services.name.is_none() {
            faults.push(Fault::new(
                at("services"),
                "must specify a service name",
                "add name",
            ));
        }
        let nets = !self.nets.is_empty() || !self.not_nets.is_empty();
        let selectors = !self.selector.is_empty() || !self.not_selector.is_empty();
        for (given, names) in [
            (!self.namespace_selector.is_empty(), "NamespaceSelector"),
            (selectors, "Selector/NotSelector"),
            (self.service_accounts.is_some(), "ServiceAccounts"),
            (nets, "Nets/NotNets"),
        ] {
            if given {
                faults.push(Fault::new(
                    at("services"),
                    format!("cannot specify {names} and Services on the same rule"),
                    "write two rules",
                ));
            }
        }
    }
}
