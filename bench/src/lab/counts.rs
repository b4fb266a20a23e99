// SPDX-License-Identifier: MIT OR Apache-2.0

//! The counts of one run of the load.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What was executed between the marks, as the plugin counts it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Counts {
    /// Instructions of the hypervisor.
    pub xen: u64,
    /// Instructions of Dom0's kernel.
    pub dom0_kernel: u64,
    /// Instructions of Dom0's programs.
    pub dom0_user: u64,
    /// Instructions of the guests' kernels.
    pub guest_kernel: u64,
    /// Instructions of the guests' programs.
    pub guest_user: u64,
    /// How often the processor entered a guest; each ends with an exit.
    pub vm_entries: u64,
    /// Dom0's hypercalls, by `number.command`.
    pub dom0_hypercalls: BTreeMap<String, u64>,
    /// The guests' hypercalls.
    pub guest_hypercalls: BTreeMap<String, u64>,
}

/// `EVTCHNOP_send`, as the plugin names it.
const SEND: &str = "32.4";

impl Counts {
    /// All instructions.
    pub fn instructions(&self) -> u64 {
        self.xen + self.dom0_kernel + self.dom0_user + self.guest_kernel + self.guest_user
    }

    /// All hypercalls.
    pub fn hypercalls(&self) -> u64 {
        self.dom0_hypercalls.values().chain(self.guest_hypercalls.values()).sum()
    }

    /// Doorbells, both ways.
    pub fn notifications(&self) -> u64 {
        [&self.dom0_hypercalls, &self.guest_hypercalls]
            .iter()
            .filter_map(|calls| calls.get(SEND))
            .sum()
    }
}

/// One run of the load.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which blkfront: `ours` or `stock`.
    pub front: String,
    /// Which backend: `ours`, `stock` or `uring`.
    pub back: String,
    /// What was done: `randread4k.d1.q1`.
    pub cell: String,
    /// How many requests.
    pub requests: f64,
    /// How long they took in the guest, and the other values that the load printed.
    pub values: BTreeMap<String, f64>,
    /// What they cost.
    pub counts: Counts,
}

/// Reads a machine's two files.
///
/// # Errors
///
/// When a file is missing or broken, or they do not fit together.
pub fn read(runs: &Path, counts: &Path) -> Result<Vec<Run>> {
    let text = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (runs, counts) = (text(runs)?, text(counts)?);
    parse(&runs, &counts)
}

fn parse(runs: &str, counts: &str) -> Result<Vec<Run>> {
    let (lines, figures) = (runs.lines().count(), counts.lines().count());
    ensure!(lines == figures, "{lines} runs of the load, but {figures} lines of counts");
    runs.lines()
        .zip(counts.lines())
        .map(|(run, counts)| {
            let counts = serde_json::from_str(counts).context("a line of counts is broken")?;
            run_of(run, counts).with_context(|| format!("the run `{run}`"))
        })
        .collect()
}

fn run_of(line: &str, counts: Counts) -> Result<Run> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().map(str::to_owned).context("too short");
    let (front, back, cell) = (word()?, word()?, word()?);
    let mut values = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').context("not key=value")?;
        values.insert(key.to_owned(), value.parse()?);
    }
    let requests = values.get("requests").copied().context("no requests")?;
    Ok(Run { front, back, cell, requests, values, counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: &str = r#"{"xen": 10, "dom0_kernel": 20, "dom0_user": 0, "guest_kernel": 30, "guest_user": 1,
        "vm_entries": 4, "dom0_hypercalls": {"32.4": 2, "3.0": 6}, "guest_hypercalls": {"32.4": 3}}"#;

    #[test]
    fn a_run_is_a_line_of_each_file() {
        let counts = COUNTS.replace('\n', "");
        let runs = parse("ours stock randread4k.d1.q1 requests=2 ns=30\n", &counts).unwrap();
        assert_eq!(runs[0].cell, "randread4k.d1.q1");
        assert_eq!((runs[0].requests, runs[0].values["ns"]), (2.0, 30.0));
        let counts = &runs[0].counts;
        assert_eq!(
            (counts.instructions(), counts.hypercalls(), counts.notifications()),
            (61, 11, 5)
        );
    }

    #[test]
    fn a_run_without_counts_is_an_error() {
        assert!(parse("ours stock x requests=2\n", "").is_err());
        let counts = COUNTS.replace('\n', "");
        assert!(parse("ours stock x blkload: No such device\n", &counts).is_err());
    }
}
