//! Where a frame is from, and what it begins with.

use crate::wire::MacAddr;

/// A port's number within a node, the same in every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// What a port's frames begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header; the address is the device's own.
    Ethernet(MacAddr),
    /// An IP header: a TUN device.
    Ip,
}
