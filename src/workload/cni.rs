//! The CNI plugin: container runtimes add, check and delete a container's interface by it
//! (Container Network Interface specification 1.0.0 and 1.1.0; results also as 0.3.0 to 0.4.0 want them).
//!
//! A runtime starts the plugin with `CNI_` variables in its environment and the network's configuration
//! on standard input; the plugin answers on standard output, in JSON, errors too.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::link::netns_path;
use super::{Identity, Made, Wish, WorkloadError, Workloads};
use crate::datastore::DatastoreError;
use crate::forward::RouterAddresses;
use crate::ipam::IpamError;
use crate::resources::NodeConfig;

/// The versions of the specification that are spoken.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The node's configuration, unless the network's names another.
const CONFIG: &str = "/etc/underpass/node.yaml";

/// The variable that says what to do, and so that this is a plugin's call.
pub const COMMAND: &str = "CNI_COMMAND";

/// An error as the specification has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CniError {
    /// The version of the network's configuration.
    #[serde(rename = "cniVersion")]
    pub version: String,
    /// Its number.
    pub code: u32,
    /// What it is, short.
    pub msg: String,
    /// What exactly is wrong, and what would be right.
    pub details: String,
}

/// The specification's error codes (section 5, "Error").
mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODING: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    pub const NOT_AVAILABLE: u32 = 50;
    /// From 100 on they are the plugin's own.
    pub const KERNEL: u32 = 100;
    pub const ADDRESS: u32 = 101;
    pub const NOT_AS_MADE: u32 = 102;
}

/// What a runtime tells by the environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
    pub arguments: String,
}

/// The network's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Network {
    cni_version: String,
    name: String,
    /// The node's configuration file.
    config: Option<PathBuf>,
    ipam: Option<Ipam>,
    args: Arguments,
    runtime_config: Requested,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    ipv4_pools: Vec<String>,
    ipv6_pools: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Arguments {
    cni: Requested,
}

/// Addresses that the runtime asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Requested {
    ips: Vec<String>,
}

/// A container's interface that the runtime still has.
#[derive(Debug, Clone, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        Self {
            command: get(COMMAND),
            container: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            interface: get("CNI_IFNAME"),
            arguments: get("CNI_ARGS"),
        }
    }

    fn argument(&self, key: &str) -> Option<&str> {
        let pairs = self
            .arguments
            .split(';')
            .filter_map(|pair| pair.split_once('='));
        let mut found = pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value);
        found.next().filter(|value| !value.is_empty())
    }
}

/// Does what a runtime asks; gives what is to be written to standard output.
pub fn run(environment: &Environment, input: impl Read) -> Result<Option<Value>, CniError> {
    if environment.command == "VERSION" {
        return version(input).map(Some);
    }
    let network = read(input)?;
    let call = Call {
        environment,
        network: &network,
    };
    call.check_version()?;
    match environment.command.as_str() {
        "ADD" => call.add().map(Some),
        "DEL" => call.delete().map(|()| None),
        "CHECK" => call.check().map(|()| None),
        "GC" => call.collect().map(|()| None),
        "STATUS" => call.status().map(|()| None),
        other => Err(call.error(
            code::INVALID_ENVIRONMENT,
            "invalid environment variable",
            format!("{COMMAND} is '{other}'; it must be ADD, DEL, CHECK, GC, STATUS or VERSION"),
        )),
    }
}

fn read(mut input: impl Read) -> Result<Network, CniError> {
    let failed = |code, msg: &str, details: String| CniError {
        version: "1.0.0".to_owned(),
        code,
        msg: msg.to_owned(),
        details,
    };
    let mut text = String::new();
    input
        .read_to_string(&mut text)
        .map_err(|error| failed(code::IO, "cannot read standard input", error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| {
        let details = format!("the network's configuration on standard input: {error}");
        failed(
            code::DECODING,
            "cannot decode the network's configuration",
            details,
        )
    })
}

fn version(mut input: impl Read) -> Result<Value, CniError> {
    // Old runtimes send nothing.
    let mut text = String::new();
    let _ = input.read_to_string(&mut text);
    let asked: Value = serde_json::from_str(&text).unwrap_or_default();
    let asked = asked["cniVersion"].as_str().unwrap_or("1.0.0");
    Ok(json!({ "cniVersion": asked, "supportedVersions": VERSIONS }))
}

/// One call of the plugin.
struct Call<'a> {
    environment: &'a Environment,
    network: &'a Network,
}

impl Call<'_> {
    fn check_version(&self) -> Result<(), CniError> {
        let version = self.version();
        if VERSIONS.contains(&version) {
            return Ok(());
        }
        Err(self.error(
            code::INCOMPATIBLE_VERSION,
            "incompatible CNI version",
            format!(
                "cniVersion is '{version}'; it must be one of {}",
                VERSIONS.join(", ")
            ),
        ))
    }

    fn add(&self) -> Result<Value, CniError> {
        let wish = self.wish()?;
        if self.environment.netns.is_empty() {
            return Err(self.missing("CNI_NETNS"));
        }
        let made = self.workloads()?.add(&wish).map_err(|e| self.failed(e))?;
        Ok(self.result(&wish, &made))
    }

    /// Succeeds where there is nothing to delete.
    fn delete(&self) -> Result<(), CniError> {
        let workloads = self.workloads()?;
        let deleted = workloads.delete(&self.identity()?, None);
        deleted.map(|_| ()).map_err(|error| self.failed(error))
    }

    fn check(&self) -> Result<(), CniError> {
        let wish = self.wish()?;
        if let Some(before) = &self.network.prev_result
            && !before["ips"].is_array()
        {
            return Err(self.error(
                code::INVALID_CONFIG,
                "invalid network configuration",
                "prevResult has no ips; it must be what ADD answered".to_owned(),
            ));
        }
        let checked = self.workloads()?.check(&wish);
        checked.map_err(|error| match error {
            WorkloadError::Exists(details) => {
                self.error(code::UNKNOWN_CONTAINER, "unknown container", details)
            }
            WorkloadError::Link(details) => self.error(
                code::NOT_AS_MADE,
                "the interface is not as it was made",
                details,
            ),
            error => self.failed(error),
        })
    }

    /// Deletes what no container has any more (1.1.0).
    fn collect(&self) -> Result<(), CniError> {
        let Some(valid) = &self.network.valid_attachments else {
            return Err(self.error(
                code::INVALID_CONFIG,
                "invalid network configuration",
                "GC needs cni.dev/valid-attachments".to_owned(),
            ));
        };
        let workloads = self.workloads()?;
        let endpoints = workloads.list().map_err(|error| self.failed(error))?;
        for endpoint in endpoints {
            let spec = &endpoint.spec;
            let (Some(container), Some(interface)) = (&spec.container_id, &spec.endpoint) else {
                continue;
            };
            let used = |a: &Attachment| a.container == *container && a.ifname == *interface;
            if valid.iter().any(used) {
                continue;
            }
            let name = spec.pod.as_ref().or(spec.workload.as_ref());
            let identity = Identity {
                orchestrator: spec.orchestrator.clone().unwrap_or_default(),
                namespace: endpoint
                    .metadata
                    .namespace
                    .as_ref()
                    .map_or("default".to_owned(), ToString::to_string),
                name: name.cloned().unwrap_or_default(),
                container: Some(container.clone()),
                interface: interface.clone(),
                handle: self.handle(container),
            };
            workloads
                .delete(&identity, Some(spec.interface_name.as_str()))
                .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Whether ADD would have what it needs (1.1.0).
    fn status(&self) -> Result<(), CniError> {
        let listed = self.workloads().and_then(|workloads| {
            let listed = workloads.list();
            listed.map(|_| ()).map_err(|error| self.failed(error))
        });
        listed.map_err(|error| CniError {
            code: code::NOT_AVAILABLE,
            msg: "the plugin is not available".to_owned(),
            ..error
        })
    }

    fn workloads(&self) -> Result<Workloads, CniError> {
        let file = self.network.config.clone().unwrap_or_else(|| CONFIG.into());
        NodeConfig::load(&file)
            .map_err(WorkloadError::Config)
            .and_then(Workloads::new)
            .map_err(|error| self.failed(error))
    }

    fn wish(&self) -> Result<Wish, CniError> {
        let network = self.network;
        let mut pools = Vec::new();
        if let Some(ipam) = &network.ipam {
            if !ipam.kind.is_empty() && ipam.kind != "underpass" {
                return Err(self.error(
                    code::INVALID_CONFIG,
                    "invalid network configuration",
                    format!(
                        "ipam.type is '{}'; write underpass, or leave ipam out",
                        ipam.kind
                    ),
                ));
            }
            pools.extend(ipam.ipv4_pools.iter().chain(&ipam.ipv6_pools).cloned());
        }
        let asked = self
            .environment
            .argument("IP")
            .into_iter()
            .map(str::to_owned);
        let asked = asked
            .chain(network.args.cni.ips.iter().cloned())
            .chain(network.runtime_config.ips.iter().cloned());
        let addresses = asked
            .map(|text| self.address(&text))
            .collect::<Result<_, _>>()?;
        Ok(Wish {
            identity: self.identity()?,
            netns: netns_path(&self.environment.netns),
            host_interface: None,
            pools,
            addresses,
            labels: BTreeMap::new(),
        })
    }

    fn address(&self, text: &str) -> Result<IpAddr, CniError> {
        let net = text.parse::<IpNet>().map(|net| net.addr());
        net.or_else(|_| text.parse::<IpAddr>()).map_err(|_| {
            self.error(
                code::INVALID_ENVIRONMENT,
                "invalid address",
                format!("'{text}' is asked for, and is no address"),
            )
        })
    }

    /// A pod's by its name, any other container's by its number.
    fn identity(&self) -> Result<Identity, CniError> {
        let environment = self.environment;
        for (name, value) in [
            ("CNI_CONTAINERID", &environment.container),
            ("CNI_IFNAME", &environment.interface),
        ] {
            if value.is_empty() {
                return Err(self.missing(name));
            }
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !environment.container.chars().all(good) {
            return Err(self.error(
                code::INVALID_ENVIRONMENT,
                "invalid environment variable",
                "CNI_CONTAINERID has letters, digits, '_', '.' and '-' only".to_owned(),
            ));
        }
        let pod = environment.argument("K8S_POD_NAME");
        let namespace = environment.argument("K8S_POD_NAMESPACE");
        let name = pod.unwrap_or(&environment.container);
        Ok(Identity {
            orchestrator: if pod.is_some() { "k8s" } else { "cni" }.to_owned(),
            namespace: namespace.unwrap_or("default").to_owned(),
            name: name.to_lowercase(),
            container: Some(environment.container.clone()),
            interface: environment.interface.clone(),
            handle: self.handle(&environment.container),
        })
    }

    /// As Calico's plugin names it: the network and the container's number.
    fn handle(&self, container: &str) -> String {
        match self.network.name.as_str() {
            "" => format!("underpass.{container}"),
            network => format!("{network}.{container}"),
        }
    }

    fn result(&self, wish: &Wish, made: &Made) -> Value {
        let old = self.version().starts_with("0.");
        let addresses: Vec<IpAddr> = made.endpoint.addresses().collect();
        let ips: Vec<Value> = addresses
            .iter()
            .map(|address| {
                let mut ip = json!({
                    "interface": 1,
                    "address": IpNet::from(*address).to_string(),
                    "gateway": gateway(address.is_ipv4()).to_string(),
                });
                if old {
                    ip["version"] = json!(if address.is_ipv4() { "4" } else { "6" });
                }
                ip
            })
            .collect();
        let route = |v4: bool| {
            let destination = if v4 { "0.0.0.0/0" } else { "::/0" };
            json!({ "dst": destination, "gw": gateway(v4).to_string() })
        };
        let families = [true, false].into_iter();
        let routes: Vec<Value> = families
            .filter(|v4| addresses.iter().any(|address| address.is_ipv4() == *v4))
            .map(route)
            .collect();
        let mut inside = json!({
            "name": wish.identity.interface,
            "mac": made.mac.to_string(),
            "sandbox": self.environment.netns,
        });
        if self.version() == "1.1.0" {
            inside["mtu"] = json!(made.mtu.0);
        }
        json!({
            "cniVersion": self.version(),
            "interfaces": [
                {
                    "name": made.endpoint.spec.interface_name.to_string(),
                    "mac": crate::wire::MacAddr::WORKLOAD_GATEWAY.to_string(),
                },
                inside,
            ],
            "ips": ips,
            "routes": routes,
            "dns": {},
        })
    }

    fn version(&self) -> &str {
        match self.network.cni_version.as_str() {
            "" => "1.0.0",
            given => given,
        }
    }

    fn missing(&self, variable: &str) -> CniError {
        self.error(
            code::INVALID_ENVIRONMENT,
            "invalid environment variable",
            format!("{variable} is missing"),
        )
    }

    fn failed(&self, error: WorkloadError) -> CniError {
        let (code, msg) = match &error {
            WorkloadError::Config(_) => (code::INVALID_CONFIG, "invalid node configuration"),
            WorkloadError::Datastore(DatastoreError::Unavailable { .. }) => (
                code::TRY_AGAIN,
                "the datastore does not answer; try again later",
            ),
            WorkloadError::Ipam(IpamError::Datastore(DatastoreError::Unavailable { .. })) => (
                code::TRY_AGAIN,
                "the datastore does not answer; try again later",
            ),
            WorkloadError::Datastore(_) => (code::IO, "the datastore refuses"),
            WorkloadError::Ipam(_) => (code::ADDRESS, "no address can be given"),
            WorkloadError::Kernel(_) | WorkloadError::Link(_) => {
                (code::KERNEL, "the interface cannot be made")
            }
            WorkloadError::Address(_) => (code::ADDRESS, "no address can be given"),
            WorkloadError::Exists(_) => (code::UNKNOWN_CONTAINER, "unknown container"),
            WorkloadError::Name(_) => (code::INVALID_ENVIRONMENT, "a name cannot be one"),
        };
        self.error(code, msg, error.to_string())
    }

    fn error(&self, code: u32, msg: &str, details: String) -> CniError {
        let name = &self.network.name;
        CniError {
            version: self.version().to_owned(),
            code,
            msg: msg.to_owned(),
            details: match name.is_empty() {
                true => details,
                false => format!("network {name}: {details}"),
            },
        }
    }
}

fn gateway(v4: bool) -> IpAddr {
    match v4 {
        true => RouterAddresses::GATEWAY_V4.into(),
        false => RouterAddresses::GATEWAY_V6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(command: &str) -> Environment {
        Environment {
            command: command.to_owned(),
            container: "abc123".to_owned(),
            netns: "/run/netns/pod".to_owned(),
            interface: "eth0".to_owned(),
            arguments: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=Cart-0".to_owned(),
        }
    }

    #[test]
    fn the_versions_are_told_whatever_is_asked() {
        let answer = run(&environment("VERSION"), &b"{\"cniVersion\":\"0.4.0\"}"[..]);
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(answer["supportedVersions"], json!(VERSIONS));
        assert!(run(&environment("VERSION"), &b""[..]).unwrap().is_some());
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        let code = |command: &str, network: &str| {
            run(&environment(command), network.as_bytes())
                .unwrap_err()
                .code
        };
        assert_eq!(code("ADD", "{"), code::DECODING);
        assert_eq!(
            code("ADD", "{\"cniVersion\":\"9.9.9\"}"),
            code::INCOMPATIBLE_VERSION
        );
        assert_eq!(
            code("PLAY", "{\"cniVersion\":\"1.0.0\"}"),
            code::INVALID_ENVIRONMENT
        );
        let missing = "{\"cniVersion\":\"1.0.0\",\"config\":\"/nowhere/node.yaml\"}";
        assert_eq!(code("ADD", missing), code::INVALID_CONFIG);
        assert_eq!(code("STATUS", missing), code::NOT_AVAILABLE);
        let foreign = "{\"cniVersion\":\"1.0.0\",\"ipam\":{\"type\":\"host-local\"}}";
        assert_eq!(code("ADD", foreign), code::INVALID_CONFIG);
        assert_eq!(code("GC", missing), code::INVALID_CONFIG);
    }

    #[test]
    fn pods_are_known_by_their_names_and_containers_by_their_numbers() {
        let network = Network::default();
        let of = |environment: &Environment| {
            let call = Call {
                environment,
                network: &network,
            };
            call.identity().unwrap()
        };
        let pod = of(&environment("ADD"));
        assert_eq!(
            (
                pod.orchestrator.as_str(),
                pod.namespace.as_str(),
                pod.name.as_str()
            ),
            ("k8s", "shop", "cart-0")
        );
        let container = of(&Environment {
            arguments: String::new(),
            ..environment("ADD")
        });
        assert_eq!(
            (container.orchestrator.as_str(), container.name.as_str()),
            ("cni", "abc123")
        );
    }
}
