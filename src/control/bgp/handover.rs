//! What a speaker leaves for the one that the node's next run starts: which peers have sessions with it,
//! and so keep its routes for a while when it goes without a word (RFC 4724).
//!
//! It is a file beside the node's control socket, on a file system that a reboot empties. It is written
//! while sessions are up, so that a process that was killed leaves it, too; how old it is says whether the
//! peers may still wait.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::bgp::settings::PeerName;

/// How often an unchanged file is written again, so that it says how long ago the process lived.
const REFRESH: Duration = Duration::from_secs(5);

/// The file, and what was written last.
#[derive(Debug, Default)]
pub struct Handover {
    file: Option<PathBuf>,
    written: Option<Written>,
    failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// Time since the machine's start, in seconds.
    at: u64,
    peers: BTreeSet<String>,
}

impl Handover {
    /// The file of the node with this control socket.
    pub fn beside(socket: &Path) -> Self {
        Self {
            file: Some(socket.with_extension("bgp")),
            ..Self::default()
        }
    }

    /// The peers that an earlier run had sessions with no longer than `patience` ago.
    pub fn take(&self, patience: Duration) -> Option<BTreeSet<PeerName>> {
        let text = fs::read(self.file.as_ref()?).ok()?;
        let Written { at, peers } = serde_json::from_slice(&text).ok()?;
        let age = since_boot().checked_sub(at)?;
        let known = age <= patience.as_secs() && !peers.is_empty();
        known.then(|| peers.into_iter().map(PeerName::from).collect())
    }

    /// These peers have sessions now; to be called about once a second.
    pub fn keep(&mut self, peers: &BTreeSet<PeerName>) {
        let now = Written {
            at: since_boot(),
            peers: peers.iter().map(ToString::to_string).collect(),
        };
        let fresh = self.written.as_ref().is_some_and(|before| {
            before.peers == now.peers && now.at < before.at + REFRESH.as_secs()
        });
        let Some(file) = self.file.as_ref().filter(|_| !fresh) else {
            return;
        };
        match write(file, &now) {
            Ok(()) => self.failed = false,
            Err(error) if !std::mem::replace(&mut self.failed, true) => log::warn!(
                "BGP: {}: {error}: after a restart peers will not be told of it",
                file.display()
            ),
            Err(_) => {}
        }
        self.written = Some(now);
    }

    /// Nobody keeps anything.
    pub fn clear(&mut self) {
        self.written = None;
        if let Some(file) = &self.file {
            // There may be none.
            let _ = fs::remove_file(file);
        }
    }
}

fn write(file: &Path, what: &Written) -> io::Result<()> {
    let fresh = file.with_extension("bgp.new");
    fs::write(&fresh, serde_json::to_vec(what)?)?;
    fs::rename(fresh, file)
}

/// Goes on while the machine sleeps, and is no time of day that somebody sets.
fn since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_run_knows_who_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let beside = || Handover::beside(&directory.path().join("node.sock"));
        let patience = Duration::from_secs(120);
        assert_eq!(beside().take(patience), None);
        let peers = BTreeSet::from(["Mesh_10_0_0_2".into(), "Global_10_0_0_9".into()]);
        let mut first = beside();
        first.keep(&peers);
        assert_eq!(beside().take(patience), Some(peers));
        let file = directory.path().join("node.bgp");
        let old = Written {
            at: since_boot().saturating_sub(121),
            peers: BTreeSet::from(["Mesh_10_0_0_2".to_owned()]),
        };
        if old.at > 0 {
            write(&file, &old).unwrap();
            assert_eq!(beside().take(patience), None, "nobody waits so long");
        }
        first.keep(&BTreeSet::new());
        assert_eq!(beside().take(patience), None, "nobody was there");
        fs::write(&file, "{").unwrap();
        assert_eq!(beside().take(patience), None);
        first.clear();
        assert!(!file.exists());
    }
}
