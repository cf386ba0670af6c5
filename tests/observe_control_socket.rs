//! The control socket with real clients: good, slow, dead and many.

mod observe_support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use observe_support::{FakeNode, TestPort};
use tempfile::TempDir;
use underpass::observe::NodeView;
use underpass::observe::control_socket::ControlSocket;
use underpass::observe::protocol::{EndReason, LinkType, Reply};

struct Lab {
    node: Arc<FakeNode>,
    path: PathBuf,
    server: ControlSocket,
    directory: TempDir,
}

fn lab() -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/worker1.sock");
    let node = Arc::new(FakeNode::new("worker1"));
    let server = ControlSocket::start(&path, node.clone()).unwrap();
    Lab {
        node,
        path,
        server,
        directory,
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, line: &str) -> Reply {
        writeln!(self.0.get_mut(), "{line}").unwrap();
        self.next().unwrap()
    }

    /// The next line, or nothing at the end.
    fn next(&mut self) -> Option<Reply> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).unwrap();
        (count > 0).then(|| serde_json::from_str(&line).unwrap())
    }
}

#[test]
fn one_connection_asks_several_questions() {
    let lab = lab();
    let mut client = Client::connect(&lab.path);
    assert_eq!(
        client.ask(r#"{"request":"routes"}"#),
        Reply::Routes(lab.node.routes())
    );
    assert_eq!(
        client.ask(r#"{"request":"counters"}"#),
        Reply::Counters(lab.node.counters())
    );
    assert_eq!(
        client.ask(r#"{"request":"status"}"#),
        Reply::Status(lab.node.status())
    );
    let Reply::Error(text) = client.ask(r#"{"request":"capture","ports":["eth0"]}"#) else {
        panic!("there is no port")
    };
    assert_eq!(text, "the node has no port to capture from");
}

#[test]
fn nonsense_is_answered_with_what_would_be_right() {
    let lab = lab();
    for bad in [
        "",
        "{",
        "routes",
        r#"{"request":"rout"}"#,
        "\u{0}\u{ff}",
        "[[[[",
    ] {
        let Reply::Error(text) = Client::connect(&lab.path).ask(bad) else {
            panic!("{bad}")
        };
        assert!(text.contains(r#"{"request":"routes"}"#), "{text}");
    }
    let mut client = Client::connect(&lab.path);
    let Reply::Error(text) = client.ask(&"x".repeat(65_600)) else {
        panic!()
    };
    assert!(text.contains("65536 bytes"), "{text}");
    let answer = Client::connect(&lab.path).ask(r#"{"request":"status"}"#);
    assert!(matches!(answer, Reply::Status(_)), "it still answers");
}

#[test]
fn the_socket_is_its_owners_and_goes_with_the_server() {
    let lab = lab();
    let mode = fs::metadata(&lab.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(lab.path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let mut idle = Client::connect(&lab.path);
    let before = Instant::now();
    drop(lab.server);
    assert!(
        before.elapsed() < Duration::from_secs(8),
        "{:?}",
        before.elapsed()
    );
    assert!(!lab.path.exists());
    assert_eq!(idle.next(), None);
    drop(lab.directory);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let lab = lab();
    let error = ControlSocket::start(&lab.path, lab.node.clone())
        .err()
        .unwrap()
        .to_string();
    let pid = format!("runs already (process {})", std::process::id());
    assert!(error.contains(&pid), "{error}");
    drop(lab.server);

    drop(UnixListener::bind(&lab.path).unwrap());
    assert!(lab.path.exists(), "what a killed process leaves");
    let server = ControlSocket::start(&lab.path, lab.node.clone()).unwrap();
    let answer = Client::connect(&lab.path).ask(r#"{"request":"status"}"#);
    assert!(matches!(answer, Reply::Status(_)));
    drop(server);

    fs::write(&lab.path, "notes").unwrap();
    let error = ControlSocket::start(&lab.path, lab.node.clone())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&lab.path).unwrap(), "notes");

    let long = lab.directory.path().join("x".repeat(200));
    let error = ControlSocket::start(&long, lab.node.clone())
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("cannot listen on "), "{error}");
}

#[test]
fn a_successors_socket_is_left_alone() {
    let lab = lab();
    fs::remove_file(&lab.path).unwrap();
    let successor = ControlSocket::start(&lab.path, lab.node.clone()).unwrap();
    drop(lab.server);
    let answer = Client::connect(successor.path()).ask(r#"{"request":"status"}"#);
    assert!(matches!(answer, Reply::Status(_)));
}

#[test]
fn a_capture_streams_until_its_count() {
    let lab = lab();
    let mut port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let mut client = Client::connect(&lab.path);
    let line = r#"{"request":"capture","ports":["tunl0"],"count":3,"snap_length":2}"#;
    let Reply::Capture(start) = client.ask(line) else {
        panic!()
    };
    assert_eq!(
        (&*start.ports[0].name, start.ports[0].link),
        ("tunl0", LinkType::Ip)
    );
    port.send(&[b"one", b"two"]);
    port.send(&[b"three", b"four"]);
    for expected in ["on", "tw", "th"] {
        let Some(Reply::Packet(packet)) = client.next() else {
            panic!()
        };
        assert_eq!(packet.bytes, expected.as_bytes());
    }
    let Some(Reply::End(end)) = client.next() else {
        panic!()
    };
    assert_eq!((end.sent, end.missed, end.reason), (3, 0, EndReason::Count));
    assert_eq!(client.next(), None);
    port.assert_idle();
}

#[test]
fn a_client_that_closes_its_half_gets_the_last_line() {
    let lab = lab();
    let mut port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let mut client = Client::connect(&lab.path);
    client.ask(r#"{"request":"capture"}"#);
    port.send(&[b"one"]);
    assert!(matches!(client.next(), Some(Reply::Packet(_))));
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    let Some(Reply::End(end)) = client.next() else {
        panic!()
    };
    assert_eq!((end.sent, end.reason), (1, EndReason::Client));
    port.assert_idle();
}

#[test]
fn a_capture_ends_when_its_client_is_gone_or_its_port_is() {
    let lab = lab();
    let mut port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let mut client = Client::connect(&lab.path);
    client.ask(r#"{"request":"capture"}"#);
    drop(client);
    port.assert_idle();

    let mut client = Client::connect(&lab.path);
    client.ask(r#"{"request":"capture"}"#);
    drop(port);
    let Some(Reply::End(end)) = client.next() else {
        panic!()
    };
    assert_eq!(end.reason, EndReason::PortsGone);
}

#[test]
fn a_client_that_reads_nothing_blocks_neither_port_nor_server() {
    let lab = lab();
    let mut port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let mut deaf = Client::connect(&lab.path);
    writeln!(deaf.0.get_mut(), r#"{{"request":"capture"}}"#).unwrap();
    assert!(matches!(deaf.next(), Some(Reply::Capture(_))));
    let before = Instant::now();
    let packet = [7; 1500];
    for _ in 0..5_000 {
        port.send(&[&packet]);
    }
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
    let answer = Client::connect(&lab.path).ask(r#"{"request":"routes"}"#);
    assert!(matches!(answer, Reply::Routes(_)));
    let before = Instant::now();
    drop(lab.server);
    assert!(
        before.elapsed() < Duration::from_secs(8),
        "{:?}",
        before.elapsed()
    );
    port.assert_idle();
}

#[test]
fn a_slow_client_is_told_what_it_missed() {
    let lab = lab();
    let mut port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let mut slow = Client::connect(&lab.path);
    assert!(matches!(
        slow.ask(r#"{"request":"capture"}"#),
        Reply::Capture(_)
    ));
    let packet = [7; 1500];
    for _ in 0..5_000 {
        port.send(&[&packet]);
    }
    slow.0.get_mut().shutdown(Shutdown::Write).unwrap();
    let mut packets = 0;
    let end = loop {
        match slow.next() {
            Some(Reply::Packet(_)) => packets += 1,
            Some(Reply::End(end)) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end.sent, packets);
    assert!(end.missed > 0 && end.sent + end.missed <= 5_000, "{end:?}");
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let lab = lab();
    let mut clients: Vec<_> = (0..32).map(|_| Client::connect(&lab.path)).collect();
    for client in &mut clients {
        assert!(matches!(
            client.ask(r#"{"request":"status"}"#),
            Reply::Status(_)
        ));
    }
    let Some(Reply::Error(text)) = Client::connect(&lab.path).next() else {
        panic!()
    };
    assert_eq!(text, "32 clients are served already; end one and try again");
    clients.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut client = Client::connect(&lab.path);
        let _ = writeln!(client.0.get_mut(), r#"{{"request":"status"}}"#);
        if matches!(client.next(), Some(Reply::Status(_))) {
            break;
        }
        assert!(Instant::now() < deadline, "no room after all clients left");
    }
}
