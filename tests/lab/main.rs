//! The lab of `scripts/lab` with real traffic: what each mode carries, how it looks on the wire, and
//! that nothing is lost, unaccounted for or left behind. As root only; see [`netns`].

#[path = "../common/flow.rs"]
mod flow;
#[path = "../common/netns.rs"]
mod netns;

mod accounts;
mod bgp;
mod datastore;
mod fabric;
mod life;
mod manifest;
mod modes;
mod operator;
mod srcdst;
mod support;
mod switch;
