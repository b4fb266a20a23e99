// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an idle disk costs in memory, ours beside stock's.

use anyhow::{Context, Result, ensure};

use crate::report::{Measurement, Unit};

/// Compares what machines reported: lines `END WHOSE KIB`, where the k-th of `ours` belongs to the k-th of `stock`.
///
/// # Errors
///
/// When a line is none of these, or nothing was measured.
pub fn compare(prefix: &str, machines: &[String]) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for (end, name) in [("backend", "back"), ("frontend", "front")] {
        let mut pairs = Vec::new();
        for text in machines {
            let (ours, stock) = (figures(text, end, "ours")?, figures(text, end, "stock")?);
            ensure!(
                ours.len() == stock.len(),
                "{} figures of ours, {} of stock",
                ours.len(),
                stock.len()
            );
            pairs.extend(ours.into_iter().zip(stock));
        }
        let name = format!("{prefix}.memory.idle.{name}");
        measurements.push(Measurement::new(name, Unit::Cost("KiB"), "stock", &pairs)?);
    }
    Ok(measurements)
}

fn figures(text: &str, end: &str, whose: &str) -> Result<Vec<f64>> {
    let beginning = format!("{end} {whose} ");
    let figures = text.lines().filter_map(|line| line.strip_prefix(&beginning));
    figures.map(|kib| kib.parse().with_context(|| format!("{kib} is no number of KiB"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str =
        "backend stock 1300\nbackend ours 130\nfrontend stock 4000\nfrontend ours 200\n";

    #[test]
    fn rounds_are_compared_in_pairs() {
        let machines = [LINES.to_owned(), LINES.replace("ours 130", "ours 260")];
        let measurements = compare("blk", &machines).unwrap();
        assert_eq!(measurements[0].name, "blk.memory.idle.back");
        assert_eq!((measurements[0].runs, measurements[0].ratio), (2, 7.5));
        assert_eq!((measurements[1].ours, measurements[1].baseline), (200.0, 4000.0));
    }

    #[test]
    fn a_round_without_its_other_half_is_an_error() {
        assert!(compare("blk", &[LINES.replace("backend ours 130\n", "")]).is_err());
        assert!(compare("blk", &[LINES.replace("130", "much")]).is_err());
    }
}
