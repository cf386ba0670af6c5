//! VXLAN (RFC 7348 section 5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! * The I flag MUST be set to 1 for a valid VNI.
//! * The reserved bits MUST be set to zero on transmission and ignored on receipt. They are reported,
//!   so that a strict configuration can refuse what other extensions (VXLAN-GPE, GBP) put there.
//! * The inner frame SHOULD NOT have a VLAN tag; a tagged one SHOULD be dropped unless configured
//!   otherwise (section 6.1). That is for the reader of the inner frame.
//! * The UDP checksum SHOULD be sent as zero; a non-zero one MAY be verified, and the packet MUST be
//!   dropped if that fails (section 5).
//! * VTEPs MUST NOT fragment VXLAN packets (section 4.3).

use super::Vni;

/// Bytes of a VXLAN header.
pub const HEADER_LEN: usize = 8;

/// The UDP destination port (IANA).
pub const UDP_PORT: u16 = 4789;

/// The I flag: the VNI is valid.
const FLAG_VNI: u8 = 0x08;

/// A VXLAN header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// The network that the inner frame belongs to.
    pub vni: Vni,
    /// Whether a bit that has to be ignored was set.
    pub reserved_bits_set: bool,
}

/// Bytes that are no VXLAN header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VxlanError {
    /// The datagram ends within the header.
    #[error("the datagram ends within its VXLAN header of 8 bytes")]
    Truncated,
    /// The I flag is clear.
    #[error("the VXLAN I flag is clear, so that there is no VNI")]
    NoVni,
}

impl Vxlan {
    /// Parses the header at the front of a UDP payload.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, VxlanError> {
        let header: &[u8; HEADER_LEN] = payload.first_chunk().ok_or(VxlanError::Truncated)?;
        let [flags, r0, r1, r2, v0, v1, v2, r3] = *header;
        if flags & FLAG_VNI == 0 {
            return Err(VxlanError::NoVni);
        }
        let vni = Vni::new(u32::from_be_bytes([0, v0, v1, v2])).ok_or(VxlanError::NoVni)?;
        let reserved_bits_set = flags != FLAG_VNI || r0 | r1 | r2 | r3 != 0;
        Ok(Self {
            vni,
            reserved_bits_set,
        })
    }

    /// Writes a header for `vni`, its flags exactly 0x08, and returns 8, or 0 if `out` is too short.
    #[inline]
    pub fn write(vni: Vni, out: &mut [u8]) -> usize {
        let Some(out) = out.first_chunk_mut::<HEADER_LEN>() else {
            return 0;
        };
        *out = header(vni);
        HEADER_LEN
    }
}

/// The header for a network, its flags exactly 0x08 and no reserved bit set.
#[inline]
pub const fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let [_, v0, v1, v2] = vni.get().to_be_bytes();
    [FLAG_VNI, 0, 0, 0, v0, v1, v2, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_bits_are_reported_wherever_they_are() {
        let mut header = [0; HEADER_LEN];
        assert_eq!(Vxlan::write(Vni::CALICO, &mut header), HEADER_LEN);
        assert!(!Vxlan::parse(&header).unwrap().reserved_bits_set);
        for bit in (0..64).filter(|bit| *bit != 4 && !(32..56).contains(bit)) {
            let mut header = header;
            header[bit / 8] |= 0x80 >> (bit % 8);
            let parsed = Vxlan::parse(&header).unwrap();
            assert_eq!(
                (parsed.vni, parsed.reserved_bits_set),
                (Vni::CALICO, true),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn errors() {
        assert_eq!(Vxlan::parse(&[0xff; 7]), Err(VxlanError::Truncated));
        assert_eq!(
            Vxlan::parse(&[0xf7, 0, 0, 0, 0, 0, 1, 0]),
            Err(VxlanError::NoVni)
        );
        assert_eq!(Vxlan::write(Vni::CALICO, &mut [0; 7]), 0);
    }
}
