//! Who used which core for how long.
//!
//! `/proc/stat` has every core's time by kind, but in ticks: coarse over a trial, and with everything
//! else that runs on the machine. `schedstat` has the run time of each thread in nanoseconds, with the
//! softirq work that the kernel did while the thread ran, unless the kernel accounts for interrupts
//! apart (CONFIG_IRQ_TIME_ACCOUNTING). Costs are reckoned from the second, and where it lacks softirq
//! work, that is taken from the first, which then is exact. The first is also reported for each core,
//! and shows how busy the machine was with other things.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::kernel::build;

/// Times of `/proc/stat` are in 1/100 s (USER_HZ) on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);

/// One core's time, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreTime {
    /// Its number.
    pub cpu: usize,
    /// In user space.
    pub user: f64,
    /// In the kernel, for processes.
    pub system: f64,
    /// In hard and soft interrupts.
    pub softirq: f64,
    /// Taken away by the hypervisor.
    pub steal: f64,
    /// Idle, or waiting for a disk.
    pub idle: f64,
}

/// CPU time of what takes part in a trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// All cores (`/proc/stat`).
    pub cores: Vec<CoreTime>,
    /// Run time of the processes under test, all their threads.
    pub processes: Duration,
    /// Run time of the kernel's threads that move packets: NAPI threads under test, ksoftirqd.
    pub kernel_threads: Duration,
}

/// Whose time is taken.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Processes under test.
    pub processes: Vec<Pid>,
    /// Kernel threads.
    pub kernel_threads: Vec<Pid>,
}

impl Watched {
    /// The time used so far.
    pub fn usage(&self) -> Usage {
        Usage {
            cores: cores(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            processes: self.processes.iter().map(|pid| of_process(*pid)).sum(),
            kernel_threads: self
                .kernel_threads
                .iter()
                .map(|pid| run_time(&format!("/proc/{pid}/schedstat")))
                .sum(),
        }
    }
}

impl Usage {
    /// A core's time in softirq that no thread's run time includes.
    pub fn softirq_apart(&self, cpu: usize) -> Duration {
        if accounts_for_interrupts() != Some(true) {
            return Duration::ZERO;
        }
        let core = self.cores.iter().find(|core| core.cpu == cpu);
        Duration::from_secs_f64(core.map_or(0.0, |core| core.softirq.max(0.0)))
    }
}

/// What costs may lack on this machine, if that is not known.
pub fn reservation() -> Option<&'static str> {
    accounts_for_interrupts().is_none().then_some(
        "this kernel does not say what it was built with (neither /proc/config.gz nor /boot/config-*): if \
         with CONFIG_IRQ_TIME_ACCOUNTING, costs lack softirq time",
    )
}

/// Whether the kernel takes the time of interrupts out of that of the threads that they interrupt;
/// nothing if it does not say.
fn accounts_for_interrupts() -> Option<bool> {
    static ANSWER: OnceLock<Option<bool>> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let options = build::options(&build::release()).filter(|options| !options.is_empty())?;
        let option = options.get("CONFIG_IRQ_TIME_ACCOUNTING");
        Some(option.is_some_and(|value| value == "y"))
    })
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let cores = self.cores.into_iter().map(|now| {
            let then = before.cores.iter().find(|core| core.cpu == now.cpu);
            let then = then.copied().unwrap_or_default();
            CoreTime {
                cpu: now.cpu,
                user: now.user - then.user,
                system: now.system - then.system,
                softirq: now.softirq - then.softirq,
                steal: now.steal - then.steal,
                idle: now.idle - then.idle,
            }
        });
        Self {
            cores: cores.collect(),
            processes: self.processes.saturating_sub(before.processes),
            kernel_threads: self.kernel_threads.saturating_sub(before.kernel_threads),
        }
    }
}

/// Run time of one thread of this process.
pub fn of_thread(thread: Pid) -> Duration {
    run_time(&format!("/proc/self/task/{thread}/schedstat"))
}

/// The kernel's threads by name (`/proc/PID/comm`) for which `wanted` is true.
pub fn kernel_threads(wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Pid> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if wanted(comm.trim_end()) {
            found.insert(comm.trim_end().to_owned(), Pid::from_raw(pid));
        }
    }
    found
}

fn of_process(pid: Pid) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .map(|task| run_time(&task.path().join("schedstat").to_string_lossy()))
        .sum()
}

/// The first number of a schedstat file: nanoseconds on a CPU.
fn run_time(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// user nice system idle iowait irq softirq steal … of each line `cpuN`.
fn cores(stat: &str) -> Vec<CoreTime> {
    let core = |line: &str| {
        let (name, numbers) = line.split_once(' ')?;
        let cpu = name.strip_prefix("cpu")?.parse().ok()?;
        let ticks: Vec<f64> = numbers
            .split_whitespace()
            .map(|number| number.parse::<f64>().unwrap_or(0.0) * TICK.as_secs_f64())
            .collect();
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0.0);
        Some(CoreTime {
            cpu,
            user: at(0) + at(1),
            system: at(2),
            idle: at(3) + at(4),
            softirq: at(5) + at(6),
            steal: at(7),
        })
    };
    stat.lines().filter_map(core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read() {
        let stat = "cpu  3 0 0 0 0 0 0 0 0 0\ncpu0 100 50 200 1000 10 5 15 7 0 0\ncpu11 1 0 0 0 0 0 0 0 0 0\nintr 5\n";
        let cores = cores(stat);
        assert_eq!(cores.len(), 2);
        let first = CoreTime {
            cpu: 0,
            user: 1.5,
            system: 2.0,
            softirq: 0.2,
            steal: 0.07,
            idle: 10.1,
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(cores[0].user, first.user);
        close(cores[0].system, first.system);
        close(cores[0].softirq, first.softirq);
        close(cores[0].steal, first.steal);
        close(cores[0].idle, first.idle);
        assert_eq!(cores[1].cpu, 11);
    }

    #[test]
    fn a_busy_thread_s_time_grows() {
        let me = nix::unistd::gettid();
        let before = of_thread(me);
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let used = of_thread(me).saturating_sub(before);
        assert!(used > Duration::from_millis(1), "{used:?}");
    }
}
