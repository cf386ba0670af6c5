//! Where the datastore is, as configurations and the environment say.

use std::fs;
use std::path::Path;

use underpass::resources::NodeConfig;
use underpass::resources::datastore::Datastore;

fn environment(variables: &[(&str, &str)]) -> Result<Datastore, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    from(file.path(), variables)
}

fn from(file: &Path, variables: &[(&str, &str)]) -> Result<Datastore, String> {
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Datastore::from_environment(Some(file), variable).map_err(|problem| problem.to_string())
}

#[test]
fn the_example_with_etcd_is_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let config = NodeConfig::load(&root.join("node-etcd.yaml")).unwrap();
    let etcd = config.datastore.etcd.unwrap();
    assert_eq!(etcd.endpoints.len(), 2);
    assert_eq!(etcd.ca_file.unwrap(), root.join("tls/ca.pem"));
}

#[test]
fn one_datastore_must_be_named() {
    let problems = |datastore: &str| {
        let text = format!("node: n\nuplink: {{interface: up0}}\ndatastore: {datastore}\n");
        let problems = NodeConfig::parse(Path::new("n.yaml"), &text).unwrap_err();
        problems[0].to_string()
    };
    assert!(problems("{directory: ''}").contains("datastore.directory: the path is empty"));
    assert!(problems("{}").contains("datastore.directory: the path is empty"));
    assert!(
        problems("{etcd: {endpoints: []}}").contains("datastore.etcd.endpoints: there is none")
    );
    let endpoint = problems("{etcd: {endpoints: ['10.0.0.1']}}");
    assert!(
        endpoint.contains("endpoints[0]: '10.0.0.1' is not an endpoint"),
        "{endpoint}"
    );
    let both = problems("{directory: d, etcd: {endpoints: ['http://a:1']}}");
    assert!(both.contains("not in both"), "{both}");
}

#[test]
fn calicoctls_environment_and_file_are_understood() {
    let etcd = environment(&[
        ("DATASTORE_TYPE", "etcdv3"),
        ("ETCD_ENDPOINTS", "http://a:2379, http://b:2379"),
        ("ETCD_USERNAME", "u"),
        ("ETCD_PASSWORD", "p"),
    ])
    .unwrap();
    let etcd = etcd.etcd.unwrap();
    assert_eq!(etcd.endpoints, ["http://a:2379", "http://b:2379"]);
    assert_eq!((etcd.username.as_str(), etcd.password.as_str()), ("u", "p"));
    let directory = environment(&[("DATASTORE_DIRECTORY", "/d")]).unwrap();
    assert_eq!(directory, Datastore::directory("/d"));
    let nothing = environment(&[]).unwrap_err();
    assert!(
        nothing.contains("nothing says where the datastore is"),
        "{nothing}"
    );
    let other = environment(&[("DATASTORE_TYPE", "kubernetes")]).unwrap_err();
    assert!(
        other.contains("'kubernetes' is no datastore here"),
        "{other}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  \
                datastoreType: etcdv3\n  etcdEndpoints: http://c:2379\n";
    fs::write(file.path(), text).unwrap();
    let etcd = from(file.path(), &[]).unwrap().etcd.unwrap();
    assert_eq!(etcd.endpoints, ["http://c:2379"]);
}
