//! The binary against a control socket of this process.

mod observe_support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use observe_support::{FakeNode, TestPort};
use tempfile::TempDir;
use underpass::observe::control_socket::ControlSocket;
use underpass::observe::report::Encapsulation;

struct Lab {
    node: Arc<FakeNode>,
    path: PathBuf,
    directory: TempDir,
    _server: ControlSocket,
}

fn lab() -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worker1.sock");
    let node = Arc::new(FakeNode::new("worker1"));
    let server = ControlSocket::start(&path, node.clone()).unwrap();
    Lab {
        node,
        path,
        directory,
        _server: server,
    }
}

impl Lab {
    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = underpass(&[verb, "--socket"]);
        command.arg(&self.path).args(arguments);
        command
    }

    /// Its standard output; it must end well.
    fn output(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.command(verb, arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_bridge_that_is_not_there_is_named() {
    let output = lab().command("fdb", &["-b", "nope"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains("no bridge is called 'nope'; this node has none"),
        "{told}"
    );
}

fn underpass(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_underpass"));
    command.args(arguments);
    command
}

#[test]
fn routes_counters_and_status_are_tables_and_json() {
    let lab = lab();
    assert_eq!(
        lab.output("routes", &[]),
        "\
DESTINATION     GATEWAY     ENCAP  FAR NODE  INTERFACE   MTU  FLAGS
192.168.1.0/26  -           -      -         -             -  blackhole
192.168.1.2/32  -           none   worker1   cali1      1500  U H
192.168.2.0/26  10.30.0.12  ipip   worker2   tunl0      1480  U G
"
    );
    let rows: serde_json::Value =
        serde_json::from_str(&lab.output("routes", &["-o", "json"])).unwrap();
    assert_eq!(rows[2]["interface"], "tunl0");
    assert_eq!(rows[2]["encapsulation"], "ipip");
    let counters = lab.output("counters", &[]);
    let balance = "balance: in 101 + originated 2 = out 90 + dropped 9 + absorbed 4 ✓\n";
    assert!(counters.ends_with(balance), "{counters}");
    let json: serde_json::Value =
        serde_json::from_str(&lab.output("counters", &["-o", "json"])).unwrap();
    assert_eq!(json["ports"][0]["xdp"]["rx_ring_full"], 3);
    assert!(
        lab.output("status", &[])
            .starts_with("node worker1 is ready: underpass 1.2.3")
    );
}

#[test]
fn watch_prints_the_table_again_when_the_mode_changes() {
    let lab = lab();
    let mut watch = Process::start(lab.command("routes", &["--watch", "--interval", "0.05"]));
    watch.wait_for(" tunl0 ");
    *lab.node.routes.lock().unwrap() = observe_support::routes(Encapsulation::None);
    watch.wait_for(" eth0 ");
    *lab.node.routes.lock().unwrap() = observe_support::routes(Encapsulation::Vxlan);
    watch.wait_for(" vxlan.calico ");
    let (status, printed, _) = watch.stop(Signal::SIGTERM);
    assert!(!status.success());
    assert_eq!(printed.matches("DESTINATION").count(), 3, "{printed}");
}

#[test]
fn a_captured_file_is_read_by_tshark() {
    let lab = lab();
    let port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let file = lab.directory.path().join("out.pcapng");
    let mut command = lab.command("capture", &["--port", "tunl0", "-c", "5", "--print", "-w"]);
    command.arg(&file);
    let (status, printed, told) = with_traffic(port, || Process::start(command).end());
    assert!(status.success(), "{told}");
    assert_eq!(printed.lines().count(), 5);
    let line = printed.lines().next().unwrap();
    assert!(
        line.ends_with(" tunl0 out  IP 10.30.0.11 > 10.30.0.12 UDP 7 > 9  len 32"),
        "{line}"
    );
    assert!(
        told.contains("5 packets captured") && told.contains("0 packets missed"),
        "{told}"
    );
    let fields = [
        "-T",
        "fields",
        "-e",
        "frame.interface_name",
        "-e",
        "udp.dstport",
    ];
    let Ok(output) = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(&file)
        .args(fields)
        .output()
    else {
        println!("skipped in part: tshark is not installed");
        return;
    };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "tunl0\t9\n".repeat(5)
    );
}

#[test]
fn ctrl_c_ends_a_capture_with_its_counts_and_a_whole_file() {
    let lab = lab();
    let port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let file = lab.directory.path().join("out.pcapng");
    let mut command = lab.command("capture", &["--print", "--snaplen", "24", "-w"]);
    command.arg(&file);
    let (status, printed, told) = with_traffic(port, || {
        let mut capture = Process::start(command);
        capture.wait_for("IP 10.30.0.11");
        capture.stop(Signal::SIGINT)
    });
    assert!(status.success(), "{told}");
    let count = printed.lines().count();
    assert!(
        told.contains(&format!("\n{count} packets captured\n")),
        "{count}: {told}"
    );
    let Ok(output) = Command::new("capinfos").args(["-cM"]).arg(&file).output() else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let packets = text.split_whitespace().last().map(str::to_owned);
    assert_eq!(packets, Some(count.to_string()), "{text}");
}

#[test]
fn pcapng_on_standard_output_is_pcapng_alone() {
    let lab = lab();
    let port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let mut command = lab.command("capture", &["-c", "2", "--print", "-w", "-"]);
    let output = with_traffic(port, || command.output().unwrap());
    assert_eq!(output.stdout[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told.matches("UDP 7 > 9").count(), 2, "{told}");
}

#[test]
fn a_reader_that_has_enough_ends_a_capture_quietly() {
    let lab = lab();
    let port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let (status, told) = with_traffic(port, || {
        let mut capture = Process::start(lab.command("capture", &[]));
        capture.wait_for("UDP 7 > 9");
        capture.close_output();
        let (status, _, told) = capture.end();
        (status, told)
    });
    assert!(status.success() && !told.contains("panicked"), "{told}");
}

#[test]
fn failures_are_one_sentence_and_exit_codes_tell_them_apart() {
    let lab = lab();
    let absent = lab.directory.path().join("absent.sock");
    let told = |command: &mut Command, code| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = told(underpass(&["routes", "--socket"]).arg(&absent), 1);
    assert!(
        text.contains("no node answers on ") && text.lines().count() == 1,
        "{text}"
    );
    let text = told(&mut lab.command("capture", &["--port", "eth9"]), 1);
    assert_eq!(text, "underpass: the node has no port to capture from\n");
    let _port = TestPort::captured(3, "tunl0", &lab.node.switch);
    let text = told(&mut lab.command("capture", &["--port", "eth9"]), 1);
    assert_eq!(
        text,
        "underpass: no port is called 'eth9'; there are: tunl0\n"
    );
    let text = told(
        &mut lab.command("capture", &["-w", "/nowhere/out.pcapng"]),
        1,
    );
    assert!(
        text.contains("cannot write /nowhere/out.pcapng: "),
        "{text}"
    );
    for wrong in [
        &["rout"][..],
        &["run"],
        &["routes", "-o", "xml"],
        &["capture", "-c", "0"],
        &[],
    ] {
        assert!(!told(&mut underpass(wrong), 2).is_empty());
    }
    let both = ["routes", "--node", "a", "--socket", "b"];
    assert!(told(&mut underpass(&both), 2).contains("cannot be used with"));
    assert_eq!(told(&mut underpass(&["version"]), 0), "");
    assert_eq!(told(&mut underpass(&["--help"]), 0), "");
}

#[test]
fn a_server_that_is_no_node_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\n").unwrap();
    });
    let output = underpass(&["status", "--socket"])
        .arg(&path)
        .output()
        .unwrap();
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("not understood"), "{text}");
}

/// Runs `what` while a packet crosses the port every millisecond.
fn with_traffic<T>(mut port: TestPort, what: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 30, 0, 11], [10, 30, 0, 12], 64)
        .udp(7, 9)
        .write(&mut packet, b"data")
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !stop.load(Relaxed) && Instant::now() < deadline {
                port.send(&[&packet]);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        stop.store(true, Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A running command whose output is read as it comes; it is killed when dropped.
struct Process {
    child: Child,
    output: Option<BufReader<std::process::ChildStdout>>,
    printed: String,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = child.stdout.take().map(BufReader::new);
        Self {
            child,
            output,
            printed: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            let count = self.output.as_mut().unwrap().read_line(&mut line).unwrap();
            assert!(count > 0, "it ended without '{text}': {}", self.printed);
            self.printed.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    fn close_output(&mut self) {
        self.output = None;
    }

    fn stop(self, signal: Signal) -> (ExitStatus, String, String) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
        self.end()
    }

    /// Waits for its end: its status, standard output and standard error.
    fn end(mut self) -> (ExitStatus, String, String) {
        if let Some(output) = &mut self.output {
            output.read_to_string(&mut self.printed).unwrap();
        }
        let mut told = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.printed), told)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_names_every_verb() {
    let output = underpass(&["--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for verb in [
        "run", "check", "routes", "counters", "status", "capture", "version",
    ] {
        assert!(
            text.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb}: {text}"
        );
    }
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let version = underpass(&["version"]).output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let number = version.trim_end().strip_prefix("underpass ").unwrap();
    assert!(
        lock.contains(&format!("version = \"{number}\"")),
        "{version}"
    );
}
