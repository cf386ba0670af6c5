//! Which packets are stolen, and who may have a program on a device.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use underpass::packet::{Batch, FramePool};
use underpass::port::xdp::{Role, Steering, XdpMode, XdpModeWanted, XdpPort};
use underpass::port::{Port, PortError};

use crate::lab::{PATIENCE, Wire, frame, memory, open, receive, run, sh, try_sh, veth};

/// A steered uplink, and what the kernel gets of it.
struct Uplink {
    port: XdpPort,
    pool: FramePool,
    steering: Steering,
    kernel: Wire,
    far: Wire,
}

impl Uplink {
    fn new(wanted: XdpModeWanted) -> Self {
        veth(0, 1);
        let (umem, mut pool) = memory(1);
        let port = open("near0", 0..1, &umem, &mut pool).unwrap();
        let mut steering = Steering::attach("near0", Role::Uplink, wanted).unwrap();
        steering
            .set_node_addresses(&addresses(&["10.30.0.1", "fd00::1"]))
            .unwrap();
        steering
            .set_local_prefixes(&prefixes(&["192.168.2.0/26", "fd01::/64"]))
            .unwrap();
        steering.register(0, port.socket_fd(0).unwrap()).unwrap();
        Self {
            port,
            pool,
            steering,
            kernel: Wire::near("near0"),
            far: Wire::far("far0"),
        }
    }

    /// Sends `bytes` from afar and says who got them: `s`, stolen; `p`, passed to the kernel.
    fn fate(&mut self, bytes: &[u8]) -> &'static str {
        self.far.send(bytes);
        // The kernel's stack takes an 802.1Q tag off before it shows a frame to a packet socket.
        let untagged = match bytes.get(12..14) {
            Some([0x81, 0x00]) => [&bytes[..12], &bytes[16..]].concat(),
            _ => bytes.to_vec(),
        };
        let end = Instant::now() + PATIENCE;
        let mut batch = Batch::new();
        while Instant::now() < end {
            self.port.rx(&mut self.pool, &mut batch).unwrap();
            let stolen = batch.iter().any(|frame| frame.bytes() == bytes);
            batch.drain(..).for_each(|frame| self.pool.give(frame));
            if stolen {
                return "s";
            }
            if self
                .kernel
                .receive(Duration::from_millis(1), |seen| seen == untagged)
                .is_some()
            {
                return "p";
            }
        }
        "nowhere"
    }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Scapy's packets, each with its verdict.
fn table() -> Vec<(String, String, Vec<u8>)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ports/steering.scapy.py");
    let printed = sh(&format!("/usr/bin/python3 {script}"));
    let table: Vec<_> = printed.lines().map(parse_line).collect();
    assert!(table.len() > 40, "{} packets", table.len());
    table
}

fn parse_line(line: &str) -> (String, String, Vec<u8>) {
    let [verdict, what, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("not three words: {line}");
    };
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (
        verdict.to_owned(),
        what.to_owned(),
        (0..hex.len()).step_by(2).map(byte).collect(),
    )
}

fn an_uplink_is_stolen_from_as_the_table_says(wanted: XdpModeWanted) {
    run(|| {
        let mut uplink = Uplink::new(wanted);
        let wrong: Vec<_> = table()
            .into_iter()
            .filter_map(|(verdict, what, bytes)| {
                let fate = uplink.fate(&bytes);
                (fate != verdict).then(|| format!("{what}: {fate} instead of {verdict}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn a_native_uplink_is_stolen_from_as_the_table_says() {
    an_uplink_is_stolen_from_as_the_table_says(XdpModeWanted::Native);
}

#[test]
fn a_generic_uplink_is_stolen_from_as_the_table_says() {
    an_uplink_is_stolen_from_as_the_table_says(XdpModeWanted::Generic);
}

#[test]
fn what_is_stolen_follows_the_settings() {
    run(|| {
        let mut uplink = Uplink::new(XdpModeWanted::Auto);
        let table = table();
        let packet = |name: &str| {
            table
                .iter()
                .find(|(_, what, _)| what == name)
                .unwrap()
                .2
                .clone()
        };
        let (vxlan, ipip) = (packet("VXLAN_to_the_node"), packet("IPIP_to_the_node"));
        let (elsewhere, block) = (packet("IPIP_to_another_node"), packet("TCP_into_the_block"));

        uplink.steering.set_vxlan_port(4790).unwrap();
        assert_eq!(uplink.fate(&vxlan), "p");
        let steering = &mut uplink.steering;
        steering.set_more_vxlan_ports(&[8472, 4789]).unwrap();
        assert_eq!(uplink.fate(&vxlan), "s");
        let mut other = vxlan.clone();
        other[36..38].copy_from_slice(&8472_u16.to_be_bytes());
        assert_eq!(uplink.fate(&other), "s");
        let all = [1, 2, 3, 4, 5, 6, 8472];
        uplink.steering.set_more_vxlan_ports(&all).unwrap();
        assert_eq!((uplink.fate(&other), uplink.fate(&vxlan)), ("s", "p"));
        uplink.steering.set_more_vxlan_ports(&[]).unwrap();
        assert_eq!(uplink.fate(&other), "p");
        uplink.steering.set_vxlan_port(4789).unwrap();
        assert_eq!(uplink.fate(&vxlan), "s");

        uplink
            .steering
            .set_node_addresses(&addresses(&["10.30.0.3"]))
            .unwrap();
        assert_eq!((uplink.fate(&elsewhere), uplink.fate(&ipip)), ("s", "p"));

        uplink
            .steering
            .remove_local_prefix("192.168.2.0/26".parse().unwrap())
            .unwrap();
        assert_eq!(uplink.fate(&block), "p");
        uplink
            .steering
            .add_local_prefix("192.168.0.0/16".parse().unwrap())
            .unwrap();
        assert_eq!(uplink.fate(&block), "s");
        uplink
            .steering
            .set_local_prefixes(&prefixes(&["192.168.9.0/26"]))
            .unwrap();
        assert_eq!(uplink.fate(&block), "p");
        uplink
            .steering
            .set_local_prefixes(&prefixes(&["0.0.0.0/0"]))
            .unwrap();
        assert_eq!(uplink.fate(&block), "s");

        uplink.steering.unregister(0).unwrap();
        assert_eq!((uplink.fate(&block), uplink.fate(&elsewhere)), ("p", "p"));
    });
}

/// A queue without a socket, a closed port, a program that is gone: the kernel has its packets.
#[test]
fn without_a_socket_the_kernel_gets_everything() {
    run(|| {
        veth(0, 1);
        let (mut kernel, mut far) = (Wire::near("near0"), Wire::far("far0"));
        let mut reaches_kernel = |seed| {
            far.send(&frame(60, seed));
            kernel
                .receive(PATIENCE, |seen| seen == frame(60, seed))
                .is_some()
        };
        let mut steering = Steering::attach("near0", Role::Workload, XdpModeWanted::Auto).unwrap();
        assert!(reaches_kernel(1));
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        steering.register(0, port.socket_fd(0).unwrap()).unwrap();
        drop(steering);
        assert!(reaches_kernel(2));
        assert!(receive_none(&mut port, &mut pool));
        assert!(!sh("ip -d link show near0").contains("xdp"));
    });
}

fn receive_none(port: &mut XdpPort, pool: &mut FramePool) -> bool {
    port.rx(pool, &mut Batch::new()).unwrap() == 0
}

#[test]
fn somebody_elses_program_is_named_and_left_alone() {
    run(|| {
        veth(0, 1);
        let directory = tempfile::tempdir().unwrap();
        let (source, object) = (
            directory.path().join("pass.c"),
            directory.path().join("pass.o"),
        );
        let program =
            "__attribute__((section(\"xdp\"), used)) int foreign_pass(void *p) { return 2; }\n";
        std::fs::File::create(&source)
            .unwrap()
            .write_all(program.as_bytes())
            .unwrap();
        let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
        sh(&format!(
            "{clang} -O2 -g -target bpf -c {} -o {}",
            source.display(),
            object.display()
        ));
        for mode in ["xdpdrv", "xdpgeneric"] {
            sh(&format!(
                "ip link set near0 {mode} obj {} sec xdp",
                object.display()
            ));
            for wanted in [
                XdpModeWanted::Auto,
                XdpModeWanted::Native,
                XdpModeWanted::Generic,
            ] {
                let error = Steering::attach("near0", Role::Uplink, wanted)
                    .err()
                    .unwrap();
                assert!(matches!(error, PortError::ForeignProgram { .. }), "{error}");
                assert!(error.to_string().contains("foreign_pass"), "{error}");
            }
            assert!(
                sh("ip -d link show near0").contains("foreign_pass"),
                "still there"
            );
            sh(&format!("ip link set near0 {mode} off"));
        }
        Steering::attach("near0", Role::Uplink, XdpModeWanted::Auto).unwrap();
    });
}

#[test]
fn a_running_underpass_is_recognised() {
    run(|| {
        veth(0, 1);
        let _first = Steering::attach("near0", Role::Workload, XdpModeWanted::Auto).unwrap();
        let error = Steering::attach("near0", Role::Workload, XdpModeWanted::Auto)
            .err()
            .unwrap();
        assert!(error.to_string().contains("steer_workload"), "{error}");
        assert!(error.to_string().contains("is running"), "{error}");
    });
}

#[test]
fn what_native_mode_refuses_is_done_in_generic_mode_and_says_why() {
    run(|| {
        veth(0, 1);
        sh("ip -n far link set far0 mtu 9000");
        let steering = Steering::attach("near0", Role::Workload, XdpModeWanted::Auto).unwrap();
        assert_eq!(steering.mode(), XdpMode::Generic);
        assert!(
            steering.fallback().unwrap().contains("MTU"),
            "{:?}",
            steering.fallback()
        );
        drop(steering);
        let error = Steering::attach("near0", Role::Workload, XdpModeWanted::Native)
            .err()
            .unwrap();
        assert!(error.to_string().contains("MTU"), "{error}");

        sh("ip link add many type veth peer name few numtxqueues 1 numrxqueues 1");
        sh(
            "ip link add wide numtxqueues 4 numrxqueues 4 type veth peer name thin numtxqueues 1 numrxqueues 1",
        );
        let steering = Steering::attach("thin", Role::Workload, XdpModeWanted::Auto).unwrap();
        assert!(
            steering.fallback().unwrap().contains("queues"),
            "{:?}",
            steering.fallback()
        );
    });
}

#[test]
fn an_absent_device_is_named() {
    run(|| {
        let error = Steering::attach("near7", Role::Uplink, XdpModeWanted::Auto)
            .err()
            .unwrap();
        assert!(
            matches!(error, PortError::NoSuchInterface { .. }),
            "{error}"
        );
    });
}

const CHILD: &str = "UNDERPASS_TEST_CHILD_HOLDS";

/// Not a test of its own: the process that `a_killed_process_leaves_nothing_behind` kills.
#[test]
fn child_that_holds_a_program() {
    let Ok(interface) = std::env::var(CHILD) else {
        return;
    };
    let (umem, mut pool) = memory(1);
    let port = open(&interface, 0..1, &umem, &mut pool).unwrap();
    let mut steering = Steering::attach(&interface, Role::Workload, XdpModeWanted::Auto).unwrap();
    steering.register(0, port.socket_fd(0).unwrap()).unwrap();
    println!("\nholding");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    run(|| {
        veth(0, 1);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "steering::child_that_holds_a_program",
                "--nocapture",
            ])
            .env(CHILD, "near0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let holding = lines.map_while(Result::ok).any(|line| line == "holding");
        let attached = sh("ip -d link show near0").contains("steer_workload");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            holding && attached,
            "the child had its program on the device"
        );

        let shown = try_sh("ip -d link show near0");
        assert!(!String::from_utf8_lossy(&shown.stdout).contains("xdp"));
        let (umem, mut pool) = memory(1);
        let mut port = open("near0", 0..1, &umem, &mut pool).unwrap();
        let mut steering = Steering::attach("near0", Role::Workload, XdpModeWanted::Auto).unwrap();
        steering.register(0, port.socket_fd(0).unwrap()).unwrap();
        Wire::far("far0").send(&frame(80, 3));
        assert_eq!(receive(&mut port, &mut pool, 1), [frame(80, 3)]);
    });
}
