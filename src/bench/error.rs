//! What can go wrong in a bench.

use std::io;

/// Why a bench ended early, or why a part of it is left out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// It needs more rights.
    #[error(
        "a bench makes network namespaces and loads BPF programs: run it as root (now: user {user})"
    )]
    NotRoot {
        /// The user that runs it.
        user: u32,
    },
    /// A system call or a file.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// The kernel refuses the load's BPF programs.
    #[error("the load: {0}")]
    Load(String),
    /// A system under test did not come up.
    #[error("{system}: {reason}")]
    System {
        /// Its name.
        system: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A wrong option.
    #[error("{0}")]
    Option(String),
    /// An interface that cannot be used.
    #[error("interface '{interface}': {reason}")]
    Interface {
        /// Its name.
        interface: String,
        /// Why not, and what would be right.
        reason: String,
    },
    /// Every system was left out, or failed in every round.
    #[error("nothing was measured: {0}")]
    Nothing(String),
    /// The user's wish.
    #[error("interrupted")]
    Interrupted,
}

/// The result of a bench's parts.
pub type Result<T, E = BenchError> = std::result::Result<T, E>;

impl BenchError {
    /// An error of a system call or a file.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The same for an errno.
    pub(super) fn errno(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }
}
