//! The resources of the two nodes that are measured, as YAML documents.

use std::fmt::{Display, Write as _};

use crate::bench::topology::{POOL, Site};

/// The pool, in a mode: its ipipMode and vxlanMode.
pub fn pool((ipip, vxlan): (&str, &str), block_size: u8) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\n\
         kind: IPPool\n\
         metadata: {{ name: bench }}\n\
         spec: {{ cidr: {POOL}, blockSize: {block_size}, ipipMode: {ipip}, vxlanMode: {vxlan} }}\n"
    )
}

/// A node; `length` is its address's prefix length.
pub fn node(site: &Site, length: u8) -> String {
    format!(
        "---\n\
         apiVersion: projectcalico.org/v3\n\
         kind: Node\n\
         metadata: {{ name: {name} }}\n\
         spec:\n\
         \x20 bgp: {{ ipv4Address: {address}/{length}, ipv4IPIPTunnelAddr: {tunnel} }}\n\
         \x20 ipv4VXLANTunnelAddr: {tunnel}\n\
         \x20 vxlanTunnelMACAddr: \"{mac}\"\n",
        name = site.name,
        address = site.address,
        tunnel = site.tunnel_address,
        mac = site.vtep_mac(),
    )
}

/// A node's blocks.
pub fn blocks(site: &Site, blocks: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::new();
    for (number, block) in blocks.into_iter().enumerate() {
        let _ = write!(
            text,
            "---\n\
             apiVersion: projectcalico.org/v3\n\
             kind: BlockAffinity\n\
             metadata: {{ name: {name}-{number} }}\n\
             spec: {{ node: {name}, cidr: {block}, state: confirmed }}\n",
            name = site.name,
        );
    }
    text
}

/// A node's workload, with its addresses.
pub fn workload(site: &Site, addresses: impl IntoIterator<Item = impl Display>) -> String {
    let addresses = addresses.into_iter();
    let addresses: Vec<_> = addresses.map(|address| format!("{address}/32")).collect();
    format!(
        "---\n\
         apiVersion: projectcalico.org/v3\n\
         kind: WorkloadEndpoint\n\
         metadata: {{ name: {name}-bench-load-eth0, namespace: default }}\n\
         spec:\n\
         \x20 node: {name}\n\
         \x20 orchestrator: bench\n\
         \x20 workload: load\n\
         \x20 endpoint: eth0\n\
         \x20 interfaceName: {port}\n\
         \x20 mac: \"{mac}\"\n\
         \x20 ipNetworks: [{addresses}]\n",
        name = site.name,
        port = site.port,
        mac = site.eth_mac(),
        addresses = addresses.join(", "),
    )
}
