//! What threads say to a worker, and how a sleeping one is woken.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::{Poll, Token, Waker};

use crate::forward::{BridgeId, Place};
use crate::packet::Frame;
use crate::port::{Port, PortId};

/// What a worker may be told.
#[derive(Debug)]
pub enum Message {
    /// Send this frame by a port that only you own, and give the frame back to its worker.
    Handoff {
        /// The port to send by.
        port: PortId,
        /// The packet, in a frame of the sender's pool.
        frame: Frame,
        /// Which worker the frame belongs to.
        owner: usize,
    },
    /// Route this IP packet, which the router itself made, and send it.
    Originate(Vec<u8>),
    /// Send this whole frame by this port, as it is.
    Transmit(PortId, Vec<u8>),
    /// Treat this whole frame as if this port had received it.
    Receive(PortId, Vec<u8>),
    /// Send this whole frame on in a bridge, as one that came from there.
    Bridge(BridgeId, Place, Vec<u8>),
    /// Serve this port from now on.
    Open(Plug),
    /// Serve a port no more: forward what it has received, send what is queued for it, give it back.
    Close {
        /// The port.
        port: PortId,
        /// How many frames are to go with it: what the kernel holds through it, and as many free ones
        /// as are missing.
        frames: usize,
        /// Where to give it back.
        back: Sender<Unplugged>,
    },
    /// Stop receiving, send what is queued, and end.
    Stop,
}

/// A port on its way to a worker.
pub struct Plug(pub Box<dyn Port>);

/// A port that a worker has given back, and free frames.
#[derive(Debug)]
pub struct Unplugged {
    /// The port, still open; nothing if the worker did not have it.
    pub port: Option<Plug>,
    /// Frames of the worker's own.
    pub frames: Vec<Frame>,
}

impl fmt::Debug for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plug").field(&self.0.name()).finish()
    }
}

/// The token under which a mailbox wakes its worker's poll.
pub const WAKE: Token = Token(usize::MAX);

/// Messages that wait for a worker at most.
const CAPACITY: usize = 4096;

/// The sending side of a worker's mailbox; any thread may hold one.
#[derive(Debug, Clone)]
pub struct Mailbox {
    messages: Sender<Message>,
    returns: Sender<Frame>,
    sleeper: Arc<Sleeper>,
}

/// The worker's own side.
#[derive(Debug)]
pub struct Inbox {
    /// Messages, in order.
    pub messages: Receiver<Message>,
    /// Own frames that another worker has emptied.
    pub returns: Receiver<Frame>,
    sleeper: Arc<Sleeper>,
}

#[derive(Debug)]
struct Sleeper {
    asleep: AtomicBool,
    finished: AtomicBool,
    waker: Waker,
}

/// A mailbox whose worker sleeps in `poll` and owns `frames` frames.
pub fn mailbox(poll: &Poll, frames: usize) -> io::Result<(Mailbox, Inbox)> {
    let waker = Waker::new(poll.registry(), WAKE)?;
    let sleeper = Arc::new(Sleeper {
        asleep: AtomicBool::new(false),
        finished: AtomicBool::new(false),
        waker,
    });
    let (messages, inbox) = bounded(CAPACITY);
    // Every frame of the worker may be on its way back at once: sending one back never fails.
    let (returns, returned) = bounded(frames.max(1));
    let mailbox = Mailbox {
        messages,
        returns,
        sleeper: Arc::clone(&sleeper),
    };
    Ok((
        mailbox,
        Inbox {
            messages: inbox,
            returns: returned,
            sleeper,
        },
    ))
}

impl Mailbox {
    /// Leaves a message and wakes the worker if it sleeps; a full mailbox gives the message back.
    pub fn post(&self, message: Message) -> Result<(), Message> {
        self.messages
            .try_send(message)
            .map_err(|error| match error {
                TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
            })?;
        self.sleeper.wake();
        Ok(())
    }

    /// Gives a frame back to the worker that owns it. It is not woken for that.
    pub fn give_back(&self, frame: Frame) {
        // A worker that has ended needs no frames.
        let _ = self.returns.try_send(frame);
    }

    /// Whether the worker has said that it hands nothing over any more, or is gone.
    pub fn has_finished(&self) -> bool {
        self.sleeper.finished.load(Ordering::Acquire)
    }
}

impl Inbox {
    /// Says that the worker is about to sleep. It must look into its inbox once more afterwards.
    pub fn about_to_sleep(&self) {
        self.sleeper.asleep.store(true, Ordering::SeqCst);
        // Pairs with the fence in `wake`: either the poster sees `asleep`, or we see its message.
        fence(Ordering::SeqCst);
    }

    /// Says that the worker is awake.
    pub fn awake(&self) {
        self.sleeper.asleep.store(false, Ordering::SeqCst);
    }

    /// Whether there is nothing to read, and no frame has come home.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.returns.is_empty()
    }

    /// Says that the worker, which has been told to stop, hands nothing over any more.
    pub fn finish(&self) {
        self.sleeper.finished.store(true, Ordering::Release);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Sleeper {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // An eventfd write fails only if its counter is full, and then the worker is awake.
            let _ = self.waker.wake();
        }
    }
}
