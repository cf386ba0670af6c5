//! The node follows its settings: what FelixConfigurations say beside its own configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Node;
use crate::control::apply::Fixed;
use crate::forward::{FromWorkloads, TunnelMtus};
use crate::observe::NodeView;
use crate::observe::health::{HealthError, HealthServer};
use crate::observe::report::Component;
use crate::resources::{Kind, NodeName, ResourceKey, Settings};
use crate::wire::Vni;

/// Health and metrics, where the settings say.
pub(super) struct Services {
    view: Arc<dyn NodeView>,
    server: Option<HealthServer>,
    trouble: Option<String>,
}

impl Services {
    pub(super) fn start(view: Arc<dyn NodeView>, settings: &Settings) -> Result<Self, HealthError> {
        let server = HealthServer::start(Arc::clone(&view), settings.health, settings.metrics)?;
        Ok(Self {
            view,
            server: Some(server),
            trouble: None,
        })
    }

    /// Serves at other addresses. What cannot be listened at is said, and the node goes on without.
    fn follow(&mut self, settings: &Settings) {
        // The new ones may have an old one's port.
        drop(self.server.take());
        let view = Arc::clone(&self.view);
        match HealthServer::start(view, settings.health, settings.metrics) {
            Ok(server) => {
                self.server = Some(server);
                self.trouble = None;
            }
            Err(error) => {
                log::error!("{error}");
                self.trouble = Some(error.to_string());
            }
        }
    }
}

/// VXLAN's port and network, make before break: nodes hear of a change at different moments, so that each
/// takes the new ones at once, sends by them a little later, and takes the former ones for longer still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Networks {
    /// What is sent, and taken.
    pub(super) sent: (u16, Vni),
    /// What is taken as well.
    pub(super) also: (u16, Vni),
    /// What is wanted.
    wanted: (u16, Vni),
    since: Instant,
}

/// How long all nodes may take to hear of another port or network.
const HEARD: Duration = Duration::from_secs(5);

/// How long the former ones are taken after that.
const FORMER: Duration = Duration::from_secs(60);

impl Networks {
    /// Those of settings that have not changed.
    pub(super) fn settled(settings: &Settings) -> Self {
        let own = (settings.vxlan_port, settings.vni);
        Self {
            sent: own,
            also: own,
            wanted: own,
            since: Instant::now(),
        }
    }

    /// The UDP ports that VXLAN has, or is about to have.
    pub(super) fn ports(&self) -> [u16; 3] {
        [self.sent.0, self.also.0, self.wanted.0]
    }

    /// Others are wanted.
    fn want(&mut self, wanted: (u16, Vni), now: Instant) {
        if wanted != self.wanted {
            (self.wanted, self.also, self.since) = (wanted, wanted, now);
        }
    }

    /// Takes the next step if its time has come; whether it has.
    fn step(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        if self.sent != self.wanted && passed >= HEARD {
            (self.also, self.sent, self.since) = (self.sent, self.wanted, now);
            return true;
        }
        let over = self.sent == self.wanted && self.also != self.sent && passed >= FORMER;
        if over {
            self.also = self.sent;
        }
        over
    }
}

/// Whether a resource has a say in a node's settings.
pub(super) fn concerns(key: &ResourceKey, node: &NodeName) -> bool {
    let own = key.kind == Kind::Node && key.name.as_str() == node.as_str();
    key.kind == Kind::FelixConfiguration || own
}

/// Has what does not change with the routes be as the settings say.
pub(super) fn configure(fixed: &mut Fixed, settings: &Settings, networks: Networks) {
    (fixed.vxlan_port, fixed.vni) = networks.sent;
    fixed.also = networks.also;
    fixed.tunnel_mtus = TunnelMtus {
        ipip: settings.ipip_mtu,
        vxlan: settings.vxlan_mtu,
        vxlan_v6: settings.vxlan_mtu_v6,
    };
    fixed
        .fence
        .external_nodes
        .clone_from(&settings.external_nodes);
    fixed.from_workloads = FromWorkloads {
        ipip: settings.ipip_from_workloads,
        vxlan: settings.vxlan_from_workloads,
    };
}

impl Node {
    /// Takes over what the settings say now.
    pub(super) fn follow_settings(&mut self) {
        if !std::mem::take(&mut self.settings_dirty) {
            return;
        }
        let mut new = Settings::new(&self.config, &self.state);
        self.keep_bridged_network(&mut new);
        if new == self.settings {
            return;
        }
        for change in new.differences(&self.settings) {
            log::info!("{}: {change}", self.config.node);
        }
        for refused in new
            .refused
            .iter()
            .filter(|one| !self.settings.refused.contains(one))
        {
            log::warn!("{refused}");
        }
        let before = std::mem::replace(&mut self.settings, new);
        let settings = &self.settings;
        if before.log != settings.log && !self.log_is_given {
            log::set_max_level(settings.log.into());
        }
        if (before.health, before.metrics) != (settings.health, settings.metrics) {
            self.services.follow(settings);
        }
        self.networks
            .want((settings.vxlan_port, settings.vni), Instant::now());
        self.steer();
        self.reconfigure();
        self.follow_nat();
    }

    /// Another port or network of VXLAN comes into effect, or the former one goes out of it.
    pub(super) fn look_after_networks(&mut self) {
        if !self.networks.step(Instant::now()) {
            return;
        }
        let (port, vni) = self.networks.sent;
        log::info!(
            "{}: VXLAN is sent to port {port}, network {}{}",
            self.config.node,
            vni.get(),
            match self.networks.also == self.networks.sent {
                true => "; the former ones are taken no more",
                false => "; the former ones are taken, too",
            }
        );
        self.steer();
        self.reconfigure();
        self.follow_nat();
    }

    fn reconfigure(&mut self) {
        let facts = facts!(self);
        let (settings, networks) = (&self.settings, self.networks);
        self.forwarding
            .reconfigure(|fixed| configure(fixed, settings, networks), &facts);
    }

    /// Bridges tell their frames from routed packets by port and VNI, from the start on.
    fn keep_bridged_network(&mut self, new: &mut Settings) {
        let now = (self.settings.vxlan_port, self.settings.vni);
        let wanted = (new.vxlan_port, new.vni);
        self.restart_needed = None;
        if self.config.bridges.is_empty() || wanted == now {
            return;
        }
        (new.vxlan_port, new.vni) = now;
        let text = format!(
            "vxlanPort {} and vxlanVNI {} of FelixConfiguration need a restart of this node, which has \
             bridges; until then it goes by {} and {}",
            wanted.0,
            wanted.1.get(),
            now.0,
            now.1.get()
        );
        let problems = self.config.clone().take_vxlan(wanted.0, wanted.1);
        let text = match problems.first() {
            Some(problem) => format!("{text}; and it will not start so: {problem}"),
            None => text,
        };
        log::warn!("{}: {text}", self.config.node);
        self.restart_needed = Some(text);
    }

    /// What of the settings is not in effect.
    pub(super) fn settings_trouble(&self) -> Vec<Component> {
        let refused = self.settings.refused.iter();
        let trouble = self.services.trouble.iter().chain(&self.restart_needed);
        let component = |detail: &String| Component {
            name: "settings".to_owned(),
            live: true,
            ready: true,
            detail: detail.clone(),
        };
        trouble.chain(refused).map(component).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_network_is_taken_first_then_sent_and_the_former_goes_last() {
        let vni = |number| Vni::new(number).unwrap();
        let (old, new, other) = ((4789, vni(1)), (14789, vni(2)), (4790, vni(3)));
        let start = Instant::now();
        let mut networks = Networks {
            sent: old,
            also: old,
            wanted: old,
            since: start,
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!networks.step(at(100)));
        networks.want(new, at(100));
        assert_eq!((networks.sent, networks.also), (old, new));
        assert!(!networks.step(at(104)));
        assert!(networks.step(at(105)));
        assert_eq!((networks.sent, networks.also), (new, old));
        assert!(!networks.step(at(164)));
        assert!(networks.step(at(165)));
        assert_eq!((networks.sent, networks.also), (new, new));
        // Thought better of it, before it was sent.
        networks.want(other, at(200));
        networks.want(new, at(201));
        assert_eq!((networks.sent, networks.also), (new, new));
        assert!(!networks.step(at(300)));
    }
}
