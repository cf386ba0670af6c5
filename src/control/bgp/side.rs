//! The speaker, as it goes with the resources and the underlay.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, never};

use super::handover::Handover;
use super::plan::{Plan, Unopened};
use crate::bgp::attributes::OwnRoute;
use crate::bgp::event::Event;
use crate::bgp::report::{Counters, NeighborReport, State};
use crate::bgp::settings::{PeerName, Settings};
use crate::bgp::{Speaker, Start, Stop};
use crate::kernel::listening;

/// Where the running speaker is, for observers: there is none while there is nothing to speak about.
pub type SpeakerSlot = Arc<Mutex<Option<Arc<Speaker>>>>;

/// How long sessions stay that the resources want no more: other nodes have their routes by them until they
/// have read the same.
const LINGER: Duration = Duration::from_secs(3);

/// After that long one session is enough to be ready, as Calico has it.
const FIRST: Duration = Duration::from_secs(30);

/// The speaker's owner.
pub struct BgpSide {
    slot: SpeakerSlot,
    settings: Option<Settings>,
    own: Vec<OwnRoute>,
    problems: Vec<String>,
    unopened: Vec<(Unopened, SystemTime)>,
    unreachable: BTreeSet<IpAddr>,
    started: Option<Instant>,
    /// Peers with a session.
    up: BTreeSet<PeerName>,
    handover: Handover,
    /// Peers that have waited for this run since an earlier one, and until when they do.
    awaited: Option<(BTreeSet<PeerName>, Instant)>,
    /// Since when there is nobody to speak with.
    idle: Option<Instant>,
}

/// How the node ends, as far as its peers are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It comes back: peers that can keep its routes meanwhile.
    Restart,
    /// It does not.
    ForGood,
}

/// What has become of the speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is another one, or there is none any more: what it told is void.
    Speaker,
    /// Nothing, or only what it is told.
    Nothing,
}

impl BgpSide {
    /// No speaker yet, for the node with this control socket.
    pub fn new(control_socket: &Path) -> Self {
        Self {
            slot: SpeakerSlot::default(),
            settings: None,
            own: Vec::new(),
            problems: Vec::new(),
            unopened: Vec::new(),
            unreachable: BTreeSet::new(),
            started: None,
            up: BTreeSet::new(),
            handover: Handover::beside(control_socket),
            awaited: None,
            idle: None,
        }
    }

    /// Where observers find the speaker.
    pub fn slot(&self) -> SpeakerSlot {
        Arc::clone(&self.slot)
    }

    /// What happens; nothing ever while there is no speaker.
    pub fn events(&self) -> Receiver<Event> {
        self.speaker()
            .map_or_else(never, |speaker| speaker.events().clone())
    }

    /// Makes the speaker what is planned.
    pub fn update(&mut self, plan: Plan) -> Changed {
        for problem in &plan.problems {
            if !self.problems.contains(problem) {
                log::warn!("BGP: {problem}");
            }
        }
        self.problems = plan.problems;
        self.note_unopened(plan.unopened);
        if plan.settings.is_none() && self.speaker().is_some() {
            self.idle.get_or_insert_with(Instant::now);
            return Changed::Nothing;
        }
        self.idle = None;
        let changed = match (self.speaker(), &plan.settings) {
            (_, None) => return Changed::Nothing,
            (None, Some(settings)) => {
                self.start(settings.clone());
                Changed::Speaker
            }
            (Some(speaker), Some(settings)) => {
                if self.settings.as_ref() != Some(settings)
                    && let Err(error) = speaker.configure(settings.clone())
                {
                    log::error!("BGP: {error}");
                }
                Changed::Nothing
            }
        };
        self.settings = plan.settings;
        if let Some(speaker) = self.speaker()
            && (changed == Changed::Speaker || self.own != plan.own)
            && let Err(error) = speaker.originate(plan.own.clone())
        {
            log::error!("BGP: {error}");
        }
        self.own = plan.own;
        changed
    }

    /// Stops a speaker that has had nobody to speak with for a while, and notes for a later run who speaks
    /// with this one; to be called about once a second.
    pub fn tick(&mut self) -> Changed {
        self.keep_handover();
        if self.idle.is_none_or(|since| since.elapsed() < LINGER) {
            return Changed::Nothing;
        }
        self.stop("no peers are left", Farewell::ForGood);
        log::info!("BGP: there is nobody to speak with: stopped");
        Changed::Speaker
    }

    fn start(&mut self, settings: Settings) {
        let patience = settings.graceful_restart;
        let start = match self.handover.take(patience) {
            Some(peers) => {
                self.awaited = Some((peers.clone(), Instant::now() + patience));
                Start::Restarted(peers)
            }
            None => Start::Fresh,
        };
        let restarted = match &start {
            Start::Restarted(peers) => {
                format!(", restarted: {} peer(s) keep its routes", peers.len())
            }
            Start::Fresh => String::new(),
        };
        let (peers, local_as, listen) = (
            settings.peers.len(),
            settings.local_as,
            settings.listen.clone(),
        );
        match Speaker::start(settings, start) {
            Ok(speaker) => {
                let deaf = speaker.deaf();
                let heard = listen.iter().filter(|address| !deaf.contains_key(address));
                let heard: Vec<String> = heard.map(ToString::to_string).collect();
                let heard = match heard.is_empty() {
                    true => "listening nowhere".to_owned(),
                    false => format!("listening at {}", heard.join(", ")),
                };
                log::info!("BGP: AS {local_as}, {peers} peer(s), {heard}{restarted}");
                for (address, error) in deaf {
                    log::error!("BGP: {}", unheard(address, &error));
                }
                self.put(Some(Arc::new(speaker)));
                self.unreachable.clear();
                self.started = Some(Instant::now());
            }
            Err(error) => log::error!("BGP: {error}"),
        }
    }

    /// Next hops that the underlay does not lead to now.
    pub fn set_unreachable(&mut self, next_hops: BTreeSet<IpAddr>) {
        if self.unreachable == next_hops {
            return;
        }
        if let Some(speaker) = self.speaker()
            && let Err(error) = speaker.unreachable(next_hops.clone())
        {
            log::error!("BGP: {error}");
        }
        self.unreachable = next_hops;
    }

    /// Those that were set last.
    pub fn unreachable(&self) -> &BTreeSet<IpAddr> {
        &self.unreachable
    }

    /// What cannot be done as the resources say, or for others' sake.
    pub fn problems(&self) -> Vec<String> {
        let deaf = self.speaker().map(|speaker| speaker.deaf());
        let deaf = deaf.unwrap_or_default().into_iter();
        let unheard = deaf.map(|(address, error)| unheard(address, &error));
        self.problems.iter().cloned().chain(unheard).collect()
    }

    /// All neighbours, those without a session for want of a password too.
    pub fn neighbors(&self) -> Vec<NeighborReport> {
        let neighbors = self.speaker().map(|speaker| speaker.neighbors());
        let mut neighbors = neighbors.and_then(Result::ok).unwrap_or_default();
        neighbors.extend(
            self.unopened
                .iter()
                .map(|(peer, since)| unopened(peer, *since)),
        );
        neighbors.sort_by(|a, b| a.name.cmp(&b.name));
        neighbors
    }

    fn note_unopened(&mut self, now: Vec<Unopened>) {
        let before = std::mem::take(&mut self.unopened);
        let since = |peer: &Unopened| {
            let same = before.iter().find(|(of, _)| of == peer);
            same.map_or_else(SystemTime::now, |(_, since)| *since)
        };
        self.unopened = now
            .into_iter()
            .map(|peer| {
                let since = since(&peer);
                (peer, since)
            })
            .collect();
    }

    /// A session came up, or went down.
    pub fn note_session(&mut self, peer: PeerName, up: bool) {
        if let Some((awaited, _)) = &mut self.awaited {
            awaited.remove(&peer);
        }
        match up {
            true => self.up.insert(peer),
            false => self.up.remove(&peer),
        };
        self.keep_handover();
    }

    fn keep_handover(&mut self) {
        if self.speaker().is_none() {
            return;
        }
        // Those that wait for this run would wait for the next one, too, were it to start now.
        self.awaited = self
            .awaited
            .take()
            .filter(|(_, until)| Instant::now() < *until);
        let awaited = self.awaited.iter().flat_map(|(peers, _)| peers);
        let peers = self.up.iter().chain(awaited).cloned().collect();
        self.handover.keep(&peers);
    }

    /// Whether there are peers without a session for want of a password.
    pub fn lacks_passwords(&self) -> bool {
        !self.unopened.is_empty()
    }

    /// Whether there is a speaker.
    pub fn speaks(&self) -> bool {
        self.speaker().is_some()
    }

    /// Whether sessions are as they should be, in calico-node's words and by its rules (`bird-ready`):
    /// without peers, yes; during the first 30 seconds all must be there, later one is enough.
    pub fn readiness(&self) -> Result<(), String> {
        if !self.runs() {
            return Ok(());
        }
        let early = self
            .started
            .is_some_and(|started| started.elapsed() < FIRST);
        readiness(&self.neighbors(), early)
    }

    /// Ends all sessions, with a reason for the peers' operators, or for a restart without a word.
    pub fn stop(&mut self, reason: &str, farewell: Farewell) {
        let how = match farewell {
            Farewell::Restart => Stop::Restarting,
            Farewell::ForGood => Stop::Shutdown(reason.to_owned()),
        };
        let speaker = self.put(None);
        // An observer that is asking it something ends it with its question.
        if let Some(speaker) = speaker.and_then(Arc::into_inner) {
            speaker.stop(how);
        }
        if farewell == Farewell::ForGood {
            self.handover.clear();
        }
        self.up.clear();
        self.awaited = None;
        self.settings = None;
        self.idle = None;
        self.own.clear();
    }

    /// Whether there is anybody to speak with, or ought to be.
    pub fn runs(&self) -> bool {
        let speaks = self.idle.is_none() && self.speaker().is_some();
        speaks || !self.unopened.is_empty()
    }

    fn speaker(&self) -> Option<Arc<Speaker>> {
        current(&self.slot)
    }

    fn put(&self, speaker: Option<Arc<Speaker>>) -> Option<Arc<Speaker>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, speaker)
    }
}

/// The running speaker.
pub fn current(slot: &SpeakerSlot) -> Option<Arc<Speaker>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// That connections to an address are refused, and by whom it is taken, if that can be known.
fn unheard(address: SocketAddr, error: &str) -> String {
    let holder = listening::holder(address.port());
    let by = holder.map_or_else(String::new, |holder| format!(", which {holder} has"));
    format!(
        "cannot listen at {address}{by}: {error}; peers that connect are refused: stop the other \
         program, or set listenPort in BGPConfiguration"
    )
}

fn unopened(peer: &Unopened, since: SystemTime) -> NeighborReport {
    NeighborReport {
        name: peer.name.clone(),
        address: peer.address,
        kind: peer.kind,
        remote_as: peer.remote_as,
        state: State::Idle,
        since,
        last_error: Some(peer.reason.clone()),
        session: None,
        restarting: false,
        counters: Counters::default(),
        received_prefixes: 0,
        accepted_prefixes: 0,
        advertised_prefixes: 0,
    }
}

fn readiness(neighbors: &[NeighborReport], early: bool) -> Result<(), String> {
    let up = |neighbor: &&NeighborReport| neighbor.state == State::Established;
    let missing: Vec<String> = neighbors
        .iter()
        .filter(|neighbor| !up(neighbor))
        .map(|neighbor| neighbor.address.to_string())
        .collect();
    let restarting = neighbors.iter().any(|neighbor| neighbor.restarting);
    let enough = match early {
        true => missing.is_empty() && !restarting,
        false => neighbors.is_empty() || missing.len() < neighbors.len(),
    };
    match enough {
        true => Ok(()),
        false if missing.is_empty() => Err("graceful restart in progress".to_owned()),
        false => Err(format!("BGP not established with {}", missing.join(","))),
    }
}

/// A key's value among secrets that are mounted as Kubernetes does, a file `NAME/KEY` each.
pub fn secret(directory: &Path, name: &str, key: &str) -> Result<String, String> {
    let file: PathBuf = directory.join(name).join(key);
    let inside = [name, key]
        .iter()
        .all(|part| !part.is_empty() && !part.contains('/') && !part.starts_with(".."));
    if !inside {
        return Err(format!(
            "'{name}' and '{key}' are not a secret's name and key"
        ));
    }
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}; write the password there", file.display()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::settings::PeerKind;

    fn neighbor(last: u8, state: State) -> NeighborReport {
        NeighborReport {
            name: format!("Mesh_10_0_0_{last}").into(),
            address: std::net::Ipv4Addr::new(10, 0, 0, last).into(),
            kind: PeerKind::NodeToNodeMesh,
            remote_as: 64512,
            state,
            since: SystemTime::UNIX_EPOCH,
            last_error: None,
            session: None,
            restarting: false,
            counters: Counters::default(),
            received_prefixes: 0,
            accepted_prefixes: 0,
            advertised_prefixes: 0,
        }
    }

    #[test]
    fn readiness_is_bird_readys() {
        let (up, down) = (State::Established, State::Active);
        for (states, early, ready) in [
            (&[][..], true, true),
            (&[], false, true),
            (&[up, up], true, true),
            (&[up, down], true, false),
            (&[up, down], false, true),
            (&[down, down], false, false),
        ] {
            let numbered = states.iter().zip(1..);
            let neighbors: Vec<_> = numbered
                .map(|(state, last)| neighbor(last, *state))
                .collect();
            assert_eq!(
                readiness(&neighbors, early).is_ok(),
                ready,
                "{states:?} {early}"
            );
        }
        let both = [neighbor(1, down), neighbor(2, down)];
        let said = readiness(&both, false).unwrap_err();
        assert_eq!(said, "BGP not established with 10.0.0.1,10.0.0.2");
        let restarting = NeighborReport {
            restarting: true,
            ..neighbor(1, up)
        };
        assert!(readiness(&[restarting], true).is_err());
    }

    #[test]
    fn secrets_are_files_within_their_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bgp")).unwrap();
        std::fs::write(directory.path().join("bgp/password"), "s3cret\n").unwrap();
        let ask = |name, key| secret(directory.path(), name, key);
        assert_eq!(ask("bgp", "password").unwrap(), "s3cret");
        for (name, key) in [
            ("bgp", "other"),
            ("", "password"),
            ("..", "x"),
            ("bgp", "a/b"),
        ] {
            assert!(ask(name, key).is_err(), "{name} {key}");
        }
    }
}
