//! `underpass run`: what it refuses to start with, what it takes in its stride while it runs, and how
//! it ends. As root only; see [`netns`].

#[path = "../common/flow.rs"]
mod flow;
#[path = "../common/netns.rs"]
mod netns;

mod bgp;
mod devices;
mod external;
#[path = "../common/fast_path.rs"]
mod fast_path;
mod guests;
mod host_routes;
mod late;
mod libcni;
mod plugs;
mod refusals;
mod restart;
mod running;
mod shares;
mod support;
mod tap;
mod upkeep;
mod workers;
mod workloads;
