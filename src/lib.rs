//! underpass: a virtual router between VMs, containers and hosts.
//!
//! # A packet's way
//!
//! ```text
//!  workload veth/TAP ─┐                                                   ┌─ uplink NIC
//!  host TUN ──────────┤ rx batch                                 tx batch ├─ workload veth/TAP
//!  uplink NIC ────────┘     │                                       ▲     └─ host TUN
//!                           ▼                                       │
//!    worker/run.rs   load the Snapshot once per batch               │
//!                           ▼                                       │
//!    forward/mod.rs  1 parse → 2 decap → 3 policy → 4 lookup → 5 TTL → 6 encap → 7 verdict
//!                           │ Punt (ARP, ND, ICMP to us, errors to generate)
//!                           ▼
//!    worker/slow_path  crossbeam-channel → one thread, etherparse, rate limited → tx
//! ```
//!
//! With a fast path (`port/xdp/fast.bpf.c`, off by default) packets that need nothing but a header more or
//! less are forwarded by an XDP program before a worker sees them, from maps that `control/fast_path`
//! keeps equal to the snapshot; what it is not sure of comes up as above.
//!
//! # The modules, in the order in which a packet meets them
//!
//! | module | what it holds | may use |
//! |---|---|---|
//! | [`wire`] | packet formats, one a file: bytes only | – |
//! | [`packet`] | [`packet::Frame`] (a buffer with headroom), batches, port numbers, why a packet is dropped | `wire` |
//! | [`fib`] | longest-prefix match; lock-free readers, one writer | `wire` |
//! | [`port`] | AF_XDP, TUN, TAP and memory behind one trait | `packet`, `wire` |
//! | [`forward`] | the pure packet path, one stage a file | `fib`, `packet`, `wire` |
//! | [`worker`] | the only hot loop, pinning, publishing, counters, the slow path | `forward`, `port` |
//! | [`kernel`] | what we read from and write to the host: netlink, ethtool, sysctls | `wire` |
//! | [`resources`] | Calico's resource types, the node's configuration | `wire` |
//! | [`datastore`] | where resources are kept (a directory, etcd), and changes of them as a stream of updates | `resources` |
//! | [`bgp`] | a BGP speaker: sessions, tables and the decision pure; one thread with the sockets | `wire` |
//! | [`ipam`] | pools cut into blocks, blocks that nodes claim, addresses handed out | `datastore`, `resources` |
//! | [`observe`] | metrics, health, capture | `worker`, `packet`, `wire` |
//! | [`control`] | resolve (pure: resources → wanted routes), apply (publish, then the kernel) | all but `bench` and `cli` |
//! | [`workload`] | a workload's address, link and endpoint, by hand or for a container runtime (CNI) | `ipam`, `datastore`, `resources`, `kernel`, `forward`, `wire` |
//! | [`bench`] | load, systems under test, trial search, report | `kernel`, `observe`, `port`, `worker`, `resources`, `packet`, `wire` |
//! | [`doctor`] | what keeps a machine from carrying packets, and what to do about it | `control`, `observe`, `datastore`, `resources`, `kernel`, `port`, `packet`, `wire` |
//! | [`cli`] | the verbs and their tables | all |
//!
//! Arrows point down only: `tests/layering.rs` reads every `use crate::` line and fails on an
//! upward one. Nothing on the packet path imports control, datastore or asynchronous code.
//!
//! # Glossary
//!
//! * **adjacency**: how to reach one next hop: the port, and the header to write in front.
//! * **affinity**: a block's tie to the node that hands out its addresses.
//! * **block**: a /26 (by default) of an IP pool, routed as one to the node it belongs to.
//! * **drop reason**: the one name under which a packet that did not leave is counted.
//! * **far end**: the node that a tunnel packet is addressed to.
//! * **fast path**: the XDP program that forwards what needs no worker.
//! * **flood**: to send a bridged frame to everybody but its sender.
//! * **headroom**: free bytes before a packet, into which an outer header is pushed.
//! * **next hop**: an index that routes point to; it leads to an adjacency.
//! * **punt**: to hand a packet from the packet path to the slow path.
//! * **station**: whoever has an Ethernet address in a bridge.
//! * **steer**: to take a packet from the kernel into an AF_XDP socket.
//! * **underlay**: the network between nodes; **uplink**: a node's port on it.
//! * **VNI**: VXLAN network identifier; **VTEP**: VXLAN tunnel end point.
//! * **workload**: a pod, container or VM behind a workload port.

pub mod bench;
pub mod bgp;
pub mod cli;
pub mod control;
pub mod datastore;
pub mod doctor;
pub mod fib;
pub mod forward;
pub mod ipam;
pub mod kernel;
pub mod observe;
pub mod packet;
pub mod port;
pub mod resources;
pub mod wire;
pub mod worker;
pub mod workload;
