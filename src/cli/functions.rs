//! What the command line calls in the rest of the program.

use std::path::{Path, PathBuf};

use crate::control::{self, RunOptions};
use crate::resources::NodeConfig;

/// The node's functions behind the verbs that are no question to a running node.
///
/// Plain function pointers, so that the command line is tested without a node.
#[derive(Debug, Clone, Copy)]
pub struct Functions {
    /// Runs a node until it is told to stop; an error is one sentence.
    pub run: fn(&RunOptions) -> Result<(), String>,
    /// Checks a node's configuration and resources: a summary, or all that is wrong, a line each
    /// (`file:line: field: what would be right`).
    pub check: fn(&Path) -> Result<String, Vec<String>>,
    /// Where the node of a configuration has its control socket.
    pub control_socket: fn(&Path) -> Result<PathBuf, String>,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            run: control::run,
            check,
            control_socket,
        }
    }
}

fn check(config: &Path) -> Result<String, Vec<String>> {
    let report = control::check::check(config);
    if report.is_ok() {
        let but = match report.without_datastore {
            true => "; what is in etcd was not looked at",
            false => "",
        };
        return Ok(format!("{report}{}: in order{but}", config.display()));
    }
    Err(report.to_string().lines().map(str::to_owned).collect())
}

fn control_socket(config: &Path) -> Result<PathBuf, String> {
    let config = NodeConfig::load(config).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    Ok(config.control_socket())
}
