//! Felix' settings.

use super::check;

#[test]
fn felix_configurations() {
    let words = "is not a value";
    let tables = Some("within 1..250");
    check(
        "FelixConfiguration",
        "default",
        &[
            ("{iptablesBackend: Legacy}", None),
            ("{iptablesBackend: NFT}", None),
            ("{iptablesBackend: badVal}", Some(words)),
            ("{defaultEndpointToHostAction: Drop}", None),
            ("{defaultEndpointToHostAction: drop}", Some("write Drop")),
            (
                "{iptablesFilterAllowAction: Accept, iptablesMangleAllowAction: Return}",
                None,
            ),
            ("{iptablesMangleAllowAction: Drop}", Some(words)),
            ("{iptablesFilterDenyAction: Reject}", None),
            (
                "{kubeNodePortRanges: ['1:2', '3:4', '5:6', '7:8', '9:10', '11:12', 15000]}",
                None,
            ),
            (
                "{kubeNodePortRanges: [1, 2, 3, 4, 5, 6, 7, 8]}",
                Some("too long (max 7)"),
            ),
            (
                "{kubeNodePortRanges: [testport]}",
                Some("should not contain named ports"),
            ),
            (
                "{externalNodesList: [1.1.1.1, 1.1.1.2/32, 1.1.3.0/23]}",
                None,
            ),
            ("{externalNodesList: [foobar]}", Some("is not a CIDR")),
            (
                "{externalNodesList: ['abcd::1']}",
                Some("has invalid IPv6 CIDR"),
            ),
            ("{openstackRegion: ''}", None),
            ("{openstackRegion: foo}", None),
            ("{openstackRegion: FOO}", Some("must be a valid DNS label")),
            (
                "{openstackRegion: my-region-has-a-very-long-and-extremely-interesting-name}",
                Some("is too long"),
            ),
            (
                "{logSeverityScreen: Fatal, logSeverityFile: Debug, logSeveritySys: Info}",
                None,
            ),
            ("{logSeveritySys: Critical}", Some("'Critical'")),
            ("{iptablesNATOutgoingInterfaceFilter: cali-123}", None),
            (
                "{iptablesNATOutgoingInterfaceFilter: 'cali@123'}",
                Some("does not fit here"),
            ),
            ("{bpfLogLevel: 'Off'}", None),
            ("{bpfLogLevel: badVal}", Some(words)),
            ("{bpfExternalServiceMode: DSR}", None),
            ("{bpfExternalServiceMode: Foo}", Some(words)),
            ("{bpfExtToServiceConnmark: -1}", Some("out of range")),
            (
                "{bpfExtToServiceConnmark: 4294967296}",
                Some("out of range"),
            ),
            ("{bpfExtToServiceConnmark: 4294967295}", None),
            (
                "{bpfDataIfacePattern: '*'}",
                Some("is not a regular expression"),
            ),
            (
                "{bpfDataIfacePattern: 'eth.*', mtuIfacePattern: 'eth.*'}",
                None,
            ),
            (
                "{mtuIfacePattern: '*'}",
                Some("is not a regular expression"),
            ),
            ("{routeTableRange: {min: 1, max: 250}}", None),
            ("{routeTableRange: {min: 0, max: 250}}", tables),
            ("{routeTableRange: {min: -5, max: 250}}", tables),
            ("{routeTableRange: {min: 50, max: 45}}", tables),
            ("{routeTableRange: {min: 1, max: 253}}", tables),
            (
                "{routeTableRanges: [{min: 1, max: 10000}, {min: 8, max: 8}]}",
                None,
            ),
            (
                "{routeTableRanges: [{min: 0, max: 250}]}",
                Some("cannot target indices < 1"),
            ),
            (
                "{routeTableRanges: [{min: 50, max: 45}]}",
                Some("min value cannot be greater"),
            ),
            (
                "{routeTableRanges: [{min: 1, max: 64424509440}]}",
                Some("max index too high"),
            ),
            (
                "{routeTableRanges: [{min: 1, max: 65536}]}",
                Some("targets too many tables"),
            ),
            (
                "{routeTableRanges: [{min: 1, max: 2}, {min: 3, max: 4}, {min: 5, max: 65536}]}",
                Some("targets too many tables"),
            ),
            (
                "{routeTableRanges: [{min: 1, max: 2}], routeTableRange: {min: 1, max: 2}}",
                Some("cannot be set when"),
            ),
            (
                "{healthTimeoutOverrides: [{name: Valid, timeout: 0s}]}",
                None,
            ),
            (
                "{healthTimeoutOverrides: [{name: Valid, timeout: -1s}]}",
                Some("should not be negative"),
            ),
            (
                "{healthTimeoutOverrides: [{name: '%', timeout: 10s}]}",
                Some("should match regex"),
            ),
            ("{awsSrcDstCheck: Disable}", None),
            ("{awsSrcDstCheck: enable}", Some("write Enable")),
            ("{natOutgoingAddress: 1.2.3.4}", None),
            ("{natOutgoingAddress: 1.2.3.4/32}", Some("IPv4 address")),
            ("{natOutgoingAddress: 'aabb::1'}", Some("IPv4 address")),
            (
                "{deviceRouteSourceAddress: 'aabb::1'}",
                Some("IPv4 address"),
            ),
            ("{deviceRouteSourceAddressIPv6: 'aabb::1'}", None),
            (
                "{deviceRouteSourceAddressIPv6: 1.2.3.4}",
                Some("IPv6 address"),
            ),
            ("{prometheusMetricsHost: localhost}", None),
            ("{prometheusMetricsHost: 'fe80::ea7a:70fa:cf74:25d5'}", None),
            (
                "{prometheusMetricsHost: 'localhost#'}",
                Some("does not fit here"),
            ),
            (
                "{prometheusMetricsHost: '0: 1::1'}",
                Some("does not fit here"),
            ),
            (
                "{wireguardListeningPort: 12345, wireguardRoutingRulePriority: 12345}",
                None,
            ),
            ("{wireguardListeningPort: 99999}", Some("out of range")),
            (
                "{wireguardRoutingRulePriority: 99999}",
                Some("out of range"),
            ),
            ("{wireguardInterfaceName: wg0}", None),
            (
                "{wireguardInterfaceName: 'wg&0'}",
                Some("does not fit here"),
            ),
            ("{serviceLoopPrevention: Disabled}", None),
            ("{serviceLoopPrevention: Wibbly}", Some(words)),
            (
                "{failsafeInboundHostPorts: [{protocol: UDP, port: 0}, {protocol: tcp, port: 20}, {port: 1}]}",
                None,
            ),
            (
                "{failsafeInboundHostPorts: [{protocol: jolly-UDP, port: 0}]}",
                Some("'jolly-UDP'"),
            ),
            ("{vxlanVNI: 16777215, vxlanPort: 65535, vxlanMTU: 0}", None),
            ("{vxlanVNI: 16777216}", Some("out of range")),
            ("{vxlanPort: 0}", Some("out of range")),
            ("{routeRefreshInterval: 90s}", None),
            ("{routeRefreshInterval: 90}", Some("is not a duration")),
            ("{natOutgoingExclusions: IPPoolsAndHostIPs}", None),
            ("{natOutgoingExclusions: Nothing}", Some("'Nothing'")),
            (
                "{featureDetectOverride: 'SNATFullyRandom=true,MASQFullyRandom=,'}",
                None,
            ),
            (
                "{featureDetectOverride: 'SNATFullyRandom'}",
                Some("not of this field's form"),
            ),
            ("{nodeSelector: has(a)}", Some("says for which nodes it is")),
            (
                "{noSuchThing: true}",
                Some("spec.noSuchThing: unknown field"),
            ),
        ],
    );
}
