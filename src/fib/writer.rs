//! The one writer: the routes themselves, and the updates of the tables that follow from them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::update::{Pool, Prefix, Update};
use super::{Fib, FibError, Grace, NextHop};

/// Inserts and removes routes. It is neither `Clone` nor shared: there is one writer.
///
/// An update takes time in proportion to the table entries that the prefix covers: under a
/// microsecond for most, up to 65,536 entries and the blocks below for a /1, and, in IPv4, the 8,388,608
/// answers by 24 bits (some 10 ms). Bulk loading is a loop of [`FibWriter::insert`].
///
/// A next hop must be usable by every reader before a route to it is inserted, and as long as a
/// reader may still hold it: insert after all workers have passed a batch with the adjacency in
/// their snapshot, and drop the adjacency after they have passed one without the route.
pub struct FibWriter {
    fib: Arc<Fib>,
    routes_v4: PrefixMap<Ipv4Net, NextHop>,
    routes_v6: PrefixMap<Ipv6Net, NextHop>,
    pool_v4: Pool,
    pool_v6: Pool,
    grace: Box<dyn Grace>,
}

/// How full the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FibStats {
    /// IPv4 routes.
    pub routes_v4: usize,
    /// IPv6 routes.
    pub routes_v6: usize,
    /// Blocks of 256 entries (1 KiB each) in the IPv4 table.
    pub blocks_v4: usize,
    /// Blocks of 256 entries (1 KiB each) in the IPv6 table.
    pub blocks_v6: usize,
    /// Blocks out of both tables that wait for readers to pass a quiescent state.
    pub blocks_waiting: usize,
    /// Blocks of both tables that can be used again at once.
    pub blocks_free: usize,
}

impl FibWriter {
    pub(super) fn new(fib: Arc<Fib>, grace: Box<dyn Grace>) -> Self {
        Self {
            fib,
            routes_v4: PrefixMap::new(),
            routes_v6: PrefixMap::new(),
            pool_v4: Pool::default(),
            pool_v6: Pool::default(),
            grace,
        }
    }

    /// The tables that this writer writes to.
    pub fn fib(&self) -> &Arc<Fib> {
        &self.fib
    }

    /// Adds a route, or points the one that is there to another next hop, which is returned. Host
    /// bits of `net` are ignored.
    ///
    /// # Errors
    /// The next hop is larger than [`NextHop::MAX`], or the table has no room; nothing is changed.
    pub fn insert(&mut self, net: IpNet, next_hop: NextHop) -> Result<Option<NextHop>, FibError> {
        if next_hop > NextHop::MAX {
            return Err(FibError::NextHopOutOfRange(next_hop.0, net));
        }
        let net = net.trunc();
        if !self.update_of(&net).has_room() {
            return Err(FibError::Full(net));
        }
        let previous = match net {
            IpNet::V4(net) => self.routes_v4.insert(net, next_hop),
            IpNet::V6(net) => self.routes_v6.insert(net, next_hop),
        };
        if previous != Some(next_hop) {
            let is_new = previous.is_none();
            self.update_of(&net)
                .insert(prefix_of(&net), next_hop, is_new);
        }
        Ok(previous)
    }

    /// Removes a route and returns its next hop. Host bits of `net` are ignored.
    pub fn remove(&mut self, net: &IpNet) -> Option<NextHop> {
        let net = net.trunc();
        let (removed, covering) = match &net {
            IpNet::V4(net) => remove_from(&mut self.routes_v4, net),
            IpNet::V6(net) => remove_from(&mut self.routes_v6, net),
        };
        removed?;
        self.update_of(&net).remove(prefix_of(&net), covering);
        removed
    }

    /// The next hop of exactly this route. Host bits of `net` are ignored.
    pub fn get(&self, net: &IpNet) -> Option<NextHop> {
        match net.trunc() {
            IpNet::V4(net) => self.routes_v4.get(&net).copied(),
            IpNet::V6(net) => self.routes_v6.get(&net).copied(),
        }
    }

    /// All routes, IPv4 before IPv6, in lexicographic order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, NextHop)> + '_ {
        let v4 = self.routes_v4.iter().map(|(net, &to)| (net.into(), to));
        let v6 = self.routes_v6.iter().map(|(net, &to)| (net.into(), to));
        v4.chain(v6)
    }

    /// The routes to a prefix and to all within it, in lexicographic order.
    pub fn within(&self, net: &IpNet) -> impl Iterator<Item = (IpNet, NextHop)> + '_ {
        let (v4, v6) = match net.trunc() {
            IpNet::V4(net) => (Some(self.routes_v4.children(&net)), None),
            IpNet::V6(net) => (None, Some(self.routes_v6.children(&net))),
        };
        let v4 = v4.into_iter().flatten().map(|(net, &to)| (net.into(), to));
        let v6 = v6.into_iter().flatten().map(|(net, &to)| (net.into(), to));
        v4.chain(v6)
    }

    /// How many routes there are, of both families.
    pub fn len(&self) -> usize {
        self.routes_v4.len() + self.routes_v6.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// New tables with the same routes, and their one writer, for when most of what these have taken is
    /// free: blocks, once taken, are reused and never given back. Readers are to be pointed to the new ones,
    /// and let go of the old.
    pub fn rebuilt(&self, grace: impl Grace + 'static) -> Result<(Arc<Fib>, Self), FibError> {
        let (fib, mut writer) = Fib::new(grace);
        for (net, next_hop) in self.iter() {
            writer.insert(net, next_hop)?;
        }
        Ok((fib, writer))
    }

    /// How full the tables are.
    pub fn stats(&self) -> FibStats {
        FibStats {
            routes_v4: self.routes_v4.len(),
            routes_v6: self.routes_v6.len(),
            blocks_v4: self.pool_v4.in_use(),
            blocks_v6: self.pool_v6.in_use(),
            blocks_waiting: self.pool_v4.waiting() + self.pool_v6.waiting(),
            blocks_free: self.pool_v4.free() + self.pool_v6.free(),
        }
    }

    fn update_of(&mut self, net: &IpNet) -> Update<'_> {
        let (table, direct, pool) = match net {
            IpNet::V4(_) => (&self.fib.v4, Some(&self.fib.direct), &mut self.pool_v4),
            IpNet::V6(_) => (&self.fib.v6, None, &mut self.pool_v6),
        };
        Update {
            table,
            direct,
            pool,
            grace: &*self.grace,
        }
    }
}

impl std::fmt::Debug for FibWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FibWriter").field(&self.stats()).finish()
    }
}

/// Removes a route; what it pointed to, and the length and next hop of the route that covers it.
fn remove_from<P>(
    routes: &mut PrefixMap<P, NextHop>,
    net: &P,
) -> (Option<NextHop>, Option<(u8, NextHop)>)
where
    P: prefix_trie::Prefix,
{
    let removed = routes.remove(net);
    let covering = routes.get_lpm(net);
    (removed, covering.map(|(net, &to)| (net.prefix_len(), to)))
}

fn prefix_of(net: &IpNet) -> Prefix {
    let bits = match net.network() {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let length = net.prefix_len();
    Prefix { bits, length }
}
