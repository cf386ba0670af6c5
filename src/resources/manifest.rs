//! A calico.yaml: the manifest by which Kubernetes runs Calico, and the resources that it comes to.
//!
//! What is read is the ConfigMap `calico-config` and the environment of the container `calico-node`;
//! what each variable means is as Calico's start-up code has it (node/pkg/lifecycle/startup). All
//! else is for Kubernetes, and is said to be passed over.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::load::from_value;
use super::problem::{Fault, Origin, Position, Problem};
use super::yaml::{Content, Tree, documents};
use super::{API_VERSION, EncapMode, Resource};

mod felix;

/// What a manifest comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The configurations: BGPConfiguration and FelixConfiguration, both named `default`.
    pub configurations: Vec<Resource>,
    /// The pools, which count only where there is no pool yet.
    pub pools: Vec<Resource>,
    /// What brings the routes from node to node.
    pub backend: Backend,
    /// The probes that fit the backend, as calico-node's flags.
    pub probes: Vec<&'static str>,
    /// What became of each setting.
    pub notes: Vec<Note>,
}

/// What brings the routes from node to node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// BGP, spoken by BIRD.
    #[default]
    Bird,
    /// The datastore: VXLAN needs no BGP.
    Vxlan,
    /// Nothing: policy only.
    None,
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub origin: Origin,
    /// Its name, and its value if it has one that fits into a line.
    pub setting: String,
    /// Whether it was taken.
    pub taken: bool,
    /// As what, or why not.
    pub what: String,
}

/// A setting and where it stands.
#[derive(Debug, Clone)]
struct Setting {
    value: String,
    position: Position,
}

/// Reads a manifest.
pub fn read(file: &Path, text: &str) -> Result<Manifest, Vec<Problem>> {
    let mut reader = Reader::new(file);
    let mut found = Found::default();
    for document in documents(text) {
        match document {
            Ok(tree) => found.document(&tree),
            Err((position, fault)) => reader.problems.push(fault.at(reader.origin(position))),
        }
    }
    if found.environment.is_empty() && reader.problems.is_empty() {
        reader.problems.push(Problem::with_file(
            file,
            "holds no DaemonSet with a container calico-node",
            "give a calico.yaml, as Calico's documentation has one for download",
        ));
    }
    reader.settings(&found);
    match reader.problems.is_empty() {
        true => Ok(reader.manifest),
        false => Err(reader.problems),
    }
}

/// What of a manifest matters.
#[derive(Debug, Default)]
struct Found {
    /// The ConfigMap's data.
    config: BTreeMap<String, Setting>,
    /// The container's environment, in order.
    environment: Vec<(String, Setting)>,
    /// Flags of the probes, with where they stand.
    probes: Vec<(String, Position)>,
    /// How many documents there are of each other kind.
    others: BTreeMap<String, usize>,
}

impl Found {
    fn document(&mut self, tree: &Tree) {
        let kind = tree.get("kind").and_then(Tree::text).unwrap_or("nothing");
        let name = tree.at("metadata.name").and_then(Tree::text);
        match (kind, name) {
            ("List", _) => {
                if let Some(Content::Sequence(items)) =
                    tree.get("items").map(|items| &items.content)
                {
                    items.iter().for_each(|item| self.document(item));
                }
            }
            ("ConfigMap", Some("calico-config")) => self.config_map(tree),
            ("DaemonSet", Some("calico-node")) => self.daemon_set(tree),
            _ => *self.others.entry(kind.to_owned()).or_default() += 1,
        }
    }

    fn config_map(&mut self, tree: &Tree) {
        if let Some(Content::Mapping(entries)) = tree.get("data").map(|data| &data.content) {
            for (key, value) in entries {
                let setting = Setting {
                    value: value.line().unwrap_or_default(),
                    position: value.position,
                };
                self.config.insert(key.name.clone(), setting);
            }
        }
    }

    fn daemon_set(&mut self, tree: &Tree) {
        let containers = tree.at("spec.template.spec.containers");
        let Some(Content::Sequence(containers)) = containers.map(|list| &list.content) else {
            return;
        };
        let named = |tree: &&Tree| tree.get("name").and_then(Tree::text) == Some("calico-node");
        let Some(container) = containers.iter().find(named) else {
            return;
        };
        if let Some(Content::Sequence(variables)) = container.get("env").map(|env| &env.content) {
            variables
                .iter()
                .for_each(|variable| self.variable(variable));
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let command = container.at(&format!("{probe}.exec.command"));
            if let Some(Content::Sequence(words)) = command.map(|command| &command.content) {
                let flags = words.iter().filter_map(|word| {
                    let flag = word.text()?.strip_prefix('-')?;
                    Some((flag.trim_start_matches('-').to_owned(), word.position))
                });
                self.probes.extend(flags);
            }
        }
    }

    fn variable(&mut self, variable: &Tree) {
        let Some(name) = variable.get("name").and_then(Tree::text) else {
            return;
        };
        let reference = variable
            .at("valueFrom.configMapKeyRef.key")
            .and_then(Tree::text);
        let value = match (variable.get("value"), reference) {
            (Some(value), _) => value.line().unwrap_or_default(),
            (None, Some(key)) => match self.config.get(key) {
                Some(setting) => setting.value.clone(),
                None => return,
            },
            (None, None) => return,
        };
        let at = variable.get("value").unwrap_or(variable);
        let setting = Setting {
            value,
            position: at.position,
        };
        self.environment.push((name.to_owned(), setting));
    }
}

struct Reader<'a> {
    file: &'a Path,
    manifest: Manifest,
    problems: Vec<Problem>,
    pools: [PoolSettings; 2],
    no_pools: bool,
    bgp: Map<String, Value>,
    felix: Map<String, Value>,
}

/// The settings of one pool, by the part of the variable's name after `CALICO_IPV4POOL_`.
#[derive(Debug, Default)]
struct PoolSettings {
    settings: BTreeMap<String, Setting>,
}

const IPV4: &str = "CALICO_IPV4POOL_";
const IPV6: &str = "CALICO_IPV6POOL_";

impl<'a> Reader<'a> {
    fn new(file: &'a Path) -> Self {
        Self {
            file,
            manifest: Manifest::default(),
            problems: Vec::new(),
            pools: Default::default(),
            no_pools: false,
            bgp: Map::new(),
            felix: Map::new(),
        }
    }

    fn origin(&self, position: Position) -> Origin {
        Origin {
            file: self.file.into(),
            position: Some(position),
        }
    }

    fn note(&mut self, name: &str, setting: &Setting, taken: bool, what: impl Into<String>) {
        let shown = match setting.value.as_str() {
            "" => name.to_owned(),
            value => format!("{name}={value}"),
        };
        let note = Note {
            origin: self.origin(setting.position),
            setting: shown,
            taken,
            what: what.into(),
        };
        self.manifest.notes.push(note);
    }

    fn refuse(&mut self, name: &str, setting: &Setting, reason: String, remedy: &str) {
        let origin = self.origin(setting.position);
        let fault = Fault::new(name, reason, remedy);
        self.problems.push(fault.at(origin));
    }

    fn settings(&mut self, found: &Found) {
        for (name, setting) in &found.environment {
            self.variable(name, setting);
        }
        for (key, setting) in &found.config {
            self.config_key(key, setting, found);
        }
        self.finish_backend(found);
        self.finish_pools();
        if let Some(setting) = found.config.get("veth_mtu") {
            self.veth_mtu(setting);
        }
        self.finish_configurations();
        let passed_over: usize = found.others.values().sum();
        if passed_over > 0 {
            let kinds: Vec<&str> = found.others.keys().map(String::as_str).collect();
            self.manifest.notes.push(Note {
                origin: Origin::file(self.file),
                setting: format!("{passed_over} other documents"),
                taken: false,
                what: format!("they are for Kubernetes: {}", kinds.join(", ")),
            });
        }
    }

    fn variable(&mut self, name: &str, setting: &Setting) {
        for (family, prefix) in [IPV4, IPV6].into_iter().enumerate() {
            if let Some(rest) = name.strip_prefix(prefix) {
                let settings = &mut self.pools[family].settings;
                settings.insert(rest.to_owned(), setting.clone());
                return;
            }
        }
        if let Some(parameter) = name.strip_prefix("FELIX_") {
            return self.felix(name, parameter, setting);
        }
        match name {
            "CALICO_NETWORKING_BACKEND" => self.backend(name, setting),
            "NO_DEFAULT_POOLS" => {
                self.no_pools = felix::truth(&setting.value) == Some(true);
                let what = if self.no_pools {
                    "no pool is made"
                } else {
                    "a pool is made"
                };
                self.note(name, setting, true, what);
            }
            "AS" => {
                self.bgp.insert("asNumber".to_owned(), json!(setting.value));
                self.note(name, setting, true, "BGPConfiguration default: asNumber");
            }
            "IP" | "IP6" => self.note(
                name,
                setting,
                false,
                "a node's addresses are those of its Node resource",
            ),
            "IP_AUTODETECTION_METHOD" | "IP6_AUTODETECTION_METHOD" => {
                self.autodetection(name, setting);
            }
            _ => self.note(name, setting, false, why_ignored(name)),
        }
    }

    fn config_key(&mut self, key: &str, setting: &Setting, found: &Found) {
        match key {
            "calico_backend" => {
                let variable = "CALICO_NETWORKING_BACKEND";
                if !found.environment.iter().any(|(name, _)| name == variable) {
                    self.backend(key, setting);
                }
            }
            // When it is known what the pools are.
            "veth_mtu" => {}
            _ => self.note(
                key,
                setting,
                false,
                "it is for Kubernetes' CNI plugin or for Typha",
            ),
        }
    }

    fn backend(&mut self, name: &str, setting: &Setting) {
        self.manifest.backend = match setting.value.to_lowercase().as_str() {
            "bird" => Backend::Bird,
            "vxlan" => Backend::Vxlan,
            "none" => Backend::None,
            other => {
                let reason = format!("'{other}' is no backend");
                return self.refuse(name, setting, reason, "write bird, vxlan or none");
            }
        };
        let what = match self.manifest.backend {
            Backend::Bird => {
                "BGP brings the routes: write bgp: internal into each node's configuration"
            }
            Backend::Vxlan => "the datastore brings the routes (bgp: off): no BGP, no BGP probes",
            Backend::None => "nothing brings routes: no BGP, no BGP probes",
        };
        self.note(name, setting, true, what);
    }

    fn autodetection(&mut self, name: &str, setting: &Setting) {
        let value = setting.value.as_str();
        let with_argument = ["can-reach=", "interface=", "skip-interface=", "cidr="];
        let known = ["first-found", "kubernetes-internal-ip"].contains(&value)
            || with_argument.iter().any(|method| {
                value
                    .strip_prefix(method)
                    .is_some_and(|argument| !argument.is_empty())
            });
        if known {
            let what = "a node's addresses are those of its Node resource; choose them so";
            return self.note(name, setting, false, what);
        }
        self.refuse(
            name,
            setting,
            format!("'{value}' is no way of finding an address"),
            "write first-found, can-reach=ADDRESS, interface=PATTERN, skip-interface=PATTERN or \
             cidr=NETWORK",
        );
    }

    /// Without BGP the mesh is off, and probes that ask BIRD never answer.
    fn finish_backend(&mut self, found: &Found) {
        let bgp = self.manifest.backend == Backend::Bird;
        self.manifest.probes = match bgp {
            true => vec!["felix-live", "felix-ready", "bird-live", "bird-ready"],
            false => vec!["felix-live", "felix-ready"],
        };
        self.bgp
            .insert("nodeToNodeMeshEnabled".to_owned(), json!(bgp));
        for (flag, position) in &found.probes {
            let setting = Setting {
                value: String::new(),
                position: *position,
            };
            let asks_bird = flag.starts_with("bird");
            if asks_bird && !bgp {
                let what = "with this backend no BGP runs, and the probe would never succeed";
                self.note(&format!("-{flag}"), &setting, false, what);
            } else if asks_bird || flag.starts_with("felix") {
                let what = "underpass health asks for the same";
                self.note(&format!("-{flag}"), &setting, true, what);
            }
        }
    }

    fn finish_pools(&mut self) {
        for (family, pool) in std::mem::take(&mut self.pools).into_iter().enumerate() {
            let v4 = family == 0;
            let prefix = if v4 { IPV4 } else { IPV6 };
            if self.no_pools || !v4 && !pool.settings.contains_key("CIDR") {
                for (name, setting) in &pool.settings {
                    let why = if self.no_pools {
                        "NO_DEFAULT_POOLS is set"
                    } else {
                        "it has no CIDR"
                    };
                    self.note(&format!("{prefix}{name}"), setting, false, why);
                }
                continue;
            }
            self.pool(prefix, v4, &pool);
        }
    }

    fn pool(&mut self, prefix: &str, v4: bool, pool: &PoolSettings) {
        let name = if v4 {
            "default-ipv4-ippool"
        } else {
            "default-ipv6-ippool"
        };
        // Calico's own defaults, where a variable is not there.
        let mut spec = json!({"ipipMode": "Never", "vxlanMode": "Never", "nodeSelector": "all()"});
        spec["cidr"] = json!("192.168.0.0/16");
        spec["blockSize"] = json!(if v4 { 26 } else { 122 });
        spec["natOutgoing"] = json!(v4);
        let mut positions: BTreeMap<&str, &Setting> = BTreeMap::new();
        for (variable, setting) in &pool.settings {
            let full = format!("{prefix}{variable}");
            let Some((field, value)) = pool_field(variable, &setting.value) else {
                self.note(&full, setting, false, "Calico's pools have no such setting");
                continue;
            };
            spec[field] = value;
            positions.insert(field, setting);
            let what = format!("IPPool {name}: {field}");
            self.note(&full, setting, true, what);
        }
        let value = json!({
            "apiVersion": API_VERSION,
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": spec,
        });
        match from_value(&value) {
            Ok(mut pool) => {
                pool.fill_defaults();
                self.manifest.pools.push(pool);
            }
            Err(faults) => {
                for fault in faults {
                    let field = fault.field.strip_prefix("spec.").unwrap_or(&fault.field);
                    let origin = match positions.get(field) {
                        Some(setting) => self.origin(setting.position),
                        None => Origin::file(self.file),
                    };
                    self.problems.push(fault.at(origin));
                }
            }
        }
    }

    /// A workload's MTU is what its pool's tunnel takes: of tunnels that no variable says it of, this.
    fn veth_mtu(&mut self, setting: &Setting) {
        let name = "veth_mtu";
        let mtu = match setting.value.parse::<u16>() {
            Ok(0) => return self.note(name, setting, false, "each node finds it out by itself"),
            Ok(mtu) => mtu,
            Err(_) => {
                let reason = format!("'{}' is no MTU", setting.value);
                return self.refuse(
                    name,
                    setting,
                    reason,
                    "write a number, 0 to have it found out",
                );
            }
        };
        let pools = self.manifest.pools.iter().filter_map(|pool| match pool {
            Resource::IpPool(pool) => Some(pool),
            _ => None,
        });
        let fields = pools.filter_map(|pool| {
            let [ipip, vxlan] =
                [pool.spec.ipip_mode, pool.spec.vxlan_mode].map(|mode| mode != EncapMode::Never);
            match (ipip, vxlan, pool.is_ipv4()) {
                (true, _, _) => Some("ipipMTU"),
                (_, true, true) => Some("vxlanMTU"),
                (_, true, false) => Some("vxlanMTUV6"),
                (false, false, _) => None,
            }
        });
        let fields: Vec<&str> = fields
            .filter(|field| !self.felix.contains_key(*field))
            .collect();
        if fields.is_empty() {
            let why = "variables say what tunnels take, or there is none: workloads get as much";
            return self.note(name, setting, false, why);
        }
        let what = format!("FelixConfiguration default: {}", fields.join(", "));
        for field in fields {
            self.felix.insert(field.to_owned(), json!(mtu));
        }
        self.note(name, setting, true, what);
    }

    fn finish_configurations(&mut self) {
        for (kind, spec) in [
            ("BGPConfiguration", std::mem::take(&mut self.bgp)),
            ("FelixConfiguration", std::mem::take(&mut self.felix)),
        ] {
            if spec.is_empty() {
                continue;
            }
            match from_value(&configuration(kind, spec)) {
                Ok(resource) => self.manifest.configurations.push(resource),
                Err(faults) => {
                    let file = Origin::file(self.file);
                    let problems = faults.into_iter().map(|fault| fault.at(file.clone()));
                    self.problems.extend(problems);
                }
            }
        }
    }
}

/// A cluster's configuration of a kind.
fn configuration(kind: &str, spec: Map<String, Value>) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": spec,
    })
}

/// The field of a pool that a variable sets, and its value there.
fn pool_field(variable: &str, text: &str) -> Option<(&'static str, Value)> {
    let mode = |text: &str| match text.to_lowercase().as_str() {
        "" | "off" | "never" => json!("Never"),
        "always" => json!("Always"),
        "cross-subnet" | "crosssubnet" => json!("CrossSubnet"),
        _ => json!(text),
    };
    let flag = |text: &str| match felix::truth(text) {
        Some(truth) => json!(truth),
        None => json!(text),
    };
    Some(match variable {
        "CIDR" => ("cidr", json!(text)),
        "IPIP" => ("ipipMode", mode(text)),
        "VXLAN" => ("vxlanMode", mode(text)),
        "BLOCK_SIZE" => {
            let number = text.parse::<i64>().map(|size| json!(size));
            ("blockSize", number.unwrap_or_else(|_| json!(text)))
        }
        "NAT_OUTGOING" => ("natOutgoing", flag(text)),
        "NODE_SELECTOR" => ("nodeSelector", json!(text)),
        "DISABLE_BGP_EXPORT" => ("disableBGPExport", flag(text)),
        _ => return None,
    })
}

fn why_ignored(name: &str) -> &'static str {
    match name {
        "CLUSTER_TYPE" => "it is said to nobody but the project's statistics",
        "DATASTORE_TYPE" | "WAIT_FOR_DATASTORE" | "FELIX_DATASTORETYPE" => {
            "where the datastore is stands in a node's configuration"
        }
        "CALICO_DISABLE_FILE_LOGGING" => "underpass logs to standard error",
        "NODENAME" | "CALICO_K8S_NODE_REF" => "a node's name stands in its configuration",
        _ => "it has no meaning here",
    }
}

#[cfg(test)]
mod tests;
