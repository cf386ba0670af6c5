//! The cases of Calico's own validator (libcalico-go, `validator/v3`), as documents.

use std::path::Path;

use underpass::resources::load;

/// Whether a document of a kind with such a spec (in YAML's flow style) is taken, and why not.
fn outcome(kind: &str, name: &str, spec: &str) -> Result<(), String> {
    document(&format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    ))
}

fn document(text: &str) -> Result<(), String> {
    let parsed = load::parse(Path::new("x.yaml"), text);
    assert_eq!(
        parsed.resources.len() + usize::from(!parsed.problems.is_empty()),
        1,
        "{text}"
    );
    let problems: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems.join("\n")),
    }
}

/// Each spec of a kind is taken, or refused with a text that has a part.
fn check(kind: &str, name: &str, cases: &[(&str, Option<&str>)]) {
    for (spec, refused) in cases {
        match (outcome(kind, name, spec), refused) {
            (Ok(()), None) => {}
            (Err(problem), Some(part)) => {
                assert!(problem.contains(part), "{kind} {spec}: {problem}");
            }
            (outcome, _) => panic!("{kind} {spec}: {outcome:?}, {refused:?}"),
        }
    }
}

/// Each rule is taken or refused, among the ingress rules of a GlobalNetworkPolicy.
fn check_rules(cases: &[(&str, Option<&str>)]) {
    for (rule, refused) in cases {
        let spec = format!("{{ingress: [{rule}]}}");
        check("GlobalNetworkPolicy", "thing", &[(&spec, *refused)]);
    }
}

const PORTS: Option<&str> =
    Some("rules that specify ports must set protocol to TCP or UDP or SCTP");
const MIXED: Option<&str> = Some("both IPv4 and IPv6 CIDRs");
const OTHER_VERSION: Option<&str> = Some("rule IP version doesn't match CIDR version");
const RANGE: Option<&str> = Some("port range invalid");

#[test]
fn rules() {
    check_rules(&[
        ("{action: Allow}", None),
        ("{action: Deny}", None),
        ("{action: Log}", None),
        ("{action: Pass}", None),
        ("{action: unknown}", Some("'unknown' is not a value")),
        ("{action: allow}", Some("write 'Allow'")),
        ("{}", Some("action: the field is missing")),
        ("{action: Allow, ipVersion: 4}", None),
        ("{action: Allow, ipVersion: 6}", None),
        ("{action: Allow, ipVersion: 0}", Some("write 4 or 6")),
        ("{action: Allow, protocol: SCTP}", None),
        ("{action: Allow, protocol: 6, source: {ports: [1]}}", None),
        ("{action: Allow, protocol: 6, source: {ports: [foo]}}", None),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['80:90', 443, http]}}",
            None,
        ),
        ("{action: Allow, protocol: 7, source: {ports: []}}", None),
        (
            "{action: Allow, protocol: 17, source: {notPorts: [1]}}",
            None,
        ),
        ("{action: Allow, destination: {ports: [1]}}", PORTS),
        ("{action: Allow, protocol: 7, source: {ports: [1]}}", PORTS),
        (
            "{action: Allow, protocol: 100, source: {notPorts: [1]}}",
            PORTS,
        ),
        (
            "{action: Allow, protocol: ICMP, destination: {notPorts: [1]}}",
            PORTS,
        ),
        (
            "{action: Allow, protocol: TCP, destination: {notPorts: [0]}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['200:100']}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['0:100']}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: [65536]}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['a b']}}",
            Some("is not a port"),
        ),
    ]);
    for good in [
        "TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite", "1", "255", "'255'", "'1'",
    ] {
        check_rules(&[(&format!("{{action: Allow, protocol: {good}}}"), None)]);
    }
    for bad in [
        "0", "256", "'256'", "'0'", "tcpfoo", "footcp", "tcp", "unknown", "-1",
    ] {
        let rule = format!("{{action: Allow, protocol: {bad}}}");
        check_rules(&[(&rule, Some("protocol"))]);
    }
}

#[test]
fn rules_about_icmp_http_and_networks() {
    let icmp = Some("rules that specify ICMP fields must set protocol to ICMP");
    check_rules(&[
        ("{action: Allow, protocol: ICMP, icmp: {}}", None),
        ("{action: Allow, protocol: ICMP, icmp: {type: 0}}", None),
        (
            "{action: Allow, protocol: ICMP, icmp: {type: 254, code: 255}}",
            None,
        ),
        (
            "{action: Allow, protocol: ICMPv6, icmp: {type: 128, code: 0}}",
            None,
        ),
        ("{action: Allow, protocol: 1, icmp: {type: 8}}", None),
        (
            "{action: Allow, protocol: ICMP, icmp: {code: 0}}",
            Some("without an ICMP type"),
        ),
        (
            "{action: Allow, protocol: ICMP, icmp: {type: 255}}",
            Some("from 0 to 254"),
        ),
        (
            "{action: Allow, protocol: ICMP, icmp: {type: 128, code: 256}}",
            Some("from 0 to 255"),
        ),
        ("{action: Allow, ipVersion: 4, icmp: {type: 0}}", icmp),
        ("{action: Allow, protocol: TCP, icmp: {type: 0}}", icmp),
        (
            "{action: Allow, protocol: ICMP, ipVersion: 6}",
            Some("'4' with protocol icmp"),
        ),
        (
            "{action: Allow, protocol: ICMPv6, ipVersion: 4}",
            Some("'6' with protocol icmpv6"),
        ),
        (
            "{action: Allow, notProtocol: ICMP, ipVersion: 6}",
            Some("'4' with protocol icmp"),
        ),
        (
            "{action: Allow, protocol: ICMP, ipVersion: 4, icmp: {type: 0}}",
            None,
        ),
        (
            "{action: Allow, source: {nets: [1.2.3.0/26]}, destination: {nets: ['a::/122']}}",
            MIXED,
        ),
        (
            "{action: Allow, source: {nets: ['a::/122', 1.2.3.0/26]}}",
            MIXED,
        ),
        (
            "{action: Allow, source: {notNets: ['a::/122']}, destination: {notNets: [1.2.3.0/26]}}",
            MIXED,
        ),
        (
            "{action: Allow, ipVersion: 6, source: {nets: [1.0.0.0/10]}}",
            OTHER_VERSION,
        ),
        (
            "{action: Allow, ipVersion: 4, destination: {nets: ['a::/122']}}",
            OTHER_VERSION,
        ),
        (
            "{action: Allow, source: {nets: [1.2.3.4/26]}}",
            Some("not strictly masked"),
        ),
        (
            "{action: Allow, source: {nets: [garbage]}}",
            Some("is not a CIDR"),
        ),
        ("{action: Allow, http: {methods: [GET]}}", None),
        (
            "{action: Allow, protocol: TCP, http: {methods: [GET]}}",
            None,
        ),
        (
            "{action: Deny, http: {methods: [GET]}}",
            Some("only valid for Allow rules"),
        ),
        (
            "{action: Allow, protocol: UDP, http: {methods: [GET]}}",
            Some("must set protocol to TCP"),
        ),
        (
            "{action: Allow, http: {methods: [GET, GET, Foo]}}",
            Some("Invalid methods (duplicates)"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: /foo}, {prefix: /bar}]}}",
            None,
        ),
        (
            "{action: Allow, http: {paths: [{exact: /foo, prefix: /bar}]}}",
            Some("Both 'exact'"),
        ),
        (
            "{action: Allow, http: {paths: [{}]}}",
            Some("Either 'exact'"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: '/fo?o'}]}}",
            Some("Invalid path"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: '/fo o'}]}}",
            Some("Invalid path"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: '/f#oo'}]}}",
            Some("Invalid path"),
        ),
        (
            "{action: Allow, http: {paths: [{prefix: foo}]}}",
            Some("Invalid path"),
        ),
        ("{action: Allow, metadata: {annotations: {foo: bar}}}", None),
        (
            "{action: Allow, metadata: {annotations: {'...': bar}}}",
            Some("is not a key"),
        ),
    ]);
}

#[test]
fn rules_about_endpoints_and_services() {
    let global = Some("can only be used in an EntityRule namespaceSelector");
    let alone = Some("cannot be combined with other selectors");
    let service = "services: {name: service1, namespace: default}";
    check_rules(&[
        (
            "{action: Allow, source: {selector: 'foo == \"bar\"'}}",
            None,
        ),
        (
            "{action: Allow, source: {selector: has(calico/k8s_NS-.1/role)}}",
            None,
        ),
        (
            "{action: Allow, source: {selector: 'thing=hello &'}}",
            Some("expected =="),
        ),
        (
            "{action: Allow, source: {selector: '  global()  '}}",
            global,
        ),
        (
            "{action: Allow, source: {selector: 'global() && bad'}}",
            Some("unexpected characters"),
        ),
        (
            "{action: Allow, source: {namespaceSelector: '  global()  '}}",
            None,
        ),
        (
            "{action: Allow, source: {namespaceSelector: ' global() && all()'}}",
            alone,
        ),
        (
            "{action: Allow, source: {namespaceSelector: 'global()||all()'}}",
            alone,
        ),
        (
            "{action: Allow, source: {services: {}}}",
            Some("must specify a service name"),
        ),
        (
            "{action: Allow, source: {services: {name: a}}}",
            Some("must specify a namespace"),
        ),
    ]);
    for (extra, refused) in [
        ("", None),
        (
            ", serviceAccounts: {names: [a]}",
            Some("ServiceAccounts and Services"),
        ),
        (", nets: [10.0.0.0/8]", Some("Nets/NotNets and Services")),
        (", notNets: [10.0.0.0/8]", Some("Nets/NotNets and Services")),
        (
            ", selector: 'x == \"y\"'",
            Some("Selector/NotSelector and Services"),
        ),
        (
            ", notSelector: 'x == \"y\"'",
            Some("Selector/NotSelector and Services"),
        ),
        (
            ", namespaceSelector: 'x == \"y\"'",
            Some("NamespaceSelector and Services"),
        ),
    ] {
        check_rules(&[(
            &format!("{{action: Allow, source: {{{service}{extra}}}}}"),
            refused,
        )]);
    }
    let (not_here, not_there) = (
        Some("not allowed in ingress rule destination"),
        Some("not allowed in egress rule source"),
    );
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy"] {
        let rules = |way: &str, end: &str, extra: &str| {
            format!("{{{way}: [{{action: Allow, protocol: TCP, {end}: {{{service}{extra}}}}}]}}")
        };
        check(
            kind,
            "thing",
            &[
                (&rules("egress", "destination", ""), None),
                (&rules("egress", "source", ""), not_there),
                (&rules("ingress", "source", ""), None),
                (&rules("ingress", "source", ", ports: [80]"), None),
                (&rules("ingress", "source", ", notPorts: [80]"), None),
                (&rules("ingress", "destination", ""), not_here),
                (
                    &rules("egress", "destination", ", ports: [80]"),
                    Some("cannot specify ports with a service selector"),
                ),
                (
                    &rules("egress", "destination", ", notPorts: [80]"),
                    Some("cannot specify notports with a service selector"),
                ),
                (
                    "{egress: [{action: Allow, http: {methods: [GET]}}]}",
                    Some("not allowed in egress rule"),
                ),
            ],
        );
    }
}

#[test]
fn policies() {
    let global = Some("can only be used in an EntityRule namespaceSelector");
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy"] {
        check(
            kind,
            "thing",
            &[
                ("{}", None),
                ("{types: []}", None),
                ("{types: [Ingress]}", None),
                ("{types: [Egress]}", None),
                ("{types: [Ingress, Egress]}", None),
                (
                    "{types: [Egress, Egress]}",
                    Some("'Egress' type specified more than once"),
                ),
                ("{types: [unexpected]}", Some("'unexpected' is not a value")),
                ("{types: [Egress], ingress: [{action: Allow}]}", None),
                ("{types: [Ingress], egress: [{action: Allow}]}", None),
                ("{selector: global()}", global),
                ("{serviceAccountSelector: global()}", global),
                ("{selector: 'a == '}", Some("unexpected end of string")),
                ("{order: 100.5, tier: security}", None),
                ("{order: high}", Some("write a number")),
                ("{order: .inf}", Some("non-finite")),
                ("{tier: Sec urity}", Some("is not a name")),
                ("{performanceHints: [AssumeNeededOnEveryNode]}", None),
                (
                    "{performanceHints: [Faster]}",
                    Some("'Faster' is not a value"),
                ),
                ("{colour: red}", Some("spec.colour: unknown field")),
            ],
        );
    }
    let forward = "applyOnForward: true";
    check(
        "GlobalNetworkPolicy",
        "thing",
        &[
            ("{namespaceSelector: global()}", global),
            (
                &format!("{{preDNAT: true, doNotTrack: true, {forward}}}"),
                Some("cannot both be true"),
            ),
            (&format!("{{preDNAT: true, {forward}}}"), None),
            (&format!("{{doNotTrack: true, {forward}}}"), None),
            (
                &format!("{{preDNAT: true, {forward}, egress: [{{action: Allow}}]}}"),
                Some("any Egress rules"),
            ),
            (
                &format!("{{preDNAT: true, {forward}, ingress: [{{action: Allow}}]}}"),
                None,
            ),
            (
                &format!("{{preDNAT: true, {forward}, types: [Ingress]}}"),
                None,
            ),
            (
                &format!("{{preDNAT: true, {forward}, types: [Ingress, Egress]}}"),
                Some("'egress' Type"),
            ),
            ("{preDNAT: true}", Some("ApplyOnForward must be true")),
            ("{doNotTrack: true}", Some("ApplyOnForward must be true")),
            ("{applyOnForward: false}", None),
        ],
    );
}

#[test]
fn names_labels_and_annotations() {
    let long = "x".repeat(253);
    let too_long = "x".repeat(254);
    for (kind, name, good) in [
        ("GlobalNetworkPolicy", "thing", true),
        ("GlobalNetworkPolicy", "security.thing", true),
        ("GlobalNetworkPolicy", "t.h.i.ng", false),
        ("GlobalNetworkPolicy", "knp.default.thing", false),
        ("GlobalNetworkPolicy", "tHiNg", false),
        ("GlobalNetworkPolicy", "t~!s", false),
        ("NetworkPolicy", "knp.default.thing", true),
        ("NetworkPolicy", "ossg.default.a.b.c", true),
        ("NetworkPolicy", "t.h.i.ng", false),
        ("NetworkPolicy", &long, true),
        ("NetworkPolicy", &too_long, false),
        ("Tier", "net-sec", true),
        ("Tier", "net.sec", false),
        ("Tier", &"x".repeat(63), true),
        ("Tier", &"x".repeat(64), false),
        ("Profile", "kns.default", true),
        ("GlobalNetworkSet", "test$set", false),
    ] {
        assert_eq!(outcome(kind, name, "{}").is_ok(), good, "{kind} {name}");
    }
    let pool = |metadata: &str| {
        document(&format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool.name, \
             {metadata}}}\nspec: {{cidr: 1.2.3.0/26}}\n"
        ))
    };
    for (metadata, good) in [
        (
            format!("labels: {{projectcalico.org/label: {}}}", "x".repeat(63)),
            true,
        ),
        (
            format!("labels: {{projectcalico.org/label: {}}}", "x".repeat(64)),
            false,
        ),
        ("labels: {ProjectCalico.org/label: value}".to_owned(), false),
        ("labels: {projectcalico.org/Label: value}".to_owned(), true),
        ("labels: {.mylabel: value}".to_owned(), false),
        ("labels: {'my!label': value}".to_owned(), false),
        ("labels: {a: ''}".to_owned(), true),
        (
            "annotations: {projectcalico.org$label: value}".to_owned(),
            false,
        ),
        (
            "annotations: {ProjectCalico.org/Label: value}".to_owned(),
            true,
        ),
        (
            format!("annotations: {{key: {}}}", "x".repeat((256 << 10) - 3)),
            true,
        ),
        (
            format!("annotations: {{key: {}}}", "x".repeat((256 << 10) - 2)),
            false,
        ),
        ("namespace: default".to_owned(), false),
    ] {
        assert_eq!(
            pool(&metadata).is_ok(),
            good,
            "{}",
            &metadata[..metadata.len().min(80)]
        );
    }
    for (kind, good) in [
        ("NetworkSet", false),
        ("GlobalNetworkSet", false),
        ("Profile", true),
    ] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: a, labels: \
             {{projectcalico.org/namespace: foo}}}}\n"
        );
        assert_eq!(document(&text).is_ok(), good, "{kind}");
    }
    check(
        "Profile",
        "p",
        &[
            (
                "{labelsToApply: {project.calico.org/my-valid-label: x}}",
                None,
            ),
            (
                "{labelsToApply: {'my-invalid-label$': x}}",
                Some("is not a key"),
            ),
        ],
    );
}

#[test]
fn pools_and_addresses() {
    check(
        "IPPool",
        "pool.name",
        &[
            ("{cidr: 1.2.3.0/26}", None),
            ("{cidr: 1.0.0.0/10}", None),
            (
                "{cidr: 'aabb:aabb::/122', ipipMode: Never, vxlanMode: Never}",
                None,
            ),
            ("{cidr: 1.2.3.0/27, disabled: true}", None),
            ("{cidr: 'aabb:aabb::ffff/128', disabled: true}", None),
            ("{cidr: 1.2.3.0/27}", Some("IP pool size is too small")),
            ("{cidr: 1.2.3.4/33}", Some("is not a CIDR")),
            ("{cidr: 'aa:bb::/129'}", Some("is not a CIDR")),
            ("{cidr: 1.2.3.4/26}", Some("not strictly masked")),
            ("{}", Some("spec.cidr: the field is missing")),
            (
                "{cidr: 'aabb::/120', ipipMode: Always}",
                Some("not supported on an IPv6"),
            ),
            (
                "{cidr: 169.254.5.0/24}",
                Some("Link Local range 169.254.0.0/16"),
            ),
            ("{cidr: 'fe80::/120'}", Some("Link Local range fe80::/10")),
            (
                "{cidr: 1.2.3.0/24, ipipMode: badVal}",
                Some("'badVal' is not a value"),
            ),
            ("{cidr: 1.2.3.0/24, ipipMode: never}", Some("write 'Never'")),
            (
                "{cidr: 1.2.3.0/24, vxlanMode: crosssubnet}",
                Some("write 'CrossSubnet'"),
            ),
            (
                "{cidr: 1.2.3.0/24, ipipMode: Always, vxlanMode: Always}",
                Some("cannot both be enabled"),
            ),
            (
                "{cidr: 1.2.3.0/24, blockSize: 19}",
                Some("between 20 and 32"),
            ),
            (
                "{cidr: 'aabb::/64', blockSize: 115}",
                Some("between 116 and 128"),
            ),
            ("{cidr: 1.2.3.0/24, allowedUses: [Workload, Tunnel]}", None),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [Garbage]}",
                Some("'Garbage' is not a value"),
            ),
            ("{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer]}", None),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer, Tunnel]}",
                Some("cannot be combined"),
            ),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer], ipipMode: Always}",
                Some("LoadBalancer IP pool"),
            ),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer], nodeSelector: has(a)}",
                Some("set to all()"),
            ),
            ("{cidr: 1.2.3.0/24, assignmentMode: Manual}", None),
            (
                "{cidr: 1.2.3.0/24, assignmentMode: manual}",
                Some("write 'Manual'"),
            ),
            ("{cidr: 1.2.3.0/24, nodeSelector: 'foo == \"bar\"'}", None),
            (
                "{cidr: 1.2.3.0/24, nodeSelector: this is not valid selector syntax}",
                Some("was expecting an operator"),
            ),
            (
                "{cidr: 1.2.3.0/24, ipip: {enabled: true}}",
                Some("spec.ipip: unknown field"),
            ),
            (
                "{cidr: 1.2.3.0/24, nat-outgoing: true}",
                Some("spec.nat-outgoing: unknown field"),
            ),
        ],
    );
    check(
        "IPReservation",
        "r",
        &[
            (
                "{reservedCIDRs: [10.0.0.1, 10.0.1.0/24, 'cafe::1', 'cafe:f00d::/96']}",
                None,
            ),
            ("{reservedCIDRs: [garbage]}", Some("is not a CIDR")),
            ("{reservedCIDRs: [10.0.1.0/33]}", Some("is not a CIDR")),
        ],
    );
    check(
        "IPAMConfiguration",
        "default",
        &[
            (
                "{strictAffinity: true, autoAllocateBlocks: false, maxBlocksPerHost: 4}",
                None,
            ),
            (
                "{maxBlocksPerHost: -1}",
                Some("must be greater than or equal to 0"),
            ),
            ("{maxBlocksPerHost: 1000001}", Some("write at most 1000000")),
        ],
    );
    for kind in ["NetworkSet", "GlobalNetworkSet"] {
        check(
            kind,
            "set",
            &[
                (
                    "{nets: [10.0.0.1, 11.0.0.0/8, 'dead:beef::', 'dead:beef::/96']}",
                    None,
                ),
                ("{nets: [garbage]}", Some("is not a CIDR")),
            ],
        );
    }
    check(
        "Tier",
        "default",
        &[
            ("{order: 1000000}", None),
            ("{order: 1000000, defaultAction: Deny}", None),
            ("{order: 5}", Some("default tier order must be 1e+06")),
            ("{}", Some("default tier order must be 1e+06")),
            (
                "{order: 1000000, defaultAction: Pass}",
                Some("must have default action 'Deny'"),
            ),
        ],
    );
    check(
        "Tier",
        "net-sec",
        &[
            ("{order: 10, defaultAction: Pass}", None),
            ("{defaultAction: Allow}", Some("'Allow' is not a value")),
        ],
    );
}

#[test]
fn nodes_and_endpoints() {
    check(
        "Node",
        "n",
        &[
            ("{}", None),
            ("{bgp: {ipv4Address: 1.2.3.4/32}}", None),
            ("{bgp: {ipv6Address: 'aabb:aabb::ffff/128'}}", None),
            ("{bgp: {ipv4IPIPTunnelAddr: 10.0.0.1}}", None),
            ("{bgp: {}}", Some("Spec.BGP should not be empty")),
            (
                "{bgp: {ipv4Address: 'aabb::1/128'}}",
                Some("is not an IPv4 address"),
            ),
            (
                "{bgp: {ipv6Address: 1.2.3.4/32}}",
                Some("is not an IPv6 address"),
            ),
            (
                "{bgp: {ipv4Address: 1.2.3.4/24, routeReflectorClusterID: abcdef}}",
                Some("abcdef"),
            ),
            (
                "{bgp: {ipv4Address: 1.2.3.4/24, routeReflectorClusterID: 300.34.3.1}}",
                Some("300"),
            ),
            (
                "{bgp: {ipv4Address: 1.2.3.4/24, routeReflectorClusterID: 245.0.0.1}}",
                None,
            ),
            ("{wireguard: {interfaceIPv4Address: 1.2.3.4}}", None),
            (
                "{wireguard: {interfaceIPv4Address: foo.bar}}",
                Some("foo.bar"),
            ),
            (
                "{orchRefs: [{nodeName: a, orchestrator: k8s}], addresses: [{address: 10.0.0.1}]}",
                None,
            ),
        ],
    );
    let endpoint = |rest: &str| format!("{{node: n, interfaceName: eth0{rest}}}");
    for (rest, refused) in [
        ("", None),
        (
            ", ports: [{name: a-valid-port, protocol: TCP, port: 1234}]",
            None,
        ),
        (
            ", ports: [{name: a, protocol: SCTP, port: 1}, {name: a, protocol: UDP, port: 2}]",
            None,
        ),
        (
            ", ports: [{protocol: TCP, port: 1234}]",
            Some("name must not be empty"),
        ),
        (
            ", ports: [{protocol: UDP, port: 1234, hostPort: 2345}]",
            None,
        ),
        (
            ", ports: [{protocol: TCP, port: 1, hostPort: 2, hostIP: 999.999.999.999}]",
            Some("999"),
        ),
        (
            ", ports: [{name: a, port: 1234}]",
            Some("protocol: the field is missing"),
        ),
        (
            ", ports: [{name: a, protocol: 123, port: 1234}]",
            Some("does not support ports"),
        ),
        (
            ", ports: [{name: a, protocol: TCP, port: 0}]",
            Some("0 is not a port"),
        ),
        (
            ", ports: [{name: A_b, protocol: TCP, port: 1}]",
            Some("is not a port's name"),
        ),
        (", allowSpoofedSourcePrefixes: [10.abcd]", Some("10.abcd")),
        (
            ", allowSpoofedSourcePrefixes: [10.0.0.1, 192.168.0.0/16]",
            None,
        ),
        (", ipNetworks: [1.2.3.4/32, 'aabb::/128']", None),
        (", ipNetworks: [1.2.3.0/26]", Some("more than one address")),
        (
            ", ipNetworks: ['aabb::/122']",
            Some("more than one address"),
        ),
        (
            ", ipNetworks: [1.2.3.4/32], ipNATs: [{internalIP: 1.2.3.4, externalIP: 100.200.0.0}]",
            None,
        ),
        (
            ", ipNetworks: [1.2.3.4/32], ipNATs: [{internalIP: 1.2.3.5, externalIP: 1.2.3.4}]",
            Some("ipNATs[0]"),
        ),
        (
            ", ipNATs: [{internalIP: 1.2.3.5, externalIP: 1.2.3.4}]",
            Some("ipNATs[0]"),
        ),
        (
            ", ipNetworks: [1.2.3.4/32], ipNATs: [{internalIP: 1.2.3.4, externalIP: 'aabb::1'}]",
            Some("mismatched IP versions"),
        ),
        (", containerID: Cath01234-G", None),
        (", containerID: -abcdefg", Some("containerID")),
        (", containerID: abcdeSg-", Some("containerID")),
        (", containerID: abcde-j.g", Some("containerID")),
    ] {
        check(
            "WorkloadEndpoint",
            "n-a-b-eth0",
            &[(&endpoint(rest), refused)],
        );
    }
    for (interface, good) in [
        ("Valid_Iface.0-9", true),
        ("interfaceTooLong", false),
        ("Invalid&Intface", false),
        ("Invalid#Intface", false),
        ("'Invalid:Intface'", false),
    ] {
        let spec = format!("{{node: n, interfaceName: {interface}}}");
        let outcome = outcome("WorkloadEndpoint", "a", &spec);
        assert_eq!(outcome.is_ok(), good, "{interface}: {outcome:?}");
    }
    check(
        "HostEndpoint",
        "h",
        &[
            (
                "{node: n, interfaceName: eth0, ports: [{name: a, protocol: TCP, port: 1}]}",
                None,
            ),
            ("{node: n, interfaceName: '*'}", None),
            ("{node: n, expectedIPs: [1.2.3.4, 'aabb::ffff']}", None),
            (
                "{node: n, interfaceName: eth0, profiles: [knp.default.fun, fun-1234]}",
                None,
            ),
            (
                "{node: n, interfaceName: eth0, profiles: [.fun]}",
                Some("is not a name"),
            ),
            (
                "{node: n, interfaceName: eth0, ports: [{protocol: TCP, port: 1}]}",
                Some("name"),
            ),
            ("{interfaceName: eth0}", Some("no node has been specified")),
            ("{}", Some("no interface or expected IPs")),
            (
                "{node: n, expectedIPs: []}",
                Some("no interface or expected IPs"),
            ),
        ],
    );
    check(
        "BlockAffinity",
        "n-10-0-0-0-24",
        &[
            (
                "{state: confirmed, cidr: 10.0.0.0/24, node: node-1, deleted: 'false'}",
                None,
            ),
            (
                "{state: claimed, cidr: 10.0.0.0/24, node: node-1}",
                Some("'claimed' is not a value"),
            ),
        ],
    );
}

#[test]
fn bgp() {
    let advertised = "prefixAdvertisements: [{cidr: 192.168.10.0/28, communities: ['100:100']}]";
    let named = |value: &str| {
        format!("{{communities: [{{name: community-test, value: '{value}'}}], {advertised}}}")
    };
    let bits = |bits: &'static str| Some(bits);
    check(
        "BGPConfiguration",
        "default",
        &[
            ("{logSeverityScreen: Info}", None),
            ("{logSeverityScreen: info}", Some("write 'Info'")),
            ("{logSeverityScreen: invalidLvl}", Some("'invalidLvl'")),
            (
                "{serviceClusterIPs: [{cidr: 1.2.3.4}], serviceExternalIPs: [{cidr: 8.8.8.8}]}",
                None,
            ),
            (
                "{serviceClusterIPs: [{cidr: x.x.x.x}]}",
                Some("is not a CIDR"),
            ),
            (
                "{serviceExternalIPs: [{cidr: 10.0.0.1/8}]}",
                Some("not strictly masked"),
            ),
            ("{serviceClusterIPs: [{cidr: 'fdf5:1234::102:304'}]}", None),
            (
                "{nodeToNodeMeshEnabled: true, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}",
                None,
            ),
            (
                "{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}",
                Some("NodeMeshPassword cannot be set if spec.NodeToNodeMesh is disabled"),
            ),
            (
                "{nodeToNodeMeshEnabled: true, nodeMeshMaxRestartTime: 200s}",
                None,
            ),
            (
                "{nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 200s}",
                Some("NodeMeshMaxRestartTime"),
            ),
            (
                "{ignoredInterfaces: ['valid_iface*', interface_name]}",
                None,
            ),
            ("{ignoredInterfaces: ['*']}", Some("ignoredInterfaces[0]")),
            ("{listenPort: 0}", Some("0 is not a port")),
            ("{asNumber: 0}", Some("is not an AS number")),
            ("{asNumber: '1.10'}", None),
            (
                "{communities: [{name: community-test, value: '101:5695'}]}",
                Some("defined but not used"),
            ),
            (
                &format!("{{communities: [{{value: '536:785'}}], {advertised}}}"),
                Some("name: the field is missing"),
            ),
            (
                &format!("{{communities: [{{name: a}}], {advertised}}}"),
                Some("value: the field is missing"),
            ),
            (&named("100:520"), None),
            (&named("100:520:56"), None),
            (
                &named("100"),
                Some("invalid community value or format used."),
            ),
            (
                &named("ab-n"),
                Some("invalid community value or format used."),
            ),
            (&named("65536:999999"), bits("expected 16 bit value")),
            (&named("4147483647:999999"), bits("expected 16 bit value")),
            (
                "{prefixAdvertisements: [{communities: ['100:5964']}]}",
                Some("cidr: the field is missing"),
            ),
            (
                "{prefixAdvertisements: [{cidr: 192.168.10.0/28}]}",
                Some("communities: the field is missing"),
            ),
            (
                "{prefixAdvertisements: [{cidr: '2001:4860::/128', communities: ['100:5964:50', '8988:202']}]}",
                None,
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['100:1147483647']}]}",
                bits("expected 16 bit value"),
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['100:100:5147483647']}]}",
                bits("expected 32 bit value"),
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [non-existent]}]}",
                Some("invalid or not defined"),
            ),
            (
                "{communities: [{name: a, value: '101:5695'}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a, '8988:202']}]}",
                None,
            ),
        ],
    );
    let peer = |ip: &str| format!("{{peerIP: '{ip}'}}");
    for good in ["1.2.3.4", "192.168.1.1:500", "[9000::]:500", "aabb::ffff"] {
        check("BGPPeer", "p", &[(&peer(good), None)]);
    }
    for bad in [
        "999.999.999.999",
        "xyz:::",
        "[192.168.0.0]:98956",
        "192.168.0.0:65536",
        "192.168.0.0:0",
        "192.168.0.330:170",
        "[9000::]:98956",
        "192.168.0.0:",
        "[9000::]:",
        "[9000::]:0",
        "[9000::FFFFF]:170",
        ":8552",
        "[]:8552",
    ] {
        check(
            "BGPPeer",
            "p",
            &[(&peer(bad), Some("is not a peer's address"))],
        );
    }
    let family = Some("address family mismatched");
    check(
        "BGPPeer",
        "p",
        &[
            ("{}", None),
            (
                "{node: my-node, nodeSelector: has(mylabel)}",
                Some("Node field must be empty"),
            ),
            (
                "{peerIP: 1.2.3.4, peerSelector: has(mylabel)}",
                Some("PeerIP field must be empty"),
            ),
            (
                "{asNumber: 61234, peerSelector: has(mylabel)}",
                Some("ASNumber field must be empty"),
            ),
            (
                "{nodeSelector: has(mylabel), peerSelector: has(mylabel)}",
                None,
            ),
            (
                "{localWorkloadSelector: has(a)}",
                Some("ASNumber field must NOT be empty"),
            ),
            (
                "{localWorkloadSelector: has(a), asNumber: 1, peerIP: 1.2.3.4}",
                Some("PeerIP field must be empty"),
            ),
            (
                "{localWorkloadSelector: has(a), peerSelector: has(b)}",
                Some("PeerSelector field must be empty"),
            ),
            ("{localWorkloadSelector: has(a), asNumber: 1}", None),
            (
                "{reachableBy: 100.200.0.0}",
                Some("must be empty when PeerIP is empty"),
            ),
            ("{peerIP: '9.9.9.9:4444', reachableBy: 1.2.3.4}", None),
            (
                "{peerIP: '[aabb::ffff]:4444', reachableBy: 'aabb::1'}",
                None,
            ),
            (
                "{peerIP: 1.2.3.4, reachableBy: 999.1.1.1}",
                Some("999.1.1.1"),
            ),
            ("{peerIP: 1.2.3.4, reachableBy: 'aabb::1'}", family),
            (
                "{peerIP: '[aabb::ffff]:4444', reachableBy: 1.2.3.4}",
                family,
            ),
            (
                "{peerIP: 1.2.3.4, password: {secretKeyRef: {name: a, key: b}}}",
                None,
            ),
            (
                "{nodeSelector: \"kubernetes.io/hostname: == 'casey'\"}",
                Some("was expecting an operator"),
            ),
            ("{sourceAddress: UseNodeIP}", None),
            ("{sourceAddress: None}", None),
            ("{sourceAddress: rubbish}", Some("'rubbish' is not a value")),
            (
                "{maxRestartTime: 10s, keepaliveTime: 20s, ttlSecurity: 1}",
                None,
            ),
            ("{maxRestartTime: 10}", Some("is not a duration")),
            ("{nextHopMode: Self}", None),
            (
                "{nextHopMode: Keep, keepOriginalNextHop: true}",
                Some("deprecated"),
            ),
        ],
    );
}

#[test]
fn bgp_filters() {
    let rule = |rule: &str| format!("{{exportV4: [{rule}]}}");
    for (text, refused) in [
        ("{action: Accept}", None),
        ("{action: accept}", Some("write 'Accept'")),
        ("{}", Some("action: the field is missing")),
        (
            "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In}",
            None,
        ),
        (
            "{action: Accept, cidr: 10.0.0.0/8, matchOperator: Within}",
            Some("'Within' is not a value"),
        ),
        (
            "{action: Accept, cidr: 10.0.0.0/8}",
            Some("MatchOperator cannot be empty when CIDR is not"),
        ),
        (
            "{action: Accept, matchOperator: In}",
            Some("CIDR cannot be empty when MatchOperator is not"),
        ),
        (
            "{action: Accept, prefixLength: {min: 8}}",
            Some("CIDR cannot be empty when PrefixLength is not"),
        ),
        (
            "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 33}}",
            Some("from 0 to 32"),
        ),
        (
            "{action: Accept, cidr: 'fd00::/8', matchOperator: In}",
            Some("other IP version"),
        ),
        (
            "{action: Accept, cidr: 10.0.0.1/8, matchOperator: In}",
            Some("not strictly masked"),
        ),
        (
            "{action: Accept, source: RemotePeers, interface: '*.calico'}",
            None,
        ),
        (
            "{action: Accept, source: Anyone}",
            Some("'Anyone' is not a value"),
        ),
        (
            "{action: Accept, interface: 'a b'}",
            Some("is not an interface's name"),
        ),
        ("{action: Accept, peerType: eBGP}", None),
        (
            "{action: Accept, communities: {values: ['1:2', '3:4']}}",
            Some("write exactly one"),
        ),
        (
            "{action: Accept, operations: [{addCommunity: {value: '65000:100'}}]}",
            None,
        ),
        (
            "{action: Reject, operations: [{addCommunity: {value: '65000:100'}}]}",
            Some("only be used with action Accept"),
        ),
        (
            "{action: Accept, operations: [{}]}",
            Some("exactly one operation must be set"),
        ),
        (
            "{action: Accept, operations: [{setPriority: {value: 0}}]}",
            Some("route's priority"),
        ),
        ("{action: Accept, priority: 512}", None),
    ] {
        check("BGPFilter", "f", &[(&rule(text), refused)]);
    }
    check(
        "BGPFilter",
        "f",
        &[
            (
                "{importV6: [{action: Reject, cidr: 'fd00::/8', matchOperator: Equal, prefixLength: {max: 128}}]}",
                None,
            ),
            (
                "{importV6: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: Equal}]}",
                Some("other IP version"),
            ),
        ],
    );
}

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
