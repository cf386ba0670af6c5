//! Nodes on one Ethernet, each with workloads, made for one test.
//!
//! ```text
//!   one0 ─┐                                       ┌─ two0
//!         one ── eth0 10.30.0.1/24 ── bridge ── 10.30.0.2/24 eth0 ── two
//!   one1 ─┘                  (namespace "net")                ... two1
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::fast_path;
use super::netns::{PATIENCE, Router, pings, sh};

/// Where configurations and the datastore are.
pub const DIRECTORY: &str = "/run/test";

/// A node: its name, number and workloads.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub name: &'static str,
    /// From 1; in its addresses.
    pub number: u8,
    /// How many workloads it has, each behind a port `cali0`, `cali1`, …
    pub workloads: u8,
    /// Receive and transmit queues of both ends of its uplink.
    pub queues: u32,
}

/// A node with one workload and one queue.
pub const ONE: Node = Node {
    name: "one",
    number: 1,
    workloads: 1,
    queues: 1,
};

/// Another one.
pub const TWO: Node = Node {
    name: "two",
    number: 2,
    ..ONE
};

impl Node {
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 30, 0, self.number)
    }

    pub fn workload(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.number, 10 + index)
    }

    /// The namespace of a workload.
    pub fn pod(&self, index: u8) -> String {
        format!("{}{index}", self.name)
    }

    pub fn socket(&self) -> String {
        format!("/run/underpass/{}.sock", self.name)
    }

    /// The configuration's file, written with what `more` adds or, by a field that `base` has,
    /// replaces.
    pub fn config(&self, more: &str) -> PathBuf {
        let workloads: Vec<_> = (0..self.workloads)
            .map(|index| format!("{{ interface: cali{index} }}"))
            .collect();
        let base = [
            ("node", self.name.to_owned()),
            ("uplink", "{ interface: eth0 }".to_owned()),
            ("workloads", format!("[{}]", workloads.join(", "))),
            ("host", "{ tun: tunl0 }".to_owned()),
            (
                "datastore",
                format!("{{ directory: {DIRECTORY}/datastore }}"),
            ),
        ];
        let given = |field: &str| {
            more.lines()
                .any(|line| line.starts_with(&format!("{field}:")))
        };
        let kept = base.iter().filter(|(field, _)| !given(field));
        let kept: String = kept
            .map(|(field, value)| format!("{field}: {value}\n"))
            .collect();
        let file = Path::new(DIRECTORY).join(format!("{}.yaml", self.name));
        let more = match more {
            "" => fast_path::configuration(),
            more => format!("{}\n{}", more.trim_end(), fast_path::configuration()),
        };
        fs::write(&file, kept + &more).expect("configuration");
        file
    }

    fn build(&self) {
        sh(&format!("ip netns add {}", self.name));
        sh(&format!("ip -n {} link set lo up", self.name));
        self.build_uplink();
        for index in 0..self.workloads {
            sh(&format!("ip netns add {}", self.pod(index)));
            self.build_workload(index);
        }
    }

    /// Its link to the bridge.
    pub fn build_uplink(&self) {
        let Self { name, queues, .. } = self;
        sh(&format!(
            "ip -n net link add {name} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name eth0 numrxqueues {queues} numtxqueues {queues} netns {name}"
        ));
        sh(&format!("ip -n net link set {name} master bridge up"));
        sh(&format!(
            "ip -n {name} addr add {}/24 dev eth0",
            self.address()
        ));
        sh(&format!("ip -n {name} link set eth0 addrgenmode none up"));
        finished_packets("net", name);
        finished_packets(name, "eth0");
    }

    /// A workload's link, in the namespace that is there for it.
    pub fn build_workload(&self, index: u8) {
        let (node, pod, port) = (self.name, self.pod(index), format!("cali{index}"));
        sh(&format!("ip -n {pod} link set lo up"));
        sh(&format!(
            "ip -n {node} link add {port} type veth peer name eth0 mtu 1450 netns {pod}"
        ));
        sh(&format!("ip -n {node} link set {port} addrgenmode none up"));
        sh(&format!(
            "ip -n {pod} addr add {}/32 dev eth0",
            self.workload(index)
        ));
        sh(&format!("ip -n {pod} link set eth0 addrgenmode none up"));
        sh(&format!(
            "ip -n {pod} route add default via 169.254.1.1 dev eth0 onlink"
        ));
        finished_packets(&pod, "eth0");
    }

    /// Its resources, as the datastore has them.
    fn resources(&self) -> String {
        let Self { name, number, .. } = self;
        let mut text = format!(
            "---
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: {name}
spec:
  bgp:
    ipv4Address: {}/24
    ipv4IPIPTunnelAddr: 192.168.{number}.1
  ipv4VXLANTunnelAddr: 192.168.{number}.2
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata:
  name: {name}-192-168-{number}-0-26
spec:
  node: {name}
  cidr: 192.168.{number}.0/26
  state: confirmed
",
            self.address()
        );
        for index in 0..self.workloads {
            let address = self.workload(index);
            text += &endpoint(
                name,
                &format!("pod{index}"),
                &format!("cali{index}"),
                address,
            );
        }
        text
    }
}

/// A workload of a node, as a document of its own.
pub fn endpoint(node: &str, name: &str, interface: &str, address: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: {node}-test-{name}-eth0
  namespace: default
spec:
  node: {node}
  orchestrator: test
  workload: {name}
  endpoint: eth0
  interfaceName: {interface}
  ipNetworks: [{address}/32]
"
    )
}

/// Builds the nodes and the datastore that has them, in IPIP mode.
pub fn build(nodes: &[Node]) {
    fs::create_dir_all(format!("{DIRECTORY}/datastore")).expect("directory");
    sh("ip netns add net");
    sh("ip -n net link add bridge type bridge mcast_snooping 0");
    sh("ip -n net link set bridge addrgenmode none up");
    for node in nodes {
        node.build();
        write_resources(node.name, &node.resources());
    }
    write_pool("ipipMode: Always");
}

/// Writes the pool, in the mode that a line of its spec says.
pub fn write_pool(mode: &str) {
    write_resources(
        "pool",
        &format!(
            "apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: pool
spec:
  cidr: 192.168.0.0/16
  {mode}
"
        ),
    );
}

/// Puts a file into the datastore, at once.
pub fn write_resources(name: &str, text: &str) {
    let fresh = format!("{DIRECTORY}/{name}.new");
    fs::write(&fresh, text).expect("resources");
    fs::rename(fresh, format!("{DIRECTORY}/datastore/{name}.yaml")).expect("rename");
}

/// What underpass made or attached in a namespace, sorted.
pub fn ours_in(namespace: &str) -> Vec<String> {
    let links = sh(&format!("ip -n {namespace} -d -j link show"));
    let links: serde_json::Value = serde_json::from_str(&links).expect("JSON");
    let mut found = Vec::new();
    for link in links.as_array().expect("links") {
        let name = link["ifname"].as_str().expect("a name");
        if link.get("xdp").is_some() {
            found.push(format!("xdp {name}"));
        }
        if link["linkinfo"]["info_kind"] == "tun" {
            found.push(name.to_owned());
        }
    }
    found.sort();
    found
}

/// AF_XDP hands on what a veth peer leaves undone.
fn finished_packets(namespace: &str, device: &str) {
    sh(&format!(
        "ip netns exec {namespace} ethtool -K {device} tx off tso off gso off gro off >/dev/null"
    ));
}

/// Two nodes that run and reach each other's workloads.
pub fn running(one: Node, two: Node) -> [Router; 2] {
    build(&[one, two]);
    let nodes = [
        Router::start("one", &one.config("")),
        Router::start("two", &two.config("")),
    ];
    assert!(pings("one0", two.workload(0), 2), "within {PATIENCE:?}");
    nodes
}
