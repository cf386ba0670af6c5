//! TUN and TAP against the kernel's own stack.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};
use underpass::packet::{Batch, FramePool, HEADROOM};
use underpass::port::tuntap::{TunTapKind, TunTapOptions, TunTapPort};
use underpass::port::{Link, Port, PortError, PortId};
use underpass::wire::Mtu;

use crate::lab::{PATIENCE, run, sh};

fn options(interface: &str, kind: TunTapKind, netns: Option<&str>) -> TunTapOptions {
    TunTapOptions {
        interface: interface.to_owned(),
        kind,
        netns: netns.map(str::to_owned),
        super_packets: true,
        multi_queue: false,
    }
}

fn pool() -> FramePool {
    FramePool::with_memory(200, 2048, HEADROOM)
}

fn opened(options: &TunTapOptions) -> Result<TunTapPort, PortError> {
    TunTapPort::open(PortId(3), options, &mut pool())
}

/// Receives until `wanted` makes something of a packet.
fn receive<T>(
    port: &mut TunTapPort,
    pool: &mut FramePool,
    wanted: impl Fn(&[u8]) -> Option<T>,
) -> T {
    let end = Instant::now() + PATIENCE;
    let mut batch = Batch::new();
    while Instant::now() < end {
        port.rx(pool, &mut batch).unwrap();
        let found = batch.iter().find_map(|frame| wanted(frame.bytes()));
        batch.drain(..).for_each(|frame| pool.give(frame));
        if let Some(found) = found {
            return found;
        }
    }
    panic!("nothing came");
}

fn send(port: &mut TunTapPort, pool: &mut FramePool, packet: &[u8]) -> usize {
    let mut frame = pool.take().unwrap();
    assert!(frame.fill(packet, HEADROOM));
    let mut batch = vec![frame];
    let sent = port.tx(pool, &mut batch).sent;
    assert!(batch.is_empty());
    sent
}

fn ping(namespace: &str, address: &str) -> Child {
    Command::new("ip")
        .args([
            "netns", "exec", namespace, "ping", "-c1", "-W5", "-s1000", address,
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The answer to an echo request, built by etherparse.
fn echo_reply(packet: &[u8]) -> Option<Vec<u8>> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
        (&sliced.net, &sliced.transport)
    else {
        return None;
    };
    let Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else {
        return None;
    };
    let header = ip.header();
    let mut reply = Vec::new();
    PacketBuilder::ipv4(header.destination(), header.source(), 64)
        .icmpv4_echo_reply(echo.id, echo.seq)
        .write(&mut reply, icmp.payload())
        .unwrap();
    Some(reply)
}

#[test]
fn a_ping_into_a_namespaces_tun_is_read_and_answered() {
    run(|| {
        let mut pool = pool();
        let mut port = TunTapPort::open(
            PortId(3),
            &options("tun7", TunTapKind::Tun, Some("far")),
            &mut pool,
        )
        .unwrap();
        assert_eq!((port.id(), port.name()), (PortId(3), "tun7"));
        assert_eq!(
            (port.capabilities().link, port.capabilities().mtu),
            (Link::Ip, Mtu(1500))
        );
        sh("ip -n far addr add 10.9.0.1/24 dev tun7; ip -n far link set tun7 up");
        let mut ping = ping("far", "10.9.0.2");
        let reply = receive(&mut port, &mut pool, echo_reply);
        assert_eq!(reply.len(), 1028);
        assert_eq!(send(&mut port, &mut pool, &reply), 1);
        assert!(ping.wait().unwrap().success(), "the reply got through");
        assert_eq!(pool.available(), 200);
    });
}

/// A device that was made and configured before is taken over with its settings, and stays.
#[test]
fn a_persistent_tun_is_taken_over() {
    run(|| {
        sh("ip -n far tuntap add tun8 mode tun; ip -n far link set tun8 mtu 1400 up");
        let mut pool = pool();
        let wanted = options("tun8", TunTapKind::Tun, Some("far"));
        let port = TunTapPort::open(PortId(3), &wanted, &mut pool).unwrap();
        assert_eq!(port.capabilities().mtu, Mtu(1400));
        let busy = opened(&wanted).err().unwrap();
        assert!(matches!(busy, PortError::DeviceBusy { .. }), "{busy}");
        drop(port);
        sh("ip -n far link show tun8");
        opened(&wanted).unwrap();
    });
}

#[test]
fn a_tap_carries_ethernet_frames() {
    run(|| {
        let mut pool = pool();
        let mut port = TunTapPort::open(
            PortId(3),
            &options("tap7", TunTapKind::Tap, None),
            &mut pool,
        )
        .unwrap();
        let Link::Ethernet(address) = port.capabilities().link else {
            panic!("no Ethernet");
        };
        let shown = sh("cat /sys/class/net/tap7/address");
        assert_eq!(shown.trim(), address.to_string());
        sh("ip addr add 10.8.0.1/24 dev tap7; ip link set tap7 up");
        // The kernel asks for the address by ARP; the question is answered as RFC 826 says.
        let mut ping = Command::new("ping")
            .args(["-c1", "-W5", "10.8.0.2"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let request = receive(&mut port, &mut pool, |frame| {
            (frame[12..14] == [8, 6]).then(|| frame.to_vec())
        });
        let mut reply = Vec::new();
        reply.extend_from_slice(&request[6..12]);
        reply.extend_from_slice(&[
            2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9,
        ]);
        reply.extend_from_slice(&request[38..42]);
        reply.extend_from_slice(&request[22..32]);
        assert_eq!(send(&mut port, &mut pool, &reply), 1);
        let (link, answer) = receive(&mut port, &mut pool, |frame| {
            Some((frame[..14].to_vec(), echo_reply(frame.get(14..)?)?))
        });
        assert_eq!(link[..6], [2, 0, 0, 0, 0, 9]);
        let frame = [&link[6..12], &link[..6], &link[12..], &answer].concat();
        assert_eq!(send(&mut port, &mut pool, &frame), 1);
        assert!(ping.wait().unwrap().success(), "the reply got through");
    });
}

/// What the kernel will not take is counted and does not hold up the rest.
#[test]
fn what_the_kernel_refuses_is_counted() {
    run(|| {
        let mut pool = pool();
        let mut port = TunTapPort::open(
            PortId(3),
            &options("tun7", TunTapKind::Tun, None),
            &mut pool,
        )
        .unwrap();
        let packet = [0x45; 40];
        assert_eq!(
            send(&mut port, &mut pool, &packet),
            0,
            "the device is down: EIO"
        );
        sh("ip link set tun7 up");
        let mut batch: Batch = (0..3).map(|_| pool.take().unwrap()).collect();
        for (frame, bytes) in batch
            .iter_mut()
            .zip([&[0x45; 40][..], &[0x15; 40], &[0x45; 60]])
        {
            assert!(frame.fill(bytes, HEADROOM));
        }
        let outcome = port.tx(&mut pool, &mut batch);
        assert_eq!(
            (outcome.sent, outcome.sent_bytes, outcome.failed),
            (2, 100, 1),
            "IP version 1: EINVAL"
        );
        assert_eq!(pool.available(), 200);
        sh("ip link del tun7");
        assert!(
            port.rx(&mut pool, &mut Batch::new()).is_err(),
            "the device is gone"
        );
        assert_eq!(pool.available(), 200);
    });
}

#[test]
fn what_cannot_be_opened_says_what_would_be_right() {
    run(|| {
        sh(
            "ip link add br0 type bridge; ip tuntap add tap9 mode tap; ip tuntap add many mode tun multi_queue",
        );
        for name in ["br0", "tap9", "many"] {
            let error = opened(&options(name, TunTapKind::Tun, None)).err().unwrap();
            assert!(
                matches!(&error, PortError::DeviceKind { wanted: "TUN", .. }),
                "{name}: {error}"
            );
        }
        let error = opened(&options("tun7", TunTapKind::Tun, Some("nowhere")))
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("/var/run/netns/nowhere"),
            "{error}"
        );
        for name in ["tun%d", "a-name-of-sixteen", ""] {
            let error = opened(&options(name, TunTapKind::Tun, None)).err().unwrap();
            assert!(matches!(error, PortError::InvalidName { .. }), "{error}");
        }
        sh("ip tuntap add big mode tun; ip link set big mtu 9000");
        let error = opened(&options("big", TunTapKind::Tun, None))
            .err()
            .unwrap();
        assert!(
            matches!(error, PortError::MtuTooLarge { mtu: 9000, .. }),
            "{error}"
        );
        let empty = TunTapPort::open(
            PortId(3),
            &options("tun7", TunTapKind::Tun, None),
            &mut FramePool::with_memory(0, 0, 0),
        );
        assert!(matches!(empty, Err(PortError::PoolTooSmall { .. })));
    });
}

/// An idle port costs nothing to ask.
#[test]
fn nothing_to_read_is_no_error() {
    run(|| {
        let mut pool = pool();
        let mut port = TunTapPort::open(
            PortId(3),
            &options("tun7", TunTapKind::Tun, None),
            &mut pool,
        )
        .unwrap();
        let start = Instant::now();
        assert_eq!(port.rx(&mut pool, &mut Batch::new()).unwrap(), 0);
        assert!(start.elapsed() < Duration::from_secs(4));
    });
}
