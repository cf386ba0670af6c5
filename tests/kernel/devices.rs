//! Devices, settings, the machine.

use std::fs::{self, File};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use underpass::kernel::capabilities::{self, Need};
use underpass::kernel::{Ethtool, Netlink, driver, is_tx_offload, sysctl, veth};

use crate::lab::{FarNamespace, add_device, available, in_fresh_namespace, ip};
use crate::truth::shown_features;

#[test]
fn offloads_are_read_and_switched() {
    in_fresh_namespace(|| {
        if !available("ethtool") {
            return;
        }
        ip("link add near type veth peer name far");
        let link = Netlink::open().unwrap().link("near").unwrap();
        assert_eq!(driver(&link).as_deref(), Some("veth"));
        let mut ethtool = Ethtool::open().unwrap();
        let same = |ethtool: &mut Ethtool| {
            let features = ethtool.features(link.index).unwrap();
            for (name, (active, fixed)) in shown_features("near") {
                if let Some(feature) = features.get(&name) {
                    assert_eq!(feature.active, active, "{name}");
                    assert_eq!(!feature.changeable, fixed, "{name}");
                } // else one of ethtool's own groups
            }
            assert!(features.len() > 40);
        };
        same(&mut ethtool);
        let off = ethtool.disable_tx_offloads(&link).unwrap();
        assert!(off.contains(&"tx-checksum-ip-generic".to_owned()));
        assert!(off.contains(&"tx-tcp-segmentation".to_owned()));
        same(&mut ethtool);
        let shown = shown_features("near");
        assert_eq!(shown["tx-checksum-ip-generic"], (false, false));
        assert!(
            shown
                .iter()
                .all(|(name, (active, _))| !is_tx_offload(name) || !active)
        );
        assert_eq!(ethtool.disable_tx_offloads(&link).unwrap(), [""; 0]);

        ethtool.set_gro(&link, true).unwrap();
        assert!(shown_features("near")["generic-receive-offload"].0);
        ethtool.set_gro(&link, false).unwrap();
        assert!(!shown_features("near")["generic-receive-offload"].0);

        // What a device fixes is said, by name.
        let loopback = Netlink::open().unwrap().link("lo").unwrap();
        let error = ethtool.set_features(&loopback, &["tx-checksum-ip-generic"], false);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("lo") && error.contains("tx-checksum-ip-generic"),
            "{error}"
        );
    });
}

#[test]
fn channels_are_read() {
    in_fresh_namespace(|| {
        ip(
            "link add near numrxqueues 3 numtxqueues 2 type veth peer name far numrxqueues 2 numtxqueues 3",
        );
        ip("link add d0 type bridge");
        let mut netlink = Netlink::open().unwrap();
        let mut ethtool = Ethtool::open().unwrap();
        let near = netlink.link("near").unwrap();
        assert_eq!((near.rx_queues, near.tx_queues), (3, 2));
        let channels = ethtool.channels(near.index).unwrap().unwrap();
        assert_eq!(
            (channels.rx_max, channels.tx_max, channels.combined_max),
            (3, 2, 0)
        );
        assert_eq!(channels.receive_queues(), 3);
        let bridge = netlink.link("d0").unwrap();
        assert_eq!(ethtool.channels(bridge.index).unwrap(), None);
    });
}

#[test]
fn a_veths_far_end_is_found_here_and_elsewhere() {
    in_fresh_namespace(|| {
        if !available("ethtool") {
            return;
        }
        let mut netlink = Netlink::open().unwrap();
        ip("link add left type veth peer name right");
        let off = veth::disable_peer_tx_offloads(&netlink.link("left").unwrap()).unwrap();
        assert!(off.is_some_and(|names| names.contains(&"tx-checksum-ip-generic".to_owned())));
        assert!(!shown_features("right")["tx-checksum-ip-generic"].0);
        assert!(shown_features("left")["tx-checksum-ip-generic"].0);

        let far = FarNamespace::with_pair();
        let near = netlink.link("near").unwrap();
        assert!(near.parent.is_some_and(|parent| parent.netns_id.is_some()));
        let name = veth::on_peer(&near, |peer| Ok(peer.name.clone())).unwrap();
        assert_eq!(name.as_deref(), Some("far"));
        let off = veth::disable_peer_tx_offloads(&near).unwrap();
        assert!(off.is_some_and(|names| names.contains(&"tx-checksum-ip-generic".to_owned())));
        let shown = far.run("ethtool", &["-k", "far"]);
        assert!(shown.contains("tx-checksum-ip-generic: off"), "{shown}");
        veth::set_peer_gro(&near, true).unwrap().unwrap();
        let shown = far.run("ethtool", &["-k", "far"]);
        assert!(shown.contains("generic-receive-offload: on"), "{shown}");
        // The calling thread has stayed where it was.
        assert!(ip("-o link show near").contains("near"));

        ip("link add d0 type bridge");
        let bridge = netlink.link("d0").unwrap();
        assert_eq!(veth::disable_peer_tx_offloads(&bridge).unwrap(), None);
    });
}

#[test]
fn a_veths_far_end_is_found_with_a_process_in_a_nameless_namespace() {
    in_fresh_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        add_device("near");
        let peer = netlink.link("near-peer").unwrap().index;
        let mut process = Command::new("unshare")
            .args(["-n", "sleep", "60"])
            .spawn()
            .unwrap();
        let path = format!("/proc/{}/ns/net", process.id());
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        while fs::read_link(&path).is_ok_and(|theirs| theirs == ours) {
            thread::sleep(Duration::from_millis(5));
        }
        let moved = netlink.move_link_to_netns(peer, File::open(&path).unwrap());
        let near = netlink.link("near").unwrap();
        let found = veth::on_peer(&near, |peer| Ok(peer.name.clone()));
        process.kill().unwrap();
        process.wait().unwrap();
        moved.unwrap();
        assert_eq!(found.unwrap().as_deref(), Some("near-peer"));
    });
}

#[test]
fn sysctls_are_set_and_put_back() {
    in_fresh_namespace(|| {
        add_device("d0");
        add_device("dotted.100");
        let forwarding = sysctl::read("ipv4/ip_forward").unwrap();
        let other = if forwarding == "0" { "1" } else { "0" };
        let mut sysctls = sysctl::Sysctls::new();
        assert_eq!(
            sysctls.set_ipv4_forwarding(other == "1").unwrap(),
            forwarding
        );
        assert_eq!(sysctls.set("ipv4/ip_forward", other).unwrap(), other);
        sysctls.set_rp_filter("d0", 2).unwrap();
        sysctls.set_rp_filter("d0", 1).unwrap();
        sysctls.set_proxy_arp("dotted.100", true).unwrap();
        sysctls.set_ipv6_disabled("d0", true).unwrap();
        let key = |interface, name| sysctl::interface_key("ipv4", interface, name).unwrap();
        assert_eq!(sysctl::read("ipv4/ip_forward").unwrap(), other);
        assert_eq!(sysctl::read(&key("d0", "rp_filter")).unwrap(), "1");
        assert_eq!(sysctl::read(&key("dotted.100", "proxy_arp")).unwrap(), "1");
        assert_eq!(sysctl::read("ipv6/conf/d0/disable_ipv6").unwrap(), "1");

        // Put back in this namespace, though dropped in another.
        thread::scope(|scope| {
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                drop(sysctls);
            });
        });
        assert_eq!(sysctl::read("ipv4/ip_forward").unwrap(), forwarding);
        assert_eq!(sysctl::read(&key("dotted.100", "proxy_arp")).unwrap(), "0");
        assert_eq!(sysctl::read("ipv6/conf/d0/disable_ipv6").unwrap(), "0");
        assert_ne!(sysctl::read(&key("d0", "rp_filter")).unwrap(), "1");

        let mut kept = sysctl::Sysctls::new();
        kept.set_proxy_arp("d0", true).unwrap();
        kept.keep();
        assert_eq!(sysctl::read(&key("d0", "proxy_arp")).unwrap(), "1");

        let error = sysctl::Sysctls::new()
            .set_rp_filter("../all", 0)
            .unwrap_err();
        assert!(error.to_string().contains("'../all'"));
        let error = sysctl::Sysctls::new().set_rp_filter("none", 0).unwrap_err();
        assert!(error.to_string().contains("ipv4/conf/none/rp_filter"));
    });
}

#[test]
fn missing_capabilities_are_told() {
    in_fresh_namespace(|| {
        let tun = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .is_ok();
        let missing = capabilities::missing();
        assert!(
            missing
                .iter()
                .all(|m| ![Need::NetAdmin, Need::NetRaw, Need::Bpf].contains(&m.need))
        );
        assert_eq!(missing.iter().any(|m| m.need == Need::Tun), !tun);
        // The kernel lists the protocol where it has it.
        let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap();
        let af_xdp = protocols.lines().any(|line| line.starts_with("XDP"));
        assert_eq!(missing.iter().any(|m| m.need == Need::AfXdp), !af_xdp);
    });
}
