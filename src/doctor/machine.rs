//! The machine and this process: kernel options, capabilities, memory, clock, CPUs.

use std::fs;

use super::{Report, Severity};
use crate::control::ports::packet_memory;
use crate::kernel::capabilities::{self, Need};
use crate::kernel::{Mirror, build};
use crate::resources::NodeConfig;

pub(super) fn examine(report: &mut Report, config: Option<&NodeConfig>, mirror: &Mirror) {
    kernel(report);
    process(report);
    let needed = config.map_or(0, |config| packet_memory(config, mirror));
    memory(report, needed);
    clock(report);
    cpus(report, config);
}

/// The oldest kernel that has all that is always used (bpf_link for XDP).
const OLDEST: (u32, u32) = (5, 9);

/// What the kernel must be built with, and what for.
const NEEDED: [(&str, &str); 4] = [
    ("CONFIG_BPF_SYSCALL", "XDP programs"),
    ("CONFIG_XDP_SOCKETS", "AF_XDP sockets"),
    ("CONFIG_NET", "networking"),
    ("CONFIG_TUN", "the host's device, and TUN and TAP ports"),
];

/// What some set-ups need.
const USEFUL: [(&str, &str); 4] = [
    (
        "CONFIG_BPF_JIT",
        "XDP programs at full speed; they are interpreted here",
    ),
    ("CONFIG_VETH", "workloads in network namespaces"),
    ("CONFIG_NF_TABLES", "natOutgoing"),
    ("CONFIG_NET_NS", "workloads in network namespaces"),
];

fn kernel(report: &mut Report) {
    let release = build::release();
    if build::version(&release).is_some_and(|version| version < OLDEST) {
        report.add(
            Severity::Fault,
            "kernel",
            "machine",
            format!("Linux {release} is older than 5.9"),
            "use a newer kernel: underpass attaches XDP programs by links, which came with Linux 5.9",
        );
    }
    let Some(options) = build::options(&release) else {
        report.add(
            Severity::Note,
            "kernel",
            "machine",
            format!(
                "Linux {release} does not say what it was built with (neither /proc/config.gz nor \
                 /boot/config-{release} is there); what is needed was tried instead"
            ),
            "",
        );
        return;
    };
    let mut lacks = false;
    for (needed, severity) in [(NEEDED, Severity::Fault), (USEFUL, Severity::Warning)] {
        for (option, purpose) in needed {
            if !options.contains_key(option) {
                lacks = true;
                report.add(
                    severity,
                    "kernel",
                    "machine",
                    format!("Linux {release} was built without {option}: {purpose}"),
                    format!("use a kernel with {option}=y or =m, such as Debian's"),
                );
            }
        }
    }
    if !lacks {
        report.ok(
            "kernel",
            "machine",
            format!("Linux {release} has all options that are needed"),
        );
    }
}

/// What this process may do; the node needs the same.
fn process(report: &mut Report) {
    let missing = capabilities::missing();
    for lack in &missing {
        let (check, remedy) = match lack.need {
            Need::AfXdp | Need::Tun => ("kernel", ""),
            _ => (
                "capabilities",
                "run doctor and the node as root, or as their systemd unit does",
            ),
        };
        report.add(Severity::Fault, check, "machine", &lack.sentence, remedy);
    }
    if missing.is_empty() {
        report.ok(
            "capabilities",
            "machine",
            "this process may load XDP programs, open AF_XDP sockets and change the network",
        );
    }
}

fn memory(report: &mut Report, needed: u64) {
    let limit = locked_memory_limit(&read("/proc/self/limits"));
    let exempt = capabilities::may_lock_memory();
    match limit {
        Some(limit) if limit < needed && !exempt => report.add(
            Severity::Fault,
            "locked_memory",
            "machine",
            format!("packets need {needed} bytes of locked memory, and {limit} are allowed"),
            "raise it (ulimit -l unlimited; LimitMEMLOCK=infinity in a unit), or give CAP_IPC_LOCK",
        ),
        _ => report.ok(
            "locked_memory",
            "machine",
            match (limit, exempt) {
                (None, _) | (_, true) => "as much as is wanted may be locked".to_owned(),
                (Some(limit), _) => format!("{limit} bytes may be locked, {needed} are needed"),
            },
        ),
    }
    huge_pages(report, &read("/sys/kernel/mm/transparent_hugepage/enabled"));
}

/// The route table's; frames are in ordinary pages.
fn huge_pages(report: &mut Report, enabled: &str) {
    let slower = "look-ups in a full route table take a third longer";
    if enabled.contains("[never]") {
        report.add(
            Severity::Note,
            "huge_pages",
            "machine",
            format!("transparent huge pages are switched off: {slower}"),
            "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
        );
    } else if enabled.is_empty() {
        report.add(
            Severity::Note,
            "huge_pages",
            "machine",
            format!("this kernel has no transparent huge pages: {slower}"),
            "",
        );
    } else {
        report.ok("huge_pages", "machine", "the route table asks for them");
    }
}

/// Bytes that may be locked (`/proc/PID/limits`); nothing if there is no limit.
fn locked_memory_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Clocks that are read without leaving user space or the guest.
const GOOD_CLOCKS: [&str; 5] = [
    "tsc",
    "kvm-clock",
    "arch_sys_counter",
    "hyperv_clocksource_tsc_page",
    "xen",
];

fn clock(report: &mut Report) {
    const DIRECTORY: &str = "/sys/devices/system/clocksource/clocksource0";
    let current = read(&format!("{DIRECTORY}/current_clocksource"));
    let available = read(&format!("{DIRECTORY}/available_clocksource"));
    if current.is_empty() {
        report.add(
            Severity::Note,
            "clock",
            "machine",
            "/sys does not show the clock source",
            "",
        );
    } else if GOOD_CLOCKS.contains(&current.as_str()) {
        report.ok("clock", "machine", format!("the clock source is {current}"));
    } else {
        let better = available
            .split_whitespace()
            .find(|name| GOOD_CLOCKS.contains(name));
        let remedy = match better {
            Some(better) => format!("echo {better} >{DIRECTORY}/current_clocksource"),
            None => format!(
                "this machine has no better one ({available}); in a VM, have the hypervisor offer kvm-clock or tsc"
            ),
        };
        report.add(
            Severity::Warning,
            "clock",
            "machine",
            format!("the clock source is {current}, which is slow to read: idle workers and measurements suffer"),
            remedy,
        );
    }
}

fn cpus(report: &mut Report, config: Option<&NodeConfig>) {
    let online = cpu_list(&read("/sys/devices/system/cpu/online"));
    let isolated = cpu_list(&read("/sys/devices/system/cpu/isolated"));
    let wanted = config.and_then(|config| config.workers.cpus.clone());
    let absent: Vec<String> = wanted
        .iter()
        .flatten()
        .filter(|cpu| !online.is_empty() && !online.contains(cpu))
        .map(ToString::to_string)
        .collect();
    if !absent.is_empty() {
        report.add(
            Severity::Fault,
            "cpus",
            "machine",
            format!(
                "workers.cpus names {}, and this machine has no such CPU online",
                absent.join(", ")
            ),
            "name CPUs of /sys/devices/system/cpu/online",
        );
    }
    let shared = match &wanted {
        Some(cpus) => cpus.iter().any(|cpu| !isolated.contains(cpu)),
        None => isolated.is_empty(),
    };
    if shared {
        report.add(
            Severity::Note,
            "cpu_isolation",
            "machine",
            "workers share their CPUs with other programs: latency has a tail",
            "isolate CPUs (kernel command line isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3) and name them in workers.cpus",
        );
    } else {
        report.ok(
            "cpu_isolation",
            "machine",
            "workers have CPUs to themselves",
        );
    }
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    if !governor.is_empty() && governor != "performance" {
        report.add(
            Severity::Note,
            "cpu_frequency",
            "machine",
            format!("CPUs follow the governor {governor}: they may be slow when packets come"),
            "cpupower frequency-set -g performance",
        );
    }
}

/// The numbers in a list such as `0-3,8`.
fn cpu_list(text: &str) -> Vec<usize> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}

fn read(path: &str) -> String {
    let mut text = fs::read_to_string(path).unwrap_or_default();
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_that_are_off_are_noted() {
        for (enabled, severity) in [
            ("always madvise [never]", Severity::Note),
            ("", Severity::Note),
            ("always [madvise] never", Severity::Ok),
            ("[always] madvise never", Severity::Ok),
        ] {
            let mut report = Report::default();
            huge_pages(&mut report, enabled);
            assert_eq!(report.worst(), severity, "{enabled}");
        }
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max locked memory         8388608              unlimited            bytes\n";
        assert_eq!(locked_memory_limit(limits), Some(8_388_608));
        let none = "Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(locked_memory_limit(none), None);
        assert_eq!(cpu_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(cpu_list(""), [0_usize; 0]);
    }
}
