//! The Debian package in a guest: installed by dpkg, started by systemd, killed by its watchdog, purged.

use std::collections::BTreeMap;

use super::lab::{POD1, POD2, VmLab};
use super::netns::isolated;
use super::wire::carries;

const GUEST: &str = "worker2";

/// The capabilities' numbers (linux/capability.h): NET_BIND_SERVICE, NET_ADMIN, NET_RAW, IPC_LOCK, PERFMON, BPF.
const WANTED: u64 = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 38 | 1 << 39;

#[test]
fn the_package_is_installed_started_watched_and_purged() {
    isolated(|| {
        let Some(lab) = VmLab::up("D vxlan") else {
            return;
        };
        serves(&lab);
        has_no_more_rights_than_it_needs(&lab);
        lab.script("mode ipip");
        lab.pings("pod1", POD2);
        carries("ipip", "pod1");
        is_killed_when_it_hangs(&lab);
        is_removed_and_purged(&lab);
    });
}

fn serves(lab: &VmLab) {
    let unit = unit(lab);
    for (key, value) in [
        ("LoadState", "loaded"),
        ("UnitFileState", "enabled"),
        ("ActiveState", "active"),
        ("SubState", "running"),
        ("Type", "notify"),
        ("WatchdogUSec", "10s"),
        ("NRestarts", "0"),
        ("User", "underpass"),
    ] {
        assert_eq!(unit[key], value, "{key}: {unit:?}");
    }
    // By sd_notify, as is its readiness.
    assert!(
        unit["StatusText"].starts_with("worker2 forwards"),
        "{unit:?}"
    );
    assert_ne!(unit["WatchdogTimestampMonotonic"], "0", "{unit:?}");
    lab.pings("pod1", POD2);
    lab.pings("pod2", POD1);
    lab.fetched_whole("pod2", POD2, "pod1");
    lab.fetched_whole("pod1", POD1, "pod2");
    let counters = lab.quiet_counters(GUEST);
    assert_eq!(counters.balance().difference(), 0, "{counters:?}");
    let io: Vec<_> = counters.ports.iter().map(|port| port.io.as_str()).collect();
    assert_eq!(io[..2], ["af_xdp native copy"; 2], "{io:?}");
}

fn has_no_more_rights_than_it_needs(lab: &VmLab) {
    let status = lab.exec(GUEST, &format!("cat /proc/{}/status", unit(lab)["MainPID"]));
    let fields: BTreeMap<_, _> = status
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .collect();
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        let has = u64::from_str_radix(fields[set], 16).expect(set);
        assert_eq!(has, WANTED, "{set}: {has:#x}");
    }
    assert_eq!(fields["NoNewPrivs"], "1");
    let user = lab.exec(GUEST, "id -u underpass");
    let mut ids = fields["Uid"].split('\t');
    assert!(
        user.trim() != "0" && ids.all(|id| id == user.trim()),
        "{user}"
    );
}

/// One that says nothing any more is killed and started again, and forwards.
fn is_killed_when_it_hangs(lab: &VmLab) {
    let hanging = unit(lab)["MainPID"].clone();
    lab.exec(GUEST, &format!("kill -STOP {hanging}"));
    lab.wait_for("the watchdog", || {
        let now = unit(lab);
        (now["NRestarts"] == "1" && now["ActiveState"] == "active").then_some(())
    });
    assert_ne!(unit(lab)["MainPID"], hanging);
    let journal = journal(lab);
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    lab.pings("pod1", POD2);
}

/// The node is stopped and the program goes; the configuration stays until the package is purged.
fn is_removed_and_purged(lab: &VmLab) {
    lab.exec(GUEST, "dpkg -r underpass");
    let journal = journal(lab);
    assert!(journal.contains("Deactivated successfully"), "{journal}");
    let left = lab.exec(GUEST, "ip link; ls /run /usr/bin");
    for ours in ["xdp", "tunl0", "underpass\n"] {
        assert!(!left.contains(ours), "{ours}: {left}");
    }
    assert_ne!(unit(lab)["LoadState"], "loaded");
    lab.exec(
        GUEST,
        "test -e /etc/underpass/node.yaml && dpkg -P underpass",
    );
    let left = lab.exec(
        GUEST,
        "find / -xdev -name '*underpass*' -not -path '/root/*'",
    );
    assert_eq!(left.trim(), "", "it left something");
}

fn journal(lab: &VmLab) -> String {
    lab.exec(GUEST, "journalctl --no-pager -u underpass")
}

fn unit(lab: &VmLab) -> BTreeMap<String, String> {
    let said = lab.exec(GUEST, "systemctl show underpass");
    let fields = said.lines().filter_map(|line| line.split_once('='));
    fields
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
