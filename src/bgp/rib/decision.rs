//! Which of a prefix's paths are used (RFC 4271 §9.1.2.2, RFC 4456 §9): a path loses to another at the
//! first step that tells them apart. The cost of the way to a next hop is unknown here, and left out.

use std::net::{IpAddr, Ipv4Addr};

use super::{OWN, Path, PeerFacts};

/// What decisions depend on beside the paths.
pub(in crate::bgp) struct Rules<'a> {
    /// By index.
    pub(in crate::bgp) peers: &'a [PeerFacts],
    /// How many equal paths are used at once.
    pub(in crate::bgp) max_paths: usize,
    /// LOCAL_PREF of a route that says none.
    pub(in crate::bgp) default_local_pref: u32,
    /// Whether a next hop is known to be out of reach.
    pub(in crate::bgp) unreachable: &'a dyn Fn(&IpAddr) -> bool,
}

/// Indices of the chosen paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::bgp) struct Choice {
    /// The best, and those that are as good: the best first, each with a next hop of its own.
    pub(in crate::bgp) equal: Vec<usize>,
    /// What is used when the best path goes: of another peer, with another next hop.
    pub(in crate::bgp) backup: Option<usize>,
}

impl Rules<'_> {
    /// The best path's index.
    pub(in crate::bgp) fn best(&self, paths: &[Path]) -> Option<usize> {
        if let [only] = paths {
            return self.usable(only).then_some(0);
        }
        let mut left = self.all_usable(paths);
        self.narrow(paths, &mut left);
        self.untie(paths, &left)
    }

    /// All that are used.
    pub(in crate::bgp) fn choose(&self, paths: &[Path]) -> Choice {
        if let [only] = paths {
            let equal = if self.usable(only) {
                vec![0]
            } else {
                Vec::new()
            };
            return Choice {
                equal,
                backup: None,
            };
        }
        let usable = self.all_usable(paths);
        let mut left = usable.clone();
        self.narrow(paths, &mut left);
        let mut choice = Choice::default();
        while choice.equal.len() < self.max_paths.max(1) {
            let Some(best) = self.untie(paths, &left) else {
                break;
            };
            choice.equal.push(best);
            let next_hop = paths[best].attributes.next_hop;
            left.retain(|nth| paths[*nth].attributes.next_hop != next_hop);
        }
        if let [best] = choice.equal[..] {
            choice.backup = self.backup(paths, &usable, best);
        }
        choice
    }

    fn backup(&self, paths: &[Path], usable: &[usize], best: usize) -> Option<usize> {
        let best = &paths[best];
        let other = |nth: &&usize| {
            let path = &paths[**nth];
            path.peer != best.peer && path.attributes.next_hop != best.attributes.next_hop
        };
        let mut left: Vec<_> = usable.iter().filter(other).copied().collect();
        self.narrow(paths, &mut left);
        self.untie(paths, &left)
    }

    fn usable(&self, path: &Path) -> bool {
        path.unusable.is_none() && !(self.unreachable)(&path.attributes.next_hop)
    }

    fn all_usable(&self, paths: &[Path]) -> Vec<usize> {
        (0..paths.len())
            .filter(|nth| self.usable(&paths[*nth]))
            .collect()
    }

    /// Leaves those that are equally good.
    fn narrow(&self, paths: &[Path], left: &mut Vec<usize>) {
        keep_least(left, |nth| paths[nth].peer != OWN);
        keep_least(left, |nth| {
            let preference = paths[nth].attributes.local_pref;
            u32::MAX - preference.unwrap_or(self.default_local_pref)
        });
        keep_least(left, |nth| paths[nth].attributes.as_path.length());
        keep_least(left, |nth| paths[nth].attributes.origin);
        keep_least_med(paths, left);
        keep_least(left, |nth| !self.peer(&paths[nth]).external);
    }

    /// The one among equals.
    fn untie(&self, paths: &[Path], left: &[usize]) -> Option<usize> {
        left.iter().copied().min_by_key(|nth| {
            let path = &paths[*nth];
            let peer = self.peer(path);
            (
                self.identifier(path),
                path.attributes.cluster_list.len(),
                peer.address,
                path.path_id,
            )
        })
    }

    /// RFC 4456 §9: the originator's in place of the peer's.
    fn identifier(&self, path: &Path) -> Ipv4Addr {
        let originator = path.attributes.originator_id;
        originator.unwrap_or(self.peer(path).router_id)
    }

    fn peer(&self, path: &Path) -> &PeerFacts {
        &self.peers[path.peer as usize]
    }
}

fn keep_least<K: Ord>(left: &mut Vec<usize>, key: impl Fn(usize) -> K) {
    if left.len() < 2 {
        return;
    }
    if let Some(least) = left.iter().map(|nth| key(*nth)).min() {
        left.retain(|nth| key(*nth) == least);
    }
}

/// MULTI_EXIT_DISC compares paths of the same neighbouring AS alone (RFC 4271 §9.1.2.2 c).
fn keep_least_med(paths: &[Path], left: &mut Vec<usize>) {
    if left.len() < 2 {
        return;
    }
    let neighbour = |nth: usize| paths[nth].attributes.as_path.neighbour();
    let med = |nth: usize| paths[nth].attributes.med.unwrap_or(0);
    let all = left.clone();
    left.retain(|nth| {
        !all.iter()
            .any(|other| neighbour(*other) == neighbour(*nth) && med(*other) < med(*nth))
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::bgp::attributes::{AsPath, Attributes, Origin, Segment};
    use crate::bgp::rib::Unusable;

    fn peers() -> Vec<PeerFacts> {
        let peer = |last: u8, external| PeerFacts {
            external,
            client: false,
            router_id: Ipv4Addr::new(1, 1, 1, last / 2),
            address: Ipv4Addr::new(10, 0, 0, last).into(),
            scope_id: 0,
        };
        vec![
            peer(0, false),
            peer(2, true),
            peer(3, true),
            peer(4, false),
            peer(5, false),
            peer(6, true),
        ]
    }

    fn path(peer: u32, change: impl FnOnce(&mut Attributes)) -> Path {
        let next_hop = IpAddr::from([10, 0, 0, peer as u8]);
        let mut attributes = Attributes::own(next_hop);
        attributes.as_path = AsPath([Segment::Sequence([65000].into())].into());
        change(&mut attributes);
        Path {
            attributes: Arc::new(attributes),
            path_id: 0,
            since: 0,
            peer,
            stale: false,
            unusable: None,
        }
    }

    fn rules<'a>(peers: &'a [PeerFacts], unreachable: &'a dyn Fn(&IpAddr) -> bool) -> Rules<'a> {
        Rules {
            peers,
            max_paths: 16,
            default_local_pref: 100,
            unreachable,
        }
    }

    fn ases(numbers: &[u32]) -> AsPath {
        AsPath([Segment::Sequence(numbers.into())].into())
    }

    /// Each pair: the first wins, whatever the order, by the step that is named.
    #[test]
    fn each_step_of_the_rfc() {
        let peers = peers();
        let never = |_: &IpAddr| false;
        let rules = rules(&peers, &never);
        let steps: Vec<(&str, Path, Path)> = vec![
            (
                "own",
                path(0, |of| of.as_path = AsPath::default()),
                path(1, |of| of.local_pref = Some(900)),
            ),
            (
                "local pref",
                path(1, |of| {
                    of.local_pref = Some(101);
                    of.as_path = ases(&[1, 2, 3]);
                }),
                path(2, |_| ()),
            ),
            (
                "local pref, 100 by default",
                path(1, |_| ()),
                path(2, |of| of.local_pref = Some(99)),
            ),
            (
                "path length",
                path(2, |_| ()),
                path(1, |of| of.as_path = ases(&[1, 2])),
            ),
            (
                "a set counts one",
                path(2, |of| {
                    of.as_path = AsPath([Segment::Set([1, 2, 3].into())].into())
                }),
                path(1, |of| of.as_path = ases(&[1, 2])),
            ),
            (
                "origin",
                path(2, |of| of.origin = Origin::Egp),
                path(1, |of| of.origin = Origin::Incomplete),
            ),
            (
                "MED of the same AS",
                path(2, |of| of.med = Some(1)),
                path(1, |of| of.med = Some(2)),
            ),
            (
                "MED 0 by default",
                path(2, |_| ()),
                path(1, |of| of.med = Some(1)),
            ),
            (
                "MED of different ASes is nothing",
                path(1, |of| {
                    of.med = Some(9);
                    of.as_path = ases(&[7]);
                }),
                path(2, |of| of.med = Some(1)),
            ),
            ("external", path(5, |_| ()), path(3, |_| ())),
            ("router id", path(1, |_| ()), path(5, |_| ())),
            (
                "originator for router id",
                path(4, |of| of.originator_id = Some(Ipv4Addr::new(1, 1, 1, 0))),
                path(3, |_| ()),
            ),
            (
                "cluster list",
                path(4, |_| ()),
                path(3, |of| of.cluster_list = [Ipv4Addr::LOCALHOST].into()),
            ),
            ("address", path(1, |_| ()), path(2, |_| ())),
        ];
        for (step, winner, loser) in steps {
            assert_eq!(
                rules.best(&[winner.clone(), loser.clone()]),
                Some(0),
                "{step}"
            );
            assert_eq!(
                rules.best(&[loser, winner]),
                Some(1),
                "{step}, the other way round"
            );
        }
    }

    /// The classic example of MEDs that no order of pairs can settle.
    #[test]
    fn meds_are_compared_within_their_as_alone() {
        let peers = peers();
        let never = |_: &IpAddr| false;
        let rules = rules(&peers, &never);
        let a = path(1, |of| {
            of.as_path = ases(&[7]);
            of.med = Some(10)
        });
        let b = path(2, |of| {
            of.as_path = ases(&[8]);
            of.med = Some(5)
        });
        let c = path(5, |of| {
            of.as_path = ases(&[7]);
            of.med = Some(1)
        });
        // a falls to c; then b has the lowest router id of b and c.
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let all = [a.clone(), b.clone(), c.clone()];
            let paths: Vec<_> = order.iter().map(|nth| all[*nth].clone()).collect();
            let best = rules.best(&paths).map(|nth| order[nth]);
            assert_eq!(best, Some(1), "{order:?}");
        }
    }

    #[test]
    fn equal_paths_and_backups() {
        let peers = peers();
        let never = |_: &IpAddr| false;
        let both = rules(&peers, &never);
        let paths = [path(1, |_| ()), path(2, |_| ()), path(3, |_| ())];
        assert_eq!(
            both.choose(&paths),
            Choice {
                equal: vec![0, 1],
                backup: None
            }
        );
        let one = Rules {
            max_paths: 1,
            ..rules(&peers, &never)
        };
        assert_eq!(
            one.choose(&paths),
            Choice {
                equal: vec![0],
                backup: Some(1)
            }
        );
        let gone = |of: &IpAddr| *of == IpAddr::from([10, 0, 0, 1]);
        let without = rules(&peers, &gone);
        assert_eq!(
            without.choose(&paths),
            Choice {
                equal: vec![1],
                backup: Some(2)
            }
        );
        let mut unusable = paths[0].clone();
        unusable.unusable = Some(Unusable::Filtered);
        assert_eq!(both.best(&[unusable.clone()]), None);
        assert_eq!(both.choose(&[unusable]), Choice::default());
    }

    fn any_path() -> impl Strategy<Value = Path> {
        (
            0u32..6,
            0u32..3,
            1usize..3,
            0u32..3,
            0u32..2,
            0u8..3,
            any::<bool>(),
        )
            .prop_map(|(peer, pref, length, med, first, hop, filtered)| {
                let mut path = path(peer, |of| {
                    of.local_pref = (pref > 0).then_some(99 + pref);
                    of.as_path = ases(&vec![65000 + first; length]);
                    of.med = (med > 0).then_some(med);
                    of.next_hop = IpAddr::from([10, 9, 9, hop]);
                });
                path.unusable = (filtered && pref == 2).then_some(Unusable::Filtered);
                path
            })
    }

    proptest! {
        /// The winner does not depend on the order in which paths came, removing a loser changes
        /// nothing that made it lose but a MED, and nobody unusable wins.
        #[test]
        fn the_order_of_arrival_decides_nothing(mut paths in prop::collection::vec(any_path(), 1..7), turn in 0usize..7) {
            // As in a table: one path a peer.
            paths.sort_by_key(|path| path.peer);
            paths.dedup_by_key(|path| path.peer);
            let peers = peers();
            let never = |_: &IpAddr| false;
            let rules = rules(&peers, &never);
            let winner = rules.best(&paths).map(|nth| paths[nth].peer);
            let chosen = rules.choose(&paths);
            prop_assert_eq!(chosen.equal.first().map(|nth| paths[*nth].peer), winner);
            let turn = turn % paths.len();
            let mut turned = paths.clone();
            turned.rotate_left(turn);
            prop_assert_eq!(rules.best(&turned).map(|nth| turned[nth].peer), winner);
            prop_assert_eq!(winner.is_none(), paths.iter().all(|path| path.unusable.is_some()));
            for nth in chosen.equal.iter().chain(&chosen.backup) {
                prop_assert!(paths[*nth].unusable.is_none());
            }
            let hops: std::collections::BTreeSet<_> = chosen.equal.iter().map(|nth| paths[*nth].attributes.next_hop).collect();
            prop_assert_eq!(hops.len(), chosen.equal.len());
        }
    }
}
