//! What the kernel tells of a network device, in the calling thread's network namespace.

use std::fs;
use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::PortError;
use crate::wire::{MacAddr, Mtu};

/// A device's properties (rtnetlink, RTM_GETLINK).
#[derive(Debug, Clone)]
pub(super) struct NetDevice {
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// Nothing for a device without an Ethernet header.
    pub(super) address: Option<MacAddr>,
    /// Identifiers of the XDP programs attached to it.
    pub(super) xdp_programs: Vec<u32>,
}

impl NetDevice {
    /// Asks the kernel about the device called `name`.
    pub(super) fn query(name: &str) -> Result<Self, PortError> {
        check_name(name)?;
        match get_link(name) {
            Ok(message) => Ok(Self::from_message(&message)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                Err(PortError::NoSuchInterface {
                    name: name.to_owned(),
                    present: names(),
                })
            }
            Err(source) => Err(PortError::Query {
                interface: name.to_owned(),
                source,
            }),
        }
    }

    /// The MTU as the packet path counts it: loopback's 65536 does not fit an IPv4 packet either.
    pub(super) fn mtu(&self) -> Mtu {
        Mtu(u16::try_from(self.mtu).unwrap_or(u16::MAX))
    }

    fn from_message(message: &LinkMessage) -> Self {
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        let mut device = Self {
            index: message.header.index,
            mtu: 0,
            address: None,
            xdp_programs: Vec::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Address(bytes) if ethernet => {
                    device.address = bytes.as_slice().try_into().ok().map(MacAddr);
                }
                LinkAttribute::Xdp(parts) => {
                    device.xdp_programs = parts.iter().filter_map(program_id).collect();
                    device.xdp_programs.sort_unstable();
                    device.xdp_programs.dedup();
                }
                _ => {}
            }
        }
        device
    }
}

/// The numbers of the XDP programs at a device of the calling thread's network namespace.
pub fn xdp_programs(name: &str) -> Result<Vec<u32>, PortError> {
    Ok(NetDevice::query(name)?.xdp_programs)
}

/// How many receive queues a device has (sysfs, which shows the namespace that it was mounted in).
pub fn receive_queues(name: &str) -> Result<u32, PortError> {
    NetDevice::query(name)?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PortError::ForeignSysfs {
            interface: name.to_owned(),
        },
        _ => PortError::Query {
            interface: name.to_owned(),
            source,
        },
    };
    let mut count = 0;
    for entry in fs::read_dir(format!("/sys/class/net/{name}/queues")).map_err(failed)? {
        if entry
            .map_err(failed)?
            .file_name()
            .to_string_lossy()
            .starts_with("rx-")
        {
            count += 1;
        }
    }
    Ok(count)
}

/// Whether the kernel could have an interface of that name (`dev_valid_name`; `%` makes a pattern).
pub(super) fn check_name(name: &str) -> Result<(), PortError> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b':' | b'%' | 0);
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name == "."
        || name == ".."
        || name.bytes().any(bad)
    {
        return Err(PortError::InvalidName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn program_id(part: &LinkXdp) -> Option<u32> {
    match part {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    }
}

fn names() -> Vec<String> {
    let Ok(interfaces) = nix::net::if_::if_nameindex() else {
        return Vec::new();
    };
    interfaces
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect()
}

fn get_link(name: &str) -> io::Result<LinkMessage> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(name), 0)?;

    let mut answer = Vec::with_capacity(32 * 1024);
    socket.recv(&mut answer, 0)?;
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an answer that is no link",
        )),
    }
}

fn request(name: &str) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(link));
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_no_ethernet_device() {
        let lo = NetDevice::query("lo").unwrap();
        assert_eq!((lo.index, lo.address), (1, None));
        assert_eq!(receive_queues("lo").unwrap(), 1);
    }

    #[test]
    fn an_absent_interface_is_answered_with_those_present() {
        let error = NetDevice::query("no-such-dev").unwrap_err().to_string();
        assert!(
            error.contains("'no-such-dev'") && error.contains("lo"),
            "{error}"
        );
    }

    #[test]
    fn names_that_the_kernel_would_bend_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "tun%d",
            "a b",
            "sixteen-bytes-xx",
            "a:1",
        ] {
            assert!(
                matches!(check_name(name), Err(PortError::InvalidName { .. })),
                "{name}"
            );
        }
        check_name("fifteen-bytes-x").unwrap();
    }
}
