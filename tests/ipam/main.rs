//! IPAM over a directory and over etcd: what is handed out, races, and the records' invariants.

#[path = "../datastore/contract.rs"]
#[allow(dead_code, reason = "shared with the datastores' tests")]
mod contract;
#[path = "../common/etcd.rs"]
#[allow(dead_code, reason = "shared with the datastores' tests")]
mod etcd;
mod invariants;
mod model;
mod race;
mod rules;
