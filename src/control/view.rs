//! The node as its observers see it.
//!
//! Counters are read where they are; what only the control thread knows is asked of it by message,
//! so that nothing an observer does holds it up.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bgp::{SpeakerSlot, rows};
use super::ports::Description;
use super::probe::{Prober, Target};
use crate::forward::PortRole;
use crate::observe::NodeView;
use crate::observe::bgp::{BgpAnswer, BgpRequest};
use crate::observe::protocol::{CaptureRequest, ProbeRequest};
use crate::observe::report::{
    CounterReport, FdbRow, MtuReport, PortCounters, RouteRow, StatusReport, WaysReport,
};
use crate::packet::DropReason;
use crate::port::capture::{Capture, CaptureError, CaptureSwitch};
use crate::port::xdp::fast_path::FastCounters;
use crate::port::{PortId, PortStatistics};
use crate::worker::counters::Counters;
use crate::worker::publish::Published;

/// How long an observer waits for the control thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Captured packets that wait for their reader at most.
const CAPTURED: usize = 8192;

/// What observers ask of the control thread.
pub enum Question {
    /// The route table.
    Routes(Sender<Vec<RouteRow>>),
    /// The stations of its bridges.
    Fdb(Sender<Vec<FdbRow>>),
    /// How the node and its parts are.
    Status(Sender<StatusReport>),
    /// Where to probe for what is behind another node.
    Probe(String, Sender<Result<Target, String>>),
}

/// The observers' side.
pub struct View {
    questions: Sender<Question>,
    counted: Counted,
    ports: Published<Vec<Row>>,
    switch: CaptureSwitch,
    prober: Option<Arc<Prober>>,
    speaker: SpeakerSlot,
}

/// Where a node's packets are counted.
#[derive(Clone)]
pub struct Counted {
    /// By each worker, and by the slow path.
    pub threads: Vec<Arc<Counters>>,
    /// By the fast path, which no worker sees.
    pub fast_path: Option<FastCounters>,
}

/// A port as observers see it.
#[derive(Debug, Clone, Default)]
struct Row {
    /// None for a port that is not open.
    description: Option<Description>,
    /// What was counted under the port's number before it was opened.
    before: Traffic,
}

/// The ports as observers see them, kept by the control side.
pub struct PortTable {
    counted: Counted,
    rows: Vec<Row>,
    published: Published<Vec<Row>>,
}

impl PortTable {
    /// The ports that are open at the start.
    pub fn new(counted: Counted, ports: Vec<Option<Description>>) -> Self {
        let row = |description| Row {
            description,
            before: Traffic::default(),
        };
        let rows: Vec<Row> = ports.into_iter().map(row).collect();
        Self {
            counted,
            published: Published::new(rows.clone()),
            rows,
        }
    }

    /// The ports are these now. Of one that was closed since, what it has moved is kept apart, so that
    /// the next port of its number begins with nothing and the balance holds.
    pub fn update(&mut self, ports: &[Option<Description>]) {
        for (id, (row, port)) in self.rows.iter_mut().zip(ports).enumerate() {
            if row.description.is_some() && port.is_none() {
                row.before = Traffic::of(&self.counted, id);
            }
            row.description.clone_from(port);
        }
        self.published.publish(self.rows.clone());
    }

    fn published(&self) -> Published<Vec<Row>> {
        self.published.clone()
    }
}

/// What a port has moved.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
}

impl Traffic {
    /// What was counted under a port's number.
    fn of(counted: &Counted, id: usize) -> Self {
        let fast = counted
            .fast_path
            .as_ref()
            .map(|fast| fast.port(PortId(id as u16)));
        let fast = fast.unwrap_or_default();
        let mut sum = Self {
            rx_packets: fast.rx_packets,
            rx_bytes: fast.rx_bytes,
            tx_packets: fast.tx_packets,
            tx_bytes: fast.tx_bytes,
        };
        let threads = counted.threads.iter();
        for port in threads.filter_map(|set| set.ports.get(id)) {
            sum = sum.plus(Self {
                rx_packets: port.rx_packets.get(),
                rx_bytes: port.rx_bytes.get(),
                tx_packets: port.tx_packets.get(),
                tx_bytes: port.tx_bytes.get(),
            });
        }
        sum
    }

    fn plus(self, more: Self) -> Self {
        Self {
            rx_packets: self.rx_packets + more.rx_packets,
            rx_bytes: self.rx_bytes + more.rx_bytes,
            tx_packets: self.tx_packets + more.tx_packets,
            tx_bytes: self.tx_bytes + more.tx_bytes,
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            rx_packets: self.rx_packets.wrapping_sub(less.rx_packets),
            rx_bytes: self.rx_bytes.wrapping_sub(less.rx_bytes),
            tx_packets: self.tx_packets.wrapping_sub(less.tx_packets),
            tx_bytes: self.tx_bytes.wrapping_sub(less.tx_bytes),
        }
    }

    fn report(self, name: &str, kind: PortRole, io: &str) -> PortCounters {
        PortCounters {
            name: name.to_owned(),
            kind: role_name(kind).to_owned(),
            io: io.to_owned(),
            rx_packets: self.rx_packets,
            rx_bytes: self.rx_bytes,
            tx_packets: self.tx_packets,
            tx_bytes: self.tx_bytes,
            ..PortCounters::default()
        }
    }
}

impl View {
    /// A view of a node that counts in `counted`, and where its control thread finds questions.
    /// Paths are measured by `prober`; `speaker` is where the BGP speaker is found.
    pub fn new(
        counted: Counted,
        ports: &PortTable,
        switch: CaptureSwitch,
        prober: Option<Arc<Prober>>,
        speaker: SpeakerSlot,
    ) -> (Self, Receiver<Question>) {
        let (questions, asked) = bounded(16);
        (
            Self {
                questions,
                counted,
                ports: ports.published(),
                prober,
                speaker,
                switch,
            },
            asked,
        )
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.questions
            .send_timeout(question(answer), PATIENCE)
            .ok()?;
        answered.recv_timeout(PATIENCE).ok()
    }
}

impl NodeView for View {
    fn routes(&self) -> Vec<RouteRow> {
        self.ask(Question::Routes).unwrap_or_default()
    }

    fn fdb(&self) -> Vec<FdbRow> {
        self.ask(Question::Fdb).unwrap_or_default()
    }

    fn counters(&self) -> CounterReport {
        let sum = |of: &dyn Fn(&Counters) -> u64| self.counted.threads.iter().map(|c| of(c)).sum();
        let mut report = CounterReport {
            ports: self.ports(),
            punted: sum(&|counters| counters.punted.get()),
            absorbed: sum(&|counters| counters.absorbed.get()),
            originated: sum(&|counters| counters.originated.get()),
            waiting: sum(&|counters| counters.waiting.get()),
            ..CounterReport::default()
        };
        let mut drops = [0; DropReason::COUNT];
        for reason in DropReason::ALL {
            drops[*reason as usize] = sum(&|counters| counters.drops(*reason));
        }
        if let Some(fast) = &self.counted.fast_path {
            let counts = (0..self.ports.get().len()).map(|id| fast.port(PortId(id as u16)));
            let (moved, lost) = counts.fold((0, 0), |(moved, lost), port| {
                (moved + port.rx_packets, lost + port.lost)
            });
            report.fast_path = Some(moved);
            drops[DropReason::NoPort as usize] += lost;
        }
        report.set_drops(&drops);
        report
    }

    fn status(&self) -> StatusReport {
        self.ask(Question::Status).unwrap_or_else(|| StatusReport {
            components: vec![crate::observe::report::Component {
                name: "control".to_owned(),
                detail: format!("no answer within {} s", PATIENCE.as_secs()),
                ..Default::default()
            }],
            ..StatusReport::default()
        })
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Capture, CaptureError> {
        self.switch
            .attach(&request.ports, request.snap_length, CAPTURED)
    }

    fn bgp(&self, request: &BgpRequest) -> Result<BgpAnswer, String> {
        rows::answer(&self.speaker, request)
    }

    fn switch_fast_path(&self, on: bool) -> Result<(), String> {
        let fast = self.counted.fast_path.as_ref().ok_or(
            "the node has no fast path; write fastPath: auto into its configuration and restart it",
        )?;
        fast.switch(on);
        log::info!("the fast path is {} now", if on { "on" } else { "off" });
        Ok(())
    }

    fn probe_mtu(&self, request: &ProbeRequest) -> Result<MtuReport, String> {
        let (prober, target) = self.prober_and_target(request)?;
        prober.probe(&target)
    }

    fn probe_ways(&self, request: &ProbeRequest) -> Result<WaysReport, String> {
        let (prober, target) = self.prober_and_target(request)?;
        prober.try_ways(&target)
    }
}

impl View {
    fn prober_and_target(&self, request: &ProbeRequest) -> Result<(&Prober, Target), String> {
        let target = self
            .ask(|answer| Question::Probe(request.far.clone(), answer))
            .ok_or_else(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
        let prober = self.prober.as_ref().ok_or("the node has no worker")?;
        Ok((prober, target))
    }

    /// The open ports, and what those that were closed have moved, as one.
    fn ports(&self) -> Vec<PortCounters> {
        let rows = self.ports.get();
        let open = rows.iter().enumerate().filter_map(|(id, row)| {
            let port = row.description.as_ref()?;
            Some(self.port(id, port, row.before))
        });
        let mut ports: Vec<_> = open.collect();
        let closed = rows
            .iter()
            .fold(Traffic::default(), |sum, row| sum.plus(row.before));
        if closed.rx_packets + closed.tx_packets > 0 {
            ports.push(closed.report("(closed)", PortRole::Workload, "-"));
        }
        ports
    }

    fn port(&self, id: usize, port: &Description, before: Traffic) -> PortCounters {
        let moved = Traffic::of(&self.counted, id).minus(before);
        let mut report = moved.report(&port.name, port.role, &port.io);
        let mut device = PortStatistics::default();
        for counters in self
            .counted
            .threads
            .iter()
            .filter_map(|set| set.ports.get(id))
        {
            add(&mut device, &counters.device.get());
        }
        report.xdp = port.io.starts_with("af_xdp").then(|| device.into());
        report
    }
}

/// Of what the kernel counts; what ports refuse is among the drops.
fn add(sum: &mut PortStatistics, more: &PortStatistics) {
    sum.rx_dropped += more.rx_dropped;
    sum.rx_ring_full += more.rx_ring_full;
    sum.rx_fill_ring_empty += more.rx_fill_ring_empty;
    sum.rx_invalid_descriptors += more.rx_invalid_descriptors;
    sum.tx_invalid_descriptors += more.tx_invalid_descriptors;
}

fn role_name(role: PortRole) -> &'static str {
    match role {
        PortRole::Uplink => "uplink",
        PortRole::Workload => "workload",
        PortRole::Host => "host",
        PortRole::Bridge(_) => "bridge",
    }
}
