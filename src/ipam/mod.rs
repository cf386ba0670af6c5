//! Addresses: pools are cut into blocks, nodes claim blocks, workloads get addresses of them.
//!
//! ```text
//!  assign ─▶ the node's blocks ─▶ claim new ones ─▶ borrow of other nodes' blocks
//!                                   affinity pending → block → affinity confirmed
//! ```
//!
//! The records are Calico's (libcalico-go `lib/ipam`): an IPAMBlock a block, a BlockAffinity for each
//! block that a node claims, an IPAMHandle for all that was handed out under one name. Every change
//! compares the record's version, and begins again if somebody else was faster; so no address and no
//! block is ever given to two. What a process leaves half done when it dies (a pending affinity, a
//! handle without addresses) is taken up by the next one, or by [`check`](Ipam::check).

pub mod block;
mod check;
mod claim;
mod garbage;
mod handles;
pub mod pools;
mod tunnel;
mod used;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::datastore::{Datastore, DatastoreError, Selection, name_of_cidr};
use crate::resources::ip_pool::{AllowedUse, IpPool};
use crate::resources::ipam_block::AllocationAttribute;
use crate::resources::ipam_configuration::IpamConfigurationSpec;
use crate::resources::selector::Labels;
use crate::resources::{
    IpReservation, IpamBlock, IpamConfiguration, Kind, Name, NodeName, Resource, ResourceKey, Typed,
};

pub use check::{Allocation, Check, LeakedHandle};
pub use garbage::{Collected, Suspects};
pub use tunnel::TunnelKind;

/// How often a change is begun again when others are faster.
const ATTEMPTS: usize = 100;

/// IPAM on a datastore.
#[derive(Clone)]
pub struct Ipam {
    store: Arc<dyn Datastore>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The node that the addresses are for.
    pub node: NodeName,
    /// The handle by which they are released.
    pub handle: String,
    /// More about the owner: `namespace`, `pod`, `type`; `node` is added.
    pub attributes: BTreeMap<String, String>,
    /// What they are for.
    pub purpose: AllowedUse,
    /// IPv4 addresses, or else IPv6 ones.
    pub ipv4: bool,
    /// How many.
    pub count: usize,
    /// The pools that they may come from; any if empty.
    pub pools: Vec<Name>,
}

/// An address to release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The address.
    pub address: IpAddr,
    /// The handle that must have it.
    pub handle: Option<String>,
    /// The block's sequence number when it was handed out, so that it is not taken from its next owner.
    pub sequence: Option<u64>,
}

/// An error of IPAM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The datastore's.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// No pool qualifies.
    #[error("no configured Calico pools for node {0}: {1}")]
    NoPools(NodeName, String),
    /// An address is outside all pools.
    #[error("{0} is not in any configured pool")]
    NoPool(IpAddr),
    /// An address is somebody's.
    #[error("{0} is already assigned")]
    Taken(IpAddr),
    /// An address is in another node's block, and nodes keep to their own.
    #[error("{0} is in a block of {1}, and strictAffinity is set")]
    Strict(IpAddr, String),
    /// A node has as many blocks as it may have.
    #[error("{0} has {1} blocks, as many as a node may have")]
    BlockLimit(NodeName, usize),
    /// A release was of an earlier owner.
    #[error("{0} has another owner by now; it is not released")]
    Stale(IpAddr),
    /// Others were faster each time.
    #[error("{0}: others changed it each time that it was tried")]
    Busy(String),
    /// A name that cannot be one.
    #[error("'{0}' cannot be a handle")]
    Handle(String),
}

/// What IPAM's operations give.
pub type Result<T> = std::result::Result<T, IpamError>;

/// What goes for all assignments, read once for each.
struct Rules {
    configuration: IpamConfigurationSpec,
    reserved: Vec<IpNet>,
    pools: Vec<IpPool>,
}

impl Ipam {
    /// IPAM on a datastore.
    pub fn new(store: Arc<dyn Datastore>) -> Self {
        Self { store }
    }

    /// Hands out addresses, up to as many as are asked for: of the node's own blocks, then of new
    /// ones, then of others'. Fewer are given when there are no more.
    pub fn assign(&self, request: &Request) -> Result<Vec<IpAddr>> {
        let rules = self.rules()?;
        let labels = self.labels(&request.node)?;
        let namespace = self.namespace_labels(request, &rules)?;
        let pools: Vec<&IpPool> = rules
            .pools
            .iter()
            .filter(|pool| pools::qualifies(pool, request, &labels))
            .filter(|pool| pools::is_for_namespace(pool, request, &namespace))
            .collect();
        if pools.is_empty() {
            return Err(IpamError::NoPools(
                request.node.clone(),
                why_none(&rules, request),
            ));
        }
        let mut given = self.assign_of_own(request, &rules, &pools)?;
        if given.len() < request.count && rules.configuration.auto_allocate_blocks {
            self.assign_of_new(request, &rules, &pools, &mut given)?;
        }
        if given.len() < request.count && !rules.configuration.strict_affinity {
            self.borrow(request, &rules, &pools, &mut given)?;
        }
        Ok(given)
    }

    /// Hands out one address that is asked for by name; reserved ones, too.
    pub fn assign_address(&self, request: &Request, address: IpAddr) -> Result<()> {
        let rules = self.rules()?;
        let pool = rules
            .pools
            .iter()
            .find(|pool| pool.cidr().contains(&address));
        let pool = pool
            .filter(|pool| !pool.spec.disabled)
            .ok_or(IpamError::NoPool(address))?;
        let cidr = pools::block_of(pool, address).ok_or(IpamError::NoPool(address))?;
        for _ in 0..ATTEMPTS {
            let block = match self.block(cidr)? {
                Some(block) => block,
                None => match self.claim(&request.node, cidr)? {
                    Some(block) => block,
                    None => continue,
                },
            };
            if rules.configuration.strict_affinity && block.host() != Some(request.node.as_str()) {
                let host = block.host().unwrap_or("nobody").to_owned();
                return Err(IpamError::Strict(address, host));
            }
            let owner = request.owner();
            let mut changed = block;
            if !block::assign_address(&mut changed, address, &owner) {
                return Err(IpamError::Taken(address));
            }
            if self.hold(request, changed, 1)?.is_some() {
                return Ok(());
            }
        }
        Err(IpamError::Busy(cidr.to_string()))
    }

    /// Takes addresses back. Gives those that nobody had.
    pub fn release(&self, releases: &[Release]) -> Result<Vec<IpAddr>> {
        let mut free = Vec::new();
        for release in releases {
            if !self.release_one(release)? {
                free.push(release.address);
            }
        }
        Ok(free)
    }

    /// Takes all addresses of a handle back. Gives them.
    pub fn release_handle(&self, handle: &str) -> Result<Vec<IpAddr>> {
        let mut released = Vec::new();
        for cidr in self.blocks_of_handle(handle)? {
            for attempt in 0.. {
                let Some(block) = self.block(cidr)? else {
                    break;
                };
                let mut changed = block;
                let given_back = block::release_handle(&mut changed, handle);
                if given_back.is_empty() {
                    break;
                }
                if self.store_or_delete(changed)? {
                    released.extend(given_back);
                    break;
                }
                if attempt == ATTEMPTS {
                    return Err(IpamError::Busy(cidr.to_string()));
                }
            }
            self.forget(handle, cidr, usize::MAX)?;
        }
        Ok(released)
    }

    /// The addresses of a handle.
    pub fn addresses_of(&self, handle: &str) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for cidr in self.blocks_of_handle(handle)? {
            let Some(block) = self.block(cidr)? else {
                continue;
            };
            let of_handle = |ordinal: &usize| {
                let owner = block.owner(*ordinal);
                owner.is_some_and(|owner| owner.handle_id.as_deref() == Some(handle))
            };
            addresses.extend(
                block
                    .in_use()
                    .filter(of_handle)
                    .map(|ordinal| block.address(ordinal)),
            );
        }
        Ok(addresses)
    }

    /// Whose an address is; nothing if nobody's.
    pub fn owner_of(&self, address: IpAddr) -> Result<Option<AllocationAttribute>> {
        let Some(block) = self.block_with(address)? else {
            return Ok(None);
        };
        let ordinal = block.ordinal(address);
        Ok(ordinal.and_then(|ordinal| block.owner(ordinal)).cloned())
    }

    /// All blocks, in order.
    pub fn blocks(&self) -> Result<Vec<IpamBlock>> {
        let mut blocks: Vec<IpamBlock> = self.all(Kind::IpamBlock)?;
        blocks.sort_by_key(|block| block.spec.cidr.net());
        Ok(blocks)
    }

    /// All pools, in order of their names.
    pub fn pools(&self) -> Result<Vec<IpPool>> {
        self.all(Kind::IpPool)
    }

    /// The addresses that reservations keep from being handed out.
    pub fn reserved(&self) -> Result<Vec<IpNet>> {
        let reservations: Vec<IpReservation> = self.all(Kind::IpReservation)?;
        let cidrs = reservations
            .iter()
            .flat_map(|reservation| &reservation.spec.reserved_cidrs);
        Ok(cidrs.map(|network| network.net()).collect())
    }

    /// IPAM's settings.
    pub fn configuration(&self) -> Result<IpamConfigurationSpec> {
        let all: Vec<IpamConfiguration> = self.all(Kind::IpamConfiguration)?;
        let mut default = all
            .into_iter()
            .filter(|one| one.metadata.name.as_str() == "default");
        Ok(default.next().map(|one| one.spec).unwrap_or_default())
    }

    /// Changes IPAM's settings.
    pub fn configure(&self, change: impl Fn(&mut IpamConfigurationSpec)) -> Result<()> {
        let name: Name = "default"
            .parse()
            .map_err(|_| IpamError::Busy("default".into()))?;
        let key = ResourceKey {
            kind: Kind::IpamConfiguration,
            namespace: None,
            name: name.clone(),
        };
        for _ in 0..ATTEMPTS {
            let mut configuration = match self.store.get(&key) {
                Ok(Resource::IpamConfiguration(configuration)) => configuration,
                Err(DatastoreError::DoesNotExist(_)) => IpamConfiguration {
                    metadata: crate::resources::Metadata::named(name.clone()),
                    spec: IpamConfigurationSpec::default(),
                },
                Ok(_) => return Err(IpamError::Busy(key.to_string())),
                Err(error) => return Err(error.into()),
            };
            change(&mut configuration.spec);
            let resource = Resource::IpamConfiguration(configuration);
            let written = match resource.metadata().resource_version {
                Some(_) => self.store.update(&resource),
                None => self.store.create(&resource),
            };
            match written {
                Ok(_) => return Ok(()),
                Err(DatastoreError::Conflict(_) | DatastoreError::AlreadyExists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IpamError::Busy(key.to_string()))
    }

    fn assign_of_own(
        &self,
        request: &Request,
        rules: &Rules,
        pools: &[&IpPool],
    ) -> Result<Vec<IpAddr>> {
        let mut given = Vec::new();
        for affinity in self.affinities(&request.node)? {
            let cidr = affinity.block();
            if given.len() >= request.count {
                break;
            }
            if !pools.iter().any(|pool| pool.cidr().contains(&cidr)) {
                continue;
            }
            // One that was left half claimed is claimed to the end first.
            let whole = affinity.is_routed() && self.block(cidr)?.is_some();
            if !whole && self.claim(&request.node, cidr)?.is_none() {
                continue;
            }
            self.assign_of(request, rules, cidr, true, &mut given)?;
        }
        Ok(given)
    }

    fn assign_of_new(
        &self,
        request: &Request,
        rules: &Rules,
        pools: &[&IpPool],
        given: &mut Vec<IpAddr>,
    ) -> Result<()> {
        let limit = rules.configuration.block_limit();
        while given.len() < request.count {
            let own = self.affinities(&request.node)?;
            let v4 = |cidr: IpNet| matches!(cidr, IpNet::V4(_)) == request.ipv4;
            if own.iter().filter(|affinity| v4(affinity.block())).count() >= limit {
                return Ok(());
            }
            let Some(cidr) = self.claim_any(&request.node, pools, &rules.reserved)? else {
                return Ok(());
            };
            self.assign_of(request, rules, cidr, true, given)?;
        }
        Ok(())
    }

    fn borrow(
        &self,
        request: &Request,
        rules: &Rules,
        pools: &[&IpPool],
        given: &mut Vec<IpAddr>,
    ) -> Result<()> {
        for block in self.blocks()? {
            if given.len() >= request.count {
                break;
            }
            let cidr = block.spec.cidr.net();
            let lends = pools.iter().any(|pool| pool.cidr().contains(&cidr));
            if lends && !block.spec.unallocated.is_empty() {
                self.assign_of(request, rules, cidr, false, given)?;
            }
        }
        Ok(())
    }

    /// Hands out addresses of one block; `own` if it must be the node's.
    fn assign_of(
        &self,
        request: &Request,
        rules: &Rules,
        cidr: IpNet,
        own: bool,
        given: &mut Vec<IpAddr>,
    ) -> Result<()> {
        let reserved = |address: IpAddr| rules.reserved.iter().any(|net| net.contains(&address));
        for _ in 0..ATTEMPTS {
            let Some(block) = self.block(cidr)? else {
                return Ok(());
            };
            if own && block.host() != Some(request.node.as_str()) {
                return Ok(());
            }
            let mut changed = block;
            let wanted = request.count - given.len();
            let addresses = block::assign(&mut changed, wanted, &request.owner(), reserved);
            if addresses.is_empty() {
                return Ok(());
            }
            if self.hold(request, changed, addresses.len())?.is_some() {
                given.extend(addresses);
                return Ok(());
            }
        }
        Err(IpamError::Busy(cidr.to_string()))
    }

    /// Writes a block with new allocations, and counts them to the handle. The handle comes first:
    /// one that counts too much is found by a check, an address without its handle is not.
    fn hold(&self, request: &Request, block: IpamBlock, count: usize) -> Result<Option<()>> {
        let cidr = block.spec.cidr.net();
        self.remember(&request.handle, cidr, count)?;
        match self.store.update(&Resource::IpamBlock(block)) {
            Ok(_) => Ok(Some(())),
            Err(DatastoreError::Conflict(_) | DatastoreError::DoesNotExist(_)) => {
                self.forget(&request.handle, cidr, count)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says whether somebody had it.
    fn release_one(&self, release: &Release) -> Result<bool> {
        let address = release.address;
        for _ in 0..ATTEMPTS {
            let Some(mut block) = self.block_with(address)? else {
                return Ok(false);
            };
            let cidr = block.spec.cidr.net();
            let handle = release.handle.as_deref();
            let had = match block::release(&mut block, address, handle, release.sequence) {
                Ok(had) => had,
                Err(block::Refusal::Free) => return Ok(false),
                Err(block::Refusal::Stale) => return Err(IpamError::Stale(address)),
            };
            if self.store_or_delete(block)? {
                if let Some(handle) = had {
                    self.forget(&handle, cidr, 1)?;
                }
                return Ok(true);
            }
        }
        Err(IpamError::Busy(address.to_string()))
    }

    /// Writes a block from which addresses were given back; one that is nobody's and empty goes. Says
    /// whether it was the block that was read.
    fn store_or_delete(&self, block: IpamBlock) -> Result<bool> {
        let orphan = block.spec.affinity.is_none() && block::is_empty(&block);
        let resource = Resource::IpamBlock(block);
        let written = match orphan {
            true => {
                let version = resource.metadata().resource_version.as_deref();
                self.store.delete(&resource.key(), version)
            }
            false => self.store.update(&resource),
        };
        match written {
            Ok(_) => Ok(true),
            Err(DatastoreError::Conflict(_) | DatastoreError::DoesNotExist(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The block of that CIDR.
    fn block(&self, cidr: IpNet) -> Result<Option<IpamBlock>> {
        match self.store.get(&block_key(cidr)?) {
            Ok(Resource::IpamBlock(block)) => Ok(Some(block)),
            Ok(_) | Err(DatastoreError::DoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The block that an address is in: of its pool's size, or of another one that was left.
    fn block_with(&self, address: IpAddr) -> Result<Option<IpamBlock>> {
        let pools = self.pools()?;
        let pool = pools.iter().find(|pool| pool.cidr().contains(&address));
        if let Some(cidr) = pool.and_then(|pool| pools::block_of(pool, address))
            && let Some(block) = self.block(cidr)?
        {
            return Ok(Some(block));
        }
        let blocks = self.blocks()?;
        Ok(blocks
            .into_iter()
            .find(|block| block.spec.cidr.net().contains(&address)))
    }

    fn rules(&self) -> Result<Rules> {
        Ok(Rules {
            configuration: self.configuration()?,
            reserved: self.reserved()?,
            pools: self.pools()?,
        })
    }

    fn labels(&self, node: &NodeName) -> Result<Labels> {
        let key = ResourceKey {
            kind: Kind::Node,
            namespace: None,
            name: node.clone().into(),
        };
        match self.store.get(&key) {
            Ok(node) => Ok(node.metadata().labels.clone()),
            Err(DatastoreError::DoesNotExist(_)) => Ok(Labels::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn all<T: Typed + Clone>(&self, kind: Kind) -> Result<Vec<T>> {
        let list = self.store.list(&Selection::kind(kind))?;
        Ok(list.resources().filter_map(T::of).cloned().collect())
    }
}

impl Request {
    /// A request for one IPv4 address for a workload.
    pub fn workload(node: NodeName, handle: impl Into<String>) -> Self {
        Self {
            node,
            handle: handle.into(),
            attributes: BTreeMap::new(),
            purpose: AllowedUse::Workload,
            ipv4: true,
            count: 1,
            pools: Vec::new(),
        }
    }

    fn owner(&self) -> AllocationAttribute {
        let mut secondary = self.attributes.clone();
        secondary.insert("node".to_owned(), self.node.to_string());
        AllocationAttribute {
            handle_id: Some(self.handle.clone()),
            secondary: Some(secondary),
            alternate: None,
        }
    }
}

impl Release {
    /// The release of an address, whoever has it.
    pub fn address(address: IpAddr) -> Self {
        Self {
            address,
            handle: None,
            sequence: None,
        }
    }
}

fn block_key(cidr: IpNet) -> Result<ResourceKey> {
    let name = name_of_cidr(cidr);
    Ok(ResourceKey {
        kind: Kind::IpamBlock,
        namespace: None,
        name: name.parse().map_err(|_| IpamError::Busy(name))?,
    })
}

fn why_none(rules: &Rules, request: &Request) -> String {
    let pools = &rules.pools;
    let version = if request.ipv4 { "IPv4" } else { "IPv6" };
    let named = |pool: &&IpPool| request.pools.contains(&pool.metadata.name);
    if let Some(missing) = request.pools.iter().find(|name| {
        let has = |pool: &IpPool| pool.metadata.name == **name;
        !pools.iter().any(has)
    }) {
        return format!("the requested pool {missing} does not exist");
    }
    if let Some(disabled) = pools.iter().filter(named).find(|pool| pool.spec.disabled) {
        return format!("the requested pool {} is disabled", disabled.metadata.name);
    }
    format!(
        "of {} pools, none is {version}, enabled, for {:?} addresses and selects the node",
        pools.len(),
        request.purpose
    )
}
