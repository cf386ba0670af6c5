//! ARP for IPv4 over Ethernet (RFC 826).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Hardware type (1)         |     Protocol type (0x0800)    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Hw length (6) | Pr length (4) |          Operation            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   Sender hardware address                     |
//! +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                               |   Sender protocol address     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Sender protocol address      |                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//! |                   Target hardware address                     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   Target protocol address                     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! * A reply swaps sender and target and puts the answerer's hardware address in the sender's place
//!   (RFC 826, packet reception).
//! * The sender address of a probe is 0.0.0.0 (RFC 5227 section 2.1.1): there is nothing to learn
//!   from it.
//! * Ethernet padding behind the 28 bytes is ignored.

use core::net::Ipv4Addr;

use super::MacAddr;

/// Bytes of an ARP message for IPv4 over Ethernet.
pub const LEN: usize = 28;

/// What precedes the operation: Ethernet, IPv4, and the lengths of their addresses.
const PREFIX: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// What a message wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address? (1)
    Request,
    /// The sender address is at the sender hardware address. (2)
    Reply,
}

/// An ARP message for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddr,
    /// The sender's address; unspecified in a probe.
    pub sender_ip: Ipv4Addr,
    /// The target's Ethernet address; meaningless in a request.
    pub target_mac: MacAddr,
    /// The address asked for, or that of the one who asked.
    pub target_ip: Ipv4Addr,
}

/// Bytes that are no ARP message for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// The message is shorter than 28 bytes.
    #[error("the ARP message ends before its 28 bytes")]
    Truncated,
    /// The hardware type is not Ethernet.
    #[error("the ARP hardware type is {0}, not Ethernet's 1")]
    HardwareType(u16),
    /// The protocol type is not IPv4.
    #[error("the ARP protocol type is 0x{0:04x}, not IPv4's 0x0800")]
    ProtocolType(u16),
    /// The address lengths are not those of Ethernet and IPv4.
    #[error("the ARP address lengths are {hardware} and {protocol}, not 6 and 4")]
    AddressLength {
        /// Bytes in a hardware address.
        hardware: u8,
        /// Bytes in a protocol address.
        protocol: u8,
    },
    /// Neither a request nor a reply.
    #[error("the ARP operation is {0}, neither request (1) nor reply (2)")]
    Operation(u16),
}

impl Arp {
    /// Parses the message behind an Ethernet header.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, ArpError> {
        let m: &[u8; LEN] = bytes.first_chunk().ok_or(ArpError::Truncated)?;
        if m[..6] != PREFIX {
            return Err(prefix_error(m));
        }
        let operation = match u16::from_be_bytes([m[6], m[7]]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(ArpError::Operation(other)),
        };
        Ok(Self {
            operation,
            sender_mac: MacAddr([m[8], m[9], m[10], m[11], m[12], m[13]]),
            sender_ip: Ipv4Addr::new(m[14], m[15], m[16], m[17]),
            target_mac: MacAddr([m[18], m[19], m[20], m[21], m[22], m[23]]),
            target_ip: Ipv4Addr::new(m[24], m[25], m[26], m[27]),
        })
    }

    /// The question who has `target_ip`, to be broadcast.
    pub const fn request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Self {
        let target_mac = MacAddr([0; 6]);
        Self {
            operation: Operation::Request,
            sender_mac,
            sender_ip,
            target_mac,
            target_ip,
        }
    }

    /// The answer to this request: the address asked for is at `mac`.
    pub const fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Whether the sender asks if its own future address is free (RFC 5227 section 2.1.1).
    pub const fn is_probe(&self) -> bool {
        matches!(self.operation, Operation::Request) && self.sender_ip.is_unspecified()
    }

    /// Writes the message's 28 bytes and returns 28, or 0 if `out` is too short.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> usize {
        let Some(out) = out.first_chunk_mut::<LEN>() else {
            return 0;
        };
        out[..6].copy_from_slice(&PREFIX);
        out[6..8].copy_from_slice(match self.operation {
            Operation::Request => &[0, 1],
            Operation::Reply => &[0, 2],
        });
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender_ip.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..].copy_from_slice(&self.target_ip.octets());
        LEN
    }
}

#[cold]
fn prefix_error(m: &[u8; LEN]) -> ArpError {
    let hardware_type = u16::from_be_bytes([m[0], m[1]]);
    let protocol_type = u16::from_be_bytes([m[2], m[3]]);
    match (hardware_type, protocol_type) {
        (1, 0x0800) => ArpError::AddressLength {
            hardware: m[4],
            protocol: m[5],
        },
        (1, _) => ArpError::ProtocolType(protocol_type),
        _ => ArpError::HardwareType(hardware_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let arp = Arp::request(
            MacAddr([2, 0, 0, 0, 0, 1]),
            Ipv4Addr::new(10, 0, 0, 1),
            Ipv4Addr::new(169, 254, 1, 1),
        );
        assert_eq!(arp.write(&mut bytes), LEN);
        bytes
    }

    #[test]
    fn each_wrong_field_has_its_error() {
        let error = |at: usize, value: u8| {
            let mut bytes = request();
            bytes[at] = value;
            Arp::parse(&bytes).unwrap_err()
        };
        assert_eq!(error(1, 6), ArpError::HardwareType(6));
        assert_eq!(error(2, 0x86), ArpError::ProtocolType(0x8600));
        assert_eq!(
            error(4, 8),
            ArpError::AddressLength {
                hardware: 8,
                protocol: 4
            }
        );
        assert_eq!(
            error(5, 16),
            ArpError::AddressLength {
                hardware: 6,
                protocol: 16
            }
        );
        assert_eq!(error(7, 3), ArpError::Operation(3));
        assert_eq!(Arp::parse(&request()[..27]), Err(ArpError::Truncated));
    }

    #[test]
    fn a_probe_has_no_sender_address() {
        let probe = Arp::request(MacAddr([2; 6]), Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST);
        assert!(probe.is_probe());
        assert!(!probe.reply(MacAddr::WORKLOAD_GATEWAY).is_probe());
        assert!(!Arp::parse(&request()).unwrap().is_probe());
    }
}
