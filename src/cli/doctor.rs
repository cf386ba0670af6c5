//! `underpass doctor`.

use std::path::Path;
use std::time::Duration;

use super::args::{DoctorArguments, Format, NodeArguments};
use super::client::Client;
use super::{Failure, Functions, print, print_json};
use crate::doctor::{self, Options, Report, Severity};
use crate::observe::protocol::{Reply, Request};
use crate::resources::NodeConfig;

/// Where a node's configuration is by default.
const CONFIG: &str = "/etc/underpass/node.yaml";

/// How long the node's longest probe takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at everything and prints what was found; fails if something is faulty.
pub fn run(arguments: &DoctorArguments, functions: &Functions) -> Result<(), Failure> {
    let file = arguments.config.as_deref();
    let file = file.or_else(|| Some(Path::new(CONFIG)).filter(|file| file.exists()));
    let config = file
        .map(NodeConfig::load)
        .transpose()
        .map_err(|problems| Failure::Told(problems.iter().map(ToString::to_string).collect()))?;
    let client = file.and_then(|file| running(file, functions));
    let ask = |request: &Request| match &client {
        Some(client) => client.ask_within(request, PATIENCE).map_err(sentence),
        None => Err("the node does not run".to_owned()),
    };
    let options = Options {
        config: config.as_ref(),
        node: client.is_some().then_some(&ask),
        try_xdp: !arguments.no_try,
    };
    let report = doctor::examine(&options)?;
    match arguments.output {
        Format::Json => print_json(&report)?,
        Format::Table => print(&text(&report, arguments.all))?,
    }
    match report.worst() {
        Severity::Fault => Err(Failure::Told(Vec::new())),
        _ => Ok(()),
    }
}

/// The node of a configuration, if it answers.
fn running(config: &Path, functions: &Functions) -> Option<Client> {
    let node = NodeArguments {
        config: Some(config.to_owned()),
        ..NodeArguments::default()
    };
    let client = Client::find(&node, functions).ok()?;
    let answer = client.ask(&Request::Status).ok()?;
    matches!(answer, Reply::Status(_)).then_some(client)
}

fn sentence(failure: Failure) -> String {
    match failure {
        Failure::Told(lines) => lines.join("; "),
        Failure::Said(text) => text,
        Failure::OutputClosed => "the output is closed".to_owned(),
    }
}

/// A line a finding, and what to do on the next; what is in order is counted only, unless asked for.
fn text(report: &Report, all: bool) -> String {
    let mut text = String::new();
    let mut fine = 0;
    for finding in &report.findings {
        if finding.severity == Severity::Ok {
            fine += 1;
            if !all {
                continue;
            }
        }
        text += &format!(
            "{:<8} {:<14} {}: {}\n",
            finding.severity, finding.check, finding.subject, finding.found
        );
        if !finding.remedy.is_empty() {
            text += &format!("{:<23} → {}\n", "", finding.remedy);
        }
    }
    let count = |severity| {
        let all = report.findings.iter();
        all.filter(|finding| finding.severity == severity).count()
    };
    text += &format!(
        "{fine} in order, {} note(s), {} warning(s), {} fault(s)\n",
        count(Severity::Note),
        count(Severity::Warning),
        count(Severity::Fault)
    );
    text
}
