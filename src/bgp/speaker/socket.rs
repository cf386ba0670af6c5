//! TCP as BGP wants it: MD5 signatures (RFC 2385) and a TTL that cannot come from afar (RFC 5082).

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bgp::settings::PeerSettings;

/// Every packet of ours has it, since whoever checks it cannot be told beforehand.
const TTL: u32 = 255;
/// Network control (RFC 4594 §3.1): the class that routing protocols have.
const CS6: u32 = 0xc0;
const BACKLOG: i32 = 128;

/// A socket that listens; of IPv6, for IPv6 alone.
pub(super) fn listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = make(address.ip())?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// A connection to a peer that has been begun.
pub(super) fn connect(peer: &PeerSettings) -> io::Result<mio::net::TcpStream> {
    let socket = make(peer.address)?;
    demand_ttl(&socket, peer)?;
    if let Some(password) = &peer.password {
        set_password(&socket, peer.address, password)?;
    }
    if let Some(source) = peer.source {
        socket.bind(&with_scope(source, 0, peer.scope_id).into())?;
    }
    let to = with_scope(peer.address, peer.port, peer.scope_id);
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(mio::net::TcpStream::from_std(socket.into())),
    }
}

/// What a connection that a peer has opened must fulfil.
pub(super) fn accepted(stream: &mio::net::TcpStream, peer: &PeerSettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    demand_ttl(stream, peer)
}

/// The password of an address's connections; an empty one: none.
pub(super) fn set_password(
    socket: &impl std::os::fd::AsFd,
    address: IpAddr,
    password: &str,
) -> io::Result<()> {
    let signature = Signature::new(address, password.as_bytes());
    match setsockopt(socket, TcpMd5, &signature) {
        // There is none to be taken away.
        Err(nix::errno::Errno::ENOENT) if password.is_empty() => Ok(()),
        outcome => Ok(outcome?),
    }
}

fn make(address: IpAddr) -> io::Result<Socket> {
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match address {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(CS6)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(CS6)?;
        }
    }
    Ok(socket)
}

/// A peer `hops` away decrements the TTL one time less.
fn demand_ttl(socket: &impl std::os::fd::AsFd, peer: &PeerSettings) -> io::Result<()> {
    let Some(hops) = peer.ttl_security else {
        return Ok(());
    };
    let least = 256 - i32::from(hops);
    match peer.address {
        IpAddr::V4(_) => setsockopt(socket, Ipv4MinTtl, &least)?,
        IpAddr::V6(_) => setsockopt(socket, Ipv6MinHopCount, &least)?,
    }
    Ok(())
}

fn with_scope(address: IpAddr, port: u16, scope_id: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope_id).into(),
    }
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Signature {
    /// `struct sockaddr_storage`.
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; 80],
}

impl Signature {
    fn new(address: IpAddr, key: &[u8]) -> Self {
        let mut signature = Self {
            address: [0; 128],
            flags: 0,
            prefix_length: 0,
            key_length: key.len().min(80) as u16,
            interface: 0,
            key: [0; 80],
        };
        let storage = &mut signature.address;
        let family = match address {
            IpAddr::V4(v4) => {
                storage[4..8].copy_from_slice(&v4.octets());
                libc::AF_INET
            }
            IpAddr::V6(v6) => {
                storage[8..24].copy_from_slice(&v6.octets());
                libc::AF_INET6
            }
        };
        storage[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        let key = &key[..usize::from(signature.key_length)];
        signature.key[..key.len()].copy_from_slice(key);
        signature
    }
}

/// linux/in6.h, which the C library's headers have and the crate has not.
const IPV6_MINHOPCOUNT: libc::c_int = 73;

sockopt_impl!(
    /// RFC 2385.
    TcpMd5,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_MD5SIG,
    Signature
);
sockopt_impl!(
    /// RFC 5082.
    Ipv4MinTtl,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MINTTL,
    i32
);
sockopt_impl!(
    /// RFC 5082.
    Ipv6MinHopCount,
    SetOnly,
    libc::IPPROTO_IPV6,
    IPV6_MINHOPCOUNT,
    i32
);
