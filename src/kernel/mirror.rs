//! A mirror of the host's links, addresses, neighbours and main routing table, and of another table if
//! one is followed.
//!
//! The mirror listens first and lists second, so nothing falls between; an announcement that is older
//! than the listing is followed by the newer ones, and the mirror ends where the kernel is. What the
//! kernel does not announce is read anew:
//!
//! * IPv4 routes go without a word with the link, the carrier, the address or the next-hop object that
//!   they depend on (kernel, net/ipv4/fib_semantics.c, `fib_sync_down_dev`, `fib_sync_down_addr`);
//! * a veth's peer, of the end that is made first;
//! * everything, once the receive buffer has run over (ENOBUFS).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, route};

use super::netlink::{Event, EventSocket, Netlink, Received};
use super::route_table::{Applied, RouteTable};
use super::state::{Address, Link, NeighbourEntry, Route};
use super::{Result, links};

/// A mirror of one network namespace.
pub struct Mirror {
    pub(super) netlink: Netlink,
    events: EventSocket,
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, Vec<Address>>,
    neighbours: BTreeMap<(u32, IpAddr), NeighbourEntry>,
    pub(super) routes: RouteTable,
    /// Another table that is followed.
    followed: Option<Followed>,
    pub(super) ignored: BTreeSet<String>,
    pub(super) reached_by: BTreeMap<IpAddr, IpAddr>,
    unknown: Unknown,
    touched: Touched,
}

/// A table beside the main one.
struct Followed {
    number: u32,
    routes: RouteTable,
    touched: Touched,
}

/// Destinations whose routes may be others than before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// These.
    pub destinations: BTreeSet<IpNet>,
    /// And any other, too: routes went unannounced, or more changed than is worth a list.
    pub everything: bool,
}

/// What [`Mirror::process`] found changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Links came, went or changed.
    pub links: bool,
    /// Addresses came, went or changed.
    pub addresses: bool,
    /// Neighbours came, went or changed.
    pub neighbours: bool,
    /// Routes of the main table came, went or changed.
    pub routes: bool,
    /// Names of the interfaces whose link, addresses or neighbours changed; the last name of one that
    /// is gone.
    pub interfaces: BTreeSet<String>,
    /// Announcements were lost, and everything was read anew.
    pub overrun: bool,
    /// More announcements wait: call again before sleeping on the descriptor.
    pub more: bool,
}

impl Changes {
    /// Whether anything changed.
    pub fn any(&self) -> bool {
        self.links || self.addresses || self.neighbours || self.routes
    }
}

impl Mirror {
    /// Room for announcements in bytes: about 40,000 routes (measured on Linux 6.18) between two calls
    /// of [`Mirror::process`].
    pub const RECEIVE_BUFFER: usize = 16 << 20;

    /// Mirrors the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Self::with_receive_buffer(Self::RECEIVE_BUFFER)
    }

    /// As [`Mirror::open`], with room for `bytes` of announcements.
    pub fn with_receive_buffer(bytes: usize) -> Result<Self> {
        let mut mirror = Self {
            events: EventSocket::open(bytes)?,
            netlink: Netlink::open()?,
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            routes: RouteTable::default(),
            followed: None,
            ignored: BTreeSet::new(),
            reached_by: BTreeMap::new(),
            unknown: Unknown::EVERYTHING,
            touched: Touched::default(),
        };
        mirror.read_unknown(&mut Changes::default())?;
        Ok(mirror)
    }

    /// A descriptor that is readable when [`Mirror::process`] has something to do.
    pub fn fd(&self) -> RawFd {
        self.events.fd()
    }

    /// Takes in what the kernel has announced, without waiting for more, and says what changed.
    ///
    /// # Errors
    /// If the kernel cannot be asked; what was to be read is then read by the next call.
    pub fn process(&mut self) -> Result<Changes> {
        /// So that a flood of changes cannot keep the caller here for ever.
        const DATAGRAMS: usize = 4096;
        let mut changes = Changes {
            more: true,
            ..Changes::default()
        };
        for _ in 0..DATAGRAMS {
            match self.events.receive()? {
                Received::Nothing => {
                    changes.more = false;
                    break;
                }
                Received::Overrun => {
                    self.unknown = Unknown::EVERYTHING;
                    changes.overrun = true;
                }
                Received::Events(events) => {
                    for event in events {
                        self.follow(event, &mut changes);
                    }
                }
            }
        }
        if !changes.more {
            self.read_unknown(&mut changes)?;
        }
        Ok(changes)
    }

    /// All links, by number.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The link with this number.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The link with this name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The addresses of an interface, in the kernel's order.
    pub fn addresses(&self, interface: u32) -> &[Address] {
        self.addresses.get(&interface).map_or(&[], Vec::as_slice)
    }

    /// Whether an address is one of this host's.
    pub fn is_local(&self, address: IpAddr) -> bool {
        let mut all = self.addresses.values().flatten();
        all.any(|own| own.address.addr() == address)
    }

    /// All neighbours, by interface and address.
    pub fn neighbours(&self) -> impl Iterator<Item = &NeighbourEntry> {
        self.neighbours.values()
    }

    /// What is known of one neighbour.
    pub fn neighbour(&self, interface: u32, address: IpAddr) -> Option<&NeighbourEntry> {
        self.neighbours.get(&(interface, address))
    }

    /// All routes of the main table, IPv4 first.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// The routes of the main table to exactly this destination, the most preferred first.
    pub fn routes_to(&self, destination: IpNet) -> &[Route] {
        self.routes.exactly(destination)
    }

    /// Mirrors a table beside the main one from now on.
    ///
    /// # Errors
    /// If the kernel cannot be asked; what was to be read is then read by [`Mirror::process`].
    pub fn follow_table(&mut self, number: u32) -> Result<()> {
        if number != MAIN_TABLE {
            self.followed = Some(Followed {
                number,
                routes: RouteTable::default(),
                touched: Touched::default(),
            });
            self.unknown.routes = true;
        }
        self.read_unknown(&mut Changes::default())
    }

    /// The routes of a table, the main one or the one that is followed, IPv4 first.
    pub fn routes_of(&self, table: u32) -> impl Iterator<Item = &Route> {
        self.table(table).into_iter().flat_map(RouteTable::iter)
    }

    /// The routes of such a table to exactly this destination, the most preferred first.
    pub fn routes_of_to(&self, table: u32, destination: IpNet) -> &[Route] {
        let table = self.table(table);
        table.map_or(&[], |table| table.exactly(destination))
    }

    /// The destinations whose routes in the main table [`Mirror::process`] found changed since the last
    /// call of this.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// The same for the table that is followed.
    pub fn take_followed_touched(&mut self) -> Touched {
        let followed = self.followed.as_mut();
        followed.map_or_else(Touched::default, |followed| {
            std::mem::take(&mut followed.touched)
        })
    }

    /// Has [`Mirror::resolve_underlay`] reach these addresses as it reaches another one, a gateway to each.
    pub fn set_reached_by(&mut self, gateways: BTreeMap<IpAddr, IpAddr>) {
        self.reached_by = gateways;
    }

    /// Keeps [`Mirror::resolve_underlay`] away from an interface, by name, whether it exists now or
    /// comes later: our own TUN, whose routes cover what the underlay is to carry.
    pub fn ignore_interface(&mut self, name: impl Into<String>) {
        self.ignored.insert(name.into());
    }
}

/// What the mirror cannot know from announcements and has to read.
#[derive(Clone, Copy, Default)]
struct Unknown {
    links: bool,
    addresses: bool,
    neighbours: bool,
    routes: bool,
}

impl Unknown {
    const EVERYTHING: Self = Self {
        links: true,
        addresses: true,
        neighbours: true,
        routes: true,
    };
}

// Following announcements.
impl Mirror {
    fn follow(&mut self, event: Event, changes: &mut Changes) {
        use RouteNetlinkMessage as Message;
        let (message, flags) = match event {
            Event::Changed { message, flags } => (message, flags),
            Event::NextHopDeleted => {
                self.unknown.routes = true;
                return;
            }
        };
        match message {
            Message::NewLink(message) => self.link_announced(message, changes),
            Message::DelLink(message) => self.link_withdrawn(message, changes),
            Message::NewAddress(message) => self.address_announced(message, changes),
            Message::DelAddress(message) => self.address_withdrawn(message, changes),
            Message::NewNeighbour(message) => self.neighbour_announced(message, changes),
            Message::DelNeighbour(message) => self.neighbour_withdrawn(message, changes),
            Message::NewRoute(message) => {
                self.route_changed(message, changes, |table, route| {
                    table.announce(route, flags & NLM_F_REPLACE)
                });
            }
            Message::DelRoute(message) => {
                self.route_changed(message, changes, |table, route| table.withdraw(&route));
            }
            _ => {}
        }
    }

    fn link_announced(&mut self, message: LinkMessage, changes: &mut Changes) {
        let Some(link) = Link::from_message(message) else {
            return;
        };
        let old = self.links.get(&link.index);
        if old == Some(&link) {
            return;
        }
        // The first end of a veth pair is announced before it has a peer, and not again after.
        self.unknown.links |= link.is_veth() && link.parent.is_none();
        let state = |link: &Link| (link.up, link.running);
        if old.is_some_and(|old| state(old) != state(&link)) && self.has_routes(link.index) {
            self.unknown.routes = true;
        }
        changes.links = true;
        changes.interfaces.insert(link.name.clone());
        changes.interfaces.extend(old.map(|old| old.name.clone()));
        self.links.insert(link.index, link);
    }

    fn link_withdrawn(&mut self, message: LinkMessage, changes: &mut Changes) {
        // A bridge announces so that a port left it.
        if message.header.interface_family != AddressFamily::Unspec {
            return;
        }
        let index = message.header.index;
        let Some(link) = self.links.remove(&index) else {
            return;
        };
        changes.links = true;
        changes.interfaces.insert(link.name);
        changes.addresses |= self.addresses.remove(&index).is_some();
        let neighbours = self.neighbours.len();
        self.neighbours
            .retain(|(interface, _), _| *interface != index);
        changes.neighbours |= self.neighbours.len() != neighbours;
        self.unknown.routes |= self.has_routes(index);
    }

    fn address_announced(&mut self, message: AddressMessage, changes: &mut Changes) {
        let Some(address) = Address::from_message(message) else {
            return;
        };
        let addresses = self.addresses.entry(address.interface).or_default();
        match addresses.iter_mut().find(|old| same_address(old, &address)) {
            Some(old) if *old == address => return,
            Some(old) => *old = address.clone(),
            None => addresses.push(address.clone()),
        }
        changes.addresses = true;
        self.name_interface(address.interface, changes);
    }

    fn address_withdrawn(&mut self, message: AddressMessage, changes: &mut Changes) {
        let Some(address) = Address::from_message(message) else {
            return;
        };
        let interface = address.interface;
        let Some(addresses) = self.addresses.get_mut(&interface) else {
            return;
        };
        let count = addresses.len();
        addresses.retain(|old| !same_address(old, &address));
        if addresses.len() == count {
            return;
        }
        if addresses.is_empty() {
            self.addresses.remove(&interface);
        }
        changes.addresses = true;
        self.name_interface(interface, changes);
        // The last address takes all of the interface's IPv4 routes along, each one those with it as
        // their source.
        let own = address.address.addr();
        self.unknown.routes |= own.is_ipv4()
            && (self.has_routes(interface) || self.all_routes().any(|r| r.source == Some(own)));
    }

    fn neighbour_announced(&mut self, message: NeighbourMessage, changes: &mut Changes) {
        let Some(neighbour) = NeighbourEntry::from_message(message) else {
            return;
        };
        let interface = neighbour.interface;
        let key = (interface, neighbour.address);
        if self.neighbours.get(&key) != Some(&neighbour) {
            self.neighbours.insert(key, neighbour);
            changes.neighbours = true;
            self.name_interface(interface, changes);
        }
    }

    fn neighbour_withdrawn(&mut self, message: NeighbourMessage, changes: &mut Changes) {
        let gone = NeighbourEntry::from_message(message)
            .and_then(|gone| self.neighbours.remove(&(gone.interface, gone.address)));
        if let Some(gone) = gone {
            changes.neighbours = true;
            self.name_interface(gone.interface, changes);
        }
    }

    fn route_changed(
        &mut self,
        message: RouteMessage,
        changes: &mut Changes,
        apply: impl FnOnce(&mut RouteTable, Route) -> Applied,
    ) {
        let Some((number, route)) = Route::from_message(message) else {
            return;
        };
        let (table, touched) = match &mut self.followed {
            Some(followed) if followed.number == number => {
                (&mut followed.routes, &mut followed.touched)
            }
            _ if number == MAIN_TABLE => (&mut self.routes, &mut self.touched),
            _ => return,
        };
        let destination = route.destination;
        let applied = apply(table, route);
        if applied != Applied::Unchanged {
            touched.add(destination);
        }
        match applied {
            Applied::Unchanged => {}
            Applied::Changed => changes.routes = true,
            Applied::Ambiguous => self.unknown.routes = true,
        }
    }

    fn table(&self, number: u32) -> Option<&RouteTable> {
        match &self.followed {
            Some(followed) if followed.number == number => Some(&followed.routes),
            _ => (number == MAIN_TABLE).then_some(&self.routes),
        }
    }

    fn all_routes(&self) -> impl Iterator<Item = &Route> {
        let followed = self.followed.iter();
        let followed = followed.flat_map(|followed| followed.routes.iter());
        self.routes.iter().chain(followed)
    }

    fn has_routes(&self, interface: u32) -> bool {
        let mut next_hops = self.all_routes().flat_map(|route| &route.next_hops);
        next_hops.any(|next_hop| next_hop.interface == interface)
    }

    fn name_interface(&self, index: u32, changes: &mut Changes) {
        let name = self.links.get(&index).map(|link| link.name.clone());
        changes.interfaces.extend(name);
    }
}

// Reading what is unknown.
impl Mirror {
    fn read_unknown(&mut self, changes: &mut Changes) -> Result<()> {
        if self.unknown.links {
            self.read_links(changes)?;
            self.unknown.links = false;
        }
        if self.unknown.addresses {
            let addresses = read_addresses(&mut self.netlink)?;
            changes.addresses |= self.addresses != addresses;
            self.addresses = addresses;
            self.unknown.addresses = false;
        }
        if self.unknown.neighbours {
            let neighbours = read_neighbours(&mut self.netlink)?;
            changes.neighbours |= self.neighbours != neighbours;
            self.neighbours = neighbours;
            self.unknown.neighbours = false;
        }
        if self.unknown.routes {
            let routes = read_routes(&mut self.netlink, MAIN_TABLE)?;
            changes.routes |= self.routes != routes;
            self.touched.everything = true;
            self.routes = routes;
            if let Some(followed) = &mut self.followed {
                let routes = read_routes(&mut self.netlink, followed.number)?;
                changes.routes |= followed.routes != routes;
                followed.touched.everything = true;
                followed.routes = routes;
            }
            self.unknown.routes = false;
        }
        if changes.overrun {
            changes
                .interfaces
                .extend(self.links.values().map(|link| link.name.clone()));
        }
        Ok(())
    }

    fn read_links(&mut self, changes: &mut Changes) -> Result<()> {
        let links: BTreeMap<u32, Link> = read_links(&mut self.netlink)?
            .map(|link| (link.index, link))
            .collect();
        if self.links != links {
            changes.links = true;
            let gone = self
                .links
                .values()
                .filter(|l| !links.contains_key(&l.index));
            changes
                .interfaces
                .extend(gone.map(|link| link.name.clone()));
            self.links = links;
        }
        Ok(())
    }
}

impl Touched {
    /// Beyond so many, looking at all routes is no more work.
    const MOST: usize = 1 << 16;

    fn add(&mut self, destination: IpNet) {
        if !self.everything {
            self.destinations.insert(destination);
            self.everything = self.destinations.len() > Self::MOST;
        }
        if self.everything {
            self.destinations.clear();
        }
    }
}

/// All links of the namespace.
pub(super) fn read_links(netlink: &mut Netlink) -> Result<impl Iterator<Item = Link> + use<>> {
    let mut message = LinkMessage::default();
    // Half of a link's description is its statistics.
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    message.attributes.push(mask);
    let answers = netlink.dump("listing links", RouteNetlinkMessage::GetLink(message))?;
    Ok(answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
        _ => None,
    }))
}

fn read_addresses(netlink: &mut Netlink) -> Result<BTreeMap<u32, Vec<Address>>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut addresses = BTreeMap::<u32, Vec<Address>>::new();
    for answer in netlink.dump("listing addresses", request)? {
        if let RouteNetlinkMessage::NewAddress(message) = answer
            && let Some(address) = Address::from_message(message)
        {
            addresses
                .entry(address.interface)
                .or_default()
                .push(address);
        }
    }
    Ok(addresses)
}

fn read_neighbours(netlink: &mut Netlink) -> Result<BTreeMap<(u32, IpAddr), NeighbourEntry>> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = netlink.dump("listing neighbours", request)?;
    let entries = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => NeighbourEntry::from_message(message),
        _ => None,
    });
    Ok(entries
        .map(|entry| ((entry.interface, entry.address), entry))
        .collect())
}

/// Announcements that go before the change (a link goes down, then its routes go) are sent with the
/// kernel's RTNL lock held, but routes are listed without it. Asking for one link takes the lock, and
/// so waits for the change to end.
fn read_routes(netlink: &mut Netlink, table: u32) -> Result<RouteTable> {
    const LOOPBACK: u32 = 1;
    links::link_by_index(netlink, LOOPBACK)?;
    let v4 = list_table(netlink, AddressFamily::Inet, table, None)?;
    let v6 = list_table(netlink, AddressFamily::Inet6, table, None)?;
    Ok(RouteTable::from_routes(v4.into_iter().chain(v6)))
}

/// The number of the main table.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The routes of a table, of one protocol only if one is given.
pub(super) fn list_table(
    netlink: &mut Netlink,
    family: AddressFamily,
    table: u32,
    protocol: Option<u8>,
) -> Result<Vec<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    match u8::try_from(table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.attributes.push(RouteAttribute::Table(table)),
    }
    if let Some(protocol) = protocol {
        message.header.protocol = route::RouteProtocol::from(protocol);
    }
    let answers = netlink.dump("listing routes", RouteNetlinkMessage::GetRoute(message));
    let answers = match answers {
        // The kernel knows no such table until it has a route.
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
        // A kernel without IPv6.
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let routes = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
        _ => None,
    });
    let routes = routes
        .filter(|(of, _)| *of == table)
        .map(|(_, route)| route);
    Ok(routes
        .filter(|route| protocol.is_none_or(|wanted| wanted == route.protocol))
        .collect())
}

/// Whether both are the same address, perhaps in another state.
fn same_address(one: &Address, other: &Address) -> bool {
    (one.address, one.peer) == (other.address, other.peer)
}
