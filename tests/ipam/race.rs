//! Eight claimants at once, each with a client of its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::thread;

use underpass::datastore::{Datastore, Directory, Etcd};
use underpass::ipam::Ipam;

use super::etcd::Server;
use super::invariants::{hold, owners, pool, request};

const CLAIMANTS: usize = 8;
const EACH: usize = 12;

/// Four blocks for eight nodes: they race for blocks, then borrow, until nothing is left.
fn race(open: &(dyn Fn() -> Arc<dyn Datastore> + Sync)) {
    let store = open();
    store
        .create(&pool("p", "cidr: 10.65.0.0/26, blockSize: 28"))
        .unwrap();
    let start = Barrier::new(CLAIMANTS);
    let given: Vec<_> = thread::scope(|scope| {
        let claimants: Vec<_> = (0..CLAIMANTS)
            .map(|claimant| {
                let start = &start;
                scope.spawn(move || {
                    let ipam = Ipam::new(open());
                    start.wait();
                    let mut given = Vec::new();
                    for workload in 0..EACH {
                        let handle = format!("w{claimant}-{workload}");
                        let asked = request(&format!("n{claimant}"), &handle, 1);
                        given.extend(ipam.assign(&asked).unwrap());
                    }
                    given
                })
            })
            .collect();
        claimants
            .into_iter()
            .flat_map(|claimant| claimant.join().unwrap())
            .collect()
    });
    let different: BTreeSet<_> = given.iter().copied().collect();
    assert_eq!(different.len(), given.len(), "an address was given twice");
    assert_eq!(given.len(), 64, "96 were asked for, and all 64 given");
    let ipam = Ipam::new(Arc::clone(&store));
    assert_eq!(
        owners(&ipam).into_keys().collect::<BTreeSet<_>>(),
        different
    );
    hold(&store);
}

#[test]
fn no_address_is_given_twice_over_a_directory() {
    let root = tempfile::tempdir().unwrap();
    race(&|| Arc::new(Directory::new(root.path())));
}

#[test]
fn no_address_is_given_twice_over_etcd() {
    let Some(server) = Server::start() else {
        return;
    };
    race(&|| {
        let store: Etcd = server.store();
        Arc::new(store)
    });
}
