//! The verbs that change what a datastore holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::report::{Report, Verb, refused};
use super::{FileArguments, Target};
use super::{node, pool};
use crate::cli::{Failure, print};
use crate::datastore::{Datastore, DatastoreError};
use crate::resources::{Kind, Name, Resource, ResourceKey, Tier, load};

const CREATE: Verb = Verb {
    infinitive: "create",
    past: "created",
};
const APPLY: Verb = Verb {
    infinitive: "apply",
    past: "applied",
};
const REPLACE: Verb = Verb {
    infinitive: "replace",
    past: "replaced",
};
const DELETE: Verb = Verb {
    infinitive: "delete",
    past: "deleted",
};

/// Creates what files hold; what is there already is an error, unless it is to be skipped.
pub(super) fn create(
    store: &dyn Datastore,
    files: &FileArguments,
    namespace: Option<&Name>,
    skip_exists: bool,
) -> Result<(), Failure> {
    each(files, namespace, CREATE, |resource| {
        match create_one(store, resource) {
            Err(DatastoreError::AlreadyExists(_)) if skip_exists => Ok(()),
            done => done,
        }
    })
}

/// Creates or replaces what files hold.
pub(super) fn apply(
    store: &dyn Datastore,
    files: &FileArguments,
    namespace: Option<&Name>,
) -> Result<(), Failure> {
    each(files, namespace, APPLY, |resource| {
        apply_one(store, resource)
    })
}

/// Replaces what files hold; what is not there is an error.
pub(super) fn replace(
    store: &dyn Datastore,
    files: &FileArguments,
    namespace: Option<&Name>,
) -> Result<(), Failure> {
    each(files, namespace, REPLACE, |resource| {
        replace_one(store, resource)
    })
}

/// Deletes what files or names say; what is not there is an error, unless it is to be skipped.
pub(super) fn delete(
    store: &Arc<dyn Datastore>,
    target: &Target,
    skip_not_exists: bool,
) -> Result<(), Failure> {
    let gone = |key: &ResourceKey, version: Option<&str>| match delete_one(store, key, version) {
        Err(DatastoreError::DoesNotExist(_)) if skip_not_exists => Ok(()),
        done => done,
    };
    if target.files.filename.is_empty() {
        let mut report = Report::new(DELETE);
        for key in target.keys()? {
            let outcome = gone(&key, None).map_err(|error| error.to_string());
            report.add(Some(key.kind), outcome);
        }
        return report.tell();
    }
    each(
        &target.files,
        target.namespace.as_ref(),
        DELETE,
        |resource| {
            let version = resource.metadata().resource_version.clone();
            gone(&resource.key(), version.as_deref())
        },
    )
}

/// A patch as it may be, for those who wrote none.
const PATCH: &str = r#"{"spec": {"disabled": true}}"#;

/// Changes a resource by a JSON merge patch (RFC 7386), which is what Calico's strategic merge comes
/// to for its types.
pub(super) fn patch(store: &dyn Datastore, key: &ResourceKey, patch: &str) -> Result<(), Failure> {
    let said = |error: String| Failure::Said(format!("Hit error: {error}"));
    let patch: Value = serde_json::from_str(patch).map_err(|error| {
        said(format!(
            "the patch is not JSON: {error}; write names and texts in double quotes, such as \
             '{PATCH}'"
        ))
    })?;
    if !patch.is_object() {
        return Err(said(format!(
            "the patch is no mapping of fields: write one such as '{PATCH}'"
        )));
    }
    let before = store.get(key).map_err(|error| said(error.to_string()))?;
    let mut value = super::output::to_value(&before).map_err(said)?;
    merge(&mut value, &patch);
    let patched = load::from_value(&value).map_err(|faults| {
        let reasons = faults
            .into_iter()
            .map(|fault| format!("{}: {}; {}", fault.field, fault.reason, fault.remedy));
        said(reasons.collect::<Vec<_>>().join("\n "))
    })?;
    if patched.key() != *key {
        return Err(said(format!(
            "{key}: a patch cannot make it {}",
            patched.key()
        )));
    }
    replace_one(store, patched).map_err(|error| said(error.to_string()))?;
    print(&format!("Successfully patched 1 '{}' resource\n", key.kind))
}

/// RFC 7386, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// A change of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LabelChange {
    /// It gets a value.
    Set {
        key: String,
        value: String,
        overwrite: bool,
    },
    /// It goes.
    Remove { key: String },
}

/// Changes one label of a resource; `kind` is as the user wrote it.
pub(super) fn label(
    store: &dyn Datastore,
    key: &ResourceKey,
    kind: &str,
    change: &LabelChange,
) -> Result<(), Failure> {
    let name = &key.name;
    let said = |text: String| Failure::Said(text);
    let mut resource = store
        .get(key)
        .map_err(|error| said(format!("failed to get {kind} {name}, error {error}")))?;
    let labels = &mut resource.metadata_mut().labels;
    let done = change_label(labels, change, kind, name).map_err(said)?;
    let faults = resource.validate();
    if let Some(fault) = faults.first() {
        return Err(said(format!(
            "failed to update {kind} {name}, label not changed: {}; {}",
            fault.reason, fault.remedy
        )));
    }
    store.update(&resource).map_err(|error| {
        said(format!(
            "failed to update {kind} {name}, label not changed: {error}"
        ))
    })?;
    print(&format!("Successfully {done} {kind} {name}\n"))
}

fn change_label(
    labels: &mut BTreeMap<String, String>,
    change: &LabelChange,
    kind: &str,
    name: &Name,
) -> Result<String, String> {
    match change {
        LabelChange::Remove { key } => match labels.remove(key) {
            Some(_) => Ok(format!("removed label {key} from")),
            None => Err(format!(
                "cannot remove label of {kind} {name}, key {key} does not exist"
            )),
        },
        LabelChange::Set {
            key,
            value,
            overwrite,
        } => {
            let before = labels.get(key);
            if before.is_some_and(|before| before != value && !overwrite) {
                return Err(format!(
                    "failed to update label of {kind} {name}, key {key} is already present. \
                     please use '--overwrite' to set a new value."
                ));
            }
            let done = if before.is_some() { "updated" } else { "set" };
            labels.insert(key.clone(), value.clone());
            Ok(format!("{done} label {key} on"))
        }
    }
}

/// Does the same with each resource of the files; bad ones keep no other from being done.
fn each(
    files: &FileArguments,
    namespace: Option<&Name>,
    verb: Verb,
    act: impl Fn(Resource) -> Result<(), DatastoreError>,
) -> Result<(), Failure> {
    let mut report = Report::new(verb);
    for given in files.read(namespace).map_err(Failure::Said)? {
        let entry = given.entry;
        let outcome = match entry.outcome {
            Ok((resource, origin)) => match act(resource) {
                // No file's fault; and who comes next would only wait for the same.
                Err(error @ DatastoreError::Unavailable { .. }) => {
                    report.add(entry.kind, Err(error.to_string()));
                    break;
                }
                done => done.map_err(|error| format!("{origin}: {error}")),
            },
            Err(refusals) => Err(refused(&refusals)),
        };
        report.add(entry.kind, outcome);
    }
    report.tell()
}

/// Creates a resource as a new one, whatever another cluster called it.
pub(super) fn create_one(
    store: &dyn Datastore,
    mut resource: Resource,
) -> Result<(), DatastoreError> {
    resource.fill_defaults();
    let metadata = resource.metadata_mut();
    metadata.uid = None;
    metadata.creation_timestamp = None;
    metadata.resource_version = None;
    if let Resource::IpPool(pool) = &resource {
        pool::check_new(store, pool)?;
    }
    refuse_unbuilt(&resource)?;
    need_tier(store, &resource)?;
    store.create(&resource).map(|_| ())
}

pub(super) fn apply_one(store: &dyn Datastore, resource: Resource) -> Result<(), DatastoreError> {
    match replace_one(store, resource.clone()) {
        Err(DatastoreError::DoesNotExist(_)) => match create_one(store, resource.clone()) {
            // Somebody else was faster.
            Err(DatastoreError::AlreadyExists(_)) => replace_one(store, resource),
            created => created,
        },
        replaced => replaced,
    }
}

fn replace_one(store: &dyn Datastore, mut resource: Resource) -> Result<(), DatastoreError> {
    resource.fill_defaults();
    if let Resource::IpPool(pool) = &resource
        && let Resource::IpPool(before) = store.get(&resource.key())?
    {
        pool::check_change(&before, pool)?;
    }
    refuse_unbuilt(&resource)?;
    store.update(&resource).map(|_| ())
}

/// What would be kept, and not be done.
fn refuse_unbuilt(resource: &Resource) -> Result<(), DatastoreError> {
    let Resource::IpamConfiguration(configuration) = resource else {
        return Ok(());
    };
    match configuration.spec.min_ip_reclaim_age_seconds {
        None | Some(0) => Ok(()),
        Some(seconds) => Err(DatastoreError::Refused {
            key: resource.key(),
            reason: format!(
                "error with field MinIPReclaimAgeSeconds = '{seconds}' (Reason: \
                 spec.minIPReclaimAgeSeconds: released addresses have no age here: those that were \
                 released last are assigned last; remove it)"
            ),
        }),
    }
}

/// A new policy's tier must be there, as Calico has it; it makes some of them itself.
fn need_tier(store: &dyn Datastore, resource: &Resource) -> Result<(), DatastoreError> {
    let tier = match resource {
        Resource::NetworkPolicy(policy) => &policy.spec.tier,
        Resource::GlobalNetworkPolicy(policy) => &policy.spec.tier,
        _ => return Ok(()),
    };
    if Tier::is_built_in(tier) {
        return Ok(());
    }
    let key = ResourceKey {
        kind: Kind::Tier,
        namespace: None,
        name: tier.clone(),
    };
    store.get(&key).map(|_| ())
}

fn delete_one(
    store: &Arc<dyn Datastore>,
    key: &ResourceKey,
    version: Option<&str>,
) -> Result<(), DatastoreError> {
    match key.kind {
        Kind::IpPool => pool::delete(store, key, version),
        Kind::Node => node::delete(store, key, version),
        _ => store.delete(key, version).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7386, appendix A.
    #[test]
    fn patches_are_merged() {
        for (original, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut merged = original.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{original} + {patch}");
        }
    }
}
