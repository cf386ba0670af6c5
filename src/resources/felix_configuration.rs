//! FelixConfiguration: the settings of the nodes' data planes.
//!
//! Every field that Calico documents is taken and kept. Those that mean something to underpass have
//! accessors here; the others are checked as Calico checks them and shown.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::bgp_configuration::LogSeverity;
use super::duration::Duration;
use super::json::Json;
use super::metadata::Metadata;
use super::net::Network;
use super::port::Port;
use super::selector::Selector;

mod check;

/// A FelixConfiguration resource: `default` for the cluster, `node.<name>` for one node, any other
/// name for the nodes that it selects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FelixConfiguration {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: FelixConfigurationSpec,
}

/// A setting that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the values' names say it")]
pub enum Switch {
    Enabled,
    Disabled,
}

/// What natOutgoing leaves alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NatOutgoingExclusions {
    /// Packets to the pools.
    #[default]
    #[serde(rename = "IPPoolsOnly")]
    PoolsOnly,
    /// Packets to the pools and to the nodes.
    #[serde(rename = "IPPoolsAndHostIPs")]
    PoolsAndHosts,
}

/// A protocol, a port, and the network at its other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtoPort {
    /// The protocol; TCP if absent.
    #[serde(default)]
    pub protocol: PortProtocol,
    /// The port.
    pub port: u16,
    /// The network; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<Network>,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the protocols' names say it")]
pub enum PortProtocol {
    #[default]
    #[serde(alias = "tcp")]
    Tcp,
    #[serde(alias = "udp")]
    Udp,
    #[serde(alias = "sctp")]
    Sctp,
}

/// A time limit of one of Felix's parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthTimeoutOverride {
    /// The part.
    pub name: String,
    /// The limit.
    pub timeout: Duration,
}

/// Numbers of routing tables, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRange {
    /// The first.
    pub min: i64,
    /// The last.
    pub max: i64,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:literal $field:ident: $type:ty;)+) => {
        /// The settings; what is absent is at Calico's default.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct FelixConfigurationSpec {
            $(
                $(#[doc = $doc])*
                #[doc = concat!("`", $name, "`")]
                #[serde(rename = $name, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )+
        }

        impl FelixConfigurationSpec {
            /// The names of all settings.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// Takes over what another one sets.
            pub fn overlay(&mut self, other: &Self) {
                $(if other.$field.is_some() {
                    self.$field.clone_from(&other.$field);
                })+
            }
        }
    };
}

settings! {
    /// Whether workloads may send IP-in-IP.
    "allowIPIPPacketsFromWorkloads" allow_ipip_packets_from_workloads: bool;
    /// Whether workloads may send VXLAN.
    "allowVXLANPacketsFromWorkloads" allow_vxlan_packets_from_workloads: bool;
    "awsSrcDstCheck" aws_src_dst_check: String;
    "bpfAttachType" bpf_attach_type: String;
    "bpfCTLBLogFilter" bpf_ctlb_log_filter: String;
    "bpfConnectTimeLoadBalancing" bpf_connect_time_load_balancing: String;
    "bpfConnectTimeLoadBalancingEnabled" bpf_connect_time_load_balancing_enabled: bool;
    "bpfConntrackLogLevel" bpf_conntrack_log_level: String;
    "bpfConntrackMode" bpf_conntrack_mode: String;
    "bpfConntrackTimeouts" bpf_conntrack_timeouts: BTreeMap<String, String>;
    "bpfDSROptoutCIDRs" bpf_dsr_optout_cidrs: Vec<Network>;
    "bpfDataIfacePattern" bpf_data_iface_pattern: String;
    "bpfDisableGROForIfaces" bpf_disable_gro_for_ifaces: String;
    "bpfDisableUnprivileged" bpf_disable_unprivileged: bool;
    "bpfEnabled" bpf_enabled: bool;
    "bpfEnforceRPF" bpf_enforce_rpf: String;
    "bpfExcludeCIDRsFromNAT" bpf_exclude_cidrs_from_nat: Vec<Network>;
    "bpfExportBufferSizeMB" bpf_export_buffer_size_mb: i64;
    "bpfExtToServiceConnmark" bpf_ext_to_service_connmark: i64;
    "bpfExternalServiceMode" bpf_external_service_mode: String;
    "bpfForceTrackPacketsFromIfaces" bpf_force_track_packets_from_ifaces: Vec<String>;
    "bpfHostConntrackBypass" bpf_host_conntrack_bypass: bool;
    "bpfHostNetworkedNATWithoutCTLB" bpf_host_networked_nat_without_ctlb: Switch;
    "bpfIPFragTimeout" bpf_ip_frag_timeout: Duration;
    "bpfIPFragmentReassemblyEnabled" bpf_ip_fragment_reassembly_enabled: bool;
    "bpfJITHardening" bpf_jit_hardening: String;
    "bpfKubeProxyEndpointSlicesEnabled" bpf_kube_proxy_endpoint_slices_enabled: bool;
    "bpfKubeProxyHealthzPort" bpf_kube_proxy_healthz_port: i64;
    "bpfKubeProxyIptablesCleanupEnabled" bpf_kube_proxy_iptables_cleanup_enabled: bool;
    "bpfKubeProxyMinSyncPeriod" bpf_kube_proxy_min_sync_period: Duration;
    "bpfL3IfacePattern" bpf_l3_iface_pattern: String;
    "bpfLogFilters" bpf_log_filters: BTreeMap<String, String>;
    "bpfLogLevel" bpf_log_level: String;
    "bpfMaglevMaxEndpointsPerService" bpf_maglev_max_endpoints_per_service: i64;
    "bpfMaglevMaxServices" bpf_maglev_max_services: i64;
    "bpfMapSizeConntrack" bpf_map_size_conntrack: i64;
    "bpfMapSizeConntrackCleanupQueue" bpf_map_size_conntrack_cleanup_queue: i64;
    "bpfMapSizeConntrackScaling" bpf_map_size_conntrack_scaling: String;
    "bpfMapSizeIPSets" bpf_map_size_ip_sets: i64;
    "bpfMapSizeIfState" bpf_map_size_if_state: i64;
    "bpfMapSizeNATAffinity" bpf_map_size_nat_affinity: i64;
    "bpfMapSizeNATBackend" bpf_map_size_nat_backend: i64;
    "bpfMapSizeNATFrontend" bpf_map_size_nat_frontend: i64;
    "bpfMapSizePerCpuConntrack" bpf_map_size_per_cpu_conntrack: i64;
    "bpfMapSizeRoute" bpf_map_size_route: i64;
    "bpfOverlayHostSourceIP" bpf_overlay_host_source_ip: String;
    "bpfPSNATPorts" bpf_psnat_ports: Port;
    "bpfPolicyDebugEnabled" bpf_policy_debug_enabled: bool;
    "bpfProfiling" bpf_profiling: Switch;
    "bpfRedirectToPeer" bpf_redirect_to_peer: String;
    "cgroupV2Path" cgroup_v2_path: String;
    "chainInsertMode" chain_insert_mode: String;
    "dataplaneDriver" dataplane_driver: String;
    "dataplaneWatchdogTimeout" dataplane_watchdog_timeout: Duration;
    "debugDisableLogDropping" debug_disable_log_dropping: bool;
    "debugHost" debug_host: String;
    "debugMemoryProfilePath" debug_memory_profile_path: String;
    "debugPort" debug_port: i64;
    "debugSimulateCalcGraphHangAfter" debug_simulate_calc_graph_hang_after: Duration;
    "debugSimulateDataplaneApplyDelay" debug_simulate_dataplane_apply_delay: Duration;
    "debugSimulateDataplaneHangAfter" debug_simulate_dataplane_hang_after: Duration;
    /// What is done with packets from a workload to its own node.
    "defaultEndpointToHostAction" default_endpoint_to_host_action: String;
    /// The kernel's number for the routes' origin (`rtm_protocol`).
    "deviceRouteProtocol" device_route_protocol: i64;
    "deviceRouteSourceAddress" device_route_source_address: Ipv4Addr;
    "deviceRouteSourceAddressIPv6" device_route_source_address_ipv6: Ipv6Addr;
    "disableConntrackInvalidCheck" disable_conntrack_invalid_check: bool;
    "endpointReportingDelay" endpoint_reporting_delay: Duration;
    "endpointReportingEnabled" endpoint_reporting_enabled: bool;
    "endpointStatusPathPrefix" endpoint_status_path_prefix: String;
    /// Networks, beside the nodes, from which tunnel packets are taken.
    "externalNodesList" external_nodes_list: Vec<Network>;
    /// Ports at which a host endpoint is always reached; see
    /// [`FelixConfigurationSpec::failsafe_inbound`].
    "failsafeInboundHostPorts" failsafe_inbound_host_ports: Vec<ProtoPort>;
    /// Ports that a host endpoint always reaches; see
    /// [`FelixConfigurationSpec::failsafe_outbound`].
    "failsafeOutboundHostPorts" failsafe_outbound_host_ports: Vec<ProtoPort>;
    "featureDetectOverride" feature_detect_override: String;
    "featureGates" feature_gates: String;
    "floatingIPs" floating_ips: Switch;
    "flowLogsCollectorDebugTrace" flow_logs_collector_debug_trace: bool;
    "flowLogsFlushInterval" flow_logs_flush_interval: Duration;
    "flowLogsGoldmaneServer" flow_logs_goldmane_server: String;
    "flowLogsLocalReporter" flow_logs_local_reporter: Switch;
    "flowLogsPolicyEvaluationMode" flow_logs_policy_evaluation_mode: String;
    "genericXDPEnabled" generic_xdp_enabled: bool;
    "goGCThreshold" go_gc_threshold: i64;
    "goMaxProcs" go_max_procs: i64;
    "goMemoryLimitMB" go_memory_limit_mb: i64;
    /// Whether health is served.
    "healthEnabled" health_enabled: bool;
    /// The address at which health is served.
    "healthHost" health_host: String;
    /// The port at which health is served; 9099 if absent.
    "healthPort" health_port: i64;
    "healthTimeoutOverrides" health_timeout_overrides: Vec<HealthTimeoutOverride>;
    "interfaceExclude" interface_exclude: String;
    "interfacePrefix" interface_prefix: String;
    "interfaceRefreshInterval" interface_refresh_interval: Duration;
    "ipForwarding" ip_forwarding: Switch;
    "ipipEnabled" ipip_enabled: bool;
    /// The largest inner packet of IP-in-IP in bytes; 0 derives it.
    "ipipMTU" ipip_mtu: i64;
    "ipsetsRefreshInterval" ipsets_refresh_interval: Duration;
    "iptablesBackend" iptables_backend: String;
    "iptablesFilterAllowAction" iptables_filter_allow_action: String;
    "iptablesFilterDenyAction" iptables_filter_deny_action: String;
    "iptablesLockFilePath" iptables_lock_file_path: String;
    "iptablesLockProbeInterval" iptables_lock_probe_interval: Duration;
    "iptablesLockTimeout" iptables_lock_timeout: Duration;
    "iptablesMangleAllowAction" iptables_mangle_allow_action: String;
    "iptablesMarkMask" iptables_mark_mask: i64;
    "iptablesNATOutgoingInterfaceFilter" iptables_nat_outgoing_interface_filter: String;
    "iptablesPostWriteCheckInterval" iptables_post_write_check_interval: Duration;
    "iptablesRefreshInterval" iptables_refresh_interval: Duration;
    "ipv4ElevatedRoutePriority" ipv4_elevated_route_priority: i64;
    "ipv4NormalRoutePriority" ipv4_normal_route_priority: i64;
    "ipv6ElevatedRoutePriority" ipv6_elevated_route_priority: i64;
    "ipv6NormalRoutePriority" ipv6_normal_route_priority: i64;
    "ipv6Support" ipv6_support: bool;
    "istioAmbientMode" istio_ambient_mode: Switch;
    "istioDSCPMark" istio_dscp_mark: Json;
    "kubeNodePortRanges" kube_node_port_ranges: Vec<Port>;
    "liveMigrationRouteConvergenceTime" live_migration_route_convergence_time: Duration;
    "localSubnetL2Reachability" local_subnet_l2_reachability: String;
    "localSubnetL2ReachabilityRefreshInterval" local_subnet_l2_refresh_interval: Duration;
    "logActionRateLimit" log_action_rate_limit: String;
    "logActionRateLimitBurst" log_action_rate_limit_burst: i64;
    "logDebugFilenameRegex" log_debug_filename_regex: String;
    "logFilePath" log_file_path: String;
    "logPrefix" log_prefix: String;
    "logSeverityFile" log_severity_file: LogSeverity;
    "logSeverityScreen" log_severity_screen: LogSeverity;
    "logSeveritySys" log_severity_sys: LogSeverity;
    "maxIpsetSize" max_ipset_size: i64;
    "metadataAddr" metadata_addr: String;
    "metadataPort" metadata_port: i64;
    /// The interfaces whose MTU decides that of tunnels: a regular expression.
    "mtuIfacePattern" mtu_iface_pattern: String;
    "natOutgoingAddress" nat_outgoing_address: Ipv4Addr;
    /// What natOutgoing leaves alone.
    "natOutgoingExclusions" nat_outgoing_exclusions: NatOutgoingExclusions;
    "natPortRange" nat_port_range: Port;
    "netlinkTimeout" netlink_timeout: Duration;
    "nftablesFilterAllowAction" nftables_filter_allow_action: String;
    "nftablesFilterDenyAction" nftables_filter_deny_action: String;
    "nftablesMangleAllowAction" nftables_mangle_allow_action: String;
    "nftablesMarkMask" nftables_mark_mask: i64;
    "nftablesMode" nftables_mode: String;
    "nftablesRefreshInterval" nftables_refresh_interval: Duration;
    /// The nodes that it is for, if its name does not say.
    "nodeSelector" node_selector: Selector;
    "openstackRegion" openstack_region: String;
    "policySyncPathPrefix" policy_sync_path_prefix: String;
    "programClusterRoutes" program_cluster_routes: Switch;
    "prometheusGoMetricsEnabled" prometheus_go_metrics_enabled: bool;
    "prometheusMetricsCAFile" prometheus_metrics_ca_file: String;
    "prometheusMetricsCertFile" prometheus_metrics_cert_file: String;
    "prometheusMetricsClientAuth" prometheus_metrics_client_auth: String;
    /// Whether metrics are served.
    "prometheusMetricsEnabled" prometheus_metrics_enabled: bool;
    /// The address at which metrics are served.
    "prometheusMetricsHost" prometheus_metrics_host: String;
    "prometheusMetricsKeyFile" prometheus_metrics_key_file: String;
    /// The port at which metrics are served; 9091 if absent.
    "prometheusMetricsPort" prometheus_metrics_port: i64;
    "prometheusProcessMetricsEnabled" prometheus_process_metrics_enabled: bool;
    "prometheusWireGuardMetricsEnabled" prometheus_wireguard_metrics_enabled: bool;
    "removeExternalRoutes" remove_external_routes: bool;
    "reportingInterval" reporting_interval: Duration;
    "reportingTTL" reporting_ttl: Duration;
    "requireMTUFile" require_mtu_file: bool;
    /// How often routes are compared with the kernel's; 90 s if absent, 0 for never.
    "routeRefreshInterval" route_refresh_interval: Duration;
    "routeSource" route_source: String;
    "routeSyncDisabled" route_sync_disabled: bool;
    "routeTableRange" route_table_range: TableRange;
    "routeTableRanges" route_table_ranges: Vec<TableRange>;
    "serviceLoopPrevention" service_loop_prevention: String;
    "sidecarAccelerationEnabled" sidecar_acceleration_enabled: bool;
    "usageReportingEnabled" usage_reporting_enabled: bool;
    "usageReportingInitialDelay" usage_reporting_initial_delay: Duration;
    "usageReportingInterval" usage_reporting_interval: Duration;
    "useInternalDataplaneDriver" use_internal_dataplane_driver: bool;
    "vxlanEnabled" vxlan_enabled: bool;
    /// The largest inner packet of VXLAN over IPv4 in bytes; 0 derives it.
    "vxlanMTU" vxlan_mtu: i64;
    /// The largest inner packet of VXLAN over IPv6 in bytes; 0 derives it.
    "vxlanMTUV6" vxlan_mtu_v6: i64;
    /// VXLAN's UDP port; 4789 if absent.
    "vxlanPort" vxlan_port: i64;
    /// VXLAN's network identifier; 4096 if absent.
    "vxlanVNI" vxlan_vni: i64;
    "windowsManageFirewallRules" windows_manage_firewall_rules: Switch;
    "wireguardEnabled" wireguard_enabled: bool;
    "wireguardEnabledV6" wireguard_enabled_v6: bool;
    "wireguardHostEncryptionEnabled" wireguard_host_encryption_enabled: bool;
    "wireguardInterfaceName" wireguard_interface_name: String;
    "wireguardInterfaceNameV6" wireguard_interface_name_v6: String;
    "wireguardKeepAlive" wireguard_keep_alive: Duration;
    "wireguardListeningPort" wireguard_listening_port: i64;
    "wireguardListeningPortV6" wireguard_listening_port_v6: i64;
    "wireguardMTU" wireguard_mtu: i64;
    "wireguardMTUV6" wireguard_mtu_v6: i64;
    "wireguardRoutingRulePriority" wireguard_routing_rule_priority: i64;
    "wireguardThreadingEnabled" wireguard_threading_enabled: bool;
    "workloadSourceSpoofing" workload_source_spoofing: String;
    "xdpEnabled" xdp_enabled: bool;
    "xdpRefreshInterval" xdp_refresh_interval: Duration;
}

/// Calico's failsafe ports of both directions: SSH is only inbound, DHCP and DNS differ.
const FAILSAFE_TCP: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];

impl FelixConfigurationSpec {
    /// The ports at which a host endpoint is always reached: as given, or Calico's.
    pub fn failsafe_inbound(&self) -> Vec<ProtoPort> {
        let own = [(PortProtocol::Tcp, 22), (PortProtocol::Udp, 68)];
        let given = self.failsafe_inbound_host_ports.clone();
        given.unwrap_or_else(|| failsafe(&own))
    }

    /// The ports that a host endpoint always reaches: as given, or Calico's.
    pub fn failsafe_outbound(&self) -> Vec<ProtoPort> {
        let own = [(PortProtocol::Udp, 53), (PortProtocol::Udp, 67)];
        let given = self.failsafe_outbound_host_ports.clone();
        given.unwrap_or_else(|| failsafe(&own))
    }
}

fn failsafe(own: &[(PortProtocol, u16)]) -> Vec<ProtoPort> {
    let common = FAILSAFE_TCP.map(|port| (PortProtocol::Tcp, port));
    let all = own.iter().copied().chain(common);
    let any = |(protocol, port)| ProtoPort {
        protocol,
        port,
        net: None,
    };
    all.map(any).collect()
}
