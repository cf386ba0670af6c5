//! What underpass reads from and writes to the host kernel.
//!
//! * [`Mirror`] follows links, addresses, neighbours and the main routing table, and answers how a
//!   far node is reached over the underlay.
//! * [`Netlink`] changes what is ours: links, addresses, routes marked with [`ROUTE_PROTOCOL`].
//! * [`Ethtool`] reads and switches offloads; [`veth`] finds the far end of a veth pair.
//! * [`Masquerade`] has nftables translate the addresses of what leaves the overlay.
//! * [`forward_chains`] says which chains of nftables drop what the host forwards.
//! * [`listening`] says who has a TCP port.
//! * [`build`] says which kernel it is, and what it was built with.
//! * [`sysctl`] changes `/proc/sys/net` and puts it back; [`capabilities`] says what a machine lacks.
//!
//! Everything is synchronous. A socket belongs to the network namespace of the thread that opened it
//! and stays there, wherever it is used later.

pub mod build;
pub mod capabilities;
mod ethtool;
pub mod forward_chains;
mod links;
pub mod listening;
mod masquerade;
mod mirror;
mod netlink;
mod route_table;
mod routes;
mod state;
pub mod sysctl;
mod underlay;
pub mod veth;

use std::io;
use std::time::Duration;

pub use ethtool::{Channels, Ethtool, Feature, driver, is_tx_offload, takes_redirects};
pub use links::Veth;
pub use masquerade::{Masquerade, MasqueradeRules};
pub use mirror::{Changes, MAIN_TABLE, Mirror, Touched};
pub use netlink::Netlink;
pub use routes::{OwnRoute, ROUTE_PROTOCOL, Target};
pub use state::{Address, Link, NeighbourEntry, NextHop, Parent, Route, RouteKind};
pub use underlay::{Neighbour, Underlay, Unreachable};

pub use netlink_packet_route::neighbour::NeighbourState;

/// Waits until there is something to read from a descriptor that stays open meanwhile; false if nothing came
/// in time.
pub fn wait_readable(descriptor: std::os::fd::RawFd, patience: Duration) -> io::Result<bool> {
    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(1);
    let mut source = mio::unix::SourceFd(&descriptor);
    poll.registry()
        .register(&mut source, mio::Token(0), mio::Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(!events.is_empty()),
        }
    }
}

/// What can go wrong between underpass and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel understood the request and refused it.
    #[error("{what}: the kernel refuses: {}{source}", .explanation.as_ref().map(|text| format!("{text}: ")).unwrap_or_default())]
    Refused {
        /// What was asked, and of what.
        what: String,
        /// The kernel's own words, where it gives any (extended acknowledgement).
        explanation: Option<String>,
        /// The error number.
        source: io::Error,
    },
    /// The kernel's answer is not understood.
    #[error("{what}: the kernel's answer is not understood: {reason}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// An interface is named that is not there.
    #[error(
        "there is no interface '{0}' in this network namespace; `ip link` lists those that are"
    )]
    NoInterface(String),
    /// A route to the same destination, with the same metric, belongs to somebody else.
    #[error(
        "route to {destination} metric {metric}: another program has one in the main table; \
         remove that, or have it use another metric"
    )]
    ForeignRoute {
        /// The destination of both.
        destination: ipnet::IpNet,
        /// The metric of both.
        metric: u32,
    },
    /// A feature could not be switched.
    #[error("interface {interface}: {features} cannot be switched {state}; the driver fixes it")]
    Fixed {
        /// The interface's name.
        interface: String,
        /// The features that stay as they are.
        features: String,
        /// What was asked for: `on` or `off`.
        state: &'static str,
    },
    /// A value that cannot be part of a request.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The system's error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// The result of talking to the kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;
