//! A BGP speaker: shares routes as BIRD does.
//!
//! ```text
//!   settings ──┐                                        ┌── events: next-hop groups, best paths
//!   own routes ┤                                        ▲
//!              ▼                                        │
//!   speaker    one thread: sockets, timers  ◀──────▶  core   pure, on a clock that is handed in
//!              ▲                                        │
//!              └── TCP (MD5, GTSM)      session: FSM, OPEN │ rib: adj-in, decision, groups, adj-out
//! ```
//!
//! [`Speaker`] is what others use. Everything below it is pure: bytes and times in, bytes and events
//! out, so that two speakers run against each other on a virtual clock in a test.

pub mod attributes;
mod core;
pub mod event;
pub mod filter;
mod message;
mod mrt;
pub mod offline;
pub mod report;
mod rib;
mod session;
pub mod settings;
mod speaker;

pub use speaker::{Error, Speaker, Start, Stop};
