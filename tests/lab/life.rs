//! A node's death by SIGKILL, its next start, its sleep; the lab after a killed run.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::netns::{Router, idle_cpu_time, isolated, sh, try_sh, udp_socket, wait_for};
use super::support::*;

/// UDP to VXLAN's port at worker1: a packet that is steered while a router runs and the kernel's
/// otherwise.
const VXLAN_PORT: u16 = 4789;

#[test]
fn a_killed_node_leaves_nothing_and_starts_again() {
    isolated(|| {
        let lab = Lab::up("ipip");
        assert!(pings("pod1", POD2) && pings("pod1", POD3));
        assert!(
            !kernel_gets_vxlan(),
            "what is for the router must not reach the kernel"
        );
        assert_eq!(ours_in_worker1(), ["tunl0", "xdp cali1", "xdp eth0"]);

        thread::scope(|scope| {
            let traffic =
                scope.spawn(|| try_sh("ip netns exec up-pod1 ping -q -f -w 1 192.168.2.10"));
            thread::sleep(Duration::from_millis(300));
            sh(&format!("kill -KILL {}", lab.pid("worker1")));
            traffic.join().expect("traffic");
        });
        wait_for("the end of the killed node", || {
            ours_in_worker1().is_empty().then_some(())
        });
        assert!(kernel_gets_vxlan(), "the kernel gets packets again");
        assert!(!pings("pod1", POD2), "nobody forwards");

        // The control socket of the killed node is still there, and nobody's.
        assert!(Path::new(&socket("worker1")).exists());
        for _ in 0..2 {
            let mut node = start_worker1();
            assert_eq!(ours_in_worker1(), ["tunl0", "xdp cali1", "xdp eth0"]);
            assert!(pings("pod1", POD2) && pings("pod3", POD1));
            transfer("pod2", "pod1", POD1, 10_000_000);
            node.signal(Signal::SIGKILL);
            assert_eq!(node.wait(), -9);
        }
    });
}

#[test]
fn the_lab_comes_up_over_what_a_killed_run_left() {
    isolated(|| {
        let lab = Lab::up("ipip");
        let pids: Vec<_> = lab.pids().iter().map(ToString::to_string).collect();
        sh(&format!("kill -KILL {}", pids.join(" ")));
        let lab_again = Lab::up("vxlan");
        assert!(pings("pod1", POD2) && pings("pod1", POD3));
        // And over one that runs.
        Lab::up("direct --io tun");
        assert!(pings("pod1", POD2) && pings("pod1", POD3));
        lab_again.script("down");
        assert_eq!(sh("ip netns list"), "");
        assert!(!Path::new(&socket("worker1")).exists());
        let left = sh("ps -e -o stat=,args= | awk '$1 !~ /^Z/ && $2 ~ /underpass$/'");
        assert_eq!(left, "");
    });
}

/// An idle node wakes up now and then, and for packets; the processor has the rest.
#[test]
fn an_idle_node_sleeps() {
    isolated(|| {
        let lab = Lab::up("ipip");
        assert!(pings("pod1", POD2));
        let pid = lab.pid("worker1");
        thread::sleep(Duration::from_millis(500));
        let time = Duration::from_secs(5);
        let used = idle_cpu_time(pid, time, time / 100);
        println!("an idle node used {used:?} of a processor in {time:?}");
        assert!(used < time / 100, "{used:?} of {time:?}");

        // It is asleep, not dead.
        assert!(pings("pod1", POD2));
    });
}

/// What underpass made in worker1's namespace, sorted.
fn ours_in_worker1() -> Vec<String> {
    let links = sh("ip -n up-worker1 -d -j link show");
    let links: serde_json::Value = serde_json::from_str(&links).expect("JSON");
    let mut found = Vec::new();
    for link in links.as_array().expect("links") {
        let name = link["ifname"].as_str().expect("a name");
        if link.get("xdp").is_some() {
            found.push(format!("xdp {name}"));
        }
        if link["linkinfo"]["info_kind"] == "tun" {
            found.push(name.to_owned());
        }
    }
    found.sort();
    found
}

/// Whether a socket of worker1's kernel gets what worker2 sends to VXLAN's port.
fn kernel_gets_vxlan() -> bool {
    let receiver = udp_socket("up-worker1", VXLAN_PORT);
    receiver
        .set_read_timeout(Some(Duration::from_secs(1)))
        .expect("timeout");
    let sender = udp_socket("up-worker2", 0);
    sender
        .send_to(b"no VXLAN", (WORKER1, VXLAN_PORT))
        .expect("send");
    receiver.recv(&mut [0; 16]).is_ok()
}

fn start_worker1() -> Router {
    Router::start(
        "up-worker1",
        Path::new("/run/underpass-lab/nodes/worker1.yaml"),
    )
}
