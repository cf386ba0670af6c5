//! What a node does for the cluster's records beside forwarding, as calico-node and Calico's
//! kube-controllers do: it says that it is alive, takes its tunnels' addresses, and gives back what
//! nobody uses.
//!
//! A thread of its own does it, for a datastore may take its time; nothing here holds up anything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::datastore::{Datastore, DatastoreError, Health};
use crate::ipam::{Ipam, IpamError, Suspects};
use crate::observe::report::Component;
use crate::resources::{Kind, NodeConfig, NodeName, ResourceKey, upkeep as config};

/// How often it is looked how the datastore is.
const LOOK: Duration = Duration::from_secs(1);

/// How often tunnels' addresses are looked after, though nothing seems to have changed.
const TUNNELS: Duration = Duration::from_secs(60);

/// How soon what failed is tried again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long the thread may take to end before it is left to itself: it may wait for a datastore.
const PATIENCE: Duration = Duration::from_millis(500);

/// The running thread; dropping it ends it.
pub struct Upkeep {
    node: NodeName,
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<Mutex<State>>,
}

/// How it goes.
struct State {
    datastore: Health,
    /// What could not be done, while it cannot.
    tunnels: Option<String>,
    garbage: Option<String>,
}

impl Upkeep {
    /// Starts it for a node with this configuration.
    pub fn start(config: &NodeConfig, store: Arc<dyn Datastore>) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            datastore: store.health(),
            tunnels: None,
            garbage: None,
        }));
        let (wake, woken) = bounded(1);
        let keeper = Keeper {
            node: config.node.clone(),
            settings: config.upkeep,
            ipam: Ipam::new(Arc::clone(&store)),
            store,
            woken,
            state: Arc::clone(&state),
        };
        let thread = thread::Builder::new()
            .name("upkeep".into())
            .spawn(move || keeper.run())?;
        Ok(Self {
            node: config.node.clone(),
            wake: Some(wake),
            thread: Some(thread),
            state,
        })
    }

    /// A resource has changed: its tunnels' addresses may be others now.
    pub fn heed(&self, key: &ResourceKey) {
        let own = key.kind == Kind::Node && key.name.as_str() == self.node.as_str();
        if let Some(wake) = self
            .wake
            .as_ref()
            .filter(|_| own || key.kind == Kind::IpPool)
        {
            // One that waits already will see this change, too.
            let _ = wake.try_send(());
        }
    }

    /// How the datastore was when it was last looked at.
    pub fn datastore(&self) -> Health {
        self.state().datastore.clone()
    }

    /// What could not be done, if anything.
    pub fn trouble(&self) -> Vec<Component> {
        let state = self.state();
        let failures = [&state.tunnels, &state.garbage];
        let component = |detail: &String| Component {
            name: "ipam".to_owned(),
            live: true,
            // What is forwarded already goes on.
            ready: true,
            detail: detail.clone(),
        };
        failures.into_iter().flatten().map(component).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        drop(self.wake.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        let told = Instant::now();
        while !thread.is_finished() && told.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A thread that panicked has said so on its own.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Keeper {
    node: NodeName,
    settings: config::Upkeep,
    store: Arc<dyn Datastore>,
    ipam: Ipam,
    woken: Receiver<()>,
    state: Arc<Mutex<State>>,
}

impl Keeper {
    fn run(self) {
        let _alive = self.store.announce(&self.node);
        let grace = self.settings.grace();
        let mut tunnels = Turn::new(self.settings.tunnel_addresses.then_some(TUNNELS));
        let mut garbage = Turn::new(grace);
        let mut before = None;
        loop {
            if tunnels.is_due() {
                let done = self.ensure_tunnel_addresses();
                tunnels.done(done.is_ok());
                self.say(|state| &mut state.tunnels, done.err());
            }
            if garbage.is_due() {
                let done = self.collect(&mut before);
                garbage.done(done.is_ok());
                self.say(|state| &mut state.garbage, done.err());
            }
            let health = self.store.health();
            self.state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .datastore = health;
            match self.woken.recv_timeout(LOOK) {
                Ok(()) => tunnels.hurry(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ensure_tunnel_addresses(&self) -> Result<(), String> {
        match self.ipam.ensure_tunnel_addresses(&self.node) {
            Ok(changes) => {
                for (kind, address) in changes {
                    match address {
                        Some(address) => {
                            log::info!("{}: the {kind} tunnel's address is {address}", self.node)
                        }
                        None => {
                            log::info!("{}: the {kind} tunnel needs no address any more", self.node)
                        }
                    }
                }
                Ok(())
            }
            // A node without its resource has other worries, which are told elsewhere.
            Err(IpamError::Datastore(DatastoreError::DoesNotExist(_))) => Ok(()),
            Err(error) => Err(format!("no address for its tunnels: {error}")),
        }
    }

    /// Gives back what was found unused before and still is. Of the nodes that say that they are alive,
    /// the first one does it for all.
    fn collect(&self, before: &mut Option<Suspects>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("what nobody uses cannot be given back: {error}")
        };
        let alive = self.store.present().map_err(|error| failed(&error))?;
        if alive.is_some_and(|nodes| nodes.first() != Some(&self.node)) {
            *before = None;
            return Ok(());
        }
        let check = self.ipam.check().map_err(|error| failed(&error))?;
        let now = Suspects::of(&check);
        if let Some(before) = before.take() {
            let collected = self
                .ipam
                .collect(&before, &now)
                .map_err(|error| failed(&error))?;
            if collected != Default::default() {
                log::info!(
                    "given back, as nobody uses them: {} address(es) {:?}, {} handle(s), {} block(s)",
                    collected.addresses.len(),
                    collected.addresses,
                    collected.handles,
                    collected.blocks,
                );
            }
        }
        *before = Some(now);
        Ok(())
    }

    /// Notes what failed, or that nothing does any more; each change is logged once.
    fn say(&self, which: impl Fn(&mut State) -> &mut Option<String>, failure: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let said = which(&mut state);
        if let Some(failure) = failure
            .as_ref()
            .filter(|failure| said.as_ref() != Some(failure))
        {
            log::warn!("{}: {failure}", self.node);
        }
        *said = failure;
    }
}

/// Something that is to be done now and then.
struct Turn {
    /// How often, if at all.
    every: Option<Duration>,
    due: Option<Instant>,
    retry: Duration,
}

impl Turn {
    /// It is due at once.
    fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            due: every.map(|_| Instant::now()),
            retry: RETRY.0,
        }
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    fn hurry(&mut self) {
        self.due = self.every.map(|_| Instant::now());
    }

    /// It was done, or could not be.
    fn done(&mut self, well: bool) {
        let pause = match (well, self.every) {
            (true, every) => every,
            (false, every) => every.map(|every| self.retry.min(every)),
        };
        self.retry = match well {
            true => RETRY.0,
            false => (self.retry * 2).min(RETRY.1),
        };
        self.due = pause.map(|pause| Instant::now() + pause);
    }
}
