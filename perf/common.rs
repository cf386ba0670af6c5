//! What the benchmarks have in common: the machine's description, random numbers, a line of a table.
#![allow(dead_code)] // No benchmark uses all of it.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The machine, for the head of a result.
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let model = cpu_info
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores, Linux {}; load average {}; huge pages {}, glibc tunables \"{}\"",
        model.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim(),
        read("/sys/kernel/mm/transparent_hugepage/enabled").trim(),
        std::env::var("GLIBC_TUNABLES").unwrap_or_default(),
    )
}

/// UNDERPASS_SEED, or another one in every run.
pub fn seed() -> u64 {
    let given = std::env::var("UNDERPASS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64)
    })
}

/// The prefixes of a full Internet table, where the shared test data is present.
pub fn internet() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/prefixes.txt.gz");
    let Ok(file) = fs::File::open(&path) else {
        println!("full table: skipped, no {}", path.display());
        return None;
    };
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(file);
    decoder.read_to_string(&mut text).expect("a gzip file");
    Some(text)
}

/// The head of a table of [`row`]s. `perf/ab` reads these, too.
pub fn head(what: &str) {
    println!(
        "\n{what:34} {:>9} {:>9} {:>11} {:>9} {:>12}",
        "best M/s", "median", "ns, median", "ns, best", "allocations"
    );
}

/// One line: the best and the median of `times`, each of which is that of `count` operations.
pub fn row(name: &str, times: &mut [Duration], count: usize, allocations: Option<usize>) {
    times.sort_unstable();
    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / count as f64;
    let (best, median) = (nanoseconds(times[0]), nanoseconds(times[times.len() / 2]));
    let allocations = allocations.map_or(String::new(), |count| count.to_string());
    println!(
        "{name:34} {:9.2} {:9.2} {median:11.1} {best:9.1} {allocations:>12}",
        1e3 / best,
        1e3 / median,
    );
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// The next number of 128 bits.
    pub fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
