//! The CNI plugin as a container runtime calls it: by the reference library (Debian's libcni), which
//! containerd, podman and cnitool have, too.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::netns::{Router, isolated, pings, sh, try_sh, wait_for};
use super::support::*;

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

/// Where Debian's packages have the sources of Go's libraries.
const SOURCES: &str = "/usr/share/gocode";

/// The program that calls the library, built once; without Go or the library it says so.
fn libcni() -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/libcni/main.go");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libcni");
    let library = format!("{SOURCES}/src/github.com/containernetworking/cni/libcni");
    if !fs::exists(library).is_ok_and(|there| there)
        || Command::new("go").arg("version").output().is_err()
    {
        println!(
            "passed over: no libcni here (apt-get install golang-go golang-github-appc-cni-dev)"
        );
        return None;
    }
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(source)
        .env("GO111MODULE", "off")
        .env("GOPATH", SOURCES)
        .env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go"))
        .env("CGO_ENABLED", "0")
        .output()
        .expect("go");
    assert!(built.status.success(), "{built:?}");
    Some(program)
}

#[test]
fn the_reference_library_adds_checks_and_deletes() {
    if let Some(program) = libcni() {
        isolated(|| runtime(&program.display().to_string()));
    }
}

fn runtime(program: &str) {
    build(&[ONE, TWO]);
    let config = ONE.config(
        "workloads: [{ interface: cali0 }]\nworkloadInterfaces: { prefix: cali, max: 4 }\n",
    );
    let _one = Router::start("one", &config);
    let _two = Router::start("two", &TWO.config(""));
    // The network as it is shipped, of this node.
    let shipped = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/cni/10-underpass.conflist"
    );
    let mut network: Value =
        serde_json::from_str(&fs::read_to_string(shipped).expect("conflist")).expect("JSON");
    network["plugins"][0]["config"] = json!(format!("{DIRECTORY}/one.yaml"));
    fs::create_dir_all("/run/cni/net.d").expect("directory");
    fs::write("/run/cni/net.d/10-underpass.conflist", network.to_string()).expect("conflist");
    sh(&format!(
        "mkdir /run/cni/bin && ln -s {UNDERPASS} /run/cni/bin/underpass"
    ));
    sh("ip netns add box && ip netns add pod");
    let call = |verb: &str, namespace: &str, pod: &str| -> Output {
        try_sh(&format!(
            "ip netns exec one env CNI_PATH=/run/cni/bin CNI_CACHE=/run/cni/cache POD={pod} \
             {program} {verb} /run/cni/net.d underpass /run/netns/{namespace} {namespace}-0123456789abcdef"
        ))
    };
    let well = |verb: &str, namespace: &str, pod: &str| -> String {
        let output = call(verb, namespace, pod);
        assert!(output.status.success(), "{verb} {namespace}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // What the plugin says of its versions is what the library wants.
    well("validate", "box", "");
    let addresses = ["box", "pod"].map(|namespace| {
        let pod = if namespace == "pod" { "web-0" } else { "" };
        let result: Value = serde_json::from_str(&well("add", namespace, pod)).expect("a result");
        let network = result["ips"][0]["address"].as_str().expect("an address");
        let address = network.split('/').next().expect("an address");
        address.parse().expect("an address")
    });
    for (namespace, address) in ["box", "pod"].into_iter().zip(addresses) {
        wait_for("packets", || {
            pings(namespace, TWO.workload(0), 1).then_some(())
        });
        wait_for("packets", || pings("two0", address, 1).then_some(()));
    }
    assert!(pings("box", addresses[1], 2));
    let shown = sh(&format!(
        "ip netns exec one {UNDERPASS} get wep --datastore {DIRECTORY}/datastore -o name"
    ));
    assert!(
        shown.contains("workloadendpoint/one-k8s-web--0-eth0"),
        "{shown}"
    );

    well("check", "box", "");
    sh("ip -n box addr flush dev eth0");
    let wrong = call("check", "box", "");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        !wrong.status.success() && said.contains("the interface is not as it was made"),
        "{said}"
    );
    for (namespace, pod) in [("box", ""), ("pod", "web-0"), ("box", "")] {
        well("del", namespace, pod);
    }
    wait_for("the ports to be closed", || {
        (ours_in("one") == ["tunl0", "xdp cali0", "xdp eth0"]).then_some(())
    });
    let check = sh(&format!(
        "{UNDERPASS} ipam check --datastore {DIRECTORY}/datastore"
    ));
    assert!(
        check.contains("Found 0 IPs that are allocated in IPAM but not actually in use"),
        "{check}"
    );
}
