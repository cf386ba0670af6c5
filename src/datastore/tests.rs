//! The directory, by real files and the kernel's own events.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Datastore, Directory, Selection, Update, Watch};
use crate::resources::{ClusterState, Name};

/// A directory, a watch of it, and what a reader of the updates has made of them.
struct Reader {
    root: TempDir,
    watch: Watch,
    state: ClusterState,
    problems: Vec<String>,
    /// Updates in short, as they came.
    log: Vec<String>,
}

impl Reader {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        for (name, text) in files {
            fs::write(root.path().join("d").join(name), text).unwrap();
        }
        let watch = Directory::new(root.path().join("d"))
            .watch(&Selection::resources(), None)
            .unwrap();
        let mut reader = Self {
            root,
            watch,
            state: ClusterState::default(),
            problems: Vec::new(),
            log: Vec::new(),
        };
        reader.sync();
        reader
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("d").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Reads updates until the next in-sync.
    fn sync(&mut self) {
        let updates = self.watch.updates();
        loop {
            let update = updates
                .recv_timeout(Duration::from_secs(10))
                .unwrap_or_else(|_| panic!("no update after {:?}", self.log));
            match update {
                Update::Put { resource, .. } => {
                    self.log.push(format!("put {}", resource.key()));
                    self.state.put(*resource);
                }
                Update::Delete(key) => {
                    self.log.push(format!("delete {key}"));
                    assert!(self.state.delete(&key));
                }
                Update::Problems(problems) => {
                    self.problems = problems.iter().map(ToString::to_string).collect();
                }
                Update::InSync => return,
            }
        }
    }

    /// That nothing comes for a while.
    fn is_quiet(&self) -> bool {
        let updates = self.watch.updates();
        updates.recv_timeout(Duration::from_millis(400)).is_err()
    }

    fn nodes(&self) -> Vec<&str> {
        self.state.nodes.keys().map(|name| name.as_str()).collect()
    }

    fn cidr(&self, pool: &str) -> String {
        let name: Name = pool.parse().unwrap();
        self.state.pools[&name].cidr().to_string()
    }
}

fn node(name: &str) -> String {
    format!("---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\n")
}

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: {cidr}}}\n"
    )
}

#[test]
fn files_come_change_and_go() {
    let mut reader = Reader::new(&[("a.yaml", &node("a"))]);
    assert_eq!(reader.nodes(), ["a"]);
    reader.write("b.yml", &(node("b") + &node("c")));
    reader.sync();
    assert_eq!(reader.nodes(), ["a", "b", "c"]);
    reader.write("b.yml", &(node("c") + &node("d")));
    reader.sync();
    assert_eq!(reader.nodes(), ["a", "c", "d"]);
    fs::remove_file(reader.path("b.yml")).unwrap();
    reader.sync();
    assert_eq!(reader.nodes(), ["a"]);
    let expected = [
        "put Node(a)",
        "put Node(b)",
        "put Node(c)",
        "put Node(d)",
        "delete Node(b)",
        "delete Node(c)",
        "delete Node(d)",
    ];
    assert_eq!(reader.log, expected);
}

/// As most editors save: a new file beside, then a rename over the old one.
#[test]
fn a_rename_over_a_file_is_a_change() {
    let mut reader = Reader::new(&[("a.yaml", &pool("p", "10.0.0.0/16"))]);
    reader.write(".a.yaml.swp", "never read");
    reader.write("a.yaml~", "never read");
    reader.write("4913", "never read");
    fs::create_dir(reader.path("sub.yaml")).unwrap();
    let beside = reader.root.path().join("new");
    fs::write(&beside, pool("p", "10.1.0.0/16")).unwrap();
    fs::rename(&beside, reader.path("a.yaml")).unwrap();
    reader.sync();
    assert_eq!(reader.cidr("p"), "10.1.0.0/16");
    assert_eq!(reader.problems, [""; 0]);
    fs::rename(reader.path("a.yaml"), reader.path("b.yaml")).unwrap();
    assert!(
        reader.is_quiet(),
        "the resource is the same under another name"
    );
}

#[test]
fn a_broken_file_keeps_what_it_last_said() {
    let mut reader = Reader::new(&[("a.yaml", &(node("a") + &pool("p", "10.0.0.0/16")))]);
    reader.write("a.yaml", &(node("b") + &pool("p", "10.0.0.1/16")));
    reader.sync();
    assert_eq!(reader.nodes(), ["a", "b"]);
    assert_eq!(reader.cidr("p"), "10.0.0.0/16");
    assert_eq!(reader.problems.len(), 1);
    assert!(
        reader.problems[0].ends_with(
            "a.yaml:9:14: spec.cidr: '10.0.0.1/16' is not strictly masked; write 10.0.0.0/16"
        ),
        "{:?}",
        reader.problems
    );
    reader.write("a.yaml", &(node("b") + &pool("p", "10.1.0.0/16")));
    reader.sync();
    assert_eq!(reader.nodes(), ["b"]);
    assert_eq!(reader.cidr("p"), "10.1.0.0/16");
    assert_eq!(reader.problems, [""; 0]);
}

#[test]
fn one_name_in_two_files_is_a_problem_that_names_both() {
    let mut reader = Reader::new(&[("b.yaml", &pool("p", "10.0.0.0/16"))]);
    reader.write("a.yaml", &pool("p", "10.1.0.0/16"));
    reader.sync();
    assert_eq!(reader.cidr("p"), "10.0.0.0/16", "what is in effect stays");
    assert_eq!(reader.problems.len(), 1);
    let problem = &reader.problems[0];
    assert!(
        problem.contains("/a.yaml:2:1: metadata.name: IPPool(p)"),
        "{problem}"
    );
    assert!(problem.contains("/b.yaml:2:1"), "{problem}");
    fs::remove_file(reader.path("b.yaml")).unwrap();
    reader.sync();
    assert_eq!(reader.cidr("p"), "10.1.0.0/16");
    assert_eq!(reader.problems, [""; 0]);
}

#[test]
fn a_pool_that_overlaps_another_changes_nothing() {
    let mut reader = Reader::new(&[
        ("a.yaml", &pool("a", "10.0.0.0/16")),
        ("b.yaml", &pool("b", "10.1.0.0/16")),
    ]);
    reader.write("a.yaml", &pool("a", "10.1.128.0/17"));
    reader.sync();
    assert_eq!(reader.cidr("a"), "10.0.0.0/16");
    assert_eq!(reader.cidr("b"), "10.1.0.0/16");
    assert!(
        reader.problems[0]
            .contains("IPPool(a) CIDR overlaps with IPPool(b) CIDR 10.1.0.0/16; give"),
        "{:?}",
        reader.problems
    );
    let fresh = Directory::new(reader.root.path().join("d")).load();
    assert_eq!(fresh.resources.len(), 1);
    assert_eq!(fresh.problems.len(), 1);
}

#[test]
fn a_directory_that_goes_away_leaves_its_resources_until_it_is_back() {
    let mut reader = Reader::new(&[("a.yaml", &node("a"))]);
    let path = reader.root.path().join("d");
    fs::remove_dir_all(&path).unwrap();
    reader.sync();
    assert_eq!(reader.nodes(), ["a"]);
    assert!(
        reader.problems[0].contains("directory cannot be read"),
        "{:?}",
        reader.problems
    );
    fs::create_dir(&path).unwrap();
    fs::write(path.join("b.yaml"), node("b")).unwrap();
    while reader.nodes() != ["b"] {
        reader.sync();
    }
    assert_eq!(reader.problems, [""; 0]);
    // The new directory is watched as well.
    reader.write("c.yaml", &node("c"));
    reader.sync();
    assert_eq!(reader.nodes(), ["b", "c"]);
}

#[test]
fn a_directory_that_is_swapped_for_another_is_seen() {
    let mut reader = Reader::new(&[("a.yaml", &node("a"))]);
    let path = reader.root.path().join("d");
    let other = reader.root.path().join("e");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.yaml"), node("b")).unwrap();
    fs::rename(&path, reader.root.path().join("old")).unwrap();
    fs::rename(&other, &path).unwrap();
    while reader.nodes() != ["b"] {
        reader.sync();
    }
}

/// A mounted ConfigMap: the files are links through `..data`, which is renamed over.
#[test]
fn a_swap_of_kubernetes_data_link_is_a_change() {
    let mut reader = Reader::new(&[]);
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(Path::new(to), reader.path(name)).unwrap();
    };
    for version in ["..1", "..2"] {
        fs::create_dir(reader.path(version)).unwrap();
    }
    fs::write(reader.path("..1").join("a.yaml"), node("a")).unwrap();
    fs::write(reader.path("..2").join("a.yaml"), node("b")).unwrap();
    link("..1", "..data");
    link("..data/a.yaml", "a.yaml");
    reader.sync();
    assert_eq!(reader.nodes(), ["a"]);
    std::os::unix::fs::symlink("..2", reader.path("..tmp")).unwrap();
    fs::rename(reader.path("..tmp"), reader.path("..data")).unwrap();
    reader.sync();
    assert_eq!(reader.nodes(), ["b"]);
}

#[test]
fn a_burst_is_told_at_once() {
    let mut reader = Reader::new(&[]);
    for i in 0..200 {
        reader.write(&format!("{i}.yaml"), &node(&format!("n{i}")));
    }
    reader.sync();
    while reader.nodes().len() < 200 {
        reader.sync();
    }
    let began = Instant::now();
    for i in 0..50 {
        reader.write("0.yaml", &pool("p", &format!("10.{i}.0.0/16")));
    }
    let mut syncs = 0;
    loop {
        reader.sync();
        syncs += 1;
        if reader.state.pools.len() == 1 && reader.cidr("p") == "10.49.0.0/16" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(syncs < 10, "{syncs} for fifty writes");
}

#[test]
fn a_missing_directory_is_refused_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let problem = Directory::new(root.path().join("none"))
        .watch(&Selection::resources(), None)
        .unwrap_err();
    assert!(
        problem
            .to_string()
            .contains("/none: the datastore's directory cannot be read")
    );
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(
        Directory::new(&file)
            .watch(&Selection::resources(), None)
            .is_err()
    );
}

#[test]
fn a_dropped_watch_ends_even_while_nobody_reads() {
    let root = tempfile::tempdir().unwrap();
    let text: String = (0..3000).map(|i| node(&format!("n{i}"))).collect();
    fs::write(root.path().join("many.yaml"), text).unwrap();
    let watch = Directory::new(root.path())
        .watch(&Selection::resources(), None)
        .unwrap();
    let updates = watch.updates();
    assert!(matches!(updates.recv(), Ok(Update::Put { .. })));
    // More wait than the channel holds; the thread is stuck until someone reads, or stops it.
    drop(watch);
    let rest = updates.iter().count();
    assert!(rest < 3000, "{rest}");
}

#[test]
fn what_is_not_utf8_is_told_with_its_place() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.yaml"), b"apiVersion: x\nki\xffnd: y\n").unwrap();
    let listing = Directory::new(root.path()).load();
    assert!(
        listing.problems[0]
            .to_string()
            .ends_with("a.yaml:2:3: is not UTF-8 here; save the file as UTF-8"),
        "{:?}",
        listing.problems
    );
}
