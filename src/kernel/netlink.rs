//! Netlink sockets: requests with their answers, and events.
//!
//! Formats and rules: RFC 3549; kernel, Documentation/userspace-api/netlink/intro.rst.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Error, Result};

/// A connection to the kernel's routing tables, links and addresses: the part of rtnetlink that asks
/// and changes. [`super::Mirror`] is the part that listens.
pub struct Netlink {
    socket: RequestSocket,
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        RequestSocket::open(protocols::NETLINK_ROUTE, "rtnetlink").map(|socket| Self { socket })
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    pub(super) fn change(
        &mut self,
        what: impl Display,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        self.socket.transact(what, message, flags, |_| ())?;
        Ok(())
    }

    /// The answers to a request for one object.
    pub(super) fn get(
        &mut self,
        what: impl Display,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        self.socket
            .transact(what, message, 0, |answer| answers.push(answer))?;
        Ok(answers)
    }

    /// Every object of a kind. The table may change while the kernel lists it; then the listing is
    /// repeated, a few times at most.
    pub(super) fn dump(
        &mut self,
        what: impl Display,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        const ATTEMPTS: usize = 5;
        let mut answers = Vec::new();
        for _ in 0..ATTEMPTS {
            answers.clear();
            let consistent = self
                .socket
                .transact(&what, message.clone(), NLM_F_DUMP, |m| answers.push(m))?;
            if consistent {
                return Ok(answers);
            }
        }
        // What is missing here is on its way as events to whoever keeps a mirror.
        log::debug!("{what}: the table keeps changing; taking the last listing");
        Ok(answers)
    }
}

/// Asks and waits for the answer, for any netlink protocol.
pub(super) struct RequestSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RequestSocket {
    /// How long an answer may take: the kernel answers at once, unless its locks are held for long.
    const TIMEOUT_SECONDS: i64 = 30;
    /// Enough for the largest datagram of a dump (32 KiB), and a link with many virtual functions.
    const BUFFER: usize = 256 * 1024;

    pub fn open(protocol: isize, name: &str) -> Result<Self> {
        let failed = |source| Error::io(format!("opening a {name} socket"), source);
        let mut socket = Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        // Explanations beside error numbers, without the request echoed; and dumps filtered by the
        // kernel. All three exist since Linux 4.20.
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        socket.set_netlink_get_strict_chk(true).map_err(failed)?;
        let timeout = TimeVal::seconds(Self::TIMEOUT_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(|e| failed(e.into()))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(Self::BUFFER),
        })
    }

    /// Sends a request, hands every answer to `each`, and says whether the answers are consistent
    /// with one another (a dump may be interrupted by a change).
    pub fn transact<I>(
        &mut self,
        what: impl Display,
        message: I,
        flags: u16,
        mut each: impl FnMut(I),
    ) -> Result<bool>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, flags)
            .map_err(|source| Error::io(what.to_string(), source))?;
        let mut consistent = true;
        loop {
            self.receive()
                .map_err(|source| Error::io(what.to_string(), source))?;
            for item in Messages::new(&self.buffer) {
                let (header, bytes) = item.map_err(|reason| answer_error(&what, reason))?;
                if header.sequence_number != self.sequence {
                    continue; // the late answer to a request that timed out
                }
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                match NetlinkMessage::<I>::deserialize(bytes).map(|m| m.payload) {
                    Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                    Ok(NetlinkPayload::Error(error)) => {
                        return match error.code {
                            None => Ok(consistent),
                            Some(code) => {
                                let attributes = after_header(header.flags, &error.header);
                                Err(refusal(&what, code.get(), attributes))
                            }
                        };
                    }
                    Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                        return Err(refusal(&what, done.code, &done.extended_ack));
                    }
                    Ok(NetlinkPayload::Done(_)) => return Ok(consistent),
                    Ok(_) => {}
                    // One object in an unknown shape must not hide all the others.
                    Err(error) => log::warn!("{what}: skipping an answer: {error}"),
                }
            }
        }
    }

    fn send<I: NetlinkSerializable>(&mut self, message: I, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    fn receive(&mut self) -> io::Result<()> {
        receive_datagram(&self.socket, &mut self.buffer, 0).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {} s", Self::TIMEOUT_SECONDS),
                )
            } else {
                error
            }
        })
    }
}

/// Listens to the kernel's announcements of changes.
pub(super) struct EventSocket {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What [`EventSocket::receive`] found.
pub(super) enum Received {
    /// Announcements, in the kernel's order.
    Events(Vec<Event>),
    /// The receive buffer ran over: announcements are lost.
    Overrun,
    /// No announcement is waiting.
    Nothing,
}

/// One announcement.
pub(super) enum Event {
    /// A link, address, neighbour or route came, changed or went.
    Changed {
        message: RouteNetlinkMessage,
        flags: u16,
    },
    /// A next-hop object went, and with it, unannounced, the routes through it.
    NextHopDeleted,
}

impl EventSocket {
    /// Listens to links, addresses, neighbours, routes and next-hop objects. `receive_buffer`, in
    /// bytes, may go beyond `net.core.rmem_max` for a process with CAP_NET_ADMIN.
    pub fn open(receive_buffer: usize) -> Result<Self> {
        /// RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, _NEXTHOP
        /// (linux/rtnetlink.h).
        const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, RTNLGRP_NEXTHOP];
        let failed = |source| Error::io("opening an rtnetlink event socket", source);
        let mut socket = Socket::new(protocols::NETLINK_ROUTE).map_err(failed)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &receive_buffer).map_err(|e| failed(e.into()))?;
        }
        socket.bind_auto().map_err(failed)?;
        for group in GROUPS {
            match socket.add_membership(group) {
                // Next-hop objects are younger (Linux 5.3) than the rest.
                Err(_) if group == RTNLGRP_NEXTHOP => {}
                other => other.map_err(failed)?,
            }
        }
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(RequestSocket::BUFFER),
        })
    }

    /// The descriptor, readable when announcements wait.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Takes one datagram of announcements without waiting.
    pub fn receive(&mut self) -> Result<Received> {
        match receive_datagram(&self.socket, &mut self.buffer, libc::MSG_DONTWAIT) {
            Ok(()) => Ok(self.events()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(Error::io("reading rtnetlink events", error)),
        }
    }

    fn events(&self) -> Received {
        let mut events = Vec::new();
        for item in Messages::new(&self.buffer) {
            let (header, bytes) = match item {
                Ok(item) => item,
                Err(reason) => {
                    log::warn!("rtnetlink events: {reason}; reading everything anew");
                    return Received::Overrun;
                }
            };
            match header.message_type {
                RTM_DELNEXTHOP => events.push(Event::NextHopDeleted),
                RTM_NEWNEXTHOP => {}
                _ => match RouteNetlinkMessage::deserialize(&header, payload(bytes)) {
                    Ok(message) => events.push(Event::Changed {
                        message,
                        flags: header.flags,
                    }),
                    Err(error) => log::warn!("rtnetlink events: skipping one: {error}"),
                },
            }
        }
        Received::Events(events)
    }
}

// linux/rtnetlink.h
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTNLGRP_NEXTHOP: u32 = 32;

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Fills `buffer` with one datagram. One that does not fit is an error: half a message is none.
fn receive_datagram(socket: &Socket, buffer: &mut Vec<u8>, flags: libc::c_int) -> io::Result<()> {
    loop {
        buffer.clear();
        match socket.recv(buffer, flags | libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a datagram of {length} bytes, more than {}", buffer.len()),
                ));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The messages of a datagram, each with its header and all its bytes.
struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<(NetlinkHeader, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = NetlinkBuffer::new_checked(self.rest)
            .and_then(|buffer| NetlinkHeader::parse(&buffer))
            .map_err(|error| error.to_string());
        Some(match parsed {
            Ok(header) => {
                let length = header.length as usize;
                let message = &self.rest[..length];
                let next = length.next_multiple_of(4).min(self.rest.len());
                self.rest = &self.rest[next..];
                Ok((header, message))
            }
            Err(reason) => {
                self.rest = &[];
                Err(reason)
            }
        })
    }
}

fn payload(message: &[u8]) -> &[u8] {
    message.get(HEADER..).unwrap_or_default()
}

/// The attributes behind the request's header (and the request itself, when the kernel did not cap
/// it) in an NLMSG_ERROR.
fn after_header(flags: u16, echoed: &[u8]) -> &[u8] {
    /// The message holds only the request's header (linux/netlink.h).
    const NLM_F_CAPPED: u16 = 0x100;
    let length = match echoed.first_chunk::<4>() {
        Some(length) if flags & NLM_F_CAPPED == 0 => u32::from_ne_bytes(*length) as usize,
        _ => HEADER,
    };
    echoed.get(length.next_multiple_of(4)..).unwrap_or_default()
}

fn refusal(what: impl Display, code: i32, attributes: &[u8]) -> Error {
    /// The kernel's words, NUL-terminated (linux/netlink.h).
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let explanation = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            String::from_utf8_lossy(attribute.value())
                .trim_end_matches('\0')
                .to_owned()
        });
    Error::Refused {
        what: what.to_string(),
        explanation,
        source: io::Error::from_raw_os_error(code.wrapping_neg()),
    }
}

fn answer_error(what: impl Display, reason: String) -> Error {
    Error::Answer {
        what: what.to_string(),
        reason,
    }
}
