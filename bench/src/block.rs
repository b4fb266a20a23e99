// SPDX-License-Identifier: MIT OR Apache-2.0

//! The block benchmark: the same load over a Causeway disk and over [raw io_uring](crate::raw) on the same file, in
//! turn, slice by slice.

use std::time::Duration;

use frontend_user::load::{self, Job, Order, Progress, Target};

/// A kind of load at one depth.
#[derive(Clone, Debug)]
pub struct Case {
    /// As in `block.NAME.dDEPTH.…`.
    pub name: &'static str,
    /// What is done, for one slice of time.
    pub job: Job,
}

/// The loads that a disk is measured with: name, percent of reads, order, bytes of a block.
const LOADS: [(&str, u8, Order, usize); 4] = [
    ("randread4k", 100, Order::Random, 4 << 10),
    ("randwrite4k", 0, Order::Random, 4 << 10),
    ("read128k", 100, Order::Sequential, 128 << 10),
    ("write128k", 0, Order::Sequential, 128 << 10),
];

/// All loads at depth 1 and 32, each for slices of this length.
pub fn cases(slice: Duration) -> impl Iterator<Item = Case> {
    LOADS.into_iter().flat_map(move |(name, reads, order, block)| {
        [1, 32].map(|depth| Case {
            name,
            job: Job { reads, order, block, depth, time: slice, ..Job::default() },
        })
    })
}

/// What one slice showed.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Blocks per second.
    pub iops: f64,
    /// Megabytes (10^6) per second.
    pub mb_per_second: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: f64,
    /// Processor time for a block, of all processes that work on it, in microseconds.
    pub cpu_us: f64,
}

/// Runs one slice. `cpu` tells how much processor time all processes concerned have used until now.
///
/// # Errors
///
/// When the disk fails, or nothing at all was done.
pub fn slice<T: Target + Send>(
    job: &Job,
    target: &mut T,
    cpu: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<Slice> {
    let before = cpu()?;
    let report = load::run(job, std::slice::from_mut(target), &Progress::default())?;
    let used = cpu()?.saturating_sub(before);
    let count = report.reads + report.writes;
    anyhow::ensure!(count > 0, "nothing was read or written in {:?}", job.time);
    Ok(Slice {
        iops: report.iops,
        mb_per_second: report.mb_per_second,
        p50_us: report.latency_us.p50,
        p99_us: report.latency_us.p99,
        cpu_us: used.as_secs_f64() * 1e6 / count as f64,
    })
}

/// Slices of both disks in turn, after one of each that does not count. Who begins alternates too.
///
/// # Errors
///
/// As [`slice()`].
pub fn pairs(
    job: &Job,
    count: usize,
    (ours, our_cpu): (&mut (impl Target + Send), impl Fn() -> anyhow::Result<Duration>),
    (raw, raw_cpu): (&mut (impl Target + Send), impl Fn() -> anyhow::Result<Duration>),
) -> anyhow::Result<Vec<(Slice, Slice)>> {
    let warm_up = Job { time: job.time / 4, ..job.clone() };
    slice(&warm_up, ours, &our_cpu)?;
    slice(&warm_up, raw, &raw_cpu)?;
    (0..count)
        .map(|round| {
            if round % 2 == 0 {
                let our_slice = slice(job, ours, &our_cpu)?;
                Ok((our_slice, slice(job, raw, &raw_cpu)?))
            } else {
                let raw_slice = slice(job, raw, &raw_cpu)?;
                Ok((slice(job, ours, &our_cpu)?, raw_slice))
            }
        })
        .collect()
}

/// The median of a figure over slices.
pub fn median(slices: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = slices.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
