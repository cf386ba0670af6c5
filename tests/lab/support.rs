//! The lab, and what is done in it.
//!
//! ```text
//!   pod0 ── master ─┐
//!   pod1 ── worker1 ┼ 10.30.0.0/24 ── fabric ── 10.30.1.0/24 ── worker3 ── pod3
//!   pod2 ── worker2 ┘
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use super::netns::{self, PATIENCE, UNDERPASS, inside};

pub const NODES: [&str; 4] = ["master", "worker1", "worker2", "worker3"];
pub const MODES: [&str; 5] = ["ipip", "vxlan", "direct", "ipip-cross", "vxlan-cross"];

pub const POD0: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 10);
pub const POD1: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub const POD2: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 10);
pub const POD3: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 10);
pub const WORKER1: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
pub const WORKER2: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 12);
pub const WORKER3: Ipv4Addr = Ipv4Addr::new(10, 30, 1, 13);

/// The lab that is up; its nodes' logs are shown when a test fails.
pub struct Lab;

impl Lab {
    /// `scripts/lab up ARGUMENTS`.
    pub fn up(arguments: &str) -> Self {
        let lab = Self;
        lab.script(&format!("up {arguments}"));
        lab
    }

    /// `scripts/lab ARGUMENTS`, which must succeed.
    pub fn script(&self, arguments: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");
        let output = Command::new("bash")
            .arg(script)
            .args(arguments.split(' '))
            .env("UNDERPASS_BIN", UNDERPASS)
            .env("UNDERPASS_LAB_DIR", "/run/underpass-lab")
            .stdin(std::process::Stdio::null())
            .output()
            .expect("scripts/lab");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "scripts/lab {arguments}: {text}{errors}"
        );
        text
    }

    pub fn pid(&self, node: &str) -> u32 {
        let file = format!("/run/underpass-lab/pids/{node}");
        let text = std::fs::read_to_string(file).expect("pid file");
        text.trim().parse().expect("a pid")
    }

    pub fn pids(&self) -> Vec<u32> {
        NODES.iter().map(|node| self.pid(node)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in NODES {
                let log = format!("/run/underpass-lab/logs/{node}.log");
                let text = std::fs::read_to_string(log).unwrap_or_default();
                eprintln!("--- {node}\n{text}---");
            }
        }
    }
}

/// A namespace's name for one of the lab's.
pub fn space(name: &str) -> String {
    format!("up-{name}")
}

/// A node's control socket.
pub fn socket(node: &str) -> String {
    format!("/run/underpass/{node}.sock")
}

pub fn pings(from: &str, to: Ipv4Addr) -> bool {
    netns::pings(&space(from), to, 3)
}

/// Sends `bytes` bytes by TCP and checks every one of them on arrival.
pub fn transfer(from: &str, to: &str, address: Ipv4Addr, bytes: usize) {
    let listener = listen(to, 5001);
    let stream = connect(from, address, 5001);
    let (accepted, peer) = listener.accept().expect("accept");
    accepted.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let seed = u64::from(peer.port()) << 32 | bytes as u64;
    thread::scope(|scope| {
        scope.spawn(move || send_stream(stream, seed, bytes));
        assert_eq!(receive_stream(accepted, seed), bytes, "{from} to {to}");
    });
}

pub fn listen(at: &str, port: u16) -> TcpListener {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    inside(&space(at), || TcpListener::bind(any).expect("listen"))
}

pub fn connect(from: &str, address: Ipv4Addr, port: u16) -> TcpStream {
    let to = SocketAddrV4::new(address, port).into();
    let stream = inside(&space(from), || TcpStream::connect_timeout(&to, PATIENCE));
    let stream = stream.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

const CHUNK: usize = 64 * 1024;

fn send_stream(mut stream: TcpStream, seed: u64, bytes: usize) {
    let mut stream_of = Bytes(seed);
    let mut chunk = [0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        stream_of.fill(&mut chunk);
        let now = left.min(CHUNK);
        stream.write_all(&chunk[..now]).expect("send");
        left -= now;
    }
}

/// How many bytes came, each of which was the one expected.
fn receive_stream(mut stream: TcpStream, seed: u64) -> usize {
    let mut stream_of = Bytes(seed);
    let (mut expected, mut chunk) = ([0; CHUNK], [0; CHUNK]);
    let mut total = 0;
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match stream.read(&mut chunk[filled..]).expect("receive") {
                0 => break,
                count => filled += count,
            }
        }
        stream_of.fill(&mut expected);
        assert!(
            chunk[..filled] == expected[..filled],
            "content differs after {total} bytes"
        );
        total += filled;
        if filled < CHUNK {
            return total;
        }
    }
}

/// Bytes that no part of repeats another (SplitMix64).
struct Bytes(u64);

impl Bytes {
    fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.as_chunks_mut::<8>().0 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
    }
}
