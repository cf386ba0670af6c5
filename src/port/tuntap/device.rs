//! Opening a TUN or TAP device that hands over and takes super-packets (IFF_VNET_HDR), which
//! `tun-tap` has no flag for.
#![allow(unsafe_code)] // ioctl.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use socket2::{Domain, Socket, Type};

use super::TunTapKind;
use super::barrier::Barrier;
use super::taken_tag::{self, PACKET_AUXDATA};
use crate::wire::virtio_net;

// linux/if_tun.h.
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_TSO_ECN: libc::c_uint = 0x08;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// What we take: TCP in any form, and UDP where the kernel knows of it (Linux 6.2).
const TCP: libc::c_uint = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
const TCP_AND_UDP: libc::c_uint = TCP | TUN_F_USO4 | TUN_F_USO6;

/// Bytes that wait in a packet socket.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A device whose packets come and go behind a [`virtio_net`] header.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) file: File,
    /// Whether UDP super-packets may be written.
    pub(super) udp: bool,
    /// What keeps the kernel's stack out of an interface that another program holds.
    barrier: Option<Barrier>,
}

impl Device {
    /// Attaches to the device, which is made if there is none of the name.
    pub(super) fn open(interface: &str, kind: TunTapKind, multi_queue: bool) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let mode = match kind {
            TunTapKind::Tun => libc::IFF_TUN,
            TunTapKind::Tap | TunTapKind::Held => libc::IFF_TAP,
        };
        let queues = if multi_queue {
            libc::IFF_MULTI_QUEUE
        } else {
            0
        };
        let flags = mode | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues;
        let mut request = request(interface, flags as libc::c_short);
        // SAFETY: the descriptor is open and the request, whose name ends in a zero, outlives the call.
        let attached = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        check(attached)?;
        // Another program may have left a persistent device with a longer one.
        let header_len = virtio_net::HEADER_LEN as libc::c_int;
        // SAFETY: the descriptor is open and the number outlives the call.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &header_len) };
        check(set)?;
        let mut device = Self {
            file,
            udp: true,
            barrier: None,
        };
        if device.set_offloads(TCP_AND_UDP).is_err() {
            device.udp = false;
            device.set_offloads(TCP)?;
        }
        Ok(device)
    }

    /// Opens a packet socket on an interface by its number; it speaks the same header (packet(7),
    /// PACKET_VNET_HDR).
    pub(super) fn open_held(index: u32, barrier: Barrier) -> io::Result<Self> {
        // linux/if_packet.h; Linux 4.20.
        const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
        const PACKET_VNET_HDR: libc::c_int = 15;
        let kind = Type::RAW.nonblocking().cloexec();
        // Without a protocol nothing comes before the socket is set up.
        let socket = Socket::new_raw(Domain::PACKET, kind, None)?;
        let descriptor = socket.as_raw_fd();
        for option in [PACKET_VNET_HDR, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING] {
            let on: libc::c_int = 1;
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            // SAFETY: the descriptor is open, and the number of that length outlives the call.
            let set = unsafe {
                libc::setsockopt(
                    descriptor,
                    libc::SOL_PACKET,
                    option,
                    (&raw const on).cast(),
                    length,
                )
            };
            check(set)?;
        }
        // A burst of super-packets; what is beyond what the system allows is cut.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        // SAFETY: all bytes zero are an address of no interface.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as libc::c_int;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the address of that length outlives the call.
        check(unsafe { libc::bind(descriptor, (&raw const address).cast(), length) })?;
        Ok(Self {
            file: File::from(OwnedFd::from(socket)),
            // What the holder cannot take, the kernel cuts on the way to it.
            udp: true,
            barrier: Some(barrier),
        })
    }

    /// Something else in place of a device.
    #[cfg(test)]
    pub(super) fn of_a_test(file: File) -> Self {
        Self {
            file,
            udp: true,
            barrier: None,
        }
    }

    /// Reads a packet behind its header, tags included, and says where in the buffer the two are.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Range<usize>> {
        if self.is_held() {
            return taken_tag::read(&self.file, buffer);
        }
        (&self.file).read(buffer).map(|length| 0..length)
    }

    /// Whether another program holds the interface.
    pub(super) fn is_held(&self) -> bool {
        self.barrier.is_some()
    }

    fn set_offloads(&self, flags: libc::c_uint) -> io::Result<()> {
        let descriptor = self.file.as_raw_fd();
        // SAFETY: the descriptor is open; the flags are passed by value.
        check(unsafe { libc::ioctl(descriptor, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
    }
}

/// A persistent device is left as one that finishes its packets, for whoever opens it next.
impl Drop for Device {
    fn drop(&mut self) {
        if self.is_held() {
            return;
        }
        if let Err(error) = self.set_offloads(0) {
            log::debug!("a TUN or TAP device keeps its offloads: {error}");
        }
    }
}

fn request(interface: &str, flags: libc::c_short) -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    // The name was checked: it is shorter than the field.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
