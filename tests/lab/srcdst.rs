//! The fabric's source/destination check, as clouds have it: only packets between nodes pass.

use super::netns::isolated;
use super::support::*;

#[test]
fn only_tunnels_pass_the_source_destination_check() {
    isolated(|| {
        let lab = Lab::up("ipip");
        for (mode, pod2, pod3) in [
            ("ipip", true, true),
            ("vxlan", true, true),
            ("direct", false, false),
            ("ipip-cross", false, true),
            ("vxlan-cross", false, true),
        ] {
            lab.script(&format!("mode {mode}"));
            lab.script("srcdst on");
            let before = dropped();
            assert_eq!(pings("pod1", POD2), pod2, "{mode}, check on, pod2");
            assert_eq!(pings("pod1", POD3), pod3, "{mode}, check on, pod3");
            assert_eq!(dropped() > before, !pod2, "{mode}: {before} before");
            lab.script("srcdst off");
            assert!(pings("pod1", POD2), "{mode}, check off, pod2");
            assert!(pings("pod1", POD3), "{mode}, check off, pod3");
        }

        fn dropped() -> u64 {
            let rules = "ip netns exec up-fabric nft -j list counter netdev srcdst dropped";
            let text = super::netns::sh(rules);
            let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let objects = shown["nftables"].as_array().expect("objects");
            let counter = objects.iter().find_map(|object| object.get("counter"));
            counter.expect("the counter")["packets"]
                .as_u64()
                .expect("a number")
        }
    });
}
