//! Files: the examples in config/, Calico's own examples, and what is said about wrong ones.

#[path = "config_files/identity.rs"]
mod identity;
#[path = "config_files/validation.rs"]
mod validation;

use std::fs;
use std::path::{Path, PathBuf};

use underpass::control::check::check;
use underpass::resources::config::{Dscp, Io, PortKind, Ttl};
use underpass::resources::fence::ReversePath;
use underpass::resources::load::{self, Parsed};
use underpass::resources::{Kind, NodeConfig, Resource};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn parse(text: &str) -> Parsed {
    load::parse(Path::new("x.yaml"), text)
}

/// The problems of a text, as they are shown.
fn problems(text: &str) -> Vec<String> {
    let parsed = parse(text);
    parsed.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_file_in_config_is_in_order() {
    let mut configurations = 0;
    for entry in fs::read_dir(root("config")).unwrap() {
        let file = entry.unwrap().path();
        if file
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let report = check(&file);
            assert_eq!(report.to_string(), "", "{}", file.display());
            configurations += 1;
        }
    }
    assert!(configurations > 0);
    let manifest = root("config/lab/calico.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    let read = underpass::resources::manifest::read(&manifest, &text).unwrap();
    assert_eq!((read.configurations.len(), read.pools.len()), (2, 1));
    for directory in ["config/datastore", "config/resources"] {
        for entry in fs::read_dir(root(directory)).unwrap() {
            let parsed = load::read(&entry.unwrap().path());
            assert_eq!(parsed.problems, []);
            assert!(!parsed.resources.is_empty());
        }
    }
}

/// By the daemons' own word, where they are installed.
#[test]
fn the_daemons_take_their_examples() {
    let commands = [
        "bird -p -c config/bird.conf",
        "/usr/lib/frr/bgpd -C -f config/frr.conf",
        "vtysh -C -f config/frr.conf",
    ];
    for command in commands {
        let mut words = command.split(' ');
        let mut program = std::process::Command::new(words.next().unwrap());
        program.args(words).current_dir(root(""));
        match program.output() {
            Ok(output) => assert!(output.status.success(), "{command}: {output:?}"),
            Err(error) => println!("skipped: {command}: {error}"),
        }
    }
}

/// What the example shows as commented-out defaults are the defaults.
#[test]
fn the_example_configuration_shows_the_defaults() {
    let file = root("config/node.yaml");
    let config = NodeConfig::load(&file).unwrap();
    assert_eq!(config.node.as_str(), "worker1");
    assert_eq!(config.datastore.directory, root("config/datastore"));
    assert_eq!(config.uplink.io, Io::Auto);
    assert_eq!((config.uplink_queues(4), config.worker_count()), (4, 1));
    assert_eq!(config.workloads[1].kind, PortKind::Tun);
    assert_eq!(
        config.control_socket(),
        Path::new("/run/underpass/worker1.sock")
    );

    let text = fs::read_to_string(&file).unwrap();
    let spelled_out: String = text.lines().map(|line| uncomment(line) + "\n").collect();
    let spelled_out = NodeConfig::parse(&file, &spelled_out).unwrap();
    let plain = |config: &NodeConfig| {
        let mut shown = format!("{config:?}");
        shown.truncate(shown.find("places").unwrap());
        shown
            .replace("kind: Xdp, io: Some(Auto)", "kind: Xdp, io: None")
            .replace("queues: Some(1)", "queues: None")
            // Off unless it is there.
            .replace(
                "Some(WorkloadInterfaces { prefix: \"cali\", max: 110, io: Auto })",
                "None",
            )
            .replace("count: Some(1)", "count: None")
            .replace("Some(\"/run/underpass/worker1.sock\")", "None")
    };
    assert_eq!(plain(&spelled_out), plain(&config));
}

/// Turns `# field: value` into `field: value` and leaves prose alone.
fn uncomment(line: &str) -> String {
    let Some(at) = line.find("# ") else {
        return line.to_owned();
    };
    let rest = &line[at + 2..];
    let field = rest.trim_start().split(':').next().unwrap_or("");
    let is_field = rest.contains(':') && field.chars().all(char::is_alphanumeric);
    match line[..at].trim().is_empty() && is_field {
        true => format!("{}{rest}", &line[..at]),
        false => line.to_owned(),
    }
}

/// Documents of Calico's own documentation that are not valid: the file, and why. Most have a place
/// for the reader to fill in.
const INVALID: &[(&str, &str)] = &[
    ("BGPConfiguration.yaml", "'x.x.x.x/16' is not a CIDR"),
    ("BGPConfiguration.yaml", "'x.x.x.x/16' is not a CIDR"),
    (
        "BGPConfiguration.yaml",
        "'<workload cluster's AS number>' is not an AS number",
    ),
    ("BGPPeer.yaml", "'<ToR IP>' is not a peer's address"),
    (
        "BGPPeer.yaml",
        "'<workload cluster's AS number>' is not an AS number",
    ),
    (
        "BGPPeer.yaml",
        "'<parent cluster's AS number>' is not an AS number",
    ),
    (
        "BGPPeer.yaml",
        "'<parent cluster's AS number>' is not an AS number",
    ),
    ("BGPPeer.yaml", "'<ToR IP>' is not a peer's address"),
    // Ports of a rule without a protocol: what Calico's own validator refuses.
    (
        "GlobalNetworkPolicy.yaml",
        "rules that specify ports must set protocol to TCP or UDP or SCTP",
    ),
    (
        "GlobalNetworkPolicy.yaml",
        "rules that specify ports must set protocol to TCP or UDP or SCTP",
    ),
    (
        "GlobalNetworkPolicy.yaml",
        "'<your management CIDR>' is not a CIDR",
    ),
    // Remarks that stand in the values.
    ("GlobalNetworkPolicy.yaml", "'8  Ping request' does not fit"),
    (
        "GlobalNetworkPolicy.yaml",
        "'3  Destination unreachable' does not fit",
    ),
    (
        "GlobalNetworkPolicy.yaml",
        "'<log-everything-in-cluster>' is not a name",
    ),
    // Host bits, which Calico's validator refuses in rules.
    (
        "GlobalNetworkPolicy.yaml",
        "'1.2.3.4/16' is not strictly masked",
    ),
    (
        "GlobalNetworkPolicy.yaml",
        "'10.20.30.40/32  Cluster IP A' is not a CIDR",
    ),
    (
        "GlobalNetworkPolicy.yaml",
        "'192.168.0.0/16  Pod CIDR' is not a CIDR",
    ),
    // The rules stand in the list of types.
    (
        "GlobalNetworkPolicy.yaml",
        "spec.types[1]: a mapping does not fit here",
    ),
    ("HostEndpoint.yaml", "'INSERT_IP_HERE'"),
    ("IPPool.yaml", "'<CIDR>' is not a CIDR"),
    ("IPPool.yaml", "'<CIDR>' is not a CIDR"),
    ("IPPool.yaml", "'<CIDR>' is not a CIDR"),
    ("NetworkPolicy.yaml", "'<namespace>' is not a name"),
    ("NetworkPolicy.yaml", "'<gateway-namespace>' is not a name"),
];

#[test]
fn calicos_own_examples_are_accepted() {
    let Some(files) = calicos_examples() else {
        println!("skipped: Calico's examples are not beside the repository");
        return;
    };
    let mut refused = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let documents = text.matches("\napiVersion:").count();
        let parsed = load::read(&path);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            parsed.resources.len() + parsed.problems.len(),
            documents,
            "{name}: {:#?}",
            parsed.problems
        );
        for problem in parsed.problems {
            refused.push((name.to_owned(), problem.to_string()));
        }
        for (resource, _) in parsed.resources {
            let json = serde_json::to_vec(&resource).unwrap();
            assert_eq!(load::from_json(&json), Ok(resource), "{name}");
        }
    }
    assert_eq!(refused.len(), INVALID.len(), "{refused:#?}");
    for ((file, problem), (in_file, reason)) in refused.iter().zip(INVALID) {
        assert_eq!(file, in_file, "{problem}");
        assert!(problem.contains(reason), "{problem}");
    }
}

/// The files of example resources beside the repository, if they are there.
fn calicos_examples() -> Option<Vec<PathBuf>> {
    let entries = fs::read_dir(root("../shared/data/calico")).ok()?;
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    // The manifest holds Kubernetes' kinds.
    files.retain(|file| !file.ends_with("octetz-calico.yaml"));
    files.sort();
    Some(files)
}

#[test]
fn the_endpoint_of_calicos_documentation_is_read_in_full() {
    let path = root("../shared/data/calico/WorkloadEndpoint.yaml");
    if !path.exists() {
        println!("skipped: Calico's examples are not beside the repository");
        return;
    }
    let parsed = load::read(&path);
    let (Resource::WorkloadEndpoint(endpoint), origin) = &parsed.resources[0] else {
        panic!("{parsed:?}");
    };
    assert_eq!(
        endpoint.spec.container_id.as_deref(),
        Some("1337495556942031415926535")
    );
    assert_eq!(endpoint.spec.mac.unwrap().to_string(), "ca:fe:1d:52:bb:e9");
    assert_eq!(endpoint.spec.ports[1].protocol.0, 17);
    assert_eq!(origin.position.unwrap().line, 3);
}

#[test]
fn what_is_written_can_be_read_again() {
    let path = root("config/datastore");
    for entry in fs::read_dir(path).unwrap() {
        for (resource, _) in load::read(&entry.unwrap().path()).resources {
            let text = serde_json::to_string(&resource).unwrap();
            let again = parse(&text);
            assert_eq!(again.problems, [], "{text}");
            assert_eq!(again.resources[0].0, resource);
        }
    }
}

fn pool(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn pools_keep_calicos_rules() {
    let cases = [
        (
            "cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet",
            "4:37: spec.ipipMode: ipipMode and vxlanMode cannot both be enabled on the same IP pool; set one of them to Never",
        ),
        (
            "cidr: fd00::/48, ipipMode: Always",
            "spec.ipipMode: ipipMode is not supported on an IPv6 IP pool",
        ),
        (
            "cidr: 10.0.0.0/16, ipipMode: always",
            "spec.ipipMode: 'always' is not a value of this field; write 'Always'",
        ),
        (
            "cidr: 10.0.0.0/16, blockSize: 19",
            "spec.blockSize: IPv4 block size must be between 20 and 32, not 19",
        ),
        (
            "cidr: 10.0.0.0/16, blockSize: 33",
            "spec.blockSize: IPv4 block size must be between 20 and 32, not 33",
        ),
        (
            "cidr: fd00::/48, blockSize: 115",
            "spec.blockSize: IPv6 block size must be between 116 and 128, not 115",
        ),
        (
            "cidr: 10.0.0.0/27",
            "spec.cidr: IP pool size is too small for use with Calico IPAM",
        ),
        (
            "cidr: 10.0.0.1/16",
            "spec.cidr: '10.0.0.1/16' is not strictly masked; write 10.0.0.0/16",
        ),
        (
            "cidr: 169.254.0.0/17",
            "spec.cidr: IP pool range overlaps with IPv4 Link Local range 169.254.0.0/16",
        ),
        (
            "cidr: 168.0.0.0/6",
            "spec.cidr: IP pool range overlaps with IPv4 Link Local range 169.254.0.0/16",
        ),
        (
            "cidr: fe80::/64",
            "spec.cidr: IP pool range overlaps with IPv6 Link Local range fe80::/10",
        ),
        (
            "cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload]",
            "spec.allowedUses: LoadBalancer cannot be combined",
        ),
        (
            "cidr: 10.0.0.0/16, allowedUses: [workload]",
            "spec.allowedUses[0]: 'workload' is not a value of this field; write 'Workload'",
        ),
        (
            "cidr: 10.0.0.0/16, natOutgoin: true",
            "spec.natOutgoin: unknown field; remove it, or write 'natOutgoing'",
        ),
        (
            "cidr: 10.0.0.0/16, natOutgoing: yes",
            "spec.natOutgoing: 'yes' does not fit here; write true or false",
        ),
        ("blockSize: 26", "spec.cidr: the field is missing; add it"),
    ];
    for (spec, expected) in cases {
        let found = problems(&pool(spec));
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{spec}: {found:?}"
        );
        assert!(found[0].starts_with("x.yaml:4:"), "{found:?}");
    }
    let long = "a".repeat(1025);
    assert_eq!(
        problems(&pool(&format!("cidr: 10.0.0.0/16, nodeSelector: {long}"))).len(),
        1
    );
    for good in [
        "cidr: 10.0.0.0/26",
        "cidr: 10.0.0.0/28, disabled: true",
        "cidr: fd00::/48, vxlanMode: Always",
        "cidr: 10.0.0.0/32, blockSize: 32",
        "cidr: 10.0.0.0/16, assignmentMode: Manual, disableBGPExport: true",
    ] {
        assert_eq!(problems(&pool(good)), [""; 0], "{good}");
    }
    let Resource::IpPool(pool) = &parse(&pool("cidr: fd00::/48")).resources[0].0.clone() else {
        panic!("no pool");
    };
    assert_eq!(
        (pool.block_size(), pool.spec.node_selector.as_str()),
        (122, "all()")
    );
    assert_eq!(pool.spec.allowed_uses.len(), 2);
}

#[test]
fn a_refused_document_does_not_hide_the_others() {
    let text = "\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a}
---
apiVersion: projectcalico.org/v3
kind: Noode
metadata: {name: b}
---
apiVersion: v1
kind: Node
metadata: {name: c}
---
kind: [broken
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: D}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: e, namespace: f}
---
apiVersion: projectcalico.org/v3
kind: NodeList
items:
- metadata: {name: g}
- metadata: {name: h}
  spec: {bgp: {ipv4Address: 10.0.0.300/24}}
- metadata: {name: i}
";
    let parsed = parse(text);
    let names: Vec<&str> = parsed
        .resources
        .iter()
        .map(|(resource, _)| resource.metadata().name.as_str())
        .collect();
    assert_eq!(names, ["a", "g", "i"]);
    assert_eq!(
        problems(text),
        [
            "x.yaml:6:7: kind: unknown kind 'Noode'; write one of Node, IPPool, IPReservation, IPAMConfiguration, BlockAffinity, WorkloadEndpoint, HostEndpoint, BGPConfiguration, BGPPeer, BGPFilter, FelixConfiguration, Tier, NetworkPolicy, GlobalNetworkPolicy, NetworkSet, GlobalNetworkSet, Profile",
            "x.yaml:9:13: apiVersion: 'v1' is not the version of any resource here; write projectcalico.org/v3",
            "x.yaml:13:7: not YAML: unclosed bracket '['; correct the syntax",
            "x.yaml:17:18: metadata.name: 'D' is not a name; write at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at the start and end of each part",
            "x.yaml:21:32: metadata.namespace: kind Node has no namespaces; remove the field",
            "x.yaml:28:29: items[1].spec.bgp.ipv4Address: '10.0.0.300/24' is not an IPv4 address of a node; write a unicast address and its network's prefix length, such as 10.30.0.11/24",
        ]
    );
}

#[test]
fn kinds_of_another_case_are_named() {
    let found = problems("apiVersion: projectcalico.org/v3\nkind: ippool\n");
    assert_eq!(
        found,
        ["x.yaml:2:7: kind: unknown kind 'ippool'; write IPPool"]
    );
    let found = problems(
        "{\"apiVersion\": \"projectcalico.org/v3\",\n \"kind\": \"FooList\", \"items\": []}",
    );
    assert!(
        found[0].starts_with("x.yaml:2:10: kind: unknown kind 'Foo'"),
        "{found:?}"
    );
}

#[test]
fn affinities_endpoints_and_nodes_are_checked() {
    let head = |kind: &str| {
        format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: x}}\n")
    };
    let cases = [
        (
            "BlockAffinity",
            "spec: {state: Confirmed, node: a, cidr: 10.0.0.0/26}",
            "spec.state: 'Confirmed' is not a value of this field; write 'confirmed'",
        ),
        (
            "BlockAffinity",
            "spec: {state: confirmed, node: a, cidr: 10.0.0.0/8}",
            "spec.cidr: 10.0.0.0/8 is not a block",
        ),
        (
            "BlockAffinity",
            "spec: {state: confirmed, node: a, cidr: 10.0.0.0/26, deleted: maybe}",
            "spec.deleted: string \"maybe\" is out of range; write true or false",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: a/b}",
            "spec.interfaceName: 'a/b' is not an interface's name",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: c, ipNetworks: [10.0.0.0/24]}",
            "spec.ipNetworks[0]: '10.0.0.0/24' contains more than one address",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: c, mac: ee:ee}",
            "spec.mac: 'ee:ee' is not an Ethernet address",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: c, ports: [{name: a, port: 0, protocol: TCP}]}",
            "spec.ports[0].port: 0 is not a port",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: c, ports: [{port: 1, protocol: TPC}]}",
            "spec.ports[0].protocol: string \"TPC\" is out of range",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: c, ipNATs: [{internalIP: 10.0.0.1, externalIP: 1.1.1.1}]}",
            "spec.ipNATs[0].internalIP: 10.0.0.1 is not among",
        ),
        (
            "Node",
            "spec: {bgp: {}}",
            "spec.bgp: Spec.BGP should not be empty",
        ),
        (
            "Node",
            "spec: {bgp: {asNumber: 0}}",
            "spec.bgp.asNumber: '0' is not an AS number",
        ),
        (
            "Node",
            "spec: {vxlanTunnelMACAddr: 'ff:ff:ff:ff:ff:ff'}",
            "spec.vxlanTunnelMACAddr: 'ff:ff:ff:ff:ff:ff' is no station's address",
        ),
    ];
    for (kind, spec, expected) in cases {
        let found = problems(&(head(kind) + spec));
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{spec}: {found:?}"
        );
    }
    for (kind, spec) in [
        (
            "BlockAffinity",
            "spec: {state: pendingDeletion, node: a, cidr: 10.0.0.0/26, deleted: 'true', type: virtual}",
        ),
        (
            "WorkloadEndpoint",
            "spec: {node: a, interfaceName: c, allowSpoofedSourcePrefixes: [10.1.2.3/8], qosControls: {ingressBandwidth: 1000000}}",
        ),
        (
            "Node",
            "spec: {bgp: {asNumber: '1.10', ipv4Address: 10.0.0.1}, addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}]}",
        ),
    ] {
        assert_eq!(problems(&(head(kind) + spec)), [""; 0], "{spec}");
    }
}

#[test]
fn every_kind_is_found_by_its_name() {
    for kind in Kind::ALL {
        assert_eq!(Kind::by_name(kind.name()), Some(*kind));
    }
}

/// A configuration of the least, and more lines.
fn config(more: &str) -> Result<NodeConfig, Vec<String>> {
    let text = format!("node: n\nuplink: {{interface: up0}}\ndatastore: {{directory: d}}\n{more}");
    NodeConfig::parse(Path::new("dir/c.yaml"), &text)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn wrong_configurations_are_refused_by_line_and_field() {
    let cases = [
        (
            "vxlan: {vni: 16777216}",
            "dir/c.yaml:4:14: vxlan.vni: 16777216 does not fit into 24 bits; write a number from 0 to 16777215",
        ),
        (
            "vxlan: {port: 0}",
            "dir/c.yaml:4:15: vxlan.port: 0 is not a port",
        ),
        (
            "vxlan: {prot: 1}",
            "dir/c.yaml:4:9: vxlan.prot: unknown field; remove it, or write 'port'",
        ),
        (
            "worker: {}",
            "dir/c.yaml:4:1: worker: unknown field; remove it, or write 'workers'",
        ),
        (
            "workers: {count: 0}",
            "workers.count: 0 is no number of workers",
        ),
        (
            "workers: {count: 2, cpus: [1]}",
            "dir/c.yaml:4:27: workers.cpus: 1 CPUs do not match 2 workers",
        ),
        (
            "workers: {cpus: [1, 1]}",
            "dir/c.yaml:4:21: workers.cpus[1]: CPU 1 is given twice",
        ),
        (
            "workers: {frames: 10}",
            "workers.frames: 10 is no number of frames",
        ),
        (
            "workloads: [{interface: up0}]",
            "workloads[0].interface: 'up0' is also uplink.interface",
        ),
        (
            "workloads: [{interface: a}, {interface: a, kind: tun, netns: x}]",
            "workloads[1].interface: 'a' is also workloads[0].interface",
        ),
        (
            "workloads: [{interface: a, device: b, kind: tun}, {interface: b}]",
            "workloads[1].interface: 'b' is also workloads[0].interface",
        ),
        (
            "workloads: [{interface: sixteen-bytes-xx}]",
            "workloads[0].interface: 'sixteen-bytes-xx' is not an interface's name",
        ),
        (
            "workloads: [{interface: a, netns: x}]",
            "workloads[0].netns: only ports of kind tun and tap have it",
        ),
        (
            "workloads: [{interface: a, kind: tap, io: native}]",
            "workloads[0].io: only AF_XDP ports have it",
        ),
        (
            "workloads: [{interface: a, kind: tap, netns: a/b}]",
            "workloads[0].netns: 'a/b' is not a network namespace's name",
        ),
        (
            "host: {tun: up0}",
            "host.tun: 'up0' is also uplink.interface",
        ),
        ("host: {mtu: 60}", "host.mtu: 60 bytes are too few for IP"),
        (
            "tunnel: {ttl: 0}",
            "tunnel.ttl: integer `0` is out of range; write inherit, or a number from 1 to 255",
        ),
        (
            "tunnel: {dscp: 64}",
            "tunnel.dscp: integer `64` is out of range; write inherit, or a number from 0 to 63",
        ),
        (
            "tunnel: {udpZeroChecksumV6: yes please}",
            "tunnel.udpZeroChecksumV6: ",
        ),
        (
            "fence: {externalNodes: [10.30.0.0/33]}",
            "fence.externalNodes[0]: '10.30.0.0/33' is not a CIDR; write a network such as",
        ),
        (
            "fence: {reversePath: none}",
            "fence.reversePath: 'none' is not a value of this field; write one of strict, loose, off",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 16777216}]",
            "dir/c.yaml:5:26: bridges[0].vni: 16777216 does not fit into 24 bits",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 4096}]",
            "dir/c.yaml:5:26: bridges[0].vni: VNI 4096 on UDP port 4789 is the routed network; write another VNI, or another udpPort",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5}, {name: y, vni: 5}]",
            "bridges[1].vni: VNI 5 on UDP port 4789 is also bridges[0].vni",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5}, {name: x, vni: 6}]",
            "bridges[1].name: 'x' is also bridges[0].name",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, udpPort: 0}]",
            "bridges[0].udpPort: 0 is not a port",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, ports: [c]}]",
            "bridges[0].ports[0]: 'c' is no workload port; name the interface of one of `workloads`",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, ports: [b]}]",
            "bridges[0].ports[0]: 'b' is of kind tun, which carries no Ethernet frames; make it kind: tap",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, ports: [a]}, {name: y, vni: 6, ports: [a]}]",
            "bridges[1].ports[0]: 'a' is also bridges[0].ports[0]; put each port into one bridge",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, remotes: [10.0.0.1, \"fd00::1\"]}]",
            "bridges[0].remotes[1]: fd00::1 is not of the underlay's family, ipv4",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, remotes: [239.1.1.1]}]",
            "bridges[0].remotes[0]: 239.1.1.1 is not a tunnel end point's address",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, forwarding: [{mac: \"02:00:00:00:00:01\"}]}]",
            "bridges[0].forwarding[0]: a station is behind a port or behind a remote; write either `port` or `remote`",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, forwarding: [{mac: \"02:00:00:00:00:01\", port: a}]}]",
            "bridges[0].forwarding[0].port: 'a' is no port of this bridge",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, knownNodes: false, forwarding: [{mac: \"02:00:00:00:00:01\", remote: 10.0.0.1}]}]",
            "bridges[0].forwarding[0].remote: 10.0.0.1 is no remote of this bridge; add it to `remotes`",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, ports: [a], forwarding: [{mac: \"01:00:00:00:00:01\", port: a}]}]",
            "bridges[0].forwarding[0].mac: 01:00:00:00:00:01 is not one station's address",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, limit: 0}]",
            "bridges[0].limit: 0 is no number of stations; write a number from 1 to 262144",
        ),
        (
            "workloads: [{interface: a}, {interface: b, kind: tun}]\nbridges: [{name: x, vni: 5, aging: 0}]",
            "bridges[0].aging: unknown field; remove it, or write 'ageing'",
        ),
        (
            "health: localhost",
            "health: 'localhost': invalid socket address syntax; write an address and a port",
        ),
        (
            "health: 127.0.0.1:1\nmetrics: 127.0.0.1:1",
            "dir/c.yaml:5:10: metrics: health has the same address",
        ),
        (
            "control: relative",
            "control: 'relative' cannot be a socket's path",
        ),
        (
            "log: verbose",
            "log: 'verbose' is not a value of this field; write one of off, error",
        ),
        (
            "node: again",
            "dir/c.yaml:4:1: node: the field is given twice",
        ),
        ("---\nnode: again", "holds 2 documents"),
    ];
    for (more, expected) in cases {
        let found = config(more).expect_err(more);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{more}: {found:?}"
        );
    }
    let many = config("workers: {count: 2}\nuplink: {}").expect_err("twice");
    assert_eq!(many.len(), 1);
}

#[test]
fn configurations_default_sensibly() {
    let least = config("").unwrap();
    assert_eq!(least.tunnel.ttl, Ttl::Fixed(64));
    assert_eq!(least.tunnel.dscp, Dscp::Inherit);
    assert_eq!(least.vxlan.vni.get(), 4096);
    assert_eq!(least.workers.frames, 8192);
    assert!(!least.tunnel.udp_zero_checksum_v6);
    assert_eq!(least.fence.reverse_path, ReversePath::Loose);
    assert!(least.fence.external_nodes.is_empty());
    let fence =
        "fence: {externalNodes: [10.30.0.96/28, 10.30.1.7, \"fd00:30::9\"], reversePath: off}";
    let fence = config(fence).unwrap().fence;
    let external: Vec<_> = fence
        .external_nodes
        .iter()
        .map(|p| p.0.to_string())
        .collect();
    assert_eq!(
        external,
        ["10.30.0.96/28", "10.30.1.7/32", "fd00:30::9/128"]
    );
    assert_eq!(fence.reverse_path, ReversePath::Off);
    assert!(least.host.is_none());
    assert_eq!(least.datastore.directory, Path::new("dir/d"));
    let more = config("workers: {cpus: [3, 1]}\ntunnel: {ttl: inherit}\nhost: {}").unwrap();
    assert_eq!((more.worker_count(), more.uplink_queues(1)), (2, 2));
    assert_eq!(more.tunnel.ttl, Ttl::Inherit);
    assert_eq!(more.host.unwrap().tun.as_str(), "tunl0");
    let bridged = config("workloads: [{interface: a}]\nbridges: [{name: x, vni: 5, ports: [a]}]");
    let bridge = &bridged.unwrap().bridges[0];
    assert_eq!((bridge.ageing, bridge.limit), (300, 8192));
    assert_eq!((bridge.udp_port, bridge.underlay), (None, None));
    assert!(bridge.learning && bridge.arp_suppression && bridge.known_nodes);
    assert!(!bridge.link_local_groups);
    let same_name_elsewhere = config(
        "workloads: [{interface: a, kind: tun, netns: x, device: eth0},\n\
         {interface: b, kind: tun, netns: y, device: eth0}]",
    );
    assert!(same_name_elsewhere.is_ok());
}

#[test]
fn a_check_reports_the_configuration_and_the_datastore() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let file = path.join("node.yaml");
    let missing = check(&file);
    assert!(!missing.is_ok() && missing.to_string().contains("node.yaml: cannot be read"));

    fs::write(
        &file,
        "node: n1\nuplink: {interface: eth0}\nworkloads: [{interface: cali9}]\n\
         datastore: {directory: d}\n",
    )
    .unwrap();
    let report = check(&file).to_string();
    assert!(
        report.contains("/d: the datastore's directory cannot be read"),
        "{report}"
    );
    assert!(
        report.contains("node.yaml:1:7: node: the datastore has no Node(n1)"),
        "{report}"
    );

    fs::create_dir(path.join("d")).unwrap();
    fs::write(
        path.join("d/all.yaml"),
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n\
         spec: {bgp: {ipv4Address: 10.0.0.1}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: w}\n\
         spec: {node: n1, interfaceName: cali1, ipNetworks: [10.65.0.1]}\n---\n"
            .to_owned()
            + &pool("cidr: 10.65.0.0/16, vxlanMode: CrossSubnet"),
    )
    .unwrap();
    let report = check(&file);
    assert!(report.is_ok(), "{report}");
    let shown = report.to_string();
    assert!(
        shown.contains("warning: Node(n1) has the address 10.0.0.1/32"),
        "{shown}"
    );
    assert!(
        shown.contains("node.yaml:3:25: workloads[0].interface: no WorkloadEndpoint"),
        "{shown}"
    );
    assert!(
        shown.contains("all.yaml:6:1: spec.interfaceName: node n1 has no port cali1"),
        "{shown}"
    );

    let bridged = "node: n1\nuplink: {interface: eth0}\n\
        workloads: [{interface: cali1}, {interface: cali9}]\n\
        bridges: [{name: tenants, vni: 5, ports: [cali1, cali9]}]\ndatastore: {directory: d}\n";
    fs::write(&file, bridged).unwrap();
    let shown = check(&file).to_string();
    assert!(
        shown.contains(
            "spec.interfaceName: cali1 is in the bridge tenants, where nothing is routed"
        ),
        "{shown}"
    );
    assert!(!shown.contains("cali9"), "it needs no endpoint: {shown}");

    // A bridge may not be what a FelixConfiguration makes the routed network.
    fs::write(
        path.join("d/felix.yaml"),
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n\
         spec: {vxlanVNI: 5}\n",
    )
    .unwrap();
    let report = check(&file);
    assert!(!report.is_ok());
    let shown = report.to_string();
    assert!(
        shown.contains("bridges[0].vni: VNI 5 on UDP port 4789 is the routed network, as FelixConfiguration has it"),
        "{shown}"
    );
}

/// However deep it nests, a file is refused or read; it does not exhaust a thread's stack.
#[test]
fn deep_nesting_is_survived() {
    for depth in [50, 1_000, 10_000, 100_000] {
        let flow = "[".repeat(depth) + &"]".repeat(depth);
        let open = "{a: ".repeat(depth);
        let block = "- ".repeat(depth) + "x";
        for text in [flow, open, block] {
            std::thread::Builder::new()
                .stack_size(2 << 20)
                .spawn(move || assert_eq!(problems(&text).len(), 1))
                .unwrap()
                .join()
                .unwrap();
        }
    }
}

proptest::proptest! {
    /// A file that went wrong anywhere is refused or read, and every problem has its place.
    #[test]
    fn damaged_files_are_survived(at in 0..2000usize, cut in 0..40usize, junk in "[-a-z:{}\\[\\]&*!|>'\"%@`#, \n\té]{0,8}") {
        let mut text = fs::read_to_string(root("config/datastore/nodes.yaml")).unwrap()
            + &fs::read_to_string(root("config/datastore/blocks.yaml")).unwrap();
        let start = text.floor_char_boundary(at);
        let end = text.floor_char_boundary(start + cut);
        text.replace_range(start..end, &junk);
        let lines = text.lines().count() as u64 + 1;
        for problem in parse(&text).problems {
            let line = problem.origin.position.unwrap().line;
            proptest::prop_assert!((1..=lines).contains(&line), "{}", problem);
        }
        let _ = NodeConfig::parse(Path::new("c.yaml"), &text);
    }
}
