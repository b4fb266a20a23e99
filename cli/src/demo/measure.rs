// SPDX-License-Identifier: MIT OR Apache-2.0

//! Third act: the disk against raw io_uring on the same file, slice by slice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bench::block::{self, Slice};
use bench::raw::RawDisk;
use bench::report::{Measurement, Unit};
use frontend_user::load::QueueTarget;
use hypervisor_client::Client;
use serde::Serialize;
use tabled::settings::{Alignment, Style, object::Columns};
use tabled::{Table, Tabled};

use super::{SCRATCH, Say, connect};
use crate::stage::{Stage, own_cpu};

/// Pairs of slices for each load.
const PAIRS: usize = 3;
/// Length of a slice.
const SLICE: Duration = Duration::from_millis(300);

/// One load: the measurement of the benchmarks, and what a person wants to see beside it, ours first.
#[derive(Serialize)]
pub struct Line {
    #[serde(flatten)]
    measurement: Measurement,
    mb_per_second: [f64; 2],
    p50_us: [f64; 2],
    p99_us: [f64; 2],
    cpu_us_per_io: [f64; 2],
}

/// Measures all loads.
pub fn against_raw(
    stage: &Stage,
    client: &Arc<dyn Client>,
    image: &Path,
    say: &Say,
) -> anyhow::Result<Vec<Line>> {
    let mut disk = connect(client, SCRATCH, 1)?;
    let mut queue = disk.take_queues().pop().context("the disk has no queue")?;
    let mut ours = QueueTarget::new(&mut queue);
    // A file system without O_DIRECT serves both sides from the page cache.
    let mut raw = RawDisk::open(image, true).or_else(|_| RawDisk::open(image, false))?;
    let cases: Vec<_> = block::cases(SLICE).collect();
    let bar = say.bar("measuring against raw io_uring", cases.len() as u64);
    let mut lines = Vec::new();
    for case in cases {
        let our_cpu = || Ok(stage.cpu()? + own_cpu()?);
        let pairs = block::pairs(&case.job, PAIRS, (&mut ours, our_cpu), (&mut raw, own_cpu))?;
        let name = format!("{}.d{}", case.name, case.job.depth);
        lines.push(Line::new(name, &pairs)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(lines)
}

impl Line {
    fn new(name: String, pairs: &[(Slice, Slice)]) -> anyhow::Result<Self> {
        let both = |figure: fn(&Slice) -> f64| {
            [
                block::median(pairs.iter().map(|pair| figure(&pair.0))),
                block::median(pairs.iter().map(|pair| figure(&pair.1))),
            ]
        };
        let iops: Vec<_> = pairs.iter().map(|pair| (pair.0.iops, pair.1.iops)).collect();
        Ok(Self {
            measurement: Measurement::new(name, Unit::Rate("IOPS"), "raw io_uring", &iops)?,
            mb_per_second: both(|slice| slice.mb_per_second),
            p50_us: both(|slice| slice.p50_us),
            p99_us: both(|slice| slice.p99_us),
            cpu_us_per_io: both(|slice| slice.cpu_us),
        })
    }
}

#[derive(Tabled)]
struct Row {
    load: String,
    #[tabled(rename = "IOPS")]
    iops: String,
    #[tabled(rename = "raw")]
    raw_iops: String,
    #[tabled(rename = "MB/s")]
    mb: String,
    #[tabled(rename = "raw")]
    raw_mb: String,
    #[tabled(rename = "p50/p99 µs")]
    latency: String,
    #[tabled(rename = "raw")]
    raw_latency: String,
    #[tabled(rename = "CPU µs/IO")]
    cpu: String,
    #[tabled(rename = "raw")]
    raw_cpu: String,
    ratio: String,
}

/// The measurements as a table: Causeway's figure first, raw io_uring's beside it.
pub fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(lines.iter().map(|line| Row {
        load: line.measurement.name.clone(),
        iops: format!("{:.0}", line.measurement.ours),
        raw_iops: format!("{:.0}", line.measurement.baseline),
        mb: format!("{:.0}", line.mb_per_second[0]),
        raw_mb: format!("{:.0}", line.mb_per_second[1]),
        latency: format!("{:.0}/{:.0}", line.p50_us[0], line.p99_us[0]),
        raw_latency: format!("{:.0}/{:.0}", line.p50_us[1], line.p99_us[1]),
        cpu: format!("{:.1}", line.cpu_us_per_io[0]),
        raw_cpu: format!("{:.1}", line.cpu_us_per_io[1]),
        ratio: format!("{:.2}", line.measurement.ratio),
    }));
    table.with(Style::psql());
    table.modify(Columns::new(1..), Alignment::right());
    table
}
