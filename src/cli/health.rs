//! `underpass health`: the probes of a container's runtime, which run a command and look at its exit
//! code.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::args::HealthArguments;
use super::{Failure, print};
use crate::resources::NodeConfig;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MOST: u64 = 1 << 20;

/// Asks what was asked for, the first failure ends it; all of liveness and readiness if nothing was.
pub fn run(arguments: &HealthArguments) -> Result<(), Failure> {
    let all = !(arguments.live || arguments.ready || arguments.bgp_ready);
    let address = address(arguments)?;
    if arguments.live || all {
        ask(address, "/liveness", "live")?;
    }
    if arguments.ready || all {
        ask(address, "/readiness", "ready")?;
    }
    if arguments.bgp_ready {
        ask(address, "/liveness", "live")?;
        ask_bgp(address)?;
    }
    Ok(())
}

fn address(arguments: &HealthArguments) -> Result<SocketAddr, Failure> {
    let Some(file) = &arguments.config else {
        return Ok(arguments.address);
    };
    let config = NodeConfig::load(file)
        .map_err(|problems| Failure::Told(problems.iter().map(ToString::to_string).collect()))?;
    // A FelixConfiguration may have it serve health where its own file says nothing.
    Ok(config.health.unwrap_or(arguments.address))
}

fn ask(address: SocketAddr, path: &str, word: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::from(format!(
            "not {word}: no answer from {address}{path}: {error}"
        ))
    };
    let answer = get(address, path).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split_whitespace().nth(1).unwrap_or("");
    if code == "200" || code == "204" {
        return print(&format!("{word}\n"));
    }
    let reasons = reasons(body);
    Err(Failure::from(format!("not {word}: {reasons}")))
}

/// As Calico's bird-ready: of readiness, BGP's part alone.
fn ask_bgp(address: SocketAddr) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::from(format!("not ready: no answer from {address}: {error}"))
    };
    let answer = get(address, "/readiness").map_err(failed)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match bgp_part(body) {
        // A node without peers waits for none.
        None => print("BGP is not in use by this node: there is no session to wait for\n"),
        Some(Ok(detail)) => print(&format!("ready: {detail}\n")),
        Some(Err(detail)) => Err(Failure::from(format!("not ready: {detail}"))),
    }
}

/// What is said of BGP, if the node speaks it.
fn bgp_part(body: &str) -> Option<Result<String, String>> {
    let answer: serde_json::Value = serde_json::from_str(body).ok()?;
    let components = answer["components"].as_array()?;
    let bgp = components.iter().find(|part| part["name"] == "bgp")?;
    let detail = bgp["detail"].as_str().unwrap_or_default().to_owned();
    Some(match bgp["ready"].as_bool() {
        Some(true) => Ok(detail),
        _ => Err(detail),
    })
}

/// What keeps a node from being well, of the components that it tells.
fn reasons(body: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let components = answer["components"].as_array();
    let bad = components
        .into_iter()
        .flatten()
        .filter(|component| component["live"] == false || component["ready"] == false);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let bad: Vec<String> = bad
        .map(|component| {
            format!(
                "{}: {}",
                text(&component["name"]),
                text(&component["detail"])
            )
        })
        .collect();
    match bad.is_empty() {
        true => body.trim().to_owned(),
        false => bad.join("; "),
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_that_are_not_well_are_the_reason() {
        let body = r#"{"status":"failed","components":[
            {"name":"worker 0","live":false,"ready":false,"detail":"has ended"},
            {"name":"datastore","live":true,"ready":true,"detail":"in sync"}]}"#;
        assert_eq!(reasons(body), "worker 0: has ended");
        assert_eq!(reasons("nonsense\n"), "nonsense");
    }

    #[test]
    fn bgps_part_is_told_from_the_others() {
        let body = |ready: bool| {
            format!(
                r#"{{"components":[{{"name":"worker 0","ready":false}},
                {{"name":"bgp","ready":{ready},"detail":"BGP not established with 10.0.0.1"}}]}}"#
            )
        };
        let detail = "BGP not established with 10.0.0.1".to_owned();
        assert_eq!(bgp_part(&body(true)), Some(Ok(detail.clone())));
        assert_eq!(bgp_part(&body(false)), Some(Err(detail)));
        assert_eq!(bgp_part(r#"{"components":[]}"#), None);
    }
}
