//! etcd: Debian's server, in every state that it can be in.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use underpass::datastore::{Datastore, DatastoreError, Etcd, Selection, Update, Watch};
use underpass::resources::{Kind, NodeName, Resource};

use super::contract::{self, endpoint, key, node, pool, resources, sync};
use super::server::{Server, free_port};

/// Waits until a problem is told, or told to be over.
fn problems(watch: &Watch, there: bool) -> Vec<String> {
    loop {
        let update = watch
            .updates()
            .recv_timeout(Duration::from_secs(60))
            .expect("an update");
        match update {
            Update::Problems(problems) if problems.is_empty() != there => {
                return problems.iter().map(ToString::to_string).collect();
            }
            Update::Delete(key) => panic!("{key} deleted while etcd is away"),
            _ => {}
        }
    }
}

#[test]
fn etcd_keeps_the_contract() {
    let Some(server) = Server::start() else {
        return;
    };
    contract::holds_for(&server.store());
}

#[test]
fn keys_and_values_are_calicos() {
    let Some(server) = Server::start() else {
        return;
    };
    let store = server.store();
    store
        .create(&pool("blue", "10.0.0.0/16", "Always"))
        .unwrap();
    store.create(&endpoint("default", "web")).unwrap();
    let affinity = "apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {name: n-1-10-65-0-0-26}\n\
                    spec: {node: n-1, cidr: 10.65.0.0/26, state: pending}\n";
    store.create(&resources(affinity)[0]).unwrap();
    let listed = server.etcdctl(&["get", "--prefix", "/calico/", "--keys-only"]);
    let keys: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(
        keys,
        [
            "/calico/ipam/v2/host/n-1/ipv4/block/10.65.0.0-26",
            "/calico/resources/v3/projectcalico.org/ippools/blue",
            "/calico/resources/v3/projectcalico.org/workloadendpoints/default/web",
        ]
    );
    let value = server.etcdctl(&["get", "--print-value-only", keys[0]]);
    assert_eq!(value.trim(), r#"{"deleted":false,"state":"pending"}"#);

    // As libcalico-go writes it.
    let block = r#"{"cidr":"10.65.0.0/30","affinity":"host:n-1","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"k8s-pod-network.abc","secondary":{"namespace":"default","node":"n-1","pod":"web"}}],"sequenceNumber":1577836800000000000,"sequenceNumberForAllocation":{"0":1577836800000000000},"deleted":false}"#;
    // /30 is a legal block size.
    server.etcdctl(&[
        "put",
        "/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-30",
        block,
    ]);
    server.etcdctl(&[
        "put",
        "/calico/ipam/v2/handle/k8s-pod-network.abc",
        r#"{"block":{"10.65.0.0/30":1},"deleted":false}"#,
    ]);
    // What Calico keeps besides is no concern of ours.
    server.etcdctl(&[
        "put",
        "/calico/resources/v3/projectcalico.org/clusterinformations/default",
        "{}",
    ]);
    let list = store.list(&Selection::everything()).unwrap();
    assert_eq!(list.problems, []);
    let found = store.get(&key(Kind::IpamBlock, "10-65-0-0-30")).unwrap();
    let Resource::IpamBlock(found) = found else {
        panic!()
    };
    assert_eq!(found.host(), Some("n-1"));
    assert_eq!(
        found.owner(0).unwrap().handle_id.as_deref(),
        Some("k8s-pod-network.abc")
    );
    assert!(
        store
            .get(&key(Kind::IpamHandle, "k8s-pod-network.abc"))
            .is_ok()
    );
    store
        .delete(&key(Kind::BlockAffinity, "n-1-10-65-0-0-26"), None)
        .unwrap();
}

#[test]
fn a_corrupt_value_is_named_keeps_its_predecessor_and_is_repaired() {
    let Some(server) = Server::start() else {
        return;
    };
    let store = server.store();
    store.create(&node("a")).unwrap();
    let watch = store.watch(&Selection::resources(), None).unwrap();
    assert_eq!(sync(&watch), ["put Node(a)"]);
    let path = "/calico/resources/v3/projectcalico.org/nodes/a";
    server.etcdctl(&["put", path, "{\"kind\": \"Node\", nonsense"]);
    let told = problems(&watch, true);
    assert!(told[0].contains(&format!("etcd:{path}")), "{told:?}");
    let error = store.get(&key(Kind::Node, "a")).unwrap_err();
    assert!(matches!(error, DatastoreError::Corrupt(_)), "{error:?}");
    store.apply(&node("a")).unwrap();
    problems(&watch, false);
    assert!(store.get(&key(Kind::Node, "a")).is_ok());
}

/// Down, then back with all that it had; down, then back with nothing.
#[test]
fn an_etcd_that_goes_away_deletes_nothing_until_it_is_back() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let store = server.store();
    store.create(&node("a")).unwrap();
    store.create(&node("b")).unwrap();
    let watch = store.watch(&Selection::resources(), None).unwrap();
    assert_eq!(sync(&watch), ["put Node(a)", "put Node(b)"]);
    server.stop();
    let told = problems(&watch, true);
    assert!(
        told[0].contains("the datastore cannot be reached"),
        "{told:?}"
    );
    assert!(!store.health().connected);
    let began = Instant::now();
    let error = store.get(&key(Kind::Node, "a")).unwrap_err();
    assert!(
        matches!(error, DatastoreError::Unavailable { .. }),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(30));
    server.run();
    assert_eq!(sync(&watch), ["0 problems"]);
    store.delete(&key(Kind::Node, "a"), None).unwrap();
    assert_eq!(sync(&watch), ["delete Node(a)"]);

    server.stop();
    problems(&watch, true);
    server.wipe();
    server.run();
    assert_eq!(sync(&watch), ["delete Node(b)", "0 problems"]);
    store.create(&node("c")).unwrap();
    assert_eq!(sync(&watch), ["put Node(c)"]);
}

#[test]
fn a_slow_etcd_is_waited_for_and_caught_up_with() {
    let Some(server) = Server::start() else {
        return;
    };
    let store = server.store();
    let watch = store.watch(&Selection::resources(), None).unwrap();
    assert_eq!(sync(&watch), [""; 0]);
    server.signal(Signal::SIGSTOP);
    let told = problems(&watch, true);
    assert!(told[0].contains("cannot be reached"), "{told:?}");
    server.signal(Signal::SIGCONT);
    assert_eq!(sync(&watch), ["0 problems"]);
    store.create(&node("a")).unwrap();
    assert_eq!(sync(&watch), ["put Node(a)"]);
}

#[test]
fn compaction_costs_a_watch_nothing() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let store = server.store();
    let watch = store.watch(&Selection::resources(), None).unwrap();
    assert_eq!(sync(&watch), [""; 0]);
    let list = store.list(&Selection::resources()).unwrap();
    for mode in ["Never", "Always", "CrossSubnet"] {
        store.apply(&pool("blue", "10.0.0.0/16", mode)).unwrap();
    }
    let revision = store.list(&Selection::resources()).unwrap().revision;
    server.etcdctl(&["compact", &revision]);
    // A watch from before the compaction sees what came of it all.
    let late = store.watch(&Selection::resources(), Some(&list)).unwrap();
    assert_eq!(sync(&late), ["put IPPool(blue)"]);
    // And one that lost its connection, too.
    while sync(&watch) != ["put IPPool(blue)"] {}
    server.stop();
    problems(&watch, true);
    server.run();
    while sync(&watch) != ["0 problems"] {}
    store.create(&node("a")).unwrap();
    assert_eq!(sync(&watch), ["put Node(a)"]);
}

#[test]
fn another_member_takes_over() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut config = server.config();
    config
        .endpoints
        .insert(0, format!("http://127.0.0.1:{}", free_port()));
    let store = Etcd::new(&config).unwrap();
    store.create(&node("a")).unwrap();
    assert!(store.get(&key(Kind::Node, "a")).is_ok());
    let watch = store.watch(&Selection::resources(), None).unwrap();
    while sync(&watch) != ["put Node(a)"] {}
}

#[test]
fn tls_and_passwords_are_asked_for() {
    let Some(server) = Server::start_with(true) else {
        return;
    };
    let store = server.store();
    store.create(&node("a")).unwrap();
    let mut stranger = server.config();
    (stranger.cert_file, stranger.key_file) = (None, None);
    assert!(
        Etcd::new(&stranger)
            .unwrap()
            .get(&key(Kind::Node, "a"))
            .is_err()
    );

    let Some(server) = Server::start() else {
        return;
    };
    for command in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        server.etcdctl(command);
    }
    let mut config = server.config();
    config.username = "root".into();
    config.password = "wrong".into();
    let began = Instant::now();
    let error = Etcd::new(&config).unwrap().create(&node("a")).unwrap_err();
    assert!(
        error.to_string().contains("authentication failed"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(8), "told at once");
    config.password = "secret".into();
    Etcd::new(&config).unwrap().create(&node("a")).unwrap();
    let nobody = server.store().create(&node("b")).unwrap_err();
    assert!(
        matches!(nobody, DatastoreError::Unavailable { .. }),
        "{nobody}"
    );
}

#[test]
fn a_node_is_alive_as_long_as_it_says_so() {
    let Some(server) = Server::start() else {
        return;
    };
    let store = server.store();
    let name: NodeName = "worker1".parse().unwrap();
    let presence = store.announce(&name).unwrap();
    let began = Instant::now();
    while !store.present().unwrap().unwrap().contains(&name) {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    let lease = server.etcdctl(&["lease", "list"]);
    assert!(lease.contains("found 1 leases"), "{lease}");
    drop(presence);
    assert!(!store.present().unwrap().unwrap().contains(&name));
}
