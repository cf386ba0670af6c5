//! Two namespaces, the speaker in one, daemons in the other, and what the speaker's consumer knows.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use underpass::bgp::attributes::OwnRoute;
use underpass::bgp::event::{Event, NextHopGroupId};
use underpass::bgp::report::{NeighborReport, State};
use underpass::bgp::settings::{PeerName, PeerSettings, Settings};
use underpass::bgp::{Speaker, Start};

use crate::netns::{sh, wait_for};

pub const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const THEM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const OTHERS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
pub const OUR_AS: u32 = 64512;
pub const SHORT: Duration = Duration::from_millis(300);

/// Whether a daemon is installed; says so if not.
pub fn there(program: &str) -> bool {
    let there = ["/usr/sbin", "/usr/bin", "/usr/lib/frr"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists());
    if !there {
        println!("skipped: no {program} here (scripts/setup test installs it)");
    }
    there
}

/// Whether a daemon is installed; then the namespace and the link between are made.
pub fn linked(program: &str) -> bool {
    let there = there(program);
    if there {
        link();
    }
    there
}

/// The namespace and the link between.
pub fn link() {
    sh("ip netns add them
        ip link add us type veth peer name them netns them
        ip addr add 10.77.0.1/24 dev us
        ip addr add fd77::1/64 dev us nodad
        ip link set us up
        ip -n them link set lo up
        ip -n them addr add 10.77.0.2/24 dev them
        ip -n them addr add 10.77.0.3/24 dev them
        ip -n them addr add fd77::2/64 dev them nodad
        ip -n them addr add fd77::3/64 dev them nodad
        ip -n them link set them up");
}

/// A daemon in the other namespace; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(name: &str, line: &str) -> Self {
        let within = ["ip", "netns", "exec", "them"].map(str::to_owned);
        Self::spawn(name, within.into(), line)
    }

    /// In our own namespace.
    pub fn start_here(name: &str, line: &str) -> Self {
        Self::spawn(name, Vec::new(), line)
    }

    fn spawn(name: &str, mut words: Vec<String>, line: &str) -> Self {
        let log = PathBuf::from(format!("/run/{name}.log"));
        let file = fs::File::create(&log).expect("a log");
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        words.extend(line.split_whitespace().map(str::to_owned));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect(name);
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As a crash would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {}\n{text}---", self.log.display());
        }
        self.end();
    }
}

/// Settings with one peer, `them`, with sessions that are quick to end.
pub fn settings(remote_as: u32) -> Settings {
    let mut settings = Settings::new(OUR_AS, US);
    settings.listen = ["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()].into();
    settings.next_hop_v6 = Some("fd77::1".parse().unwrap());
    settings.next_hop_v4 = Some(US);
    settings.local_addresses = [US.into(), "fd77::1".parse().unwrap()].into();
    settings
        .peers
        .insert(them(), PeerSettings::new(THEM.into(), remote_as));
    settings
}

pub fn them() -> PeerName {
    PeerName::from("them")
}

/// A speaker and what its events have said.
pub struct Us {
    pub speaker: Speaker,
    pub routes: BTreeMap<IpNet, NextHopGroupId>,
    pub groups: BTreeMap<NextHopGroupId, Vec<IpAddr>>,
    /// Prefixes that were withdrawn at some time.
    pub withdrawn: Vec<IpNet>,
    pub converged: bool,
}

impl Us {
    pub fn start(settings: Settings) -> Self {
        Self::start_as(settings, Start::Fresh)
    }

    pub fn start_as(settings: Settings, start: Start) -> Self {
        Self {
            speaker: Speaker::start(settings, start).expect("a speaker"),
            routes: BTreeMap::new(),
            groups: BTreeMap::new(),
            withdrawn: Vec::new(),
            converged: false,
        }
    }

    pub fn originate(&self, prefixes: &[&str]) {
        let routes = prefixes
            .iter()
            .map(|prefix| OwnRoute::new(prefix.parse().unwrap()));
        self.speaker.originate(routes.collect()).expect("it runs");
    }

    /// Takes what is there.
    pub fn listen(&mut self) {
        while let Ok(event) = self
            .speaker
            .events()
            .recv_timeout(Duration::from_millis(20))
        {
            self.take(event);
        }
    }

    pub fn take(&mut self, event: Event) {
        match event {
            Event::Group { id, next_hops } => {
                let hops = next_hops.iter().map(|hop| hop.address).collect();
                self.groups.insert(id, hops);
            }
            Event::GroupGone(id) => drop(self.groups.remove(&id).expect("a known group")),
            Event::Routes(changes) => {
                for change in changes {
                    match change.group {
                        Some(group) => drop(self.routes.insert(change.prefix, group)),
                        None => {
                            self.routes.remove(&change.prefix);
                            self.withdrawn.push(change.prefix);
                        }
                    }
                }
            }
            Event::Session { .. } => {}
            Event::Converged => self.converged = true,
        }
    }

    /// `10.1.0.0/24 via 10.77.0.2`, each a line.
    pub fn table(&mut self) -> Vec<String> {
        self.listen();
        let row = |(prefix, group): (&IpNet, &NextHopGroupId)| {
            let hops: Vec<_> = self.groups[group].iter().map(IpAddr::to_string).collect();
            format!("{prefix} via {}", hops.join(","))
        };
        self.routes.iter().map(row).collect()
    }

    #[track_caller]
    pub fn expect(&mut self, rows: &[&str]) {
        let end = Instant::now() + crate::netns::PATIENCE;
        while self.table() != rows {
            assert!(
                Instant::now() < end,
                "{:?} is not {rows:?}\n{:#?}",
                self.table(),
                self.speaker.neighbors()
            );
        }
    }

    pub fn neighbor(&self, name: &PeerName) -> NeighborReport {
        let all = self.speaker.neighbors().expect("it runs");
        all.into_iter()
            .find(|of| of.name == *name)
            .expect("a neighbour")
    }

    pub fn wait_up(&self, name: &PeerName) -> NeighborReport {
        wait_for("a session", || {
            let report = self.neighbor(name);
            (report.state == State::Established).then_some(report)
        })
    }

    pub fn wait_error(&self, name: &PeerName, text: &str) {
        let mut last = None;
        let end = Instant::now() + crate::netns::PATIENCE;
        while !last
            .as_ref()
            .is_some_and(|found: &String| found.contains(text))
        {
            assert!(Instant::now() < end, "{last:?} does not say {text:?}");
            std::thread::sleep(Duration::from_millis(50));
            last = self.neighbor(name).last_error.or(last);
        }
    }
}
