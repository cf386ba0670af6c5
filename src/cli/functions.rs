//! What the command line calls in the rest of the program.

use std::path::{Path, PathBuf};

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

/// How to run a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The node's configuration.
    pub config: PathBuf,
    /// Whether the uplink may be the machine's default route.
    pub allow_default_route: bool,
}

/// What is said where the program was built without the node's own modules.
const NO_NODE: &str = "this build of underpass has no node in it";

impl Default for Functions {
    fn default() -> Self {
        Self {
            run: |_| Err(NO_NODE.to_owned()),
            check: |_| Err(vec![NO_NODE.to_owned()]),
            control_socket: |_| Err(NO_NODE.to_owned()),
        }
    }
}
