//! The receiving side: what the sink's program has counted.

use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::{Ebpf, Pod};
use hdrhistogram::Histogram;

use super::chain;
use crate::bench::error::{BenchError, Result};

/// Entries of the program's latency histogram.
const BUCKETS: u32 = 1728;

/// The longest latency that the program tells from longer ones.
const LONGEST: u64 = u32::MAX as u64;

/// `struct counters` of the program.
type Counters = [u64; 7];

/// What the sink saw of one trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Packets, copies not counted.
    pub packets: u64,
    /// Bytes in them, as they arrived.
    pub bytes: u64,
    /// Packets that had come before.
    pub duplicates: u64,
    /// Packets that came after a later one of their flow (RFC 4737).
    pub reordered: u64,
    /// Packets of an earlier trial, or of the warm-up.
    pub late: u64,
}

/// Forgets what was counted; from now on packets of `trial` count.
pub(super) fn reset(ebpf: &mut Ebpf, trial: u32) -> Result<()> {
    let mut number: Array<_, u32> = map(ebpf, "trial")?;
    number.set(0, trial, 0).map_err(failed)?;
    let zero: Counters = [0; 7];
    clear(&mut per_cpu(ebpf, "counters")?, 1, zero)?;
    clear(&mut per_cpu::<u64>(ebpf, "latency")?, BUCKETS, 0)
}

/// What was counted.
pub(super) fn received(ebpf: &mut Ebpf) -> Result<Received> {
    let counters: PerCpuArray<_, Counters> = per_cpu(ebpf, "counters")?;
    let mut sum: Counters = [0; 7];
    for core in counters.get(&0, 0).map_err(failed)?.iter() {
        sum.iter_mut().zip(core).for_each(|(sum, one)| *sum += one);
    }
    let [packets, bytes, duplicates, reordered, late, ..] = sum;
    Ok(Received {
        packets,
        bytes,
        duplicates,
        reordered,
        late,
    })
}

/// The latencies, to 1.6 %.
pub(super) fn latency(ebpf: &mut Ebpf) -> Result<Histogram<u64>> {
    let counts: PerCpuArray<_, u64> = per_cpu(ebpf, "latency")?;
    let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3)
        .map_err(|error| BenchError::Load(error.to_string()))?;
    for bucket in 0..BUCKETS {
        let count: u64 = counts.get(&bucket, 0).map_err(failed)?.iter().sum();
        if count > 0 {
            histogram.saturating_record_n(middle(bucket), count);
        }
    }
    Ok(histogram)
}

/// Frames that were discarded.
pub(super) fn discarded(ebpf: &mut Ebpf) -> Result<u64> {
    let counts: PerCpuArray<_, u64> = per_cpu(ebpf, "discarded")?;
    Ok(counts.get(&0, 0).map_err(failed)?.iter().sum())
}

/// The middle of the values that the program counts in a bucket: the first 128 buckets hold one value
/// each, of the others 64 share out each power of two.
fn middle(bucket: u32) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < 128 {
        return bucket.max(1);
    }
    let shift = bucket / 64 - 1;
    ((64 + bucket % 64) << shift) + (1 << shift) / 2
}

fn clear<V: Pod + Clone>(
    map: &mut PerCpuArray<&mut MapData, V>,
    entries: u32,
    zero: V,
) -> Result<()> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| BenchError::Io {
        what: "counting CPUs".to_owned(),
        source: error,
    })?;
    let zeros =
        || PerCpuValues::try_from(vec![zero; cpus]).map_err(BenchError::io("clearing counters"));
    for entry in 0..entries {
        map.set(entry, zeros()?, 0).map_err(failed)?;
    }
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut MapData, u32>> {
    let map = ebpf
        .map_mut(name)
        .ok_or_else(|| BenchError::Load(format!("no map '{name}'")))?;
    Array::try_from(map).map_err(failed)
}

fn per_cpu<'a, V: Pod>(ebpf: &'a mut Ebpf, name: &str) -> Result<PerCpuArray<&'a mut MapData, V>> {
    let map = ebpf
        .map_mut(name)
        .ok_or_else(|| BenchError::Load(format!("no map '{name}'")))?;
    PerCpuArray::try_from(map).map_err(failed)
}

fn failed(error: MapError) -> BenchError {
    BenchError::Load(chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bucket_of` of the program.
    fn bucket_of(value: u32) -> u32 {
        let mut rest = value >> 6;
        if rest == 0 {
            return value;
        }
        let shift = rest.ilog2() + 1;
        rest = value >> (shift - 1);
        shift * 64 + rest - 64
    }

    #[test]
    fn a_bucket_s_middle_is_near_all_its_values() {
        for exponent in 0..32 {
            for offset in [0, 1, 3, 17, 12345] {
                let value = (1_u32 << exponent).saturating_add(offset).max(1);
                let bucket = bucket_of(value);
                assert!(bucket < BUCKETS);
                let error = (middle(bucket) as f64 - f64::from(value)).abs() / f64::from(value);
                assert!(error < 0.016, "{value}: {}", middle(bucket));
            }
        }
    }
}
