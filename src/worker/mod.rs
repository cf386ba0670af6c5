//! Threads that move packets: the hot loop, pinning, publishing, counters, the slow path.

pub mod publish;
