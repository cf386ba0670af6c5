//! The verbs that show and change Calico's resources, as calicoctl has them.

mod change;
mod columns;
mod import;
mod input;
mod node;
mod output;
mod pool;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

pub use import::ImportArguments;
pub use input::FileArguments;
pub use output::Output;

use crate::cli::{Failure, print};
use crate::datastore::{self, Datastore, DatastoreError, Selection};
use crate::resources::datastore as place;
use crate::resources::load::Entry;
use crate::resources::{BgpConfiguration, Kind, Name, NodeConfig, Resource, ResourceKey, Typed};
use change::LabelChange;
use columns::Context;
use output::Found;
use report::{Report, Verb, refused};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum ResourceVerb {
    /// Create resources from files; those that are there already are errors
    Create {
        #[command(flatten)]
        store: StoreArguments,
        #[command(flatten)]
        files: RequiredFiles,
        #[command(flatten)]
        namespace: NamespaceArguments,
        /// Pass over resources that are there already
        #[arg(long)]
        skip_exists: bool,
    },
    /// Create or replace resources from files
    Apply {
        #[command(flatten)]
        store: StoreArguments,
        #[command(flatten)]
        files: RequiredFiles,
        #[command(flatten)]
        namespace: NamespaceArguments,
    },
    /// Replace resources from files; those that are not there are errors
    Replace {
        #[command(flatten)]
        store: StoreArguments,
        #[command(flatten)]
        files: RequiredFiles,
        #[command(flatten)]
        namespace: NamespaceArguments,
    },
    /// Change some fields of a resource
    Patch {
        #[command(flatten)]
        store: StoreArguments,
        /// The kind, in singular, plural or short form
        #[arg(value_name = "KIND")]
        kind: String,
        /// The name
        #[arg(value_name = "NAME")]
        name: String,
        /// The fields as JSON; null removes one
        #[arg(short, long, value_name = "JSON")]
        patch: String,
        /// How the patch is meant; strategic and merge are the same here
        #[arg(
            short = 't',
            long = "type",
            value_name = "TYPE",
            default_value = "strategic"
        )]
        #[arg(value_parser = ["strategic", "merge"])]
        type_: String,
        #[command(flatten)]
        namespace: NamespaceArguments,
    },
    /// Delete resources by name or by files
    Delete {
        #[command(flatten)]
        store: StoreArguments,
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        namespace: NamespaceArguments,
        /// Pass over resources that are not there
        #[arg(long)]
        skip_not_exists: bool,
    },
    /// Show resources by kind, by name or by files
    Get {
        #[command(flatten)]
        store: StoreArguments,
        #[command(flatten)]
        target: TargetArguments,
        /// ps, wide, yaml, json, name or custom-columns=NAME,…
        #[arg(short, long, value_name = "FORMAT", default_value = "ps", value_parser = output::output)]
        output: Output,
        #[command(flatten)]
        namespace: NamespaceArguments,
        /// Show the resources of all namespaces
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Leave out what only this cluster knows; for resources named by name
        #[arg(long)]
        export: bool,
    },
    /// Set or remove a label of a resource
    Label {
        #[command(flatten)]
        store: StoreArguments,
        /// The kind, in singular, plural or short form
        #[arg(value_name = "KIND")]
        kind: String,
        /// The name
        #[arg(value_name = "NAME")]
        name: String,
        /// KEY=VALUE, or KEY with --remove
        #[arg(value_name = "LABEL")]
        label: String,
        /// Let the label have another value than before
        #[arg(long, conflicts_with = "remove")]
        overwrite: bool,
        /// Remove the label
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        namespace: NamespaceArguments,
    },
    /// Say what is wrong with resources in files, without a datastore
    Validate {
        #[command(flatten)]
        files: RequiredFiles,
        #[command(flatten)]
        namespace: NamespaceArguments,
    },
    /// Print the resources that a calico.yaml comes to
    Convert(import::ConvertArguments),
    /// Make the pool and the configurations that a calico.yaml comes to
    Import(ImportArguments),
}

/// Which datastore is meant: what is given here, else what the environment or calicoctl.cfg says.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArguments {
    /// A node's configuration or a calicoctl.cfg [default: /etc/calico/calicoctl.cfg, if it is there]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// A directory of resources, or the http:// addresses of an etcd, with commas between them
    #[arg(long, value_name = "DIRECTORY|URL", global = true)]
    pub datastore: Option<String>,
}

/// Files that must be given.
#[derive(Debug, Clone, Args)]
pub struct RequiredFiles {
    #[command(flatten)]
    files: FileArguments,
}

/// The namespace that resources are in.
#[derive(Debug, Clone, Default, Args)]
pub struct NamespaceArguments {
    /// The namespace of resources that have one and do not name it [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<Name>,
}

/// Resources by kind and name, or by files.
#[derive(Debug, Clone, Args)]
pub struct TargetArguments {
    /// The kind, in singular, plural or short form
    #[arg(
        value_name = "KIND",
        required_unless_present = "filename",
        conflicts_with = "filename"
    )]
    pub kind: Option<String>,
    /// The names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub files: FileArguments,
}

/// Resources that a verb is about.
struct Target {
    kind: Option<Kind>,
    names: Vec<Name>,
    files: FileArguments,
    namespace: Option<Name>,
}

const VALIDATE: Verb = Verb {
    infinitive: "validate",
    past: "validated",
};

/// Does what a verb says.
pub(super) fn run(verb: ResourceVerb) -> Result<(), Failure> {
    match verb {
        ResourceVerb::Create {
            store,
            files,
            namespace,
            skip_exists,
        } => {
            let files = files.check()?;
            change::create(
                &*store.open()?,
                &files,
                namespace.namespace.as_ref(),
                skip_exists,
            )
        }
        ResourceVerb::Apply {
            store,
            files,
            namespace,
        } => {
            let files = files.check()?;
            change::apply(&*store.open()?, &files, namespace.namespace.as_ref())
        }
        ResourceVerb::Replace {
            store,
            files,
            namespace,
        } => {
            let files = files.check()?;
            change::replace(&*store.open()?, &files, namespace.namespace.as_ref())
        }
        ResourceVerb::Patch {
            store,
            kind,
            name,
            patch,
            type_,
            namespace,
        } => {
            // Both kinds of patch come to the same for Calico's types.
            let _ = type_;
            let key = one_key(&kind, &name, namespace.namespace)?;
            change::patch(&*store.open()?, &key, &patch)
        }
        ResourceVerb::Delete {
            store,
            target,
            namespace,
            skip_not_exists,
        } => {
            let target = Target::new(target, namespace.namespace)?;
            if target.kind.is_some() && target.names.is_empty() {
                return Err(Failure::Said("resource name may not be empty".to_owned()));
            }
            change::delete(&store.open()?, &target, skip_not_exists)
        }
        ResourceVerb::Get {
            store,
            target,
            output,
            namespace,
            all_namespaces,
            export,
        } => {
            let shown = namespace.namespace.is_some() || all_namespaces;
            let target = Target::new(target, namespace.namespace)?;
            get(
                &*store.open()?,
                &target,
                &output,
                all_namespaces,
                shown,
                export,
            )
        }
        ResourceVerb::Label {
            store,
            kind,
            name,
            label,
            overwrite,
            remove,
            namespace,
        } => {
            let change = label_change(label, overwrite, remove)?;
            let key = one_key(&kind, &name, namespace.namespace)?;
            change::label(&*store.open()?, &key, &kind, &change)
        }
        ResourceVerb::Validate { files, namespace } => validate(&files.check()?, &namespace),
        ResourceVerb::Convert(arguments) => import::convert(&arguments),
        ResourceVerb::Import(arguments) => import::import(&arguments),
    }
}

impl StoreArguments {
    /// The datastore that is meant.
    pub(in crate::cli) fn open(&self) -> Result<Arc<dyn Datastore>, Failure> {
        let place = self.place().map_err(Failure::Said)?;
        datastore::open(&place).map_err(|error| Failure::Said(error.to_string()))
    }

    /// The node's configuration that is named, if one is.
    fn node_config(&self) -> Option<&Path> {
        self.config.as_deref().filter(|file| !is_calicoctls(file))
    }

    fn place(&self) -> Result<place::Datastore, String> {
        if self.config.is_some() && self.datastore.is_some() {
            return Err("--config and --datastore both name a datastore; give one of them".into());
        }
        if let Some(given) = &self.datastore {
            return match given.starts_with("http://") || given.starts_with("https://") {
                false => Ok(place::Datastore::directory(given)),
                true => {
                    let variable = |name: &str| match name {
                        "ETCD_ENDPOINTS" => Some(given.clone()),
                        "DATASTORE_TYPE" => Some("etcdv3".to_owned()),
                        _ => std::env::var(name).ok(),
                    };
                    place::Datastore::from_environment(None, variable)
                        .map_err(|problem| problem.to_string())
                }
            };
        }
        if let Some(file) = &self.config
            && !is_calicoctls(file)
        {
            let lines = |problems: Vec<crate::resources::Problem>| {
                let lines = problems.iter().map(ToString::to_string);
                lines.collect::<Vec<_>>().join("\n")
            };
            return NodeConfig::load(file)
                .map(|config| config.datastore)
                .map_err(lines);
        }
        let variable = |name: &str| std::env::var(name).ok();
        place::Datastore::from_environment(self.config.as_deref(), variable)
            .map_err(|problem| problem.to_string())
    }
}

/// Whether a file is calicoctl's configuration rather than a node's.
fn is_calicoctls(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("CalicoAPIConfig"))
}

impl RequiredFiles {
    fn check(self) -> Result<FileArguments, Failure> {
        match self.files.filename.is_empty() {
            false => Ok(self.files),
            true => Err(Failure::Said(
                "name a file of resources by --filename".to_owned(),
            )),
        }
    }
}

impl Target {
    fn new(arguments: TargetArguments, namespace: Option<Name>) -> Result<Self, Failure> {
        let kind = arguments.kind.as_deref().map(input::kind).transpose();
        let kind = kind.map_err(Failure::Said)?;
        let names = arguments.names.iter().map(|name| parse_name(name));
        let names = names.collect::<Result<Vec<Name>, Failure>>()?;
        if let Some(kind) = kind.filter(|kind| !kind.namespaced() && namespace.is_some()) {
            return Err(Failure::Said(format!("{kind} is not namespaced")));
        }
        Ok(Self {
            kind,
            names,
            files: arguments.files,
            namespace,
        })
    }

    /// The keys of the resources that are named.
    fn keys(&self) -> Result<Vec<ResourceKey>, Failure> {
        let Some(kind) = self.kind else {
            return Ok(Vec::new());
        };
        let namespace = || self.namespace.clone().unwrap_or_else(Name::default_name);
        let key = |name: &Name| ResourceKey {
            kind,
            namespace: kind.namespaced().then(namespace),
            name: name.clone(),
        };
        Ok(self.names.iter().map(key).collect())
    }
}

fn parse_name(name: &str) -> Result<Name, Failure> {
    let failed = |error: crate::resources::name::NameError| Failure::Said(error.to_string());
    name.parse().map_err(failed)
}

fn one_key(kind: &str, name: &str, namespace: Option<Name>) -> Result<ResourceKey, Failure> {
    let kind = input::kind(kind).map_err(Failure::Said)?;
    if !kind.namespaced() && namespace.is_some() {
        return Err(Failure::Said(format!("{kind} is not namespaced")));
    }
    let namespace = kind
        .namespaced()
        .then(|| namespace.unwrap_or_else(Name::default_name));
    Ok(ResourceKey {
        kind,
        namespace,
        name: parse_name(name)?,
    })
}

fn label_change(label: String, overwrite: bool, remove: bool) -> Result<LabelChange, Failure> {
    if remove {
        return Ok(LabelChange::Remove { key: label });
    }
    match label.split_once('=') {
        Some((key, value)) if !value.contains('=') => Ok(LabelChange::Set {
            key: key.to_owned(),
            value: value.to_owned(),
            overwrite,
        }),
        _ => Err(Failure::Said(format!("invalid label {label}"))),
    }
}

fn validate(files: &FileArguments, namespace: &NamespaceArguments) -> Result<(), Failure> {
    let mut report = Report::new(VALIDATE);
    for given in files
        .read(namespace.namespace.as_ref())
        .map_err(Failure::Said)?
    {
        let Entry { kind, outcome, .. } = given.entry;
        let outcome = outcome.map(|_| ()).map_err(|refusals| refused(&refusals));
        report.add(kind, outcome);
    }
    report.tell()
}

fn get(
    store: &dyn Datastore,
    target: &Target,
    output: &Output,
    all_namespaces: bool,
    show_namespaces: bool,
    export: bool,
) -> Result<(), Failure> {
    if all_namespaces && target.namespace.is_some() {
        let text = "cannot use both --namespace and --all-namespaces flags at the same time";
        return Err(Failure::Said(text.to_owned()));
    }
    let mut errors = Vec::new();
    let mut found = Vec::new();
    match target.kind {
        Some(kind) if target.names.is_empty() => {
            found.push(Found::All(kind, list(store, target, kind, all_namespaces)?));
        }
        _ => {
            let keys = match target.kind {
                Some(_) => target.keys()?,
                None => file_keys(target, &mut errors)?,
            };
            for key in keys {
                match store.get(&key) {
                    Ok(mut resource) => {
                        if export {
                            resource.metadata_mut().strip_cluster();
                        }
                        found.push(Found::One(Box::new(resource)));
                    }
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
    }
    let context = context(store);
    if !found.is_empty() {
        let text = output::render(&found, output, show_namespaces, &context);
        print(&text.map_err(Failure::Said)?)?;
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Failure::Said(errors.join("\n"))),
    }
}

fn list(
    store: &dyn Datastore,
    target: &Target,
    kind: Kind,
    all_namespaces: bool,
) -> Result<Vec<Resource>, Failure> {
    let mut selection = Selection::kind(kind);
    if kind.namespaced() && !all_namespaces {
        let namespace = target.namespace.clone();
        selection = selection.in_namespace(namespace.unwrap_or_else(Name::default_name));
    }
    let list = store
        .list(&selection)
        .map_err(|error| Failure::Said(format!("Failed to get resources: {error}")))?;
    let mut resources: Vec<Resource> = list.resources().cloned().collect();
    if kind == Kind::Tier {
        resources.sort_by_key(|tier| match tier {
            Resource::Tier(tier) => (tier.spec.order.is_none(), tier.spec.order),
            _ => (true, None),
        });
    }
    for problem in &list.problems {
        eprintln!("{problem}");
    }
    Ok(resources)
}

/// The keys of the resources in files.
fn file_keys(target: &Target, errors: &mut Vec<String>) -> Result<Vec<ResourceKey>, Failure> {
    let mut keys = Vec::new();
    let given = target.files.read(target.namespace.as_ref());
    for given in given.map_err(Failure::Said)? {
        match given.entry.outcome {
            Ok((resource, _)) => keys.push(resource.key()),
            Err(refusals) => errors.push(refused(&refusals)),
        }
    }
    Ok(keys)
}

/// What tables show beside the resources themselves.
fn context(store: &dyn Datastore) -> Context {
    let key = ResourceKey {
        kind: Kind::BgpConfiguration,
        namespace: None,
        name: Name::default_name(),
    };
    let as_number = match store.get(&key) {
        Ok(resource) => {
            let asn = BgpConfiguration::of(&resource).map(BgpConfiguration::as_number);
            asn.unwrap_or(BgpConfiguration::AS_NUMBER).to_string()
        }
        Err(DatastoreError::DoesNotExist(_)) => BgpConfiguration::AS_NUMBER.to_string(),
        Err(_) => "unknown".to_owned(),
    };
    Context { as_number }
}
