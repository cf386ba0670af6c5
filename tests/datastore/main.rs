//! Every datastore keeps the same contract; each then has what is its own.

mod config;
mod contract;
mod crash;
mod directory;
mod etcd;
#[path = "../common/etcd.rs"]
mod server;
