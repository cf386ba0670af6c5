//! `underpass doctor` on machines that each test breaks in one way: it names that cause and what to do, and
//! nothing else. As root only; see [`netns`].

#[path = "../common/netns.rs"]
mod netns;

mod cluster;
mod machine;
mod support;
