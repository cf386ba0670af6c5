//! The kernel's tables and settings, checked against what `ip`, `ethtool` and `/proc` say.
//!
//! Each test runs in a network namespace of its own, entered by a thread of its own:
//!
//! ```text
//!   test's namespace                    far namespace (some tests)
//!   near 10.1.0.1/24  ── veth ──  far 10.1.0.2/24
//!        fd00:1::1/64                  fd00:1::2/64
//! ```

#[path = "kernel/devices.rs"]
mod devices;
#[path = "kernel/lab.rs"]
mod lab;
#[path = "kernel/mirror.rs"]
mod mirror;
#[path = "kernel/setters.rs"]
mod setters;
#[path = "kernel/truth.rs"]
mod truth;
#[path = "kernel/underlay.rs"]
mod underlay;
