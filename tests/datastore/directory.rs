//! A directory that people and programs write into.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use underpass::datastore::{Datastore, DatastoreError, Directory, Selection};
use underpass::resources::{Kind, Resource};

use super::contract::{self, endpoint, key, node, pool, resources};

fn directory(files: &[(&str, &str)]) -> (TempDir, Directory) {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(root.path().join(name), text).unwrap();
    }
    let directory = Directory::new(root.path());
    (root, directory)
}

fn read(root: &TempDir, name: &str) -> String {
    fs::read_to_string(root.path().join(name)).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_directory_keeps_the_contract() {
    let (root, directory) = directory(&[]);
    contract::holds_for(&directory);
    assert_eq!(names(root.path()), [".lock"], "nothing is left");
}

const PEOPLE: &str = "\
# All our nodes.
---
# The first one.
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: a   # do not rename
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: blue}
spec: {cidr: 10.0.0.0/16} # ours
# and now the last
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: c}}
";

#[test]
fn a_document_of_people_is_replaced_where_it_is() {
    let (root, directory) = directory(&[("all.yaml", PEOPLE)]);
    let path = root.path().join("all.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    directory
        .apply(&pool("blue", "10.1.0.0/16", "Always"))
        .unwrap();
    let text = read(&root, "all.yaml");
    assert!(
        text.starts_with(&PEOPLE[..PEOPLE.find("kind: IPPool").unwrap()]),
        "{text}"
    );
    assert!(
        text.ends_with(&PEOPLE[PEOPLE.find("# and now").unwrap()..]),
        "{text}"
    );
    assert_eq!(resources(&text).len(), 3);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    let blue = directory.get(&key(Kind::IpPool, "blue")).unwrap();
    directory.delete(&blue.key(), None).unwrap();
    directory.create(&node("d")).unwrap();
    let keys: Vec<_> = resources(&read(&root, "all.yaml"))
        .iter()
        .map(|r| r.key().to_string())
        .collect();
    assert_eq!(keys, ["Node(a)", "Node(c)"]);
    assert_eq!(names(root.path()), [".lock", "all.yaml", "node_d.yaml"]);
}

#[test]
fn comments_within_a_document_stay_where_single_values_change() {
    let text = "\
# Our first node.
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: a # in the cellar
  labels:
    # Where it stands.
    rack: '1'
spec:
  # Of the 10G port.
  bgp:
    ipv4Address: 10.0.0.1/24
    # Nobody's.
    asNumber: 64513
";
    let (root, directory) = directory(&[("a.yaml", text)]);
    let mut a = directory.get(&key(Kind::Node, "a")).unwrap();
    a.metadata_mut().labels.insert("rack".into(), "2".into());
    a.metadata_mut().labels.insert("power".into(), "ups".into());
    let Resource::Node(node) = &mut a else {
        unreachable!()
    };
    let bgp = node.spec.bgp.as_mut().unwrap();
    bgp.ipv4_ipip_tunnel_addr = Some("10.65.0.1".parse().unwrap());
    node.spec.ipv4_vxlan_tunnel_addr = Some("10.65.0.2".parse().unwrap());
    directory.update(&a).unwrap();
    let written = read(&root, "a.yaml");
    for comment in text.lines().filter(|line| line.contains('#')) {
        assert!(written.contains(comment), "{comment} in {written}");
    }
    for line in [
        "    rack: \"2\"\n    power: ups\n",
        "    asNumber: 64513\n    ipv4IPIPTunnelAddr: 10.65.0.1\n",
        "spec:\n  ipv4VXLANTunnelAddr: 10.65.0.2\n",
    ] {
        assert!(written.contains(line), "{line} in {written}");
    }
    assert_eq!(resources(&written)[0].metadata().labels["rack"], "2");
    // What cannot be done value by value is written as a whole.
    let Resource::Node(node) = &mut a else {
        unreachable!()
    };
    node.spec.bgp = None;
    a.metadata_mut().resource_version = None;
    directory.update(&a).unwrap();
    assert!(read(&root, "a.yaml").starts_with("# Our first node.\n"));
    assert_eq!(resources(&read(&root, "a.yaml")).len(), 1);
}

#[test]
fn a_list_is_written_as_single_documents() {
    let list = "kind: NodeList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n";
    let (root, directory) = directory(&[("list.yaml", list)]);
    let mut b = directory.get(&key(Kind::Node, "b")).unwrap();
    b.metadata_mut().labels.insert("rack".into(), "1".into());
    directory.update(&b).unwrap();
    let written = resources(&read(&root, "list.yaml"));
    assert_eq!(written.len(), 2);
    assert_eq!(written[1].metadata().labels["rack"], "1");
    directory.delete(&b.key(), None).unwrap();
    directory.delete(&key(Kind::Node, "a"), None).unwrap();
    assert_eq!(names(root.path()), [".lock"]);
}

#[test]
fn json_stays_json() {
    let text =
        r#"{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "a"}}"#;
    let (root, directory) = directory(&[("a.json", text)]);
    let mut a = directory.get(&key(Kind::Node, "a")).unwrap();
    a.metadata_mut().labels.insert("rack".into(), "1".into());
    directory.update(&a).unwrap();
    let written: serde_json::Value = serde_json::from_str(&read(&root, "a.json")).unwrap();
    assert_eq!(written["metadata"]["labels"]["rack"], "1");
}

#[test]
fn a_broken_document_is_named_and_repaired_by_the_next_write() {
    let broken = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: blue}\nspec: {cidr: nonsense}\n";
    let (root, directory) = directory(&[("p.yaml", broken), ("node_a.yaml", "{{{")]);
    let blue = key(Kind::IpPool, "blue");
    let error = directory.get(&blue).unwrap_err();
    assert!(matches!(error, DatastoreError::Corrupt(_)), "{error:?}");
    assert!(
        error.to_string().contains("p.yaml:4:14: spec.cidr"),
        "{error}"
    );
    assert_eq!(
        directory
            .list(&Selection::everything())
            .unwrap()
            .problems
            .len(),
        2
    );
    directory
        .apply(&pool("blue", "10.0.0.0/16", "Never"))
        .unwrap();
    directory.apply(&node("a")).unwrap();
    let list = directory.list(&Selection::everything()).unwrap();
    assert_eq!((list.problems.len(), list.items.len()), (0, 2));
    assert_eq!(names(root.path()), [".lock", "node_a.yaml", "p.yaml"]);
}

#[test]
fn a_pool_that_overlaps_another_is_refused_and_changes_nothing() {
    let (root, directory) = directory(&[("p.yaml", PEOPLE)]);
    let error = directory
        .create(&pool("red", "10.0.128.0/17", "Never"))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("IPPool(red) CIDR overlaps with IPPool(blue) CIDR 10.0.0.0/16"),
        "{error}"
    );
    assert_eq!(read(&root, "p.yaml"), PEOPLE);
}

#[test]
fn a_file_that_cannot_be_read_fails_a_write_rather_than_seem_empty() {
    let (root, directory) = directory(&[]);
    directory.create(&endpoint("default", "web")).unwrap();
    let file = root.path().join("workloadendpoint_default_web.yaml");
    assert!(file.exists());
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("web.yaml", root.path().join("web.yaml")).unwrap();
    // A link to itself gives ELOOP, which is neither absence nor content.
    let error = directory.create(&endpoint("default", "web")).unwrap_err();
    assert!(
        matches!(error, DatastoreError::Unavailable { .. }),
        "{error:?}"
    );
}
