//! The `workloadInterfaces` of a node's configuration: ports that are opened as workloads come.

use serde::Deserialize;

use super::config::Io;
use super::problem::Fault;

/// Interfaces that are opened when a WorkloadEndpoint of this node names them, and closed when it, or
/// they, go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadInterfaces {
    /// What their names begin with: one prefix, or several with commas between, as Felix's
    /// `interfacePrefix`.
    pub prefix: String,
    /// How many may be open at once; the memory for their packets is reserved at the start.
    #[serde(default = "most")]
    pub max: usize,
    /// How their frames are moved.
    #[serde(default)]
    pub io: Io,
}

const MOST: std::ops::RangeInclusive<usize> = 1..=4096;

/// As many as a kubelet runs pods.
fn most() -> usize {
    110
}

impl WorkloadInterfaces {
    /// Whether an interface is one of these by its name.
    pub fn matches(&self, interface: &str) -> bool {
        self.prefixes().any(|prefix| interface.starts_with(prefix))
    }

    /// What the names of interfaces that are made for it begin with.
    pub fn first_prefix(&self) -> &str {
        self.prefixes().next().unwrap_or_default()
    }

    fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefix.split(',').map(str::trim)
    }

    pub(super) fn validate(&self, faults: &mut Vec<Fault>) {
        if let Some(bad) = self.prefixes().find(|prefix| !is_prefix(prefix)) {
            faults.push(Fault::new(
                "workloadInterfaces.prefix",
                format!("'{bad}' is not the beginning of an interface's name"),
                "write what the interfaces' names begin with, such as cali",
            ));
        }
        if !MOST.contains(&self.max) {
            faults.push(Fault::new(
                "workloadInterfaces.max",
                format!("{} is no number of interfaces", self.max),
                format!("write a number from {} to {}", MOST.start(), MOST.end()),
            ));
        }
    }
}

/// A name has 15 bytes at most, and the prefix is not all of it.
fn is_prefix(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..15).contains(&text.len()) && text.bytes().all(good)
}
