//! Attributes, each value once: equal ones are the same allocation, so they compare by address.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::bgp::attributes::Attributes;

/// Below so many values nothing is looked through for unused ones.
const FEW: usize = 1024;

/// All attributes in use.
#[derive(Debug, Default)]
pub(in crate::bgp) struct Store {
    values: HashTable<Arc<Attributes>>,
    purge_at: usize,
}

impl Store {
    /// The one allocation of a value.
    pub(in crate::bgp) fn intern(&mut self, value: Attributes) -> Arc<Attributes> {
        let hash = hash(&value);
        if let Some(found) = self.values.find(hash, |of| **of == value) {
            return found.clone();
        }
        if self.values.len() >= self.purge_at.max(FEW) {
            self.purge();
        }
        let value = Arc::new(value);
        self.values
            .insert_unique(hash, value.clone(), |of| self::hash(of));
        value
    }

    /// Forgets what nobody uses; again when there are twice as many.
    pub(in crate::bgp) fn purge(&mut self) {
        self.values.retain(|of| Arc::strong_count(of) > 1);
        self.values.shrink_to(self.values.len() * 2, |of| hash(of));
        self.purge_at = self.values.len() * 2;
    }

    pub(in crate::bgp) fn len(&self) -> usize {
        self.values.len()
    }
}

fn hash(value: &Attributes) -> u64 {
    FxBuildHasher.hash_one(value)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut store = Store::default();
        let of = |last| Attributes::own(Ipv4Addr::new(10, 0, 0, last).into());
        let kept = store.intern(of(1));
        assert!(Arc::ptr_eq(&kept, &store.intern(of(1))));
        assert!(!Arc::ptr_eq(&kept, &store.intern(of(2))));
        assert_eq!(store.len(), 2);
        store.purge();
        assert_eq!(store.len(), 1);
        assert!(Arc::ptr_eq(&kept, &store.intern(of(1))));
    }
}
