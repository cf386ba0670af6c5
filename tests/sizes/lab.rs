//! Two nodes with a narrow link between their networks, in network namespaces.
//!
//! ```text
//!  pod1 ── node1 ──────── mid1 ────────── mid2 ──────── node2 ── pod2
//!     1500     10.30.0.11/24  narrow link     10.30.1.12/24  1500
//!  192.168.1.10              10.99.0.0/30                192.168.2.10
//! ```
//!
//! The nodes run underpass, the rest is the kernel's. Everything is visible to the test's thread only
//! and goes with it: the files of the namespaces are on a file system that is mounted only there.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fast_path;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How packets travel between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Ipip,
    Vxlan,
    Direct,
    /// Over IPv6, carrying IPv6.
    VxlanV6,
}

impl Mode {
    /// The bytes around an inner packet.
    pub fn overhead(self) -> usize {
        match self {
            Self::Ipip => 20,
            Self::Vxlan => 50,
            Self::Direct => 0,
            Self::VxlanV6 => 70,
        }
    }
}

/// What a test changes of the lab.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub mode: Mode,
    /// The MTU of the nodes' uplinks.
    pub uplink: u16,
    /// The MTU between the two routers.
    pub narrow: u16,
}

/// A running lab.
pub struct Lab {
    directory: tempfile::TempDir,
    nodes: Vec<Child>,
}

/// Runs `test` in namespaces of its own; without root it says so and returns.
pub fn run(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: this test makes network namespaces, which needs root");
        return;
    }
    thread::scope(|scope| {
        let outcome = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
            sh("mount --make-rprivate / && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns");
            test();
        });
        if let Err(panic) = outcome.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a command line, which must succeed, and returns what it printed.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command line printed on both streams, however it ended.
pub fn said(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs `action` in a namespace, in a thread that ends with it.
pub fn inside<T: Send>(name: &str, action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{name}")).expect("namespace");
            setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
            action()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Waits until `done` says so, or fails the test.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Lab {
    /// Links, resources and configurations; no node runs yet.
    pub fn build(shape: Shape) -> Self {
        links(shape);
        if shape.mode == Mode::VxlanV6 {
            links_v6();
        }
        let directory = tempfile::tempdir().expect("a directory");
        let lab = Self {
            directory,
            nodes: Vec::new(),
        };
        lab.write(shape.mode);
        lab
    }

    /// [`Lab::build`], and both nodes ready.
    pub fn start(shape: Shape) -> Self {
        let mut lab = Self::build(shape);
        lab.run_nodes();
        lab
    }

    /// Starts both nodes and waits until they are ready.
    pub fn run_nodes(&mut self) {
        for number in [1, 2] {
            self.run_node(number);
        }
        for number in [1, 2] {
            self.wait_until_ready(number);
        }
    }

    /// Starts a node's process.
    pub fn run_node(&mut self, number: u8) {
        let log = File::create(self.log(number)).expect("log");
        let node = Command::new("ip")
            .args(["netns", "exec", &format!("node{number}")])
            .arg(env!("CARGO_BIN_EXE_underpass"))
            .args(["run", "--config"])
            .arg(self.config(number))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("underpass");
        self.nodes.push(node);
    }

    fn wait_until_ready(&mut self, number: u8) {
        let ready = |lab: &Self| lab.read_log(number).contains(": ready after");
        let end = Instant::now() + PATIENCE;
        while !ready(self) {
            let ended = self.nodes[usize::from(number) - 1]
                .try_wait()
                .expect("wait");
            assert!(
                ended.is_none() && Instant::now() < end,
                "node{number} is not ready: {}",
                self.read_log(number)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a node printed.
    pub fn read_log(&self, number: u8) -> String {
        std::fs::read_to_string(self.log(number)).unwrap_or_default()
    }

    /// What `underpass VERB…` says of a node.
    pub fn ask(&self, number: u8, verb: &str) -> String {
        let socket = self.directory.path().join(format!("node{number}.sock"));
        let binary = env!("CARGO_BIN_EXE_underpass");
        said(&format!("{binary} {verb} --socket {}", socket.display()))
    }

    /// The MTU that a node's route table shows for a destination.
    pub fn route_mtu(&self, number: u8, destination: &str) -> Option<u64> {
        let rows: serde_json::Value =
            serde_json::from_str(&self.ask(number, "routes -o json")).ok()?;
        let rows = rows.as_array()?;
        let row = rows.iter().find(|row| row["destination"] == destination)?;
        row["mtu"].as_u64()
    }

    /// A node's counters.
    pub fn counters(&self, number: u8) -> serde_json::Value {
        serde_json::from_str(&self.ask(number, "counters -o json")).expect("counters")
    }

    /// How many packets a node dropped for one reason.
    pub fn drops(&self, number: u8, reason: &str) -> u64 {
        let counters = self.counters(number);
        let drops = counters["drops"].as_array().cloned().unwrap_or_default();
        drops
            .iter()
            .filter(|drop| drop["reason"] == reason)
            .filter_map(|drop| drop["packets"].as_u64())
            .sum()
    }

    /// Where a node's configuration is.
    pub fn config(&self, number: u8) -> PathBuf {
        self.directory.path().join(format!("node{number}.yaml"))
    }

    fn log(&self, number: u8) -> PathBuf {
        self.directory.path().join(format!("node{number}.log"))
    }

    fn write(&self, mode: Mode) {
        let directory = self.directory.path();
        let data = directory.join("data");
        std::fs::create_dir(&data).expect("datastore");
        std::fs::write(data.join("all.yaml"), resources(mode)).expect("resources");
        for number in [1, 2] {
            std::fs::write(self.config(number), configuration(directory, number)).expect("config");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = kill(Pid::from_raw(node.id() as i32), Signal::SIGTERM);
            let end = Instant::now() + PATIENCE;
            while node.try_wait().is_ok_and(|status| status.is_none()) {
                if Instant::now() > end {
                    let _ = node.kill();
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        if thread::panicking() {
            for number in [1, 2] {
                println!("── node{number}\n{}", self.read_log(number));
                println!("{}", self.ask(number, "counters"));
            }
        }
    }
}

fn links(shape: Shape) {
    let Shape { uplink, narrow, .. } = shape;
    for name in ["pod1", "node1", "mid1", "mid2", "node2", "pod2"] {
        sh(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ));
        sh(&format!(
            "ip netns exec {name} sysctl -qw net.ipv4.conf.all.rp_filter=0 \
             net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.default.disable_ipv6=1"
        ));
    }
    for (n, mid) in [(1, "mid1"), (2, "mid2")] {
        sh(&format!(
            "ip -n node{n} link add eth0 mtu {uplink} type veth peer name node mtu {uplink} netns {mid}
             ip -n node{n} link add cali{n} mtu 1500 type veth peer name eth0 mtu 1500 netns pod{n}
             ip -n {mid} addr add 10.30.{m}.254/24 dev node
             ip -n {mid} link set node up
             ip -n node{n} addr add 10.30.{m}.1{n}/24 dev eth0
             ip -n node{n} link set eth0 up
             ip -n node{n} link set cali{n} up
             ip -n node{n} route add 10.30.0.0/16 via 10.30.{m}.254
             ip -n pod{n} addr add 192.168.{n}.10/32 dev eth0
             ip -n pod{n} link set eth0 up
             ip -n pod{n} route add default via 169.254.1.1 dev eth0 onlink
             ip netns exec {mid} sysctl -qw net.ipv4.ip_forward=1
             ip netns exec {mid} ethtool -K node gro off >/dev/null
             ip netns exec pod{n} sysctl -qw net.ipv4.ping_group_range='0 2147483647'
             ip netns exec pod{n} ethtool -K eth0 tx off tso off gso off gro off >/dev/null",
            m = n - 1,
        ));
    }
    sh(&format!(
        "ip -n mid1 link add over mtu {narrow} type veth peer name over mtu {narrow} netns mid2
         ip -n mid1 addr add 10.99.0.1/30 dev over
         ip -n mid2 addr add 10.99.0.2/30 dev over
         ip -n mid1 link set over up
         ip -n mid2 link set over up
         ip -n mid1 route add 10.30.1.0/24 via 10.99.0.2
         ip -n mid2 route add 10.30.0.0/24 via 10.99.0.1"
    ));
}

/// The same topology in IPv6: fd00:30:0::/64 and fd00:30:1::/64, fd00:99::/64 between them, and the pods
/// fd00:65:1::10 and fd00:65:2::10. Link-local addresses are usable at once: without one, a router solicits
/// nobody.
fn links_v6() {
    for name in ["pod1", "node1", "mid1", "mid2", "node2", "pod2"] {
        sh(&format!(
            "ip netns exec {name} sh -c 'cd /proc/sys/net/ipv6/conf
                 for f in */accept_dad */disable_ipv6; do echo 0 > $f; done'"
        ));
    }
    for (n, mid) in [(1, "mid1"), (2, "mid2")] {
        sh(&format!(
            "ip -n {mid} addr add fd00:30:{m}::fe/64 dev node nodad
             ip -n {mid} addr add fd00:99::{n}/64 dev over nodad
             ip netns exec {mid} sysctl -qw net.ipv6.conf.all.forwarding=1
             ip -n {mid} -6 route add fd00:30:{other}::/64 via fd00:99::{far}
             ip -n node{n} addr add fd00:30:{m}::1{n}/64 dev eth0 nodad
             ip -n node{n} -6 route add fd00:30::/32 via fd00:30:{m}::fe
             ip -n pod{n} addr add fd00:65:{n}::10/128 dev eth0 nodad
             ip -n pod{n} -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0 onlink",
            m = n - 1,
            other = 2 - n,
            far = 3 - n,
        ));
    }
}

fn resources(mode: Mode) -> String {
    let (ipip, vxlan) = match mode {
        Mode::Ipip => ("Always", "Never"),
        Mode::Vxlan => ("Never", "Always"),
        Mode::Direct => ("Never", "Never"),
        // The IPv4 pool is there too, and nothing uses it.
        Mode::VxlanV6 => ("Never", "Always"),
    };
    let v6 = |text: String| {
        if mode == Mode::VxlanV6 {
            text
        } else {
            String::new()
        }
    };
    let node = |n: u8| {
        format!(
            "---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {{ name: node{n} }}
spec:
  bgp: {{ ipv4Address: 10.30.{m}.1{n}/24, ipv4IPIPTunnelAddr: 192.168.{n}.1{v6_address} }}
  ipv4VXLANTunnelAddr: 192.168.{n}.2
{v6_tunnel}---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {{ name: node{n}-block }}
spec: {{ node: node{n}, cidr: 192.168.{n}.0/26, state: confirmed }}
{v6_block}---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{ name: node{n}-lab-pod{n}-eth0, namespace: default }}
spec:
  node: node{n}
  orchestrator: lab
  workload: pod{n}
  endpoint: eth0
  interfaceName: cali{n}
  ipNetworks: [192.168.{n}.10/32{v6_pod}]
",
            m = n - 1,
            v6_address = v6(format!(", ipv6Address: \"fd00:30:{}::1{n}/64\"", n - 1)),
            v6_tunnel = v6(format!("  ipv6VXLANTunnelAddr: \"fd00:65:{n}::1\"\n")),
            v6_block = v6(format!(
                "---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {{ name: node{n}-block-v6 }}
spec: {{ node: node{n}, cidr: \"fd00:65:{n}::/122\", state: confirmed }}
"
            )),
            v6_pod = v6(format!(", \"fd00:65:{n}::10/128\"")),
        )
    };
    format!(
        "---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{ name: lab }}
spec: {{ cidr: 192.168.0.0/16, blockSize: 26, ipipMode: {ipip}, vxlanMode: {vxlan} }}
{}{}{}",
        v6("---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: lab-v6 }
spec: { cidr: \"fd00:65::/32\", blockSize: 122, ipipMode: Never, vxlanMode: Always }
"
        .to_owned()),
        node(1),
        node(2)
    )
}

fn configuration(directory: &Path, n: u8) -> String {
    format!(
        "node: node{n}
uplink: {{ interface: eth0 }}
workloads: [{{ interface: cali{n} }}]
host: {{ tun: tunl0 }}
workers: {{ count: 1 }}
datastore: {{ directory: {data} }}
control: {socket}
{fast_path}",
        fast_path = fast_path::configuration(),
        data = directory.join("data").display(),
        socket = directory.join(format!("node{n}.sock")).display(),
    )
}
