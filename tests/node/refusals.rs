//! What `underpass run` refuses, each with the sentence that says what is wrong and what would be
//! right, exit code 1, and nothing left behind.

use std::fs;
use std::path::Path;

use super::netns::{Router, UNDERPASS, isolated, pings, sh, try_sh};
use super::support::*;

#[test]
fn a_start_that_cannot_work_is_refused_with_a_sentence() {
    isolated(|| {
        build(&[ONE]);
        for (more, sentence) in [
            (
                "uplink: { interface: eth9 }",
                "underpass: /run/test/one.yaml:5:22: uplink.interface: there is no interface 'eth9'; there are: lo, eth0, cali0",
            ),
            (
                "uplink: { interface: lo }",
                "underpass: /run/test/one.yaml:5:22: uplink.interface: 'lo' is no Ethernet device; AF_XDP ports and TAPs need one",
            ),
            (
                "workers: { count: 2 }",
                "underpass: /run/test/one.yaml:2:22: uplink.interface: 'eth0' has 1 receive queue(s), numbered from 0, and queues 1..2 were asked for; \
                 use at most 1 worker(s) or raise the number of channels (ethtool -L eth0 combined N)",
            ),
            (
                "uplink: { interface: eth0, queues: 1 }\nworkers: { count: 2 }",
                "underpass: /run/test/one.yaml:5:36: uplink.queues: 1 queues are fewer than the 2 workers \
                 that serve them; write at least 2, or fewer workers",
            ),
            (
                "workloads: [{ interface: pod, kind: tun, netns: nowhere }]",
                "underpass: /run/test/one.yaml:5:26: workloads[0].interface: cannot enter network namespace 'nowhere' (/var/run/netns/nowhere): No such file \
                 or directory (os error 2); 'ip netns' lists those that exist",
            ),
            (
                "host: { tun: cali0 }",
                "underpass: /run/test/one.yaml:3:26: workloads[0].interface: 'cali0' is also host.tun; \
                 give each port a device and a name of its own",
            ),
            (
                "uplnk: { interface: eth0 }",
                "underpass: /run/test/one.yaml:6:1: uplnk: unknown field",
            ),
            (
                "vxlan: { vni: 16777216 }",
                "underpass: /run/test/one.yaml:6:15: vxlan.vni: ",
            ),
            (
                "node: nobody",
                "underpass: /run/test/one.yaml:5:7: node: the datastore has no Node(nobody) that is in order; \
                 write the name of one of its Node resources, or add this node's",
            ),
            (
                "datastore: { directory: nowhere }",
                "underpass: /run/test/nowhere: ",
            ),
        ] {
            println!("{more}");
            refused(&ONE.config(more), &[], sentence);
        }
    });
}

#[test]
fn somebody_elses_xdp_program_is_left_alone() {
    isolated(|| {
        build(&[ONE]);
        attach_foreign("eth0");
        refused(
            &ONE.config(""),
            &[],
            "underpass: /run/test/one.yaml:2:22: uplink.interface: 'eth0' has an XDP program already: id ",
        );
        assert!(sh("ip -n one -d link show eth0").contains("foreign_pass"));
        sh("ip -n one link set eth0 xdp off");
        attach_foreign("cali0");
        let text = refused(
            &ONE.config(""),
            &[],
            "underpass: /run/test/one.yaml:3:26: workloads[0].interface: 'cali0' has an XDP program already: id ",
        );
        assert!(
            text.contains("name 'foreign_pass'; remove it (ip link set cali0 xdp off"),
            "{text}"
        );
        assert!(sh("ip -n one -d link show cali0").contains("foreign_pass"));
        sh("ip -n one link set cali0 xdp off");
        Router::start("one", &ONE.config(""));
    });
}

#[test]
fn the_default_route_is_taken_only_when_allowed() {
    isolated(|| {
        build(&[ONE]);
        sh("ip -n one route add default via 10.30.0.254");
        let config = ONE.config("");
        let text = refused(
            &config,
            &[],
            "underpass: /run/test/one.yaml:2:22: uplink.interface: eth0 carries this machine's default route; \
             name another interface, or say --allow-default-route (or allowDefaultRoute: true)",
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut node = Router::spawn("one", &config, &["--allow-default-route"]);
        node.wait_ready();
        drop(node);
        Router::start(
            "one",
            &ONE.config("uplink: { interface: eth0, allowDefaultRoute: true }"),
        );
    });
}

#[test]
fn a_live_nodes_control_socket_and_devices_are_not_taken() {
    isolated(|| {
        build(&[ONE, TWO]);
        let mut one = Router::start("one", &ONE.config(""));
        // The same node once more finds its devices taken.
        let config = ONE.config("control: /run/underpass/other.sock");
        let text = refused_while_running(&config, "one");
        assert!(
            text.contains("which an underpass that is running holds")
                || text.contains("has an AF_XDP socket already"),
            "{text}"
        );
        // Another node with this one's socket.
        let config = TWO.config("control: /run/underpass/one.sock");
        let text = refused(&config, &[], "underpass: ");
        assert!(text.contains("/run/underpass/one.sock"), "{text}");
        assert!(text.contains(&one.pid().to_string()), "{text}");
        assert!(one.is_running());
        assert!(sh(&format!("{UNDERPASS} status --socket {}", ONE.socket())).contains("one"));
        assert!(pings("one0", ONE.address(), 2));
        // What is there and no socket is not removed.
        drop(one);
        fs::write("/run/precious", "data").expect("a file");
        refused(&ONE.config("control: /run/precious"), &[], "underpass: ");
        assert_eq!(fs::read("/run/precious").expect("still there"), b"data");
    });
}

/// As after `nsenter --net`, which leaves /sys as it was.
#[test]
fn a_namespace_without_its_sysfs_is_named() {
    isolated(|| {
        build(&[ONE]);
        let config = ONE.config("");
        let run = format!("{UNDERPASS} run --config {}", config.display());
        let output = try_sh(&format!("nsenter --net=/run/netns/one {run}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(
            text,
            "underpass: /run/test/one.yaml:2:22: uplink.interface: /sys/class/net does not show 'eth0', as \
             /sys is of another network namespace; start underpass by 'ip netns exec', or mount sysfs anew\n"
        );
    });
}

#[test]
fn taken_health_address_is_refused() {
    isolated(|| {
        build(&[ONE]);
        let _taken = super::netns::inside("one", || {
            std::net::TcpListener::bind("127.0.0.1:9099").expect("listen")
        });
        let text = refused(&ONE.config("health: 127.0.0.1:9099"), &[], "underpass: ");
        assert!(text.contains("127.0.0.1:9099"), "{text}");
    });
}

#[test]
fn without_the_permission_it_says_which() {
    isolated(|| {
        build(&[ONE]);
        // A directory that everybody may look into.
        sh(&format!("cp {UNDERPASS} /run/underpass-copy"));
        sh("chmod 755 /run /run/underpass-copy");
        let config = ONE.config("");
        let output = try_sh(&format!(
            "ip netns exec one setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \
             /run/underpass-copy run --config {}",
            config.display()
        ));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "underpass: This process may not change links, addresses and routes: run it as root, or give it CAP_NET_ADMIN.",
                "This process may not open AF_XDP sockets: run it as root, or give it CAP_NET_RAW.",
                "This process may not load the XDP program: run it as root, or give it CAP_BPF.",
            ],
            "{text}"
        );
        assert_eq!(ours_in("one"), [""; 0]);
    });
}

/// Runs a node that must refuse to start, in namespace `one` or, by its configuration's name, `two`;
/// what it said.
fn refused(config: &Path, arguments: &[&str], sentence: &str) -> String {
    let namespace = config
        .file_stem()
        .expect("a name")
        .to_str()
        .expect("a name");
    let before = ours_in(namespace);
    let mut node = Router::spawn(namespace, config, arguments);
    let (code, text) = (node.wait(), node.log());
    assert_eq!(code, 1, "{text}");
    let last = text.lines().filter(|line| !line.starts_with('['));
    let told: Vec<_> = last.collect();
    assert!(
        told.first().is_some_and(|line| line.starts_with(sentence)),
        "expected: {sentence}\nsaid: {text}"
    );
    let has_remedy = sentence.contains(';') || told[0].contains(';') || told[0].contains(',');
    assert!(has_remedy, "it does not say what would be right: {text}");
    assert_eq!(ours_in(namespace), before, "it left something behind");
    text
}

fn refused_while_running(config: &Path, namespace: &str) -> String {
    let before = ours_in(namespace);
    let mut second = Router::spawn(namespace, config, &[]);
    assert_eq!(second.wait(), 1, "{}", second.log());
    assert_eq!(ours_in(namespace), before);
    second.log()
}

/// Puts an XDP program that is not ours on a device of namespace `one`.
fn attach_foreign(device: &str) {
    let source =
        "__attribute__((section(\"xdp\"), used)) int foreign_pass(void *p) { return 2; }\n";
    fs::write("/run/foreign.c", source).expect("source");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    sh(&format!(
        "{clang} -O2 -g -target bpf -c /run/foreign.c -o /run/foreign.o"
    ));
    sh(&format!(
        "ip -n one link set {device} xdp obj /run/foreign.o sec xdp"
    ));
}
