// SPDX-License-Identifier: MIT OR Apache-2.0

//! The statistics of a backend's disks: as a table, as JSON, and as Prometheus text.

use std::fmt::Write;

use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use crate::stats::{COUNTERS, Latency, QueueReport};

/// One disk at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    /// The frontend's domain.
    pub frontend: u16,
    /// Number of the virtual device.
    pub device: u32,
    /// Its image.
    pub image: String,
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether aligned requests go past the page cache.
    pub direct_io: bool,
    /// Its queues, in order.
    pub queues: Vec<QueueReport>,
}

/// Renders disks as a table with a line for each queue.
pub fn table(disks: &[DiskReport]) -> String {
    let mut builder = Builder::default();
    builder.push_record([
        "disk",
        "queue",
        "reads",
        "writes",
        "flushes",
        "MiB read",
        "MiB written",
        "errors",
        "p50 µs",
        "p99 µs",
        "requests/batch",
        "doorbells",
        "saved",
    ]);
    for disk in disks {
        for (number, queue) in disk.queues.iter().enumerate() {
            let answered = queue.latency.count();
            builder.push_record([
                format!("{}/{}", disk.frontend, disk.device),
                number.to_string(),
                queue.reads.to_string(),
                queue.writes.to_string(),
                queue.flushes.to_string(),
                (queue.read_sectors / 2048).to_string(),
                (queue.written_sectors / 2048).to_string(),
                (queue.io_errors + queue.refused).to_string(),
                micros(&queue.latency, 0.5),
                micros(&queue.latency, 0.99),
                format!("{:.1}", answered as f64 / queue.batches.max(1) as f64),
                queue.doorbells.to_string(),
                queue.doorbells_saved.to_string(),
            ]);
        }
    }
    let mut table = builder.build();
    table.with(Style::blank()).modify(Columns::new(1..), Alignment::right());
    table.to_string() + "\n"
}

fn micros(latency: &Latency, share: f64) -> String {
    format!("{:.1}", latency.percentile(share) as f64 / 1000.0)
}

/// Renders disks as JSON: an array of [`DiskReport`].
pub fn json(disks: &[DiskReport]) -> String {
    // Numbers, strings and arrays of them always have a form in JSON.
    serde_json::to_string_pretty(disks).unwrap_or_default() + "\n"
}

/// Renders disks in the text format of Prometheus.
pub fn prometheus(disks: &[DiskReport]) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = text.write_fmt(arguments);
        text.push('\n');
    };
    type Gauge = (&'static str, &'static str, fn(&DiskReport) -> u64);
    let gauges: [Gauge; 2] = [
        ("sectors", "Size in sectors of 512 bytes.", |disk| disk.sectors),
        ("direct_io", "Whether aligned requests go past the page cache.", |disk| {
            disk.direct_io.into()
        }),
    ];
    for (name, help, value) in gauges {
        line(format_args!("# HELP causeway_block_{name} {help}"));
        line(format_args!("# TYPE causeway_block_{name} gauge"));
        for disk in disks {
            line(format_args!("causeway_block_{name}{{{}}} {}", labels(disk), value(disk)));
        }
    }
    for (at, (name, help, kind)) in COUNTERS.iter().enumerate() {
        let name = if *kind == "counter" { format!("{name}_total") } else { name.to_string() };
        line(format_args!("# HELP causeway_block_{name} {}", help.trim()));
        line(format_args!("# TYPE causeway_block_{name} {kind}"));
        for (disk, number, queue) in queues(disks) {
            let value = queue.values().get(at).copied().unwrap_or_default();
            line(format_args!(
                "causeway_block_{name}{{{},queue=\"{number}\"}} {value}",
                labels(disk)
            ));
        }
    }
    line(format_args!("# HELP causeway_block_latency_seconds How long requests took."));
    line(format_args!("# TYPE causeway_block_latency_seconds histogram"));
    for (disk, number, queue) in queues(disks) {
        let labels = format!("{},queue=\"{number}\"", labels(disk));
        let mut below = 0;
        for &(nanos, count) in &queue.latency.buckets {
            below += count;
            let seconds = nanos as f64 / 1e9;
            line(format_args!(
                "causeway_block_latency_seconds_bucket{{{labels},le=\"{seconds}\"}} {below}"
            ));
        }
        let sum = queue.latency.total_ns as f64 / 1e9;
        line(format_args!("causeway_block_latency_seconds_bucket{{{labels},le=\"+Inf\"}} {below}"));
        line(format_args!("causeway_block_latency_seconds_sum{{{labels}}} {sum}"));
        line(format_args!("causeway_block_latency_seconds_count{{{labels}}} {below}"));
    }
    text
}

fn queues(disks: &[DiskReport]) -> impl Iterator<Item = (&DiskReport, usize, &QueueReport)> {
    disks.iter().flat_map(|disk| {
        disk.queues.iter().enumerate().map(move |(number, queue)| (disk, number, queue))
    })
}

fn labels(disk: &DiskReport) -> String {
    format!("frontend=\"{}\",device=\"{}\"", disk.frontend, disk.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::QueueStats;

    fn disks() -> Vec<DiskReport> {
        let stats = QueueStats::default();
        stats.reads.add(12);
        stats.read_sectors.add(4096);
        stats.batches.add(3);
        [900, 90_000, 91_000].iter().for_each(|&nanos| stats.latency.record(nanos));
        let queues = vec![stats.report(), QueueReport::default()];
        vec![DiskReport {
            frontend: 5,
            device: 51712,
            image: "/srv/disk \"1\".img".into(),
            sectors: 8192,
            read_only: false,
            direct_io: true,
            queues,
        }]
    }

    #[test]
    fn the_table_has_a_line_for_each_queue() {
        let table = table(&disks());
        assert_eq!(table.lines().count(), 3, "{table}");
        let first: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(first[..6], ["5/51712", "0", "12", "0", "0", "2"], "{table}");
    }

    #[test]
    fn the_json_parses_and_keeps_the_numbers() {
        let value: serde_json::Value = serde_json::from_str(&json(&disks())).unwrap();
        assert_eq!(value[0]["queues"][0]["reads"], 12);
        assert_eq!(value[0]["image"], "/srv/disk \"1\".img");
    }

    /// Each metric has its help and type first, and a histogram's buckets rise to its count.
    #[test]
    fn the_prometheus_text_is_well_formed() {
        let text = prometheus(&disks());
        let mut typed = std::collections::BTreeMap::new();
        let mut buckets = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(typed.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value: f64 = value.parse().unwrap();
                let name = series.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| {
                    name.strip_suffix(end).filter(|base| typed.contains_key(*base)).unwrap_or(name)
                });
                assert!(typed.contains_key(base), "{line} has no type");
                if name.ends_with("_bucket") && series.contains("queue=\"0\"") {
                    buckets.push(value);
                }
            }
        }
        assert!(buckets.is_sorted() && buckets.last() == Some(&3.0), "{buckets:?}");
        assert!(text.contains(
            "causeway_block_reads_total{frontend=\"5\",device=\"51712\",queue=\"0\"} 12\n"
        ));
    }
}
