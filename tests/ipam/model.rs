//! Random operations, held against a model that knows only who has which address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use underpass::datastore::{Datastore, Directory};
use underpass::ipam::{Ipam, IpamError, Release};

use super::invariants::{hold, owners, pool, request};

#[derive(Debug, Clone)]
enum Operation {
    Assign { node: u8, handle: u8, count: usize },
    AssignAddress { node: u8, handle: u8, last: u8 },
    Release { last: u8 },
    ReleaseHandle { handle: u8 },
    ReleaseNode { node: u8 },
    Strict(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    let node = 0..3_u8;
    let handle = 0..4_u8;
    prop_oneof![
        4 => (node.clone(), handle.clone(), 1..5_usize)
            .prop_map(|(node, handle, count)| Operation::Assign { node, handle, count }),
        2 => (node.clone(), handle.clone(), 0..20_u8)
            .prop_map(|(node, handle, last)| Operation::AssignAddress { node, handle, last }),
        2 => (0..20_u8).prop_map(|last| Operation::Release { last }),
        2 => handle.prop_map(|handle| Operation::ReleaseHandle { handle }),
        1 => node.prop_map(|node| Operation::ReleaseNode { node }),
        1 => any::<bool>().prop_map(Operation::Strict),
    ]
}

/// The pool has 16 addresses in blocks of 4.
const SIZE: usize = 16;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 65, 0, last])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]
    #[test]
    fn who_has_what_is_as_in_the_model(operations in prop::collection::vec(operation(), 1..25)) {
        let root = tempfile::tempdir().unwrap();
        let store: Arc<dyn Datastore> = Arc::new(Directory::new(root.path()));
        store.create(&pool("p", "cidr: 10.65.0.0/28, blockSize: 30")).unwrap();
        let ipam = Ipam::new(Arc::clone(&store));
        let mut model: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut strict = false;
        for operation in operations {
            match operation {
                Operation::Assign { node, handle, count } => {
                    let handle = format!("h{handle}");
                    let given = ipam.assign(&request(&format!("n{node}"), &handle, count)).unwrap();
                    let free = SIZE - model.len();
                    if !strict {
                        prop_assert_eq!(given.len(), count.min(free));
                    }
                    prop_assert!(given.len() <= count);
                    for address in given {
                        prop_assert_eq!(model.insert(address, handle.clone()), None);
                    }
                }
                Operation::AssignAddress { node, handle, last } => {
                    let handle = format!("h{handle}");
                    let asked = request(&format!("n{node}"), &handle, 1);
                    match ipam.assign_address(&asked, address(last)) {
                        Ok(()) => {
                            prop_assert!(usize::from(last) < SIZE);
                            prop_assert_eq!(model.insert(address(last), handle), None);
                        }
                        Err(IpamError::NoPool(_)) => prop_assert!(usize::from(last) >= SIZE),
                        Err(IpamError::Taken(taken)) => prop_assert!(model.contains_key(&taken)),
                        Err(IpamError::Strict(..)) => prop_assert!(strict),
                        Err(error) => panic!("{error}"),
                    }
                }
                Operation::Release { last } => {
                    let free = ipam.release(&[Release::address(address(last))]).unwrap();
                    prop_assert_eq!(free.is_empty(), model.remove(&address(last)).is_some());
                }
                Operation::ReleaseHandle { handle } => {
                    let handle = format!("h{handle}");
                    let released = ipam.release_handle(&handle).unwrap().len();
                    let before = model.len();
                    model.retain(|_, owner| *owner != handle);
                    prop_assert_eq!(released, before - model.len());
                }
                Operation::ReleaseNode { node } => {
                    ipam.release_node(&format!("n{node}").parse().unwrap()).unwrap();
                }
                Operation::Strict(now) => {
                    ipam.configure(|configuration| configuration.strict_affinity = now).unwrap();
                    strict = now;
                }
            }
            prop_assert_eq!(&owners(&ipam), &model);
            hold(&store);
        }
    }
}
