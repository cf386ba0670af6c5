//! The BGP speaker against Debian's BIRD, FRR and GoBGP, and against peers that do wrong: each test in
//! namespaces of its own, the daemons with their own configuration, sockets and pid files.
//!
//! ```text
//!   this process: speaker         namespace `them`: bird, bgpd or gobgpd
//!   us  10.77.0.1  fd77::1  ───── veth ─────  10.77.0.2  fd77::2
//!                                             10.77.0.3  fd77::3   (a second daemon)
//! ```

mod bird;
mod frr;
mod gobgp;
mod malformed;
#[path = "../common/netns.rs"]
mod netns;
mod scale;
mod support;
