//! Handles: how many addresses of which blocks were handed out under one name.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{ATTEMPTS, Ipam, IpamError, Result};
use crate::datastore::DatastoreError;
use crate::resources::ipam_handle::IpamHandleSpec;
use crate::resources::{IpamHandle, Kind, Metadata, Resource, ResourceKey};

impl Ipam {
    /// The blocks in which a handle has addresses.
    pub(super) fn blocks_of_handle(&self, handle: &str) -> Result<Vec<IpNet>> {
        let found = self.handle(handle)?;
        let blocks = found
            .into_iter()
            .flat_map(|handle| handle.spec.block.into_keys());
        Ok(blocks.filter_map(|block| block.parse().ok()).collect())
    }

    /// Counts addresses of a block to a handle.
    pub(super) fn remember(&self, handle: &str, cidr: IpNet, count: usize) -> Result<()> {
        self.change_handle(handle, |blocks| {
            *blocks.entry(cidr.to_string()).or_insert(0) += count
        })
    }

    /// Counts them off again; a handle that has nothing left goes.
    pub(super) fn forget(&self, handle: &str, cidr: IpNet, count: usize) -> Result<()> {
        self.change_handle(handle, |blocks| {
            let block = cidr.to_string();
            if let Some(held) = blocks.get_mut(&block) {
                *held = held.saturating_sub(count);
                if *held == 0 {
                    blocks.remove(&block);
                }
            }
        })
    }

    fn handle(&self, handle: &str) -> Result<Option<IpamHandle>> {
        match self.store.get(&handle_key(handle)?) {
            Ok(Resource::IpamHandle(found)) => Ok(Some(found)),
            Ok(_) | Err(DatastoreError::DoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn change_handle(
        &self,
        handle: &str,
        change: impl Fn(&mut BTreeMap<String, usize>),
    ) -> Result<()> {
        let key = handle_key(handle)?;
        for _ in 0..ATTEMPTS {
            let before = self.handle(handle)?;
            let new = before.is_none();
            let mut changed = before.unwrap_or_else(|| IpamHandle {
                metadata: Metadata::named(key.name.clone()),
                spec: IpamHandleSpec {
                    handle_id: handle.to_owned(),
                    block: BTreeMap::new(),
                    deleted: false,
                },
            });
            change(&mut changed.spec.block);
            let empty = changed.spec.block.is_empty();
            let resource = Resource::IpamHandle(changed);
            let written = match (new, empty) {
                (true, true) => return Ok(()),
                (true, false) => self.store.create(&resource),
                (false, true) => {
                    let version = resource.metadata().resource_version.as_deref();
                    self.store.delete(&key, version)
                }
                (false, false) => self.store.update(&resource),
            };
            match written {
                Ok(_) => return Ok(()),
                Err(
                    DatastoreError::Conflict(_)
                    | DatastoreError::AlreadyExists(_)
                    | DatastoreError::DoesNotExist(_),
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IpamError::Busy(format!("handle {handle}")))
    }
}

fn handle_key(handle: &str) -> Result<ResourceKey> {
    let name = IpamHandle::name_of(handle);
    Ok(ResourceKey {
        kind: Kind::IpamHandle,
        namespace: None,
        name: name.ok_or_else(|| IpamError::Handle(handle.to_owned()))?,
    })
}
