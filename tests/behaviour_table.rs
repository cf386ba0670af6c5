//! The table in `perf/behaviour.md` names tests that exist.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_tables_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("perf/behaviour.md")).unwrap();
    let mut sources = Vec::new();
    collect(&root.join("src"), &mut sources);
    collect(&root.join("tests"), &mut sources);
    let tests: BTreeSet<_> = sources.iter().flat_map(tests_of).collect();
    let rows: Vec<_> = table.lines().filter_map(last_cell).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        let named: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(
            !named.is_empty() || row == "none",
            "a row without a test: {row}"
        );
        missing.extend(named.into_iter().filter(|name| !tests.contains(*name)));
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// The last cell of a row with seven, unless it is a heading's.
fn last_cell(line: &str) -> Option<&str> {
    let cells: Vec<_> = line
        .strip_prefix("| ")?
        .strip_suffix(" |")?
        .split(" | ")
        .collect();
    assert_eq!(cells.len(), 7, "{line}");
    cells.last().copied().filter(|cell| *cell != "test")
}

/// The functions that follow a `#[test]`, proptest's among them.
fn tests_of(path: impl AsRef<Path>) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let functions = text.split("#[test]").skip(1).filter_map(|rest| {
        let (_, rest) = rest.split_once("fn ")?;
        rest.split_once('(').map(|(name, _)| name.to_owned())
    });
    functions.collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
