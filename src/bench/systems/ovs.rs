//! Open vSwitch's userspace datapath on AF_XDP ports, with its own VXLAN.
//!
//! ```text
//!   port ─── br-int ─── vxlan port ┄┄ (route, neighbour) ┄┄ br-phy ─── uplink
//!                                                             └ the node's address
//! ```
//!
//! Two bridges, as its documentation has it (Documentation/howto/userspace-tunneling.rst): the tunnel
//! port of the first sends to an address that is reached by the second, whose own device in the kernel
//! holds the node's address. Two OpenFlow rules join workload and tunnel.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;

use super::{Place, Process, Running, System};
use crate::bench::error::{BenchError, Result};
use crate::bench::measure::{ordinary, realtime};
use crate::bench::run_command;
use crate::bench::topology::{Direction, Site, Topology};

/// The daemon by Debian's packages: openvswitch-switch-dpdk's, openvswitch-switch's, whatever is found.
const DAEMONS: [&str; 3] = [
    "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
    "/usr/lib/openvswitch-switch/ovs-vswitchd",
    "ovs-vswitchd",
];

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How long its polling threads may sleep when little comes, in microseconds. The threads that receive for
/// them are on the same CPU: between those that never sleep and those that have to come first packets
/// would pass one by one. With this it carried 0.44 million packets a second, without 0.24.
const LONGEST_SLEEP: u32 = 100;

const PATIENCE: Duration = Duration::from_secs(10);

/// Why it cannot be measured.
pub(super) fn missing() -> Option<String> {
    let install = "install openvswitch-switch-dpdk to have it measured";
    if !Path::new(SCHEMA).exists() {
        return Some(format!("Open vSwitch is not installed ({install})"));
    }
    daemon()
        .is_none()
        .then(|| format!("ovs-vswitchd is not there, or has no AF_XDP ports ({install})"))
}

/// Starts it on the nodes under test.
pub(super) fn start(topology: &Topology, direction: Direction, place: &Place) -> Result<Running> {
    let mut running = Running::default();
    for site in topology.nodes(direction) {
        let other = if site.name == "a" {
            &topology.b
        } else {
            &topology.a
        };
        start_node(site, other, place, &mut running)?;
    }
    Ok(running)
}

/// The first daemon that has AF_XDP ports, which are a matter of how it was built.
fn daemon() -> Option<&'static str> {
    DAEMONS.into_iter().find(|daemon| {
        let asked = Command::new("ldd").arg(program(daemon)).output();
        asked.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libxdp"))
    })
}

fn program(daemon: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(daemon));
    let mut found = found.chain(["/usr/sbin".into()].map(|d: PathBuf| d.join(daemon)));
    found
        .find(|file| file.exists())
        .unwrap_or_else(|| daemon.into())
}

fn start_node(site: &Site, other: &Site, place: &Place, running: &mut Running) -> Result<()> {
    let node = Node {
        site,
        directory: place.directory.join(format!("ovs-{}", site.name)),
    };
    let _ = std::fs::remove_dir_all(&node.directory);
    std::fs::create_dir_all(&node.directory).map_err(BenchError::io(format!(
        "making {}",
        node.directory.display()
    )))?;
    run_command("ovsdb-tool", &["create", &node.file("conf.db"), SCHEMA])?;
    running.helpers.push(node.database(place)?);
    node.vsctl(&["--no-wait", "init"])?;
    let mask = format!("other_config:pmd-cpu-mask={}", cpu_mask(place.cpu));
    let sleep = format!("other_config:pmd-maxsleep={LONGEST_SLEEP}");
    node.vsctl(&["--no-wait", "set", "Open_vSwitch", ".", &mask, &sleep])?;
    let daemon = node.daemon(place)?;
    let pid = daemon.pid();
    running.add(site.name, daemon);
    ordinary(pid)?;
    node.bridges(other)?;
    if place.realtime {
        polling_threads(pid).try_for_each(realtime)?;
    }
    Ok(())
}

/// The mask of one CPU in hexadecimal, as long as it has to be: four CPUs a digit.
fn cpu_mask(cpu: usize) -> String {
    format!("0x{:x}{}", 1 << (cpu % 4), "0".repeat(cpu / 4))
}

/// The threads that forward. Nothing else of the daemon may have their priority.
fn polling_threads(daemon: Pid) -> impl Iterator<Item = Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{daemon}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let thread = task.file_name().to_str()?.parse().ok()?;
        name.starts_with("pmd-").then(|| Pid::from_raw(thread))
    })
}

/// Open vSwitch on one node.
struct Node<'a> {
    site: &'a Site,
    directory: PathBuf,
}

impl Node<'_> {
    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.file("db.sock"))
    }

    fn database(&self, place: &Place) -> Result<Process> {
        let mut command = self.command(place, "ovsdb-server")?;
        let remote = format!("--remote=punix:{}", self.file("db.sock"));
        let control = format!("--unixctl={}", self.file("db.ctl"));
        command.args([&self.file("conf.db"), &remote, &control]);
        let mut process = Process::spawn(command, &self.directory.join("ovsdb-server.log"))?;
        process.wait_for(System::Ovs, PATIENCE, || {
            self.directory.join("db.sock").exists()
        })?;
        ordinary(process.pid())?;
        Ok(process)
    }

    fn daemon(&self, place: &Place) -> Result<Process> {
        let name = daemon().unwrap_or("ovs-vswitchd");
        let mut command = self.command(place, &program(name).display().to_string())?;
        command.args([
            &self.socket(),
            &format!("--unixctl={}", self.file("vs.ctl")),
        ]);
        let mut process = Process::spawn(command, &self.directory.join("ovs-vswitchd.log"))?;
        process.wait_for(System::Ovs, PATIENCE, || {
            self.directory.join("vs.ctl").exists() && self.appctl(&["version"]).is_ok()
        })?;
        Ok(process)
    }

    fn command(&self, place: &Place, program: &str) -> Result<Command> {
        let mut command = self.site.node.command(Some(place.cpu), program)?;
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, &self.directory);
        }
        Ok(command)
    }

    /// Ports, the node's address, the way to the far end, the rules.
    fn bridges(&self, other: &Site) -> Result<()> {
        let Site {
            port,
            uplink,
            address,
            ..
        } = self.site;
        let hwaddr = format!("other_config:hwaddr={}", self.site.uplink_mac());
        let (local, remote) = (
            format!("options:local_ip={address}"),
            format!("options:remote_ip={}", other.address),
        );
        let bridge = |name, device, more: &[&str]| {
            let mut arguments = vec!["add-br", name, "--", "set", "bridge", name];
            arguments.extend(["datapath_type=netdev", "fail_mode=secure"]);
            arguments.extend(more);
            arguments.extend(["--", "add-port", name, device]);
            arguments.extend(["--", "set", "interface", device, "type=afxdp"]);
            arguments.extend(["options:xdp-mode=native", "options:n_rxq=1"]);
            self.vsctl(&arguments)
        };
        bridge("br-phy", uplink, &[&hwaddr])?;
        bridge("br-int", port, &[])?;
        let tunnel = ["add-port", "br-int", "vx", "--", "set", "interface", "vx"];
        let options = ["type=vxlan", "options:key=4096", &local, &remote];
        self.vsctl(&[&tunnel[..], &options[..]].concat())?;
        self.site.node.ip(&format!(
            "addr del {address}/24 dev {uplink}\n\
             addr add {address}/24 dev br-phy\n\
             link set br-phy up\n\
             link set br-int up\n"
        ))?;
        let (far, mac) = (other.address.to_string(), other.uplink_mac().to_string());
        self.appctl(&["tnl/arp/set", "br-phy", &far, &mac])?;
        for (bridge, rule) in [
            ("br-phy", "actions=NORMAL".to_owned()),
            ("br-int", format!("in_port={port},actions=output:vx")),
            ("br-int", format!("in_port=vx,actions=output:{port}")),
        ] {
            let target = format!("unix:{}", self.file(&format!("{bridge}.mgmt")));
            self.run("ovs-ofctl", &["add-flow", &target, &rule])?;
        }
        Ok(())
    }

    fn vsctl(&self, arguments: &[&str]) -> Result<()> {
        let database = format!("--db={}", self.socket());
        self.run(
            "ovs-vsctl",
            &[&[database.as_str(), "--timeout=10"], arguments].concat(),
        )
    }

    fn appctl(&self, arguments: &[&str]) -> Result<()> {
        let control = self.file("vs.ctl");
        self.run(
            "ovs-appctl",
            &[&["--timeout=5", "-t", &control], arguments].concat(),
        )
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let output = Command::new(program)
            .args(arguments)
            .env("OVS_RUNDIR", &self.directory)
            .stdin(Stdio::null())
            .output()
            .map_err(BenchError::io(format!("running {program}")))?;
        if output.status.success() {
            return Ok(());
        }
        Err(BenchError::Command {
            command: format!("{program} {}", arguments.join(" ")),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_room_for_every_cpu() {
        assert_eq!(cpu_mask(0), "0x1");
        assert_eq!(cpu_mask(6), "0x40");
        assert_eq!(cpu_mask(64), format!("0x1{}", "0".repeat(16)));
    }
}
