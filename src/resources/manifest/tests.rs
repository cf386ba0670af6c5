//! The lab's manifest, and what two changed lines make of it.

use std::fs;

use super::*;
use crate::resources::bgp_configuration::BgpConfiguration;
use crate::resources::{EncapMode, FelixConfiguration, IpPool, Typed};

/// The manifest beside the repository, if it is there.
fn octetz() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../shared/data/calico/octetz-calico.yaml")).ok();
    if text.is_none() {
        println!("skipped: the manifest is not beside the repository");
    }
    text
}

fn manifest(text: &str) -> Manifest {
    read(Path::new("calico.yaml"), text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn pool(manifest: &Manifest) -> &IpPool {
    IpPool::of(&manifest.pools[0]).unwrap()
}

fn bgp(manifest: &Manifest) -> &BgpConfiguration {
    let mut found = manifest
        .configurations
        .iter()
        .filter_map(BgpConfiguration::of);
    found.next().unwrap()
}

fn note<'a>(manifest: &'a Manifest, setting: &str) -> &'a Note {
    let mut found = manifest
        .notes
        .iter()
        .filter(|note| note.setting.starts_with(setting));
    found
        .next()
        .unwrap_or_else(|| panic!("{setting}: {:#?}", manifest.notes))
}

#[test]
fn the_labs_manifest_gives_an_ipip_pool_and_bgp() {
    let Some(text) = octetz() else { return };
    let manifest = manifest(&text);
    let pool = pool(&manifest);
    assert_eq!(manifest.pools.len(), 1);
    assert_eq!(pool.metadata.name.as_str(), "default-ipv4-ippool");
    assert_eq!(pool.cidr().to_string(), "192.168.0.0/16");
    assert_eq!(
        (pool.spec.ipip_mode, pool.spec.vxlan_mode),
        (EncapMode::Always, EncapMode::Never)
    );
    assert_eq!((pool.block_size(), pool.spec.nat_outgoing), (26, true));
    assert!(bgp(&manifest).mesh_enabled());
    assert_eq!(manifest.backend, Backend::Bird);
    let felix = manifest
        .configurations
        .iter()
        .find_map(FelixConfiguration::of)
        .unwrap();
    assert_eq!(felix.spec.ipip_mtu, Some(1440));
    assert_eq!(
        felix.spec.default_endpoint_to_host_action.as_deref(),
        Some("Accept")
    );
    assert_eq!(
        (felix.spec.ipv6_support, felix.spec.health_enabled),
        (Some(false), Some(true))
    );
    assert!(
        note(&manifest, "CLUSTER_TYPE=k8s,bgp")
            .what
            .contains("statistics")
    );
    let ipip = note(&manifest, "CALICO_IPV4POOL_IPIP=Always");
    assert!(ipip.taken && ipip.what == "IPPool default-ipv4-ippool: ipipMode");
    assert_eq!(ipip.origin.position.unwrap().line, 615);
}

/// The exercise: `calico_backend: "vxlan"` and CALICO_IPV4POOL_VXLAN in place of
/// CALICO_IPV4POOL_IPIP.
#[test]
fn two_changed_lines_give_a_vxlan_pool_without_bgp() {
    let Some(text) = octetz() else { return };
    let changed = text
        .replace("calico_backend: \"bird\"", "calico_backend: \"vxlan\"")
        .replace("CALICO_IPV4POOL_IPIP", "CALICO_IPV4POOL_VXLAN");
    assert_eq!(
        text.lines()
            .zip(changed.lines())
            .filter(|(a, b)| a != b)
            .count(),
        2
    );
    let manifest = manifest(&changed);
    let pool = pool(&manifest);
    assert_eq!(
        (pool.spec.ipip_mode, pool.spec.vxlan_mode),
        (EncapMode::Never, EncapMode::Always)
    );
    assert_eq!(manifest.backend, Backend::Vxlan);
    assert!(!bgp(&manifest).mesh_enabled());
    assert_eq!(manifest.probes, ["felix-live", "felix-ready"]);
    for probe in ["-bird-live", "-bird-ready"] {
        assert!(!note(&manifest, probe).taken);
    }
    // No variable says what VXLAN takes, but the workloads' MTU does.
    assert!(note(&manifest, "veth_mtu").taken);
    assert_eq!(felix_field(&manifest, "vxlanMTU"), json!(1440));
}

fn felix_field(manifest: &Manifest, field: &str) -> Value {
    let mut found = manifest.configurations.iter();
    let felix = found.find_map(FelixConfiguration::of).unwrap();
    serde_json::to_value(felix).unwrap()["spec"][field].clone()
}

#[test]
fn workloads_have_the_mtu_that_the_manifest_gives_them() {
    let of = |mtu: &str, environment: &str| {
        let config = format!(
            "kind: ConfigMap\nmetadata: {{name: calico-config}}\ndata: {{veth_mtu: \"{mtu}\"}}\n---\n"
        );
        read(Path::new("calico.yaml"), &(config + &with(environment)))
    };
    let ipip = of("1400", "CALICO_IPV4POOL_IPIP=CrossSubnet").unwrap();
    assert_eq!(felix_field(&ipip, "ipipMTU"), json!(1400));
    // What a variable says of the tunnel itself counts more.
    let own = of("1400", "CALICO_IPV4POOL_VXLAN=Always\nFELIX_VXLANMTU=1410").unwrap();
    assert_eq!(felix_field(&own, "vxlanMTU"), json!(1410));
    assert!(!note(&own, "veth_mtu").taken);
    let auto = of("0", "CALICO_IPV4POOL_IPIP=Always\nFELIX_HEALTHENABLED=true").unwrap();
    assert_eq!(felix_field(&auto, "ipipMTU"), Value::Null);
    let wrong = of("large", "CALICO_IPV4POOL_IPIP=Always").unwrap_err();
    assert!(
        wrong[0]
            .to_string()
            .contains("veth_mtu: 'large' is no MTU; write a number"),
        "{wrong:?}"
    );
}

/// A manifest of one container with an environment.
fn with(environment: &str) -> String {
    let mut text = String::from(
        "kind: DaemonSet\nmetadata: {name: calico-node}\nspec:\n  template:\n    spec:\n      \
         containers:\n      - name: calico-node\n        env:\n",
    );
    for line in environment.lines() {
        let (name, value) = line.split_once('=').unwrap();
        text.push_str(&format!("        - {{name: {name}, value: \"{value}\"}}\n"));
    }
    text
}

#[test]
fn variables_are_read_as_calico_reads_them() {
    let manifest = manifest(&with(
        "CALICO_IPV4POOL_CIDR=10.65.0.0/16\nCALICO_IPV4POOL_VXLAN=cross-subnet\n\
         CALICO_IPV4POOL_BLOCK_SIZE=24\nCALICO_IPV4POOL_NAT_OUTGOING=false\n\
         CALICO_IPV4POOL_NODE_SELECTOR=has(a)\nCALICO_IPV4POOL_DISABLE_BGP_EXPORT=true\n\
         CALICO_IPV6POOL_CIDR=fd00:65::/48\nCALICO_IPV6POOL_VXLAN=Always\nAS=64513\n\
         FELIX_VXLANVNI=4097\nFELIX_REPORTINGINTERVALSECS=0\nFELIX_LOGSEVERITYSCREEN=debug\n\
         FELIX_EXTERNALNODESCIDRLIST=10.0.0.0/8,192.0.2.1\nFELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:22,udp:68\n\
         FELIX_FAILSAFEOUTBOUNDHOSTPORTS=none\nFELIX_NOSUCHTHING=1\nFELIX_VXLANPORT=nine\n\
         IP_AUTODETECTION_METHOD=interface=eth.*",
    ));
    let v4 = pool(&manifest);
    assert_eq!(v4.cidr().to_string(), "10.65.0.0/16");
    assert_eq!(
        (v4.spec.vxlan_mode, v4.block_size()),
        (EncapMode::CrossSubnet, 24)
    );
    assert!(!v4.spec.nat_outgoing && v4.spec.disable_bgp_export);
    assert_eq!(v4.spec.node_selector.as_str(), "has(a)");
    let v6 = IpPool::of(&manifest.pools[1]).unwrap();
    assert_eq!(
        (v6.spec.vxlan_mode, v6.block_size()),
        (EncapMode::Always, 122)
    );
    assert!(!v6.spec.nat_outgoing);
    assert_eq!(bgp(&manifest).as_number().0, 64513);
    let felix = &manifest
        .configurations
        .iter()
        .find_map(FelixConfiguration::of)
        .unwrap()
        .spec;
    assert_eq!(felix.vxlan_vni, Some(4097));
    assert_eq!(felix.reporting_interval.unwrap().to_string(), "0s");
    assert_eq!(felix.external_nodes_list.as_ref().map(Vec::len), Some(2));
    assert_eq!(
        felix.failsafe_inbound_host_ports.as_ref().map(Vec::len),
        Some(2)
    );
    assert_eq!(
        felix.failsafe_outbound_host_ports.as_deref(),
        Some([].as_slice())
    );
    assert_eq!(felix.vxlan_port, None);
    assert!(!note(&manifest, "FELIX_NOSUCHTHING").taken);
    assert!(
        note(&manifest, "FELIX_VXLANPORT")
            .what
            .contains("whole number")
    );
    assert!(!note(&manifest, "IP_AUTODETECTION_METHOD").taken);
}

#[test]
fn what_calico_would_refuse_is_refused_where_it_stands() {
    for (environment, field, reason, line) in [
        (
            "CALICO_IPV4POOL_CIDR=10.65.0.1/16",
            "spec.cidr",
            "not strictly masked",
            9,
        ),
        (
            "CALICO_IPV4POOL_IPIP=Always\nCALICO_IPV4POOL_VXLAN=Always",
            "spec.ipipMode",
            "cannot both be enabled",
            9,
        ),
        (
            "CALICO_IPV4POOL_BLOCK_SIZE=33",
            "spec.blockSize",
            "between 20 and 32",
            9,
        ),
        (
            "CALICO_NETWORKING_BACKEND=ospf",
            "CALICO_NETWORKING_BACKEND",
            "is no backend",
            9,
        ),
        (
            "IP_AUTODETECTION_METHOD=interface=",
            "IP_AUTODETECTION_METHOD",
            "no way",
            9,
        ),
    ] {
        let problems = read(Path::new("x.yaml"), &with(environment)).unwrap_err();
        let problem = &problems[0];
        assert_eq!(problem.field, field, "{problem}");
        assert!(problem.reason.contains(reason), "{problem}");
        assert_eq!(problem.origin.position.unwrap().line, line, "{problem}");
    }
    let none = manifest(&with(
        "NO_DEFAULT_POOLS=true\nCALICO_IPV4POOL_CIDR=10.0.0.0/8",
    ));
    assert_eq!(none.pools, []);
    let problems = read(Path::new("x.yaml"), "kind: Pod\n").unwrap_err();
    assert!(problems[0].reason.contains("no DaemonSet"), "{problems:?}");
}
