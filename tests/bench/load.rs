//! The load against a relay that loses, doubles and reorders known packets.
//!
//! ```text
//!  generator ── in ══ relay (Python, packet sockets) ══ out ── sink
//! ```

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use underpass::bench::load::profile::{FrameSize, Profile, Tunnel};
use underpass::bench::load::{Load, Order, Outcome};
use underpass::bench::namespace::Namespace;
use underpass::wire::{MacAddr, Vni};

use crate::netns::{isolated, sh, wait_for};

const PACKETS: u64 = 2048;

/// Of each 16 packets the fourth is lost, of each 32 the sixth comes twice, of each 64 the ninth comes
/// after the tenth. `at` is where the sequence number begins.
const RELAY: &str = r"
import socket, struct, sys, os
at = int(sys.argv[1])
def port(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    s.bind((name, 0))
    return s
come, go = port('in'), port('out')
open(sys.argv[2], 'w').close()
held = None
while True:
    frame, address = come.recvfrom(4096)
    if address[2] == socket.PACKET_OUTGOING or frame[at - 4:at - 2] != b'\x70\x75':
        continue
    number, = struct.unpack('<I', frame[at:at + 4])
    if number % 16 == 3:
        continue
    if number % 64 == 8:
        held = frame
        continue
    go.send(frame)
    if number % 32 == 5:
        go.send(frame)
    if held:
        go.send(held)
        held = None
";

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn profile(tunnel: Option<Tunnel>, size: FrameSize, flows: u32) -> Profile {
    Profile {
        ethernet: (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])),
        source: Ipv4Addr::new(192, 168, 1, 1),
        destination: Ipv4Addr::new(192, 168, 2, 0),
        destinations: 1,
        flows,
        size,
        tunnel,
    }
}

/// Sends through a relay that finds the sequence number at `at`; nothing if there is no Python.
fn through_relay(profile: Profile, at: usize) -> Outcome {
    let middle = Namespace::new("relay").unwrap();
    let ends = Namespace::new("ends").unwrap();
    let path = ends.path();
    for (device, far) in [("in", "gen"), ("out", "sink")] {
        middle
            .ip(&format!(
                "link add {device} type veth peer name {far} netns {}\nlink set {device} up\n",
                path.display()
            ))
            .unwrap();
        ends.ip(&format!("link set {far} up\n")).unwrap();
    }
    let enter = format!("nsenter --net={}", middle.path().display());
    // A veth takes redirected frames only with NAPI, which comes with GRO.
    sh(&format!("{enter} ethtool -K in gro on"));
    let ready = format!("/run/relay-{at}");
    let relay = Command::new("chrt")
        .args(["--fifo", "10", "nsenter"])
        .arg(format!("--net={}", middle.path().display()))
        .args(["/usr/bin/python3", "-c", RELAY, &at.to_string(), &ready])
        .stdin(Stdio::null())
        .spawn();
    let _relay = Relay(relay.unwrap());
    wait_for("the relay", || {
        std::fs::exists(&ready).ok().filter(|there| *there)
    });

    let cpu = underpass::worker::affinity::available()[0];
    let mut load = Load::new(profile, cpu).unwrap();
    load.attach_sink(&ends, "sink").unwrap();
    let order = Order {
        rate: Some(10_000.0),
        duration: Duration::from_secs(2),
        limit: Some(PACKETS),
    };
    load.run_cold(&ends, "gen", order, &AtomicBool::new(false))
        .unwrap()
}

fn assert_all_is_seen(outcome: &Outcome) {
    let received = outcome.received;
    assert_eq!(outcome.sent.packets, PACKETS);
    assert_eq!(received.packets, PACKETS - PACKETS / 16, "{received:?}");
    assert_eq!(received.duplicates, PACKETS / 32, "{received:?}");
    assert_eq!(received.late, 0, "{received:?}");
    assert_eq!(outcome.latency.len(), received.packets);
    assert!(outcome.latency.min() > 0);
}

#[test]
fn what_is_lost_doubled_and_reordered_is_counted() {
    isolated(|| {
        let outcome = through_relay(profile(None, FrameSize::Bytes(64), 1), 46);
        assert_all_is_seen(&outcome);
        assert_eq!(outcome.received.reordered, PACKETS / 64);
        assert_eq!(outcome.sent.bytes, PACKETS * 60);
        assert_eq!(outcome.received.bytes, outcome.received.packets * 60);
    });
}

#[test]
fn inside_a_tunnel_too_and_packets_of_other_flows_are_in_order() {
    isolated(|| {
        let tunnel = Tunnel::Vxlan {
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            vni: Vni::CALICO,
            ethernet: (MacAddr([6; 6]), MacAddr([2; 6])),
        };
        let outcome = through_relay(profile(Some(tunnel), FrameSize::Imix, 64), 50 + 46);
        assert_all_is_seen(&outcome);
        // The packet that comes too late is of another flow than the one before it.
        assert_eq!(outcome.received.reordered, 0);
    });
}
