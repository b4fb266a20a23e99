// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an idle disk and a module cost in memory, ours beside stock's.

use anyhow::{Context, Result, ensure};

use crate::report::{Measurement, Unit};

/// Compares what machines reported: lines `END WHOSE KIB`, where the k-th of `ours` belongs to the k-th of `stock`.
///
/// # Errors
///
/// When a line is none of these, or nothing was measured.
pub fn compare(prefix: &str, machines: &[String]) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for (end, name) in [
        ("backend", "idle.back"),
        ("frontend", "idle.front"),
        ("backend-module", "module.back"),
        ("frontend-module", "module.front"),
    ] {
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
        let name = format!("{prefix}.memory.{name}");
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

    const LINES: &str = "\
backend-module stock 40
backend-module ours 200
frontend-module stock 30
frontend-module ours 150
backend stock 1300
backend ours 130
frontend stock 4000
frontend ours 200
";

    #[test]
    fn rounds_are_compared_in_pairs() {
        let machines = [LINES.to_owned(), LINES.replace("ours 130", "ours 260")];
        let measurements = compare("blk", &machines).unwrap();
        assert_eq!(measurements[0].name, "blk.memory.idle.back");
        assert_eq!((measurements[0].runs, measurements[0].ratio), (2, 7.5));
        assert_eq!((measurements[1].ours, measurements[1].baseline), (200.0, 4000.0));
        assert_eq!(measurements[2].name, "blk.memory.module.back");
        assert_eq!((measurements[3].ours, measurements[3].baseline), (150.0, 30.0));
    }

    #[test]
    fn a_round_without_its_other_half_is_an_error() {
        assert!(compare("blk", &[LINES.replace("backend ours 130\n", "")]).is_err());
        assert!(compare("blk", &[LINES.replace("130", "much")]).is_err());
    }
}
