//! Open vSwitch's userspace datapath.

use super::{Place, Running, System};
use crate::bench::error::{BenchError, Result};
use crate::bench::topology::Topology;

pub(super) fn missing() -> Option<String> {
    Some("ovs-vswitchd is not installed".to_owned())
}

pub(super) fn start(_topology: &Topology, _place: &Place) -> Result<Running> {
    Err(BenchError::System {
        system: System::Ovs.name().to_owned(),
        reason: "not yet".to_owned(),
    })
}
