//! Where a cluster's resources are: as a configuration or the environment says.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::load::read_text;
use super::problem::{Fault, Origin, Problem};
use super::yaml::{Tree, documents};

/// Where the cluster's resources are: in a directory, or in etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Datastore {
    /// A directory of YAML files. Written relative to the configuration file; once loaded, relative
    /// to the working directory or absolute. Empty if the resources are in etcd.
    #[serde(default)]
    pub directory: PathBuf,
    /// An etcd cluster.
    #[serde(default)]
    pub etcd: Option<Etcd>,
}

/// An etcd cluster (version 3), and how to get into it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Etcd {
    /// The members' client addresses: `http://10.0.0.1:2379` or `https://…`. Any of them will do.
    pub endpoints: Vec<String>,
    /// The user, if etcd asks for one.
    #[serde(default)]
    pub username: String,
    /// The user's password.
    #[serde(default)]
    pub password: String,
    /// The certificate authority that signed the members' certificates (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The certificate to show to etcd (PEM).
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// calicoctl's own configuration file, the fields that matter here; the others are for Kubernetes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calicoctl {
    #[serde(default)]
    spec: CalicoctlSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CalicoctlSpec {
    datastore_type: String,
    directory: String,
    etcd_endpoints: String,
    etcd_username: String,
    etcd_password: String,
    etcd_key_file: String,
    etcd_cert_file: String,
    #[serde(rename = "etcdCACertFile")]
    etcd_ca_cert_file: String,
}

/// Where calicoctl looks for its configuration.
pub const CALICOCTL_CONFIG: &str = "/etc/calico/calicoctl.cfg";

/// What says where the datastore is, for a program that was told nothing else.
const SAY_WHERE: &str = "set DATASTORE_TYPE=etcdv3 and ETCD_ENDPOINTS, or DATASTORE_TYPE=directory \
                         and DATASTORE_DIRECTORY, or name a configuration file";

impl Datastore {
    /// A directory of YAML files.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self {
            directory: path.into(),
            etcd: None,
        }
    }

    /// As calicoctl finds its datastore: a configuration file (the one named, else
    /// [`CALICOCTL_CONFIG`] if it is there), whose settings the environment overrides:
    /// `DATASTORE_TYPE` (`etcdv3`, or `directory` beside Calico's own), `ETCD_ENDPOINTS`,
    /// `ETCD_USERNAME`, `ETCD_PASSWORD`, `ETCD_CA_CERT_FILE`, `ETCD_CERT_FILE`, `ETCD_KEY_FILE` and
    /// `DATASTORE_DIRECTORY`; each also with `CALICO_` before it, which counts less.
    pub fn from_environment(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Problem> {
        let default = Path::new(CALICOCTL_CONFIG);
        let file = file.or_else(|| default.exists().then_some(default));
        let spec = file.map_or(Ok(CalicoctlSpec::default()), read_calicoctl)?;
        let source = file.unwrap_or(Path::new("environment"));
        let value = |name: &str, configured: &str| {
            let names = [name.to_owned(), format!("CALICO_{name}")];
            let mut set = names.iter().filter_map(|name| variable(name));
            let set = set.find(|set| !set.is_empty());
            set.unwrap_or_else(|| configured.to_owned())
        };
        let path = |name: &str, configured: &str| match value(name, configured) {
            empty if empty.is_empty() => None,
            set => Some(PathBuf::from(set)),
        };
        let endpoints = value("ETCD_ENDPOINTS", &spec.etcd_endpoints);
        let endpoints = endpoints.split(',').map(str::trim).map(str::to_owned);
        let etcd = Etcd {
            endpoints: endpoints.filter(|endpoint| !endpoint.is_empty()).collect(),
            username: value("ETCD_USERNAME", &spec.etcd_username),
            password: value("ETCD_PASSWORD", &spec.etcd_password),
            ca_file: path("ETCD_CA_CERT_FILE", &spec.etcd_ca_cert_file),
            cert_file: path("ETCD_CERT_FILE", &spec.etcd_cert_file),
            key_file: path("ETCD_KEY_FILE", &spec.etcd_key_file),
        };
        let directory = path("DATASTORE_DIRECTORY", &spec.directory);
        let kind = value("DATASTORE_TYPE", &spec.datastore_type);
        let datastore = match (kind.as_str(), directory) {
            ("etcdv3" | "", None) => Self {
                directory: PathBuf::new(),
                etcd: Some(etcd),
            },
            ("etcdv3", Some(_)) if !etcd.endpoints.is_empty() => Self {
                directory: PathBuf::new(),
                etcd: Some(etcd),
            },
            ("directory" | "", Some(directory)) => Self::directory(directory),
            (other, _) => {
                let reason = format!("'{other}' is no datastore here");
                return Err(Problem::with_file(source, reason, SAY_WHERE));
            }
        };
        match datastore.validate("").into_iter().next() {
            None => Ok(datastore),
            Some(_) if datastore.etcd.is_some_and(|etcd| etcd.endpoints.is_empty()) => {
                let reason = "nothing says where the datastore is";
                Err(Problem::with_file(source, reason, SAY_WHERE))
            }
            Some(fault) => Err(fault.at(Origin::file(source))),
        }
    }

    /// Has paths start from where they are written.
    pub(super) fn resolve(&mut self, base: &Path) {
        match &mut self.etcd {
            None => self.directory = base.join(&self.directory),
            Some(etcd) => {
                let files = [&mut etcd.ca_file, &mut etcd.cert_file, &mut etcd.key_file];
                for file in files.into_iter().flatten() {
                    *file = base.join(&*file);
                }
            }
        }
    }

    /// What is wrong with it; `path` is what stands before the fields' names.
    pub(super) fn validate(&self, path: &str) -> Vec<Fault> {
        let fault = |field: &str, reason: &str, remedy: &str| {
            vec![Fault::new(format!("{path}{field}"), reason, remedy)]
        };
        match (&self.etcd, self.directory.as_os_str().is_empty()) {
            (None, false) => Vec::new(),
            (None, true) => fault(
                "directory",
                "the path is empty",
                "write a directory's path, relative to this file or absolute, or etcd in its place",
            ),
            (Some(_), false) => fault(
                "directory",
                "resources are in etcd or in a directory, not in both",
                "remove one of the two",
            ),
            (Some(etcd), true) => etcd.validate(&format!("{path}etcd.")),
        }
    }
}

impl Etcd {
    fn validate(&self, path: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.endpoints.is_empty() {
            faults.push(Fault::new(
                format!("{path}endpoints"),
                "there is none",
                "write at least one, such as http://127.0.0.1:2379",
            ));
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let host = ["http://", "https://"]
                .iter()
                .find_map(|scheme| endpoint.strip_prefix(scheme));
            if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
                faults.push(Fault::new(
                    format!("{path}endpoints[{index}]"),
                    format!("'{endpoint}' is not an endpoint"),
                    "write http:// or https://, an address and a port: http://127.0.0.1:2379",
                ));
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            faults.push(Fault::new(
                format!("{path}certFile"),
                "a certificate and its key go together",
                "write both certFile and keyFile, or neither",
            ));
        }
        if self.username.is_empty() != self.password.is_empty() {
            faults.push(Fault::new(
                format!("{path}username"),
                "a user and a password go together",
                "write both username and password, or neither",
            ));
        }
        faults
    }
}

fn read_calicoctl(file: &Path) -> Result<CalicoctlSpec, Problem> {
    let text = read_text(file)?;
    let place = |position| Origin {
        file: file.into(),
        position: Some(position),
    };
    let tree: Tree = match documents(&text).into_iter().next() {
        Some(document) => document.map_err(|(position, fault)| fault.at(place(position)))?,
        None => return Ok(CalicoctlSpec::default()),
    };
    let config: Calicoctl = tree
        .decode(&["apiVersion", "kind", "metadata"])
        .map_err(|(position, fault)| fault.at(place(position)))?;
    Ok(config.spec)
}
