//! The `underpass` binary: arguments in, [`underpass::cli`] does the rest.

use std::process::ExitCode;

fn main() -> ExitCode {
    underpass::cli::main()
}
