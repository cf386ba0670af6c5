//! Opening and closing workload ports while the node runs.

use std::time::Instant;

use super::node::Node;
use super::resolve::Delta;
use crate::port::PortId;

impl Node {
    /// Opens and closes ports as interfaces and endpoints have come and gone; a few in one turn.
    pub(super) fn follow_ports(&mut self) {
        let now = Instant::now();
        let wanted = self.forwarding.wanted();
        let plan = self.ports.plugs.plan(wanted, &self.mirror, now);
        if plan.more {
            // There is already one there: it will do.
            let _ = self.more_plugs.0.try_send(());
        }
        if plan.is_empty() {
            return;
        }
        let gone = self.take_away(plan.close.clone());
        let mut opened = Vec::new();
        for name in &plan.open {
            opened.extend(self.ports.plug(name, &self.mirror, now).map(|port| {
                let worker = self.ports.owner(port.config.id);
                self.forwarding.plug(name, port.config);
                self.handles.open(worker, port.port);
                name.clone()
            }));
        }
        self.routes_follow_ports();
        let failed = opened
            .iter()
            .filter(|name| !self.ports.steer_plug(name, &self.mirror, now))
            .cloned()
            .collect();
        self.join_fast_path(&opened);
        self.close(gone);
        let failed = self.take_away(failed);
        if !failed.is_empty() {
            self.routes_follow_ports();
            self.close(failed);
        }
        self.shown.update(&self.ports.descriptions);
        log::info!(
            "{}: ports opened: {}; closed: {}",
            self.config.node,
            list(&opened),
            list(&plan.close)
        );
    }

    /// Ports that are steered now take part in the fast path, if they can.
    fn join_fast_path(&mut self, names: &[String]) {
        let Some(side) = &mut self.fast_path else {
            return;
        };
        for (name, id, steering) in self.ports.steerings() {
            let port = self.forwarding.fixed().ports.get(usize::from(id.0));
            let partial = port.is_none_or(|port| port.partial_checksums);
            if names.iter().any(|opened| opened == name)
                && let Some(mirror) = self.forwarding.fast_path_mut()
            {
                side.join(mirror.fast_path(), steering, id, partial, &self.mirror);
            }
        }
    }

    /// What comes in by these ports goes to the kernel again, and no route leads to them from the next
    /// update on.
    fn take_away(&mut self, names: Vec<String>) -> Vec<(String, PortId)> {
        let mut gone = Vec::new();
        for name in names {
            if let Some(id) = self.ports.unsteer_plug(&name) {
                self.forwarding.unplug(&name);
                if let (Some(side), Some(mirror)) =
                    (&mut self.fast_path, self.forwarding.fast_path_mut())
                {
                    side.leave(mirror.fast_path(), id);
                }
                gone.push((name, id));
            }
        }
        gone
    }

    /// The workers give up ports that no route leads to any more, and their sockets close.
    fn close(&mut self, gone: Vec<(String, PortId)>) {
        for (name, id) in gone {
            let worker = self.ports.owner(id);
            let frames = self.ports.frames_of_plug(&name);
            match self.handles.close(worker, id, frames) {
                Some(back) => {
                    let surplus = self.ports.unplugged(&name, back);
                    self.handles.give_back(worker, surplus);
                    // Nobody learns them again.
                    self.forwarding.bridging().forget_port(id);
                }
                None => {
                    log::error!("port {name}: worker {worker} does not give it back");
                    self.ports.abandon_plug(&name);
                }
            }
        }
    }

    fn routes_follow_ports(&mut self) {
        self.apply(&Delta::default());
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}
