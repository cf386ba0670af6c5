//! underpass on one node, other implementations on the other: the kernel's VXLAN devices, an IP-in-IP
//! end made of a raw socket, the kernel's NAT and a plain server.
#![allow(missing_docs)]

mod bridge;
#[path = "../common/fast_path.rs"]
mod fast_path;
mod fence;
mod ipip;
mod nat;
mod vxlan;
mod world;
