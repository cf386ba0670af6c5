//! A node that is not there: a [`NodeView`] whose answers the test sets.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io;
use std::os::fd::RawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use underpass::observe::NodeView;
use underpass::observe::protocol::{CaptureRequest, ProbeRequest};
use underpass::observe::report::{
    Component, CounterReport, Encapsulation, FdbRow, MtuReport, PortCounters, RouteCount,
    RouteKind, RouteRow, RouteState, StatusReport, WorkerStatus, XdpStatistics,
};
use underpass::packet::{Batch, DropReason, FramePool};
use underpass::port::capture::{Capture, CaptureError, CaptureSwitch, Captured};
use underpass::port::{Capabilities, Link, Port, PortId, PortStatistics, TxOutcome};
use underpass::wire::Mtu;

/// A node whose reports can be set.
pub struct FakeNode {
    /// The switch that captures are attached to.
    pub switch: CaptureSwitch,
    /// The route table.
    pub routes: Mutex<Vec<RouteRow>>,
    counters: CounterReport,
    status: Mutex<StatusReport>,
}

impl FakeNode {
    /// A node with one uplink, one workload and a balanced account.
    pub fn new(name: &str) -> Self {
        let status = StatusReport {
            bgp: Default::default(),
            node: name.to_owned(),
            version: "1.2.3".to_owned(),
            pid: std::process::id(),
            uptime_seconds: 3723,
            address: Some([10, 30, 0, 11].into()),
            uplink: Some("eth0".to_owned()),
            routes: vec![RouteCount {
                encapsulation: Encapsulation::Ipip,
                routes: 1,
            }],
            workers: vec![WorkerStatus {
                id: 0,
                cpu: Some(1),
                busy: 0.125,
            }],
            components: vec![component(true, true, "in sync")],
            bridges: Vec::new(),
            config: None,
        };
        Self {
            switch: CaptureSwitch::new(),
            routes: Mutex::new(routes(Encapsulation::Ipip)),
            counters: counters(),
            status: Mutex::new(status),
        }
    }

    /// The same with `count` more ports.
    pub fn with_ports(mut self, count: usize) -> Self {
        self.counters
            .ports
            .extend((0..count).map(|index| PortCounters {
                name: format!("cali{index:06}"),
                ..PortCounters::default()
            }));
        self
    }

    /// Sets the state of its one component.
    pub fn set_component(&self, live: bool, ready: bool, detail: &str) {
        self.status.lock().unwrap().components = vec![component(live, ready, detail)];
    }
}

impl NodeView for FakeNode {
    fn routes(&self) -> Vec<RouteRow> {
        self.routes.lock().unwrap().clone()
    }

    fn fdb(&self) -> Vec<FdbRow> {
        Vec::new()
    }

    fn counters(&self) -> CounterReport {
        self.counters.clone()
    }

    fn status(&self) -> StatusReport {
        self.status.lock().unwrap().clone()
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Capture, CaptureError> {
        self.switch
            .attach(&request.ports, request.snap_length, 1024)
    }

    fn probe_mtu(&self, request: &ProbeRequest) -> Result<MtuReport, String> {
        Err(format!("no node '{}'", request.far))
    }
}

/// The routes of a node with one workload and one far node.
pub fn routes(encapsulation: Encapsulation) -> Vec<RouteRow> {
    let far = Some([10, 30, 0, 12].into());
    let row = |destination: &str, kind| RouteRow {
        destination: destination.parse().unwrap(),
        kind,
        encapsulation: None,
        node: None,
        far_end: None,
        next_hop: None,
        others: Vec::new(),
        mac: None,
        interface: None,
        mtu: None,
        state: RouteState::Resolved,
        pool: None,
    };
    let (interface, mtu) = match encapsulation {
        Encapsulation::None => ("eth0", 1500),
        Encapsulation::Ipip => ("tunl0", 1480),
        Encapsulation::Vxlan => ("vxlan.calico", 1450),
    };
    vec![
        row("192.168.1.0/26", RouteKind::Blackhole),
        RouteRow {
            encapsulation: Some(Encapsulation::None),
            node: Some("worker1".to_owned()),
            interface: Some("cali1".to_owned()),
            mtu: Some(1500),
            ..row("192.168.1.2/32", RouteKind::Unicast)
        },
        RouteRow {
            encapsulation: Some(encapsulation),
            node: Some("worker2".to_owned()),
            far_end: far.filter(|_| encapsulation != Encapsulation::None),
            next_hop: far,
            mac: "66:3e:ca:a4:db:65".parse().ok(),
            interface: Some(interface.to_owned()),
            mtu: Some(mtu),
            pool: Some("default-ipv4-ippool".to_owned()),
            ..row("192.168.2.0/26", RouteKind::Unicast)
        },
    ]
}

fn counters() -> CounterReport {
    let mut counters = CounterReport {
        ports: vec![
            PortCounters {
                name: "eth0".to_owned(),
                kind: "uplink".to_owned(),
                io: "af_xdp native copy".to_owned(),
                rx_packets: 100,
                rx_bytes: 15_000,
                tx_packets: 90,
                tx_bytes: 9_000,
                xdp: Some(XdpStatistics {
                    rx_ring_full: 3,
                    ..XdpStatistics::default()
                }),
            },
            PortCounters {
                name: "tunl0".to_owned(),
                kind: "host".to_owned(),
                io: "tun".to_owned(),
                rx_packets: 1,
                ..PortCounters::default()
            },
        ],
        punted: 8,
        absorbed: 4,
        originated: 2,
        ..CounterReport::default()
    };
    let mut drops = [0; DropReason::COUNT];
    drops[DropReason::NoRoute as usize] = 9;
    counters.set_drops(&drops);
    counters
}

fn component(live: bool, ready: bool, detail: &str) -> Component {
    Component {
        name: "datastore".to_owned(),
        live,
        ready,
        detail: detail.to_owned(),
    }
}

/// A TUN-like port that takes every frame and forgets it, under a capture switch.
pub struct TestPort {
    port: Captured<Sinkhole>,
    pool: FramePool,
    switch: CaptureSwitch,
}

impl TestPort {
    /// A port with the given number and name.
    pub fn captured(id: u16, name: &str, switch: &CaptureSwitch) -> Self {
        let capabilities = Capabilities {
            link: Link::Ip,
            mtu: Mtu::ETHERNET,
            io: "memory".to_owned(),
        };
        let sinkhole = Sinkhole {
            id: PortId(id),
            name: name.to_owned(),
            capabilities,
        };
        Self {
            port: Captured::new(Box::new(sinkhole), switch),
            pool: FramePool::with_memory(64, 2048, 256),
            switch: switch.clone(),
        }
    }

    /// Sends packets out of the port.
    pub fn send(&mut self, packets: &[&[u8]]) {
        let mut batch = Batch::new();
        for packet in packets {
            let mut frame = self.pool.take().unwrap();
            assert!(frame.fill(packet, 256));
            batch.push(frame);
        }
        assert_eq!(self.port.tx(&mut self.pool, &mut batch).sent, packets.len());
    }

    /// Fails unless every capture has been detached within a few seconds.
    pub fn assert_idle(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.port.is_captured() {
            assert!(
                Instant::now() < deadline,
                "still captured: {:?}",
                self.switch.ports()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Sinkhole {
    id: PortId,
    name: String,
    capabilities: Capabilities,
}

impl Port for Sinkhole {
    fn id(&self) -> PortId {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, _: &mut FramePool, _: &mut Batch) -> io::Result<usize> {
        Ok(0)
    }

    fn tx(&mut self, pool: &mut FramePool, batch: &mut Batch) -> TxOutcome {
        let sent = batch.len();
        let sent_bytes = batch.iter().map(|frame| frame.len()).sum();
        batch.drain(..).for_each(|frame| pool.give(frame));
        TxOutcome {
            sent,
            sent_bytes,
            ..TxOutcome::default()
        }
    }

    fn reap(&mut self, _: &mut FramePool) {}

    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn statistics(&self) -> PortStatistics {
        PortStatistics::default()
    }
}
