//! `scripts/vm-lab`, and traffic between what it builds.

use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use underpass::observe::report::CounterReport;

use super::netns::UNDERPASS;

/// The lab's modes.
pub const MODES: [&str; 5] = ["ipip", "vxlan", "direct", "ipip-cross", "vxlan-cross"];

pub const POD1: &str = "192.168.1.10";
pub const POD2: &str = "192.168.2.10";

/// How many random bytes are fetched to see whether they arrive as they were.
pub const BYTES: usize = 400_000;

/// Where guests' kernel and initramfs are kept, as `scripts/vm-lab` has it.
const CACHE: &str = "/var/cache/underpass-vm";

/// The lab that is up; its logs are shown when a test fails.
pub struct VmLab;

impl VmLab {
    /// Builds it, or says why this machine cannot have it: nothing can be fetched from in here.
    pub fn up(arguments: &str) -> Option<Self> {
        let cache = env::var("UNDERPASS_VM_CACHE").unwrap_or_else(|_| CACHE.into());
        if fs::metadata(format!("{cache}/stamp")).is_err() {
            println!(
                "skipped: no kernel for guests in {cache}: scripts/vm-lab image puts it there"
            );
            return None;
        }
        if Command::new("qemu-system-x86_64")
            .arg("--version")
            .output()
            .is_err()
        {
            println!("skipped: no qemu-system-x86_64 here: scripts/setup vm installs it");
            return None;
        }
        if arguments.starts_with('D') && fs::metadata(format!("{cache}/system.stamp")).is_err() {
            println!(
                "skipped: no Debian for guests in {cache}: scripts/vm-lab image puts it there"
            );
            return None;
        }
        let lab = Self;
        lab.script(&format!("up {arguments}"));
        Some(lab)
    }

    /// `scripts/vm-lab ARGUMENTS`, which must succeed.
    pub fn script(&self, arguments: &str) -> String {
        let output = self.run(&arguments.split(' ').collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "scripts/vm-lab {arguments}: {text}{errors}"
        );
        text
    }

    /// Runs a shell's command line in a guest or a namespace; it must succeed.
    pub fn exec(&self, name: &str, line: &str) -> String {
        let output = self.try_exec(name, line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {line}: {text}{errors}");
        text
    }

    /// Runs a shell's command line in a guest or a namespace.
    pub fn try_exec(&self, name: &str, line: &str) -> Output {
        self.run(&["exec", name, "--", "sh", "-c", line])
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm-lab"))
            .args(arguments)
            .env("UNDERPASS_BIN", UNDERPASS)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("scripts/vm-lab")
    }

    /// Random bytes of `from`'s, fetched by `to` over TCP, are what they were.
    pub fn fetched_whole(&self, from: &str, address: &str, to: &str) {
        let made = self.exec(
            from,
            &format!(
                "test -e /run/served/data || {{ mkdir -p /run/served; head -c {BYTES} /dev/urandom >/run/served/data; \
                 busybox httpd -p 8080 -h /run/served; }}; sha256sum </run/served/data"
            ),
        );
        let fetch =
            format!("curl -sS --noproxy '*' --max-time 40 http://{address}:8080/data | sha256sum");
        assert_eq!(self.exec(to, &fetch), made, "{to} from {from}");
    }

    /// Echo requests of a packet length (the IP header counted) that must not be cut are answered.
    pub fn ping_of(&self, from: &str, to: &str, length: usize) -> Output {
        self.try_exec(
            from,
            &format!("ping -n -c 2 -i 0.2 -W 3 -M do -s {} {to}", length - 28),
        )
    }

    /// Every packet of a node's is accounted for, and none was dropped for another reason than these.
    pub fn lost_nothing_but(&self, node: &str, expected: &[&str]) {
        let counted = self.quiet_counters(node);
        assert_eq!(counted.balance().difference(), 0, "{node}: {counted:?}");
        let lost = counted.drops.iter().filter(|drop| drop.packets > 0);
        let lost: Vec<_> = lost
            .filter(|drop| !expected.contains(&drop.reason.as_str()))
            .collect();
        assert!(lost.is_empty(), "{node}: {lost:?}");
    }

    /// A node's counters once nothing moves any more, of one in a guest too.
    pub fn quiet_counters(&self, node: &str) -> CounterReport {
        let ask = || -> CounterReport {
            let text = self.script(&format!("counters {node}"));
            serde_json::from_str(&text).expect("a counter report")
        };
        let mut last = ask();
        self.wait_for("counters that stand still", || {
            let now = ask();
            let still = now == last;
            last = now;
            still.then(|| last.clone())
        })
    }

    /// Polls until there is something: emulated guests take their time where machines are shared.
    pub fn wait_for<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            thread::sleep(Duration::from_millis(200));
            if let Some(found) = condition() {
                return found;
            }
            assert!(Instant::now() < end, "waited in vain: {what}");
        }
    }

    pub fn pings(&self, from: &str, to: &str) {
        let output = self.try_exec(from, &format!("ping -n -c 3 -i 0.2 -W 3 {to}"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 0% packet loss"), "{from} to {to}: {text}");
    }
}

impl Drop for VmLab {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in ["worker1", "worker2", "pod1", "pod2"] {
                let log = self.run(&["logs", name]);
                eprintln!("--- {name}\n{}---", String::from_utf8_lossy(&log.stdout));
            }
        }
        self.run(&["down"]);
    }
}
