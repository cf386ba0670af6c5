//! The node follows its settings: what FelixConfigurations say beside its own configuration.

use std::sync::Arc;

use super::Node;
use crate::control::apply::Fixed;
use crate::forward::{FromWorkloads, TunnelMtus};
use crate::observe::NodeView;
use crate::observe::health::{HealthError, HealthServer};
use crate::observe::report::Component;
use crate::resources::{Kind, NodeName, ResourceKey, Settings};

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

/// Whether a resource has a say in a node's settings.
pub(super) fn concerns(key: &ResourceKey, node: &NodeName) -> bool {
    let own = key.kind == Kind::Node && key.name.as_str() == node.as_str();
    key.kind == Kind::FelixConfiguration || own
}

/// Has what does not change with the routes be as the settings say.
pub(super) fn configure(fixed: &mut Fixed, settings: &Settings) {
    fixed.vxlan_port = settings.vxlan_port;
    fixed.vni = settings.vni;
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
        if before.vxlan_port != settings.vxlan_port {
            self.steer();
        }
        self.reconfigure();
        self.follow_nat();
    }

    fn reconfigure(&mut self) {
        let host_mtu = self.host_mtu();
        let facts = super::Known::new(
            &self.mirror,
            &self.ports,
            &self.links,
            &self.paths,
            host_mtu,
        );
        let settings = &self.settings;
        self.forwarding
            .reconfigure(|fixed| configure(fixed, settings), &facts);
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
