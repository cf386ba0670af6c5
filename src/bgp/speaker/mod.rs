//! The thread that has sockets and timers, and the handle to it.

mod connection;
mod run;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use self::run::Runner;
use super::attributes::OwnRoute;
use super::core::View;
use super::event::Event;
use super::mrt;
use super::report::{NeighborReport, RouteQuery, RouteReport};
use super::settings::{PeerName, Settings, SettingsError};

/// Events that wait for the consumer; beyond, changes are merged by prefix.
const EVENTS: usize = 32;

/// A running speaker; dropped, it stops as [`Stop::Restarting`] does.
pub struct Speaker {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    events: Receiver<Event>,
    deaf: Deaf,
    thread: Option<JoinHandle<()>>,
}

/// Addresses that cannot be listened at now, and why.
type Deaf = Arc<Mutex<BTreeMap<SocketAddr, String>>>;

/// How a speaker begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With nothing.
    Fresh,
    /// After a restart. All peers are told so (RFC 4724 §4.1); these, which had sessions with the earlier
    /// run and keep its routes, are told nothing else until they have sent theirs. What is to be forwarded
    /// by own routes is forwarded already.
    Restarted(BTreeSet<PeerName>),
}

/// How a speaker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Cease, administrative shutdown, with a text for the peers' operators (RFC 9003: up to 255 bytes):
    /// peers forget our routes at once.
    Shutdown(String),
    /// Connections close without a NOTIFICATION: peers with graceful restart keep our routes. The others
    /// are told as by [`Stop::Shutdown`].
    Restarting,
}

/// Why a speaker could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are wrong; the earlier ones stay.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address cannot be listened on yet; everything else is applied, and it is tried again.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The thread or what it needs could not be made.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The speaker has ended.
    #[error("the speaker has ended")]
    Ended,
}

/// What the thread is asked for.
enum Command {
    Configure(Box<Settings>, Sender<Result<(), Error>>),
    Originate(Vec<OwnRoute>),
    Unreachable(BTreeSet<IpAddr>),
    Neighbors(Sender<Vec<NeighborReport>>),
    Routes(View, RouteQuery, Sender<Vec<RouteReport>>),
    Advertised(PeerName, RouteQuery, Sender<Option<Vec<RouteReport>>>),
    Reset(PeerName, bool, Sender<bool>),
    Shared(Sender<(usize, usize)>),
    Stop(Stop),
}

impl Speaker {
    /// Starts the thread, in the calling thread's network namespace. Where it cannot listen yet, which
    /// [`Speaker::deaf`] says, it tries again and again.
    pub fn start(settings: Settings, start: Start) -> Result<Self, Error> {
        settings.check()?;
        let poll = mio::Poll::new().map_err(Error::Start)?;
        let waker = mio::Waker::new(poll.registry(), run::WAKER).map_err(Error::Start)?;
        let (commands, to_do) = crossbeam_channel::unbounded();
        let (tell, events) = bounded(EVENTS);
        let deaf = Deaf::default();
        let mut runner = Runner::new(poll, (to_do, tell), Arc::clone(&deaf), &settings, start);
        // Where that is not possible is in `deaf`.
        let _ = runner.listen(&settings);
        let thread = thread::Builder::new().name("bgp".to_owned());
        let thread = thread.spawn(move || runner.run()).map_err(Error::Start)?;
        Ok(Self {
            commands,
            waker: Arc::new(waker),
            events,
            deaf,
            thread: Some(thread),
        })
    }

    /// Addresses that cannot be listened at now, and why; it is tried again and again.
    pub fn deaf(&self) -> BTreeMap<SocketAddr, String> {
        self.deaf
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Applies what is different; sessions whose settings are the same live on.
    pub fn configure(&self, settings: Settings) -> Result<(), Error> {
        settings.check()?;
        self.ask(|reply| Command::Configure(Box::new(settings), reply))?
    }

    /// Sets all own routes: those that are no longer named are withdrawn. Events never speak of them,
    /// nor of other paths for their prefixes: an own route wins.
    pub fn originate(&self, routes: Vec<OwnRoute>) -> Result<(), Error> {
        self.command(Command::Originate(routes))
    }

    /// Sets all next hops that are known to be unreachable now: the groups they are in are re-pointed at
    /// once, then paths through them are no longer chosen.
    pub fn unreachable(&self, next_hops: BTreeSet<IpAddr>) -> Result<(), Error> {
        self.command(Command::Unreachable(next_hops))
    }

    /// What happens. The channel is short: while nobody takes from it, changes are merged by prefix.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// All neighbours, in order of name.
    pub fn neighbors(&self) -> Result<Vec<NeighborReport>, Error> {
        self.ask(Command::Neighbors)
    }

    /// What peers have told, used or not, in order of prefix.
    pub fn received(&self, query: RouteQuery) -> Result<Vec<RouteReport>, Error> {
        self.ask(|reply| Command::Routes(View::Received, query, reply))
    }

    /// The paths in use, own ones too, in order of prefix.
    pub fn routes(&self, query: RouteQuery) -> Result<Vec<RouteReport>, Error> {
        self.ask(|reply| Command::Routes(View::Used, query, reply))
    }

    /// What a peer has been told, with the attributes as they were sent, in order of prefix; none: there
    /// is no such peer.
    pub fn advertised(
        &self,
        peer: &PeerName,
        query: RouteQuery,
    ) -> Result<Option<Vec<RouteReport>>, Error> {
        self.ask(|reply| Command::Advertised(peer.clone(), query, reply))
    }

    /// Writes all received routes as MRT, TABLE_DUMP_V2 (RFC 6396).
    pub fn dump(&self, to: &mut dyn Write) -> io::Result<()> {
        let ended = |error: Error| io::Error::other(error.to_string());
        let neighbors = self.neighbors().map_err(ended)?;
        let routes = self.received(RouteQuery::default()).map_err(ended)?;
        mrt::write(to, SystemTime::now(), &neighbors, &routes)
    }

    /// Ends a peer's session (Cease, administrative reset) and begins it anew; `softly`: asks the peer to
    /// send its routes again, and sends ours, without a reset. False: there is no such peer.
    pub fn reset(&self, peer: &PeerName, softly: bool) -> Result<bool, Error> {
        self.ask(|reply| Command::Reset(peer.clone(), softly, reply))
    }

    /// How many different attributes and next-hop groups there are.
    pub fn shared(&self) -> Result<(usize, usize), Error> {
        self.ask(Command::Shared)
    }

    /// Ends all sessions and waits for the thread.
    pub fn stop(mut self, how: Stop) {
        self.end(how);
    }

    fn end(&mut self, how: Stop) {
        let _ = self.command(Command::Stop(how));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).map_err(|_| Error::Ended)?;
        self.waker.wake().map_err(|_| Error::Ended)
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = bounded(1);
        self.command(question(reply))?;
        answer.recv().map_err(|_| Error::Ended)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(Stop::Restarting);
        }
    }
}
