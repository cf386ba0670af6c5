//! Two interfaces of this machine, with something between them that is not ours to build: a router, two
//! nodes and their network, a cable.
//!
//! ```text
//!  this machine                                             this machine
//!   generator ── from ══════ what is measured ══════ to ── sink
//! ```
//!
//! Both ends are on one machine, so that one clock stamps a packet and reads the stamp. An interface
//! that is used for something else is left alone: the load would disturb that, and that the figures.

use std::net::{IpAddr, Ipv4Addr};

use super::error::{BenchError, Result};
use super::load::profile::{FrameSize, Profile};
use super::measure::Ends;
use super::namespace::Namespace;
use super::options::Options;
use crate::kernel::{Link, Mirror};
use crate::port::xdp_programs;
use crate::wire::MacAddr;

/// The first source and destination address where none is given: of the network for benchmarks
/// (RFC 2544 appendix C.2.2, RFC 6890), one half for each side.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// See [`SOURCE`].
pub const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);

/// What is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The interface that packets leave by.
    pub from: String,
    /// The interface that they come back by.
    pub to: String,
    /// The Ethernet address that packets are sent to; none: that of `to`, as if a cable joined both.
    pub next_hop: Option<MacAddr>,
    /// The packets' source.
    pub source: Ipv4Addr,
    /// Their first destination.
    pub destination: Ipv4Addr,
    /// Whether to use interfaces that have addresses, a default route, a master or an XDP program.
    pub force: bool,
}

impl Given {
    /// Nothing comes back.
    pub(super) fn nothing_arrives(&self) -> BenchError {
        let Self {
            from,
            to,
            source,
            destination,
            ..
        } = self;
        BenchError::Interface {
            interface: to.clone(),
            reason: format!(
                "no packet arrives here: what is sent by {from} ({source} to {destination}, UDP) must be \
                 routed out to {to}, with an Ethernet address for the next hop or destination there \
                 (`ip neigh`); and the driver of {from} must take redirected frames (ndo_xdp_xmit; a \
                 veth does if its far end has GRO on or an XDP program)"
            ),
        }
    }
}

/// The interfaces, looked at.
#[derive(Debug)]
pub struct Interfaces<'a> {
    given: &'a Given,
    namespace: Namespace,
    macs: (MacAddr, MacAddr),
}

impl<'a> Interfaces<'a> {
    /// Looks at the interfaces, and refuses those that cannot or should not be used.
    pub fn look(given: &'a Given) -> Result<Self> {
        let mirror = Mirror::open().map_err(|error| BenchError::Load(error.to_string()))?;
        let look = |name: &str| -> Result<MacAddr> {
            let refused = |reason: String| BenchError::Interface {
                interface: name.to_owned(),
                reason,
            };
            let link = mirror.link_named(name).ok_or_else(|| {
                let here =
                    "there is none in this network namespace; `ip link` lists those that are";
                refused(here.to_owned())
            })?;
            let mac = usable(link).map_err(refused)?;
            match in_use(&mirror, link)? {
                Some(use_of) if !given.force => Err(refused(format!(
                    "it is in use: it {use_of}; name one that is free, or --force to use it nevertheless"
                ))),
                _ => Ok(mac),
            }
        };
        let macs = (look(&given.from)?, look(&given.to)?);
        if given.from == given.to {
            return Err(BenchError::Interface {
                interface: given.to.clone(),
                reason: "packets cannot leave and come back by the same one; name two".to_owned(),
            });
        }
        Ok(Self {
            given,
            namespace: Namespace::current("the given interfaces")?,
            macs,
        })
    }

    /// Where the load begins and ends.
    pub fn ends(&self, options: &Options) -> Ends<'_> {
        let (own, far) = self.macs;
        Ends {
            from: (&self.namespace, &self.given.from),
            to: (&self.namespace, &self.given.to),
            profile: Profile {
                ethernet: (own, self.given.next_hop.unwrap_or(far)),
                source: self.given.source,
                destination: self.given.destination,
                destinations: options.destinations,
                flows: options.flows,
                size: options.sizes[0],
                tunnel: None,
            },
        }
    }

    /// Packets a second that the sending interface's speed allows, where it tells its speed
    /// (RFC 2544 section 20: preamble and gap are 20 bytes a frame).
    pub fn line_rate(&self, size: FrameSize) -> Option<f64> {
        let path = format!("/sys/class/net/{}/speed", self.given.from);
        let megabits: f64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        // A veth says 10 Gb/s, which nothing there enforces.
        let is_virtual =
            std::fs::symlink_metadata(format!("/sys/class/net/{}/device", self.given.from))
                .is_err();
        (megabits > 0.0 && !is_virtual).then(|| megabits * 1e6 / ((size.mean() + 20.0) * 8.0))
    }
}

/// The interface's Ethernet address, if frames can be sent and received there.
fn usable(link: &Link) -> Result<MacAddr, String> {
    let mac = link.mac.filter(|_| !link.loopback);
    let mac = mac.ok_or("it is no Ethernet interface")?;
    if link.up && link.running {
        return Ok(mac);
    }
    Err(format!(
        "it is down, or nothing is at its far end; `ip link set {} up`",
        link.name
    ))
}

/// What an interface is used for, as far as can be seen.
fn in_use(mirror: &Mirror, link: &Link) -> Result<Option<String>> {
    let programs = xdp_programs(&link.name).map_err(|error| BenchError::Load(error.to_string()))?;
    if let Some(id) = programs.first() {
        return Ok(Some(format!("has an XDP program, number {id}")));
    }
    let is_default = |route: &&crate::kernel::Route| {
        let hops = &route.next_hops;
        route.destination.prefix_len() == 0 && hops.iter().any(|hop| hop.interface == link.index)
    };
    if mirror.routes().any(|route| is_default(&route)) {
        return Ok(Some("carries a default route".to_owned()));
    }
    let own = |address: &&crate::kernel::Address| match address.address.addr() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    if let Some(address) = mirror.addresses(link.index).iter().find(own) {
        return Ok(Some(format!("has the address {}", address.address)));
    }
    let master = link.controller.and_then(|index| mirror.link(index));
    Ok(master.map(|master| format!("belongs to {}", master.name)))
}
