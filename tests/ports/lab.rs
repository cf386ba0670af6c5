//! A place for one test.
//!
//! ```text
//!  the test's thread, in a network and a mount namespace of its own
//!    near0 ────────── far0 ┐
//!    near1 ────────── far1 ┴ namespace "far"
//! ```
//!
//! Nothing outlives the test, not even a killed one: namespaces without a file go with the thread, and
//! the files of named ones are on a file system that is mounted only here.
#![allow(unsafe_code)] // AF_PACKET sockets, which neither std nor nix binds safely.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use underpass::packet::{Batch, FramePool, HEADROOM};
use underpass::port::xdp::{UmemOptions, WorkerUmem, XdpOptions, XdpPort};
use underpass::port::{Port, PortError, PortId};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in namespaces of its own; without root it says so and returns.
pub fn run(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: this test makes network namespaces, which needs root");
        return;
    }
    thread::scope(|scope| {
        let outcome = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
            sh("mount --make-rprivate /");
            sh("mount -t sysfs sysfs /sys");
            sh("mkdir -p /run/netns");
            sh("mount -t tmpfs tmpfs /run/netns");
            sh("ip link set lo up");
            sh("ip netns add far");
            test();
        });
        if let Err(panic) = outcome.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a command line, which must succeed, and returns what it printed.
pub fn sh(line: &str) -> String {
    let output = try_sh(line);
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command line.
pub fn try_sh(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().expect("sh")
}

/// Makes veth pair `near{n}`–`far{n}` of `queues` queues, up, the far end in namespace "far".
pub fn veth(n: u32, queues: u32) {
    sh(&format!(
        "ip link add near{n} numrxqueues {queues} numtxqueues {queues} address 02:00:00:00:00:1{n} type veth \
         peer name far{n} numrxqueues {queues} numtxqueues {queues} address 02:00:00:00:00:2{n} netns far"
    ));
    // No address is made up by the kernel, so nothing is sent that the test did not send.
    sh(&format!("ip link set near{n} addrgenmode none up"));
    sh(&format!("ip -n far link set far{n} addrgenmode none up"));
    // An AF_XDP receiver is given finished checksums only by senders that finish them.
    sh(&format!(
        "ip netns exec far ethtool -K far{n} tx off >/dev/null 2>&1 || true"
    ));
}

/// A worker's memory and its pool.
pub fn memory(queues: u32) -> (WorkerUmem, FramePool) {
    let options = UmemOptions {
        ring_size: 512,
        frames: 4096 * queues,
        ..UmemOptions::for_queues(queues)
    };
    memory_of(&options)
}

/// A worker's memory, and its pool, by these options.
pub fn memory_of(options: &UmemOptions) -> (WorkerUmem, FramePool) {
    let (umem, frames) = WorkerUmem::new(options).expect("UMEM");
    (umem, FramePool::new(frames, HEADROOM))
}

/// Opens `interface` with one ring size for all tests.
pub fn open(
    interface: &str,
    queues: std::ops::Range<u32>,
    umem: &WorkerUmem,
    pool: &mut FramePool,
) -> Result<XdpPort, PortError> {
    let options = XdpOptions {
        interface: interface.to_owned(),
        queues,
        ring_size: 512,
    };
    XdpPort::open(PortId(7), &options, umem, pool)
}

/// Receives until `count` frames are there or patience ends.
pub fn receive(port: &mut impl Port, pool: &mut FramePool, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut batch = Batch::new();
    let end = Instant::now() + PATIENCE;
    while frames.len() < count && Instant::now() < end {
        port.rx(pool, &mut batch).expect("rx");
        for frame in batch.drain(..) {
            frames.push(frame.bytes().to_vec());
            pool.give(frame);
        }
    }
    frames
}

/// A raw socket on one device, for frames as they are on the wire.
pub struct Wire(File);

impl Wire {
    /// On a device of the test's own namespace.
    pub fn near(device: &str) -> Self {
        Self::open(device).expect("packet socket")
    }

    /// On a device of namespace "far".
    pub fn far(device: &str) -> Self {
        in_far(|| Self::open(device).expect("packet socket"))
    }

    pub fn send(&mut self, frame: &[u8]) {
        let sent = self.0.write(frame).expect("send");
        assert_eq!(sent, frame.len());
    }

    /// The next frame for which `wanted` is true, or nothing when `wait` is over.
    pub fn receive(&mut self, wait: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65536];
        let end = Instant::now() + wait;
        while Instant::now() < end {
            match self.0.read(&mut buffer) {
                Ok(length) if wanted(&buffer[..length]) => return Some(buffer[..length].to_vec()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("packet socket: {error}"),
            }
        }
        None
    }

    /// Sends all frames with one system call, past the queueing discipline, and says how many went.
    pub fn send_many(&mut self, frames: &[Vec<u8>]) -> usize {
        // All of them then leave by the queue of this CPU.
        set_option(&self.0, libc::SOL_PACKET, PACKET_QDISC_BYPASS, &1_i32).unwrap();
        let mut parts: Vec<_> = frames
            .iter()
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: mmsghdr is numbers and pointers, for which zero is valid.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let count = messages.len() as u32;
        // SAFETY: headers, parts and frames outlive the call, which only reads the frames.
        let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        usize::try_from(sent).unwrap_or(0)
    }

    pub fn open(device: &str) -> io::Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a system call with plain numbers.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = nix::net::if_::if_nametoindex(device)?;
        // SAFETY: sockaddr_ll is plain numbers, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is of that length and outlives the call.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                length,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        set_option(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            &(32_i32 << 20),
        )?;
        set_option(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32)?;
        let tick = libc::timeval {
            tv_sec: 0,
            tv_usec: 20_000,
        };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &tick)?;
        Ok(Self(File::from(socket)))
    }
}

const PACKET_QDISC_BYPASS: i32 = 20;
const PACKET_IGNORE_OUTGOING: i32 = 23;

fn set_option<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is of that length and outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs `action` in namespace "far", in a thread that ends with it.
pub fn in_far<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let far = File::open("/run/netns/far").expect("namespace far");
            setns(far, CloneFlags::CLONE_NEWNET).expect("setns");
            action()
        });
        thread.join().expect("thread in far")
    })
}

/// An Ethernet frame to `near0` of a type for experiments, whose bytes depend on `seed`.
pub fn frame(length: usize, seed: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 0x20, 0x88, 0xb5];
    frame.extend_from_slice(&seed.to_be_bytes());
    frame.extend(
        (frame.len()..length).map(|n| (n as u32).wrapping_mul(31).wrapping_add(seed) as u8),
    );
    frame
}

/// Whether a frame is one of [`frame`]'s.
pub fn is_test_frame(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

/// An Ethernet frame from `far0` to `near0` with a UDP datagram, as scapy builds it but for the UDP
/// checksum, which is left out.
pub fn udp(source_port: u16, payload: u32) -> Vec<u8> {
    let builder =
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x20], [2, 0, 0, 0, 0, 0x10])
            .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
            .udp(source_port, 5000);
    let payload = payload.to_be_bytes();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &payload).expect("etherparse");
    bytes.resize(60, 0);
    bytes
}
