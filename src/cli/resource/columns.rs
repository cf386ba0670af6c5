//! The columns of `get`, as calicoctl has them.

use crate::resources::{Kind, Resource};

/// What a column shows of a resource beside what the resource itself says.
pub(super) struct Context {
    /// The AS of nodes that name none.
    pub as_number: String,
}

/// The columns of a kind; `wide` has more of them.
pub(super) const fn headings(kind: Kind, wide: bool) -> &'static [&'static str] {
    match (kind, wide) {
        (Kind::Node, true) => &["NAME", "ASN", "IPV4", "IPV6"],
        (Kind::IpPool, false) => &["NAME", "CIDR", "SELECTOR"],
        (Kind::IpPool, true) => &[
            "NAME",
            "CIDR",
            "NAT",
            "IPIPMODE",
            "VXLANMODE",
            "DISABLED",
            "DISABLEBGPEXPORT",
            "SELECTOR",
        ],
        (Kind::IpReservation, true) => &["NAME", "CIDRS"],
        (Kind::IpamConfiguration, false) => &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"],
        (Kind::IpamConfiguration, true) => &[
            "NAME",
            "STRICTAFFINITY",
            "AUTOALLOCATEBLOCKS",
            "MAXBLOCKSPERHOST",
        ],
        (Kind::BlockAffinity, _) => &["NAME", "CIDR", "NODE", "STATE"],
        (Kind::WorkloadEndpoint, false) => &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"],
        (Kind::WorkloadEndpoint, true) => &[
            "NAME",
            "WORKLOAD",
            "NODE",
            "NETWORKS",
            "INTERFACE",
            "PROFILES",
            "NATS",
        ],
        (Kind::HostEndpoint, false) => &["NAME", "NODE"],
        (Kind::HostEndpoint, true) => &["NAME", "NODE", "INTERFACE", "IPS", "PROFILES"],
        (Kind::BgpConfiguration, _) => &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"],
        (Kind::BgpPeer, _) => &["NAME", "PEERIP", "NODE", "ASN"],
        (Kind::BgpFilter, _) => &["NAME", "NUMEXPORT", "NUMIMPORT"],
        (Kind::Tier, _) => &["NAME", "ORDER"],
        (Kind::NetworkPolicy, false) => &["NAME", "TIER"],
        (Kind::NetworkPolicy, true) => &["NAME", "TIER", "ORDER", "SELECTOR"],
        (Kind::GlobalNetworkPolicy, true) => &["NAME", "ORDER", "SELECTOR"],
        (Kind::NetworkSet | Kind::GlobalNetworkSet, true) => &["NAME", "NETS"],
        (Kind::Profile, true) => &["NAME", "LABELS"],
        _ => &["NAME"],
    }
}

/// Columns that can be asked for by name and are in no table by default.
pub(super) const fn extra(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::WorkloadEndpoint => &["NAMESPACE", "ORCHESTRATOR"],
        Kind::NetworkPolicy | Kind::NetworkSet => &["NAMESPACE"],
        Kind::GlobalNetworkPolicy => &["TIER"],
        _ => &[],
    }
}

/// Lists of networks are cut off here, as calicoctl cuts them off.
const LIST_MAX: usize = 80;

/// What stands in a column, or nothing if the kind has no such column.
pub(super) fn cell(resource: &Resource, heading: &str, context: &Context) -> Option<String> {
    let metadata = resource.metadata();
    match heading {
        "NAME" => return Some(metadata.name.to_string()),
        "NAMESPACE" => return Some(text(metadata.namespace.as_ref())),
        _ => {}
    }
    let known = headings(resource.kind(), true).contains(&heading)
        || headings(resource.kind(), false).contains(&heading)
        || extra(resource.kind()).contains(&heading);
    known.then(|| of_kind(resource, heading, context))
}

fn of_kind(resource: &Resource, heading: &str, context: &Context) -> String {
    match (resource, heading) {
        (Resource::Node(node), _) => {
            let Some(bgp) = &node.spec.bgp else {
                return String::new();
            };
            match heading {
                "ASN" => bgp
                    .as_number
                    .map_or_else(|| format!("({})", context.as_number), |asn| asn.to_string()),
                "IPV4" => text(bgp.ipv4_address),
                _ => text(bgp.ipv6_address),
            }
        }
        (Resource::IpPool(pool), _) => {
            let spec = &pool.spec;
            match heading {
                "CIDR" => spec.cidr.to_string(),
                "NAT" => spec.nat_outgoing.to_string(),
                "IPIPMODE" => format!("{:?}", spec.ipip_mode),
                "VXLANMODE" => format!("{:?}", spec.vxlan_mode),
                "DISABLED" => spec.disabled.to_string(),
                "DISABLEBGPEXPORT" => spec.disable_bgp_export.to_string(),
                _ => spec.node_selector.to_string(),
            }
        }
        (Resource::IpReservation(reservation), _) => truncated(&reservation.spec.reserved_cidrs),
        (Resource::IpamConfiguration(configuration), _) => {
            let spec = &configuration.spec;
            match heading {
                "STRICTAFFINITY" => spec.strict_affinity.to_string(),
                "AUTOALLOCATEBLOCKS" => spec.auto_allocate_blocks.to_string(),
                _ => spec.max_blocks_per_host.to_string(),
            }
        }
        (Resource::BlockAffinity(affinity), _) => match heading {
            "CIDR" => affinity.spec.cidr.to_string(),
            "NODE" => affinity.spec.node.to_string(),
            _ => word(&affinity.spec.state),
        },
        (Resource::WorkloadEndpoint(endpoint), _) => {
            let spec = &endpoint.spec;
            match heading {
                "WORKLOAD" => text(spec.workload.as_ref().or(spec.pod.as_ref())),
                "NODE" => spec.node.to_string(),
                "NETWORKS" => joined(&spec.ip_networks),
                "INTERFACE" => spec.interface_name.to_string(),
                "PROFILES" => joined(&spec.profiles),
                "ORCHESTRATOR" => text(spec.orchestrator.as_ref()),
                _ => {
                    let nats = spec.ip_nats.iter();
                    let nats =
                        nats.map(|nat| format!("{{{} {}}}", nat.internal_ip, nat.external_ip));
                    nats.collect::<Vec<_>>().join(",")
                }
            }
        }
        (Resource::HostEndpoint(endpoint), _) => {
            let spec = &endpoint.spec;
            match heading {
                "NODE" => text(spec.node.as_ref()),
                "INTERFACE" => text(spec.interface_name.as_ref()),
                "IPS" => joined(&spec.expected_ips),
                _ => joined(&spec.profiles),
            }
        }
        (Resource::BgpConfiguration(configuration), _) => {
            let spec = &configuration.spec;
            let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            match heading {
                "LOGSEVERITY" => spec
                    .log_severity_screen
                    .as_ref()
                    .map_or_else(String::new, word),
                "MESHENABLED" => or_dash(spec.node_to_node_mesh_enabled.map(|on| on.to_string())),
                _ => or_dash(spec.as_number.map(|asn| asn.to_string())),
            }
        }
        (Resource::BgpPeer(peer), _) => {
            let spec = &peer.spec;
            match heading {
                "PEERIP" => text(spec.peer_ip),
                "NODE" => match &spec.node {
                    Some(node) => node.to_string(),
                    None if spec.node_selector.is_empty() => "(global)".to_owned(),
                    None => spec.node_selector.to_string(),
                },
                _ => spec.as_number.map_or(0, |asn| asn.0).to_string(),
            }
        }
        (Resource::BgpFilter(filter), _) => {
            let spec = &filter.spec;
            match heading {
                "NUMEXPORT" => (spec.export_v4.len() + spec.export_v6.len()).to_string(),
                _ => (spec.import_v4.len() + spec.import_v6.len()).to_string(),
            }
        }
        (Resource::Tier(tier), _) => go_number(tier.spec.order.map(|order| order.get())),
        (Resource::NetworkPolicy(policy), _) => match heading {
            "TIER" => policy.spec.tier.to_string(),
            "ORDER" => go_number(policy.spec.order.map(|order| order.get())),
            _ => policy.spec.selector.to_string(),
        },
        (Resource::GlobalNetworkPolicy(policy), _) => match heading {
            "TIER" => policy.spec.tier.to_string(),
            "ORDER" => go_number(policy.spec.order.map(|order| order.get())),
            _ => policy.spec.selector.to_string(),
        },
        (Resource::NetworkSet(set), _) => truncated(&set.spec.nets),
        (Resource::GlobalNetworkSet(set), _) => truncated(&set.spec.nets),
        (Resource::Profile(profile), _) => {
            let labels = profile.spec.labels_to_apply.iter();
            let pairs = labels.map(|(key, value)| format!("{key}={value}"));
            pairs.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A value of an enum, as resources write it.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(",")
}

fn truncated<T: ToString>(values: &[T]) -> String {
    let mut text = joined(values);
    if text.len() > LIST_MAX {
        text.truncate(LIST_MAX - 3);
        text.push_str("...");
    }
    text
}

/// A number as Go's templates print it: `500`, `0.5`, `1e+06`, `<nil>`.
pub(super) fn go_number(number: Option<f64>) -> String {
    let Some(number) = number else {
        return "<nil>".to_owned();
    };
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..GO_EXPONENT).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// From this power of ten on, Go prints a number with an exponent (`%g` at its shortest).
const GO_EXPONENT: i32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (number, text) in [
            (None, "<nil>"),
            (Some(0.0), "0"),
            (Some(500.0), "500"),
            (Some(0.5), "0.5"),
            (Some(100_001.0), "100001"),
            (Some(1_000_000.0), "1e+06"),
            (Some(1e21), "1e+21"),
            (Some(0.00001), "1e-05"),
        ] {
            assert_eq!(go_number(number), text);
        }
    }
}
