//! The finite state machine on a virtual clock.

use super::*;
use crate::bgp::message::{self, HEADER, Kind, LONGEST};

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THEM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn config(local_as: u32, remote_as: u32, router_id: Ipv4Addr) -> Config {
    let settings = Settings::new(local_as, router_id);
    let peer = PeerSettings::new(IpAddr::V4(THEM), remote_as);
    Config::new(&settings, &peer)
}

fn seconds(count: u64) -> Time {
    Time::from_secs(count)
}

/// A session and what a peer would see of it.
struct Bench {
    session: Session,
    now: Time,
    next_id: u64,
    actions: Vec<Action>,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            session: Session::new(config, Time::ZERO, 7),
            now: Time::ZERO,
            next_id: 1,
            actions: Vec::new(),
        }
    }

    /// A session whose outgoing connection is there: OPEN is sent.
    fn open_sent() -> (Self, ConnectionId) {
        let mut bench = Self::new(config(64512, 64512, US));
        bench.pass(seconds(1));
        let [Action::Connect(id)] = bench.take()[..] else {
            panic!("no connection");
        };
        assert_eq!(bench.session.state(), State::Connect);
        bench.session.connected(bench.now, id, IpAddr::V4(US));
        assert_eq!(bench.sent(id), [Kind::Open]);
        (bench, id)
    }

    fn established() -> (Self, ConnectionId) {
        Self::established_with(|_| {})
    }

    /// With a peer whose OPEN says something else of graceful restart than ours.
    fn established_with(change: impl FnOnce(&mut GracefulRestart)) -> (Self, ConnectionId) {
        let (mut bench, id) = Self::open_sent();
        let mut open = Open {
            hold_time: 90,
            ..config(64512, 64512, THEM).open(false, false, false)
        };
        change(open.capabilities.graceful_restart.as_mut().expect("ours"));
        let mut bytes = Vec::new();
        open.write(&mut bytes);
        bench.hear(id, &bytes);
        assert_eq!(bench.session.state(), State::OpenConfirm);
        assert_eq!(bench.sent(id), [Kind::Keepalive]);
        assert_eq!(bench.hear(id, &keepalive()), [Step::Up]);
        assert_eq!(bench.session.state(), State::Established);
        (bench, id)
    }

    fn pass(&mut self, time: Time) {
        let end = self.now + time;
        while let Some(at) = self.session.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.session
                .tick(self.now, &mut self.next_id, &mut self.actions);
        }
        self.now = end;
    }

    fn hear(&mut self, id: ConnectionId, bytes: &[u8]) -> Vec<Step> {
        self.session.received(id, bytes);
        let (mut steps, mut body) = (Vec::new(), Vec::new());
        while let Some(step) = self
            .session
            .step(self.now, id, &mut body, &mut self.actions)
        {
            steps.push(step);
        }
        steps
    }

    fn sent(&mut self, id: ConnectionId) -> Vec<Kind> {
        let mut bytes = Vec::new();
        self.session.take_unsent(id, &mut bytes);
        kinds(&bytes)
    }

    fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The NOTIFICATION that a connection was closed with.
    fn last_word(&mut self, of: ConnectionId) -> Option<(u8, u8, Vec<u8>)> {
        let actions = self.take();
        let last = actions.iter().find_map(|action| match action {
            Action::Close(id, last) if *id == of => Some(last.clone()),
            _ => None,
        });
        let mut last = last.unwrap_or_else(|| panic!("{of:?} is not closed: {actions:?}"));
        while !last.is_empty() {
            let length = usize::from(u16::from_be_bytes([last[16], last[17]]));
            if last[18] == 3 {
                return Some((last[19], last[20], last[21..length].to_vec()));
            }
            last.drain(..length);
        }
        None
    }
}

fn kinds(mut bytes: &[u8]) -> Vec<Kind> {
    let mut kinds = Vec::new();
    while let Some((kind, length)) = message::header(bytes, LONGEST).unwrap() {
        kinds.push(kind);
        bytes = &bytes[length..];
    }
    kinds
}

fn open(number: u32, hold_time: u16, router_id: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let open = Open {
        hold_time,
        ..config(number, 64512, router_id).open(false, false, false)
    };
    open.write(&mut bytes);
    bytes
}

fn keepalive() -> Vec<u8> {
    raw(Kind::Keepalive, &[])
}

fn raw(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    message::write(&mut bytes, kind, body);
    bytes
}

#[test]
fn a_session_comes_up_and_is_kept_up() {
    let (mut bench, id) = Bench::established();
    assert_eq!(bench.take(), []);
    let mut sent = 0;
    for _ in 0..30 {
        bench.pass(seconds(30));
        sent += bench.sent(id).len();
        bench.hear(id, &keepalive());
    }
    // Every 22.5–30 s.
    assert!((30..=40).contains(&sent), "{sent}");
    assert_eq!(bench.session.state(), State::Established);
}

#[test]
fn a_silent_peer_is_left_when_the_hold_time_is_over() {
    let (mut bench, id) = Bench::established();
    bench.pass(seconds(89));
    assert_eq!(bench.session.state(), State::Established);
    bench.pass(seconds(1));
    assert_eq!(bench.session.state(), State::Idle);
    let text = bench.actions.iter().find_map(|action| match action {
        Action::Trouble { text, ours } => Some((text.clone(), *ours)),
        _ => None,
    });
    assert_eq!(text, Some(("Hold timer expired".to_owned(), true)));
    // Both keep routes after a NOTIFICATION, too (RFC 8538).
    assert!(bench.actions.contains(&Action::Down { kept: true }));
    assert_eq!(bench.last_word(id), Some((4, 0, vec![])));
    bench.pass(seconds(1));
    assert!(
        matches!(bench.take()[..], [Action::Connect(_)]),
        "it is tried again"
    );
}

#[test]
fn hold_times_are_agreed_on() {
    for (theirs, agreed, keepalive) in [
        (90, 90, 30),
        (30, 30, 10),
        (3, 3, 1),
        (0, 0, 0),
        (200, 90, 30),
    ] {
        let (mut bench, id) = Bench::open_sent();
        bench.hear(id, &open(64512, theirs, THEM));
        bench.hear(id, &super::tests::keepalive());
        let (_, found) = bench.session.established().unwrap();
        assert_eq!(
            (found.hold_time, found.keepalive),
            (agreed, seconds(keepalive))
        );
        if theirs == 0 {
            bench.pass(seconds(100_000));
            assert_eq!(bench.session.state(), State::Established, "no hold time");
        }
    }
}

/// RFC 6608.
#[test]
fn unexpected_messages_by_state() {
    let update = raw(Kind::Update, &[0; 4]);
    let refresh = raw(Kind::Refresh, &[0, 1, 0, 1]);
    for (message, kind) in [(keepalive(), 4), (update.clone(), 2), (refresh.clone(), 5)] {
        let (mut bench, id) = Bench::open_sent();
        bench.hear(id, &message);
        assert_eq!(bench.last_word(id), Some((5, 1, vec![kind])));
    }
    for (message, kind) in [(open(64512, 90, THEM), 1), (update, 2), (refresh, 5)] {
        let (mut bench, id) = Bench::open_sent();
        bench.hear(id, &open(64512, 90, THEM));
        bench.hear(id, &message);
        assert_eq!(bench.last_word(id), Some((5, 2, vec![kind])));
    }
    let (mut bench, id) = Bench::established();
    bench.hear(id, &open(64512, 90, THEM));
    assert_eq!(bench.last_word(id), Some((5, 3, vec![1])));
}

#[test]
fn opens_that_cannot_be() {
    for (open, code, subcode, data) in [
        (open(65001, 90, THEM), 2, 2, vec![0xfd, 0xe9]),
        (open(64512, 2, THEM), 2, 6, vec![0, 2]),
        (open(64512, 90, Ipv4Addr::UNSPECIFIED), 2, 3, vec![]),
        (open(64512, 90, US), 2, 3, US.octets().to_vec()),
    ] {
        let (mut bench, id) = Bench::open_sent();
        bench.hear(id, &open);
        assert_eq!(bench.last_word(id), Some((code, subcode, data)));
        assert_eq!(bench.session.counters.errors, 1);
    }
    // Our identifier is another AS's to have.
    let mut bench = Bench::new(config(64513, 64512, US));
    bench.pass(seconds(1));
    let [Action::Connect(id)] = bench.take()[..] else {
        panic!()
    };
    bench.session.connected(bench.now, id, IpAddr::V4(US));
    bench.hear(id, &open(64512, 90, US));
    assert_eq!(bench.session.state(), State::OpenConfirm);
}

#[test]
fn no_common_family_is_a_missing_capability() {
    let (mut bench, id) = Bench::open_sent();
    let mut peer = PeerSettings::new(IpAddr::V4(US), 64512);
    (peer.ipv4, peer.ipv6) = (false, true);
    bench.session.config.capabilities.families = Some(vec![Family::V4]);
    let mut bytes = Vec::new();
    Config::new(&Settings::new(64512, THEM), &peer)
        .open(false, false, false)
        .write(&mut bytes);
    bench.hear(id, &bytes);
    assert_eq!(bench.last_word(id), Some((2, 7, vec![1, 4, 0, 1, 0, 1])));
}

#[test]
fn a_peer_without_capabilities_is_spoken_to_without() {
    let (mut bench, id) = Bench::open_sent();
    bench.hear(id, &raw(Kind::Notification, &[2, 4]));
    assert_eq!(bench.last_word(id), None);
    bench.pass(seconds(1));
    let [Action::Connect(id)] = bench.take()[..] else {
        panic!()
    };
    bench.session.connected(bench.now, id, IpAddr::V4(US));
    let mut bytes = Vec::new();
    bench.session.take_unsent(id, &mut bytes);
    assert_eq!(
        Open::read(&bytes[HEADER..]).unwrap().capabilities,
        Capabilities::default()
    );
}

/// RFC 4271 §6.8.
#[test]
fn of_two_connections_the_higher_identifiers_own_lives() {
    for (router_id, survivor_is_ours) in [(Ipv4Addr::new(10, 0, 0, 3), true), (US, false)] {
        for incoming_first in [false, true] {
            let mut bench = Bench::new(config(64512, 64512, router_id));
            bench.pass(seconds(1));
            let [Action::Connect(ours)] = bench.take()[..] else {
                panic!()
            };
            let theirs = ConnectionId(1000);
            bench.session.connected(bench.now, ours, IpAddr::V4(US));
            assert!(
                bench
                    .session
                    .accept(bench.now, theirs, IpAddr::V4(US), &mut bench.actions)
            );
            let order = if incoming_first {
                [theirs, ours]
            } else {
                [ours, theirs]
            };
            for id in order {
                bench.hear(id, &open(64512, 90, THEM));
            }
            let (survivor, loser) = match survivor_is_ours {
                true => (ours, theirs),
                false => (theirs, ours),
            };
            assert_eq!(bench.last_word(loser), Some((6, 7, vec![])));
            assert_eq!(bench.hear(survivor, &keepalive()), [Step::Up]);
            assert_eq!(bench.session.ids(), [survivor]);
        }
    }
}

#[test]
fn a_second_connection_beside_an_established_one() {
    // Without graceful restart the second is refused.
    let (mut bench, id) = Bench::established();
    if let Some(connection) = bench.session.connections.first_mut() {
        connection.agreed.as_mut().unwrap().graceful_restart = None;
    }
    let second = ConnectionId(1000);
    assert!(
        bench
            .session
            .accept(bench.now, second, IpAddr::V4(US), &mut bench.actions)
    );
    bench.hear(second, &open(64512, 90, THEM));
    assert_eq!(bench.last_word(second), Some((6, 7, vec![])));
    assert_eq!(bench.session.established().map(|(id, _)| id), Some(id));
    // With it the peer has restarted (RFC 4724 §5).
    let (mut bench, id) = Bench::established();
    assert!(
        bench
            .session
            .accept(bench.now, second, IpAddr::V4(US), &mut bench.actions)
    );
    bench.hear(second, &open(64512, 90, THEM));
    assert!(bench.actions.contains(&Action::Down { kept: true }));
    assert_eq!(bench.last_word(id), None);
    assert_eq!(bench.hear(second, &keepalive()), [Step::Up]);
}

#[test]
fn a_lost_connection_may_mean_a_restart_and_a_hard_reset_does_not() {
    let (mut bench, id) = Bench::established();
    bench
        .session
        .lost(bench.now, id, "Connection closed", &mut bench.actions);
    assert!(bench.actions.contains(&Action::Down { kept: true }));
    let (mut bench, id) = Bench::established();
    bench.hear(id, &raw(Kind::Notification, &[6, 4]));
    assert!(bench.actions.contains(&Action::Down { kept: true }));
    let shown = bench.actions.iter().any(|action| {
        matches!(action, Action::Trouble { text, .. } if text == "Received: Administrative reset")
    });
    assert!(shown);
    let (mut bench, id) = Bench::established();
    bench.hear(id, &raw(Kind::Notification, &[6, 9, 6, 4]));
    assert!(bench.actions.contains(&Action::Down { kept: false }));
    // One that has not said that it keeps routes after a NOTIFICATION.
    let (mut bench, id) = Bench::established_with(|restart| restart.after_notification = false);
    bench.hear(id, &raw(Kind::Notification, &[6, 4]));
    assert!(bench.actions.contains(&Action::Down { kept: false }));
    // What we end for good we end so that it is not taken for a restart.
    let (mut bench, id) = Bench::established();
    let said = Notification::cease(2, "");
    bench.session.stop(Some(&said), &mut bench.actions);
    assert_eq!(bench.last_word(id), Some((6, 9, vec![6, 2])));
}

#[test]
fn header_errors_end_the_connection() {
    let (mut bench, id) = Bench::established();
    bench.hear(id, &[0; 19]);
    assert_eq!(bench.last_word(id), Some((1, 1, vec![])));
    let (mut bench, id) = Bench::established();
    let mut long = keepalive();
    long[17] = 20;
    bench.hear(id, &long);
    assert_eq!(bench.last_word(id), Some((1, 2, vec![0, 20])));
    let (mut bench, id) = Bench::open_sent();
    let mut unknown = keepalive();
    unknown[18] = 9;
    bench.hear(id, &unknown);
    assert_eq!(bench.last_word(id), Some((1, 3, vec![9])));
}

#[test]
fn messages_come_in_pieces() {
    let (mut bench, id) = Bench::open_sent();
    let bytes = [
        open(64512, 90, THEM),
        keepalive(),
        raw(Kind::Update, &[0; 4]),
    ]
    .concat();
    let mut steps = Vec::new();
    for byte in &bytes {
        steps.extend(bench.hear(id, std::slice::from_ref(byte)));
    }
    assert_eq!(steps, [Step::Nothing, Step::Up, Step::Update]);
}

#[test]
fn a_passive_session_waits() {
    let mut peer = PeerSettings::new(IpAddr::V4(THEM), 64512);
    peer.passive = true;
    let mut bench = Bench::new(Config::new(&Settings::new(64512, US), &peer));
    bench.pass(seconds(1000));
    assert_eq!(bench.take(), []);
    assert_eq!(bench.session.state(), State::Active);
}
