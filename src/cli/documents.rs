//! What is generated from the definition of the command line: completions and manual pages.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Arguments;
use super::{Failure, print};

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut command = Arguments::command();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "underpass", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Writes `underpass.1` and a page for each verb into a directory, which is made if it is not there.
pub(super) fn manual(directory: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::from(format!(
            "cannot write into {}: {error}",
            directory.display()
        ))
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let command = Arguments::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).map_err(failed)?;
    print(&format!(
        "wrote the manual's pages into {}\n",
        directory.display()
    ))
}
