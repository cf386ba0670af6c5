//! Virtual machines: guests as workloads, and a guest whose own kernel is the far tunnel end, by
//! `scripts/vm-lab`. Passed over, with a line that says so, where there is no QEMU or no kernel for guests.

#[path = "../common/netns.rs"]
mod netns;

mod lab;

mod far_end;
mod workloads;
