//! `underpass workload` and `underpass cni`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::args::{
    NodeArguments, WorkloadAddArguments, WorkloadNameArguments, WorkloadNodeArguments, WorkloadVerb,
};
use super::client::Client;
use super::table::{Column, Table, cell};
use super::{Failure, Functions, print, print_json};
use crate::kernel::veth;
use crate::observe::protocol::{Reply, Request};
use crate::observe::report::StatusReport;
use crate::resources::{NodeConfig, WorkloadEndpoint};
use crate::workload::cni::{self, Environment};
use crate::workload::{BY_HAND, Identity, Wish, WorkloadError, Workloads, netns_path};

/// How long a port may take to be opened.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs one of the verbs, in the network namespace of the node that is meant if it runs.
pub fn run(verb: &WorkloadVerb, functions: &Functions) -> Result<(), Failure> {
    let on = match verb {
        WorkloadVerb::Add(arguments) => &arguments.which.on,
        WorkloadVerb::Del { which, .. } | WorkloadVerb::Show { which } => &which.on,
        WorkloadVerb::List { on } => on,
    };
    let node = Meant::find(on, functions)?;
    match node.namespace() {
        Some(netns) => veth::inside(&netns, || act(verb, &node))
            .map_err(|error| Failure::from(error.to_string()))?,
        None => act(verb, &node),
    }
}

fn act(verb: &WorkloadVerb, node: &Meant) -> Result<(), Failure> {
    match verb {
        WorkloadVerb::Add(arguments) => add(arguments, node),
        WorkloadVerb::Del { which, interface } => {
            let found = node
                .workloads()?
                .delete(&identity(which), interface.as_deref())
                .map_err(told)?;
            let name = &which.name;
            match found {
                true => print(&format!("workload {name} is gone\n")),
                false => print(&format!("there was no workload {name}\n")),
            }
        }
        WorkloadVerb::List { .. } => print(&table(&node.workloads()?.list().map_err(told)?)),
        WorkloadVerb::Show { which } => {
            let all = node.workloads()?.list().map_err(told)?;
            let found = all.iter().find(|endpoint| is(endpoint, &which.name));
            match found {
                Some(endpoint) => print_json(endpoint),
                None => Err(Failure::from(format!(
                    "this node has no workload {}; `underpass workload list` shows those that it has",
                    which.name
                ))),
            }
        }
    }
}

/// The CNI plugin, as a runtime starts it; whether it succeeded.
pub fn cni() -> Result<bool, Failure> {
    match cni::run(&Environment::of_process(), std::io::stdin()) {
        Ok(Some(result)) => print_json(&result).map(|()| true),
        Ok(None) => Ok(true),
        Err(error) => print_json(&error).map(|()| false),
    }
}

fn add(arguments: &WorkloadAddArguments, node: &Meant) -> Result<(), Failure> {
    let which = &arguments.which;
    let netns = arguments.netns.as_deref().unwrap_or(&which.name);
    let wish = Wish {
        identity: identity(which),
        netns: netns_path(netns),
        host_interface: arguments.interface.clone(),
        pools: arguments.pool.clone(),
        addresses: arguments.ip.clone(),
        labels: arguments.label.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    let made = node.workloads()?.add(&wish).map_err(told)?;
    let addresses: Vec<_> = made.endpoint.addresses().map(|a| a.to_string()).collect();
    let interface = made.endpoint.spec.interface_name.as_str();
    print(&format!(
        "workload {}: {} at {}, {} in {netns}, MTU {}\n",
        which.name,
        addresses.join(", "),
        interface,
        which.endpoint,
        made.mtu
    ))?;
    match node.serves(interface) {
        Ok(()) => Ok(()),
        Err(why) => print(&format!("it is not served yet: {why}\n")),
    }
}

fn identity(which: &WorkloadNameArguments) -> Identity {
    Identity {
        orchestrator: BY_HAND.to_owned(),
        namespace: which.namespace.clone(),
        name: which.name.clone(),
        container: None,
        interface: which.endpoint.clone(),
        handle: format!("{BY_HAND}.{}.{}", which.namespace, which.name),
    }
}

fn is(endpoint: &WorkloadEndpoint, name: &str) -> bool {
    let spec = &endpoint.spec;
    let names = [&spec.workload, &spec.pod, &spec.container_id];
    names.into_iter().flatten().any(|known| known == name)
        || endpoint.metadata.name.as_str() == name
}

fn table(endpoints: &[WorkloadEndpoint]) -> String {
    let mut table = Table::new(&[
        Column::Left("WORKLOAD"),
        Column::Left("NODE"),
        Column::Left("NETWORKS"),
        Column::Left("INTERFACE"),
        Column::Left("ORCHESTRATOR"),
    ]);
    for endpoint in endpoints {
        let spec = &endpoint.spec;
        let networks: Vec<_> = spec.ip_networks.iter().map(ToString::to_string).collect();
        table.row(vec![
            cell(spec.pod.as_ref().or(spec.workload.as_ref())),
            spec.node.to_string(),
            networks.join(","),
            spec.interface_name.to_string(),
            cell(spec.orchestrator.as_ref()),
        ]);
    }
    table.text()
}

/// The node that a workload is on.
struct Meant {
    config: PathBuf,
    /// The node itself, if it runs.
    running: Option<Client>,
}

impl Meant {
    fn find(on: &WorkloadNodeArguments, functions: &Functions) -> Result<Self, Failure> {
        let Some(name) = &on.node else {
            let arguments = NodeArguments {
                config: Some(on.config.clone()),
                ..NodeArguments::default()
            };
            let client = Client::find(&arguments, functions)?;
            return Ok(Self {
                config: on.config.clone(),
                running: client.ask(&Request::Status).is_ok().then_some(client),
            });
        };
        let arguments = NodeArguments {
            node: Some(name.clone()),
            ..NodeArguments::default()
        };
        let client = Client::find(&arguments, functions)?;
        match client.ask(&Request::Status)? {
            Reply::Status(StatusReport {
                config: Some(config),
                ..
            }) => Ok(Self {
                config,
                running: Some(client),
            }),
            _ => Err(format!(
                "node {name} does not say where its configuration is; name it by --config"
            )
            .into()),
        }
    }

    fn workloads(&self) -> Result<Workloads, Failure> {
        NodeConfig::load(&self.config)
            .map_err(WorkloadError::Config)
            .and_then(Workloads::new)
            .map_err(told)
    }

    /// Where the node runs, if it does and whoever asks may know.
    fn namespace(&self) -> Option<File> {
        let process = self.running.as_ref()?.process()?;
        File::open(format!("/proc/{process}/ns/net")).ok()
    }

    /// Waits until the node serves a port; says why it does not.
    fn serves(&self, interface: &str) -> Result<(), String> {
        let Some(client) = &self.running else {
            return Err("the node does not run; it will be when it does".to_owned());
        };
        let name = format!("port {interface}");
        let asked = Instant::now();
        loop {
            let Ok(Reply::Status(status)) = client.ask(&Request::Status) else {
                return Err("the node does not answer".to_owned());
            };
            let port = status.components.into_iter().find(|part| part.name == name);
            let why = match port {
                Some(port) if !port.detail.starts_with("waits: ") => return Ok(()),
                Some(port) => port.detail.replacen("waits: ", "", 1),
                None => "the node has not seen it".to_owned(),
            };
            if asked.elapsed() > PATIENCE {
                return Err(why);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn told(error: WorkloadError) -> Failure {
    Failure::Told(error.to_string().lines().map(str::to_owned).collect())
}
