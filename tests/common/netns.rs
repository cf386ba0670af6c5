//! A world of its own for a test that makes network namespaces and runs routers in them.
//!
//! ```text
//!  test process ── setpriv ── unshare ── the same test once more, as process 1 of its own
//!                                        network, mount and process namespaces, with an empty /run
//! ```
//!
//! Names of namespaces and sockets meet nobody else's, so tests may run side by side; and when the
//! test ends, killed or not, the kernel ends every process in there and removes every device.
#![allow(dead_code, missing_docs)]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// The binary under test.
pub const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Set in the inner process.
const INSIDE: &str = "UNDERPASS_TEST_INSIDE";

/// The inner process's way to say that the test ran and passed; a name that matched no test would
/// end with 0.
const PASSED: i32 = 23;

/// Runs the calling `#[test]`'s body in a world of its own; without root it says so and returns.
/// The body must be a closure written in the test function itself: its name tells the test's.
pub fn isolated<F: FnOnce()>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        enter();
        body();
        std::process::exit(PASSED);
    }
    let name = test_name::<F>();
    if !nix::unistd::geteuid().is_root() {
        println!("{name}: skipped: it makes network namespaces, which needs root");
        return;
    }
    // Whoever kills this process kills unshare, which kills its child, which was all of that world.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--kill-child", "--fork"])
        .args(["--net", "--mount", "--pid", "--mount-proc"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .expect("setpriv and unshare, of util-linux");
    assert_eq!(status.code(), Some(PASSED), "{name} failed: {status}");
}

/// `lab::modes::ipip::{{closure}}` is test `modes::ipip` of this binary.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.trim_end_matches("::{{closure}}");
    let (_, name) = path.split_once("::").expect("a path with a crate");
    name.to_owned()
}

fn enter() {
    sh("mount -t tmpfs tmpfs /run");
    sh("mount -t sysfs sysfs /sys");
    sh("ip link set lo up");
}

/// Runs a command line, which must succeed, and returns what it printed.
pub fn sh(line: &str) -> String {
    let output = try_sh(line);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{line}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command line.
pub fn try_sh(line: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", line]).stdin(Stdio::null());
    command.output().expect("bash")
}

/// Runs `action` in a named network namespace. Sockets that it makes stay there.
pub fn inside<T: Send>(namespace: &str, action: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_namespace(namespace);
            action()
        });
        thread.join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Puts the calling thread into a named network namespace.
pub fn enter_namespace(namespace: &str) {
    let path = Path::new("/run/netns").join(namespace);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
}

/// Polls until `condition` gives something; panics with `what` when patience ends.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether echo requests from a namespace are answered: `count` of them, all.
pub fn pings(namespace: &str, to: Ipv4Addr, count: u32) -> bool {
    let line = format!("ip netns exec {namespace} ping -q -n -i 0.05 -c {count} -W 2 {to}");
    let output = try_sh(&line);
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains(" 0% packet loss")
}

/// A UDP socket of a namespace, whose receive calls end after [`PATIENCE`].
pub fn udp_socket(namespace: &str, port: u16) -> std::net::UdpSocket {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let socket = inside(namespace, || {
        std::net::UdpSocket::bind(any).expect("UDP socket")
    });
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket
}

/// A running `underpass`, whose messages are in a file; killed when dropped.
pub struct Router {
    child: Child,
    log: std::path::PathBuf,
}

impl Router {
    /// Starts `underpass run` in a namespace and waits until it is ready.
    pub fn start(namespace: &str, config: &Path) -> Self {
        let mut router = Self::spawn(namespace, config, &[]);
        router.wait_ready();
        router
    }

    /// Starts `underpass run` in a namespace.
    pub fn spawn(namespace: &str, config: &Path, arguments: &[&str]) -> Self {
        let log = config.with_extension("log");
        let file = File::create(&log).expect("log file");
        let child = Command::new("ip")
            .args(["netns", "exec", namespace, UNDERPASS, "run", "--config"])
            .arg(config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file"))
            .stderr(file)
            .spawn()
            .expect("ip netns exec");
        Self { child, log }
    }

    pub fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(": ready after ") {
            let ended = self.child.try_wait().expect("wait");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < end, "not ready:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("kill");
    }

    /// Waits for its end: the exit code, minus the signal's number if one ended it.
    pub fn wait(&mut self) -> i32 {
        let status = self.child.wait().expect("wait");
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}\n{}---", self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What all threads of a process have used, as the scheduler counts it.
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let used = |task: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(task.path().join("schedstat")).expect("schedstat");
        let nanoseconds = text.split(' ').next().expect("a number");
        nanoseconds.parse().expect("a number")
    };
    Duration::from_nanos(tasks.map(|task| used(task.expect("a thread"))).sum())
}

/// What a process uses while a time passes, in the quietest of up to four of them: the first with no more
/// than `enough` does. What the machine or the kernel has it do now and then is no busy loop.
pub fn idle_cpu_time(pid: u32, time: Duration, enough: Duration) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..4 {
        let before = cpu_time(pid);
        thread::sleep(time);
        least = least.min(cpu_time(pid) - before);
        if least < enough {
            break;
        }
    }
    least
}

/// What a running node says to `underpass VERB --socket SOCKET -o json`.
pub fn ask(verb: &str, socket: &str) -> serde_json::Value {
    let text = sh(&format!("{UNDERPASS} {verb} --socket {socket} -o json"));
    serde_json::from_str(&text).expect("JSON")
}

/// A node's counters.
pub fn counters(socket: &str) -> underpass::observe::report::CounterReport {
    serde_json::from_value(ask("counters", socket)).expect("a counter report")
}

/// A node's counters once nothing moves any more.
pub fn quiet_counters(socket: &str) -> underpass::observe::report::CounterReport {
    let mut last = counters(socket);
    wait_for("counters that stand still", || {
        thread::sleep(Duration::from_millis(200));
        let now = counters(socket);
        let still = now == last;
        last = now;
        still.then(|| last.clone())
    })
}
