//! VLAN tags on packet sockets and TAPs. The kernel keeps a frame's outermost tag beside it.
//!
//! ```text
//!  guest's file ◄─► guest (TAP) ◄─► packet socket: a port
//!
//!                                           ┌──► cut (TAP): a port with super-packets
//!  guest's file ◄─► guest (TAP) ◄─► bridge ─┼──► out (TAP): a port to which the kernel hands single packets
//!                                           └──► veth ─► packet socket: a port
//! ```

use std::fs::File;
use std::io::{Read, Write};

use underpass::packet::{Batch, FramePool, HEADROOM};
use underpass::port::tuntap::{TunTapKind, TunTapOptions, TunTapPort};
use underpass::port::{Port, PortId};

use crate::lab::{run, sh};
use crate::super_packets::{Packet, Super, assert_same, frame, raw, read, received, wait};

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

/// A guest's super-packets with tags are cut as the kernel cuts them, by TAPs and by packet sockets.
#[test]
fn tagged_super_packets_are_cut_as_the_kernel_cuts_them() {
    run(|| {
        let Bridge {
            mut guest,
            mut ports,
            mut pool,
        } = Bridge::new();
        for (case, tags) in super_packets()
            .into_iter()
            .flat_map(|case| TAGS.map(|tags| (case, tags)))
        {
            let before = received("cut", "tx_packets");
            let link = link(tags, case.is_v6);
            guest.write_all(&case.bytes_behind(&link)).unwrap();
            let [out, cut, held] = ports
                .each_mut()
                .map(|port| read(port, &mut pool, case.count()));
            assert!(out.iter().all(|frame| frame.starts_with(&link)));
            assert_eq!(out.len(), case.count(), "{tags:?} {case:?}");
            assert_same(&cut, &out, &("TAP", tags, case));
            assert_same(&held, &out, &("packet socket", tags, case));
            // What has two tags the kernel cuts itself; it may have had something of its own to say.
            if tags.len() <= 4 {
                let reads = received("cut", "tx_packets") - before;
                assert!(reads <= 3, "{reads} reads: {tags:?} {case:?}");
            }
        }
    });
}

/// Frames of one flow in two VLANs go out as they are: none is put together with another.
#[test]
fn tagged_frames_are_not_put_together() {
    let frames: Vec<_> = (0..20_u32)
        .flat_map(|n| {
            let packet = Packet {
                sequence: n * 1000,
                identification: n as u16,
                ..Packet::default()
            };
            [TAGS[1], TAGS[2]].map(|tags| [&link(tags, false)[..], &packet.bytes()].concat())
        })
        .collect();
    run(|| {
        let (mut guest, mut port, mut pool) = behind_a_guest();
        assert_eq!(send(&mut port, &mut pool, &frames), 40);
        let got: Vec<_> = frames.iter().map(|_| next(&mut guest)).collect();
        assert_same(&got, &frames, &"packet socket");
    });
    run(|| {
        let Bridge {
            mut guest,
            ports: [_out, mut cut, _held],
            mut pool,
        } = Bridge::new();
        assert_eq!(send(&mut cut, &mut pool, &frames), 40);
        let got: Vec<_> = frames.iter().map(|_| next(&mut guest)).collect();
        assert_same(&got, &frames, &"TAP");
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

/// A guest and ports at one of the kernel's bridges.
struct Bridge {
    guest: File,
    /// `out`, `cut` and the packet socket.
    ports: [TunTapPort; 3],
    pool: FramePool,
}

impl Bridge {
    fn new() -> Self {
        silence_the_kernel();
        let mut pool = FramePool::with_memory(400, 2048, HEADROOM);
        let guest = raw("guest", libc::IFF_TAP);
        let out = open("out", TunTapKind::Tap, false, &mut pool);
        let cut = open("cut", TunTapKind::Tap, true, &mut pool);
        sh("ip link add name veth type veth peer name held; ip link set held up");
        let held = open("held", TunTapKind::Held, true, &mut pool);
        sh(
            "ip link add switch type bridge mcast_snooping 0; ip link set switch up; \
            for name in guest out cut veth; do ip link set $name master switch up; done",
        );
        // The bridge has a look at a port's carrier a moment after the port has one.
        sh("until [ $(bridge link show | grep -c 'state forwarding') = 4 ]; do sleep 0.01; done");
        Self {
            guest,
            ports: [out, cut, held],
            pool,
        }
    }
}

/// TCP over both families, UDP, and a packet of which the checksum alone is left.
fn super_packets() -> [Super; 4] {
    let of = |is_v6, is_tcp, length| Super {
        is_v6,
        is_tcp,
        size: 1200,
        length,
        ..Super::default()
    };
    [
        of(false, true, 12_001),
        of(true, true, 60_000),
        of(false, false, 12_001),
        of(true, false, 700),
    ]
}

fn silence_the_kernel() {
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
}
