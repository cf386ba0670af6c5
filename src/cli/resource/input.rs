//! The resources that a command line names by files: YAML or JSON, standard input, directories.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::resources::load::{self, Entry, Refusal};
use crate::resources::{Fault, Kind, Name, Problem};

/// Where resources are read from.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArguments {
    /// A file of resources, a directory of such files, or - for standard input; may be given several
    /// times
    #[arg(short, long, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Go into directories below the given ones
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Say nothing if files hold no resources
    #[arg(long)]
    pub skip_empty: bool,
}

/// Something that a file holds, and where it is from if it is no resource.
pub(super) struct Given {
    /// What it is.
    pub entry: Entry,
}

impl FileArguments {
    /// Reads all files. What cannot be read is an entry, too.
    pub(super) fn read(&self, namespace: Option<&Name>) -> Result<Vec<Given>, String> {
        let default = Name::default_name();
        let namespace_of_file = namespace.unwrap_or(&default);
        let mut given = Vec::new();
        for path in &self.filename {
            for file in self.files(path)? {
                let entries = read_file(&file, namespace_of_file);
                if entries.is_empty() && !self.skip_empty {
                    return Err(format!("No resources specified in file {}", file.display()));
                }
                given.extend(entries.into_iter().map(|entry| Given { entry }));
            }
        }
        if let Some(namespace) = namespace {
            for one in &mut given {
                check_namespace(one, namespace);
            }
        }
        if given.is_empty() && !self.skip_empty {
            let names: Vec<String> = self
                .filename
                .iter()
                .map(|f| f.display().to_string())
                .collect();
            return Err(format!(
                "No resources specified in directory {}",
                names.join(", ")
            ));
        }
        Ok(given)
    }

    /// The files at a path, in order.
    fn files(&self, path: &Path) -> Result<Vec<PathBuf>, String> {
        if path == Path::new("-") || !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let failed = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
        let mut files = Vec::new();
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(failed)?;
        entries.sort();
        for entry in entries {
            if entry.is_dir() {
                if self.recursive {
                    files.extend(self.files(&entry)?);
                }
            } else if matches!(
                entry.extension().and_then(|extension| extension.to_str()),
                Some("yaml" | "yml" | "json")
            ) {
                files.push(entry);
            }
        }
        Ok(files)
    }
}

fn read_file(file: &Path, namespace: &Name) -> Vec<Entry> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        let failed = |error: std::io::Error| {
            let reason = format!("cannot be read: {error}");
            Problem::with_file(file, reason, "write YAML or JSON to standard input")
        };
        read.map(|_| text).map_err(failed)
    } else {
        load::read_text(file)
    };
    match text {
        Ok(text) => load::entries(file, &text, namespace),
        Err(problem) => vec![Entry {
            kind: None,
            name: None,
            outcome: Err(vec![Refusal {
                problem,
                value: None,
            }]),
        }],
    }
}

/// What names a namespace must name the one that is asked for.
fn check_namespace(given: &mut Given, wanted: &Name) {
    let Ok((resource, origin)) = &given.entry.outcome else {
        return;
    };
    let own = resource.metadata().namespace.as_ref();
    let (reason, remedy) = match own {
        Some(own) if own != wanted => (
            format!("resource namespace does not match client namespace. {own} != {wanted}"),
            "leave out --namespace, or the resource's own",
        ),
        None => (
            format!("{} is not namespaced", resource.kind()),
            "leave out --namespace",
        ),
        Some(_) => return,
    };
    let problem = Fault::new("metadata.namespace", reason, remedy).at(origin.clone());
    given.entry.outcome = Err(vec![Refusal {
        problem,
        value: None,
    }]);
}

/// The kind that a user means: in singular, plural or short form, in any case.
pub(super) fn kind(name: &str) -> Result<Kind, String> {
    let lower = name.to_lowercase();
    let lower = lower.strip_suffix(".projectcalico.org").unwrap_or(&lower);
    let found = Kind::of_people().find(|kind| {
        let names = [kind.name().to_lowercase(), kind.plural().to_owned()];
        names.iter().any(|name| name == lower) || kind.short_names().contains(&lower)
    });
    found.ok_or_else(|| {
        let known: Vec<&str> = Kind::of_people().map(Kind::name).collect();
        format!(
            "resource type '{name}' is not supported; write one of {}",
            known.join(", ")
        )
    })
}
