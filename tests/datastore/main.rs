//! Every datastore keeps the same contract; each then has what is its own.

mod contract;
mod directory;
mod etcd;
