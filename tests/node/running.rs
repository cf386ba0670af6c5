//! A node that runs: its datastore changes or breaks, and it is told to stop.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use underpass::observe::report::RouteRow;

use super::netns::{Router, ask, isolated, pings, try_sh, wait_for};
use super::support::*;

#[test]
fn a_broken_resource_keeps_the_old_routes_and_is_reported() {
    isolated(|| {
        build(&[ONE, TWO]);
        let one = Router::start("one", &ONE.config(""));
        let _two = Router::start("two", &TWO.config(""));
        assert!(pings("one0", TWO.workload(0), 2));
        let before = routes();

        let whole = fs::read_to_string("/run/test/datastore/two.yaml").expect("resources");
        write_resources(
            "two",
            &whole.replace("cidr: 192.168.2.0/26", "cidr: 192.168.2.0/99"),
        );
        said(&one, "/run/test/datastore/two.yaml:18:9: spec.cidr: ");
        write_resources("two", &whole.replace("kind: Node", "kind: [Node"));
        said(&one, "/run/test/datastore/two.yaml:");
        write_resources(
            "pool",
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool}\nspec:\n  cdr: 1\n",
        );
        said(&one, "/run/test/datastore/pool.yaml:5:3: spec.cdr: ");
        assert_eq!(routes(), before);
        assert!(pings("one0", TWO.workload(0), 2));

        // Mended, with another mode: that is followed.
        write_resources("two", &whole);
        write_pool("vxlanMode: Always\n  ipipMode: Never");
        said(&one, "the datastore's problems are mended");
        wait_for("VXLAN routes", || {
            let vxlan = |row: &RouteRow| row.interface.as_deref() == Some("vxlan.calico");
            routes().iter().any(vxlan).then_some(())
        });
        assert!(pings("one0", TWO.workload(0), 2));
    });
}

#[test]
fn nodes_and_workloads_come_and_go() {
    isolated(|| {
        build(&[ONE, TWO]);
        let _one = Router::start("one", &ONE.config(""));
        let _two = Router::start("two", &TWO.config(""));
        assert!(pings("one0", TWO.workload(0), 2));
        let resources = fs::read_to_string("/run/test/datastore/two.yaml").expect("resources");
        fs::remove_file("/run/test/datastore/two.yaml").expect("remove");
        let to_two = |row: &RouteRow| row.destination.to_string() == "192.168.2.0/26";
        wait_for("the route to go", || {
            (!routes().iter().any(to_two)).then_some(())
        });
        assert!(!pings("one0", TWO.workload(0), 2));
        write_resources("two", &resources);
        wait_for("the route to come back", || {
            routes().iter().any(to_two).then_some(())
        });
        wait_for("the way there", || {
            pings("one0", TWO.workload(0), 1).then_some(())
        });
    });
}

#[test]
fn sigterm_ends_it_soon_and_cleanly_even_under_load() {
    isolated(|| {
        build(&[ONE, TWO]);
        let _two = Router::start("two", &TWO.config(""));
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut one = Router::start("one", &ONE.config(""));
            assert!(pings("one0", TWO.workload(0), 2));
            assert_eq!(ours_in("one"), ["tunl0", "xdp cali0", "xdp eth0"]);
            thread::scope(|scope| {
                let flood = scope.spawn(|| {
                    let to = TWO.workload(0);
                    try_sh(&format!("ip netns exec one0 ping -q -f -s 1000 -w 2 {to}"))
                });
                thread::sleep(Duration::from_millis(300));
                let told = Instant::now();
                one.signal(signal);
                assert_eq!(one.wait(), 0, "{}", one.log());
                assert!(
                    told.elapsed() < Duration::from_secs(10),
                    "{:?}",
                    told.elapsed()
                );
                flood.join().expect("flood");
            });
            assert!(one.log().ends_with("one: stopped\n"), "{}", one.log());
            assert!(!one.log().contains("ERROR"), "{}", one.log());
            assert_eq!(ours_in("one"), [""; 0]);
            assert!(!std::path::Path::new(&ONE.socket()).exists());
        }
    });
}

fn routes() -> Vec<RouteRow> {
    serde_json::from_value(ask("routes", &ONE.socket())).expect("routes")
}

fn said(node: &Router, text: &str) {
    wait_for(&format!("{text:?} in\n{}", node.log()), || {
        node.log().contains(text).then_some(())
    });
}
