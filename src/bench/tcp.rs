//! TCP from workload to workload, by iperf3.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::{BenchError, Result};
use super::options::Options;
use super::report::TcpRound;
use super::topology::Topology;

/// Why TCP cannot be measured.
pub fn missing() -> Option<String> {
    let found = std::process::Command::new("iperf3")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    (!found.is_ok_and(|status| status.success())).then(|| "iperf3 is not installed".to_owned())
}

/// One connection from workload A to workload B.
pub fn measure(
    topology: &Topology,
    duration: Duration,
    options: &Options,
    interrupted: &AtomicBool,
) -> Result<TcpRound> {
    let (a, b) = (&topology.a, &topology.b);
    let address = b.workload_address.to_string();
    let mut server = b.workload.command(Some(options.generator_cpu), "iperf3")?;
    let mut server = server
        .args(["-s", "-1", "-B", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(BenchError::io("starting iperf3"))?;
    let result = client(topology, &address, duration, options, interrupted);
    let _ = server.kill();
    let _ = server.wait();
    let _ = a;
    result
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
    let patience = Instant::now() + duration + Duration::from_secs(5);
    loop {
        let mut command = topology
            .a
            .workload
            .command(Some(options.generator_cpu), "iperf3")?;
        command.args(["-c", address, "-B", &source, "-t", &seconds, "-J"]);
        command.args(["--connect-timeout", "1000"]);
        let output = command.output().map_err(BenchError::io("running iperf3"))?;
        match parse(&output.stdout) {
            Ok(round) => return Ok(round),
            Err(_) if interrupted.load(Ordering::Relaxed) => return Err(BenchError::Interrupted),
            // The server may not listen yet.
            Err(_) if Instant::now() < patience => thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error),
        }
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
    let failed = |reason: String| BenchError::Command {
        command: "iperf3 -c".to_owned(),
        output: reason,
    };
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
