//! Packet formats: bytes only, one file a format, each with its RFC diagram.
//!
//! Parsers take a byte slice and return a small value of plain fields or an error that names what
//! is wrong; writers take a byte slice of the right length. Nothing here allocates or knows of
//! ports, routes or frames.

mod types;

pub use types::{MacAddr, Mtu, Vni};
