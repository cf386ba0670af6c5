//! What is written can be read again, and is the same: for resources of every kind with any of
//! their fields, as JSON and as YAML.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use underpass::resources::{Kind, load};

/// Fields of a kind's spec with values that they can have; the first `needed` ones are always there.
struct Fields {
    kind: Kind,
    needed: usize,
    fields: Vec<(&'static str, Vec<Value>)>,
}

fn texts(values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| json!(value)).collect()
}

fn flags() -> Vec<Value> {
    vec![json!(true), json!(false)]
}

fn selectors() -> Vec<Value> {
    texts(&[
        "all()",
        "has(a)",
        "a == 'b' && c in {'d', \"e\"}",
        "!has(x.y/z)",
    ])
}

fn rules() -> Vec<Value> {
    vec![
        json!([]),
        json!([{"action": "Allow"}]),
        json!([
            {"action": "Log", "protocol": "TCP", "source": {"ports": [80, "90:91", "http"]}},
            {"action": "Pass", "ipVersion": 6, "protocol": "ICMPv6", "icmp": {"type": 128}},
            {
                "action": "Deny",
                "notProtocol": 200,
                "destination": {"notNets": ["10.0.0.0/8"], "namespaceSelector": "global()"},
                "metadata": {"annotations": {"why": "because: #1"}},
            },
        ]),
    ]
}

fn spec_fields() -> Vec<Fields> {
    let fields = |kind, needed, fields| Fields {
        kind,
        needed,
        fields,
    };
    let types = vec![json!(["Ingress"]), json!(["Ingress", "Egress"])];
    let orders = vec![json!(5), json!(0.25), json!(-1), json!(1e15)];
    let nets = vec![json!(["10.0.0.1", "10.0.0.1/8", "fd00::/64"]), json!([])];
    vec![
        fields(
            Kind::IpPool,
            1,
            vec![
                ("cidr", texts(&["10.65.0.0/16", "10.66.0.0/20"])),
                ("blockSize", vec![json!(26), json!(32)]),
                ("ipipMode", texts(&["Never", "CrossSubnet"])),
                ("natOutgoing", flags()),
                ("disabled", flags()),
                ("disableBGPExport", flags()),
                ("nodeSelector", selectors()),
                ("namespaceSelector", selectors()),
                (
                    "allowedUses",
                    vec![json!(["Tunnel"]), json!(["Workload", "Tunnel"])],
                ),
                ("assignmentMode", texts(&["Automatic", "Manual"])),
            ],
        ),
        fields(
            Kind::Node,
            0,
            vec![
                (
                    "bgp",
                    vec![json!({"asNumber": 64512, "ipv4Address": "10.0.0.1/24"})],
                ),
                ("vxlanTunnelMACAddr", texts(&["66:00:00:00:00:01"])),
                ("ipv4VXLANTunnelAddr", texts(&["10.65.0.1"])),
                (
                    "orchRefs",
                    vec![json!([{"nodeName": "a", "orchestrator": "k8s"}])],
                ),
                (
                    "wireguard",
                    vec![json!({"interfaceIPv4Address": "10.65.0.2"})],
                ),
                (
                    "addresses",
                    vec![json!([{"address": "10.0.0.1/24", "type": "InternalIP"}])],
                ),
            ],
        ),
        fields(
            Kind::WorkloadEndpoint,
            2,
            vec![
                ("node", texts(&["n1"])),
                ("interfaceName", texts(&["cali0123", "eth0.1"])),
                ("ipNetworks", vec![json!(["10.65.0.2/32", "fd00::2/128"])]),
                ("mac", texts(&["ca:fe:1d:52:bb:e9"])),
                (
                    "ports",
                    vec![json!([{"name": "http", "port": 80, "protocol": "TCP"}])],
                ),
                ("containerID", texts(&["0012", "1e5", "abc"])),
                ("allowSpoofedSourcePrefixes", vec![json!(["10.0.0.0/8"])]),
            ],
        ),
        fields(
            Kind::HostEndpoint,
            2,
            vec![
                ("node", texts(&["n1"])),
                ("interfaceName", texts(&["*", "eth0"])),
                ("expectedIPs", vec![json!(["10.0.0.1", "fd00::1"])]),
                ("profiles", vec![json!(["a", "b"])]),
                (
                    "ports",
                    vec![json!([{"name": "http", "port": 80, "protocol": "UDP"}])],
                ),
            ],
        ),
        fields(
            Kind::BgpConfiguration,
            0,
            vec![
                ("logSeverityScreen", texts(&["Info", "Debug"])),
                ("nodeToNodeMeshEnabled", vec![json!(true)]),
                ("asNumber", vec![json!(63400), json!("1.10")]),
                ("listenPort", vec![json!(178)]),
                ("bindMode", texts(&["None", "NodeIP"])),
                ("nodeMeshMaxRestartTime", texts(&["120s", "1h1m0.5s"])),
                (
                    "prefixAdvertisements",
                    vec![json!([{"cidr": "10.0.0.0/8", "communities": ["1:2", "1:2:3"]}])],
                ),
                (
                    "serviceClusterIPs",
                    vec![json!([{"cidr": "10.96.0.0/12"}, {"cidr": "10.0.0.1"}])],
                ),
                ("ignoredInterfaces", vec![json!(["a*"])]),
            ],
        ),
        fields(
            Kind::BgpPeer,
            0,
            vec![
                ("nodeSelector", selectors()),
                (
                    "peerIP",
                    texts(&["10.0.0.1", "10.0.0.1:1790", "[fd00::1]:1790", "fd00::1"]),
                ),
                ("asNumber", vec![json!(4_294_967_295_u32)]),
                ("keepOriginalNextHop", flags()),
                ("sourceAddress", texts(&["UseNodeIP", "None"])),
                ("maxRestartTime", texts(&["10s"])),
                ("filters", vec![json!(["a", "b"])]),
                (
                    "password",
                    vec![json!({"secretKeyRef": {"name": "a", "key": "b"}})],
                ),
            ],
        ),
        fields(
            Kind::BgpFilter,
            0,
            vec![
                (
                    "exportV4",
                    vec![json!([
                        {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "NotIn"},
                        {"action": "Reject", "interface": "*.calico", "source": "RemotePeers"},
                    ])],
                ),
                (
                    "importV6",
                    vec![json!([{
                        "action": "Accept",
                        "peerType": "eBGP",
                        "operations": [{"prependASPath": {"prefix": [1, 2]}}, {"setPriority": {"value": 5}}],
                    }])],
                ),
            ],
        ),
        fields(
            Kind::FelixConfiguration,
            0,
            vec![
                ("vxlanVNI", vec![json!(4096), json!(0)]),
                (
                    "externalNodesList",
                    vec![json!([]), json!(["10.0.0.1", "10.0.0.0/8"])],
                ),
                (
                    "failsafeInboundHostPorts",
                    vec![
                        json!([]),
                        json!([{"port": 22}, {"protocol": "UDP", "port": 68, "net": "10.0.0.0/8"}]),
                    ],
                ),
                ("routeRefreshInterval", texts(&["0s", "90s", "1.5h"])),
                ("natPortRange", vec![json!("1000:2000"), json!(80)]),
                ("istioDSCPMark", vec![json!(23), json!("AF11")]),
                ("bpfLogFilters", vec![json!({"eth0": "host 10.0.0.1"})]),
                (
                    "healthTimeoutOverrides",
                    vec![json!([{"name": "a b", "timeout": "90s"}])],
                ),
                (
                    "natOutgoingExclusions",
                    texts(&["IPPoolsOnly", "IPPoolsAndHostIPs"]),
                ),
                ("ipv6Support", flags()),
            ],
        ),
        fields(
            Kind::IpReservation,
            0,
            vec![("reservedCIDRs", nets.clone())],
        ),
        fields(
            Kind::IpamConfiguration,
            0,
            vec![
                ("strictAffinity", flags()),
                ("autoAllocateBlocks", flags()),
                ("maxBlocksPerHost", vec![json!(0), json!(7)]),
                ("kubeVirtVMAddressPersistence", texts(&["Enabled"])),
            ],
        ),
        fields(
            Kind::NetworkPolicy,
            0,
            vec![
                ("tier", texts(&["default", "security"])),
                ("order", orders.clone()),
                ("selector", selectors()),
                ("serviceAccountSelector", selectors()),
                ("types", types.clone()),
                ("ingress", rules()),
                ("egress", rules()),
            ],
        ),
        fields(
            Kind::GlobalNetworkPolicy,
            0,
            vec![
                ("order", orders.clone()),
                ("namespaceSelector", selectors()),
                ("types", types),
                ("ingress", rules()),
                ("applyOnForward", flags()),
                ("performanceHints", vec![json!(["AssumeNeededOnEveryNode"])]),
            ],
        ),
        fields(Kind::NetworkSet, 0, vec![("nets", nets.clone())]),
        fields(Kind::GlobalNetworkSet, 0, vec![("nets", nets)]),
        fields(
            Kind::Tier,
            0,
            vec![
                ("order", orders),
                ("defaultAction", texts(&["Deny", "Pass"])),
            ],
        ),
        fields(
            Kind::Profile,
            0,
            vec![
                ("ingress", rules()),
                ("labelsToApply", vec![json!({"a": "b", "c": ""})]),
            ],
        ),
        fields(
            Kind::BlockAffinity,
            3,
            vec![
                ("state", texts(&["confirmed", "pending", "pendingDeletion"])),
                ("cidr", texts(&["10.65.0.0/26"])),
                ("node", texts(&["n1"])),
                ("deleted", vec![json!("false"), json!(false)]),
            ],
        ),
    ]
}

/// Metadata as API servers write it.
fn metadata() -> impl Strategy<Value = Map<String, Value>> {
    let fields = vec![
        ("labels", json!({"a": "b", "example.com/c": "true"})),
        ("annotations", json!({"note": "two\nlines: # and 'quotes'"})),
        ("uid", json!("b0c46a4e-9f3c-4f3e-8f1e-6d1f0e7b6a01")),
        ("resourceVersion", json!("1234")),
        ("creationTimestamp", json!("2026-01-02T03:04:05Z")),
        ("generation", json!(3)),
        ("finalizers", json!(["a/b"])),
        (
            "ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]),
        ),
        (
            "managedFields",
            json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]),
        ),
    ];
    let count = fields.len();
    subsequence(fields, 0..=count).prop_map(|some| {
        let some = some
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        some.chain([("name".to_owned(), json!("a-name"))]).collect()
    })
}

fn resource() -> impl Strategy<Value = Value> {
    let kinds = (0..spec_fields().len()).prop_flat_map(|index| {
        let Fields {
            kind,
            needed,
            mut fields,
        } = spec_fields().swap_remove(index);
        let optional = fields.split_off(needed);
        let count = optional.len();
        let value = |(name, values): (&'static str, Vec<Value>)| (Just(name), select(values));
        let needed: Vec<_> = fields.into_iter().map(value).collect();
        let some = subsequence(optional, 0..=count)
            .prop_flat_map(move |some| some.into_iter().map(value).collect::<Vec<_>>());
        (Just(kind), needed, some)
    });
    (kinds, metadata()).prop_map(|((kind, needed, some), mut metadata)| {
        if kind == Kind::IpamConfiguration {
            metadata["name"] = json!("default");
        }
        let spec = needed.into_iter().chain(some);
        let spec: Map<String, Value> = spec.map(|(name, v)| (name.to_owned(), v)).collect();
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": kind.name(),
            "metadata": metadata,
            "spec": spec,
        })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_was_read(value in resource()) {
        let first = load::from_value(&value);
        prop_assert!(first.is_ok(), "{value:#}: {first:?}");
        let mut first = first.unwrap();
        for _ in 0..2 {
            let json = serde_json::to_vec(&first).unwrap();
            prop_assert_eq!(load::from_json(&json), Ok(first.clone()));
            let yaml = serde_saphyr::to_string(&first).unwrap();
            let parsed = load::parse(Path::new("x.yaml"), &yaml);
            prop_assert_eq!(&parsed.problems, &[], "{}", yaml);
            prop_assert_eq!(&parsed.resources[0].0, &first);
            let sorted = serde_json::to_value(&first).unwrap();
            let yaml = serde_saphyr::to_string(&sorted).unwrap();
            let parsed = load::parse(Path::new("x.yaml"), &yaml);
            prop_assert_eq!(&parsed.problems, &[], "{}", yaml);
            prop_assert_eq!(&parsed.resources[0].0, &first);
            // What is filled in when it is stored changes nothing of this.
            first.fill_defaults();
        }
    }
}

/// The table above leaves no kind out that people write.
#[test]
fn every_kind_is_tried() {
    for kind in Kind::ALL {
        let tried = spec_fields().iter().any(|fields| fields.kind == *kind);
        assert!(tried || kind.name().starts_with("IPAM"), "{kind}");
    }
}
