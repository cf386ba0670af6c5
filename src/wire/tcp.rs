//! TCP (RFC 9293 section 3.1), as far as segments are cut and put together.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          Source port          |       Destination port        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                        Sequence number                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     Acknowledgment number                     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Offset | Rsvd  |C|E|U|A|P|R|S|F|            Window             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |           Checksum            |        Urgent pointer         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      Options (0 to 40 bytes)                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Where the flags are: the byte of those that are named here.
pub const FLAGS: usize = 13;
/// Where the checksum is.
pub const CHECKSUM: usize = 16;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgment number counts.
pub const ACK: u8 = 0x10;
/// Congestion experienced is echoed (RFC 3168).
pub const ECE: u8 = 0x40;
/// The congestion window was reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// The length of the header at the front of `segment`, its options included; nothing if it is cut
/// short or says less than 20 bytes.
#[inline]
pub fn header_len(segment: &[u8]) -> Option<usize> {
    let length = usize::from(segment.get(12)? >> 4) * 4;
    (HEADER_LEN..=segment.len())
        .contains(&length)
        .then_some(length)
}

/// The sequence number of a header that is there.
#[inline]
pub fn sequence(header: &[u8; HEADER_LEN]) -> u32 {
    u32::from_be_bytes([header[4], header[5], header[6], header[7]])
}

/// Moves the sequence number on by `bytes`; the checksum is the caller's. Nothing changes if the
/// header is cut short.
#[inline]
pub fn advance(segment: &mut [u8], bytes: u32) {
    if let Some(header) = segment.first_chunk_mut::<HEADER_LEN>() {
        let next = sequence(header).wrapping_add(bytes);
        header[4..8].copy_from_slice(&next.to_be_bytes());
    }
}
