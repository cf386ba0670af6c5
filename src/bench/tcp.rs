//! TCP from workload to workload, by iperf3.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::{BenchError, Result};
use super::options::Options;
use super::report::TcpRound;
use super::topology::{Site, Topology};

/// Why TCP cannot be measured.
pub fn missing() -> Option<String> {
    let found = std::process::Command::new("iperf3")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    (!found.is_ok_and(|status| status.success())).then(|| "iperf3 is not installed".to_owned())
}

/// One connection from workload A to workload B. Its ends may use every CPU, as neither is under test.
pub fn measure(
    topology: &Topology,
    duration: Duration,
    options: &Options,
    interrupted: &AtomicBool,
) -> Result<TcpRound> {
    let address = topology.b.workload_address.to_string();
    let mut server = Ended(
        iperf3(&topology.b, options)?
            .args(["-s", "-1", "-B", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(BenchError::io("starting iperf3"))?,
    );
    // The server may not listen yet, and a neighbour not be known.
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match client(topology, &address, duration, options, interrupted) {
            Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
            Err(_) if Instant::now() < patience && server.runs() => {
                thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

fn client(
    topology: &Topology,
    address: &str,
    duration: Duration,
    options: &Options,
    interrupted: &AtomicBool,
) -> Result<TcpRound> {
    let seconds = duration.as_secs().max(1).to_string();
    let source = topology.a.workload_address.to_string();
    let mut client = Ended(
        iperf3(&topology.a, options)?
            .args(["-c", address, "-B", &source, "-t", &seconds, "-J"])
            .args(["--connect-timeout", "1000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(BenchError::io("starting iperf3"))?,
    );
    let end = Instant::now() + duration + Duration::from_secs(5);
    // Its answer is a few kilobytes, which the pipe holds.
    while client.runs() {
        if interrupted.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        if Instant::now() > end {
            return Err(failed("no answer in time".to_owned()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut answer = Vec::new();
    if let Some(mut output) = client.0.stdout.take() {
        output
            .read_to_end(&mut answer)
            .map_err(BenchError::io("reading iperf3's answer"))?;
    }
    parse(&answer)
}

/// iperf3 at a site's workload; without the real-time priority that it would inherit, as its two ends
/// would starve each other.
fn iperf3(site: &Site, options: &Options) -> Result<Command> {
    let mut command = if options.realtime {
        let mut command = site.workload.command(None, "chrt")?;
        command.args(["--other", "0", "nice", "-n", "-20", "iperf3"]);
        command
    } else {
        site.workload.command(None, "iperf3")?
    };
    command.stdin(Stdio::null());
    Ok(command)
}

/// A process that is ended when this is dropped.
struct Ended(Child);

impl Ended {
    fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Deserialize)]
struct Answer {
    end: Option<End>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
    #[serde(default)]
    retransmits: u64,
}

fn parse(output: &[u8]) -> Result<TcpRound> {
    let answer: Answer =
        serde_json::from_slice(output).map_err(|error| failed(error.to_string()))?;
    if let Some(error) = answer.error {
        return Err(failed(error));
    }
    match answer.end {
        Some(End {
            sum_sent: Some(sent),
            sum_received: Some(received),
        }) => Ok(TcpRound {
            bits: received.bits_per_second,
            retransmits: sent.retransmits,
        }),
        _ => Err(failed("no sums in its answer".to_owned())),
    }
}

fn failed(reason: String) -> BenchError {
    BenchError::Command {
        command: "iperf3 -c".to_owned(),
        output: reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = br#"{"end":{"sum_sent":{"bits_per_second":2e9,"retransmits":7,"bytes":1},
            "sum_received":{"bits_per_second":1.5e9,"bytes":1}}}"#;
        let round = parse(answer).unwrap();
        assert_eq!((round.bits, round.retransmits), (1.5e9, 7));
        let error = parse(br#"{"start":{},"end":{},"error":"unable to connect"}"#).unwrap_err();
        assert!(error.to_string().contains("unable to connect"), "{error}");
        assert!(parse(b"").is_err());
    }
}
