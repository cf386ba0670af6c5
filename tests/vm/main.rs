//! Virtual machines: guests as workloads, a guest whose own kernel is the far tunnel end, and guests in which
//! underpass runs, by `scripts/vm-lab`. Passed over, with a line that says so, where there is no QEMU or
//! nothing for guests to boot.

#[path = "../common/netns.rs"]
mod netns;

mod lab;

mod far_end;
mod inside;
mod installed;
mod wire;
mod workloads;
