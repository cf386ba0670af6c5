//! What a node goes by: its own configuration where that says something, else the cluster's
//! FelixConfigurations, else Calico's defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::bgp_configuration::LogSeverity;
use super::config::{LogLevel, MTU_MIN};
use super::felix_configuration::{
    FelixConfiguration, FelixConfigurationSpec, NatOutgoingExclusions,
};
use super::{ClusterState, NodeConfig, NodeName};
use crate::wire::{Mtu, Vni};

/// What a node goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The UDP port of VXLAN packets (`vxlan.port`, `vxlanPort`).
    pub vxlan_port: u16,
    /// The network identifier (`vxlan.vni`, `vxlanVNI`).
    pub vni: Vni,
    /// The largest packet in an IP-in-IP tunnel, if not derived (`tunnel.mtu`, `ipipMTU`).
    pub ipip_mtu: Option<Mtu>,
    /// The same for VXLAN over IPv4 (`tunnel.mtu`, `vxlanMTU`).
    pub vxlan_mtu: Option<Mtu>,
    /// The same for VXLAN over IPv6 (`tunnel.mtu`, `vxlanMTUV6`).
    pub vxlan_mtu_v6: Option<Mtu>,
    /// Who may send tunnel packets beside the nodes (`fence.externalNodes`, `externalNodesList`).
    pub external_nodes: Vec<IpNet>,
    /// Whether workloads may send IP-in-IP (`allowIPIPPacketsFromWorkloads`).
    pub ipip_from_workloads: bool,
    /// Whether workloads may send VXLAN (`allowVXLANPacketsFromWorkloads`).
    pub vxlan_from_workloads: bool,
    /// What natOutgoing leaves alone (`natOutgoingExclusions`).
    pub nat_exclusions: NatOutgoingExclusions,
    /// The priority of IPv4 and of IPv6 routes (`ipv4NormalRoutePriority`, `ipv6NormalRoutePriority`).
    pub route_priorities: [i64; 2],
    /// How often the host's routes are set again (`routeRefreshInterval`); nothing for never.
    pub route_refresh: Option<Duration>,
    /// Where health is served (`health`, `healthEnabled`, `healthHost`, `healthPort`).
    pub health: Option<SocketAddr>,
    /// Where metrics are served (`metrics`, `prometheusMetricsEnabled`, …).
    pub metrics: Option<SocketAddr>,
    /// How much is logged (`log`, `logSeverityScreen`).
    pub log: LogLevel,
    /// What could not be taken, a sentence each.
    pub refused: Vec<String>,
}

/// Felix's ports and interval where nothing is said.
const HEALTH_PORT: i64 = 9099;
const METRICS_PORT: i64 = 9091;
const ROUTE_REFRESH: i64 = 90;

/// Felix's priority of a route where nothing is said.
pub const ROUTE_PRIORITY: i64 = 1024;

impl Settings {
    /// Those of a node in a cluster.
    pub fn new(config: &NodeConfig, state: &ClusterState) -> Self {
        let felix = felix(state, &config.node);
        let mut refused = Vec::new();
        // The nodes' own file is written for the machine, and is what its administrator sees.
        let own_mtu = config.says("tunnel.mtu").then_some(config.tunnel.mtu);
        let mut mtu = |name, felix| match own_mtu {
            Some(bytes) => Some(Mtu(bytes)).filter(|mtu| mtu.0 > 0),
            None => tunnel_mtu(name, felix, &mut refused),
        };
        let ipip_mtu = mtu("ipipMTU", felix.ipip_mtu);
        let vxlan_mtu = mtu("vxlanMTU", felix.vxlan_mtu);
        let vxlan_mtu_v6 = mtu("vxlanMTUV6", felix.vxlan_mtu_v6);
        let external = || {
            felix
                .external_nodes_list
                .iter()
                .flatten()
                .map(|net| net.net())
        };
        let own_external = || config.fence.external_nodes.iter().map(|net| net.0);
        let interval = felix
            .route_refresh_interval
            .map_or(ROUTE_REFRESH * 1_000_000_000, |d| d.0);
        Self {
            vxlan_port: match (config.says("vxlan.port"), felix.vxlan_port) {
                (false, Some(port)) => u16::try_from(port).unwrap_or(config.vxlan.port),
                _ => config.vxlan.port,
            },
            vni: match (config.says("vxlan.vni"), felix.vxlan_vni) {
                (false, Some(vni)) => {
                    let vni = u32::try_from(vni).ok().and_then(Vni::new);
                    vni.unwrap_or(config.vxlan.vni)
                }
                _ => config.vxlan.vni,
            },
            ipip_mtu,
            vxlan_mtu,
            vxlan_mtu_v6,
            external_nodes: match config.says("fence.externalNodes") {
                true => own_external().collect(),
                false => external().collect(),
            },
            ipip_from_workloads: felix.allow_ipip_packets_from_workloads == Some(true),
            vxlan_from_workloads: felix.allow_vxlan_packets_from_workloads == Some(true),
            nat_exclusions: felix.nat_outgoing_exclusions.unwrap_or_default(),
            route_priorities: [
                felix.ipv4_normal_route_priority,
                felix.ipv6_normal_route_priority,
            ]
            .map(|priority| priority.unwrap_or(ROUTE_PRIORITY)),
            route_refresh: (interval > 0).then(|| Duration::from_nanos(interval.unsigned_abs())),
            health: match config.says("health") {
                true => config.health,
                false => service(
                    felix.health_enabled,
                    (
                        "healthHost",
                        felix.health_host.as_deref(),
                        Ipv4Addr::LOCALHOST.into(),
                    ),
                    felix.health_port,
                    HEALTH_PORT,
                    &mut refused,
                ),
            },
            metrics: match config.says("metrics") {
                true => config.metrics,
                false => service(
                    felix.prometheus_metrics_enabled,
                    (
                        "prometheusMetricsHost",
                        felix.prometheus_metrics_host.as_deref(),
                        Ipv4Addr::UNSPECIFIED.into(),
                    ),
                    felix.prometheus_metrics_port,
                    METRICS_PORT,
                    &mut refused,
                ),
            },
            log: match (config.says("log"), felix.log_severity_screen) {
                (false, Some(severity)) => level(severity),
                _ => config.log,
            },
            refused,
        }
    }

    /// What is other than in those of before, as people call it.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let mut note = |name: &str, other: bool, now: String| {
            if other {
                all.push(format!("{name} is {now} now"));
            }
        };
        let bytes = |mtu: Option<Mtu>| mtu.map_or("derived".to_owned(), |mtu| mtu.to_string());
        let place = |at: Option<SocketAddr>| at.map_or("nowhere".to_owned(), |at| at.to_string());
        note(
            "vxlanPort",
            self.vxlan_port != before.vxlan_port,
            self.vxlan_port.to_string(),
        );
        note(
            "vxlanVNI",
            self.vni != before.vni,
            self.vni.get().to_string(),
        );
        note(
            "ipipMTU",
            self.ipip_mtu != before.ipip_mtu,
            bytes(self.ipip_mtu),
        );
        note(
            "vxlanMTU",
            self.vxlan_mtu != before.vxlan_mtu,
            bytes(self.vxlan_mtu),
        );
        note(
            "vxlanMTUV6",
            self.vxlan_mtu_v6 != before.vxlan_mtu_v6,
            bytes(self.vxlan_mtu_v6),
        );
        note(
            "externalNodesList",
            self.external_nodes != before.external_nodes,
            format!("{:?}", self.external_nodes),
        );
        note(
            "allowIPIPPacketsFromWorkloads",
            self.ipip_from_workloads != before.ipip_from_workloads,
            self.ipip_from_workloads.to_string(),
        );
        note(
            "allowVXLANPacketsFromWorkloads",
            self.vxlan_from_workloads != before.vxlan_from_workloads,
            self.vxlan_from_workloads.to_string(),
        );
        note(
            "natOutgoingExclusions",
            self.nat_exclusions != before.nat_exclusions,
            format!("{:?}", self.nat_exclusions),
        );
        note(
            "routeRefreshInterval",
            self.route_refresh != before.route_refresh,
            self.route_refresh
                .map_or("never".to_owned(), |every| format!("{every:?}")),
        );
        note(
            "health's address",
            self.health != before.health,
            place(self.health),
        );
        note(
            "metrics' address",
            self.metrics != before.metrics,
            place(self.metrics),
        );
        note(
            "logSeverityScreen",
            self.log != before.log,
            format!("{:?}", self.log),
        );
        all
    }
}

/// The FelixConfigurations that go for a node, the more particular one over the others: `default`, those
/// that select it, `node.<name>`.
pub fn felix(state: &ClusterState, node: &NodeName) -> FelixConfigurationSpec {
    let own = format!("node.{node}");
    let labels = state.nodes.get(node).map(|node| &node.metadata.labels);
    let rank = |one: &FelixConfiguration| match one.metadata.name.as_str() {
        "default" => Some(0),
        name if name == own => Some(2),
        _ => {
            let selector = one.spec.node_selector.as_ref();
            let selects = selector
                .zip(labels)
                .is_some_and(|(s, labels)| s.matches(labels));
            selects.then_some(1)
        }
    };
    let all = state.others::<FelixConfiguration>();
    let mut ranked: Vec<_> = all.filter_map(|one| Some((rank(one)?, one))).collect();
    // Of one rank they stay in the order of their names.
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut spec = FelixConfigurationSpec::default();
    for (_, one) in ranked {
        spec.overlay(&one.spec);
    }
    spec
}

/// What Felix's setting of that name comes to: 0 has it derived, and too little for IP is not taken.
fn tunnel_mtu(name: &str, bytes: Option<i64>, refused: &mut Vec<String>) -> Option<Mtu> {
    let bytes = u16::try_from(bytes?).ok().filter(|bytes| *bytes > 0)?;
    if bytes < MTU_MIN {
        refused.push(format!(
            "FelixConfiguration's {name}: {bytes} bytes are too few for IP; it is derived in its place"
        ));
        return None;
    }
    Some(Mtu(bytes))
}

/// Where one of Felix's services listens, if it is asked for: by its switch, or by a host or port without
/// one.
fn service(
    enabled: Option<bool>,
    (name, host, default): (&str, Option<&str>, IpAddr),
    port: Option<i64>,
    usual: i64,
    refused: &mut Vec<String>,
) -> Option<SocketAddr> {
    let host = host.filter(|host| !host.is_empty());
    if !enabled.unwrap_or(host.is_some() || port.is_some()) {
        return None;
    }
    let address = match host {
        None => default,
        Some("localhost") => Ipv4Addr::LOCALHOST.into(),
        Some(host) => host.parse().unwrap_or_else(|_| {
            refused.push(format!(
                "FelixConfiguration's {name}: '{host}' is no address; {default} is taken in its place"
            ));
            default
        }),
    };
    let port = u16::try_from(port.unwrap_or(usual))
        .ok()
        .filter(|port| *port > 0)?;
    Some(SocketAddr::new(address, port))
}

fn level(severity: LogSeverity) -> LogLevel {
    match severity {
        LogSeverity::Trace => LogLevel::Trace,
        LogSeverity::Debug => LogLevel::Debug,
        LogSeverity::Info => LogLevel::Info,
        LogSeverity::Warning => LogLevel::Warn,
        LogSeverity::Error | LogSeverity::Fatal => LogLevel::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::resources::load;

    fn settings(own: &str, felix: &[(&str, &str)]) -> Settings {
        let config =
            format!("node: n1\nuplink: {{interface: eth0}}\ndatastore: {{directory: d}}\n{own}\n");
        let config = NodeConfig::parse(Path::new("node.yaml"), &config).unwrap();
        let node = "apiVersion: projectcalico.org/v3\nkind: Node\n\
                    metadata: {name: n1, labels: {rack: a}}\n";
        let felix = felix.iter().map(|(name, spec)| {
            format!(
                "---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\n\
                 metadata: {{name: {name}}}\nspec: {{{spec}}}\n"
            )
        });
        let text = node.to_owned() + &felix.collect::<String>();
        let parsed = load::parse(Path::new("felix.yaml"), &text);
        assert_eq!(parsed.problems, []);
        let resources = parsed.resources.into_iter().map(|(resource, _)| resource);
        Settings::new(&config, &resources.collect())
    }

    #[test]
    fn without_a_word_they_are_calicos_defaults() {
        let defaults = settings("", &[]);
        assert_eq!((defaults.vxlan_port, defaults.vni), (4789, Vni::CALICO));
        assert_eq!(
            (defaults.ipip_mtu, defaults.health, defaults.metrics),
            (None, None, None)
        );
        assert_eq!(defaults.route_refresh, Some(Duration::from_secs(90)));
        assert_eq!(defaults.log, LogLevel::Info);
        assert!(!defaults.ipip_from_workloads && defaults.external_nodes.is_empty());
    }

    /// node.<name> over what selects the node, that over default; the node's own file over all.
    #[test]
    fn the_more_particular_one_wins() {
        let all = [
            (
                "default",
                "vxlanPort: 1, vxlanVNI: 1, ipipMTU: 1001, vxlanMTU: 1001",
            ),
            (
                "racks",
                "vxlanVNI: 2, ipipMTU: 1002, nodeSelector: rack == 'a'",
            ),
            ("others", "vxlanVNI: 9, nodeSelector: rack == 'b'"),
            ("node.n1", "ipipMTU: 1003"),
            ("node.n2", "vxlanPort: 9"),
        ];
        let merged = settings("", &all);
        assert_eq!((merged.vxlan_port, merged.vni.get()), (1, 2));
        assert_eq!(merged.ipip_mtu, Some(Mtu(1003)));
        assert_eq!(merged.vxlan_mtu, Some(Mtu(1001)));
        let own = settings("vxlan: {port: 4789}\ntunnel: {mtu: 0}\n", &all);
        // A default that is written down is the file's word, too.
        assert_eq!((own.vxlan_port, own.vni.get()), (4789, 2));
        assert_eq!((own.ipip_mtu, own.vxlan_mtu), (None, None));
        let changed: Vec<_> = own.differences(&merged);
        assert_eq!(
            changed,
            [
                "vxlanPort is 4789 now",
                "ipipMTU is derived now",
                "vxlanMTU is derived now"
            ]
        );
    }

    #[test]
    fn services_are_served_where_felix_says() {
        let at = |spec: &str| {
            let settings = settings("", &[("default", spec)]);
            let text = |at: Option<SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
            (
                text(settings.health),
                text(settings.metrics),
                settings.refused.len(),
            )
        };
        for (spec, health, metrics, refused) in [
            ("healthEnabled: true", "127.0.0.1:9099", "", 0),
            (
                "healthEnabled: true, healthHost: 0.0.0.0, healthPort: 9000",
                "0.0.0.0:9000",
                "",
                0,
            ),
            (
                "healthEnabled: true, healthHost: localhost",
                "127.0.0.1:9099",
                "",
                0,
            ),
            ("healthPort: 9000", "127.0.0.1:9000", "", 0),
            ("healthEnabled: false, healthPort: 9000", "", "", 0),
            ("prometheusMetricsEnabled: true", "", "0.0.0.0:9091", 0),
            (
                "healthEnabled: true, healthHost: nowhere",
                "127.0.0.1:9099",
                "",
                1,
            ),
            ("ipipMTU: 60", "", "", 1),
        ] {
            assert_eq!(at(spec), (health.into(), metrics.into(), refused), "{spec}");
        }
        let own = settings(
            "health: 127.0.0.1:1234",
            &[("default", "healthEnabled: false")],
        );
        assert_eq!(own.health, "127.0.0.1:1234".parse().ok());
    }
}
