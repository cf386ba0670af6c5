//! Files of resources: many documents, lists, YAML or JSON.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::yaml::{Content, Tree, documents, located_documents};
use super::{API_VERSION, Fault, Kind, Name, Origin, Position, Problem, Resource, ResourceKey};

/// What a file holds: every document is either a resource or has problems, and none hides another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The resources that are in order, with the place where each begins.
    pub resources: Vec<(Resource, Origin)>,
    /// What is wrong with the others.
    pub problems: Vec<Problem>,
    /// Whether the file is there but could not be read just now: too many files are open, a disk
    /// fails, rights are missing. It may be readable later.
    pub unreadable: bool,
}

/// A document of a file, in the file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// Where it is, in bytes; its `---` and the comments before it are part of it.
    pub range: Range<usize>,
    /// The resources that it says it is about, even if something is wrong with them.
    pub keys: Vec<ResourceKey>,
    /// Whether it is a list of resources.
    pub list: bool,
}

/// A resource in a file, or what is wrong with one.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The kind that it says it is of, if it is one.
    pub kind: Option<Kind>,
    /// The name that it says it has.
    pub name: Option<String>,
    /// The resource and the place where it begins, or what is wrong with it.
    pub outcome: Result<(Resource, Origin), Vec<Refusal>>,
}

/// What is wrong with a field, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub problem: Problem,
    /// The field's value, if it has one that fits into a line.
    pub value: Option<String>,
}

/// The largest file that is read, in bytes: a typing error must not fill the memory.
const FILE_MAX: u64 = 64 << 20;

/// Reads a file of resources. A file that cannot be read is a problem, too.
pub fn read(file: &Path) -> Parsed {
    match try_read(file) {
        Ok(text) => parse(file, &text),
        Err((problem, cause)) => Parsed {
            resources: Vec::new(),
            problems: vec![problem],
            unreadable: cause.is_some_and(|cause| cause != ErrorKind::NotFound),
        },
    }
}

/// The documents of a text, without empty ones.
pub(crate) fn outline(text: &str) -> Vec<Document> {
    let mut outline = Vec::new();
    for (range, tree) in located_documents(text) {
        let Ok(tree) = tree else {
            outline.push(Document {
                range,
                keys: Vec::new(),
                list: false,
            });
            continue;
        };
        let kind = tree.get("kind").and_then(Tree::text);
        let items = tree.get("items").map(|items| &items.content);
        let (list, keys) = match (kind.and_then(|kind| kind.strip_suffix("List")), items) {
            (Some(of), Some(Content::Sequence(items))) => {
                let of = Kind::by_name(of);
                let keys = items.iter().filter_map(|item| claimed_key(item, of));
                (true, keys.collect())
            }
            _ => (false, claimed_key(&tree, None).into_iter().collect()),
        };
        outline.push(Document { range, keys, list });
    }
    outline
}

/// The key that a document says it has.
fn claimed_key(tree: &Tree, of: Option<Kind>) -> Option<ResourceKey> {
    let kind = match tree.get("kind").and_then(Tree::text) {
        Some(name) => Kind::by_name(name)?,
        None => of?,
    };
    let metadata = tree.get("metadata")?;
    let text = |field: &str| metadata.get(field).and_then(Tree::text);
    let namespace = match text("namespace").map(str::parse) {
        Some(namespace) => Some(namespace.ok()?),
        None => Some(Name::default_name()),
    };
    Some(ResourceKey {
        kind,
        namespace: namespace.filter(|_| kind.namespaced()),
        name: text("name")?.parse().ok()?,
    })
}

/// Reads the resources in a text; `file` is what it is called in problems.
pub fn parse(file: &Path, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for entry in entries(file, text, &Name::default_name()) {
        match entry.outcome {
            Ok(resource) => parsed.resources.push(resource),
            Err(refusals) => {
                let problems = refusals.into_iter().map(|refusal| refusal.problem);
                parsed.problems.extend(problems);
            }
        }
    }
    parsed
}

/// Reads the resources in a text one by one; those that name no namespace get the given one.
pub fn entries(file: &Path, text: &str, namespace: &Name) -> Vec<Entry> {
    let mut loader = Loader {
        file: file.into(),
        namespace,
        entries: Vec::new(),
    };
    for document in documents(text) {
        match document {
            Ok(tree) => loader.document(&tree),
            Err((position, fault)) => loader.refuse(None, vec![(position, fault)]),
        }
    }
    loader.entries
}

/// Reads a resource from its JSON form, as a datastore keeps it. Gives all that is wrong.
pub fn from_json(text: &[u8]) -> Result<Resource, Vec<Fault>> {
    let value = serde_json::from_slice(text).map_err(|error| {
        let reason = format!("not JSON: {error}");
        vec![Fault::new("", reason, "write the resource again")]
    })?;
    from_value(&value)
}

/// Reads a resource from a JSON value. Gives all that is wrong.
pub fn from_value(value: &serde_json::Value) -> Result<Resource, Vec<Fault>> {
    let faults = |faults: Faults| faults.into_iter().map(|(_, fault)| fault).collect();
    decode(&Tree::from(value), None, &Name::default_name()).map_err(faults)
}

/// A file's text, or why there is none.
pub(crate) fn read_text(file: &Path) -> Result<String, Problem> {
    try_read(file).map_err(|(problem, _)| problem)
}

/// The same, and what kept the kernel from reading it if that was the cause.
fn try_read(file: &Path) -> Result<String, (Problem, Option<ErrorKind>)> {
    let refused = |error: std::io::Error| {
        let problem = Problem::with_file(
            file,
            format!("cannot be read: {error}"),
            "give underpass a file that it may read",
        );
        (problem, Some(error.kind()))
    };
    let metadata = fs::metadata(file).map_err(refused)?;
    if !metadata.is_file() {
        let problem = Problem::with_file(file, "is no file", "write a YAML file");
        return Err((problem, None));
    }
    if metadata.len() > FILE_MAX {
        let problem = Problem::with_file(
            file,
            format!("has {} bytes", metadata.len()),
            format!("split it into files of at most {FILE_MAX} bytes"),
        );
        return Err((problem, None));
    }
    let bytes = fs::read(file).map_err(refused)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let position = end_of(&String::from_utf8_lossy(good));
        let origin = Origin {
            file: file.into(),
            position: Some(position),
        };
        let fault = Fault::new("", "is not UTF-8 here", "save the file as UTF-8");
        (fault.at(origin), None)
    })
}

/// The position after a text.
fn end_of(text: &str) -> Position {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let last = text.rsplit('\n').next().unwrap_or("");
    Position {
        line: count(text.matches('\n').count()) + 1,
        column: count(last.chars().count()) + 1,
    }
}

struct Loader<'a> {
    file: Arc<Path>,
    namespace: &'a Name,
    entries: Vec<Entry>,
}

impl Loader<'_> {
    fn refuse(&mut self, tree: Option<&Tree>, faults: Faults) {
        let refusals = faults.into_iter().map(|(position, fault)| {
            // A list's items are located from their own beginning.
            let own = fault
                .field
                .split_once("].")
                .filter(|_| fault.field.starts_with("items["));
            let field = own.map_or(fault.field.as_str(), |(_, field)| field);
            let value = tree.and_then(|tree| tree.at(field)).and_then(Tree::line);
            let problem = fault.at(self.origin(position));
            Refusal { problem, value }
        });
        let entry = Entry {
            kind: tree.and_then(|tree| Kind::by_name(tree.get("kind")?.text()?)),
            name: tree.and_then(|tree| tree.at("metadata.name")?.line()),
            outcome: Err(refusals.collect()),
        };
        self.entries.push(entry);
    }

    fn origin(&self, position: Position) -> Origin {
        Origin {
            file: Arc::clone(&self.file),
            position: Some(position),
        }
    }

    fn document(&mut self, tree: &Tree) {
        match tree.get("kind").and_then(Tree::text) {
            Some(kind) if kind.ends_with("List") => self.list(tree, kind),
            _ => self.resource(tree, "", None),
        }
    }

    /// `List` of anything, or a kind's own list whose items may leave their kind out.
    fn list(&mut self, tree: &Tree, kind: &str) {
        let of = match kind.strip_suffix("List").filter(|of| !of.is_empty()) {
            Some(name) => match known_kind(name) {
                Ok(of) => Some(of),
                Err(fault) => {
                    return self.refuse(Some(tree), vec![(tree.position_of("kind"), fault)]);
                }
            },
            None => None,
        };
        let Some(Content::Sequence(items)) = tree.get("items").map(|items| &items.content) else {
            let fault = Fault::new("items", "the list has no items", "write a list under items");
            return self.refuse(Some(tree), vec![(tree.position_of("items"), fault)]);
        };
        if let Content::Mapping(entries) = &tree.content {
            let fields = ["apiVersion", "kind", "metadata", "items"];
            for (key, _) in entries {
                if !fields.contains(&key.name.as_str()) {
                    let fault = Fault::new(key.name.as_str(), "unknown field", "remove it");
                    self.refuse(Some(tree), vec![(key.position, fault)]);
                }
            }
        }
        for (index, item) in items.iter().enumerate() {
            self.resource(item, &format!("items[{index}]."), of);
        }
    }

    fn resource(&mut self, tree: &Tree, path: &str, of: Option<Kind>) {
        match decode(tree, of, self.namespace) {
            Ok(resource) => {
                let entry = Entry {
                    kind: Some(resource.kind()),
                    name: Some(resource.metadata().name.to_string()),
                    outcome: Ok((resource, self.origin(tree.position))),
                };
                self.entries.push(entry);
            }
            Err(mut faults) => {
                for (_, fault) in &mut faults {
                    fault.field.insert_str(0, path);
                }
                self.refuse(Some(tree), faults);
            }
        }
    }
}

type Faults = Vec<(Position, Fault)>;

fn decode(tree: &Tree, of: Option<Kind>, namespace: &Name) -> Result<Resource, Faults> {
    let kind = kind_of(tree, of).map_err(|fault| vec![fault])?;
    let mut resource = Resource::decode(kind, tree).map_err(|fault| vec![fault])?;
    if kind.namespaced() && resource.metadata().namespace.is_none() {
        resource.metadata_mut().namespace = Some(namespace.clone());
    }
    let faults = resource.validate();
    if faults.is_empty() {
        return Ok(resource);
    }
    Err(faults
        .into_iter()
        .map(|fault| (tree.position_of(&fault.field), fault))
        .collect())
}

fn kind_of(tree: &Tree, of: Option<Kind>) -> Result<Kind, (Position, Fault)> {
    let wrong = |field: &str, reason: String, remedy: String| {
        (tree.position_of(field), Fault::new(field, reason, remedy))
    };
    if !matches!(tree.content, Content::Mapping(_)) {
        return Err(wrong(
            "",
            "this is no resource".into(),
            "write a mapping with apiVersion, kind, metadata and spec".into(),
        ));
    }
    match tree.get("apiVersion").map(Tree::text) {
        Some(Some(API_VERSION)) => {}
        None if of.is_some() => {}
        Some(Some(other)) => {
            let reason = format!("'{other}' is not the version of any resource here");
            return Err(wrong("apiVersion", reason, format!("write {API_VERSION}")));
        }
        _ => {
            let reason = "the field is missing or no text".into();
            return Err(wrong("apiVersion", reason, format!("write {API_VERSION}")));
        }
    }
    match (tree.get("kind").map(Tree::text), of) {
        (Some(Some(name)), _) => {
            known_kind(name).map_err(|fault| (tree.position_of("kind"), fault))
        }
        (None, Some(kind)) => Ok(kind),
        _ => Err(wrong(
            "kind",
            "the field is missing or no text".into(),
            format!("write one of {}", kind_names()),
        )),
    }
}

fn known_kind(name: &str) -> Result<Kind, Fault> {
    Kind::by_name(name).ok_or_else(|| {
        let near = Kind::ALL
            .iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name));
        let remedy = match near {
            Some(kind) => format!("write {kind}"),
            None => format!("write one of {}", kind_names()),
        };
        Fault::new("kind", format!("unknown kind '{name}'"), remedy)
    })
}

fn kind_names() -> String {
    let names: Vec<&str> = Kind::of_people().map(Kind::name).collect();
    names.join(", ")
}
