//! AF_XDP ports: bytes, queues, shared memory, shutdown, and what is refused.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use underpass::packet::{BATCH, Batch, Frame, FramePool, HEADROOM};
use underpass::port::xdp::{
    Role, Steering, UmemOptions, WorkerUmem, XdpMode, XdpModeWanted, XdpPort,
};
use underpass::port::{Link, Port, PortError};
use underpass::wire::{MacAddr, Mtu};

use crate::lab::{
    PATIENCE, Wire, frame, is_test_frame, memory, memory_of, open, receive, run, sh, udp, veth,
};

const LENGTHS: [usize; 8] = [18, 60, 61, 64, 255, 512, 1499, 1514];

fn steer(interface: &str, port: &XdpPort, wanted: XdpModeWanted) -> Steering {
    let mut steering = Steering::attach(interface, Role::Workload, wanted).expect("steering");
    for (queue, socket) in port.sockets() {
        steering.register(queue, socket).expect("register");
    }
    steering
}

fn bytes_pass_unchanged(wanted: XdpModeWanted, mode: XdpMode) {
    run(|| {
        veth(0, 1);
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        let steering = steer("near0", &port, wanted);
        assert_eq!((steering.mode(), steering.fallback()), (mode, None));
        port.set_mode(mode, &umem);
        assert_eq!(
            port.capabilities().link,
            Link::Ethernet(MacAddr([2, 0, 0, 0, 0, 0x10]))
        );
        assert_eq!(port.capabilities().mtu, Mtu(1500));
        assert_eq!(port.capabilities().io, format!("af_xdp {mode} copy"));

        let mut far = Wire::far("far0");
        let sent: Vec<_> = LENGTHS
            .iter()
            .enumerate()
            .map(|(n, &length)| frame(length, n as u32))
            .collect();
        sent.iter().for_each(|frame| far.send(frame));
        assert_eq!(receive(&mut port, &mut pool, sent.len()), sent, "received");

        for (n, expected) in sent.iter().enumerate() {
            let mut batch = vec![displaced(&mut pool, expected, n)];
            let outcome = port.tx(&mut pool, &mut batch);
            assert_eq!((outcome.sent, outcome.sent_bytes), (1, expected.len()));
            assert_eq!(
                far.receive(PATIENCE, is_test_frame).as_ref(),
                Some(expected),
                "sent"
            );
        }
        whole(&umem, &mut pool, &mut [&mut port]);
    });
}

/// `bytes` in a frame, not where the port wants them: pushed, stripped, or from another memory.
fn displaced(pool: &mut FramePool, bytes: &[u8], way: usize) -> Frame {
    let start = match way % 4 {
        0 => HEADROOM,
        1 => HEADROOM - 50,
        2 => HEADROOM + 14,
        _ => {
            let mut frame = Frame::leak(4096, 0);
            assert!(frame.fill(bytes, 3));
            return frame;
        }
    };
    let mut frame = pool.take().unwrap();
    assert!(frame.fill(bytes, start));
    frame
}

/// Every frame of the memory must come back to the pool or be the kernel's to receive into.
fn whole(umem: &WorkerUmem, pool: &mut FramePool, ports: &mut [&mut XdpPort]) {
    let end = Instant::now() + PATIENCE;
    let queues: usize = ports.iter().map(|port| port.sockets().count()).sum();
    loop {
        ports.iter_mut().for_each(|port| port.reap(pool));
        let held: usize = ports.iter().map(|port| port.held()).sum();
        let foreign = count_foreign(pool);
        if held <= queues * 512 && pool.available() + held == umem.frames() + foreign {
            return;
        }
        assert!(
            Instant::now() < end,
            "{} in the pool ({foreign} of them foreign), {held} held, of {}",
            pool.available(),
            umem.frames()
        );
    }
}

fn count_foreign(pool: &mut FramePool) -> usize {
    let frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    let foreign = frames
        .iter()
        .filter(|frame| frame.capacity() == 4096)
        .count();
    frames.into_iter().for_each(|frame| pool.give(frame));
    foreign
}

#[test]
fn bytes_pass_unchanged_in_native_mode() {
    bytes_pass_unchanged(XdpModeWanted::Auto, XdpMode::Native);
}

#[test]
fn bytes_pass_unchanged_in_generic_mode() {
    bytes_pass_unchanged(XdpModeWanted::Generic, XdpMode::Generic);
}

/// Scapy's packets, sent by scapy, are received as scapy says they are.
#[test]
fn what_scapy_sends_is_received() {
    run(|| {
        veth(0, 1);
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        let _steering = steer("near0", &port, XdpModeWanted::Auto);
        let script = "from scapy.all import *; \
            p = [Ether(dst='02:00:00:00:00:10', src='02:00:00:00:00:20')/IP(src='10.0.0.2', dst='10.0.0.1')\
            /UDP(sport=1000 + i, dport=7)/(b'x' * i) for i in range(0, 1400, 100)]; \
            sendp(p, iface='far0', verbose=0); print('\\n'.join(bytes(x).hex() for x in p))";
        let printed = sh(&format!(
            "ip netns exec far /usr/bin/python3 -c \"{script}\""
        ));
        let sent: Vec<_> = printed.split_whitespace().collect();
        let received: Vec<_> = receive(&mut port, &mut pool, sent.len())
            .iter()
            .map(|frame| hex(frame))
            .collect();
        assert_eq!(received, sent);
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_cannot_be_sent_comes_back() {
    run(|| {
        veth(0, 1);
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        let mut far = Wire::far("far0");
        let mut batch: Batch = [frame(1519, 1), vec![0; 13], frame(1514, 2)]
            .iter()
            .map(|bytes| displaced(&mut pool, bytes, 0))
            .collect();
        let outcome = port.tx(&mut pool, &mut batch);
        assert_eq!((outcome.sent, outcome.oversized, outcome.failed), (1, 1, 1));
        assert_eq!(far.receive(PATIENCE, is_test_frame), Some(frame(1514, 2)));
        whole(&umem, &mut pool, &mut [&mut port]);
        assert_eq!(port.statistics().tx_invalid_descriptors, 0);
    });
}

/// Two workers, each with its memory and one queue of the same device.
#[test]
fn each_queue_has_its_socket() {
    run(|| {
        veth(0, 2);
        let (umem0, mut pool0) = memory(1);
        let (umem1, mut pool1) = memory(1);
        let mut port0 = open("near0", 0..1, &umem0, &mut pool0).unwrap();
        let mut port1 = open("near0", 1..2, &umem1, &mut pool1).unwrap();
        let mut steering = steer("near0", &port0, XdpModeWanted::Native);
        steering.register(1, port1.socket_fd(1).unwrap()).unwrap();
        assert_eq!((port0.socket_fd(1), port1.socket_fd(0)), (None, None));

        let mut far = Wire::far("far0");
        (0..200).for_each(|n| far.send(&udp(1000 + n, u32::from(n))));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let end = Instant::now() + PATIENCE;
        while first.len() + second.len() < 200 && Instant::now() < end {
            first.extend(receive_now(&mut port0, &mut pool0));
            second.extend(receive_now(&mut port1, &mut pool1));
        }
        let all: BTreeSet<_> = first.iter().chain(&second).cloned().collect();
        let sent: BTreeSet<_> = (0..200).map(|n| udp(1000 + n, u32::from(n))).collect();
        assert_eq!(all, sent);
        assert!(
            first.len() > 20 && second.len() > 20,
            "{} and {}",
            first.len(),
            second.len()
        );
    });
}

/// One worker with both queues.
#[test]
fn a_port_serves_several_queues() {
    run(|| {
        veth(0, 2);
        let (umem, mut pool) = memory(2);
        let mut port = open("near0", 0..2, &umem, &mut pool).unwrap();
        assert_eq!(port.descriptors().len(), 2);
        let _steering = steer("near0", &port, XdpModeWanted::Generic);
        let mut far = Wire::far("far0");
        (0..200).for_each(|n| far.send(&udp(1000 + n, u32::from(n))));
        let received: BTreeSet<_> = receive(&mut port, &mut pool, 200).into_iter().collect();
        assert_eq!(received.len(), 200);
        whole(&umem, &mut pool, &mut [&mut port]);
    });
}

fn receive_now(port: &mut XdpPort, pool: &mut FramePool) -> Vec<Vec<u8>> {
    let mut batch = Batch::new();
    port.rx(pool, &mut batch).unwrap();
    let frames = batch.iter().map(|frame| frame.bytes().to_vec()).collect();
    batch.drain(..).for_each(|frame| pool.give(frame));
    frames
}

/// 150,000 frames in by one device and out by the other, each in the same memory all the way.
#[test]
fn no_frame_is_lost_between_devices_that_share_memory() {
    run(|| {
        const FRAMES: u32 = 150_000;
        veth(0, 1);
        veth(1, 1);
        let (umem, mut pool) = memory(2);
        let mut a = open("near0", 0..1, &umem, &mut pool).unwrap();
        let mut b = open("near1", 0..1, &umem, &mut pool).unwrap();
        let _steering = [
            steer("near0", &a, XdpModeWanted::Auto),
            steer("near1", &b, XdpModeWanted::Auto),
        ];
        let (mut source, mut sink) = (Wire::far("far0"), Wire::far("far1"));

        let mut last = None;
        let (mut received, mut sent, mut batch) = (0, 0, Batch::with_capacity(BATCH));
        for start in (0..FRAMES).step_by(256) {
            let chunk = start..FRAMES.min(start + 256);
            chunk
                .clone()
                .for_each(|n| source.send(&frame(60 + (n % 1000) as usize, n)));
            let end = Instant::now() + PATIENCE;
            while sent < chunk.end as usize && Instant::now() < end {
                received += a.rx(&mut pool, &mut batch).unwrap();
                batch.iter_mut().for_each(|frame| frame.strip(14));
                batch
                    .iter_mut()
                    .for_each(|frame| assert!(frame.push(&[2; 12]) && frame.push(&[9; 36])));
                sent += b.tx(&mut pool, &mut batch).sent;
                assert!(pool.available() + a.held() + b.held() + batch.len() == umem.frames());
            }
            let seen = |bytes: &[u8]| bytes[..48].iter().all(|&byte| byte == 2 || byte == 9);
            while last != Some(chunk.end - 1) {
                let bytes = sink
                    .receive(PATIENCE, seen)
                    .expect("a frame on the far side");
                let number = u32::from_be_bytes(bytes[48..52].try_into().unwrap());
                assert_eq!(number, last.map_or(0, |last| last + 1), "in order");
                assert_eq!(
                    bytes[48..],
                    frame(60 + (number % 1000) as usize, number)[14..]
                );
                last = Some(number);
            }
        }
        assert_eq!((received, sent), (FRAMES as usize, FRAMES as usize));
        whole(&umem, &mut pool, &mut [&mut a, &mut b]);
        let statistics = a.statistics();
        assert_eq!((statistics.rx_dropped, statistics.rx_ring_full), (0, 0));
    });
}

/// A flood that nobody reads fills the rings; what was dropped is counted, and nothing sticks.
#[test]
fn a_flood_is_counted_and_survived() {
    run(|| {
        veth(0, 1);
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        let _steering = steer("near0", &port, XdpModeWanted::Generic);
        let mut far = Wire::far("far0");
        (0..2000).for_each(|n| far.send(&frame(60, n)));
        let end = Instant::now() + PATIENCE;
        let lost = |port: &XdpPort| {
            let statistics = port.statistics();
            statistics.rx_dropped + statistics.rx_ring_full + statistics.rx_fill_ring_empty
        };
        while lost(&port) < 2000 - 512 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(lost(&port) >= 2000 - 512, "{:?}", port.statistics());
        assert_eq!(receive(&mut port, &mut pool, 512).len(), 512);
        far.send(&frame(60, 77));
        assert_eq!(receive(&mut port, &mut pool, 1), [frame(60, 77)]);
        whole(&umem, &mut pool, &mut [&mut port]);
    });
}

/// Frames that find the peer's way blocked stay with the port or the batch, never lost.
#[test]
fn a_transmit_ring_that_is_full_leaves_the_rest_in_the_batch() {
    run(|| {
        veth(0, 1);
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        sh("ip link set near0 down");
        let mut batch: Batch = (0..600)
            .map(|n| displaced(&mut pool, &frame(60, n), 0))
            .collect();
        let outcome = port.tx(&mut pool, &mut batch);
        assert_eq!((outcome.sent, batch.len()), (512, 88));
        assert_eq!(batch[0].bytes(), frame(60, 512), "in order");
        let mut far = Wire::far("far0");
        sh("ip link set near0 up");
        let end = Instant::now() + PATIENCE;
        while !batch.is_empty() && Instant::now() < end {
            port.tx(&mut pool, &mut batch);
        }
        for n in 0..600 {
            assert_eq!(far.receive(PATIENCE, is_test_frame), Some(frame(60, n)));
        }
        whole(&umem, &mut pool, &mut [&mut port]);
    });
}

#[test]
fn a_closed_port_gives_its_frames_back_and_opens_again() {
    run(|| {
        veth(0, 1);
        veth(1, 1);
        let (umem, mut pool) = memory(2);
        let first = open("near0", 0..1, &umem, &mut pool).unwrap();
        for _ in 0..3 {
            let before = pool.available();
            let port = open("near1", 0..1, &umem, &mut pool).unwrap();
            assert!(port.held() > 0);
            port.close(&umem, &mut pool);
            assert_eq!(pool.available(), before);
        }
        first.close(&umem, &mut pool);
        let mut first = open("near0", 0..1, &umem, &mut pool).unwrap();
        let _steering = steer("near0", &first, XdpModeWanted::Auto);
        Wire::far("far0").send(&frame(100, 5));
        assert_eq!(receive(&mut first, &mut pool, 1), [frame(100, 5)]);
        whole(&umem, &mut pool, &mut [&mut first]);
    });
}

#[test]
fn a_device_that_goes_is_reported_and_its_frames_come_back() {
    run(|| {
        veth(0, 1);
        veth(1, 1);
        let (umem, mut pool) = memory(2);
        let _first = open("near0", 0..1, &umem, &mut pool).unwrap();
        let mut port = open("near1", 0..1, &umem, &mut pool).unwrap();
        let steering = steer("near1", &port, XdpModeWanted::Auto);
        sh("ip link del near1");
        let mut batch = vec![displaced(&mut pool, &frame(60, 1), 0)];
        let end = Instant::now() + PATIENCE;
        let gone = loop {
            match port.rx(&mut pool, &mut Batch::new()) {
                Ok(_) => assert!(Instant::now() < end, "no error after the device went"),
                Err(error) => break error,
            }
        };
        assert_eq!(gone.raw_os_error(), Some(libc::ENETDOWN));
        assert_eq!(port.tx(&mut pool, &mut batch).failed, 1);
        drop(steering);
        port.close(&umem, &mut pool);
        veth(1, 1);
        open("near1", 0..1, &umem, &mut pool).unwrap();
    });
}

#[test]
fn when_the_first_device_goes_the_error_says_so() {
    run(|| {
        veth(0, 1);
        veth(1, 1);
        let (umem, mut pool) = memory(2);
        let _first = open("near0", 0..1, &umem, &mut pool).unwrap();
        sh("ip link del near0");
        let error = open("near1", 0..1, &umem, &mut pool).err().unwrap();
        assert!(
            matches!(&error, PortError::AnchorGone { anchor } if anchor == "near0"),
            "{error}"
        );
    });
}

fn refusal(interface: &str, queues: std::ops::Range<u32>, frames: u32) -> PortError {
    let (umem, mut pool) = memory_of(&UmemOptions {
        frames,
        ..UmemOptions::for_queues(1)
    });
    let available = pool.available();
    let error = open(interface, queues, &umem, &mut pool)
        .err()
        .expect("an error");
    assert_eq!(pool.available(), available, "frames are back");
    error
}

#[test]
fn what_cannot_be_opened_says_what_would_be_right() {
    run(|| {
        veth(0, 2);
        assert!(
            refusal("near9", 0..1, 4096)
                .to_string()
                .contains("there are: lo, near0")
        );
        let error = refusal("near0", 1..3, 4096);
        assert!(
            matches!(error, PortError::TooFewQueues { present: 2, .. }),
            "{error}"
        );
        assert!(matches!(
            refusal("near0", 1..1, 4096),
            PortError::NoQueues { .. }
        ));
        assert!(matches!(
            refusal("lo", 0..1, 4096),
            PortError::NotEthernet { .. }
        ));
        assert!(matches!(
            refusal("near0", 0..1, 100),
            PortError::PoolTooSmall { available: 100, .. }
        ));
        sh("ip link set near0 mtu 1900");
        let error = refusal("near0", 0..1, 4096);
        assert!(
            matches!(
                error,
                PortError::MtuTooLarge {
                    mtu: 1900,
                    largest: 1724,
                    ..
                }
            ),
            "{error}"
        );
        sh("ip link set near0 mtu 1500; ip link set lo mtu 1500");
        assert!(matches!(
            refusal("lo", 0..1, 4096),
            PortError::NotEthernet { .. }
        ));

        let (umem, mut pool) = memory(1);
        let _port = open("near0", 0..1, &umem, &mut pool).unwrap();
        assert!(matches!(
            refusal("near0", 0..1, 4096),
            PortError::QueueBusy { queue: 0, .. }
        ));
        let again = open("near0", 0..1, &umem, &mut pool).err().unwrap();
        assert!(
            matches!(again, PortError::QueueBusy { queue: 0, .. }),
            "{again}"
        );

        let odd = UmemOptions {
            frame_size: 3000,
            ..UmemOptions::for_queues(1)
        };
        assert!(matches!(
            WorkerUmem::new(&odd),
            Err(PortError::BadSize { given: 3000, .. })
        ));
        let none = UmemOptions {
            frames: 0,
            ..UmemOptions::for_queues(1)
        };
        assert!(matches!(
            WorkerUmem::new(&none),
            Err(PortError::Umem { frames: 0, .. })
        ));
    });
}
