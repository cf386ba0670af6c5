//! The queue before the slow path: bounded, and nobody's packets fill it, so that floods leave room for what
//! others ask.
//!
//! Whoever has packets in it may have no more than are free (dynamic thresholds, Choudhury and Hahne 1998):
//! one flood gets a half, two get a third each, and there is always room for who has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Punted;
use crate::forward::{Place, Punt};
use crate::packet::PortId;

/// Packets that may wait for the slow path.
const LENGTH: usize = 1024;

/// A worker's end.
#[derive(Debug, Clone)]
pub struct QueueSender {
    packets: Sender<Punted>,
    waiting: Arc<Waiting>,
}

/// The slow path's end.
#[derive(Debug)]
pub struct QueueReceiver {
    packets: Receiver<Punted>,
    waiting: Arc<Waiting>,
}

/// How many packets wait, by what they have in common.
#[derive(Debug)]
struct Waiting {
    /// By the port that they came in by; the last one is for none.
    ports: Box<[AtomicUsize]>,
    // Apart from the uplink's others, which anybody can send who reaches it.
    /// What came out of bridges' tunnels.
    bridged: AtomicUsize,
    /// Fragments of tunnel packets.
    fragments: AtomicUsize,
    /// Errors about tunnel packets.
    errors: AtomicUsize,
}

/// An empty queue for packets of so many ports.
pub fn queue(ports: usize) -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = bounded(LENGTH);
    let waiting = Arc::new(Waiting {
        ports: (0..=ports).map(|_| AtomicUsize::new(0)).collect(),
        bridged: AtomicUsize::new(0),
        fragments: AtomicUsize::new(0),
        errors: AtomicUsize::new(0),
    });
    let sender = QueueSender {
        packets: sender,
        waiting: Arc::clone(&waiting),
    };
    let receiver = QueueReceiver {
        packets: receiver,
        waiting,
    };
    (sender, receiver)
}

impl QueueSender {
    /// Whether a packet that came in by this port finds no room: what is made of it would be in vain.
    pub(in crate::worker) fn is_full(&self, ingress: Option<PortId>, punt: Punt) -> bool {
        let alike = self.waiting.alike(ingress, punt).load(Ordering::Relaxed);
        alike >= LENGTH.saturating_sub(self.packets.len())
    }

    /// Puts a packet behind the others; whether there was room.
    pub(in crate::worker) fn send(&self, punted: Punted) -> bool {
        let (ingress, punt) = (punted.ingress, punted.punt);
        if self.is_full(ingress, punt) {
            return false;
        }
        // Counted before it can be taken out. Several workers may be over the share by one packet each.
        let alike = self.waiting.alike(ingress, punt);
        alike.fetch_add(1, Ordering::Relaxed);
        let sent = self.packets.try_send(punted).is_ok();
        if !sent {
            alike.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }
}

impl QueueReceiver {
    /// The first packet, or the next that comes within that time.
    pub(super) fn receive(&self, patience: Duration) -> Result<Punted, RecvTimeoutError> {
        let punted = self.packets.recv_timeout(patience)?;
        let alike = self.waiting.alike(punted.ingress, punted.punt);
        alike.fetch_sub(1, Ordering::Relaxed);
        Ok(punted)
    }
}

impl Waiting {
    /// Those that such a packet shares its room with.
    fn alike(&self, ingress: Option<PortId>, punt: Punt) -> &AtomicUsize {
        match punt {
            Punt::Bridged(_, Place::Remote(_)) => &self.bridged,
            Punt::OuterFragment => &self.fragments,
            Punt::TunnelError => &self.errors,
            _ => {
                let none = self.ports.len() - 1;
                let index = ingress.map_or(none, |port| usize::from(port.0).min(none));
                &self.ports[index]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::{BridgeId, RemoteId};

    fn punted(ingress: Option<u16>, punt: Punt) -> Punted {
        Punted {
            ingress: ingress.map(PortId),
            punt,
            packet: Vec::new(),
        }
    }

    fn from(port: Option<u16>) -> Punted {
        punted(port, Punt::Arp)
    }

    fn fill(sender: &QueueSender, port: Option<u16>) -> usize {
        let mut taken = 0;
        while sender.send(from(port)) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn floods_leave_room_for_others() {
        let (sender, receiver) = queue(3);
        assert_eq!(fill(&sender, Some(0)), LENGTH / 2);
        // The second flood gets no more than is left, and so on: who has nothing in it finds room.
        for flood in [Some(1), Some(2), None] {
            assert!(fill(&sender, flood) > LENGTH / 32);
            assert!(sender.is_full(flood.map(PortId), Punt::Arp));
        }
        let of_uplink = [
            Punt::Bridged(BridgeId(0), Place::Remote(RemoteId::new(0).unwrap())),
            Punt::OuterFragment,
            Punt::TunnelError,
        ];
        for punt in of_uplink {
            assert!(sender.send(punted(Some(0), punt)), "{punt:?}");
        }
        assert!(sender.is_full(Some(PortId(0)), Punt::NoRoute));
        while receiver.receive(Duration::ZERO).is_ok() {}
        assert_eq!(
            fill(&sender, Some(0)),
            LENGTH / 2,
            "nothing is counted twice"
        );
    }

    #[test]
    fn several_floods_share_alike() {
        let (sender, receiver) = queue(8);
        let flooders = [0, 1, 2].map(Some);
        // Each sends whenever there is room for it.
        for _ in 0..2 * LENGTH {
            for flooder in flooders {
                let _ = sender.send(from(flooder));
            }
            let _ = receiver.receive(Duration::ZERO);
        }
        while sender.send(from(Some(0))) || sender.send(from(Some(1))) || sender.send(from(Some(2)))
        {
        }
        let mut waiting = [0; 3];
        while let Ok(punted) = receiver.receive(Duration::ZERO) {
            waiting[usize::from(punted.ingress.unwrap().0)] += 1;
        }
        let quarter = LENGTH / 4;
        for of_one in waiting {
            assert!((quarter - 2..=quarter + 2).contains(&of_one), "{waiting:?}");
        }
    }

    #[test]
    fn the_end_is_seen_when_all_senders_are_gone() {
        let (sender, receiver) = queue(1);
        sender.send(from(Some(9)));
        drop(sender);
        assert!(
            receiver.receive(Duration::from_secs(9)).is_ok(),
            "a port beyond the last"
        );
        let end = receiver.receive(Duration::from_secs(9));
        assert_eq!(end.unwrap_err(), RecvTimeoutError::Disconnected);
    }
}
