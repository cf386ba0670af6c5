//! Packet formats: bytes only, one file a format, each with its RFC diagram.
//!
//! Parsers take a byte slice and return a small value of plain fields or an error that names what
//! is wrong. Writers take a byte slice that may be longer than what they write, and return how many
//! bytes they wrote: 0, and nothing written, if there is no room. Nothing here allocates, panics or
//! knows of ports, routes or frames.
//!
//! | format | document |
//! |---|---|
//! | [`ethernet`] | IEEE 802.3, 802.1Q |
//! | [`arp`] | RFC 826 |
//! | [`ipv4`] | RFC 791 |
//! | [`ipv6`] | RFC 8200 |
//! | [`udp`] | RFC 768 |
//! | [`tcp`] | RFC 9293 |
//! | [`icmp`] | RFC 792 |
//! | [`icmpv6`] | RFC 4443 |
//! | [`nd`] | RFC 4861 |
//! | [`router`] | RFC 4861 |
//! | [`dhcp`] | RFC 2131 |
//! | [`vxlan`] | RFC 7348 |
//! | [`virtio_net`] | virtio 1.2, section 5.1.6 |
//! | [`checksum`] | RFC 1071, RFC 1624 |
//!
//! Over these: [`flow`] hashes a packet's flow, [`partial`] completes the checksums that a veth
//! peer leaves to hardware, [`segment`] cuts super-packets and [`coalesce`] makes them.

pub mod arp;
pub mod checksum;
pub mod coalesce;
pub mod dhcp;
pub mod ethernet;
pub mod flow;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod partial;
pub mod router;
pub mod segment;
pub mod tcp;
pub mod udp;
pub mod virtio_net;
pub mod vxlan;

#[cfg(test)]
mod properties;
mod types;

pub use types::{MacAddr, Mtu, Vni};
