//! The outermost VLAN tag of what a packet socket reads.
//!
//! The kernel takes it off before packet sockets see the frame (`skb_vlan_untag`), and tells of it beside
//! the frame alone (packet(7), PACKET_AUXDATA). Here it is put back: a frame without it would leave its
//! VLAN.
//!
//! ```text
//!  read:       –4 bytes– | virtio header | addresses | EtherType …
//!  put back:   virtio header | addresses | TPID, TCI | EtherType …
//! ```
#![allow(unsafe_code)] // recvmsg.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use crate::wire::ethernet::{EtherType, TAG_LEN};
use crate::wire::virtio_net::{HEADER_LEN, VirtioNet};

/// Has the kernel tell of the tag (linux/if_packet.h).
pub(super) const PACKET_AUXDATA: libc::c_int = 8;

/// Bytes before a tag: the header, and two Ethernet addresses.
const BEFORE_TAG: usize = HEADER_LEN + 12;

/// Room for one message of the socket's: 20 bytes and their header.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Reads a frame behind its header and says where in the buffer the two are.
pub(super) fn read(socket: &File, buffer: &mut [u8]) -> io::Result<Range<usize>> {
    let room = buffer.get_mut(TAG_LEN..).unwrap_or_default();
    let (length, tag) = receive(socket, room)?;
    let read = TAG_LEN..TAG_LEN + length;
    Ok(match tag {
        Some(tag) if length >= BEFORE_TAG => put_back(buffer, read, tag),
        _ => read,
    })
}

/// What comes before the tag is less than what comes behind it, so that is what moves.
fn put_back(buffer: &mut [u8], read: Range<usize>, tag: [u8; TAG_LEN]) -> Range<usize> {
    let start = read.start - TAG_LEN;
    buffer.copy_within(read.start..read.start + BEFORE_TAG, start);
    buffer[start + BEFORE_TAG..][..TAG_LEN].copy_from_slice(&tag);
    let header = &mut buffer[start..start + HEADER_LEN];
    // A header that is not understood is refused with its packet.
    if let Ok(told) = VirtioNet::parse(header) {
        header.copy_from_slice(&told.moved(TAG_LEN as u16).to_bytes());
    }
    start..read.end
}

/// A frame's length and the tag that was taken off it.
fn receive(socket: &File, room: &mut [u8]) -> io::Result<(usize, Option<[u8; TAG_LEN]>)> {
    let mut control = Control([0; 64]);
    let mut whole = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    // SAFETY: all bytes zero are a message of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut whole;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the descriptor is open; the message and the memory of these lengths that it points to
    // outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the message in, and what it points to is still there.
    let told = unsafe { auxdata(&message) };
    Ok((length, told.as_ref().and_then(tag)))
}

/// What the kernel tells beside a frame: the one message that the socket asked for.
///
/// # Safety
/// The message is as `recvmsg` left it, and its control buffer is there.
unsafe fn auxdata(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    const LENGTH: u32 = size_of::<libc::tpacket_auxdata>() as u32;
    // SAFETY: as the caller says; the header is aligned as the buffer is, and within it.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    // SAFETY: plain arithmetic.
    let least = unsafe { libc::CMSG_LEN(LENGTH) };
    let is_it = header.cmsg_level == libc::SOL_PACKET
        && header.cmsg_type == PACKET_AUXDATA
        && header.cmsg_len as usize >= least as usize;
    // SAFETY: the data of that length, plain numbers, follows the header.
    is_it.then(|| unsafe {
        libc::CMSG_DATA(header)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    })
}

fn tag(told: &libc::tpacket_auxdata) -> Option<[u8; TAG_LEN]> {
    let has = |flag| told.tp_status & flag != 0;
    // Linux before 3.14 takes off none but these.
    let tpid = if has(libc::TP_STATUS_VLAN_TPID_VALID) {
        told.tp_vlan_tpid
    } else {
        EtherType::VLAN.0
    };
    let [t0, t1] = tpid.to_be_bytes();
    let [c0, c1] = told.tp_vlan_tci.to_be_bytes();
    has(libc::TP_STATUS_VLAN_VALID).then_some([t0, t1, c0, c1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::virtio_net::PartialChecksum;

    fn told(tp_status: u32, tp_vlan_tci: u16, tp_vlan_tpid: u16) -> libc::tpacket_auxdata {
        libc::tpacket_auxdata {
            tp_status,
            tp_len: 0,
            tp_snaplen: 0,
            tp_mac: 0,
            tp_net: 0,
            tp_vlan_tci,
            tp_vlan_tpid,
        }
    }

    #[test]
    fn a_tag_is_what_the_kernel_says_it_is() {
        let (tci, tpid) = (libc::TP_STATUS_VLAN_VALID, libc::TP_STATUS_VLAN_TPID_VALID);
        assert_eq!(tag(&told(0, 0, 0)), None);
        assert_eq!(tag(&told(tci, 0x600a, 0)), Some([0x81, 0, 0x60, 10]));
        // A priority tag is a tag, though all of it is zero.
        assert_eq!(tag(&told(tci | tpid, 0, 0x8100)), Some([0x81, 0, 0, 0]));
        assert_eq!(
            tag(&told(tci | tpid, 20, 0x88a8)),
            Some([0x88, 0xa8, 0, 20])
        );
    }

    #[test]
    fn a_tag_is_put_behind_the_addresses_and_the_header_tells_of_it() {
        let header = |start, header_len| VirtioNet {
            gso: None,
            checksum: Some(PartialChecksum { start, offset: 6 }),
            header_len,
        };
        let frame: Vec<u8> = (0..60).collect();
        let mut buffer = [&[0; 4], &header(34, 42).to_bytes()[..], &frame].concat();
        let read = 4..buffer.len();
        let whole = put_back(&mut buffer, read, [0x81, 0, 0, 10]);
        let (told, packet) = buffer[whole].split_at(HEADER_LEN);
        assert_eq!(VirtioNet::parse(told), Ok(header(38, 46)));
        assert_eq!(packet[..12], frame[..12]);
        assert_eq!(packet[12..16], [0x81, 0, 0, 10]);
        assert_eq!(packet[16..], frame[12..]);
    }
}
