//! The systemd unit, the files that are installed, the Debian package, and the Vagrantfile.

#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use netns::{UNDERPASS, isolated, pings, quiet_counters, sh, try_sh, wait_for};

/// The user that the unit's process is here; no such user need exist.
const USER: u32 = 64321;

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");

#[test]
fn the_units_capabilities_are_enough() {
    isolated(|| {
        lab("up ipip");
        let capabilities = unit("AmbientCapabilities");
        assert_eq!(capabilities, unit("CapabilityBoundingSet"));
        assert!(!capabilities.contains("SYS_ADMIN"), "{capabilities}");
        sh("kill $(cat /run/underpass-lab/pids/worker1)");
        wait_for("the lab's own worker1 to end", || {
            (!Path::new("/run/underpass/worker1.sock").exists()).then_some(())
        });
        // As udev makes it on a whole system: for everybody, who then needs the capability.
        sh("mknod -m 666 /run/tun c 10 200 && mount --bind /run/tun /dev/net/tun");
        sh(&format!("chown {USER} /run/underpass"));

        let notified = UnixDatagram::bind("/run/notify").expect("a socket");
        notified
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        fs::set_permissions("/run/notify", fs::Permissions::from_mode(0o666)).expect("rights");
        let mut node = start_as_the_unit_does(&capabilities, true);
        // It is the lab's worker1 now.
        fs::write("/run/underpass-lab/pids/worker1", node.id().to_string()).expect("a file");
        let said = hear(&notified);
        assert!(
            said.starts_with("READY=1\nSTATUS=worker1 forwards"),
            "{said}"
        );
        for mode in ["ipip", "vxlan", "direct"] {
            lab(&format!("mode {mode}"));
            assert!(
                pings("up-pod1", [192, 168, 2, 10].into(), 3),
                "{mode}, pod2"
            );
            assert!(
                pings("up-pod1", [192, 168, 3, 10].into(), 3),
                "{mode}, pod3"
            );
            assert!(
                pings("up-worker1", [192, 168, 2, 10].into(), 3),
                "{mode}, from the host"
            );
        }
        assert_eq!(hear(&notified), "WATCHDOG=1");
        let status = sh(&format!("cat /proc/{}/status", node.id()));
        let uid = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .expect("Uid");
        assert!(uid.contains(&USER.to_string()), "{uid}");
        quiet_counters("/run/underpass/worker1.sock");
        sh(&format!("kill {}", node.id()));
        let mut last = String::new();
        while last != "STOPPING=1" {
            last = hear(&notified);
        }
        assert_eq!(node.wait().expect("wait").code(), Some(0));
        each_capability_is_needed(&capabilities);
    });
}

/// Without any one of them the node does not start: the set is the least. But for that of BGP's port, which
/// this node does not open.
fn each_capability_is_needed(capabilities: &str) {
    let needed = capabilities
        .split(' ')
        .filter(|one| *one != "CAP_NET_BIND_SERVICE");
    for one in needed {
        let others: Vec<_> = capabilities
            .split(' ')
            .filter(|other| *other != one)
            .collect();
        let mut node = start_as_the_unit_does(&others.join(" "), false);
        let status = wait_for("an end", || node.try_wait().expect("wait"));
        assert_eq!(status.code(), Some(1), "without {one}");
    }
}

/// What systemd does: the unit's user, its capabilities and no others, no new privileges.
fn start_as_the_unit_does(capabilities: &str, notify: bool) -> std::process::Child {
    let names: Vec<_> = capabilities
        .split(' ')
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let set = format!("-all,{}", names.join(","));
    let mut command = Command::new("ip");
    command
        // With CAP_IPC_LOCK the limit is none.
        .args(["netns", "exec", "up-worker1", "prlimit"])
        .args(["--memlock=65536:65536", "setpriv"])
        .args([
            format!("--reuid={USER}"),
            format!("--regid={USER}"),
            "--clear-groups".into(),
        ])
        .args([format!("--inh-caps={set}"), format!("--ambient-caps={set}")])
        .args([format!("--bounding-set={set}"), "--no-new-privs".into()])
        .args([
            UNDERPASS,
            "run",
            "--config",
            "/run/underpass-lab/nodes/worker1.yaml",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if notify {
        command
            .env("NOTIFY_SOCKET", "/run/notify")
            .env("WATCHDOG_USEC", "10000000");
    }
    command.spawn().expect("ip netns exec")
}

fn hear(notified: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = notified.recv(&mut buffer).expect("a word to systemd");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if try_sh("command -v systemd-analyze").stdout.is_empty() {
        println!("skipped: no systemd-analyze here");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let unit = fs::read_to_string(root("config/systemd/underpass.service")).expect("the unit");
    let copy = directory.path().join("underpass.service");
    fs::write(&copy, unit.replace("/usr/bin/underpass", UNDERPASS)).expect("a file");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    // Other units of this machine are not ours to judge.
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("underpass.service"))
        .collect();
    assert!(ours.is_empty(), "{said}");
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=35"])
        .arg(&copy)
        .output()
        .expect("systemd-analyze");
    assert!(
        judged.status.success(),
        "{}",
        String::from_utf8_lossy(&judged.stdout)
    );
}

#[test]
fn what_is_installed_is_what_the_package_holds() {
    if try_sh("command -v dpkg-deb").stdout.is_empty() {
        println!("skipped: no dpkg-deb here");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (tree, packages) = (
        directory.path().join("tree"),
        directory.path().join("packages"),
    );
    script("install", &[], &[("DESTDIR", &tree)]);
    let package = script("package", &[&packages], &[]);
    let package = package.lines().last().expect("a path").to_owned();
    let unpacked = directory.path().join("unpacked");
    sh(&format!("dpkg-deb -x {package} {}", unpacked.display()));
    let plain = |files: BTreeSet<String>| -> BTreeSet<String> {
        files
            .into_iter()
            .map(|file| file.trim_end_matches(".gz").to_owned())
            .collect()
    };
    let installed = files_below(&tree);
    assert_eq!(plain(files_below(&unpacked)), installed);
    for file in [
        "usr/bin/underpass",
        "usr/lib/systemd/system/underpass.service",
        "usr/lib/sysusers.d/underpass.conf",
        "usr/share/man/man1/underpass.1",
    ] {
        assert!(installed.contains(file), "{file}: {installed:?}");
    }
    let about = sh(&format!("dpkg-deb --info {package}"));
    assert!(
        about.contains(&format!("Version: {}-1", env!("CARGO_PKG_VERSION"))),
        "{about}"
    );
    assert!(
        about.contains("postinst") && about.contains("prerm"),
        "{about}"
    );
    let version = sh(&format!(
        "{} version",
        unpacked.join("usr/bin/underpass").display()
    ));
    assert_eq!(
        version,
        format!("underpass {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// What `lab demo` does on Vagrant's machines, with the lab's namespaces for machines.
#[test]
fn the_lab_on_machines_walks_the_exercise() {
    isolated(|| {
        lab("up ipip");
        let output = Command::new("bash")
            .arg(root("scripts/machines"))
            .arg("demo")
            .env("UNDERPASS_BIN", UNDERPASS)
            .env("UNDERPASS_LAB_DIR", "/run/underpass-lab")
            .env("UNDERPASS_MACHINES", "namespaces")
            .env("UNDERPASS_MACHINES_DATASTORE", "static")
            .env("UNDERPASS_MACHINES_CONFIGS", "/run/underpass-lab/nodes")
            .stdin(Stdio::null())
            .output()
            .expect("scripts/machines");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{errors}");
        assert!(said.ends_with("everything worked\n"), "{said}{errors}");
        for mode in ["ipip", "vxlan", "direct", "ipip-cross", "vxlan-cross"] {
            assert!(said.contains(&format!("== mode {mode}\n")), "{said}");
        }
        lab("down");
    });
}

/// Vagrant takes any address; what it is given must be the lab's, each once, on its network.
#[test]
fn the_lab_has_addresses_that_fit_together() {
    let text = fs::read_to_string(root("config/lab/topology")).expect("the topology");
    let rows = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.len() >= 4);
    let mut seen = BTreeSet::new();
    for row in &rows {
        let [
            node,
            address,
            gateway,
            block,
            ipip,
            vxlan,
            pod,
            pod_address,
            port,
        ] = row[..]
        else {
            panic!("{row:?}");
        };
        let net: ipnet::Ipv4Net = address.parse().expect(address);
        let gateway: std::net::Ipv4Addr = gateway.parse().expect(gateway);
        assert!(net.contains(&gateway) && net.addr() != gateway, "{node}");
        // libvirt gives a network's first address to the host.
        assert_ne!(net.addr(), net.hosts().next().expect("a host"), "{node}");
        let block: ipnet::Ipv4Net = block.parse().expect(block);
        for within in [ipip, vxlan, pod_address] {
            assert!(
                block.contains(&within.parse::<std::net::Ipv4Addr>().expect(within)),
                "{node}"
            );
        }
        assert!(port.len() < 16 && port.starts_with("cali"), "{port}");
        let net_addr = net.addr().to_string();
        for unique in [node, pod, port, &net_addr, ipip, vxlan, pod_address] {
            assert!(seen.insert(unique.to_owned()), "{unique} twice");
        }
    }
}

#[test]
fn the_vagrantfile_is_in_order() {
    let file = root("Vagrantfile");
    let text = fs::read_to_string(&file).expect("the Vagrantfile");
    // Addresses and commands are in the topology and the scripts, in no second place.
    assert!(
        text.contains("config/lab/topology") && !text.contains("inline:"),
        "{text}"
    );
    if try_sh("command -v ruby").stdout.is_empty() {
        println!("skipped: no ruby here");
    } else {
        sh(&format!("ruby -c {}", file.display()));
    }
    if try_sh("command -v vagrant").stdout.is_empty() {
        println!("skipped: no vagrant here");
    } else {
        let directory = root("");
        let home = tempfile::tempdir().expect("a directory");
        sh(&format!(
            "cd {} && VAGRANT_HOME={home} VAGRANT_DOTFILE_PATH={home}/dot VAGRANT_CHECKPOINT_DISABLE=1 \
             VAGRANT_DEFAULT_PROVIDER=libvirt vagrant validate",
            directory.display(),
            home = home.path().display()
        ));
    }
}

fn unit(key: &str) -> String {
    let unit = fs::read_to_string(root("config/systemd/underpass.service")).expect("the unit");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{key}=")));
    line.expect(key).to_owned()
}

fn script(name: &str, arguments: &[&Path], environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new("bash");
    command.arg(root("scripts").join(name)).args(arguments);
    command.env("UNDERPASS_BIN", UNDERPASS).stdin(Stdio::null());
    command.envs(environment.iter().copied());
    let output = command.output().expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/{name}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files_below(directory: &Path) -> BTreeSet<String> {
    let listed = sh(&format!("cd {} && find . -type f", directory.display()));
    listed
        .lines()
        .map(|line| line.trim_start_matches("./").to_owned())
        .collect()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn lab(arguments: &str) {
    let output = Command::new("bash")
        .arg(LAB)
        .args(arguments.split(' '))
        .env("UNDERPASS_BIN", UNDERPASS)
        .env("UNDERPASS_LAB_DIR", "/run/underpass-lab")
        .stdin(Stdio::null())
        .output()
        .expect("scripts/lab");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/lab {arguments}: {errors}");
}
