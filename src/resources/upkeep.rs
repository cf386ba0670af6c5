//! What a node does for the cluster's records beside forwarding.

use serde::Deserialize;

use super::duration::Duration;
use super::problem::Fault;

/// What a node does for the cluster's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Upkeep {
    /// Whether it takes its tunnels' addresses from the pools.
    pub tunnel_addresses: bool,
    /// For how long an address must be found unused, or a node's blocks without their node, before they
    /// are given back; 0 for never.
    pub leak_grace_period: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            tunnel_addresses: true,
            // As Calico's kube-controllers.
            leak_grace_period: Duration::from_secs(15 * 60),
        }
    }
}

impl Upkeep {
    /// How often is looked for what nobody uses; nothing for never.
    pub fn grace(&self) -> Option<std::time::Duration> {
        let nanoseconds = u64::try_from(self.leak_grace_period.0).ok()?;
        (nanoseconds > 0).then(|| std::time::Duration::from_nanos(nanoseconds))
    }

    pub(super) fn validate(&self, faults: &mut Vec<Fault>) {
        let second = Duration::from_secs(1);
        let never = Duration::from_secs(0);
        if self.leak_grace_period != never && self.leak_grace_period < second {
            faults.push(Fault::new(
                "upkeep.leakGracePeriod",
                format!(
                    "{} is too short to tell what leaked from what is being set up",
                    self.leak_grace_period
                ),
                "write 1s or more, 15m by default, or 0s for never",
            ));
        }
    }
}
