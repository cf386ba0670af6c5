//! What FelixConfigurations may not say, as Calico's validator has it.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use regex::Regex;

use super::{FelixConfiguration, FelixConfigurationSpec};
use crate::resources::port::Port;
use crate::resources::problem::Fault;

/// A 32-bit number.
const U32: RangeInclusive<i64> = 0..=0xffff_ffff;
const PORTS: RangeInclusive<i64> = 0..=65535;
const MTUS: RangeInclusive<i64> = 0..=65535;
/// How many ranges iptables' multiport match takes.
const NODE_PORT_RANGES: usize = 7;
/// How many routing tables may be set aside.
const TABLES: i64 = 0xffff;

impl FelixConfiguration {
    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        spec.check_numbers(&mut faults);
        spec.check_words(&mut faults);
        spec.check_patterns(&mut faults);
        spec.check_names(&mut faults);
        spec.check_ports(&mut faults);
        spec.check_tables(&mut faults);
        spec.check_networks(&mut faults);
        spec.check_times(&mut faults);
        let name = self.metadata.name.as_str();
        if spec.node_selector.is_some() && (name == "default" || name.starts_with("node.")) {
            faults.push(Fault::new(
                "spec.nodeSelector",
                format!("'{name}' says for which nodes it is"),
                "remove nodeSelector, or choose a name other than default and node.…",
            ));
        }
        faults
    }
}

impl FelixConfigurationSpec {
    fn check_numbers(&self, faults: &mut Vec<Fault>) {
        let ranges = [
            (
                "bpfExtToServiceConnmark",
                self.bpf_ext_to_service_connmark,
                U32,
            ),
            ("iptablesMarkMask", self.iptables_mark_mask, U32),
            ("nftablesMarkMask", self.nftables_mark_mask, U32),
            ("debugPort", self.debug_port, PORTS),
            ("healthPort", self.health_port, PORTS),
            ("metadataPort", self.metadata_port, PORTS),
            ("prometheusMetricsPort", self.prometheus_metrics_port, PORTS),
            (
                "bpfKubeProxyHealthzPort",
                self.bpf_kube_proxy_healthz_port,
                PORTS,
            ),
            ("vxlanPort", self.vxlan_port, 1..=65535),
            // RFC 7348 §5: 24 bits.
            ("vxlanVNI", self.vxlan_vni, 0..=0xff_ffff),
            ("ipipMTU", self.ipip_mtu, MTUS),
            ("vxlanMTU", self.vxlan_mtu, MTUS),
            ("vxlanMTUV6", self.vxlan_mtu_v6, MTUS),
            ("wireguardMTU", self.wireguard_mtu, MTUS),
            ("wireguardMTUV6", self.wireguard_mtu_v6, MTUS),
            ("deviceRouteProtocol", self.device_route_protocol, 0..=255),
            (
                "wireguardListeningPort",
                self.wireguard_listening_port,
                1..=65535,
            ),
            (
                "wireguardListeningPortV6",
                self.wireguard_listening_port_v6,
                1..=65535,
            ),
            (
                "wireguardRoutingRulePriority",
                self.wireguard_routing_rule_priority,
                1..=32765,
            ),
            (
                "logActionRateLimitBurst",
                self.log_action_rate_limit_burst,
                0..=9999,
            ),
            (
                "bpfMapSizeConntrackCleanupQueue",
                self.bpf_map_size_conntrack_cleanup_queue,
                1..=0xffff_ffff,
            ),
            ("goGCThreshold", self.go_gc_threshold, -1..=i64::MAX),
            ("goMaxProcs", self.go_max_procs, -1..=i64::MAX),
            ("goMemoryLimitMB", self.go_memory_limit_mb, -1..=i64::MAX),
        ];
        for (name, number, range) in ranges {
            if let Some(number) = number.filter(|number| !range.contains(number)) {
                let (least, most) = range.into_inner();
                let remedy = match most {
                    i64::MAX => format!("write {least} or more"),
                    _ => format!("write a number from {least} to {most}"),
                };
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!("{number} is out of range"),
                    remedy,
                ));
            }
        }
    }

    fn check_words(&self, faults: &mut Vec<Fault>) {
        let (allow, deny) = (
            ["Accept", "Return"].as_slice(),
            ["Drop", "Reject"].as_slice(),
        );
        let words: [(&str, &Option<String>, &[&str]); 26] = [
            (
                "awsSrcDstCheck",
                &self.aws_src_dst_check,
                &["DoNothing", "Enable", "Disable"],
            ),
            ("bpfAttachType", &self.bpf_attach_type, &["TC", "TCX"]),
            (
                "bpfConnectTimeLoadBalancing",
                &self.bpf_connect_time_load_balancing,
                &["TCP", "Enabled", "Disabled"],
            ),
            (
                "bpfConntrackLogLevel",
                &self.bpf_conntrack_log_level,
                &["Off", "Debug"],
            ),
            (
                "bpfConntrackMode",
                &self.bpf_conntrack_mode,
                &["Auto", "Userspace", "BPFProgram"],
            ),
            (
                "bpfEnforceRPF",
                &self.bpf_enforce_rpf,
                &["Disabled", "Strict", "Loose"],
            ),
            (
                "bpfExternalServiceMode",
                &self.bpf_external_service_mode,
                &["Tunnel", "DSR"],
            ),
            (
                "bpfJITHardening",
                &self.bpf_jit_hardening,
                &["Auto", "Strict"],
            ),
            (
                "bpfLogLevel",
                &self.bpf_log_level,
                &["Off", "Info", "Debug"],
            ),
            (
                "bpfMapSizeConntrackScaling",
                &self.bpf_map_size_conntrack_scaling,
                &["Disabled", "DoubleIfFull"],
            ),
            (
                "bpfOverlayHostSourceIP",
                &self.bpf_overlay_host_source_ip,
                &["TunnelAddress", "HostAddress"],
            ),
            (
                "bpfRedirectToPeer",
                &self.bpf_redirect_to_peer,
                &["Enabled", "Disabled", "L2Only"],
            ),
            // Calico's documentation writes it in lower case as well.
            (
                "chainInsertMode",
                &self.chain_insert_mode,
                &["Insert", "Append", "insert", "append"],
            ),
            (
                "defaultEndpointToHostAction",
                &self.default_endpoint_to_host_action,
                &["Drop", "Accept", "Return"],
            ),
            (
                "flowLogsPolicyEvaluationMode",
                &self.flow_logs_policy_evaluation_mode,
                &["None", "Continuous"],
            ),
            (
                "iptablesBackend",
                &self.iptables_backend,
                &["Legacy", "NFT", "Auto"],
            ),
            (
                "iptablesFilterAllowAction",
                &self.iptables_filter_allow_action,
                allow,
            ),
            (
                "iptablesMangleAllowAction",
                &self.iptables_mangle_allow_action,
                allow,
            ),
            (
                "iptablesFilterDenyAction",
                &self.iptables_filter_deny_action,
                deny,
            ),
            (
                "nftablesFilterAllowAction",
                &self.nftables_filter_allow_action,
                allow,
            ),
            (
                "nftablesMangleAllowAction",
                &self.nftables_mangle_allow_action,
                allow,
            ),
            (
                "nftablesFilterDenyAction",
                &self.nftables_filter_deny_action,
                deny,
            ),
            (
                "nftablesMode",
                &self.nftables_mode,
                &["Enabled", "Disabled", "Auto"],
            ),
            (
                "localSubnetL2Reachability",
                &self.local_subnet_l2_reachability,
                &["Disabled", "PodsAndLoadBalancers"],
            ),
            (
                "serviceLoopPrevention",
                &self.service_loop_prevention,
                &["Drop", "Reject", "Disabled"],
            ),
            (
                "workloadSourceSpoofing",
                &self.workload_source_spoofing,
                &["Disabled", "Any"],
            ),
        ];
        for (name, word, known) in words {
            let wrong = |word: &&String| !word.is_empty() && !known.contains(&word.as_str());
            if let Some(word) = word.as_ref().filter(wrong) {
                let near = known.iter().find(|known| known.eq_ignore_ascii_case(word));
                let remedy = match near {
                    Some(near) => format!("write {near}"),
                    None => format!("write one of {}", known.join(", ")),
                };
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!("'{word}' is not a value of this field"),
                    remedy,
                ));
            }
        }
    }

    fn check_patterns(&self, faults: &mut Vec<Fault>) {
        for (name, pattern) in [
            ("bpfDataIfacePattern", &self.bpf_data_iface_pattern),
            ("bpfDisableGROForIfaces", &self.bpf_disable_gro_for_ifaces),
            ("bpfL3IfacePattern", &self.bpf_l3_iface_pattern),
            ("logDebugFilenameRegex", &self.log_debug_filename_regex),
            ("mtuIfacePattern", &self.mtu_iface_pattern),
            ("routeSource", &self.route_source),
        ] {
            if let Some(Err(error)) = pattern.as_deref().map(Regex::new) {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim();
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!(
                        "'{}' is not a regular expression: {}",
                        pattern.as_deref().unwrap_or_default(),
                        reason.trim_start_matches("error: ")
                    ),
                    "write one such as eth.*",
                ));
            }
        }
        let shapes = [
            (
                "logActionRateLimit",
                &self.log_action_rate_limit,
                r"^[1-9]\d{0,3}/(second|minute|hour|day)$",
                "write a rate such as 10/second",
            ),
            (
                "logPrefix",
                &self.log_prefix,
                r"^[a-zA-Z0-9%: /_-]*$",
                "write letters, digits, spaces and % : / _ -",
            ),
            (
                "featureDetectOverride",
                &self.feature_detect_override,
                KEY_VALUES,
                "write key=value pairs, with commas between them",
            ),
            (
                "featureGates",
                &self.feature_gates,
                KEY_VALUES,
                "write key=value pairs, with commas between them",
            ),
        ];
        for (name, text, shape, remedy) in shapes {
            let Some(text) = text else { continue };
            if Regex::new(shape).is_ok_and(|shape| !shape.is_match(text)) {
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!("'{text}' is not of this field's form"),
                    remedy,
                ));
            }
        }
    }

    fn check_names(&self, faults: &mut Vec<Fault>) {
        let mut wrong = |field: String, text: &str, remedy: &str| {
            faults.push(Fault::new(
                format!("spec.{field}"),
                format!("'{text}' does not fit here"),
                remedy,
            ));
        };
        let within = |text: &str, most: usize, extra: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
            (1..=most).contains(&text.len()) && text.chars().all(inner)
        };
        let interfaces = "write 1 to 15 letters, digits, '_', '.' and '-'";
        for (name, text) in [
            ("wireguardInterfaceName", &self.wireguard_interface_name),
            (
                "wireguardInterfaceNameV6",
                &self.wireguard_interface_name_v6,
            ),
        ] {
            if let Some(text) = text
                .as_ref()
                .filter(|text| *text != "*" && !within(text, 15, "_.-"))
            {
                wrong(name.to_owned(), text, interfaces);
            }
        }
        for name in self
            .bpf_log_filters
            .iter()
            .flat_map(|filters| filters.keys())
        {
            if !within(name, 15, "_.-") {
                wrong("bpfLogFilters".to_owned(), name, interfaces);
            }
        }
        let filters = "write 1 to 15 letters, digits, ':', '.', '_', '+' and '-'";
        let filter = self.iptables_nat_outgoing_interface_filter.as_ref();
        if let Some(text) = filter.filter(|text| !within(text, 15, ":._+-")) {
            wrong(
                "iptablesNATOutgoingInterfaceFilter".to_owned(),
                text,
                filters,
            );
        }
        let tracked = self.bpf_force_track_packets_from_ifaces.iter().flatten();
        for (index, text) in tracked
            .enumerate()
            .filter(|(_, text)| !within(text, 15, ":._+-"))
        {
            wrong(
                format!("bpfForceTrackPacketsFromIfaces[{index}]"),
                text,
                filters,
            );
        }
        let host = self.prometheus_metrics_host.as_ref();
        if let Some(text) = host.filter(|text| !text.is_empty() && !within(text, 64, ":._+-")) {
            wrong(
                "prometheusMetricsHost".to_owned(),
                text,
                "write an address or a host's name",
            );
        }
        self.check_region(faults);
        self.check_overrides(faults);
    }

    /// A region becomes part of a namespace's name, `openstack-region-…`, of at most 63 characters.
    fn check_region(&self, faults: &mut Vec<Fault>) {
        let Some(region) = self
            .openstack_region
            .as_ref()
            .filter(|region| !region.is_empty())
        else {
            return;
        };
        let most = 63 - "openstack-region-".len();
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let label = region.chars().all(inner) && !region.starts_with('-') && !region.ends_with('-');
        let reason = match (region.len() > most, label) {
            (true, _) => "is too long",
            (false, false) => "must be a valid DNS label",
            (false, true) => return,
        };
        faults.push(Fault::new(
            "spec.openstackRegion",
            format!("'{region}' {reason}"),
            format!("write at most {most} lower-case letters, digits and '-'"),
        ));
    }

    fn check_overrides(&self, faults: &mut Vec<Fault>) {
        for (index, given) in self.health_timeout_overrides.iter().flatten().enumerate() {
            let at = |name: &str| format!("spec.healthTimeoutOverrides[{index}].{name}");
            let inner = |c: char| c.is_ascii_alphanumeric() || "_ -".contains(c);
            if given.name.is_empty() || !given.name.chars().all(inner) {
                faults.push(Fault::new(
                    at("name"),
                    format!(
                        "'{}': name should match regex ^[a-zA-Z0-9_ -]+$",
                        given.name
                    ),
                    "write the name of one of Felix's parts",
                ));
            }
            if given.timeout.is_negative() {
                faults.push(Fault::new(
                    at("timeout"),
                    "Timeout should not be negative",
                    "write a time such as 60s",
                ));
            }
        }
    }

    fn check_ports(&self, faults: &mut Vec<Fault>) {
        let ranges = self.kube_node_port_ranges.as_deref().unwrap_or_default();
        if ranges.len() > NODE_PORT_RANGES {
            faults.push(Fault::new(
                "spec.kubeNodePortRanges",
                format!("node port ranges list is too long (max {NODE_PORT_RANGES})"),
                format!("write at most {NODE_PORT_RANGES}"),
            ));
        }
        let numbered = [
            ("natPortRange".to_owned(), self.nat_port_range.as_ref()),
            ("bpfPSNATPorts".to_owned(), self.bpf_psnat_ports.as_ref()),
        ];
        let ranges = ranges
            .iter()
            .enumerate()
            .map(|(index, port)| (format!("kubeNodePortRanges[{index}]"), Some(port)));
        for (name, port) in numbered.into_iter().chain(ranges) {
            if let Some(Port::Named(port)) = port {
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!("'{port}': node port ranges should not contain named ports"),
                    "write a range such as 30000:32767",
                ));
            }
        }
    }

    fn check_tables(&self, faults: &mut Vec<Fault>) {
        if let Some(range) = self.route_table_range {
            if self.route_table_ranges.is_some() {
                faults.push(Fault::new(
                    "spec.routeTableRange",
                    "cannot be set when `RouteTableRanges` is also set",
                    "remove it: routeTableRanges replaces it",
                ));
            }
            if range.min < 1 || range.max < range.min || range.max > 250 {
                faults.push(Fault::new(
                    "spec.routeTableRange",
                    "must be a range of route table indices within 1..250",
                    "write such a range",
                ));
            }
        }
        let ranges = self.route_table_ranges.as_deref().unwrap_or_default();
        let mut tables: i64 = 0;
        for (index, range) in ranges.iter().enumerate() {
            let reason = if range.min > range.max {
                "min value cannot be greater than max value"
            } else if range.min < 1 {
                "cannot target indices < 1"
            } else if range.max > *U32.end() {
                "max index too high"
            } else {
                tables = tables.saturating_add(range.max - range.min + 1);
                continue;
            };
            faults.push(Fault::new(
                format!("spec.routeTableRanges[{index}]"),
                reason,
                "write a range from 1 to 4294967295",
            ));
        }
        if tables > TABLES {
            faults.push(Fault::new(
                "spec.routeTableRanges",
                "targets too many tables",
                format!("name at most {TABLES}"),
            ));
        }
    }

    fn check_networks(&self, faults: &mut Vec<Fault>) {
        for (index, network) in self.external_nodes_list.iter().flatten().enumerate() {
            if let IpNet::V6(_) = network.net() {
                faults.push(Fault::new(
                    format!("spec.externalNodesList[{index}]"),
                    format!("'{network}': has invalid IPv6 CIDR"),
                    "write IPv4 networks",
                ));
            }
        }
        if self
            .nat_outgoing_address
            .is_some_and(|address| address.is_unspecified())
        {
            faults.push(Fault::new(
                "spec.natOutgoingAddress",
                "0.0.0.0 is no node's address",
                "write one of the node's addresses, or remove the field",
            ));
        }
    }

    fn check_times(&self, faults: &mut Vec<Fault>) {
        for (name, time) in [
            ("routeRefreshInterval", self.route_refresh_interval),
            ("interfaceRefreshInterval", self.interface_refresh_interval),
            ("ipsetsRefreshInterval", self.ipsets_refresh_interval),
            ("iptablesRefreshInterval", self.iptables_refresh_interval),
            ("reportingInterval", self.reporting_interval),
            ("reportingTTL", self.reporting_ttl),
            ("netlinkTimeout", self.netlink_timeout),
            ("usageReportingInterval", self.usage_reporting_interval),
            ("wireguardKeepAlive", self.wireguard_keep_alive),
            ("xdpRefreshInterval", self.xdp_refresh_interval),
        ] {
            if let Some(time) = time.filter(|time| time.is_negative()) {
                faults.push(Fault::new(
                    format!("spec.{name}"),
                    format!("{time} is less than nothing"),
                    "write a time such as 90s",
                ));
            }
        }
    }
}

/// Pairs with commas between them; empty ones are passed over.
const KEY_VALUES: &str = r"^\s*$|^(\s*\w[\w-]*=[^,]*,|,)*(\s*\w[\w-]*=[^,]*)?$";
