//! A unix socket as a port: whole frames in and out, and what a guest can do wrong.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use underpass::packet::{Batch, Frame, FramePool, HEADROOM};
use underpass::port::socket::{SocketKind, SocketPort};
use underpass::port::{Port, PortError, PortId};

const FRAMES: usize = 256;

struct Ours {
    port: SocketPort,
    pool: FramePool,
    batch: Batch,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Ours {
    fn open(kind: SocketKind) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("guest");
        let frames = (0..FRAMES).map(|_| Frame::leak(2048, HEADROOM)).collect();
        Self {
            port: SocketPort::open(PortId(1), "cali1", kind, &path).expect("the port"),
            pool: FramePool::new(frames, HEADROOM),
            batch: Batch::new(),
            path,
            _directory: directory,
        }
    }

    /// What comes within a while, at least `count` frames.
    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(5);
        let mut got: Vec<Vec<u8>> = Vec::new();
        while got.len() < count && Instant::now() < end {
            self.port.rx(&mut self.pool, &mut self.batch).expect("rx");
            for frame in self.batch.drain(..) {
                got.push(frame.bytes().to_vec());
                self.pool.give(frame);
            }
        }
        got
    }

    fn send(&mut self, bytes: &[u8]) -> (usize, usize) {
        let mut frame = self.pool.take().expect("a frame");
        assert!(frame.fill(bytes, HEADROOM));
        self.batch.push(frame);
        let outcome = self.port.tx(&mut self.pool, &mut self.batch);
        (outcome.sent, outcome.failed)
    }

    /// Every frame is in the pool again.
    fn all_home(&self) {
        assert_eq!(self.pool.available() + self.batch.len(), FRAMES);
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

#[test]
fn a_stream_carries_whole_frames_both_ways_however_it_is_cut() {
    let mut ours = Ours::open(SocketKind::Stream);
    let mut guest = UnixStream::connect(&ours.path).expect("connect");
    let frames: Vec<Vec<u8>> = (1..=200_u8)
        .map(|n| vec![n; 1 + 7 * usize::from(n)])
        .collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    let sender = thread::spawn({
        let mut guest = guest.try_clone().expect("clone");
        move || {
            // No piece ends where a frame does.
            for piece in bytes.chunks(611) {
                guest.write_all(piece).expect("write");
            }
        }
    });
    assert_eq!(ours.receive(200), frames);
    sender.join().expect("the sender");
    assert_eq!(ours.send(&frames[99]), (1, 0));
    let mut back = vec![0; 4 + frames[99].len()];
    guest.read_exact(&mut back).expect("read");
    assert_eq!(back, framed(&frames[99]));
    ours.all_home();
}

#[test]
fn a_guest_that_ends_makes_room_for_the_next() {
    let mut ours = Ours::open(SocketKind::Stream);
    assert_eq!(ours.send(&[1; 60]), (0, 1), "nobody is there");
    for turn in 1..=3 {
        let mut guest = UnixStream::connect(&ours.path).expect("connect");
        guest.write_all(&framed(&[turn; 60])).expect("write");
        // Half a frame, and gone: nothing of it stays for the next.
        guest.write_all(&[0, 0, 0, 60, 9, 9]).expect("write");
        assert_eq!(ours.receive(1), [vec![turn; 60]]);
        drop(guest);
    }
    ours.all_home();
}

#[test]
fn a_length_that_no_frame_has_ends_the_connection_and_no_other() {
    for length in [0_u32, 1519, 65_536, u32::MAX] {
        let mut ours = Ours::open(SocketKind::Stream);
        let mut bad = UnixStream::connect(&ours.path).expect("connect");
        bad.write_all(&framed(&[5; 60])).expect("write");
        bad.write_all(&length.to_be_bytes()).expect("write");
        bad.write_all(&[6; 4000]).expect("write");
        assert_eq!(ours.receive(1), [vec![5; 60]], "{length}");
        ours.receive(0);
        let mut good = UnixStream::connect(&ours.path).expect("connect");
        good.write_all(&framed(&[7; 1518])).expect("write");
        assert_eq!(ours.receive(1), [vec![7; 1518]], "{length}");
        let mut rest = Vec::new();
        bad.set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
        let _ = bad.read_to_end(&mut rest);
        assert_eq!(rest, [0_u8; 0], "it was closed");
        ours.all_home();
    }
}

#[test]
fn a_guest_that_does_not_read_is_told_to_wait() {
    let mut ours = Ours::open(SocketKind::Stream);
    let mut guest = UnixStream::connect(&ours.path).expect("connect");
    guest.write_all(&framed(&[1; 60])).expect("write");
    assert_eq!(ours.receive(1).len(), 1);
    let mut sent = 0_usize;
    while ours.send(&[2; 1500]) == (1, 0) {
        sent += 1;
        assert!(sent < 10_000, "there is no end to what waits");
    }
    assert_eq!(ours.batch.len(), 1, "what was not taken stays");
    ours.batch.drain(..).for_each(|frame| ours.pool.give(frame));
    // All that was taken arrives when the guest reads again.
    let reader = thread::spawn(move || {
        let mut all = vec![0; sent * 1504];
        guest.read_exact(&mut all).expect("read");
        all
    });
    let end = Instant::now() + Duration::from_secs(10);
    while !reader.is_finished() && Instant::now() < end {
        ours.port.reap(&mut ours.pool);
    }
    let all = reader.join().expect("the reader");
    assert!(all.chunks(1504).all(|frame| frame == framed(&[2; 1500])));
}

#[test]
fn datagrams_come_from_whoever_sent_last_and_go_back_there() {
    let mut ours = Ours::open(SocketKind::Datagram);
    assert_eq!(ours.send(&[1; 60]), (0, 1), "nobody is there");
    for turn in 1..=2_u8 {
        let path = ours.path.with_extension(format!("guest{turn}"));
        let guest = UnixDatagram::bind(&path).expect("bind");
        guest.send_to(&[turn; 1518], &ours.path).expect("send");
        guest.send_to(&[turn; 1600], &ours.path).expect("send");
        guest.send_to(&[turn; 60], &ours.path).expect("send");
        assert_eq!(ours.receive(2), [vec![turn; 1518], vec![turn; 60]]);
        assert_eq!(ours.send(&[8; 100]), (1, 0));
        let mut buffer = [0; 2000];
        assert_eq!(guest.recv(&mut buffer).expect("recv"), 100);
    }
    assert_eq!(
        ours.port.statistics().refused.malformed,
        2,
        "too long for a frame"
    );
    ours.all_home();
}

#[test]
fn a_path_that_is_in_use_is_refused_and_one_left_behind_is_not() {
    let mut ours = Ours::open(SocketKind::Stream);
    let open = |path: &Path| SocketPort::open(PortId(2), "cali2", SocketKind::Stream, path);
    let error = open(&ours.path).expect_err("it is in use");
    assert!(matches!(error, PortError::UnixSocket { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("cali2") && text.contains("guest"), "{text}");
    let mut guest = UnixStream::connect(&ours.path).expect("it still listens");
    guest.write_all(&framed(&[1; 60])).expect("write");
    assert_eq!(ours.receive(1).len(), 1);
    // A file is not ours to remove.
    let file = ours.path.with_extension("file");
    std::fs::write(&file, "kept").expect("a file");
    assert!(open(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "kept");
    // What a killed process leaves is a socket that nobody has open.
    let left = ours.path.with_extension("left");
    drop(std::os::unix::net::UnixListener::bind(&left).expect("bind"));
    open(&left).expect("the left one is replaced");
}
