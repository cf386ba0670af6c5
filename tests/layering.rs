//! The shape of the source: arrows between modules point down, `unsafe` stays where it is needed,
//! files stay short enough to read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use, in the order in which a packet meets them. `src/lib.rs` draws the same
/// arrows for people, those that follow from others left out.
const MAY_USE: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("packet", &["wire"]),
    ("fib", &["wire"]),
    ("port", &["packet", "wire"]),
    ("forward", &["fib", "packet", "wire"]),
    ("worker", &["forward", "fib", "port", "packet", "wire"]),
    ("kernel", &["wire"]),
    ("resources", &["wire"]),
    ("datastore", &["resources", "wire"]),
    ("bgp", &["wire"]),
    ("ipam", &["datastore", "resources", "wire"]),
    (
        "observe",
        &["worker", "forward", "fib", "port", "packet", "wire"],
    ),
    (
        "control",
        &[
            "observe",
            "bgp",
            "ipam",
            "datastore",
            "resources",
            "kernel",
            "worker",
            "forward",
            "fib",
            "port",
            "packet",
            "wire",
        ],
    ),
    (
        "workload",
        &[
            "ipam",
            "datastore",
            "resources",
            "kernel",
            "forward",
            "wire",
        ],
    ),
    (
        "bench",
        &[
            "control",
            "observe",
            "datastore",
            "resources",
            "kernel",
            "worker",
            "port",
            "packet",
            "wire",
        ],
    ),
    (
        "doctor",
        &[
            "control",
            "observe",
            "datastore",
            "resources",
            "kernel",
            "port",
            "packet",
            "wire",
        ],
    ),
    (
        "cli",
        &[
            "doctor",
            "workload",
            "bench",
            "control",
            "observe",
            "ipam",
            "datastore",
            "resources",
            "kernel",
            "worker",
            "forward",
            "fib",
            "port",
            "packet",
            "wire",
        ],
    ),
];

/// Where `unsafe` may be: system calls and shared memory, the cell that workers read, and the pages of the
/// tables that they look up in.
const UNSAFE_IN: &[&str] = &[
    "port/",
    "fib/pages.rs",
    "worker/publish.rs",
    "worker/publish/",
];

/// Lines above which a file is too long, and above which it should be looked at.
const TOO_LONG: usize = 900;
const LONG: usize = 600;

#[test]
fn arrows_point_down() {
    let found: Vec<_> = sources()
        .iter()
        .flat_map(|(path, text)| upward(path, text))
        .collect();
    assert!(found.is_empty(), "upward arrows:\n{}", found.join("\n"));
}

#[test]
fn unsafe_is_where_it_is_needed() {
    let found: Vec<_> = sources()
        .iter()
        .flat_map(|(path, text)| misplaced(path, text))
        .collect();
    assert!(
        found.is_empty(),
        "`unsafe` outside {UNSAFE_IN:?}:\n{}",
        found.join("\n")
    );
}

#[test]
fn files_are_short_enough_to_read() {
    let mut too_long = Vec::new();
    for (path, text) in sources() {
        match text.lines().count() {
            lines if lines > TOO_LONG => too_long.push(format!("{path}: {lines} lines")),
            lines if lines > LONG => println!("warning: src/{path} has {lines} lines"),
            _ => {}
        }
    }
    assert!(
        too_long.is_empty(),
        "over {TOO_LONG} lines:\n{}",
        too_long.join("\n")
    );
}

#[test]
fn the_map_in_lib_rs_shows_these_modules_and_no_other_arrows() {
    let map = fs::read_to_string(root().join("lib.rs")).unwrap();
    let rows = map_rows(&map);
    let drawn: Vec<_> = rows.iter().map(|(module, _)| module.as_str()).collect();
    let known: Vec<_> = MAY_USE.iter().map(|(module, _)| *module).collect();
    assert_eq!(
        drawn, known,
        "modules of the table in src/lib.rs, and of this test"
    );
    for (module, cell) in &rows {
        let allowed = may_use(module).unwrap();
        for used in quoted(cell).iter().filter(|_| !cell.starts_with("all")) {
            assert!(
                allowed.contains(&used.as_str()),
                "src/lib.rs lets `{module}` use `{used}`"
            );
        }
    }
    let declared: BTreeSet<_> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(
        declared,
        known.into_iter().collect(),
        "modules that src/lib.rs declares"
    );
}

#[test]
fn each_arrow_of_this_test_points_down() {
    let mut below = BTreeSet::new();
    for (module, used) in MAY_USE {
        for used in *used {
            assert!(below.contains(used), "{module} → {used}");
        }
        below.insert(module);
    }
}

/// The upward arrows of one file, each as `path:line: …`.
fn upward(path: &str, text: &str) -> Vec<String> {
    let Some(allowed) = path.split('/').next().and_then(may_use) else {
        // The crate's roots, `lib.rs` and `main.rs`, stand above all modules.
        return match path {
            "lib.rs" | "main.rs" => Vec::new(),
            _ => vec![format!("{path}: a module that this test does not know")],
        };
    };
    let own = path.split('/').next().unwrap_or_default();
    let code = code_only(text);
    let mut found = Vec::new();
    for (offset, used) in crate_paths(&code)
        .into_iter()
        .chain(super_paths(&code, depth(path)))
    {
        let known = may_use(&used).is_some();
        if known && used != own && !allowed.contains(&used.as_str()) {
            let line = code[..offset].matches('\n').count() + 1;
            found.push(format!("{path}:{line}: {own} → {used}"));
        }
    }
    found
}

/// The first segments of all paths from the crate's root, with where they are.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate::", "underpass::"] {
        for (offset, _) in code
            .match_indices(root)
            .filter(|(offset, _)| starts_word(code, *offset))
        {
            let rest = &code[offset + root.len()..];
            found.extend(
                first_segments(rest)
                    .into_iter()
                    .map(|segment| (offset, segment)),
            );
        }
    }
    found
}

/// The first segments of all paths that climb to the crate's root by `super::` from a module
/// `depth` levels below it; a path that climbs less is within its own top-level module.
fn super_paths(code: &str, depth: usize) -> Vec<(usize, String)> {
    const UP: &str = "super::";
    let mut found = Vec::new();
    for (offset, _) in code
        .match_indices(UP)
        .filter(|(offset, _)| starts_word(code, *offset))
    {
        let mut rest = &code[offset..];
        let mut climbed = 0;
        while let Some(after) = rest.strip_prefix(UP) {
            (rest, climbed) = (after, climbed + 1);
        }
        let continues = code[..offset].ends_with(UP);
        if climbed >= depth && !continues {
            found.extend(
                first_segments(rest)
                    .into_iter()
                    .map(|segment| (offset, segment)),
            );
        }
    }
    found
}

/// `a::b` gives a; `{a::b, c::{d, e}}` gives a and c.
fn first_segments(path: &str) -> Vec<String> {
    let Some(group) = path.trim_start().strip_prefix('{') else {
        return word(path).into_iter().collect();
    };
    let (mut depth, mut start, mut segments) = (0usize, 0, Vec::new());
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                segments.extend(word(&group[start..offset]));
                start = offset + 1;
            }
            _ => {}
        }
        if c == '}' && depth == 0 && start == offset + 1 {
            break;
        }
    }
    segments
}

fn word(text: &str) -> Option<String> {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(|c| is_word(*c))
        .collect();
    (!word.is_empty()).then_some(word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn starts_word(code: &str, offset: usize) -> bool {
    !code[..offset].ends_with(is_word)
}

/// How many levels below the crate's root a file's module is.
fn depth(path: &str) -> usize {
    path.trim_end_matches("/mod.rs").split('/').count()
}

fn may_use(module: &str) -> Option<&'static [&'static str]> {
    MAY_USE
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, used)| *used)
}

/// The lines of one file that say `unsafe` where they may not.
fn misplaced(path: &str, text: &str) -> Vec<String> {
    if UNSAFE_IN
        .iter()
        .any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
    {
        return Vec::new();
    }
    let code = code_only(text);
    let says_unsafe = |line: &str| line.split(|c| !is_word(c)).any(|word| word == "unsafe");
    let lines = code.lines().zip(1..).filter(|(line, _)| says_unsafe(line));
    lines
        .map(|(_, number)| format!("{path}:{number}"))
        .collect()
}

/// The text with comments and the contents of literals replaced by spaces, line by line.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = not_code(rest, code.ends_with(is_word)).unwrap_or(0);
        let (skipped, after) = rest.split_at(length);
        code.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// The length of the comment or literal that `text` begins with.
fn not_code(text: &str, within_word: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if text.starts_with('"') {
        return Some(string(text));
    }
    if text.starts_with('\'') {
        return character(text);
    }
    if within_word {
        return None;
    }
    let raw = text.trim_start_matches('b').strip_prefix('r')?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    raw[hashes..].strip_prefix('"')?;
    let start = text.len() - raw.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(
        text[start..]
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((offset, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '"' => return offset + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; nothing for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        characters.next()?;
        return characters
            .find(|(_, c)| *c == '\'')
            .map(|(offset, _)| offset + 1);
    }
    let (offset, second) = characters.next()?;
    (second == '\'').then_some(offset + 1)
}

/// The rows of the table in `src/lib.rs`: module and "may use" cell.
fn map_rows(map: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let cells: Vec<_> = line
            .strip_prefix("//! | [`")?
            .split('|')
            .map(str::trim)
            .collect();
        let module = cells.first()?.strip_suffix("`]")?;
        Some((module.to_owned(), (*cells.get(2)?).to_owned()))
    };
    map.lines().filter_map(row).collect()
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// All Rust files below `src`, by path from there.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(
        found.len() > MAY_USE.len(),
        "too few files found: {found:?}"
    );
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

mod checker {
    //! The checker can fail.

    use super::*;

    #[test]
    fn an_upward_import_is_found_however_it_is_written() {
        for (path, text) in [
            ("port/tun.rs", "use crate::worker::run;"),
            (
                "port/tun.rs",
                "\nuse crate::{packet::Frame, worker::{a, b}};",
            ),
            (
                "port/tun.rs",
                "use crate::{\n    packet::{self, Frame},\n    worker,\n};",
            ),
            ("port/tun.rs", "fn f() { crate::worker::run::start() }"),
            (
                "port/tun.rs",
                "macro_rules! m { () => { $crate::worker::x() } }",
            ),
            ("port/tun.rs", "use super::super::worker;"),
            ("port/mod.rs", "use super::{packet, worker::run};"),
            (
                "port/tun.rs",
                "fn f() { let c = '\"'; } use crate::worker; // \"",
            ),
            (
                "port/tun.rs",
                "fn f<'a>(x: &'a str) {} use crate::worker::W; const C: char = 'a';",
            ),
        ] {
            let found = upward(path, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].ends_with(": port → worker"), "{found:?}");
        }
        let found = upward("wire/ipv4.rs", "//! x\n\nuse crate::packet::Frame;\n");
        assert_eq!(found, ["wire/ipv4.rs:3: wire → packet"]);
        assert_eq!(upward("extra/mod.rs", "").len(), 1);
    }

    #[test]
    fn downward_and_sideways_imports_pass() {
        for (path, text) in [
            (
                "port/tun.rs",
                "use crate::packet::Frame; use crate::port::Port; use super::worker;",
            ),
            (
                "port/tun.rs",
                "// use crate::worker;\n/* crate::worker /* x */ crate::cli */",
            ),
            (
                "port/tun.rs",
                "const A: &str = \"\\\"crate::worker\"; const B: &str = r#\"crate::cli\"#;",
            ),
            (
                "port/tun.rs",
                "use other_crate::worker; use some::superb::cli;",
            ),
            (
                "control/mod.rs",
                "use crate::{worker, observe::NodeView, kernel};",
            ),
            ("lib.rs", "pub mod cli; use crate::cli;"),
        ] {
            assert_eq!(upward(path, text), [""; 0], "{text}");
        }
    }

    #[test]
    fn misplaced_unsafe_is_found() {
        let text = "\nfn f() { unsafe { g() } }";
        assert_eq!(misplaced("forward/mod.rs", text), ["forward/mod.rs:2"]);
        assert_eq!(misplaced("worker/run.rs", text).len(), 1);
        assert_eq!(
            misplaced("portal/mod.rs", "unsafe impl Send for X {}").len(),
            1
        );
        for path in [
            "port/xdp/ring.rs",
            "worker/publish.rs",
            "worker/publish/quiescence.rs",
        ] {
            assert_eq!(misplaced(path, text), [""; 0], "{path}");
        }
        let text = "// unsafe\n#![deny(unsafe_code)] const A: &str = \"unsafe\";";
        assert_eq!(misplaced("forward/mod.rs", text), [""; 0]);
    }
}
