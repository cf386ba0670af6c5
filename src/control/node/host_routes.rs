//! What a node does so that the host's route table shows what it does.

use std::time::Duration;

use super::Node;
use crate::control::kernel_routes::KernelRoutes;
use crate::resources::felix_configuration::FelixConfigurationSpec;
use crate::resources::{ClusterState, FelixConfiguration, NodeName};

/// How often the kernel's routes are compared where nothing is said (Calico's routeRefreshInterval).
const REFRESH: Duration = Duration::from_secs(90);

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
        let interval = refresh_interval(&self.state, &self.config.node);
        if let Some(host) = &mut self.host {
            host.tick(interval, &self.mirror);
        }
    }
}

/// How often a node's routes are compared: as its own FelixConfiguration says, else as the cluster's
/// does; never for 0.
fn refresh_interval(state: &ClusterState, node: &NodeName) -> Option<Duration> {
    let mut settings = FelixConfigurationSpec::default();
    for name in ["default".to_owned(), format!("node.{node}")] {
        let configuration = name.parse().ok();
        let configuration = configuration.and_then(|name| state.other::<FelixConfiguration>(&name));
        if let Some(configuration) = configuration {
            settings.overlay(&configuration.spec);
        }
    }
    let given = settings.route_refresh_interval;
    let interval = given.map_or(REFRESH, |given| {
        Duration::from_secs(given.as_secs().try_into().unwrap_or(0))
    });
    (!interval.is_zero()).then_some(interval)
}
