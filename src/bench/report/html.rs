//! One page that needs nothing but itself: results first, then how and where they were got.

use std::fmt::Write as _;

use super::figures::{self, of_cost};
use super::{Cell, Latency, Report, Round, Setting, Softirq, Spread, Verdict};
use crate::bench::cpu::CoreTime;
use crate::bench::load::profile::FrameSize;
use crate::bench::options::Routes;
use crate::bench::systems::System;
use crate::bench::topology::Direction;
use crate::resources::Io;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:0 auto;padding:0 1.5rem 3rem;color:#1c2733}\
header{border-bottom:3px solid #0072b2;padding:1.5rem 0 .8rem;margin-bottom:1.5rem}\
h1{margin:0;font-size:1.9rem}header p{margin:.2rem 0 0;color:#566}\
h2{margin:2.4rem 0 .6rem;font-size:1.35rem;border-bottom:1px solid #d5dce3;padding-bottom:.2rem}\
h3{margin:1.6rem 0 .4rem;font-size:1.08rem}\
table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}\
th{background:#f0f4f8;font-weight:600}td,th{padding:.25rem .6rem;border-bottom:1px solid #e2e7ec;\
text-align:right;white-space:nowrap}td:first-child,th:first-child{text-align:left}\
th.group{text-align:center;border-left:2px solid #fff}tbody tr:hover{background:#f7fafc}\
.scroll{overflow-x:auto}svg{display:block;max-width:100%;height:auto;margin:.6rem 0}\
.open{color:#777;font-size:.9em}.more{color:#006b4f}.less{color:#9c2f00}small,.note{color:#566}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;margin:.6rem 0}\
dt{font-weight:600}dd{margin:0}ul{padding-left:1.2rem}";

/// The page.
pub fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>underpass bench, {date}</title><style>{STYLE}</style></head><body>\n\
         <header><h1>underpass bench</h1>\n<p>{date} \u{b7} {cpu}, {cpus} CPUs \u{b7} Linux {kernel} \u{b7} \
         underpass {version} \u{b7} {rounds} rounds in {time}</p></header>\n",
        date = escape(&report.started),
        cpu = escape(&machine.cpu),
        cpus = machine.cpus,
        kernel = escape(machine.kernel.split(' ').next().unwrap_or_default()),
        version = escape(&report.version),
        rounds = report.method.rounds,
        time = duration(report.seconds),
    );
    summary(&mut page, report);
    notes(&mut page, &report.notes);
    for direction in Direction::ALL {
        of_direction(&mut page, report, direction);
    }
    tcp(&mut page, report);
    systems(&mut page, report);
    machine_and_method(&mut page, report);
    page += "</body></html>\n";
    page
}

/// Every system's throughput in every setting, and what part of native routing's that is.
fn summary(page: &mut String, report: &Report) {
    let settings = report.settings();
    *page += "<h2>Throughput at a glance</h2>\n<div class=\"scroll\"><table><thead><tr><th></th>";
    for (direction, size) in &settings {
        let _ = write!(
            page,
            "<th class=\"group\" colspan=\"2\">{}, {}</th>",
            direction.name(),
            size.in_words()
        );
    }
    *page += "</tr><tr><th>system</th>";
    for _ in &settings {
        *page += "<th>Mpps</th><th>of native</th>";
    }
    *page += "</tr></thead><tbody>\n";
    for system in report.systems() {
        let mut row = vec![name(system)];
        for (direction, size) in &settings {
            let cell = report.find(system, *direction, *size);
            row.push(cell.map_or(String::new(), |cell| report.pdr(cell)));
            row.push(against(
                report,
                system,
                System::Native,
                (*direction, *size),
                |r| r.pdr,
            ));
        }
        table_row(page, &row);
    }
    *page += "</tbody></table></div>\n<p class=\"note\">PDR: the largest rate with no more than 0.5 % \
              loss, the median over rounds. <span class=\"open\">?</span>: not conclusive, as the \
              rounds disagree about which is faster, or searches ended too early to tell. (1 of 3): of so \
              many rounds, as others found none.</p>\n";
}

fn of_direction(page: &mut String, report: &Report, direction: Direction) {
    let sizes = report.sizes(direction);
    if sizes.is_empty() {
        return;
    }
    let what = match (direction, &report.method.interfaces) {
        (_, Some(given)) => format!("{} to {}", given.from, given.to),
        (Direction::Encap, _) => "encap: workload to uplink".to_owned(),
        (Direction::Decap, _) => "decap: uplink to workload".to_owned(),
        (Direction::Path, _) => "path: workload to workload, two nodes on one CPU".to_owned(),
    };
    let _ = writeln!(page, "<h2>{}</h2>", escape(&what));
    *page += &figures::throughput(report, direction).svg();
    if report.measured(direction).count() > 1
        && let Some(bars) = figures::ratios(report, direction)
    {
        *page += &bars.svg();
    }
    for size in sizes {
        let _ = writeln!(page, "<h3>{}, {}</h3>", direction.name(), size.in_words());
        throughput_table(page, report, direction, size);
        if let Some(bars) = figures::cost(report, direction, size) {
            *page += &bars.svg();
        }
        core_table(page, report, direction, size);
        ratio_table(page, report, direction, size);
        *page += &figures::latency(report, direction, size, 0.5).svg();
        latency_table(page, report, direction, size);
    }
}

fn throughput_table(page: &mut String, report: &Report, direction: Direction, size: FrameSize) {
    head(
        page,
        &[
            "system",
            "PDR Mpps",
            "spread",
            "NDR Mpps",
            "overload",
            "ns/packet",
            "cycles",
            "Mpps a core",
            "reordered",
            "twice",
        ],
    );
    for system in report.measured(direction) {
        let Some(cell) = report.find(system, direction, size) else {
            continue;
        };
        let pdr = cell.figure(|round| round.pdr);
        let sum = |count: fn(&Round) -> u64| cell.rounds.iter().map(count).sum::<u64>().to_string();
        let cycles = match report.machine.tsc_mhz {
            None => "not available".to_owned(),
            Some(_) => number(
                cell.figure(|round| round.cost.as_ref()?.packet_cycles),
                1.0,
                0,
            ),
        };
        table_row(
            page,
            &[
                name(system),
                report.pdr(cell),
                percent(pdr),
                report.ndr(cell),
                number(cell.figure(|round| Some(round.overload)), 1e-6, 3),
                number(
                    cell.figure(|round| of_cost(round, |cost| cost.packet_ns)),
                    1.0,
                    0,
                ),
                cycles,
                number(cell.figure(Round::per_core), 1e-6, 3),
                sum(|round| round.reordered),
                sum(|round| round.duplicates),
            ],
        );
    }
    *page += "</tbody></table></div>\n";
    if let Some(footnote) = report.footnote((direction, size)) {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escape(&footnote));
    }
}

/// What every core did meanwhile, for whomever: what is neither the load's nor the system's shows here.
fn core_table(page: &mut String, report: &Report, direction: Direction, size: FrameSize) {
    let cells = report.measured(direction);
    let cells: Vec<_> = cells
        .filter_map(|system| report.find(system, direction, size))
        .collect();
    let first = cells.iter().flat_map(|cell| &cell.rounds);
    let Some(first) = first.filter_map(|round| round.cost.as_ref()).next() else {
        return;
    };
    let cpus: Vec<_> = first.cores.iter().map(|core| core.cpu).collect();
    let role = |cpu: usize| match &report.method {
        method if cpu == method.generator_cpu => ", load",
        method if cpu == method.node_cpu => ", node",
        _ => "",
    };
    *page += "<div class=\"scroll\"><table><thead><tr><th>time of cores at the PDR, %</th>";
    for cpu in &cpus {
        let _ = write!(
            page,
            "<th class=\"group\" colspan=\"4\">CPU {cpu}{}</th>",
            role(*cpu)
        );
    }
    *page += "</tr><tr><th>system</th>";
    for _ in &cpus {
        *page += "<th>user</th><th>kernel</th><th>softirq</th><th>stolen</th>";
    }
    *page += "</tr></thead><tbody>\n";
    for cell in cells {
        let mut row = vec![name(cell.system)];
        for cpu in &cpus {
            row.extend(
                KINDS.map(|kind| number(cell.figure(|round| share(round, *cpu, kind)), 100.0, 0)),
            );
        }
        table_row(page, &row);
    }
    *page += "</tbody></table></div>\n";
}

const KINDS: [fn(&CoreTime) -> f64; 4] = [
    |core| core.user,
    |core| core.system,
    |core| core.softirq,
    |core| core.steal,
];

/// A kind of time as a part of all of a core's.
fn share(round: &Round, cpu: usize, kind: fn(&CoreTime) -> f64) -> Option<f64> {
    let cores = &round.cost.as_ref()?.cores;
    let core = cores.iter().find(|core| core.cpu == cpu)?;
    let all = KINDS.iter().map(|kind| kind(core)).sum::<f64>() + core.idle;
    (all > 0.0).then(|| kind(core) / all)
}

/// Each system against those that it has to be compared with: what it carries, and what a core does.
fn ratio_table(page: &mut String, report: &Report, direction: Direction, size: FrameSize) {
    let bases = report.bases(direction);
    if bases.is_empty() || report.measured(direction).count() < 2 {
        return;
    }
    let span = bases.len();
    let _ = write!(
        page,
        "<div class=\"scroll\"><table><thead><tr><th></th><th class=\"group\" colspan=\"{span}\">PDR \
         as a part of</th><th class=\"group\" colspan=\"{span}\">packets a core as a part of</th></tr>\
         <tr><th>system</th>"
    );
    for base in bases.iter().chain(&bases) {
        let _ = write!(page, "<th>{base}</th>");
    }
    *page += "</tr></thead><tbody>\n";
    for system in report.measured(direction) {
        let mut row = vec![name(system)];
        let figures: [fn(&Round) -> Option<f64>; 2] = [|round| round.pdr, Round::per_core];
        for figure in figures {
            for base in &bases {
                row.push(against(report, system, *base, (direction, size), figure));
            }
        }
        table_row(page, &row);
    }
    *page += "</tbody></table></div>\n";
}

fn latency_table(page: &mut String, report: &Report, direction: Direction, size: FrameSize) {
    const PERCENTILES: [fn(&Latency) -> u64; 5] = [
        |one| one.p50,
        |one| one.p90,
        |one| one.p99,
        |one| one.p999,
        |one| one.max,
    ];
    head(
        page,
        &[
            "system",
            "load",
            "p50 \u{b5}s",
            "p90",
            "p99",
            "p99.9",
            "max",
            "p99 of native",
        ],
    );
    let p99 = |cell: &Cell, load| cell.latency(load, |one| one.p99);
    let native = report.find(System::Native, direction, size);
    for system in report.measured(direction) {
        let Some(cell) = report.find(system, direction, size) else {
            continue;
        };
        for (index, load) in cell.loads().into_iter().enumerate() {
            let base = native.and_then(|native| p99(native, load));
            let ratio = p99(cell, load)
                .zip(base)
                .filter(|_| system != System::Native);
            let mut row = vec![
                if index == 0 {
                    name(system)
                } else {
                    String::new()
                },
                format!("{:.0} %", load * 100.0),
            ];
            row.extend(PERCENTILES.map(|part| number(cell.latency(load, part), 1e-3, 1)));
            row.push(ratio.map_or(String::new(), |(own, base)| {
                format!("{:.2}", own.median / base.median)
            }));
            table_row(page, &row);
        }
    }
    *page += "</tbody></table></div>\n<p class=\"note\">Load: as a part of the system\u{2019}s own PDR. \
              Latency: from the generator to the sink.</p>\n";
}

fn tcp(page: &mut String, report: &Report) {
    let cells = &report.tcp;
    if cells.is_empty() {
        return;
    }
    *page += "<h2>TCP, one connection, workload to workload</h2>\n";
    *page += &figures::tcp(cells).svg();
    head(page, &["system", "links", "Gb/s", "spread", "retransmits"]);
    for cell in cells {
        let again: u64 = cell.rounds.iter().map(|round| round.retransmits).sum();
        let links = if cell.offloads {
            "with offloads"
        } else {
            "without offloads"
        };
        table_row(
            page,
            &[
                name(cell.system),
                links.to_owned(),
                report.goodput(cell),
                percent(cell.goodput()),
                again.to_string(),
            ],
        );
    }
    *page += "</tbody></table></div>\n";
}

fn notes(page: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    *page += "<h3>Not measured, or with a reservation</h3>\n<ul>";
    for note in notes {
        let _ = write!(page, "<li>{}</li>", escape(note));
    }
    *page += "</ul>\n";
}

fn systems(page: &mut String, report: &Report) {
    *page += "<h2>Systems</h2>\n<dl>";
    for system in report.systems() {
        let (name, what) = (system.name(), escape(system.description()));
        let _ = write!(page, "<dt>{name}</dt><dd>{what}</dd>");
    }
    *page += "</dl>\n";
}

fn machine_and_method(page: &mut String, report: &Report) {
    let machine = &report.machine;
    let tsc = machine.tsc_mhz.map_or(String::new(), |mhz| {
        format!(", time stamp counter at {mhz:.0} MHz")
    });
    let inside = if machine.virtualised {
        ", in a virtual machine"
    } else {
        ""
    };
    let rows = [
        (
            "CPU",
            format!("{}, {} may be used{tsc}{inside}", machine.cpu, machine.cpus),
        ),
        ("Memory", format!("{} MiB", machine.memory_mib)),
        ("Kernel", machine.kernel.clone()),
        ("System", machine.os.clone()),
        (
            "Governor",
            machine.governor.clone().unwrap_or("none".to_owned()),
        ),
        ("Load at the start", format!("{:.2}", machine.load)),
        ("Mitigations", machine.mitigations.join("; ")),
    ];
    *page += "<h2>Machine</h2>\n<dl>";
    for (name, value) in rows {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    let _ = write!(
        page,
        "</dl>\n<h2>Method</h2>\n<p>{}</p>\n",
        escape(&method(report))
    );
}

fn method(report: &Report) -> String {
    let method = &report.method;
    let routes = match method.routes {
        Routes::Blocks => "a route for each 64",
        Routes::Hosts => "a route for each",
    };
    let place = match (&method.interfaces, method.softirq) {
        (Some(given), _) => format!(
            "The load leaves by {} and comes back by {}, from {} to {} and on.",
            given.from, given.to, given.source, given.destination
        ),
        (None, Softirq::Node) => format!(
            "The node runs on CPU {}, its receive softirq in threads there, so that this CPU bears all of \
             its work.",
            method.node_cpu
        ),
        (None, Softirq::Sender) => format!(
            "The node runs on CPU {}, its receive softirq on the sender\u{2019}s.",
            method.node_cpu
        ),
    };
    let io = match method.io {
        Io::Auto => "",
        Io::Native => " AF_XDP ports are in native mode.",
        Io::Generic => " AF_XDP ports are in generic mode.",
    };
    let realtime = if method.realtime {
        " Both have real-time priority."
    } else {
        ""
    };
    let ceilings = report.generator.iter();
    let ceilings: Vec<_> = ceilings
        .map(|one| format!("{:.2} Mpps ({})", one.rate / 1e6, one.size.in_words()))
        .collect();
    format!(
        "{rounds} rounds, in each of which every system has its turn; {flows} flows to {destinations} \
         destinations, {routes}. The load comes from CPU {generator}. {place}{io}{realtime} The generator \
         alone makes {ceilings}. NDR is the largest rate without loss, PDR that with no more than 0.5 % \
         of it, found by trials of {trial} s, up to {trials} at each rate, to {width} %. Lines on bars \
         reach from the smallest to the largest round. Costs count the node\u{2019}s processes and the \
         kernel\u{2019}s threads that receive for it. Sizes are those of the workload\u{2019}s frames, \
         frame check sequence included, so a tunnel\u{2019}s frames are larger on the uplink.",
        rounds = method.rounds,
        flows = method.flows,
        destinations = method.destinations,
        generator = method.generator_cpu,
        ceilings = ceilings.join(", "),
        trial = method.trial_seconds,
        trials = method.trials,
        width = method.width * 100.0,
    )
}

/// A ratio, coloured where all rounds say the same.
fn against(
    report: &Report,
    system: System,
    base: System,
    setting: Setting,
    figure: impl Fn(&Round) -> Option<f64>,
) -> String {
    let verdict = report.against(system, base, setting, figure);
    let Some(verdict) = verdict.filter(|_| system != base) else {
        return String::new();
    };
    let ratio = verdict.ratio();
    match verdict {
        Verdict::Higher(_) => format!("<span class=\"more\">{ratio:.2}</span>"),
        Verdict::Lower(_) => format!("<span class=\"less\">{ratio:.2}</span>"),
        Verdict::Equal(_) => format!("{ratio:.2}"),
        Verdict::NotConclusive(_) => {
            format!("<span class=\"open\" title=\"not conclusive\">{ratio:.2} ?</span>")
        }
    }
}

fn name(system: System) -> String {
    let what = escape(system.description());
    format!("<span title=\"{what}\">{system}</span>")
}

fn head(page: &mut String, titles: &[&str]) {
    *page += "<div class=\"scroll\"><table><thead><tr>";
    for title in titles {
        let _ = write!(page, "<th>{title}</th>");
    }
    *page += "</tr></thead><tbody>\n";
}

fn table_row(page: &mut String, cells: &[String]) {
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

fn duration(seconds: f64) -> String {
    match seconds as u64 {
        short @ ..120 => format!("{short} seconds"),
        long => format!("{} minutes", long / 60),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
