//! The devices: driver, queues, XDP, offloads that break it.

use std::fs;

use super::{Report, Scene, Severity, xdp};
use crate::control::ports::LARGEST_MTU;
use crate::kernel::{Ethtool, Link, Netlink, driver};
use crate::port::{receive_queues, xdp_programs};
use crate::resources::config::PortKind;

pub(super) fn examine(report: &mut Report, scene: &Scene<'_>) {
    let mut ethtool = Ethtool::open().ok();
    for wanted in wanted(scene) {
        let Some(link) = scene.mirror.link_named(&wanted.name) else {
            absent(report, &wanted);
            continue;
        };
        driver_and_queues(report, link, ethtool.as_mut());
        if wanted.uplink {
            state(report, link);
            default_route(report, scene, link);
        }
        size(report, link);
        if !wanted.by_xdp {
            continue;
        }
        offloads(report, link, &wanted, ethtool.as_mut());
        xdp_of(report, scene, link);
    }
    host_device(report, scene);
}

/// The host's device is a TUN device of the node's; Calico's, or the ipip module's own, has the same name.
fn host_device(report: &mut Report, scene: &Scene<'_>) {
    let host = scene.options.config.and_then(|config| config.host.as_ref());
    let name = host.map(|host| host.tun.to_string()).unwrap_or_default();
    let other = scene.mirror.link_named(&name);
    let other = other.filter(|link| link.kind.as_deref() != Some("tun"));
    if let Some(link) = other {
        let (kind, remedy) = match link.kind.as_deref() {
            Some("ipip") => (
                "the kernel's own IP-in-IP device",
                "once nothing else uses it: rmmod ipip; or name another device in host.tun",
            ),
            _ => ("another device", "name one in host.tun that is not there"),
        };
        let found = format!("{kind} has the name, and the node makes a TUN device of it");
        report.add(Severity::Fault, "host_device", name, found, remedy);
    }
}

/// A device to look at.
struct Wanted {
    name: String,
    uplink: bool,
    /// Whether packets come and go by AF_XDP.
    by_xdp: bool,
    /// Whether it may come later.
    optional: bool,
}

/// The configuration's devices that others make; without one, all hardware.
fn wanted(scene: &Scene<'_>) -> Vec<Wanted> {
    let Some(config) = scene.options.config else {
        let hardware = scene.mirror.links().filter(|link| link.hardware.is_some());
        return hardware
            .map(|link| Wanted {
                name: link.name.clone(),
                uplink: false,
                by_xdp: true,
                optional: false,
            })
            .collect();
    };
    let uplink = Wanted {
        name: config.uplink.interface.to_string(),
        uplink: true,
        by_xdp: true,
        optional: false,
    };
    let ports = config.workloads.iter();
    let ports = ports.filter(|port| matches!(port.kind, PortKind::Xdp | PortKind::Packet));
    let ports = ports.map(|port| Wanted {
        name: port.interface.to_string(),
        uplink: false,
        by_xdp: port.kind == PortKind::Xdp,
        optional: true,
    });
    std::iter::once(uplink).chain(ports).collect()
}

fn absent(report: &mut Report, wanted: &Wanted) {
    let (severity, remedy) = match wanted.optional {
        true => (
            Severity::Warning,
            "make it, or remove the port; the node opens it when it is there",
        ),
        false => (
            Severity::Fault,
            "name one that `ip link` lists in uplink.interface",
        ),
    };
    let found = "there is no such interface in this network namespace";
    report.add(severity, "interface", &wanted.name, found, remedy);
}

fn driver_and_queues(report: &mut Report, link: &Link, ethtool: Option<&mut Ethtool>) {
    let driver = driver(link).unwrap_or_else(|| "unknown".to_owned());
    let channels = ethtool.and_then(|ethtool| ethtool.channels(link.index).ok().flatten());
    let most = channels.map(|channels| channels.combined_max + channels.rx_max);
    let found = match (receive_queues(&link.name), most) {
        (Ok(count), Some(most)) if most > count => {
            format!("driver {driver}, {count} receive queue(s) of {most}")
        }
        (Ok(count), _) => format!("driver {driver}, {count} receive queue(s)"),
        (Err(error), _) => {
            let remedy = "mount sysfs in this network namespace (ip netns exec does)";
            report.add(
                Severity::Fault,
                "driver",
                &link.name,
                error.to_string(),
                remedy,
            );
            return;
        }
    };
    report.ok("driver", &link.name, found);
}

fn state(report: &mut Report, link: &Link) {
    if !link.up || !link.running {
        let (found, remedy) = match link.up {
            false => ("it is down", format!("ip link set {} up", link.name)),
            true => (
                "it has no carrier",
                "mend the cable, or the far end".to_owned(),
            ),
        };
        report.add(Severity::Fault, "link", &link.name, found, remedy);
    }
}

fn default_route(report: &mut Report, scene: &Scene<'_>, link: &Link) {
    let allowed = scene
        .options
        .config
        .is_some_and(|config| config.uplink.allow_default_route);
    if carries_default_route(&link.name) && !allowed {
        report.add(
            Severity::Warning,
            "default_route",
            &link.name,
            "it carries this machine's default route, and the node refuses such an uplink by itself",
            "run with --allow-default-route, or set uplink.allowDefaultRoute: true",
        );
    }
}

pub(super) fn carries_default_route(interface: &str) -> bool {
    let interfaces = Netlink::open().and_then(|mut netlink| netlink.default_route_interfaces());
    interfaces.is_ok_and(|names| names.iter().any(|name| name == interface))
}

fn size(report: &mut Report, link: &Link) {
    if link.mtu > LARGEST_MTU {
        report.add(
            Severity::Fault,
            "mtu",
            &link.name,
            format!(
                "its MTU is {}, and AF_XDP's frames hold {} here",
                link.mtu.0, LARGEST_MTU.0
            ),
            format!("ip link set {} mtu {}", link.name, LARGEST_MTU.0),
        );
    }
}

/// What a device does that takes packets away from XDP, or hands it packets that it cannot judge.
fn offloads(report: &mut Report, link: &Link, wanted: &Wanted, ethtool: Option<&mut Ethtool>) {
    let features = ethtool.and_then(|ethtool| ethtool.features(link.index).ok());
    let on = |name: &str| {
        let feature = features.as_ref().and_then(|all| all.get(name));
        feature.is_some_and(|feature| feature.active)
    };
    let mut found = false;
    for (feature, option, why) in [
        (
            "rx-lro",
            "lro",
            "it puts TCP segments together before XDP sees them",
        ),
        (
            "rx-gro-hw",
            "rx-gro-hw",
            "it puts TCP segments together before XDP sees them, and some drivers refuse native XDP meanwhile",
        ),
    ] {
        if on(feature) {
            found = true;
            report.add(
                Severity::Warning,
                "offloads",
                &link.name,
                format!("{feature} is on: {why}"),
                format!("ethtool -K {} {option} off", link.name),
            );
        }
    }
    if wanted.uplink && on("rx-vlan-hw-parse") && link.hardware.is_some() {
        found = true;
        report.add(
            Severity::Note,
            "offloads",
            &link.name,
            "it takes 802.1Q tags off before XDP sees them: packets of a VLAN look like the uplink's own",
            format!("if VLANs come by it: ethtool -K {} rxvlan off", link.name),
        );
    }
    if !wanted.uplink && hands_over_super_packets(&link.name) {
        found = true;
        report.add(
            Severity::Warning,
            "offloads",
            &link.name,
            "QEMU leaves segmentation to this TAP (vnet_hdr): the guest's large TCP packets do not fit \
             AF_XDP's frames and are lost, and its transfers are slow",
            "give the TAP to the port as kind: packet; or start QEMU with -netdev tap,…,vnet_hdr=off",
        );
    }
    if !found {
        report.ok("offloads", &link.name, "none that breaks XDP is on");
    }
}

/// Whether who holds a TAP writes packets that are to be segmented and have no checksum yet
/// (IFF_VNET_HDR, linux/if_tun.h).
pub(super) fn hands_over_super_packets(interface: &str) -> bool {
    const VNET_HDR: u32 = 0x4000;
    let flags = fs::read_to_string(format!("/sys/class/net/{interface}/tun_flags"));
    let flags = flags.unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
    flags.is_ok_and(|flags| flags & VNET_HDR != 0)
}

fn xdp_of(report: &mut Report, scene: &Scene<'_>, link: &Link) {
    let programs = xdp_programs(&link.name).unwrap_or_default();
    if !programs.is_empty() {
        xdp::attached(report, scene, &link.name, &programs);
        return;
    }
    let allowed = scene
        .options
        .config
        .is_some_and(|config| config.uplink.allow_default_route);
    if !scene.options.try_xdp || (carries_default_route(&link.name) && !allowed) {
        report.add(
            Severity::Note,
            "xdp",
            &link.name,
            "XDP was not tried, which can interrupt the link",
            "",
        );
        return;
    }
    xdp::tried(report, link);
}
