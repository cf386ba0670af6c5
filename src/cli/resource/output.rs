//! How `get` shows resources: calicoctl's tables, YAML, JSON, names.

use serde_json::{Value, json};

use super::columns::{Context, cell, extra, headings};
use crate::resources::{API_VERSION, Kind, Resource};

/// How resources are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A table of the main columns.
    Ps,
    /// A table of more columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// `kind/name`, a line each.
    Name,
    /// A table of these columns.
    Columns(Vec<String>),
}

/// What was asked for.
pub(super) enum Found {
    /// One resource.
    One(Box<Resource>),
    /// All resources of a kind, in order.
    All(Kind, Vec<Resource>),
}

/// Reads what `-o` is given.
pub fn output(text: &str) -> Result<Output, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match (name, value) {
        ("ps", "") => Ok(Output::Ps),
        ("wide", "") => Ok(Output::Wide),
        ("yaml" | "yml", "") => Ok(Output::Yaml),
        ("json", "") => Ok(Output::Json),
        ("name", "") => Ok(Output::Name),
        ("custom-columns", "") => Err("need to specify at least one column".to_owned()),
        ("custom-columns", columns) => {
            let columns = columns
                .split(',')
                .map(|column| column.trim().to_uppercase());
            Ok(Output::Columns(columns.collect()))
        }
        ("go-template" | "go-template-file", _) => Err(format!(
            "{name} is not built in; write json, and have a program such as jq pick what you need"
        )),
        _ => Err(format!("unrecognized output format '{text}'")),
    }
}

/// What is printed.
pub(super) fn render(
    found: &[Found],
    output: &Output,
    namespaces: bool,
    context: &Context,
) -> Result<String, String> {
    match output {
        Output::Ps => tables(found, false, None, namespaces, context),
        Output::Wide => tables(found, true, None, namespaces, context),
        Output::Columns(columns) => tables(found, true, Some(columns), false, context),
        Output::Name => Ok(names(found)),
        Output::Json => {
            let value = document(found)?;
            let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
            Ok(format!("{text}\n"))
        }
        Output::Yaml => yaml(&document(found)?),
    }
}

/// A value as YAML.
pub(super) fn yaml(value: &Value) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}

fn resources(found: &Found) -> &[Resource] {
    match found {
        Found::One(resource) => std::slice::from_ref(resource),
        Found::All(_, resources) => resources,
    }
}

fn names(found: &[Found]) -> String {
    let lines = found.iter().flat_map(resources).map(|resource| {
        let kind = resource.kind().name().to_lowercase();
        format!("{kind}/{}\n", resource.metadata().name)
    });
    lines.collect()
}

/// One document: the resource, the list, or an array of them.
fn document(found: &[Found]) -> Result<Value, String> {
    let mut values = found
        .iter()
        .map(|found| match found {
            Found::One(resource) => to_value(resource),
            Found::All(kind, resources) => {
                let items: Result<Vec<Value>, String> = resources.iter().map(to_value).collect();
                Ok(json!({
                    "apiVersion": API_VERSION,
                    "kind": format!("{kind}List"),
                    "metadata": {},
                    "items": items?,
                }))
            }
        })
        .collect::<Result<Vec<Value>, String>>()?;
    match values.len() {
        1 => Ok(values.remove(0)),
        _ => Ok(Value::Array(values)),
    }
}

/// A resource as a JSON value.
pub(super) fn to_value(resource: &Resource) -> Result<Value, String> {
    serde_json::to_value(resource).map_err(|error| error.to_string())
}

/// One table for each thing that was asked for, with an empty line after it.
fn tables(
    found: &[Found],
    wide: bool,
    columns: Option<&[String]>,
    namespaces: bool,
    context: &Context,
) -> Result<String, String> {
    let mut text = String::new();
    for found in found {
        let kind = match found {
            Found::One(resource) => resource.kind(),
            Found::All(kind, _) => *kind,
        };
        let mut columns: Vec<&str> = match columns {
            Some(columns) => columns.iter().map(String::as_str).collect(),
            None => headings(kind, wide).to_vec(),
        };
        if namespaces && kind.namespaced() {
            columns.insert(0, "NAMESPACE");
        }
        let mut rows = vec![
            columns
                .iter()
                .map(|heading| (*heading).to_owned())
                .collect(),
        ];
        for resource in resources(found) {
            let row = columns.iter().map(|heading| {
                cell(resource, heading, context).ok_or_else(|| unknown(kind, heading))
            });
            rows.push(row.collect::<Result<Vec<String>, String>>()?);
        }
        for heading in &columns {
            let known = headings(kind, true).iter().chain(headings(kind, false));
            if !known
                .chain(extra(kind))
                .chain(&["NAME"])
                .any(|known| known == heading)
            {
                return Err(unknown(kind, heading));
            }
        }
        text.push_str(&aligned(&rows));
        text.push('\n');
    }
    Ok(text)
}

fn unknown(kind: Kind, heading: &str) -> String {
    let mut known: Vec<&str> = headings(kind, true).to_vec();
    known.extend(extra(kind));
    format!(
        "Unknown heading {heading}, valid values are: {}",
        known.join(", ")
    )
}

/// As Go's tabwriter does it for calicoctl: cells of at least five characters, three of them spaces,
/// after the last column, too.
fn aligned(rows: &[Vec<String>]) -> String {
    const PADDING: usize = 3;
    const LEAST: usize = 5;
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let longest = rows.iter().map(|row| row[column].chars().count()).max();
            (longest.unwrap_or(0) + PADDING).max(LEAST)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push('\n');
    }
    text
}
