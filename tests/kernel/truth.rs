//! The mirror and `ip` in the same words, and the waiting until they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use underpass::kernel::{Changes, Mirror, RouteKind};

use crate::lab::{ip, json, run};

/// Links, addresses, neighbours and routes of every kind.
pub fn build_everything() {
    for command in [
        "link set lo up",
        "link add v0 type veth peer name v1",
        "link add br0 type bridge",
        "link add ifb7 numtxqueues 3 type ifb",
        "tuntap add t0 mode tun",
        "addr add 10.0.0.1/24 dev v0",
        "addr add 10.0.0.2/24 dev v0",
        "addr add 10.9.0.1 peer 10.9.0.2/32 dev v0",
        "addr add fd00::1/64 dev v0 nodad",
        "link set v0 up",
        "link set v1 up",
        "link set t0 up",
        "route add default via 10.0.0.254",
        "route add 10.3.0.0/16 via 10.0.0.2 metric 5",
        "route add 10.3.0.0/16 via 10.0.0.3 metric 4",
        "route add 10.3.0.0/16 via 10.0.0.3 metric 4 tos 0x10",
        "route add 10.4.0.0/16 nexthop via 10.0.0.2 weight 3 nexthop via 10.0.0.3",
        "route add blackhole 10.5.0.0/16 proto bird",
        "route add unreachable 10.5.0.0/17",
        "route add prohibit 10.5.0.0/18",
        "route add throw 10.5.0.0/19",
        "route add 10.6.0.0/16 via inet6 fe80::1 dev v0",
        "route add 10.7.7.0/24 dev t0",
        "route add 10.8.0.0/16 via 192.0.2.1 dev v0 onlink src 10.9.0.1",
        "-6 route add default via fd00::254",
        "-6 route add unreachable 2001:db8::/32",
        "-6 route add 2001:db9::/32 nexthop via fd00::2 nexthop via fd00::3",
        "neigh add 10.0.0.9 dev v0 lladdr 02:00:00:00:00:01",
        "neigh add fd00::9 dev v0 lladdr 02:00:00:00:00:02",
        "neigh add proxy 10.0.0.10 dev v0",
    ] {
        ip(command);
    }
}

pub fn agree(mirror: &mut Mirror) {
    agree_after(mirror, "the start");
}

/// Waits until the mirror shows what `ip` shows. The kernel itself moves meanwhile (IPv6 detects
/// duplicates, queries multicast groups), so both are read until they agree.
pub fn agree_after(mirror: &mut Mirror, change: &str) {
    let start = Instant::now();
    loop {
        settle(mirror);
        let (ours, truth) = (shown_by_mirror(mirror), shown_by_ip());
        if ours == truth {
            return;
        }
        if start.elapsed() > Duration::from_secs(20) {
            let more: Vec<_> = ours.difference(&truth).collect();
            let less: Vec<_> = truth.difference(&ours).collect();
            panic!("after {change}: only in the mirror {more:#?}, only in ip {less:#?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn settle(mirror: &mut Mirror) -> Changes {
    loop {
        let changes = mirror.process().unwrap();
        if !changes.more {
            return changes;
        }
    }
}

/// Takes what the kernel says until it has said nothing for a while.
pub fn rest(mirror: &mut Mirror) {
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(200) {
        if settle(mirror).any() {
            last = Instant::now();
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn wait(mirror: &mut Mirror, until: impl Fn(&Mirror) -> bool) {
    let start = Instant::now();
    loop {
        settle(mirror);
        if until(mirror) {
            return;
        }
        let elapsed = start.elapsed();
        let known: Vec<_> = mirror.neighbours().collect();
        assert!(
            elapsed < Duration::from_secs(15),
            "still waiting: {known:#?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn shown_by_mirror(mirror: &Mirror) -> BTreeSet<String> {
    let name = |index: u32| mirror.link(index).map_or("?", |link| link.name.as_str());
    let mut shown = BTreeSet::new();
    for link in mirror.links() {
        let master = link.controller.map_or("", name);
        shown.insert(format!(
            "link {} {} mac {:?} mtu {} up {} running {} kind {:?} queues {}/{} parent {} master {master}",
            link.index,
            link.name,
            link.mac.map(|mac| mac.to_string()),
            link.mtu,
            link.up,
            link.up && link.running,
            link.kind,
            link.rx_queues,
            link.tx_queues,
            link.parent.map_or("", |parent| name(parent.index)),
        ));
        for address in mirror.addresses(link.index) {
            shown.insert(format!(
                "address {} {} peer {:?} secondary {} usable {}",
                link.name,
                address.address,
                address.peer.map(|peer| peer.to_string()),
                address.secondary,
                address.usable,
            ));
        }
    }
    for neighbour in mirror.neighbours() {
        shown.insert(format!(
            "neighbour {} {} {:?} {}",
            name(neighbour.interface),
            neighbour.address,
            neighbour.mac.map(|mac| mac.to_string()),
            format!("{:?}", neighbour.state).to_uppercase(),
        ));
    }
    for route in mirror.routes() {
        let next_hops: Vec<_> = route
            .next_hops
            .iter()
            .map(|n| {
                let gateway = n.gateway.map(|gateway| gateway.to_string());
                format!(
                    "{gateway:?} {} {} {}",
                    name(n.interface),
                    n.weight,
                    n.onlink
                )
            })
            .collect();
        let kind = match route.kind {
            RouteKind::Unicast => 1,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Prohibit => 8,
            RouteKind::Throw => 9,
            RouteKind::Other(number) => number,
        };
        shown.insert(format!(
            "route {} type {kind} metric {} tos {} proto {} src {:?} via {next_hops:?}",
            route.destination,
            route.metric,
            route.tos,
            route.protocol,
            route.source.map(|source| source.to_string()),
        ));
    }
    shown
}

pub fn shown_by_ip() -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    for link in array(&json("-j -d -N link show")) {
        let flags = flags(link);
        // A loopback's and a TUN's addresses are none.
        let mac = link["address"].as_str().filter(|mac| mac.len() == 17);
        shown.insert(format!(
            "link {} {} mac {mac:?} mtu {} up {} running {} kind {:?} queues {}/{} parent {} master {}",
            link["ifindex"],
            text(&link["ifname"]),
            link["mtu"].as_u64().unwrap().min(65535),
            flags.contains("UP"),
            flags.contains("UP") && !flags.contains("NO-CARRIER"),
            link["linkinfo"]["info_kind"].as_str(),
            link["num_rx_queues"],
            link["num_tx_queues"],
            text(&link["link"]),
            text(&link["master"]),
        ));
    }
    for link in array(&json("-j -N addr show")) {
        for address in array(&link["addr_info"]) {
            let set = |flag: &str| address[flag] == true;
            shown.insert(format!(
                "address {} {}/{} peer {:?} secondary {} usable {}",
                text(&link["ifname"]),
                text(&address["local"]),
                address["prefixlen"],
                address["address"].as_str(),
                set("secondary"),
                !set("tentative") && !set("dadfailed") && !set("deprecated"),
            ));
        }
    }
    for neighbour in array(&json("-j neigh show nud all")) {
        let address: IpAddr = text(&neighbour["dst"]).parse().unwrap();
        if address.is_multicast() {
            continue;
        }
        shown.insert(format!(
            "neighbour {} {} {:?} {}",
            text(&neighbour["dev"]),
            text(&neighbour["dst"]),
            neighbour["lladdr"].as_str(),
            text(&neighbour["state"][0]),
        ));
    }
    for family in ["-4", "-6"] {
        let any = if family == "-4" { "0.0.0.0/0" } else { "::/0" };
        let host = if family == "-4" { 32 } else { 128 };
        for route in array(&json(&format!("-j -N -d {family} route show table main"))) {
            let destination = match text(&route["dst"]) {
                "default" => any.to_owned(),
                net if net.contains('/') => net.to_owned(),
                address => format!("{address}/{host}"),
            };
            let single = [route.clone()];
            let next_hops = match route.get("nexthops") {
                Some(several) => array(several),
                None if route["type"] == "1" => &single,
                None => &[],
            };
            let next_hops: Vec<_> = next_hops
                .iter()
                .map(|n| {
                    let onlink = flags(n).contains("onlink");
                    let weight = n["weight"].as_u64().unwrap_or(1);
                    format!("{:?} {} {weight} {onlink}", gateway(n), text(&n["dev"]))
                })
                .collect();
            let tos = text(&route["tos"]).trim_start_matches("0x");
            shown.insert(format!(
                "route {destination} type {} metric {} tos {} proto {} src {:?} via {next_hops:?}",
                text(&route["type"]),
                route["metric"].as_u64().unwrap_or(0),
                u8::from_str_radix(tos, 16).unwrap_or(0),
                text(&route["protocol"]),
                route["prefsrc"].as_str(),
            ));
        }
    }
    shown
}

pub fn gateway(next_hop: &Value) -> Option<String> {
    let via = next_hop["via"]["host"].as_str();
    next_hop["gateway"].as_str().or(via).map(str::to_owned)
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn flags(value: &Value) -> BTreeSet<&str> {
    array(&value["flags"]).iter().map(text).collect()
}

/// `ethtool -k`: by name, whether it is on and whether it is fixed.
pub fn shown_features(interface: &str) -> BTreeMap<String, (bool, bool)> {
    let shown = run("ethtool", &["-k", interface]);
    let lines = shown
        .lines()
        .filter_map(|line| line.trim().split_once(": "));
    lines
        .map(|(name, state)| {
            let state = (state.starts_with("on"), state.contains("[fixed]"));
            (name.to_owned(), state)
        })
        .collect()
}
