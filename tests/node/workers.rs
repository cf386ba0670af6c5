//! Several workers and several queues.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use nix::sys::signal::Signal;

use super::netns::{PATIENCE, Router, inside, isolated, pings, quiet_counters};
use super::support::*;

const TWO_WORKERS: Node = Node {
    workloads: 2,
    queues: 2,
    ..ONE
};

const TWO_QUEUES: Node = Node { queues: 2, ..TWO };

/// Each of the two workloads' ports has another worker, so what passes between them, and half of
/// what comes by the uplink, is handed over.
#[test]
fn packets_cross_from_worker_to_worker_whole() {
    isolated(|| {
        build(&[TWO_WORKERS, TWO_QUEUES]);
        let mut one = Router::start("one", &TWO_WORKERS.config("workers: { count: 2 }"));
        let two = Router::start(
            "two",
            &TWO_QUEUES.config("uplink: { interface: eth0, queues: 2 }"),
        );
        let (first, second, far) = (
            TWO_WORKERS.workload(0),
            TWO_WORKERS.workload(1),
            TWO_QUEUES.workload(0),
        );
        for (from, to) in [
            ("one0", second),
            ("one1", first),
            ("one0", far),
            ("one1", far),
            ("two0", first),
            ("two0", second),
        ] {
            assert!(pings(from, to, 3), "{from} to {to}");
        }
        // Several connections, so that both queues of the uplink are used.
        for _ in 0..4 {
            transfer("one0", "one1", second);
            transfer("one1", "one0", first);
            transfer("one0", "two0", far);
            transfer("two0", "one1", second);
            transfer("two0", "one0", first);
        }
        let counted = quiet_counters(&TWO_WORKERS.socket());
        assert_eq!(counted.balance().difference(), 0, "{counted:?}");
        let dropped: Vec<_> = counted
            .drops
            .iter()
            .filter(|drop| drop.packets > 0)
            .collect();
        println!("{:?}, {dropped:?}", counted.balance());
        let counted = quiet_counters(&TWO_QUEUES.socket());
        assert_eq!(counted.balance().difference(), 0, "{counted:?}");
        one.signal(Signal::SIGTERM);
        assert_eq!(one.wait(), 0, "{}", one.log());
        assert_eq!(ours_in("one"), [""; 0]);
        drop(two);
    });
}

/// A device spreads what it receives over all of its queues, however few workers there are.
#[test]
fn one_worker_serves_every_queue_of_the_uplink() {
    isolated(|| {
        build(&[Node { queues: 4, ..ONE }, Node { queues: 4, ..TWO }]);
        let _one = Router::start("one", &ONE.config(""));
        let _two = Router::start("two", &TWO.config(""));
        assert!(pings("one0", TWO.workload(0), 2));
        for _ in 0..16 {
            exchange("one0", "two0", TWO.workload(0), 10_000);
            exchange("two0", "one0", ONE.workload(0), 10_000);
        }
    });
}

fn transfer(from: &str, to: &str, address: Ipv4Addr) {
    exchange(from, to, address, 5_000_000);
}

/// Sends bytes by TCP and compares what arrives.
fn exchange(from: &str, to: &str, address: Ipv4Addr, bytes: usize) {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let listener = inside(to, || TcpListener::bind(any).expect("listen"));
    let port = listener.local_addr().expect("address").port();
    let target = SocketAddrV4::new(address, port).into();
    let stream = inside(from, || TcpStream::connect_timeout(&target, PATIENCE));
    let mut stream = stream.unwrap_or_else(|error| panic!("{from} to {target}: {error}"));
    let content: Vec<u8> = (0..bytes as u32)
        .map(|n| (n.wrapping_mul(0x9e37_79b9).rotate_left(15) ^ u32::from(port)) as u8)
        .collect();
    let mut arrived = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut accepted, _) = listener.accept().expect("accept");
            accepted.set_read_timeout(Some(PATIENCE)).expect("timeout");
            accepted.read_to_end(&mut arrived).expect("receive");
        });
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(&content).expect("send");
        drop(stream);
    });
    assert!(arrived == content, "{from} to {to}: content differs");
}
