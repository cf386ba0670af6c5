//! The machine that a bench ran on.

use std::fs;

use serde::{Deserialize, Serialize};

/// What figures depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's model.
    pub cpu: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// The frequency of the CPU's time stamp counter in MHz, where it has one that never changes; cycles
    /// are reckoned from it.
    pub tsc_mhz: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release and build.
    pub kernel: String,
    /// The operating system.
    pub os: String,
    /// The hypervisor, if the CPU says that there is one.
    pub virtualised: bool,
    /// Mitigations that are on (`/sys/devices/system/cpu/vulnerabilities`).
    pub mitigations: Vec<String>,
    /// The CPU frequency governor, if there is one.
    pub governor: Option<String>,
    /// Load average over a minute when the bench began.
    pub load: f64,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let release = read("/proc/sys/kernel/osrelease");
        let build = read("/proc/sys/kernel/version");
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            cpu: field(&cpuinfo, "model name"),
            cpus: crate::worker::affinity::available().len(),
            tsc_mhz: tsc_mhz(&cpuinfo),
            memory_mib: first_number(&memory) / 1024,
            kernel: format!("{} {}", release.trim(), build.trim()),
            os: os_name(&read("/etc/os-release")),
            virtualised: field(&cpuinfo, "flags")
                .split(' ')
                .any(|flag| flag == "hypervisor"),
            mitigations: mitigations(),
            governor: Some(governor.trim().to_owned()).filter(|name| !name.is_empty()),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first value of `name : value` lines.
fn field(text: &str, name: &str) -> String {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value).unwrap_or_default()
}

/// x86 does not measure its delay loop where the counter's frequency is known, but derives it from that:
/// two turns of it a cycle (`calibrate_delay` in init/calibrate.c, `lpj_fine`).
fn tsc_mhz(cpuinfo: &str) -> Option<f64> {
    let flags = field(cpuinfo, "flags");
    flags.split(' ').find(|flag| *flag == "constant_tsc")?;
    let bogomips: f64 = field(cpuinfo, "bogomips").parse().ok()?;
    Some(bogomips / 2.0)
}

fn first_number(text: &str) -> u64 {
    text.split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn os_name(os_release: &str) -> String {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

fn mitigations() -> Vec<String> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let mut found: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            let what = state.trim().strip_prefix("Mitigation: ")?.to_owned();
            Some(format!("{}: {what}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.60GHz\ncpu MHz\t\t: 2600.000\n";
        assert_eq!(field(text, "model name"), "Some CPU @ 2.60GHz");
        assert_eq!(field(text, "cpu MHz"), "2600.000");
        assert_eq!(field(text, "flags"), "");
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }

    #[test]
    fn cycles_need_a_counter_whose_frequency_is_known() {
        let cpu = "flags\t\t: fpu tsc constant_tsc\nbogomips\t: 3992.49\n";
        assert_eq!(tsc_mhz(cpu), Some(1996.245));
        assert_eq!(tsc_mhz(&cpu.replace("constant_tsc", "")), None);
        assert_eq!(
            tsc_mhz("CPU implementer\t: 0x41\nBogoMIPS\t: 50.00\n"),
            None
        );
    }

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let machine = Machine::look();
        assert!(machine.cpus > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty());
    }
}
