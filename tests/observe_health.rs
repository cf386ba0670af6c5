//! The HTTP servers over real sockets.

mod observe_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use observe_support::FakeNode;
use underpass::observe::health::HealthServer;

const ANY: &str = "127.0.0.1:0";

#[test]
fn liveness_and_readiness_follow_the_components() {
    let node = Arc::new(FakeNode::new("worker1"));
    let server = HealthServer::start(node.clone(), Some(ANY.parse().unwrap()), None).unwrap();
    let address = server.addresses()[0];

    let (code, body) = get(address, "/liveness");
    assert_eq!(code, 200, "{body}");
    let (code, body) = get(address, "/readiness?verbose");
    assert_eq!(code, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["components"][0]["name"], "datastore");

    node.set_component(true, false, "waits for the first sync");
    assert_eq!(get(address, "/liveness").0, 200);
    let (code, body) = get(address, "/readiness");
    assert_eq!(code, 503);
    assert!(body.contains("waits for the first sync"), "{body}");

    node.set_component(false, false, "its thread has ended");
    assert_eq!(get(address, "/liveness").0, 503);

    assert_eq!(get(address, "/metrics").0, 404);
    assert!(get(address, "/").1.contains("/liveness and /readiness"));
    assert_eq!(request(address, "POST /liveness HTTP/1.1").0, 405);
    assert_eq!(
        request(address, "HEAD /liveness HTTP/1.1"),
        (503, String::new())
    );
}

#[test]
fn one_address_serves_both_and_stops() {
    let node = Arc::new(FakeNode::new("worker1"));
    let address = free_address();
    let server = HealthServer::start(node.clone(), Some(address), Some(address)).unwrap();
    assert_eq!(server.addresses(), [address]);
    assert_eq!(get(address, "/liveness").0, 200);
    let (code, body) = get(address, "/metrics");
    assert_eq!(code, 200);
    assert!(
        body.contains(r#"underpass_packets_total{port="eth0",direction="in"} 100"#),
        "{body}"
    );

    let error = HealthServer::start(node.clone(), None, Some(address))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {address} for metrics: ")),
        "{error}"
    );

    let before = Instant::now();
    drop(server);
    assert!(before.elapsed() < Duration::from_secs(2));
    let again = HealthServer::start(node, None, Some(address));
    assert!(again.is_ok(), "the address is free again");
}

#[test]
fn a_client_that_reads_nothing_delays_nobody_for_long() {
    let node = Arc::new(FakeNode::new("worker1").with_ports(60_000));
    let server = HealthServer::start(node, None, Some(ANY.parse().unwrap())).unwrap();
    let address = server.addresses()[0];
    let mut deaf = TcpStream::connect(address).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (code, body) = get(address, "/metrics");
    assert_eq!(code, 200);
    assert!(
        body.len() > 5_000_000,
        "too small to fill the socket: {}",
        body.len()
    );
    let before = Instant::now();
    drop(server);
    assert!(
        before.elapsed() < Duration::from_secs(20),
        "{:?}",
        before.elapsed()
    );
    drop(deaf);
}

/// Requests that never end, bodies that never come, and silence: more of each than the server takes at a
/// time.
#[test]
fn clients_that_do_not_finish_delay_nobody() {
    let node = Arc::new(FakeNode::new("worker1"));
    let server = HealthServer::start(node, Some(ANY.parse().unwrap()), None).unwrap();
    let address = server.addresses()[0];
    let mut slow = Vec::new();
    for nth in 0..120 {
        let mut stream = TcpStream::connect(address).unwrap();
        let part: &[u8] = match nth % 3 {
            0 => b"",
            1 => b"GET /liveness HTTP/1.1\r\nHost:",
            _ => b"POST /liveness HTTP/1.1\r\nContent-Length: 1000\r\n\r\nbegun",
        };
        // One that had to give its place up already cannot be written to.
        let _ = stream.write_all(part);
        slow.push(stream);
        if nth % 20 == 19 {
            assert_eq!(get(address, "/liveness").0, 200);
        }
    }
    let (code, _) = request(address, "POST /liveness HTTP/1.1\r\nContent-Length: 1000");
    assert_eq!(code, 405);
    assert_eq!(request(address, "no request").0, 400);
    drop(server);
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(address, &format!("GET {path} HTTP/1.1"))
}

fn request(address: SocketAddr, line: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(
        stream,
        "{line}\r\nHost: test\r\nTE: identity\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind(ANY)
        .unwrap()
        .local_addr()
        .unwrap()
}
