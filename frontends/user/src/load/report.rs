// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::pattern::Damage;

/// Longest latency that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(100);

/// How many damaged blocks a report describes; the rest is only counted.
const DESCRIBED: usize = 16;

/// What one thread did, while it does it.
#[derive(Debug)]
pub(super) struct Tally {
    pub reads: u64,
    pub writes: u64,
    pub verified: u64,
    pub damaged: u64,
    pub damage: Vec<Damage>,
    pub latency: Histogram<u64>,
    pub cpu: Duration,
}

impl Tally {
    pub fn new() -> Self {
        // The bounds are constants that the crate accepts: a test below makes one.
        let latency = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3);
        Self {
            reads: 0,
            writes: 0,
            verified: 0,
            damaged: 0,
            damage: Vec::with_capacity(DESCRIBED),
            latency: latency.expect("valid constant bounds"),
            cpu: Duration::ZERO,
        }
    }

    pub fn damage(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.damage.len() < DESCRIBED {
            self.damage.push(damage);
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.verified += other.verified;
        self.damaged += other.damaged;
        self.damage.extend(other.damage.iter().take(DESCRIBED - self.damage.len()));
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
        self.cpu += other.cpu;
    }
}

/// Times from submission to completion, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The longest one.
    pub max: f64,
}

/// What a job did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How long it ran, in seconds, without the verification at its end.
    pub seconds: f64,
    /// Blocks read.
    pub reads: u64,
    /// Blocks written.
    pub writes: u64,
    /// Blocks per second.
    pub iops: f64,
    /// Megabytes (10^6) per second.
    pub mb_per_second: f64,
    /// How long a block took.
    pub latency_us: Latency,
    /// Processor time of the job's threads in microseconds, for each block.
    pub cpu_us_per_io: f64,
    /// Blocks read back and compared.
    pub verified: u64,
    /// How many of them were damaged.
    pub damaged: u64,
    /// What was wrong with the first of them, as text.
    pub damage: Vec<String>,
}

impl Report {
    pub(super) fn new(tally: &Tally, elapsed: Duration, block: usize) -> Self {
        let count = tally.reads + tally.writes;
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let latency = &tally.latency;
        Self {
            seconds,
            reads: tally.reads,
            writes: tally.writes,
            iops: rate,
            mb_per_second: rate * block as f64 / 1e6,
            latency_us: Latency {
                mean: latency.mean() / 1e3,
                p50: microseconds(latency.value_at_quantile(0.5)),
                p99: microseconds(latency.value_at_quantile(0.99)),
                p999: microseconds(latency.value_at_quantile(0.999)),
                max: microseconds(latency.max()),
            },
            cpu_us_per_io: tally.cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
            verified: tally.verified,
            damaged: tally.damaged,
            damage: tally.damage.iter().map(Damage::to_string).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} reads, {} writes in {:.1} s: {:.0} IOPS, {:.0} MB/s, p50 {:.0} µs, p99 {:.0} µs, {:.2} µs of CPU each",
            self.reads,
            self.writes,
            self.seconds,
            self.iops,
            self.mb_per_second,
            self.latency_us.p50,
            self.latency_us.p99,
            self.cpu_us_per_io,
        )?;
        if self.verified > 0 {
            write!(f, "; {} blocks verified, {} damaged", self.verified, self.damaged)?;
        }
        self.damage.iter().try_for_each(|damage| write!(f, "\n  {damage}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_percentiles_come_from_what_was_counted() {
        let mut tally = Tally::new();
        tally.reads = 300;
        tally.writes = 100;
        tally.cpu = Duration::from_micros(800);
        for microsecond in 1..=100 {
            tally.latency.saturating_record(microsecond * 1000);
        }
        let report = Report::new(&tally, Duration::from_secs(2), 4096);
        assert_eq!(report.iops, 200.0);
        assert!((report.mb_per_second - 0.8192).abs() < 1e-9);
        assert!((report.latency_us.p50 - 50.0).abs() < 0.1, "{:?}", report.latency_us);
        assert!((report.latency_us.p99 - 99.0).abs() < 0.1, "{:?}", report.latency_us);
        assert_eq!(report.cpu_us_per_io, 2.0);
    }

    #[test]
    fn damage_is_counted_in_full_and_described_in_part() {
        let (mut sum, mut tally) = (Tally::new(), Tally::new());
        for sector in 0..20 {
            tally.damage(Damage::Corrupt { sector });
        }
        sum.add(&tally);
        sum.add(&tally);
        let report = Report::new(&sum, Duration::from_secs(1), 512);
        assert_eq!((report.damaged, report.damage.len()), (40, DESCRIBED));
        assert_eq!(report.damage.first().map(String::as_str), Some("sector 0 is corrupt"));
    }
}
