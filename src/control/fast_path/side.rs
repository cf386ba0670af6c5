//! Which ports take part in the fast path, and why the others do not.

use std::collections::BTreeMap;

use super::FastPathMirror;
use crate::control::ports::{OpenPorts, UPLINK};
use crate::control::threads::{first_identification, identifications};
use crate::kernel::{Mirror, takes_redirects, veth};
use crate::packet::PortId;
use crate::port::capture::CaptureSwitch;
use crate::port::xdp::fast_path::{FastCounters, FastPorts};
use crate::port::xdp::{FastPath, Steering, XdpMode};
use crate::resources::config::FastPathWanted;
use crate::resources::{Fault, NodeConfig, Problem};

/// The ports' side of the fast path.
pub struct FastPathSide {
    ports: FastPorts,
    counters: FastCounters,
    /// The devices that take part, or would.
    devices: BTreeMap<PortId, Device>,
}

struct Device {
    name: String,
    /// Its number, if what keeps it out may pass.
    index: Option<u32>,
    /// Why it does not take part now.
    refusal: Option<String>,
}

/// What is wrong with a device whose far end does not receive what is redirected to it.
const NO_NAPI: &str = "it does not take redirected packets now; on veth, its far end must receive \
     through NAPI (ethtool -K PEER gro on, in the far end's network namespace)";

impl FastPathSide {
    /// Loads the fast path and has the node's AF_XDP ports join it; nothing if it is not wanted, or
    /// cannot be had and is not insisted on. What is captured goes through the workers.
    pub fn open(
        config: &NodeConfig,
        ports: &mut OpenPorts,
        kernel: &Mirror,
        switch: &CaptureSwitch,
    ) -> Result<Option<(Self, FastPathMirror)>, Problem> {
        if config.fast_path == FastPathWanted::Off {
            return Ok(None);
        }
        let insisted = config.fast_path == FastPathWanted::On;
        let refuse = |reason: String| {
            let fault = Fault::new("fastPath", reason, "write fastPath: auto, or off");
            config.problem(fault)
        };
        let mut fast = match FastPath::load() {
            Ok(fast) => fast,
            Err(error) if insisted => return Err(refuse(error.to_string())),
            Err(error) => {
                log::warn!("{error}; the workers forward everything");
                return Ok(None);
            }
        };
        let mut side = Self {
            ports: fast.ports(),
            counters: fast.counters(),
            devices: BTreeMap::new(),
        };
        let partial: Vec<bool> = ports
            .configs
            .iter()
            .map(|port| port.partial_checksums)
            .collect();
        let may_leave = |id: PortId| partial.get(usize::from(id.0)).is_none_or(|may| *may);
        let uplink = &mut ports.uplink_steering;
        side.join(&mut fast, uplink, UPLINK, may_leave(UPLINK), kernel);
        for (_, id, steering) in ports.steerings() {
            side.join(&mut fast, steering, id, may_leave(id), kernel);
        }
        if let Some(reason) = side.refusal(UPLINK)
            && insisted
        {
            let device = &config.uplink.interface;
            return Err(refuse(format!("{device} cannot take part: {reason}")));
        }
        let captured = side.ports.clone();
        switch.watch(move |port, on| captured.set_captured(port, on));
        // The workers have the first ones.
        let first = first_identification().wrapping_add(config.worker_count() as u16);
        fast.start_identifications(first)
            .map_err(|error| refuse(error.to_string()))?;
        let mirror = FastPathMirror::new(fast, identifications(config));
        Ok(Some((side, mirror)))
    }

    /// What the fast path counts.
    pub fn counters(&self) -> FastCounters {
        self.counters.clone()
    }

    /// Why a port does not take part.
    pub fn refusal(&self, port: PortId) -> Option<&str> {
        self.devices.get(&port)?.refusal.as_deref()
    }

    /// Opens and closes ports as their devices take redirected packets or not: what sends packets to
    /// a device that does not is lost, and veth does not as soon as GRO is switched off at its far end.
    pub fn look_after(&mut self, kernel: &Mirror) {
        for (id, device) in &mut self.devices {
            let Some(index) = device.index else {
                continue;
            };
            let now = refusal(kernel, index);
            if now == device.refusal {
                continue;
            }
            self.ports.open(*id, true, now.is_none());
            match &now {
                None => log::info!("{}: takes part in the fast path now", device.name),
                Some(reason) => log::warn!("{}: no fast path: {reason}", device.name),
            }
            device.refusal = now;
        }
    }

    /// How it is, in a line.
    pub fn detail(&self) -> String {
        let part = self.devices.values().filter(|port| port.refusal.is_none());
        let mut detail = format!("{} port(s) take part", part.count());
        if !self.counters.is_on() {
            detail.insert_str(0, "switched off; ");
        }
        for device in self.devices.values() {
            if let Some(reason) = &device.refusal {
                detail.push_str(&format!("; {}: {reason}", device.name));
            }
        }
        detail
    }

    /// Has a port join that has just been opened, its sockets registered.
    pub fn join(
        &mut self,
        fast: &mut FastPath,
        steering: &mut Steering,
        id: PortId,
        partial_checksums: bool,
        kernel: &Mirror,
    ) {
        let name = steering.interface().to_owned();
        let (index, refusal) = match self.try_join(fast, steering, id, partial_checksums, kernel) {
            Ok(index) => (Some(index), refusal(kernel, index)),
            Err(reason) => (None, Some(reason)),
        };
        match &refusal {
            None => log::info!("{name}: takes part in the fast path"),
            Some(reason) => log::warn!("{name}: no fast path: {reason}"),
        }
        if index.is_some() {
            self.ports.open(id, true, refusal.is_none());
        }
        let device = Device {
            name,
            index,
            refusal,
        };
        self.devices.insert(id, device);
    }

    /// Forgets a port that is being closed.
    pub fn leave(&mut self, fast: &mut FastPath, id: PortId) {
        if let Some(index) = self.devices.remove(&id).and_then(|device| device.index)
            && let Err(error) = fast.remove_port(id, index)
        {
            log::error!("{error}");
        }
    }

    /// The device's number; else why it never takes part.
    fn try_join(
        &mut self,
        fast: &mut FastPath,
        steering: &mut Steering,
        id: PortId,
        partial_checksums: bool,
        kernel: &Mirror,
    ) -> Result<u32, String> {
        if steering.mode() == XdpMode::Generic {
            // A packet has cost most of what the fast path saves before the program sees it.
            return Err("its XDP program is in generic mode".to_owned());
        }
        let link = kernel
            .link_named(steering.interface())
            .ok_or("it has gone")?;
        if let Err(error) = veth::set_peer_gro(link, true) {
            log::debug!("{}: GRO of its far end: {error}", link.name);
        }
        steering
            .join(fast, id, partial_checksums)
            .map_err(|error| error.to_string())?;
        Ok(link.index)
    }
}

/// Why packets must not be redirected to a device now.
fn refusal(kernel: &Mirror, interface: u32) -> Option<String> {
    if !kernel.link(interface).is_some_and(|link| link.up) {
        return Some("it is down".to_owned());
    }
    match takes_redirects(interface) {
        Ok(true) => None,
        Ok(false) => Some(NO_NAPI.to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
