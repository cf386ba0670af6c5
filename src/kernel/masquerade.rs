//! Masquerading by the kernel's nftables, for as long as this process lives.
//!
//! The table is owned (`flags owner`, Linux 5.12): the kernel removes it when the netlink socket that
//! made it closes. That socket is in an `nft -i` which reads from us, and which ends when we do,
//! however we end. Where the kernel has no owned tables, an ordinary one is made: it matches packets
//! from our own device only, so that it does nothing once that is gone, and the next start replaces it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Error, Result};

/// Which forwarded packets get the address of the device that they leave by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MasqueradeRules {
    /// Those from here,
    pub sources: BTreeSet<IpNet>,
    /// unless they go here.
    pub excluded: BTreeSet<IpNet>,
    /// UDP ports of which none gets one as its source.
    pub spared: BTreeSet<u16>,
}

/// A table of masquerading rules. Dropping it removes it.
pub struct Masquerade {
    table: String,
    interface: String,
    owned: bool,
    child: Child,
    commands: Option<Sender<String>>,
    answers: Receiver<String>,
}

/// How long `nft` may take to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the kernel takes as a table's name at most, less what is put before a node's.
const NAME_MAX: usize = 200;

impl Masquerade {
    /// Makes the table `underpass-NAME`, still without rules, for packets that come in by
    /// `interface`; that is to be done by `end`. What an ended process left under that name is replaced.
    ///
    /// # Errors
    /// If there is no `nft`, if it is refused or not done in time, or if another process owns the table.
    pub fn open(name: &str, interface: &str, end: Instant) -> Result<Self> {
        if interface.contains(['"', '\\', '*']) {
            let reason = format!("nftables cannot match an interface called '{interface}'");
            return Err(Error::Invalid(reason));
        }
        let name = name.get(..NAME_MAX).unwrap_or(name);
        let table = format!("underpass-{name}");
        let error = match Self::start(&table, interface, true)?.make(end) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        if Instant::now() >= end {
            return Err(error);
        }
        // By another `nft`: what the first one says late is nobody's answer.
        let ordinary = Self::start(&table, interface, false)?.make(end);
        ordinary.map_err(|_| error)
    }

    /// Puts these rules in the place of those before, all at once.
    pub fn set(&mut self, rules: &MasqueradeRules, end: Instant) -> Result<()> {
        let line = rules_line(&self.table, &self.interface, rules);
        self.command(&line, end).map(drop)
    }

    /// Asks the kernel whether the rules are still there; only a table that is not owned can lose them while
    /// `nft` runs.
    pub fn check(&mut self, end: Instant) -> Result<()> {
        let line = format!("list chain inet {} postrouting", self.table);
        let answers = self.command(&line, end)?;
        if answers.iter().any(|answer| answer.contains("masquerade")) {
            return Ok(());
        }
        Err(Error::Answer {
            what: format!("nftables table {}", self.table),
            reason: "its rules are gone".to_owned(),
        })
    }

    /// Whether `nft` has not ended, with which an owned table's rules are in force.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether the kernel removes the table by itself when this process ends.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    fn start(table: &str, interface: &str, owned: bool) -> Result<Self> {
        let (child, commands, answers) = start()?;
        Ok(Self {
            table: table.to_owned(),
            interface: interface.to_owned(),
            owned,
            child,
            commands: Some(commands),
            answers,
        })
    }

    /// Replaces whatever has the table's name by an empty table and its chain.
    fn make(mut self, end: Instant) -> Result<Self> {
        let table = &self.table;
        let flags = if self.owned { " { flags owner; }" } else { "" };
        let line = format!(
            "add table inet {table}; delete table inet {table}; add table inet {table}{flags}; \
             add chain inet {table} postrouting \
             {{ type nat hook postrouting priority srcnat; policy accept; }}"
        );
        self.command(&line, end)?;
        Ok(self)
    }

    /// Has `nft` carry a line out as one transaction; what it says.
    fn command(&mut self, line: &str, end: Instant) -> Result<Vec<String>> {
        let table = &self.table;
        let what = format!("nftables table {table}");
        let failed = |kind: io::ErrorKind| Error::io(what.clone(), kind);
        // The listing says when the line is done: `nft` itself says nothing of what succeeds.
        let text = format!("{line}\nlist tables inet\n");
        let done = format!("table inet {table}");
        while self.answers.try_recv().is_ok() {}
        let sent = self.commands.as_ref().map(|commands| commands.send(text));
        let Some(Ok(())) = sent else {
            return Err(failed(io::ErrorKind::BrokenPipe));
        };
        let mut said = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) if answer.contains("Error:") => {
                    let reason = answer.trim_start_matches("nft> ").to_owned();
                    return Err(Error::Answer { what, reason });
                }
                Ok(answer) if answer.trim_start_matches("nft> ").trim() == done => return Ok(said),
                Ok(answer) => said.push(answer),
                Err(RecvTimeoutError::Timeout) => return Err(failed(io::ErrorKind::TimedOut)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failed(io::ErrorKind::BrokenPipe));
                }
            }
        }
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        if !self.owned {
            let line = format!("delete table inet {}\n", self.table);
            let deleted = self.commands.as_ref().map(|commands| commands.send(line));
            if let Some(Err(error)) = deleted {
                log::debug!("nftables table {}: {error}", self.table);
            }
        }
        // Its input ends, and so does `nft`.
        self.commands = None;
        let end = Instant::now() + PATIENCE;
        while self.is_alive() {
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Starts `nft`; its words, in either stream, come line by line.
fn start() -> Result<(Child, Sender<String>, Receiver<String>)> {
    let failed = |source| Error::io("starting nft", source);
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new("nft");
    command
        .arg("-i")
        .env("LC_ALL", "C")
        // Signals from a terminal are for us; we end it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    let mut child = command.spawn().map_err(failed)?;
    // The command holds our copies of the writing end; the pipe must end with the child.
    drop(command);
    let Some(stdin) = child.stdin.take() else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let (sender, answers) = channel();
    thread::spawn(move || read(reader, |line| sender.send(line).is_ok()));
    let (commands, receiver) = channel();
    thread::spawn(move || write(stdin, &receiver));
    Ok((child, commands, answers))
}

/// Writes until nobody has commands any more; `nft` may take its time to read them.
fn write(mut stdin: ChildStdin, commands: &Receiver<String>) {
    for command in commands {
        let written = stdin.write_all(command.as_bytes());
        if written.and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

fn read(reader: PipeReader, mut heard: impl FnMut(String) -> bool) {
    for line in BufReader::new(reader).lines() {
        match line {
            Ok(line) if heard(line.clone()) => {}
            _ => return,
        }
    }
}

/// The line that puts these rules in the place of those before.
fn rules_line(table: &str, interface: &str, rules: &MasqueradeRules) -> String {
    let mut line = format!("flush chain inet {table} postrouting");
    for (family, ipv4) in [("ip", true), ("ip6", false)] {
        let sources = elements(&rules.sources, ipv4);
        if sources.is_empty() {
            continue;
        }
        let mut matching = format!(
            "inet {table} postrouting iifname \"{interface}\" {family} saddr {{ {sources} }}"
        );
        let excluded = elements(&rules.excluded, ipv4);
        // Writing to a String does not fail.
        if !excluded.is_empty() {
            let _ = write!(matching, " {family} daddr != {{ {excluded} }}");
        }
        if !rules.spared.is_empty() {
            let (low, high) = widest_range(&rules.spared);
            let _ = write!(
                line,
                "; add rule {matching} meta l4proto udp masquerade to :{low}-{high} fully-random"
            );
        }
        let _ = write!(line, "; add rule {matching} masquerade fully-random");
    }
    line
}

/// The widest range of unprivileged ports that has none of these; nftables takes one range.
fn widest_range(spared: &BTreeSet<u16>) -> (u32, u32) {
    const FIRST: u16 = 1024;
    const LAST: u32 = u16::MAX as u32;
    let (mut widest, mut low) = ((0, 0), u32::from(FIRST));
    let spared = spared.range(FIRST..).copied().map(u32::from);
    for next in spared.chain([LAST + 1]) {
        if next - low > widest.1 - widest.0 {
            widest = (low, next - 1);
        }
        low = next + 1;
    }
    widest
}

/// The prefixes of one family, as elements of a set: none overlaps another.
fn elements(prefixes: &BTreeSet<IpNet>, ipv4: bool) -> String {
    let of_family: Vec<IpNet> = prefixes
        .iter()
        .filter(|net| matches!(net.addr(), IpAddr::V4(_)) == ipv4)
        .copied()
        .collect();
    let texts: Vec<String> = IpNet::aggregate(&of_family)
        .iter()
        .map(ToString::to_string)
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_of_one_family_and_do_not_overlap() {
        let nets = ["10.1.0.0/16", "10.0.0.0/8", "fd00::/16", "192.168.0.0/16"];
        let nets = nets.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(elements(&nets, true), "10.0.0.0/8, 192.168.0.0/16");
        assert_eq!(elements(&nets, false), "fd00::/16");
        assert_eq!(elements(&BTreeSet::new(), true), "");
    }

    #[test]
    fn names_that_nftables_would_take_for_more_are_refused() {
        for name in ["eth*", "e\"", "e\\"] {
            assert!(matches!(
                Masquerade::open("n", name, Instant::now()),
                Err(Error::Invalid(_))
            ));
        }
    }

    #[test]
    fn udp_gets_ports_of_the_widest_range_that_spares_some() {
        let widest = |spared: &[u16]| widest_range(&spared.iter().copied().collect());
        assert_eq!(widest(&[4789]), (4790, 65535));
        assert_eq!(widest(&[53, 4789, 8472]), (8473, 65535));
        assert_eq!(widest(&[40000]), (1024, 39999));
        assert_eq!(widest(&[1024, 65535]), (1025, 65534));
        assert_eq!(widest(&[20000, 50000]), (20001, 49999));

        let mut rules = MasqueradeRules {
            sources: ["10.0.0.0/8".parse().unwrap()].into(),
            excluded: BTreeSet::new(),
            spared: [4789].into(),
        };
        let from = "add rule inet t postrouting iifname \"up0\" ip saddr { 10.0.0.0/8 }";
        let line = rules_line("t", "up0", &rules);
        let udp = format!("{from} meta l4proto udp masquerade to :4790-65535 fully-random");
        let all = format!("{from} masquerade fully-random");
        assert_eq!(
            line,
            format!("flush chain inet t postrouting; {udp}; {all}")
        );
        rules.spared.clear();
        let line = rules_line("t", "up0", &rules);
        assert_eq!(line, format!("flush chain inet t postrouting; {all}"));
    }
}
