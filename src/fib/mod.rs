//! Longest-prefix match: from a destination to a next hop.
//!
//! Readers are lock-free and many; there is one writer.

/// What a route points to: the index of an adjacency in the forwarding snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop(pub u32);
