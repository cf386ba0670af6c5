//! A device's driver, channels and offloads.
//!
//! Features and channels go through the generic netlink family `ethtool` (kernel,
//! Documentation/networking/ethtool-netlink.rst), the driver's name comes from sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLA_TYPE_MASK, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable,
};
use netlink_sys::protocols;

use super::netlink::RequestSocket;
use super::state::Link;
use super::{Error, Result};

/// Whether a feature makes a veth's far end hand over packets that are not finished: without a
/// checksum, longer than the MTU, or without their 802.1Q tag. The name is that of `ethtool -k` (kernel,
/// net/ethtool/common.c, `netdev_features_strings`), not of one of its legacy groups.
pub fn is_tx_offload(name: &str) -> bool {
    let segmentation = name.starts_with("tx-") && name.ends_with("-segmentation");
    // A tag that is left to hardware is not in the frame that XDP sees.
    let tag = name.starts_with("tx-vlan-");
    segmentation || tag || name.starts_with("tx-checksum-") || name == "tx-gso-list"
}

/// The state of one of a device's features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feature {
    /// Whether it is in effect.
    pub active: bool,
    /// Whether it can be switched.
    pub changeable: bool,
}

/// How many queues a device uses, and how many it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Receive queues without a transmit queue.
    pub rx: u32,
    /// Transmit queues without a receive queue.
    pub tx: u32,
    /// Pairs of both.
    pub combined: u32,
    /// The most that `rx` can be.
    pub rx_max: u32,
    /// The most that `tx` can be.
    pub tx_max: u32,
    /// The most that `combined` can be.
    pub combined_max: u32,
}

impl Channels {
    /// All receive queues.
    pub fn receive_queues(&self) -> u32 {
        self.rx + self.combined
    }
}

/// The name of a link's driver: that of the hardware behind it, or the kind of a virtual device.
pub fn driver(link: &Link) -> Option<String> {
    let of_hardware = |(bus, device): &(String, String)| {
        let path = Path::new("/sys/bus").join(bus).join("devices").join(device);
        let target = fs::read_link(path.join("driver")).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    let hardware = link.hardware.as_ref().and_then(of_hardware);
    hardware.or_else(|| link.kind.clone())
}

/// A connection to the kernel's ethtool interface, in the namespace of the thread that opened it.
pub struct Ethtool {
    socket: RequestSocket,
    family: u16,
}

impl Ethtool {
    /// Opens the connection.
    ///
    /// # Errors
    /// If the kernel is older than Linux 5.6 or built without CONFIG_ETHTOOL_NETLINK.
    pub fn open() -> Result<Self> {
        let mut socket = RequestSocket::open(protocols::NETLINK_GENERIC, "generic netlink")?;
        let what = "looking for the kernel's ethtool interface (Linux 5.6, CONFIG_ETHTOOL_NETLINK)";
        let family = family(&mut socket, what, "ethtool")?;
        Ok(Self { socket, family })
    }

    /// All features of an interface by their names in `ethtool -k`.
    pub fn features(&mut self, interface: u32) -> Result<BTreeMap<String, Feature>> {
        let what = format!("reading the features of interface {interface}");
        let answer = self.get(&what, FEATURES_GET, interface)?;
        let mut features = BTreeMap::<String, Feature>::new();
        for (name, set) in bits(answer.value(FEATURES_HW)) {
            features.entry(name).or_default().changeable = set;
        }
        for (name, set) in bits(answer.value(FEATURES_NOCHANGE)) {
            features.entry(name).or_default().changeable &= !set;
        }
        for (name, set) in bits(answer.value(FEATURES_ACTIVE)) {
            features.entry(name).or_default().active = set;
        }
        Ok(features)
    }

    /// Switches features of an interface on or off, and returns the names of those that changed.
    /// Features that the device does not have count as off.
    ///
    /// # Errors
    /// [`Error::Fixed`] if one of them stays as it is.
    pub fn set_features(&mut self, link: &Link, names: &[&str], on: bool) -> Result<Vec<String>> {
        let state = if on { "on" } else { "off" };
        let before = self.features(link.index)?;
        let differ = |features: &BTreeMap<String, Feature>| {
            let active = |name: &str| features.get(name).is_some_and(|feature| feature.active);
            let differing = names.iter().filter(|name| active(name) != on);
            differing.map(|name| (*name).to_owned()).collect::<Vec<_>>()
        };
        let mut wanted = differ(&before);
        wanted.retain(|name| before.get(name).is_some_and(|feature| feature.changeable));
        if !wanted.is_empty() {
            let what = format!("switching {} of {} {state}", wanted.join(", "), link.name);
            self.request_features(&what, link.index, &wanted, on)?;
        }
        let fixed = differ(&self.features(link.index)?);
        if fixed.is_empty() {
            return Ok(wanted);
        }
        Err(Error::Fixed {
            interface: link.name.clone(),
            features: fixed.join(", "),
            state,
        })
    }

    /// Switches off what makes an interface send unfinished packets ([`is_tx_offload`]), and returns
    /// the names of the features that were on.
    pub fn disable_tx_offloads(&mut self, link: &Link) -> Result<Vec<String>> {
        let features = self.features(link.index)?;
        let names = features.keys().filter(|name| is_tx_offload(name));
        let names: Vec<&str> = names.map(String::as_str).collect();
        self.set_features(link, &names, false)
    }

    /// Switches GRO. On a veth, GRO makes it receive through NAPI, which native XDP needs to send to
    /// its far end when no XDP program is attached there (kernel, drivers/net/veth.c).
    pub fn set_gro(&mut self, link: &Link, on: bool) -> Result<()> {
        self.set_features(link, &["rx-gro"], on).map(drop)
    }

    /// The queues of an interface; nothing if its driver does not say.
    pub fn channels(&mut self, interface: u32) -> Result<Option<Channels>> {
        let what = format!("reading the channels of interface {interface}");
        let answer = match self.get(&what, CHANNELS_GET, interface) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => return Ok(None),
            other => other?,
        };
        // linux/ethtool_netlink.h, ETHTOOL_A_CHANNELS_*
        Ok(Some(Channels {
            rx_max: answer.number(2),
            tx_max: answer.number(3),
            combined_max: answer.number(5),
            rx: answer.number(6),
            tx: answer.number(7),
            combined: answer.number(9),
        }))
    }

    fn get(&mut self, what: &str, command: u8, interface: u32) -> Result<Message> {
        let request = Message::new(self.family, command, vec![device(interface)]);
        one_answer(&mut self.socket, what, request)
    }

    fn request_features(
        &mut self,
        what: &str,
        interface: u32,
        names: &[String],
        on: bool,
    ) -> Result<()> {
        let bits = names.iter().map(|name| feature_bit(name, on)).collect();
        let wanted = nested(FEATURES_WANTED, vec![nested(BITSET_BITS, bits)]);
        let request = Message::new(self.family, FEATURES_SET, vec![device(interface), wanted]);
        self.socket.transact(what, request, 0, |_| ())?;
        Ok(())
    }
}

// linux/ethtool_netlink.h
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const CHANNELS_GET: u8 = 17;
const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const FEATURES_HW: u16 = 2;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const FEATURES_NOCHANGE: u16 = 5;
const BITSET_NOMASK: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITSET_BITS_BIT: u16 = 1;
const BITSET_BIT_NAME: u16 = 2;
const BITSET_BIT_VALUE: u16 = 3;

/// Whether a device takes packets that XDP programs on other devices redirect to it: a veth does only
/// while its far end receives through NAPI (GRO, or an XDP program there).
///
/// # Errors
/// If the kernel does not say: it is older than Linux 6.3.
pub fn takes_redirects(interface: u32) -> Result<bool> {
    // linux/netdev.h
    const DEV_GET: u8 = 1;
    const DEV_IFINDEX: u16 = 1;
    const DEV_XDP_FEATURES: u16 = 3;
    const XDP_ACT_NDO_XMIT: u64 = 4;
    let mut socket = RequestSocket::open(protocols::NETLINK_GENERIC, "generic netlink")?;
    let what = "looking for the kernel's word on XDP features (Linux 6.3)";
    let family = family(&mut socket, what, "netdev")?;
    let index = DefaultNla::new(DEV_IFINDEX, interface.to_ne_bytes().to_vec());
    let what = format!("reading the XDP features of interface {interface}");
    let request = Message::new(family, DEV_GET, vec![index]);
    let answer = one_answer(&mut socket, &what, request)?;
    let features = answer.value(DEV_XDP_FEATURES).first_chunk::<8>();
    let features = features.ok_or_else(|| no_answer(&what))?;
    Ok(u64::from_ne_bytes(*features) & XDP_ACT_NDO_XMIT != 0)
}

/// Asks the controller (`nlctrl`, linux/genetlink.h) for the number of a family.
fn family(socket: &mut RequestSocket, what: &str, name: &str) -> Result<u16> {
    const CONTROLLER: u16 = 16;
    const GETFAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    let name = [name.as_bytes(), b"\0"].concat();
    let name = DefaultNla::new(FAMILY_NAME, name);
    let answer = one_answer(
        socket,
        what,
        Message::new(CONTROLLER, GETFAMILY, vec![name]),
    )?;
    let id = answer.value(FAMILY_ID).first_chunk::<2>();
    id.map(|bytes| u16::from_ne_bytes(*bytes))
        .ok_or_else(|| no_answer(what))
}

fn one_answer(socket: &mut RequestSocket, what: &str, request: Message) -> Result<Message> {
    let mut answer = None;
    socket.transact(what, request, 0, |message: Message| answer = Some(message))?;
    answer.ok_or_else(|| no_answer(what))
}

fn no_answer(what: &str) -> Error {
    Error::Answer {
        what: what.to_owned(),
        reason: "it lacks what was asked for".to_owned(),
    }
}

fn device(interface: u32) -> DefaultNla {
    let index = DefaultNla::new(HEADER_DEV_INDEX, interface.to_ne_bytes().to_vec());
    nested(HEADER, vec![index])
}

fn feature_bit(name: &str, on: bool) -> DefaultNla {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    let mut attributes = vec![DefaultNla::new(BITSET_BIT_NAME, text)];
    if on {
        attributes.push(DefaultNla::new(BITSET_BIT_VALUE, Vec::new()));
    }
    nested(BITSET_BITS_BIT, attributes)
}

fn nested(kind: u16, attributes: Vec<DefaultNla>) -> DefaultNla {
    let attributes = attributes.as_slice();
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// The bits that a bitset lists, by name, and whether each is set: all are in a plain list, those with
/// a value in one with a mask.
fn bits(bitset: &[u8]) -> Vec<(String, bool)> {
    let has = |bytes, kind| attributes(bytes).any(|(found, _)| found == kind);
    let plain = has(bitset, BITSET_NOMASK);
    attributes(find(bitset, BITSET_BITS))
        .map(|(_, bit)| {
            let name = String::from_utf8_lossy(find(bit, BITSET_BIT_NAME));
            let set = plain || has(bit, BITSET_BIT_VALUE);
            (name.trim_end_matches('\0').to_owned(), set)
        })
        .collect()
}

/// The value of the first attribute of a kind, or nothing.
fn find(bytes: &[u8], kind: u16) -> &[u8] {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map_or(&[], |(_, value)| value)
}

/// Attributes with their kinds (struct nlattr: length, kind, value, padding to 4 bytes), up to the
/// first that is cut off.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[l0, l1, k0, k1], _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
    })
}

/// A generic netlink message (linux/genetlink.h): a command, a version, two reserved bytes, then
/// attributes.
#[derive(Debug)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

impl Message {
    const HEADER: usize = 4;
    const VERSION: u8 = 1;

    fn new(family: u16, command: u8, attributes: Vec<DefaultNla>) -> Self {
        let attributes = attributes.as_slice();
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        Self {
            family,
            command,
            attributes: bytes,
        }
    }

    fn value(&self, kind: u16) -> &[u8] {
        find(&self.attributes, kind)
    }

    fn number(&self, kind: u16) -> u32 {
        let bytes = self.value(kind).first_chunk::<4>();
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        Self::HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..Self::HEADER].copy_from_slice(&[self.command, Self::VERSION, 0, 0]);
        buffer[Self::HEADER..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = MessageError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        let (&[command, ..], attributes) = payload
            .split_first_chunk::<{ Self::HEADER }>()
            .ok_or(MessageError(payload.len()))?;
        Ok(Self {
            family: header.message_type,
            command,
            attributes: attributes.to_vec(),
        })
    }
}

/// A generic netlink message that is too short.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes are too few for a generic netlink message")]
struct MessageError(usize);
