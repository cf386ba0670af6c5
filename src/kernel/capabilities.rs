//! What this machine or this process lacks to run underpass.

use std::fs::{self, OpenOptions};
use std::io;

use socket2::{Domain, Socket, Type};

/// One thing that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// CAP_NET_ADMIN: to change links, addresses and routes.
    NetAdmin,
    /// CAP_NET_RAW: to open AF_XDP sockets.
    NetRaw,
    /// CAP_BPF (or CAP_SYS_ADMIN): to load the XDP program.
    Bpf,
    /// CAP_PERFMON (or CAP_SYS_ADMIN): to load programs that compute with pointers into packets.
    Perfmon,
    /// AF_XDP sockets.
    AfXdp,
    /// `/dev/net/tun`.
    Tun,
}

/// A lack, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub need: Need,
    /// What is missing, why it matters and what to do.
    pub sentence: String,
}

/// Everything that is missing here, in the order in which to mend it; empty if all is well.
pub fn missing() -> Vec<Missing> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut missing = missing_capabilities(&status);
    // The kernel asks for the capability before anything else, and the lack of that is told already.
    if !missing.iter().any(|lack| lack.need == Need::NetRaw) {
        missing.extend(check(Need::AfXdp, af_xdp()));
    }
    missing.extend(check(Need::Tun, tun()));
    missing
}

/// Whether this process may lock as much memory as it wants (CAP_IPC_LOCK).
pub fn may_lock_memory() -> bool {
    // linux/capability.h
    const IPC_LOCK: u64 = 1 << 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status) & IPC_LOCK != 0
}

/// The effective capabilities in `/proc/PID/status`, as bits.
fn effective(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// The effective capabilities that `/proc/PID/status` does not list, of those that we need.
fn missing_capabilities(status: &str) -> Vec<Missing> {
    // linux/capability.h
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let effective = effective(status);
    [
        (Need::NetAdmin, NET_ADMIN),
        (Need::NetRaw, NET_RAW),
        (Need::Bpf, BPF | SYS_ADMIN),
        (Need::Perfmon, PERFMON | SYS_ADMIN),
    ]
    .into_iter()
    .filter(|(_, either)| effective & either == 0)
    .map(|(need, _)| Missing {
        need,
        sentence: capability_sentence(need),
    })
    .collect()
}

fn capability_sentence(need: Need) -> String {
    let (capability, purpose) = match need {
        Need::NetAdmin => ("CAP_NET_ADMIN", "change links, addresses and routes"),
        Need::NetRaw => ("CAP_NET_RAW", "open AF_XDP sockets"),
        Need::Perfmon => (
            "CAP_PERFMON",
            "load an XDP program that computes where in a packet a field is",
        ),
        _ => ("CAP_BPF", "load the XDP program"),
    };
    format!("This process may not {purpose}: run it as root, or give it {capability}.")
}

fn check(need: Need, tried: io::Result<()>) -> Option<Missing> {
    let error = tried.err()?;
    let sentence = match (need, error.raw_os_error()) {
        (Need::AfXdp, Some(libc::EAFNOSUPPORT)) => {
            "This kernel has no AF_XDP sockets: use one built with CONFIG_XDP_SOCKETS=y, or only \
             TUN and TAP ports."
                .to_owned()
        }
        (Need::AfXdp, _) => format!(
            "An AF_XDP socket cannot be opened ({error}): a sandbox or seccomp filter may forbid \
             it; allow socket family 44."
        ),
        (_, Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
            "There is no /dev/net/tun: load the kernel module with 'modprobe tun', or pass the \
             device into the container."
                .to_owned()
        }
        _ => format!("/dev/net/tun cannot be opened ({error}): run as root, or allow the device."),
    };
    Some(Missing { need, sentence })
}

/// Opens and closes an AF_XDP socket.
fn af_xdp() -> io::Result<()> {
    Socket::new(Domain::from(libc::AF_XDP), Type::from(libc::SOCK_RAW), None).map(drop)
}

fn tun() -> io::Result<()> {
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    options.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let needs = |mask: &str| {
            let status = format!("CapPrm:\t000001ffffffffff\nCapEff:\t{mask}\nCapBnd:\t0\n");
            let missing = missing_capabilities(&status);
            missing.iter().map(|m| m.need).collect::<Vec<_>>()
        };
        assert_eq!(needs("000001ffffffffff"), []);
        assert_eq!(
            needs("0000000000000000"),
            [Need::NetAdmin, Need::NetRaw, Need::Bpf, Need::Perfmon]
        );
        assert_eq!(
            needs("0000000000001000"),
            [Need::NetRaw, Need::Bpf, Need::Perfmon]
        );
        assert_eq!(needs("0000008000003000"), [Need::Perfmon]);
        // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
        assert_eq!(needs("0000000000203000"), []);
        assert_eq!(missing_capabilities("").len(), 4);
    }

    #[test]
    fn each_lack_has_a_sentence_of_its_own() {
        let error = |code| Err(io::Error::from_raw_os_error(code));
        let sentence = |need, code| check(need, error(code)).map(|missing| missing.sentence);
        assert!(
            sentence(Need::AfXdp, libc::EAFNOSUPPORT)
                .is_some_and(|s| s.contains("CONFIG_XDP_SOCKETS"))
        );
        assert!(sentence(Need::AfXdp, libc::EPERM).is_some_and(|s| s.contains("seccomp")));
        assert!(sentence(Need::Tun, libc::ENOENT).is_some_and(|s| s.contains("modprobe tun")));
        assert!(sentence(Need::Tun, libc::EACCES).is_some_and(|s| s.contains("root")));
        assert_eq!(check(Need::Tun, Ok(())), None);
    }
}
