//! The verbs of the command line and their tables.

use std::process::ExitCode;

/// Runs the command line and says how it ended.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
