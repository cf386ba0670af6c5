//! The verbs of the command line and their tables.

mod args;
mod bench;
mod bgp;
mod boxed;
mod capture;
mod client;
mod counters;
mod doctor;
mod documents;
mod fdb;
mod functions;
mod health;
mod ipam;
mod node_status;
mod probe;
mod resource;
mod routes;
mod status;
mod table;
mod workload;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

pub use crate::control::RunOptions;
use args::{Arguments, Format, NodeVerb, Switch, Verb};
use client::Client;
pub use functions::Functions;

use crate::observe::protocol::{Reply, Request};

/// The exit code of a failure.
const FAILED: u8 = 1;

/// The exit code of a command line that makes no sense.
const USAGE: u8 = 2;

/// Runs the command line and says how it ended: 0 well, 1 failed, 2 a wrong command line.
pub fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // Container runtimes start plugins without any argument.
    if arguments.len() == 1 && std::env::var_os(crate::workload::cni::COMMAND).is_some() {
        arguments.push("cni".into());
    }
    main_with(&Functions::default(), arguments)
}

/// [`main`] with given arguments, the first being the program's name, and a given node.
pub fn main_with(
    functions: &Functions,
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors and go to standard output.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(functions, arguments.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Told(lines)) => {
            for line in lines {
                eprintln!("underpass: {line}");
            }
            ExitCode::from(FAILED)
        }
        Err(Failure::Said(text)) => {
            eprintln!("{text}");
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(functions: &Functions, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run {
            config,
            allow_default_route,
            log,
        } => {
            start_log();
            let options = RunOptions {
                config,
                allow_default_route,
                log,
            };
            (functions.run)(&options).map_err(Failure::from)
        }
        Verb::Check { config } => {
            let summary = (functions.check)(&config).map_err(Failure::Told)?;
            print(&format!("{}\n", summary.trim_end()))
        }
        Verb::Doctor(arguments) => doctor::run(&arguments, functions),
        Verb::Routes {
            node,
            output,
            watch,
            interval,
        } => {
            let client = Client::find(&node, functions)?;
            routes::show(&client, output, watch.then_some(interval))
        }
        Verb::Counters { node, output, all } => {
            match Client::find(&node, functions)?.ask(&Request::Counters)? {
                Reply::Counters(report) if output == Format::Json => print_json(&report),
                Reply::Counters(report) => print(&counters::text(&report, all)),
                other => Err(client::unexpected(&other)),
            }
        }
        Verb::Fdb {
            node,
            bridge,
            output,
        } => fdb::show(&Client::find(&node, functions)?, bridge.as_deref(), output),
        Verb::Status { node, output } => {
            match Client::find(&node, functions)?.ask(&Request::Status)? {
                Reply::Status(report) if output == Format::Json => print_json(&report),
                Reply::Status(report) => print(&status::text(&report)),
                other => Err(client::unexpected(&other)),
            }
        }
        Verb::Node(NodeVerb::Status { node }) => {
            let answer = Client::find(&node, functions).and_then(|c| c.ask(&Request::Status));
            match answer.map_err(node_status::not_running)? {
                Reply::Status(report) => print(&node_status::text(&report)),
                other => Err(client::unexpected(&other)),
            }
        }
        Verb::Workload(verb) => workload::run(&verb, functions),
        Verb::Cni => match workload::cni()? {
            true => Ok(()),
            // What is wrong has been told on standard output, where a runtime looks.
            false => Err(Failure::Told(Vec::new())),
        },
        Verb::Bgp(verb) => bgp::run(&verb, functions),
        Verb::Health(arguments) => health::run(&arguments),
        Verb::ProbeMtu { node, far, output } => {
            probe::run(&Client::find(&node, functions)?, far, output)
        }
        Verb::FastPath { node, switch } => {
            let on = switch == Switch::On;
            match Client::find(&node, functions)?.ask(&Request::FastPath { on })? {
                Reply::Status(_) => Ok(()),
                other => Err(client::unexpected(&other)),
            }
        }
        Verb::Capture { node, capture } => capture::run(Client::find(&node, functions)?, &capture),
        Verb::Ipam(arguments) => ipam::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::BenchEnter(arguments) => Err(bench::enter(&arguments)),
        Verb::BenchWire { interfaces, io } => bench::wire(&interfaces, io),
        Verb::Resource(verb) => resource::run(verb),
        Verb::Completions { shell } => documents::completions(shell),
        Verb::Man { directory } => documents::manual(&directory),
        Verb::Version => print(concat!("underpass ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Why a verb ended early.
#[derive(Debug)]
enum Failure {
    /// What to tell the user, a line each.
    Told(Vec<String>),
    /// What to tell the user in the very words of another program.
    Said(String),
    /// Nobody reads the output any more, as with `underpass routes | head`: no fault of ours.
    OutputClosed,
}

impl From<String> for Failure {
    fn from(line: String) -> Self {
        Self::Told(vec![line])
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(output_failure)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    print(&format!("{text}\n"))
}

fn output_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => format!("cannot write the output: {error}").into(),
    }
}

/// Messages go to standard error; tiny_http's own say nothing that an
/// operator can use.
fn start_log() {
    // How much is printed is decided by `log::set_max_level`, once the configuration is known.
    let started = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Trace)
        .filter_module("tiny_http", log::LevelFilter::Off)
        .try_init();
    if started.is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
