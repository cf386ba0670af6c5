//! Calico's key layout and values in etcd (libcalico-go `lib/backend/model`).
//!
//! ```text
//! /calico/resources/v3/projectcalico.org/<plural>/[<namespace>/]<name>   the resource
//! /calico/ipam/v2/host/<node>/ipv4/block/<cidr>                          {state, deleted}
//! /calico/ipam/v2/assignment/ipv4/block/<cidr>                           the block
//! /calico/ipam/v2/handle/<handle>                                        {block, deleted}
//! /calico/ipam/v2/config                                                 IPAM's settings
//! ```
//!
//! Values are JSON; a CIDR is written with `-` for `/`.

use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::datastore::Selection;
use crate::resources::ipam_handle::IpamHandleSpec;
use crate::resources::{
    API_VERSION, IpamHandle, Kind, Origin, Problem, Resource, ResourceKey, load,
};

/// Under which all of Calico's keys are.
pub(super) const ROOT: &str = "/calico/";
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const IPAM: &str = "/calico/ipam/v2/";
const CONFIG: &str = "/calico/ipam/v2/config";

/// What a key and its value amount to; nothing for what is none of our kinds.
pub(super) type Decoded = Option<Result<Resource, Problem>>;

/// The prefix under which all that is selected is.
pub(super) fn prefix(selection: &Selection) -> String {
    let kinds: Vec<Kind> = Kind::ALL
        .iter()
        .copied()
        .filter(|kind| selection.has_kind(*kind))
        .collect();
    match kinds[..] {
        [Kind::BlockAffinity] => format!("{IPAM}host/"),
        [Kind::IpamBlock] => format!("{IPAM}assignment/"),
        [Kind::IpamHandle] => format!("{IPAM}handle/"),
        [Kind::IpamConfiguration] => CONFIG.to_owned(),
        [kind] => format!("{RESOURCES}{}/", kind.plural()),
        _ if kinds.iter().all(|kind| is_ipam(*kind)) => IPAM.to_owned(),
        _ => ROOT.to_owned(),
    }
}

/// Where a resource is kept.
pub(super) fn of_resource(resource: &Resource) -> String {
    match resource {
        Resource::BlockAffinity(affinity) => {
            let kind = if affinity.spec.kind.is_host() {
                "host"
            } else {
                "virtual"
            };
            format!(
                "{IPAM}{kind}/{}/{}",
                affinity.spec.node,
                block(affinity.block())
            )
        }
        Resource::IpamBlock(ipam) => format!("{IPAM}assignment/{}", block(ipam.spec.cidr.net())),
        Resource::IpamHandle(handle) => format!("{IPAM}handle/{}", handle.spec.handle_id),
        _ => of_name(&resource.key()).unwrap_or_default(),
    }
}

/// Where a resource of that name is kept, if the name alone tells it.
pub(super) fn of_name(key: &ResourceKey) -> Option<String> {
    let name = key.name.as_str();
    match key.kind {
        Kind::BlockAffinity => {
            let (node, cidr) = split_affinity_name(name)?;
            Some(format!("{IPAM}host/{node}/{}", block(cidr)))
        }
        Kind::IpamBlock => Some(format!("{IPAM}assignment/{}", block(cidr_of_name(name)?))),
        // A name with a digest is not the handle itself.
        Kind::IpamHandle if name.starts_with('h') && ends_with_digest(name) => None,
        Kind::IpamHandle => Some(format!("{IPAM}handle/{name}")),
        Kind::IpamConfiguration => Some(CONFIG.to_owned()),
        kind => {
            let namespace = key.namespace.as_ref();
            let namespace = namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
            Some(format!("{RESOURCES}{}/{namespace}{name}", kind.plural()))
        }
    }
}

/// What is kept for a resource.
pub(super) fn value_of(resource: &Resource) -> Vec<u8> {
    let mut resource = resource.clone();
    resource.metadata_mut().resource_version = None;
    let whole = serde_json::to_value(&resource).unwrap_or_default();
    let value = match &resource {
        Resource::BlockAffinity(affinity) => {
            json!({"state": affinity.spec.state, "deleted": affinity.spec.deleted})
        }
        Resource::IpamBlock(_) => whole["spec"].clone(),
        Resource::IpamHandle(handle) => {
            json!({"block": handle.spec.block, "deleted": handle.spec.deleted})
        }
        Resource::IpamConfiguration(configuration) => json!({
            "strict_affinity": configuration.spec.strict_affinity,
            "auto_allocate_blocks": configuration.spec.auto_allocate_blocks,
            "maxBlocksPerHost": configuration.spec.max_blocks_per_host,
        }),
        _ => whole,
    };
    value.to_string().into_bytes()
}

/// What a key and its value amount to, with the revision as its version.
pub(super) fn decode(path: &str, value: &[u8], revision: i64) -> Decoded {
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(_) => return kind_of(path).map(|_| Err(corrupt(path, "is not UTF-8"))),
    };
    let document = match kind_of(path)? {
        kind if is_ipam(kind) => match ipam(path, text) {
            Some(document) => document.to_string(),
            None => return Some(Err(corrupt(path, "is not what Calico keeps there"))),
        },
        _ => text.to_owned(),
    };
    let parsed = load::parse(Path::new(&file(path)), &document);
    let mut resources = parsed.resources.into_iter();
    let resource = match (resources.next(), resources.next()) {
        (Some((resource, _)), None) => resource,
        _ => {
            let problem = parsed.problems.into_iter().next();
            let mut problem = problem.unwrap_or_else(|| corrupt(path, "is not one resource"));
            problem.origin = origin(path);
            return Some(Err(problem));
        }
    };
    if of_resource(&resource) != path {
        return Some(Err(corrupt(
            path,
            &format!("holds {} instead", resource.key()),
        )));
    }
    let mut resource = resource;
    resource.metadata_mut().resource_version = Some(revision.to_string());
    Some(Ok(resource))
}

/// A key as the place of what it holds.
pub(super) fn origin(path: &str) -> Origin {
    Origin::file(Path::new(&file(path)))
}

fn file(path: &str) -> String {
    format!("etcd:{path}")
}

fn corrupt(path: &str, reason: &str) -> Problem {
    Problem::with_file(
        Path::new(&file(path)),
        reason,
        "write the resource again, or delete the key",
    )
}

fn is_ipam(kind: Kind) -> bool {
    matches!(kind, Kind::BlockAffinity | Kind::IpamConfiguration) || kind.is_ipam_record()
}

fn kind_of(path: &str) -> Option<Kind> {
    if let Some(rest) = path.strip_prefix(RESOURCES) {
        let plural = rest.split('/').next()?;
        let mut kinds = Kind::ALL.iter().copied().filter(|kind| !is_ipam(*kind));
        return kinds.find(|kind| kind.plural() == plural);
    }
    match path.strip_prefix(IPAM)?.split('/').next()? {
        "host" | "virtual" if path.contains("/block/") => Some(Kind::BlockAffinity),
        "assignment" => Some(Kind::IpamBlock),
        "handle" => Some(Kind::IpamHandle),
        "config" => Some(Kind::IpamConfiguration),
        _ => None,
    }
}

/// IPAM's value as the document that it amounts to.
fn ipam(path: &str, text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    let parts: Vec<&str> = path.strip_prefix(IPAM)?.split('/').collect();
    let document = |kind: Kind, name: &str, spec: Value| json!({"apiVersion": API_VERSION, "kind": kind.name(), "metadata": {"name": name}, "spec": spec});
    match parts[..] {
        [kind, node, _, "block", cidr] => {
            let cidr = cidr.replacen('-', "/", 1);
            let kind = if kind == "host" { "host" } else { "virtual" };
            let spec = json!({
                "state": value.get("state")?,
                "node": node,
                "cidr": cidr,
                "deleted": value.get("deleted").and_then(Value::as_bool).unwrap_or(false),
                "type": kind,
            });
            let name = format!("{node}-{}", name_of_cidr(cidr.parse().ok()?));
            Some(document(Kind::BlockAffinity, &name, spec))
        }
        ["assignment", _, "block", cidr] => {
            let cidr = cidr.replacen('-', "/", 1).parse().ok()?;
            Some(document(Kind::IpamBlock, &name_of_cidr(cidr), value))
        }
        ["handle", handle] => {
            let spec = IpamHandleSpec {
                handle_id: handle.to_owned(),
                block: serde_json::from_value(value.get("block")?.clone()).ok()?,
                deleted: value
                    .get("deleted")
                    .and_then(Value::as_bool)
                    .unwrap_or(false),
            };
            let name = IpamHandle::name_of(handle)?;
            let spec = serde_json::to_value(spec).ok()?;
            Some(document(Kind::IpamHandle, name.as_str(), spec))
        }
        // Go leaves false and 0 out.
        ["config"] => {
            let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
            let most = value.get("maxBlocksPerHost").and_then(Value::as_i64);
            let spec = json!({
                "strictAffinity": flag("strict_affinity"),
                "autoAllocateBlocks": flag("auto_allocate_blocks"),
                "maxBlocksPerHost": most.unwrap_or(0),
            });
            Some(document(Kind::IpamConfiguration, "default", spec))
        }
        _ => None,
    }
}

/// `ipv4/block/10.65.0.0-26`.
fn block(cidr: IpNet) -> String {
    let version = if matches!(cidr, IpNet::V4(_)) { 4 } else { 6 };
    format!("ipv{version}/block/{}", cidr.to_string().replace('/', "-"))
}

/// A block's name: its CIDR, with `-` for every other character.
pub(crate) fn name_of_cidr(cidr: IpNet) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

fn cidr_of_name(name: &str) -> Option<IpNet> {
    let (address, length) = name.rsplit_once('-')?;
    let v4 = format!("{}/{length}", address.replace('-', "."));
    let v6 = format!("{}/{length}", address.replace('-', ":"));
    v4.parse().or_else(|_| v6.parse()).ok()
}

/// The node and the block in an affinity's name, for IPv4: the name of a node may end in what could
/// be the beginning of an IPv6 address.
fn split_affinity_name(name: &str) -> Option<(&str, IpNet)> {
    let (at, _) = name.rmatch_indices('-').nth(4)?;
    let cidr = cidr_of_name(&name[at + 1..]).filter(|cidr| matches!(cidr, IpNet::V4(_)))?;
    Some((&name[..at], cidr))
}

fn ends_with_digest(name: &str) -> bool {
    let digest = name.rsplit_once('.').map(|(_, digest)| digest);
    digest.is_some_and(|digest| digest.len() > 10 && digest.bytes().all(|b| b.is_ascii_digit()))
}
