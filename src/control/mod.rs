//! From resources to forwarding, and the life of a node.
//!
//! ```text
//!  datastore ──▶ resolve (pure) ──▶ Wanted ──▶ apply ──▶ Snapshot, FIB ──▶ workers
//!  kernel's neighbours, links ─────▶ facts ──────┘  └──▶ steering, the host's routes
//! ```

pub mod apply;
pub mod bgp;
pub mod bridges;
pub mod check;
pub mod echo;
pub mod facts;
pub mod fast_path;
pub mod fence;
pub mod host;
pub mod kernel_routes;
pub mod learned;
pub mod nat;
pub mod node;
pub mod overheads;
pub mod path_mtu;
pub mod path_prober;
mod plugging;
pub mod plugs;
pub mod ports;
pub mod probe;
pub mod report;
pub mod resolve;
pub mod supervisor;
pub mod threads;
pub mod upkeep;
pub mod view;
mod waiting;
pub mod workloads;

pub use node::{RunOptions, run};
