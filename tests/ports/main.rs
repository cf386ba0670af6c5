//! Ports against the kernel: AF_XDP, steering, TUN and TAP, in network namespaces.
//!
//! Every test runs in namespaces of its own, which end with it however it ends: see [`lab`].

mod lab;
mod measure;
mod socket;
mod steering;
mod super_packets;
mod tags;
mod tuntap;
mod xdp;
