//! Two nodes and what is behind them.
//!
//! ```text
//!   "pod"                 the test's thread: node "near"            "far": node "far"
//!  ┌──────────────┐      ┌───────────────────────────────┐      ┌──────────────────────────┐
//!  │         eth0 ├──────┤ cali1   underpass        eth0 ├──────┤ eth0   (the kernel)   lo │
//!  └──────────────┘      └───────────────────────────────┘      └──────────────────────────┘
//!   192.168.1.10                   10.30.0.11     fd00:30::11    10.30.0.12     192.168.2.10
//!   fd00:65:1::10                                                fd00:30::12    fd00:65:2::10
//! ```
//!
//! Nothing outlives the test, not even a killed one: the test's namespace goes with its thread, the
//! named ones are on a file system that is mounted only there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fast_path;

pub const POD: &str = "192.168.1.10";
pub const POD_V6: &str = "fd00:65:1::10";
pub const FAR_POD: &str = "192.168.2.10";
pub const FAR_POD_V6: &str = "fd00:65:2::10";
pub const NEAR_VTEP: &str = "66:00:00:00:04:01";
pub const FAR_VTEP: &str = "66:00:00:00:04:02";
pub const NEAR_VTEP_V6: &str = "66:00:00:00:06:01";
pub const FAR_VTEP_V6: &str = "66:00:00:00:06:02";

/// Has new interfaces' link-local addresses usable at once: until duplicate address detection is done,
/// which may take two seconds, the kernel solicits no neighbour for what it forwards.
const USABLE_AT_ONCE: &str = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `test` in a world of its own; without root it says so and returns.
pub fn run(test: impl FnOnce(&mut World) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: this test makes network namespaces, which needs root");
        return;
    }
    thread::scope(|scope| {
        let outcome = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
            test(&mut World::new());
        });
        if let Err(panic) = outcome.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The namespaces, and underpass once it was started.
pub struct World {
    directory: tempfile::TempDir,
    node: Option<Child>,
}

impl World {
    fn new() -> Self {
        sh("mount --make-rprivate / && mount -t sysfs sysfs /sys");
        sh("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns");
        sh(&format!("ip link set lo up; {USABLE_AT_ONCE}"));
        add_namespace("pod");
        add_namespace("far");
        sh("ip link add eth0 type veth peer name eth0 netns far");
        sh("ip link add cali1 type veth peer name eth0 netns pod");
        // As senders do whose packets go to hardware that finishes nothing.
        for namespace in ["pod", "far"] {
            inside(namespace, "ethtool -K eth0 tx off tso off gso off");
        }
        sh("ip addr add 10.30.0.11/24 dev eth0 && ip addr add fd00:30::11/64 dev eth0 nodad");
        sh("ip link set eth0 up && ip link set cali1 up");
        inside(
            "far",
            "ip addr add 10.30.0.12/24 dev eth0; ip addr add fd00:30::12/64 dev eth0 nodad;
             ip link set eth0 up;
             ip addr add 192.168.2.10/32 dev lo; ip addr add fd00:65:2::10/128 dev lo nodad",
        );
        inside(
            "pod",
            "ip link set eth0 up;
             ip addr add 192.168.1.10/32 dev eth0; ip addr add fd00:65:1::10/128 dev eth0 nodad;
             ip route add default via 169.254.1.1 dev eth0 onlink;
             ip route add default via fe80::ecee:eeff:feee:eeee dev eth0",
        );
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("datastore")).expect("a directory");
        Self {
            directory,
            node: None,
        }
    }

    /// Writes the cluster's resources, the pools with these lines in their spec.
    pub fn cluster(&self, pool: &str, pool_v6: &str) {
        let text = format!(
            "{}---\n{}---\n{}---\n{}---\n{}---\n{}---\n{}---\n{}---\n{}",
            node("near", 11, 1, NEAR_VTEP, NEAR_VTEP_V6),
            node("far", 12, 2, FAR_VTEP, FAR_VTEP_V6),
            ip_pool("v4", "192.168.0.0/16", 26, pool),
            ip_pool("v6", "fd00:65::/32", 122, pool_v6),
            affinity("near", "192-168-1-0-26", "192.168.1.0/26"),
            affinity("far", "192-168-2-0-26", "192.168.2.0/26"),
            affinity("near", "fd00-65-1-122", "fd00:65:1::/122"),
            affinity("far", "fd00-65-2-122", "fd00:65:2::/122"),
            ENDPOINT,
        );
        // At once, as an update that is seen half would be another one.
        let written = self.path("cluster.tmp");
        fs::write(&written, text).expect("resources");
        fs::rename(written, self.path("datastore/cluster.yaml")).expect("resources");
    }

    /// Writes one resource more.
    pub fn resource(&self, name: &str, text: &str) {
        let written = self.path("resource.tmp");
        fs::write(&written, text).expect("a resource");
        fs::rename(written, self.path(&format!("datastore/{name}.yaml"))).expect("a resource");
    }

    /// Starts underpass with these lines more in its configuration, and waits until it is ready.
    pub fn start(&mut self, more: &str) {
        let text = format!(
            "node: near\nuplink: {{interface: eth0}}\nworkloads: [{{interface: cali1}}]\n\
             host: {{tun: up0}}\ndatastore: {{directory: datastore}}\ncontrol: {}\n{more}\n{}",
            self.path("near.sock").display(),
            fast_path::configuration()
        );
        fs::write(self.path("near.yaml"), text).expect("configuration");
        let log = File::create(self.path("log")).expect("log");
        let child = Command::new(env!("CARGO_BIN_EXE_underpass"))
            .args(["run", "--log", "debug", "--config"])
            .arg(self.path("near.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("underpass");
        self.node = Some(child);
        until("underpass is ready", || {
            let ended = self
                .node
                .as_mut()
                .is_some_and(|node| node.try_wait().is_ok_and(|status| status.is_some()));
            let log = self.log();
            assert!(!ended, "underpass has ended:\n{log}");
            log.contains(": ready after")
        });
    }

    /// Sends underpass a signal and waits for its end.
    pub fn signal(&mut self, signal: Signal) {
        let Some(mut node) = self.node.take() else {
            return;
        };
        kill(Pid::from_raw(node.id() as i32), signal).expect("signal");
        let end = Instant::now() + PATIENCE;
        while node.try_wait().expect("wait").is_none() {
            if Instant::now() > end {
                let _ = node.kill();
                panic!("underpass does not end on {signal}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What underpass has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What underpass says to a verb, as JSON.
    pub fn ask(&self, verb: &str) -> serde_json::Value {
        let socket = self.path("near.sock");
        let report = Command::new(env!("CARGO_BIN_EXE_underpass"))
            .args([verb, "-o", "json", "--socket"])
            .arg(socket)
            .output()
            .expect("underpass");
        serde_json::from_slice(&report.stdout).expect("JSON")
    }

    /// Packets dropped for that reason.
    pub fn drops(&self, reason: &str) -> u64 {
        let report = self.ask("counters");
        let drops = report["drops"].as_array().expect("drops");
        let entry = drops.iter().find(|drop| drop["reason"] == reason);
        entry.map_or(0, |drop| drop["packets"].as_u64().expect("a number"))
    }

    /// The underpass process.
    pub fn pid(&self) -> u32 {
        self.node.as_ref().expect("underpass runs").id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("underpass said:\n{}", self.log());
        }
        if let Some(mut node) = self.node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Makes a named namespace.
pub fn add_namespace(name: &str) {
    sh(&format!("ip netns add {name}"));
    inside(name, &format!("ip link set lo up; {USABLE_AT_ONCE}"));
}

/// Puts two routers between the nodes, with a link of this MTU between them. They answer for both nodes'
/// addresses, so that the nodes need not know.
pub fn narrow_middle(mtu: u16) {
    add_namespace("mid1");
    add_namespace("mid2");
    sh("ip link del eth0
        ip link add eth0 type veth peer name near netns mid1
        ip link add eth0 netns far type veth peer name far netns mid2
        ip link add middle netns mid1 type veth peer name middle netns mid2
        ip addr add 10.30.0.11/24 dev eth0; ip link set eth0 up");
    for (namespace, own, side, behind) in [
        ("mid1", "10.30.0.251", "near", ["10.30.0.11", "10.30.0.12"]),
        ("mid2", "10.30.0.252", "far", ["10.30.0.12", "10.30.0.11"]),
    ] {
        let [here, there] = behind;
        // Without a delay, of up to 0.8 s at random, before they answer for others.
        inside(
            namespace,
            &format!(
                "ip addr add {own}/32 dev lo; ip link set {side} up
                 ip link set middle mtu {mtu} up; ethtool -K {side} tx off tso off gso off
                 ethtool -K middle tx off tso off gso off
                 for device in {side} middle; do
                     echo 0 > /proc/sys/net/ipv4/neigh/$device/proxy_delay
                 done
                 echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/all/proxy_arp
                 ip route add {here} dev {side}; ip route add {there} dev middle"
            ),
        );
    }
    inside(
        "far",
        "ethtool -K eth0 tx off tso off gso off; ip addr add 10.30.0.12/24 dev eth0; ip link set eth0 up",
    );
}

/// Has the routers of [`narrow_middle`] carry IPv6 too.
pub fn narrow_middle_takes_ipv6() {
    sh(
        "ip -6 addr add fd00:30::11/64 dev eth0 nodad; ip -6 route add fd00:30::12 via fd00:30::251",
    );
    inside(
        "far",
        "ip -6 addr add fd00:30::12/64 dev eth0 nodad; ip -6 route add fd00:30::11 via fd00:30::252",
    );
    for (namespace, side, ours, other, behind) in [
        ("mid1", "near", "fd00:30::251", "fd00:31::2", "fd00:30::12"),
        ("mid2", "far", "fd00:30::252", "fd00:31::1", "fd00:30::11"),
    ] {
        let own = if namespace == "mid1" {
            "fd00:31::1"
        } else {
            "fd00:31::2"
        };
        inside(
            namespace,
            &format!(
                "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
                 ip addr add {ours}/64 dev {side} nodad; ip addr add {own}/64 dev middle nodad
                 ip route add {behind}/128 via {other}"
            ),
        );
    }
}

/// Makes the far node's kernel a VXLAN end as Calico does, over IPv4 or IPv6, with these words more.
pub fn far_vxlan(over_ipv6: bool, more: &str) {
    let (device, local, mac, mtu) = match over_ipv6 {
        false => ("vxlan.calico", "10.30.0.12", FAR_VTEP, 1450),
        true => ("vxlan-v6.calico", "fd00:30::12", FAR_VTEP_V6, 1430),
    };
    inside(
        "far",
        &format!(
            "ip link add {device} address {mac} mtu {mtu} type vxlan id 4096 local {local} \
             dstport 4789 nolearning {more}; ip link set {device} up"
        ),
    );
    let (own, near, far_end, near_mac, block) = match over_ipv6 {
        false => (
            "192.168.2.0/32",
            "192.168.1.0",
            "10.30.0.11",
            NEAR_VTEP,
            "192.168.1.0/26",
        ),
        true => (
            "fd00:65:2::1/128",
            "fd00:65:1::1",
            "fd00:30::11",
            NEAR_VTEP_V6,
            "fd00:65:1::/122",
        ),
    };
    let source = if over_ipv6 { FAR_POD_V6 } else { FAR_POD };
    inside(
        "far",
        &format!(
            "ip addr add {own} dev {device}; ip neigh add {near} lladdr {near_mac} dev {device} nud permanent; \
             bridge fdb add {near_mac} dev {device} dst {far_end}; \
             ip route add {block} via {near} dev {device} onlink src {source}"
        ),
    );
}

/// Runs a command line, which must succeed, and returns what it printed.
pub fn sh(line: &str) -> String {
    let output = try_sh(line);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command line.
pub fn try_sh(line: &str) -> Output {
    let script = format!("set -e\n{line}");
    Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("sh")
}

/// Runs a command line in a namespace; it must succeed.
pub fn inside(namespace: &str, line: &str) -> String {
    within(namespace, || sh(line))
}

/// Pings three times with these options more; one at least must be answered, as the first ones may wait
/// for a neighbour in vain.
pub fn ping(namespace: &str, to: &str, more: &str) {
    pings(namespace, to, more);
}

/// The same where every one must be answered.
pub fn ping_all(namespace: &str, to: &str, more: &str) {
    let text = pings(namespace, to, more);
    assert!(text.contains(" 0% packet loss"), "{namespace}: {text}");
}

fn pings(namespace: &str, to: &str, more: &str) -> String {
    let line = format!("ping -n -c 3 -i 0.2 -W 10 {more} {to}");
    let output = within(namespace, || try_sh(&line));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{namespace}: {line}:\n{text}");
    text
}

/// Whether a ping is answered.
pub fn is_answered(namespace: &str, to: &str) -> bool {
    within(namespace, || try_sh(&format!("ping -n -c 1 -W 1 {to}")))
        .status
        .success()
}

/// Sends a mebibyte by TCP and gets it back; both must arrive as they were.
pub fn tcp(client: &str, server: &str, address: &str) {
    let address: IpAddr = address.parse().expect("an address");
    let at = SocketAddr::new(address, 5001);
    let listener = within(server, || TcpListener::bind(at).expect("listen"));
    let data: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut received = Vec::new();
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            stream
                .read_to_end(&mut received)
                .expect("the client's data");
            stream.write_all(&received).expect("sent back");
        });
        let back = within(client, || {
            let mut stream = TcpStream::connect_timeout(&at, PATIENCE).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            stream.write_all(&data).expect("sent");
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("shutdown");
            let mut back = Vec::new();
            stream.read_to_end(&mut back).expect("the server's data");
            back
        });
        echo.join().expect("server");
        assert!(
            back == data,
            "{} of {} bytes came back",
            back.len(),
            data.len()
        );
    });
}

/// Runs `action` in a namespace, in a thread that ends with it.
pub fn within<T: Send>(namespace: &str, action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            action()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into a namespace.
pub fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("namespace");
    setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
}

/// Waits until `happened`.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What crosses a device, by tcpdump.
pub struct Capture {
    child: Child,
    /// Open for as long as tcpdump may say something.
    _words: ChildStderr,
}

impl Capture {
    /// Begins; packets that are sent from now on are in it.
    pub fn start(namespace: &str, filter: &str) -> Self {
        let mut child = within(namespace, || {
            Command::new("tcpdump")
                .args([
                    "-i",
                    "eth0",
                    "-U",
                    "--immediate-mode",
                    "-s",
                    "0",
                    "-w",
                    "-",
                    filter,
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("tcpdump")
        });
        let mut said = String::new();
        let mut byte = [0];
        let mut words = child.stderr.take().expect("tcpdump's stderr");
        while !said.contains("listening on") {
            let read = words.read(&mut byte).expect("tcpdump's words");
            assert!(read > 0, "tcpdump: {said}");
            said.push(char::from(byte[0]));
        }
        Self {
            child,
            _words: words,
        }
    }

    /// Ends; the frames.
    pub fn stop(mut self) -> Vec<Vec<u8>> {
        thread::sleep(Duration::from_millis(300));
        // Asleep, it has written all that came.
        let stat = format!("/proc/{}/stat", self.child.id());
        until("tcpdump is idle", || {
            let stat = fs::read_to_string(&stat).expect("tcpdump's state");
            stat.contains("(tcpdump) S ")
        });
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("signal");
        let mut bytes = Vec::new();
        let mut output = self.child.stdout.take().expect("tcpdump's output");
        output.read_to_end(&mut bytes).expect("the capture");
        self.child.wait().expect("tcpdump's end");
        let mut reader = pcap_file::pcap::PcapReader::new(&bytes[..]).expect("a capture");
        let mut frames = Vec::new();
        while let Some(Ok(packet)) = reader.next_packet() {
            frames.push(packet.data.into_owned());
        }
        frames
    }
}

fn node(name: &str, host: u8, block: u8, mac: &str, mac_v6: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\nspec:\n  \
         bgp: {{ipv4Address: 10.30.0.{host}/24, ipv6Address: \"fd00:30::{host}/64\"}}\n  \
         ipv4VXLANTunnelAddr: 192.168.{block}.0\n  ipv6VXLANTunnelAddr: \"fd00:65:{block}::1\"\n  \
         vxlanTunnelMACAddr: \"{mac}\"\n  vxlanTunnelMACAddrV6: \"{mac_v6}\"\n"
    )
}

fn ip_pool(name: &str, cidr: &str, block_size: u8, more: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: \"{cidr}\", blockSize: {block_size}, {more}}}\n"
    )
}

fn affinity(node: &str, name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {{name: {node}-{name}}}\n\
         spec: {{state: confirmed, node: {node}, cidr: \"{cidr}\"}}\n"
    )
}

const ENDPOINT: &str = "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: near-k8s-pod-eth0, namespace: default}
spec:
  node: near
  orchestrator: k8s
  pod: pod
  endpoint: eth0
  interfaceName: cali1
  ipNetworks: [192.168.1.10/32, \"fd00:65:1::10/128\"]
";
