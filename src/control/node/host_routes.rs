//! What a node does so that the host's route table shows what it does.

use super::Node;
use crate::control::kernel_routes::KernelRoutes;

impl Node {
    /// Takes over another daemon's changes of the kernel's routes, puts right what was done to ours, and
    /// follows the gateways.
    pub(super) fn follow_routes(&mut self, links: bool) {
        let touched = self.mirror.take_touched();
        self.follow_daemon(&touched);
        if let Some(host) = &mut self.host {
            host.follow(&touched, links, &self.mirror);
        }
    }

    /// Has the host's table show learned routes to pools' destinations, unless another daemon has put
    /// them there itself.
    pub(super) fn show_learned_routes(&mut self) {
        let external = self.external.as_ref();
        if external.is_some_and(KernelRoutes::in_main_table) {
            return;
        }
        if let Some(ways) = self.forwarding.changed_ways()
            && let Some(host) = &mut self.host
        {
            host.set_learned(ways, self.forwarding.wanted(), &self.mirror);
        }
    }

    /// Compares all of our routes when it is time to.
    pub(super) fn look_after_host_routes(&mut self) {
        let interval = self.settings.route_refresh;
        if let Some(host) = &mut self.host {
            host.tick(interval, &self.mirror);
        }
    }
}
