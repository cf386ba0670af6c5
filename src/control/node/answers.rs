//! What a node tells its observers.

use super::Node;
use crate::control::ports::UPLINK;
use crate::control::view::Question;
use crate::control::workloads::stale_mtus;
use crate::control::{probe, report};
use crate::observe::report::{FdbRow, RouteRow, StatusReport};

impl Node {
    pub(super) fn answer(&self, question: Question) {
        // An observer that has gone wants no answer.
        match question {
            Question::Routes(answer) => drop(answer.send(self.routes())),
            Question::Fdb(answer) => drop(answer.send(self.fdb())),
            Question::Status(answer) => drop(answer.send(self.status())),
            Question::Probe(far, answer) => drop(answer.send(self.probe_target(&far))),
        }
    }

    fn probe_target(&self, far: &str) -> Result<probe::Target, String> {
        let uplink = (self.config.uplink.interface.to_string(), self.uplink_mtu());
        probe::target(&self.forwarding, &self.state, uplink, far)
    }

    fn routes(&self) -> Vec<RouteRow> {
        report::routes(&self.config, &self.forwarding, &self.state, &self.facts())
    }

    fn fdb(&self) -> Vec<FdbRow> {
        self.forwarding.bridging().rows(self.forwarding.wanted())
    }

    fn status(&self) -> StatusReport {
        let mut status = report::status(
            &self.config,
            self.started,
            &self.forwarding,
            report::datastore_component(&self.problems, &self.upkeep.datastore()),
            &self.handles,
            &self.ports,
            self.fast_path.as_ref(),
        );
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        status
            .components
            .extend(report::warnings("resources", &problems));
        let stale = stale_mtus(
            &self.state,
            &self.config.node,
            self.forwarding.fixed().tunnel_mtus,
            self.uplink_mtu(),
        );
        status.components.extend(report::warnings("mtu", &stale));
        status.components.extend(self.upkeep.trouble());
        status.components.extend(self.settings_trouble());
        let nat = report::warnings("natOutgoing", self.nat.trouble());
        status.components.extend(nat);
        self.note_lost_uplink(&mut status);
        let wanted = self.forwarding.wanted();
        status.bridges = self.forwarding.bridging().status(wanted, &self.facts());
        let components = status.bridges.iter().map(report::bridge_component);
        status.components.extend(components.collect::<Vec<_>>());
        status.bgp = Box::new(self.bgp_status());
        status.components.extend(self.bgp_component());
        status
    }

    /// Says of the uplink if it is gone.
    fn note_lost_uplink(&self, status: &mut StatusReport) {
        let uplink = self.config.uplink.interface.as_str();
        let name = format!("port {uplink}");
        let mut ports = status.components.iter_mut();
        if self
            .mirror
            .link_named(uplink)
            .is_none_or(|link| link.index != self.ports.uplink_index)
            && let Some(port) = ports.find(|part| part.name == name)
        {
            port.ready = false;
            port.detail =
                "gone: the interface was deleted; when one of its name is there and up, the node \
                           starts anew"
                    .to_owned();
        }
    }

    pub(super) fn uplink_io(&self) -> &str {
        let uplink = self.ports.descriptions.get(usize::from(UPLINK.0));
        uplink
            .and_then(Option::as_ref)
            .map_or("", |port| port.io.as_str())
    }
}
