//! VLAN tags on packet sockets. The kernel keeps a frame's outermost tag beside it.
//!
//! ```text
//!  guest's file ◄─► guest (TAP) ◄─► packet socket: a port
//! ```

use std::fs::File;
use std::io::{Read, Write};

use underpass::packet::{Batch, FramePool, HEADROOM};
use underpass::port::tuntap::{TunTapKind, TunTapOptions, TunTapPort};
use underpass::port::{Port, PortId};

use crate::lab::{run, sh};
use crate::super_packets::{Packet, Super, assert_same, frame, raw, read, wait};

const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 6];

/// Tags: none, one, one of priority 2 whose bytes look like an IPv4 header's first, one of no VLAN, one
/// of 802.1ad, two.
const TAGS: [&[u8]; 6] = [
    &[],
    &[0x81, 0, 0, 10],
    &[0x81, 0, 0x46, 0],
    &[0x81, 0, 0, 0],
    &[0x88, 0xa8, 0, 20],
    &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10],
];

/// What a guest sends and gets behind a TAP that a packet socket serves has its tags.
#[test]
fn tags_pass_a_packet_port_both_ways() {
    run(|| {
        let (mut guest, mut port, mut pool) = behind_a_guest();
        for tags in TAGS {
            let link = link(tags, false);
            // Of all sizes up to the MTU's, and with a checksum to be finished.
            for length in [1, 1000, 1460] {
                let packet = Packet {
                    length,
                    ..Packet::default()
                };
                let sent = [&link[..], &packet.bytes()].concat();
                guest.write_all(&[&[0; 10], &sent[..]].concat()).unwrap();
                let got = read(&mut port, &mut pool, 1);
                assert_same(&got, std::slice::from_ref(&sent), &(tags, length));
                // A packet socket counts an 802.1ad tag as payload (`packet_extra_vlan_len_allowed`).
                if length == 1460 && tags.first() == Some(&0x88) {
                    continue;
                }
                let count = send(&mut port, &mut pool, std::slice::from_ref(&sent));
                assert_eq!(count, 1, "{tags:?} {length}");
                assert_same(&[next(&mut guest)], &[sent], &(tags, length));
            }
            for is_tcp in [true, false] {
                let case = Super {
                    is_tcp,
                    ..Super::default()
                };
                guest.write_all(&case.bytes_behind(&link)).unwrap();
                let got = read(&mut port, &mut pool, 1);
                let whole = [&link[..], &case.packet().bytes()].concat();
                assert_same(&got, &[whole], &(tags, case));
            }
        }
    });
}

/// A guest's interface, what serves it, and its pool.
fn behind_a_guest() -> (File, TunTapPort, FramePool) {
    silence_the_kernel();
    let guest = raw("guest", libc::IFF_TAP);
    sh("ip link set guest up");
    let mut pool = FramePool::with_memory(400, 2048, HEADROOM);
    let port = open("guest", TunTapKind::Held, true, &mut pool);
    (guest, port, pool)
}

fn open(
    interface: &str,
    kind: TunTapKind,
    super_packets: bool,
    pool: &mut FramePool,
) -> TunTapPort {
    let options = TunTapOptions {
        interface: interface.to_owned(),
        kind,
        netns: None,
        super_packets,
        multi_queue: false,
    };
    TunTapPort::open(PortId(1), &options, pool).unwrap()
}

fn link(tags: &[u8], is_v6: bool) -> Vec<u8> {
    let ethertype = if is_v6 { [0x86, 0xdd] } else { [8, 0] };
    [&ADDRESSES, tags, &ethertype].concat()
}

fn send(port: &mut TunTapPort, pool: &mut FramePool, frames: &[Vec<u8>]) -> usize {
    let mut batch: Batch = frames.iter().map(|bytes| frame(pool, bytes)).collect();
    port.tx(pool, &mut batch).sent
}

/// What the guest gets next of the test's, which needs nothing to be finished.
fn next(guest: &mut File) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let length = wait(|| {
        let length = guest.read(&mut buffer).unwrap_or(0);
        let is_of_the_test = buffer[10..22] == ADDRESSES;
        if is_of_the_test { length } else { 0 }
    });
    assert!(length > 10, "nothing came");
    assert_eq!(buffer[..10], [0; 10], "nothing was left to the guest");
    buffer[10..length].to_vec()
}

fn silence_the_kernel() {
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
}
