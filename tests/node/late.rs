//! Nodes that find nothing to begin with: a datastore that does not answer yet.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::netns::{Router, ask, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");
const ETCD: &str = "http://127.0.0.1:2379";

/// The lab's resources in an etcd of the node's own namespace.
fn start_etcd() -> Child {
    Command::new("ip")
        .args([
            "netns",
            "exec",
            "one",
            "etcd",
            "--data-dir",
            "/run/test/etcd",
        ])
        .args([
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
        ])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd")
}

/// It keeps asking, says why it is not ready to whoever asks, and forwards once it knows by what.
#[test]
fn a_node_waits_for_an_etcd_that_is_down() {
    if Command::new("etcd").arg("--version").output().is_err() {
        println!("passed over: there is no etcd (Debian: etcd-server)");
        return;
    }
    isolated(|| {
        build(&[ONE, TWO]);
        let mut etcd = start_etcd();
        let apply = format!(
            "ip netns exec one {UNDERPASS} apply -f {DIRECTORY}/datastore --datastore {ETCD}"
        );
        wait_for("etcd to have the resources", || {
            try_sh(&apply).status.success().then_some(())
        });
        etcd.kill().expect("kill");
        etcd.wait().expect("wait");

        let on_etcd = format!(
            "datastore: {{ etcd: {{ endpoints: [\"{ETCD}\"] }} }}\nhealth: 127.0.0.1:9099\n"
        );
        let mut one = Router::spawn("one", &ONE.config(&on_etcd), &[]);
        let _two = Router::start("two", &TWO.config(""));
        let waits = format!("datastore: etcd {ETCD} is away since ");
        wait_for("a node that says why it is not ready", || {
            let health = try_sh(&format!("ip netns exec one {UNDERPASS} health --ready"));
            String::from_utf8_lossy(&health.stderr)
                .contains(&waits)
                .then_some(())
        });
        sh(&format!("ip netns exec one {UNDERPASS} health --live"));
        let status = sh(&format!("{UNDERPASS} node status --node one"));
        assert!(status.contains(&format!("WARNING: {waits}")), "{status}");
        assert_eq!(ask("status", &ONE.socket())["node"], "one");
        assert_eq!(ours_in("one"), [""; 0], "nothing is touched yet");
        wait_for("a line now and then", || {
            (one.log().matches("one: not ready: etcd").count() >= 2).then_some(())
        });

        let mut etcd = start_etcd();
        one.wait_ready();
        wait_for("packets", || {
            pings("one0", TWO.workload(0), 2).then_some(())
        });
        sh(&format!("ip netns exec one {UNDERPASS} health"));

        // One that waits ends at once when told to.
        one.signal(Signal::SIGTERM);
        assert_eq!(one.wait(), 0, "{}", one.log());
        etcd.kill().expect("kill");
        etcd.wait().expect("wait");
        let mut one = Router::spawn("one", &ONE.config(&on_etcd), &[]);
        wait_for("a node that waits", || {
            one.log().contains("not ready").then_some(())
        });
        one.signal(Signal::SIGTERM);
        assert_eq!(one.wait(), 0, "{}", one.log());
        assert!(!std::path::Path::new(&ONE.socket()).exists());
    });
}
