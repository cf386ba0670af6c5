//! `underpass workload` and `underpass cni`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::args::{
    NodeArguments, WorkloadAddArguments, WorkloadNameArguments, WorkloadNodeArguments, WorkloadVerb,
};
use super::client::Client;
use super::table::{Column, Table, cell};
use super::{Failure, Functions, print, print_json};
use crate::observe::protocol::{Reply, Request};
use crate::observe::report::StatusReport;
use crate::resources::{NodeConfig, WorkloadEndpoint};
use crate::workload::cni::{self, Environment};
use crate::workload::{BY_HAND, Identity, Wish, WorkloadError, Workloads, netns_path};

/// Runs one of the verbs.
pub fn run(verb: &WorkloadVerb, functions: &Functions) -> Result<(), Failure> {
    match verb {
        WorkloadVerb::Add(arguments) => add(arguments, functions),
        WorkloadVerb::Del { which, interface } => {
            let found = workloads(&which.on, functions)?
                .delete(&identity(which), interface.as_deref())
                .map_err(told)?;
            let name = &which.name;
            match found {
                true => print(&format!("workload {name} is gone\n")),
                false => print(&format!("there was no workload {name}\n")),
            }
        }
        WorkloadVerb::List { on } => {
            print(&table(&workloads(on, functions)?.list().map_err(told)?))
        }
        WorkloadVerb::Show { which } => {
            let all = workloads(&which.on, functions)?.list().map_err(told)?;
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

fn add(arguments: &WorkloadAddArguments, functions: &Functions) -> Result<(), Failure> {
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
    let made = workloads(&which.on, functions)?.add(&wish).map_err(told)?;
    let addresses: Vec<_> = made.endpoint.addresses().map(|a| a.to_string()).collect();
    print(&format!(
        "workload {}: {} at {}, {} in {netns}, MTU {}\n",
        which.name,
        addresses.join(", "),
        made.endpoint.spec.interface_name,
        which.endpoint,
        made.mtu
    ))
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

fn workloads(on: &WorkloadNodeArguments, functions: &Functions) -> Result<Workloads, Failure> {
    let config = match &on.node {
        None => on.config.clone(),
        Some(name) => config_of(name, functions)?,
    };
    NodeConfig::load(&config)
        .map_err(WorkloadError::Config)
        .and_then(Workloads::new)
        .map_err(told)
}

/// The configuration that a running node was started with.
fn config_of(name: &str, functions: &Functions) -> Result<PathBuf, Failure> {
    let node = NodeArguments {
        node: Some(name.to_owned()),
        ..NodeArguments::default()
    };
    match Client::find(&node, functions)?.ask(&Request::Status)? {
        Reply::Status(StatusReport {
            config: Some(config),
            ..
        }) => Ok(config),
        _ => Err(format!(
            "node {name} does not say where its configuration is; name it by --config"
        )
        .into()),
    }
}

fn told(error: WorkloadError) -> Failure {
    Failure::Told(error.to_string().lines().map(str::to_owned).collect())
}
