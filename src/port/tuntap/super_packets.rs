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

use std::io::{self, IoSlice, Write};
use std::ops::Range;

use super::device::Device;
use super::is_transient;
use crate::packet::{BATCH, Batch, Frame, FramePool};
use crate::port::{PortStatistics, Refused, TxOutcome};
use crate::wire::coalesce::{self, MAX_HEADERS, Part, Run};
use crate::wire::ethernet;
use crate::wire::segment::{self, SegmentError, Segments};
use crate::wire::virtio_net::{HEADER_LEN, VirtioNet};

/// What one read brings at most: the header, a link header with a tag, and an IP packet; and room for
/// another tag, or one that is put back.
const BUFFER: usize = HEADER_LEN + ethernet::TAGGED_HEADER_LEN + 65535 + ethernet::TAG_LEN;

/// Runs that a frame is tried with at most, the latest first.
const OPEN_RUNS: usize = 8;

/// A device that speaks in super-packets, and the one that is being cut.
#[derive(Debug)]
pub(super) struct SuperPackets {
    device: Device,
    /// Where IP headers begin in what is read and written without a tag: 0 if there is no link header.
    network: usize,
    buffer: Box<[u8]>,
    pending: Option<Pending>,
    sending: Sending,
}

/// A super-packet in the buffer, and the segment of it that comes next.
#[derive(Debug, Clone, Copy)]
struct Pending {
    segments: Segments,
    start: usize,
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
        // What is refused counts, too: others have their turn whatever one sends.
        let mut reads = 0;
        while batch.len() < BATCH && pool.available() > 0 {
            if self.pending.is_some() {
                self.cut(pool, batch, statistics);
                continue;
            }
            if reads == BATCH {
                break;
            }
            reads += 1;
            match self.device.read(&mut self.buffer) {
                Ok(read) => self.accept(read, pool, batch, statistics),
                // A packet that the header cannot tell of, which is gone with that.
                Err(error)
                    if self.device.is_held() && error.raw_os_error() == Some(libc::EINVAL) =>
                {
                    statistics.refused.malformed += 1;
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
        read: Range<usize>,
        pool: &mut FramePool,
        batch: &mut Batch,
        statistics: &mut PortStatistics,
    ) {
        let Ok(VirtioNet { gso, checksum, .. }) = VirtioNet::parse(&self.buffer[read.clone()])
        else {
            statistics.refused.malformed += 1;
            return;
        };
        let (start, end) = (read.start + HEADER_LEN, read.end);
        let packet = &mut self.buffer[start..end];
        if let Some(gso) = gso {
            let segments = network(packet, self.network)
                .and_then(|network| Segments::of(packet, network, gso, checksum));
            match segments {
                Ok(segments) => {
                    self.pending = Some(Pending {
                        segments,
                        start,
                        end,
                        next: 0,
                    });
                }
                Err(_) => statistics.refused.malformed += 1,
            }
            return;
        }
        if checksum.is_some_and(|checksum| !segment::finish_checksum(packet, checksum)) {
            statistics.refused.malformed += 1;
            return;
        }
        keep(pool, batch, &mut statistics.refused, |frame, headroom| {
            frame.fill(packet, headroom)
        });
    }

    /// Cuts segments off the pending super-packet as long as there is room for them.
    fn cut(&mut self, pool: &mut FramePool, batch: &mut Batch, statistics: &mut PortStatistics) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        let packet = &self.buffer[pending.start..pending.end];
        while batch.len() < BATCH && pool.available() > 0 {
            if pending.next == pending.segments.count() {
                return;
            }
            keep(pool, batch, &mut statistics.refused, |frame, headroom| {
                let room = frame.room_from(headroom);
                let length = pending.segments.write(packet, pending.next, room);
                length > 0 && frame.place(headroom..headroom + length)
            });
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

/// Where a super-packet's IP header begins: behind its tags. `untagged` is where it would without any.
fn network(packet: &[u8], untagged: usize) -> Result<usize, SegmentError> {
    if untagged == 0 {
        return Ok(0);
    }
    let (_, network) = ethernet::network(packet).ok_or(SegmentError::Headers)?;
    Ok(network)
}

/// Puts a frame that `fill` has filled into the batch, or counts that it could not.
fn keep(
    pool: &mut FramePool,
    batch: &mut Batch,
    refused: &mut Refused,
    fill: impl FnOnce(&mut Frame, usize) -> bool,
) {
    let headroom = pool.headroom();
    let Some(mut frame) = pool.take() else {
        refused.no_frame += 1;
        return;
    };
    if fill(&mut frame, headroom) {
        batch.push(frame);
        return;
    }
    refused.oversized += 1;
    pool.give(frame);
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::packet::HEADROOM;

    /// The port's side of a socket in place of a device, and the guest's.
    struct World {
        io: SuperPackets,
        guest: UnixDatagram,
        pool: FramePool,
        statistics: PortStatistics,
    }

    const FRAMES: usize = 64;

    impl World {
        fn new() -> Self {
            let (ours, guest) = UnixDatagram::pair().expect("a pair");
            ours.set_nonblocking(true).expect("a setting");
            let device = Device::of_a_test(File::from(OwnedFd::from(ours)));
            Self {
                io: SuperPackets::new(device, ethernet::HEADER_LEN),
                guest,
                pool: FramePool::with_memory(FRAMES, 2048, HEADROOM),
                statistics: PortStatistics::default(),
            }
        }

        /// Sends bytes and takes all that comes of them; every frame is in its pool again.
        fn comes_of(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
            self.guest.send(bytes).expect("send");
            let (mut got, mut batch) = (Vec::new(), Batch::new());
            while let Ok(1..) = self.io.rx(&mut self.pool, &mut batch, &mut self.statistics) {
                for frame in batch.drain(..) {
                    got.push(frame.bytes().to_vec());
                    self.pool.give(frame);
                }
            }
            assert_eq!(self.pool.available(), FRAMES);
            got
        }
    }

    /// Ethernet, IPv4 and TCP headers before `length` bytes.
    fn tcp(length: usize) -> Vec<u8> {
        let mut packet = vec![0; 54 + length];
        packet[12] = 8;
        packet[14] = 0x45;
        packet[16..18].copy_from_slice(&(40 + length as u16).to_be_bytes());
        packet[23] = 6;
        packet[46] = 0x50;
        packet
    }

    fn behind(header: [u16; 5], packet: &[u8]) -> Vec<u8> {
        let words = header.iter().skip(1).flat_map(|word| word.to_ne_bytes());
        let first = [(header[0] >> 8) as u8, header[0] as u8];
        first
            .into_iter()
            .chain(words)
            .chain(packet.iter().copied())
            .collect()
    }

    const CHECKSUM: u16 = 1 << 8;

    #[test]
    fn headers_that_make_no_sense_are_counted_and_take_no_other_packet_with_them() {
        let mut world = World::new();
        let (packet, end) = (tcp(1000), 1054);
        let mut bad = vec![Vec::new(), vec![1], vec![0; 9]];
        // Flags and kind, header length, segment size, checksum's start and offset.
        bad.extend(
            [
                [2, 0, 0, 0, 0],
                [3, 0, 100, 34, 6],
                [0x7f, 0, 100, 34, 16],
                [CHECKSUM | 1, 54, 0, 34, 16],
                [1, 54, 500, 0, 0],
                [CHECKSUM | 4, 54, 500, 34, 16],
                [CHECKSUM | 1, 54, 500, 14, 16],
                [CHECKSUM | 1, 54, 500, 1050, 16],
                [CHECKSUM | 1, 54, 500, 9000, 16],
                [CHECKSUM, 0, 0, end - 1, 0],
                [CHECKSUM, 0, 0, end, 0],
                [CHECKSUM, 0, 0, 34, 2000],
                [CHECKSUM, 0, 0, u16::MAX, u16::MAX],
                [u16::MAX; 5],
            ]
            .map(|header| behind(header, &packet)),
        );
        for (count, bytes) in (1..).zip(&bad) {
            assert_eq!(
                world.comes_of(bytes),
                [[0_u8; 0]; 0],
                "{:?}",
                &bytes[..bytes.len().min(10)]
            );
            assert_eq!(
                world.statistics.refused.malformed,
                count,
                "{:?}",
                &bytes[..bytes.len().min(10)]
            );
            // A header's length is a hint, true or not.
            for hint in [0, u16::MAX] {
                assert_eq!(
                    world.comes_of(&behind([0, hint, 0, 0, 0], &packet)),
                    std::slice::from_ref(&packet)
                );
            }
        }
        let refused = Refused {
            malformed: bad.len() as u64,
            ..Refused::default()
        };
        assert_eq!(world.statistics.refused, refused);
    }

    #[test]
    fn segment_sizes_that_no_link_has_are_cut_or_counted() {
        let mut world = World::new();
        let packet = tcp(60_000);
        // A byte each: many, and each is whole.
        let got = world.comes_of(&behind([CHECKSUM | 1, 0, 1, 34, 16], &packet));
        assert_eq!(got.len(), 60_000);
        assert!(got.iter().all(|segment| segment.len() == 55));
        // Longer than a buffer: counted, one for each segment.
        let got = world.comes_of(&behind([CHECKSUM | 1, 0, 20_000, 34, 16], &packet));
        assert_eq!(got, [[0_u8; 0]; 0]);
        assert_eq!(world.statistics.refused.oversized, 3);
    }

    #[test]
    fn a_super_packet_with_tags_is_cut_behind_them() {
        let mut world = World::new();
        let packet = tcp(2500);
        let untagged = world.comes_of(&behind([CHECKSUM | 1, 54, 1000, 34, 16], &packet));
        assert_eq!(untagged.len(), 3);
        let tagged = |frame: &[u8], tags: &[u8]| [&frame[..12], tags, &frame[12..]].concat();
        // The second is of priority 2, and begins as an IPv4 header does.
        let tags: [&[u8]; 4] = [
            &[0x81, 0, 0, 10],
            &[0x81, 0, 0x46, 0],
            &[0x88, 0xa8, 0, 20],
            &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10],
        ];
        for tags in tags {
            let header = [CHECKSUM | 1, 54, 1000, 34 + tags.len() as u16, 16];
            let got = world.comes_of(&behind(header, &tagged(&packet, tags)));
            let expected: Vec<_> = untagged.iter().map(|frame| tagged(frame, tags)).collect();
            assert_eq!(got, expected, "{tags:?}");
        }
        let three = [0x81, 0, 0, 1].repeat(3);
        let header = [CHECKSUM | 1, 54, 1000, 34 + 12, 16];
        let got = world.comes_of(&behind(header, &tagged(&packet, &three)));
        assert_eq!((got.len(), world.statistics.refused.malformed), (0, 1));
    }

    #[test]
    fn whatever_a_guest_writes_nothing_is_lost_but_its_own() {
        let mut world = World::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let good = tcp(100);
        for _ in 0..20_000 {
            let mut bytes = behind([CHECKSUM | 1, 54, 700, 34, 16], &tcp(random(4000) as usize));
            for _ in 0..=random(6) {
                let at = random(70.min(bytes.len() as u64)) as usize;
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(random(bytes.len() as u64 + 1) as usize);
            world.comes_of(&bytes);
            assert_eq!(
                world.comes_of(&behind([0; 5], &good)),
                std::slice::from_ref(&good)
            );
        }
    }
}
