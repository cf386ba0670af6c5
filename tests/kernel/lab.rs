//! Namespaces, devices and commands.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use underpass::wire::MacAddr;

/// Runs a test in a thread in a network namespace of its own, which ends with the thread.
pub fn in_fresh_namespace(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: this test makes a network namespace; run it as root");
        return;
    }
    let outcome = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        worker.join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A named namespace, deleted on drop.
pub struct FarNamespace {
    name: String,
}

impl FarNamespace {
    /// A namespace joined to ours by the veth pair of the drawing above.
    pub fn with_pair() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kernel-test-{}-{count}", std::process::id());
        ip(&format!("netns add {name}"));
        let far = Self { name };
        // Link-local addresses are usable at once: without one, the kernel solicits no neighbour.
        let no_dad = ["-qw", "net.ipv6.conf.default.accept_dad=0"];
        run("sysctl", &no_dad);
        far.run("sysctl", &no_dad);
        ip(&format!(
            "link add near type veth peer name far netns {}",
            far.name
        ));
        ip("addr add 10.1.0.1/24 dev near");
        ip("addr add fd00:1::1/64 dev near nodad");
        ip("link set near up");
        far.ip("addr add 10.1.0.2/24 dev far");
        far.ip("addr add fd00:1::2/64 dev far nodad");
        far.ip("link set far up");
        far
    }

    pub fn ip(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.run("ip", &arguments)
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let inside = ["netns", "exec", &self.name, program];
        run("ip", &[&inside, arguments].concat())
    }

    pub fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.name)).unwrap()
    }

    pub fn mac(&self) -> MacAddr {
        let shown: Value = serde_json::from_str(&self.ip("-j link show far")).unwrap();
        shown[0]["address"].as_str().unwrap().parse().unwrap()
    }
}

impl Drop for FarNamespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A device that has a carrier once it is up: one end of a pair.
pub fn add_device(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}-peer"));
    ip(&format!("link set {name}-peer up"));
}

pub fn ip(arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    run("ip", &arguments)
}

pub fn ip_may_fail(arguments: &str) {
    let arguments = arguments.split(' ');
    let _ = Command::new("ip").args(arguments).output().unwrap();
}

pub fn ip_batch(lines: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {errors}",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn available(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

pub fn json(arguments: &str) -> Value {
    let text = ip(arguments);
    if text.trim().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_str(&text).unwrap()
}
