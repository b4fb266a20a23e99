// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs of the load on several machines, compared in pairs.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tabled::{
    builder::Builder,
    settings::{Alignment, Style, object::Columns},
};

use super::counts::{Counts, Run};
use crate::report::{Measurement, Unit};

/// Ends of the disk: the frontend and the backend.
type Ends = (&'static str, &'static str);

/// What is compared: the last part of the name, our ends, the baseline's, and what that is called.
const COMPARISONS: &[(&str, Ends, Ends, &str)] = &[
    ("both", ("ours", "ours"), ("stock", "stock"), "stock both"),
    ("front", ("ours", "stock"), ("stock", "stock"), "stock both"),
    ("back", ("stock", "ours"), ("stock", "stock"), "stock both"),
    ("uring", ("ours", "uring"), ("ours", "ours"), "our blkback"),
];

/// What is counted per request: the end of the name, the unit.
type Figure = (&'static str, &'static str, fn(&Counts) -> u64);

const FIGURES: &[Figure] = &[
    ("", "instructions", Counts::instructions),
    (".vm-entries", "VM entries", |counts| counts.vm_entries),
    (".hypercalls", "hypercalls", Counts::hypercalls),
    (".notifications", "notifications", Counts::notifications),
];

/// Compares what `machines` measured, each a list of runs. The k-th run of a cell with some ends is compared with the
/// k-th of the same cell and machine with the baseline's ends: a load's first run differs from its second.
///
/// # Errors
///
/// When there is nothing to compare.
pub fn compare(prefix: &str, machines: &[Vec<Run>]) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for cell in cells(machines) {
        for &(name, ours, baseline, against) in COMPARISONS {
            for &(suffix, unit, figure) in FIGURES {
                let mut pairs = Vec::new();
                for runs in machines {
                    let figures = |ends| per_request(runs, ends, &cell, figure);
                    pairs.extend(figures(ours).into_iter().zip(figures(baseline)));
                }
                if !pairs.is_empty() {
                    let name = format!("{prefix}.{cell}.{name}{suffix}");
                    measurements.push(Measurement::new(name, Unit::Cost(unit), against, &pairs)?);
                }
            }
        }
    }
    ensure!(!measurements.is_empty(), "no two pairs of drivers did the same");
    Ok(measurements)
}

/// The cells in the order of the names.
fn cells(machines: &[Vec<Run>]) -> BTreeSet<String> {
    machines.iter().flatten().map(|run| run.cell.clone()).collect()
}

fn per_request(runs: &[Run], ends: Ends, cell: &str, figure: fn(&Counts) -> u64) -> Vec<f64> {
    runs.iter()
        .filter(|run| (run.front.as_str(), run.back.as_str()) == ends && run.cell == cell)
        .map(|run| figure(&run.counts) as f64 / run.requests)
        .collect()
}

/// A table of what a request costs in each part of the machine, for each cell and pair of drivers: the medians.
pub fn parts(machines: &[Vec<Run>]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "cell",
        "front",
        "back",
        "all",
        "Xen",
        "Dom0",
        "guest",
        "VM entries",
        "hypercalls",
        "doorbells",
    ]);
    let ends: BTreeSet<_> =
        machines.iter().flatten().map(|run| (run.front.clone(), run.back.clone())).collect();
    for cell in cells(machines) {
        for (front, back) in &ends {
            let runs: Vec<_> = machines
                .iter()
                .flatten()
                .filter(|run| run.cell == cell && run.front == *front && run.back == *back)
                .collect();
            if runs.is_empty() {
                continue;
            }
            let median = |figure: &dyn Fn(&Counts) -> u64| {
                let mut figures: Vec<_> =
                    runs.iter().map(|run| figure(&run.counts) as f64 / run.requests).collect();
                figures.sort_by(f64::total_cmp);
                figures[figures.len() / 2]
            };
            let whole = |figure: &dyn Fn(&Counts) -> u64| format!("{:.0}", median(figure));
            let part = |figure: &dyn Fn(&Counts) -> u64| format!("{:.2}", median(figure));
            table.push_record([
                cell.clone(),
                front.clone(),
                back.clone(),
                whole(&Counts::instructions),
                whole(&|counts| counts.xen),
                whole(&|counts| counts.dom0_kernel + counts.dom0_user),
                whole(&|counts| counts.guest_kernel + counts.guest_user),
                part(&|counts| counts.vm_entries),
                part(&Counts::hypercalls),
                part(&Counts::notifications),
            ]);
        }
    }
    let mut table = table.build();
    table.with(Style::psql());
    table.modify(Columns::new(3..10), Alignment::right());
    table.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn run(front: &str, back: &str, instructions: u64) -> Run {
        let calls = BTreeMap::from([("32.4".to_owned(), 10)]);
        Run {
            front: front.into(),
            back: back.into(),
            cell: "randread4k.d1.q1".into(),
            requests: 10.0,
            values: BTreeMap::new(),
            counts: Counts {
                xen: instructions,
                vm_entries: 30,
                dom0_hypercalls: calls.clone(),
                guest_hypercalls: calls,
                ..Counts::default()
            },
        }
    }

    #[test]
    fn equal_ordinals_of_one_machine_are_compared() {
        // The second run of each is dearer, and the second machine's are, too.
        let machine = |more: u64| {
            vec![
                run("stock", "stock", 1000 + more),
                run("ours", "ours", 500 + more / 2),
                run("stock", "stock", 2000 + more),
                run("ours", "ours", 1000 + more / 2),
            ]
        };
        let found = compare("blk", &[machine(0), machine(500)]).unwrap();
        assert_eq!(found[0].name, "blk.randread4k.d1.q1.both");
        assert_eq!((found[0].ratio, found[0].runs), (2.0, 4));
        assert_eq!(found[3].name, "blk.randread4k.d1.q1.both.notifications");
        assert_eq!(found[3].ours, 2.0);
    }

    #[test]
    fn uring_is_compared_with_our_blkback() {
        let runs = vec![run("ours", "uring", 300), run("ours", "ours", 200)];
        let found = compare("blk", &[runs]).unwrap();
        assert_eq!((found[0].against.as_str(), found[0].ours), ("our blkback", 30.0));
    }

    #[test]
    fn nothing_to_compare_is_an_error() {
        assert!(compare("blk", &[vec![run("ours", "stock", 1)]]).is_err());
    }
}
