//! The queue before the slow path: bounded, and no port's packets fill it alone, so that one workload's
//! flood leaves room for what others ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Punted;
use crate::packet::PortId;

/// Packets that may wait for the slow path.
const LENGTH: usize = 1024;

/// Packets of one port among them.
const SHARE: usize = LENGTH / 2;

/// A worker's end.
#[derive(Debug, Clone)]
pub struct QueueSender {
    packets: Sender<Punted>,
    waiting: Arc<[AtomicUsize]>,
}

/// The slow path's end.
#[derive(Debug)]
pub struct QueueReceiver {
    packets: Receiver<Punted>,
    waiting: Arc<[AtomicUsize]>,
}

/// An empty queue for packets of so many ports.
pub fn queue(ports: usize) -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = bounded(LENGTH);
    // The last one is for what came in by none.
    let waiting: Arc<[AtomicUsize]> = (0..=ports).map(|_| AtomicUsize::new(0)).collect();
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
    pub(in crate::worker) fn is_full(&self, ingress: Option<PortId>) -> bool {
        let of_port = share(&self.waiting, ingress).load(Ordering::Relaxed);
        self.packets.is_full() || of_port >= SHARE
    }

    /// Puts a packet behind the others; whether there was room.
    pub(in crate::worker) fn send(&self, punted: Punted) -> bool {
        let ingress = punted.ingress;
        if self.is_full(ingress) {
            return false;
        }
        // Counted before it can be taken out. Several workers may be over the share by one packet each.
        let of_port = share(&self.waiting, ingress);
        of_port.fetch_add(1, Ordering::Relaxed);
        let sent = self.packets.try_send(punted).is_ok();
        if !sent {
            of_port.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }
}

impl QueueReceiver {
    /// The first packet, or the next that comes within that time.
    pub(super) fn receive(&self, patience: Duration) -> Result<Punted, RecvTimeoutError> {
        let punted = self.packets.recv_timeout(patience)?;
        share(&self.waiting, punted.ingress).fetch_sub(1, Ordering::Relaxed);
        Ok(punted)
    }
}

fn share(waiting: &[AtomicUsize], port: Option<PortId>) -> &AtomicUsize {
    let none = waiting.len() - 1;
    let index = port.map_or(none, |port| usize::from(port.0).min(none));
    &waiting[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Punt;

    fn from(port: Option<u16>) -> Punted {
        Punted {
            ingress: port.map(PortId),
            punt: Punt::Arp,
            packet: Vec::new(),
        }
    }

    fn fill(sender: &QueueSender, port: Option<u16>) -> usize {
        let mut taken = 0;
        while sender.send(from(port)) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn one_ports_flood_leaves_room_for_others() {
        let (sender, receiver) = queue(3);
        assert_eq!(fill(&sender, Some(0)), SHARE);
        assert!(sender.send(from(Some(1))) && sender.send(from(None)));
        assert!(sender.is_full(Some(PortId(0))) && !sender.is_full(Some(PortId(1))));
        // What is taken out makes room for as many.
        for _ in 0..10 {
            let first = receiver.receive(Duration::ZERO).unwrap();
            assert_eq!(first.ingress, Some(PortId(0)));
        }
        assert_eq!(fill(&sender, Some(0)), 10);
        // All together fill it, and no more.
        let left = LENGTH - SHARE - 2;
        let others = [Some(2), None].map(|port| fill(&sender, port));
        assert_eq!(others.iter().sum::<usize>(), left);
        while receiver.receive(Duration::ZERO).is_ok() {}
        assert_eq!(fill(&sender, Some(0)), SHARE, "nothing is counted twice");
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
