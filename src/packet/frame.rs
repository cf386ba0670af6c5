//! A buffer with headroom.

use std::fmt;
use std::ops::Range;

/// One packet in one buffer, with free space before and after it.
///
/// ```text
///  buffer: | headroom ……… | packet ……………… | tailroom … |
///          0            start             end         capacity
/// ```
///
/// A frame owns its buffer: it is not `Copy` or `Clone`, so a buffer is in one place at a time. The
/// buffer itself lives as long as the process (a UMEM chunk or a leaked allocation), which is why no
/// lifetime spreads through the packet path.
pub struct Frame {
    buffer: &'static mut [u8],
    start: usize,
    end: usize,
}

impl Frame {
    /// A frame over `buffer`, empty, with its start `headroom` bytes in.
    pub fn new(buffer: &'static mut [u8], headroom: usize) -> Self {
        let start = headroom.min(buffer.len());
        Self {
            buffer,
            start,
            end: start,
        }
    }

    /// A frame with memory of its own, never given back: for pools, at start, and for tests.
    pub fn leak(capacity: usize, headroom: usize) -> Self {
        Self::new(Box::leak(vec![0; capacity].into_boxed_slice()), headroom)
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// A byte of the packet; 0 or some value if it is not that long.
    #[inline(always)]
    pub fn byte(&self, at: usize) -> u8 {
        self.buffer.get(self.start + at).copied().unwrap_or(0)
    }

    /// The packet, to change in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// The packet's length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no packet in the frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where the packet lies in the buffer.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The buffer's size in bytes.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// The address of the buffer's first byte; it tells which pool the frame is from.
    #[inline]
    pub fn buffer_address(&self) -> usize {
        self.buffer.as_ptr().addr()
    }

    /// Pushes `header` before the packet; false (and nothing changed) if the headroom is too small.
    #[inline]
    #[must_use]
    pub fn push(&mut self, header: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(header.len()) else {
            return false;
        };
        self.buffer[start..self.start].copy_from_slice(header);
        self.start = start;
        true
    }

    /// Pushes the last `length` bytes of `padded` before the packet, as [`Frame::push`] does. The bytes
    /// before these are written too, into headroom that nobody reads, if there is so much of it: a
    /// copy of a length that the compiler knows.
    #[inline]
    #[must_use]
    pub fn push_end_of<const N: usize>(&mut self, padded: &[u8; N], length: usize) -> bool {
        let free = &mut self.buffer[..self.start];
        match free.last_chunk_mut::<N>() {
            Some(room) if length <= N => {
                *room = *padded;
                self.start -= length;
                true
            }
            _ => self.push(&padded[N - length.min(N)..]),
        }
    }

    /// Pushes `header` before the packet; the header in its place and the packet behind it, or none (and
    /// nothing changed) if the headroom is too small.
    #[inline(always)]
    #[must_use]
    pub fn push_array<const N: usize>(
        &mut self,
        header: &[u8; N],
    ) -> Option<(&mut [u8; N], &mut [u8])> {
        let start = self.start.checked_sub(N)?;
        let whole = self.buffer.get_mut(start..self.end)?;
        let (room, packet) = whole.split_first_chunk_mut::<N>()?;
        *room = *header;
        self.start = start;
        Some((room, packet))
    }

    /// Takes `count` bytes off the packet's front; all of it if it is shorter.
    #[inline]
    pub fn strip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Cuts the packet to `length` bytes if it is longer (link-layer padding).
    #[inline]
    pub fn trim(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
    }

    /// Leaves of the packet what lies from byte `begin` to before byte `end`; false (and nothing changed) if
    /// it is not that long.
    #[inline(always)]
    #[must_use]
    pub fn narrow(&mut self, begin: usize, end: usize) -> bool {
        let fits = begin <= end && end <= self.len();
        if fits {
            self.end = self.start + end;
            self.start += begin;
        }
        fits
    }

    /// Puts the packet at `range` of the buffer, as a port does when it has received one there;
    /// false (and nothing changed) if the buffer does not hold that range.
    #[must_use]
    pub fn place(&mut self, range: Range<usize>) -> bool {
        if range.start > range.end || range.end > self.buffer.len() {
            return false;
        }
        (self.start, self.end) = (range.start, range.end);
        true
    }

    /// Moves the packet's bytes so that they begin at `start`; false if they do not fit there.
    #[must_use]
    pub fn move_to(&mut self, start: usize) -> bool {
        let length = self.len();
        if start == self.start {
            return true;
        }
        if start + length > self.buffer.len() {
            return false;
        }
        self.buffer.copy_within(self.start..self.end, start);
        (self.start, self.end) = (start, start + length);
        true
    }

    /// The whole buffer behind `start`, for a port to receive into; then call [`Frame::place`].
    pub fn room_from(&mut self, start: usize) -> &mut [u8] {
        let start = start.min(self.buffer.len());
        &mut self.buffer[start..]
    }

    /// Replaces the packet by `packet`, `headroom` bytes in; false if it does not fit.
    #[must_use]
    pub fn fill(&mut self, packet: &[u8], headroom: usize) -> bool {
        if !self.place(headroom..headroom + packet.len()) {
            return false;
        }
        self.bytes_mut().copy_from_slice(packet);
        true
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Frame({} bytes at {} of {})",
            self.len(),
            self.start,
            self.capacity()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_and_strip_move_the_start() {
        let mut frame = Frame::leak(64, 16);
        assert!(frame.fill(b"inner", 16));
        assert!(frame.push(b"outer "));
        assert_eq!(frame.bytes(), b"outer inner");
        frame.strip(6);
        assert_eq!(frame.bytes(), b"inner");
    }

    #[test]
    fn the_end_of_a_padded_header_is_pushed_wherever_it_fits() {
        for headroom in [8, 16] {
            let mut frame = Frame::leak(64, headroom);
            assert!(frame.fill(b"inner", headroom));
            assert!(frame.push_end_of(b"........outer ", 6));
            assert_eq!(frame.bytes(), b"outer inner");
            assert!(!frame.push_end_of(b"........outer ", 12));
            assert_eq!(frame.bytes(), b"outer inner");
        }
    }

    #[test]
    fn push_beyond_the_headroom_changes_nothing() {
        let mut frame = Frame::leak(64, 4);
        assert!(frame.fill(b"inner", 4));
        assert!(!frame.push(b"12345"));
        assert_eq!(frame.bytes(), b"inner");
    }

    #[test]
    fn strip_and_trim_stop_at_the_end() {
        let mut frame = Frame::leak(64, 16);
        assert!(frame.fill(b"inner", 16));
        frame.trim(100);
        assert_eq!(frame.len(), 5);
        frame.strip(100);
        assert!(frame.is_empty());
    }

    #[test]
    fn place_refuses_what_lies_outside() {
        let mut frame = Frame::leak(64, 16);
        assert!(!frame.place(60..65));
        assert!(!frame.fill(&[0; 65], 0));
        assert!(frame.place(60..64));
    }

    #[test]
    fn move_to_keeps_the_bytes() {
        let mut frame = Frame::leak(64, 16);
        assert!(frame.fill(b"inner", 16));
        assert!(frame.move_to(18));
        assert_eq!((frame.bytes(), frame.range()), (&b"inner"[..], 18..23));
        assert!(!frame.move_to(60));
    }
}
