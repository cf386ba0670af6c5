//! Numbered datagrams between two network namespaces, and what became of them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::netns::udp_socket;

/// Between two datagrams of a flow.
const PACE: Duration = Duration::from_micros(500);

/// Says that no more datagrams come.
const END: u64 = u64::MAX;

/// What became of a flow's datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Datagrams that the socket took.
    pub sent: u64,
    /// Those that came.
    pub received: u64,
    /// Those that came after a later one, or twice.
    pub late: u64,
}

/// Sends numbered datagrams from one namespace to an address in another until told to stop.
#[allow(dead_code)]
pub fn flow(from: &str, to: &str, address: Ipv4Addr, stop: &AtomicBool) -> Flow {
    paced_flow((from, to), address, PACE, stop)
}

/// The same with a pause of its own between two datagrams: the longer it is, the longer may a worker be
/// without a processor before its ring overflows.
#[allow(dead_code)]
pub fn paced_flow(
    (from, to): (&str, &str),
    address: Ipv4Addr,
    pace: Duration,
    stop: &AtomicBool,
) -> Flow {
    let (sender, receiver) = (udp_socket(from, 0), udp_socket(to, 7000));
    // What a receiver that is not given the processor would lose is not the routers' loss.
    setsockopt(&receiver, RcvBufForce, &(64 << 20)).expect("receive buffer");
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver));
        let to = SocketAddrV4::new(address, 7000);
        let sent = send(&sender, to, pace, stop);
        // One alone could be lost; more than are needed could meet the next flow.
        for _ in 0..10 {
            sender.send_to(&END.to_be_bytes(), to).expect("send");
            thread::sleep(Duration::from_millis(20));
            if receiving.is_finished() {
                break;
            }
        }
        let (received, late) = receiving.join().expect("receiver");
        Flow {
            sent,
            received,
            late,
        }
    })
}

/// Sends numbers from 0 at a pace.
fn send(socket: &UdpSocket, to: SocketAddrV4, pace: Duration, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let datagram = u64::to_be_bytes(number);
        socket.send_to(&datagram, to).expect("send");
        number += 1;
        // Time that this thread was not given is not made up for: a burst would overflow a ring.
        thread::sleep(pace);
    }
    thread::sleep(Duration::from_millis(100));
    number
}

/// How many numbers came, and how many of them not in order.
fn receive(socket: &UdpSocket) -> (u64, u64) {
    let (mut received, mut late, mut next) = (0, 0, 0);
    let mut buffer = [0; 8];
    loop {
        socket.recv(&mut buffer).expect("datagram");
        match u64::from_be_bytes(buffer) {
            END => return (received, late),
            number if number >= next => next = number + 1,
            _ => late += 1,
        }
        received += 1;
    }
}
