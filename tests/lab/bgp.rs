//! Blocks that are learned by BGP alone: no static route anywhere, neither on a node nor in the fabric.

use std::path::Path;

use super::modes::between_pods;
use super::netns::{isolated, sh};
use super::support::*;

const BYTES: usize = 5_000_000;

#[test]
fn blocks_are_learned_from_the_mesh() {
    isolated(|| carries("mesh", &["ipip", "direct", "vxlan", "ipip-cross"]));
}

#[test]
fn blocks_are_learned_from_a_route_reflector() {
    isolated(|| carries("rr", &["ipip", "direct"]));
}

#[test]
fn blocks_are_learned_from_the_fabrics_router() {
    isolated(|| carries("fabric", &["ipip", "direct"]));
}

fn carries(bgp: &str, modes: &[&str]) {
    if !Path::new("/usr/lib/frr/bgpd").exists() {
        println!("skipped: frr is not installed");
        return;
    }
    let lab = Lab::up(&format!("{} --bgp {bgp}", modes[0]));
    for (index, mode) in modes.iter().enumerate() {
        if index > 0 {
            lab.script(&format!("mode {mode}"));
        }
        between_pods(BYTES);
    }
    // What the fabric knows of the blocks, it has from BGP.
    let routes = sh("ip -n up-fabric route show");
    let blocks = routes.lines().filter(|line| line.starts_with("192.168."));
    let blocks: Vec<_> = blocks.collect();
    assert!(!blocks.is_empty(), "{routes}");
    for block in blocks {
        assert!(block.contains("proto bgp"), "{block}");
    }
}
