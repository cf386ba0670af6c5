//! One page that needs nothing but itself.

use std::fmt::Write as _;

use super::plots::{Bars, Lines};
use super::{Cell, Cost, Latency, Report, Softirq, Spread, TcpCell, Verdict, spread};
use crate::bench::load::profile::FrameSize;
use crate::bench::systems::System;
use crate::bench::topology::Direction;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;\
    color:#222}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;\
    border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}\
    svg{max-width:100%;height:auto}.open{color:#a40}dt{font-weight:bold}";

/// The page.
pub fn page(report: &Report) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>underpass bench, {date}</title><style>{STYLE}</style></head><body>\n\
         <h1>underpass bench</h1>\n<p>{date}, {seconds:.0} seconds, underpass {version}</p>\n",
        date = escape(&report.started),
        seconds = report.seconds,
        version = escape(&report.version),
    );
    machine(&mut page, report);
    method(&mut page, report);
    for direction in Direction::ALL {
        of_direction(&mut page, report, direction);
    }
    tcp(&mut page, &report.tcp);
    notes(&mut page, &report.notes);
    page += "</body></html>\n";
    page
}

fn machine(page: &mut String, report: &Report) {
    let machine = &report.machine;
    let virtual_machine = if machine.virtualised {
        ", virtual machine"
    } else {
        ""
    };
    let rows = [
        (
            "CPU",
            format!(
                "{}, {} may be used, nominally {:.0} MHz{virtual_machine}",
                machine.cpu, machine.cpus, machine.mhz
            ),
        ),
        ("Memory", format!("{} MiB", machine.memory_mib)),
        ("Kernel", machine.kernel.clone()),
        ("System", machine.os.clone()),
        ("Mitigations", machine.mitigations.join("; ")),
        (
            "Governor",
            machine.governor.clone().unwrap_or("none".to_owned()),
        ),
        ("Load at the start", format!("{:.2}", machine.load)),
    ];
    *page += "<h2>Machine</h2>\n<dl>";
    for (name, value) in rows {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    *page += "</dl>\n";
}

fn method(page: &mut String, report: &Report) {
    let method = &report.method;
    let softirq = match method.softirq {
        Softirq::Node => "its receive softirq in threads on that CPU, which bears all of its work",
        Softirq::Sender => "its receive softirq on the sender\u{2019}s CPU",
    };
    let realtime = if method.realtime {
        ", both with real-time priority"
    } else {
        ""
    };
    let _ = write!(
        page,
        "<h2>Method</h2>\n<p>{rounds} rounds, in each of which every system has its turn; \
         {flows} flows to {destinations} destinations. The load comes from CPU {generator}, the \
         node runs on CPU {node}, {softirq}{realtime}. NDR is the largest rate without loss, PDR \
         that with no more than 0.5 % of it, found by trials of {trial} s, {trials} at each rate, \
         to {width} %. Lines on bars reach from the smallest to the largest round; a comparison \
         whose rounds disagree is not conclusive. Cycles are nanoseconds at the nominal frequency. \
         Sizes are those of the workload\u{2019}s frames, frame check sequence included.</p>\n",
        rounds = method.rounds,
        flows = method.flows,
        destinations = method.destinations,
        generator = method.generator_cpu,
        node = method.node_cpu,
        trial = method.trial_seconds,
        trials = method.trials,
        width = method.width * 100.0,
    );
    let ceilings = report.generator.iter().map(|one| {
        let (size, rate) = (one.size, one.rate / 1e6);
        format!("{rate:.2} Mpps of {size} bytes")
    });
    let ceilings: Vec<_> = ceilings.collect();
    let _ = writeln!(
        page,
        "<p>The generator alone, its frames dropped on arrival: {}.</p>",
        ceilings.join(", ")
    );
}

fn of_direction(page: &mut String, report: &Report, direction: Direction) {
    let settings = report.settings().into_iter();
    let sizes: Vec<_> = settings
        .filter(|(one, _)| *one == direction)
        .map(|(_, size)| size)
        .collect();
    if sizes.is_empty() {
        return;
    }
    let what = match direction {
        Direction::Encap => "workload to uplink",
        Direction::Decap => "uplink to workload",
        Direction::Path => "workload to workload, two nodes on one CPU",
    };
    let _ = writeln!(page, "<h2>{}: {what}</h2>", direction.name());
    *page += &throughput(report, direction, &sizes).svg();
    *page += &ratios(report, direction, &sizes).svg();
    for size in sizes {
        let _ = writeln!(page, "<h3>{}, {size} bytes</h3>", direction.name());
        table(page, report, direction, size);
        *page += &latency(report, direction, size).svg();
        *page += &cost(report, direction, size).svg();
    }
}

fn throughput(report: &Report, direction: Direction, sizes: &[FrameSize]) -> Bars {
    let rate = |cell: &Cell| cell.figure(|round| Some(round.pdr? / 1e6));
    by_system(report, direction, sizes, "PDR", "Mpps", rate)
}

fn ratios(report: &Report, direction: Direction, sizes: &[FrameSize]) -> Bars {
    let ratio = |cell: &Cell| {
        let native = report.find(System::Native, direction, cell.size)?;
        let pairs = cell.rounds.iter().zip(&native.rounds);
        let ratios: Vec<_> = pairs
            .filter_map(|(own, native)| Some(own.pdr? / native.pdr?))
            .collect();
        spread(&ratios)
    };
    let title = "PDR against native routing of the same round";
    let bars = by_system(report, direction, sizes, title, "native = 1", ratio);
    Bars {
        line: Some(1.0),
        ..bars
    }
}

/// A group for each system, a bar for each size.
fn by_system(
    report: &Report,
    direction: Direction,
    sizes: &[FrameSize],
    title: &str,
    unit: &'static str,
    figure: impl Fn(&Cell) -> Option<Spread>,
) -> Bars {
    let group = |system: System| {
        let values = sizes.iter();
        let values = values.map(|size| figure(report.find(system, direction, *size)?));
        (system.name().to_owned(), values.collect())
    };
    Bars {
        title: format!("{}: {title}", direction.name()),
        unit,
        series: sizes.iter().map(ToString::to_string).collect(),
        groups: measured(report, direction).map(group).collect(),
        stacked: false,
        line: None,
    }
}

fn latency(report: &Report, direction: Direction, size: FrameSize) -> Lines {
    const PERCENTILES: [fn(&Latency) -> u64; 5] = [
        |one| one.p50,
        |one| one.p90,
        |one| one.p99,
        |one| one.p999,
        |one| one.max,
    ];
    let of = |system: System| {
        let cell = report.find(system, direction, size)?;
        let values = PERCENTILES.map(|percentile| cell.latency(0.5, percentile));
        let values: Option<Vec<_>> = values.into_iter().collect();
        let microseconds = values?
            .iter()
            .map(|spread| spread.median / 1000.0)
            .collect();
        Some((system.name().to_owned(), microseconds))
    };
    Lines {
        title: format!(
            "{}, {size} bytes: one-way latency at half of the PDR",
            direction.name()
        ),
        unit: "microseconds",
        places: vec!["50 %", "90 %", "99 %", "99.9 %", "max"],
        series: measured(report, direction).filter_map(of).collect(),
    }
}

fn cost(report: &Report, direction: Direction, size: FrameSize) -> Bars {
    let group = |system: System| {
        let part = |part: fn(&Cost) -> f64| {
            let cell = report.find(system, direction, size)?;
            cell.figure(|round| round.cost.as_ref().map(part))
        };
        let parts = vec![
            part(|cost| cost.process_ns),
            part(|cost| cost.kernel_thread_ns),
            part(|cost| cost.sender_ns),
        ];
        (system.name().to_owned(), parts)
    };
    Bars {
        title: format!(
            "{}, {size} bytes: CPU time for a packet at the PDR",
            direction.name()
        ),
        unit: "ns",
        series: ["process", "kernel threads", "sender softirq"]
            .map(str::to_owned)
            .to_vec(),
        groups: measured(report, direction).map(group).collect(),
        stacked: true,
        line: None,
    }
}

fn table(page: &mut String, report: &Report, direction: Direction, size: FrameSize) {
    *page += "<table><tr><th>system</th><th>PDR Mpps</th><th>spread</th><th>NDR Mpps</th>\
              <th>overload Mpps</th><th>against native</th><th>ns/packet</th><th>cycles</th>\
              <th>p50 \u{b5}s</th><th>p99 \u{b5}s</th><th>p99.9 \u{b5}s</th><th>reordered</th></tr>\n";
    for system in measured(report, direction) {
        if let Some(cell) = report.find(system, direction, size) {
            row(page, &cells_of(report, cell));
        }
    }
    *page += "</table>\n";
}

fn cells_of(report: &Report, cell: &Cell) -> [String; 12] {
    let system = cell.system;
    let pdr = cell.figure(|round| round.pdr);
    let against = (system != System::Native)
        .then(|| report.against_native(system, cell.direction, cell.size))
        .flatten();
    let cost =
        |part: fn(&Cost) -> f64| number(cell.figure(|round| round.cost.as_ref().map(part)), 1.0, 0);
    let late = |percentile: fn(&Latency) -> u64| number(cell.latency(0.5, percentile), 1e-3, 1);
    let reordered: u64 = cell.rounds.iter().map(|round| round.reordered).sum();
    [
        format!(
            "{} <small>({})</small>",
            system.name(),
            escape(system.description())
        ),
        number(pdr, 1e-6, 3),
        percent(pdr),
        number(cell.figure(|round| round.ndr), 1e-6, 3),
        number(cell.figure(|round| Some(round.overload)), 1e-6, 3),
        against.map_or(String::new(), against_text),
        cost(|cost| cost.packet_ns),
        cost(|cost| cost.packet_cycles),
        late(|latency| latency.p50),
        late(|latency| latency.p99),
        late(|latency| latency.p999),
        reordered.to_string(),
    ]
}

fn tcp(page: &mut String, cells: &[TcpCell]) {
    if cells.is_empty() {
        return;
    }
    *page += "<h2>TCP, one connection, workload to workload</h2>\n";
    let goodput = |cell: &TcpCell| {
        let values: Vec<_> = cell.rounds.iter().map(|round| round.bits / 1e9).collect();
        spread(&values)
    };
    let name = |cell: &TcpCell| {
        let with = if cell.offloads { ", offloads" } else { "" };
        format!("{}{with}", cell.system)
    };
    let bars = Bars {
        title: "TCP goodput".to_owned(),
        unit: "Gb/s",
        series: vec!["goodput".to_owned()],
        groups: cells
            .iter()
            .map(|cell| (name(cell), vec![goodput(cell)]))
            .collect(),
        stacked: false,
        line: None,
    };
    *page += &bars.svg();
    *page += "<table><tr><th>system</th><th>Gb/s</th><th>spread</th><th>retransmits</th></tr>\n";
    for cell in cells {
        let again: u64 = cell.rounds.iter().map(|round| round.retransmits).sum();
        let value = goodput(cell);
        row(
            page,
            &[
                name(cell),
                number(value, 1.0, 2),
                percent(value),
                again.to_string(),
            ],
        );
    }
    *page += "</table>\n";
}

fn notes(page: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    *page += "<h2>Notes</h2>\n<ul>";
    for note in notes {
        let _ = write!(page, "<li>{}</li>", escape(note));
    }
    *page += "</ul>\n";
}

fn measured(report: &Report, direction: Direction) -> impl Iterator<Item = System> {
    let cells = report.cells.iter();
    let systems: Vec<_> = cells
        .filter(|cell| cell.direction == direction)
        .map(|cell| cell.system)
        .collect();
    System::ALL
        .into_iter()
        .filter(move |system| systems.contains(system))
}

fn against_text(verdict: Verdict) -> String {
    let ratio = verdict.ratio();
    if verdict.is_conclusive() {
        return format!("{ratio:.2}");
    }
    format!("{ratio:.2} <span class=\"open\">not conclusive</span>")
}

fn row(page: &mut String, cells: &[String]) {
    *page += "<tr>";
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    *page += "</tr>\n";
}

fn number(value: Option<Spread>, scale: f64, digits: usize) -> String {
    value.map_or(String::new(), |spread| {
        format!("{:.digits$}", spread.median * scale)
    })
}

fn percent(value: Option<Spread>) -> String {
    value.map_or(String::new(), |spread| {
        format!("{:.0} %", spread.relative() * 100.0)
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
