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

/// Resident memory in MB.
pub fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024
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
        let mut config = String::from(
            "router id 10.77.0.2; protocol device {}
             protocol bgp node { disabled; local 10.77.0.2 as 64512; neighbor 10.77.0.1 as 64512;
               connect delay time 1; ipv4 { import none; export all; next hop keep; }; }
             protocol static s4 { ipv4;\n",
        );
        let mut count = 0;
        for (nth, prefix) in text
            .split_whitespace()
            .filter(|prefix| !prefix.contains(':'))
            .enumerate()
        {
            writeln!(
                config,
                "route {prefix} via 10.77.0.{};",
                10 + nth % NEXT_HOPS
            )
            .unwrap();
            count += 1;
        }
        config.push_str("}\n");
        drop(text);
        fs::write("/run/bird.conf", &config).unwrap();
        drop(config);
        let _bird = Daemon::start(
            "bird",
            "bird -f -c /run/bird.conf -s /run/bird.ctl -P /run/bird.pid",
        );
        crate::netns::wait_for("BIRD", || {
            let shown = try_sh("birdc -s /run/bird.ctl show route count");
            String::from_utf8_lossy(&shown.stdout)
                .contains(&count.to_string())
                .then_some(())
        });
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
            resident() - before,
            us.speaker.shared().unwrap()
        );
        assert_eq!(us.groups.len(), NEXT_HOPS);
        assert!(resident() - before < 150, "{} MB", resident() - before);
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
