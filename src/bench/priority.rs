//! Real-time priority, where it can be had and does no harm.

use std::fs;

use super::measure;
use crate::kernel::build;

/// Real-time priority for this process; those that it starts from now on inherit it. An error says why it
/// goes on without.
pub(super) fn raise() -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let read = |name: &str| read(name).unwrap_or_default();
    let of_time = ["sched_rt_runtime_us", "sched_rt_period_us"].map(read);
    if is_throttled(
        &build::release(),
        of_time.each_ref().map(|text| text.trim()),
    ) {
        return Err(
            "this kernel stops real-time tasks for a part of every second, which would be lost packets; \
             `sysctl kernel.sched_rt_runtime_us=-1` ends that, and so does Linux 6.12"
                .to_owned(),
        );
    }
    measure::realtime(nix::unistd::getpid()).map_err(|error| error.to_string())
}

/// Whether the kernel stops a task of real-time priority that does not sleep: up to Linux 6.11 after
/// `runtime` of each `period`, in microseconds, unless that is -1 or all of it
/// (`sched_rt_runtime_exceeded` in kernel/sched/rt.c). From 6.12 on the fair server takes its place.
fn is_throttled(release: &str, [runtime, period]: [&str; 2]) -> bool {
    let (Ok(runtime), Ok(period)) = (runtime.parse::<i64>(), period.parse::<i64>()) else {
        return false;
    };
    build::version(release).is_some_and(|version| version < (6, 12))
        && (0..period).contains(&runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_12_throttle_unless_told_not_to() {
        let usual = ["950000", "1000000"];
        for release in ["6.6.1", "6.11.0-29-generic", "5.15"] {
            assert!(is_throttled(release, usual), "{release}");
            assert!(!is_throttled(release, ["-1", "1000000"]), "{release}");
            assert!(!is_throttled(release, ["1000000", "1000000"]), "{release}");
        }
        for release in ["6.12.0", "6.18.44", "7.0-rc1", ""] {
            assert!(!is_throttled(release, usual), "{release}");
        }
    }
}
