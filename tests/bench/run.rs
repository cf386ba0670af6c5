//! Whole runs of the binary, as short as can be.

use std::fs;
use std::process::{Command, Output, Stdio};

use underpass::bench::Report;
use underpass::bench::report::Round;
use underpass::bench::systems::System;
use underpass::bench::topology::Direction;

use crate::netns::{UNDERPASS, isolated, sh};

/// Options that make a run short.
pub const SHORT: &[&str] = &[
    "--quick",
    "--no-realtime",
    "--trial",
    "0.03",
    "--width",
    "0.4",
    "--rounds",
    "2",
];

pub fn underpass(arguments: &[&str]) -> Output {
    let mut command = Command::new(UNDERPASS);
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("underpass")
}

pub fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn report(file: &str) -> Report {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// What holds for every round, however slow the machine is.
fn assert_adds_up(round: &Round) {
    assert!(round.trials > 0);
    if let Some(ndr) = round.ndr {
        assert!(round.pdr.is_some_and(|pdr| ndr <= pdr), "{round:?}");
    }
    assert_eq!(round.duplicates, 0, "{round:?}");
    for one in &round.latency {
        let rising = [one.p50, one.p90, one.p99, one.p999, one.max];
        assert!(rising.is_sorted() && one.p50 > 0, "{one:?}");
        assert!(one.packets > 0);
    }
    if let Some(cost) = &round.cost {
        let parts = cost.process_ns + cost.kernel_thread_ns + cost.sender_ns;
        // In so short a run what the kernel's clock ticks saw may all have been the generator's.
        assert!((parts - cost.packet_ns).abs() <= 1e-6 * parts, "{cost:?}");
        assert!(cost.packet_ns >= 0.0 && cost.packets as f64 <= cost.rate * cost.seconds + 1.0);
        assert!(!cost.cores.is_empty());
    }
}

/// Nothing is left of a bench in this test's world but this process.
pub fn assert_nothing_is_left() {
    let me = std::process::id().to_string();
    let others = || -> Vec<String> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let pids = pids.filter(|pid| pid.parse::<u32>().is_ok() && *pid != me);
        pids.filter_map(|pid| {
            // What is dead and only not yet asked about has no command line.
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            (!line.is_empty()).then(|| line.replace('\0', " "))
        })
        .collect()
    };
    crate::netns::wait_for("the bench's processes to end", || {
        others().is_empty().then_some(())
    });
    let files = sh("find /run /tmp -maxdepth 2 -name '*underpass-bench*'");
    assert!(files.is_empty(), "{files}");
    let links = sh("ip -brief link");
    assert!(links.lines().all(|line| line.starts_with("lo ")), "{links}");
    assert!(!sh("cat /proc/self/mountinfo").contains("underpass-bench"));
}

#[test]
fn a_short_run_tells_what_each_system_did_and_leaves_nothing_behind() {
    isolated(|| {
        let files = tempfile::tempdir().unwrap();
        let file = |name: &str| files.path().join(name).display().to_string();
        let (json, html) = (file("a.json"), file("a.html"));
        let what = [
            "--systems",
            "native,vxlan,wire,kernel-ipip,ovs",
            "--directions",
            "encap,decap",
        ];
        let more = [
            "--flows", "64", "--routes", "hosts", "--json", &json, "--html", &html,
        ];
        let output = underpass(&[&["bench"], SHORT, &what, &more].concat());
        let printed = text(&output);
        assert!(output.status.success(), "{printed}");
        for part in [
            "SYSTEM",
            "PDR Mpps",
            "native",
            "vxlan",
            "wire",
            "generator alone",
        ] {
            assert!(printed.contains(part), "no {part} in {printed}");
        }

        let found = report(&json);
        for direction in [Direction::Encap, Direction::Decap] {
            let measured: Vec<_> = found.measured(direction).collect();
            for system in [System::Native, System::Vxlan, System::Wire] {
                assert!(measured.contains(&system), "{system}: {:?}", found.notes);
            }
        }
        assert!(
            found.cells.iter().all(|cell| cell.rounds.len() == 2),
            "{:?}",
            found.notes
        );
        found
            .cells
            .iter()
            .flat_map(|cell| &cell.rounds)
            .for_each(assert_adds_up);
        for optional in [System::KernelIpip, System::Ovs] {
            let measured = found.systems().contains(&optional);
            let left_out = format!("{optional} left out: ");
            let said = found.notes.iter().any(|note| note.starts_with(&left_out));
            assert!(measured != said, "{optional}: {:?}", found.notes);
        }
        assert!(found.generator.iter().all(|one| one.rate > 0.0));
        let page = fs::read_to_string(&html).unwrap();
        assert!(page.contains("<svg") && page.contains("kernel routing, no tunnel"));
        assert_nothing_is_left();

        // Against itself nothing changed, and the page can be made again.
        let compared = underpass(&["bench", "compare", &json, &json]);
        assert!(compared.status.success(), "{}", text(&compared));
        let compared = text(&compared);
        assert!(compared.contains("VERDICT"), "{compared}");
        assert!(
            !compared.contains("better") && !compared.contains("worse"),
            "{compared}"
        );
        let again = file("b.html");
        assert!(
            underpass(&["bench", "html", &json, &again])
                .status
                .success()
        );
        assert_eq!(fs::read_to_string(again).unwrap(), page);
    });
}

/// Every system is missing: that is no success, and the report says why all the same.
#[test]
fn a_run_that_measures_nothing_fails() {
    isolated(|| {
        let files = tempfile::tempdir().unwrap();
        let json = files.path().join("a.json").display().to_string();
        // Without their tools, whatever this machine has.
        let output = Command::new(UNDERPASS)
            .args(["bench", "--systems", "ovs", "--json", &json])
            .args(SHORT)
            .env("PATH", "/nowhere")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains("nothing was measured: ovs left out: "),
            "{said}"
        );
        let found = report(&json);
        assert!(found.cells.is_empty());
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.starts_with("ovs left out: "))
        );
    });
}

/// Without the right to real-time priority it measures all the same, and says so.
#[test]
fn without_real_time_priority_it_measures_with_ordinary_one() {
    isolated(|| {
        let files = tempfile::tempdir().unwrap();
        let json = files.path().join("a.json").display().to_string();
        let short = SHORT.iter().filter(|option| **option != "--no-realtime");
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-sys_nice", UNDERPASS, "bench"])
            .args(["--systems", "native", "--json", &json])
            .args(short)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let found = report(&json);
        assert!(!found.method.realtime);
        let said = "without real-time priority: ";
        assert!(
            found.notes.iter().any(|note| note.starts_with(said)),
            "{:?}",
            found.notes
        );
        let rounds = found.cells.iter().map(|cell| cell.rounds.len());
        assert_eq!(rounds.collect::<Vec<_>>(), [2], "{:?}", found.notes);
    });
}

/// A kernel that routes between two given interfaces.
#[test]
fn between_given_interfaces_a_router_is_measured() {
    isolated(|| {
        sh("ip netns add router");
        for (near, far, address) in [("one", "r1", "10.1.0.1/24"), ("two", "r2", "10.2.0.1/24")] {
            sh(&format!(
                "ip link add {near} type veth peer name {far} netns router && \
                 ip link set {near} up && \
                 ip netns exec router sh -c 'ip link set {far} up; ip addr add {address} dev {far}; \
                 ethtool -K {far} gro on'"
            ));
        }
        sh(
            "ip netns exec router sh -c 'sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
            net.ipv4.conf.r1.rp_filter=0; \
            ip neigh add 10.2.0.2 lladdr 02:00:00:00:00:99 dev r2; \
            ip route add 198.19.0.0/16 via 10.2.0.2'",
        );
        let mac = sh("ip netns exec router cat /sys/class/net/r1/address");
        let mac = mac.trim();
        let files = tempfile::tempdir().unwrap();
        let json = files.path().join("a.json").display().to_string();
        let what = [
            "--interfaces",
            "one,two",
            "--next-hop",
            mac,
            "--json",
            &json,
        ];
        let output = underpass(&[&["bench"], SHORT, &what].concat());
        assert!(output.status.success(), "{}", text(&output));

        let found = report(&json);
        assert_eq!(found.systems(), [System::Given]);
        let given = found.method.interfaces.clone().unwrap();
        assert_eq!((given.from.as_str(), given.to.as_str()), ("one", "two"));
        assert_eq!(found.cells.len(), 1);
        assert_eq!(found.cells[0].rounds.len(), 2);
        found.cells[0].rounds.iter().for_each(assert_adds_up);
        // The router has them in its books.
        let forwarded = sh("ip netns exec router cat /sys/class/net/r2/statistics/tx_packets");
        let measured: u64 = found.cells[0]
            .rounds
            .iter()
            .flat_map(|round| &round.latency)
            .map(|one| one.packets)
            .sum();
        assert!(forwarded.trim().parse::<u64>().unwrap() >= measured);
        assert!(
            sh("tc filter show dev two ingress; bpftool net show 2>/dev/null || true")
                .trim()
                .is_empty()
        );
    });
}
