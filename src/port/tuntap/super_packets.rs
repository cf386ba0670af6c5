//! Super-packets: one system call moves up to 64 KB of one flow.
//!
//! ```text
//!  read  ─► header | super-packet ─► segments, each in a frame ─► packet path
//!  write ◄─ header | headers | payload | payload | …  ◄─ frames of one flow ◄─ packet path
//! ```
//!
//! A super-packet whose segments do not all fit into a batch, or into the frames that are free, waits
//! in the port and goes on with the next call, before anything else is read. On the way back, frames
//! of one batch are put together if that changes nothing for the receiver (see
//! [`coalesce`](crate::wire::coalesce)); frames of one flow keep their order, those of different
//! flows may change places.

use std::io::{self, IoSlice, Read, Write};

use super::device::Device;
use super::is_transient;
use crate::packet::{BATCH, Batch, Frame, FramePool};
use crate::port::{PortStatistics, TxOutcome};
use crate::wire::coalesce::{self, MAX_HEADERS, Part, Run};
use crate::wire::segment::{self, Segments};
use crate::wire::virtio_net::{HEADER_LEN, VirtioNet};

/// What one read brings at most: the header, a link header with a tag, and an IP packet.
const BUFFER: usize = HEADER_LEN + 18 + 65535;

/// Runs that a frame is tried with at most, the latest first.
const OPEN_RUNS: usize = 8;

/// A device that speaks in super-packets, and the one that is being cut.
#[derive(Debug)]
pub(super) struct SuperPackets {
    device: Device,
    /// Where IP headers begin in what is read and written.
    network: usize,
    buffer: Box<[u8]>,
    pending: Option<Pending>,
    sending: Sending,
}

/// A super-packet in the buffer, and the segment of it that comes next.
#[derive(Debug, Clone, Copy)]
struct Pending {
    segments: Segments,
    end: usize,
    next: usize,
}

/// Scratch space for one transmit call.
#[derive(Debug)]
struct Sending {
    groups: Vec<Group>,
    /// For each frame, the next one of its group.
    next: [u8; BATCH],
    done: [bool; BATCH],
    kept: Batch,
}

/// Frames that go in one write.
#[derive(Debug, Clone, Copy)]
struct Group {
    run: Option<Run>,
    first: u8,
    last: u8,
}

/// No next frame.
const END: u8 = u8::MAX;

impl SuperPackets {
    pub(super) fn new(device: Device, network: usize) -> Self {
        Self {
            device,
            network,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            pending: None,
            sending: Sending {
                groups: Vec::with_capacity(BATCH),
                next: [END; BATCH],
                done: [false; BATCH],
                kept: Batch::with_capacity(4 * BATCH),
            },
        }
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn rx(
        &mut self,
        pool: &mut FramePool,
        batch: &mut Batch,
        statistics: &mut PortStatistics,
    ) -> io::Result<usize> {
        let before = batch.len();
        while batch.len() < BATCH && pool.available() > 0 {
            if self.pending.is_some() {
                self.cut(pool, batch, statistics);
                continue;
            }
            match (&self.device.file).read(&mut self.buffer) {
                Ok(length) => self.accept(length, pool, batch, statistics),
                // A packet that the header cannot tell of, which is gone with that.
                Err(error)
                    if self.device.is_held() && error.raw_os_error() == Some(libc::EINVAL) =>
                {
                    statistics.rx_dropped += 1;
                }
                Err(error) if is_transient(&error) || batch.len() > before => break,
                Err(error) => return Err(error),
            }
        }
        Ok(batch.len() - before)
    }

    /// Takes what was read: a packet into a frame, a super-packet to be cut.
    fn accept(
        &mut self,
        length: usize,
        pool: &mut FramePool,
        batch: &mut Batch,
        statistics: &mut PortStatistics,
    ) {
        let read = &mut self.buffer[..length];
        let accepted = match VirtioNet::parse(read) {
            Ok(VirtioNet {
                gso: Some(gso),
                checksum,
                ..
            }) => {
                let segments = Segments::of(&read[HEADER_LEN..], self.network, gso, checksum);
                self.pending = segments.ok().map(|segments| Pending {
                    segments,
                    end: length,
                    next: 0,
                });
                self.pending.is_some()
            }
            Ok(VirtioNet {
                gso: None,
                checksum,
                ..
            }) => {
                let packet = &mut read[HEADER_LEN..];
                let finished =
                    checksum.is_none_or(|checksum| segment::finish_checksum(packet, checksum));
                finished && keep(pool, batch, |frame, headroom| frame.fill(packet, headroom))
            }
            Err(_) => false,
        };
        statistics.rx_dropped += u64::from(!accepted);
    }

    /// Cuts segments off the pending super-packet as long as there is room for them.
    fn cut(&mut self, pool: &mut FramePool, batch: &mut Batch, statistics: &mut PortStatistics) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        let packet = &self.buffer[HEADER_LEN..pending.end];
        while batch.len() < BATCH && pool.available() > 0 {
            if pending.next == pending.segments.count() {
                return;
            }
            let kept = keep(pool, batch, |frame, headroom| {
                let room = frame.room_from(headroom);
                let length = pending.segments.write(packet, pending.next, room);
                length > 0 && frame.place(headroom..headroom + length)
            });
            statistics.rx_dropped += u64::from(!kept);
            pending.next += 1;
        }
        self.pending = Some(pending);
    }

    pub(super) fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let mut outcome = TxOutcome::default();
        while !batch.is_empty() {
            let frames = &batch[..batch.len().min(BATCH)];
            let sending = &mut self.sending;
            sending.group(frames, self.network, self.device.udp);
            let all = sending.write(&self.device, frames, &mut outcome);
            sending.give_back(pool, batch);
            if !all {
                break;
            }
        }
        outcome
    }
}

/// Puts a frame that `fill` has filled into the batch; false if it could not.
fn keep(
    pool: &mut FramePool,
    batch: &mut Batch,
    fill: impl FnOnce(&mut Frame, usize) -> bool,
) -> bool {
    let headroom = pool.headroom();
    let Some(mut frame) = pool.take() else {
        return false;
    };
    if fill(&mut frame, headroom) {
        batch.push(frame);
        return true;
    }
    pool.give(frame);
    false
}

impl Sending {
    /// Says which frames go in one write, in the order of their first ones.
    fn group(&mut self, frames: &[Frame], network: usize, udp: bool) {
        self.groups.clear();
        self.next = [END; BATCH];
        self.done = [false; BATCH];
        for (index, frame) in frames.iter().enumerate() {
            let bytes = frame.bytes();
            let part = Part::of(bytes, network).filter(|part| udp || part.is_tcp());
            if !self.join(part.as_ref(), bytes, frames, network, index as u8) {
                self.groups.push(Group {
                    run: part.map(Run::new),
                    first: index as u8,
                    last: index as u8,
                });
            }
        }
    }

    /// Has a frame join the run of its flow, if it goes on there; if it does not, the run is closed,
    /// so that nothing that comes later overtakes the frame.
    fn join(
        &mut self,
        part: Option<&Part>,
        bytes: &[u8],
        frames: &[Frame],
        network: usize,
        index: u8,
    ) -> bool {
        let mut tried = 0;
        for group in self.groups.iter_mut().rev() {
            let Some(run) = &mut group.run else { continue };
            if run.is_closed() {
                continue;
            }
            let head = frames[usize::from(group.first)].bytes();
            if tried == OPEN_RUNS {
                run.close();
                continue;
            }
            tried += 1;
            if part.is_some_and(|part| run.join(head, part, bytes)) {
                self.next[usize::from(group.last)] = index;
                group.last = index;
                return true;
            }
            if coalesce::may_be_one_flow(head, bytes, network) {
                run.close();
            }
        }
        false
    }

    /// Writes the groups; false if the device has no room for more.
    fn write(&mut self, device: &Device, frames: &[Frame], outcome: &mut TxOutcome) -> bool {
        for group in &self.groups {
            let written = write_group(device, group, &self.next, frames);
            let of_group = Members::of(group, &self.next);
            let (count, bytes) = of_group.clone().fold((0, 0), |(count, bytes), index| {
                (count + 1, bytes + frames[index].len())
            });
            match written {
                Ok(()) => {
                    outcome.sent += count;
                    outcome.sent_bytes += bytes;
                }
                Err(error) if is_transient(&error) => return false,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    outcome.oversized += count;
                }
                Err(_) => outcome.failed += count,
            }
            of_group.for_each(|index| self.done[index] = true);
        }
        true
    }

    /// Gives the frames that are done with to the pool; the others stay in the batch, in order.
    fn give_back(&mut self, pool: &mut FramePool, batch: &mut Batch) {
        let done = self.done.iter().copied().chain(std::iter::repeat(false));
        for (frame, done) in batch.drain(..).zip(done) {
            if done {
                pool.give(frame);
            } else {
                self.kept.push(frame);
            }
        }
        std::mem::swap(batch, &mut self.kept);
    }
}

fn write_group(
    device: &Device,
    group: &Group,
    next: &[u8; BATCH],
    frames: &[Frame],
) -> io::Result<()> {
    let head = frames[usize::from(group.first)].bytes();
    let Some(run) = group.run.as_ref().filter(|run| run.count() > 1) else {
        let plain = VirtioNet::default().to_bytes();
        return write(device, &[IoSlice::new(&plain), IoSlice::new(head)]);
    };
    let mut headers = [0; MAX_HEADERS];
    let (length, offload) = run.headers(head, &mut headers);
    let offload = offload.to_bytes();
    let mut slices = [IoSlice::new(&[]); BATCH + 2];
    slices[0] = IoSlice::new(&offload);
    slices[1] = IoSlice::new(&headers[..length]);
    let payloads = Members::of(group, next);
    for (slice, index) in slices[2..].iter_mut().zip(payloads) {
        *slice = IoSlice::new(&frames[index].bytes()[run.first().payload()..]);
    }
    write(device, &slices[..run.count() + 2])
}

fn write(device: &Device, slices: &[IoSlice<'_>]) -> io::Result<()> {
    (&device.file).write_vectored(slices).map(|_| ())
}

/// The numbers of a group's frames, in order.
#[derive(Clone)]
struct Members<'a> {
    at: u8,
    next: &'a [u8; BATCH],
}

impl<'a> Members<'a> {
    fn of(group: &Group, next: &'a [u8; BATCH]) -> Self {
        Self {
            at: group.first,
            next,
        }
    }
}

impl Iterator for Members<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let index = usize::from(self.at);
        self.at = *self.next.get(index)?;
        Some(index)
    }
}
