//! Guests that the test plays: a TAP with virtio headers as QEMU holds it, a stream and a datagram socket. They
//! come late, go and come again, and send what no guest should.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

use super::flow::flow;
use super::netns::{Router, counters, inside, isolated, pings, quiet_counters, sh, wait_for};
use super::support::*;
use super::tap;

const DIRECTORY_OF_SOCKETS: &str = "/run/test/guests";
const STREAM: &str = "/run/test/guests/stream";
const DGRAM: &str = "/run/test/guests/dgram";

/// The guests' addresses by their place among the node's.
const HELD: u8 = 18;
const STREAMING: u8 = 16;
const DATAGRAMS: u8 = 17;

const ROUTER: [u8; 6] = [0xee; 6];
const GATEWAY: [u8; 4] = [169, 254, 1, 1];

/// How a guest is attached.
enum Link {
    Tap(File),
    Stream(UnixStream, Vec<u8>),
    Dgram(UnixDatagram),
}

struct Guest {
    link: Link,
    address: Ipv4Addr,
    mac: [u8; 6],
}

impl Guest {
    fn at(index: u8, link: Link) -> Self {
        Self {
            link,
            address: ONE.workload(index - 10),
            mac: [2, 0, 0, 0, 1, index],
        }
    }

    /// Makes the device as QEMU does; it is gone when this is dropped.
    fn at_tap() -> Self {
        let file = inside("one", || tap::open("cali8"));
        sh("ip -n one link set cali8 addrgenmode none up");
        Self::at(HELD, Link::Tap(file))
    }

    fn at_stream() -> Self {
        let stream = wait_for("a stream socket that takes connections", || {
            UnixStream::connect(STREAM).ok()
        });
        stream.set_nonblocking(true).expect("a setting");
        Self::at(STREAMING, Link::Stream(stream, Vec::new()))
    }

    fn at_dgram() -> Self {
        let own = format!("{DIRECTORY_OF_SOCKETS}/guest");
        let _ = fs::remove_file(&own);
        let socket = UnixDatagram::bind(own).expect("a socket");
        socket.set_nonblocking(true).expect("a setting");
        wait_for("a datagram socket", || socket.connect(DGRAM).ok());
        Self::at(DATAGRAMS, Link::Dgram(socket))
    }

    /// Sends a frame as a guest that knows what it does.
    fn send(&mut self, frame: &[u8]) {
        match &self.link {
            Link::Tap(_) => self.send_raw(&[&[0; 10], frame].concat()),
            Link::Stream(..) => {
                self.send_raw(&[&(frame.len() as u32).to_be_bytes(), frame].concat())
            }
            Link::Dgram(_) => self.send_raw(frame),
        };
    }

    /// Sends bytes as they are; false if nobody takes them.
    fn send_raw(&mut self, bytes: &[u8]) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let sent = match &mut self.link {
                Link::Tap(file) => file.write(bytes),
                Link::Stream(stream, _) => stream.write(bytes),
                Link::Dgram(socket) => socket.send(bytes),
            };
            match sent {
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    thread::sleep(Duration::from_micros(200));
                }
                sent => return sent.is_ok_and(|sent| sent == bytes.len()),
            }
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        match &mut self.link {
            Link::Tap(file) => {
                let length = file.read(&mut buffer).ok()?;
                Some(buffer[10..length].to_vec())
            }
            Link::Dgram(socket) => {
                let length = socket.recv(&mut buffer).ok()?;
                Some(buffer[..length].to_vec())
            }
            Link::Stream(stream, unread) => {
                if let Ok(length) = stream.read(&mut buffer) {
                    unread.extend_from_slice(&buffer[..length]);
                }
                let prefix = unread.first_chunk::<4>()?;
                let end = 4 + u32::from_be_bytes(*prefix) as usize;
                (unread.len() >= end).then(|| unread.drain(..end).skip(4).collect())
            }
        }
    }

    /// Resolves the gateway, pings a workload of the other node's, and has its answer.
    fn speaks(&mut self, to: Ipv4Addr) {
        let question = self.arp(1, [0; 6], GATEWAY);
        self.asks(&question, |frame| {
            frame[12..14] == [8, 6] && frame[20..22] == [0, 2]
        });
        let mut ping = Vec::new();
        PacketBuilder::ethernet2(self.mac, ROUTER)
            .ipv4(self.address.octets(), to.octets(), 64)
            .icmpv4_echo_request(7, 1)
            .write(&mut ping, b"of a guest")
            .expect("a packet");
        self.asks(&ping, |frame| {
            frame[12..14] == [8, 0] && frame[34] == 0 && frame.ends_with(b"of a guest")
        });
    }

    /// Asks again each second until there is an answer; says where it is to who asks meanwhile.
    fn asks(&mut self, question: &[u8], is_answer: impl Fn(&[u8]) -> bool) {
        let mut last = Instant::now() - Duration::from_secs(1);
        wait_for("an answer", || {
            if last.elapsed() >= Duration::from_secs(1) {
                last = Instant::now();
                self.send(question);
            }
            while let Some(frame) = self.receive() {
                if is_answer(&frame) {
                    return Some(());
                }
                if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] {
                    let asker: [u8; 4] = frame[28..32].try_into().expect("four");
                    let answer = self.arp(2, ROUTER, asker);
                    self.send(&answer);
                }
            }
            None
        });
    }

    fn arp(&self, operation: u8, target_mac: [u8; 6], target: [u8; 4]) -> Vec<u8> {
        let to = if operation == 1 {
            [0xff; 6]
        } else {
            target_mac
        };
        let own = self.address.octets();
        [
            &to[..],
            &self.mac,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
            &self.mac,
            &own,
            &target_mac,
            &target,
        ]
        .concat()
    }

    /// UDP of the guest's, or of another sender's.
    fn udp(&self, source: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(self.mac, ROUTER)
            .ipv4(source.octets(), to.octets(), 64)
            .udp(9, 9)
            .write(&mut frame, &vec![0x33; length])
            .expect("a packet");
        frame
    }
}

/// A node whose guests' ports are in its configuration.
fn configuration() -> std::path::PathBuf {
    let endpoints: String = [HELD, STREAMING, DATAGRAMS]
        .map(|index| {
            let (name, interface) = (format!("guest{index}"), format!("cali{}", index - 10));
            endpoint("one", &name, &interface, ONE.workload(index - 10))
        })
        .concat();
    let late = endpoint("one", "late", "cali5", ONE.workload(5));
    write_resources("guests", &(endpoints + &late));
    ONE.config(&format!(
        "workloads: [{{ interface: cali0 }}, {{ interface: cali5 }}, {{ interface: cali8, kind: packet }}, \
         {{ interface: cali6, kind: stream, socket: {STREAM} }}, \
         {{ interface: cali7, kind: dgram, socket: {DGRAM} }}]\n"
    ))
}

fn status() -> String {
    let binary = env!("CARGO_BIN_EXE_underpass");
    sh(&format!("{binary} status --socket {}", ONE.socket()))
}

fn waits(port: &str, what: &str) {
    wait_for(&format!("{port} that waits: {what}"), || {
        let status = status();
        let mut rows = status
            .lines()
            .filter(|line| line.contains(&format!("port {port} ")));
        rows.any(|row| row.contains(what)).then_some(())
    });
}

#[test]
fn guests_that_come_late_go_and_come_again_are_served_each_time() {
    isolated(|| {
        build(&[ONE, TWO]);
        let mut one = Router::start("one", &configuration());
        let _two = Router::start("two", &TWO.config(""));
        let to = TWO.workload(0);
        for port in ["cali5", "cali8"] {
            waits(port, "there is no such interface");
        }
        for port in ["cali6", "cali7"] {
            waits(
                port,
                &format!("there is no directory {DIRECTORY_OF_SOCKETS}"),
            );
        }
        fs::create_dir(DIRECTORY_OF_SOCKETS).expect("a directory");
        for _ in 0..2 {
            Guest::at_stream().speaks(to);
            Guest::at_dgram().speaks(to);
            let mut held = Guest::at_tap();
            held.speaks(to);
            drop(held);
            waits("cali8", "there is no such interface");
            // What somebody removed is made again.
            for socket in [STREAM, DGRAM] {
                fs::remove_file(socket).expect("a socket");
            }
        }
        fs::remove_dir_all(DIRECTORY_OF_SOCKETS).expect("a directory");
        waits("cali6", "there is no directory");
        sh("ip netns add one5");
        ONE.build_workload(5);
        wait_for("the late workload", || pings("one5", to, 1).then_some(()));
        assert!(one.is_running());
        assert!(pings("one0", to, 3));
        let counted = quiet_counters(&ONE.socket());
        assert_eq!(counted.balance().difference(), 0, "{counted:?}");
        one.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(one.wait(), 0);
        assert!(!Path::new(STREAM).exists());
    });
}

/// How many times a guest sends each thing that it should not.
const TIMES: u64 = 200;

#[test]
fn what_a_guest_sends_harms_no_other() {
    isolated(|| {
        build(&[ONE, TWO]);
        fs::create_dir(DIRECTORY_OF_SOCKETS).expect("a directory");
        let one = Router::start("one", &configuration());
        let _two = Router::start("two", &TWO.config(""));
        let to = TWO.workload(0);
        let (mut held, mut streaming, mut datagrams) =
            (Guest::at_tap(), Guest::at_stream(), Guest::at_dgram());
        for guest in [&mut held, &mut streaming, &mut datagrams] {
            guest.speaks(to);
        }
        wait_for("an answer", || pings("one0", to, 1).then_some(()));
        let before = counters(&ONE.socket());
        let stop = AtomicBool::new(false);
        let (out, back) = thread::scope(|scope| {
            let out = scope.spawn(|| flow("one0", "two0", to, &stop));
            let back = scope.spawn(|| flow("two0", "one0", ONE.workload(0), &stop));
            bad_headers(&mut held);
            bad_lengths(&mut streaming, &mut datagrams);
            spoofed(&mut held);
            floods(&mut datagrams);
            // And nothing at all: a connection that is only held, with half a length.
            streaming = Guest::at_stream();
            assert!(streaming.send_raw(&[0, 0]));
            thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            (out.join().expect("flow"), back.join().expect("flow"))
        });
        let after = quiet_counters(&ONE.socket());
        // The kernel's word on rings that were full because a router was not given the processor.
        let far = quiet_counters(&TWO.socket());
        let xdp = after
            .ports
            .iter()
            .chain(&far.ports)
            .filter_map(|port| port.xdp);
        let starved: u64 = xdp.map(|xdp| xdp.rx_dropped + xdp.rx_ring_full).sum();
        for flow in [out, back] {
            assert!(flow.sent > 200, "{flow:?}");
            assert!(
                flow.sent - flow.received <= starved,
                "{flow:?}, {starved} starved"
            );
        }
        assert_eq!(after.balance().difference(), 0, "{after:?}");
        let dropped = |reason: &str| {
            let of = |report: &underpass::observe::report::CounterReport| {
                let mut rows = report.drops.iter();
                let row = rows.find(|drop| drop.reason == reason);
                row.expect(reason).packets
            };
            of(&after) - of(&before)
        };
        // Five lengths by the stream, one by datagrams; and what the kernel lets through of the headers.
        assert!(dropped("malformed_frame") >= 5 + TIMES, "{after:?}");
        assert_eq!(dropped("spoofed_source"), TIMES);
        // A connection is served when the one before it has ended.
        streaming = Guest::at_stream();
        for guest in [&mut held, &mut datagrams, &mut streaming] {
            guest.speaks(to);
        }
        drop(one);
    });
}

/// Virtio headers that no packet has. The kernel, which is between a guest and its node here, refuses most.
fn bad_headers(guest: &mut Guest) {
    let frame = guest.udp(guest.address, TWO.workload(0), 1000);
    let length = frame.len() as u16;
    let mut taken = 0;
    // Flags, kind, header length, segment size, checksum's start and offset.
    for (flags, kind, header, size, start, offset) in [
        (0, 0, u16::MAX, 0, 0, 0),
        (1, 0, 0, 0, length + 100, 16),
        (1, 0, 0, 0, length - 1, 16),
        (1, 0, 0, 0, 34, u16::MAX),
        (1, 1, 54, 0, 34, 16),
        (1, 1, 54, u16::MAX, 34, 16),
        (1, 1, 54, 1, 34, 16),
        (1, 4, 54, 1000, 34, 16),
        (0, 1, 54, 100, 0, 0),
        (1, 3, 42, 100, 34, 6),
        (1, 5, 42, 1, 34, 6),
        (1, 5, 42, 0, 34, 6),
        (1, 0x7f, 42, 100, 34, 6),
        (0xff, 0xff, 0xffff, 0xffff, 0xffff, 0xffff),
    ] {
        let words: Vec<u8> = [header, size, start, offset]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let bytes = [&[flags, kind], &words[..], &frame].concat();
        for length in [bytes.len(), 24, 11, 10, 9, 1] {
            for _ in 0..TIMES / 20 {
                taken += u64::from(guest.send_raw(&bytes[..length]));
            }
        }
    }
    println!("{taken} packets with odd headers were taken by the kernel");
    assert!(taken > 0);
}

/// Lengths that no frame has: each ends a stream's connection; a datagram is lost alone.
fn bad_lengths(streaming: &mut Guest, datagrams: &mut Guest) {
    for length in [0_u32, 1519, 65_536, 1 << 31, u32::MAX] {
        streaming.send_raw(&length.to_be_bytes());
        streaming.send_raw(&[7; 3000]);
        *streaming = Guest::at_stream();
    }
    for _ in 0..TIMES {
        datagrams.send_raw(&[9; 3000]);
        // Shorter than an Ethernet header, and none.
        datagrams.send_raw(&[9; 5]);
        datagrams.send_raw(&[]);
    }
}

fn spoofed(guest: &mut Guest) {
    let frame = guest.udp(ONE.workload(0), TWO.workload(0), 100);
    for _ in 0..TIMES {
        guest.send(&frame);
    }
}

/// As fast as it can, for half a second.
fn floods(guest: &mut Guest) {
    let frame = guest.udp(guest.address, TWO.workload(0), 1400);
    // For nobody: of the node's own block, and no workload's.
    let lost = guest.udp(guest.address, ONE.workload(50), 100);
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        guest.send(&frame);
        guest.send(&lost);
    }
}
