//! The thread that has sockets and timers.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use crossbeam_channel::Receiver;

use super::attributes::OwnRoute;
use super::event::Event;
use super::report::{NeighborReport, RouteQuery, RouteReport};
use super::settings::{PeerName, Settings, SettingsError};

/// A running speaker; dropped, it stops as [`Stop::Restarting`] does.
pub struct Speaker {}

/// How a speaker begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With nothing.
    Fresh,
    /// After a restart through which packets were forwarded: peers that kept our routes are told so
    /// (RFC 4724 §4.1), and nothing is told them until they have sent theirs.
    Restarted,
}

/// How a speaker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Cease, administrative shutdown, with a text for the peers' operators (RFC 9003: up to 255 bytes):
    /// peers forget our routes at once.
    Shutdown(String),
    /// Connections close without a NOTIFICATION: peers with graceful restart keep our routes.
    Restarting,
}

/// Why a speaker could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are wrong; the earlier ones stay.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address cannot be listened on; everything else is applied.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The thread or what it needs could not be made.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The speaker has ended.
    #[error("the speaker has ended")]
    Ended,
}

impl Speaker {
    /// Starts the thread, in the calling thread's network namespace.
    pub fn start(settings: Settings, start: Start) -> Result<Self, Error> {
        let _ = (settings, start);
        unimplemented!()
    }

    /// Applies what is different; sessions whose settings are the same live on.
    pub fn configure(&self, settings: Settings) -> Result<(), Error> {
        let _ = settings;
        unimplemented!()
    }

    /// Sets all own routes: those that are no longer named are withdrawn. Events never speak of them,
    /// but of no better path for their prefixes either: an own route wins.
    pub fn originate(&self, routes: Vec<OwnRoute>) -> Result<(), Error> {
        let _ = routes;
        unimplemented!()
    }

    /// Sets all next hops that are known to be unreachable now: the groups they are in are re-pointed at
    /// once, then paths through them are no longer chosen.
    pub fn unreachable(&self, next_hops: BTreeSet<IpAddr>) -> Result<(), Error> {
        let _ = next_hops;
        unimplemented!()
    }

    /// What happens. The channel is short: while nobody takes from it, changes are merged by prefix.
    pub fn events(&self) -> &Receiver<Event> {
        unimplemented!()
    }

    /// All neighbours, in order of name.
    pub fn neighbors(&self) -> Result<Vec<NeighborReport>, Error> {
        unimplemented!()
    }

    /// What peers have told, used or not, in order of prefix.
    pub fn received(&self, query: RouteQuery) -> Result<Vec<RouteReport>, Error> {
        let _ = query;
        unimplemented!()
    }

    /// The paths in use, own ones too, in order of prefix.
    pub fn routes(&self, query: RouteQuery) -> Result<Vec<RouteReport>, Error> {
        let _ = query;
        unimplemented!()
    }

    /// What a peer has been told, with the attributes as they were sent.
    pub fn advertised(&self, peer: &PeerName, query: RouteQuery) -> Result<Vec<RouteReport>, Error> {
        let _ = (peer, query);
        unimplemented!()
    }

    /// Writes all received routes as MRT, TABLE_DUMP_V2 (RFC 6396).
    pub fn dump(&self, to: &mut dyn Write) -> io::Result<()> {
        let _ = to;
        unimplemented!()
    }

    /// Ends a peer's session (Cease, administrative reset) and begins it anew; or asks the peer to send
    /// its routes again, and sends ours, without a reset. False: there is no such peer.
    pub fn reset(&self, peer: &PeerName, softly: bool) -> Result<bool, Error> {
        let _ = (peer, softly);
        unimplemented!()
    }

    /// Ends all sessions and waits for the thread.
    pub fn stop(self, how: Stop) {
        let _ = how;
        unimplemented!()
    }
}
