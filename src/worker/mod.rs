//! Threads that move packets: the hot loop, pinning, publishing, counters, the slow path.
//!
//! ```text
//!            ┌── worker 0 (pinned) ── ports, queues, UMEM, WorkerState, counters: its own
//!  Snapshot ─┤        │  ▲ handoff (a port that another worker owns)
//!            └── worker 1 (pinned) …
//!                     │  ▲
//!               punt  ▼  │ originate, transmit
//!                  slow path (one thread)  ── events ──▶ control
//! ```

pub mod affinity;
pub mod counters;
pub mod mailbox;
pub mod publish;
pub mod run;
pub mod slow_path;
