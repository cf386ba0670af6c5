//! One node's machine, before the node runs: nothing listens, nothing is steered.

use std::fs;

use super::netns::{isolated, sh, try_sh};
use super::support::{Diagnosis, doctor};

const CONFIG: &str = "--config /run/n1/node.yaml";

#[test]
fn each_broken_machine_has_its_cause_named() {
    isolated(|| {
        machine();
        healthy();
        foreign_program();
        narrow_uplink();
        node_address_without_a_subnet();
        strict_reverse_path();
        no_forwarding();
        forward_chain_that_drops();
        guest_that_leaves_segmentation_to_the_tap();
        taken_name();
        wrong_address();
        no_uplink();
    });
}

fn healthy() {
    let all = Diagnosis::of("n1", CONFIG);
    assert_eq!(all.with("fault"), [""; 0]);
    assert_eq!(all.with("warning"), [""; 0]);
    assert_eq!(all.status, Some(0));
    let fine = all.with("ok");
    for check in [
        "xdp eth0",
        "driver eth0",
        "mtu eth0",
        "rp_filter eth0",
        "capabilities machine",
    ] {
        assert!(fine.iter().any(|ok| ok == check), "{check}: {fine:?}");
    }
    // What was tried did not stay.
    assert!(!sh("ip -n n1 link show eth0").contains("xdp"));
    let text = String::from_utf8(doctor("n1", &format!("--all {CONFIG}")).stdout).expect("UTF-8");
    assert!(
        text.contains("native XDP; AF_XDP by copying on 1 of 1 queue(s)"),
        "{text}"
    );
}

fn foreign_program() {
    // A program that lets everything pass, as tcpdump's or a load balancer's would be there already.
    if !try_sh("tc -V && command -v clang").status.success() {
        println!("no clang here: no foreign program is tried");
        return;
    }
    fs::write(
        "/run/pass.c",
        "__attribute__((section(\"xdp\"), used)) int pass_all(void *context) { return 2; }\n\
         char pass_license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n",
    )
    .expect("a file");
    sh("clang -O2 -target bpf -c /run/pass.c -o /run/pass.o");
    sh("ip -n n1 link set eth0 xdp obj /run/pass.o sec xdp");
    let (found, remedy) = Diagnosis::of("n1", CONFIG).trouble("foreign_xdp", "eth0");
    assert!(found.contains("pass_all"), "{found}");
    assert!(remedy.contains("ip link set eth0 xdp off"), "{remedy}");
    sh("ip -n n1 link set eth0 xdp off");
}

fn narrow_uplink() {
    sh("ip -n n1 link set eth0 mtu 1400");
    let all = Diagnosis::of("n1", CONFIG);
    let (found, remedy) = all.trouble("mtu", "cali1");
    assert!(
        found.contains("MTU of 1450") && found.contains("room for 1350"),
        "{found}"
    );
    assert!(
        remedy.contains("at most 1350") && remedy.contains("mtu 1500"),
        "{remedy}"
    );
    assert_eq!(all.with("fault"), ["mtu cali1"]);
    assert_eq!(all.status, Some(1));
    sh("ip -n n1 link set eth0 mtu 1500");
}

fn node_address_without_a_subnet() {
    write_nodes("10.30.0.11/32");
    write_pool("Never", "CrossSubnet");
    let (found, _) = Diagnosis::of("n1", CONFIG).trouble("cross_subnet", "nodes");
    assert!(
        found.contains("Node(n1)") && found.contains("10.30.0.11/32"),
        "{found}"
    );
    assert!(found.contains("tunnels every packet"), "{found}");
    write_nodes("10.30.0.11/24");
    write_pool("Never", "Always");
}

fn strict_reverse_path() {
    sh("ip netns exec n1 sysctl -qw net.ipv4.conf.eth0.rp_filter=1");
    let all = Diagnosis::of("n1", CONFIG);
    let (found, remedy) = all.trouble("rp_filter", "eth0");
    assert!(found.contains("strict"), "{found}");
    assert!(
        remedy.contains("net.ipv4.conf.eth0.rp_filter=2"),
        "{remedy}"
    );
    assert_eq!(all.with("warning"), ["rp_filter eth0"]);
    // What it says to do mends it.
    let command = remedy.split(':').next().expect("a command").to_owned();
    sh(&format!(
        "ip netns exec n1 {}",
        command.replace("sysctl -w", "sysctl -qw")
    ));
    assert_eq!(Diagnosis::of("n1", CONFIG).with("warning"), [""; 0]);
}

fn no_forwarding() {
    sh("ip netns exec n1 sysctl -qw net.ipv4.ip_forward=0");
    let (found, remedy) = Diagnosis::of("n1", CONFIG).trouble("forwarding", "machine");
    assert!(found.contains("net.ipv4.ip_forward is 0"), "{found}");
    assert!(remedy.contains("net.ipv4.ip_forward=1"), "{remedy}");
    sh("ip netns exec n1 sysctl -qw net.ipv4.ip_forward=1");
}

/// As Docker leaves it.
fn forward_chain_that_drops() {
    sh("ip netns exec n1 nft 'add table ip filter; \
        add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
        add rule ip filter FORWARD iifname docker0 accept'");
    let all = Diagnosis::of("n1", CONFIG);
    let (found, remedy) = all.trouble("forward_chain", "machine");
    assert!(
        found.contains("chain FORWARD of table ip filter"),
        "{found}"
    );
    assert_eq!(all.with("warning"), ["forward_chain machine"]);
    // What it says to do mends it.
    let commands: Vec<&str> = remedy.split("; ").take(2).collect();
    assert!(commands[0].ends_with("iifname tunl0 accept"), "{remedy}");
    assert!(commands[1].ends_with("oifname tunl0 accept"), "{remedy}");
    sh(&format!("ip netns exec n1 {}", commands[0]));
    let (_, half) = Diagnosis::of("n1", CONFIG).trouble("forward_chain", "machine");
    assert!(half.starts_with(commands[1]), "{half}");
    sh(&format!("ip netns exec n1 {}", commands[1]));
    assert_eq!(Diagnosis::of("n1", CONFIG).with("warning"), [""; 0]);
    sh("ip netns exec n1 nft delete table ip filter");
    // Of a family without pools nothing is forwarded.
    sh("ip netns exec n1 nft 'add table ip6 filter; \
        add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    assert_eq!(Diagnosis::of("n1", CONFIG).with("warning"), [""; 0]);
    sh("ip netns exec n1 nft delete table ip6 filter");
}

fn guest_that_leaves_segmentation_to_the_tap() {
    sh(
        "ip -n n1 link del cali1; ip -n n1 tuntap add dev cali1 mode tap vnet_hdr; ip -n n1 link set cali1 up",
    );
    let all = Diagnosis::of("n1", CONFIG);
    let (found, remedy) = all.trouble("offloads", "cali1");
    assert!(found.contains("vnet_hdr"), "{found}");
    assert!(remedy.contains("vnet_hdr=off"), "{remedy}");
    sh("ip -n n1 link del cali1");
    workload();
}

/// As on a machine where the kernel's ipip module made its own.
fn taken_name() {
    sh("ip -n n1 link add tunl0 type veth peer name other");
    let all = Diagnosis::of("n1", CONFIG);
    let (found, remedy) = all.trouble("host_device", "tunl0");
    assert!(found.contains("has the name"), "{found}");
    assert!(remedy.contains("host.tun"), "{remedy}");
    sh("ip -n n1 link del tunl0");
}

fn wrong_address() {
    sh("ip -n n1 addr del 10.30.0.11/24 dev eth0; ip -n n1 addr add 10.30.0.99/24 dev eth0");
    let all = Diagnosis::of("n1", CONFIG);
    let (found, _) = all.trouble("node_address", "eth0");
    assert!(
        found.contains("10.30.0.11, which this machine has not"),
        "{found}"
    );
    assert_eq!(all.status, Some(1));
    sh("ip -n n1 addr del 10.30.0.99/24 dev eth0; ip -n n1 addr add 10.30.0.11/24 dev eth0");
}

fn no_uplink() {
    sh("ip -n n1 link set eth0 down");
    let (found, remedy) = Diagnosis::of("n1", CONFIG).trouble("link", "eth0");
    assert!(
        found.contains("down") && remedy.contains("ip link set eth0 up"),
        "{found}: {remedy}"
    );
    sh("ip -n n1 link del eth0");
    let (found, _) = Diagnosis::of("n1", CONFIG).trouble("interface", "eth0");
    assert!(found.contains("no such interface"), "{found}");
}

/// A node with an uplink, a workload and its configuration; nothing is wrong with it.
fn machine() {
    sh("ip netns add n1; ip netns add n2; ip netns add pod1; ip -n n1 link set lo up");
    sh("ip -n n1 link add eth0 mtu 1500 type veth peer name eth0 mtu 1500 netns n2");
    sh(
        "ip -n n1 addr add 10.30.0.11/24 dev eth0; ip -n n1 link set eth0 up; ip -n n2 link set eth0 up",
    );
    sh(
        "ip netns exec n1 sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
        net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0",
    );
    workload();
    fs::create_dir_all("/run/n1/datastore").expect("a directory");
    write_nodes("10.30.0.11/24");
    write_pool("Never", "Always");
    let node = "node: n1\nuplink: {interface: eth0}\nworkloads: [{interface: cali1}]\nhost: {tun: tunl0}\n\
                datastore: {directory: /run/n1/datastore}\n";
    fs::write("/run/n1/node.yaml", node).expect("a file");
}

fn workload() {
    sh("ip -n n1 link add cali1 mtu 1500 type veth peer name eth0 mtu 1450 netns pod1");
    sh("ip -n n1 link set cali1 up; ip -n pod1 link set eth0 up");
}

fn write_nodes(address: &str) {
    let node = |name: &str, address: &str, tunnel: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\n\
             spec: {{bgp: {{ipv4Address: {address}}}, ipv4VXLANTunnelAddr: {tunnel}}}\n---\n"
        )
    };
    let text = node("n1", address, "192.168.1.2") + &node("n2", "10.30.0.12/24", "192.168.2.2");
    let block = "apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {name: b2}\n\
                 spec: {node: n2, cidr: 192.168.2.0/26, state: confirmed}\n---\n";
    let endpoint = "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
                    metadata: {name: n1-lab-pod1-eth0, namespace: default}\n\
                    spec: {node: n1, orchestrator: lab, workload: pod1, endpoint: eth0, \
                    interfaceName: cali1, ipNetworks: [192.168.1.10/32]}\n";
    fs::write("/run/n1/datastore/cluster.yaml", text + block + endpoint).expect("a file");
}

fn write_pool(ipip: &str, vxlan: &str) {
    let pool = format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool}}\n\
         spec: {{cidr: 192.168.0.0/16, ipipMode: {ipip}, vxlanMode: {vxlan}}}\n"
    );
    fs::write("/run/n1/datastore/pool.yaml", pool).expect("a file");
}
