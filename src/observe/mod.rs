//! What an operator sees: reports, metrics, health, captures, and the socket they are asked for on.
//!
//! Nothing here is on the packet path. The node shows itself through [`NodeView`]; the servers here
//! ask it and never hold anything that a worker waits for.

pub mod bgp;
pub mod capture;
pub mod control_socket;
pub mod dissect;
pub mod health;
mod http;
pub mod metrics;
pub mod protocol;
pub mod report;

use crate::port::capture::{Capture, CaptureError};
use bgp::{BgpAnswer, BgpRequest};
use protocol::{CaptureRequest, ProbeRequest};
use report::{CounterReport, FdbRow, MtuReport, RouteRow, StatusReport, WaysReport};

/// A running node as its observers see it; called from their threads, at any time.
pub trait NodeView: Send + Sync {
    /// The route table, in the order of its destinations.
    fn routes(&self) -> Vec<RouteRow>;

    /// The stations of the node's bridges.
    fn fdb(&self) -> Vec<FdbRow>;

    /// The sums of all workers' counters.
    fn counters(&self) -> CounterReport;

    /// How the node and its parts are.
    fn status(&self) -> StatusReport;

    /// Starts copying what crosses the named ports (all if none is named).
    fn capture(&self, request: &CaptureRequest) -> Result<Capture, CaptureError>;

    /// Finds out how large a packet gets through to another node; an error is one sentence.
    fn probe_mtu(&self, request: &ProbeRequest) -> Result<MtuReport, String>;

    /// What the node's BGP speaker has in its tables; an error is one sentence.
    fn bgp(&self, _request: &BgpRequest) -> Result<BgpAnswer, String> {
        Err("the node speaks no BGP".to_owned())
    }

    /// Finds out which encapsulations get through to another node; an error is one sentence.
    fn probe_ways(&self, _request: &ProbeRequest) -> Result<WaysReport, String> {
        Err("the node has no way to probe".to_owned())
    }

    /// Switches the fast path on or off; an error if the node has none.
    fn switch_fast_path(&self, _on: bool) -> Result<(), String> {
        Err("the node has no fast path".to_owned())
    }
}
