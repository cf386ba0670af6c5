//! Paths to other nodes measured with packets of our own, one after the other, in a thread.
//!
//! ICMP errors can be forged by whoever knows what our packets look like, and they can be filtered. A
//! probe's answer is neither: it comes from the far end, and nobody on the side knows its number
//! (RFC 8899 section 4.6.2, RFC 4821 section 7.7).

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::probe::{Prober, Target};
use crate::wire::Mtu;

/// Measurements that wait at most.
const QUEUE: usize = 64;

/// A path's measurement.
#[derive(Debug)]
pub struct Measured {
    /// The far end.
    pub far_end: IpAddr,
    /// The largest packet that gets through, outer header included; none if nothing does, or the far
    /// end answers no echo.
    pub found: Option<Mtu>,
}

/// The thread that measures; it ends when this is dropped and its last measurement is done.
pub struct PathProber {
    wanted: Sender<(IpAddr, Target)>,
    measured: Receiver<Measured>,
}

impl PathProber {
    /// Starts the thread. Without a prober, nothing is ever found.
    pub fn start(prober: Option<Arc<Prober>>) -> Self {
        let (wanted, targets) = bounded::<(IpAddr, Target)>(QUEUE);
        let (sender, measured) = bounded(QUEUE);
        thread::spawn(move || {
            for (far_end, target) in targets {
                let found = prober.as_ref().and_then(|prober| measure(prober, &target));
                if sender.send(Measured { far_end, found }).is_err() {
                    return;
                }
            }
        });
        Self { wanted, measured }
    }

    /// Has a path measured; false if too many wait already.
    pub fn measure(&self, far_end: IpAddr, target: Target) -> bool {
        self.wanted.try_send((far_end, target)).is_ok()
    }

    /// Where measurements arrive.
    pub fn measured(&self) -> Receiver<Measured> {
        self.measured.clone()
    }
}

fn measure(prober: &Prober, target: &Target) -> Option<Mtu> {
    prober
        .measure(target)
        .inspect_err(|error| log::debug!("measuring a path: {error}"))
        .ok()
}
