//! Everything that can be known to be wrong with a node's configuration before it runs.

use std::fmt;
use std::path::Path;

use super::resolve::{Wanted, resolve};
use crate::datastore::{Directory, Listing};
use crate::resources::{Fault, NodeConfig, Problem, Resource, Settings};

/// What a check found: a line each, as `file:line:column: field: reason; what would be right`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is refused.
    pub problems: Vec<Problem>,
    /// What works, but hardly as meant.
    pub warnings: Vec<String>,
    /// Whether the datastore's resources were not looked at.
    pub without_datastore: bool,
}

/// Checks a configuration file and the datastore that it names; touches neither the network nor any
/// device.
pub fn check(config: &Path) -> Report {
    let config = match NodeConfig::load(config) {
        Ok(config) => config,
        Err(problems) => {
            return Report {
                problems,
                ..Report::default()
            };
        }
    };
    if config.datastore.etcd.is_some() {
        // What is in etcd is no file, and is judged as it is read.
        return Report {
            without_datastore: true,
            ..Report::default()
        };
    }
    let listing = Directory::new(&config.datastore.directory).load();
    let state = listing.state();
    let wanted = resolve(&state, &config.node);
    let mut problems = listing.problems.clone();
    if !state.nodes.contains_key(&config.node) {
        problems.push(config.problem(Fault::new(
            "node",
            format!(
                "the datastore has no Node({}) that is in order",
                config.node
            ),
            "write the name of one of its Node resources, or add this node's",
        )));
    }
    let settings = Settings::new(&config, &state);
    let mut effective = config.clone();
    problems.extend(effective.take_vxlan(settings.vxlan_port, settings.vni));
    let mut warnings = wanted.warnings.clone();
    warnings.extend(ports_without_workloads(&config, &wanted));
    warnings.extend(workloads_without_ports(&config, &listing));
    Report {
        problems,
        warnings,
        without_datastore: false,
    }
}

impl Report {
    /// Whether the configuration can be run: nothing is refused.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn ports_without_workloads(config: &NodeConfig, wanted: &Wanted) -> Vec<String> {
    let ports = config.workloads.iter().enumerate();
    ports
        .filter(|(_, port)| !wanted.workloads.contains_key(port.interface.as_str()))
        .filter(|(_, port)| config.bridge_of(&port.interface).is_none())
        .map(|(index, port)| {
            let fault = Fault::new(
                format!("workloads[{index}].interface"),
                format!(
                    "no WorkloadEndpoint of node {} names {}",
                    config.node, port.interface
                ),
                "add one, or remove the port",
            );
            config.problem(fault).to_string()
        })
        .collect()
}

fn workloads_without_ports(config: &NodeConfig, listing: &Listing) -> Vec<String> {
    let mut warnings = Vec::new();
    for (resource, origin) in listing.resources.values() {
        let Resource::WorkloadEndpoint(endpoint) = resource else {
            continue;
        };
        let spec = &endpoint.spec;
        let has_port =
            |port: &crate::resources::config::WorkloadPort| port.interface == spec.interface_name;
        if spec.node != config.node {
            continue;
        }
        let name = &spec.interface_name;
        let (reason, remedy) = if let Some(bridge) = config.bridge_of(name) {
            let bridge = &config.bridges[bridge].name;
            (
                format!("{name} is in the bridge {bridge}, where nothing is routed"),
                "take it out of the bridge, or remove the endpoint",
            )
        } else if !config.workloads.iter().any(has_port) {
            (
                format!("node {} has no port {name}", config.node),
                "add it under workloads in the node's configuration",
            )
        } else {
            continue;
        };
        let fault = Fault::new("spec.interfaceName", reason, remedy);
        warnings.push(fault.at(origin.clone()).to_string());
    }
    warnings
}
