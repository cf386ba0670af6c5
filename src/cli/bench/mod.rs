//! The verb `bench`: options, progress while it runs, the table at its end.

mod bar;
mod output;
mod tables;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, print};
use crate::bench::given::{self, Given};
use crate::bench::load::profile::FrameSize;
use crate::bench::report::{self, compare};
use crate::bench::systems::{System, wire};
use crate::bench::topology::Direction;
use crate::bench::{self, BenchError, Options, Report, Routes, Softirq, namespace};
use crate::resources::Io;
use crate::wire::MacAddr;
use bar::Bar;
use output::Output;

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub verb: Option<BenchVerb>,
    #[command(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum BenchVerb {
    /// Compare two runs: what changed from the first to the second
    Compare {
        /// The JSON file of the first run
        before: PathBuf,
        /// The JSON file of the second run
        after: PathBuf,
    },
    /// Make the HTML page of a run's JSON file
    Html {
        /// The JSON file
        json: PathBuf,
        /// The page to write
        html: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub struct What {
    /// A minute or two: one direction, one size, short trials
    #[arg(long, conflicts_with = "thorough")]
    quick: bool,
    /// Hours: all directions, all sizes of RFC 2544 and imix, five rounds, long trials
    #[arg(long)]
    thorough: bool,
    /// What to measure; native is what the others are compared with [default: all that is there]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = system)]
    systems: Vec<System>,
    /// encap: workload to uplink; decap: uplink to workload; path: through two nodes
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    directions: Vec<DirectionName>,
    /// Frame lengths with FCS, before encapsulation, or imix; rfc2544 for all of that RFC
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    sizes: Vec<String>,
    /// How often each system has its turn
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Flows: a power of two, up to 32768
    #[arg(long, value_name = "COUNT")]
    flows: Option<u32>,
    /// Destination addresses: a power of two up to 16384, no more than flows
    #[arg(long, value_name = "COUNT")]
    destinations: Option<u32>,
    /// Routes to them: blocks, one for each 64 addresses [default], or hosts, one for each address
    #[arg(long, value_enum, value_name = "WHAT")]
    routes: Option<RoutesName>,
    /// Measure what is between two interfaces of this machine, such as two nodes and the network
    /// between them: packets leave by the first and come back by the second
    #[arg(
        long,
        value_name = "FROM,TO",
        value_delimiter = ',',
        num_args = 1,
        conflicts_with = "systems"
    )]
    interfaces: Vec<String>,
    /// With --interfaces: the Ethernet address of what receives them [default: the second interface's]
    #[arg(long, value_name = "MAC", requires = "interfaces", value_parser = mac)]
    next_hop: Option<MacAddr>,
    /// With --interfaces: the packets' source address
    #[arg(long, value_name = "ADDRESS", requires = "interfaces", default_value_t = given::SOURCE)]
    source: Ipv4Addr,
    /// With --interfaces: their first destination address
    #[arg(long, value_name = "ADDRESS", requires = "interfaces", default_value_t = given::DESTINATION)]
    destination: Ipv4Addr,
    /// With --interfaces: use them although they have addresses, a default route, a master or an XDP
    /// program
    #[arg(long, requires = "interfaces")]
    force: bool,
    /// A trial's length
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    trial: Option<Duration>,
    /// How close the search's bounds must come, as a part of the rate
    #[arg(long, value_name = "PART")]
    width: Option<f64>,
    /// Length of each TCP connection; 0 leaves TCP out
    #[arg(long, value_name = "SECONDS")]
    tcp: Option<u64>,
    /// Where a node's receive softirq runs: in threads on the node's CPU, which then bears all of its
    /// work [default], or on the sender's, as the kernel does with veth by itself
    #[arg(long, value_enum, value_name = "WHERE")]
    softirq: Option<SoftirqName>,
    /// How AF_XDP ports move frames, of underpass and of the wire: by the driver if it can [auto], by the
    /// driver, or in the kernel's generic path
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    io: IoName,
    /// Do not run before everything else on the machine: measure with what else runs there
    #[arg(long)]
    no_realtime: bool,
    /// The generator's CPU [default: the first]
    #[arg(long, value_name = "CPU")]
    generator_cpu: Option<usize>,
    /// The CPU of the nodes under test [default: the last]
    #[arg(long, value_name = "CPU")]
    node_cpu: Option<usize>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Messages to print: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: log::LevelFilter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionName {
    Encap,
    Decap,
    Path,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoutesName {
    Blocks,
    Hosts,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum IoName {
    Auto,
    Native,
    Generic,
}

impl From<IoName> for Io {
    fn from(name: IoName) -> Self {
        match name {
            IoName::Auto => Self::Auto,
            IoName::Native => Self::Native,
            IoName::Generic => Self::Generic,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SoftirqName {
    Sender,
    Node,
}

/// What [`namespace::enter`] is told.
#[derive(Debug, Clone, Args)]
pub struct EnterArguments {
    #[arg(long)]
    netns: PathBuf,
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs `bench` and its own verbs.
pub fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    match &arguments.verb {
        None => measure(&arguments.what),
        Some(BenchVerb::Compare { before, after }) => {
            let comparison = compare::compare(&read(before)?, &read(after)?);
            print(&tables::comparison(&comparison))
        }
        Some(BenchVerb::Html { json, html: page }) => {
            let text = report::html::page(&read(json)?);
            Ok(Output::new(page)?.write(&text)?)
        }
    }
}

/// Runs a program inside one of the bench's namespaces.
pub fn enter(arguments: &EnterArguments) -> Failure {
    let EnterArguments {
        netns,
        parent,
        cpu,
        command,
    } = arguments;
    failure(&namespace::enter(netns, *parent, *cpu, command))
}

/// Runs a wire between two devices.
pub fn wire(devices: &[String], io: IoName) -> Result<(), Failure> {
    let [one, other] = devices else {
        return Err("name two interfaces".to_owned().into());
    };
    wire::run([one, other], io.into()).map_err(|error| failure(&error))
}

fn measure(what: &What) -> Result<(), Failure> {
    super::start_log();
    log::set_max_level(what.log);
    let options = options(what)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, interrupted.clone())
            .map_err(|error| format!("cannot listen for signals: {error}"))?;
    }
    // Found out now rather than after all the work, and once signals no longer end this process.
    let json = what.json.as_deref().map(Output::new).transpose()?;
    let html = what.html.as_deref().map(Output::new).transpose()?;
    let mut bar = Bar::new();
    let measured = bench::run(&options, &mut |progress| bar.show(progress), &interrupted);
    bar.clear();
    let report = measured.map_err(|error| failure(&error))?;
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        file.write(&format!("{text}\n"))?;
    }
    if let Some(file) = html {
        file.write(&report::html::page(&report))?;
    }
    print(&tables::report(&report))?;
    match report.nothing() {
        Some(reason) => Err(failure(&BenchError::Nothing(reason))),
        None => Ok(()),
    }
}

fn options(what: &What) -> Result<Options, Failure> {
    let base = match (what.quick, what.thorough) {
        (true, _) => Options::quick(),
        (_, true) => Options::thorough(),
        _ => Options::standard(),
    };
    let mut options = base.map_err(|error| failure(&error))?;
    if !what.systems.is_empty() {
        options.systems.clone_from(&what.systems);
    }
    if !what.directions.is_empty() {
        let directions = what.directions.iter();
        options.directions = directions.map(|name| (*name).into()).collect();
    }
    if !what.sizes.is_empty() {
        options.sizes = sizes(&what.sizes)?;
    }
    let Options {
        rounds,
        flows,
        destinations,
        trial,
        width,
        generator_cpu,
        node_cpu,
        ..
    } = &mut options;
    set(rounds, what.rounds);
    // As many of the one as of the other, where only one is named.
    let most = bench::MOST_DESTINATIONS;
    let flows_alone = what.flows.map(|flows| flows.min(most));
    set(destinations, what.destinations.or(flows_alone));
    set(flows, what.flows.or(what.destinations));
    set(trial, what.trial);
    set(width, what.width);
    set(generator_cpu, what.generator_cpu);
    set(node_cpu, what.node_cpu);
    if let Some(seconds) = what.tcp {
        options.tcp = (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    if let Some(routes) = what.routes {
        options.routes = match routes {
            RoutesName::Blocks => Routes::Blocks,
            RoutesName::Hosts => Routes::Hosts,
        };
    }
    options.given = given(what)?;
    if options.given.is_some() {
        options.destinations = what.destinations.unwrap_or(1);
        options.tcp = None;
    }
    if let Some(softirq) = what.softirq {
        options.softirq = match softirq {
            SoftirqName::Sender => Softirq::Sender,
            SoftirqName::Node => Softirq::Node,
        };
    }
    options.io = what.io.into();
    options.realtime &= !what.no_realtime;
    options.check().map_err(|error| failure(&error))?;
    Ok(options)
}

fn given(what: &What) -> Result<Option<Given>, Failure> {
    match &what.interfaces[..] {
        [] => Ok(None),
        [from, to] => Ok(Some(Given {
            from: from.clone(),
            to: to.clone(),
            next_hop: what.next_hop,
            source: what.source,
            destination: what.destination,
            force: what.force,
        })),
        _ => Err("--interfaces: name two, as eth1,eth2".to_owned().into()),
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn sizes(names: &[String]) -> Result<Vec<FrameSize>, Failure> {
    let mut sizes = Vec::new();
    for name in names {
        if name.eq_ignore_ascii_case("rfc2544") {
            sizes.extend(FrameSize::RFC_2544);
        } else {
            sizes.push(
                name.parse()
                    .map_err(|error| format!("size '{name}': {error}"))?,
            );
        }
    }
    Ok(sizes)
}

impl From<DirectionName> for Direction {
    fn from(name: DirectionName) -> Self {
        match name {
            DirectionName::Encap => Self::Encap,
            DirectionName::Decap => Self::Decap,
            DirectionName::Path => Self::Path,
        }
    }
}

fn read(file: &Path) -> Result<Report, Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Report::read(&text).map_err(|error| format!("{}: {error}", file.display()).into())
}

fn failure(error: &BenchError) -> Failure {
    format!("bench: {error}").into()
}

fn system(text: &str) -> Result<System, String> {
    text.parse()
}

fn mac(text: &str) -> Result<MacAddr, String> {
    text.parse()
        .map_err(|_| "write it as 02:00:00:00:00:01".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.02..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds from 0.02 to 60".to_owned()),
    }
}
