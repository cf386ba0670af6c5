//! What keeps this machine from carrying packets, or from doing it well, and what to do about it:
//! `underpass doctor`.
//!
//! Each part looks at one thing and adds findings. XDP is judged by trying it, paths to other nodes by the
//! running node's own packets; nothing that is tried stays.

mod devices;
mod machine;
mod paths;
mod resources;
mod settings;
mod xdp;

use std::fmt;

use serde::Serialize;

use crate::control::resolve::resolve;
use crate::datastore::{self, Selection};
use crate::kernel::Mirror;
use crate::observe::protocol::{Reply, Request};
use crate::resources::{ClusterState, NodeConfig, Settings};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works; it could be better, or could not be looked at.
    Note,
    /// Works in part, or not for everybody.
    Warning,
    /// Does not work.
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The check, one word for programs, such as `rp_filter`.
    pub check: &'static str,
    /// What was looked at: a device, a node, `machine`, …
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub remedy: String,
}

/// All that was found, in the order in which it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

/// Asks the running node; an error is one sentence.
pub type Ask<'a> = &'a dyn Fn(&Request) -> Result<Reply, String>;

/// What to look at.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The node's configuration; without it only the machine is looked at.
    pub config: Option<&'a NodeConfig>,
    /// How to ask the node, if it runs.
    pub node: Option<Ask<'a>>,
    /// Whether XDP programs and AF_XDP sockets are tried. On some drivers that takes the link down for a
    /// moment.
    pub try_xdp: bool,
}

/// Looks at everything. An error is a sentence: the kernel cannot be asked.
pub fn examine(options: &Options<'_>) -> Result<Report, String> {
    let mirror = Mirror::open().map_err(|error| error.to_string())?;
    let mut report = Report::default();
    machine::examine(&mut report, options.config, &mirror);
    let state = options.config.map(|config| state(&mut report, config));
    let scene = Scene {
        options,
        mirror: &mirror,
        state: state.as_ref(),
    };
    devices::examine(&mut report, &scene);
    settings::examine(&mut report, &scene);
    if let (Some(config), Some(state)) = (options.config, &state) {
        resources::examine(&mut report, config, state, &mirror);
        let wanted = resolve(state, &config.node);
        let vxlan = Settings::new(config, state).vxlan_port;
        paths::examine(&mut report, options, &wanted, vxlan);
    }
    Ok(report)
}

/// What the parts look at.
struct Scene<'a> {
    options: &'a Options<'a>,
    mirror: &'a Mirror,
    /// What the datastore holds.
    state: Option<&'a ClusterState>,
}

/// What the datastore holds; what is wrong with it is a finding.
fn state(report: &mut Report, config: &NodeConfig) -> ClusterState {
    let mut state = ClusterState::default();
    let listed = datastore::open(&config.datastore)
        .and_then(|datastore| datastore.list(&Selection::resources()));
    match listed {
        Ok(list) => {
            for problem in &list.problems {
                report.add(
                    Severity::Fault,
                    "resources",
                    "datastore",
                    problem.to_string(),
                    "mend the resource; until then it is as if it were not there",
                );
            }
            list.resources()
                .for_each(|resource| state.put(resource.clone()));
        }
        Err(error) => report.add(
            Severity::Fault,
            "datastore",
            "datastore",
            error.to_string(),
            "have the datastore answer, or mend datastore: in the configuration",
        ),
    }
    state
}

impl Report {
    /// Adds a finding.
    fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            check,
            subject: subject.into(),
            found: found.into(),
            remedy: remedy.into(),
        });
    }

    /// Adds that something is as it should be.
    fn ok(&mut self, check: &'static str, subject: impl Into<String>, found: impl Into<String>) {
        self.add(Severity::Ok, check, subject, found, "");
    }

    /// The worst of all; all is well where nothing was looked at.
    pub fn worst(&self) -> Severity {
        let all = self.findings.iter().map(|finding| finding.severity);
        all.max().unwrap_or(Severity::Ok)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        })
    }
}
