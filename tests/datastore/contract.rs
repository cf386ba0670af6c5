//! What holds for every datastore.

use std::path::Path;
use std::time::Duration;

use underpass::datastore::{Datastore, DatastoreError, Selection, Update, Watch};
use underpass::resources::{Kind, Resource, ResourceKey, load};

/// The resources of a text, which must be in order.
pub fn resources(text: &str) -> Vec<Resource> {
    let parsed = load::parse(Path::new("test"), text);
    assert_eq!(parsed.problems, [], "{text}");
    parsed
        .resources
        .into_iter()
        .map(|(resource, _)| resource)
        .collect()
}

pub fn pool(name: &str, cidr: &str, mode: &str) -> Resource {
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: {cidr}, ipipMode: {mode}}}\n"
    );
    resources(&text).remove(0)
}

pub fn node(name: &str) -> Resource {
    let text =
        format!("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\n");
    resources(&text).remove(0)
}

pub fn endpoint(namespace: &str, name: &str) -> Resource {
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{node: n1, interfaceName: cali1, ipNetworks: [10.0.0.1/32]}}\n"
    );
    resources(&text).remove(0)
}

pub fn key(kind: Kind, name: &str) -> ResourceKey {
    ResourceKey {
        kind,
        namespace: None,
        name: name.parse().unwrap(),
    }
}

/// Updates until the next in-sync, in short.
pub fn sync(watch: &Watch) -> Vec<String> {
    let mut log = Vec::new();
    loop {
        match watch.updates().recv_timeout(Duration::from_secs(20)) {
            Ok(Update::Put { resource, .. }) => log.push(format!("put {}", resource.key())),
            Ok(Update::Delete(key)) => log.push(format!("delete {key}")),
            Ok(Update::Problems(problems)) => log.push(format!("{} problems", problems.len())),
            Ok(Update::InSync) => return log,
            Err(error) => panic!("{error} after {log:?}"),
        }
    }
}

/// Runs a datastore, empty at the start, through all that its interface promises.
pub fn holds_for(store: &dyn Datastore) {
    creates_changes_and_deletes(store);
    lists_what_is_selected(store);
    tells_what_changes(store);
}

fn creates_changes_and_deletes(store: &dyn Datastore) {
    let blue = pool("blue", "10.0.0.0/16", "Always");
    let blue_key = key(Kind::IpPool, "blue");
    let missing = store.get(&blue_key).unwrap_err();
    assert_eq!(missing.to_string(), "resource does not exist: IPPool(blue)");
    assert_eq!(
        store.update(&blue).unwrap_err(),
        DatastoreError::DoesNotExist(blue_key.clone())
    );
    let made = store.create(&blue).unwrap();
    assert!(made.metadata().resource_version.is_some());
    assert_eq!(made.metadata().uid.as_ref().map(String::len), Some(36));
    assert_eq!(store.get(&blue_key).unwrap(), made);
    let again = store.create(&blue).unwrap_err();
    assert_eq!(again.to_string(), "resource already exists: IPPool(blue)");

    let mut changed = made.clone();
    set_mode(&mut changed, "CrossSubnet");
    let changed = store.update(&changed).unwrap();
    assert_ne!(
        changed.metadata().resource_version,
        made.metadata().resource_version
    );
    let mut stale = made.clone();
    set_mode(&mut stale, "Never");
    assert_eq!(
        store.update(&stale).unwrap_err().to_string(),
        "update conflict: IPPool(blue)"
    );
    assert_eq!(store.get(&blue_key).unwrap(), changed);
    let version = made.metadata().resource_version.clone();
    let refused = store.delete(&blue_key, version.as_deref()).unwrap_err();
    assert_eq!(refused, DatastoreError::Conflict(blue_key.clone()));

    // Without a version, whatever is there is replaced, and stays who it was.
    let replaced = store.apply(&pool("blue", "10.0.0.0/16", "Never")).unwrap();
    assert_eq!(replaced.metadata().uid, made.metadata().uid);
    assert_eq!(
        replaced.metadata().creation_timestamp,
        made.metadata().creation_timestamp
    );
    let version = replaced.metadata().resource_version.clone();
    assert_eq!(
        store.delete(&blue_key, version.as_deref()).unwrap(),
        replaced
    );
    assert_eq!(
        store.delete(&blue_key, None).unwrap_err(),
        DatastoreError::DoesNotExist(blue_key)
    );
}

fn lists_what_is_selected(store: &dyn Datastore) {
    let all = [
        node("a"),
        node("ab"),
        node("b"),
        pool("blue", "10.0.0.0/16", "Never"),
        endpoint("default", "web"),
        endpoint("other", "web"),
    ];
    for resource in &all {
        store.apply(resource).unwrap();
    }
    let names = |selection: Selection| -> Vec<String> {
        let list = store.list(&selection).unwrap();
        assert_eq!(list.problems, []);
        list.items.keys().map(ToString::to_string).collect()
    };
    assert_eq!(
        names(Selection::kind(Kind::Node)),
        ["Node(a)", "Node(ab)", "Node(b)"]
    );
    assert_eq!(
        names(Selection::kind(Kind::Node).with_prefix("a")),
        ["Node(a)", "Node(ab)"]
    );
    assert_eq!(names(Selection::resources()).len(), all.len());
    let default = Selection::kind(Kind::WorkloadEndpoint).in_namespace("default".parse().unwrap());
    assert_eq!(names(default), ["WorkloadEndpoint(default/web)"]);
    for resource in &all {
        store.delete(&resource.key(), None).unwrap();
    }
    assert_eq!(names(Selection::everything()), [""; 0]);
}

fn tells_what_changes(store: &dyn Datastore) {
    store.create(&node("a")).unwrap();
    let nodes = Selection::kind(Kind::Node);
    let watch = store.watch(&nodes, None).unwrap();
    assert_eq!(sync(&watch), ["put Node(a)"]);
    let list = store.list(&nodes).unwrap();
    store.create(&pool("blue", "10.0.0.0/16", "Never")).unwrap();
    store.create(&node("b")).unwrap();
    assert_eq!(sync(&watch), ["put Node(b)"]);
    store.delete(&key(Kind::Node, "a"), None).unwrap();
    assert_eq!(sync(&watch), ["delete Node(a)"]);
    // From a list on, only what is other than in it is told.
    let later = store.watch(&nodes, Some(&list)).unwrap();
    let mut told = sync(&later);
    told.sort();
    assert_eq!(told, ["delete Node(a)", "put Node(b)"]);
    store.delete(&key(Kind::Node, "b"), None).unwrap();
    store.delete(&key(Kind::IpPool, "blue"), None).unwrap();
    assert_eq!(sync(&later), ["delete Node(b)"]);
    let health = store.health();
    assert!(health.connected, "{health:?}");
    assert_eq!(health.wrong, None);
}

fn set_mode(resource: &mut Resource, mode: &str) {
    let Resource::IpPool(pool) = resource else {
        unreachable!()
    };
    let other = super::contract::pool("x", "10.0.0.0/8", mode);
    let Resource::IpPool(other) = other else {
        unreachable!()
    };
    pool.spec.ipip_mode = other.spec.ipip_mode;
}
