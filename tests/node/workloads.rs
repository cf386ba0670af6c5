//! Workloads that are added and deleted by hand and by a container runtime (CNI), beside a running
//! node.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::netns::{Router, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

/// A node whose workloads come by their interfaces' names, and one that is as others.
fn nodes() -> [Router; 2] {
    build(&[ONE, TWO]);
    let config = ONE.config(
        "workloads: [{ interface: cali0 }]\nworkloadInterfaces: { prefix: cali, max: 4 }\n",
    );
    let nodes = [
        Router::start("one", &config),
        Router::start("two", &TWO.config("")),
    ];
    wait_for_ping("one0", TWO.workload(0));
    nodes
}

fn wait_for_ping(namespace: &str, to: Ipv4Addr) {
    wait_for(&format!("an answer from {to}"), || {
        pings(namespace, to, 1).then_some(())
    });
}

fn workload(arguments: &str) -> Output {
    try_sh(&format!(
        "ip netns exec one {UNDERPASS} workload {arguments} --config {DIRECTORY}/one.yaml"
    ))
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// The address of a network of one.
fn address(network: &Value) -> Ipv4Addr {
    let text = network.as_str().expect("a network");
    let (address, _) = text.split_once('/').expect("a prefix length");
    address.parse().expect("an address")
}

#[test]
fn a_workload_is_added_by_hand_and_undone() {
    isolated(|| {
        let _nodes = nodes();
        sh("ip netns add web");
        let added = workload("add web");
        assert!(added.status.success(), "{}", text(&added));
        let shown: Value = serde_json::from_slice(&workload("show web").stdout).expect("JSON");
        let web = address(&shown["spec"]["ipNetworks"][0]);
        // Of the node's own block, and nobody else's.
        assert_eq!(web.octets()[..3], [192, 168, 1], "{web}");
        assert!(![1, 2, 10].contains(&web.octets()[3]), "{web}");
        wait_for_ping("web", TWO.workload(0));
        wait_for_ping("two0", web);
        let link = sh("ip -n web -d addr show eth0");
        // IP-in-IP takes 20 of the uplink's 1500 bytes.
        assert!(
            link.contains(&format!("{web}/32")) && link.contains("mtu 1480"),
            "{link}"
        );
        assert!(sh("ip -n one link").contains("link/ether ee:ee:ee:ee:ee:ee"));
        assert!(text(&workload("list")).contains(&format!("{web}/32")));

        // Another gets another address, and none twice.
        sh("ip netns add db");
        let refused = workload(&format!("add db --ip {web}"));
        assert!(
            text(&refused).contains("already assigned"),
            "{}",
            text(&refused)
        );
        let second = workload("add db --ip 192.168.1.60");
        assert!(second.status.success(), "{}", text(&second));
        wait_for_ping("db", web);

        // Undone wholly, and what was left half-made too.
        sh("ip -n db link del eth0");
        for name in ["web", "db", "web"] {
            let gone = workload(&format!("del {name}"));
            assert!(gone.status.success(), "{}", text(&gone));
        }
        wait_for("the ports to be closed", || {
            (ours_in("one") == ["tunl0", "xdp cali0", "xdp eth0"]).then_some(())
        });
        assert!(!text(&workload("list")).contains(&format!("{web}/32")));
        // Their addresses are free again.
        let again = workload(&format!("add db --ip {web}"));
        assert!(again.status.success(), "{}", text(&again));
        // A namespace that is not there leaves nothing behind.
        let failed = workload("add ghost");
        assert!(
            !failed.status.success() && text(&failed).contains("ghost"),
            "{}",
            text(&failed)
        );
        assert!(!text(&workload("list")).contains("ghost"));
    });
}

/// What would never be served, or is there otherwise than asked for, is refused in a sentence that says
/// what would be right, and nothing is changed.
#[test]
fn a_workload_that_cannot_be_as_asked_for_is_refused() {
    isolated(|| {
        let _nodes = nodes();
        for name in ["web", "db", "c", "d", "e"] {
            sh(&format!("ip netns add {name}"));
        }
        let refused = |line: &str, sentence: &str| {
            let output = workload(line);
            let text = text(&output);
            assert!(
                !output.status.success() && text.contains(sentence),
                "{line}: {text}"
            );
        };
        refused(
            "add web --interface veth1",
            "node one would not serve 'veth1', which does not begin with cali; name an interface that does",
        );
        refused(
            "add web --pool nope",
            "no pool is called 'nope'; there are: pool",
        );
        refused(
            "add web --pool pool --ip 10.9.9.9",
            "10.9.9.9 is not in pool; ask for another",
        );
        let elsewhere = try_sh(&format!(
            "ip netns exec two {UNDERPASS} workload add web --config {DIRECTORY}/two.yaml"
        ));
        assert!(
            text(&elsewhere).contains(
                "/run/test/two.yaml has no workloadInterfaces; write workloadInterfaces:"
            ),
            "{}",
            text(&elsewhere)
        );
        assert_eq!(
            text(&workload("list")).lines().count(),
            2,
            "{}",
            text(&workload("list"))
        );

        assert!(workload("add web --ip 192.168.1.50").status.success());
        refused(
            "add web --ip 192.168.1.51",
            "workload web is there already, with 192.168.1.50; delete it first (underpass workload del web)",
        );
        let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: other}\n\
                    spec: {cidr: 10.66.0.0/16}\n";
        write_resources("other", pool);
        refused(
            "add web --pool other",
            "workload web is there already, with 192.168.1.50",
        );
        for same in [
            "add web",
            "add web --ip 192.168.1.50",
            "add web --pool pool",
        ] {
            let again = workload(same);
            assert!(
                text(&again).contains("workload web: 192.168.1.50 at "),
                "{}",
                text(&again)
            );
        }
        wait_for_ping("web", TWO.workload(0));
        refused("add db --ip 192.168.1.50", "already assigned");

        // No more ports than the node has: said, not hidden.
        for (name, more) in [
            ("c", ""),
            ("d", ""),
            ("e", ""),
            ("db", "it is not served yet: workloadInterfaces.max"),
        ] {
            let added = workload(&format!("add {name}"));
            assert!(
                added.status.success() && text(&added).contains(more),
                "{}",
                text(&added)
            );
            assert_eq!(
                more.is_empty(),
                !text(&added).contains("not served"),
                "{}",
                text(&added)
            );
        }
    });
}

/// A veth pair or a guest's TAP that is there already is taken by its name, and left there at the end.
#[test]
fn an_interface_that_is_there_is_taken() {
    isolated(|| {
        let _nodes = nodes();
        sh("ip netns add web");
        sh("ip -n one link add cali7 type veth peer name net0 netns web");
        let index = || {
            sh("ip -n one -o link show cali7")
                .split(':')
                .next()
                .map(str::to_owned)
        };
        let before = index();
        let added = workload("add web --interface cali7 --ip 192.168.1.60");
        assert!(
            text(&added).contains("192.168.1.60 at cali7"),
            "{}",
            text(&added)
        );
        wait_for_ping("two0", Ipv4Addr::new(192, 168, 1, 60));
        assert!(sh("ip -n web link show net0").contains("mtu 1480"));
        let again = workload("add web --interface cali7");
        assert!(again.status.success(), "{}", text(&again));
        assert!(workload("del web").status.success());
        assert_eq!(index(), before, "it stays");
        let left = sh("ip -n web addr show net0; ip -n web route");
        assert!(
            !left.contains("192.168.1.60") && !left.contains("169.254.1.1"),
            "{left}"
        );

        // A TAP has no far end of the kernel's; no network namespace is asked for.
        sh("ip -n one tuntap add cali8 mode tap && ip -n one link set cali8 up");
        let guest = workload("add guest --interface cali8 --ip 192.168.1.61");
        assert!(guest.status.success(), "{}", text(&guest));
        let shown: Value = serde_json::from_slice(&workload("show guest").stdout).expect("JSON");
        assert_eq!(shown["spec"]["interfaceName"], "cali8");
        assert!(shown["spec"].get("mac").is_none(), "{shown}");
        assert!(workload("del guest").status.success());
        sh("ip -n one link show cali8");
        // The node's own are nobody's.
        let uplink = workload("add web --interface eth0");
        assert!(
            text(&uplink).contains("would not serve 'eth0'"),
            "{}",
            text(&uplink)
        );
    });
}

/// By the running node's name, from wherever it is asked; and its MTU is what fits now.
#[test]
fn a_running_node_is_meant_by_its_name_and_tells_of_stale_mtus() {
    isolated(|| {
        let _nodes = nodes();
        sh("ip netns add web");
        let on_one = |verb: &str| sh(&format!("{UNDERPASS} workload {verb} --node one"));
        let status = || sh(&format!("{UNDERPASS} node status --node one"));
        let added = on_one("add web");
        assert!(added.ends_with("MTU 1480\n"), "{added}");
        wait_for_ping("web", TWO.workload(0));
        assert!(on_one("list").contains("web "));
        let index = || {
            sh(
                "ip -n web -j link show eth0 | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"ifindex\"])'",
            )
        };
        let before = index();
        assert!(!status().contains("MTU"), "{}", status());

        // VXLAN leaves less.
        write_pool("vxlanMode: Always");
        wait_for("the node to say so", || {
            status()
                .contains("WARNING: mtu: workload web has an MTU of 1480 at cali")
                .then_some(())
        });
        assert!(on_one("add web").ends_with("MTU 1450\n"));
        assert_eq!(index(), before, "the link is the same");
        assert!(sh("ip -n web link show eth0").contains("mtu 1450"));
        wait_for("nothing to say any more", || {
            (!status().contains("WARNING: mtu")).then_some(())
        });
        sh("ip -n one link set eth0 mtu 1400");
        wait_for("the uplink's MTU to count", || {
            status().contains("and 1350 are carried now").then_some(())
        });
        assert!(on_one("del web").contains("workload web is gone"));
        assert!(!sh("ip -n one link").contains("cali6"));
        let unknown = try_sh(&format!("{UNDERPASS} workload add web --node nine"));
        assert!(
            text(&unknown).contains("there are: one, two"),
            "{}",
            text(&unknown)
        );
    });
}

/// A call as a container runtime makes it.
fn cni(command: &str, container: &str, netns: &str, network: &Value) -> (bool, Value) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", "one", UNDERPASS])
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_ARGS", "IgnoreUnknown=1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin");
    let mut input = child.stdin.take().expect("standard input");
    input
        .write_all(network.to_string().as_bytes())
        .expect("written");
    drop(input);
    let output = child.wait_with_output().expect("the plugin's end");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.success(), answer)
}

#[test]
fn a_container_runtime_adds_checks_and_deletes() {
    isolated(|| {
        let _nodes = nodes();
        sh("ip netns add box");
        let text = fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/config/cni/10-underpass.conflist"
        ));
        let list: Value = serde_json::from_str(&text.expect("the example")).expect("JSON");
        // What a runtime makes of a list: one plugin's part with the list's name and version.
        let mut network = list["plugins"][0].clone();
        network["name"] = list["name"].clone();
        network["cniVersion"] = list["cniVersion"].clone();
        network["config"] = json!(format!("{DIRECTORY}/one.yaml"));
        let netns = "/run/netns/box";
        let container = "0123456789abcdef";

        let (known, versions) = cni(
            "VERSION",
            container,
            netns,
            &json!({ "cniVersion": "1.0.0" }),
        );
        assert!(
            known && versions["supportedVersions"].as_array().is_some(),
            "{versions}"
        );
        let (added, result) = cni("ADD", container, netns, &network);
        assert!(added, "{result}");
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["interfaces"][0]["name"], "cali0123456789a");
        assert_eq!(result["interfaces"][1]["sandbox"], netns);
        let own = address(&result["ips"][0]["address"]);
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
        let mac = result["interfaces"][1]["mac"].as_str().expect("an address");
        assert!(sh("ip -n box link show eth0").contains(mac));
        wait_for_ping("box", TWO.workload(0));
        wait_for_ping("two0", own);

        let mut checked = network.clone();
        checked["prevResult"] = result.clone();
        let (well, error) = cni("CHECK", container, netns, &checked);
        assert!(well, "{error}");
        sh("ip -n box route del default");
        let (well, error) = cni("CHECK", container, netns, &checked);
        assert!(!well && error["code"] == 102, "{error}");

        // Added again, it keeps its address; a container that is unknown cannot be checked.
        let (_, again) = cni("ADD", container, netns, &network);
        assert_eq!(again["ips"], result["ips"], "{again}");
        let (well, error) = cni("CHECK", "unknown", netns, &checked);
        assert!(!well && error["code"] == 3, "{error}");
        let (well, error) = cni("ADD", "", netns, &network);
        assert!(!well && error["code"] == 4, "{error}");

        // As often as the runtime likes, with the namespace or without.
        for netns in [netns, "", ""] {
            let (gone, error) = cni("DEL", container, netns, &network);
            assert!(gone && error == Value::Null, "{error}");
        }
        wait_for("the port to be closed", || {
            (ours_in("one") == ["tunl0", "xdp cali0", "xdp eth0"]).then_some(())
        });
        assert!(!try_sh("ip -n box link show eth0").status.success());

        // What a runtime has forgotten goes by itself.
        assert!(cni("ADD", container, netns, &network).0);
        let mut collect = network.clone();
        collect["cniVersion"] = json!("1.1.0");
        collect["cni.dev/valid-attachments"] = json!([]);
        let (collected, error) = cni("GC", "", "", &collect);
        assert!(collected, "{error}");
        assert!(!try_sh("ip -n box link show eth0").status.success());
        assert!(cni("STATUS", "", "", &network).0);
    });
}
