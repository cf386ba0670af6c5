//! Nodes that tell each other their blocks by BGP.

use underpass::observe::report::{RouteRow, StatusReport};

use super::netns::{Router, UNDERPASS, ask, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const THREE: Node = Node {
    name: "three",
    number: 3,
    ..ONE
};

fn start(nodes: &[Node]) -> Vec<Router> {
    let start = |node: &Node| {
        sh(&format!(
            "ip netns exec {} sysctl -qw net.ipv4.ip_forward=1",
            node.name
        ));
        Router::start(
            node.name,
            &node.config("bgp: internal\nhealth: 127.0.0.1:9099"),
        )
    };
    nodes.iter().map(start).collect()
}

fn status(node: Node) -> StatusReport {
    serde_json::from_value(ask("status", &node.socket())).expect("a status report")
}

fn node_status(node: Node) -> String {
    sh(&format!(
        "{UNDERPASS} node status --socket {}",
        node.socket()
    ))
}

fn encapsulation(node: Node, to: Node) -> Option<&'static str> {
    let rows: Vec<RouteRow> =
        serde_json::from_value(ask("routes", &node.socket())).expect("routes");
    let block = format!("192.168.{}.0/26", to.number);
    let row = rows
        .into_iter()
        .find(|row| row.destination.to_string() == block)?;
    row.encapsulation.map(|encapsulation| encapsulation.name())
}

fn wait_for_routes(nodes: &[Node], mode: &str) {
    wait_for("all blocks", || {
        let pairs = nodes
            .iter()
            .flat_map(|one| nodes.iter().map(move |other| (one, other)));
        let mut others = pairs.filter(|(one, other)| one.number != other.number);
        others
            .all(|(one, other)| encapsulation(*one, *other) == Some(mode))
            .then_some(())
    });
}

fn listens(node: Node) -> bool {
    let listening = sh(&format!("ip netns exec {} ss -Hltn sport = 179", node.name));
    !listening.trim().is_empty()
}

#[test]
fn blocks_are_learned_by_the_mesh_alone_in_every_mode() {
    isolated(|| {
        let nodes = [ONE, TWO, THREE];
        build(&nodes);
        let mut routers = start(&nodes);
        wait_for_routes(&nodes, "ipip");
        wait_for("packets", || {
            pings("one0", THREE.workload(0), 2).then_some(())
        });
        let shown = node_status(ONE);
        assert!(shown.contains("IPv4 BGP status\n+--"), "{shown}");
        for other in [TWO, THREE] {
            let row = format!("| {}    | node-to-node mesh | up    |", other.address());
            assert!(shown.contains(&row), "{shown}");
        }
        assert!(
            shown.contains("| Established |") && shown.contains("No IPv6 peers found."),
            "{shown}"
        );
        let ready = sh(&format!("ip netns exec one {UNDERPASS} health --bgp-ready"));
        assert!(ready.contains("2 of 2 session(s) established"), "{ready}");
        // Exactly its block, and nothing beneath.
        let told = sh(&format!(
            "{UNDERPASS} bgp advertised 10.30.0.2 --socket {} -o json",
            ONE.socket()
        ));
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let prefixes: Vec<_> = told
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| &row["prefix"])
            .collect();
        assert_eq!(prefixes, ["192.168.1.0/26"]);
        let heard = sh(&format!(
            "{UNDERPASS} bgp received --socket {}",
            ONE.socket()
        ));
        assert!(heard.contains("192.168.3.0/26"), "{heard}");
        sh(&format!(
            "{UNDERPASS} bgp dump /run/test/rib.mrt --socket {}",
            ONE.socket()
        ));
        assert!(
            std::fs::metadata("/run/test/rib.mrt")
                .expect("a dump")
                .len()
                > 100
        );

        write_pool("ipipMode: Never");
        wait_for_routes(&nodes, "none");
        wait_for("packets", || {
            pings("one0", TWO.workload(0), 2).then_some(())
        });
        let host = sh("ip -n one route show 192.168.2.0/26");
        assert!(
            host.starts_with("192.168.2.0/26 via 10.30.0.2 dev eth0 proto 117"),
            "{host}"
        );
        assert!(pings("one", TWO.workload(0), 2));

        // With VXLAN there is nothing to tell, and nobody listens.
        write_pool("vxlanMode: Always");
        wait_for_routes(&nodes, "vxlan");
        wait_for("the port to close", || (!listens(ONE)).then_some(()));
        assert_eq!(status(ONE).bgp.neighbors, []);
        let ready = sh(&format!("ip netns exec one {UNDERPASS} health --bgp-ready"));
        assert!(ready.contains("BGP is not in use"), "{ready}");
        write_pool("ipipMode: Always");
        wait_for_routes(&nodes, "ipip");
        assert!(listens(ONE));

        // A node that stops for good takes its block along.
        let three = routers.last_mut().expect("three");
        three.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(three.wait(), 0, "{}", three.log());
        wait_for("the block to go", || {
            encapsulation(ONE, THREE).is_none().then_some(())
        });
        wait_for("what calicoctl would say", || {
            let shown = node_status(ONE);
            let refused = format!("| {}    | node-to-node mesh | start |", THREE.address());
            shown.contains(&refused).then_some(())
        });
        assert!(pings("one0", TWO.workload(0), 2));
    });
}

#[test]
fn blocks_are_learned_by_a_route_reflector_with_a_password() {
    isolated(|| {
        let nodes = [ONE, TWO, THREE];
        build(&nodes);
        let reflector = std::fs::read_to_string("/run/test/datastore/one.yaml").expect("resources");
        let reflector = reflector
            .replacen(
                "  name: one\n",
                "  name: one\n  labels: {reflector: 'yes'}\n",
                1,
            )
            .replacen(
                "  bgp:\n",
                "  bgp:\n    routeReflectorClusterID: 10.0.0.1\n",
                1,
            );
        write_resources("one", &reflector);
        write_resources(
            "bgp",
            "apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, asNumber: 64600, bindMode: NodeIP}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec:
  nodeSelector: all()
  peerSelector: has(reflector)
  password: {secretKeyRef: {name: bgp, key: password}}
",
        );
        std::fs::create_dir_all("/run/secrets/bgp").expect("secrets");
        std::fs::write("/run/secrets/bgp/password", "correct horse\n").expect("secret");
        let config = |node: &Node| node.config("bgp: { internal: { secrets: /run/secrets } }");
        let _routers: Vec<_> = nodes
            .iter()
            .map(|node| Router::start(node.name, &config(node)))
            .collect();
        wait_for_routes(&nodes, "ipip");
        wait_for("packets", || {
            pings("two0", THREE.workload(0), 2).then_some(())
        });
        let kinds: Vec<_> = status(TWO)
            .bgp
            .neighbors
            .into_iter()
            .map(|n| (n.address.to_string(), n.kind))
            .collect();
        assert_eq!(
            kinds,
            [("10.30.0.1".to_owned(), "node specific".to_owned())]
        );
        assert_eq!(status(ONE).bgp.neighbors.len(), 2);
        let listening = sh("ip netns exec two ss -Hltn sport = 179");
        assert!(listening.contains("10.30.0.2:179"), "{listening}");
        // Without the right password nothing comes through.
        assert!(
            try_sh("ip netns exec three timeout 1 bash -c 'exec 3<>/dev/tcp/10.30.0.1/179'")
                .status
                .code()
                != Some(0)
        );
    });
}

#[test]
fn what_stands_in_the_way_of_sessions_is_said() {
    isolated(|| {
        build(&[ONE, TWO]);
        // Another program has BGP's port.
        let any = std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 179);
        let taken = super::netns::inside("one", || {
            std::net::TcpListener::bind(any).expect("port 179")
        });
        let one = start(&[ONE]).remove(0);
        let holder = format!("(process {})", std::process::id());
        let shown = node_status(ONE);
        assert!(
            shown.contains("WARNING: bgp: cannot listen at 0.0.0.0:179, which")
                && shown.contains(&holder),
            "{shown}"
        );
        assert!(one.log().contains("listening nowhere"), "{}", one.log());
        let doctor = try_sh(&format!(
            "ip netns exec one {UNDERPASS} doctor --no-try --config {DIRECTORY}/one.yaml"
        ));
        let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(
            doctor.contains("bgp_port") && doctor.contains(&holder),
            "{doctor}"
        );
        drop(taken);
        wait_for("the port", || {
            (listens(ONE) && !node_status(ONE).contains("cannot listen")).then_some(())
        });
        // A password that is not there.
        write_resources(
            "peer",
            "apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: peer}
spec: {peerIP: 10.30.0.9, asNumber: 65009, password: {secretKeyRef: {name: bgp, key: none}}}
",
        );
        wait_for("its row", || {
            let shown = node_status(ONE);
            let row = "| 10.30.0.9    | global            | start |";
            (shown.contains(row) && shown.contains("Idle No password: ")).then_some(())
        });
        let ready = try_sh(&format!("ip netns exec one {UNDERPASS} health --bgp-ready"));
        let ready = String::from_utf8_lossy(&[ready.stdout, ready.stderr].concat()).into_owned();
        assert!(ready.contains("10.30.0.9"), "{ready}");
        // A node without BGP says so.
        let _two = Router::start("two", &TWO.config("bgp: off"));
        let silent = try_sh(&format!(
            "{UNDERPASS} bgp neighbors --socket {}",
            TWO.socket()
        ));
        let silent = String::from_utf8_lossy(&silent.stderr).into_owned();
        assert!(silent.contains("`bgp: off`"), "{silent}");
    });
}
