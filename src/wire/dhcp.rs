//! DHCP (RFC 2131, options of RFC 2132, RFC 3442 and RFC 6842), as a server needs it that has one answer
//! to each client.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | op: 1 or 2    | htype 1       | hlen 6        | hops          |
//! +---------------+---------------+---------------+---------------+
//! |                            xid (4)                            |
//! +-------------------------------+-------------------------------+
//! |           secs (2)            |B|          flags (2)          |
//! +-------------------------------+-------------------------------+
//! |   ciaddr, yiaddr, siaddr, giaddr (4 each): client, your, server, relay
//! +---------------------------------------------------------------+
//! |   chaddr (16), sname (64), file (128)                         |
//! +---------------------------------------------------------------+
//! |   99 130 83 99, then options: code, length, value; 255 ends   |
//! +---------------------------------------------------------------+
//! ```

use core::net::Ipv4Addr;

use super::ipv4::{self, Ipv4, protocol};
use super::udp::{self, Udp};
use super::{MacAddr, Mtu};

/// The server's UDP port.
pub const SERVER_PORT: u16 = 67;
/// The client's UDP port.
pub const CLIENT_PORT: u16 = 68;

/// Bytes before the options, with the magic cookie.
const FIXED: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// What BOOTP relays and clients expect at least (RFC 1542 section 2.1).
const LEAST: usize = 300;
/// Ethernet (RFC 1700).
const ETHERNET: [u8; 2] = [1, 6];

const CHADDR: usize = 28;

/// Codes of options.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const INTERFACE_MTU: u8 = 26;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER_IDENTIFIER: u8 = 54;
    pub(super) const CLIENT_IDENTIFIER: u8 = 61;
    pub(super) const CLASSLESS_ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// A message's type (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are RFC 2131's")]
pub enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl MessageType {
    const ALL: [Self; 8] = [
        Self::Discover,
        Self::Offer,
        Self::Request,
        Self::Decline,
        Self::Ack,
        Self::Nak,
        Self::Release,
        Self::Inform,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The message's type.
    pub kind: MessageType,
    /// The transaction.
    pub xid: u32,
    /// Whether the client cannot be reached by an address that it has not yet.
    pub broadcast: bool,
    /// The address that it has already; unspecified if none.
    pub client: Ipv4Addr,
    /// The relay that it came by; unspecified if none.
    pub relay: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The address that it asks for.
    pub requested: Option<Ipv4Addr>,
    /// The server that it means.
    pub server: Option<Ipv4Addr>,
    /// What it calls itself, to be told back (RFC 6842).
    pub identifier: Option<Vec<u8>>,
}

/// Bytes that are no valid message of a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DhcpError {
    /// It is no whole IPv4 packet with UDP from a client's port to a server's.
    #[error("the packet is not from UDP port 68 to 67")]
    NotDhcp,
    /// The UDP checksum is wrong.
    #[error("the UDP checksum is wrong")]
    Checksum,
    /// The message ends before its options, or is no request, or not of Ethernet, or lacks the cookie.
    #[error("the DHCP message's fixed part is not a client's on Ethernet")]
    Fixed,
    /// An option goes beyond the message or has a length that is not its own.
    #[error("DHCP option {0} has a length that cannot be")]
    Option(u8),
    /// There is no message type, or an unknown one.
    #[error("the DHCP message has no type that is known")]
    Type,
}

impl Request {
    /// Reads a whole IPv4 packet.
    pub fn parse(packet: &[u8]) -> Result<Self, DhcpError> {
        let ip = Ipv4::parse(packet).map_err(|_| DhcpError::NotDhcp)?;
        let datagram = packet
            .get(ip.header_len..ip.total_len)
            .ok_or(DhcpError::NotDhcp)?;
        let udp = Udp::parse(datagram).map_err(|_| DhcpError::NotDhcp)?;
        let ports = (udp.source_port, udp.destination_port);
        if ip.protocol != protocol::UDP || ip.is_fragment() || ports != (CLIENT_PORT, SERVER_PORT) {
            return Err(DhcpError::NotDhcp);
        }
        if udp.checksum != 0 && !udp::verify_ipv4(ip.source, ip.destination, datagram) {
            return Err(DhcpError::Checksum);
        }
        let message = datagram
            .get(udp::HEADER_LEN..udp.length)
            .ok_or(DhcpError::NotDhcp)?;
        Self::parse_message(message)
    }

    fn parse_message(message: &[u8]) -> Result<Self, DhcpError> {
        let (fixed, options) = message
            .split_first_chunk::<FIXED>()
            .ok_or(DhcpError::Fixed)?;
        if fixed[0] != 1 || fixed[1..3] != ETHERNET || fixed[FIXED - 4..] != COOKIE {
            return Err(DhcpError::Fixed);
        }
        let word = |at: usize| [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        let mut mac = [0; 6];
        mac.copy_from_slice(&fixed[CHADDR..CHADDR + 6]);
        let mut request = Self {
            kind: MessageType::Discover,
            xid: u32::from_be_bytes(word(4)),
            broadcast: fixed[10] & 0x80 != 0,
            client: word(12).into(),
            relay: word(24).into(),
            mac: MacAddr(mac),
            requested: None,
            server: None,
            identifier: None,
        };
        let kind = request.read_options(options)?;
        request.kind = kind.ok_or(DhcpError::Type)?;
        Ok(request)
    }

    fn read_options(&mut self, mut rest: &[u8]) -> Result<Option<MessageType>, DhcpError> {
        let mut kind = None;
        while let [code, tail @ ..] = rest {
            rest = tail;
            match *code {
                option::PAD => continue,
                option::END => break,
                _ => {}
            }
            let wrong = DhcpError::Option(*code);
            let [length, tail @ ..] = rest else {
                return Err(wrong);
            };
            let (value, tail) = tail.split_at_checked(usize::from(*length)).ok_or(wrong)?;
            rest = tail;
            let address = || {
                <[u8; 4]>::try_from(value)
                    .map(Ipv4Addr::from)
                    .map_err(|_| wrong)
            };
            match *code {
                option::MESSAGE_TYPE => match value {
                    [byte] => kind = Some(MessageType::from_byte(*byte).ok_or(DhcpError::Type)?),
                    _ => return Err(wrong),
                },
                option::REQUESTED_ADDRESS => self.requested = Some(address()?),
                option::SERVER_IDENTIFIER => self.server = Some(address()?),
                option::CLIENT_IDENTIFIER => self.identifier = Some(value.to_vec()),
                _ => {}
            }
        }
        Ok(kind)
    }
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its address, of a network of its own (/32).
    pub address: Ipv4Addr,
    /// The router, on the link though no network says so, and the server.
    pub router: Ipv4Addr,
    /// The MTU that it should have.
    pub mtu: Mtu,
    /// Seconds until it asks again; half of them, as clients do.
    pub seconds: u32,
}

impl Lease {
    /// The answer to a request, as a whole IPv4 packet: an offer, an acknowledgement or a refusal.
    pub fn answer(&self, request: &Request, kind: MessageType) -> Vec<u8> {
        let refusal = kind == MessageType::Nak;
        let informed = request.kind == MessageType::Inform;
        let given = match refusal || informed {
            true => Ipv4Addr::UNSPECIFIED,
            false => self.address,
        };
        let mut message = vec![0; FIXED];
        message[0] = 2;
        message[1..3].copy_from_slice(&ETHERNET);
        message[4..8].copy_from_slice(&request.xid.to_be_bytes());
        message[10] = if request.broadcast { 0x80 } else { 0 };
        if !refusal {
            message[12..16].copy_from_slice(&request.client.octets());
        }
        message[16..20].copy_from_slice(&given.octets());
        message[CHADDR..CHADDR + 6].copy_from_slice(&request.mac.0);
        message[FIXED - 4..].copy_from_slice(&COOKIE);
        self.write_options(request, kind, &mut message);
        message.resize(message.len().max(LEAST), option::PAD);
        self.packet(self.receiver(request, kind), &message)
    }

    fn write_options(&self, request: &Request, kind: MessageType, message: &mut Vec<u8>) {
        let mut put = |code: u8, value: &[u8]| {
            // Values are short: the longest is what a client calls itself, which came in one byte's length.
            message.extend_from_slice(&[code, value.len() as u8]);
            message.extend_from_slice(value);
        };
        put(option::MESSAGE_TYPE, &[kind as u8]);
        put(option::SERVER_IDENTIFIER, &self.router.octets());
        if kind != MessageType::Nak {
            if request.kind != MessageType::Inform {
                put(option::LEASE_TIME, &self.seconds.to_be_bytes());
            }
            put(option::SUBNET_MASK, &Ipv4Addr::BROADCAST.octets());
            put(option::CLASSLESS_ROUTES, &self.classless_routes());
            put(option::ROUTER, &self.router.octets());
            put(option::INTERFACE_MTU, &self.mtu.0.to_be_bytes());
        }
        if let Some(identifier) = &request.identifier {
            put(option::CLIENT_IDENTIFIER, identifier);
        }
        message.push(option::END);
    }

    /// The router on the link, then everything by it (RFC 3442): length, prefix's bytes, router.
    fn classless_routes(&self) -> [u8; 14] {
        let mut routes = [0; 14];
        routes[0] = 32;
        routes[1..5].copy_from_slice(&self.router.octets());
        routes[10..14].copy_from_slice(&self.router.octets());
        routes
    }

    /// Where the answer goes (RFC 2131 section 4.1).
    fn receiver(&self, request: &Request, kind: MessageType) -> Ipv4Addr {
        if kind == MessageType::Nak {
            Ipv4Addr::BROADCAST
        } else if !request.client.is_unspecified() {
            request.client
        } else if request.broadcast {
            Ipv4Addr::BROADCAST
        } else {
            self.address
        }
    }

    fn packet(&self, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let length = udp::HEADER_LEN + message.len();
        let mut packet = vec![0; ipv4::HEADER_LEN + length];
        let ip = Ipv4 {
            header_len: ipv4::HEADER_LEN,
            tos: 0,
            total_len: packet.len(),
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: protocol::UDP,
            source: self.router,
            destination,
        };
        ip.write(&mut packet);
        let datagram = &mut packet[ipv4::HEADER_LEN..];
        let udp = Udp {
            source_port: SERVER_PORT,
            destination_port: CLIENT_PORT,
            length,
            checksum: 0,
        };
        udp.write(datagram);
        datagram[udp::HEADER_LEN..].copy_from_slice(message);
        let sum = udp::checksum_ipv4(self.router, destination, datagram);
        datagram[udp::CHECKSUM..udp::HEADER_LEN].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// Whether an IPv4 packet is for a DHCP server, whoever that is: looked at before its addresses are
/// judged, as its sender has none yet.
pub fn is_for_server(ip: &Ipv4, packet: &[u8]) -> bool {
    let ports = packet.get(ip.header_len..ip.header_len + 4);
    ip.protocol == protocol::UDP
        && !ip.is_fragment()
        && ports.is_some_and(|ports| ports == [0, CLIENT_PORT as u8, 0, SERVER_PORT as u8])
}
