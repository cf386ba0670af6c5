//! Writers of a directory that are killed while they write.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use underpass::datastore::{Datastore, Directory, Selection};
use underpass::resources::{Kind, Resource};

use super::contract::key;

/// Resources of each writer, and how often one is killed.
const RESOURCES: usize = 60;
const KILLS: u32 = 24;

/// Nodes whose labels all say who wrote them.
fn documents(writer: usize, round: u32) -> String {
    (0..RESOURCES)
        .map(|number| {
            format!(
                "---\n# node {number}\napiVersion: projectcalico.org/v3\nkind: Node\n\
                 metadata: {{name: n{number}, labels: {{round: r{round}, writer: w{writer}, \
                 same: r{round}}}}}\n"
            )
        })
        .collect()
}

fn apply(store: &Path, file: &Path) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_underpass"))
        .args(["apply", "--datastore"])
        .arg(store)
        .arg("-f")
        .arg(file)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Two writers at a time, one of which is killed wherever it is just then. Whatever it was doing, every
/// document is whole, of one writer's one round, and the next writer is not held up.
#[test]
fn a_writer_that_is_killed_leaves_whole_documents_and_no_lock() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    fs::create_dir(&store).unwrap();
    // All in one file, which every write replaces.
    fs::write(store.join("nodes.yaml"), documents(0, 0)).unwrap();
    let directory = Directory::new(&store);
    let mut half_done = 0;
    for round in 1..=KILLS {
        let [file, other] = [0, 1].map(|writer| {
            let file = root.path().join(format!("{writer}.yaml"));
            fs::write(&file, documents(writer, round)).unwrap();
            file
        });
        let mut killed = apply(&store, &file);
        let mut spared = apply(&store, &other);
        // One of them writes; how far it comes is as it happens.
        let began = Instant::now();
        let mine = format!("round: r{round}");
        while !fs::read_to_string(store.join("nodes.yaml"))
            .unwrap()
            .contains(&mine)
        {
            assert!(began.elapsed() < Duration::from_secs(20), "nobody writes");
            thread::sleep(Duration::from_micros(200));
        }
        thread::sleep(Duration::from_micros(u64::from(round) * 300));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let rounds = whole_rounds(&directory);
        half_done += u32::from(rounds.windows(2).any(|pair| pair[0] != pair[1]));
        if round % 10 == 0 {
            assert!(spared.wait().unwrap().success());
        } else {
            spared.kill().unwrap();
            spared.wait().unwrap();
        }
    }
    println!("{half_done} of {KILLS} writers were killed between two of their writes");
    assert!(half_done > 0, "no writer was killed while it wrote");

    // A lock that nobody gives back is an error in the end.
    let file = root.path().join("last.yaml");
    fs::write(&file, documents(2, 1000)).unwrap();
    assert!(apply(&store, &file).wait().unwrap().success());
    assert_eq!(
        whole_rounds(&directory),
        vec!["r1000".to_owned(); RESOURCES]
    );
    let mut left: Vec<_> = fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".lock", "nodes.yaml"]);
}

/// The round that wrote each document, all of which must be there and whole.
fn whole_rounds(directory: &Directory) -> Vec<String> {
    let list = directory.list(&Selection::kind(Kind::Node)).unwrap();
    assert_eq!(list.problems, []);
    assert_eq!(list.items.len(), RESOURCES);
    (0..RESOURCES)
        .map(|number| {
            let Resource::Node(node) = &list.items[&key(Kind::Node, &format!("n{number}"))].0
            else {
                unreachable!()
            };
            let labels = &node.metadata.labels;
            assert_eq!(labels["round"], labels["same"], "half of a document");
            labels["round"].clone()
        })
        .collect()
}
