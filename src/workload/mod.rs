//! Workloads: an address, a link and a WorkloadEndpoint, made together and undone together.
//!
//! What is made here is what a node that runs with `workloadInterfaces` waits for: it opens the port
//! when it sees the endpoint and the interface. Steps are taken in the order address → link → endpoint,
//! and taken back in the reverse order; each step back does nothing where there is nothing, so that what
//! was left half-made is undone by the same call.

mod address;
pub mod cni;
mod link;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

use crate::datastore::{self, Datastore, DatastoreError, Selection};
use crate::forward::{Encapsulation, RouterAddresses, TunnelMtus};
use crate::ipam::{Ipam, IpamError};
use crate::kernel::{self, Netlink};
use crate::resources::config::PortKind;
use crate::resources::workload_interfaces::WorkloadInterfaces;
use crate::resources::{
    ClusterState, Kind, Name, NodeConfig, NodeName, Problem, Resource, ResourceKey, Settings,
    WorkloadEndpoint,
};
use crate::wire::{MacAddr, Mtu};

pub use link::{LinkPlan, host_interface, netns_path};

/// The orchestrator of workloads that a user adds by hand.
pub const BY_HAND: &str = "underpass";

/// Why a workload could not be made, looked at or undone.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The node's configuration.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Problem>),
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The link or its namespace.
    #[error("{0}")]
    Link(String),
    /// IPAM.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// No address can be given.
    #[error("{0}")]
    Address(String),
    /// There is one of that name already, or none.
    #[error("{0}")]
    Exists(String),
    /// A name that cannot be one.
    #[error("{0}")]
    Name(String),
}

/// Who a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who started it: `k8s`, `cni`, [`BY_HAND`].
    pub orchestrator: String,
    /// Its namespace in the datastore.
    pub namespace: String,
    /// Its name: a pod's, or a container's number.
    pub name: String,
    /// The container, if it is one's.
    pub container: Option<String>,
    /// Its interface's name inside.
    pub interface: String,
    /// The handle by which IPAM knows its addresses.
    pub handle: String,
}

/// What a workload is to get.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Who it is.
    pub identity: Identity,
    /// Its network namespace.
    pub netns: PathBuf,
    /// The node's end of its link, if not the usual name.
    pub host_interface: Option<String>,
    /// The pools to take addresses from; all that fit if empty.
    pub pools: Vec<String>,
    /// The addresses that it is to have; none: any.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A workload that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its endpoint, as stored.
    pub endpoint: WorkloadEndpoint,
    /// Its interface's Ethernet address.
    pub mac: MacAddr,
    /// Its interface's MTU.
    pub mtu: Mtu,
}

/// The workloads of one node.
pub struct Workloads {
    config: NodeConfig,
    datastore: Arc<dyn Datastore>,
}

impl Workloads {
    /// Those of the node with this configuration.
    pub fn new(config: NodeConfig) -> Result<Self, WorkloadError> {
        let datastore = datastore::open(&config.datastore)?;
        Ok(Self { config, datastore })
    }

    /// The node.
    pub fn node(&self) -> &NodeName {
        &self.config.node
    }

    /// Makes a workload. One that is there already keeps its addresses; its link is made again if it is not
    /// as it was made, else it only gets the MTU that fits now. An interface that is wished by its name and
    /// there already is taken, whatever it is.
    pub fn add(&self, wish: &Wish) -> Result<Made, WorkloadError> {
        let _one_at_a_time = self.lock()?;
        let key = self.key(&wish.identity)?;
        let state = self.state()?;
        let before = self.find(&key)?;
        if let Some(endpoint) = &before {
            refuse_other(endpoint, wish, &state)?;
        }
        let host = self.host_interface(wish, before.as_ref());
        self.refuse_unserved(&host)?;
        self.refuse_taken(&host, &key)?;
        let addresses = match &before {
            Some(endpoint) => endpoint.addresses().collect(),
            None => self.assign(wish, &state)?,
        };
        let made = self.make(wish, &state, addresses, (key, before.as_ref()));
        if made.is_err() && before.is_none() {
            self.ipam().release_handle(&wish.identity.handle)?;
        }
        made
    }

    fn make(
        &self,
        wish: &Wish,
        state: &ClusterState,
        addresses: Vec<IpAddr>,
        (key, before): (ResourceKey, Option<&WorkloadEndpoint>),
    ) -> Result<Made, WorkloadError> {
        let plan = self.plan(wish, state, addresses, before)?;
        let (mac, taken) = link_of(wish, &plan, before)?;
        let endpoint = self.endpoint(wish, &plan, (mac, taken), key)?;
        let stored = self
            .datastore
            .apply(&Resource::WorkloadEndpoint(endpoint.clone()));
        if let Err(error) = stored {
            if before.is_none() {
                undo_link(&endpoint)?;
            }
            return Err(error.into());
        }
        Ok(Made {
            endpoint,
            mac: mac.unwrap_or_default(),
            mtu: plan.mtu,
        })
    }

    fn assign(&self, wish: &Wish, state: &ClusterState) -> Result<Vec<IpAddr>, WorkloadError> {
        let identity = &wish.identity;
        let attributes = [
            ("namespace", identity.namespace.clone()),
            ("pod", identity.name.clone()),
        ];
        let order = address::Order {
            node: &self.config.node,
            handle: &identity.handle,
            attributes: attributes
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
            pools: &wish.pools,
            asked: &wish.addresses,
        };
        address::assign(&self.ipam(), state, &order)
    }

    fn ipam(&self) -> Ipam {
        Ipam::new(Arc::clone(&self.datastore))
    }

    /// Undoes a workload, or what there is of one. Says whether there was an endpoint.
    pub fn delete(&self, identity: &Identity, host: Option<&str>) -> Result<bool, WorkloadError> {
        let _one_at_a_time = self.lock()?;
        let key = self.key(identity)?;
        let found = self.find(&key)?;
        let usual = self.usual_host_interface(identity);
        let named = found.as_ref().map(|e| e.spec.interface_name.to_string());
        let host = named.or_else(|| host.map(str::to_owned)).unwrap_or(usual);
        if found.is_some() {
            self.refuse_elsewhere(&host)?;
        }
        match self.datastore.delete(&key, None) {
            Ok(_) | Err(DatastoreError::DoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        match &found {
            Some(endpoint) => undo_link(endpoint)?,
            None => link::remove(&host)?,
        }
        // Last: the address is somebody else's only when nothing of this workload is left.
        self.ipam().release_handle(&identity.handle)?;
        Ok(found.is_some())
    }

    /// Outside the node's network namespace a link would stay whose address somebody else then gets.
    fn refuse_elsewhere(&self, host: &str) -> Result<(), WorkloadError> {
        let mut netlink = Netlink::open()?;
        let uplink = self.config.uplink.interface.to_string();
        let mut known = [host, &uplink].into_iter();
        if known.any(|name| netlink.link(name).is_ok()) {
            return Ok(());
        }
        Err(WorkloadError::Link(format!(
            "neither '{host}' nor the uplink '{uplink}' of {} is in this network namespace; run it in the \
             node's: ip netns exec NAME underpass workload del …",
            self.config.node
        )))
    }

    /// Says what of a workload is not as it was made.
    pub fn check(&self, wish: &Wish) -> Result<(), WorkloadError> {
        let key = self.key(&wish.identity)?;
        let endpoint = self
            .find(&key)?
            .ok_or_else(|| WorkloadError::Exists(format!("there is no {key}")))?;
        let plan = LinkPlan {
            host: endpoint.spec.interface_name.to_string(),
            interface: wish.identity.interface.clone(),
            netns: wish.netns.clone(),
            addresses: endpoint.addresses().collect(),
            mtu: Mtu(0),
        };
        link::check(&plan)
    }

    /// This node's workloads, in order of their names.
    pub fn list(&self) -> Result<Vec<WorkloadEndpoint>, WorkloadError> {
        let list = self
            .datastore
            .list(&Selection::kind(Kind::WorkloadEndpoint))?;
        let endpoints = list.resources().filter_map(|resource| match resource {
            Resource::WorkloadEndpoint(endpoint) => Some(endpoint.clone()),
            _ => None,
        });
        Ok(endpoints
            .filter(|endpoint| endpoint.spec.node == self.config.node)
            .collect())
    }

    fn find(&self, key: &ResourceKey) -> Result<Option<WorkloadEndpoint>, WorkloadError> {
        match self.datastore.get(key) {
            Ok(Resource::WorkloadEndpoint(endpoint)) => Ok(Some(endpoint)),
            Ok(_) | Err(DatastoreError::DoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything that addresses and MTUs depend on.
    fn state(&self) -> Result<ClusterState, WorkloadError> {
        let list = self.datastore.list(&Selection::resources())?;
        Ok(list.resources().cloned().collect())
    }

    fn plan(
        &self,
        wish: &Wish,
        state: &ClusterState,
        addresses: Vec<IpAddr>,
        before: Option<&WorkloadEndpoint>,
    ) -> Result<LinkPlan, WorkloadError> {
        let uplink = self.config.uplink.interface.to_string();
        let uplink = Netlink::open()?.link(&uplink)?.mtu;
        let settings = Settings::new(&self.config, state);
        let mtus = TunnelMtus {
            ipip: settings.ipip_mtu,
            vxlan: settings.vxlan_mtu,
            vxlan_v6: settings.vxlan_mtu_v6,
        };
        let fits = |address: &IpAddr| {
            let around = Encapsulation::of_pool(state.tunnels_to(*address), address.is_ipv4());
            mtus.within(around, uplink)
        };
        Ok(LinkPlan {
            host: self.host_interface(wish, before),
            interface: wish.identity.interface.clone(),
            netns: wish.netns.clone(),
            mtu: addresses.iter().map(fits).min().unwrap_or(uplink),
            addresses,
        })
    }

    fn endpoint(
        &self,
        wish: &Wish,
        plan: &LinkPlan,
        (mac, taken): (Option<MacAddr>, bool),
        key: ResourceKey,
    ) -> Result<WorkloadEndpoint, WorkloadError> {
        let identity = &wish.identity;
        let k8s = identity.orchestrator == "k8s";
        let gateway = |gateway: IpAddr| {
            let mut own = plan.addresses.iter();
            own.any(|address| address.is_ipv4() == gateway.is_ipv4())
                .then(|| gateway.to_string())
        };
        let networks: Vec<IpNet> = plan.addresses.iter().copied().map(IpNet::from).collect();
        let mut endpoint = json!({
            "metadata": { "name": key.name, "namespace": key.namespace, "labels": wish.labels },
            "spec": {
                "node": self.config.node,
                "orchestrator": identity.orchestrator,
                "workload": (!k8s).then_some(&identity.name),
                "pod": k8s.then_some(&identity.name),
                "containerID": identity.container,
                "endpoint": identity.interface,
                "interfaceName": plan.host,
                "mac": mac,
                "ipNetworks": networks,
                "ipv4Gateway": gateway(RouterAddresses::GATEWAY_V4.into()),
                "ipv6Gateway": gateway(RouterAddresses::GATEWAY_V6.into()),
            },
        });
        if let Some(spec) = endpoint["spec"].as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        let mut endpoint: WorkloadEndpoint = serde_json::from_value(endpoint)
            .map_err(|error| WorkloadError::Name(error.to_string()))?;
        if mac.is_some() {
            endpoint.set_mtu(plan.mtu);
        }
        if taken {
            endpoint.set_taken();
        }
        Ok(endpoint)
    }

    /// The node's end of a workload's link: as wished, else where it was, else the usual name.
    fn host_interface(&self, wish: &Wish, before: Option<&WorkloadEndpoint>) -> String {
        let was = before.map(|endpoint| endpoint.spec.interface_name.to_string());
        let wished = wish.host_interface.clone().or(was);
        wished.unwrap_or_else(|| self.usual_host_interface(&wish.identity))
    }

    /// An interface is one workload's.
    fn refuse_taken(&self, host: &str, key: &ResourceKey) -> Result<(), WorkloadError> {
        let others = self.list()?;
        let other = others.iter().find(|other| {
            other.spec.interface_name.as_str() == host && other.metadata.name != key.name
        });
        match other {
            Some(other) => Err(WorkloadError::Exists(format!(
                "'{host}' is the interface of {}; name another, or delete that workload first",
                other.metadata.name
            ))),
            None => Ok(()),
        }
    }

    /// Of a container that is no pod as Calico's plugin names it, by the beginning of its number.
    fn usual_host_interface(&self, identity: &Identity) -> String {
        let interfaces = self.config.workload_interfaces.as_ref();
        let prefix = interfaces.map_or("cali", WorkloadInterfaces::first_prefix);
        match (&identity.container, identity.orchestrator.as_str()) {
            (Some(container), "cni") => {
                let room = LONGEST_NAME - prefix.len();
                let start: String = container.chars().take(room.min(HASH)).collect();
                format!("{prefix}{start}")
            }
            _ => host_interface(prefix, &identity.namespace, &identity.name),
        }
    }

    /// Says why the node would never serve an interface: its port would wait for ever.
    fn refuse_unserved(&self, host: &str) -> Result<(), WorkloadError> {
        let config = &self.config;
        let node = &config.node;
        let file = config.file().unwrap_or(Path::new("its configuration"));
        let file = file.display();
        let mut listed = config.workloads.iter();
        let listed = listed.find(|port| port.interface.as_str() == host);
        let refused = match (listed, &config.workload_interfaces) {
            (Some(port), _) if port.kind == PortKind::Xdp => return Ok(()),
            (None, Some(interfaces)) if interfaces.matches(host) => return Ok(()),
            (Some(_), _) => format!(
                "'{host}' is no veth pair's end in workloads of {file}; name another by --interface"
            ),
            (None, Some(interfaces)) => format!(
                "node {node} would not serve '{host}', which does not begin with {}; name an interface that \
                 does, or add its prefix to workloadInterfaces in {file} and restart the node",
                interfaces.prefix
            ),
            (None, None) => format!(
                "node {node} would not serve '{host}', as {file} has no workloadInterfaces; write \
                 workloadInterfaces: {{ prefix: cali }} there and restart the node, or name one of its \
                 workloads' interfaces by --interface"
            ),
        };
        Err(WorkloadError::Link(refused))
    }

    /// The endpoint's name as Calico makes it: node, orchestrator, workload and interface, with dashes
    /// between and doubled within.
    fn key(&self, identity: &Identity) -> Result<ResourceKey, WorkloadError> {
        let parts = [
            self.config.node.as_str(),
            &identity.orchestrator,
            &identity.name,
            &identity.interface,
        ];
        let name = parts.map(|part| part.replace('-', "--")).join("-");
        let parse = |text: &str| -> Result<Name, WorkloadError> {
            text.parse()
                .map_err(|error| WorkloadError::Name(format!("'{text}' is no name: {error}")))
        };
        Ok(ResourceKey {
            kind: Kind::WorkloadEndpoint,
            namespace: Some(parse(&identity.namespace)?),
            name: parse(&name)?,
        })
    }

    /// One change of this node's workloads at a time, whatever process makes it.
    fn lock(&self) -> Result<Flock<File>, WorkloadError> {
        let failed = |what: &str| WorkloadError::Link(format!("locking the workloads: {what}"));
        let directory = PathBuf::from("/run/underpass");
        std::fs::create_dir_all(&directory).map_err(|error| failed(&error.to_string()))?;
        let path = directory.join(format!("{}.workloads", self.config.node));
        let file = File::create(&path).map_err(|error| failed(&error.to_string()))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.desc()))
    }
}

/// The longest name of an interface, and how much of it is a hash.
const LONGEST_NAME: usize = 15;
const HASH: usize = 11;

/// Makes or takes a workload's link. Gives the Ethernet address of the workload's end, as far as it is known,
/// and whether the link was taken.
fn link_of(
    wish: &Wish,
    plan: &LinkPlan,
    before: Option<&WorkloadEndpoint>,
) -> Result<(Option<MacAddr>, bool), WorkloadError> {
    let at = |endpoint: &&WorkloadEndpoint| endpoint.spec.interface_name.as_str() == plan.host;
    if let Some(elsewhere) = before.filter(|endpoint| !at(endpoint)) {
        undo_link(elsewhere)?;
    }
    let here = before.filter(at);
    let ours = here.is_some_and(|endpoint| !endpoint.is_taken());
    // Whoever made it: what a workload is to have by its name and has not made is not taken away.
    let named = wish.host_interface.is_some() || here.is_some();
    if named
        && !ours
        && let Some(there) = link::find(&plan.host)?
    {
        return Ok((link::take(plan, &there)?, true));
    }
    let mac = match ours && link::check(plan).is_ok() {
        true => link::adapt(plan)?,
        false => link::make(plan)?,
    };
    Ok((Some(mac), false))
}

/// The link goes if it was made; one that was taken is left without the workload's addresses.
fn undo_link(endpoint: &WorkloadEndpoint) -> Result<(), WorkloadError> {
    let host = endpoint.spec.interface_name.as_str();
    if !endpoint.is_taken() {
        return link::remove(host);
    }
    let addresses: Vec<IpAddr> = endpoint.addresses().collect();
    link::release(host, &addresses)
}

/// What is there is not silently taken for what is wished.
fn refuse_other(
    there: &WorkloadEndpoint,
    wish: &Wish,
    state: &ClusterState,
) -> Result<(), WorkloadError> {
    let has: Vec<IpAddr> = there.addresses().collect();
    let pools = address::pools(state, &wish.pools)?;
    let of_pools = |address: &IpAddr| {
        let named = pools.iter().filter_map(|name| state.pools.get(name));
        pools.is_empty() || named.into_iter().any(|pool| pool.cidr().contains(address))
    };
    if wish.addresses.iter().all(|asked| has.contains(asked)) && has.iter().all(of_pools) {
        return Ok(());
    }
    let has: Vec<String> = has.iter().map(ToString::to_string).collect();
    let name = &wish.identity.name;
    Err(WorkloadError::Address(format!(
        "workload {name} is there already, with {}; delete it first (underpass workload del {name}), or ask \
         for no other address or pool",
        has.join(", ")
    )))
}
