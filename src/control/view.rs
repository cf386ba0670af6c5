//! The node as its observers see it.
//!
//! Counters are read where they are; what only the control thread knows is asked of it by message,
//! so that nothing an observer does holds it up.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::ports::Description;
use super::probe::{Prober, Target};
use crate::forward::PortRole;
use crate::observe::NodeView;
use crate::observe::protocol::{CaptureRequest, ProbeRequest};
use crate::observe::report::{CounterReport, MtuReport, PortCounters, RouteRow, StatusReport};
use crate::packet::DropReason;
use crate::port::PortStatistics;
use crate::port::capture::{Capture, CaptureError, CaptureSwitch};
use crate::worker::counters::Counters;

/// How long an observer waits for the control thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Captured packets that wait for their reader at most.
const CAPTURED: usize = 8192;

/// What observers ask of the control thread.
pub enum Question {
    /// The route table.
    Routes(Sender<Vec<RouteRow>>),
    /// How the node and its parts are.
    Status(Sender<StatusReport>),
    /// Where to probe for what is behind another node.
    Probe(String, Sender<Result<Target, String>>),
}

/// The observers' side.
pub struct View {
    questions: Sender<Question>,
    counters: Vec<Arc<Counters>>,
    ports: Vec<Description>,
    switch: CaptureSwitch,
    prober: Option<Arc<Prober>>,
}

impl View {
    /// A view of a node that counts in `counters`, and where its control thread finds questions.
    /// Paths are measured by `prober`.
    pub fn new(
        counters: Vec<Arc<Counters>>,
        ports: Vec<Description>,
        switch: CaptureSwitch,
        prober: Option<Arc<Prober>>,
    ) -> (Self, Receiver<Question>) {
        let (questions, asked) = bounded(16);
        (
            Self {
                questions,
                counters,
                ports,
                prober,
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

    fn counters(&self) -> CounterReport {
        let sum = |of: &dyn Fn(&Counters) -> u64| self.counters.iter().map(|c| of(c)).sum();
        let mut report = CounterReport {
            ports: self
                .ports
                .iter()
                .enumerate()
                .map(|(id, port)| self.port(id, port))
                .collect(),
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

    fn probe_mtu(&self, request: &ProbeRequest) -> Result<MtuReport, String> {
        let target = self
            .ask(|answer| Question::Probe(request.far.clone(), answer))
            .ok_or_else(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
        let prober = self.prober.as_ref().ok_or("the node has no worker")?;
        prober.probe(&target)
    }
}

impl View {
    fn port(&self, id: usize, port: &Description) -> PortCounters {
        let mut report = PortCounters {
            name: port.name.clone(),
            kind: role_name(port.role).to_owned(),
            io: port.io.clone(),
            ..PortCounters::default()
        };
        let mut device = PortStatistics::default();
        for counters in self
            .counters
            .iter()
            .filter_map(|counters| counters.ports.get(id))
        {
            report.rx_packets += counters.rx_packets.get();
            report.rx_bytes += counters.rx_bytes.get();
            report.tx_packets += counters.tx_packets.get();
            report.tx_bytes += counters.tx_bytes.get();
            add(&mut device, &counters.device.get());
        }
        report.xdp = port.io.starts_with("af_xdp").then(|| device.into());
        report
    }
}

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
    }
}
