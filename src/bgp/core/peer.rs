//! One peer: its session, what it has been told, and how much is said about it.

use crate::bgp::report::State;
use crate::bgp::rib::adj_out::AdjOut;
use crate::bgp::rib::export::Reader;
use crate::bgp::session::{Agreed, Session, Time};
use crate::bgp::settings::{PeerName, PeerSettings};

/// Lines about malformed messages of one peer in [`LOG_TIME`].
const LOG_LINES: u32 = 10;
const LOG_TIME: Time = Time::from_secs(10);

/// A peer and what is between it and us.
pub(super) struct Peer {
    pub(super) name: PeerName,
    pub(super) settings: PeerSettings,
    pub(super) session: Session,
    pub(super) agreed: Option<Agreed>,
    pub(super) reader: Option<Reader>,
    pub(super) out: [AdjOut; 2],
    pub(super) state: State,
    pub(super) since: Time,
    pub(super) up_since: Option<Time>,
    pub(super) trouble: Option<String>,
    /// Its routes are kept until then (RFC 4724).
    pub(super) keeps_until: Option<Time>,
    /// It has sent all its routes, by family.
    pub(super) complete: [bool; 2],
    pub(super) log: LogLimit,
}

#[derive(Default)]
pub(super) struct LogLimit {
    since: Time,
    lines: u32,
}

impl LogLimit {
    pub(super) fn lets(&mut self, now: Time) -> bool {
        if now.saturating_sub(self.since) >= LOG_TIME {
            *self = Self {
                since: now,
                lines: 0,
            };
        }
        self.lines += 1;
        self.lines <= LOG_LINES
    }
}
