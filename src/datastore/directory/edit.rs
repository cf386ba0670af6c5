//! Changes of single documents in a file's text; everything else in it stays as it is.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use super::patch::patch;
use crate::resources::load::{self, Document};
use crate::resources::{Resource, ResourceKey};

/// The text with a resource's document in it, in place of the one that was there. If there is none
/// yet, it comes last; in the resource's `own` file, it takes the place of what cannot be read.
pub(super) fn put(
    text: &str,
    resource: &Resource,
    json: bool,
    own: bool,
) -> Result<String, String> {
    let documents = load::outline(text);
    let key = resource.key();
    let changed = match documents
        .iter()
        .find(|document| document.keys.contains(&key))
    {
        Some(document) if document.list => replace_in_list(text, document, resource, json)?,
        Some(document) => replace_document(text, document, resource, json)?,
        None if documents.is_empty() || (own && all_broken(&documents)) => emit(resource, json)?,
        None if json => return Err("a JSON file has room for one document only".to_owned()),
        None => append(text, resource)?,
    };
    match reads_back(&changed, resource) {
        true => Ok(changed),
        false => Err("what would be written does not read back the same".to_owned()),
    }
}

/// The text without a resource's documents, or nothing if that leaves nothing.
pub(super) fn remove(text: &str, key: &ResourceKey) -> Result<Option<String>, String> {
    let mut left = text.to_owned();
    for document in load::outline(text).iter().rev() {
        if !document.keys.contains(key) {
            continue;
        }
        let rest = match document.list {
            true => rest_of_list(&text[document.range.clone()], key)?,
            false => String::new(),
        };
        left.replace_range(document.range.clone(), &rest);
    }
    let nothing = |line: &str| matches!(line.trim(), "" | "---" | "...");
    Ok((!left.lines().all(nothing)).then_some(left))
}

fn replace_document(
    text: &str,
    document: &Document,
    resource: &Resource,
    json: bool,
) -> Result<String, String> {
    let before = &text[document.range.clone()];
    if !json && let Some(patched) = patched(before, resource) {
        return Ok(splice(text, &document.range, &patched));
    }
    let body = body(before);
    let mut new = emit(resource, json)?;
    if !before[..body.start].contains("---") && document.range.start > 0 {
        // The marker's line held the document, too.
        new.insert_str(0, "---\n");
    }
    let (head, tail) = (&before[..body.start], &before[body.end..]);
    Ok(splice(text, &document.range, &format!("{head}{new}{tail}")))
}

/// The document with only those values changed that are others, if that can be done.
fn patched(document: &str, resource: &Resource) -> Option<String> {
    let mut before = load::parse(Path::new(""), document).resources;
    let (mut old, _) = before.pop().filter(|_| before.is_empty())?;
    old.metadata_mut().resource_version = None;
    let value = |resource: &Resource| serde_json::to_value(resource).ok();
    let patched = patch(document, &value(&old)?, &value(resource)?)?;
    reads_back(&patched, resource).then_some(patched)
}

/// A list becomes documents of their own, for a list's comments are nobody's; or stays one in JSON.
fn replace_in_list(
    text: &str,
    document: &Document,
    resource: &Resource,
    json: bool,
) -> Result<String, String> {
    let key = resource.key();
    let mut items = items(&text[document.range.clone()], document.keys.len())?;
    for item in &mut items {
        if item.key() == key {
            *item = resource.clone();
        }
    }
    let new = if json {
        emit_list(&items)?
    } else {
        emit_all(&items)?
    };
    Ok(splice(text, &document.range, &new))
}

fn rest_of_list(chunk: &str, key: &ResourceKey) -> Result<String, String> {
    let count = load::outline(chunk)
        .first()
        .map_or(0, |list| list.keys.len());
    let mut items = items(chunk, count)?;
    items.retain(|item| item.key() != *key);
    if items.is_empty() {
        return Ok(String::new());
    }
    match chunk.trim_start().starts_with('{') {
        true => emit_list(&items),
        false => emit_all(&items),
    }
}

/// A list's resources, if all of them are in order: none may be lost by writing the others again.
fn items(chunk: &str, count: usize) -> Result<Vec<Resource>, String> {
    let parsed = load::parse(Path::new(""), chunk);
    if let Some(problem) = parsed.problems.first() {
        let reason = &problem.reason;
        return Err(format!(
            "it is in a list with another fault ({reason}); mend that first"
        ));
    }
    if parsed.resources.len() != count {
        return Err("it is in a list that names a resource twice; remove one".to_owned());
    }
    Ok(parsed
        .resources
        .into_iter()
        .map(|(resource, _)| resource)
        .collect())
}

fn append(text: &str, resource: &Resource) -> Result<String, String> {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text + "---\n" + &emit(resource, false)?)
}

fn splice(text: &str, range: &Range<usize>, new: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range.clone(), new);
    text
}

/// The part of a document that is not the comments, blank lines and marker before and after it.
fn body(chunk: &str) -> Range<usize> {
    let beside = |line: &str| {
        let line = line.trim_end();
        line.is_empty() || line.trim_start().starts_with('#')
    };
    let before = |line: &str| {
        let marker = line.trim_end();
        let rest = marker.strip_prefix("---").map(str::trim_start);
        beside(line)
            || line.starts_with('%')
            || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    };
    let lines = || chunk.split_inclusive('\n');
    let start = lines().take_while(|line| before(line)).map(str::len).sum();
    // Lines are not told to be comments inside of a text block; there, they are indented.
    let after = |line: &&str| beside(line) && !line.starts_with([' ', '\t']);
    let tail: usize = lines().rev().take_while(after).map(str::len).sum();
    start..(chunk.len() - tail).max(start)
}

fn all_broken(documents: &[Document]) -> bool {
    documents.iter().all(|document| document.keys.is_empty())
}

fn reads_back(text: &str, resource: &Resource) -> bool {
    let parsed = load::parse(Path::new(""), text);
    let mut read = parsed.resources.iter().map(|(read, _)| read);
    read.any(|read| read == resource)
}

fn emit(resource: &Resource, json: bool) -> Result<String, String> {
    if json {
        let text = serde_json::to_string_pretty(resource).map_err(|error| error.to_string())?;
        return Ok(text + "\n");
    }
    let text = serde_saphyr::to_string(resource).map_err(|error| error.to_string())?;
    Ok(text.trim_end().to_owned() + "\n")
}

fn emit_all(resources: &[Resource]) -> Result<String, String> {
    let mut text = String::new();
    for resource in resources {
        let _ = write!(text, "---\n{}", emit(resource, false)?);
    }
    Ok(text)
}

fn emit_list(resources: &[Resource]) -> Result<String, String> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": resources});
    let text = serde_json::to_string_pretty(&list).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}
