//! Packets that wait for their next hop's Ethernet address.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Action, Event, Fate};
use crate::fib::NextHop;
use crate::forward::{Adjacency, Snapshot};
use crate::packet::{DropReason, PortId};
use crate::wire::{ipv4, ipv6};

/// Packets that wait for one next hop at most (Linux's `unres_qlen` is 101).
const MOST_OF_ONE: usize = 128;
/// Packets that wait at most, over all next hops, but for each next hop's first (RFC 1122 section 2.3.2.2).
const MOST: usize = 512;
/// Next hops that are asked for at most at a time.
const MOST_QUESTIONS: usize = 1024;
/// How long one waits at most: three ARP requests, a second apart in the kernel.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often is asked for a next hop: the question or its answer may have been lost.
const ASK: Duration = Duration::from_secs(1);
/// How often the waiting ones are looked at.
pub(super) const RETRY: Duration = Duration::from_millis(5);

/// Packets that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: Vec<Packet>,
    /// The next hops that they wait for.
    questions: BTreeMap<NextHop, Question>,
}

#[derive(Debug)]
struct Question {
    asked: Instant,
    packets: usize,
}

/// A packet whose next hop has not answered in time.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// The port that it came in by, if any.
    pub ingress: Option<PortId>,
    pub packet: Vec<u8>,
}

#[derive(Debug)]
struct Packet {
    ingress: Option<PortId>,
    bytes: Vec<u8>,
    next_hop: NextHop,
    until: Instant,
}

impl Waiting {
    /// Lets a packet wait and asks for its next hop. `hop`: whether this router counts as one.
    pub(super) fn add(
        &mut self,
        now: Instant,
        next_hop: NextHop,
        mut bytes: Vec<u8>,
        (ingress, hop): (Option<PortId>, bool),
        actions: &mut Vec<Action>,
    ) -> Fate {
        if hop && !take_hop(&mut bytes) {
            return Fate::Dropped(DropReason::TtlExpired);
        }
        let of_one = self.questions.get(&next_hop);
        let room = match of_one.map(|question| question.packets) {
            Some(waiting) => waiting < MOST_OF_ONE && self.packets.len() < MOST,
            None => self.questions.len() < MOST_QUESTIONS,
        };
        if !room {
            return Fate::Dropped(DropReason::NeighbourUnresolved);
        }
        if of_one.is_none() {
            actions.push(Action::Tell(Event::Unresolved(next_hop)));
        }
        let (asked, packets) = (now, 0);
        let question = Question { asked, packets };
        self.questions.entry(next_hop).or_insert(question).packets += 1;
        self.packets.push(Packet {
            ingress,
            bytes,
            next_hop,
            until: now + PATIENCE,
        });
        Fate::Waits
    }

    /// Sends the packets whose next hop is known by now, drops those that waited long enough, and
    /// asks again for what the others wait for. How each ended, and those that were dropped.
    pub(super) fn release(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        actions: &mut Vec<Action>,
    ) -> (Vec<Fate>, Vec<GivenUp>) {
        let (mut fates, mut given_up) = (Vec::new(), Vec::new());
        if !self.is_due(now, snapshot) {
            self.ask_again(now, actions);
            return (fates, given_up);
        }
        self.packets.retain_mut(|packet| {
            let unresolved = is_unresolved(snapshot, packet.next_hop);
            if unresolved && now < packet.until {
                return true;
            }
            if let Some(question) = self.questions.get_mut(&packet.next_hop) {
                question.packets -= 1;
            }
            let bytes = std::mem::take(&mut packet.bytes);
            fates.push(if unresolved {
                given_up.push(GivenUp {
                    ingress: packet.ingress,
                    packet: bytes,
                });
                Fate::Dropped(DropReason::NeighbourUnresolved)
            } else {
                actions.push(Action::Originate(bytes));
                Fate::Absorbed
            });
            false
        });
        self.ask_again(now, actions);
        (fates, given_up)
    }

    /// Whether any packet's waiting is over. They are in the order of their ends.
    fn is_due(&self, now: Instant, snapshot: &Snapshot) -> bool {
        let mut next_hops = self.questions.keys();
        self.packets.first().is_some_and(|first| now >= first.until)
            || next_hops.any(|next_hop| !is_unresolved(snapshot, *next_hop))
    }

    fn ask_again(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.questions.retain(|_, question| question.packets > 0);
        for (next_hop, question) in &mut self.questions {
            if now >= question.asked + ASK {
                question.asked = now;
                actions.push(Action::Tell(Event::Unresolved(*next_hop)));
            }
        }
    }

    /// Drops all that wait.
    pub(super) fn give_up(&mut self) -> Vec<Fate> {
        self.questions.clear();
        self.packets
            .drain(..)
            .map(|_| Fate::Dropped(DropReason::Shutdown))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }
}

fn is_unresolved(snapshot: &Snapshot, next_hop: NextHop) -> bool {
    let adjacency = snapshot.adjacencies.get(next_hop.0 as usize);
    matches!(adjacency, Some(Adjacency::Unresolved))
}

/// Takes one hop off an IP packet, as forwarding would have; false if it has none left.
pub(super) fn take_hop(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(8).is_some_and(|ttl| *ttl > 1) && ipv4::decrement_ttl(packet),
        Some(6) => packet.get(7).is_some_and(|hops| *hops > 1) && ipv6::decrement_hop_limit(packet),
        _ => false,
    }
}
