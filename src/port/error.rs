//! Why a port could not be opened, and what would be right.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The name cannot be an interface's.
    #[error(
        "'{name}' cannot be an interface's name; write 1 to 15 bytes without '/', '%', ':' or spaces"
    )]
    InvalidName {
        /// The name as given.
        name: String,
    },
    /// No interface has that name.
    #[error("there is no interface '{name}'; there are: {}", .present.join(", "))]
    NoSuchInterface {
        /// The name as given.
        name: String,
        /// The interfaces of this network namespace.
        present: Vec<String>,
    },
    /// The kernel would not tell about an interface.
    #[error("cannot read the properties of '{interface}' by netlink: {source}")]
    Query {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device exists, and sysfs does not show it.
    #[error(
        "/sys/class/net does not show '{interface}', as /sys is of another network namespace; start \
         underpass by 'ip netns exec', or mount sysfs anew"
    )]
    ForeignSysfs {
        /// The interface.
        interface: String,
    },
    /// The device has no Ethernet header.
    #[error("'{interface}' is no Ethernet device; AF_XDP ports and TAPs need one")]
    NotEthernet {
        /// The interface.
        interface: String,
    },
    /// The device has fewer receive queues than were asked for.
    #[error(
        "'{interface}' has {present} receive queue(s), numbered from 0, and queues {}..{} were asked \
         for; use at most {present} worker(s) or raise the number of channels (ethtool -L \
         {interface} combined N)", .wanted.start, .wanted.end
    )]
    TooFewQueues {
        /// The interface.
        interface: String,
        /// The queues asked for, from 0.
        wanted: Range<u32>,
        /// How many receive queues the device has.
        present: u32,
    },
    /// A port without a queue.
    #[error("no queue of '{interface}' was asked for; a port needs at least one")]
    NoQueues {
        /// The interface.
        interface: String,
    },
    /// Packets of the device's MTU do not fit into a frame.
    #[error(
        "'{interface}' has MTU {mtu}, and frames of {frame_size} bytes hold an MTU of {largest} at \
         most (a packet is never spread over several frames); lower the MTU: ip link set {interface} \
         mtu {largest}"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// A frame's whole buffer in bytes.
        frame_size: usize,
        /// The largest MTU that fits, in bytes.
        largest: usize,
    },
    /// The process may not do this.
    #[error(
        "no permission {what}; run as root or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON"
    )]
    NoPermission {
        /// What was not allowed: "to …".
        what: String,
    },
    /// The kernel was built without AF_XDP.
    #[error(
        "this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS); use a kernel that has or TAP ports"
    )]
    NoAfXdp,
    /// A ring size or frame size that the kernel would not take.
    #[error("{what} is {given}; it must be a power of two from {least} to {most}")]
    BadSize {
        /// What the size is of.
        what: &'static str,
        /// The size as given.
        given: u32,
        /// The smallest size allowed.
        least: u32,
        /// The largest size allowed.
        most: u32,
    },
    /// The frames' memory could not be had or registered.
    #[error("cannot register {frames} frames of {frame_size} bytes with the kernel: {reason}")]
    Umem {
        /// How many frames.
        frames: u32,
        /// A frame's size in bytes.
        frame_size: u32,
        /// What the kernel said.
        reason: String,
    },
    /// The pool has too few free frames.
    #[error(
        "{available} frame(s) are free for '{interface}' and {needed} are needed at least; create the \
         worker's memory with more frames"
    )]
    PoolTooSmall {
        /// The interface.
        interface: String,
        /// Free frames that the port can use.
        available: usize,
        /// The least that the port needs.
        needed: usize,
    },
    /// An AF_XDP socket is bound to the queue already.
    #[error(
        "queue {queue} of '{interface}' has an AF_XDP socket already; close the program that holds \
         it, or leave this queue out"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue, from 0.
        queue: u32,
    },
    /// The device that the worker's first socket was bound to has gone.
    #[error(
        "no socket can join this worker's frames any more: '{anchor}', which they were first used \
         with, has gone; restart the worker, and open the device that lives longest first"
    )]
    AnchorGone {
        /// The device of the first socket.
        anchor: String,
    },
    /// The kernel refused an AF_XDP socket.
    #[error("cannot open an AF_XDP socket on queue {queue} of '{interface}': {source}")]
    Socket {
        /// The interface.
        interface: String,
        /// The queue, from 0.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else's XDP program is on the device.
    #[error(
        "'{interface}' has an XDP program already: {program}; remove it (ip link set {interface} xdp \
         off, or end the program that holds it) or choose another interface"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// What is known of the program: id, name, and whose it is if it is one of this router's.
        program: String,
    },
    /// The fast path cannot be had.
    #[error("no fast path: {reason}")]
    FastPath {
        /// What stands in the way.
        reason: String,
    },
    /// The XDP program could not be loaded or attached.
    #[error("cannot steer packets of '{interface}' into AF_XDP: {reason}")]
    Steering {
        /// The interface.
        interface: String,
        /// What failed and why.
        reason: String,
    },
    /// There is no TUN/TAP driver.
    #[error(
        "/dev/net/tun cannot be opened ({source}); load the driver (modprobe tun) or, in a container, \
         pass the device in"
    )]
    NoTunDriver {
        /// What opening it gave.
        source: io::Error,
    },
    /// Another process has the device open.
    #[error("'{interface}' is open in another process; end that process or choose another name")]
    DeviceBusy {
        /// The interface.
        interface: String,
    },
    /// The name is taken by a device of another kind.
    #[error(
        "'{interface}' exists and is not a single-queue {wanted} device; remove it (ip link del \
         {interface}) or choose another name"
    )]
    DeviceKind {
        /// The interface.
        interface: String,
        /// `TUN` or `TAP`.
        wanted: &'static str,
    },
    /// The TUN or TAP device could not be opened.
    #[error("cannot open {kind} device '{interface}': {source}")]
    TunTap {
        /// The interface.
        interface: String,
        /// `TUN` or `TAP`.
        kind: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A workload's unix socket could not be made.
    #[error(
        "cannot listen at {} for the workload of '{name}': {source}; name a path in a directory that \
         underpass may write to, at which nobody else listens", .path.display()
    )]
    UnixSocket {
        /// The port.
        name: String,
        /// The socket's path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error(
        "cannot enter network namespace '{name}' (/var/run/netns/{name}): {source}; 'ip netns' lists those that exist"
    )]
    Namespace {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}
