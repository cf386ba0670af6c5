//! IP-in-IP against an end made of the kernel's raw sockets (RFC 2003), as kernels without an `ipip`
//! device have nothing else: what it takes off goes into a TUN device, and the other way round.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tun_tap::{Iface, Mode};

use super::world::*;

#[test]
fn ipip_both_ways() {
    run(|world| {
        world.cluster("ipipMode: Always", "vxlanMode: Never");
        let peer = Peer::start();
        world.start("");
        ping("pod", FAR_POD, "");
        ping("far", POD, "");
        tcp("pod", "far", FAR_POD);
        tcp("far", "pod", POD);

        let capture = Capture::start("far", "ip proto 4 and src 10.30.0.11");
        ping("pod", FAR_POD, "-Q 0x4a -t 33");
        let frames = capture.stop();
        assert!(frames.len() >= 3, "{} tunnel packets", frames.len());
        for frame in frames {
            let (outer, inner) = etherparse::Ipv4Header::from_slice(&frame[14..]).expect("outer");
            assert_eq!(outer.header_checksum, outer.calc_header_checksum());
            assert_eq!((outer.time_to_live, frame[15]), (64, 0x4a));
            let (inner, _) = etherparse::Ipv4Header::from_slice(inner).expect("inner");
            assert_eq!((inner.time_to_live, inner.source.into()), (32, pod()));
            assert_eq!(outer.dont_fragment, inner.dont_fragment);
        }
        drop(peer);
    });
}

/// A link in the middle that is narrower than both ends': near, the pod is told of it; far, the router there
/// fragments, and underpass puts together.
#[test]
fn a_narrow_link_in_the_middle_of_ipip_is_learnt_and_told() {
    run(|world| {
        world.cluster("ipipMode: Always", "vxlanMode: Never");
        narrow_middle(1400);
        // The peer's sockets leave DF clear.
        inside("far", "echo 1 > /proc/sys/net/ipv4/ip_no_pmtu_disc");
        let peer = Peer::start();
        world.start("");
        tcp("pod", "far", FAR_POD);
        tcp("far", "pod", POD);
        // 1380 bytes with IP and ICMP headers, and 20 around them.
        ping("pod", FAR_POD, "-M do -s 1352");
        let learnt = inside("pod", &format!("ip route get {FAR_POD}"));
        assert!(learnt.contains("mtu 1380"), "{learnt}");
        let capture = Capture::start("far", "ip proto 4 and src 10.30.0.12");
        ping("far", POD, "-s 1400");
        assert!(capture.stop().iter().any(|frame| frame.len() > 1400 + 14));
        drop(peer);
    });
}

fn pod() -> Ipv4Addr {
    POD.parse().expect("an address")
}

/// Two threads in namespace "far".
struct Peer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Peer {
    fn start() -> Self {
        let (device, socket) = within("far", || {
            let device = Iface::without_packet_info("ipip0", Mode::Tun).expect("TUN");
            device.set_non_blocking().expect("non-blocking");
            let protocol = Some(Protocol::from(4));
            let socket = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), protocol)
                .expect("raw socket");
            let tick = Some(Duration::from_millis(50));
            socket.set_read_timeout(tick).expect("timeout");
            (Arc::new(device), Arc::new(socket))
        });
        inside(
            "far",
            "ip link set ipip0 mtu 1480 up; ip route add 192.168.1.0/26 dev ipip0 src 192.168.2.10",
        );
        let stop = Arc::new(AtomicBool::new(false));
        let opens = {
            let (stop, device, socket) = (stop.clone(), device.clone(), socket.clone());
            thread::spawn(move || unwrap_all(&stop, &device, &socket))
        };
        let wraps = {
            let stop = stop.clone();
            thread::spawn(move || wrap_all(&stop, &device, &socket))
        };
        Self {
            stop,
            threads: vec![opens, wraps],
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn unwrap_all(stop: &AtomicBool, device: &Iface, socket: &Socket) {
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        // A raw socket gives the outer header as well.
        let Ok(length) = (&*socket).read(&mut packet) else {
            continue;
        };
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        if length > header_len {
            device.send(&packet[header_len..length]).expect("TUN");
        }
    }
}

fn wrap_all(stop: &AtomicBool, device: &Iface, socket: &Socket) {
    let near = SockAddr::from(SocketAddrV4::new(Ipv4Addr::new(10, 30, 0, 11), 0));
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match device.recv(&mut packet) {
            Ok(length) if packet[0] >> 4 == 4 => {
                socket.send_to(&packet[..length], &near).expect("sent");
            }
            Ok(_) => {}
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
}
