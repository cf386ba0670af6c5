//! calicoctl's verbs against a directory: what they print, where, and how they end.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

#[path = "common/etcd.rs"]
#[allow(dead_code, reason = "shared with the datastores' tests")]
mod etcd;
#[path = "resource_cli/over_etcd.rs"]
mod over_etcd;

/// A datastore of its own, named by the environment, and a place for files.
struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

/// What a command printed and how it ended.
struct Ran {
    out: String,
    err: String,
    code: i32,
}

const POOL: &str = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: blue}\n\
                    spec: {cidr: 10.65.0.0/16, ipipMode: Always, natOutgoing: true}\n";

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        fs::create_dir(&store).unwrap();
        Self {
            directory,
            environment: vec![
                ("DATASTORE_TYPE".into(), "directory".into()),
                ("DATASTORE_DIRECTORY".into(), store.display().to_string()),
            ],
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_underpass"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        Ran {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap(),
        }
    }

    /// Runs a command that ends well and prints only this.
    fn prints(&self, arguments: &[&str], expected: &str) {
        let ran = self.run(arguments);
        assert_eq!(
            (ran.out.as_str(), ran.err.as_str(), ran.code),
            (expected, "", 0)
        );
    }

    /// Runs a command that fails and says only this on standard error.
    fn fails(&self, arguments: &[&str], expected: &str) {
        let ran = self.run(arguments);
        assert_eq!(
            (ran.err.as_str(), ran.out.as_str(), ran.code),
            (expected, "", 1)
        );
    }
}

#[test]
fn pools_are_made_shown_changed_and_deleted() {
    let place = Place::new();
    place.file("pool.yaml", POOL);
    place.prints(
        &["apply", "-f", "pool.yaml"],
        "Successfully applied 1 'IPPool' resource(s)\n",
    );
    place.fails(
        &["create", "-f", "pool.yaml"],
        "Failed to create 'IPPool' resource: [pool.yaml:1:1: resource already exists: IPPool(blue)]\n",
    );
    place.prints(
        &["create", "--skip-exists", "-f", "pool.yaml"],
        "Successfully created 1 'IPPool' resource(s)\n",
    );
    place.prints(
        &["get", "ippool"],
        "NAME   CIDR           SELECTOR   \nblue   10.65.0.0/16   all()      \n\n",
    );
    place.prints(
        &["get", "POOLS", "blue", "-o", "wide"],
        "NAME   CIDR           NAT    IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   SELECTOR   \n\
         blue   10.65.0.0/16   true   Always     Never       false      false              all()      \n\n",
    );
    place.prints(&["get", "ipp", "-o", "name"], "ippool/blue\n");
    place.prints(
        &["get", "ipp", "-o", "custom-columns=NAME,NAT"],
        "NAME   NAT    \nblue   true   \n\n",
    );
    place.fails(
        &["get", "ipp", "-o", "custom-columns=NAME,COLOUR"],
        "Unknown heading COLOUR, valid values are: NAME, CIDR, NAT, IPIPMODE, VXLANMODE, DISABLED, \
         DISABLEBGPEXPORT, SELECTOR\n",
    );
    place.prints(
        &[
            "patch",
            "ippool",
            "blue",
            "-p",
            "{\"spec\": {\"ipipMode\": \"Never\", \"vxlanMode\": \"Always\"}}",
        ],
        "Successfully patched 1 'IPPool' resource\n",
    );
    let yaml = place
        .run(&["get", "ippool", "blue", "-o", "yaml", "--export"])
        .out;
    for line in [
        "ipipMode: Never",
        "vxlanMode: Always",
        "blockSize: 26",
        "name: blue",
    ] {
        assert!(yaml.contains(line), "{line}: {yaml}");
    }
    assert!(!yaml.contains("resourceVersion"), "{yaml}");
    place.prints(
        &["delete", "ippool", "blue"],
        "Successfully deleted 1 'IPPool' resource(s)\n",
    );
    place.fails(
        &["delete", "ippool", "blue"],
        "Failed to delete 'IPPool' resource: [resource does not exist: IPPool(blue)]\n",
    );
    place.prints(
        &["delete", "--skip-not-exists", "ippool", "blue"],
        "Successfully deleted 1 'IPPool' resource(s)\n",
    );
    place.fails(
        &["get", "ippool", "blue"],
        "resource does not exist: IPPool(blue)\n",
    );
    place.prints(&["get", "ippool"], "NAME   CIDR   SELECTOR   \n\n");
    place.fails(
        &["replace", "-f", "pool.yaml"],
        "Failed to replace 'IPPool' resource: [pool.yaml:1:1: resource does not exist: IPPool(blue)]\n",
    );
}

#[test]
fn pools_keep_out_of_each_others_way_and_stay_what_they_are() {
    let place = Place::new();
    place.file("pool.yaml", POOL);
    place.run(&["apply", "-f", "pool.yaml"]);
    place.file(
        "other.yaml",
        &POOL.replace("blue", "red").replace("0.0/16", "128.0/20"),
    );
    let ran = place.run(&["create", "-f", "other.yaml"]);
    assert_eq!(ran.code, 1);
    let reason = "IPPool(red) CIDR overlaps with IPPool(blue) CIDR 10.65.0.0/16";
    assert!(ran.err.contains(reason), "{}", ran.err);
    for (change, reason) in [
        (
            ("10.65.0.0/16", "10.66.0.0/16"),
            "IPPool CIDR cannot be modified",
        ),
        (
            ("natOutgoing: true", "blockSize: 27"),
            "IPPool BlockSize cannot be modified",
        ),
    ] {
        place.file("changed.yaml", &POOL.replace(change.0, change.1));
        let ran = place.run(&["apply", "-f", "changed.yaml"]);
        assert!(ran.err.contains(reason) && ran.code == 1, "{}", ran.err);
    }
    // Blocks of another size that are left from a former pool.
    place.file(
        "affinity.yaml",
        "apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {name: n1-10-70-0-0-28}\n\
         spec: {state: confirmed, node: n1, cidr: 10.70.0.0/28}\n",
    );
    place.run(&["create", "-f", "affinity.yaml"]);
    place.file(
        "third.yaml",
        &POOL.replace("blue", "third").replace("10.65", "10.70"),
    );
    let ran = place.run(&["create", "-f", "third.yaml"]);
    let reason = "IPPool block size conflicts with existing allocations";
    assert!(ran.err.contains(reason) && ran.code == 1, "{}", ran.err);
}

#[test]
fn of_many_documents_the_good_ones_count_and_each_bad_one_is_named() {
    let place = Place::new();
    let text = format!(
        "{POOL}---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: bad}}\n\
         spec:\n  cidr: 10.66.0.1/16\n---\n{}---\nkind: Pool\napiVersion: projectcalico.org/v3\n",
        POOL.replace("blue", "green").replace("10.65", "10.67")
    );
    place.file("pools.yaml", &text);
    let ran = place.run(&["apply", "-f", "pools.yaml"]);
    assert_eq!(ran.out, "Partial success: applied 2 out of 4 resources:\n");
    assert_eq!(
        ran.err,
        "Hit error(s): [pools.yaml:10:9: error with field CIDR = '10.66.0.1/16' (Reason: spec.cidr: \
         '10.66.0.1/16' is not strictly masked; write 10.66.0.0/16)\n \
         pools.yaml:17:7: error with field Kind = 'Pool' (Reason: kind: unknown kind 'Pool'; write one of \
         Node, IPPool, IPReservation, IPAMConfiguration, BlockAffinity, WorkloadEndpoint, HostEndpoint, \
         BGPConfiguration, BGPPeer, BGPFilter, FelixConfiguration, Tier, NetworkPolicy, \
         GlobalNetworkPolicy, NetworkSet, GlobalNetworkSet, Profile)]\n"
    );
    assert_eq!(ran.code, 1);
    place.prints(
        &["get", "ippools", "-o", "name"],
        "ippool/blue\nippool/green\n",
    );
}

#[test]
fn validation_needs_no_datastore() {
    let place = Place::new();
    let peer = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: p\nspec:\n  \
                peerIP: 192.168.0.0:0\n";
    fs::remove_dir(place.directory.path().join("store")).unwrap();
    place.file("peer.yaml", peer);
    place.fails(
        &["validate", "-f", "peer.yaml"],
        "Failed to validate 'BGPPeer' resource: [peer.yaml:6:11: error with field PeerIP = \
         '192.168.0.0:0' (Reason: spec.peerIP: '192.168.0.0:0' is not a peer's address; write one such as \
         10.0.0.1, 10.0.0.1:1790 or [fd00::1]:1790)]\n",
    );
    let ran = place.run_with(&["validate", "-f", "-"], &peer.replace(":0\n", ":179\n"));
    assert_eq!(ran.out, "Successfully validated 1 'BGPPeer' resource(s)\n");
    place.fails(
        &["validate", "-f", "absent.yaml"],
        "Failed to validate resource: [absent.yaml: cannot be read: No such file or directory \
         (os error 2); give underpass a file that it may read]\n",
    );
}

#[test]
fn directories_lists_and_standard_input_are_read() {
    let place = Place::new();
    fs::create_dir_all(place.directory.path().join("in/deep")).unwrap();
    place.file("in/a.yaml", POOL);
    place.file("in/notes.txt", "not looked at");
    let item = "{\"metadata\": {\"name\": \"n1\"}, \"spec\": {\"bgp\": {\"ipv4Address\": \"10.0.0.1/24\"}}}";
    place.file(
        "in/b.json",
        &format!("{{\"apiVersion\": \"projectcalico.org/v3\", \"kind\": \"NodeList\", \"items\": [{item}]}}"),
    );
    place.file(
        "in/deep/c.yml",
        &POOL.replace("blue", "deep").replace("10.65", "10.67"),
    );
    place.prints(
        &["apply", "-f", "in"],
        "Successfully applied 2 resource(s)\n",
    );
    place.prints(
        &["apply", "-R", "-f", "in"],
        "Successfully applied 3 resource(s)\n",
    );
    place.prints(
        &["get", "nodes", "-o", "wide"],
        "NAME   ASN       IPV4          IPV6   \nn1     (64512)   10.0.0.1/24          \n\n",
    );
    place.file("empty.yaml", "# nothing\n");
    place.fails(
        &["apply", "-f", "empty.yaml"],
        "No resources specified in file empty.yaml\n",
    );
    place.prints(
        &["apply", "--skip-empty", "-f", "empty.yaml"],
        "No resources specified\n",
    );
}

#[test]
fn namespaces_are_as_with_calicoctl() {
    let place = Place::new();
    let set = "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s}\n\
               spec: {nets: [10.0.0.1, 10.1.0.0/16]}\n";
    place.file("set.yaml", set);
    place.prints(
        &["apply", "-n", "blue", "-f", "set.yaml"],
        "Successfully applied 1 'NetworkSet' resource(s)\n",
    );
    place.prints(&["get", "networkset"], "NAME   \n\n");
    place.prints(
        &["get", "networksets", "-A", "-o", "wide"],
        "NAMESPACE   NAME   NETS                   \nblue        s      10.0.0.1,10.1.0.0/16   \n\n",
    );
    place.fails(
        &["get", "networkset", "-n", "red", "s"],
        "resource does not exist: NetworkSet(red/s)\n",
    );
    place.fails(
        &["get", "ippool", "-n", "red"],
        "IPPool is not namespaced\n",
    );
    place.file(
        "named.yaml",
        &set.replace("{name: s}", "{name: s, namespace: red}"),
    );
    let ran = place.run(&["apply", "-n", "blue", "-f", "named.yaml"]);
    let reason = "resource namespace does not match client namespace. red != blue";
    assert!(ran.err.contains(reason) && ran.code == 1, "{}", ran.err);
    place.fails(
        &["get", "puddle"],
        "resource type 'puddle' is not supported; write one of Node, IPPool, IPReservation, \
         IPAMConfiguration, BlockAffinity, WorkloadEndpoint, HostEndpoint, BGPConfiguration, BGPPeer, \
         BGPFilter, FelixConfiguration, Tier, NetworkPolicy, GlobalNetworkPolicy, NetworkSet, \
         GlobalNetworkSet, Profile\n",
    );
}

#[test]
fn labels_are_set_changed_and_removed() {
    let place = Place::new();
    place.file(
        "node.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n",
    );
    place.run(&["apply", "-f", "node.yaml"]);
    place.prints(
        &["label", "nodes", "n1", "cluster=front"],
        "Successfully set label cluster on nodes n1\n",
    );
    place.fails(
        &["label", "nodes", "n1", "cluster=back"],
        "failed to update label of nodes n1, key cluster is already present. please use \
         '--overwrite' to set a new value.\n",
    );
    place.prints(
        &["label", "nodes", "n1", "cluster=back", "--overwrite"],
        "Successfully updated label cluster on nodes n1\n",
    );
    place.prints(
        &["label", "nodes", "n1", "cluster", "--remove"],
        "Successfully removed label cluster from nodes n1\n",
    );
    place.fails(
        &["label", "nodes", "n1", "cluster", "--remove"],
        "cannot remove label of nodes n1, key cluster does not exist\n",
    );
    place.fails(
        &["label", "nodes", "n1", "nothing"],
        "invalid label nothing\n",
    );
    let ran = place.run(&["label", "nodes", "n1", "a=b c"]);
    assert!(
        ran.err.contains("label not changed") && ran.code == 1,
        "{}",
        ran.err
    );
}

#[test]
fn an_old_version_is_a_conflict() {
    let place = Place::new();
    place.file("pool.yaml", POOL);
    place.run(&["apply", "-f", "pool.yaml"]);
    let old = place.run(&["get", "ippool", "blue", "-o", "yaml"]).out;
    place.file("old.yaml", &old);
    place.prints(
        &["replace", "-f", "old.yaml"],
        "Successfully replaced 1 'IPPool' resource(s)\n",
    );
    place.run(&[
        "patch",
        "ippool",
        "blue",
        "-p",
        "{\"spec\": {\"disabled\": true}}",
    ]);
    let ran = place.run(&["apply", "-f", "old.yaml"]);
    assert!(
        ran.err.contains("update conflict: IPPool(blue)") && ran.code == 1,
        "{}",
        ran.err
    );
    let now = place.run(&["get", "ippool", "blue", "-o", "yaml"]).out;
    assert!(now.contains("disabled: true"), "{now}");
}

#[test]
fn a_manifest_is_imported_once() {
    let manifest =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/calico/octetz-calico.yaml");
    let Ok(text) = fs::read_to_string(manifest) else {
        println!("skipped: the manifest is not beside the repository");
        return;
    };
    let place = Place::new();
    let changed = text
        .replace("calico_backend: \"bird\"", "calico_backend: \"vxlan\"")
        .replace("CALICO_IPV4POOL_IPIP", "CALICO_IPV4POOL_VXLAN");
    place.file("calico.yaml", &changed);
    let yaml = place.run(&["import", "calico.yaml", "-o", "yaml"]);
    assert_eq!(yaml.code, 0, "{}", yaml.err);
    assert_eq!(yaml.out, place.run(&["convert", "-f", "calico.yaml"]).out);
    let validated = place.run_with(&["validate", "-f", "-"], &yaml.out);
    assert_eq!(validated.out, "Successfully validated 3 resource(s)\n");
    let ran = place.run(&["import", "calico.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "IPPool(default-ipv4-ippool): created\n",
        "BGPConfiguration(default): applied\n",
        "CALICO_NETWORKING_BACKEND=vxlan: taken: the datastore brings the routes",
        "-bird-ready: ignored: with this backend no BGP runs",
        "probes that fit the backend: -felix-live -felix-ready\n",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    place.prints(
        &["get", "ippool", "-o", "custom-columns=NAME,CIDR,VXLANMODE"],
        "NAME                  CIDR             VXLANMODE   \n\
         default-ipv4-ippool   192.168.0.0/16   Always      \n\n",
    );
    place.prints(
        &["get", "bgpconfig"],
        "NAME      LOGSEVERITY   MESHENABLED   ASNUMBER   \ndefault                 false         -          \n\n",
    );
    // Into a node's configuration goes what the backend wants.
    let node = "node: n\nuplink: {interface: eth0}\ndatastore: {directory: store}\nbgp: internal # peers\n";
    let file = place.file("node.yaml", node);
    let ran = place.run(&["import", "calico.yaml", "--config", "node.yaml"]);
    assert!(
        ran.out.contains("node.yaml: bgp: off; "),
        "{}{}",
        ran.out,
        ran.err
    );
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(written, node.replace("internal", "off"));
    place.file("calico.yaml", &text);
    let says = |arguments: &[&str], lines: &[&str]| {
        let ran = place.run(arguments);
        for line in lines {
            assert!(ran.out.contains(line), "{line}: {}{}", ran.out, ran.err);
        }
    };
    says(
        &["import", "calico.yaml", "--config", "node.yaml"],
        &[
            // BGP before the pool that needs it.
            "BGPConfiguration(default): applied\nFelixConfiguration(default): applied\n\
             IPPool(default-ipv4-ippool): ipipMode Never → Always, vxlanMode Always → Never\n",
            "node.yaml: bgp: internal; ",
        ],
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), node);
    // What else a person changed stays, and another pool is not touched.
    let patch = r#"{"spec": {"natOutgoing": false}}"#;
    place.run(&["patch", "ippool", "default-ipv4-ippool", "-p", patch]);
    says(
        &["import", "calico.yaml"],
        &["its modes are the manifest's; its other fields stay"],
    );
    let columns = "custom-columns=NAT,IPIPMODE,VXLANMODE";
    let shown = place.run(&["get", "ippool", "-o", columns]).out;
    assert!(shown.contains("false   Always     Never"), "{shown}");
    place.run(&["delete", "ippool", "default-ipv4-ippool"]);
    place.file("pool.yaml", POOL);
    place.run(&["apply", "-f", "pool.yaml"]);
    says(
        &["import", "calico.yaml"],
        &["IPPool(default-ipv4-ippool): not created: there is IPPool(blue) already"],
    );
}

/// What `convert` makes of manifests, whole; the resources were read against Calico's own start-up code.
#[test]
fn manifests_are_converted_as_they_mean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (manifest, golden) in [
        ("../shared/data/calico/octetz-calico.yaml", "octetz"),
        ("config/lab/calico.yaml", "lab"),
    ] {
        let Ok(text) = fs::read_to_string(root.join(manifest)) else {
            println!("skipped: {manifest} is not there");
            continue;
        };
        let place = Place::new();
        let golden = fs::read_to_string(root.join(format!("tests/resource_cli/{golden}.yaml")));
        let golden = golden.unwrap();
        let ran = place.run_with(&["convert", "-f", "-"], &text);
        assert_eq!(
            (ran.out.as_str(), ran.code),
            (golden.as_str(), 0),
            "{}",
            ran.err
        );
        // Each setting is told of, on standard error; resources alone are on standard output.
        assert!(ran.err.contains("-:"), "{}", ran.err);
        let validated = place.run_with(&["validate", "-f", "-"], &ran.out);
        assert_eq!(validated.out, "Successfully validated 3 resource(s)\n");
        let json = place
            .run_with(&["convert", "-f", "-", "-o", "json"], &text)
            .out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["items"].as_array().map(Vec::len), Some(3), "{json}");
        // What another program makes of it is taken back as it is.
        let applied = place.run_with(&["apply", "-f", "-"], &ran.out);
        assert_eq!(
            applied.out, "Successfully applied 3 resource(s)\n",
            "{}",
            applied.err
        );
    }
    let place = Place::new();
    let ran = place.run_with(&["convert", "-f", "-"], "kind: ConfigMap\n");
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .contains("holds no DaemonSet with a container calico-node; give a calico.yaml"),
        "{}",
        ran.err
    );
}

/// Each says where, what, and what would be right; a datastore's trouble is no file's.
#[test]
fn errors_say_what_would_be_right() {
    let place = Place::new();
    place.file("pool.yaml", POOL);
    place.run(&["apply", "-f", "pool.yaml"]);
    place.file("bad.json", "{}");
    let several = format!("{POOL}---\n{POOL}");
    place.file("several.yaml", &several);
    let unreadable = "/nowhere: the datastore's directory cannot be read: No such file or directory (os error 2); \
                      create it, or name another";
    let to_nowhere = ["apply", "-f", "several.yaml", "--datastore", "/nowhere"];
    place.fails(
        &to_nowhere,
        &format!("Failed to apply 'IPPool' resource: [{unreadable}]\n"),
    );
    place.fails(
        &["get", "ippool", "--datastore", "/nowhere"],
        &format!("Failed to get resources: {unreadable}\n"),
    );
    for (patch, sentence) in [
        (
            "{spec: {disabled: true}}",
            "Hit error: the patch is not JSON: key must be a string at line 1 column 2; write names and texts in double quotes, such as '{\"spec\": {\"disabled\": true}}'\n",
        ),
        (
            "7",
            "Hit error: the patch is no mapping of fields: write one such as '{\"spec\": {\"disabled\": true}}'\n",
        ),
        (
            r#"{"spec": {"ipipMode": "never"}}"#,
            "Hit error: spec.ipipMode: 'never' is not a value of this field; write 'Never'\n",
        ),
    ] {
        place.fails(&["patch", "ippool", "blue", "-p", patch], sentence);
    }
    for (file, what) in [
        (
            "missing.json",
            "missing.json: the report cannot be read: No such file or directory (os error 2)",
        ),
        (
            "bad.json",
            "bad.json: it is no report of `ipam check`: missing field `version` at line 1 column 2",
        ),
    ] {
        let ran = place.run(&["ipam", "release", "--from-report", file]);
        let remedy = "`underpass ipam check -o FILE` writes one";
        assert_eq!(
            (ran.err, ran.code),
            (format!("underpass: {what}; {remedy}\n"), 1)
        );
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_command_line() {
    let place = Place::new();
    let ran = place.run(&["completions", "bash"]);
    assert!(ran.out.contains("_underpass()") && !ran.out.contains("ippool"));
    for verb in ["apply", "get", "import", "--skip-exists"] {
        assert!(ran.out.contains(verb), "{verb}");
    }
    let ran = place.run(&["man", "pages"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let page = fs::read_to_string(place.directory.path().join("pages/underpass-apply.1")).unwrap();
    assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{page}");
    assert!(page.contains("filename"), "{page}");
}

#[test]
fn what_would_do_nothing_is_refused() {
    let place = Place::new();
    let policy = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n\
                  metadata: {name: sec.allow}\nspec: {tier: sec, order: 5, selector: all()}\n";
    place.file("policy.yaml", policy);
    place.fails(
        &["apply", "-f", "policy.yaml"],
        "Failed to apply 'GlobalNetworkPolicy' resource: [policy.yaml:1:1: resource does not exist: Tier(sec)]\n",
    );
    let tier =
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: sec}\nspec: {order: 10}\n";
    place.file("both.yaml", &format!("{tier}---\n{policy}"));
    place.prints(
        &["apply", "-f", "both.yaml"],
        "Successfully applied 2 resource(s)\n",
    );
    place.prints(
        &["get", "gnp", "-o", "wide"],
        "NAME        ORDER   SELECTOR   \nsec.allow   5       all()      \n\n",
    );
    place.file(
        "ipam.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: default}\n\
         spec: {minIPReclaimAgeSeconds: 60}\n",
    );
    let ran = place.run(&["apply", "-f", "ipam.yaml"]);
    assert!(
        ran.err
            .contains("spec.minIPReclaimAgeSeconds: released addresses have no age here")
            && ran.code == 1,
        "{}",
        ran.err
    );
}
