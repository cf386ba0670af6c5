//! A report read from its file.

use serde::Deserialize;
use serde_json::Value;

use super::{FORMAT, Report};
use crate::bench::systems::System;

impl Report {
    /// Reads the text of a file. Systems that this version does not know are left out, with a note. An
    /// error says what the text is instead, and which version wrote it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut value: Value =
            serde_json::from_str(text).map_err(|error| format!("not a bench's JSON: {error}"))?;
        let format = value.get("format").and_then(Value::as_u64);
        let format = format.ok_or("not a bench's JSON: it has no 'format'")?;
        let version = value.get("version").and_then(Value::as_str);
        let version = version.unwrap_or("of an unknown version").to_owned();
        if format != u64::from(FORMAT) {
            return Err(format!(
                "of format {format}, written by underpass {version}; this version reads {FORMAT}"
            ));
        }
        let mut unknown: Vec<String> = Vec::new();
        for cells in ["cells", "tcp"] {
            let Some(Value::Array(cells)) = value.get_mut(cells) else {
                continue;
            };
            cells.retain(|cell| match unknown_system(cell) {
                Some(name) => {
                    unknown.push(name);
                    false
                }
                None => true,
            });
        }
        let mut report: Self = serde_json::from_value(value)
            .map_err(|error| format!("cannot read what underpass {version} wrote: {error}"))?;
        unknown.sort();
        unknown.dedup();
        let notes = unknown.into_iter().map(|name| {
            format!(
                "{name} left out: underpass {version} measured it, this version does not know it"
            )
        });
        report.notes.extend(notes);
        Ok(report)
    }
}

fn unknown_system(cell: &Value) -> Option<String> {
    let system = cell.get("system")?;
    match System::deserialize(system) {
        Ok(_) => None,
        Err(_) => system.as_str().map(str::to_owned),
    }
}
