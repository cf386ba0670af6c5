//! What workloads' messages say of where they are, as it is told to the control side: of their own addresses
//! only, and not more often than it can follow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Action, Event};
use crate::forward::PortConfig;
use crate::packet::PortId;
use crate::wire::MacAddr;

/// How often an address may be told of.
const INTERVAL: Duration = Duration::from_millis(100);

/// Addresses whose last time is remembered.
const CAPACITY: usize = 65536;

/// When each address was told of last.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<(PortId, IpAddr), Instant>);

impl Seen {
    /// Tells that a port's station said that this address of its own is there.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        port: &PortConfig,
        (address, mac): (IpAddr, MacAddr),
        actions: &mut Vec<Action>,
    ) {
        if !port.sources.own.contains(&address) {
            return;
        }
        let at = (port.id, address);
        let is_fresh = |told: &Instant| now.saturating_duration_since(*told) < INTERVAL;
        if self.0.get(&at).is_some_and(is_fresh) {
            return;
        }
        if self.0.len() >= CAPACITY {
            self.0.retain(|_, told| is_fresh(told));
        }
        self.0.insert(at, now);
        actions.push(Action::Tell(Event::WorkloadSeen(port.id, address, mac)));
    }
}
