// SPDX-License-Identifier: MIT OR Apache-2.0

//! Build, test and lab automation: `cargo xtask …`.

mod apt;
mod bench;
mod command;
mod debian13;
mod fuzz;
mod lab;
mod loom;
mod packages;
mod test;
mod versions;

use clap::{Parser, Subcommand};

/// Builds, tests and measures Causeway. Whatever a command needs, it installs (as root) or names.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run all tests: format, lints, documentation, unit and integration tests, models, fuzz targets, the demo, the lab.
    Test(test::Options),
    /// Measure against the stock part: `bench ring` or `bench block`.
    Bench(bench::Options),
    /// Virtual machines on the real Xen: `lab setup`, `lab test [FILTER]`, `lab shell`, `lab bench block`.
    Lab(lab::Options),
    /// Install the Debian packages that the tests need (as root), or say which are missing.
    Setup,
}

fn main() -> anyhow::Result<()> {
    std::env::set_current_dir(command::workspace())?;
    match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Lab(options) => lab::run(&options),
        Task::Setup => packages::ensure(),
    }
}
