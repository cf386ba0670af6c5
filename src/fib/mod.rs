//! Longest-prefix match: from a destination to a next hop.
//!
//! Readers are lock-free and many; there is one writer, which changes the tables in place.
//!
//! # Shape
//!
//! Both families use the same table: 2¹⁶ entries indexed by an address's first 16 bits,
//! and blocks of 256 entries for each further 8 bits. A block is reached past levels at which there
//! is nothing to decide, so a look-up of a /128 in an otherwise empty /48 reads three entries and
//! not fifteen.
//!
//! Beside the table, IPv4's answers by the first 24 bits are in an array, as in DIR-24-8 (Gupta, Lin,
//! McKeown, "Routing Lookups in Hardware at Memory Access Speeds", INFOCOM 1998), but of two bytes each:
//! [`direct`] is where IPv4 look-ups begin, and where almost all of them end. The table is what the
//! array follows from (perf/README.md has the figures of both).
//!
//! An entry is either a leaf (next hop and the length of the prefix that it comes from) or a block.
//! Leaves are pushed down: the entry that a look-up ends at is its answer. The prefix length tells
//! the writer which entries an update may overwrite, so neither an insert nor a removal needs to
//! visit the more specific routes one by one. A default route is kept beside the table, not in it.
//!
//! # What a reader sees
//!
//! Each update changes what an address resolves to by exactly one atomic store ([`direct`] has the one
//! exception: next hops and blocks of numbers that two bytes do not hold). A reader gets, for
//! each address, the answer from before or after each update; never a miss in between. A block that
//! was taken out of the table is filled anew only after every reader has passed a quiescent state,
//! which the writer learns from a [`Grace`].

mod address;
mod blocks;
mod direct;
mod entry;
mod pages;
mod table;
mod update;
mod writer;

use std::hint::select_unpredictable;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use direct::Direct;
use entry::Entry;
use table::Table;
pub use writer::{FibStats, FibWriter};

/// What a route points to: the index of an adjacency in the forwarding snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop(pub u32);

impl NextHop {
    /// The largest next hop that a table can hold: an entry has 23 bits for it.
    pub const MAX: Self = Self((1 << 23) - 1);
}

/// What a look-up in a batch found: four bytes, of which zero is that there is no route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer(u32);

impl Answer {
    /// There is no route.
    pub const NONE: Self = Self(0);

    /// Where the route points to, if there is one.
    #[inline]
    pub const fn next_hop(self) -> Option<NextHop> {
        match self.0.checked_sub(1) {
            Some(index) => Some(NextHop(index)),
            None => None,
        }
    }

    /// This one, or the other if this is none. Without a branch: which it is, is often unpredictable.
    #[inline]
    fn or(self, other: Self) -> Self {
        select_unpredictable(self.0 == 0, other, self)
    }
}

/// Why a route could not be inserted. The tables are as they were before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FibError {
    /// The next hop does not fit into an entry.
    #[error("next hop {0} of route {1} is out of range; the largest is {max}", max = NextHop::MAX.0)]
    NextHopOutOfRange(u32, ipnet::IpNet),
    /// All 2²² block numbers are in use.
    #[error("no room for route {0}: all blocks of the table are in use; remove routes first")]
    Full(ipnet::IpNet),
}

/// How the writer learns that no reader can still hold what it took out of the table.
///
/// Implemented by the domain in which the readers are registered. With an implementation that
/// answers too early, a reader may get another destination's next hop; it cannot reach freed
/// memory.
pub trait Grace: Send {
    /// A ticket for the readers of this moment; tickets never decrease.
    fn start(&self) -> u64;

    /// Whether every reader that was active at [`Grace::start`] has since been through a quiescent
    /// state. Whatever those readers did before happened before this returns true.
    fn passed(&self, ticket: u64) -> bool;
}

/// The tables that readers share.
///
/// A fresh one takes next to no memory: a page is taken when a route first writes to it.
///
/// A thread that looks up while the writer works must be a registered reader of the writer's
/// [`Grace`] domain, and must pass no quiescent state within a look-up.
#[derive(Debug)]
pub struct Fib {
    v4: Table,
    direct: Direct,
    v6: Table,
}

impl Fib {
    /// Empty tables, and the one writer to them. `grace` speaks for the readers.
    pub fn new(grace: impl Grace + 'static) -> (Arc<Self>, FibWriter) {
        let fib = Arc::new(Self {
            v4: Table::new(),
            direct: Direct::new(),
            v6: Table::new(),
        });
        let writer = FibWriter::new(Arc::clone(&fib), Box::new(grace));
        (fib, writer)
    }

    /// The next hop of the longest prefix that covers `destination`.
    ///
    /// What the writer's thread wrote before it inserted that route is visible to the caller.
    #[inline]
    pub fn lookup_v4(&self, destination: Ipv4Addr) -> Option<NextHop> {
        self.direct.look_up(&self.v4, destination).next_hop()
    }

    /// As [`Fib::lookup_v4`].
    #[inline]
    pub fn lookup_v6(&self, destination: Ipv6Addr) -> Option<NextHop> {
        self.v6.look_up(destination).next_hop()
    }

    /// Looks up many destinations at once, so that their cache misses overlap: `answers[i]` is what
    /// [`Fib::lookup_v4`] says of `destinations[i]`. The shorter slice decides how many.
    pub fn lookup_v4_batch(&self, destinations: &[Ipv4Addr], answers: &mut [Answer]) {
        self.direct.look_up_batch(&self.v4, destinations, answers);
    }

    /// As [`Fib::lookup_v4_batch`].
    pub fn lookup_v6_batch(&self, destinations: &[Ipv6Addr], answers: &mut [Answer]) {
        self.v6.look_up_batch(destinations, answers);
    }
}
