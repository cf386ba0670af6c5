//! The bench: its search on simulated devices, its report's way to a file and back, its load against
//! something that loses, doubles and reorders on purpose, and whole runs. What is asserted is what a
//! run says, never how fast anything was.

#[path = "../common/netns.rs"]
mod netns;

mod load;
mod refusals;
mod report;
mod run;
mod search;
