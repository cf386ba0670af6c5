//! What systemd is told: that the node is ready, that it stops, and that it still does its work
//! (sd_notify(3), sd_watchdog_enabled(3)). Without systemd nothing is told to anybody.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who started this process and wants to hear from it.
#[derive(Debug, Default)]
pub struct Supervisor {
    notify: Option<(UnixDatagram, SocketAddr)>,
    watchdog: bool,
}

impl Supervisor {
    /// The one that the environment names. One that cannot be reached is told of in the log.
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        match open(&name) {
            Ok(notify) => Self {
                notify: Some(notify),
                watchdog: watches_us(),
            },
            Err(error) => {
                log::warn!(
                    "NOTIFY_SOCKET {}: {error}; systemd is told nothing",
                    name.display()
                );
                Self::default()
            }
        }
    }

    /// The node is not ready yet, for that reason, and is to be left so for at least that long.
    pub fn starting(&self, status: &str, patience: Duration) {
        let microseconds = patience.as_micros();
        self.tell(&format!(
            "EXTEND_TIMEOUT_USEC={microseconds}\nSTATUS=not ready: {status}"
        ));
    }

    /// The node forwards.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The node's parts are all alive. To be said more often than the unit's WatchdogSec.
    pub fn alive(&self) {
        if self.watchdog {
            self.tell("WATCHDOG=1");
        }
    }

    /// The node stops.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, what: &str) {
        let Some((socket, address)) = &self.notify else {
            return;
        };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
            log::debug!("systemd is not told {what:?}: {error}");
        }
    }
}

/// A name that begins with @ is not in the file system (unix(7), abstract).
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // Nothing that systemd does may hold the node up.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Whether a watchdog waits for this process, not for one that it was inherited from.
fn watches_us() -> bool {
    let own = std::process::id().to_string();
    let meant = env::var("WATCHDOG_PID").is_ok_and(|pid| pid != own);
    env::var_os("WATCHDOG_USEC").is_some() && !meant
}
