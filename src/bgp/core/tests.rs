//! Speakers that talk with each other over a network on paper, on a virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use super::*;
use crate::bgp::event::NextHopGroupId;
use crate::bgp::filter::{Action as Verdict, Change, Community, Filter, MatchOperator, Rule};
use crate::bgp::report::{RouteQuery, State};

/// Everybody's addresses are 10.0.0.N, N from 1.
fn address(of: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, of as u8 + 1])
}

fn name(of: usize) -> PeerName {
    PeerName::from(format!("s{of}"))
}

struct Speaker {
    core: Option<Core>,
    settings: Settings,
    /// When its clock began.
    epoch: Time,
    /// What its consumer knows.
    routes: BTreeMap<IpNet, NextHopGroupId>,
    groups: BTreeMap<NextHopGroupId, Vec<IpAddr>>,
    heard: Vec<Event>,
}

/// Two ends of a connection.
struct Pipe {
    ends: [(usize, ConnectionId); 2],
    bytes: [VecDeque<u8>; 2],
}

/// Speakers and connections between them.
struct World {
    speakers: Vec<Speaker>,
    pipes: Vec<Pipe>,
    now: Time,
}

impl World {
    /// Speakers with AS numbers, and who talks with whom.
    fn new(numbers: &[u32], links: &[(usize, usize)]) -> Self {
        let settings = |of: usize| {
            let mut settings = Settings::new(numbers[of], Ipv4Addr::new(1, 1, 1, of as u8 + 1));
            for (a, b) in links {
                for (a, b) in [(*a, *b), (*b, *a)] {
                    if a == of {
                        let peer = PeerSettings::new(address(b), numbers[b]);
                        settings.peers.insert(name(b), peer);
                    }
                }
            }
            settings
        };
        let speakers = (0..numbers.len()).map(|of| Speaker {
            core: None,
            settings: settings(of),
            epoch: Time::ZERO,
            routes: BTreeMap::new(),
            groups: BTreeMap::new(),
            heard: Vec::new(),
        });
        let mut world = Self {
            speakers: speakers.collect(),
            pipes: Vec::new(),
            now: Time::ZERO,
        };
        for of in 0..numbers.len() {
            world.start(of, false);
        }
        world
    }

    fn start(&mut self, of: usize, restarted: bool) {
        let speaker = &mut self.speakers[of];
        speaker.epoch = self.now;
        speaker.core = Some(Core::new(
            speaker.settings.clone(),
            restarted.then(|| speaker.settings.peers.keys().cloned().collect()),
            77 + of as u64,
        ));
    }

    /// It dies; its connections break.
    fn kill(&mut self, of: usize) {
        self.speakers[of].core = None;
        let broken: Vec<_> = self
            .pipes
            .iter()
            .filter(|pipe| pipe.ends.iter().any(|(end, _)| *end == of))
            .map(|pipe| pipe.ends)
            .collect();
        self.pipes
            .retain(|pipe| pipe.ends.iter().all(|(end, _)| *end != of));
        for (end, id) in broken.into_iter().flatten() {
            if end != of {
                self.with(end, |core, now| core.lost(now, id, "Connection closed"));
            }
        }
    }

    fn with<T>(&mut self, of: usize, act: impl FnOnce(&mut Core, Time) -> T) -> T {
        let speaker = &mut self.speakers[of];
        let now = self.now - speaker.epoch;
        act(speaker.core.as_mut().expect("alive"), now)
    }

    fn configure(&mut self, of: usize, change: impl FnOnce(&mut Settings)) {
        change(&mut self.speakers[of].settings);
        let settings = self.speakers[of].settings.clone();
        self.with(of, |core, now| core.configure(now, settings));
    }

    fn originate(&mut self, of: usize, prefixes: &[&str]) {
        let routes = prefixes
            .iter()
            .map(|prefix| OwnRoute::new(prefix.parse().unwrap()))
            .collect();
        self.with(of, |core, now| core.originate(now, routes));
    }

    /// Lets time pass, step by step.
    fn pass(&mut self, time: Time) {
        let end = self.now + time;
        loop {
            self.calm();
            let due = self
                .speakers
                .iter()
                .filter_map(|of| Some(of.epoch + of.core.as_ref()?.deadline()?))
                .min();
            let Some(at) = due.filter(|at| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            for of in 0..self.speakers.len() {
                if self.speakers[of].core.is_some() {
                    self.with(of, |core, now| core.tick(now));
                }
            }
        }
        self.now = end;
    }

    /// Moves bytes until nobody has any.
    fn calm(&mut self) {
        loop {
            let mut moved = false;
            for of in 0..self.speakers.len() {
                if self.speakers[of].core.is_some() {
                    self.hear(of);
                    moved |= self.output(of);
                }
            }
            for nth in (0..self.pipes.len()).rev() {
                moved |= self.carry(nth);
            }
            if !moved {
                return;
            }
        }
    }

    fn hear(&mut self, of: usize) {
        loop {
            let events = self.with(of, |core, _| core.events());
            if events.is_empty() {
                return;
            }
            let speaker = &mut self.speakers[of];
            for event in &events {
                match event {
                    Event::Group { id, next_hops } => {
                        let hops = next_hops.iter().map(|hop| hop.address).collect();
                        speaker.groups.insert(*id, hops);
                    }
                    Event::GroupGone(id) => {
                        assert!(
                            !speaker.routes.values().any(|group| group == id),
                            "still used"
                        );
                        assert!(speaker.groups.remove(id).is_some());
                    }
                    Event::Routes(changes) => {
                        for change in changes {
                            match change.group {
                                Some(group) => {
                                    assert!(speaker.groups.contains_key(&group), "told before");
                                    speaker.routes.insert(change.prefix, group);
                                }
                                None => drop(speaker.routes.remove(&change.prefix)),
                            }
                        }
                    }
                    Event::Session { .. } | Event::Converged => {}
                }
            }
            speaker.heard.extend(events);
        }
    }

    fn output(&mut self, of: usize) -> bool {
        let outputs = self.with(of, |core, _| core.outputs());
        let any = !outputs.is_empty();
        for output in outputs {
            match output {
                Output::Connect { id, peer } => self.connect(of, id, &peer),
                Output::Close { id, last } => self.close(of, id, &last),
            }
        }
        any
    }

    fn connect(&mut self, of: usize, id: ConnectionId, peer: &PeerName) {
        let to = (0..self.speakers.len())
            .find(|of| name(*of) == *peer)
            .unwrap();
        let taken = match self.speakers[to].core {
            Some(_) => self.with(to, |core, now| {
                core.accept(now, address(of), 0, address(to))
            }),
            None => None,
        };
        match taken {
            Some(other) => {
                self.with(of, |core, now| core.connected(now, id, address(of)));
                self.pipes.push(Pipe {
                    ends: [(of, id), (to, other)],
                    bytes: Default::default(),
                });
            }
            None => self.with(of, |core, now| {
                core.lost(now, id, "Socket: Connection refused")
            }),
        }
    }

    fn close(&mut self, of: usize, id: ConnectionId, last: &[u8]) {
        let Some(nth) = self
            .pipes
            .iter()
            .position(|pipe| pipe.ends.contains(&(of, id)))
        else {
            return;
        };
        let pipe = self.pipes.remove(nth);
        let from = usize::from(pipe.ends[1] == (of, id));
        let (to, other) = pipe.ends[1 - from];
        let mut bytes: Vec<_> = pipe.bytes[from].iter().copied().collect();
        bytes.extend_from_slice(last);
        if self.speakers[to].core.is_some() {
            self.with(to, |core, now| {
                core.received(now, other, &bytes);
                core.lost(now, other, "Connection closed");
            });
        }
    }

    fn carry(&mut self, nth: usize) -> bool {
        let mut moved = false;
        for from in [0, 1] {
            let Some(ends) = self.pipes.get(nth).map(|pipe| pipe.ends) else {
                return true;
            };
            let mut bytes = Vec::new();
            let (of, id) = ends[from];
            self.with(of, |core, _| core.write(id, &mut bytes, 20_000));
            if bytes.is_empty() {
                continue;
            }
            moved = true;
            let (to, other) = ends[1 - from];
            self.with(to, |core, now| core.received(now, other, &bytes));
        }
        moved
    }

    fn is_up(&mut self, of: usize, peer: usize) -> bool {
        self.neighbor(of, peer).state == State::Established
    }

    fn neighbor(&mut self, of: usize, peer: usize) -> crate::bgp::report::NeighborReport {
        let all = self.with(of, |core, _| core.neighbors(SystemTime::UNIX_EPOCH));
        all.into_iter()
            .find(|report| report.name == name(peer))
            .unwrap()
    }

    /// The prefixes that a consumer has, with their next hops' last numbers.
    fn table(&self, of: usize) -> Vec<(String, Vec<u8>)> {
        let speaker = &self.speakers[of];
        let hops = |group| {
            let hops: Vec<u8> = speaker.groups[group]
                .iter()
                .map(|hop| match hop {
                    IpAddr::V4(hop) => hop.octets()[3],
                    IpAddr::V6(_) => 0,
                })
                .collect();
            hops
        };
        speaker
            .routes
            .iter()
            .map(|(prefix, group)| (prefix.to_string(), hops(group)))
            .collect()
    }

    fn received(&mut self, of: usize) -> Vec<crate::bgp::report::RouteReport> {
        self.with(of, |core, _| {
            core.routes(
                View::Received,
                &RouteQuery::default(),
                SystemTime::UNIX_EPOCH,
            )
        })
    }
}

fn row(prefix: &str, hops: &[u8]) -> (String, Vec<u8>) {
    (prefix.to_owned(), hops.to_vec())
}

const SOON: Time = Time::from_secs(10);

#[test]
fn routes_come_and_go() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(0, &["10.1.0.0/26", "fd00:1::/64"]);
    world.speakers[0].settings.next_hop_v6 = Some("fd00::1".parse().unwrap());
    world.configure(0, |_| ());
    world.pass(SOON);
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    assert_eq!(
        world.table(1),
        [row("10.1.0.0/26", &[1]), row("fd00:1::/64", &[0])]
    );
    world.originate(0, &["10.1.0.64/26", "fd00:1::/64"]);
    world.pass(SOON);
    assert_eq!(
        world.table(1),
        [row("10.1.0.64/26", &[1]), row("fd00:1::/64", &[0])]
    );
    assert_eq!(world.neighbor(0, 1).advertised_prefixes, 2);
    world.originate(0, &[]);
    world.pass(SOON);
    assert_eq!(world.table(1), []);
    assert_eq!(world.speakers[1].groups.len(), 0, "no group without a user");
    assert_eq!(
        (
            world.neighbor(0, 1).advertised_prefixes,
            world.neighbor(1, 0).received_prefixes
        ),
        (0, 0)
    );
}

#[test]
fn everybody_converges_once() {
    let mut world = World::new(&[64512, 64512, 64512], &[(0, 1), (1, 2), (0, 2)]);
    world.pass(SOON);
    for of in 0..3 {
        let converged = world.speakers[of]
            .heard
            .iter()
            .filter(|event| **event == Event::Converged);
        assert_eq!(converged.count(), 1);
    }
}

#[test]
fn internal_routes_stop_and_external_ones_go_on() {
    // 0 — 1 — 2 in one AS, then 3 outside.
    let mut world = World::new(&[64512, 64512, 64512, 65000], &[(0, 1), (1, 2), (1, 3)]);
    world.originate(0, &["10.1.0.0/26"]);
    world.originate(3, &["10.3.0.0/24"]);
    world.pass(SOON);
    assert_eq!(world.table(2), [row("10.3.0.0/24", &[4])]);
    assert_eq!(world.table(3), [row("10.1.0.0/26", &[2])]);
    assert_eq!(
        world.table(1),
        [row("10.1.0.0/26", &[1]), row("10.3.0.0/24", &[4])]
    );
    // 1 becomes a route reflector for 0, of which 2 hears without any session's end; and no more.
    let since = world.neighbor(1, 0).since;
    let reflect = |client| {
        move |settings: &mut Settings| {
            let peer = settings.peers.get_mut(&name(0)).unwrap();
            peer.route_reflector_client = client;
        }
    };
    world.configure(1, reflect(true));
    world.pass(SOON);
    assert_eq!(
        world.table(2),
        [row("10.1.0.0/26", &[1]), row("10.3.0.0/24", &[4])]
    );
    let reflected = world.received(2);
    assert_eq!(
        reflected[0].attributes.originator_id,
        Some(Ipv4Addr::new(1, 1, 1, 1))
    );
    assert_eq!(
        *reflected[0].attributes.cluster_list,
        [Ipv4Addr::new(1, 1, 1, 2)]
    );
    world.configure(1, reflect(false));
    world.pass(SOON);
    assert_eq!(world.table(2), [row("10.3.0.0/24", &[4])]);
    assert_eq!(world.neighbor(1, 0).since, since);
}

#[test]
fn own_as_and_own_cluster_are_not_taken_back() {
    // A ring of two reflectors of the same cluster, and an AS in between.
    let mut world = World::new(&[64512, 65000, 64512], &[(0, 1), (1, 2)]);
    world.originate(0, &["10.1.0.0/26"]);
    world.pass(SOON);
    assert_eq!(world.table(2), []);
    let received = world.received(2);
    assert_eq!(received[0].unusable, Some("own AS in the path"));
    assert_eq!(world.neighbor(2, 1).counters.loops, 1);
    world.configure(2, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().allowed_local_as = 1
    });
    world.pass(SOON);
    assert_eq!(world.table(2), [row("10.1.0.0/26", &[2])]);
}

#[test]
fn equal_paths_are_used_together_and_a_dead_peer_is_repaired_first() {
    let mut world = World::new(&[64512, 64512, 64512], &[(0, 1), (0, 2)]);
    let many: Vec<_> = (0..3000)
        .map(|nth: u32| format!("10.{}.{}.0/24", nth / 256, nth % 256))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    world.originate(1, &many);
    world.originate(2, &many);
    world.pass(SOON);
    assert_eq!(world.table(0).len(), 3000);
    assert!(world.table(0).iter().all(|(_, hops)| *hops == [2, 3]));
    // A peer that does not restart gracefully.
    world.configure(1, |settings| settings.graceful_restart = Time::ZERO);
    world.pass(SOON);
    world.speakers[0].heard.clear();
    world.kill(1);
    world.calm();
    world.pass(Time::ZERO);
    let heard = std::mem::take(&mut world.speakers[0].heard);
    let Some(Event::Group { next_hops, .. }) = heard
        .iter()
        .find(|event| matches!(event, Event::Group { .. }))
    else {
        panic!("no repair: {heard:?}");
    };
    assert_eq!(
        next_hops.iter().map(|hop| hop.address).collect::<Vec<_>>(),
        [address(2)]
    );
    let repair = heard
        .iter()
        .position(|event| matches!(event, Event::Group { .. }));
    let routes = heard
        .iter()
        .position(|event| matches!(event, Event::Routes(_)));
    assert!(repair < routes, "{repair:?} {routes:?}");
    assert!(world.table(0).iter().all(|(_, hops)| *hops == [3]));
}

#[test]
fn an_unreachable_next_hop_is_left_for_the_backup() {
    let mut world = World::new(&[64512, 65001, 65001], &[(0, 1), (0, 2)]);
    let one = |med| {
        let mut route = OwnRoute::new("10.9.0.0/16".parse().unwrap());
        route.says.med = Some(med);
        vec![route]
    };
    world.with(1, |core, now| core.originate(now, one(1)));
    world.with(2, |core, now| core.originate(now, one(2)));
    world.pass(SOON);
    assert_eq!(world.table(0), [row("10.9.0.0/16", &[2])]);
    world.with(0, |core, now| {
        core.set_unreachable(now, [address(1)].into())
    });
    world.hear(0);
    assert_eq!(
        world.table(0),
        [row("10.9.0.0/16", &[3])],
        "before any prefix was looked at"
    );
    world.pass(SOON);
    assert_eq!(world.table(0), [row("10.9.0.0/16", &[3])]);
    world.with(0, |core, now| core.set_unreachable(now, BTreeSet::new()));
    world.pass(SOON);
    assert_eq!(world.table(0), [row("10.9.0.0/16", &[2])]);
}

#[test]
fn a_peer_that_restarts_is_waited_for() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26", "10.1.0.64/26"]);
    world.pass(SOON);
    world.speakers[0].heard.clear();
    world.kill(1);
    world.pass(Time::from_secs(30));
    assert_eq!(world.table(0).len(), 2, "kept");
    assert!(world.neighbor(0, 1).restarting);
    assert!(world.received(0).iter().all(|route| route.stale));
    world.start(1, true);
    world.originate(1, &["10.1.0.0/26", "10.1.0.128/26"]);
    world.pass(SOON);
    assert_eq!(
        world.table(0),
        [row("10.1.0.0/26", &[2]), row("10.1.0.128/26", &[2])]
    );
    assert!(world.received(0).iter().all(|route| !route.stale));
    let kept = "10.1.0.0/26".parse().unwrap();
    for event in &world.speakers[0].heard {
        if let Event::Routes(changes) = event {
            assert!(
                changes.iter().all(|change| change.prefix != kept),
                "it was never gone"
            );
        }
    }
}

#[test]
fn a_peer_that_comes_back_without_its_routes_or_not_at_all_is_forgotten() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26"]);
    world.pass(SOON);
    world.kill(1);
    world.pass(Time::from_secs(119));
    assert_eq!(world.table(0).len(), 1);
    world.pass(Time::from_secs(5));
    assert_eq!(world.table(0).len(), 0, "its time is over");
    world.start(1, false);
    world.originate(1, &["10.1.0.0/26"]);
    world.pass(Time::from_secs(30));
    assert_eq!(world.table(0).len(), 1);
    world.kill(1);
    world.start(1, false);
    world.pass(Time::from_secs(30));
    assert_eq!(world.table(0).len(), 0, "it did not forward meanwhile");
}

#[test]
fn a_restarted_speaker_waits_for_its_peers() {
    let mut world = World::new(&[64512, 65001, 65002], &[(0, 1), (0, 2)]);
    world.originate(1, &["10.1.0.0/24"]);
    world.pass(SOON);
    world.kill(0);
    world.kill(2);
    world.start(0, true);
    world.originate(0, &["10.0.0.0/24"]);
    world.pass(SOON);
    assert!(world.is_up(0, 1));
    assert_eq!(
        world.neighbor(0, 1).advertised_prefixes,
        0,
        "the third is not there yet"
    );
    assert_eq!(world.table(1).len(), 0);
    world.start(2, false);
    world.pass(Time::from_secs(30));
    assert_eq!(
        world.table(2),
        [row("10.0.0.0/24", &[1]), row("10.1.0.0/24", &[1])]
    );
}

#[test]
fn shutdowns_are_told() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26"]);
    world.pass(SOON);
    world.with(1, |core, _| core.stop("maintenance", false));
    world.calm();
    world.pass(Time::ZERO);
    assert_eq!(world.table(0), []);
    let report = world.neighbor(0, 1);
    assert_eq!(
        report.last_error.as_deref(),
        Some("Received: Administrative shutdown: \"maintenance\" (hard reset)")
    );
}

#[test]
fn a_wrong_as_says_so() {
    let mut world = World::new(&[64512, 65001], &[(0, 1)]);
    world.configure(0, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().remote_as = 65009
    });
    world.pass(SOON);
    let (ours, theirs) = (world.neighbor(0, 1), world.neighbor(1, 0));
    assert_ne!(ours.state, State::Established);
    assert_eq!(
        ours.last_error.as_deref(),
        Some("Bad peer AS: 65001, where 65009 is expected")
    );
    assert_eq!(theirs.last_error.as_deref(), Some("Received: Bad peer AS"));
    world.configure(0, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().remote_as = 65001
    });
    world.pass(Time::from_secs(40));
    assert!(world.is_up(0, 1));
}

fn reject(cidr: &str) -> Filter {
    Filter {
        rules: vec![Rule {
            cidr: Some((MatchOperator::In, cidr.parse().unwrap())),
            ..Rule::all(Verdict::Reject)
        }],
        otherwise: Verdict::Accept,
    }
}

#[test]
fn filters_apply_to_what_is_there_already() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26", "10.2.0.0/26"]);
    world.pass(SOON);
    let since = world.neighbor(0, 1).since;
    world.configure(0, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().import = reject("10.1.0.0/16")
    });
    world.pass(SOON);
    assert_eq!(world.table(0), [row("10.2.0.0/26", &[2])]);
    assert_eq!(world.received(0)[0].unusable, Some("import filter"));
    assert_eq!(
        (
            world.neighbor(0, 1).received_prefixes,
            world.neighbor(0, 1).accepted_prefixes
        ),
        (2, 1)
    );
    world.configure(1, |settings| {
        settings.peers.get_mut(&name(0)).unwrap().export = reject("10.2.0.0/16")
    });
    world.pass(SOON);
    assert_eq!(world.table(0), []);
    world.configure(0, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().import = Filter::default()
    });
    world.configure(1, |settings| {
        settings.peers.get_mut(&name(0)).unwrap().export = Filter::default()
    });
    world.pass(SOON);
    assert_eq!(world.table(0).len(), 2);
    assert_eq!(world.neighbor(0, 1).since, since);
}

/// What a filter makes of a route is made anew of what was told when the filter is another one.
#[test]
fn filters_change_routes_and_change_them_back() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26"]);
    world.pass(SOON);
    let filter = |changes: Vec<Change>| Filter {
        rules: vec![Rule {
            changes,
            ..Rule::all(Verdict::Accept)
        }],
        otherwise: Verdict::Accept,
    };
    let said = |world: &mut World| {
        let said = world.received(0)[0].attributes.clone();
        let communities = said.communities.to_vec();
        (said.local_pref, communities, said.as_path.to_string())
    };
    let plain = (Some(100), vec![], String::new());
    assert_eq!(said(&mut world), plain);
    for value in [7, 8] {
        world.configure(0, |settings| {
            let community = Change::Add(Community::Standard(value));
            settings.peers.get_mut(&name(1)).unwrap().import =
                filter(vec![community, Change::LocalPref(300)]);
        });
        world.pass(SOON);
        assert_eq!(said(&mut world), (Some(300), vec![value], String::new()));
    }
    world.configure(0, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().import = Filter::default()
    });
    world.configure(1, |settings| {
        settings.peers.get_mut(&name(0)).unwrap().export =
            filter(vec![Change::Prepend(vec![65001, 65002])])
    });
    world.pass(SOON);
    let prepended = (Some(100), vec![], "65001 65002".to_owned());
    assert_eq!(said(&mut world), prepended);
    world.configure(1, |settings| {
        settings.peers.get_mut(&name(0)).unwrap().export = Filter::default()
    });
    world.pass(SOON);
    assert_eq!(said(&mut world), plain);
    assert_eq!(world.neighbor(0, 1).counters.established, 1);
}

#[test]
fn too_many_prefixes_end_the_session() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.configure(0, |settings| {
        settings.peers.get_mut(&name(1)).unwrap().max_prefixes = 1
    });
    world.originate(1, &["10.1.0.0/26", "10.2.0.0/26"]);
    world.pass(Time::from_secs(2));
    assert!(!world.is_up(0, 1) || world.neighbor(0, 1).counters.errors > 0);
    let said = world.neighbor(1, 0).last_error;
    assert_eq!(
        said.as_deref(),
        Some("Received: Maximum number of prefixes reached (hard reset)")
    );
    assert_eq!(world.table(0), []);
}

#[test]
fn a_next_hop_that_is_ours_is_not_followed() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    let mut route = OwnRoute::new("10.1.0.0/26".parse().unwrap());
    route.says.next_hop = Some([10, 0, 0, 77].into());
    world.configure(0, |settings| {
        settings.local_addresses.insert([10, 0, 0, 77].into());
    });
    world.with(1, |core, now| core.originate(now, vec![route]));
    world.pass(SOON);
    assert_eq!(world.table(0), []);
    assert_eq!(world.received(0)[0].unusable, Some("next hop is this node"));
    assert_eq!(world.neighbor(0, 1).counters.bad_next_hops, 1);
}

#[test]
fn refreshes_bring_everything_again() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26", "10.2.0.0/26"]);
    world.pass(SOON);
    let before = world.neighbor(0, 1).counters;
    assert!(world.with(0, |core, now| core.reset(now, &name(1), true)));
    world.pass(SOON);
    let after = world.neighbor(0, 1).counters;
    assert_eq!(after.prefixes_received - before.prefixes_received, 2);
    // BoRR and EoRR, for two families.
    assert_eq!(after.received.refreshes - before.received.refreshes, 4);
    assert_eq!(world.table(0).len(), 2);
    assert!(world.with(0, |core, now| core.reset(now, &name(1), false)));
    world.pass(SOON);
    assert_eq!(
        world.neighbor(1, 0).last_error.as_deref(),
        Some("Received: Administrative reset (hard reset)")
    );
    assert!(world.is_up(0, 1));
    assert!(!world.with(0, |core, now| core.reset(
        now,
        &PeerName::from("nobody"),
        false
    )));
}

#[test]
fn a_removed_peer_leaves_nothing() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.originate(1, &["10.1.0.0/26"]);
    world.pass(SOON);
    world.configure(0, |settings| settings.peers.clear());
    world.pass(SOON);
    assert_eq!((world.table(0), world.received(0).len()), (vec![], 0));
    assert_eq!(
        world.neighbor(1, 0).last_error.as_deref(),
        Some("Socket: Connection refused")
    );
}

#[test]
fn a_consumer_that_sleeps_finds_each_prefix_once() {
    let mut world = World::new(&[64512, 64512], &[(0, 1)]);
    world.pass(SOON);
    for round in 0..50u32 {
        let prefixes: Vec<_> = (0..100)
            .map(|nth: u32| format!("10.1.{nth}.0/24"))
            .collect();
        let kept = prefixes
            .iter()
            .filter(|_| round % 2 == 0)
            .map(String::as_str);
        let kept: Vec<_> = kept.collect();
        world.originate(1, &kept);
        // Bytes move, and nobody takes events of the first.
        for _ in 0..4 {
            world.output(0);
            world.output(1);
            for nth in (0..world.pipes.len()).rev() {
                world.carry(nth);
            }
        }
    }
    let events = world.with(0, |core, _| core.events());
    let told: usize = events
        .iter()
        .map(|event| match event {
            Event::Routes(changes) => changes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(told, 0, "they have come and gone: {events:?}");
}
