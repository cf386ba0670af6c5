//! What ports cost, for perf/README.md:
//! `cargo test --release --test ports measure -- --ignored --nocapture --test-threads 1`.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use underpass::packet::{BATCH, Batch, FramePool, HEADROOM};
use underpass::port::Port;
use underpass::port::xdp::{Role, Steering, UmemOptions, XdpModeWanted, XdpPort};

use crate::lab::{Wire, frame, in_far, memory_of, open, run, veth};

const RUN: Duration = Duration::from_secs(2);

/// Moving a packet to where AF_XDP wants it, after a header was pushed.
#[test]
#[ignore = "a measurement"]
fn moving_a_packet() {
    for count in [1, 4096] {
        for size in [64, 512, 1500] {
            println!(
                "{size} bytes, {count} frame(s): {:.1} ns",
                move_cost(size, count)
            );
        }
    }
}

/// Nanoseconds to move a packet of `size` bytes by 50, `count` frames in turn.
fn move_cost(size: usize, count: usize) -> f64 {
    let mut pool = FramePool::with_memory(count, 2048, HEADROOM);
    let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    for frame in &mut frames {
        assert!(frame.fill(&vec![7; size], HEADROOM));
    }
    let rounds = 4_000_000 / count;
    let begin = Instant::now();
    for round in 0..rounds {
        let start = if round % 2 == 0 {
            HEADROOM - 50
        } else {
            HEADROOM
        };
        for frame in &mut frames {
            assert!(black_box(&mut *frame).move_to(start));
        }
    }
    begin.elapsed().as_nanos() as f64 / (rounds * count) as f64
}

/// In by one device, out by another, on one core, while another core sends.
#[test]
#[ignore = "a measurement"]
fn forwarding_between_devices() {
    for wanted in [XdpModeWanted::Native, XdpModeWanted::Generic] {
        for size in [60, 1460] {
            for pushed in [0, 50] {
                run(|| forward(wanted, size, pushed));
            }
        }
    }
}

fn forward(wanted: XdpModeWanted, size: usize, pushed: usize) {
    veth(0, 1);
    veth(1, 1);
    let (umem, mut pool) = memory_of(&UmemOptions::for_queues(2));
    let mut a = open("near0", 0..1, &umem, &mut pool).unwrap();
    let mut b = open("near1", 0..1, &umem, &mut pool).unwrap();
    let mut steering = Steering::attach("near0", Role::Workload, wanted).unwrap();
    steering.register(0, a.socket_fd(0).unwrap()).unwrap();
    let cores = core_affinity::get_core_ids().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let generator = scope.spawn(|| {
            core_affinity::set_for_current(cores[cores.len() - 1]);
            generate(size, &stop)
        });
        core_affinity::set_for_current(cores[0]);
        let (packets, elapsed) = forward_for(RUN, &mut a, &mut b, &mut pool, pushed);
        stop.store(true, Ordering::Relaxed);
        let sent = generator.join().unwrap();
        let rate = |count: usize| count as f64 / elapsed.as_secs_f64() / 1e3;
        println!(
            "{}, {size} bytes, {pushed} pushed: {:.0} kpps of {:.0} sent; {:?}",
            steering.mode(),
            rate(packets),
            rate(sent),
            a.statistics()
        );
    });
}

fn generate(size: usize, stop: &AtomicBool) -> usize {
    let mut wire = in_far(|| Wire::open("far0").unwrap());
    let frames: Vec<_> = (0..64).map(|n| frame(size, n)).collect();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += wire.send_many(&frames);
    }
    sent
}

fn forward_for(
    time: Duration,
    a: &mut XdpPort,
    b: &mut XdpPort,
    pool: &mut FramePool,
    pushed: usize,
) -> (usize, Duration) {
    let header = [2; 64];
    let mut batch = Batch::with_capacity(BATCH);
    let mut packets = 0;
    let begin = Instant::now();
    while begin.elapsed() < time {
        let waiting = batch.len();
        a.rx(pool, &mut batch).unwrap();
        for frame in &mut batch[waiting..] {
            assert!(frame.push(&header[..pushed]));
        }
        packets += b.tx(pool, &mut batch).sent;
    }
    (packets, begin.elapsed())
}
