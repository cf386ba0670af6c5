//! Where free frames wait.

use super::Frame;

/// The free frames of one worker.
///
/// All of a worker's ports take frames here and give them back here; with AF_XDP they are the chunks
/// of the worker's one UMEM, so a frame goes from port to port without a copy.
#[derive(Debug, Default)]
pub struct FramePool {
    free: Vec<Frame>,
    headroom: usize,
}

impl FramePool {
    /// A pool of the given frames; packets start `headroom` bytes in.
    pub fn new(frames: Vec<Frame>, headroom: usize) -> Self {
        Self {
            free: frames,
            headroom,
        }
    }

    /// A pool of `count` frames of `capacity` bytes in memory of its own.
    pub fn with_memory(count: usize, capacity: usize, headroom: usize) -> Self {
        let frames = (0..count)
            .map(|_| Frame::leak(capacity, headroom))
            .collect();
        Self::new(frames, headroom)
    }

    /// Takes a free frame, empty, its start behind the headroom.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let mut frame = self.free.pop()?;
        let start = self.headroom.min(frame.capacity());
        let placed = frame.place(start..start);
        debug_assert!(placed);
        Some(frame)
    }

    /// Gives a frame back.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    /// Frames that are free now.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Bytes that a packet from this pool starts in.
    pub fn headroom(&self) -> usize {
        self.headroom
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_frame_is_empty_whatever_it_held() {
        let mut pool = FramePool::with_memory(1, 128, 32);
        let mut frame = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert!(frame.fill(b"old", 0));
        pool.give(frame);
        let frame = pool.take().unwrap();
        assert_eq!((frame.len(), frame.range().start), (0, 32));
    }
}
