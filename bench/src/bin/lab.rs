// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab FOLDER`: the report on what `cargo xtask lab bench` measured.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use bench::lab::{compare, counts, memory, profile};
use bench::report::Report;
use clap::Parser;

/// Reports on the files of the lab's machines.
#[derive(Parser)]
struct Options {
    /// Where they are: `0.runs`, `0.counts`, `1.runs` and so on.
    folder: PathBuf,
    /// What the names begin with.
    #[arg(long, default_value = "blk")]
    prefix: String,
    /// What an idle disk costs in memory: the machines ran that load.
    #[arg(long)]
    memory: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print a profile of this cell instead, of the machine 0.
    #[arg(long)]
    profile: Option<String>,
    /// Whose profile, as FRONT/BACK, two of them.
    #[arg(long, value_delimiter = ',', default_value = "ours/ours,stock/stock")]
    ends: Vec<String>,
    /// How many symbols of each part.
    #[arg(long, default_value_t = 40)]
    top: usize,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let file = |number: usize, kind: &str| options.folder.join(format!("{number}.{kind}"));
    if options.memory {
        let texts = (0..).map(|number| fs::read_to_string(file(number, "runs")));
        let texts: Vec<_> = texts.map_while(Result::ok).collect();
        let mut report = Report::default();
        report.extend(memory::compare(&options.prefix, &texts)?);
        return report.print(options.json);
    }
    let mut machines = Vec::new();
    while file(machines.len(), "runs").exists() {
        let number = machines.len();
        machines.push(counts::read(&file(number, "runs"), &file(number, "counts"))?);
    }
    ensure!(!machines.is_empty(), "no machine's files in {}", options.folder.display());
    if let Some(cell) = &options.profile {
        let text = |kind| {
            let bytes = fs::read(file(0, kind)).with_context(|| format!("no file 0.{kind}"))?;
            anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let [left, right] = &options.ends[..] else { anyhow::bail!("--ends takes two") };
        let (profile, symbols) = (text("profile")?, text("symbols")?);
        let ends = [left.as_str(), right.as_str()];
        print!("{}", profile::compare(&machines[0], &profile, &symbols, cell, ends, options.top)?);
        return Ok(());
    }
    let mut report = Report::default();
    report.extend(compare::compare(&options.prefix, &machines)?);
    report.print(options.json)?;
    if !options.json {
        println!(
            "\nInstructions per request, by part of the machine:\n\n{}",
            compare::parts(&machines)
        );
    }
    Ok(())
}
