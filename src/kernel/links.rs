//! Setters for links and addresses.

use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use super::state::Link;
use super::{Error, Result, mirror};
use crate::wire::{MacAddr, Mtu};

impl Netlink {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        mirror::read_links(self).map(Iterator::collect)
    }

    /// The link with this name.
    ///
    /// # Errors
    /// [`Error::NoInterface`] if there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        // The kernel's limit, IFNAMSIZ with its NUL; a longer name would be refused as malformed.
        const LONGEST: usize = 15;
        if name.is_empty() || name.len() > LONGEST {
            return Err(Error::NoInterface(name.to_owned()));
        }
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match one_link(self, &format!("looking up interface {name}"), message) {
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                Err(Error::NoInterface(name.to_owned()))
            }
            other => other,
        }
    }

    /// Brings a link up or down.
    pub fn set_link_up(&mut self, interface: u32, up: bool) -> Result<()> {
        let mut message = link_message(interface);
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        let state = if up { "up" } else { "down" };
        self.set_link(format!("bringing interface {interface} {state}"), message)
    }

    /// Sets a link's MTU.
    pub fn set_link_mtu(&mut self, interface: u32, mtu: Mtu) -> Result<()> {
        let mut message = link_message(interface);
        message.attributes.push(LinkAttribute::Mtu(mtu.0.into()));
        self.set_link(
            format!("setting interface {interface}'s MTU to {mtu}"),
            message,
        )
    }

    /// Moves a link into the network namespace behind a descriptor (of `/run/netns/NAME` or
    /// `/proc/PID/ns/net`). It loses its addresses and routes and goes down on the way.
    pub fn move_link_to_netns(&mut self, interface: u32, netns: impl AsFd) -> Result<()> {
        let mut message = link_message(interface);
        let descriptor = netns.as_fd().as_raw_fd();
        message.attributes.push(LinkAttribute::NetNsFd(descriptor));
        self.set_link(
            format!("moving interface {interface} to another namespace"),
            message,
        )
    }

    /// Makes a veth pair: this end in the socket's namespace, the other in the one behind `netns`.
    pub fn create_veth(&mut self, veth: &Veth<'_>, netns: impl AsFd) -> Result<()> {
        let mtu = LinkAttribute::Mtu(veth.mtu.0.into());
        let mut peer = LinkMessage::default();
        peer.attributes.extend([
            LinkAttribute::IfName(veth.peer.to_owned()),
            LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
            mtu.clone(),
        ]);
        let mut message = LinkMessage::default();
        message.attributes.extend([
            LinkAttribute::IfName(veth.name.to_owned()),
            LinkAttribute::Address(veth.mac.0.to_vec()),
            mtu,
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ]);
        self.change(
            format!("making the veth pair {} and {}", veth.name, veth.peer),
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Deletes the link of this name, a veth with its peer; nothing happens if there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let deleted = self.change(
            format!("deleting interface {name}"),
            RouteNetlinkMessage::DelLink(message),
            0,
        );
        unless(deleted, libc::ENODEV)
    }

    /// Sets a link's Ethernet address.
    pub fn set_link_address(&mut self, interface: u32, address: MacAddr) -> Result<()> {
        let mut message = link_message(interface);
        message
            .attributes
            .push(LinkAttribute::Address(address.0.to_vec()));
        self.set_link(
            format!("setting interface {interface}'s address to {address}"),
            message,
        )
    }

    /// Adds an address to an interface; nothing happens if it has it.
    pub fn add_address(&mut self, interface: u32, address: IpNet) -> Result<()> {
        let added = self.change(
            format_args!("adding {address} to interface {interface}"),
            RouteNetlinkMessage::NewAddress(address_message(interface, address)),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        unless(added, libc::EEXIST)
    }

    /// Removes an address from an interface; nothing happens if it has no such address.
    pub fn remove_address(&mut self, interface: u32, address: IpNet) -> Result<()> {
        let removed = self.change(
            format_args!("removing {address} from interface {interface}"),
            RouteNetlinkMessage::DelAddress(address_message(interface, address)),
            0,
        );
        unless(removed, libc::EADDRNOTAVAIL)
    }

    fn set_link(&mut self, what: String, message: LinkMessage) -> Result<()> {
        self.change(what, RouteNetlinkMessage::SetLink(message), 0)
    }
}

/// A veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// This end's name.
    pub name: &'a str,
    /// This end's Ethernet address.
    pub mac: MacAddr,
    /// The other end's name.
    pub peer: &'a str,
    /// Both ends' MTU.
    pub mtu: Mtu,
}

/// The link with this number.
pub(super) fn link_by_index(netlink: &mut Netlink, index: u32) -> Result<Link> {
    let what = format!("looking up interface {index}");
    one_link(netlink, &what, link_message(index))
}

fn one_link(netlink: &mut Netlink, what: &str, message: LinkMessage) -> Result<Link> {
    let answers = netlink.get(what, RouteNetlinkMessage::GetLink(message))?;
    let mut links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
        _ => None,
    });
    links.next().ok_or_else(|| Error::Answer {
        what: what.to_owned(),
        reason: "it holds no link".to_owned(),
    })
}

fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn address_message(interface: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = interface;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    if matches!(address, IpNet::V6(_)) {
        // Usable at once: duplicate address detection makes no sense on what we own.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    let ip = address.addr();
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}

/// Takes the error that says "it is so already" for success.
fn unless(result: Result<()>, harmless: i32) -> Result<()> {
    match result {
        Err(error) if error.errno() == Some(harmless) => Ok(()),
        other => other,
    }
}
