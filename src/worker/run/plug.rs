//! Ports that come and go while the worker runs.

use std::io;
use std::os::fd::RawFd;

use crossbeam_channel::Sender;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use super::{Way, Worker};
use crate::packet::{BATCH, Batch, Frame};
use crate::port::{Port, PortId};
use crate::worker::mailbox::{Plug, Unplugged};

/// Batches that are taken out of a port's ring at most before it is given up: more than a ring holds.
const LAST_BATCHES: usize = 64;

impl Worker {
    /// Serves a port from now on.
    pub(super) fn plug_in(&mut self, port: Box<dyn Port>) {
        let id = usize::from(port.id().0);
        let Some(way) = self.routes.get_mut(id) else {
            return log::error!("{}: there is no port number {id}", port.name());
        };
        if let Err(error) = register(&self.poll, std::slice::from_ref(&port)) {
            log::error!("{}: packets will wait up to a nap: {error}", port.name());
        }
        *way = Way::Own(self.ports.len());
        self.ports.push(port);
        self.outgoing.push(Batch::with_capacity(4 * BATCH));
    }

    /// Serves a port no more. What it has received is forwarded, and what is queued for it sent.
    pub(super) fn unplug(&mut self, id: PortId, frames: usize, back: &Sender<Unplugged>) {
        let way = self.routes.get(usize::from(id.0));
        let port = match way {
            Some(Way::Own(index)) => Some(self.take_out(*index)),
            _ => None,
        };
        let held = port.as_ref().map_or(0, |port| port.held());
        let missing = frames.saturating_sub(held);
        let frames: Vec<Frame> = std::iter::from_fn(|| self.pool.take())
            .take(missing)
            .collect();
        // Whoever asked and is gone has no use for it: dropped, the port is closed.
        let _ = back.send(Unplugged {
            port: port.map(Plug),
            frames,
        });
    }

    fn take_out(&mut self, index: usize) -> Box<dyn Port> {
        for _ in 0..LAST_BATCHES {
            if !self.receive(index) {
                break;
            }
        }
        self.flush();
        self.look_after_ports();
        let port = self.ports.swap_remove(index);
        self.counters.forget(port.id());
        self.outgoing.swap_remove(index);
        self.routes[usize::from(port.id().0)] = Way::None;
        if let Some(moved) = self.ports.get(index) {
            self.routes[usize::from(moved.id().0)] = Way::Own(index);
        }
        for descriptor in port.descriptors() {
            // A device that is gone may have left the poll by itself.
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
        port
    }
}

/// Has the poll tell when a port has something to receive. Edge-triggered, as mio is: a worker
/// sleeps only after every port came up empty, so each edge that counts is still to come.
pub(super) fn register(poll: &Poll, ports: &[Box<dyn Port>]) -> io::Result<()> {
    for descriptor in ports.iter().flat_map(|port| port.descriptors()) {
        let descriptor: RawFd = descriptor;
        let token = Token(descriptor as usize);
        poll.registry()
            .register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
    }
    Ok(())
}
