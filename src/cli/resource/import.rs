//! `import` and `convert`: from a calico.yaml to resources.

use std::path::{Path, PathBuf};

use clap::Args;

use super::StoreArguments;
use super::change::{apply_one, create_one};
use super::output::{to_value, yaml};
use crate::cli::{Failure, print};
use crate::datastore::{Datastore, DatastoreError, Selection};
use crate::resources::bgp_use::Bgp;
use crate::resources::load::read_text;
use crate::resources::manifest::{self, Backend, Manifest};
use crate::resources::{IpPool, Kind, NodeConfig, Resource};

/// What `import` is given.
#[derive(Debug, Clone, Args)]
pub struct ImportArguments {
    /// The manifest, - for standard input
    #[arg(value_name = "FILE", required_unless_present = "filename")]
    file: Option<PathBuf>,
    /// The manifest, by the name that other verbs have for it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    filename: Option<PathBuf>,
    /// Print the resources as YAML, and put them into no datastore
    #[arg(short, long, value_name = "FORMAT", value_parser = ["yaml"])]
    output: Option<String>,
    #[command(flatten)]
    store: StoreArguments,
}

/// What `convert` is given.
#[derive(Debug, Clone, Args)]
pub struct ConvertArguments {
    /// The manifest, - for standard input
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    /// The form of what is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml", value_parser = ["yaml", "json"])]
    output: String,
}

/// Prints what a manifest comes to.
pub(super) fn convert(arguments: &ConvertArguments) -> Result<(), Failure> {
    let manifest = read(&arguments.filename)?;
    match arguments.output.as_str() {
        "json" => print_json(&manifest),
        _ => print_yaml(&manifest),
    }
}

/// Puts what a manifest comes to into the datastore. Its configurations are laid over those that are
/// there; its pools count where there is none of their IP version, and give their modes to those that
/// an earlier import made.
pub(super) fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let file = arguments.file.as_ref().or(arguments.filename.as_ref());
    let manifest = read(file.map_or(Path::new("-"), PathBuf::as_path))?;
    if arguments.output.is_some() {
        return print_yaml(&manifest);
    }
    let store = arguments.store.open()?;
    for line in notes(&manifest) {
        print(&format!("{line}\n"))?;
    }
    // What brings the routes from now on comes first: no node is ever without.
    if manifest.backend == Backend::Bird {
        import_configurations(&*store, &manifest)?;
        import_pools(&*store, &manifest)?;
    } else {
        import_pools(&*store, &manifest)?;
        import_configurations(&*store, &manifest)?;
    }
    if let Some(file) = arguments.store.node_config() {
        let line = set_bgp(file, manifest.backend)?;
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn said(error: DatastoreError) -> Failure {
    Failure::Said(error.to_string())
}

fn import_configurations(store: &dyn Datastore, manifest: &Manifest) -> Result<(), Failure> {
    for configuration in &manifest.configurations {
        let merged = overlaid(store, configuration).map_err(said)?;
        let key = merged.key();
        apply_one(store, merged).map_err(said)?;
        print(&format!("{key}: applied\n"))?;
    }
    Ok(())
}

fn import_pools(store: &dyn Datastore, manifest: &Manifest) -> Result<(), Failure> {
    let existing = store.list(&Selection::kind(Kind::IpPool)).map_err(said)?;
    let existing: Vec<&IpPool> = existing.resources().filter_map(as_pool).collect();
    for pool in manifest.pools.iter().filter_map(as_pool) {
        let of_version = existing
            .iter()
            .filter(|other| other.is_ipv4() == pool.is_ipv4());
        let others: Vec<&IpPool> = of_version.copied().collect();
        let key = Resource::from(pool.clone()).key();
        let done = match others.iter().find(|other| is_made_from(other, pool)) {
            Some(own) => give_mode(store, own, pool).map_err(said)?,
            None => match others.first() {
                Some(other) => format!(
                    "not created: there is IPPool({}) already, and the pool's variables act only when the \
                     first pool is made; change that one by `underpass patch` or `apply`",
                    other.metadata.name
                ),
                None => {
                    create_one(store, pool.clone().into()).map_err(said)?;
                    "created".to_owned()
                }
            },
        };
        print(&format!("{key}: {done}\n"))?;
    }
    Ok(())
}

fn as_pool(resource: &Resource) -> Option<&IpPool> {
    match resource {
        Resource::IpPool(pool) => Some(pool),
        _ => None,
    }
}

/// Whether a pool is the one that a manifest's variables make.
fn is_made_from(pool: &IpPool, manifests: &IpPool) -> bool {
    pool.metadata.name == manifests.metadata.name && pool.cidr() == manifests.cidr()
}

/// Has the pool that an earlier import made be carried as the manifest says; what became of it. All else
/// stays as it is there.
fn give_mode(
    store: &dyn Datastore,
    before: &IpPool,
    wanted: &IpPool,
) -> Result<String, DatastoreError> {
    let mut pool = before.clone();
    pool.spec.ipip_mode = wanted.spec.ipip_mode;
    pool.spec.vxlan_mode = wanted.spec.vxlan_mode;
    let modes = [
        ("ipipMode", before.spec.ipip_mode, pool.spec.ipip_mode),
        ("vxlanMode", before.spec.vxlan_mode, pool.spec.vxlan_mode),
    ];
    let changed = modes.iter().filter(|(_, old, new)| old != new);
    let changed: Vec<String> = changed
        .map(|(field, old, new)| format!("{field} {old:?} → {new:?}"))
        .collect();
    let mut done = match changed.is_empty() {
        true => "its modes are the manifest's".to_owned(),
        false => {
            apply_one(store, pool.clone().into())?;
            changed.join(", ")
        }
    };
    if pool.spec != wanted.spec {
        done += "; its other fields stay: their variables act only when the pool is made";
    }
    Ok(done)
}

/// Has a node's configuration say who brings the routes, as the manifest's backend does; what became of
/// it. A daemon beside the node is BGP, too.
fn set_bgp(file: &Path, backend: Backend) -> Result<String, Failure> {
    let problems = |problems: Vec<crate::resources::Problem>| {
        let lines = problems.iter().map(ToString::to_string);
        Failure::Said(lines.collect::<Vec<_>>().join("\n"))
    };
    let bgp = NodeConfig::load(file).map_err(problems)?.bgp;
    let (wanted, fits) = match backend {
        Backend::Bird => ("internal", bgp != Bgp::Off),
        Backend::Vxlan | Backend::None => ("off", bgp == Bgp::Off),
    };
    let shown = file.display();
    if fits {
        return Ok(format!("{shown}: bgp: fits the backend"));
    }
    let text = read_text(file).map_err(|problem| problems(vec![problem]))?;
    let Some(changed) = with_bgp(&text, wanted) else {
        return Ok(format!("{shown}: bgp: not changed: write bgp: {wanted}"));
    };
    NodeConfig::parse(file, &changed).map_err(problems)?;
    std::fs::write(file, changed)
        .map_err(|error| Failure::Said(format!("{shown}: cannot be written: {error}")))?;
    Ok(format!(
        "{shown}: bgp: {wanted}; a running node takes it with its next start"
    ))
}

/// The text with another word for `bgp`; nothing if more than a word stands there.
fn with_bgp(text: &str, wanted: &str) -> Option<String> {
    let is_bgp = |line: &&str| line.starts_with("bgp:");
    let Some(line) = text.lines().find(is_bgp) else {
        let end = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        return Some(format!("{text}{end}bgp: {wanted}\n"));
    };
    let value = line["bgp:".len()..].split('#').next()?.trim();
    let word = !value.is_empty() && value.chars().all(char::is_alphanumeric);
    word.then(|| text.replacen(line, &line.replacen(value, wanted, 1), 1))
}

fn read(file: &Path) -> Result<Manifest, Failure> {
    let problems = |problems: Vec<crate::resources::Problem>| {
        let lines = problems.iter().map(ToString::to_string);
        Failure::Said(lines.collect::<Vec<_>>().join("\n"))
    };
    let text = match file == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin().lock())
            .map_err(|error| Failure::Said(format!("-: cannot be read: {error}")))?,
        false => read_text(file).map_err(|problem| problems(vec![problem]))?,
    };
    manifest::read(file, &text).map_err(problems)
}

/// The resources on standard output, and what became of each setting on standard error.
fn print_yaml(manifest: &Manifest) -> Result<(), Failure> {
    for line in notes(manifest) {
        eprintln!("{line}");
    }
    let mut text = String::new();
    for resource in manifest.configurations.iter().chain(&manifest.pools) {
        let document = to_value(resource).and_then(|value| yaml(&value));
        text.push_str("---\n");
        text.push_str(&document.map_err(Failure::Said)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    print(&text)
}

/// The same as one list.
fn print_json(manifest: &Manifest) -> Result<(), Failure> {
    for line in notes(manifest) {
        eprintln!("{line}");
    }
    let all = manifest.configurations.iter().chain(&manifest.pools);
    let items = all.map(to_value).collect::<Result<Vec<_>, String>>();
    let items = items.map_err(Failure::Said)?;
    crate::cli::print_json(&serde_json::json!({
        "apiVersion": crate::resources::API_VERSION,
        "kind": "List",
        "items": items,
    }))
}

fn notes(manifest: &Manifest) -> Vec<String> {
    let notes = manifest.notes.iter().map(|note| {
        let done = if note.taken { "taken" } else { "ignored" };
        format!("{}: {}: {done}: {}", note.origin, note.setting, note.what)
    });
    let mut lines: Vec<String> = notes.collect();
    let probes: Vec<String> = manifest
        .probes
        .iter()
        .map(|probe| format!("-{probe}"))
        .collect();
    lines.push(format!("probes that fit the backend: {}", probes.join(" ")));
    lines
}

/// A configuration, laid over the one of that name that is there.
fn overlaid(store: &dyn Datastore, resource: &Resource) -> Result<Resource, DatastoreError> {
    let before = match store.get(&resource.key()) {
        Ok(before) => before,
        Err(DatastoreError::DoesNotExist(_)) => return Ok(resource.clone()),
        Err(error) => return Err(error),
    };
    Ok(match (before, resource) {
        (Resource::FelixConfiguration(mut before), Resource::FelixConfiguration(new)) => {
            before.spec.overlay(&new.spec);
            before.into()
        }
        (Resource::BgpConfiguration(mut before), Resource::BgpConfiguration(new)) => {
            before.spec.node_to_node_mesh_enabled = new.spec.node_to_node_mesh_enabled;
            before.spec.as_number = new.spec.as_number.or(before.spec.as_number);
            before.into()
        }
        (_, new) => new.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_bgp_is_changed_where_it_stands() {
        for (text, changed) in [
            ("node: a\n", Some("node: a\nbgp: off\n")),
            ("node: a", Some("node: a\nbgp: off\n")),
            (
                "bgp: internal # peers\nnode: a\n",
                Some("bgp: off # peers\nnode: a\n"),
            ),
            ("bgp:\n  internal: {}\n", None),
            ("bgp: {external: {}}\n", None),
        ] {
            assert_eq!(with_bgp(text, "off").as_deref(), changed, "{text}");
        }
    }
}
