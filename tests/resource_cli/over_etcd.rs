//! The same verbs over etcd, which is found as calicoctl finds it; and what goes with a node or a pool.

use std::net::IpAddr;
use std::sync::Arc;

use underpass::datastore::{Datastore, Selection};
use underpass::ipam::{Ipam, Request};
use underpass::resources::{Kind, load};

use super::etcd::Server;
use super::{POOL, Place};

const NODE: &str = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n\
                    spec: {bgp: {ipv4Address: 10.0.0.1/24}}\n";

/// A place whose datastore is this etcd, by calicoctl's environment.
fn over(server: &Server) -> Place {
    let endpoints = server.config().endpoints.join(",");
    Place {
        environment: vec![
            ("DATASTORE_TYPE".into(), "etcdv3".into()),
            ("ETCD_ENDPOINTS".into(), endpoints),
        ],
        ..Place::new()
    }
}

/// `/etc/calico/calicoctl.cfg`, in a mount namespace where it is there; the environment overrides it.
#[test]
fn calicoctls_own_file_is_found_where_calicoctl_has_it() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: it mounts a directory over /etc, which needs root");
        return;
    }
    let Some(server) = Server::start() else {
        return;
    };
    let place = over(&server);
    place.file("pool.yaml", POOL);
    place.prints(
        &["apply", "-f", "pool.yaml"],
        "Successfully applied 1 'IPPool' resource(s)\n",
    );
    let root = place.directory.path();
    std::fs::create_dir_all(root.join("etc/calico")).unwrap();
    let with_file = |text: &str, variables: &str, arguments: &str| {
        std::fs::write(root.join("etc/calico/calicoctl.cfg"), text).unwrap();
        let line = format!(
            "mount --bind {}/etc /etc && exec env -i {variables} {} {arguments}",
            root.display(),
            env!("CARGO_BIN_EXE_underpass")
        );
        let output = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", &line])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let endpoints = server.config().endpoints.join(",");
    let file = |endpoints: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  \
             datastoreType: \"etcdv3\"\n  etcdEndpoints: \"{endpoints}\"\n"
        )
    };
    let table = "NAME   CIDR           SELECTOR   \nblue   10.65.0.0/16   all()      \n\n";
    let nowhere = file("http://127.0.0.1:1");
    for (text, variables) in [
        (file(&endpoints), String::new()),
        (nowhere.clone(), format!("ETCD_ENDPOINTS={endpoints}")),
        (
            nowhere.clone(),
            format!("CALICO_ETCD_ENDPOINTS={endpoints}"),
        ),
    ] {
        assert_eq!(
            with_file(&text, &variables, "get ippool"),
            (table.to_owned(), String::new()),
            "{text} {variables}"
        );
    }
    // Another's file by name, and what is wrong with the usual one by its place.
    let kubernetes = file(&endpoints).replace("etcdv3", "kubernetes");
    let (_, error) = with_file(&kubernetes, "", "get ippool");
    assert!(
        error.contains("/etc/calico/calicoctl.cfg: 'kubernetes' is no datastore here; set DATASTORE_TYPE=etcdv3"),
        "{error}"
    );
    let (_, error) = with_file("spec: [\n", "", "get ippool");
    assert!(error.contains("/etc/calico/calicoctl.cfg:"), "{error}");
    let directory = format!(
        "DATASTORE_TYPE=directory DATASTORE_DIRECTORY={}/store",
        root.display()
    );
    assert_eq!(with_file(&nowhere, &directory, "get ippool -o name").0, "");
}

#[test]
fn every_verb_works_over_etcd() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = over(&server);
    place.file("pool.yaml", POOL);
    place.prints(
        &["create", "-f", "pool.yaml"],
        "Successfully created 1 'IPPool' resource(s)\n",
    );
    place.fails(
        &["create", "-f", "pool.yaml"],
        "Failed to create 'IPPool' resource: [pool.yaml:1:1: resource already exists: IPPool(blue)]\n",
    );
    place.prints(
        &["apply", "-f", "pool.yaml"],
        "Successfully applied 1 'IPPool' resource(s)\n",
    );
    let table = "NAME   CIDR           SELECTOR   \nblue   10.65.0.0/16   all()      \n\n";
    for name in [
        "ippool", "ippools", "IPPool", "IPPOOLS", "ipp", "pool", "pools",
    ] {
        place.prints(&["get", name], table);
    }
    place.prints(
        &["get", "ipp", "blue", "-o", "wide"],
        "NAME   CIDR           NAT    IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   SELECTOR   \n\
         blue   10.65.0.0/16   true   Always     Never       false      false              all()      \n\n",
    );

    // Somebody else changes it between a look and a write.
    let old = place.run(&["get", "ippool", "blue", "-o", "yaml"]).out;
    place.file("old.yaml", &old);
    place.prints(
        &[
            "patch",
            "pool",
            "blue",
            "-p",
            r#"{"spec": {"ipipMode": "Never", "vxlanMode": "Always"}}"#,
        ],
        "Successfully patched 1 'IPPool' resource\n",
    );
    place.fails(
        &["replace", "-f", "old.yaml"],
        "Failed to replace 'IPPool' resource: [old.yaml:1:1: update conflict: IPPool(blue)]\n",
    );
    let value = server.etcdctl(&[
        "get",
        "--print-value-only",
        "/calico/resources/v3/projectcalico.org/ippools/blue",
    ]);
    assert!(value.contains(r#""vxlanMode":"Always""#), "{value}");

    place.file("node.yaml", NODE);
    place.prints(
        &["apply", "-f", "node.yaml"],
        "Successfully applied 1 'Node' resource(s)\n",
    );
    place.prints(
        &["label", "no", "n1", "rack=a"],
        "Successfully set label rack on no n1\n",
    );
    place.prints(
        &["validate", "-f", "node.yaml"],
        "Successfully validated 1 'Node' resource(s)\n",
    );
    let refused =
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n2}\nspec: {bpg: {}}\n";
    place.file("both.yaml", &format!("{NODE}---\n{refused}"));
    let ran = place.run(&["apply", "-f", "both.yaml"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.out,
        "Partial success: applied 1 out of 2 'Node' resources:\n"
    );
    assert!(
        ran.err.starts_with("Hit error(s): [both.yaml:9:8: ") && ran.err.contains("spec.bpg"),
        "{}",
        ran.err
    );
    // It was replaced as a whole, label and all; the bad one is not there.
    place.prints(&["get", "nodes"], "NAME   \nn1     \n\n");
    place.prints(
        &["delete", "node", "n1"],
        "Successfully deleted 1 'Node' resource(s)\n",
    );
    place.fails(
        &["delete", "node", "n1"],
        "Failed to delete 'Node' resource: [resource does not exist: Node(n1)]\n",
    );
    place.prints(
        &["delete", "-f", "pool.yaml"],
        "Successfully deleted 1 'IPPool' resource(s)\n",
    );
    let left = server.etcdctl(&["get", "--prefix", "/calico/", "--keys-only"]);
    assert_eq!(left.trim(), "");
}

#[test]
fn etcd_is_found_as_calicoctl_finds_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let endpoint = server.config().endpoints.remove(0);
    let place = over(&server);
    place.file("pool.yaml", POOL);
    place.run(&["apply", "-f", "pool.yaml"]);
    let table = place.run(&["get", "ippool"]).out;

    // Nothing in the environment.
    let bare = Place {
        environment: Vec::new(),
        ..Place::new()
    };
    bare.file(
        "calicoctl.cfg",
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\n\
             spec:\n  datastoreType: etcdv3\n  etcdEndpoints: {endpoint}\n"
        ),
    );
    bare.file(
        "node.yaml",
        &format!(
            "node: n1\nuplink: {{interface: eth0}}\ndatastore: {{etcd: {{endpoints: [\"{endpoint}\"]}}}}\n"
        ),
    );
    bare.prints(&["get", "ippool", "--config", "calicoctl.cfg"], &table);
    bare.prints(&["get", "ippool", "-c", "node.yaml"], &table);
    bare.prints(&["get", "ippool", "--datastore", &endpoint], &table);
    for ipam in [
        &["ipam", "show", "--datastore", &endpoint][..],
        &["ipam", "--datastore", &endpoint, "show"],
        &["ipam", "show", "-c", "node.yaml"],
        &["ipam", "show", "-c", "calicoctl.cfg"],
    ] {
        let ran = bare.run(ipam);
        assert!(
            ran.out.contains("10.65.0.0/16") && ran.code == 0,
            "{ipam:?}: {}",
            ran.err
        );
    }
    let ran = bare.run(&[
        "ipam",
        "configure",
        "--strictaffinity=true",
        "--datastore",
        &endpoint,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = bare.run(&[
        "ipam",
        "show",
        "--show-configuration",
        "--datastore",
        &endpoint,
    ]);
    assert!(ran.out.contains("true"), "{}", ran.out);
    let ran = bare.run(&["get", "ippool", "-c", "node.yaml", "--datastore", &endpoint]);
    assert!(
        ran.err.contains("give one of them") && ran.code == 1,
        "{}",
        ran.err
    );
    let ran = bare.run(&["get", "ippool"]);
    assert!(
        ran.err.contains("ETCD_ENDPOINTS") && ran.code == 1,
        "{}",
        ran.err
    );
    let ran = bare.run(&[
        "ipam",
        "split",
        "4",
        "--cidr=10.65.0.0/16",
        "--datastore",
        &endpoint,
    ]);
    assert!(
        ran.err.contains("not built") && ran.code == 1,
        "{}",
        ran.err
    );
}

/// What IPAM gave a node, and what else is there because of it.
#[test]
fn with_a_node_goes_what_is_there_because_of_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = over(&server);
    let store: Arc<dyn Datastore> = Arc::new(server.store());
    let ipam = populate(&place, &store);
    place.file(
        "rest.yaml",
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor}\n\
         spec: {node: n1, peerIP: 10.0.0.9, asNumber: 64512}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: node.n1}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n",
    );
    place.run(&["apply", "-f", "rest.yaml"]);
    place.prints(
        &["delete", "node", "n1"],
        "Successfully deleted 1 'Node' resource(s)\n",
    );
    let node = "n1".parse().unwrap();
    assert_eq!(ipam.affinities(&node).unwrap(), []);
    assert_eq!(ipam.addresses_of("web").unwrap(), [] as [IpAddr; 0]);
    // What n2 borrowed of n1's block stays n2's.
    assert_eq!(ipam.addresses_of("db").unwrap().len(), 1);
    let left = store.list(&Selection::everything()).unwrap();
    let names: Vec<String> = left.items.keys().map(ToString::to_string).collect();
    let handles = names.iter().filter(|name| name.starts_with("IPAMHandle"));
    assert_eq!(handles.count(), 1, "{names:?}");
    for gone in [
        "Node(n1)",
        "BGPPeer(tor)",
        "FelixConfiguration(node.n1)",
        "WorkloadEndpoint",
    ] {
        assert!(
            !names.iter().any(|name| name.starts_with(gone)),
            "{gone} in {names:?}"
        );
    }
    assert!(
        names.contains(&"FelixConfiguration(default)".to_owned()),
        "{names:?}"
    );
}

/// A pool goes though addresses are in use, as with Calico: they stay their owners', in nobody's block.
#[test]
fn with_a_pool_go_its_blocks_ties_to_nodes() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = over(&server);
    let store: Arc<dyn Datastore> = Arc::new(server.store());
    let ipam = populate(&place, &store);
    place.prints(
        &["delete", "ippool", "small"],
        "Successfully deleted 1 'IPPool' resource(s)\n",
    );
    assert_eq!(ipam.affinities(&"n1".parse().unwrap()).unwrap(), []);
    let blocks = ipam.blocks().unwrap();
    assert_eq!((blocks.len(), blocks[0].host()), (1, None));
    assert_eq!(ipam.addresses_of("web").unwrap().len(), 1);
    // A pool of another block size does not fit around the block that is left.
    place.file(
        "other.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: other}\n\
         spec: {cidr: 10.66.0.0/16, blockSize: 26}\n",
    );
    let ran = place.run(&["apply", "-f", "other.yaml"]);
    assert!(
        ran.err
            .contains("existing allocations that use a different block size: 10.66.0.0/30"),
        "{}",
        ran.err
    );
    ipam.release_handle("web").unwrap();
    ipam.release_handle("db").unwrap();
    assert_eq!(ipam.blocks().unwrap(), []);
    assert_eq!(place.run(&["apply", "-f", "other.yaml"]).code, 0);
}

/// Two nodes; n1 has the one block and a workload, n2 an address of it.
fn populate(place: &Place, store: &Arc<dyn Datastore>) -> Ipam {
    let two = NODE.replace("n1", "n2").replace("10.0.0.1", "10.0.0.2");
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: small}\n\
                spec: {cidr: 10.66.0.0/30, blockSize: 30}\n";
    place.file("cluster.yaml", &format!("{NODE}---\n{two}---\n{pool}"));
    let ran = place.run(&["apply", "-f", "cluster.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ipam = Ipam::new(Arc::clone(store));
    let web = Request::workload("n1".parse().unwrap(), "web");
    let address = ipam.assign(&web).unwrap().remove(0);
    let db = Request::workload("n2".parse().unwrap(), "db");
    assert_eq!(ipam.assign(&db).unwrap().len(), 1);
    let endpoint = format!(
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: n1-k8s-web-eth0, namespace: default}}\n\
         spec: {{node: n1, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali1, \
         ipNetworks: [{address}/32]}}\n"
    );
    let parsed = load::parse("endpoint.yaml".as_ref(), &endpoint);
    store.create(&parsed.resources[0].0).unwrap();
    let affinities = store.list(&Selection::kind(Kind::BlockAffinity)).unwrap();
    assert_eq!(affinities.items.len(), 1);
    ipam
}
