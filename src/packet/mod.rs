//! Packets in memory: frames with headroom, pools they come from, and why one is dropped.

mod drop_reason;
mod frame;
mod link;
mod pool;

pub use drop_reason::DropReason;
pub use frame::Frame;
pub use link::{Link, PortId};
pub use pool::FramePool;

/// Frames that one receive call takes at most, and one transmit call is given at most.
pub const BATCH: usize = 64;

/// Free bytes before a received packet: the largest outer header that is ever pushed (Ethernet 14,
/// 802.1Q 4, IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14) is 88.
///
/// With 50 more, what VXLAN puts before a packet that came in an Ethernet frame (64 bytes) is one cache
/// line: a header that lies across two made encapsulation half as slow again.
pub const HEADROOM: usize = KERNEL_HEADROOM + 50;

/// What the kernel leaves free in AF_XDP's frames by itself (linux/bpf.h, `XDP_PACKET_HEADROOM`).
pub const KERNEL_HEADROOM: usize = 256;

/// Frames on their way from one stage to the next; at most [`BATCH`] when received from a port.
///
/// A plain vector whose capacity is reserved once: pushing within it does not allocate.
pub type Batch = Vec<Frame>;
