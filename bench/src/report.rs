// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every benchmark prints: one [`Measurement`] a line, as a table or as JSON.
//!
//! ```
//! use bench::report::{Measurement, Report, Unit};
//!
//! let pairs = [(52.1e6, 47.0e6), (51.8e6, 46.2e6), (52.4e6, 47.3e6)];
//! let mut report = Report::default();
//! report.push(Measurement::new("ring.d32.p1", Unit::Rate("requests/s"), "ring.h", &pairs)?);
//! report.print(false)?;
//! # Ok::<(), anyhow::Error>(())
//! ```

use std::fmt::{self, Display};

use anyhow::ensure;
use serde::Serialize;
use tabled::{
    Table, Tabled,
    settings::{Alignment, Style, object::Columns},
};

/// What is counted, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// More is better: `requests/s`, `MB/s`.
    Rate(&'static str),
    /// Less is better: `ns`, `MiB`, `CPU µs/IO`.
    Cost(&'static str),
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Rate(name) | Self::Cost(name) => name,
        }
    }

    /// How many times better `ours` is than `baseline`.
    fn ratio(self, ours: f64, baseline: f64) -> f64 {
        match self {
            Self::Rate(_) => ours / baseline,
            Self::Cost(_) => baseline / ours,
        }
    }
}

/// One named comparison over several interleaved pairs of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// Stable dotted name: `ring.d32.p1`, `block.randread4k.d32.direct`.
    pub name: String,
    /// Unit of `ours` and `baseline`.
    pub unit: String,
    /// Median of our figures.
    pub ours: f64,
    /// Median of the baseline's figures.
    pub baseline: f64,
    /// What the baseline is: `ring.h`, `raw io_uring`.
    pub against: String,
    /// How many times better ours is: the median of the pairs' ratios.
    pub ratio: f64,
    /// 10th and 90th percentile of the pairs' ratios.
    pub spread: [f64; 2],
    /// Number of pairs.
    pub runs: usize,
}

impl Measurement {
    /// Sums up `pairs` of (ours, baseline), each taken one straight after the other.
    ///
    /// # Errors
    ///
    /// When there are no pairs, or a figure is not a positive number: a benchmark that measured nothing.
    pub fn new(
        name: impl Into<String>,
        unit: Unit,
        against: impl Into<String>,
        pairs: &[(f64, f64)],
    ) -> anyhow::Result<Self> {
        let name = name.into();
        ensure!(!pairs.is_empty(), "{name}: no runs");
        for figure in pairs.iter().flat_map(|&(ours, baseline)| [ours, baseline]) {
            ensure!(figure.is_finite() && figure > 0.0, "{name}: a run measured {figure}");
        }
        let ours = sorted(pairs.iter().map(|pair| pair.0));
        let baseline = sorted(pairs.iter().map(|pair| pair.1));
        let ratios = sorted(pairs.iter().map(|pair| unit.ratio(pair.0, pair.1)));
        Ok(Self {
            name,
            unit: unit.name().to_owned(),
            ours: percentile(&ours, 50.0),
            baseline: percentile(&baseline, 50.0),
            against: against.into(),
            ratio: percentile(&ratios, 50.0),
            spread: [percentile(&ratios, 10.0), percentile(&ratios, 90.0)],
            runs: pairs.len(),
        })
    }
}

/// All measurements of one run of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Report {
    measurements: Vec<Measurement>,
}

impl Report {
    /// Adds a line.
    pub fn push(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// The lines so far.
    pub fn measurements(&self) -> &[Measurement] {
        &self.measurements
    }

    /// One JSON array of all lines.
    ///
    /// # Errors
    ///
    /// None that a report can cause; the serializer's.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Prints to standard output, as JSON or as a table for people.
    ///
    /// # Errors
    ///
    /// As [`json`](Self::json).
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", self.json()?);
        } else {
            println!("{self}");
        }
        Ok(())
    }
}

impl Extend<Measurement> for Report {
    fn extend<I: IntoIterator<Item = Measurement>>(&mut self, measurements: I) {
        self.measurements.extend(measurements);
    }
}

/// A line of the table.
#[derive(Tabled)]
struct Row {
    name: String,
    ours: String,
    baseline: String,
    unit: String,
    against: String,
    ratio: String,
    #[tabled(rename = "p10 … p90")]
    spread: String,
    runs: usize,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(self.measurements.iter().map(|line| Row {
            name: line.name.clone(),
            ours: figure(line.ours),
            baseline: figure(line.baseline),
            unit: line.unit.clone(),
            against: line.against.clone(),
            ratio: format!("{:.2}", line.ratio),
            spread: format!("{:.2} … {:.2}", line.spread[0], line.spread[1]),
            runs: line.runs,
        }));
        table.with(Style::psql());
        table.modify(Columns::new(1..3), Alignment::right());
        table.modify(Columns::new(5..8), Alignment::right());
        table.fmt(f)
    }
}

/// A figure in three significant digits, with a prefix of the SI above 10 000.
fn figure(value: f64) -> String {
    let (value, prefix) = match value {
        v if v >= 1e10 => (v / 1e9, "G"),
        v if v >= 1e7 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{}{prefix}", if prefix.is_empty() { "" } else { " " })
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// The percentile of figures in ascending order, at least one, interpolated between the two nearest.
fn percentile(ascending: &[f64], percent: f64) -> f64 {
    let place = percent / 100.0 * (ascending.len() - 1) as f64;
    let (below, above) = (ascending[place.floor() as usize], ascending[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_ours_over_baseline_and_cost_the_other_way() {
        let pairs = [(20.0, 10.0); 3];
        let rate = Measurement::new("a", Unit::Rate("1/s"), "b", &pairs).unwrap();
        let cost = Measurement::new("a", Unit::Cost("ns"), "b", &pairs).unwrap();
        assert_eq!((rate.ratio, rate.spread), (2.0, [2.0, 2.0]));
        assert_eq!((cost.ratio, cost.spread), (0.5, [0.5, 0.5]));
        assert_eq!((rate.ours, rate.baseline, rate.runs), (20.0, 10.0, 3));
    }

    #[test]
    fn ratio_is_the_median_over_pairs_not_the_ratio_of_medians() {
        // The second half ran on a busy machine: both sides slow down alike.
        let pairs = [(100.0, 50.0), (100.0, 50.0), (90.0, 60.0), (10.0, 5.0), (12.0, 5.0)];
        let line = Measurement::new("a", Unit::Rate("1/s"), "b", &pairs).unwrap();
        assert_eq!(line.ratio, 2.0);
        assert!((line.spread[0] - 1.7).abs() < 1e-9, "{:?}", line.spread);
        assert!((line.spread[1] - 2.24).abs() < 1e-9, "{:?}", line.spread);
    }

    #[test]
    fn percentile_interpolates() {
        let eleven: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!(percentile(&eleven, 10.0), 1.0);
        assert_eq!(percentile(&eleven, 50.0), 5.0);
        assert_eq!(percentile(&[1.0, 2.0], 50.0), 1.5);
        assert_eq!(percentile(&[7.0], 90.0), 7.0);
    }

    #[test]
    fn a_benchmark_that_measured_nothing_is_an_error() {
        for pairs in [&[][..], &[(0.0, 1.0)], &[(1.0, f64::NAN)], &[(f64::INFINITY, 1.0)]] {
            let error = Measurement::new("x.y", Unit::Rate("1/s"), "b", pairs).unwrap_err();
            assert!(error.to_string().starts_with("x.y: "), "{error}");
        }
    }

    #[test]
    fn json_has_the_agreed_fields_in_their_order() {
        let mut report = Report::default();
        report.push(Measurement::new("a.b", Unit::Cost("ns"), "c", &[(2.0, 3.0)]).unwrap());
        let json: String = report.json().unwrap().split_whitespace().collect();
        assert_eq!(
            json,
            r#"[{"name":"a.b","unit":"ns","ours":2.0,"baseline":3.0,"against":"c","ratio":1.5,"spread":[1.5,1.5],"runs":1}]"#
        );
    }

    #[test]
    fn figures_keep_three_digits() {
        let shown = [0.5, 9.994, 47.04, 9999.0, 52_140.0, 47_000_000.0, 3.2e10].map(figure);
        assert_eq!(shown, ["0.50", "9.99", "47.0", "9999", "52.1 k", "47.0 M", "32.0 G"]);
    }
}
