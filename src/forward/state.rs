//! What one worker owns while it forwards.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Verdict;
use super::parse::Traits;
use crate::fib::{Answer, NextHop};
use crate::packet::BATCH;

/// One worker's own state: scratch space, allocated once, and the outer identification counter.
#[derive(Debug)]
pub struct WorkerState {
    pub(super) flights: Vec<Flight>,
    pub(super) destinations: Destinations,
    pub(super) next_hops: Vec<Answer>,
    identification: u16,
    identification_step: u16,
}

/// What a batch is to be looked up by, in the order of its frames.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
}

/// Where a frame of the batch stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flight {
    /// Its (inner) header is read; the next hop is filled in by the look-up.
    Lookup(Traits, Option<NextHop>),
    /// Its verdict is known.
    Ended(Verdict),
}

impl WorkerState {
    /// The state of one of so many workers. Its outer identifications begin after `first`, which differs
    /// from each other's by less than their number, and which nobody can tell.
    pub fn new(first: u16, workers: u16) -> Self {
        Self {
            flights: Vec::with_capacity(BATCH),
            destinations: Destinations {
                v4: Vec::with_capacity(BATCH),
                v6: Vec::with_capacity(BATCH),
            },
            next_hops: Vec::with_capacity(BATCH),
            identification: first,
            identification_step: workers.max(1),
        }
    }

    /// The next outer identification; no two workers give the same one before all are used up
    /// (RFC 6864: unique for as long as fragments of it may live).
    #[inline]
    pub(super) fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(self.identification_step);
        self.identification
    }
}
