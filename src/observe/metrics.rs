//! Counters and states in OpenMetrics' text format, for Prometheus.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::{EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::bgp::NeighborRow;
use super::report::{CounterReport, StatusReport};

/// The `Content-Type` of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is exported: one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The sums of all workers' counters.
    pub counters: CounterReport,
    /// How the node is.
    pub status: StatusReport,
}

/// The report in OpenMetrics' text format 1.0.
pub fn encode(report: Report) -> String {
    let mut registry = Registry::with_prefix("underpass");
    registry.register_collector(Box::new(report));
    let mut output = String::new();
    // Writing to a String does not fail, and nothing below refuses a value.
    let written = text::encode(&mut output, &registry);
    debug_assert!(written.is_ok());
    output
}

impl Collector for Report {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.ports(&mut encoder)?;
        self.xdp(&mut encoder)?;
        self.router(&mut encoder)?;
        self.node(&mut encoder)?;
        self.bgp(&mut encoder)
    }
}

impl Report {
    fn ports(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ports = &self.counters.ports;
        let packets = ports.iter().flat_map(|port| {
            [
                (
                    [("port", &*port.name), ("direction", "in")],
                    port.rx_packets,
                ),
                (
                    [("port", &*port.name), ("direction", "out")],
                    port.tx_packets,
                ),
            ]
        });
        counters(encoder, "packets", "Packets that crossed a port", packets)?;
        let bytes = ports.iter().flat_map(|port| {
            [
                ([("port", &*port.name), ("direction", "in")], port.rx_bytes),
                ([("port", &*port.name), ("direction", "out")], port.tx_bytes),
            ]
        });
        let help = "Bytes that crossed a port, link-layer headers included";
        counters(encoder, "bytes", help, bytes)
    }

    /// One counter for each of the kernel's, each with the ports that have it.
    fn xdp(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        const HELP: [&str; 5] = [
            "Received frames that the kernel dropped for want of a buffer or of sense",
            "Received frames that found the receive ring full",
            "Received frames that found the fill ring empty",
            "Descriptors in the fill ring that the kernel refused",
            "Descriptors in the transmit ring that the kernel refused",
        ];
        let sockets: Vec<_> = self
            .counters
            .ports
            .iter()
            .filter_map(|port| Some((&*port.name, port.xdp?.named())))
            .collect();
        for (index, help) in HELP.into_iter().enumerate() {
            let Some((_, first)) = sockets.first() else {
                return Ok(());
            };
            let name = format!("port_xdp_{}", first[index].0);
            let values = sockets
                .iter()
                .map(|(port, named)| ([("port", *port)], named[index].1));
            counters(encoder, &name, help, values)?;
        }
        Ok(())
    }

    fn router(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let drops = self.counters.drops.iter();
        let drops = drops.map(|drop| ([("reason", &*drop.reason)], drop.packets));
        counters(
            encoder,
            "drops",
            "Packets that did not leave, by the one reason",
            drops,
        )?;
        let none: [(&str, &str); 0] = [];
        for (name, help, value) in [
            (
                "punts",
                "Packets handed to the slow path",
                self.counters.punted,
            ),
            (
                "absorbed",
                "Packets that the router consumed",
                self.counters.absorbed,
            ),
            (
                "originated",
                "Packets that the router made",
                self.counters.originated,
            ),
        ] {
            counters(encoder, name, help, [(none, value)])?;
        }
        let waiting = as_f64(self.counters.waiting);
        let help = "Packets that wait for a neighbour or for the rest of their fragments";
        gauges(encoder, "waiting_packets", help, [(none, waiting)])?;
        let fast = self.counters.fast_path.map(|packets| (none, packets));
        let help = "Packets received that XDP programs forwarded";
        counters(encoder, "fast_path_packets", help, fast)
    }

    fn bgp(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bgp = &self.status.bgp;
        let peers: Vec<String> = bgp
            .neighbors
            .iter()
            .map(|row| row.address.to_string())
            .collect();
        let of = |value: fn(&NeighborRow) -> u64| {
            let rows = peers.iter().zip(&bgp.neighbors);
            rows.map(move |(peer, row)| ([("peer", &**peer)], value(row)))
        };
        let level = |value: fn(&NeighborRow) -> u64| of(value).map(|(peer, n)| (peer, as_f64(n)));
        let help = "Whether the BGP session with a peer is established";
        gauges(
            encoder,
            "bgp_session_up",
            help,
            level(|row| row.is_up().into()),
        )?;
        let help = "Prefixes that a BGP peer has told and that passed every check";
        gauges(
            encoder,
            "bgp_prefixes_accepted",
            help,
            level(|row| row.accepted),
        )?;
        let help = "Prefixes that a BGP peer has been told";
        gauges(
            encoder,
            "bgp_prefixes_advertised",
            help,
            level(|row| row.advertised),
        )?;
        let help = "BGP messages from a peer";
        counters(
            encoder,
            "bgp_messages_received",
            help,
            of(|row| row.messages_in),
        )?;
        let help = "BGP messages to a peer";
        counters(
            encoder,
            "bgp_messages_sent",
            help,
            of(|row| row.messages_out),
        )?;
        let help = "How often the BGP session with a peer came up";
        counters(encoder, "bgp_established", help, of(|row| row.established))?;
        let help = "UPDATEs of a BGP peer that were taken as withdrawals, as they were malformed";
        counters(
            encoder,
            "bgp_treated_as_withdraw",
            help,
            of(|row| row.treated_as_withdraw),
        )?;
        if bgp.mode.is_empty() || bgp.mode == "off" {
            return Ok(());
        }
        let none: [(&str, &str); 0] = [];
        let help = "Learned routes that are in effect";
        gauges(
            encoder,
            "learned_routes",
            help,
            [(none, as_f64(bgp.learned))],
        )
    }

    fn node(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = &self.status;
        let routes = status.routes.iter();
        let routes = routes.map(|count| {
            (
                [("encapsulation", count.encapsulation.name())],
                as_f64(count.routes),
            )
        });
        gauges(
            encoder,
            "routes",
            "Routes, by how they carry packets",
            routes,
        )?;
        let ids: Vec<_> = status
            .workers
            .iter()
            .map(|worker| worker.id.to_string())
            .collect();
        let busy = ids
            .iter()
            .zip(&status.workers)
            .map(|(id, w)| ([("worker", &**id)], w.busy));
        let help = "Part of the time in which a worker had packets to move, 0 to 1";
        gauges(encoder, "worker_busy_ratio", help, busy)?;
        let ready = status.components.iter();
        let ready = ready.map(|c| ([("component", &*c.name)], f64::from(u8::from(c.ready))));
        gauges(
            encoder,
            "component_ready",
            "1 if a part of the node does its work",
            ready,
        )?;
        self.bridges(encoder)?;
        let uptime = [(
            [("node", &*status.node), ("version", &*status.version)],
            as_f64(status.uptime_seconds),
        )];
        gauges(
            encoder,
            "uptime_seconds",
            "Seconds since the node started",
            uptime,
        )
    }

    fn bridges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bridges = &self.status.bridges;
        let stations = bridges.iter();
        let stations = stations.map(|b| ([("bridge", &*b.name)], as_f64(b.stations)));
        gauges(
            encoder,
            "bridge_stations",
            "Stations that a bridge has learnt and not forgotten",
            stations,
        )?;
        let refused = bridges.iter().map(|b| ([("bridge", &*b.name)], b.refused));
        counters(
            encoder,
            "bridge_refused",
            "Times that a station was not learnt for want of room",
            refused,
        )?;
        let moves = bridges.iter().map(|b| ([("bridge", &*b.name)], b.moves));
        counters(
            encoder,
            "bridge_moves",
            "Times that a station was heard of elsewhere",
            moves,
        )?;
        let refused = bridges.iter();
        let refused = refused.map(|b| ([("bridge", &*b.name)], b.neighbours_refused));
        counters(
            encoder,
            "bridge_neighbours_refused",
            "Times that a station's IP address was not learnt for want of room",
            refused,
        )
    }
}

fn counters<'a, const LABELS: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'a str, &'a str); LABELS], u64)>,
) -> Result<(), std::fmt::Error> {
    let metrics = values
        .into_iter()
        .map(|(labels, value)| (labels, ConstCounter::new(value)));
    family(encoder, name, help, metrics)
}

fn gauges<'a, const LABELS: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'a str, &'a str); LABELS], f64)>,
) -> Result<(), std::fmt::Error> {
    let metrics = values
        .into_iter()
        .map(|(labels, value)| (labels, ConstGauge::new(value)));
    family(encoder, name, help, metrics)
}

/// One metric family, of one metric if it has no labels; nothing, not even its head, when there are
/// no values.
fn family<'a, const LABELS: usize, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metrics: impl Iterator<Item = ([(&'a str, &'a str); LABELS], M)>,
) -> Result<(), std::fmt::Error> {
    let mut metrics = metrics.peekable();
    let Some((_, first)) = metrics.peek() else {
        return Ok(());
    };
    let mut encoder = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, metric) in metrics {
        if LABELS == 0 {
            return metric.encode(encoder);
        }
        metric.encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Exact up to 2⁵³, beyond which no gauge here comes.
#[allow(clippy::cast_precision_loss)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::report::{
        BridgeStatus, Component, Encapsulation, PortCounters, RouteCount, WorkerStatus,
        XdpStatistics,
    };
    use crate::packet::DropReason;

    fn report() -> Report {
        let mut counters = CounterReport {
            ports: vec![
                PortCounters {
                    name: "eth0".to_owned(),
                    rx_packets: 5,
                    rx_bytes: 500,
                    tx_packets: 6,
                    tx_bytes: 600,
                    xdp: Some(XdpStatistics {
                        rx_ring_full: 3,
                        ..XdpStatistics::default()
                    }),
                    ..PortCounters::default()
                },
                PortCounters {
                    name: "tunl\"0\\".to_owned(),
                    ..PortCounters::default()
                },
            ],
            punted: 9,
            ..CounterReport::default()
        };
        let mut drops = [0; DropReason::COUNT];
        drops[DropReason::NoRoute as usize] = 11;
        counters.set_drops(&drops);
        let status = StatusReport {
            bgp: Default::default(),
            node: "worker1".to_owned(),
            version: "1.2.3".to_owned(),
            uptime_seconds: 60,
            routes: vec![RouteCount {
                encapsulation: Encapsulation::Ipip,
                routes: 4,
            }],
            workers: vec![WorkerStatus {
                id: 0,
                cpu: Some(1),
                busy: 0.25,
            }],
            components: vec![Component {
                name: "datastore".to_owned(),
                ..Component::default()
            }],
            config: None,
            bridges: vec![BridgeStatus {
                name: "tenants".to_owned(),
                stations: 3,
                refused: 2,
                neighbours_refused: 7,
                ..BridgeStatus::default()
            }],
            ..StatusReport::default()
        };
        Report { counters, status }
    }

    #[test]
    fn each_value_is_a_sample_under_its_labels() {
        let text = encode(report());
        for sample in [
            r#"underpass_packets_total{port="eth0",direction="in"} 5"#,
            r#"underpass_packets_total{port="eth0",direction="out"} 6"#,
            r#"underpass_bytes_total{port="eth0",direction="out"} 600"#,
            r#"underpass_packets_total{port="tunl\"0\\",direction="in"} 0"#,
            r#"underpass_port_xdp_rx_ring_full_total{port="eth0"} 3"#,
            r#"underpass_drops_total{reason="no_route"} 11"#,
            r#"underpass_drops_total{reason="shutdown"} 0"#,
            "underpass_punts_total 9",
            r#"underpass_routes{encapsulation="ipip"} 4.0"#,
            r#"underpass_worker_busy_ratio{worker="0"} 0.25"#,
            r#"underpass_component_ready{component="datastore"} 0.0"#,
            r#"underpass_bridge_stations{bridge="tenants"} 3.0"#,
            r#"underpass_bridge_refused_total{bridge="tenants"} 2"#,
            r#"underpass_bridge_moves_total{bridge="tenants"} 0"#,
            r#"underpass_bridge_neighbours_refused_total{bridge="tenants"} 7"#,
            r#"underpass_uptime_seconds{node="worker1",version="1.2.3"} 60.0"#,
        ] {
            assert!(
                text.lines().any(|line| line == sample),
                "{sample} is not in:\n{text}"
            );
        }
        assert!(
            !text.contains("xdp_rx_ring_full_total{port=\"tunl"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn each_family_has_one_head_before_its_samples() {
        let text = encode(report());
        let heads: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let mut names: Vec<_> = heads
            .iter()
            .filter_map(|head| head.split(' ').next())
            .collect();
        assert!(names.contains(&"underpass_drops"), "{names:?}");
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_empty_report_is_valid() {
        let text = encode(Report::default());
        assert!(
            text.contains("underpass_punts_total 0") && text.ends_with("# EOF\n"),
            "{text}"
        );
    }
}
