//! Workload ports that come and go: which should be open, which are, and why the others are not.
//!
//! ```text
//!  to open    socket → the worker serves it → routes lead there → steering on
//!  to close   steering off → routes lead elsewhere → the worker forwards what is left → socket
//! ```
//!
//! So what the workload sends, or is sent, meanwhile goes the old way or the new one. Frames for the
//! kernel to receive into come from the worker's reserve and go back there. Packet ports and unix sockets need
//! none, and no steering.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::ports::{
    Description, OpenPorts, PLUGGED_RING, WorkerPorts, may_leave_checksums, open_held, open_socket,
    steer,
};
use super::resolve::Wanted;
use crate::forward::{PortConfig, PortRole, WorkloadSources};
use crate::kernel::Mirror;
use crate::port::capture::Captured;
use crate::port::xdp::{Role, Steering, XdpOptions, XdpPort};
use crate::port::{Port, PortError, PortId, receive_queues};
use crate::resources::NodeConfig;
use crate::resources::config::{Io, PortKind, WorkloadPort};
use crate::resources::workload_interfaces::WorkloadInterfaces;
use crate::worker::mailbox::Unplugged;

/// Ports that are opened or closed in one turn of the control loop at most, so that a hundred at once
/// do not keep neighbours and routes waiting.
const TURN: usize = 8;

/// How long a port that could not be opened waits for the next attempt: longer each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The fewest entries of a ring.
const LEAST_RING: u32 = 64;

/// The workload ports of one node that come and go: all but the devices that it makes itself.
pub struct Plugs {
    /// Those of the configuration, each with its number.
    listed: BTreeMap<String, Listed>,
    automatic: Option<WorkloadInterfaces>,
    /// Those of the configuration that underpass makes itself: TUN and TAP devices, which stay.
    made: BTreeSet<String>,
    /// Devices of the node that are no workload's.
    taken: BTreeSet<String>,
    open: BTreeMap<String, Plugged>,
    waiting: BTreeMap<String, Waiting>,
    free: Vec<PortId>,
}

struct Listed {
    port: WorkloadPort,
    number: Option<(PortId, PortRole)>,
}

/// What a port is opened on, to know another one by: an interface's number in the kernel; a socket's inode in
/// the file system, or 0 where there is none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Interface(u32),
    Socket(u64),
}

/// An open port.
struct Plugged {
    id: PortId,
    place: Place,
    /// Frames that the reserve gave for it.
    frames: usize,
    steering: Option<Steering>,
    sockets: Vec<(u32, i32)>,
}

/// Why a port that should be open is not.
#[derive(Debug, Clone)]
struct Waiting {
    reason: String,
    retry: Option<(Instant, Duration)>,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Interfaces whose ports are to be closed.
    pub close: Vec<String>,
    /// Interfaces whose ports are to be opened.
    pub open: Vec<String>,
    /// Whether there is more to do after this.
    pub more: bool,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.close.is_empty() && self.open.is_empty()
    }
}

/// A port that was opened, for the worker that is to serve it.
pub struct Opened {
    /// What the packet path is to know of it.
    pub config: PortConfig,
    /// The port.
    pub port: Box<dyn Port>,
}

/// An AF_XDP port, how many frames it took, and its sockets by queue.
type OpenedXdp = (Box<dyn Port>, usize, Vec<(u32, i32)>);

impl Plugs {
    /// No port is open yet.
    pub fn new(config: &NodeConfig) -> Self {
        let (made, found): (Vec<_>, Vec<_>) = config
            .workloads
            .iter()
            .partition(|port| port.kind.is_made());
        let listed = found.into_iter().map(|port| {
            let listed = Listed {
                port: port.clone(),
                number: None,
            };
            (port.interface.to_string(), listed)
        });
        let made = made.into_iter().map(|port| port.interface.to_string());
        let host = config.host.as_ref().map(|host| host.tun.to_string());
        Self {
            listed: listed.collect(),
            automatic: config.workload_interfaces.clone(),
            made: made.collect(),
            taken: host
                .into_iter()
                .chain([config.uplink.interface.to_string()])
                .collect(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            free: Vec::new(),
        }
    }

    /// Notes a number for a port that comes later.
    pub fn set_aside(&mut self, id: PortId) {
        self.free.insert(0, id);
    }

    /// Notes the number of a port of the configuration.
    pub(super) fn numbered(&mut self, name: &str, id: PortId, role: PortRole) {
        if let Some(listed) = self.listed.get_mut(name) {
            listed.number = Some((id, role));
        }
    }

    /// Notes a port of the configuration that was opened at the start.
    pub(super) fn opened_at_start(
        &mut self,
        name: &str,
        id: PortId,
        mirror: &Mirror,
        frames: usize,
        steering: Option<Steering>,
    ) {
        let Some(place) = self.place(name, mirror) else {
            return;
        };
        let plugged = Plugged {
            id,
            place,
            frames,
            steering,
            sockets: Vec::new(),
        };
        self.open.insert(name.to_owned(), plugged);
    }

    /// What is to be opened and closed, and notes what waits for what.
    pub fn plan(&mut self, wanted: &Wanted, mirror: &Mirror, now: Instant) -> Plan {
        let mut plan = Plan::default();
        for (name, port) in &self.open {
            let kept = self.listed.contains_key(name) || wanted.workloads.contains_key(name);
            if !kept || self.place(name, mirror) != Some(port.place) {
                plan.close.push(name.clone());
            }
        }
        let wanted = self.wanted(wanted);
        self.waiting.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if self.open.contains_key(&name) {
                // One that is to be opened anew is closed first.
                plan.more |= plan.close.contains(&name);
                continue;
            }
            match (self.refusal(&name), self.place(&name, mirror)) {
                (Some(reason), _) => self.waits(&name, reason),
                (None, None) => self.waits(&name, self.lacks(&name)),
                (None, Some(_)) => {
                    let due = self.waiting.get(&name).and_then(|waiting| waiting.retry);
                    if due.is_none_or(|(at, _)| at <= now) {
                        plan.open.push(name);
                    }
                }
            }
        }
        plan.more |= plan.close.len() > TURN || plan.open.len() > TURN;
        plan.close.truncate(TURN);
        plan.open.truncate(TURN);
        plan
    }

    /// Tries a port again at once, as its interface has changed.
    pub fn hurry(&mut self, interfaces: &BTreeSet<String>) {
        for (name, waiting) in &mut self.waiting {
            if interfaces.contains(name) {
                waiting.retry = None;
            }
        }
    }

    /// The ports that are waited for, each with the reason.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.waiting
            .iter()
            .map(|(name, waiting)| (name.as_str(), waiting.reason.as_str()))
    }

    /// Every interface that should be a port.
    fn wanted(&self, wanted: &Wanted) -> BTreeSet<String> {
        let endpoints = wanted.workloads.keys();
        let needed = endpoints.filter(|name| !self.made.contains(*name)).cloned();
        self.listed.keys().cloned().chain(needed).collect()
    }

    /// Why an interface cannot become a port whatever happens to it.
    fn refusal(&self, name: &str) -> Option<String> {
        if self.listed.contains_key(name) {
            return None;
        }
        if self.taken.contains(name) {
            return Some("it is the node's own uplink or TUN device".to_owned());
        }
        match &self.automatic {
            None => Some(
                "the configuration does not name it; add it to workloads, or set \
                 workloadInterfaces.prefix"
                    .to_owned(),
            ),
            Some(automatic) if !automatic.matches(name) => Some(format!(
                "neither workloads nor workloadInterfaces.prefix ({}) names it",
                automatic.prefix
            )),
            Some(automatic) if self.free.is_empty() => Some(format!(
                "workloadInterfaces.max: {} ports are open already",
                automatic.max
            )),
            Some(_) => None,
        }
    }

    /// Where a port is opened; nothing if what it needs is not there.
    fn place(&self, name: &str, mirror: &Mirror) -> Option<Place> {
        match self.listed.get(name) {
            Some(listed) => place(&listed.port, mirror),
            None => interface(name, mirror),
        }
    }

    /// What a port waits for that has no place.
    fn lacks(&self, name: &str) -> String {
        match self
            .listed
            .get(name)
            .and_then(|listed| directory(&listed.port))
        {
            Some(directory) => format!("there is no directory {}", directory.display()),
            None => "there is no such interface".to_owned(),
        }
    }

    fn waits(&mut self, name: &str, reason: String) {
        let known = self.waiting.get(name);
        if known.is_none_or(|known| known.reason != reason) {
            log::info!("port {name} waits: {reason}");
        }
        let waiting = Waiting {
            reason,
            retry: None,
        };
        self.waiting.insert(name.to_owned(), waiting);
    }

    fn failed(&mut self, name: &str, error: &PortError, now: Instant) {
        let pause = match self.waiting.get(name).and_then(|waiting| waiting.retry) {
            Some((_, pause)) => (pause * 2).min(LAST_RETRY),
            None => FIRST_RETRY,
        };
        let reason = error.to_string();
        let known = self.waiting.get(name);
        if known.is_none_or(|known| known.reason != reason) {
            log::error!("port {name} cannot be opened: {reason}");
        }
        let retry = Some((now + pause, pause));
        self.waiting
            .insert(name.to_owned(), Waiting { reason, retry });
    }

    fn io(&self, name: &str) -> Io {
        let automatic = self.automatic.as_ref().map(|automatic| automatic.io);
        match self.listed.get(name) {
            Some(listed) => listed.port.io.unwrap_or_default(),
            None => automatic.unwrap_or_default(),
        }
    }

    fn number(&mut self, name: &str) -> Option<(PortId, PortRole)> {
        match self.listed.get(name) {
            Some(listed) => listed.number,
            None => self.free.pop().map(|id| (id, PortRole::Workload)),
        }
    }

    fn give_back_number(&mut self, name: &str, id: PortId) {
        if !self.listed.contains_key(name) {
            self.free.push(id);
        }
    }
}

/// Where a port of the configuration can be opened.
pub(super) fn place(port: &WorkloadPort, mirror: &Mirror) -> Option<Place> {
    let Some(directory) = directory(port) else {
        return interface(&port.interface.to_string(), mirror);
    };
    let inode = port
        .socket
        .as_deref()
        .and_then(|path| fs::metadata(path).ok());
    let inode = inode.map_or(0, |socket| socket.ino());
    (inode != 0 || directory.is_dir()).then_some(Place::Socket(inode))
}

fn interface(name: &str, mirror: &Mirror) -> Option<Place> {
    let link = mirror.link_named(name)?;
    Some(Place::Interface(link.index))
}

/// The directory of a unix socket's.
fn directory(port: &WorkloadPort) -> Option<&Path> {
    port.socket.as_deref()?.parent()
}

// The ports' side: sockets, steering and frames.
impl OpenPorts {
    /// Opens a workload's port; nothing is steered to it yet. On failure it waits, and says why.
    pub fn plug(&mut self, name: &str, mirror: &Mirror, now: Instant) -> Option<Opened> {
        let (id, role) = self.plugs.number(name)?;
        match self.open_plug(name, id, role, mirror) {
            Ok(opened) => {
                self.plugs.waiting.remove(name);
                Some(opened)
            }
            Err(error) => {
                self.plugs.give_back_number(name, id);
                self.plugs.failed(name, &error, now);
                None
            }
        }
    }

    fn open_plug(
        &mut self,
        name: &str,
        id: PortId,
        role: PortRole,
        mirror: &Mirror,
    ) -> Result<Opened, PortError> {
        let listed = self.plugs.listed.get(name).map(|listed| &listed.port);
        let listed = listed.filter(|port| port.kind != PortKind::Xdp).cloned();
        let (port, frames, sockets) = match &listed {
            Some(listed) => (self.open_other(id, listed)?, 0, Vec::new()),
            None => self.open_xdp_plug(name, id)?,
        };
        let capabilities = port.capabilities();
        let config = PortConfig {
            id,
            role,
            link: capabilities.link,
            sources: WorkloadSources::default(),
            partial_checksums: may_leave_checksums(mirror, name),
        };
        self.descriptions[usize::from(id.0)] = Some(Description {
            name: name.to_owned(),
            device: name.to_owned(),
            role,
            io: capabilities.io.clone(),
            local: listed.is_none_or(|port| !port.kind.is_socket()),
            mtu: capabilities.mtu,
        });
        let plugged = Plugged {
            id,
            place: self.plugs.place(name, mirror).unwrap_or(Place::Socket(0)),
            frames,
            steering: None,
            sockets,
        };
        self.plugs.open.insert(name.to_owned(), plugged);
        let port = Captured::named(port, name.to_owned(), &self.switch);
        Ok(Opened {
            config,
            port: Box::new(port),
        })
    }

    /// An AF_XDP port, the frames that it took and its sockets.
    fn open_xdp_plug(&mut self, name: &str, id: PortId) -> Result<OpenedXdp, PortError> {
        let queues = receive_queues(name)?;
        let options = XdpOptions {
            interface: name.to_owned(),
            queues: 0..queues,
            ring_size: (PLUGGED_RING / queues.next_power_of_two()).max(LEAST_RING),
        };
        let worker = self.owner(id);
        let WorkerPorts { reserve, umem, .. } = &mut self.workers[worker];
        umem.reclaim(reserve);
        let before = reserve.available();
        let port = XdpPort::open(id, &options, umem, reserve)?;
        let sockets = port.sockets().collect();
        Ok((Box::new(port), before - reserve.available(), sockets))
    }

    /// A port of another kind, which needs no frames of its own.
    fn open_other(&mut self, id: PortId, port: &WorkloadPort) -> Result<Box<dyn Port>, PortError> {
        if port.kind.is_socket() {
            return Ok(Box::new(open_socket(id, port)?));
        }
        let worker = self.owner(id);
        let held = open_held(id, port, &mut self.workers[worker].reserve)?;
        Ok(Box::new(held))
    }

    /// Has what a workload sends come to its port. On failure the port is to be closed again.
    pub fn steer_plug(&mut self, name: &str, mirror: &Mirror, now: Instant) -> bool {
        let io = self.plugs.io(name);
        let Some(port) = self.plugs.open.get_mut(name) else {
            return false;
        };
        if port.sockets.is_empty() {
            return true;
        }
        match steer(mirror, name, Role::Workload, io, &port.sockets) {
            Ok(steering) => {
                if let Some(description) = &mut self.descriptions[usize::from(port.id.0)] {
                    description.io = format!("af_xdp {} copy", steering.mode());
                }
                port.steering = Some(steering);
                true
            }
            Err(error) => {
                self.plugs.failed(name, &error, now);
                false
            }
        }
    }

    /// Leaves what a workload sends to the kernel again; the first step of closing its port. Says
    /// which port that is.
    pub fn unsteer_plug(&mut self, name: &str) -> Option<PortId> {
        let port = self.plugs.open.get_mut(name)?;
        port.steering = None;
        Some(port.id)
    }

    /// The XDP programs of the open workload ports that are routed, by interface and port.
    pub fn steerings(&mut self) -> impl Iterator<Item = (&str, PortId, &mut Steering)> {
        let descriptions = &self.descriptions;
        let routed = |id: PortId| {
            let port = descriptions.get(usize::from(id.0)).and_then(Option::as_ref);
            port.is_some_and(|port| port.role == PortRole::Workload)
        };
        let open = self.plugs.open.iter_mut();
        open.filter(move |(_, port)| routed(port.id))
            .filter_map(|(name, port)| Some((name.as_str(), port.id, port.steering.as_mut()?)))
    }

    /// How many frames are to come back with a port.
    pub fn frames_of_plug(&self, name: &str) -> usize {
        self.plugs.open.get(name).map_or(0, |port| port.frames)
    }

    /// Closes a port that its worker has given back; says which frames are the worker's, for having
    /// lent more than the reserve did.
    pub fn unplugged(&mut self, name: &str, back: Unplugged) -> Vec<crate::packet::Frame> {
        let Some(port) = self.plugs.open.remove(name) else {
            return back.frames;
        };
        self.descriptions[usize::from(port.id.0)] = None;
        self.plugs.give_back_number(name, port.id);
        let worker = self.owner(port.id);
        let WorkerPorts { reserve, umem, .. } = &mut self.workers[worker];
        let before = reserve.available();
        // The sockets close, which may take the kernel a moment.
        drop(back.port);
        umem.reclaim(reserve);
        back.frames
            .into_iter()
            .for_each(|frame| reserve.give(frame));
        let surplus = (reserve.available() - before).saturating_sub(port.frames);
        std::iter::from_fn(|| reserve.take())
            .take(surplus)
            .collect()
    }

    /// Forgets a port that its worker does not give back. Its number is used no more.
    pub fn abandon_plug(&mut self, name: &str) {
        if let Some(port) = self.plugs.open.remove(name) {
            self.descriptions[usize::from(port.id.0)] = None;
        }
    }

    /// All XDP programs of workload ports go.
    pub fn unsteer_all(&mut self) {
        for port in self.plugs.open.values_mut() {
            port.steering = None;
        }
    }

    /// The worker that serves a port, or will.
    pub fn owner(&self, id: PortId) -> usize {
        let owner = self.owners.get(usize::from(id.0)).copied();
        owner.flatten().unwrap_or(0)
    }
}
