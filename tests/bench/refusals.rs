//! A bench that cannot or should not run, and one that is stopped.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{UNDERPASS, isolated, sh, wait_for};
use crate::run::{SHORT, assert_nothing_is_left, text, underpass};

fn refused(arguments: &[&str]) -> String {
    let output = underpass(&[&["bench", "--quick"], arguments].concat());
    let said = text(&output);
    assert!(
        !output.status.success(),
        "{arguments:?} was accepted: {said}"
    );
    said
}

#[test]
fn wrong_options_say_what_would_be_right() {
    for (arguments, part) in [
        (&["--systems", "nativ"][..], "write one of native"),
        (&["--sizes", "63"], "from 64 to 1468"),
        (&["--flows", "63"], "power of two"),
        (&["--flows", "65536"], "up to 32768"),
        (&["--destinations", "32768"], "up to 16384"),
        (&["--rounds", "0"], "at least one round"),
        (&["--width", "0"], "0.001 to 0.5"),
        (&["--generator-cpu", "0", "--node-cpu", "0"], "a CPU each"),
        (&["--node-cpu", "4095"], "these may"),
        (&["--interfaces", "one"], "name two"),
        (
            &["--interfaces", "a,b", "--next-hop", "1"],
            "02:00:00:00:00:01",
        ),
        (&["--force"], "--interfaces"),
        (&["--json", "/nowhere/a.json"], "/nowhere/a.json"),
    ] {
        let said = refused(arguments);
        assert!(
            said.contains(part),
            "{arguments:?} should say '{part}': {said}"
        );
    }
}

#[test]
fn without_root_it_says_so() {
    if !nix::unistd::geteuid().is_root() {
        assert!(refused(&[]).contains("run it as root"));
        return;
    }
    // The binary's directory may be closed to others: a copy is not.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("underpass");
    std::fs::copy(UNDERPASS, &copy).unwrap();
    sh(&format!("chmod 755 {}", directory.path().display()));
    let output = Command::new(&copy)
        .args(["bench", "--quick"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = text(&output);
    assert!(
        !output.status.success() && said.contains("run it as root (now: user 65534)"),
        "{said}"
    );
}

#[test]
fn interfaces_that_cannot_or_should_not_be_used_are_refused() {
    isolated(|| {
        sh("ip link add one type veth peer name two && ip link set one up && ip link set two up");
        sh("ip link add other type veth peer name down");
        let said = |interfaces: &str| refused(&["--interfaces", interfaces]);
        for (interfaces, part) in [
            (
                "nowhere,two",
                "'nowhere': there is none in this network namespace",
            ),
            ("one,nowhere", "'nowhere': there is none"),
            ("lo,two", "'lo': it is no Ethernet interface"),
            ("one,down", "'down': it is down"),
            ("one,one", "name two"),
        ] {
            assert!(
                said(interfaces).contains(part),
                "{interfaces}: {}",
                said(interfaces)
            );
        }
        let files = tempfile::tempdir().unwrap();
        let json = files.path().join("a.json");
        refused(&[
            "--interfaces",
            "nowhere,two",
            "--json",
            json.to_str().unwrap(),
        ]);
        assert!(!json.exists(), "an empty file is left");
        sh("ip addr add 10.9.0.1/24 dev two");
        assert!(said("one,two").contains("'two': it is in use: it has the address 10.9.0.1/24"));
        sh("ip route add default via 10.9.0.2");
        assert!(said("two,one").contains("'two': it is in use: it carries a default route"));
        sh(
            "ip addr flush dev two; ip link add name bridge0 type bridge; ip link set two master bridge0",
        );
        assert!(said("one,two").contains("'two': it is in use: it belongs to bridge0"));
        sh("ip link set two nomaster; ip link del bridge0");
        let wire = Command::new(UNDERPASS)
            .args(["bench-wire", "one", "two"])
            .spawn();
        let mut wire = wire.unwrap();
        wait_for("an XDP program", || {
            sh("ip link show two").contains("xdp").then_some(())
        });
        assert!(said("one,two").contains("it is in use: it has an XDP program"));
        wire.kill().unwrap();
        wire.wait().unwrap();
    });
}

/// The two ends of a veth pair are a cable; one of them has an address.
#[test]
fn an_interface_in_use_is_used_if_the_user_insists() {
    isolated(|| {
        sh("ip link add one type veth peer name two && ip link set one up && ip link set two up");
        sh("ip addr add 10.9.0.1/24 dev two && ethtool -K two gro on");
        let what = ["bench", "--interfaces", "one,two", "--force"];
        let output = underpass(&[&what[..], SHORT].concat());
        let said = text(&output);
        assert!(output.status.success() && said.contains("given"), "{said}");
        assert!(sh("ip addr show two").contains("10.9.0.1/24"));
    });
}

/// A run is stopped at every stage of it: while it starts, while it builds, while it measures.
#[test]
fn a_run_that_is_stopped_leaves_nothing_behind() {
    isolated(|| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            for after in [20, 300, 900, 2500] {
                stop(signal, Duration::from_millis(after));
            }
        }
    });
}

fn stop(signal: Signal, after: Duration) {
    let files = tempfile::tempdir().unwrap();
    let json = files.path().join("a.json");
    let arguments = [
        "bench",
        "--quick",
        "--no-realtime",
        "--systems",
        "vxlan,wire",
        "--json",
        json.to_str().unwrap(),
    ];
    let child = Command::new(UNDERPASS)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(after);
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert!(!output.status.success(), "{signal} after {after:?}: {said}");
    // Before signals are heard, a signal just ends it.
    if signal != Signal::SIGKILL && output.status.code().is_some() {
        assert!(
            said.contains("interrupted"),
            "{signal} after {after:?}: {said}"
        );
        assert!(!json.exists(), "{signal} after {after:?}: an empty file");
    }
    assert_nothing_is_left();
}
