//! A full Internet table from BIRD.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use underpass::bgp::Stop;

use crate::netns::{cpu_time, isolated, sh, try_sh};
use crate::support::*;

const NEXT_HOPS: usize = 16;

fn prefixes() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/prefixes.txt.gz");
    let Ok(file) = File::open(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("gzip");
    Some(text)
}

/// This process's resident memory in MB.
pub fn resident() -> usize {
    resident_of(std::process::id())
}

fn resident_of(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024
}

/// BIRD with the table, whose session is not enabled yet, and how many prefixes there are.
fn sender(text: &str) -> (Daemon, isize) {
    let mut config = String::from(
        "router id 10.77.0.2; protocol device {}
         protocol bgp node { disabled; local 10.77.0.2 as 64512; neighbor 10.77.0.1 as 64512;
           connect delay time 1; ipv4 { import none; export all; next hop keep; }; }
         protocol static s4 { ipv4;\n",
    );
    let prefixes = text
        .split_whitespace()
        .filter(|prefix| !prefix.contains(':'));
    let mut count = 0;
    for (nth, prefix) in prefixes.enumerate() {
        writeln!(
            config,
            "route {prefix} via 10.77.0.{};",
            10 + nth % NEXT_HOPS
        )
        .unwrap();
        count += 1;
    }
    config.push_str("}\n");
    fs::write("/run/bird.conf", &config).unwrap();
    let line = "bird -f -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid";
    let bird = Daemon::start("bird", line);
    crate::netns::wait_for("BIRD", || {
        let shown = try_sh("birdc -s /run/bird.ctl show route count");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.contains(&count.to_string()).then_some(())
    });
    (bird, count)
}

/// Measures how long another daemon takes for the table, by `known`: how many prefixes it has.
fn measure(name: &str, daemon: &Daemon, count: isize, known: impl Fn() -> isize) {
    std::thread::sleep(Duration::from_secs(2));
    let (before, cpu) = (resident_of(daemon.pid()), cpu_time(daemon.pid()));
    sh("birdc -s /run/bird.ctl enable node");
    while known() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let begin = Instant::now();
    while known() < count {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "{name}: {}",
            known()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "{name}: {count} prefixes: {:?} ({:?} CPU), {} MB more",
        begin.elapsed(),
        cpu_time(daemon.pid()) - cpu,
        resident_of(daemon.pid()).saturating_sub(before),
    );
}

/// The same table into BIRD and into FRR, for comparison, where UNDERPASS_MEASURE is set.
#[test]
fn the_same_table_into_bird_and_frr() {
    if std::env::var_os("UNDERPASS_MEASURE").is_none() {
        println!("skipped: a measurement of others; UNDERPASS_MEASURE=1 takes it");
        return;
    }
    isolated(|| {
        let Some(text) = prefixes().filter(|_| there("bird") && there("bgpd")) else {
            return;
        };
        link();
        let (_sender, count) = sender(&text);
        let config = "router id 10.77.0.1; protocol device {}
            protocol bgp node { local 10.77.0.1 as 64512; neighbor 10.77.0.2 as 64512; passive;
              ipv4 { import all; export none; }; }";
        fs::write("/run/other.conf", config).unwrap();
        let line = "bird -f -c /run/other.conf -s /run/other.ctl -P /run/other.pid";
        let bird = Daemon::start_here("other", line);
        let number_in = |text: &str, before: &str| -> isize {
            let rest = text.split(before).nth(1).unwrap_or_default();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        let shown = |line: &str| String::from_utf8_lossy(&try_sh(line).stdout).into_owned();
        measure("BIRD → BIRD", &bird, count, || {
            number_in(
                &shown("birdc -s /run/other.ctl show route count"),
                "ready.\n",
            )
        });
        drop(bird);
        sh("birdc -s /run/bird.ctl disable node");
        let config = "router bgp 64512
 bgp router-id 10.77.0.1
 neighbor 10.77.0.2 remote-as 64512
 neighbor 10.77.0.2 passive
!
";
        fs::create_dir_all("/run/frr").unwrap();
        fs::write("/run/frr/bgpd.conf", config).unwrap();
        let line = "/usr/lib/frr/bgpd -Z -S -f /run/frr/bgpd.conf -i /run/frr/bgpd.pid --vty_socket /run/frr";
        let frr = Daemon::start_here("bgpd", line);
        measure("BIRD → FRR", &frr, count, || {
            let line =
                "vtysh --vty_socket /run/frr -d bgpd -c 'show bgp ipv4 unicast summary json'";
            number_in(&shown(line), "\"pfxRcd\":")
        });
    });
}

/// Waits until the consumer knows so many prefixes; counts them without keeping them, so that the
/// memory measured is the speaker's.
fn wait_routes(us: &mut Us, known: &mut isize, wanted: isize) -> Duration {
    let begin = Instant::now();
    while *known != wanted {
        assert!(
            begin.elapsed() < Duration::from_secs(90),
            "{known} of {wanted}"
        );
        let Ok(event) = us.speaker.events().recv_timeout(Duration::from_secs(60)) else {
            panic!("{known} of {wanted}: {:#?}", us.neighbor(&them()));
        };
        if let underpass::bgp::event::Event::Routes(changes) = &event {
            for change in changes {
                *known += if change.group.is_some() { 1 } else { -1 };
            }
        } else {
            us.take(event);
        }
    }
    begin.elapsed()
}

#[test]
fn a_full_table_comes_and_goes() {
    isolated(|| {
        let Some(text) = prefixes().filter(|_| there("bird")) else {
            return;
        };
        link();
        sh("ip link set us mtu 9000; ip -n them link set them mtu 9000");
        let (_bird, count) = sender(&text);
        drop(text);
        let (before, mut known) = (resident(), 0);
        let mut us = Us::start(settings(64512));
        sh("birdc -s /run/bird.ctl enable node");
        us.wait_up(&them());
        let (begin, cpu) = (Instant::now(), cpu_time(std::process::id()));
        wait_routes(&mut us, &mut known, count);
        println!(
            "{count} prefixes: {:?} ({:?} CPU), {} MB more, {:?} (attributes, groups)",
            begin.elapsed(),
            cpu_time(std::process::id()) - cpu,
            resident().saturating_sub(before),
            us.speaker.shared().unwrap()
        );
        assert_eq!(us.groups.len(), NEXT_HOPS);
        assert!(
            resident().saturating_sub(before) < 150,
            "{} MB",
            resident() - before
        );
        // A next hop fails: one event, long before its 56,000 prefixes are looked at.
        let next_hop = "10.77.0.10".parse().unwrap();
        let begin = Instant::now();
        us.speaker.unreachable([next_hop].into()).unwrap();
        let first = us.speaker.events().recv().unwrap();
        println!("first event after {:?}: {first:?}", begin.elapsed());
        assert!(matches!(first, underpass::bgp::event::Event::Group { .. }));
        us.take(first);
        let lost = count / NEXT_HOPS as isize + 1;
        wait_routes(&mut us, &mut known, count - lost);
        println!("all of its {lost} prefixes after {:?}", begin.elapsed());
        us.speaker.unreachable(Default::default()).unwrap();
        wait_routes(&mut us, &mut known, count);
        let begin = Instant::now();
        sh("birdc -s /run/bird.ctl disable node");
        wait_routes(&mut us, &mut known, 0);
        println!("all withdrawn after {:?}", begin.elapsed());
        std::thread::sleep(Duration::from_secs(2));
        us.listen();
        println!(
            "{} MB more than at the beginning",
            resident() as isize - before as isize
        );
        assert_eq!(us.groups.len(), 0);
        us.speaker.stop(Stop::Restarting);
    });
}
